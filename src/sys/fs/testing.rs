//! Files for tests.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Puts another file, with this mode and content, in the place of what is at `path`.
pub(crate) fn put(path: &Path, mode: u32, bytes: &[u8]) {
    let new = path.with_extension("put");
    fs::write(&new, bytes).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(new, path).unwrap();
}
