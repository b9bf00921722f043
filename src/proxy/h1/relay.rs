//! Gives an answer to the client: its head, and its body as it comes.

use crate::proxy::h1::body::{BodyReader, UnfinishedGuard};
use crate::proxy::h1::response_head::BodyFraming;
use crate::proxy::h1::server::Http1Connection;
use crate::proxy::observe::access_log::End;
use crate::proxy::pipeline::{Exchange, RecordedResponse};
use crate::proxy::request_body::RequestBody;
use crate::upstream::{PooledConnection, Stream};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// An body that goes on beside the answer, and where it goes.
type Beside<'a> = Option<(&'a mut RequestBody, &'a mut Stream)>;

/// What waiting for an upstream has brought.
enum UpstreamRead {
    /// More of the answer.
    More,
    /// The upstream has closed its side.
    Closed,
    /// It broke off, or takes too long.
    Broken,
    /// The client has left.
    Left,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1Connection<'_, S> {
    /// Gives the client the head of an answer, which is in `out`, and the rest of it, of which
    /// `said` was read. False when the connection cannot be used any more.
    pub(super) async fn relay(
        &mut self,
        (exchange, finished): (&Exchange<'_>, &RecordedResponse),
        (connection, mut body): (Option<PooledConnection>, Option<&mut RequestBody>),
        (mut out, mut said): (Vec<u8>, Vec<u8>),
        reset: Pin<&mut impl Future<Output = ()>>,
    ) -> bool {
        let mut rest = BodyReader::new(finished.follows, finished.framed.clone());
        said.drain(..finished.head_bytes);
        let copied = rest.copy(&mut said, &mut out);
        let given = self.give(exchange, &out).await;
        let Some(mut connection) = connection else {
            if !given {
                exchange.note(|entry| entry.ends(End::Left));
            }
            // Watershed's own words are whole.
            self.worker.buffers.give(out);
            self.worker.buffers.give(said);
            return given;
        };
        if given {
            let data = *copied.as_ref().unwrap_or(&0);
            exchange.note(|entry| entry.gave(data as u64));
        }
        let mut now = None;
        let whole = match (given && copied.is_ok(), rest.has_ended()) {
            (true, true) => {
                exchange.note(|entry| entry.ends(End::Complete));
                // All of it came at once: the clock need not be asked again.
                now = Some(finished.at);
                true
            }
            (true, false) => {
                let mut watched = UnfinishedGuard::new(exchange.unfinished(self.worker, finished));
                let buffers = (&mut out, &mut said);
                let upstream = (&mut connection, body.as_deref_mut());
                let whole = self.stream(exchange, &mut rest, finished, upstream, buffers, reset);
                let whole = whole.await;
                if whole {
                    watched.let_off();
                }
                whole
            }
            (false, _) => {
                if given {
                    exchange.note(|entry| entry.ends(End::Broken));
                }
                let left = finished.follows != BodyFraming::Nothing;
                drop(UnfinishedGuard::new(
                    exchange.unfinished(self.worker, finished).filter(|_| left),
                ));
                false
            }
        };
        let through = body.is_none_or(|body| body.is_through());
        if whole && finished.keeps && said.is_empty() && through {
            connection.release(now.unwrap_or_else(Instant::now));
        }
        self.answered = now;
        self.worker.buffers.give(out);
        self.worker.buffers.give(said);
        whole
    }

    /// Streams what comes behind the first part.
    async fn stream(
        &mut self,
        exchange: &Exchange<'_>,
        rest: &mut BodyReader,
        finished: &RecordedResponse,
        (connection, mut body): (&mut PooledConnection, Option<&mut RequestBody>),
        (out, said): (&mut Vec<u8>, &mut Vec<u8>),
        mut reset: Pin<&mut impl Future<Output = ()>>,
    ) -> bool {
        if rest.is_wide() {
            let narrow = std::mem::replace(said, self.worker.buffers.take_wide());
            said.extend_from_slice(&narrow);
            self.worker.buffers.give(narrow);
        }
        let end = loop {
            if rest.has_ended() {
                break End::Complete;
            }
            let within = exchange.within(finished.quiet_max);
            let heard = match exchange.is_late() {
                true => UpstreamRead::Broken,
                false => {
                    let upstream = (&mut *connection, body.as_deref_mut());
                    self.hear(upstream, said, within, reset.as_mut()).await
                }
            };
            match heard {
                UpstreamRead::Broken if exchange.is_late() => break End::Late,
                UpstreamRead::Closed => match rest.close() {
                    Some(last) if self.give(exchange, last).await => break End::Complete,
                    Some(_) => break End::Left,
                    None => break End::Broken,
                },
                UpstreamRead::Left => break End::Left,
                UpstreamRead::Broken => break End::Broken,
                UpstreamRead::More => {}
            }
            let beside = body
                .as_deref_mut()
                .map(|body| (body, &mut connection.stream));
            let (given, bytes) = if rest.is_wide() {
                let Ok(taken) = rest.take(said) else {
                    break End::Broken;
                };
                let given = self
                    .give_beside(exchange, &said[..taken.pass], beside)
                    .await;
                said.drain(..taken.pass);
                (given, taken.data)
            } else {
                out.clear();
                let Ok(data) = rest.copy(said, out) else {
                    break End::Broken;
                };
                (self.give_beside(exchange, out, beside).await, data)
            };
            if !given {
                break End::Left;
            }
            exchange.note(|entry| entry.gave(bytes as u64));
        };
        exchange.note(|entry| entry.ends(end));
        end == End::Complete
    }

    /// Reads more of an answer.
    async fn hear(
        &mut self,
        (connection, mut body): (&mut PooledConnection, Option<&mut RequestBody>),
        said: &mut Vec<u8>,
        quiet_max: Duration,
        mut reset: Pin<&mut impl Future<Output = ()>>,
    ) -> UpstreamRead {
        let mut waiting = false;
        std::future::poll_fn(|context| {
            if let Some(body) = body.as_deref_mut() {
                body.poll(context, self, &mut connection.stream);
                if body.fault().is_some() {
                    return Poll::Ready(UpstreamRead::Left);
                }
            }
            let read = pin!(connection.stream.read_buf(&mut *said)).poll(context);
            if let Poll::Ready(read) = read {
                return Poll::Ready(match read {
                    Ok(0) => UpstreamRead::Closed,
                    Ok(_) => UpstreamRead::More,
                    Err(_) => UpstreamRead::Broken,
                });
            }
            if reset.as_mut().poll(context).is_ready() {
                return Poll::Ready(UpstreamRead::Left);
            }
            if !waiting {
                waiting = true;
                self.clock.begin(context, Instant::now(), quiet_max);
                return Poll::Pending;
            }
            match self.clock.poll_over(context, quiet_max) {
                true => Poll::Ready(UpstreamRead::Broken),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Writes all of this to the client. False when it cannot be written, or not in time.
    pub(super) async fn give(&mut self, exchange: &Exchange<'_>, bytes: &[u8]) -> bool {
        self.give_beside(exchange, bytes, None).await
    }

    /// The same beside an body: a client may read only when all of it was sent.
    async fn give_beside(
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
        let within = exchange.within(exchange.snapshot.plan.timeouts.body);
        if !std::mem::replace(waiting, true) {
            self.clock.begin(context, Instant::now(), within);
            return Poll::Pending;
        }
        match self.clock.poll_over(context, within) {
            true => Poll::Ready(false),
            false => Poll::Pending,
        }
    }
}
