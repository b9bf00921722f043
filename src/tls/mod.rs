//! TLS as a client: whose certificates are accepted, and what is shown. Every client of the
//! program (upstreams, health checks, Redis, the collector, the command line) is made here, so
//! that none can be made without somebody to trust.

mod trust;
mod verifier;

pub use trust::{NoTrust, Trust};

use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The cryptography of every connection.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Why a certificate and its key cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum NoIdentity {
    /// The first file holds no certificate.
    #[error("no certificate in this file")]
    Certificate,
    /// The second file holds no private key.
    #[error("no private key in this file")]
    Key,
    /// Each is sound, but they are not a pair.
    #[error("key and certificate do not go together: {0}")]
    Apart(#[source] rustls::Error),
}

/// The certificates of a PEM file, in order; `None` without any, or with a damaged one.
pub fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.ok().filter(|all| !all.is_empty())
}

/// A certificate with those that lead to its root, and its key, from PEM files.
pub fn identity(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, NoIdentity> {
    let chain = certificates(chain).ok_or(NoIdentity::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| NoIdentity::Key)?;
    let pair = CertifiedKey::from_der(chain, key, &provider()).map_err(NoIdentity::Apart)?;
    Ok(Arc::new(pair))
}

/// When a certificate expires, in Unix seconds; `None` for one that cannot be read.
pub fn expires_s(pair: &CertifiedKey) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(pair.cert.first()?).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// A client that accepts only servers that `trust` vouches for, and shows `identity` if asked.
pub fn client(
    trust: Trust,
    identity: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(trust.verifier()?);
    Ok(match identity {
        Some(pair) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair))),
        None => builder.with_no_client_auth(),
    })
}
