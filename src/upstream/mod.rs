//! Endpoints of a version of the site: which one serves, and the connections kept to it.
//!
//! Connections belong to one worker. What workers share of an endpoint is its [`Standing`]: two
//! numbers that are read often and written seldom.

pub mod balancer;
mod connect;
mod endpoint;
mod health;
mod http2;
mod connection;
mod pool;
pub mod health_check;
mod resolver;
mod health_state;
mod stream;

pub use endpoint::Endpoint;
pub use connection::{Bare, Need};
pub use pool::{LendError, Upstreams, Wish};
pub use health_state::{Condition, Standing, Standings};
pub use stream::Stream;
