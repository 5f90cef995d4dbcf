//! The frame: one format on the wire, in both directions, and in a record on disk.
//!
//! Encoding and decoding are pure functions over byte slices. "Not all here yet" is a value,
//! not an error, and every limit is checked before anything is allocated for the frame.

use std::borrow::Cow;
use std::fmt;

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Bytes of the length that stands before every header.
pub const PREFIX: usize = 4;
/// Most bytes a JSON header may have.
pub const HEADER_LIMIT: usize = 65_536;
/// Most bytes a body may have.
pub const BODY_LIMIT: usize = 1 << 20;
/// Integers in a header stay below this, so that every JSON reader sees them exactly (RFC 8259, 6).
pub const INTEGER_LIMIT: u64 = 1 << 53;

/// How large a frame may be; smaller for a peer that has not logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of header.
    pub header: usize,
    /// Most bytes of body.
    pub body: usize,
}

impl Limits {
    /// The limits of the format itself.
    pub const FULL: Self = Self { header: HEADER_LIMIT, body: BODY_LIMIT };
    /// What a stranger may send: a `hello` needs no body and a few kilobytes of header.
    pub const HELLO: Self = Self { header: 16_384, body: 0 };

    /// Bytes of the longest frame within them.
    #[must_use]
    pub const fn longest(self) -> usize {
        PREFIX + self.header + self.body
    }
}

/// What a buffer that starts at a frame boundary holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// The frame goes on; nothing can be said before the buffer holds `need` bytes.
    Incomplete {
        /// Length of the buffer at which trying again makes sense; at most the limits' sum.
        need: usize,
    },
    /// One whole frame stands at the start of the buffer.
    Frame(FrameRef<'a>),
}

/// A whole frame, borrowed from the buffer it was decoded from. Debug shows neither header nor body: both
/// may hold secrets.
#[derive(PartialEq, Eq)]
pub struct FrameRef<'a> {
    /// The header's `type`.
    pub kind: Cow<'a, str>,
    /// The header: one JSON object, `type` and `size` among its members.
    pub header: &'a [u8],
    /// The body: exactly as many bytes as the header's `size` says.
    pub body: &'a [u8],
}

impl fmt::Debug for FrameRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameRef(header of {} bytes, body of {})", self.header.len(), self.body.len())
    }
}

impl FrameRef<'_> {
    /// Bytes of the whole frame, prefix included.
    #[must_use]
    pub fn len(&self) -> usize {
        PREFIX + self.header.len() + self.body.len()
    }

    /// Never true: a frame has at least its prefix and a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// Why bytes are not a frame. The sender is at fault in every case but `HeaderTooLong` and
/// `BodyTooLong` of an encoder, where the caller is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is zero.
    #[error("the header's length is 0")]
    HeaderEmpty,
    /// The length is over the limit. Other protocols end here: their first four bytes make a huge number.
    #[error("a header of {len} bytes is over the limit of {limit}")]
    HeaderTooLong {
        /// What the prefix says.
        len: u64,
        /// What is allowed here.
        limit: usize,
    },
    /// The header is not one JSON object with a `type`, or is nested too deeply.
    #[error("the header is not a JSON object that is understood: {0}")]
    HeaderNotJson(String),
    /// `size` is over the limit.
    #[error("a body of {size} bytes is over the limit of {limit}")]
    BodyTooLong {
        /// What the header says.
        size: u64,
        /// What is allowed here.
        limit: usize,
    },
}

/// The members that every header shares.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    size: u64,
}

/// Decodes the frame at the start of `buf`.
///
/// # Errors
/// A [`FrameError`]; the stream cannot be read on, because the next boundary is unknown.
pub fn decode(buf: &[u8], limits: Limits) -> Result<Decoded<'_>, FrameError> {
    if buf.len() < PREFIX {
        return Ok(Decoded::Incomplete { need: PREFIX });
    }
    let header_len = header_len(LittleEndian::read_u32(buf), limits)?;
    let header_end = PREFIX + header_len;
    if buf.len() < header_end {
        return Ok(Decoded::Incomplete { need: header_end });
    }
    let header = &buf[PREFIX..header_end];
    let envelope = envelope(header)?;
    let end = header_end + body_len(envelope.size, limits)?;
    if buf.len() < end {
        return Ok(Decoded::Incomplete { need: end });
    }
    Ok(Decoded::Frame(FrameRef { kind: envelope.kind, header, body: &buf[header_end..end] }))
}

/// Bytes of prefix and header at the start of `buf`, if they are all there.
#[must_use]
pub fn head_len(buf: &[u8]) -> Option<usize> {
    let header = LittleEndian::read_u32(buf.get(..PREFIX)?);
    let end = PREFIX.checked_add(usize::try_from(header).ok()?)?;
    (buf.len() >= end).then_some(end)
}

/// Serde takes an array for a struct, and bytes that are no UTF-8 in what it skips: this does not.
fn envelope(header: &[u8]) -> Result<Envelope<'_>, FrameError> {
    let not_json = |why: &dyn std::fmt::Display| FrameError::HeaderNotJson(why.to_string());
    let text = std::str::from_utf8(header).map_err(|e| not_json(&e))?;
    if !text.trim_ascii_start().starts_with('{') {
        return Err(not_json(&"it does not start with {"));
    }
    serde_json::from_str(text).map_err(|e| not_json(&e))
}

fn header_len(prefix: u32, limits: Limits) -> Result<usize, FrameError> {
    match usize::try_from(prefix) {
        Ok(0) => Err(FrameError::HeaderEmpty),
        Ok(len) if len <= limits.header => Ok(len),
        _ => Err(FrameError::HeaderTooLong { len: prefix.into(), limit: limits.header }),
    }
}

fn body_len(size: u64, limits: Limits) -> Result<usize, FrameError> {
    match usize::try_from(size) {
        Ok(len) if len <= limits.body => Ok(len),
        _ => Err(FrameError::BodyTooLong { size, limit: limits.body }),
    }
}

/// A header with the `size` of the body that follows it.
#[derive(Serialize)]
struct Sized<'a, H> {
    #[serde(flatten)]
    header: &'a H,
    #[serde(skip_serializing_if = "is_zero")]
    size: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(size: &usize) -> bool {
    *size == 0
}

/// Room for the prefix and the header of most frames, those of output among them.
pub const HEADER_ROOM: usize = 320;

/// One frame as bytes of its own.
///
/// # Errors
/// As [`encode`].
pub fn encoded<H: Serialize>(header: &H, body: &[u8]) -> Result<Bytes, FrameError> {
    let mut room = Vec::with_capacity(HEADER_ROOM + body.len());
    encode(header, body, &mut room)?;
    Ok(room.into())
}

/// Appends one frame to `out`: `header` (which must not have a `size` of its own) and `body`.
///
/// # Errors
/// [`FrameError::HeaderTooLong`] or [`FrameError::BodyTooLong`]; `out` is then as it was.
pub fn encode<H: Serialize>(header: &H, body: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    encode_head(header, body.len(), out)?;
    out.extend_from_slice(body);
    Ok(())
}

/// Appends what stands before a body of so many bytes.
pub(super) fn encode_head<H: Serialize>(
    header: &H,
    body: usize,
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    let size = body_len(body as u64, Limits::FULL)?;
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    if let Err(e) = serde_json::to_writer(&mut *out, &Sized { header, size }) {
        out.truncate(start);
        return Err(FrameError::HeaderNotJson(e.to_string()));
    }
    let len = out.len() - start - PREFIX;
    match u32::try_from(len) {
        Ok(prefix) if len <= HEADER_LIMIT => LittleEndian::write_u32(&mut out[start..], prefix),
        _ => {
            out.truncate(start);
            return Err(FrameError::HeaderTooLong { len: len as u64, limit: HEADER_LIMIT });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn frame(header: &serde_json::Value, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(header, body, &mut out).unwrap();
        out
    }

    fn with_header(header: &[u8]) -> Vec<u8> {
        let mut out = u32::try_from(header.len()).unwrap().to_le_bytes().to_vec();
        out.extend_from_slice(header);
        out
    }

    #[test]
    fn round_trip() {
        let bytes = frame(&json!({"type": "output", "seq": 7}), b"a\0\xff");
        let Decoded::Frame(f) = decode(&bytes, Limits::FULL).unwrap() else { panic!("incomplete") };
        assert_eq!((&*f.kind, f.body, f.len()), ("output", &b"a\0\xff"[..], bytes.len()));
        let header: serde_json::Value = serde_json::from_slice(f.header).unwrap();
        assert_eq!(header, json!({"type": "output", "seq": 7, "size": 3}));
    }

    #[test]
    fn length_is_little_endian() {
        let bytes = frame(&json!({"type": "x"}), b"");
        assert_eq!(&bytes[..4], [12, 0, 0, 0]);
        assert_eq!(&bytes[4..], br#"{"type":"x"}"#);
    }

    #[test]
    fn every_prefix_is_incomplete_and_asks_for_no_more_than_the_frame() {
        let bytes = frame(&json!({"type": "x"}), b"body");
        for cut in 0..bytes.len() {
            match decode(&bytes[..cut], Limits::FULL).unwrap() {
                Decoded::Incomplete { need } => assert!(cut < need && need <= bytes.len()),
                Decoded::Frame(_) => panic!("a frame out of {cut} of {} bytes", bytes.len()),
            }
        }
    }

    #[test]
    fn the_head_is_told_from_the_body() {
        let bytes = frame(&json!({"type": "x"}), b"body");
        for cut in 0..bytes.len() {
            let head = bytes.len() - 4;
            assert_eq!(head_len(&bytes[..cut]), (cut >= head).then_some(head));
        }
        assert_eq!(head_len(&[0xff; 100]), None);
    }

    #[test]
    fn limits_hold_one_past() {
        let longest = format!(r#"{{"type":"{}"}}"#, "x".repeat(HEADER_LIMIT - 11));
        assert_eq!(longest.len(), HEADER_LIMIT);
        assert!(decode(&with_header(longest.as_bytes()), Limits::FULL).is_ok());
        let over = u32::try_from(HEADER_LIMIT + 1).unwrap().to_le_bytes();
        let error = FrameError::HeaderTooLong { len: HEADER_LIMIT as u64 + 1, limit: HEADER_LIMIT };
        assert_eq!(decode(&over, Limits::FULL), Err(error));

        let at = frame(&json!({"type": "x"}), &vec![0; BODY_LIMIT]);
        assert!(matches!(decode(&at, Limits::FULL), Ok(Decoded::Frame(_))));
        let over = with_header(format!(r#"{{"type":"x","size":{}}}"#, BODY_LIMIT + 1).as_bytes());
        let error = FrameError::BodyTooLong { size: BODY_LIMIT as u64 + 1, limit: BODY_LIMIT };
        assert_eq!(decode(&over, Limits::FULL), Err(error));
    }

    #[test]
    fn encode_refuses_what_decode_would() {
        let mut out = vec![1];
        let header = json!({"type": "x".repeat(HEADER_LIMIT)});
        assert!(matches!(encode(&header, b"", &mut out), Err(FrameError::HeaderTooLong { .. })));
        let body = vec![0; BODY_LIMIT + 1];
        assert!(matches!(
            encode(&json!({"type": "x"}), &body, &mut out),
            Err(FrameError::BodyTooLong { .. })
        ));
        assert_eq!(out, [1]);
    }

    fn is_not_json(header: &[u8]) -> bool {
        matches!(decode(&with_header(header), Limits::FULL), Err(FrameError::HeaderNotJson(_)))
    }

    #[test]
    fn garbage_is_an_error() {
        assert_eq!(decode(&[0; 4], Limits::FULL), Err(FrameError::HeaderEmpty));
        assert!(matches!(
            decode(b"GET / HTTP/1.1\r\n", Limits::FULL),
            Err(FrameError::HeaderTooLong { .. })
        ));
        for header in [
            "[]",
            "1",
            "{}",
            r#"{"type":1}"#,
            r#"{"type":"x","size":-1}"#,
            r#"{"type":"x","size":1.5}"#,
            "{",
            "\u{feff}{}",
            r#"["x",0]"#,
        ] {
            assert!(is_not_json(header.as_bytes()), "{header}");
        }
        assert!(is_not_json(b"{\"type\":\"x\",\"skipped\":\"\xff\"}"));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
        let deep = format!(r#"{{"type":"x","a":{}"#, "[".repeat(60_000));
        let got = decode(&with_header(deep.as_bytes()), Limits::FULL).map(|_| ());
        assert!(matches!(got, Err(FrameError::HeaderNotJson(_))));
    }

    #[test]
    fn debug_shows_no_header_and_no_body() {
        let mut bytes = Vec::new();
        encode(&serde_json::json!({"type": "hunter2"}), b"hunter2", &mut bytes).unwrap();
        let shown = format!("{:?}", decode(&bytes, Limits::FULL).unwrap());
        let body = format!("{:?}", b"hunter2");
        assert!(shown.contains("body of 7") && !shown.contains("hunter2"), "{shown}");
        assert!(!shown.contains(&body), "{shown}");
    }
}
