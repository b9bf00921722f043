//! What logs and spans read of a request. PURE.

use http::{Method, Version};
use std::net::IpAddr;

/// The longest text of a client's that is logged, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;

/// A request, as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct LoggedRequest<'a, F> {
    /// The client's address.
    pub client: IpAddr,
    /// Whether the client uses TLS.
    pub secure: bool,
    /// The method.
    pub method: &'a Method,
    /// The authority of the target, where it has one.
    pub authority: Option<&'a str>,
    /// The path of the target.
    pub path: &'a str,
    /// The same with the query.
    pub target: &'a str,
    /// The client's HTTP.
    pub version: Version,
    /// The fields of the head, as they came.
    pub fields: F,
}

/// A text of the client's, cut at `TEXT_BYTES_MAX`.
pub fn bounded(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    String::from_utf8_lossy(bytes).into_owned()
}
