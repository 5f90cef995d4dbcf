//! The running SHA-256 of a stream, with the count of bytes that it covers.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256};

/// Bytes of a digest.
pub const DIGEST_LEN: usize = 32;
/// Name of the algorithm, as `started` gives it.
pub const HASH_NAME: &str = "sha256";

/// A SHA-256 digest; 64 lower-case hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; DIGEST_LEN]);

impl Digest {
    /// The digest of nothing: of most streams of short commands. Asked for it, a program that hashes nothing
    /// else would find out first what the processor can, which takes longer.
    pub const EMPTY: Self = Self([
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9,
        0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52,
        0xb8, 0x55,
    ]);

    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads 64 hexadecimal digits; none otherwise.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            std::str::from_utf8(&hex::<DIGEST_LEN, { DIGEST_LEN * 2 }>(&self.0))
                .map_err(|_| fmt::Error)?,
        )
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::from_hex(&text).ok_or_else(|| D::Error::custom("a hash is 64 hexadecimal digits"))
    }
}

fn hex<const N: usize, const M: usize>(bytes: &[u8; N]) -> [u8; M] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [0; M];
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    out
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2
        || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    {
        return None;
    }
    let mut out = [0; N];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}

/// The digest of a stream from its first byte to where it stands.
#[derive(Clone, Default)]
pub struct Running {
    hasher: Sha256,
    offset: u64,
}

/// Bytes of a [`State`]: sha2's serialised hasher.
pub const STATE_LEN: usize = 104;

/// A hasher's whole state, as a `mark` frame carries it, so that a reader who joins late can go on from here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State(pub [u8; STATE_LEN]);

impl Running {
    /// Nothing hashed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on from a mark at `offset`; none if the state does not cover as many bytes.
    #[must_use]
    pub fn resume(state: &State, offset: u64) -> Option<Self> {
        let hasher = Sha256::deserialize(&state.0.into()).ok()?;
        Some(Self { hasher, offset })
    }

    /// Takes the stream's next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
    }

    /// How many bytes were taken.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The digest of what was taken so far. A clone is finalised: no byte is hashed twice.
    #[must_use]
    pub fn digest(&self) -> Digest {
        if self.offset == 0 {
            return Digest::EMPTY;
        }
        Digest(self.hasher.clone().finalize().into())
    }

    /// The state to put into a mark.
    #[must_use]
    pub fn state(&self) -> State {
        State(self.hasher.serialize().into())
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("offset", &self.offset)
            .field("digest", &self.digest())
            .finish()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State(104 bytes)")
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let hex = hex::<STATE_LEN, { STATE_LEN * 2 }>(&self.0);
        s.serialize_str(std::str::from_utf8(&hex).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        from_hex(&text)
            .map(Self)
            .ok_or_else(|| D::Error::custom("a hasher's state is 208 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answer() {
        // FIPS 180-4's example, as `printf abc | sha256sum` prints it.
        assert_eq!(
            Digest::of(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn nothing_has_a_digest_too() {
        assert_eq!(Digest::EMPTY, Digest::of(b""));
        assert_eq!(Running::new().digest(), Digest::EMPTY);
        let resumed = Running::resume(&Running::new().state(), 0).unwrap();
        assert_eq!(resumed.digest(), Digest::EMPTY);
    }

    #[test]
    fn pieces_add_up() {
        let mut running = Running::new();
        running.update(b"a");
        running.update(b"bc");
        assert_eq!((running.digest(), running.offset()), (Digest::of(b"abc"), 3));
    }

    #[test]
    fn a_mark_goes_on_where_it_was_taken() {
        let mut running = Running::new();
        running.update(&[7; 100]);
        let mut resumed = Running::resume(&running.state(), 100).unwrap();
        running.update(b"x");
        resumed.update(b"x");
        assert_eq!(running.digest(), resumed.digest());
    }

    #[test]
    fn hex_is_strict() {
        let digest = Digest::of(b"");
        assert_eq!(Digest::from_hex(&digest.to_string()), Some(digest));
        assert_eq!(Digest::from_hex(&digest.to_string().to_uppercase()), None);
        assert_eq!(Digest::from_hex("ab"), None);
        assert_eq!(Digest::from_hex(&"+1".repeat(32)), None);
    }
}
