//! How long Redis may take.

use std::time::Duration;

/// How long Redis may take to answer before the call counts as failed (and is made again).
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection may take to be made.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(2);
