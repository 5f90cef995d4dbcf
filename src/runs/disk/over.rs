//! The folder of a run that is over, held open while something of it is removed.
//!
//! A folder is one run's for ever, so what is removed through its descriptor was that run's, whatever a
//! server and `rexec-server gc` do at the same time to the path. Who has a file of it open keeps it.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, statat, unlinkat};
use rustix::io::Errno;

use super::folder::{Folder, LOG, META, OUTCOME, Outcome, RECORD, read_json};
use super::size::Size;

/// The open folder of a run whose end was written down.
#[derive(Debug)]
pub struct Over<'a> {
    folder: &'a Folder,
    dir: File,
    outcome: File,
}

impl<'a> Over<'a> {
    /// Opens the folder; none if the run goes on, as far as is written down, or is no longer there.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(folder: &'a Folder) -> io::Result<Option<Self>> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let custom = flags.bits().cast_signed();
        let opened = File::options().read(true).custom_flags(custom).open(folder.path());
        let Some(dir) = if_there(opened)? else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let outcome = openat(&dir, OUTCOME, flags, Mode::empty()).map_err(io::Error::from);
        let Some(outcome) = if_there(outcome)? else { return Ok(None) };
        Ok(Some(Self { folder, dir, outcome: outcome.into() }))
    }

    /// How the run ended.
    ///
    /// # Errors
    /// What the system says, or that it is none.
    pub fn outcome(&self) -> io::Result<Outcome> {
        read_json(&self.outcome)
    }

    /// How large the record is; none if it is gone.
    ///
    /// # Errors
    /// What the system says.
    pub fn record(&self) -> io::Result<Option<Size>> {
        let stat = statat(&self.dir, RECORD, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from);
        Ok(if_there(stat)?.map(Size::from))
    }

    /// Removes the record. What says that the run was there stays.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_record(&self) -> io::Result<()> {
        self.unlink(RECORD)?;
        self.unlink(LOG)
    }

    /// Removes everything. What says which run it was goes first: what is left if this is cut short is
    /// then no run.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self) -> io::Result<()> {
        self.unlink(META)?;
        for entry in Dir::read_from(&self.dir)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") && name.to_bytes() != OUTCOME.as_bytes() {
                unlinkat(&self.dir, name.as_c_str(), AtFlags::empty())?;
            }
        }
        self.unlink(OUTCOME)?;
        // Not through the descriptor: a folder that another run has made in its place is not empty.
        if_there(std::fs::remove_dir(self.folder.path())).map(drop)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        if_there(unlinkat(&self.dir, name, AtFlags::empty()).map_err(io::Error::from)).map(drop)
    }
}

fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if Errno::from_io_error(&e) == Some(Errno::NOENT) => Ok(None),
        other => other.map(Some),
    }
}
