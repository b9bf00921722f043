//! The admin API, and who may use it.

use crate::experiment::key_ring::KeyRing;
use std::fmt;
use std::net::SocketAddr;

/// The cookie that carries a session of the admin API. Browsers send it to every port of its host,
/// so the proxy removes it from what upstreams get.
pub const SESSION_COOKIE: &str = "watershed_session";

/// The admin API.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Its own listener; loopback unless told otherwise.
    pub listen: SocketAddr,
    /// Where health and metrics are served to anyone, without a token.
    pub health: Option<SocketAddr>,
    /// The tokens. None are required where there are none; beyond loopback there is always one.
    pub tokens: Vec<Token>,
    /// Signs the sessions of browsers.
    pub session_keys: KeyRing,
}

/// Who may come in with what.
#[derive(Clone)]
pub struct Token {
    /// As the journal of decisions names who carries it.
    pub name: Box<str>,
    /// What it is good for.
    pub role: TokenRole,
    /// SHA-256 of the token; the token itself is not kept.
    pub digest: [u8; 32],
    /// Whether it stands in the file and is so short that it may be found by trying.
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
    /// See everything.
    Read,
    /// Change things as well.
    Operate,
}

impl TokenRole {
    /// As the file names it.
    pub fn name(self) -> &'static str {
        match self {
            TokenRole::Read => "read",
            TokenRole::Operate => "operate",
        }
    }
}
