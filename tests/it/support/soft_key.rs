//! A security key in software: it signs as OpenSSH's `PROTOCOL.u2f` says that a device does, and says of
//! the person before it what the test wants. Written from that text, not from rexec's own code.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use sha2::{Digest as _, Sha256, Sha512};

/// Somebody touched it.
pub(crate) const TOUCHED: u8 = 1;
/// It knows who it was.
pub(crate) const VERIFIED: u8 = 4;

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
}

pub(crate) struct SoftKey {
    pair: Pair,
    application: String,
}

/// A string of RFC 4251.
pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// A positive mpint of RFC 4251.
fn mpint(bytes: &[u8]) -> Vec<u8> {
    let bytes = &bytes[bytes.iter().take_while(|b| **b == 0).count()..];
    let sign: &[u8] = if bytes.first().is_some_and(|b| b & 0x80 != 0) { &[0] } else { &[] };
    string(&[sign, bytes].concat())
}

impl SoftKey {
    /// Of type `sk-ssh-ed25519@openssh.com` or `sk-ecdsa-sha2-nistp256@openssh.com`.
    pub(crate) fn new(is_ed25519: bool) -> Self {
        let random = SystemRandom::new();
        let pair = if is_ed25519 {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
            Pair::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
        } else {
            let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            Pair::Ecdsa(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap())
        };
        Self { pair, application: "ssh:".into() }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self.pair {
            Pair::Ed25519(_) => "sk-ssh-ed25519@openssh.com",
            Pair::Ecdsa(_) => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    /// The public key.
    pub(crate) fn blob(&self) -> Vec<u8> {
        let key = match &self.pair {
            Pair::Ed25519(pair) => string(pair.public_key().as_ref()),
            Pair::Ecdsa(pair) => [string(b"nistp256"), string(pair.public_key().as_ref())].concat(),
        };
        [string(self.kind().as_bytes()), key, string(self.application.as_bytes())].concat()
    }

    /// The public key's line.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.kind(), STANDARD.encode(self.blob()))
    }

    /// The signature over `message` as an agent hands it out.
    pub(crate) fn sign(&self, message: &[u8], flags: u8, counter: u32) -> Vec<u8> {
        let trailer = [&[flags], counter.to_be_bytes().as_slice()].concat();
        let application = Sha256::digest(self.application.as_bytes());
        let signed =
            [application.as_slice(), &trailer, Sha256::digest(message).as_slice()].concat();
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.sign(&signed).as_ref().to_vec(),
            Pair::Ecdsa(pair) => {
                let made = pair.sign(&SystemRandom::new(), &signed).unwrap();
                let (r, s) = made.as_ref().split_at(32);
                [mpint(r), mpint(s)].concat()
            }
        };
        [string(self.kind().as_bytes()), string(&signature), trailer].concat()
    }

    /// An SSHSIG (`PROTOCOL.sshsig`) over `message`, in its armour.
    pub(crate) fn sshsig(&self, namespace: &str, message: &[u8], flags: u8) -> String {
        let fields = [string(namespace.as_bytes()), string(b""), string(b"sha512")].concat();
        let digest = Sha512::digest(message);
        let signed = [b"SSHSIG", fields.as_slice(), &string(digest.as_slice())].concat();
        let signature = string(&self.sign(&signed, flags, 7));
        let version = 1u32.to_be_bytes();
        let whole = [b"SSHSIG", version.as_slice(), &string(&self.blob()), &fields, &signature];
        let base64 = STANDARD.encode(whole.concat());
        let lines: Vec<&str> =
            base64.as_bytes().chunks(70).map(|l| std::str::from_utf8(l).unwrap()).collect();
        let (begin, end) = ("-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----");
        format!("{begin}\n{}\n{end}\n", lines.join("\n"))
    }
}
