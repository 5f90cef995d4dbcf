//! User certificates of OpenSSH (PROTOCOL.certkeys): a key, for whom it is good, how long, and who says so.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ssh_key::encoding::Encode as _;
use ssh_key::public::KeyData;

use super::line::{quote, word};
use super::signature;
use super::sk::Presence;
use super::{
    Addresses, AddressesError, Authority, Identity, KeyOptions, PublicKey, PublicKeyError,
};
use crate::sys::fs::read_public;

#[cfg(test)]
mod tests;

/// Most bytes of a certificate. One of RSA keys of 4096 bits, by a CA of the same, has about 2000.
pub const CERTIFICATE_LIMIT: usize = 8 << 10;
/// Most bytes of the file of a certificate: its base64, its type and a comment.
const FILE_LIMIT: usize = 2 * CERTIFICATE_LIMIT;
/// `valid_before` of a certificate that has no end (PROTOCOL.certkeys).
const FOREVER: u64 = u64::MAX;

/// A user certificate whose signature is its CA's. Whether that CA is trusted, for whom, and when is asked
/// of the other methods. Cheap to clone.
#[derive(Clone)]
pub struct Certificate(Arc<Parsed>);

struct Parsed {
    key: PublicKey,
    authority: PublicKey,
    serial: u64,
    id: String,
    principals: Vec<String>,
    after: u64,
    before: u64,
    options: KeyOptions,
    blob: Vec<u8>,
}

/// Why something is not a certificate that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Longer than [`CERTIFICATE_LIMIT`].
    #[error("the certificate is over the limit of {CERTIFICATE_LIMIT} bytes")]
    TooLong,
    /// The base64, or what it encodes.
    #[error("the certificate is damaged or cut off")]
    Malformed,
    /// The key that it is for.
    #[error("the certificate's key: {0}")]
    Key(PublicKeyError),
    /// The key that has signed it.
    #[error("the key of the certificate's CA: {0}")]
    Authority(PublicKeyError),
    /// One for a host.
    #[error("the certificate is for a host, not for a user")]
    Host,
    /// Changed since, or signed by another.
    #[error("the certificate's signature is not its CA's")]
    Signature,
    /// A critical option that is not known, or cannot be honoured.
    #[error("the certificate's critical option {name:?} {why}")]
    Critical {
        /// Its name.
        name: String,
        /// Why not.
        why: CriticalError,
    },
}

/// Why a critical option is not honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CriticalError {
    /// Nothing that is known.
    #[error("is not known")]
    Unknown,
    /// A value where there is none, or none where there has to be one.
    #[error("has not the value that it should have")]
    Value,
    /// `source-address`.
    #[error("is wrong: {0}")]
    Addresses(#[from] AddressesError),
}

/// Why a certificate of a trusted CA does not let anybody in now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Uncertified {
    /// Its time has not come.
    #[error("it is not valid yet")]
    NotYet,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// It is for somebody else.
    #[error("it is for {0}, and none of them may log in here")]
    Principal(String),
    /// It is for nobody in particular. ssh-keygen(1) makes such a one without `-n`, and sshd takes it for
    /// everybody's.
    #[error("it names no principal; sign it with ssh-keygen -n NAME")]
    NoPrincipal,
    /// The CA's line and the certificate impose two different commands.
    #[error("it imposes another command than its CA's line does")]
    Commands,
}

impl Certificate {
    /// Reads a certificate in base64, as it stands in `KEY-cert.pub` after its type.
    ///
    /// # Errors
    /// As [`Certificate::from_blob`].
    pub fn from_base64(text: &str) -> Result<Self, CertificateError> {
        if text.len() > CERTIFICATE_LIMIT.div_ceil(3) * 4 {
            return Err(CertificateError::TooLong);
        }
        Self::from_blob(&STANDARD.decode(text).map_err(|_| CertificateError::Malformed)?)
    }

    /// Reads a certificate, and checks that its CA has signed it.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn from_blob(blob: &[u8]) -> Result<Self, CertificateError> {
        if blob.len() > CERTIFICATE_LIMIT {
            return Err(CertificateError::TooLong);
        }
        let read =
            ssh_key::Certificate::from_bytes(blob).map_err(|_| CertificateError::Malformed)?;
        // What is checked is what is signed: the parser passes over surplus bytes inside a field.
        if read.to_bytes().ok().as_deref() != Some(blob) {
            return Err(CertificateError::Malformed);
        }
        if !read.cert_type().is_user() {
            return Err(CertificateError::Host);
        }
        let key = public(read.public_key()).map_err(CertificateError::Key)?;
        let authority = public(read.signature_key()).map_err(CertificateError::Authority)?;
        let unsigned = read.signature().encoded_len_prefixed().ok();
        let signed = unsigned.and_then(|len| blob.get(..blob.len().checked_sub(len)?));
        // Who stood before the CA's device is the CA's business.
        let presence = Presence { touch: false, verify: false };
        let check = |bytes| signature::verify(&authority, bytes, read.signature(), presence).ok();
        signed.and_then(check).ok_or(CertificateError::Signature)?;
        Ok(Self(Arc::new(Parsed {
            key,
            authority,
            serial: read.serial(),
            id: read.key_id().to_owned(),
            principals: read.valid_principals().to_vec(),
            after: read.valid_after(),
            before: read.valid_before(),
            options: options(&read)?,
            blob: blob.to_vec(),
        })))
    }

    /// The blob in base64.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.0.blob)
    }

    /// Reads the file of a certificate: one line, as `ssh-keygen -s` writes it beside the key.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate that can be used; in one line.
    pub fn load(path: &Path) -> Result<Self, String> {
        let line = read_public(path, FILE_LIMIT).map_err(|e| e.to_string())?;
        let base64 = word(word(line.trim()).1).0;
        Self::from_base64(base64).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// The key that it is for.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.0.key
    }

    /// The key of the CA that has signed it.
    #[must_use]
    pub fn authority(&self) -> &PublicKey {
        &self.0.authority
    }

    /// Its number, which its CA chose; 0 if it numbers none.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.0.serial
    }

    /// What its CA calls it: its key id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Whose it is: the holder of its key, by its key id without control characters, shortened.
    #[must_use]
    pub fn who(&self) -> Identity {
        Identity::Key { fingerprint: self.0.key.fingerprint(), comment: quote(&self.0.id) }
    }

    /// What its holder is granted at `now`, if `authority` is what the trusted CA's line says: a principal
    /// has to be one of the line's, or `account` if it names none. An account without a name is nobody's.
    ///
    /// # Errors
    /// [`Uncertified`].
    pub fn grants(
        &self,
        authority: (&Authority, &KeyOptions),
        account: Option<&str>,
        now: SystemTime,
    ) -> Result<KeyOptions, Uncertified> {
        self.is_valid(now)?;
        let (ca, line) = authority;
        let listed = ca.principals.as_deref();
        let may =
            |name: &String| listed.map_or(Some(name.as_str()) == account, |all| all.contains(name));
        if self.0.principals.is_empty() {
            return Err(Uncertified::NoPrincipal);
        }
        if !self.0.principals.iter().any(may) {
            return Err(Uncertified::Principal(quote(&self.0.principals.join(","))));
        }
        merge(line, &self.0.options).ok_or(Uncertified::Commands)
    }

    fn is_valid(&self, now: SystemTime) -> Result<(), Uncertified> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if now < self.0.after {
            return Err(Uncertified::NotYet);
        }
        if now >= self.0.before { Err(Uncertified::Expired) } else { Ok(()) }
    }
}

fn public(data: &KeyData) -> Result<PublicKey, PublicKeyError> {
    PublicKey::from_blob(&data.encode_vec().map_err(|_| PublicKeyError::Malformed)?)
}

/// What it says of its holder. Of its extensions, which need not be known, those that speak of forwarding
/// change nothing.
fn options(read: &ssh_key::Certificate) -> Result<KeyOptions, CertificateError> {
    let extensions = read.extensions();
    let mut options = KeyOptions {
        no_pty: !extensions.contains_key("permit-pty"),
        no_touch_required: extensions.contains_key("no-touch-required"),
        ..KeyOptions::default()
    };
    for (name, value) in read.critical_options().iter() {
        let critical = |why| CertificateError::Critical { name: quote(name), why };
        match name.as_str() {
            "force-command" if value.trim().is_empty() => {
                return Err(critical(CriticalError::Value));
            }
            "force-command" => options.command = Some(value.clone()),
            "source-address" => {
                let list = Addresses::nets(value).map_err(|e| critical(e.into()))?;
                options.from.push(list);
            }
            "verify-required" if value.is_empty() => options.verify_required = true,
            "verify-required" => return Err(critical(CriticalError::Value)),
            _ => return Err(critical(CriticalError::Unknown)),
        }
    }
    options.expires = end(read.valid_before());
    Ok(options)
}

/// The last second of a certificate; none if it has no end, or one that no clock reaches.
fn end(before: u64) -> Option<SystemTime> {
    let last = before.checked_sub(1).filter(|_| before != FOREVER)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(last))
}

/// What both allow. None if they impose two commands.
fn merge(line: &KeyOptions, certificate: &KeyOptions) -> Option<KeyOptions> {
    let command = match (&line.command, &certificate.command) {
        (Some(one), Some(other)) if one != other => return None,
        (one, other) => one.clone().or_else(|| other.clone()),
    };
    let ends = [line.expires, certificate.expires];
    Some(KeyOptions {
        command,
        from: line.from.iter().chain(&certificate.from).cloned().collect(),
        expires: ends.into_iter().flatten().min(),
        restrict: line.restrict,
        no_pty: line.no_pty || certificate.no_pty,
        environment: line.environment.clone(),
        no_touch_required: line.no_touch_required && certificate.no_touch_required,
        verify_required: line.verify_required || certificate.verify_required,
        authority: None,
    })
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.blob == other.0.blob
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({:?} of {})", self.0.id, self.0.key.fingerprint())
    }
}
