use std::sync::mpsc;

use super::super::error::Error;
use super::super::sink::{Output, Sink};
use super::super::state::{Leave, Role};
use super::super::stdin::StdinSender;
use super::*;
use crate::conn::Frame;
use crate::identity::{Asking, Nobody, PublicKey};
use crate::proto::digest::{Digest, Running};
use crate::proto::frame::{Decoded, Limits, decode};
use crate::proto::header::{Output as OutputHeader, ServerHeader, Started, Stream};
use crate::proto::verdict::{Containment, End, StreamEnd, StreamEndKind, Usage, Verdict};

/// Takes a piece, or the end, each time it is let.
struct Gated(mpsc::Receiver<()>);

/// The answer to `close` comes without `started`, so that the verdict alone says how its digests are made.
#[cfg(feature = "blake3")]
#[tokio::test]
async fn a_verdict_that_answers_close_is_checked_by_the_digest_that_it_names() {
    use crate::proto::digest::Algorithm;
    for (named, status) in [(Algorithm::Blake3, true), (Algorithm::Sha256, false)] {
        let (mut state, gate) = state();
        let nothing = Running::by(Algorithm::Blake3);
        let ServerHeader::Verdict(mut verdict) = verdict(1, &nothing) else { panic!() };
        (verdict.hash, verdict.stderr) = (named.member(), verdict.stdout);
        gate.send(()).unwrap();
        let mut bytes = Vec::new();
        frame::encode(&ServerHeader::Verdict(verdict), b"", &mut bytes).unwrap();
        let frame = FrameReader::new(&bytes[..], Limits::FULL).next(None).await.unwrap().unwrap();
        let end = state.take(frame).unwrap();
        assert_eq!(matches!(end, Some(LegEnd::Final(end)) if end.is_ok()), status, "{named:?}");
    }
}

impl Gated {
    fn wait(&self) -> io::Result<()> {
        self.0.recv().map_err(io::Error::other)
    }
}

impl Output for Gated {
    fn write(&mut self, _: Stream, _: &[u8]) -> io::Result<()> {
        self.wait()
    }

    fn finish(&mut self, _: &Verdict) -> io::Result<()> {
        self.wait()
    }
}

/// A run of which nothing is known yet, and what lets its output be written.
fn state() -> (State, mpsc::Sender<()>) {
    let (gate, waiting) = mpsc::channel();
    let sink = Sink::new(Box::new(Gated(waiting)), false);
    let role = Role::Owner { durable: false };
    (State::new("one".into(), role, Leave::Stay, sink, StdinSender::new(false)), gate)
}

/// The server says this, and it is no end of the leg.
async fn hear(state: &mut State, header: &ServerHeader, body: &[u8]) {
    let mut bytes = Vec::new();
    frame::encode(header, body, &mut bytes).unwrap();
    let frame: Frame =
        FrameReader::new(&bytes[..], Limits::FULL).next(None).await.unwrap().unwrap();
    assert!(state.take(frame).unwrap().is_none(), "{header:?}");
}

fn started() -> ServerHeader {
    ServerHeader::Started(Started {
        run: "one".into(),
        pid: 1,
        attached: false,
        stdin_offset: 0,
        stdin_hash: Digest::of(b""),
        stdin_grant: 0,
        hash: "sha256".into(),
    })
}

fn piece(seq: u64, whole: &mut Running, body: &[u8]) -> ServerHeader {
    let offset = whole.offset();
    whole.update(body);
    let hash = whole.digest();
    let stream = Stream::Stdout;
    ServerHeader::Output(OutputHeader { stream, seq, offset, hash, filename: None, time_ms: 0 })
}

fn verdict(seq: u64, stdout: &Running) -> ServerHeader {
    let end = |of: &Running| {
        Some(StreamEnd { size: of.offset(), hash: of.digest(), end: StreamEndKind::Eof })
    };
    ServerHeader::Verdict(Box::new(Verdict {
        seq,
        run: "one".into(),
        end: Some(End::Exited { code: 3 }),
        stopped: None,
        hash: None,
        stdout: end(stdout),
        stderr: end(&Running::new()),
        both: None,
        stdin: None,
        started: "2026-01-01T00:00:00.000Z".into(),
        elapsed_ms: 1,
        usage: Usage::default(),
        containment: Containment::Marks,
        left_running: 0,
        journal: None,
    }))
}

async fn written(state: &State, seq: u64) {
    while state.sink.written() < seq {
        state.sink.progress().await;
    }
}

/// What the client says now.
fn said(state: &mut State) -> Vec<ClientHeader> {
    let bytes = state.outgoing().unwrap();
    let mut rest = &bytes[..];
    let mut headers = Vec::new();
    while let Decoded::Frame(frame) = decode(rest, Limits::FULL).unwrap() {
        headers.push(serde_json::from_slice(frame.header).unwrap());
        rest = &rest[frame.len()..];
    }
    headers
}

/// Somebody who hears what is said unasked.
#[derive(Debug, Default)]
struct Hears(Mutex<Vec<String>>);

impl Ask for Hears {
    fn can_unlock(&self) -> bool {
        false
    }

    fn passphrase<'a>(&'a self, _: &'a str) -> Asking<'a, Option<zeroize::Zeroizing<String>>> {
        Box::pin(std::future::ready(None))
    }

    fn is_right<'a>(&'a self, _: &'a str, _: &'a PublicKey) -> Asking<'a, bool> {
        Box::pin(std::future::ready(false))
    }

    fn tell(&self, _: &str) {}

    fn note(&self, line: &str) {
        lock(&self.0).push(line.into());
    }
}

/// As that of a run whose supervisor is stopped, or that waits for the next server.
#[tokio::test(start_paused = true)]
async fn whoever_waits_for_the_start_of_a_run_is_told_so_once() {
    let (mut state, _gate) = state();
    let (hears, began) = (Hears::default(), Instant::now());
    let LegEnd::Broken(why) = Leg::new(&mut state, &hears).enforce().await else {
        panic!("no end")
    };
    assert_eq!((began.elapsed(), &*why), (SILENCE, "the request was not answered within 45 s"));
    assert_eq!(lock(&hears.0).len(), 1, "{hears:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_of_a_run_that_has_started_and_is_silent() {
    let (mut state, _gate) = state();
    hear(&mut state, &started(), b"").await;
    let hears = Hears::default();
    let leg = Leg::new(&mut state, &hears);
    assert!(tokio::time::timeout(10 * SILENCE, leg.enforce()).await.is_err());
    assert!(lock(&hears.0).is_empty(), "{hears:?}");
}

/// The output blocks until the patience with the cancelled run is over: how it ended is known all the same.
#[tokio::test]
async fn a_verdict_in_hand_is_told_when_the_answer_to_a_cancel_was_waited_for_long_enough() {
    let (mut state, gate) = state();
    let mut whole = Running::new();
    hear(&mut state, &started(), b"").await;
    state.control(Control::Cancel).unwrap();
    hear(&mut state, &piece(1, &mut whole, b"hi"), b"hi").await;
    gate.send(()).unwrap();
    written(&state, 1).await;
    hear(&mut state, &verdict(2, &whole), b"").await;
    state.cancelled = Some(Instant::now());
    let LegEnd::Final(end) = Leg::new(&mut state, &Nobody).enforce().await else {
        panic!("no last word")
    };
    let Err(Error::Output { error: OutputError::GivenUp, verdict: Some(verdict) }) = *end else {
        panic!("{end:?}")
    };
    assert_eq!(verdict.end, Some(End::Exited { code: 3 }));
}

#[tokio::test]
async fn why_a_run_was_cancelled_is_told_when_no_answer_came() {
    let (mut state, _gate) = state();
    hear(&mut state, &started(), b"").await;
    hear(&mut state, &piece(2, &mut Running::new(), b"hi"), b"hi").await;
    let LegEnd::Final(end) = state.last_word_now() else { panic!("no last word") };
    let Err(Error::Unknown { text, .. }) = *end else { panic!("{end:?}") };
    assert_eq!(
        text,
        "frame 2 came where 1 was due; it was cancelled, and the server did not say how it ended"
    );
}

/// The server may keep the request waiting, and never say that the run has started.
#[tokio::test]
async fn a_cancel_that_is_asked_for_while_the_request_is_sent_is_sent_behind_it() {
    let (mut state, _gate) = state();
    state.start_leg();
    state.control(Control::Cancel).unwrap();
    Leg::new(&mut state, &Nobody).wake();
    assert_eq!(said(&mut state), [ClientHeader::Cancel { run: None, as_operator: false }]);
}

fn signal(name: &str) -> Control {
    Control::Signal(name.into())
}

fn signals(names: &[&str]) -> Vec<ClientHeader> {
    names.iter().map(|&name| ClientHeader::Signal { signal: name.into(), run: None }).collect()
}

#[tokio::test]
async fn a_signal_that_went_behind_the_request_comes_once() {
    let (mut state, _gate) = state();
    state.start_leg();
    state.control(signal("INT")).unwrap();
    assert_eq!(said(&mut state), signals(&["INT"]));
    state.control(signal("HUP")).unwrap();
    hear(&mut state, &started(), b"").await;
    assert_eq!(said(&mut state), signals(&["HUP"]));
}

/// Where an earlier request has started the run, what went behind that may have come.
#[tokio::test]
async fn a_signal_that_went_behind_an_earlier_request_is_for_a_run_that_is_new() {
    for (attached, due) in [(false, &["INT", "HUP"][..]), (true, &["HUP"])] {
        let (mut state, _gate) = state();
        state.start_leg();
        state.control(signal("INT")).unwrap();
        assert_eq!(said(&mut state), signals(&["INT"]));
        state.lose_connection();
        state.control(signal("HUP")).unwrap();
        state.start_leg();
        let mut answer = started();
        if let ServerHeader::Started(started) = &mut answer {
            started.attached = attached;
        }
        hear(&mut state, &answer, b"").await;
        assert_eq!(said(&mut state), signals(due), "{attached}");
    }
}

/// `close` ends whatever there is.
#[tokio::test]
async fn nothing_is_said_behind_close() {
    let (mut state, _gate) = state();
    state.start_leg();
    state.closing = true;
    state.control(signal("INT")).unwrap();
    assert_eq!(said(&mut state), []);
}

/// The link took nothing more when they were asked for.
#[tokio::test]
async fn signals_that_were_not_sent_on_a_lost_link_are_sent_on_the_next_one() {
    let (mut state, _gate) = state();
    hear(&mut state, &started(), b"").await;
    state.control(signal("HUP")).unwrap();
    assert_eq!(said(&mut state), signals(&["HUP"]));
    state.control(signal("USR1")).unwrap();
    state.control(Control::Pause { told: tokio::sync::mpsc::channel(1).0 }).unwrap();
    // The link is lost, and the next one is not there yet.
    state.lose_connection();
    state.control(signal("USR2")).unwrap();
    state.start_leg();
    assert_eq!(said(&mut state), [], "before the server knows the run again");
    hear(&mut state, &started(), b"").await;
    assert_eq!(said(&mut state), signals(&["USR1", "USR2"]));
}

/// An output that is slower than the link: the server is not kept waiting until all of it is written.
#[tokio::test]
async fn what_is_written_is_confirmed_while_more_is_waiting() {
    const PIECE: usize = 128 * 1024;
    let (mut state, gate) = state();
    let mut whole = Running::new();
    hear(&mut state, &started(), b"").await;
    let body = vec![b'x'; PIECE];
    for seq in 1..=4 {
        hear(&mut state, &piece(seq, &mut whole, &body), &body).await;
    }
    for seq in 1..=3 {
        gate.send(()).unwrap();
        written(&state, seq).await;
        state.sink_moved().unwrap();
        assert_eq!(said(&mut state), [ClientHeader::Ack { seq }]);
    }
}

/// Whoever is about to be suspended waits for that: what lies in a buffer of its own is not sent any more.
#[tokio::test]
async fn a_pause_is_told_once_it_is_written() {
    let waits = Duration::ZERO;
    let (mut state, _gate) = state();
    hear(&mut state, &started(), b"").await;
    let leg = Leg::new(&mut state, &Nobody);
    let (near, mut far) = tokio::io::duplex(8);
    let mut writer = FrameWriter::new(near);
    let (told, mut waiting) = tokio::sync::mpsc::channel(1);
    leg.lock().control(Control::Pause { told }).unwrap();
    let mut write = std::pin::pin!(leg.write(&mut writer));
    assert!(tokio::time::timeout(waits, &mut write).await.is_err());
    assert!(tokio::time::timeout(waits, waiting.recv()).await.is_err(), "told too early");
    let read = async {
        let mut frame = Vec::new();
        frame::encode(&ClientHeader::Pause, b"", &mut frame).unwrap();
        far.read_exact(&mut vec![0; frame.len()]).await.unwrap();
        waiting.recv().await
    };
    tokio::select! {
        _ = &mut write => panic!("the leg ended"),
        told = read => assert_eq!(told, None),
    }
}

#[tokio::test]
async fn a_pause_that_nobody_can_be_told_of_is_not_waited_for() {
    let (mut state, _gate) = state();
    let (told, mut waiting) = tokio::sync::mpsc::channel(1);
    state.control(Control::Pause { told }).unwrap();
    assert_eq!(waiting.recv().await, None);
    let (told, mut waiting) = tokio::sync::mpsc::channel(1);
    hear(&mut state, &started(), b"").await;
    state.control(Control::Pause { told }).unwrap();
    state.lose_connection();
    state.start_leg();
    assert_eq!(waiting.recv().await, None);
}
