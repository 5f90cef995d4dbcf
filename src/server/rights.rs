//! What a connection may ask: judged anew for each request, because a long connection does not outlive
//! its rights.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::shared::{Shared, tell};
use super::users::Guest;
use crate::identity::{Again, Authorized, Caller, Identity, KeyOptions, Proven};
use crate::runs::request::Imposed;

/// For how long a judgement holds for the pieces of a run's standard input: they may be gigabytes, and are not
/// judged one by one.
const FRESH: Duration = Duration::from_secs(1);

/// What somebody may do, asked anew.
pub(super) struct RightsNow {
    ask: Box<dyn Fn() -> Option<Arc<KeyOptions>> + Send + Sync>,
    /// When it was last asked for the sake of a piece of input.
    asked: Option<Instant>,
}

impl RightsNow {
    fn new(ask: impl Fn() -> Option<Arc<KeyOptions>> + Send + Sync + 'static) -> Self {
        Self { ask: Box::new(ask), asked: None }
    }

    /// What it may do at this moment; none: it would not be let in any more.
    pub(super) fn now(&self) -> Option<Arc<KeyOptions>> {
        (self.ask)()
    }

    /// Whether who gives input to a run is to be asked about anew.
    pub(super) fn is_due(&self) -> bool {
        self.asked.is_none_or(|asked| asked.elapsed() >= FRESH)
    }

    /// Whether it may go on giving input to its run, from which a shell takes its orders: whether it would have
    /// been let in [`FRESH`] ago at the earliest.
    pub(super) fn may_go_on(&mut self) -> bool {
        if !self.is_due() {
            return true;
        }
        self.asked = Some(Instant::now());
        self.now().is_some()
    }
}

/// The rights of somebody who was let in as `who`.
pub(super) fn of(
    shared: &Arc<Shared>,
    (who, proven): (Identity, Proven),
    caller: Caller,
    (authorized, guest): (Arc<Authorized>, Option<Arc<Guest>>),
) -> RightsNow {
    let shared = Arc::clone(shared);
    RightsNow::new(move || {
        if let Some(Err(why)) = guest.as_ref().map(|guest| guest.account()) {
            shared.about_peers(|| format!("{who} is not let in any more: {why}"));
            return None;
        }
        let Again { granted, news } = authorized.again(&who, &proven, caller);
        match &guest {
            Some(guest) => news.iter().for_each(|news| guest.tell(news)),
            None => news.iter().for_each(tell),
        }
        match granted {
            // By the same proof it is the same who is granted it.
            Ok(granted) => Some(granted.options),
            Err(why) => {
                shared.about_peers(|| format!("{who} is not let in any more: {why}"));
                None
            }
        }
    })
}

/// Everything, with what a server imposes: its rights towards the supervisor that it has started.
pub(super) fn of_a_server(imposed: Imposed) -> RightsNow {
    let Imposed { command, environment } = imposed;
    let options = Arc::new(KeyOptions { command, environment, ..KeyOptions::default() });
    RightsNow::new(move || Some(Arc::clone(&options)))
}

/// What these rights put in the place of what a client asks to be run.
pub(super) fn imposed(options: &KeyOptions) -> Imposed {
    Imposed { command: options.command.clone(), environment: options.environment.clone() }
}
