//! What the process's heap keeps of the memory that was given back to it.
#![expect(unsafe_code, reason = "mallopt(3) and malloc_trim(3) have no safe wrappers")]

/// The heap keeps this many bytes at its end for what comes next, instead of giving them back to the system. As
/// glibc has it, a client that passes much output on gives pages back and takes them anew, cleared, after
/// every few pieces: up to 140,000 page faults for a GiB, against 3,000.
///
/// To be called before there are other threads. Does nothing where the C library is another one.
pub fn keep(bytes: i32) {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: both only set numbers that the allocator goes by; out of range, they are passed over.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, bytes);
            // Setting one ends the growth of the other: pieces of output would be mapped one by one.
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        }
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes;
}

/// Gives back to the system what of the heap is free in its middle too: without being asked the C library gives back its
/// end alone, and thousands of connections that are gone would be held for good by one block behind them. Takes tens of
/// milliseconds after such a peak, and next to nothing otherwise. Does nothing where the C library is another one.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes the allocator's own locks, and touches only what is free.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Larger than any frame.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: i32 = 4 << 20;

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    /// Pages that this process has in memory (proc(5), statm).
    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn what_is_free_in_the_middle_of_the_heap_is_given_back() {
        const PAGE: usize = 4096;
        let mut blocks: Vec<Vec<u8>> = (0..8192).map(|_| vec![1; PAGE]).collect();
        let last = blocks.pop();
        drop(blocks);
        let before = resident();
        super::give_back();
        let after = resident();
        // Other tests take and give memory meanwhile.
        assert!(after + 4096 < before, "{before} pages, then {after}");
        drop(last);
    }
}
