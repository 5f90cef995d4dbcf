//! The only unsafe code, and what the rest needs of the operating system.

pub mod process;
