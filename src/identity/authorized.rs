//! Who is let in, judged anew on every question.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::authorized_keys::{Entry, Keys};
use super::watched::Watched;
use super::{
    Authority, Barred, Caller, Certificate, CertificateError, Fingerprint, Granted, Handed,
    Identity, KeyOptions, News, Permits, Proven, PublicKey, Revoked, Role, Sought, Source,
    Uncertified,
};
use crate::sys::fs::euid;
use crate::sys::mutex::lock;
use crate::sys::users::account;

#[cfg(test)]
mod tests;

/// The files that say who is let in.
#[derive(Debug, Clone, Default)]
pub struct AccessFiles {
    /// Keys, and keys that sign certificates, as in `~/.ssh/authorized_keys`.
    pub keys: Vec<Source>,
    /// What their lines may say.
    pub permits: Permits,
    /// Keys that sign certificates, one a line: a certificate that names the account is let in.
    pub authorities: Vec<Source>,
    /// What is not let in any more, whoever lists it. Without all of it nobody is.
    pub revoked: Vec<Source>,
}

/// Why a key is not let in. For the operator's eyes: a peer is told no more than that it is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No line lets it in.
    #[error("no key that it listed is authorized")]
    Unlisted,
    /// A line that would let it in does not do so now.
    #[error("{} line {line} lists its key, but {why}", path.display())]
    Barred {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why not.
        why: Barred,
    },
    /// Its certificate is none, or none of its key's.
    #[error("its certificate cannot be used: {0}")]
    Certificate(CertificateError),
    /// No file says that this CA may sign certificates.
    #[error("the CA of its certificate, {0}, is not trusted")]
    Authority(Fingerprint),
    /// A CA is trusted, but its certificate does not let anybody in now.
    #[error("{} line {line} trusts the CA of its certificate, but {why}", path.display())]
    Uncertified {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why not.
        why: Uncertified,
    },
    /// It is on a revocation list.
    #[error("{} revokes its key or certificate", .0.display())]
    Revoked(PathBuf),
    /// A revocation list cannot be read in full.
    #[error("{} cannot be read in full, and says who is not let in any more", .0.display())]
    NoRevocation(PathBuf),
}

/// The answer to one question.
#[derive(Debug)]
pub struct Lookup {
    /// The first of the keys that is let in, and what its holder is granted; or why the first that is
    /// listed is not.
    pub found: Result<(Fingerprint, Granted), Refusal>,
    /// What has come up in the files since the last question.
    pub news: Vec<News>,
}

/// The answer about somebody who was let in before.
#[derive(Debug)]
pub struct Again {
    /// What it is granted, or why it would not be let in any more.
    pub granted: Result<Granted, Refusal>,
    /// What has come up in the files since the last question.
    pub news: Vec<News>,
}

/// The keys that are let in: those in the files as they are now, and the local identity's over loopback.
pub struct Authorized {
    /// The local identity's key; none where programs of this account are let in as nobody.
    local: Option<Fingerprint>,
    /// The name of the account that is logged in to, for which certificates have to be.
    account: Option<String>,
    lists: Mutex<Lists>,
}

struct Lists {
    keys: Vec<Watched<Keys>>,
    authorities: Vec<Watched<Keys>>,
    revoked: Vec<Watched<Revoked>>,
}

impl Authorized {
    /// Looks at no file yet.
    #[must_use]
    pub fn new(files: AccessFiles, local: &PublicKey) -> Self {
        let account = account().map(|account| account.name.to_string_lossy().into_owned());
        let lists = Lists::new(files, Vec::new());
        Self { local: Some(local.fingerprint()), account, lists: Mutex::new(lists) }
    }

    /// Those who are let in as the account of this name, by these files and by others of the user's own. No local
    /// identity counts.
    #[must_use]
    pub fn as_user(name: &str, files: AccessFiles, own: Vec<Handed>) -> Self {
        let lists = Mutex::new(Lists::new(files, own));
        Self { local: None, account: Some(name.to_owned()), lists }
    }

    /// Whether programs of this process's account are let in without a key.
    #[must_use]
    pub fn admits_local(&self) -> bool {
        self.local.is_some()
    }

    /// The first of `keys` that is let in now, and what its holder is granted, should the peer prove that it
    /// holds it. However many keys are asked for, each file is looked at once.
    #[must_use]
    pub fn lookup(&self, keys: &[Sought], caller: Caller) -> Lookup {
        let now = SystemTime::now();
        let (found, news) = self.ask(|lists| {
            let mut refusal = Refusal::Unlisted;
            for key in keys {
                match self.key(lists, key, caller, now) {
                    Ok(granted) => return Ok((key.fingerprint(), granted)),
                    Err(why) => refusal = refusal.or(why),
                }
            }
            Err(refusal)
        });
        Lookup { found, news }
    }

    /// What the holder of a certificate is granted now, should the peer prove that it holds its key.
    #[must_use]
    pub fn certified(&self, certificate: &Certificate, caller: Caller) -> Again {
        let now = SystemTime::now();
        let (granted, news) = self.ask(|lists| self.certificate(lists, certificate, caller, now));
        Again { granted, news }
    }

    /// What somebody who was let in as `who` is granted now.
    pub fn again(&self, who: &Identity, proven: &Proven, caller: Caller) -> Again {
        match proven {
            Proven::Kernel => {
                let granted = Granted { who: who.clone(), options: Arc::default() };
                Again { granted: Ok(granted), news: Vec::new() }
            }
            Proven::Key(key) => {
                let key = Sought::Key(key.clone());
                let Lookup { found, news } = self.lookup(&[key], caller);
                Again { granted: found.map(|(_, granted)| granted), news }
            }
            Proven::Certificate(certificate) => self.certified(certificate, caller),
        }
    }

    /// The first line that names the key and lets it in now counts, as with sshd.
    fn key(
        &self,
        lists: &Lists,
        key: &Sought,
        caller: Caller,
        now: SystemTime,
    ) -> Result<Granted, Refusal> {
        let name = key.fingerprint();
        if caller.loopback && Some(name) == self.local {
            return Ok(Granted::local(euid()));
        }
        lists.revoked(|list| list.has_key(&name))?;
        let mut refusal = Refusal::Unlisted;
        for (path, entry) in entries(&lists.keys, key) {
            if entry.options.authority.is_some() {
                continue;
            }
            match entry.options.admit(caller.address, now) {
                Ok(()) => return Ok(entry.granted()),
                Err(why) => refusal = refusal.or(Refusal::barred(path, entry.line, why)),
            }
        }
        Err(refusal)
    }

    /// The first line that trusts the CA for this certificate counts.
    fn certificate(
        &self,
        lists: &Lists,
        certificate: &Certificate,
        caller: Caller,
        now: SystemTime,
    ) -> Result<Granted, Refusal> {
        lists.revoked(|list| list.has_certificate(certificate))?;
        let ca = Sought::Key(certificate.authority().clone());
        let listed = entries(&lists.keys, &ca).filter_map(|(path, entry)| {
            let authority = entry.options.authority.clone()?;
            Some((path, entry.line, authority, entry.options))
        });
        // Beside such a line the certificate alone speaks.
        let nothing = Arc::new(KeyOptions { no_touch_required: true, ..KeyOptions::default() });
        let trusted = entries(&lists.authorities, &ca)
            .map(|(path, entry)| (path, entry.line, Authority::default(), Arc::clone(&nothing)));
        let mut refusal = Refusal::Unlisted;
        for (path, line, authority, options) in listed.chain(trusted) {
            let account = self.account.as_deref();
            let why = match certificate.grants((&authority, &options), account, now) {
                Ok(options) => match options.admit(caller.address, now) {
                    Ok(()) => {
                        return Ok(Granted { who: certificate.who(), options: options.into() });
                    }
                    Err(why) => Refusal::barred(path, line, why),
                },
                Err(why) => Refusal::Uncertified { path: path.into(), line, why },
            };
            refusal = refusal.or(why);
        }
        Err(refusal.or(Refusal::Authority(ca.fingerprint())))
    }

    /// How many keys the files let in, or trust to sign certificates, the local identity aside: a server
    /// that others can reach should not start with none.
    #[must_use]
    pub fn count(&self) -> (usize, Vec<News>) {
        self.ask(|lists| {
            let all = lists.keys.iter().chain(&lists.authorities);
            all.filter_map(Watched::content).map(Keys::len).sum()
        })
    }

    fn ask<T>(&self, ask: impl FnOnce(&Lists) -> T) -> (T, Vec<News>) {
        // A panic elsewhere cannot leave a list half-made: each is replaced as a whole.
        let mut lists = lock(&self.lists);
        let news = lists.refresh();
        (ask(&lists), news)
    }
}

impl Lists {
    fn new(files: AccessFiles, own: Vec<Handed>) -> Self {
        let AccessFiles { keys, permits, authorities, revoked } = files;
        let key_file =
            |source| Watched::new(source, Role::Keys, move |text| Keys::parse(text, permits));
        let own_file =
            |own| Watched::handed(own, Role::Keys, move |text| Keys::parse(text, permits));
        let ca_file = |source| Watched::new(source, Role::Authorities, Keys::authorities);
        let revoked_file =
            |source| Watched::new(source, Role::Revoked, |text| Revoked::parse(text));
        Self {
            keys: keys.into_iter().map(key_file).chain(own.into_iter().map(own_file)).collect(),
            authorities: authorities.into_iter().map(ca_file).collect(),
            revoked: revoked.into_iter().map(revoked_file).collect(),
        }
    }

    fn refresh(&mut self) -> Vec<News> {
        let keys = self.keys.iter_mut().chain(&mut self.authorities).flat_map(Watched::refresh);
        keys.chain(self.revoked.iter_mut().flat_map(Watched::refresh)).collect()
    }

    /// Fails if one of the revocation lists has it, or may have it.
    fn revoked(&self, has: impl Fn(&Revoked) -> bool) -> Result<(), Refusal> {
        for file in &self.revoked {
            if !file.is_whole() {
                return Err(Refusal::NoRevocation(file.source.path.clone()));
            }
            if file.content().is_some_and(&has) {
                return Err(Refusal::Revoked(file.source.path.clone()));
            }
        }
        Ok(())
    }
}

/// The lines with this key, in the order of the files.
fn entries<'a>(
    files: &'a [Watched<Keys>],
    key: &'a Sought,
) -> impl Iterator<Item = (&'a Path, Entry)> {
    files.iter().flat_map(move |file| {
        let entries = file.content().into_iter().flat_map(move |keys| keys.of(key));
        entries.map(move |entry| (file.source.path.as_path(), entry))
    })
}

impl Refusal {
    fn barred(path: &Path, line: usize, why: Barred) -> Self {
        Self::Barred { path: path.to_owned(), line, why }
    }

    /// The first of several that says more than that nothing was found.
    fn or(self, next: Self) -> Self {
        if self == Self::Unlisted { next } else { self }
    }
}

impl Entry {
    fn granted(self) -> Granted {
        let Self { fingerprint, comment, options, .. } = self;
        Granted { who: Identity::Key { fingerprint, comment }, options }
    }
}
