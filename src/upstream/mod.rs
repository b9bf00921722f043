//! Endpoints of a version of the site: which one serves, and the connections kept to it.
//!
//! Connections belong to one worker. What workers share of an endpoint is its [`EndpointHealth`]: two
//! numbers that are read often and written seldom.

pub mod balancer;
mod connect;
mod connection;
mod endpoint;
mod health;
pub mod health_check;
mod health_state;
mod http2;
mod pool;
mod resolver;
mod stream;

pub use connection::{PooledConnection, Protocols};
pub use endpoint::Endpoint;
pub use health_state::{Condition, EndpointHealth, EndpointHistory, HealthRegistry};
pub use pool::{AcquireError, ConnectionRequest, Upstreams};
pub use stream::Stream;
