//! A file that the test itself serves (fuse(4)): whether the disk takes what is written, the test says.

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
/// A request is its header of so many bytes and what belongs to it; an answer begins with one of so many.
const IN: usize = 40;
const OUT: usize = 16;
/// Most bytes that are written at a time.
const MOST: u32 = 64 * 1024;

/// A file in the place of one of an instance's, which only its servers see.
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
}

impl Served {
    /// An empty one at this path. None where it cannot be mounted.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        let Some(mounts) = Mounts::by(SCRIPT, path) else {
            println!("left out: file systems in user space cannot be mounted here");
            return None;
        };
        let holder = Pid::from_raw(mounts.holder().cast_signed()).unwrap();
        let holder = pidfd_open(holder, PidfdFlags::empty()).unwrap();
        let device = pidfd_getfd(&holder, DEVICE, PidfdGetfdFlags::empty()).unwrap();
        let says = Arc::new(Says::default());
        let told = Arc::clone(&says);
        thread::spawn(move || serve(&mut device.into(), &told));
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

    /// From now on nothing that is written to it comes to the disk, or everything does.
    pub(crate) fn set_sync(&self, says: Result<(), Errno>) {
        let number = says.map_or_else(Errno::raw_os_error, |()| 0);
        self.says.sync.store(number, Ordering::SeqCst);
    }
}

/// Answers until it is unmounted.
fn serve(device: &mut File, says: &Says) {
    let (mut bytes, mut request) = (Vec::new(), vec![0; 2 * MOST as usize]);
    while let Ok(length) = device.read(&mut request) {
        let request = &request[..length];
        let answer = match u32_at(request, 4) {
            // FORGET, INTERRUPT and BATCH_FORGET have none.
            2 | 36 | 42 => continue,
            code => answer(code, &request[IN..], &mut bytes, says),
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
fn answer(code: u32, asked: &[u8], bytes: &mut Vec<u8>, says: &Says) -> Result<Vec<u8>, Errno> {
    Ok(match code {
        // GETATTR
        3 => attributes(bytes),
        // SETATTR, which may say how long it is to be.
        4 => {
            if u32_at(asked, 0) & 8 != 0 {
                bytes.resize(usize_at(asked, 16), 0);
            }
            attributes(bytes)
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
        20 => match says.sync.load(Ordering::SeqCst) {
            0 => Vec::new(),
            number => return Err(Errno::from_raw_os_error(number)),
        },
        // RELEASE and FLUSH
        18 | 25 => Vec::new(),
        // INIT: version 7.31, no wishes.
        26 => words(&[7, 31, MOST, 0, 0, MOST, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        _ => return Err(Errno::NOSYS),
    })
}

/// Of this process's user, and for it alone.
fn attributes(bytes: &[u8]) -> Vec<u8> {
    let size = u32::try_from(bytes.len()).unwrap();
    let mut all = [0; 26];
    // The inode, the size, the mode and the count of links; valid for no time.
    (all[4], all[6], all[19], all[20]) = (1, size, 0o100_600, 1);
    words(&all)
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
