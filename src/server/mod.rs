//! The server: connections in, runs out.
//!
//! [`Server::prepare`] makes keys and sockets of [`Options`], and [`Running::serve`] serves until it is called to
//! stop or to be replaced. Each connection is one task (`connection`): it waits in the `lobby` for TLS and its login,
//! then is a `session`, which reads `requests`, serves one run at a time (`serving`), and sends what is in its
//! `outbox`. Its `rights` come from its key and the [`policy`]. [`supervise`] is the program that owns one durable
//! run.

mod addresses;
pub mod classic;
mod connection;
mod end;
mod held;
mod instance;
mod lobby;
mod outbox;
mod penalties;
pub mod policy;
mod posted;
mod requests;
mod rights;
mod running;
mod serving;
mod session;
mod showing;
mod start;
mod start_error;
pub mod status;
pub mod supervise;
mod told;
pub mod users;
mod waiting;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::sleep;
use tracing::{info, warn};

pub use connection::{LOGIN_TIMEOUT, PERSON_TIMEOUT};
pub use held::HOLD_LIMIT;
pub use instance::{
    FindError, InstanceError, NAME_LIMIT, RUNS, find_instance, find_journal, find_running,
};
pub use lobby::PLACES;
pub use outbox::{ANSWERS_LIMIT, STARTED_WAIT};
pub use penalties::{FORGET, FREE, LONGEST, REMEMBERED, SHORTEST};
pub use requests::LIST_LIMIT;
pub use running::{Call, Ended, Running};
pub use session::LONGEST_PAUSE;
pub use start::{Kept, Options, Server, foresee};
pub use start_error::StartError;
pub use users::System;
pub use waiting::BEHIND_LIMIT;

use crate::conn::Arrivals;
use crate::exec::Groups;
use crate::handshake::Doors;
use crate::identity::{Authorized, Network, News};
use crate::proto::header::Refused;
use crate::runs::host::Host;
use crate::runs::throttle::Throttle;
use crate::transport::{Listener, TlsServer};
use lobby::Lobby;
use penalties::Penalties;
use policy::Policy;
use status::{Counters, Why};
use users::Users;

/// How long to wait before accepting again when the system has no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What an operator decides about connections.
#[derive(Debug, Clone)]
pub struct Config {
    /// Most logged-in connections.
    pub max_connections: usize,
    /// How long a connection stays open without a run.
    pub idle_timeout: Duration,
    /// How long runs may go on after the first call to shut down.
    pub drain_timeout: Duration,
    /// From where failed logins have no penalty.
    pub no_penalty: Vec<Network>,
    /// A folder of cgroup v2 that is left to this server: each run has a group of its own in it.
    pub cgroup: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            idle_timeout: Duration::from_secs(600),
            drain_timeout: Duration::from_secs(30),
            no_penalty: Network::LOOPBACK.to_vec(),
            cgroup: None,
        }
    }
}

/// Whom a server serves.
enum Whom {
    /// Its own account.
    Itself(Arc<Authorized>),
    /// The users of a machine: system mode.
    Users(Box<Users>),
}

impl Whom {
    /// Says what has come up in the files of keys at a login.
    fn tell(&self, news: &News) {
        match self {
            Self::Itself(_) => rights::tell(news),
            Self::Users(users) => users.tell(news),
        }
    }
}

impl Doors for Whom {
    async fn door(&self, user: Option<&str>) -> Result<Arc<Authorized>, Refused> {
        match self {
            Self::Itself(authorized) => authorized.door(user).await,
            Self::Users(users) => users.door(user).await,
        }
    }
}

/// What all connections of a server share.
pub(crate) struct Shared {
    config: Config,
    policy: Policy,
    /// Where runs have control groups of their own.
    groups: Option<Groups>,
    host: Arc<Host>,
    tls: TlsServer,
    doors: Whom,
    lobby: Arc<Lobby>,
    places: Arc<Semaphore>,
    arrivals: Arrivals,
    strangers: Throttle,
    peers: Arc<Throttle>,
    penalties: Penalties,
    counters: Counters,
}

async fn accept(listener: Listener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                shared.counters.connected();
                if accepted.address().is_some_and(|address| shared.penalties.holds(address.ip())) {
                    shared.counters.refused(Why::Penalty);
                    continue;
                }
                let place = shared.lobby.enter();
                // It is large, and would be copied five times.
                tokio::spawn(Box::pin(connection::serve(accepted, place, Arc::clone(&shared))));
            }
            Err(e) => {
                shared.about_strangers(|| format!("cannot accept a connection: {e}"));
                if out_of_descriptors(&e) {
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// The error stays until some connection is closed; trying again at once would spin.
fn out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

impl Shared {
    fn new(
        (config, policy, groups): (Config, Policy, Option<Groups>),
        host: Arc<Host>,
        tls: TlsServer,
        doors: Whom,
    ) -> Self {
        Self {
            penalties: Penalties::new(config.no_penalty.clone()),
            places: Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS))),
            config,
            policy,
            groups,
            host,
            tls,
            doors,
            lobby: Arc::default(),
            arrivals: Arrivals::default(),
            strangers: Throttle::default(),
            peers: Arc::default(),
            counters: Counters::default(),
        }
    }

    /// A stranger has not logged in. Who cannot be told from an honest client whose link broke is only counted.
    fn failed(&self, why: Why, address: Option<SocketAddr>) {
        self.counters.refused(why);
        let is_at_fault = matches!(why, Why::NotAuthorized | Why::Protocol | Why::Late);
        if let Some(address) = address.filter(|_| is_at_fault) {
            self.penalties.failed(address.ip());
        }
    }

    /// Logs something that anybody on the network can cause, at most once a second.
    fn about_strangers(&self, line: impl FnOnce() -> String) {
        if let Some(line) = self.strangers.line(line) {
            warn!("{line}");
        }
    }

    /// Logs what a peer that has logged in did wrong, at most once a second.
    fn about_peers(&self, line: impl FnOnce() -> String) {
        if let Some(line) = self.peers.line(line) {
            info!("{line}");
        }
    }
}
