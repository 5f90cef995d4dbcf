//! What the operating system is asked for directly: processes, files, peer credentials.

pub mod clock;
pub mod entry;
pub mod fs;
pub mod heap;
pub mod kept;
pub mod listen_fds;
pub mod mutex;
pub mod pause;
pub mod pipe;
pub mod poll;
pub mod pow;
pub mod process;
#[cfg(target_arch = "x86_64")]
pub mod processor;
pub mod replace;
pub mod shortage;
pub mod signals;
pub mod surroundings;
pub mod users;
