//! Takes connections of the admin API: so many at once, so many of each address, and none that is
//! slower than it may be. What can reach the listener cannot shut others out, and cannot take the
//! descriptors that the site is served with.

use crate::admin::http::timeouts::Paced;
use crate::rate_limit::network;
use crate::tasks;
use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// How long `accept` pauses when no connection can be taken, such as for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// How many connections are served at once, and how.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionBounds {
    /// Over all addresses.
    pub connections: usize,
    /// Of one address: IPv4, or the /64 of IPv6.
    pub per_address: usize,
    /// How long a request's head may take, from the end of the request before it.
    pub head_within: Duration,
    /// Whether a connection may bring more than one request.
    pub keep_alive: bool,
}

/// The admin API.
pub const ADMIN: ConnectionBounds = ConnectionBounds {
    connections: 512,
    per_address: 128,
    head_within: Duration::from_secs(30),
    keep_alive: true,
};
/// What is answered beside the admin API while that is full: health, metrics, and 503.
pub const RESERVE: ConnectionBounds = ConnectionBounds {
    connections: 64,
    per_address: 16,
    head_within: Duration::from_secs(5),
    keep_alive: false,
};
/// The listener for health and metrics alone.
pub const HEALTH: ConnectionBounds = ConnectionBounds {
    connections: 256,
    per_address: 64,
    head_within: Duration::from_secs(30),
    keep_alive: true,
};

/// The most connections of the admin API and of the listener for health.
pub const CONNECTIONS_MAX: usize = ADMIN.connections + RESERVE.connections + HEALTH.connections;
/// The fewest that each way of serving them is left with.
const CONNECTIONS_MIN: usize = 4;
/// The fewest in all.
pub const CONNECTIONS_LEAST: usize = 3 * CONNECTIONS_MIN;

impl ConnectionBounds {
    /// The part of these bounds that is left where the admin API has `connections` in all, and may
    /// have [`CONNECTIONS_MAX`].
    pub fn within(self, connections: usize) -> ConnectionBounds {
        let part = |of: usize| (of * connections.min(CONNECTIONS_MAX) / CONNECTIONS_MAX).min(of);
        let all = part(self.connections).max(CONNECTIONS_MIN);
        ConnectionBounds {
            connections: all,
            // No address may take all.
            per_address: part(self.per_address).max((all / 2).min(self.per_address)),
            ..self
        }
    }
}

/// Set once a connection has brought a request whose caller may come in. Such a connection is not
/// closed for another one.
#[derive(Clone, Debug, Default)]
pub struct Admitted(Arc<AtomicBool>);

impl Admitted {
    /// The caller may come in.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Connections that are served in one way.
pub struct Gate {
    router: Router,
    bounds: ConnectionBounds,
    /// The oldest first.
    seats: Vec<Seat>,
}

/// A connection that is served.
struct Seat {
    network: u64,
    admitted: Admitted,
    task: AbortHandle,
}

impl Gate {
    /// Serves connections by this router.
    pub fn new(router: Router, bounds: ConnectionBounds) -> Gate {
        Gate {
            router,
            bounds,
            seats: Vec::new(),
        }
    }

    /// Serves a connection, if there is room. Where there is none, the oldest connection whose
    /// caller is not known is closed: one that has only just come is about to say who it is.
    fn take(&mut self, stream: TcpStream, peer: SocketAddr) -> Result<(), TcpStream> {
        let network = network(peer.ip());
        if !self.make_room(network) {
            return Err(stream);
        }
        let admitted = Admitted::default();
        let router = self.router.clone().layer(Extension(ConnectInfo(peer)));
        let router = router.layer(Extension(admitted.clone()));
        let task = tokio::spawn(tasks::named(
            "admin-request",
            converse(stream, peer, router, self.bounds),
        ))
        .abort_handle();
        self.seats.push(Seat {
            network,
            admitted,
            task,
        });
        Ok(())
    }

    /// Whether there is room for one more connection of this network.
    fn make_room(&mut self, network: u64) -> bool {
        self.seats.retain(|seat| !seat.task.is_finished());
        let of_network = |seat: &&Seat| seat.network == network;
        let crowded = self.seats.iter().filter(of_network).count() >= self.bounds.per_address;
        if !crowded && self.seats.len() < self.bounds.connections {
            return true;
        }
        let may_go = |seat: &Seat| {
            (!crowded || seat.network == network) && !seat.admitted.0.load(Ordering::Relaxed)
        };
        let Some(oldest) = self.seats.iter().position(may_go) else {
            return false;
        };
        self.seats.remove(oldest).task.abort();
        true
    }
}

/// Takes connections until its task is dropped. Where `usual` has no room, `reserve` serves them.
pub async fn serve(
    listener: TcpListener,
    mut usual: Gate,
    mut reserve: Option<Gate>,
) -> io::Result<()> {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if tasks::is_lost(&error) => return Err(error),
            Err(error) => {
                tracing::debug!("the admin API cannot accept a connection: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let refused = usual.take(stream, peer).err();
        if let (Some(stream), Some(reserve)) = (refused, &mut reserve) {
            // The reserve knows no callers, so it always has room.
            let _ = reserve.take(stream, peer);
        }
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, router: Router, bounds: ConnectionBounds) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_within)
        .keep_alive(bounds.keep_alive)
        .serve_connection(
            TokioIo::new(Paced::new(stream)),
            TowerToHyperService::new(router),
        );
    if let Err(error) = served.await {
        tracing::debug!(%peer, "a connection to the admin API ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[test]
    fn bounds_shrink_with_what_there_is() {
        for all in [ADMIN, RESERVE, HEALTH] {
            for connections in [0, 8, 100, CONNECTIONS_MAX / 2] {
                let some = all.within(connections);
                assert!(some.connections <= all.connections.max(CONNECTIONS_MIN));
                assert!(
                    (2..some.connections).contains(&some.per_address),
                    "{some:?}"
                );
            }
            let same = all.within(CONNECTIONS_MAX);
            assert_eq!(same.connections, all.connections);
            assert_eq!(same.per_address, all.per_address);
        }
        let sum = |connections| {
            let ways = [ADMIN, RESERVE, HEALTH].map(|it| it.within(connections).connections);
            ways.iter().sum::<usize>()
        };
        assert!(sum(100) <= 100 && sum(0) == CONNECTIONS_LEAST);
    }

    /// A gate of 6 connections, 3 of one address, and none taken yet.
    fn gate() -> Gate {
        let bounds = ConnectionBounds {
            connections: 6,
            per_address: 3,
            ..ADMIN
        };
        Gate::new(Router::new(), bounds)
    }

    fn run(test: impl FnOnce(&mut Gate)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async { test(&mut gate()) });
    }

    /// Whether a connection of this network is taken.
    fn take(gate: &mut Gate, network: u64) -> bool {
        let room = gate.make_room(network);
        if room {
            gate.seats.push(Seat {
                network,
                admitted: Admitted::default(),
                task: tokio::spawn(pending::<()>()).abort_handle(),
            });
        }
        room
    }

    fn networks(gate: &Gate) -> Vec<u64> {
        gate.seats.iter().map(|seat| seat.network).collect()
    }

    #[test]
    fn unknown_callers_of_one_address_take_no_room_of_others() {
        run(|gate| {
            assert!(take(gate, 9));
            assert!((0..1000).all(|_| take(gate, 1)));
            assert_eq!(networks(gate), [9, 1, 1, 1]);
            assert!(take(gate, 2) && take(gate, 2));
            assert_eq!(networks(gate), [9, 1, 1, 1, 2, 2]);
            // All places are taken: the oldest goes.
            assert!(take(gate, 3));
            assert_eq!(networks(gate), [1, 1, 1, 2, 2, 3]);
        });
    }

    #[test]
    fn admitted_callers_stay_and_are_bounded() {
        run(|gate| {
            for network in [1, 1, 1, 2] {
                assert!(take(gate, network));
                gate.seats.last().unwrap().admitted.set();
            }
            assert!(!take(gate, 1), "the address has its share");
            for network in 10..1000 {
                assert!(take(gate, network), "others share what is left");
            }
            assert_eq!(networks(gate)[..4], [1, 1, 1, 2]);
            assert_eq!(gate.seats.len(), 6);
            for seat in &gate.seats {
                seat.admitted.set();
            }
            assert!(!take(gate, 5), "everybody is known");
        });
    }

    #[test]
    fn connections_that_ended_make_room() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            let mut gate = gate();
            for _ in 0..3 {
                assert!(take(&mut gate, 1));
                gate.seats.last().unwrap().admitted.set();
            }
            assert!(!take(&mut gate, 1));
            gate.seats[1].task.abort();
            tokio::task::yield_now().await;
            assert!(take(&mut gate, 1));
        });
    }
}
