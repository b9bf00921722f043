//! Certificates and keys in files, and `tls` of servers that this process is a client of.

use super::plan::{TlsCertificate, UpstreamTls};
use super::reader::Node;
use crate::regular_file;
use crate::tls::{self, NoIdentity, Trust};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use std::path::PathBuf;
use std::sync::Arc;

/// What `cert` holds.
pub(super) const CERTIFICATE: &str = "a PEM file with the certificate and its chain";
/// What `key` holds.
pub(super) const KEY: &str = "a PEM file with the certificate's private key";

/// Files whose change is a change of the plan.
pub(super) type Watched = Vec<PathBuf>;

/// Reads TLS to a server: the certificates to trust, the name in its certificate, and the client
/// certificate. `owner` is the server, which may have no `tls` keys.
pub(super) fn upstream(owner: &Node<'_>, watched: &mut Watched) -> Option<Arc<UpstreamTls>> {
    let node = owner.get("tls");
    let node = node.as_ref();
    let mut name = None;
    let mut identity = Some(None);
    if let Some(node) = node {
        node.keys(&[
            (
                "ca",
                "a PEM file with the certificates to trust instead of the system's roots: of authorities, or the server's own",
            ),
            ("cert", "a PEM file with the client certificate"),
            ("key", KEY),
            (
                "name",
                "the name in its certificate; the endpoint's host unless given",
            ),
        ]);
        name = node.get("name").and_then(|node| {
            node.read("a host name", |text| {
                ServerName::try_from(text.to_owned()).ok()
            })
        });
        if node.get("cert").is_some() || node.get("key").is_some() {
            // Errors of the roots are reported, too.
            identity = certified(node, watched).map(Some);
        }
    }
    let ca = node.and_then(|node| node.get("ca"));
    let key = format!("{}.tls.ca", owner.path.join("."));
    let trust = trust(owner, ca.as_ref(), &key, watched);
    let (identity, certificate) = identity?.unzip();
    let mut config = match tls::client(trust?, identity) {
        Ok(config) => config,
        Err(error) => {
            let hint = format!("other certificates at `{key}`");
            owner.problem(format!("TLS is not possible: {error}"), hint);
            return None;
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let http1 = Arc::new(config.clone());
    config.alpn_protocols.insert(0, b"h2".to_vec());
    Some(Arc::new(UpstreamTls {
        any: Arc::new(config),
        http1,
        name,
        certificate,
    }))
}

/// Reads the certificates to trust: those of the file at `ca`, or the system's roots. If there are
/// none, the error is reported at `owner`, which may name them at this `key`.
pub(super) fn trust(
    owner: &Node<'_>,
    ca: Option<&Node<'_>>,
    key: &str,
    watched: &mut Watched,
) -> Option<Trust> {
    let (place, trust) = match ca {
        Some(ca) => (ca, Trust::pem(&contents(ca, CERTIFICATE, watched)?)),
        None => (owner, Trust::system()),
    };
    trust
        .map_err(|none| place.problem(none.to_string(), none.fix(key)))
        .ok()
}

/// Reads the certificate and key that `cert` and `key` name.
pub(super) fn certified(
    node: &Node<'_>,
    watched: &mut Watched,
) -> Option<(Arc<CertifiedKey>, TlsCertificate)> {
    let (Some(cert), Some(key)) = (node.get("cert"), node.get("key")) else {
        node.problem(
            "`cert` or `key` is missing",
            "both: { cert: site.pem, key: site.key }",
        );
        return None;
    };
    let pair = pair(&cert, &key, watched)?;
    let certificate = TlsCertificate {
        file: cert.text(CERTIFICATE)?.into(),
        expires_s: tls::expires_s(&pair),
    };
    Some((pair, certificate))
}

/// Reads the certificate and key in these files.
pub(super) fn pair(
    cert: &Node<'_>,
    key: &Node<'_>,
    watched: &mut Watched,
) -> Option<Arc<CertifiedKey>> {
    let chain = contents(cert, CERTIFICATE, watched);
    let private = contents(key, KEY, watched);
    match tls::identity(&chain?, &private?) {
        Ok(pair) => Some(pair),
        Err(none @ NoIdentity::Certificate) => {
            cert.problem(none.to_string(), CERTIFICATE);
            None
        }
        Err(none) => {
            key.problem(none.to_string(), KEY);
            None
        }
    }
}

/// Reads the file that this value names.
pub(super) fn contents(node: &Node<'_>, allowed: &str, watched: &mut Watched) -> Option<Vec<u8>> {
    let path = node.file(node.text(allowed)?);
    watched.push(path.clone());
    match regular_file::read(&path) {
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
