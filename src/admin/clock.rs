//! The system's clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// The current time in Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

/// The current time in Unix seconds.
pub(crate) fn now_s() -> u64 {
    now_ms() / 1000
}
