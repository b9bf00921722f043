//! Which certificate a server presents.

use super::obtained::Obtained;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// Presents the first certificate for the requested name: those of files first, then the one that
/// ACME has brought. If none has the name, the first one of all.
#[derive(Debug)]
pub struct PresentedCertificates {
    /// Those of files, in their order.
    pub of_files: Vec<Arc<CertifiedKey>>,
    /// That of ACME.
    pub obtained: Option<Arc<Obtained>>,
}

impl ResolvesServerCert for PresentedCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello
            .server_name()
            .and_then(|name| ServerName::try_from(name).ok());
        let is_for = |key: &&Arc<CertifiedKey>| {
            let certificate = key.end_entity_cert().ok();
            let certificate = certificate.map(webpki::EndEntityCert::try_from);
            name.as_ref().is_some_and(|name| {
                matches!(&certificate, Some(Ok(it)) if it.verify_is_valid_for_subject_name(name).is_ok())
            })
        };
        let obtained = self.obtained.as_ref().and_then(|it| it.certificate());
        let mut all = self.of_files.iter().chain(&obtained);
        let first = all.clone().next();
        all.find(is_for).or(first).cloned()
    }
}
