//! From options to a server that can run: everything that can go wrong at start goes wrong here, in
//! one line that names the culprit.

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::addresses::Addresses;
use super::classic::{self, ClassicAddr, ClassicSettings};
use super::instance::{self, INSTANCES, JOURNAL, Name, READY, RUNS};
use super::policy::Policy;
use super::running::{Call, Ended, Running};
use super::shared::{Config, Shared, Whom};
use super::start_error::StartError;
use super::status;
use super::users::{System, Users};
use crate::exec::{BaseEnv, Groups, Scanner};
use crate::identity::{
    AccessFiles, Authorized, Fingerprint, News, PublicKey, Role, Trouble, host_key, local_identity,
};
use crate::runs::books::Books;
use crate::runs::durable::Keeping;
use crate::runs::host::{Host, Settings};
use crate::runs::journal::rules::{Digester, Rules};
use crate::runs::recover::{self, Recovered};
use crate::runs::retention::Retention;
use crate::sys::fs::{Lock, StateDir, euid};
use crate::sys::listen_fds::{Passed, Slots};
use crate::sys::replace::THIS_PROGRAM;
use crate::transport::{Bound, Endpoint, ListenAddr, TlsServer};

/// What an operator decides about a server.
#[derive(Debug)]
pub struct Options {
    /// Where keys and journals are.
    pub state: StateDir,
    /// Where to listen. None: on every socket that was handed over, of which there is at least one then,
    /// or on none besides `classic`.
    pub listen: Vec<ListenAddr>,
    /// What was handed over at the start of the program: sockets, and by a server that is being upgraded
    /// the lock of its instance.
    pub inherited: Vec<Passed>,
    /// The name of the instance; none: made from the first address, and another one for each server where
    /// that has port 0.
    pub name: Option<String>,
    /// Who is let in, besides this account on this machine.
    pub access: AccessFiles,
    /// The users that are served instead of this account; as for `kept`, this program has to be `rexec-server`.
    pub system: Option<System>,
    /// Where the tutorial's clients are served, if anywhere.
    pub classic: Vec<ClassicAddr>,
    /// What is decided about connections.
    pub config: Config,
    /// Who may do what.
    pub policy: Policy,
    /// What is decided about runs.
    pub settings: Settings,
    /// What is decided about durable runs; none: there are none. Their supervisors are this very program,
    /// started with the arguments of [`SUPERVISE`](crate::runs::ready::SUPERVISE), so only `rexec-server` has them.
    pub kept: Option<Kept>,
    /// What is written into the journal, how surely, and where else.
    pub journal: Rules,
}

/// What an operator decides about durable runs.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Most bytes of one record; a run that makes more is stopped.
    pub record_limit: u64,
    /// What is kept of those that are over.
    pub retention: Retention,
}

impl Default for Kept {
    fn default() -> Self {
        Self { record_limit: 1 << 30, retention: Retention::default() }
    }
}

/// A server that listens already, and serves once it runs.
pub struct Server {
    bound: Vec<Bound>,
    classic: Vec<(classic::Kind, Bound)>,
    config: Config,
    policy: Policy,
    groups: Option<Groups>,
    settings: Settings,
    doors: Whom,
    tls: TlsServer,
    host_key: Fingerprint,
    recovered: Recovered,
    /// Where the status is told; none if that was not possible.
    status: Option<UnixListener>,
    keeping: Option<Keeping>,
    /// Held as long as the server lives.
    lock: Lock,
}

impl Server {
    /// Opens and binds everything, or takes what was handed over. To be called while the process has one thread: for a unix socket the
    /// process's umask is changed for a moment.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn prepare(options: Options) -> Result<Self, StartError> {
        let shell = foresee(&options.settings.shell, &options.classic, &options.policy)?;
        let limits = options.policy.limits();
        let groups =
            options.config.cgroup.clone().map(|dir| Groups::open(dir, limits)).transpose()?;
        let settings = Settings { shell, ..options.settings };
        let key = host_key(&options.state)?;
        let local = local_identity(&options.state)?;
        let tls = TlsServer::new(&key)?;
        let origin = recover::origin().map_err(StartError::Origin)?;
        let (lock, sockets) = instance::split(options.inherited);
        let Addresses { bound, classic, listen } =
            Addresses::open(sockets, options.listen, &options.classic)?;
        let name = Name::new(options.name, &listen, &options.classic)?;
        // An address that is none is told before what it would need.
        let takes_over = lock.is_some();
        let doors = match &options.system {
            None => Whom::Itself(authorized(&listen, options.access, local.public(), takes_over)?),
            Some(system) => Whom::Users(users(system, &options.access, takes_over)?.into()),
        };
        // Last: a start that fails before leaves no folder of a name that nothing was run under.
        let (instance, lock) = name.open(&options.state.subdir(INSTANCES)?, lock)?;
        let (journal, runs) = (instance.subdir(JOURNAL)?, instance.subdir(RUNS)?);
        let recovered = {
            let written = (&options.journal, Digester::of(&instance)?);
            recover::open(journal.path(), runs.path(), origin, written)?
        };
        let keeping = options.kept.map(|kept| keeping(&instance, &runs, kept)).transpose()?;
        let status = status::bind(instance.path())
            .inspect_err(|e| warn!("`rexec-server status` will not work: {e}"))
            .ok();
        let host_key = key.public().fingerprint();
        let (config, policy) = (options.config, options.policy);
        policy.limits_told(groups.is_some()).iter().for_each(|line| info!("{line}"));
        Ok(Self {
            bound,
            classic,
            config,
            policy,
            groups,
            settings,
            doors,
            tls,
            host_key,
            recovered,
            status,
            keeping,
            lock,
        })
    }

    /// The fingerprint of the key that clients over TCP are shown.
    #[must_use]
    pub fn host_key(&self) -> Fingerprint {
        self.host_key
    }

    /// Where it listens, with the ports that the system chose.
    pub fn addresses(&self) -> impl Iterator<Item = &Endpoint> {
        self.bound.iter().map(Bound::address)
    }

    /// Where it serves the tutorial's clients, and of which kind.
    pub fn classic_addresses(&self) -> impl Iterator<Item = (classic::Kind, &Endpoint)> {
        self.classic.iter().map(|(kind, bound)| (*kind, bound.address()))
    }

    /// Puts every socket where it can be handed over. False if there are more than places: then
    /// [`Running::hand_over`] will fail.
    ///
    /// # Errors
    /// [`StartError::System`].
    pub fn place(&mut self, slots: &mut Slots) -> Result<bool, StartError> {
        let mut placed = self.lock.place(slots).map_err(StartError::System)?;
        let classic = self.classic.iter_mut().map(|(_, bound)| bound);
        for bound in self.bound.iter_mut().chain(classic) {
            placed &= slots.place(bound.socket_mut()).map_err(StartError::System)?;
        }
        Ok(placed)
    }

    /// Begins to know of the runs that a server before it left.
    ///
    /// # Errors
    /// [`StartError::System`].
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn start(self) -> Result<Running, StartError> {
        let scanner = Scanner::new().map_err(StartError::System)?;
        let Recovered { ledger, table, unfinished, durable } = self.recovered;
        let classic_settings = ClassicSettings::new(self.settings.shell.clone(), scanner.clone());
        let (books, base_env) = (Books::Server(Box::new(ledger)), BaseEnv::of_this_process());
        let host =
            Host::new((self.settings, base_env), books, table, scanner.clone(), self.keeping);
        let settling = Arc::clone(&host);
        tokio::spawn(
            async move { recover::settle((unfinished, durable), &settling, &scanner).await },
        );
        Ok(Running {
            shared: Arc::new(Shared::new(
                (self.config, self.policy, self.groups),
                host,
                self.tls,
                self.doors,
            )),
            classic_settings,
            classic: self.classic,
            bound: self.bound,
            status: self.status,
            lock: self.lock,
        })
    }

    /// Serves until it is told to stop, and returns when every run has ended.
    ///
    /// # Errors
    /// [`StartError::System`].
    pub async fn run(self, mut calls: mpsc::Receiver<Call>) -> Result<Ended, StartError> {
        self.start()?.serve(&mut calls).await.map_err(StartError::System)
    }
}

fn keeping(instance: &StateDir, runs: &StateDir, kept: Kept) -> Result<Keeping, StartError> {
    let program = File::open(THIS_PROGRAM).map_err(StartError::System)?;
    // On the disk of those that it is for, which may not be this instance's.
    let ready = runs.subdir(READY)?;
    let Kept { record_limit, retention } = kept;
    if let Err(e) = retention.save(instance.path()) {
        warn!("what is kept cannot be written down for `rexec-server gc`: {e}");
    }
    let (runs, ready) = (runs.path().to_owned(), ready.path().to_owned());
    Ok(Keeping { runs, ready, program, record_limit, retention })
}

/// What is there to be said of the users at start is said.
fn users(system: &System, access: &AccessFiles, takes_over: bool) -> Result<Users, StartError> {
    if euid() != 0 {
        return Err(StartError::NotRoot);
    }
    if !access.keys.is_empty() {
        return Err(StartError::KeysOfNobody);
    }
    look(&Authorized::as_user("", access.clone(), Vec::new()), takes_over)?;
    system.notes().iter().for_each(|line| warn!("{line}"));
    let users = Users::new(system, access);
    users.check();
    Ok(users)
}

/// A server that others can reach and that would let nobody in is a mistake, unless it takes over: from one that
/// lets nobody in any more, and has runs to keep.
fn authorized(
    listen: &[ListenAddr],
    access: AccessFiles,
    local: &PublicKey,
    takes_over: bool,
) -> Result<Arc<Authorized>, StartError> {
    let all = access.keys.iter().chain(&access.authorities);
    let files: Vec<_> = all.map(|source| source.path.clone()).collect();
    let authorized = Authorized::new(access, local);
    let count = look(&authorized, takes_over)?;
    match StartError::nobody_let_in(listen, files, count) {
        Some(error) if !takes_over => Err(error),
        _ => Ok(Arc::new(authorized)),
    }
}

/// How many keys are let in. What is wrong with the files is told, or ends the start of a server that does not
/// take over.
fn look(authorized: &Authorized, takes_over: bool) -> Result<usize, StartError> {
    let (count, news) = authorized.count();
    for item in news {
        match item {
            News { role, path, trouble: Trouble::File(error) } if !takes_over => {
                return Err(StartError::Access { option: role.option(), path, error });
            }
            News { role: Role::Revoked, path, trouble: Trouble::Line(error) } if !takes_over => {
                return Err(StartError::Revoked { path, error });
            }
            other => warn!("{other}"),
        }
    }
    Ok(count)
}

/// What keeps a server from starting, as far as these options alone tell: nothing is made or listened on. The path of
/// its shell.
///
/// # Errors
/// [`StartError`].
pub fn foresee(
    shell: &Path,
    classic: &[ClassicAddr],
    policy: &Policy,
) -> Result<PathBuf, StartError> {
    let local = format!("local:{}", euid());
    if let (false, Some(rule)) = (classic.is_empty(), policy.rules_for(&local).next()) {
        return Err(StartError::ClassicUnderPolicy(rule.name.clone()));
    }
    resolve_shell(shell)
}

fn resolve_shell(shell: &Path) -> Result<PathBuf, StartError> {
    BaseEnv::of_this_process()
        .program(shell)
        .map_err(|reason| StartError::Shell { shell: shell.to_owned(), reason })
}
