//! Options in words.

use std::time::SystemTime;

use super::{Authority, KeyOptions};
use crate::identity::line::quote;

impl KeyOptions {
    /// What is held back from the key, and what it is granted besides, one by one; what has expired as being
    /// so at `now`. Values of variables, which may be secrets, are not told.
    #[must_use]
    pub fn means(&self, now: SystemTime) -> Vec<String> {
        let mut told = Vec::new();
        if let Some(Authority { principals }) = &self.authority {
            let names = principals.as_ref().map(|names| names.join(" or "));
            let names = names.as_deref().map_or("this account".into(), quote);
            told.push(format!("signs certificates that name {names}"));
        }
        if let Some(command) = &self.command {
            told.push(format!("runs only: {}", quote(command)));
        }
        if self.restrict {
            told.push("runs commands, and follows and stops its own runs; nothing else".into());
        }
        told.extend(self.from.iter().map(|list| from(&list.to_string(), list.names())));
        if let Some(end) = self.expires {
            let over = if end < now { ": it has expired" } else { "" };
            told.push(format!("until {}{over}", humantime::format_rfc3339_seconds(end)));
        }
        for (is_set, what) in [
            (self.no_pty, "no terminal"),
            (self.no_touch_required, "a hardware key need not be touched"),
            (self.verify_required, "a hardware key asks for its PIN"),
        ] {
            if is_set {
                told.push(what.into());
            }
        }
        let names: Vec<&str> = self.environment.iter().map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            told.push(format!("sets {}", names.join(", ")));
        }
        told
    }
}

fn from<'a>(list: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.is_empty() {
        true => format!("only from {list}"),
        false => format!(
            "only from {list}; no names are looked up, so nobody comes from {}",
            names.join(", ")
        ),
    }
}
