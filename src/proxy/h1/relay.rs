//! Gives a response to a client of HTTP/1: its head, and its body as it arrives.

use crate::proxy::exchange::{Exchange, RecordedResponse};
use crate::proxy::h1::body::{BodyReader, UnfinishedGuard};
use crate::proxy::h1::response_head::BodyFraming;
use crate::proxy::h1::server::Http1Connection;
use crate::proxy::observe::progress::ResponseEnd;
use crate::proxy::request_body::RequestBody;
use crate::proxy::upstream_read::{self, Beside, UpstreamRead};
use crate::upstream::PooledConnection;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};

impl<S: AsyncRead + AsyncWrite + Unpin> Http1Connection<'_, S> {
    /// Gives the client the head of an answer, which is in `out`, and the rest of it, of which
    /// `received` was read. False when the connection cannot be used any more.
    pub(super) async fn relay(
        &mut self,
        (exchange, response): (&Exchange<'_>, &RecordedResponse),
        (upstream, mut body): (&mut Option<PooledConnection>, Option<&mut RequestBody>),
        (mut out, mut received): (Vec<u8>, Vec<u8>),
        left: Pin<&mut impl Future<Output = ()>>,
    ) -> bool {
        let mut rest = BodyReader::new(response.follows, response.framed.clone());
        received.drain(..response.head_bytes);
        if let Some(mirrored) = exchange.mirrored.get() {
            mirrored.receive(&received);
        }
        let copied = rest.copy(&mut received, &mut out);
        let given = self.write(exchange, &out).await;
        let Some(connection) = upstream else {
            if !given {
                exchange.progress.ends(ResponseEnd::Left);
            }
            // Watershed's own words are whole.
            self.worker.buffers.give(out);
            self.worker.buffers.give(received);
            return given;
        };
        if given {
            let data = *copied.as_ref().unwrap_or(&0);
            exchange.progress.gave(data as u64);
        }
        let mut now = None;
        let whole = match (given && copied.is_ok(), rest.has_ended()) {
            (true, true) => {
                exchange.progress.ends(ResponseEnd::Complete);
                // All of it came at once: the clock need not be asked again.
                now = Some(response.at);
                true
            }
            (true, false) => {
                exchange.progress.goes_on();
                let mut watched = UnfinishedGuard::new(exchange.unfinished(self.worker));
                let buffers = (&mut out, &mut received);
                let upstream = (&mut *connection, body.as_deref_mut());
                let whole = self.stream(exchange, &mut rest, response, upstream, buffers, left);
                let whole = whole.await;
                if whole {
                    watched.let_off();
                }
                whole
            }
            (false, _) => {
                if given {
                    exchange.progress.ends(ResponseEnd::Broken);
                }
                let left = response.follows != BodyFraming::Nothing;
                drop(UnfinishedGuard::new(
                    exchange.unfinished(self.worker).filter(|_| left),
                ));
                false
            }
        };
        let through = body.is_none_or(|body| body.is_through());
        let is_reusable = whole && response.keeps && received.is_empty() && through;
        if is_reusable && let Some(connection) = upstream.take() {
            connection.release(now.unwrap_or_else(Instant::now));
        }
        self.answered = now;
        self.worker.buffers.give(out);
        self.worker.buffers.give(received);
        whole
    }

    /// Streams what comes behind the first part.
    async fn stream(
        &mut self,
        exchange: &Exchange<'_>,
        rest: &mut BodyReader,
        response: &RecordedResponse,
        (connection, mut body): (&mut PooledConnection, Option<&mut RequestBody>),
        (out, received): (&mut Vec<u8>, &mut Vec<u8>),
        mut left: Pin<&mut impl Future<Output = ()>>,
    ) -> bool {
        if rest.is_wide() {
            let narrow = std::mem::replace(received, self.worker.buffers.take_wide());
            received.extend_from_slice(&narrow);
            self.worker.buffers.give(narrow);
        }
        let end = loop {
            if rest.has_ended() {
                break ResponseEnd::Complete;
            }
            let within = exchange.time_left(response.pause_max);
            let before = received.len();
            let read = match exchange.is_late() {
                true => UpstreamRead::Broken,
                false => {
                    let upstream = (&mut connection.stream, body.as_deref_mut());
                    upstream_read::read(self, upstream, received, within, left.as_mut()).await
                }
            };
            match read {
                UpstreamRead::Broken if exchange.is_late() => break ResponseEnd::Late,
                UpstreamRead::Closed => match rest.close() {
                    Some(last) if self.write(exchange, last).await => break ResponseEnd::Complete,
                    Some(_) => break ResponseEnd::Left,
                    None => break ResponseEnd::Broken,
                },
                UpstreamRead::Left => break ResponseEnd::Left,
                UpstreamRead::Broken => break ResponseEnd::Broken,
                UpstreamRead::More => {}
            }
            if let Some(mirrored) = exchange.mirrored.get() {
                mirrored.receive(&received[before..]);
            }
            let beside = body
                .as_deref_mut()
                .map(|body| (body, &mut connection.stream));
            let (given, bytes) = if rest.is_wide() {
                let Ok(taken) = rest.take(received) else {
                    break ResponseEnd::Broken;
                };
                let given = self
                    .write_beside(exchange, &received[..taken.pass], beside)
                    .await;
                received.drain(..taken.pass);
                (given, taken.data)
            } else {
                out.clear();
                let Ok(data) = rest.copy(received, out) else {
                    break ResponseEnd::Broken;
                };
                (self.write_beside(exchange, out, beside).await, data)
            };
            if !given {
                break ResponseEnd::Left;
            }
            exchange.progress.gave(bytes as u64);
        };
        exchange.progress.ends(end);
        end == ResponseEnd::Complete
    }

    /// Writes all of this to the client. False when it cannot be written, or not in time.
    pub(super) async fn write(&mut self, exchange: &Exchange<'_>, bytes: &[u8]) -> bool {
        self.write_beside(exchange, bytes, None).await
    }

    /// The same beside a request body: a client may read only when all of it was sent.
    async fn write_beside(
        &mut self,
        exchange: &Exchange<'_>,
        bytes: &[u8],
        mut beside: Beside<'_>,
    ) -> bool {
        let (mut given, mut waiting) = (0, false);
        std::future::poll_fn(|context| {
            if let Some((body, stream)) = &mut beside {
                body.poll(context, self, stream);
            }
            while given < bytes.len() {
                match Pin::new(&mut self.stream).poll_write(context, &bytes[given..]) {
                    Poll::Ready(Ok(taken)) if taken > 0 => {
                        (given, waiting) = (given + taken, false);
                    }
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending => return self.poll_slow(context, &mut waiting, exchange),
                }
            }
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
                Poll::Pending => self.poll_slow(context, &mut waiting, exchange),
            }
        })
        .await
    }

    fn poll_slow(
        &mut self,
        context: &mut std::task::Context<'_>,
        waiting: &mut bool,
        exchange: &Exchange<'_>,
    ) -> Poll<bool> {
        // What is left of the whole time shrinks also while the client takes a little.
        let within = exchange.time_left(exchange.snapshot.plan.timeouts.body);
        if !std::mem::replace(waiting, true) {
            exchange.progress.goes_on();
            self.timer.begin(context, Instant::now(), within);
            return Poll::Pending;
        }
        match self.timer.poll_over(context, within) {
            true => Poll::Ready(false),
            false => Poll::Pending,
        }
    }
}
