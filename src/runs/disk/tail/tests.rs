use std::time::Duration;

use super::*;
use crate::proto::digest::{Algorithm, Digest};
use crate::proto::header::Stream;
use crate::proto::verdict::StreamEndKind;
use crate::runs::intake::Intake;
use crate::runs::record::Recorder;
use crate::sys::fs::lock_exclusive;

fn tail() -> (Arc<Tail>, File) {
    let file = tempfile::tempfile().unwrap();
    let reader = file.try_clone().unwrap();
    (Tail::new(lock_exclusive(file).unwrap()), reader)
}

/// Large and small ones in turn, so that some are written here and some elsewhere.
#[tokio::test]
async fn frames_stand_in_the_order_in_which_they_came_whoever_writes_them() {
    let (tail, file) = tail();
    let mut expected = Vec::new();
    let mut progress = tail.progress().subscribe();
    for n in 0..200u8 {
        let size = if n % 3 == 0 { 10 } else { LARGE + usize::from(n) };
        expected.extend(vec![n; size]);
        tail.push(Made::Whole(vec![n; size].into()));
        assert_eq!(tail.reach().last, u64::from(n) + 1);
        assert_eq!(tail.reach().end, expected.len() as u64);
        // Only what is whole in the file is told of.
        let Progress { length, .. } = *progress.borrow_and_update();
        assert!(file.metadata().unwrap().len() >= length);
    }
    tail.settle();
    let reach = tail.reach();
    assert_eq!((reach.waiting, reach.busy, reach.failed), (0, false, false));
    assert_eq!(tail.spares().len(), DEPTH, "their memory is read into again");
    assert_eq!(progress.borrow().length, expected.len() as u64);
    let mut text = vec![0; expected.len()];
    file.read_exact_at(&mut text, 0).unwrap();
    assert!(text == expected);
}

fn recorder() -> (Recorder, Intake) {
    (Recorder::new(&[Stream::Both], Algorithm::Sha256), Intake::default())
}

fn unhashed((recorder, intake): &mut (Recorder, Intake), piece: &[u8]) -> Made {
    intake.buffer(piece.len()).extend_from_slice(piece);
    Made::Unhashed(recorder.output(Stream::Both, intake, 0).unwrap().unwrap())
}

/// Some are hashed here and some elsewhere, and some come whole; each has the digest of all up to it.
#[tokio::test]
async fn frames_are_hashed_in_the_order_in_which_they_came_whoever_hashes_them() {
    let (tail, file) = tail();
    let (mut recorder, mut later) = (recorder(), recorder());
    let (mut expected, mut end) = (Vec::new(), 0);
    for n in 0..200u8 {
        let size = if n % 3 == 0 { 10 } else { LARGE + usize::from(n) };
        let whole = unhashed(&mut recorder, &vec![n; size]).whole();
        expected.extend_from_slice(&whole);
        end += size as u64;
        let frame = unhashed(&mut later, &vec![n; size]);
        tail.push(if n % 7 == 0 { Made::Whole(frame.whole()) } else { frame });
        if n % 7 == 6 {
            // What is next comes whole, behind all that are not.
            let so_far = later.0.stream_end(Stream::Both, StreamEndKind::Eof).unwrap();
            assert_eq!(so_far.size, end);
        }
        assert_eq!(tail.reach().end, expected.len() as u64, "it is known before the digest is");
    }
    tail.settle();
    assert_eq!(tail.reach().waiting, 0);
    let mut text = vec![0; expected.len()];
    file.read_exact_at(&mut text, 0).unwrap();
    assert!(text == expected);
}

#[tokio::test]
async fn what_cannot_be_written_is_hashed_all_the_same() {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let tail = Tail::new(lock_exclusive(File::open(&path).unwrap()).unwrap());
    let mut frames = recorder();
    for _ in 0..10 {
        tail.push(unhashed(&mut frames, &[7; LARGE]));
    }
    tail.settle();
    assert_eq!((tail.reach().failed, tail.reach().waiting), (true, 10));
    let end = frames.0.stream_end(Stream::Both, StreamEndKind::Eof).unwrap();
    assert_eq!((end.size, end.hash), (10 * LARGE as u64, Digest::of(&[7; 10 * LARGE])));
}

#[tokio::test]
async fn who_waits_for_a_place_is_called() {
    let (tail, _file) = tail();
    let wake = Arc::new(Notify::new());
    tail.call(Arc::clone(&wake));
    let mut called = 0;
    for _ in 0..64 {
        while tail.reach().waiting >= DEPTH {
            wake.notified().await;
            called += 1;
        }
        tail.push(Made::Whole(vec![0; 4 << 20].into()));
    }
    tail.settle();
    assert!(called > 0, "the writer is never behind");
}

#[test]
fn a_file_that_cannot_be_written_is_no_full_one() {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let only_read = File::open(&path).unwrap();
    let tail = Tail::new(lock_exclusive(only_read).unwrap());
    tail.push(Made::Whole(Bytes::from_static(b"frame")));
    let reach = tail.reach();
    assert!(reach.failed && reach.waiting == 1);
    assert_eq!(tail.abandon(), (1, false));
}

/// A disk that is full, as one is found to be where a file system sets nothing aside. One test at a time has it.
struct Full(Arc<Tail>);

impl Full {
    fn new() -> (Self, Arc<Notify>) {
        let full = File::options().write(true).open("/dev/full").unwrap();
        rustix::fs::flock(&full, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let tail = Tail::new(lock_exclusive(full).unwrap());
        let wake = Arc::new(Notify::new());
        tail.call(Arc::clone(&wake));
        (Self(tail), wake)
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        self.0.leave();
    }
}

async fn is_called(wake: &Notify) -> bool {
    tokio::time::timeout(Duration::ZERO, wake.notified()).await.is_ok()
}

#[tokio::test]
async fn who_tries_a_full_disk_again_is_not_called_for_that_to_try_at_once() {
    let (disk, wake) = Full::new();
    let tail = &disk.0;
    tail.push(Made::Whole(vec![0; LARGE].into()));
    tail.settle();
    assert_eq!((tail.reach().waiting, tail.reach().failed), (1, false));
    assert!(is_called(&wake).await, "another thread has found the disk full");
    tail.go_on();
    tail.push(Made::Whole(Bytes::from_static(b"small")));
    assert_eq!(tail.reach().waiting, 2);
    assert!(!is_called(&wake).await);
}

/// Until then it looks as if there were a place soon.
#[tokio::test]
async fn a_disk_that_is_full_is_told_of_when_the_last_one_rests() {
    let (disk, wake) = Full::new();
    let tail = &disk.0;
    assert!(tail.lock().hasher.claim());
    tail.push(Made::Whole(vec![0; LARGE].into()));
    drop(tail.idle.wait_while(tail.lock(), |queue| queue.writer.is_busy()).unwrap());
    assert!(!is_called(&wake).await);
    assert!(tail.next_unhashed(Place::Elsewhere).is_none());
    assert!(is_called(&wake).await);
}
