//! Addresses, and the streams between them: TLS over TCP, and unix sockets.
//!
//! On TCP the server shows its Ed25519 host key as a raw public key (RFC 7250) over TLS 1.3; the client
//! shows none there, it proves its key later over the exporter of the [channel](crate::identity::Channel). On unix sockets
//! the kernel tells each side whose process the other is.

mod bind_error;
mod dial;
mod endpoint;
mod host_key_error;
mod inherited;
mod listen;
mod socket_file;
mod stream;
mod tls;
mod trust;
mod verifier;
#[cfg(target_arch = "x86_64")]
mod x25519;

pub use bind_error::BindError;
pub use dial::{ClientStream, DialError, Tried, connect, host_key};
pub use endpoint::{Endpoint, EndpointError, Host, ListenAddr};
pub use host_key_error::{HostKeyError, UnknownHost};
pub use inherited::{InheritError, Inherited};
pub use listen::{
    Accepted, Bound, HandshakeError, Listener, Peer, ServerStream, bind, claim_or_bind, claim_rest,
};
pub use stream::{Cork, Stream};
pub use tls::{ALPN, BUFFER_LIMIT, EXPORTER_LABEL, TlsFault, TlsServer};
pub use trust::{HostTrust, NewHosts, Own};
pub use verifier::HostKeyCheck;
