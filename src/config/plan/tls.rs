//! TLS to clients.

use super::Secret;
use crate::tls::{ClientCertificateHeader, Obtained};
use std::net::SocketAddr;
use std::sync::Arc;

/// TLS to clients.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The address.
    pub listen: SocketAddr,
    /// Certificates, versions, ciphers, client certificates and protocols.
    pub config: Arc<rustls::ServerConfig>,
    /// The certificates of files, in the order of the file.
    pub certificates: Box<[TlsCertificate]>,
    /// The headers that tell upstreams of client certificates; `None` if clients are asked for none.
    pub client_certificates: Option<Box<[ClientCertificateHeader]>>,
    /// How a certificate is obtained.
    pub acme: Option<Acme>,
}

/// A certificate of this process.
#[derive(Clone, Debug)]
pub struct TlsCertificate {
    /// Its PEM file, as the routes file names it.
    pub file: Box<str>,
    /// When it expires, in Unix seconds; `None` if that cannot be read.
    pub expires_s: Option<i64>,
}

/// A certificate of an authority that speaks ACME (RFC 8555).
#[derive(Clone, Debug)]
pub struct Acme {
    /// How it is obtained.
    pub settings: Arc<AcmeSettings>,
    /// What was obtained, and the answers to challenges.
    pub obtained: Arc<Obtained>,
    /// Answers challenges of the kind tls-alpn-01; `None` with another kind.
    pub proofs: Option<Arc<rustls::ServerConfig>>,
}

/// How a certificate is obtained.
#[derive(Debug)]
pub struct AcmeSettings {
    /// The URL of the authority's directory.
    pub directory: Box<str>,
    /// Whom the authority writes to.
    pub email: Option<Box<str>>,
    /// The names in the certificate, in lower case, sorted.
    pub names: Box<[Box<str>]>,
    /// How the authority checks the names.
    pub challenge: AcmeChallenge,
    /// TLS to the authority.
    pub client: Arc<rustls::ClientConfig>,
    /// The account at the authority that a new account belongs to: its ID, and its HMAC key.
    pub external_account: Option<(Box<str>, Secret)>,
}

/// How an authority checks that a name is this site's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// By a request over plain HTTP to port 80.
    Http01,
    /// By a TLS handshake with port 443.
    TlsAlpn01,
}
