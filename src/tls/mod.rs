//! TLS in both directions. As a client: which certificates are accepted, and which one is shown. All
//! TLS clients of the process (upstreams, health checks, Redis, PostgreSQL, the OTLP collector, ACME, the command
//! line) are made here, so that none can skip the check of the server's certificate. As a server: the
//! site and the admin API, their certificates, and what is asked of clients.

mod certificate;
mod certificates;
mod client;
mod client_certificate;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod files;
mod obtained;
mod presented;
mod server;
mod trust;
mod verifier;

pub use certificate::{CertificateFacts, identifier};
pub use certificates::{NoIdentity, certificates, expires_s, identity, provider};
pub use client::client;
pub use client_certificate::{CLIENT_CERTIFICATE_HEADERS, ClientCertificateHeader};
#[cfg(any(feature = "postgres", feature = "redis"))]
pub use files::{TlsFiles, TlsFilesError};
pub use obtained::{CHALLENGE_PROTOCOL, ChallengeProofs, Obtained, ObtainedNow, is_challenge};
pub use presented::PresentedCertificates;
pub use server::{MinVersion, ServerSettings, cipher_suites, is_plain_http, server};
pub use trust::{NoTrust, Trust};
