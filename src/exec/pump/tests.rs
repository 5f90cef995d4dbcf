use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};
use tempfile::TempDir;
use tokio::time::{advance, timeout};

use super::*;
use crate::exec::testing::{follow, run, shell, spawn, within};
use crate::exec::{End, Scanner, stop};

const MAX: usize = 65_536;

fn pipe() -> (Receiver, OwnedFd) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    (Receiver::from_owned_fd(read).unwrap(), write)
}

fn held(pipe: OwnedFd) -> Writers {
    let mut command = std::process::Command::new("true");
    command.stdout(pipe);
    Writers::of(command)
}

fn put(pipe: &OwnedFd, bytes: &[u8]) {
    assert_eq!(rustix::io::write(pipe, bytes).unwrap(), bytes.len());
}

fn piece(stream: Stream, len: usize) -> Event {
    Event::Piece { stream, len }
}

fn end(stream: Stream, end: StreamEnd) -> Event {
    Event::End { stream, end }
}

async fn next(pump: &mut Pump) -> Event {
    pump.next(MAX, &mut BytesMut::new()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_held_pipe_ends_after_100_ms_of_emptiness() {
    let (read, write) = pipe();
    let mut pump = Pump::new(read, None, false);
    put(&write, b"abc");
    pump.main_ended().unwrap();
    assert_eq!(next(&mut pump).await, piece(Stream::Both, 3));
    let start = Instant::now();
    assert_eq!(next(&mut pump).await, end(Stream::Both, StreamEnd::Held));
    assert_eq!(start.elapsed(), IDLE_LIMIT);
    assert_eq!(next(&mut pump).await, Event::Done);
    assert_eq!(next(&mut pump).await, Event::Done);
}

#[tokio::test(start_paused = true)]
async fn a_trickle_ends_after_250_ms() {
    let (read, write) = pipe();
    let mut pump = Pump::new(read, None, false);
    pump.main_ended().unwrap();
    let trickle = tokio::spawn(async move {
        loop {
            put(&write, b"x");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let start = Instant::now();
    while next(&mut pump).await != end(Stream::Both, StreamEnd::Held) {}
    let spent = start.elapsed();
    assert!(spent >= DRAIN_LIMIT && spent < DRAIN_LIMIT + Duration::from_millis(25), "{spent:?}");
    trickle.abort();
}

#[tokio::test(start_paused = true)]
async fn time_without_room_does_not_count() {
    let (read, write) = pipe();
    let mut pump = Pump::new(read, None, false);
    pump.main_ended().unwrap();
    put(&write, b"x");
    assert_eq!(next(&mut pump).await, piece(Stream::Both, 1));
    // The first asking starts the clock, the second one finds the pipe empty.
    assert!(timeout(Duration::from_millis(50), next(&mut pump)).await.is_err());
    pump.pause();
    advance(Duration::from_secs(3600)).await;
    pump.pause();
    put(&write, b"yz");
    assert_eq!(next(&mut pump).await, piece(Stream::Both, 2));
    let start = Instant::now();
    assert_eq!(next(&mut pump).await, end(Stream::Both, StreamEnd::Held));
    assert!(start.elapsed() >= IDLE_LIMIT);
}

#[tokio::test(start_paused = true)]
async fn what_was_in_the_pipe_at_the_end_is_read_however_slowly() {
    let (read, write) = pipe();
    let (read_err, write_err) = pipe();
    let mut pump = Pump::new(read, Some(read_err), false);
    put(&write, &[b'o'; PIPE_SIZE]);
    put(&write_err, &[b'e'; PIPE_SIZE]);
    pump.main_ended().unwrap();
    let (mut buf, mut count) = (BytesMut::new(), [0, 0]);
    while count != [PIPE_SIZE, PIPE_SIZE] {
        match pump.next(1000, &mut buf).await.unwrap() {
            Event::Piece { stream, len } => count[usize::from(stream == Stream::Err)] += len,
            other => panic!("{other:?} after {count:?}"),
        }
        // Longer than all limits, and without a word.
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(buf.len(), 2 * PIPE_SIZE);
    assert_eq!(next(&mut pump).await, end(Stream::Out, StreamEnd::Held));
    assert_eq!(next(&mut pump).await, end(Stream::Err, StreamEnd::Held));
}

#[tokio::test(start_paused = true)]
async fn a_pipe_that_nobody_holds_is_read_to_its_end_even_late() {
    let (read, write) = pipe();
    let mut pump = Pump::new(read, None, false);
    pump.main_ended().unwrap();
    assert!(timeout(Duration::from_millis(1), next(&mut pump)).await.is_err());
    put(&write, b"late");
    drop(write);
    // A process that another test is just starting has a copy until its execve.
    while pump.sources[0].is_held().unwrap() {
        std::thread::yield_now();
    }
    advance(Duration::from_secs(1)).await;
    assert_eq!(next(&mut pump).await, piece(Stream::Both, 4));
    assert_eq!(next(&mut pump).await, end(Stream::Both, StreamEnd::Eof));
}

#[tokio::test(start_paused = true)]
async fn wait_eof_waits() {
    let (read, write) = pipe();
    let mut pump = Pump::new(read, None, true);
    pump.main_ended().unwrap();
    assert!(timeout(Duration::from_secs(3600), next(&mut pump)).await.is_err());
    drop(write);
    assert_eq!(next(&mut pump).await, end(Stream::Both, StreamEnd::Eof));
}

#[tokio::test]
async fn neither_stream_starves_the_other() {
    let ((read, write), (read_err, write_err)) = (pipe(), pipe());
    put(&write, &[0; PIPE_SIZE]);
    put(&write_err, &[0; PIPE_SIZE]);
    let mut pump = Pump::new(read, Some(read_err), false);
    let mut buf = BytesMut::new();
    for _ in 0..8 {
        assert_eq!(pump.next(100, &mut buf).await.unwrap(), piece(Stream::Out, 100));
        assert_eq!(pump.next(100, &mut buf).await.unwrap(), piece(Stream::Err, 100));
    }
}

#[tokio::test]
async fn only_a_pipe_that_stays_full_grows() {
    let (read, write) = pipe();
    let mut pump = Pump::new(read, None, false);
    for full in 1..=FULL_READS {
        assert_eq!(fcntl_getpipe_size(&write).unwrap(), PIPE_SIZE, "before {full}");
        put(&write, &[0; PIPE_SIZE]);
        assert_eq!(next(&mut pump).await, piece(Stream::Both, PIPE_SIZE));
    }
    // The account's share of pipe memory may be used up by others.
    let grown = fcntl_getpipe_size(&write).unwrap();
    assert!(grown == crate::sys::pipe::GROWN_SIZE || grown == PIPE_SIZE);
}

#[tokio::test]
async fn an_ordinary_run_ends_by_eof() {
    let outcome = run(&shell("seq 1 200000; echo done >&2")).await;
    assert_eq!(
        outcome.out,
        (1..=200_000).map(|i| format!("{i}\n")).collect::<String>().into_bytes()
    );
    assert_eq!(outcome.err, b"done\n");
    assert_eq!(outcome.ends, [StreamEnd::Eof, StreamEnd::Eof]);
}

#[tokio::test]
async fn who_holds_a_pipe_lives_on_and_may_write() {
    let dir = TempDir::new().unwrap();
    let text = "mkfifo gate told; (read go < gate; echo late; echo late >&2; echo alive > told) & echo out";
    let mut held = shell(text);
    held.cwd = Some(dir.path().into());
    let start = Instant::now();
    let outcome = run(&held).await;
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(outcome.end, End::Exited { code: 0 });
    assert_eq!(outcome.text(), "out\n");
    assert_eq!(outcome.ends, [StreamEnd::Held, StreamEnd::Held]);
    let (gate, told) = (dir.path().join("gate"), dir.path().join("told"));
    let alive = tokio::task::spawn_blocking(move || {
        std::fs::write(gate, "go\n").unwrap();
        std::fs::read_to_string(told).unwrap()
    });
    assert_eq!(within(alive).await.unwrap(), "alive\n");
}

#[tokio::test]
async fn a_flood_into_a_held_pipe_ends_too() {
    let spawned = spawn(&shell("yes & echo out"));
    let outcome = within(follow(spawned, false)).await;
    assert_eq!(outcome.end, End::Exited { code: 0 });
    assert_eq!(outcome.ends, [StreamEnd::Held, StreamEnd::Held]);
    let stopped = within(stop(&outcome.child, &Scanner::new().unwrap(), Duration::ZERO)).await;
    assert_eq!(stopped.unwrap().left_running, 0);
}

#[test]
fn the_ends_of_pipes_are_not_held_with_long_words() {
    for (words, is_held) in [(4096, true), (4097, false)] {
        let (read, write) = std::io::pipe().unwrap();
        let mut command = std::process::Command::new("true");
        command.stdout(write).arg("x".repeat(words));
        let writers = Writers::of(command);
        let mut polled = [PollFd::new(&read, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).unwrap();
        assert_eq!(polled[0].revents().contains(PollFlags::HUP), !is_held);
        drop(writers);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_main_process_closes_before_its_end_wakes_nobody() {
    let (read, write) = pipe();
    let mut pump = Pump::new(read, None, false).holding(held(write.try_clone().unwrap()));
    put(&write, b"abc");
    drop(write);
    assert_eq!(next(&mut pump).await, piece(Stream::Both, 3));
    assert!(timeout(Duration::from_secs(3600), next(&mut pump)).await.is_err());
    pump.main_ended().unwrap();
    assert_eq!(next(&mut pump).await, end(Stream::Both, StreamEnd::Eof));
    assert_eq!(next(&mut pump).await, Event::Done);

    let (read, write) = pipe();
    let mut pump = Pump::new(read, None, true).holding(held(write));
    pump.main_ended().unwrap();
    assert_eq!(next(&mut pump).await, end(Stream::Both, StreamEnd::Eof), "with `wait_eof` too");
}
