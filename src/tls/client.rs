//! The configuration of TLS clients.

use super::certificates::provider;
use super::trust::Trust;
use rustls::ClientConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::sync::Arc;

/// Makes a client that accepts only servers that `trust` verifies, and presents `identity` if the
/// server asks for a client certificate.
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
