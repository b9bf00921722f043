//! The admin API and its tokens.

use super::TlsCertificate;
use crate::experiment::kept_groups::GROUPS_COOKIE;
use crate::experiment::key_ring::KeyRing;
use crate::experiment::override_token::OVERRIDE_COOKIE;
use crate::experiment::served_pages::PAGES_COOKIE;
use http::HeaderValue;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// The cookie that carries a session of the admin API. Browsers send it to every port of its host,
/// so the proxy removes it from requests to upstreams.
pub const SESSION_COOKIE: &str = "watershed_session";
/// Cookies that are for watershed alone: an override token, a session of the admin API, the groups of a
/// user, the pages of a browser.
pub const PRIVATE_COOKIES: [&str; 4] =
    [OVERRIDE_COOKIE, SESSION_COOKIE, GROUPS_COOKIE, PAGES_COOKIE];

/// The admin API.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Its address; loopback by default.
    pub listen: SocketAddr,
    /// The address of health checks and metrics, which need no token there.
    pub health: Option<SocketAddr>,
    /// The tokens. Without tokens, none is required; an address beyond loopback has at least one.
    pub tokens: Vec<Token>,
    /// Signs the sessions of browsers.
    pub session_keys: KeyRing,
    /// Whose pages may evaluate flags.
    pub flag_origins: Origins,
    /// TLS of the admin API; health checks at an address of their own have none.
    pub tls: Option<AdminTls>,
}

/// TLS of the admin API.
#[derive(Clone, Debug)]
pub struct AdminTls {
    /// The certificate and the protocols.
    pub config: Arc<rustls::ServerConfig>,
    /// The certificate.
    pub certificate: TlsCertificate,
}

impl Admin {
    /// Returns the address of the results page at this address, which may be another one than that of
    /// the file.
    pub fn results_url(&self, address: impl fmt::Display) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}/admin/results")
    }
}

/// Origins of pages, such as `https://example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Every origin.
    All,
    /// These.
    Listed(Box<[HeaderValue]>),
}

/// A token of the admin API.
#[derive(Clone)]
pub struct Token {
    /// The name of its bearer in the audit log.
    pub name: Box<str>,
    /// What it permits.
    pub role: TokenRole,
    /// SHA-256 of the token; the token itself is not kept.
    pub digest: [u8; 32],
    /// Whether the file has the token itself, and it is so short that it can be found by trying.
    pub short: bool,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.name, self.role)
    }
}

/// What the bearer of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenRole {
    /// Evaluates flags, and reads nothing else.
    Flags,
    /// Reads everything.
    Read,
    /// Reads and changes everything.
    Operate,
}

impl TokenRole {
    /// Returns its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            TokenRole::Flags => "flags",
            TokenRole::Read => "read",
            TokenRole::Operate => "operate",
        }
    }
}
