//! A server and the user to be there, as people write them.

use std::fmt;
use std::str::FromStr;

use crate::identity::is_user;
use crate::transport::{Endpoint, EndpointError};

/// `USER@HOST:PORT`, or an address alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The user; none: whoever the server runs as.
    pub user: Option<String>,
    /// The server's address.
    pub endpoint: Endpoint,
}

/// Why a text is no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// What stands before the `@` cannot be a user.
    #[error("{0:?} is not the name of a user; write USER@HOST:PORT")]
    User(String),
    /// The address.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

impl Destination {
    /// The user and the rest; a unix socket's path may have an `@` of its own.
    ///
    /// # Errors
    /// [`DestinationError::User`].
    pub fn split(text: &str) -> Result<(Option<&str>, &str), DestinationError> {
        match text.split_once('@') {
            Some((user, _)) if user.contains([':', '/']) => Ok((None, text)),
            Some((user, rest)) if is_user(user) => Ok((Some(user), rest)),
            Some((user, _)) => Err(DestinationError::User(user.to_owned())),
            None => Ok((None, text)),
        }
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let (user, endpoint) = Self::split(text)?;
        let endpoint = endpoint.parse().map_err(|e| match (e, user) {
            (EndpointError::NoPort(host), Some(user)) => {
                EndpointError::NoPort(format!("{user}@{host}"))
            }
            (e, _) => e,
        })?;
        Ok(Self { user: user.map(str::to_owned), endpoint })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(user) => write!(f, "{user}@{}", self.endpoint),
            None => write!(f, "{}", self.endpoint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for (text, user) in [
            ("alice@host:80", Some("alice")),
            ("alice@[::1]:80", Some("alice")),
            ("host:80", None),
            ("unix:/run/a@b", None),
        ] {
            let read: Destination = text.parse().unwrap();
            assert_eq!((read.user.as_deref(), read.to_string().as_str()), (user, text));
        }
    }

    #[test]
    fn what_is_none_is_said() {
        for (text, part) in [
            ("@host:80", "name of a user"),
            ("a b@host:80", "name of a user"),
            ("-@host:80", "name of a user"),
            ("alice@host", "such as alice@host:8080"),
            ("8080", "localhost:8080"),
            ("a@b@host:80", "not understood"),
        ] {
            let error = text.parse::<Destination>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
