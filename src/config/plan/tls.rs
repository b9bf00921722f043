//! TLS to clients.

use std::net::SocketAddr;
use std::sync::Arc;

/// TLS to clients.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The address.
    pub listen: SocketAddr,
    /// Certificates, versions and protocols.
    pub config: Arc<rustls::ServerConfig>,
    /// The certificates, in the order of the file.
    pub certificates: Box<[TlsCertificate]>,
}

/// A certificate of this process.
#[derive(Clone, Debug)]
pub struct TlsCertificate {
    /// Its PEM file, as the routes file names it.
    pub file: Box<str>,
    /// When it expires, in Unix seconds; `None` if that cannot be read.
    pub expires_s: Option<i64>,
}
