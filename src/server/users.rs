//! System mode: a server of root's that runs commands as the users it is told to serve.

mod check;
mod login;
pub mod own_files;
pub(super) mod shell;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::warn;

pub use login::NoLogin;
use own_files::Reader;

use crate::handshake::Doors;
use crate::identity::{AccessFiles, Authorized, Found, Handed, News, Source, is_user};
use crate::proto::code::Code;
use crate::proto::header::Refused;
use crate::runs::throttle::Throttle;
use crate::sys::mutex::lock;
use crate::sys::users::{User, group};

/// Where root keeps lists of keys, each under the name of its user.
pub const KEYS_FOLDER: &str = "/etc/rexec/authorized_keys";
/// A user's own list, below the home.
const OWN_FILE: &str = ".config/rexec/authorized_keys";
/// That of sshd(8).
const SSH_FILE: &str = ".ssh/authorized_keys";
/// At a login an account is looked at anew if that was longer ago: so strangers make the server look once a
/// second for each user and no more often.
const FRESH_FOR_LOGIN: Duration = Duration::from_secs(1);
/// The same at a request of somebody who has logged in.
const FRESH_FOR_REQUEST: Duration = Duration::from_millis(100);
/// For how long the last answer of a user's lists counts when the home does not answer any more.
pub const UNANSWERED: Duration = Duration::from_secs(60);

/// What an operator decides about system mode.
#[derive(Debug, Clone)]
pub struct System {
    /// The users that are served, by name.
    pub users: Vec<String>,
    /// The groups whose members are served too, but for root.
    pub groups: Vec<String>,
    /// Whether `~/.ssh/authorized_keys` counts too.
    pub ssh_keys: bool,
}

impl System {
    /// Those who are served, as they were named.
    fn names(&self) -> Vec<String> {
        let groups = self.groups.iter().map(|group| format!("@{group}"));
        self.users.iter().cloned().chain(groups).collect()
    }

    /// Where its users' own lists are, below their homes.
    fn own_files(&self) -> Vec<&'static str> {
        [OWN_FILE].into_iter().chain(self.ssh_keys.then_some(SSH_FILE)).collect()
    }

    /// What an operator has to know of it, one line each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "system mode, for {}: PAM is not consulted: none of its account, session and limits modules counts; accounts \
             that are locked, expired or without a login shell are refused",
            self.names().join(", ")
        )];
        if self.ssh_keys {
            lines.push(
                "--use-ssh-keys: keys in ~/.ssh/authorized_keys count, and nothing that sshd_config says of them: not \
                 AllowUsers, DenyUsers, AllowGroups, DenyGroups, Match blocks, PermitRootLogin, ForceCommand, \
                 ChrootDirectory, AuthenticationMethods, AuthorizedKeysFile nor UsePAM"
                    .to_owned(),
            );
        }
        lines
    }
}

/// Whether it can be the name of a user or a group, and of a file.
#[must_use]
pub fn is_name(text: &str) -> bool {
    is_user(text) && !text.contains(['/', '@', ':']) && !text.starts_with('.')
}

/// The users of a server in system mode.
pub(super) struct Users {
    /// By name: those who were named, and of the members of groups those who have come.
    all: Mutex<BTreeMap<String, Arc<Guest>>>,
    system: System,
    access: AccessFiles,
    /// Held while somebody is looked for among the members: strangers who try names wait for each other.
    joining: tokio::sync::Mutex<()>,
    /// The door of all who are not served.
    nobody: Arc<Authorized>,
    refusals: Throttle,
    news: Throttle,
}

/// One user: the account as it was last looked at, and who may use it.
pub(super) struct Guest {
    name: String,
    /// A member of one of these has to be served; none: it was named.
    groups: Option<Arc<[String]>>,
    /// What is in a user's files is the user's to choose, and how often it changes.
    news: Throttle,
    authorized: Arc<Authorized>,
    own: Vec<(&'static str, Handed)>,
    state: Mutex<State>,
    /// Whoever holds it looks at the account and the lists.
    looker: Arc<tokio::sync::Mutex<Looker>>,
}

struct State {
    /// When the last look began that is over. None: never.
    looked: Option<Instant>,
    account: Result<Arc<User>, NoLogin>,
}

#[derive(Default)]
struct Looker {
    reader: Reader,
    /// When the lists were last read. None: never.
    answered: Option<Instant>,
}

impl Users {
    pub(super) fn new(system: &System, access: &AccessFiles) -> Self {
        let guest = |name: &String| (name.clone(), Arc::new(Guest::new(name, system, access)));
        Self {
            all: Mutex::new(system.users.iter().map(guest).collect()),
            system: system.clone(),
            access: access.clone(),
            joining: tokio::sync::Mutex::default(),
            nobody: Arc::new(Authorized::as_user("", AccessFiles::default(), Vec::new())),
            refusals: Throttle::default(),
            news: Throttle::default(),
        }
    }

    /// Tells of those who could not log in now.
    pub(super) fn check(&self) {
        for name in &self.system.users {
            if let Err(why) = login::account(name) {
                warn!("nobody is let in as {name}: {why}");
            }
        }
        for name in &self.system.groups {
            match group(name) {
                Ok(Some(_)) => {}
                Ok(None) => warn!("nobody is let in by @{name}: there is no such group"),
                Err(e) => warn!("nobody is let in by @{name}: it cannot be looked up: {e}"),
            }
        }
    }

    /// What is in a user's files is the user's to choose: at most a line a second.
    pub(super) fn tell(&self, news: &News) {
        if let Some(line) = self.news.line(|| news.to_string()) {
            warn!("{line}");
        }
    }

    pub(super) fn guest(&self, name: &str) -> Option<Arc<Guest>> {
        self.all().get(name).cloned()
    }

    /// One who may log in now.
    async fn usable(&self, name: &str) -> Result<Arc<Guest>, NoLogin> {
        let Some(guest) = self.guest(name) else { return self.join(name).await };
        guest.refresh(FRESH_FOR_LOGIN).await;
        guest.account().map(|_| guest)
    }

    /// One who has not come before, and who may be a member of a group that is served. Only who is one is remembered,
    /// so there are no more than the machine has accounts.
    async fn join(&self, name: &str) -> Result<Arc<Guest>, NoLogin> {
        if self.system.groups.is_empty() || !is_name(name) {
            return Err(NoLogin::NotServed);
        }
        let guest = self.member(name).await?;
        guest.refresh(FRESH_FOR_LOGIN).await;
        guest.account().map(|_| guest)
    }

    /// The member of a group that has this name. Nobody's folders are looked at, for others wait here.
    async fn member(&self, name: &str) -> Result<Arc<Guest>, NoLogin> {
        let _joining = self.joining.lock().await;
        if let Some(guest) = self.guest(name) {
            return Ok(guest);
        }
        let groups = Some(self.system.groups.as_slice().into());
        let guest = Arc::new(Guest { groups, ..Guest::new(name, &self.system, &self.access) });
        let member = Arc::clone(&guest);
        on_thread(move || member.find_account()).await.unwrap_or_else(Err)?;
        self.all().insert(name.to_owned(), Arc::clone(&guest));
        Ok(guest)
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Guest>>> {
        lock(&self.all)
    }
}

/// Who is not served, or cannot log in, is told apart from one whose keys are not known to the operator only.
impl Doors for Users {
    async fn door(&self, user: Option<&str>) -> Result<Arc<Authorized>, Refused> {
        let Some(name) = user else {
            let text = "this server serves users by name: write rexec USER@HOST:PORT".into();
            return Err(Refused { code: Code::Unsupported, text, key: None });
        };
        let refused = match self.usable(name).await {
            Ok(guest) => return Ok(Arc::clone(&guest.authorized)),
            Err(why) => why,
        };
        if let Some(line) = self.refusals.line(|| format!("no login as {name:?}: {refused}")) {
            warn!("{line}");
        }
        Ok(Arc::clone(&self.nobody))
    }
}

impl Guest {
    fn new(name: &str, system: &System, access: &AccessFiles) -> Self {
        let handed = |file| (file, Handed::new(shown_path(name, file)));
        let own: Vec<_> = system.own_files().into_iter().map(handed).collect();
        let path = Path::new(KEYS_FOLDER).join(name);
        let keys = vec![Source { path, required: false }];
        let files = AccessFiles { keys, ..access.clone() };
        let handed = own.iter().map(|(_, handed)| handed.clone()).collect();
        Self {
            name: name.to_owned(),
            groups: None,
            news: Throttle::default(),
            authorized: Arc::new(Authorized::as_user(name, files, handed)),
            own,
            state: Mutex::new(State { looked: None, account: Err(NoLogin::Unknown) }),
            looker: Arc::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Says what has come up in the lists, at most a line a second.
    pub(super) fn tell(&self, news: &News) {
        self.warn(|| news.to_string());
    }

    fn warn(&self, line: impl FnOnce() -> String) {
        if let Some(line) = self.news.line(line) {
            warn!("{line}");
        }
    }

    pub(super) fn authorized(&self) -> &Arc<Authorized> {
        &self.authorized
    }

    /// The account, if one could log in to it when it was last looked at.
    pub(super) fn account(&self) -> Result<Arc<User>, NoLogin> {
        self.state().account.clone()
    }

    /// Whether a request that came at `asked` needs no other look.
    pub(super) fn is_fresh(&self, asked: Instant) -> bool {
        self.is_looked_at(FRESH_FOR_REQUEST, asked)
    }

    /// Looks at the account and at the user's own files, for a request that came at `asked`.
    pub(super) async fn refresh_for_request(self: &Arc<Self>, asked: Instant) {
        self.refresh_since(FRESH_FOR_REQUEST, asked).await;
    }

    /// Looks unless somebody has looked within `age`.
    async fn refresh(self: &Arc<Self>, age: Duration) {
        self.refresh_since(age, Instant::now()).await;
    }

    fn is_looked_at(&self, age: Duration, asked: Instant) -> bool {
        self.state().looked.is_some_and(|at| at + age >= asked)
    }

    /// The databases and the user's folders may not answer: that holds a thread that may wait, and one for each user,
    /// whoever of those who wait for it is gone meanwhile.
    async fn refresh_since(self: &Arc<Self>, age: Duration, asked: Instant) {
        if self.is_looked_at(age, asked) {
            return;
        }
        let mut looker = Arc::clone(&self.looker).lock_owned().await;
        if self.is_looked_at(age, asked) {
            return;
        }
        let guest = Arc::clone(self);
        if let Err(why) = on_thread(move || guest.look(&mut looker)).await {
            self.state().account = Err(why);
        }
    }

    fn look(&self, looker: &mut Looker) {
        let looked = Instant::now();
        // What is known of the account does not wait for the user's folders.
        if let Ok(user) = self.find_account() {
            let paths: Vec<PathBuf> =
                self.own.iter().map(|(file, _)| user.home.join(file)).collect();
            let found = looker.reader.read_as(&user, &paths);
            self.take(looker, found, Instant::now());
        }
        self.state().looked = Some(looked);
    }

    fn find_account(&self) -> Result<Arc<User>, NoLogin> {
        let account = login::account(&self.name).and_then(|user| match &self.groups {
            Some(groups) => login::member(user, groups),
            None => Ok(user),
        });
        let account = account.map(Arc::new);
        self.state().account = account.clone();
        account
    }

    /// Takes what was found in the lists at `now`.
    fn take(&self, looker: &mut Looker, found: io::Result<Vec<Found>>, now: Instant) {
        let found = match found {
            Ok(found) => {
                looker.answered = Some(now);
                found
            }
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                let home = format!("the folders of {} do not answer", self.name);
                if looker.answered.is_some_and(|at| at + UNANSWERED >= now) {
                    return self.warn(|| format!("{home}; what they said last counts on for now"));
                }
                vec![Err(home); self.own.len()]
            }
            Err(e) => vec![Err(format!("the user's files cannot be read: {e}")); self.own.len()],
        };
        for ((_, handed), found) in self.own.iter().zip(found) {
            handed.put(found);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// A file below the home of a user, for people.
fn shown_path(name: &str, file: &str) -> PathBuf {
    Path::new(&format!("~{name}")).join(file)
}

/// Does what may have to wait.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NoLogin> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| NoLogin::Database("the look at it failed".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_that_does_not_answer_is_believed_for_a_minute_and_one_that_never_did_is_not() {
        let system = System { users: Vec::new(), groups: Vec::new(), ssh_keys: false };
        let guest = Guest::new("alice", &system, &AccessFiles::default());
        let (mut looker, began) = (Looker::default(), Instant::now());
        let silence = || Err(io::ErrorKind::TimedOut.into());
        let list = || Ok(Some(String::from("a list")));
        let silent = Err("the folders of alice do not answer".to_owned());
        let mut take = |found, at, expected: &Found| {
            guest.take(&mut looker, found, at);
            assert_eq!(guest.own[0].1.found(), expected.clone().map(|text| text.map(Arc::new)));
        };
        take(silence(), began, &silent);
        take(Ok(vec![list()]), began, &list());
        take(silence(), began + UNANSWERED, &list());
        take(silence(), began + UNANSWERED + Duration::from_millis(1), &silent);
        take(Ok(vec![Ok(None)]), began + 2 * UNANSWERED, &Ok(None));
    }
}
