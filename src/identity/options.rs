//! What a line of `authorized_keys` says of its key besides letting it in (sshd(8), AUTHORIZED_KEYS FILE
//! FORMAT).
//!
//! Names are read in any case. Options that speak of forwarding are taken and change nothing: there is
//! nothing to forward. An option that is not known here refuses its line, because to ignore it could be
//! to let in more than was written.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::Presence;
use super::addresses::{Addresses, AddressesError};
use super::line::quote;
use super::time::{NotATime, parse_time};

mod means;
mod words;

pub(super) use words::split;

/// What a key may do, and from where and until when. The default: everything, from everywhere, for ever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyOptions {
    /// `command=`, and a certificate's `force-command`: what is run, whatever is asked for.
    pub command: Option<String>,
    /// `from=`, and a certificate's `source-address`: the peer's address has to be in each.
    pub from: Vec<Addresses>,
    /// `expiry-time=`, and the end of a certificate: the last moment at which the key counts.
    pub expires: Option<SystemTime>,
    /// `restrict`: the key may run, and attach to, signal and stop its own runs; nothing else.
    pub restrict: bool,
    /// `no-pty`, and `restrict` without `pty`.
    pub no_pty: bool,
    /// `environment=`: names and values that its runs get whatever the client sends, each name once.
    pub environment: Vec<(String, String)>,
    /// `no-touch-required`: a hardware key need not have been touched.
    pub no_touch_required: bool,
    /// `verify-required`: a hardware key has to have asked for its PIN.
    pub verify_required: bool,
    /// `cert-authority`: the key itself is not let in, but certificates that it has signed.
    pub authority: Option<Authority>,
}

/// A key that signs certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authority {
    /// `principals=`: a certificate has to name one of them; none: the account's name.
    pub principals: Option<Vec<String>>,
}

/// What a file's reader allows its lines to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Permits {
    /// `environment=`, by which a user who may edit the file, and is held to a command, could change what
    /// that command does (`PermitUserEnvironment` of sshd_config(5)).
    pub environment: bool,
}

/// Why a line's options cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Nothing that sshd(8) names.
    #[error("the option {0:?} is not known, so this key is not let in")]
    Unknown(String),
    /// A comma with nothing behind it.
    #[error("an option is missing at a comma")]
    Missing,
    /// `restrict="x"`, or more behind the closing quote.
    #[error("the option {0} is followed by {1:?}; options are separated by commas")]
    Surplus(String, String),
    /// `command` alone, or `command=ls`.
    #[error("the option {0} needs a value in double quotes: {0}=\"...\"")]
    Value(String),
    /// One that may stand once.
    #[error("the option {0} stands twice")]
    Twice(&'static str),
    /// What was not text.
    #[error("the options are not UTF-8, or have control characters in them")]
    NotText,
    /// `command=""`.
    #[error("the option command is empty")]
    NoCommand,
    /// `from=`.
    #[error("the option from: {0}")]
    From(#[from] AddressesError),
    /// `expiry-time=`.
    #[error("the option expiry-time: {0}")]
    Expiry(#[from] NotATime),
    /// `environment=`, which this server does not allow.
    #[error("the option environment is allowed with --permit-user-environment only")]
    Environment,
    /// `environment=` without a name, or with one that rexec sets itself.
    #[error("the option environment: {0:?} is not NAME=value with a name that may be set")]
    Setting(String),
    /// `principals=""`.
    #[error("the option principals names nobody")]
    NoPrincipals,
    /// `principals=` for a key that signs nothing.
    #[error("the option principals needs cert-authority beside it")]
    Principals,
}

/// Why a key that is listed is not let in now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Barred {
    /// By `from=` or `source-address`.
    #[error("it may not come from {0}")]
    From(IpAddr),
    /// By `expiry-time=`.
    #[error("it has expired")]
    Expired,
}

impl KeyOptions {
    /// Reads the options of a line.
    ///
    /// # Errors
    /// [`OptionError`]: the line lets nobody in.
    pub fn parse(text: &str, permits: Permits) -> Result<Self, OptionError> {
        // What was no UTF-8 was changed when it was read.
        if text.contains(|c: char| c == '\u{fffd}' || c.is_control() && c != '\t') {
            return Err(OptionError::NotText);
        }
        let mut options = Self::default();
        let mut principals = None;
        for option in words::Words(Some(text)) {
            let (name, value) = option?;
            let lower = name.to_ascii_lowercase();
            match (lower.as_str(), value) {
                ("principals", Some(value)) => once("principals", &mut principals, names(&value)?)?,
                (name, Some(value)) => options.set(name, value, permits)?,
                (flag, None) => options.flag(flag)?,
            }
        }
        match (&mut options.authority, principals) {
            (Some(authority), listed) => authority.principals = listed,
            (None, Some(_)) => return Err(OptionError::Principals),
            (None, None) => {}
        }
        Ok(options)
    }

    fn flag(&mut self, name: &str) -> Result<(), OptionError> {
        match name {
            "restrict" => (self.restrict, self.no_pty) = (true, true),
            "pty" => self.no_pty = false,
            "no-pty" => self.no_pty = true,
            "touch-required" => self.no_touch_required = false,
            "no-touch-required" => self.no_touch_required = true,
            "verify-required" => self.verify_required = true,
            "no-verify-required" => self.verify_required = false,
            "cert-authority" => self.authority = Some(Authority::default()),
            "command" | "from" | "expiry-time" | "environment" | "principals" | "permitopen"
            | "permitlisten" | "tunnel" => return Err(OptionError::Value(name.to_owned())),
            _ if is_of_forwarding(name.strip_prefix("no-").unwrap_or(name)) => {}
            _ => return Err(OptionError::Unknown(quote(name))),
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: String, permits: Permits) -> Result<(), OptionError> {
        match name {
            "command" if value.trim().is_empty() => Err(OptionError::NoCommand),
            "command" => once("command", &mut self.command, value),
            "from" if !self.from.is_empty() => Err(OptionError::Twice("from")),
            "from" => {
                self.from.push(Addresses::patterns(&value)?);
                Ok(())
            }
            // The earliest of several counts.
            "expiry-time" => {
                let end = parse_time(&value)?;
                self.expires = Some(self.expires.map_or(end, |other| other.min(end)));
                Ok(())
            }
            "environment" if !permits.environment => Err(OptionError::Environment),
            "environment" => self.add_setting(&value),
            "permitopen" | "permitlisten" | "tunnel" => Ok(()),
            // A flag with a value, or nothing that is known.
            _ => match Self::default().flag(name) {
                Ok(()) => Err(OptionError::Surplus(name.to_owned(), "=".into())),
                Err(_) => Err(OptionError::Unknown(quote(name))),
            },
        }
    }

    /// The first setting of a name counts.
    fn add_setting(&mut self, setting: &str) -> Result<(), OptionError> {
        let (name, value) = setting
            .split_once('=')
            .filter(|(name, _)| is_variable(name))
            .ok_or_else(|| OptionError::Setting(quote(setting)))?;
        if !self.environment.iter().any(|(other, _)| other == name) {
            self.environment.push((name.to_owned(), value.to_owned()));
        }
        Ok(())
    }

    /// Whether the key counts for a peer at this address, at this moment. A peer without an address is on
    /// this machine, and in no list.
    ///
    /// # Errors
    /// Why it does not.
    pub fn admit(&self, address: Option<IpAddr>, now: SystemTime) -> Result<(), Barred> {
        if self.expires.is_some_and(|end| now >= end + Duration::from_secs(1)) {
            return Err(Barred::Expired);
        }
        match address {
            Some(address) if !self.from.iter().all(|list| list.has(address)) => {
                Err(Barred::From(address.to_canonical()))
            }
            _ => Ok(()),
        }
    }

    /// What a security key has to say of the person before it.
    #[must_use]
    pub fn presence(&self) -> Presence {
        Presence { touch: !self.no_touch_required, verify: self.verify_required }
    }

    /// Whether the key may run, and attach to, signal and stop its own runs, and nothing else.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        self.restrict || self.command.is_some()
    }
}

fn once<T>(name: &'static str, place: &mut Option<T>, value: T) -> Result<(), OptionError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(OptionError::Twice(name)),
    }
}

fn names(list: &str) -> Result<Vec<String>, OptionError> {
    let names: Vec<String> = list.split(',').map(str::to_owned).collect();
    if names.iter().any(String::is_empty) { Err(OptionError::NoPrincipals) } else { Ok(names) }
}

fn is_of_forwarding(name: &str) -> bool {
    matches!(name, "port-forwarding" | "agent-forwarding" | "x11-forwarding" | "user-rc")
}

/// What sshd(8) takes as a name, without those that every run has from rexec.
fn is_variable(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let own = ["REXEC_RUN", "REXEC_MARK", "REXEC_ORIGINAL_COMMAND", "SSH_ORIGINAL_COMMAND"];
    !name.is_empty() && name.bytes().all(plain) && !own.contains(&name)
}

#[cfg(test)]
mod tests;
