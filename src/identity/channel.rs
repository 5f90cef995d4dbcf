//! What a proof of a key holds on to, so that it is worth nothing on another connection.

use std::fmt;

use super::Fingerprint;

/// What both ends of one TLS connection know, and nobody else's connection shares.
#[derive(Clone)]
pub struct Channel {
    /// The key that the server showed and proved.
    pub host_key: Fingerprint,
    /// 32 bytes of the exporter (RFC 8446, 7.5), label `EXPORTER-rexec-auth-v1`, empty context.
    pub exporter: [u8; 32],
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({}, exporter hidden)", self.host_key)
    }
}
