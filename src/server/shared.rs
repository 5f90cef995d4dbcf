//! What all connections of a server share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::counters::{Counters, Why};
use super::held::Holds;
use super::lobby::Lobby;
use super::penalties::Penalties;
use super::policy::Policy;
use super::users::Users;
use crate::conn::Arrivals;
use crate::exec::Groups;
use crate::handshake::Doors;
use crate::identity::{Authorized, Network, News};
use crate::proto::header::Refused;
use crate::runs::host::Host;
use crate::runs::throttle::Throttle;
use crate::transport::TlsServer;

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
pub(super) enum Whom {
    /// Its own account.
    Itself(Arc<Authorized>),
    /// The users of a machine: system mode.
    Users(Box<Users>),
}

impl Whom {
    /// Says what has come up in the files of keys at a login.
    pub(super) fn tell(&self, news: &News) {
        match self {
            Self::Itself(_) => tell(news),
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
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) policy: Policy,
    /// Where runs have control groups of their own.
    pub(super) groups: Option<Groups>,
    pub(super) host: Arc<Host>,
    pub(super) tls: TlsServer,
    pub(super) doors: Whom,
    pub(super) lobby: Arc<Lobby>,
    pub(super) holds: Arc<Holds>,
    pub(super) places: Arc<Semaphore>,
    pub(super) arrivals: Arrivals,
    pub(super) strangers: Throttle,
    pub(super) peers: Arc<Throttle>,
    pub(super) penalties: Penalties,
    pub(super) counters: Counters,
}

impl Shared {
    pub(super) fn new(
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
            holds: Arc::default(),
            arrivals: Arrivals::default(),
            strangers: Throttle::default(),
            peers: Arc::default(),
            counters: Counters::default(),
        }
    }

    /// A stranger has not logged in. Who cannot be told from an honest client whose link broke is only counted.
    pub(super) fn failed(&self, why: Why, address: Option<SocketAddr>) {
        self.counters.refused(why);
        let is_at_fault = matches!(why, Why::NotAuthorized | Why::Protocol | Why::Late);
        if let Some(address) = address.filter(|_| is_at_fault) {
            self.penalties.failed(address.ip());
        }
    }

    /// Logs something that anybody on the network can cause, at most once a second.
    pub(super) fn about_strangers(&self, line: impl FnOnce() -> String) {
        if let Some(line) = self.strangers.line(line) {
            warn!("{line}");
        }
    }

    /// Logs what a peer that has logged in did wrong, at most once a second.
    pub(super) fn about_peers(&self, line: impl FnOnce() -> String) {
        if let Some(line) = self.peers.line(line) {
            info!("{line}");
        }
    }
}

/// Says what has come up in the files of keys.
pub(super) fn tell(news: &News) {
    warn!("{news}");
}
