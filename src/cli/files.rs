//! How many files the process may have open, connections among them.

use rustix::process::{Resource, getrlimit, setrlimit};

/// What the process needs beside connections: the store and the log; for each worker a listener,
/// its journal and its loop. (Counted: 20, and 10 for each worker.)
const RESERVED: u64 = 32;
const RESERVED_OF_WORKER: u64 = 12;

/// Lets the process have as many open files as it may, and says so where that is too few for so
/// many connections of clients.
pub fn raise(connections: usize, workers: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!("the limit of open files cannot be raised: {error}");
        }
    }
    let room = room(workers);
    if room < connections {
        tracing::warn!(
            "so many files may be open (ulimit -n) that {room} clients can be served at once, and limits.connections is {connections}: raise the one, or lower the other"
        );
    }
}

/// How many clients may be connected at once: each may need a connection to an upstream, too.
pub fn room(workers: usize) -> usize {
    let reserved = RESERVED + RESERVED_OF_WORKER * workers as u64;
    let limit = getrlimit(Resource::Nofile).current;
    let room = limit.map_or(u64::MAX, |limit| {
        (limit.saturating_sub(reserved) / 2).max(1)
    });
    usize::try_from(room).unwrap_or(usize::MAX)
}
