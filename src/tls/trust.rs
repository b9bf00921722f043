//! Which certificates are accepted: those of the machine's roots, or those of a file.

use super::certificate::CertificateFacts;
use super::certificates::{certificates, provider};
use super::verifier::{Named, Verifier};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{OtherError, RootCertStore};
use std::fmt;
use std::sync::Arc;

/// Environment variables that replace the machine's roots, as for OpenSSL.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The certificates that servers are verified with. It always holds at least one.
#[derive(Debug)]
pub struct Trust {
    /// They verify the certificates that they signed.
    roots: RootCertStore,
    /// Each is accepted when a server presents exactly it.
    named: Vec<Named>,
}

/// Why no server can be verified.
#[derive(Debug, PartialEq, Eq)]
pub enum NoTrust {
    /// The machine has no roots. Holds the places that were searched, and what was found there.
    NoRoots(Vec<String>),
    /// A file holds no certificate, or a damaged one.
    NoCertificate,
    /// A file holds a certificate that cannot be used.
    Unusable(String),
    /// A file holds certificates, but none of an authority.
    NoAuthority,
}

impl NoTrust {
    /// Returns the fix. `ca` is the configuration key that names certificates.
    pub fn fix(&self, ca: &str) -> String {
        match self {
            NoTrust::NoRoots(_) => format!(
                "install the `ca-certificates` package, or let SSL_CERT_FILE name a PEM file with roots{}",
                match ca {
                    "" => String::new(),
                    ca => format!(", or name a PEM file with the certificates to trust at `{ca}`"),
                }
            ),
            _ => "a PEM file with the certificates to trust".to_owned(),
        }
    }
}

impl std::error::Error for NoTrust {}

impl fmt::Display for NoTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoTrust::NoRoots(found) => write!(
                f,
                "there are no CA certificates to check the server with ({})",
                found.join("; ")
            ),
            NoTrust::NoCertificate => f.write_str("no certificate in this file"),
            NoTrust::Unusable(why) => write!(f, "a certificate that cannot be used: {why}"),
            NoTrust::NoAuthority => {
                f.write_str("no certificate in this file is that of an authority (CA: true)")
            }
        }
    }
}

impl Trust {
    /// Loads the roots of this machine, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
    pub fn system() -> Result<Trust, NoTrust> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // A root that cannot be read is left out; the others still work.
        let (_, ignored) = roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let mut looked: Vec<String> = VARIABLES
                .iter()
                .filter_map(|name| Some(format!("{name} is {:?}", std::env::var_os(name)?)))
                .collect();
            looked.extend(found.errors.iter().map(ToString::to_string));
            if ignored > 0 {
                looked.push(format!("{ignored} entries are not certificates"));
            }
            if looked.is_empty() {
                looked.push("this machine has none".to_owned());
            }
            return Err(NoTrust::NoRoots(looked));
        }
        for error in found.errors {
            tracing::warn!("some CA certificates of this machine cannot be read: {error}");
        }
        Ok(Trust {
            roots,
            named: Vec::new(),
        })
    }

    /// Reads the certificates of a PEM file. Each is accepted when a server presents exactly it. A
    /// certificate of an authority also verifies the certificates that it signed.
    pub fn pem(pem: &[u8]) -> Result<Trust, NoTrust> {
        let mut trust = Trust {
            roots: RootCertStore::empty(),
            named: Vec::new(),
        };
        for certificate in certificates(pem).ok_or(NoTrust::NoCertificate)? {
            let unusable = |error: &dyn fmt::Display| NoTrust::Unusable(error.to_string());
            let facts = CertificateFacts::read(&certificate).map_err(|error| unusable(&error))?;
            let named = Named {
                not_before: facts.not_before_s,
                not_after: facts.not_after_s,
                certificate: certificate.clone(),
                has_any_name: false,
            };
            if facts.may_sign {
                let added = trust.roots.add(certificate);
                added.map_err(|error| unusable(&error))?;
            }
            trust.named.push(named);
        }
        Ok(trust)
    }

    /// Accepts exactly the first certificate of a PEM file, whatever the server is called. It is for
    /// those who have the server's own file.
    pub fn exactly(pem: &[u8]) -> Result<Trust, NoTrust> {
        let mut trust = Trust::pem(pem)?;
        trust.roots = RootCertStore::empty();
        trust.named.truncate(1);
        trust.named.iter_mut().for_each(|it| it.has_any_name = true);
        Ok(trust)
    }

    /// Makes the verifier of client certificates that these authorities signed. A client without one
    /// is served unless `is_required`; one with another certificate is not.
    pub fn client_verifier(
        self,
        is_required: bool,
    ) -> Result<Arc<dyn ClientCertVerifier>, NoTrust> {
        if self.roots.is_empty() {
            return Err(NoTrust::NoAuthority);
        }
        let roots = Arc::new(self.roots);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let builder = match is_required {
            true => builder,
            false => builder.allow_unauthenticated(),
        };
        let built = builder.build();
        built.map_err(|error| NoTrust::Unusable(error.to_string()))
    }

    /// Makes the verifier of server certificates.
    pub(super) fn verifier(self) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let chains = match self.roots.is_empty() {
            true => None,
            false => {
                let roots = Arc::new(self.roots);
                let built = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
                Some(built.map_err(|error| OtherError(Arc::new(error)))?)
            }
        };
        Ok(Arc::new(Verifier {
            named: self.named,
            chains,
            algorithms,
        }))
    }
}
