//! Shared by tests: origins, the program, Redis, and a client.

pub mod client;
pub mod clock;
pub mod origin;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod tools;

use std::time::{Duration, Instant};

/// Repeats `ask` until it returns `Ok`. After 30 s, panics with its last error.
#[track_caller]
pub fn until<T, S: std::fmt::Debug>(what: &str, ask: impl FnMut() -> Result<T, S>) -> T {
    until_within(Duration::from_secs(30), what, ask)
}

/// Like [`until`], with another time limit.
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
