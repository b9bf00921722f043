//! Upstreams and their endpoints: load balancing, health, and connection pools.
//!
//! Connections belong to one worker. Workers share only the [`EndpointHealth`] of an endpoint: two
//! numbers that are read often and written rarely.

mod acquire_error;
pub mod balancer;
mod connect;
mod connection;
mod dial;
#[cfg(feature = "dns")]
mod dns;
mod endpoint;
mod health;
pub mod health_check;
mod health_state;
mod http2;
mod idle_connection;
mod pool;
mod post_client;
mod resolver;
mod stream;

pub use acquire_error::AcquireError;
pub use connection::PooledConnection;
pub use dial::RawConnection;
#[cfg(feature = "dns")]
pub use dns::{DnsResolver, NameAnswers};
pub use endpoint::Endpoint;
pub use health_state::{
    EndpointCondition, EndpointHealth, EndpointHistory, HealthRegistry, Report,
};
pub use idle_connection::Protocols;
pub use pool::{ConnectionRequest, Upstreams};
pub use post_client::{PostClient, PostError, PostResponse, retry_after};
pub use stream::Stream;
