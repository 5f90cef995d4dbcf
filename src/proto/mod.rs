//! The protocol: frames, headers, digests and codes. No I/O, no clock.

pub mod code;
pub mod digest;
pub mod frame;
pub mod header;
pub mod id;
pub mod listing;
pub mod stored;
pub mod strings;
pub mod verdict;
