//! Timeouts of Redis.

use std::time::Duration;

/// The longest time for a reply. A later reply counts as a failure, and the call is repeated.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The longest time for a new connection.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(2);
