//! `tls:` — certificates shown to clients, and what upstreams over TLS must show.

use super::check::address;
use super::node::Node;
use super::plan::{ServerTls, UpstreamTls};
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::PathBuf;
use std::sync::Arc;

const CERTIFICATE: &str = "a PEM file with the certificate and those that lead to its root";
const KEY: &str = "a PEM file with the certificate's private key";

/// Files whose change is a change of the configuration.
pub type Watched = Vec<PathBuf>;

/// What clients are shown.
pub fn server(root: &Node<'_>, watched: &mut Watched) -> Option<ServerTls> {
    let node = root.get("tls")?;
    node.keys(&[
        ("listen", "where TLS is listened to, such as 0.0.0.0:8443"),
        (
            "certificates",
            "{ cert: FILE, key: FILE }, or a list of them",
        ),
    ]);
    let Some(listen) = node.get("listen") else {
        node.missing("listen", "where TLS is listened to, such as 0.0.0.0:8443");
        return None;
    };
    let Some(certificates) = node.get("certificates") else {
        node.missing("certificates", "{ cert: site.pem, key: site.key }");
        return None;
    };
    let listen = address(&listen);
    let read = |node: &Node<'_>| {
        node.keys(&[("cert", CERTIFICATE), ("key", KEY)]);
        certified(node, watched)
    };
    let keys: Vec<_> = certificates.items().iter().map(read).collect();
    if keys.is_empty() {
        certificates.problem(
            "no certificate",
            "at least one: { cert: site.pem, key: site.key }",
        );
    }
    let keys: Option<Vec<_>> = keys.into_iter().collect();
    let builder = ServerConfig::builder_with_provider(provider());
    // The provider is made for these versions.
    let builder = builder.with_safe_default_protocol_versions().ok()?;
    let mut config = builder
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Certificates(keys?)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if let Ok(ticketer) = rustls::crypto::ring::Ticketer::new() {
        config.ticketer = ticketer;
    }
    Some(ServerTls {
        listen: listen?,
        config: Arc::new(config),
    })
}

/// What an upstream over TLS is asked for: a certificate of the system's roots or of an own one,
/// for its name in the file or another; and what it is shown, if it asks.
pub fn upstream(node: Option<&Node<'_>>, watched: &mut Watched) -> Option<UpstreamTls> {
    let mut roots = RootCertStore::empty();
    let mut name = None;
    let mut identity = Some(None);
    let ca = node.and_then(|node| node.get("ca"));
    if let Some(node) = node {
        node.keys(&[
            (
                "ca",
                "a PEM file with the roots to trust instead of the system's",
            ),
            ("cert", "a PEM file with the certificate to show"),
            ("key", KEY),
            (
                "name",
                "the name that its certificate must be for, if not the endpoint's",
            ),
        ]);
        name = node.get("name").and_then(|node| {
            node.read("a host name", |text| {
                ServerName::try_from(text.to_owned()).ok()
            })
        });
        if node.get("cert").is_some() || node.get("key").is_some() {
            // What is wrong with the roots is said, too.
            identity = certified(node, watched).map(Some);
        }
    }
    match ca {
        Some(ca) => {
            for certificate in certificates(&ca, watched)? {
                if roots.add(certificate).is_err() {
                    ca.problem("a certificate that cannot be a root", CERTIFICATE);
                    return None;
                }
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            // A root that cannot be read vouches for nobody; others still do.
            roots.add_parsable_certificates(found.certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().ok()?;
    let verifier: Arc<dyn ServerCertVerifier> =
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .ok()?;
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity? {
        Some(key) => {
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let http1 = Arc::new(config.clone());
    config.alpn_protocols.insert(0, b"h2".to_vec());
    Some(UpstreamTls {
        any: Arc::new(config),
        http1,
        name,
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificate and key that these two keys name.
fn certified(node: &Node<'_>, watched: &mut Watched) -> Option<Arc<CertifiedKey>> {
    let (Some(cert), Some(key)) = (node.get("cert"), node.get("key")) else {
        node.problem(
            "`cert` or `key` is missing",
            "both: { cert: site.pem, key: site.key }",
        );
        return None;
    };
    let chain = certificates(&cert, watched);
    let bytes = contents(&key, KEY, watched)?;
    let Ok(private) = PrivateKeyDer::from_pem_slice(&bytes) else {
        key.problem("no private key in this file", KEY);
        return None;
    };
    match CertifiedKey::from_der(chain?, private, &provider()) {
        Ok(certified) => Some(Arc::new(certified)),
        Err(error) => {
            key.problem(
                format!("key and certificate do not go together: {error}"),
                KEY,
            );
            None
        }
    }
}

fn certificates(node: &Node<'_>, watched: &mut Watched) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = contents(node, CERTIFICATE, watched)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Some(chain),
        _ => {
            node.problem("no certificate in this file", CERTIFICATE);
            None
        }
    }
}

fn contents(node: &Node<'_>, allowed: &str, watched: &mut Watched) -> Option<Vec<u8>> {
    let path = node.file(node.text(allowed)?);
    watched.push(path.clone());
    match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            node.problem(
                format!("{} cannot be read: {error}", path.display()),
                allowed,
            );
            None
        }
    }
}

/// Shows the first certificate that is for the name asked for, or else the first.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
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
        let found = self.0.iter().find(is_for).or(self.0.first());
        found.cloned()
    }
}
