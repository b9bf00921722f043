//! Why a request got no connection to an upstream.

use crate::config::plan::EndpointAddress;
use std::io;
use std::sync::Arc;

/// The error of the last endpoint that was tried.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// Its name has no address.
    #[error("{endpoint} does not resolve")]
    Unresolved {
        /// The endpoint.
        endpoint: Arc<EndpointAddress>,
        /// The resolver's error.
        source: io::Error,
    },
    /// It refused the connection, or cannot be reached.
    #[error("{endpoint} does not accept connections")]
    Refused {
        /// The endpoint.
        endpoint: Arc<EndpointAddress>,
        /// The system's error.
        source: io::Error,
    },
    /// TLS failed, or its certificate is not trusted.
    #[error("{endpoint} cannot be trusted")]
    Distrusted {
        /// The endpoint.
        endpoint: Arc<EndpointAddress>,
        /// The TLS error.
        source: io::Error,
    },
    /// It did not accept the connection in time.
    #[error("{endpoint} did not accept a connection in time")]
    TimedOut {
        /// The endpoint.
        endpoint: Arc<EndpointAddress>,
    },
    /// It has its maximum of connections, and none was released in time.
    #[error("{endpoint} has no free connection")]
    Busy {
        /// The endpoint.
        endpoint: Arc<EndpointAddress>,
    },
    /// All endpoints are unhealthy by their health checks.
    #[error("no endpoint of {upstream} is healthy")]
    Down {
        /// The upstream.
        upstream: Box<str>,
    },
}

impl AcquireError {
    /// Returns the endpoint that was tried, if any.
    pub fn endpoint(&self) -> Option<&EndpointAddress> {
        match self {
            AcquireError::Unresolved { endpoint, .. }
            | AcquireError::Refused { endpoint, .. }
            | AcquireError::Distrusted { endpoint, .. }
            | AcquireError::TimedOut { endpoint }
            | AcquireError::Busy { endpoint } => Some(endpoint),
            AcquireError::Down { .. } => None,
        }
    }
}
