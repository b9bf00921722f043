//! Endpoints of a version of the site: which one serves, and the connections kept to it.
//!
//! Connections belong to one worker. What workers share of an endpoint is its [`Standing`]: two
//! numbers that are read often and written seldom.

pub mod balance;
mod dial;
mod endpoint;
mod health;
mod http2;
mod lent;
mod pool;
pub mod probe;
mod resolve;
mod standing;
mod stream;

pub use endpoint::Endpoint;
pub use lent::{Bare, Need};
pub use pool::{LendError, Upstreams, Wish};
pub use standing::{Condition, Standing, Standings};
pub use stream::Stream;
