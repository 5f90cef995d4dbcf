//! Where TLS asks whether the server's key is the right one.

use std::fmt;
use std::future::ready;
use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, PeerIncompatible, SignatureScheme};

use super::{Endpoint, HostKeyError, UnknownHost};
use crate::identity::{Asking, PublicKey};
use crate::sys::mutex::lock;

/// Who decides whether a host key belongs to the address that was asked for.
pub trait HostKeyCheck: Send + Sync {
    /// Reads what will be judged by; called while the server is waited for, which has been asked for its key.
    /// By default there is nothing to read.
    ///
    /// # Errors
    /// Without it no server would be accepted.
    fn prepare(&self) -> Result<(), HostKeyError> {
        Ok(())
    }

    /// Judges a key. That the server holds its private half is proved after this, by TLS.
    ///
    /// # Errors
    /// Why the server is not to be talked to.
    fn check(&self, endpoint: &Endpoint, key: &PublicKey) -> Result<(), HostKeyError>;

    /// Whether a key that [`check`](Self::check) does not know is believed. By default none is.
    fn believes<'a>(&'a self, _: &'a UnknownHost) -> Asking<'a, bool> {
        Box::pin(ready(false))
    }

    /// Makes a key known that is [believed](Self::believes) and has been proved.
    ///
    /// # Errors
    /// [`HostKeyError::Remember`].
    fn remember(&self, _: &UnknownHost) -> Result<(), HostKeyError> {
        Ok(())
    }
}

/// The verifier of one connection; it keeps the reason for a refusal, which TLS has no words for.
pub(super) struct Verifier {
    endpoint: Endpoint,
    check: Arc<dyn HostKeyCheck>,
    algorithms: WebPkiSupportedAlgorithms,
    refused: Mutex<Option<HostKeyError>>,
}

impl Verifier {
    pub(super) fn new(
        endpoint: Endpoint,
        check: Arc<dyn HostKeyCheck>,
        provider: &CryptoProvider,
    ) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        Self { endpoint, check, algorithms, refused: Mutex::new(None) }
    }

    /// Why the key was refused, if it was.
    pub(super) fn refused(&self) -> Option<HostKeyError> {
        lock(&self.refused).take()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({})", self.endpoint)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let key = PublicKey::from_spki(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        self.check.check(&self.endpoint, &key).map_err(|reason| {
            *lock(&self.refused) = Some(reason);
            CertificateError::ApplicationVerificationFailure
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let spki = SubjectPublicKeyInfoDer::from(cert.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
