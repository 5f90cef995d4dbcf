//! Whoever sits in front of a client, if anybody does.

use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;

use zeroize::Zeroizing;

use super::PublicKey;

/// An answer that is still to come.
pub type Asking<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a client asks and tells people. [`Nobody`] is for programs that have none.
pub trait Ask: fmt::Debug + Send + Sync {
    /// Whether [`passphrase`](Self::passphrase) has anybody to ask.
    fn can_unlock(&self) -> bool;

    /// Asks for the passphrase of what `question` names. None: there will be none.
    fn passphrase<'a>(&'a self, question: &'a str) -> Asking<'a, Option<Zeroizing<String>>>;

    /// Asks whether a host that nobody knows yet is the right one.
    fn is_right<'a>(&'a self, host: &'a str, key: &'a PublicKey) -> Asking<'a, bool>;

    /// Says what has to be known or done now.
    fn tell(&self, line: &str);

    /// Says what only those want to know who wonder.
    fn note(&self, line: &str);

    /// Says what is waited for, when that takes long: whoever sits there wonders.
    fn reassure(&self, line: &str) {
        self.note(line);
    }
}

/// Nobody is there: no question is answered.
#[derive(Debug, Clone, Copy)]
pub struct Nobody;

impl Ask for Nobody {
    fn can_unlock(&self) -> bool {
        false
    }

    fn passphrase<'a>(&'a self, _: &'a str) -> Asking<'a, Option<Zeroizing<String>>> {
        Box::pin(ready(None))
    }

    fn is_right<'a>(&'a self, _: &'a str, _: &'a PublicKey) -> Asking<'a, bool> {
        Box::pin(ready(false))
    }

    fn tell(&self, _: &str) {}

    fn note(&self, _: &str) {}
}
