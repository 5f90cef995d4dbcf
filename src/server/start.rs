//! From options to a server that can run: everything that can go wrong at start goes wrong here, in
//! one line that names the culprit.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::warn;

use super::Config;
use super::classic::{self, ClassicAddr, ClassicSettings};
use crate::exec::Scanner;
use crate::identity::{Authorized, KeyError, News, Source, host_key, local_identity};
use crate::runs::host::{Host, Settings};
use crate::runs::journal::JournalError;
use crate::runs::recover::{self, Recovered};
use crate::sys::fs::{FsError, Lock, Locked, StateDir, lock_exclusive};
use crate::transport::{BindError, Bound, Endpoint, ListenAddr, TlsServer, bind};

/// Most bytes of an instance's name.
pub const NAME_LIMIT: usize = 128;

/// What an operator decides about a server.
#[derive(Debug)]
pub struct Options {
    /// Where keys and journals are.
    pub state: StateDir,
    /// Where to listen; at least one address.
    pub listen: Vec<ListenAddr>,
    /// The name of the instance; none: made from the first address.
    pub name: Option<String>,
    /// Files of keys that are let in, besides this account on this machine.
    pub authorized_keys: Vec<PathBuf>,
    /// Where the tutorial's clients are served, if anywhere.
    pub classic: Vec<ClassicAddr>,
    /// What is decided about connections.
    pub config: Config,
    /// What is decided about runs.
    pub settings: Settings,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state folder, or a file in it.
    #[error(transparent)]
    State(#[from] FsError),
    /// A key of the server's own.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The host key is no key for TLS.
    #[error("the host key cannot be used for TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// An address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The tutorial's clients cannot be served there, or by this account.
    #[error(transparent)]
    Classic(#[from] classic::StartError),
    /// The journal of this instance.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file of keys cannot be read. A server that is under way goes on and lets nobody of it in.
    #[error("cannot read --authorized-keys {}: {error}", path.display())]
    AuthorizedKeys {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: FsError,
    },
    /// Others could reach it and nobody would be let in.
    #[error(
        "{0} can be reached from other machines, but no key is authorized: give --authorized-keys FILE, or \
         listen on 127.0.0.1"
    )]
    NobodyAuthorized(Endpoint),
    /// The name cannot be that of a folder.
    #[error(
        "{0:?} cannot be the name of an instance: give --name with up to {NAME_LIMIT} characters, no / and no \
         dot in front"
    )]
    Name(String),
    /// Another server has it.
    #[error("another server uses the name {0:?} already: stop it, or give this one another --name")]
    NameTaken(String),
    /// The instance's folder cannot be locked.
    #[error("cannot lock the folder of {0:?}: {1}")]
    Lock(String, io::Error),
    /// `/proc` does not tell where this process is.
    #[error("/proc does not tell where this is: {0}")]
    Origin(io::Error),
    /// The system refuses a thread or a watch on a socket.
    #[error("cannot start: {0}")]
    System(io::Error),
}

/// A server that listens already, and serves once it runs.
pub struct Server {
    bound: Vec<Bound>,
    classic: Vec<(classic::Kind, Bound)>,
    config: Config,
    settings: Settings,
    authorized: Arc<Authorized>,
    tls: TlsServer,
    recovered: Recovered,
    /// Held as long as the server lives.
    _lock: Lock,
}

impl Server {
    /// Opens and binds everything. To be called while the process has one thread: for a unix socket the
    /// process's umask is changed for a moment.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn prepare(options: Options) -> Result<Self, StartError> {
        let key = host_key(&options.state)?;
        let local = local_identity(&options.state)?;
        let sources =
            options.authorized_keys.into_iter().map(|path| Source { path, required: true });
        let authorized = Arc::new(Authorized::new(sources.collect(), local.public()));
        check_authorized(&options.listen, &authorized)?;
        let name = name(options.name, &options.listen, &options.classic)?;
        let instance = options.state.subdir("instances")?.subdir(&name)?;
        let lock = lock(&instance, name)?;
        let mut bound = Vec::new();
        for address in &options.listen {
            bound.extend(bind(address)?);
        }
        let classic = bind_classic(&options.classic)?;
        let origin = recover::origin().map_err(StartError::Origin)?;
        let recovered = recover::open(instance.subdir("journal")?.path(), origin)?;
        let tls = TlsServer::new(&key)?;
        let Options { config, settings, .. } = options;
        Ok(Self { bound, classic, config, settings, authorized, tls, recovered, _lock: lock })
    }

    /// Where it listens, with the ports that the system chose.
    pub fn addresses(&self) -> impl Iterator<Item = &Endpoint> {
        self.bound.iter().map(Bound::address)
    }

    /// Where it serves the tutorial's clients, and of which kind.
    pub fn classic_addresses(&self) -> impl Iterator<Item = (classic::Kind, &Endpoint)> {
        self.classic.iter().map(|(kind, bound)| (*kind, bound.address()))
    }

    /// Serves until it is told to stop: see [`super::run`].
    ///
    /// # Errors
    /// [`StartError::System`].
    pub async fn run(self, shutdown: mpsc::Receiver<()>) -> Result<(), StartError> {
        let scanner = Scanner::new().map_err(StartError::System)?;
        let Recovered { journal, table, origin, unfinished } = self.recovered;
        let classic = ClassicSettings::new(self.settings.shell.clone(), scanner.clone());
        let host = Host::new(self.settings, (journal, origin, table), scanner.clone());
        let mut listeners = Vec::new();
        for bound in self.bound {
            listeners.push(bound.register().map_err(StartError::System)?);
        }
        let (shutdown, classics) = serve_classic(self.classic, &classic, shutdown)?;
        let settling = Arc::clone(&host);
        tokio::spawn(async move { recover::settle(unfinished, &settling, &scanner).await });
        super::run(listeners, self.config, host, self.tls, self.authorized, shutdown).await;
        classics.join_all().await;
        Ok(())
    }
}

fn bind_classic(addresses: &[ClassicAddr]) -> Result<Vec<(classic::Kind, Bound)>, StartError> {
    let mut all = Vec::new();
    for address in addresses {
        address.check()?;
        all.extend(bind(&address.address)?.into_iter().map(|bound| (address.kind, bound)));
    }
    Ok(all)
}

/// Serves the tutorial's clients until the first call to shut down, which is handed on.
fn serve_classic(
    bound: Vec<(classic::Kind, Bound)>,
    settings: &ClassicSettings,
    mut shutdown: mpsc::Receiver<()>,
) -> Result<(mpsc::Receiver<()>, JoinSet<()>), StartError> {
    let (stop, _) = watch::channel(false);
    let mut classics = JoinSet::new();
    for (kind, bound) in bound {
        let listener = bound.register().map_err(StartError::System)?;
        for line in classic::warning_lines(kind, listener.address()) {
            warn!("{line}");
        }
        let mut stopped = stop.subscribe();
        // A sender that is gone means that the server is.
        let stopped = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
        classics.spawn(classic::serve(listener, kind, settings.clone(), stopped));
    }
    let (forward, forwarded) = mpsc::channel(2);
    tokio::spawn(async move {
        while shutdown.recv().await.is_some() {
            stop.send_replace(true);
            // More than two say nothing new.
            let _ = forward.try_send(());
        }
    });
    Ok((forwarded, classics))
}

/// A server that others can reach and that would let nobody in is a mistake.
fn check_authorized(listen: &[ListenAddr], authorized: &Authorized) -> Result<(), StartError> {
    let (count, news) = authorized.count();
    for item in news {
        match item {
            News::File { path, error } => return Err(StartError::AuthorizedKeys { path, error }),
            News::Line { .. } => warn!("{item}"),
        }
    }
    match listen.iter().find(|ListenAddr(endpoint)| !endpoint.is_local()) {
        Some(address) if count == 0 => Err(StartError::NobodyAuthorized(address.0.clone())),
        _ => Ok(()),
    }
}

fn name(
    given: Option<String>,
    listen: &[ListenAddr],
    classic: &[ClassicAddr],
) -> Result<String, StartError> {
    let mut addresses = listen.iter().chain(classic.iter().map(|c| &c.address));
    let name = given
        .or_else(|| Some(addresses.next()?.0.to_string().replace('/', "_")))
        .unwrap_or_default();
    let allowed = |c: char| !c.is_control() && c != '/';
    let fits = (1..=NAME_LIMIT).contains(&name.len()) && !name.starts_with('.');
    if fits && name.chars().all(allowed) { Ok(name) } else { Err(StartError::Name(name)) }
}

fn lock(instance: &StateDir, name: String) -> Result<Lock, StartError> {
    lock_exclusive(instance.open_append("lock")?).map_err(|e| match e {
        Locked::Held => StartError::NameTaken(name),
        Locked::Io(e) => StartError::Lock(name, e),
    })
}
