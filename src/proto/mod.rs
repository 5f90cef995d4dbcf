//! The protocol: frames, headers, digests and codes. No I/O, no clock.
//!
//! `docs/protocol.md` tells it in words, for whoever writes another end of it. A [`frame`] is two lengths, a JSON
//! header and a body; a client's headers are [`header::ClientHeader`], a server's [`header::ServerHeader`], and the
//! last frame of a run is its [`verdict`]. What is [`stored`] passes between a server, its supervisors and the disk.

pub mod code;
pub mod digest;
pub mod draft;
pub mod frame;
pub mod header;
pub mod id;
pub mod listing;
pub mod stored;
pub mod strings;
pub mod verdict;
