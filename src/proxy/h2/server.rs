//! HTTP/2 with a client: streams instead of turns, and bounds on what floods.

use crate::config::plan::Plan;
use crate::proxy::h2::hpack::Paths;
use crate::proxy::h2::stall_limit::{Here, StallLimit, StallLimitedBody};
use crate::proxy::h2::stream;
use crate::proxy::h2::transport::Http2Transport;
use crate::proxy::snapshot::Worker;
use crate::proxy::timer::Timer;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

/// Requests at a time on one connection.
const STREAMS_MAX: u32 = 128;
/// Streams that a client may open and reset before they are looked at, and errors that it may
/// cause, until the connection is ended (the floods of CVE-2023-44487 and CVE-2025-8671).
const RESETS_MAX: usize = 32;
/// How much of a body is taken before its reader is ready for more.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// A client that does not answer a ping for so long has left.
const PING_WITHIN: Duration = Duration::from_secs(20);

/// Serves a connection until it ends, is idle for too long, or has brought enough requests; once
/// told to stop, to the end of the requests that run.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    worker: &Rc<Worker>,
    plan: &Plan,
    stream: S,
    (peer, secure): (IpAddr, bool),
    mut stop: watch::Receiver<Option<Instant>>,
) -> hyper::Result<()> {
    let here = Here::new(plan.timeouts.body);
    let running = here.running();
    let begun = Rc::new(Cell::new(0_u32));
    let client = Rc::new(stream::client(peer, secure));
    let service = service_fn(|request: Request<Incoming>| {
        begun.set(begun.get().saturating_add(1));
        let (worker, client) = (Rc::clone(worker), Rc::clone(&client));
        // On the heap at once: hyper and the runtime move what they are given several times.
        Box::pin(async move {
            let total = worker.snapshot().plan.timeouts.total;
            let pace = StallLimit::of_this_stream(total.map(|total| Instant::now() + total));
            let response = stream::answer(&worker, &client, request).await;
            Ok::<_, Infallible>(response.map(|body| StallLimitedBody::new(body, pace)))
        })
    });
    let moved = Rc::new(Cell::new(false));
    // Compressed, and with a margin: what is larger than the limit is for the parser to refuse.
    let paths = Paths::new(2 * plan.limits.head_bytes + (64 << 10));
    let stream = Http2Transport::new(stream, plan.timeouts.body, Rc::clone(&moved), paths);
    let mut connection = http2::Builder::new(here)
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(plan.limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(plan.timeouts.idle)
        .keep_alive_timeout(PING_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    let mut told = pin!(stop.wait_for(Option::is_some));
    let mut ending = false;
    let mut clock = Timer::default();
    std::future::poll_fn(|context| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(context) {
            return Poll::Ready(ended);
        }
        if running.get() > 0 {
            clock.stop();
        }
        if ending {
            if moved.take() {
                clock.stop();
            }
            // All is answered, but the client does not take it.
            return match clock.poll_over(context, plan.timeouts.body) {
                true => Poll::Ready(Ok(())),
                false => Poll::Pending,
            };
        }
        ending = told.as_mut().poll(context).is_ready()
            || begun.get() >= plan.limits.requests
            || (running.get() == 0 && clock.poll_over(context, plan.timeouts.idle));
        if ending {
            clock.stop();
            Pin::new(&mut connection).graceful_shutdown();
            context.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await
}
