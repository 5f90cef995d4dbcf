//! A file, or a folder for one, that the test itself serves (fuse(4)): whether the disk takes what is written, the test
//! says.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::mounts::Mounts;

/// The end of the mount that [`SCRIPT`] leaves open.
const DEVICE: i32 = 3;
const SCRIPT: &str = "umask 077 && mkdir -p \"$(dirname $1)\" && : > $1 && exec 3<>/dev/fuse && \
                      mount -i -t fuse -o fd=3,rootmode=100600,user_id=0,group_id=0 none $1";
const OVER_SCRIPT: &str = "umask 077 && : >> $1 && exec 3<>/dev/fuse && \
                           mount -i -t fuse -o fd=3,rootmode=100600,user_id=0,group_id=0 none $1";
const FOLDER_SCRIPT: &str = "mkdir $1 && exec 3<>/dev/fuse && \
                             mount -i -t fuse -o fd=3,rootmode=40700,user_id=0,group_id=0 none $1";
/// A request is its header of so many bytes and what belongs to it; an answer begins with one of so many.
const IN: usize = 40;
const OUT: usize = 16;
/// Most bytes that are written at a time.
const MOST: u32 = 64 * 1024;

/// A file in the place of one of an instance's, which only its servers see; or a folder.
pub(crate) struct Served {
    mounts: Mounts,
    path: PathBuf,
    says: Arc<Says>,
}

/// What it answers: 0, or an error's number (errno(3)).
#[derive(Default)]
struct Says {
    /// To fsync(2) and fdatasync(2).
    sync: AtomicI32,
    /// To close(2).
    close: AtomicI32,
}

/// What is there.
#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    /// Of a folder: the name of its file, if there is one.
    name: Option<Vec<u8>>,
    is_folder: bool,
}

impl Served {
    /// An empty one at this path. None where it cannot be mounted.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        Self::among(Mounts::by(SCRIPT, path), path, Content::default())
    }

    /// One over what is there, if there is anything, with the same bytes; for those who are among `mounts`.
    pub(crate) fn over(path: &Path, mounts: &Mounts) -> Option<Self> {
        let bytes = std::fs::read(path).unwrap_or_default();
        let content = Content { bytes, ..Content::default() };
        Self::among(mounts.more(OVER_SCRIPT, path), path, content)
    }

    /// A folder that has room for one file.
    pub(crate) fn folder(path: &Path) -> Option<Self> {
        let content = Content { is_folder: true, ..Content::default() };
        Self::among(Mounts::by(FOLDER_SCRIPT, path), path, content)
    }

    fn among(mounts: Option<Mounts>, path: &Path, content: Content) -> Option<Self> {
        let Some(mounts) = mounts else {
            println!("left out: file systems in user space cannot be mounted here");
            return None;
        };
        let holder = Pid::from_raw(mounts.holder().cast_signed()).unwrap();
        let holder = pidfd_open(holder, PidfdFlags::empty()).unwrap();
        let device = pidfd_getfd(&holder, DEVICE, PidfdGetfdFlags::empty()).unwrap();
        let says = Arc::new(Says::default());
        let told = Arc::clone(&says);
        thread::spawn(move || serve(&mut device.into(), content, &told));
        Some(Self { mounts, path: path.to_owned(), says })
    }

    /// Has a program see it.
    pub(crate) fn show(&self, command: &mut Command) {
        self.mounts.show(command);
    }

    /// What is in it.
    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.mounts.seen(&self.path)).unwrap()
    }

    /// What is in the file of a folder; none if there is no such file.
    pub(crate) fn file(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.mounts.seen(&self.path).join(name)).ok()
    }

    /// From now on whoever closes the file is told that what was written is not kept, or that it is.
    pub(crate) fn set_close(&self, says: Result<(), Errno>) {
        let number = says.map_or_else(Errno::raw_os_error, |()| 0);
        self.says.close.store(number, Ordering::SeqCst);
    }

    /// From now on nothing that is written to it comes to the disk, or everything does.
    pub(crate) fn set_sync(&self, says: Result<(), Errno>) {
        let number = says.map_or_else(Errno::raw_os_error, |()| 0);
        self.says.sync.store(number, Ordering::SeqCst);
    }
}

/// Answers until it is unmounted.
fn serve(device: &mut File, mut content: Content, says: &Says) {
    let mut request = vec![0; 2 * MOST as usize];
    while let Ok(length) = device.read(&mut request) {
        let request = &request[..length];
        let answer = match u32_at(request, 4) {
            // FORGET, INTERRUPT and BATCH_FORGET have none.
            2 | 36 | 42 => continue,
            code => answer((code, usize_at(request, 16)), &request[IN..], &mut content, says),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => (error.raw_os_error(), Vec::new()),
        };
        let mut whole = u32::try_from(OUT + body.len()).unwrap().to_le_bytes().to_vec();
        whole.extend((-error).to_le_bytes());
        whole.extend(&request[8..16]);
        whole.extend(body);
        // Whoever asked may be gone.
        let _ = device.write(&whole);
    }
}

/// The numbers are those of `linux/fuse.h`.
fn answer(
    (code, node): (u32, usize),
    asked: &[u8],
    content: &mut Content,
    says: &Says,
) -> Result<Vec<u8>, Errno> {
    if content.is_folder
        && let Some(answer) = content.answer(code, asked)
    {
        return answer;
    }
    let is_folder = content.is_folder && node == ROOT;
    let bytes = &mut content.bytes;
    Ok(match code {
        // GETATTR
        3 => words(&attributes(bytes, is_folder)),
        // SETATTR, which may say how long it is to be.
        4 => {
            if u32_at(asked, 0) & 8 != 0 {
                bytes.resize(usize_at(asked, 16), 0);
            }
            words(&attributes(bytes, is_folder))
        }
        // OPEN: nothing of it is kept by the kernel (FOPEN_DIRECT_IO).
        14 => words(&[0, 0, 1, 0]),
        // READ
        15 => {
            let from = usize_at(asked, 8).min(bytes.len());
            let to = (from + u32_at(asked, 16) as usize).min(bytes.len());
            bytes[from..to].to_vec()
        }
        // WRITE
        16 => {
            let (from, size) = (usize_at(asked, 8), u32_at(asked, 16));
            let to = from + size as usize;
            bytes.resize(bytes.len().max(to), 0);
            bytes[from..to].copy_from_slice(&asked[40..][..size as usize]);
            words(&[size, 0])
        }
        // FSYNC
        20 => said(&says.sync)?,
        // FLUSH
        25 => said(&says.close)?,
        // RELEASE
        18 => Vec::new(),
        // INIT: version 7.31, no wishes.
        26 => words(&[7, 31, MOST, 0, 0, MOST, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        _ => return Err(Errno::NOSYS),
    })
}

fn said(says: &AtomicI32) -> Result<Vec<u8>, Errno> {
    match says.load(Ordering::SeqCst) {
        0 => Ok(Vec::new()),
        number => Err(Errno::from_raw_os_error(number)),
    }
}

/// The node of what is mounted, and that of a folder's file.
const ROOT: usize = 1;
const FILE: u32 = 2;

impl Content {
    /// What is asked of a folder and its names; none: of the file.
    fn answer(&mut self, code: u32, asked: &[u8]) -> Option<Result<Vec<u8>, Errno>> {
        let name = |from: usize| asked[from..].split(|byte| *byte == 0).next().unwrap().to_vec();
        let done = |is_done| if is_done { Ok(Vec::new()) } else { Err(Errno::NOENT) };
        Some(match code {
            // LOOKUP
            1 if self.name.as_ref() == Some(&name(0)) => Ok(words(&self.entry())),
            1 => Err(Errno::NOENT),
            // UNLINK
            10 => done(self.name.take().is_some()),
            // RENAME
            12 => {
                let to = 8 + name(8).len() + 1;
                done(self.name.replace(name(to)).is_some())
            }
            // CREATE
            35 => {
                (self.name, self.bytes) = (Some(name(16)), Vec::new());
                Ok([words(&self.entry()), words(&[0, 0, 1, 0])].concat())
            }
            _ => return None,
        })
    }

    fn entry(&self) -> Vec<u32> {
        let attributes = attributes(&self.bytes, false);
        [&[FILE, 0, 0, 0, 0, 0, 0, 0, 0, 0], &attributes[4..]].concat()
    }
}

/// Of this process's user, and for it alone.
fn attributes(bytes: &[u8], is_folder: bool) -> [u32; 26] {
    let size = u32::try_from(bytes.len()).unwrap();
    let mut all = [0; 26];
    let mode = if is_folder { 0o040_700 } else { 0o100_600 };
    // The inode, the size, the mode and the count of links; valid for no time.
    (all[4], all[6], all[19], all[20]) = (1, size, mode, 1);
    all
}

fn words(all: &[u32]) -> Vec<u8> {
    all.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn usize_at(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()).try_into().unwrap()
}
