//! Endpoints of a version of the site: which one serves, and the connections kept to it.
//!
//! Everything here belongs to one worker: nothing is shared, nothing locks.

pub mod balance;
mod endpoint;
mod pool;
mod sender;
mod stream;
mod tap;

pub use endpoint::Lease;
pub use pool::{LendError, Upstreams};
pub use tap::{Listener, Turned, Upgraded};
