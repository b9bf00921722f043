//! Endpoints of a version of the site: which one serves, and the connections kept to it.
//!
//! Everything here belongs to one worker: nothing is shared, nothing locks.

pub mod balance;
mod pool;
mod tap;

pub use pool::{Lease, LendError, Upstreams};
pub use tap::{Listener, Turned, Upgraded};
