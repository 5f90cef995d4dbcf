//! Binding everything that a server listens on, or claiming it from what was handed over.

use super::classic::{self, ClassicAddr};
use super::left;
use super::start_error::StartError;
use crate::sys::listen_fds::Passed;
use crate::transport::{BindError, Bound, Inherited, ListenAddr, claim_or_bind, claim_rest};

/// Everything that is listened on.
pub(super) struct Addresses {
    pub(super) bound: Vec<Bound>,
    pub(super) classic: Vec<(classic::Kind, Bound)>,
    /// Of `bound`: what was asked for, or what was handed over.
    pub(super) listen: Vec<ListenAddr>,
}

impl Addresses {
    pub(super) fn open(
        passed: Vec<Passed>,
        mut listen: Vec<ListenAddr>,
        classic: &[ClassicAddr],
    ) -> Result<Self, StartError> {
        let wanted = listen.iter().chain(classic.iter().map(|classic| &classic.address));
        let mut inherited = Inherited::new(passed, wanted)?;
        let mut bound = Vec::new();
        for address in &listen {
            bound.extend(claim_or_bind_late(address, &mut inherited)?);
        }
        let classic = bind_classic(classic, &mut inherited)?;
        if listen.is_empty() {
            bound = claim_rest(inherited)?;
            listen = bound.iter().map(|bound| ListenAddr(bound.address().clone())).collect();
        } else {
            inherited.all_claimed()?;
        }
        Ok(Self { bound, classic, listen })
    }
}

/// Who has the address may be about to leave it.
fn claim_or_bind_late(
    address: &ListenAddr,
    inherited: &mut Inherited,
) -> Result<Vec<Bound>, BindError> {
    let is_taken = |e: &BindError| matches!(e, BindError::InUse(_));
    left::get(&address.0, is_taken, || claim_or_bind(address, inherited))
}

fn bind_classic(
    addresses: &[ClassicAddr],
    inherited: &mut Inherited,
) -> Result<Vec<(classic::Kind, Bound)>, StartError> {
    let mut all = Vec::new();
    for address in addresses {
        address.check()?;
        let bound = claim_or_bind_late(&address.address, inherited)?;
        all.extend(bound.into_iter().map(|bound| (address.kind, bound)));
    }
    Ok(all)
}
