//! Shared by tests: origins, the program, Redis, PostgreSQL, and a client.

pub mod browser;
pub mod client;
pub mod clock;
pub mod origin;
pub mod pebble;
pub mod postgres;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod site;
pub mod tools;

use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

/// A test that has waited for so long hangs, and fails. Other programs may use both cores meanwhile:
/// CI builds beside the tests.
pub const HANG: Duration = Duration::from_secs(240);

/// An address that refuses connections until this process ends: nobody listens there, and no other test
/// gets its port.
pub fn refusing_address() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}

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
