//! TLS as a client: which certificates are accepted, and which one is shown. All TLS clients of the
//! process (upstreams, health checks, Redis, the OTLP collector, the command line) are made here,
//! so that none can skip the check of the server's certificate.

mod certificate;
mod certificates;
mod client;
mod trust;
mod verifier;

pub use certificates::{NoIdentity, certificates, expires_s, identity, provider};
pub use client::client;
pub use trust::{NoTrust, Trust};
