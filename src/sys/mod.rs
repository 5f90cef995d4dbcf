//! The only unsafe code, and what the rest needs of the operating system.

pub mod fs;
pub mod process;
