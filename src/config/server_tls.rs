//! `tls:`: TLS to clients.

use super::acme;
use super::plan::{ServerTls, TlsCertificate};
use super::reader::Node;
use super::tls::{self, Watched};
use crate::tls::{
    ClientCertificateHeader, MinVersion, PresentedCertificates, ServerSettings, Trust,
};
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SupportedCipherSuite};
use std::sync::Arc;

const LISTEN: &str = "the address with TLS, such as 0.0.0.0:8443";
const CERTIFICATES: &str = "{ cert: FILE, key: FILE }, or a list of them";
const CLIENT_AUTHORITIES: &str = "a PEM file with the authorities that sign client certificates";

const HEADERS: &[(&str, ClientCertificateHeader)] = &[
    (
        "x-forwarded-client-cert",
        ClientCertificateHeader::ForwardedClientCert,
    ),
    ("client-cert", ClientCertificateHeader::ClientCert),
];

/// Certificates with their keys, and what is shown of them.
type Pairs = (Vec<Arc<CertifiedKey>>, Vec<TlsCertificate>);

/// What is asked of clients.
type Clients = (Arc<dyn ClientCertVerifier>, Box<[ClientCertificateHeader]>);

/// Reads TLS to clients.
pub(super) fn read(root: &Node<'_>, watched: &mut Watched) -> Option<ServerTls> {
    let node = root.get("tls")?;
    node.keys(&[
        ("listen", LISTEN),
        ("certificates", CERTIFICATES),
        (
            "acme",
            "{ names, email, agree_terms: true }: a certificate of Let's Encrypt or another authority that speaks ACME",
        ),
        ("min_version", "the oldest version of TLS: 1.2 or 1.3"),
        (
            "ciphers",
            "a list of cipher suites, the preferred one first; those of TLS 1.2 and 1.3 that are secure unless given",
        ),
        (
            "client_certificates",
            "{ ca: FILE, required, header }: what is asked of clients",
        ),
    ]);
    let listen = match node.get("listen") {
        Some(listen) => listen.listen_address(),
        None => {
            node.missing("listen", LISTEN);
            None
        }
    };
    let pairs = certificates(&node, watched);
    let acme_key = node.get("acme");
    let acme = acme_key.as_ref().map(|acme| acme::read(acme, watched));
    let min_version = node.get("min_version").and_then(|it| version(&it));
    let min_version = min_version.unwrap_or_default();
    let ciphers = node.get("ciphers");
    let ciphers = ciphers.map(|it| cipher_list(&it, min_version, pairs.as_ref()));
    let clients = node.get("client_certificates");
    let clients = clients.map(|it| client_certificates(&it, watched));
    // All of them are read first, so that all their problems are reported.
    let (listen, (keys, certificates)) = (listen?, pairs?);
    let (acme, ciphers, clients) = match (acme, ciphers, clients) {
        (Some(None), ..) | (_, Some(None), _) | (.., Some(None)) => return None,
        (acme, ciphers, clients) => (acme.flatten(), ciphers.flatten(), clients.flatten()),
    };
    let (verifier, headers) = clients.unzip();
    let settings = ServerSettings {
        certificates: Arc::new(PresentedCertificates {
            of_files: keys,
            obtained: acme.as_ref().map(|acme| Arc::clone(&acme.obtained)),
        }),
        min_version,
        ciphers,
        clients: verifier,
        protocols: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    let config = match crate::tls::server(settings) {
        Ok(config) => config,
        Err(error) => {
            node.problem(format!("TLS is not possible: {error}"), "other settings");
            return None;
        }
    };
    Some(ServerTls {
        listen,
        config: Arc::new(config),
        certificates: certificates.into(),
        client_certificates: headers,
        acme,
    })
}

fn version(node: &Node<'_>) -> Option<MinVersion> {
    node.read("1.2 or 1.3", |text| match text {
        "1.2" => Some(MinVersion::Tls12),
        "1.3" => Some(MinVersion::Tls13),
        _ => None,
    })
}

/// Reads the certificates of files. There is at least one, or ACME brings one.
fn certificates(node: &Node<'_>, watched: &mut Watched) -> Option<Pairs> {
    let Some(certificates) = node.get("certificates") else {
        if node.get("acme").is_none() {
            node.missing(
                "certificates",
                "{ cert: site.pem, key: site.key }; or `acme` in its place",
            );
            return None;
        }
        return Some(Pairs::default());
    };
    let read = |node: &Node<'_>| {
        node.keys(&[("cert", tls::CERTIFICATE), ("key", tls::KEY)]);
        tls::certified(node, watched)
    };
    let pairs: Vec<_> = certificates.items().iter().map(read).collect();
    if pairs.is_empty() && node.get("acme").is_none() {
        certificates.problem(
            "there is no certificate",
            "at least one: { cert: site.pem, key: site.key }",
        );
    }
    let pairs: Option<Vec<_>> = pairs.into_iter().collect();
    Some(pairs?.into_iter().unzip())
}

/// Reads cipher suites. With them, a handshake must be possible.
fn cipher_list(
    node: &Node<'_>,
    min_version: MinVersion,
    pairs: Option<&Pairs>,
) -> Option<Vec<SupportedCipherSuite>> {
    let known = crate::tls::cipher_suites();
    let known: Vec<(&str, SupportedCipherSuite)> = known
        .iter()
        .map(|(name, suite)| (&**name, *suite))
        .collect();
    let items = node.items();
    if items.is_empty() {
        node.problem(
            "there is no cipher suite",
            "at least one, or leave `ciphers` out",
        );
        return None;
    }
    let mut suites: Vec<SupportedCipherSuite> = Vec::new();
    for item in &items {
        let suite = item.word(&known)?;
        if suites.contains(&suite) {
            item.problem("this cipher suite stands here twice", "each one once");
            return None;
        }
        if !min_version.allows(suite) {
            item.problem(
                "this cipher suite is of TLS 1.2, and `min_version` is 1.3",
                "cipher suites of TLS 1.3, whose names begin with TLS_AES or TLS_CHACHA20",
            );
            return None;
        }
        suites.push(suite);
    }
    let fits = |key: &Arc<CertifiedKey>| {
        let is_rsa = key.key.algorithm() == SignatureAlgorithm::RSA;
        suites.iter().any(|suite| {
            let needs_rsa = format!("{:?}", suite.suite()).contains("_RSA_");
            suite.tls13().is_some() || needs_rsa == is_rsa
        })
    };
    let (keys, files) = pairs.map_or((&[][..], &[][..]), |(keys, files)| (keys, files));
    if let Some((_, unfit)) = keys.iter().zip(files).find(|(key, _)| !fits(key)) {
        node.problem(
            format!("none of them can be used with the key of {}", unfit.file),
            "add TLS_AES_128_GCM_SHA256; or, for TLS 1.2, suites with RSA for an RSA key, and with ECDSA for others",
        );
        return None;
    }
    Some(suites)
}

/// Reads what is asked of clients.
fn client_certificates(node: &Node<'_>, watched: &mut Watched) -> Option<Clients> {
    if !node.keys(&[
        ("ca", CLIENT_AUTHORITIES),
        (
            "required",
            "whether clients without a certificate are turned away: true unless given",
        ),
        (
            "header",
            "what tells upstreams of the certificate: x-forwarded-client-cert (Envoy's, unless given), client-cert (RFC 9440), or a list of them",
        ),
    ]) {
        return None;
    }
    let is_required = match node.get("required") {
        Some(required) => required.boolean(),
        None => Some(true),
    };
    let headers: Option<Vec<_>> = match node.get("header") {
        Some(header) => header.items().iter().map(|it| it.word(HEADERS)).collect(),
        None => Some(vec![ClientCertificateHeader::ForwardedClientCert]),
    };
    let Some(ca) = node.get("ca") else {
        node.missing("ca", CLIENT_AUTHORITIES);
        return None;
    };
    let pem = tls::contents(&ca, CLIENT_AUTHORITIES, watched)?;
    let trust = Trust::pem(&pem);
    match trust.and_then(|it| it.client_verifier(is_required.unwrap_or(true))) {
        Ok(verifier) => is_required.and(headers).map(|it| (verifier, it.into())),
        Err(none) => {
            ca.problem(none.to_string(), CLIENT_AUTHORITIES);
            None
        }
    }
}
