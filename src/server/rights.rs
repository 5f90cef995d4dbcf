//! What a connection may ask: judged anew for each request, because a long connection does not outlive
//! its rights.

use std::sync::Arc;

use tracing::warn;

use super::Shared;
use crate::identity::{Again, Caller, Identity, KeyOptions, News, Proven};
use crate::proto::code::Code;
use crate::runs::request::Imposed;

/// What somebody may do at this moment; none: it would not be let in any more.
pub(super) type RightsNow = Box<dyn Fn() -> Option<Arc<KeyOptions>> + Send + Sync>;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// To run something, or to go on with it.
    Run,
    /// To look at a run.
    Attach,
    /// To signal or stop a run.
    Order,
    /// To give a run up.
    Close,
    /// To see which runs there are.
    List,
    /// To delete a record.
    Remove,
}

/// Why something is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct No {
    pub(super) code: Code,
    pub(super) text: String,
}

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

/// Whether `ask` may be done with these rights.
pub(super) fn judge(rights: Option<Arc<KeyOptions>>, ask: Ask) -> Result<Arc<KeyOptions>, No> {
    let Some(options) = rights else {
        let text = "this key is no longer authorized".into();
        return Err(No { code: Code::NotAuthorized, text });
    };
    match ask {
        Ask::List | Ask::Remove if options.is_restricted() => {
            let text = "this key may run commands, and attach to, signal and stop its own runs; \
                        nothing else";
            Err(No { code: Code::NotPermitted, text: text.into() })
        }
        _ => Ok(options),
    }
}

/// What these rights put in the place of what a client asks to be run.
pub(super) fn imposed(options: &KeyOptions) -> Imposed {
    Imposed { command: options.command.clone(), environment: options.environment.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind of key and every kind of request.
    #[test]
    fn the_whole_table() {
        let key = |command: Option<&str>, restrict| KeyOptions {
            command: command.map(str::to_owned),
            restrict,
            ..KeyOptions::default()
        };
        let kinds = [
            ("gone", None, [false, false, false, false, false, false]),
            ("plain", Some(key(None, false)), [true, true, true, true, true, true]),
            ("restrict", Some(key(None, true)), [true, true, true, true, false, false]),
            ("command", Some(key(Some("x"), false)), [true, true, true, true, false, false]),
            ("both", Some(key(Some("x"), true)), [true, true, true, true, false, false]),
        ];
        let asks = [Ask::Run, Ask::Attach, Ask::Order, Ask::Close, Ask::List, Ask::Remove];
        for (name, options, allowed) in kinds {
            let options = options.map(Arc::new);
            for (ask, allowed) in asks.into_iter().zip(allowed) {
                assert_eq!(judge(options.clone(), ask).is_ok(), allowed, "{name} {ask:?}");
            }
        }
    }
}
