//! The options by which a server is reached, the same for running and for all verbs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::complain;
use super::person::Person;
use super::place::Place;
use crate::client::{CONNECT_TIMEOUT, Client, RECONNECT_TIMEOUT, SetupError, Target};
use crate::identity::{Ask, Fingerprint, KeyRing, OwnKeys};
use crate::transport::{Endpoint, HostTrust, NewHosts, Own};
use crate::units::{duration, some_time};

/// A server that is named, and how it is reached.
#[derive(Debug, Clone, Args)]
pub(super) struct At {
    /// The server: host:port, [::1]:8080, localhost:8080, unix:/path/to/socket, a name of
    /// ~/.config/rexec/config.toml, or rexec://host:port?host-key=SHA256:...; with USER@ in front if it
    /// serves several users
    pub(super) addr: Place,
    #[command(flatten)]
    pub(super) reach: Reach,
}

/// Where to go, as whom, and how patiently.
#[derive(Debug, Clone, Args)]
pub(super) struct Reach {
    /// Say nothing of one's own on stderr
    #[arg(short, long, conflicts_with = "verbose", overrides_with = "quiet")]
    pub(super) quiet: bool,

    /// Say more on stderr: who is let in as whom, how it ended, reconnections
    #[arg(short, long, overrides_with = "verbose")]
    pub(super) verbose: bool,

    /// Prove the key in FILE (OpenSSH format; also a public one whose private half ssh-agent has), and no
    /// other; without it: ssh-agent's keys, ~/.ssh/id_*, this account's local identity
    #[arg(short, long, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,

    /// Look for the server's host key in FILE instead of ~/.config/rexec/known_hosts
    #[arg(long, value_name = "FILE")]
    pub(super) known_hosts: Vec<PathBuf>,

    /// Accept only the host key with this fingerprint
    #[arg(long, value_name = "SHA256:...")]
    pub(super) host_key: Vec<Fingerprint>,

    /// Believe the host key of a server that is not known yet, and remember it; a changed one is refused
    #[arg(long)]
    pub(super) accept_new: bool,

    /// Give up reaching the server after so long
    #[arg(long, value_name = "TIME", value_parser = some_time, default_value = "10s")]
    pub(super) connect_timeout: Duration,

    /// Look so long for a server that was lost in the middle of a run
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "90s")]
    pub(super) reconnect_timeout: Duration,
}

/// What holds where nothing is asked for.
impl Default for Reach {
    fn default() -> Self {
        Self {
            quiet: false,
            verbose: false,
            identity: Vec::new(),
            known_hosts: Vec::new(),
            host_key: Vec::new(),
            accept_new: false,
            connect_timeout: CONNECT_TIMEOUT,
            reconnect_timeout: RECONNECT_TIMEOUT,
        }
    }
}

/// The variable that may hold a private key, for CI systems, which keep secrets in variables.
const IDENTITY_VAR: &str = "REXEC_IDENTITY";

impl Reach {
    /// A client of the server at `place`.
    pub(super) fn client(&self, place: &Place) -> Result<Client, SetupError> {
        Ok(Client::new(self.target(place, self.person(true))?)
            .reconnect_timeout(self.reconnect_timeout))
    }

    /// Where to go and as whom, from the options; the state folder's keys are read when a server answers. What the command line says of all
    /// servers counts more than what is configured for one.
    fn target(&self, place: &Place, person: Person) -> Result<Target, SetupError> {
        let endpoint = &place.endpoint;
        let person = || -> Arc<dyn Ask> { Arc::new(person) };
        let mut trust = HostTrust { pins: self.host_key.clone(), ..HostTrust::default() };
        trust.new_hosts =
            if self.accept_new { NewHosts::Accept(person()) } else { NewHosts::Ask(person()) };
        if trust.pins.is_empty() {
            trust.pins.extend(place.host_key);
        }
        let mut keys = self.named_keys(place, person())?;
        if matches!(endpoint, Endpoint::Tcp { .. }) {
            trust.files.clone_from(&self.known_hosts);
            if trust.files.is_empty() {
                trust.files.extend(HostTrust::default_file().ok());
            }
            // Whoever serves users is not this account: it is believed as a server elsewhere is.
            if place.user.is_none()
                && endpoint.is_local()
                && (keys.is_none() || trust.pins.is_empty())
            {
                let own = OwnKeys::new(keys.is_none());
                keys = keys.or_else(|| Some(KeyRing::usual(Some(own.clone()), person())));
                trust.own = Some(Own::Kept(own));
            }
        }
        let keys = keys.unwrap_or_else(|| KeyRing::usual(None, person()));
        Ok(Target {
            endpoint: endpoint.clone(),
            user: place.user.clone(),
            trust: Arc::new(trust),
            keys,
            connect_timeout: self.connect_timeout,
        })
    }

    /// The keys that the options, the configuration or a variable name, if they do.
    fn named_keys(
        &self,
        place: &Place,
        person: Arc<dyn Ask>,
    ) -> Result<Option<KeyRing>, SetupError> {
        let configured = place.identity.iter().filter(|_| self.identity.is_empty());
        let paths: Vec<PathBuf> = self.identity.iter().chain(configured).cloned().collect();
        if paths.is_empty() {
            return Ok(KeyRing::from_env(IDENTITY_VAR, person)?);
        }
        Ok(Some(KeyRing::named(&paths, person)?))
    }

    /// Whoever sits in front of this program.
    fn person(&self, asks_about_hosts: bool) -> Person {
        Person { quiet: self.quiet, verbose: self.verbose, asks_about_hosts }
    }

    /// Where each of many servers is, and as whom to go there: what they have in common is read once.
    pub(super) fn targets(&self, places: &[Place]) -> Result<Vec<Target>, SetupError> {
        let mut made: Vec<(&Place, Target)> = Vec::new();
        let mut targets = Vec::with_capacity(places.len());
        for place in places {
            let before = made.iter().find(|(other, _)| is_alike(place, other));
            let alike = match before {
                Some((_, target)) => target.clone(),
                None => {
                    let target = self.target(place, self.person(false))?;
                    made.push((place, target.clone()));
                    target
                }
            };
            let (endpoint, user) = (place.endpoint.clone(), place.user.clone());
            targets.push(Target { endpoint, user, ..alike });
        }
        Ok(targets)
    }

    /// A line of the client's own.
    pub(super) fn say(&self, line: &str) {
        if !self.quiet {
            complain("rexec", line);
        }
    }
}

/// Whether two servers are reached with the same keys and the same trust.
fn is_alike(a: &Place, b: &Place) -> bool {
    let kind =
        |place: &Place| (matches!(place.endpoint, Endpoint::Unix(_)), place.endpoint.is_local());
    let names_user = |place: &Place| place.user.is_some();
    kind(a) == kind(b)
        && names_user(a) == names_user(b)
        && a.host_key == b.host_key
        && a.identity == b.identity
}
