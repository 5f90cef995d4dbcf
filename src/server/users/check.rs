//! The users' own lists, as `rexec-server check` tells of them.

use std::path::PathBuf;
use std::time::SystemTime;

use super::own_files::Reader;
use super::{System, login, shown_path};
use crate::identity::{CheckedFile, Found, Permits, check_found};

impl System {
    /// The lists that these users keep themselves, read with their rights as a server does: only root can. A user who
    /// cannot log in has none that counts.
    #[must_use]
    pub fn check_own(
        &self,
        users: &[String],
        permits: Permits,
        now: SystemTime,
    ) -> Vec<CheckedFile> {
        users.iter().flat_map(|name| self.check_user(name, permits, now)).collect()
    }

    fn check_user(&self, name: &str, permits: Permits, now: SystemTime) -> Vec<CheckedFile> {
        let files = self.own_files();
        let shown = files.iter().map(|file| shown_path(name, file));
        let checked = |(path, found)| check_found(path, found, permits, now);
        shown.zip(self.found(name, &files)).map(checked).collect()
    }

    fn found(&self, name: &str, files: &[&str]) -> Vec<Found> {
        let user = login::account(name).and_then(|user| {
            let is_named = self.users.iter().any(|named| named == name);
            if is_named { Ok(user) } else { login::member(user, &self.groups) }
        });
        let all = |why: String| vec![Err(why); files.len()];
        let user = match user {
            Ok(user) => user,
            Err(why) => return all(format!("nobody is let in as {name}: {why}")),
        };
        let paths: Vec<PathBuf> = files.iter().map(|file| user.home.join(file)).collect();
        let read = Reader::default().read_as(&user, &paths);
        read.unwrap_or_else(|e| all(format!("the user's files cannot be read: {e}")))
    }
}
