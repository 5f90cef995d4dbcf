//! The supervisor of one durable run: it owns the command and the record, and outlives the server.
//!
//! Its standard input is the link to the server that started it, on which the setup comes first. Others
//! find it by the socket in the run's folder. It goes when the verdict is written and nobody needs it.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use super::accepting::ACCEPT_PAUSE;
use super::outbox::Outbox;
use super::policy::Allowed;
use super::requests::{Judge, Requests};
use super::rights;
use super::session::{Patience, serve as serve_session};
use super::waiting::Waiting;
use crate::conn::{FrameReader, FrameWriter};
use crate::exec::{BaseEnv, Mark, Scanner, adopt, pipes_released};
use crate::handshake::AGENT;
use crate::proto::frame::Limits;
use crate::proto::header::{ClientHeader, ServerHeader, Welcome};
use crate::proto::verdict::StopBy;
use crate::runs::books::Books;
use crate::runs::disk::folder::Claim;
use crate::runs::disk::{Folder, Writer};
use crate::runs::host::{Host, Settings};
use crate::runs::judged::Judged;
use crate::runs::launch::Setup;
use crate::runs::link::widen;
use crate::runs::request::Imposed;
use crate::runs::table::Table;
use crate::runs::throttle::Throttle;
use crate::sys::fs::{Lock, is_own_or_root};
use crate::sys::signals::{Signals, hold};
use crate::sys::{pause, process};

/// How long those who are connected have to take the verdict; after that they read it from the record.
const FAREWELL: Duration = Duration::from_secs(60);
/// No session of a supervisor ends for want of a request.
const IDLE: Duration = Duration::from_secs(365 * 24 * 3600);

/// What all sessions share.
struct Supervisor {
    host: Arc<Host>,
    identity: Arc<str>,
    judged: Judged,
    /// What is run instead of what is asked for.
    imposed: Imposed,
    refusals: Arc<Throttle>,
}

/// What ps(1) calls this process; the kernel takes no more than 15 bytes.
const NAME: &CStr = c"rexec-supervise";
/// What does not end this process by itself. By all but the first its server may be meant: whoever looks for that by the
/// command line finds this too.
const HELD: [Signal; 6] =
    [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT, Signal::USR1, Signal::USR2];

/// Waits until this process is to end.
async fn terminated(signals: &Signals) {
    loop {
        match signals.next().await {
            Ok(Signal::TERM) => return,
            Ok(_) => {}
            // Nothing more can be heard.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Supervises one of the runs below `runs`: which one, the server on the standard input says. `ready` is its
/// folder until then. Without a server that says it there is nothing to do.
///
/// # Errors
/// One line: nothing was started, or the record cannot be written.
pub fn main(runs: &Path, ready: &Path) -> Result<(), String> {
    pause::program("supervisor");
    // As it was executed by a descriptor, it would be called by that one's number.
    let _ = rustix::thread::set_name(NAME);
    process::prepare().map_err(|e| e.to_string())?;
    hold(&HELD).map_err(|e| format!("cannot hold signals: {e}"))?;
    // Nothing that ends the server's session or its terminal ends this process.
    rustix::process::setsid().map_err(|e| format!("cannot leave the session: {e}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    let supervised = runtime.block_on(supervise(runs, Folder::found(ready.to_owned())));
    runtime.shutdown_background();
    supervised.map_err(|e| e.to_string())
}

async fn supervise(runs: &Path, ready: Folder) -> io::Result<()> {
    let link = StdStream::from(rustix::stdio::stdin().try_clone_to_owned()?);
    link.set_nonblocking(true)?;
    // The copy is enough: nothing that is started here is to hold the link.
    let null = File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    let (read, write) = split(UnixStream::from_std(link)?);
    let mut reader = FrameReader::new(read, Limits::FULL);
    let (base_env, signals) = (BaseEnv::of_this_process(), Signals::new(&HELD)?);
    tokio::spawn(async {
        if let Err(e) = adopt().await {
            warn!("cannot reap what the run leaves behind: {e}");
        }
    });
    pause::point("born");
    let (record, listener, here) = prepare()?;
    let first = tokio::select! {
        first = reader.next(None) => first.map_err(io::Error::other)?,
        () = terminated(&signals) => None,
    };
    let Some(first) = first else {
        ready.remove();
        return Ok(());
    };
    pause::point("asked");
    let setup: Setup = first.header().map_err(io::Error::other)?;
    let folder = Folder::found(runs.join(&setup.folder));
    let supervisor = Supervisor::of((folder, record), setup, &first.body, base_env)?;
    let supervisor = Arc::new(supervisor);
    pause::point("locked");
    let mut sessions = JoinSet::new();
    supervisor.attend(reader, FrameWriter::new(write), &mut sessions);
    supervisor.serve_until_over(&listener, &mut sessions, &signals).await;
    drop(listener);
    pause::point("leaving");
    // Where that is: what was not started has lost its folder, and there may be another's in its place.
    Folder::at(&here).remove_socket();
    if supervisor.host.is_empty() {
        // Whoever has come for the run learns from this end that it has none.
        return Ok(());
    }
    pause::point("recorded");
    // Who does not take the verdict in time finds it in the record.
    let all = async { while sessions.join_next().await.is_some() {} };
    let _ = timeout(FAREWELL, all).await;
    supervisor.host.give_back();
    pipes_released().await;
    Ok(())
}

impl Supervisor {
    /// Takes the run, if the folder is still its own.
    fn of(
        (folder, record): (Folder, Lock),
        setup: Setup,
        shell: &[u8],
        base_env: BaseEnv,
    ) -> io::Result<Self> {
        let Setup { identity, mark, record_limit, judged, imposed, .. } = setup;
        let mark = Mark::from_hex(mark.as_bytes());
        let mark = mark.ok_or_else(|| io::Error::other("the setup has no mark"))?;
        // A supervisor that comes late may find the folder of another run with the id, or none.
        if folder.meta()?.is_none_or(|meta| meta.mark != mark.to_string()) {
            return Err(io::Error::other("the run was given up"));
        }
        let mut writer = Writer::new(record, record_limit);
        // The server waits for the disk meanwhile.
        writer.reserve();
        let shell = std::os::unix::ffi::OsStrExt::from_bytes(shell);
        let shell = Path::new::<std::ffi::OsStr>(shell).to_owned();
        let settings = Settings { shell, max_runs: 1, ..Settings::default() };
        let books = Books::Supervisor { folder, mark, writer: Some(writer).into() };
        let (table, scanner) = (Table::new(Duration::ZERO), Scanner::on_demand());
        let host = Host::new((settings, base_env), books, table, scanner, None);
        let identity = identity.into();
        Ok(Self { host, identity, judged, imposed, refusals: Arc::default() })
    }

    /// Serves who comes until the run is over, or was not started.
    async fn serve_until_over(
        self: &Arc<Self>,
        listener: &UnixListener,
        sessions: &mut JoinSet<()>,
        signals: &Signals,
    ) {
        let over = self.host.one_is_over();
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                () = terminated(signals) => self.host.stop_all(StopBy::Shutdown, false),
                Some(_) = sessions.join_next() => {
                    if self.host.is_empty() {
                        return;
                    }
                }
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.welcome(stream, sessions),
                    Err(e) => {
                        warn!("cannot accept a connection: {e}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    fn welcome(self: &Arc<Self>, stream: UnixStream, sessions: &mut JoinSet<()>) {
        // Only processes that this account may see its run's output have a way to the folder; this holds
        // if somebody has changed its mode.
        if !stream.peer_cred().is_ok_and(|peer| is_own_or_root(peer.uid())) {
            return;
        }
        widen(&stream);
        let (read, write) = split(stream);
        self.attend(FrameReader::new(read, Limits::FULL), FrameWriter::new(write), sessions);
    }

    fn attend<R, W>(
        self: &Arc<Self>,
        reader: FrameReader<R>,
        writer: FrameWriter<W>,
        sessions: &mut JoinSet<()>,
    ) where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let this = Arc::clone(self);
        // It is large, and would be copied five times: to a stack that no process of one run has touched before.
        sessions.spawn(Box::pin(async move { this.serve(reader, writer).await }));
    }

    async fn serve<R, W>(&self, mut reader: FrameReader<R>, mut writer: FrameWriter<W>)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let hello = match reader.next(None).await {
            Ok(Some(frame)) => frame.header(),
            _ => return,
        };
        let Ok(ClientHeader::Hello(_)) = hello else { return };
        let welcome = Welcome { server: AGENT.into(), identity: self.identity.to_string() };
        if writer.queue(&ServerHeader::Welcome(welcome), b"").is_err() {
            return;
        }
        let requests = Requests {
            host: Arc::clone(&self.host),
            identity: Arc::clone(&self.identity),
            from: "its server".into(),
            outbox: Arc::new(Outbox::greeting()),
            rights: rights::of_a_server(self.imposed.clone()),
            judge: judged_before(self.judged.clone()),
            refusals: Arc::clone(&self.refusals),
            guest: None,
            is_stale: false,
            holds: Arc::default(),
            is_managed: false,
            held: None,
            waiting: Waiting::default(),
        };
        // A server that is stopped, or very busy, has not gone.
        let patience = Patience { idle: IDLE, silence: None };
        serve_session(reader, writer, requests, patience).await;
        self.host.left();
    }
}

/// Locks the record and listens, in the folder in which the server has started this: whatever that is called by
/// now. Nothing that is started here is to be found in it.
fn prepare() -> io::Result<(Lock, UnixListener, OwnedFd)> {
    let here = OwnedFd::from(File::open(".")?);
    let record = match Folder::at(&here).claim()? {
        Claim::Ours(record) if record.file().metadata()?.len() == 0 => record,
        // It comes late: what was to be its run was given up.
        Claim::Ours(_) | Claim::Taken => return Err(io::Error::other("the folder is another's")),
    };
    let listener = listen(&here)?;
    rustix::process::chdir("/")?;
    Ok((record, listener, here))
}

/// The server has judged: nothing that a supervisor is asked for comes from anybody else.
fn judged_before(judged: Judged) -> Judge {
    Arc::new(move |_, _, _| Ok(Allowed { judged: judged.clone(), ..Allowed::default() }))
}

fn listen(here: &OwnedFd) -> io::Result<UnixListener> {
    let listener = StdListener::bind(Folder::at(here).socket())?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}
