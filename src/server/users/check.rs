//! The users' own lists, as `rexec-server check` tells of them.

use std::path::PathBuf;
use std::time::SystemTime;

use super::own_files::Reader;
use super::{System, is_name, login, shown_path};
use crate::identity::{CheckedFile, Found, Permits, check_found};
use crate::sys::users;

impl System {
    /// The lists that these users keep themselves, and those of all members of the groups who keep one, read with
    /// their rights as a server does: only root can. A user who cannot log in has none that counts.
    #[must_use]
    pub fn check_own(
        &self,
        users: &[String],
        permits: Permits,
        now: SystemTime,
    ) -> Vec<CheckedFile> {
        let named = users.iter().flat_map(|name| self.check_user(name, permits, now));
        let members = self.members().into_iter().filter(|name| !users.contains(name));
        let own = members.flat_map(|name| self.check_user(&name, permits, now));
        // Of a group most may keep no list.
        let says_something =
            |file: &CheckedFile| file.lines.as_ref().map_or(true, |lines| !lines.is_empty());
        named.chain(own.filter(says_something)).collect()
    }

    /// Who is served as a member of a group and could log in now.
    fn members(&self) -> Vec<String> {
        if self.groups.is_empty() {
            return Vec::new();
        }
        let is_member = |name: &String| {
            let user = login::account(name).and_then(|user| login::member(user, &self.groups));
            is_name(name) && user.is_ok()
        };
        users::names().into_iter().filter(is_member).collect()
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
