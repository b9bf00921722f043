//! What ACME has brought: the certificate, and the answers to challenges of the authority. One task
//! writes it; TLS handshakes and requests for challenges read it.

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// The protocol of the challenge tls-alpn-01 (RFC 8737, 6.2).
pub const CHALLENGE_PROTOCOL: &[u8] = b"acme-tls/1";

/// A certificate that ACME has brought, and the answers to challenges.
#[derive(Debug, Default)]
pub struct Obtained {
    now: RwLock<Arc<ObtainedNow>>,
}

/// The state at one moment.
#[derive(Clone, Debug, Default)]
pub struct ObtainedNow {
    /// The certificate, once there is one.
    pub certificate: Option<Arc<CertifiedKey>>,
    /// http-01: token → key authorization.
    pub answers: BTreeMap<String, String>,
    /// tls-alpn-01: name → certificate that proves the key authorization.
    pub proofs: BTreeMap<String, Arc<CertifiedKey>>,
}

impl Obtained {
    /// Returns the state of now.
    pub fn now(&self) -> Arc<ObtainedNow> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the state.
    pub fn replace(&self, next: Arc<ObtainedNow>) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// Returns the certificate, once there is one.
    pub fn certificate(&self) -> Option<Arc<CertifiedKey>> {
        self.now().certificate.clone()
    }
}

/// Whether a client is an authority that checks a challenge of the kind tls-alpn-01.
pub fn is_challenge(hello: &ClientHello<'_>) -> bool {
    let mut offered = hello.alpn().into_iter().flatten();
    offered.next() == Some(CHALLENGE_PROTOCOL) && offered.next().is_none()
}

/// Presents the proofs of challenges, and nothing else.
#[derive(Debug)]
pub struct ChallengeProofs(pub Arc<Obtained>);

impl ResolvesServerCert for ChallengeProofs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        self.0.now().proofs.get(&name).cloned()
    }
}
