//! The protocol: frames, headers, digests and codes. No I/O, no clock.

pub mod digest;
pub mod frame;
