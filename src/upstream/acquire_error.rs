//! Why a request got no connection to an upstream.

use crate::config::plan::EndpointAddress;
use std::io;
use std::sync::Arc;

/// Why no endpoint of an upstream could be connected to. What the last one tried said.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// Its name has no address.
    #[error("{endpoint} does not resolve")]
    Unresolved {
        /// Which.
        endpoint: Arc<EndpointAddress>,
        /// What the resolver said.
        source: io::Error,
    },
    /// It refused, or is out of reach.
    #[error("{endpoint} does not accept connections")]
    Refused {
        /// Which.
        endpoint: Arc<EndpointAddress>,
        /// What the system said.
        source: io::Error,
    },
    /// It speaks no TLS, or shows no certificate that is trusted.
    #[error("{endpoint} cannot be trusted")]
    Distrusted {
        /// Which.
        endpoint: Arc<EndpointAddress>,
        /// What was wrong.
        source: io::Error,
    },
    /// It did not answer in time.
    #[error("{endpoint} did not accept a connection in time")]
    TimedOut {
        /// Which.
        endpoint: Arc<EndpointAddress>,
    },
    /// It has as many connections as it may have, and none came free in time.
    #[error("{endpoint} has no connection free")]
    Busy {
        /// Which.
        endpoint: Arc<EndpointAddress>,
    },
    /// None of its endpoints is well, as their checks say.
    #[error("no endpoint of {upstream} is well")]
    Down {
        /// Which upstream.
        upstream: Box<str>,
    },
}

impl AcquireError {
    /// The endpoint that was tried; `None` where none was.
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
