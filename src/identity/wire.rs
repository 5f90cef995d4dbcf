//! Strings with their length before them (RFC 4251, 5).

use byteorder::{BigEndian, ByteOrder as _};

/// Bytes of a length.
pub(super) const LENGTH: usize = 4;

/// Takes so many bytes from the front; none if there are fewer.
pub(super) fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

/// Takes a string from the front; none if it is cut off.
pub(super) fn take_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = BigEndian::read_u32(take(rest, LENGTH)?);
    take(rest, usize::try_from(length).ok()?)
}

/// Adds a string, which is far shorter than 4 GiB: a key, a text of 1 KiB, or both.
pub(super) fn put_string(buffer: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    buffer.extend(length.to_be_bytes());
    buffer.extend(bytes);
}
