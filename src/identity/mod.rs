//! Keys, and which of them are known.
//!
//! The formats are OpenSSH's, so that existing keys and files just work. Key files and key blobs are
//! parsed by the `ssh-key` crate; the lines of `authorized_keys` and `known_hosts` here, since real
//! files hold lines that it rejects; the signature maths is the TLS provider's, or faster where the processor allows.

mod addresses;
mod agent;
mod ask;
mod authorized;
pub mod authorized_keys;
mod candidate;
mod certificate;
mod channel;
mod check;
mod ed25519;
mod fingerprint;
mod glob;
mod granted;
mod key;
mod keyring;
pub mod known_hosts;
mod line;
mod line_error;
mod local;
mod network;
mod options;
mod private;
mod proof;
mod proof_error;
mod public;
mod revoked;
mod revoked_error;
mod short_scalar;
mod signature;
mod sk;
mod time;
mod watched;
mod who;
mod wire;

pub use addresses::{Addresses, AddressesError};
pub use agent::{
    AGENT_TIMEOUT, AGENT_VAR, Agent, AgentError, AgentKey, REPLY_LIMIT, TOUCH_TIMEOUT, read_keys,
    read_signature,
};
pub use ask::{Ask, Asking, Nobody};
pub use authorized::{AccessFiles, Again, Authorized, Lookup, Refusal};
pub use candidate::{Candidate, CannotProve, PASSPHRASE_TRIES};
pub use certificate::{
    CERTIFICATE_LIMIT, Certificate, CertificateError, CriticalError, Uncertified,
};
pub use channel::Channel;
pub use check::{CheckedFile, CheckedLine, Said, check_files, check_found};
pub use fingerprint::{Fingerprint, NotAFingerprint};
pub use granted::{Caller, Granted, Proven, Sought};
pub use key::{KEY_FILE_LIMIT, Key, KeyError, KeyFile, StoredKey};
pub use keyring::{KeyRing, USUAL_FILES};
pub use line_error::{LineError, LineReason};
pub use local::{OwnKeys, host_key, host_public_key, local_identity};
pub use network::Network;
pub use options::{Authority, Barred, KeyOptions, OptionError, Permits};
pub use proof::{NAMESPACE, auth_text, is_user, sign, sign_auth, verify, verify_auth};
pub use proof_error::{PROOF_LIMIT, ProofError, USER_LIMIT};
pub use public::{PublicKey, PublicKeyError, RSA_LEAST, RSA_MOST};
pub use revoked::Revoked;
pub use revoked_error::RevokedError;
pub use sk::Presence;
pub use time::{NotATime, parse_time};
pub use watched::{Found, Handed, News, Role, Source, Trouble, read_list};
pub use who::Identity;

#[cfg(test)]
#[path = "../../tests/it/support/soft_key.rs"]
mod soft_key;
