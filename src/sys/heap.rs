//! What the process's heap keeps of the memory that was given back to it.
#![expect(unsafe_code, reason = "mallopt(3) has no safe wrapper")]

/// The heap keeps so many bytes at its end for what comes next, instead of giving them back to the system. As
/// glibc has it, a client that passes much output on gives pages back and takes them anew, cleared, after
/// every few pieces: up to 140,000 page faults for a GiB, against 3,000.
///
/// To be called before there are other threads. Does nothing where the C library is another one.
pub fn keep(bytes: i32) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: both only set numbers that the allocator goes by; out of range, they are passed over.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, bytes);
            // Setting one ends the growth of the other: pieces of output would be mapped one by one.
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = bytes;
}

/// Larger than any frame.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_FROM: i32 = 4 << 20;
