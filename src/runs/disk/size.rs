//! How large a record is.

use rustix::fs::Stat;

/// The unit in which stat(2) counts blocks.
const UNIT: u64 = 512;

/// How large a record is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Its bytes.
    pub length: u64,
    /// Bytes of disk that it takes, with what was set aside for it.
    pub disk: u64,
    /// The same without what was set aside and not used: the supervisor of a run that is over is about to give that back.
    pub kept: u64,
}

impl From<Stat> for Size {
    fn from(stat: Stat) -> Self {
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        let disk = u64::try_from(stat.st_blocks).unwrap_or(0) * UNIT;
        let block = u64::try_from(stat.st_blksize).unwrap_or(0).max(UNIT);
        Self { length, disk, kept: disk.min(length.next_multiple_of(block)) }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FallocateFlags, fallocate, fstat};

    use super::*;

    #[test]
    fn what_was_set_aside_and_not_used_is_not_kept() {
        const ASIDE: u64 = 1 << 20;
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[1; 10_000], 0).unwrap();
        let before = Size::from(fstat(&file).unwrap());
        assert!((10_000..ASIDE).contains(&before.kept), "{before:?}");
        fallocate(&file, FallocateFlags::KEEP_SIZE, 0, ASIDE).unwrap();
        let after = Size::from(fstat(&file).unwrap());
        assert!(after.disk >= ASIDE, "{after:?}");
        assert_eq!((after.length, after.kept), (10_000, before.kept));
    }

    #[test]
    fn a_hole_takes_nothing() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let size = Size::from(fstat(&file).unwrap());
        assert_eq!(size, Size { length: 1 << 20, disk: 0, kept: 0 });
    }
}
