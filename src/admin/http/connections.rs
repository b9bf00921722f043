//! Accepts connections of the admin API, with limits in total, per client address and on slow clients.
//! A client can neither lock others out nor use up the file descriptors that the site needs.

use crate::admin::http::timeouts::Paced;
use crate::config::plan::Plan;
use crate::rate_limit::network;
use crate::tasks;
use crate::tls;
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
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The pause after `accept` fails, such as for lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Limits of the connections of one listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionBounds {
    /// Concurrent connections in total.
    pub connections: usize,
    /// Concurrent connections of one address: IPv4, or the /64 of IPv6.
    pub per_address: usize,
    /// The time limit of a request's head, from the end of the previous request.
    pub head_within: Duration,
    /// Whether a connection can carry more than one request.
    pub keep_alive: bool,
}

/// Limits of the admin API.
pub(crate) const ADMIN: ConnectionBounds = ConnectionBounds {
    connections: 512,
    per_address: 128,
    head_within: Duration::from_secs(30),
    keep_alive: true,
};
/// Reserved connections of the admin API. While all others are in use, they serve health, metrics and
/// 503.
pub(crate) const RESERVE: ConnectionBounds = ConnectionBounds {
    connections: 64,
    per_address: 16,
    head_within: Duration::from_secs(5),
    keep_alive: false,
};
/// Limits of the separate listener for health and metrics.
pub(crate) const HEALTH: ConnectionBounds = ConnectionBounds {
    connections: 256,
    per_address: 64,
    head_within: Duration::from_secs(30),
    keep_alive: true,
};

/// The most connections of the admin API and of the health listener together.
pub(crate) const CONNECTIONS_MAX: usize =
    ADMIN.connections + RESERVE.connections + HEALTH.connections;
/// The fewest connections of each of the three limits.
const CONNECTIONS_MIN: usize = 4;
/// The fewest connections in total.
pub(crate) const CONNECTIONS_LEAST: usize = 3 * CONNECTIONS_MIN;

impl ConnectionBounds {
    /// Scales these limits down in proportion if only `connections` of [`CONNECTIONS_MAX`] are
    /// available.
    pub(crate) fn within(self, connections: usize) -> ConnectionBounds {
        let part = |of: usize| (of * connections.min(CONNECTIONS_MAX) / CONNECTIONS_MAX).min(of);
        let all = part(self.connections).max(CONNECTIONS_MIN);
        ConnectionBounds {
            connections: all,
            // One address cannot use all of them.
            per_address: part(self.per_address).max((all / 2).min(self.per_address)),
            ..self
        }
    }
}

/// Set once a request of a connection was authorized. Such a connection is not closed to make room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admitted(Arc<AtomicBool>);

impl Admitted {
    /// Marks the connection as authorized.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether TLS is spoken on a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverTls(pub bool);

/// The body of the response to HTTP without TLS where TLS is spoken.
const PLAIN_HTTP: &str =
    r#"{"error":"the admin API speaks TLS only: use an address that begins with https://"}"#;

/// The connections of one listener, within their limits.
pub(crate) struct BoundedConnections {
    router: Router,
    bounds: ConnectionBounds,
    /// The plans that say whether TLS is spoken; `None` where it never is.
    plans: Option<watch::Receiver<Arc<Plan>>>,
    /// Oldest first.
    open: Vec<OpenConnection>,
}

/// A connection that is being served.
struct OpenConnection {
    network: u64,
    admitted: Admitted,
    task: AbortHandle,
}

impl BoundedConnections {
    /// Serves connections with this router.
    pub(crate) fn new(router: Router, bounds: ConnectionBounds) -> BoundedConnections {
        BoundedConnections {
            router,
            bounds,
            plans: None,
            open: Vec::new(),
        }
    }

    /// Speaks TLS on new connections while the plan has `admin.tls`.
    pub(crate) fn with_tls(self, plans: &watch::Receiver<Arc<Plan>>) -> BoundedConnections {
        let plans = Some(plans.clone());
        BoundedConnections { plans, ..self }
    }

    /// Serves a connection if there is room. At the limit, the oldest unauthorized connection is
    /// closed for it: a new client is more likely to authenticate than one that has waited for long.
    /// Returns the stream if all connections are authorized.
    fn try_serve(&mut self, stream: TcpStream, peer: SocketAddr) -> Result<(), TcpStream> {
        let network = network(peer.ip());
        if !self.make_room(network) {
            return Err(stream);
        }
        let admitted = Admitted::default();
        let router = self.router.clone().layer(Extension(ConnectInfo(peer)));
        let router = router.layer(Extension(admitted.clone()));
        let plan = self.plans.as_ref().map(|plans| Arc::clone(&plans.borrow()));
        let tls = plan.and_then(|plan| Some(Arc::clone(&plan.admin.tls.as_ref()?.config)));
        let router = router.layer(Extension(OverTls(tls.is_some())));
        let bounds = self.bounds;
        let serving = async move {
            match tls {
                None => serve_connection(Paced::new(stream), peer, router, bounds).await,
                Some(tls) => serve_over_tls((stream, tls), peer, router, bounds).await,
            }
        };
        let task = tasks::spawn("admin-request", serving).abort_handle();
        self.open.push(OpenConnection {
            network,
            admitted,
            task,
        });
        Ok(())
    }

    /// Makes room for one more connection of this network; false if that is not possible.
    fn make_room(&mut self, network: u64) -> bool {
        self.open
            .retain(|connection| !connection.task.is_finished());
        let of_network = |connection: &&OpenConnection| connection.network == network;
        let crowded = self.open.iter().filter(of_network).count() >= self.bounds.per_address;
        if !crowded && self.open.len() < self.bounds.connections {
            return true;
        }
        let may_go = |connection: &OpenConnection| {
            (!crowded || connection.network == network)
                && !connection.admitted.0.load(Ordering::Relaxed)
        };
        let Some(oldest) = self.open.iter().position(may_go) else {
            return false;
        };
        self.open.remove(oldest).task.abort();
        true
    }
}

/// Accepts connections until its task is dropped. If `usual` has no room, `reserve` serves them.
pub(crate) async fn serve(
    listener: TcpListener,
    mut usual: BoundedConnections,
    mut reserve: Option<BoundedConnections>,
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
        let refused = usual.try_serve(stream, peer).err();
        if let (Some(stream), Some(reserve)) = (refused, &mut reserve) {
            // Connections of the reserve are never authorized, so it always has room.
            let _ = reserve.try_serve(stream, peer);
        }
    }
}

/// Serves a connection once TLS is agreed on, in the time of a request's head.
async fn serve_over_tls(
    (stream, tls): (TcpStream, Arc<rustls::ServerConfig>),
    peer: SocketAddr,
    router: Router,
    bounds: ConnectionBounds,
) {
    match tokio::time::timeout(bounds.head_within, handshake(stream, tls)).await {
        Ok(Ok(Some(stream))) => serve_connection(stream, peer, router, bounds).await,
        Ok(Ok(None)) | Err(_) => {}
        Ok(Err(error)) => {
            tracing::debug!(%peer, "no TLS with a client of the admin API: {error}");
        }
    }
}

/// Accepts TLS. `None` if the client spoke HTTP without it and got an error.
async fn handshake(
    mut stream: TcpStream,
    tls: Arc<rustls::ServerConfig>,
) -> io::Result<Option<TlsStream<Paced>>> {
    let mut first = [0];
    let read = stream.peek(&mut first).await?;
    if tls::is_plain_http(&first[..read]) {
        let told = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{PLAIN_HTTP}",
            PLAIN_HTTP.len()
        );
        stream.write_all(told.as_bytes()).await?;
        stream.shutdown().await?;
        // What is closed before the request was read resets the connection, and the response is lost.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
        return Ok(None);
    }
    let accepted = TlsAcceptor::from(tls).accept(Paced::new(stream)).await;
    accepted.map(Some)
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    bounds: ConnectionBounds,
) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_within)
        .keep_alive(bounds.keep_alive)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!(%peer, "a connection to the admin API ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[test]
    fn bounds_scale_with_available_connections() {
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

    /// No open connections, and limits of 6 connections, 3 of one address.
    fn bounded() -> BoundedConnections {
        let bounds = ConnectionBounds {
            connections: 6,
            per_address: 3,
            ..ADMIN
        };
        BoundedConnections::new(Router::new(), bounds)
    }

    fn run(test: impl FnOnce(&mut BoundedConnections)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async { test(&mut bounded()) });
    }

    /// Whether a connection of this network is accepted.
    fn accepts(bounded: &mut BoundedConnections, network: u64) -> bool {
        let room = bounded.make_room(network);
        if room {
            bounded.open.push(OpenConnection {
                network,
                admitted: Admitted::default(),
                task: tasks::spawn("pending", pending::<()>()).abort_handle(),
            });
        }
        room
    }

    fn networks(bounded: &BoundedConnections) -> Vec<u64> {
        bounded
            .open
            .iter()
            .map(|connection| connection.network)
            .collect()
    }

    #[test]
    fn unauthorized_connections_of_one_address_leave_room_for_others() {
        run(|bounded| {
            assert!(accepts(bounded, 9));
            assert!((0..1000).all(|_| accepts(bounded, 1)));
            assert_eq!(networks(bounded), [9, 1, 1, 1]);
            assert!(accepts(bounded, 2) && accepts(bounded, 2));
            assert_eq!(networks(bounded), [9, 1, 1, 1, 2, 2]);
            // All places are in use: the oldest connection is closed.
            assert!(accepts(bounded, 3));
            assert_eq!(networks(bounded), [1, 1, 1, 2, 2, 3]);
        });
    }

    #[test]
    fn authorized_connections_stay_and_are_limited_per_address() {
        run(|bounded| {
            for network in [1, 1, 1, 2] {
                assert!(accepts(bounded, network));
                bounded.open.last().unwrap().admitted.set();
            }
            assert!(!accepts(bounded, 1), "the address is at its limit");
            for network in 10..1000 {
                assert!(accepts(bounded, network), "other addresses share the rest");
            }
            assert_eq!(networks(bounded)[..4], [1, 1, 1, 2]);
            assert_eq!(bounded.open.len(), 6);
            for connection in &bounded.open {
                connection.admitted.set();
            }
            assert!(!accepts(bounded, 5), "every connection is authorized");
        });
    }

    #[test]
    fn ended_connections_make_room() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            let mut bounded = bounded();
            for _ in 0..3 {
                assert!(accepts(&mut bounded, 1));
                bounded.open.last().unwrap().admitted.set();
            }
            assert!(!accepts(&mut bounded, 1));
            bounded.open[1].task.abort();
            tokio::task::yield_now().await;
            assert!(accepts(&mut bounded, 1));
        });
    }
}
