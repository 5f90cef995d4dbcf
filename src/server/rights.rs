//! What a connection may ask: judged anew for each request, because a long connection does not outlive
//! its rights.

use std::sync::Arc;

use tracing::warn;

use super::Shared;
use crate::identity::{Again, Caller, Identity, KeyOptions, News, Proven};
use crate::runs::request::Imposed;

/// What somebody may do at this moment; none: it would not be let in any more.
pub(super) type RightsNow = Box<dyn Fn() -> Option<Arc<KeyOptions>> + Send + Sync>;

/// The rights of somebody who was let in as `who`.
pub(super) fn of(shared: &Arc<Shared>, who: Identity, proven: Proven, caller: Caller) -> RightsNow {
    let shared = Arc::clone(shared);
    Box::new(move || {
        let Again { granted, news } = shared.authorized.again(&who, &proven, caller);
        news.iter().for_each(tell);
        match granted {
            Ok(granted) if granted.who == who => Some(granted.options),
            Ok(_) => None,
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
    Box::new(move || Some(Arc::clone(&options)))
}

/// Says what has come up in the files of keys.
pub(super) fn tell(news: &News) {
    warn!("{news}");
}

/// What these rights put in the place of what a client asks to be run.
pub(super) fn imposed(options: &KeyOptions) -> Imposed {
    Imposed { command: options.command.clone(), environment: options.environment.clone() }
}
