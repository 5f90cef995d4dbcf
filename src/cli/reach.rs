//! The options by which a server is reached, the same for running and for all verbs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::complain;
use super::place::Place;
use crate::client::{Client, SetupError, Target};
use crate::identity::{Fingerprint, Key, host_public_key, local_identity};
use crate::sys::fs::open_state_dir;
use crate::transport::{Endpoint, HostTrust};
use crate::units::{duration, some_time};

/// Where to go, as whom, and how patiently.
#[derive(Debug, Clone, Args)]
pub(super) struct Reach {
    /// Say nothing of one's own on stderr
    #[arg(short, long, conflicts_with = "verbose")]
    pub(super) quiet: bool,

    /// Say more on stderr: who is let in as whom, how it ended, reconnections
    #[arg(short, long)]
    pub(super) verbose: bool,

    /// Prove this Ed25519 key (OpenSSH format) instead of this account's local identity
    #[arg(short, long, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,

    /// Look for the server's host key in FILE instead of ~/.config/rexec/known_hosts
    #[arg(long, value_name = "FILE")]
    pub(super) known_hosts: Vec<PathBuf>,

    /// Accept only the host key with this fingerprint
    #[arg(long, value_name = "SHA256:...")]
    pub(super) host_key: Vec<Fingerprint>,

    /// Give up reaching the server after so long
    #[arg(long, value_name = "TIME", value_parser = some_time, default_value = "10s")]
    pub(super) connect_timeout: Duration,

    /// Look so long for a server that was lost in the middle of a run
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "90s")]
    pub(super) reconnect_timeout: Duration,
}

/// The variable that may hold a private key, for CI systems, which keep secrets in variables.
const IDENTITY_VAR: &str = "REXEC_IDENTITY";

impl Reach {
    /// A client of the server at `place`.
    pub(super) fn client(&self, place: &Place) -> Result<Client, SetupError> {
        Ok(Client::new(self.target(place)?).reconnect_timeout(self.reconnect_timeout))
    }

    /// Where to go and as whom, from the options and the state folder. What the command line says of all
    /// servers counts more than what is configured for one.
    fn target(&self, place: &Place) -> Result<Target, SetupError> {
        let endpoint = &place.endpoint;
        let mut keys = Vec::new();
        let configured = place.identity.iter().filter(|_| self.identity.is_empty());
        for path in self.identity.iter().chain(configured) {
            keys.push(Arc::new(Key::load(path)?));
        }
        if keys.is_empty() {
            keys.extend(Key::from_env(IDENTITY_VAR)?.map(Arc::new));
        }
        let mut trust = HostTrust { pins: self.host_key.clone(), ..HostTrust::default() };
        if trust.pins.is_empty() {
            trust.pins.extend(place.host_key);
        }
        if matches!(endpoint, Endpoint::Tcp { .. }) {
            trust.files.clone_from(&self.known_hosts);
            if trust.files.is_empty() {
                trust.files.extend(HostTrust::default_file().ok());
            }
            if keys.is_empty() || (endpoint.is_local() && trust.pins.is_empty()) {
                let state = open_state_dir()?;
                if endpoint.is_local() {
                    trust.own = Some(host_public_key(&state)?);
                }
                if keys.is_empty() {
                    keys.push(Arc::new(local_identity(&state)?));
                }
            }
        }
        Ok(Target {
            endpoint: endpoint.clone(),
            trust: Arc::new(trust),
            keys,
            connect_timeout: self.connect_timeout,
        })
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
                    let target = self.target(place)?;
                    made.push((place, target.clone()));
                    target
                }
            };
            targets.push(Target { endpoint: place.endpoint.clone(), ..alike });
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
    kind(a) == kind(b) && a.host_key == b.host_key && a.identity == b.identity
}
