//! What the claim table holds for an id.

use std::sync::Arc;

use super::clock::When;
use super::durable::Durable;
use super::run::Run;
use super::table::{Held, Key};
use crate::proto::id::RunId;

/// A run in the table.
#[derive(Debug)]
pub enum Entry {
    /// It is driven by this process.
    Here(Arc<Run>),
    /// Its supervisor drives it, or did.
    There(Arc<Durable>),
    /// It was durable, it is over, and its record is no longer kept.
    Gone(Gone),
}

/// What is known of a run whose record is gone.
#[derive(Debug)]
pub struct Gone {
    /// Its id under its identity.
    pub key: Key,
    /// When it ended.
    pub ended: When,
}

impl Held for Entry {
    fn passes(&self) -> bool {
        matches!(self, Self::Here(_))
    }
}

impl Entry {
    /// The id.
    #[must_use]
    pub fn id(&self) -> &RunId {
        match self {
            Self::Here(run) => &run.key.id,
            Self::There(run) => &run.key.id,
            Self::Gone(gone) => &gone.key.id,
        }
    }

    /// Waits, if a server before this one has left it, until it is known whether it goes on.
    pub async fn looked_for(&self) {
        if let Self::There(run) = self {
            run.looked_for().await;
        }
    }
}
