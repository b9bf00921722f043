//! The limit of open files, which includes connections.

use crate::admin::http::connections::{CONNECTIONS_LEAST, CONNECTIONS_MAX};
use rustix::process::{Resource, getrlimit, setrlimit};

/// The files that the process needs besides connections: store and log; for each worker a listener, its
/// journal and its event loop. (Measured: 20, and 10 for each worker.)
const RESERVED: u64 = 32;
const RESERVED_OF_WORKER: u64 = 12;
/// The admin API gets one part in this many of the rest, if the rest is too small for all its
/// connections.
const ADMIN_SHARE: u64 = 8;

/// The most connections at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Clients of the site. Each may need a connection to an upstream, too.
    pub clients: usize,
    /// Clients of the admin API and of the health listener.
    pub admin: usize,
}

/// Raises the limit of open files to its maximum, and warns if it is too low for this many client
/// connections.
pub fn raise(connections: usize, workers: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!("the limit of open files cannot be raised: {error}");
        }
    }
    let room = room(workers).clients;
    if room < connections {
        tracing::warn!(
            "the open-file limit allows {room} client connections, but limits.connections is {connections}; raise `ulimit -n` or lower limits.connections"
        );
    }
}

/// Returns how many connections the limit of open files allows.
pub fn room(workers: usize) -> Room {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(Room::of(u64::MAX, workers), |limit| {
        Room::of(limit, workers)
    })
}

impl Room {
    fn of(limit: u64, workers: usize) -> Room {
        let reserved = RESERVED + RESERVED_OF_WORKER * workers as u64;
        let left = limit.saturating_sub(reserved);
        let admin = (left / ADMIN_SHARE).clamp(CONNECTIONS_LEAST as u64, CONNECTIONS_MAX as u64);
        let clients = (left.saturating_sub(admin) / 2).max(1);
        Room {
            clients: usize::try_from(clients).unwrap_or(usize::MAX),
            admin: usize::try_from(admin).unwrap_or(usize::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_all_listeners_fit_the_limit_of_open_files() {
        for workers in [1, 4, 64] {
            let reserved = RESERVED + RESERVED_OF_WORKER * workers as u64;
            for limit in (reserved + 20..20_000).step_by(7) {
                let Room { clients, admin } = Room::of(limit, workers);
                let used = reserved + 2 * clients as u64 + admin as u64;
                assert!(used <= limit, "{used} of {limit}");
            }
        }
        assert_eq!(Room::of(1 << 20, 1).admin, CONNECTIONS_MAX);
        assert_eq!(Room::of(0, 1).clients, 1);
    }
}
