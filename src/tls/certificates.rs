//! Certificates and keys in PEM files.

use super::certificate::CertificateFacts;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// Returns the cryptography that every TLS connection uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NoIdentity {
    /// The first file holds no certificate.
    #[error("no certificate in this file")]
    Certificate,
    /// The second file holds no private key.
    #[error("no private key in this file")]
    Key,
    /// Each can be read, but the key is not the certificate's.
    #[error("the key does not belong to the certificate: {0}")]
    Apart(#[source] rustls::Error),
}

/// Reads the certificates of a PEM file, in order. Returns `None` if there is none, or if one is
/// damaged.
pub fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.ok().filter(|all| !all.is_empty())
}

/// Reads a certificate with its chain, and its private key, from PEM files.
pub fn identity(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, NoIdentity> {
    let chain = certificates(chain).ok_or(NoIdentity::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| NoIdentity::Key)?;
    let pair = CertifiedKey::from_der(chain, key, &provider()).map_err(NoIdentity::Apart)?;
    Ok(Arc::new(pair))
}

/// Returns when a certificate expires, in Unix seconds, or `None` if it cannot be read.
pub fn expires_s(pair: &CertifiedKey) -> Option<i64> {
    let facts = CertificateFacts::read(pair.cert.first()?).ok()?;
    Some(facts.not_after_s)
}
