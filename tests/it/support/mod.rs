//! Shared by tests: origins, the program, Redis, and a client.

pub mod browser;
pub mod client;
pub mod clock;
pub mod origin;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod tools;

use std::time::{Duration, Instant};

/// A test that has waited for so long hangs, and fails. Other programs may use both cores meanwhile:
/// CI builds beside the tests.
pub const HANG: Duration = Duration::from_secs(240);

/// Repeats `ask` until it returns `Ok`. After [`HANG`], panics with its last error.
#[track_caller]
pub fn until<T, S: std::fmt::Debug>(what: &str, mut ask: impl FnMut() -> Result<T, S>) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(found) => return found,
            Err(seen) if begun.elapsed() > HANG => {
                panic!("{what} did not come; last seen: {seen:#?}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
