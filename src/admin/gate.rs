//! Takes connections at the door: so many at once, and none that says nothing. Whoever can reach
//! the door cannot take the descriptors that the site is served with.

use crate::tasks;
use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// As many are served at once; others wait.
const CONNECTIONS_MAX: usize = 512;
/// How long a request's head may take, from the end of what was asked before.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// How long it is waited when no connection can be taken, such as for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until its task is dropped.
pub async fn serve(listener: TcpListener, door: Router) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&room).acquire_owned().await;
        let place = place.map_err(io::Error::other)?;
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if tasks::is_lost(&error) => return Err(error),
            Err(error) => {
                tracing::debug!("the admin door cannot take a connection: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let service = door.clone().layer(Extension(ConnectInfo(peer)));
        tokio::spawn(tasks::named("admin-request", async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
            if let Err(error) = served.await {
                tracing::debug!(%peer, "a connection to the admin door ended: {error}");
            }
            drop(place);
        }));
    }
}
