//! What a path stands for that something is to be written to.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::euid;
use super::walk::LINK_LIMIT;

/// A folder in which everybody may make names and nobody may remove those of others, as `/tmp`.
const SHARED: u32 = 0o1002;

/// Where the links lead that `path` is. The path itself, if it is none, or if there is nothing at the end.
///
/// What another account has put into a folder that all can write to is neither followed nor written to: it may lead anywhere,
/// or be read by them. The kernel sees to that where files are opened (`fs.protected_symlinks` and those of its kind,
/// proc_sys_fs(5)); whoever reads links, or replaces files, has to do it.
///
/// # Errors
/// There is such a name, or the links lead in a circle.
pub fn target_of(path: &Path) -> io::Result<PathBuf> {
    let mut at = path.to_owned();
    for _ in 0..=LINK_LIMIT {
        // Nothing is also where a link of the kernel's own leads, such as that of a pipe in /dev/fd.
        let Ok(found) = fs::symlink_metadata(&at) else { return Ok(path.to_owned()) };
        may_use(&at, &found)?;
        if !found.is_symlink() {
            return Ok(at);
        }
        at = folder_of(&at).join(fs::read_link(&at)?);
    }
    Err(Errno::LOOP.into())
}

/// The folder in which `path` is.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn may_use(path: &Path, found: &Metadata) -> io::Result<()> {
    let folder = fs::metadata(folder_of(path))?;
    let is_shared = folder.permissions().mode() & SHARED == SHARED;
    if !is_shared || [euid(), folder.uid()].contains(&found.uid()) {
        return Ok(());
    }
    let text =
        format!("{} is another account's, in a folder that all can write to", path.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}
