//! A client's connection of HTTP/2: its streams run side by side, each through the pipeline.

use crate::config::plan::Plan;
use crate::proxy::client::ClientInfo;
use crate::proxy::h1::server::last_call;
use crate::proxy::h2::hpack::Paths;
use crate::proxy::h2::stream;
use crate::proxy::h2::transport::{Activity, Http2Transport};
use crate::proxy::snapshot::Worker;
use crate::proxy::timer::Timer;
use crate::tasks::PhaseWatch;
use bytes::Bytes;
use h2::server::{Builder, Connection};
use h2::{Ping, PingPong};
use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};

/// Requests at a time on one connection.
const STREAMS_MAX: u32 = 128;
/// How many streams a client may open and reset before they are accepted, and how many errors it
/// may cause, until the connection is ended (the floods of CVE-2023-44487 and CVE-2025-8671).
const RESETS_MAX: usize = 32;
/// How much of a body is read before its upstream takes it.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// How much of all responses is buffered before the client's socket takes it.
const SEND_BUFFER_BYTES: usize = 400 << 10;
/// A client that sends nothing for so long after a ping has left.
const PING_WITHIN: Duration = Duration::from_secs(20);

/// Serves a connection until it ends, is idle for too long, or has brought enough requests; after
/// the process drains, until the requests in flight have ended.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    worker: &Rc<Worker>,
    plan: &Plan,
    stream: S,
    client: ClientInfo,
    mut phase: PhaseWatch,
) -> Result<(), h2::Error> {
    let activity = Rc::new(Activity::default());
    // Compressed, and with a margin: the parser refuses what exceeds the limit.
    let paths = Paths::new(2 * plan.limits.head_bytes + (64 << 10));
    let stream = Http2Transport::new(stream, plan.timeouts.body, Rc::clone(&activity), paths);
    let handshake = Builder::new()
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(plan.limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(Some(RESETS_MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .handshake(stream);
    let mut connection = tokio::select! {
        made = tokio::time::timeout(plan.timeouts.head, handshake) => match made {
            Ok(made) => made?,
            Err(_) => return Ok(()),
        },
        () = quiet_since_stop(&mut phase) => return Ok(()),
    };
    let mut served = Http2Connection {
        worker,
        plan,
        client: Rc::new(client),
        pings: connection.ping_pong(),
        pinged: false,
        silence: Timer::default(),
        connection,
        activity,
        running: Rc::default(),
        begun: 0,
        ending: false,
        clock: Timer::default(),
    };
    let mut stopped = pin!(phase.ending());
    std::future::poll_fn(|context| {
        loop {
            if let Poll::Ready(ended) = served.poll(context) {
                return Poll::Ready(ended);
            }
            let stops = !served.ending && stopped.as_mut().poll(context).is_ready();
            if !served.begins_to_end(context, stops) {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Resolves some time after the process began to drain: a client that has just connected sends its
/// request soon.
pub(crate) async fn quiet_since_stop(phase: &mut PhaseWatch) {
    let drain = phase.ending().await.drain();
    let until = drain.map_or_else(Instant::now, |drain| drain.quiet_until);
    tokio::time::sleep(last_call(until)).await;
}

struct Http2Connection<'a, S> {
    worker: &'a Rc<Worker>,
    plan: &'a Plan,
    connection: Connection<Http2Transport<S>, Bytes>,
    client: Rc<ClientInfo>,
    activity: Rc<Activity>,
    /// How many streams have not ended, tunnels among them.
    running: Rc<Cell<u32>>,
    /// How many requests there were.
    begun: u32,
    /// No more requests are accepted.
    ending: bool,
    /// How long nothing has run; when it ends, how long the client has taken nothing.
    clock: Timer,
    pings: Option<PingPong>,
    /// A ping was sent, and nothing has come since.
    pinged: bool,
    /// How long the client has sent nothing.
    silence: Timer,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http2Connection<'_, S> {
    /// Moves frames, and starts streams.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            match self.connection.poll_accept(context) {
                Poll::Ready(Some(accepted)) => {
                    let (request, respond) = accepted?;
                    self.begun = self.begun.saturating_add(1);
                    let running = Running::new(&self.running);
                    let (worker, client) = (Rc::clone(self.worker), Rc::clone(&self.client));
                    // On the heap at once: the runtime moves what it is given several times.
                    tokio::task::spawn_local(Box::pin(async move {
                        let _running = running;
                        stream::serve(&worker, &client, request, respond).await;
                    }));
                }
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        if self.running.get() > 0 {
            self.clock.stop();
        }
        if self.has_left(context) {
            return Poll::Ready(Ok(()));
        }
        if !self.ending {
            return Poll::Pending;
        }
        if self.activity.wrote.take() {
            self.clock.stop();
        }
        // All responses were given, but the client does not take them.
        match self.clock.poll_over(context, self.plan.timeouts.body) {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    /// Whether no more requests are accepted from now on.
    fn begins_to_end(&mut self, context: &mut Context<'_>, stops: bool) -> bool {
        if self.ending {
            return false;
        }
        let mut idle = || self.clock.poll_over(context, self.plan.timeouts.idle);
        self.ending =
            stops || self.begun >= self.plan.limits.requests || (self.running.get() == 0 && idle());
        if self.ending {
            self.clock.stop();
            self.connection.graceful_shutdown();
        }
        self.ending
    }

    /// Whether the client has sent nothing for long, and nothing since a ping either.
    fn has_left(&mut self, context: &mut Context<'_>) -> bool {
        if self.activity.read.take() {
            self.silence.stop();
            self.pinged = false;
        }
        let within = |pinged| match pinged {
            true => PING_WITHIN,
            false => self.plan.timeouts.idle,
        };
        if !self.silence.poll_over(context, within(self.pinged)) {
            return false;
        }
        self.silence.stop();
        let Some(pings) = self.pings.as_mut().filter(|_| !self.pinged) else {
            return true;
        };
        // None can be sent before the response to the last one has been taken.
        let _ = pings.poll_pong(context);
        let _ = pings.send_ping(Ping::opaque());
        self.pinged = true;
        self.silence.poll_over(context, within(true))
    }
}

/// Counts what runs for as long as it runs, even if it is dropped.
struct Running(Rc<Cell<u32>>);

impl Running {
    fn new(running: &Rc<Cell<u32>>) -> Running {
        running.set(running.get() + 1);
        Running(Rc::clone(running))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
