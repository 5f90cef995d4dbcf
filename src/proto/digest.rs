//! The running digest of a stream, with the count of bytes that it covers.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256};

/// Bytes of a digest.
pub const DIGEST_LEN: usize = 32;

/// How the digests of a run's streams are made. All are [`DIGEST_LEN`] bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256 (FIPS 180-4), which every program of this protocol knows.
    #[default]
    Sha256,
    /// BLAKE3, several times as fast on processors with wide vectors.
    #[cfg(feature = "blake3")]
    Blake3,
}

impl Algorithm {
    /// All that this program knows.
    pub const ALL: &[Self] = &[
        Self::Sha256,
        #[cfg(feature = "blake3")]
        Self::Blake3,
    ];

    /// Its name in the protocol.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            #[cfg(feature = "blake3")]
            Self::Blake3 => "blake3",
        }
    }

    /// Its name as a header's member that is left out for SHA-256.
    #[must_use]
    pub fn member(self) -> Option<String> {
        (self != Self::Sha256).then(|| self.name().into())
    }

    /// What such a member says; none if this program does not know it.
    #[must_use]
    pub fn from_member(member: Option<&str>) -> Option<Self> {
        member.map_or(Some(Self::Sha256), Self::from_name)
    }

    /// The one of this name; none if this program does not know it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|algorithm| algorithm.name() == name)
    }
}

/// A digest; 64 lower-case hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; DIGEST_LEN]);

impl Digest {
    /// The SHA-256 of nothing: of most streams of short commands. Asked for it, a program that hashes nothing
    /// else would find out first what the processor can, which takes longer.
    pub const EMPTY: Self = Self([
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9,
        0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52,
        0xb8, 0x55,
    ]);

    /// The SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads 64 hexadecimal digits; none otherwise.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// Its hexadecimal digits.
    pub(super) fn hex(&self) -> [u8; DIGEST_LEN * 2] {
        hex(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.hex()).map_err(|_| fmt::Error)?)
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
    hasher: Hasher,
    offset: u64,
}

#[derive(Clone)]
enum Hasher {
    Sha256(Sha256),
    /// Nearly 2 KiB, which a run without it need not hold.
    #[cfg(feature = "blake3")]
    Blake3(Box<blake3::Hasher>),
}

impl Default for Hasher {
    fn default() -> Self {
        Self::Sha256(Sha256::default())
    }
}

/// Bytes of a [`State`]: sha2's serialised hasher.
pub const STATE_LEN: usize = 104;

/// The whole state of a SHA-256 hasher, as a `mark` frame carries it, so that a reader who joins late can go on from here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State(pub [u8; STATE_LEN]);

impl Running {
    /// Nothing hashed yet; SHA-256.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing hashed yet.
    #[must_use]
    pub fn by(algorithm: Algorithm) -> Self {
        let hasher = match algorithm {
            Algorithm::Sha256 => Hasher::default(),
            #[cfg(feature = "blake3")]
            Algorithm::Blake3 => Hasher::Blake3(Box::default()),
        };
        Self { hasher, offset: 0 }
    }

    /// Goes on with SHA-256 from a mark at `offset`; none if the state does not cover as many bytes.
    #[must_use]
    pub fn resume(state: &State, offset: u64) -> Option<Self> {
        let hasher = Sha256::deserialize(&state.0.into()).ok()?;
        Some(Self { hasher: Hasher::Sha256(hasher), offset })
    }

    /// Takes the stream's next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.hasher {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            #[cfg(feature = "blake3")]
            Hasher::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
        self.offset += bytes.len() as u64;
    }

    /// How many bytes were taken.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The digest of what was taken so far. No byte is hashed twice.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match &self.hasher {
            Hasher::Sha256(_) if self.offset == 0 => Digest::EMPTY,
            Hasher::Sha256(hasher) => Digest(hasher.clone().finalize().into()),
            #[cfg(feature = "blake3")]
            Hasher::Blake3(hasher) => Digest(hasher.finalize().into()),
        }
    }

    /// The state to put into a mark; none of an algorithm whose state cannot be written down.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        match &self.hasher {
            Hasher::Sha256(hasher) => Some(State(hasher.serialize().into())),
            #[cfg(feature = "blake3")]
            Hasher::Blake3(_) => None,
        }
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
        let resumed = Running::resume(&Running::new().state().unwrap(), 0).unwrap();
        assert_eq!(resumed.digest(), Digest::EMPTY);
    }

    #[test]
    fn pieces_add_up() {
        for algorithm in Algorithm::ALL {
            let mut whole = Running::by(*algorithm);
            whole.update(b"abc");
            let mut running = Running::by(*algorithm);
            running.update(b"a");
            let _not_the_end = running.digest();
            running.update(b"bc");
            assert_eq!((running.digest(), running.offset()), (whole.digest(), 3));
        }
    }

    #[test]
    fn every_algorithm_has_its_name() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(*algorithm));
            assert_eq!(Algorithm::from_member(algorithm.member().as_deref()), Some(*algorithm));
        }
        assert_eq!(Algorithm::from_name("SHA256"), None);
        assert_eq!(Algorithm::from_name("md5"), None);
    }

    #[cfg(feature = "blake3")]
    #[test]
    fn blake3_is_the_published_one_and_has_no_state_to_write_down() {
        // The first case of the BLAKE3 team's test vectors: no input.
        let mut running = Running::by(Algorithm::Blake3);
        assert_eq!(
            running.digest().to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        running.update(b"abc");
        assert_eq!(
            running.digest().to_string(),
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
        );
        assert_eq!(running.state(), None);
    }

    #[test]
    fn a_mark_goes_on_where_it_was_taken() {
        let mut running = Running::new();
        running.update(&[7; 100]);
        let mut resumed = Running::resume(&running.state().unwrap(), 100).unwrap();
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
