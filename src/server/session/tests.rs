use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};

use super::*;
use crate::conn::SILENCE;
use crate::exec::BaseEnv;
use crate::identity::{AccessFiles, Authorized, host_key, local_identity};
use crate::proto::frame::Limits;
use crate::runs::books::Books;
use crate::runs::host::{Host, Settings};
use crate::runs::journal::rules::{Digester, Rules};
use crate::runs::recover;
use crate::server::HOLD_LIMIT;
use crate::server::policy::{Allowed, Policy};
use crate::server::shared::{Config, Shared, Whom};
use crate::server::users::{Guest, System, Users};
use crate::server::waiting::Waiting;
use crate::sys::fs::StateDir;
use crate::transport::TlsServer;

/// A client of a session that is served over a stream in memory.
struct Peer {
    reader: FrameReader<ReadHalf<DuplexStream>>,
    writer: FrameWriter<WriteHalf<DuplexStream>>,
    _state: TempDir,
}

fn shared(folder: &TempDir) -> Arc<Shared> {
    let state = StateDir::open(&folder.path().canonicalize().unwrap().join("state")).unwrap();
    let journal = state.subdir("journal").unwrap();
    let runs = state.subdir("runs").unwrap();
    let found = {
        let state = StateDir::open(&journal.path().canonicalize().unwrap()).unwrap();
        let written = (&Rules::default(), Digester::of(&state).unwrap());
        recover::open(journal.path(), runs.path(), recover::origin().unwrap(), written).unwrap()
    };
    let scanner = crate::exec::Scanner::new().unwrap();
    let books = Books::Server(Box::new(found.ledger));
    let host = Host::new(
        (Settings::default(), BaseEnv::of_this_process()),
        books,
        found.table,
        scanner,
        None,
    );
    let tls = TlsServer::new(&host_key(&state).unwrap()).unwrap();
    let local = local_identity(&state).unwrap();
    let authorized = Arc::new(Authorized::new(AccessFiles::default(), local.public()));
    Arc::new(Shared::new(
        (Config::default(), Policy::default(), None),
        host,
        tls,
        Whom::Itself(authorized),
    ))
}

fn connect() -> Peer {
    connect_as(None)
}

fn connect_as(guest: Option<Arc<Guest>>) -> Peer {
    let folder = tempfile::tempdir().unwrap();
    connect_to(&shared(&folder), folder, guest)
}

fn connect_to(shared: &Shared, folder: TempDir, guest: Option<Arc<Guest>>) -> Peer {
    let (ours, theirs) = duplex(1 << 16);
    let (read, write) = split(theirs);
    let requests = Requests {
        host: Arc::clone(&shared.host),
        identity: "local:0".into(),
        from: "a test".into(),
        outbox: Arc::new(Outbox::greeting()),
        rights: crate::server::rights::of_a_server(Default::default()),
        judge: Arc::new(|_, _, _| Ok(Allowed::default())),
        refusals: Arc::clone(&shared.peers),
        guest,
        is_stale: false,
        holds: Arc::clone(&shared.holds),
        is_managed: true,
        held: None,
        waiting: Waiting::default(),
    };
    let patience = Patience { idle: Duration::from_secs(7200), silence: Some(SILENCE) };
    let (reader, writer) = (FrameReader::new(read, Limits::FULL), FrameWriter::new(write));
    tokio::spawn(serve(reader, writer, requests, patience));
    let (read, write) = split(ours);
    Peer {
        reader: FrameReader::new(read, Limits::FULL),
        writer: FrameWriter::new(write),
        _state: folder,
    }
}

impl Peer {
    async fn say(&mut self, header: Value, body: &[u8]) {
        self.writer.send(&header, body).await.unwrap();
    }

    /// The next frame that is no heartbeat.
    async fn hear(&mut self) -> Value {
        loop {
            let frame = self.reader.next(None).await.unwrap().unwrap();
            let header: Value = frame.header().unwrap();
            if header["type"] != "heartbeat" {
                return header;
            }
        }
    }
}

/// The run is refused for its id, without starting anything, if it is looked at.
fn bad_run() -> Value {
    json!({"type": "run", "id": "no such/id", "form": "shell", "words": 1})
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_session_unless_it_was_announced() {
    let mut silent = connect();
    assert_eq!(silent.hear().await["code"], "peer_silent");

    let mut suspended = connect();
    suspended.say(json!({"type": "pause"}), b"").await;
    tokio::time::sleep(SILENCE * 10).await;
    suspended.say(json!({"type": "close", "id": "no such/id"}), b"").await;
    assert_eq!(suspended.hear().await["code"], "bad_request");
    assert_eq!(suspended.hear().await["code"], "peer_silent", "its next frame ended the pause");
}

/// By then its client still knows that nothing was started. An upgrade that became the server's end was a part of it.
#[tokio::test(start_paused = true)]
async fn a_request_that_has_waited_for_too_long_for_another_server_is_refused() {
    for upgrade in [Duration::ZERO, HOLD_LIMIT / 2] {
        let folder = tempfile::tempdir().unwrap();
        let shared = shared(&folder);
        let mut peer = connect_to(&shared, folder, None);
        shared.host.hold().await;
        let began = Instant::now();
        peer.say(json!({"type": "run", "id": "late", "form": "shell", "words": 1}), b"x\0").await;
        tokio::time::sleep(upgrade).await;
        shared.host.close_to_new();
        assert_eq!(peer.hear().await["code"], "shutting_down");
        assert!((HOLD_LIMIT..SILENCE).contains(&began.elapsed()), "{:?}", began.elapsed());
        // It holds no room any more.
        shared.holds.emptied().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_started_on_a_connection_that_was_suspended_for_long() {
    let mut peer = connect();
    peer.say(json!({"type": "pause"}), b"").await;
    tokio::time::sleep(SILENCE / 2).await;
    peer.say(bad_run(), b"x\0").await;
    assert_eq!(peer.hear().await["code"], "bad_request", "it was looked at");
    peer.say(json!({"type": "pause"}), b"").await;
    tokio::time::sleep(SILENCE * 2).await;
    peer.say(bad_run(), b"x\0").await;
    assert_eq!(peer.hear().await["code"], "peer_silent");
}

#[tokio::test(start_paused = true)]
async fn started_waits_a_moment_for_what_else_there_is_to_say() {
    let outbox = Outbox::default();
    let (ours, theirs) = duplex(1 << 16);
    let mut writer = FrameWriter::new(ours);
    let mut reader = FrameReader::new(theirs, Limits::FULL);
    let heartbeat = ServerHeader::Heartbeat;
    let client = async {
        let began = Instant::now();
        outbox.answer_soon(&heartbeat).unwrap();
        reader.next(None).await.unwrap().unwrap();
        let took = began.elapsed();
        assert!((STARTED_WAIT..HEARTBEAT).contains(&took), "alone it went after {took:?}");

        let began = Instant::now();
        outbox.answer_soon(&heartbeat).unwrap();
        tokio::task::yield_now().await;
        outbox.answer(&heartbeat).unwrap();
        reader.next(None).await.unwrap().unwrap();
        reader.next(None).await.unwrap().unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO, "with more to say it went at once");
    };
    tokio::select! {
        end = write_loop(&mut writer, &outbox) => panic!("{:?}", end.err()),
        () = client => {}
    }
}

/// A list may be asked for whatever else is under way; the account is looked at before both.
#[tokio::test]
async fn a_list_does_not_take_the_place_of_what_waits_for_a_look_at_the_account() {
    let system = System { users: vec!["root".into()], groups: Vec::new(), ssh_keys: false };
    for _ in 0..20 {
        let users = Users::new(&system, &AccessFiles::default());
        let mut peer = connect_as(users.guest("root"));
        peer.writer.queue(&bad_run(), b"x\0").unwrap();
        peer.writer.queue(&json!({"type": "list"}), b"").unwrap();
        peer.writer.flush().await.unwrap();
        assert_eq!(peer.hear().await["code"], "bad_request");
        assert_eq!(peer.hear().await["type"], "runs");
    }
}
