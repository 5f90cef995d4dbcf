//! The name of a run.

use std::fmt;
use std::sync::Arc;

/// Most bytes of an id.
pub const ID_LIMIT: usize = 64;

/// A run's id: 1 to 64 of `A-Z a-z 0-9 . _ -`, chosen by the client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(Arc<str>);

/// Why a text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run id has 1 to {ID_LIMIT} of A-Z a-z 0-9 . _ -")]
pub struct BadId;

impl RunId {
    /// Checks a client's choice.
    ///
    /// # Errors
    /// [`BadId`] if it is empty, too long or holds another character.
    pub fn new(text: &str) -> Result<Self, BadId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if (1..=ID_LIMIT).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(BadId)
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_plain() {
        assert!(RunId::new(&"a".repeat(ID_LIMIT)).is_ok());
        assert!(RunId::new("Deploy-2.1_x").is_ok());
        for bad in ["", "a b", "a/b", "é", "a\n", &"a".repeat(ID_LIMIT + 1)] {
            assert_eq!(RunId::new(bad), Err(BadId), "{bad:?}");
        }
    }
}
