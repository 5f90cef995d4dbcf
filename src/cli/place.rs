//! A server as people name it on the command line: an address, a name of the configuration, or a connect
//! string that carries the host key too.

use std::path::PathBuf;
use std::str::FromStr;

use super::config::{Alias, Config};
use crate::client::{Destination, DestinationError};
use crate::identity::Fingerprint;
use crate::transport::{Endpoint, EndpointError};

/// How a connect string begins.
const SCHEME: &str = "rexec://";
/// What may follow its address.
const HOST_KEY: &str = "host-key=";

/// A server, and what was said of it beside its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) endpoint: Endpoint,
    /// The user to be there.
    pub(super) user: Option<String>,
    /// The only host key that is accepted.
    pub(super) host_key: Option<Fingerprint>,
    /// The file of the key to prove.
    pub(super) identity: Option<PathBuf>,
}

impl From<Destination> for Place {
    fn from(Destination { user, endpoint }: Destination) -> Self {
        Self { endpoint, user, host_key: None, identity: None }
    }
}

impl From<&Alias> for Place {
    fn from(alias: &Alias) -> Self {
        let place = Self::from(alias.address.clone());
        Self { host_key: alias.host_key, identity: alias.identity(), ..place }
    }
}

impl Place {
    /// Reads a text; `config` is asked for what is no address.
    pub(super) fn parse(text: &str, config: &Config) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix(SCHEME) {
            return Self::connect_string(rest);
        }
        let (user, name) = Destination::split(text).map_err(|e| e.to_string())?;
        if let Some(alias) = config.alias(name) {
            let place = Self::from(alias);
            return Ok(Self { user: user.map(str::to_owned).or(place.user), ..place });
        }
        match text.parse::<Destination>() {
            Ok(destination) => Ok(destination.into()),
            Err(e @ DestinationError::Endpoint(EndpointError::NoPort(_))) => {
                Err(format!("{e}; and {text:?} has no entry in ~/.config/rexec/config.toml"))
            }
            Err(e) => Err(e.to_string()),
        }
    }

    /// The server and the user: what makes two of them different hosts of a batch.
    pub(super) fn destination(&self) -> Destination {
        Destination { user: self.user.clone(), endpoint: self.endpoint.clone() }
    }

    fn connect_string(rest: &str) -> Result<Self, String> {
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut place = Self::from(address.parse::<Destination>().map_err(|e| e.to_string())?);
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let Some(print) = part.strip_prefix(HOST_KEY) else {
                return Err(format!(
                    "{part:?} is not understood; write {SCHEME}HOST:PORT?{HOST_KEY}SHA256:..."
                ));
            };
            if place.host_key.is_some() {
                return Err(format!("{HOST_KEY} stands there twice"));
            }
            place.host_key = Some(print.parse::<Fingerprint>().map_err(|e| e.to_string())?);
        }
        Ok(place)
    }
}

/// Reads the configuration only for what is no address.
impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with(SCHEME) || text.parse::<Destination>().is_ok() {
            return Self::parse(text, &Config::default());
        }
        Self::parse(text, &Config::load()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_strings() {
        let print = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
        let read = |text: &str| Place::parse(text, &Config::default());
        let place = read(&format!("rexec://h:80?host-key={print}")).unwrap();
        assert_eq!(place.endpoint.to_string(), "h:80");
        assert_eq!(place.host_key.unwrap().to_string(), print);
        assert_eq!(read("rexec://h:80"), read("h:80"));
        assert_eq!(read("rexec://me@h:80"), read("me@h:80"));
        assert_eq!(read("me@h:80").unwrap().destination().to_string(), "me@h:80");
        let twice = format!("rexec://h:80?host-key={print}&host-key={print}");
        for (text, part) in [
            ("rexec://h", "port"),
            ("rexec://h:80?hostkey=x", "not understood"),
            ("rexec://h:80?host-key=x", "fingerprint"),
            (twice.as_str(), "twice"),
            ("build", "no entry"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
