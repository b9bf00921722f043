//! The configuration of TLS servers: the site, and the admin API.

use super::certificates::provider;
use rustls::crypto::CryptoProvider;
use rustls::server::ResolvesServerCert;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use std::sync::Arc;

/// The oldest version of TLS that a server speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl MinVersion {
    /// Whether a cipher suite can be used.
    pub fn allows(self, suite: SupportedCipherSuite) -> bool {
        self == MinVersion::Tls12 || suite.tls13().is_some()
    }

    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        match self {
            MinVersion::Tls12 => &BOTH,
            MinVersion::Tls13 => &BOTH[..1],
        }
    }
}

/// What a TLS server is made of.
#[derive(Debug)]
pub struct ServerSettings {
    /// Chooses the certificate.
    pub certificates: Arc<dyn ResolvesServerCert>,
    /// The oldest version.
    pub min_version: MinVersion,
    /// The accepted cipher suites, the preferred one first; `None` for those of the library.
    pub ciphers: Option<Vec<SupportedCipherSuite>>,
    /// Verifies client certificates, if they are asked for.
    pub clients: Option<Arc<dyn ClientCertVerifier>>,
    /// The protocols to negotiate (ALPN), the preferred one first.
    pub protocols: Vec<Vec<u8>>,
}

/// Returns the cipher suites that this program can use, by their IANA names.
pub fn cipher_suites() -> Vec<(String, SupportedCipherSuite)> {
    let all = provider().cipher_suites.clone();
    let named = |suite: SupportedCipherSuite| {
        // The library tells suites of version 1.3 by a prefix of its own.
        let name = format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1);
        (name, suite)
    };
    all.into_iter().map(named).collect()
}

/// Makes the configuration of a server.
pub fn server(settings: ServerSettings) -> Result<ServerConfig, rustls::Error> {
    let mut chosen = CryptoProvider::clone(&provider());
    if let Some(ciphers) = settings.ciphers {
        chosen.cipher_suites = ciphers;
    }
    let builder = ServerConfig::builder_with_provider(Arc::new(chosen))
        .with_protocol_versions(settings.min_version.versions())?;
    let builder = match settings.clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(settings.certificates);
    config.alpn_protocols = settings.protocols;
    if let Ok(ticketer) = rustls::crypto::ring::Ticketer::new() {
        config.ticketer = ticketer;
    }
    Ok(config)
}

/// The first byte of every TLS connection: a handshake record (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// Whether the first bytes of a connection are those of HTTP without TLS: a method, such as `GET`.
pub fn is_plain_http(first: &[u8]) -> bool {
    let upper = first.iter().take_while(|byte| byte.is_ascii_uppercase());
    first.first() != Some(&HANDSHAKE) && upper.count() > 0
}
