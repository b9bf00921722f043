//! What tests share: origins, the program, a Redis, a client.

pub mod client;
pub mod clock;
pub mod origin;
pub mod proxy;
pub mod raw;
pub mod redis;

use std::time::{Duration, Instant};

/// Asks until the answer is there; panics with what was last seen when it takes too long.
#[track_caller]
pub fn until<T, S: std::fmt::Debug>(what: &str, ask: impl FnMut() -> Result<T, S>) -> T {
    until_within(Duration::from_secs(30), what, ask)
}

/// Like [`until`], with another time.
#[track_caller]
pub fn until_within<T, S: std::fmt::Debug>(
    time: Duration,
    what: &str,
    mut ask: impl FnMut() -> Result<T, S>,
) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(found) => return found,
            Err(seen) if begun.elapsed() > time => {
                panic!("{what} did not come; last seen: {seen:#?}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
