//! What names a key to people: `SHA256:` and the digest of its blob.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

/// The SHA-256 fingerprint of a public key, printed as `ssh-keygen -l` does: `SHA256:` and 43
/// characters of base64 without padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; SHA256_OUTPUT_LEN]);

/// The text is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is \"SHA256:\" and 43 characters, as ssh-keygen -l prints it")]
pub struct NotAFingerprint;

const PREFIX: &str = "SHA256:";

impl Fingerprint {
    /// The fingerprint of a key's blob (RFC 4253, 6.6).
    #[must_use]
    pub fn of_blob(blob: &[u8]) -> Self {
        // By the library that TLS has started already: another one would ask the processor anew what it can,
        // for which a virtual machine is left each time.
        let mut print = [0; SHA256_OUTPUT_LEN];
        print.copy_from_slice(digest(&SHA256, blob).as_ref());
        Self(print)
    }

    /// Its first bytes, by which many are put in an order faster than by all of them.
    pub(super) fn start(&self) -> u64 {
        self.0.first_chunk().map_or(0, |start| u64::from_be_bytes(*start))
    }
}

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let digits = text.strip_prefix(PREFIX).ok_or(NotAFingerprint)?;
        let bytes = STANDARD_NO_PAD.decode(digits).map_err(|_| NotAFingerprint)?;
        bytes.try_into().map(Self).map_err(|_| NotAFingerprint)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip() {
        let print = Fingerprint::of_blob(b"");
        // printf '' | openssl dgst -sha256 -binary | base64
        let text = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
        assert_eq!(print.to_string(), text);
        assert_eq!(text.parse(), Ok(print));
    }

    #[test]
    fn other_texts_are_refused() {
        let text = Fingerprint::of_blob(b"").to_string();
        for bad in [
            "",
            "SHA256:",
            "MD5:00:11",
            &text[7..],
            &format!("{text}="),
            &format!("{text}A"),
            &text[..text.len() - 1],
            &text.replace("SHA256", "sha256"),
        ] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(NotAFingerprint), "{bad}");
        }
    }
}
