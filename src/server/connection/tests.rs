//! How long a login may take, by a clock that stands still while anybody is at work.

use std::net::{IpAddr, Ipv4Addr};

use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::handshake::ClientLogin;
use crate::identity::{AccessFiles, Candidate, Fingerprint, Nobody, local_identity};
use crate::proto::frame::encode;
use crate::proto::header::{ClientHeader, Hello};
use crate::sys::fs::StateDir;

/// A server that would let one key in, and the client's end of a connection to it.
struct Call {
    client: DuplexStream,
    key: Arc<Candidate>,
    begun: Instant,
    heard: JoinHandle<Result<Login, Stranger>>,
}

fn channel() -> Channel {
    Channel { host_key: Fingerprint::of_blob(b"host"), exporter: [7; 32] }
}

impl Call {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().canonicalize().unwrap().join("state")).unwrap();
        let key = local_identity(&state).unwrap();
        let authorized = Arc::new(Authorized::new(AccessFiles::default(), key.public()));
        let (client, server) = duplex(1 << 16);
        let heard = tokio::spawn(async move {
            let (read, write) = split(server);
            let mut reader = FrameReader::new(read, Limits::HELLO);
            let mut writer = FrameWriter::new(write);
            let caller = Caller { address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), loopback: true };
            let origin = Origin::Tls { channel: channel(), caller };
            let deadline = Instant::now() + LOGIN_TIMEOUT;
            hear((&mut reader, &mut writer), &origin, &authorized, deadline, |_| ()).await
        });
        let key = Arc::new(Candidate::held(key, "of the test"));
        Self { client, key, begun: Instant::now(), heard }
    }

    async fn say(&mut self, hello: &ClientHeader) {
        let mut bytes = Vec::new();
        encode(hello, b"", &mut bytes).unwrap();
        self.client.write_all(&bytes).await.unwrap();
    }

    /// Lists the key and proves nothing.
    async fn ask(&mut self) {
        let keys = vec![self.key.public().fingerprint().to_string()];
        let (client, user, key) = ("test".into(), None, None);
        let hello = Hello { client, user, keys, key, ..Hello::default() };
        self.say(&ClientHeader::Hello(hello)).await;
        let mut reader = FrameReader::new(&mut self.client, Limits::FULL);
        let answer = reader.next(None).await.unwrap().unwrap();
        let Ok(ServerHeader::Refused(refused)) = answer.header() else { panic!("{answer:?}") };
        assert_eq!(refused.code, Code::TryKey);
    }

    async fn prove(&mut self) {
        let mut login = ClientLogin::new(None, vec![Arc::clone(&self.key)]);
        let hello = login.hello(Some(&channel()), &Nobody).await.unwrap();
        self.say(&hello).await;
    }

    /// When its time was over.
    async fn late(self) -> (Duration, Duration) {
        let heard = self.heard.await.unwrap();
        let Err(Stranger::Late(patience)) = heard else { panic!("{heard:?}") };
        (self.begun.elapsed(), patience)
    }
}

/// Timers of tokio's are good to a millisecond.
const TICK: Duration = Duration::from_millis(2);

fn is_about(time: Duration, expected: Duration) -> bool {
    time >= expected && time < expected + TICK
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_has_the_time_of_a_login() {
    let (after, patience) = Call::new().late().await;
    assert_eq!(patience, LOGIN_TIMEOUT);
    assert!(is_about(after, LOGIN_TIMEOUT), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn somebody_may_take_a_minute_to_touch_a_key_that_would_be_let_in_and_no_longer() {
    let asks_at = Duration::from_secs(3);
    let mut call = Call::new();
    sleep(asks_at).await;
    call.ask().await;
    sleep(PERSON_TIMEOUT - TICK).await;
    call.prove().await;
    assert!(matches!(call.heard.await.unwrap(), Ok(Login::In { .. })));
    let mut call = Call::new();
    sleep(asks_at).await;
    call.ask().await;
    let (after, patience) = call.late().await;
    assert_eq!(patience, PERSON_TIMEOUT);
    assert!(is_about(after, asks_at + PERSON_TIMEOUT), "{after:?}");
}

/// Or each question would buy another minute.
#[tokio::test(start_paused = true)]
async fn asking_again_gives_no_more_time() {
    let mut call = Call::new();
    call.ask().await;
    sleep(PERSON_TIMEOUT / 2).await;
    call.ask().await;
    let (after, _) = call.late().await;
    assert!(is_about(after, PERSON_TIMEOUT), "{after:?}");
}
