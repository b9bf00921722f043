//! A server that the program sends to, beside upstreams.

use super::upstream::EndpointAddress;
use http::HeaderValue;
use http::uri::PathAndQuery;
use std::fmt;

/// Where requests to a server go. It shows neither its path, which may hold a secret, nor its credentials.
#[derive(Clone)]
pub struct HttpTarget {
    /// Where it listens.
    pub endpoint: EndpointAddress,
    /// The path and the query of its requests. It may hold a secret.
    pub path: PathAndQuery,
    /// The `Host` of its requests.
    pub host: HeaderValue,
    /// The user and the password in its address, as the value of `Authorization`.
    pub authorization: Option<HeaderValue>,
}

impl fmt::Display for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.endpoint.scheme(), self.endpoint)
    }
}

impl fmt::Debug for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpTarget({self})")
    }
}
