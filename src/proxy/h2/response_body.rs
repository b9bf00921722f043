//! The body of a response on its way to a client of HTTP/2, no faster than the client's windows let
//! it through.

use crate::proxy::buffer_pool::ROOM_BYTES;
use crate::proxy::exchange::{ClientStream, Exchange, RecordedResponse};
use crate::proxy::h1::body::{BodyReader, ClientFraming, TRAILERS_MAX, UnfinishedGuard};
use crate::proxy::h1::header_block::HeaderBlock;
use crate::proxy::headers::hop_by_hop;
use crate::proxy::headers::reserved::ReservedNames;
use crate::proxy::observe::progress::ResponseEnd;
use crate::proxy::request_body::RequestBody;
use crate::proxy::upstream_read::{self, Beside, UpstreamRead};
use crate::upstream::PooledConnection;
use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, SendStream};
use http::HeaderMap;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The body of a response, if all of it is within `first`, the bytes behind its head.
pub(super) fn whole(response: &RecordedResponse, first: &[u8]) -> Option<Bytes> {
    if !response.follows.is_within(first) {
        return None;
    }
    let data = BodyReader::new(response.follows, ClientFraming::Chunks).data(first);
    Some(Bytes::copy_from_slice(&first[..data]))
}

/// A client's stream that takes the body of a response.
pub(super) struct ResponseStream<'a, C> {
    stream: SendStream<Bytes>,
    client: &'a mut C,
    exchange: &'a Exchange<'a>,
}

impl<'a, C: ClientStream> ResponseStream<'a, C> {
    /// The stream, behind the head of the response.
    pub(super) fn new(
        stream: SendStream<Bytes>,
        client: &'a mut C,
        exchange: &'a Exchange<'a>,
    ) -> ResponseStream<'a, C> {
        ResponseStream {
            stream,
            client,
            exchange,
        }
    }

    /// Gives the client `data`, beside a request body that goes on; with `ends` it is the last part.
    /// False when the client takes it not, or not in time.
    pub(super) async fn send(
        &mut self,
        mut data: Bytes,
        ends: bool,
        mut beside: Beside<'_>,
    ) -> bool {
        let mut waiting = false;
        std::future::poll_fn(|context| {
            if let Some((body, stream)) = &mut beside {
                body.poll(context, self.client, stream);
            }
            while !data.is_empty() {
                self.stream.reserve_capacity(data.len());
                let part = data.split_to(self.stream.capacity().min(data.len()));
                if !part.is_empty() {
                    waiting = false;
                    if self
                        .stream
                        .send_data(part, ends && data.is_empty())
                        .is_err()
                    {
                        return Poll::Ready(false);
                    }
                    continue;
                }
                match self.stream.poll_capacity(context) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending => return self.poll_slow(context, &mut waiting),
                }
            }
            Poll::Ready(true)
        })
        .await
    }

    /// Whether the client, which takes nothing for now, has done so for too long.
    fn poll_slow(&mut self, context: &mut Context<'_>, waiting: &mut bool) -> Poll<bool> {
        if self.stream.poll_reset(context).is_ready() {
            return Poll::Ready(false);
        }
        // What is left of the whole time shrinks also while the client takes a little.
        let within = self.exchange.snapshot.plan.timeouts.body;
        let within = self.exchange.time_left(within);
        if !std::mem::replace(waiting, true) {
            self.exchange.progress.goes_on();
            self.client.timer().begin(context, Instant::now(), within);
            return Poll::Pending;
        }
        match self.client.timer().poll_over(context, within) {
            true => Poll::Ready(false),
            false => Poll::Pending,
        }
    }

    /// Gives the client the body as it arrives; `first` has arrived.
    pub(super) async fn stream(
        &mut self,
        (response, connection): (&RecordedResponse, PooledConnection),
        first: BytesMut,
        body: Option<&mut RequestBody>,
    ) {
        self.exchange.progress.goes_on();
        let worker = self.client.worker();
        let unfinished = UnfinishedGuard::new(self.exchange.unfinished(worker));
        let mut upstream = UpstreamBody {
            connection: Some(connection),
            keeps: response.keeps,
            rest: BodyReader::new(response.follows, ClientFraming::Chunks),
            received: first,
            trailers: None,
            unfinished,
        };
        let end = self
            .stream_all(&mut upstream, response.pause_max, body)
            .await;
        if matches!(end, ResponseEnd::Broken | ResponseEnd::Late) {
            self.stream.send_reset(Reason::INTERNAL_ERROR);
        }
        self.exchange.progress.ends(end);
    }

    async fn stream_all(
        &mut self,
        upstream: &mut UpstreamBody,
        pause_max: Duration,
        mut body: Option<&mut RequestBody>,
    ) -> ResponseEnd {
        let reserved = &self.exchange.snapshot.plan_headers.reserved;
        loop {
            let Ok(data) = upstream.take(reserved, body.as_deref()) else {
                return ResponseEnd::Broken;
            };
            let ended = upstream.rest.has_ended();
            if !data.is_empty() {
                if let Some(mirrored) = self.exchange.mirrored.get() {
                    mirrored.add(&data);
                }
                let bytes = data.len() as u64;
                let last = ended && upstream.trailers.is_none();
                let stream = upstream.connection.as_mut().map(|it| &mut it.stream);
                let beside = body.as_deref_mut().zip(stream);
                if !self.send(data, last, beside).await {
                    return ResponseEnd::Left;
                }
                self.exchange.progress.gave(bytes);
                if last {
                    return ResponseEnd::Complete;
                }
                continue;
            }
            if ended {
                return self.finish(upstream.trailers.take());
            }
            let within = self.exchange.time_left(pause_max);
            match self.read(upstream, body.as_deref_mut(), within).await {
                UpstreamRead::More => {}
                _ if self.exchange.is_late() => return ResponseEnd::Late,
                UpstreamRead::Closed => {
                    upstream.keeps = false;
                    if upstream.rest.close().is_none() {
                        return ResponseEnd::Broken;
                    }
                }
                UpstreamRead::Broken => return ResponseEnd::Broken,
                UpstreamRead::Left => return ResponseEnd::Left,
            }
        }
    }

    /// Ends the stream, with trailers if there are any.
    fn finish(&mut self, trailers: Option<HeaderMap>) -> ResponseEnd {
        let sent = match trailers {
            Some(trailers) => self.stream.send_trailers(trailers),
            None => self.stream.send_data(Bytes::new(), true),
        };
        match sent {
            Ok(()) => ResponseEnd::Complete,
            Err(_) => ResponseEnd::Left,
        }
    }

    async fn read(
        &mut self,
        upstream: &mut UpstreamBody,
        body: Option<&mut RequestBody>,
        within: Duration,
    ) -> UpstreamRead {
        if self.exchange.is_late() {
            return UpstreamRead::Broken;
        }
        let Some(connection) = &mut upstream.connection else {
            return UpstreamRead::Closed;
        };
        upstream.received.reserve(ROOM_BYTES);
        let from = (&mut connection.stream, body);
        let stream = &mut self.stream;
        let left = |context: &mut Context<'_>| stream.poll_reset(context).map(drop);
        let left = std::pin::pin!(std::future::poll_fn(left));
        upstream_read::read(self.client, from, &mut upstream.received, within, left).await
    }
}

/// The body of an upstream's response. When it was read to its end, its connection is kept.
struct UpstreamBody {
    connection: Option<PooledConnection>,
    keeps: bool,
    rest: BodyReader,
    /// Received, and not given on.
    received: BytesMut,
    trailers: Option<HeaderMap>,
    unfinished: UnfinishedGuard,
}

/// The upstream's framing is invalid.
struct Invalid;

impl UpstreamBody {
    /// Takes the data at the beginning of what was received, and the framing around it.
    fn take(
        &mut self,
        reserved: &ReservedNames,
        body: Option<&RequestBody>,
    ) -> Result<Bytes, Invalid> {
        self.take_frames(reserved)?;
        let data = self.rest.data(&self.received);
        let data = self.received.split_to(data).freeze();
        if !data.is_empty() {
            // What is invalid behind it matters when it is its turn.
            let _ = self.take_frames(reserved);
        }
        if self.rest.has_ended() {
            self.end(body.is_none_or(RequestBody::is_through));
        }
        Ok(data)
    }

    fn take_frames(&mut self, reserved: &ReservedNames) -> Result<(), Invalid> {
        let frames = self.rest.frames(&self.received).map_err(|_| Invalid)?;
        if frames.trailers > b"\r\n".len() {
            let trailers = &self.received[frames.bytes - frames.trailers..frames.bytes];
            self.trailers = Some(fields(trailers, reserved).ok_or(Invalid)?);
        }
        self.received.advance(frames.bytes);
        Ok(())
    }

    /// All has come: the connection is kept, if it may be.
    fn end(&mut self, request_is_through: bool) {
        self.unfinished.let_off();
        if let Some(connection) = self.connection.take()
            && self.keeps
            && request_is_through
            && self.received.is_empty()
        {
            connection.release(Instant::now());
        }
    }
}

/// Trailers as a client may have them.
fn fields(trailers: &[u8], reserved: &ReservedNames) -> Option<HeaderMap> {
    let (lines, _) = HeaderBlock::read(trailers, 0, TRAILERS_MAX).ok()??;
    let mut fields = HeaderMap::new();
    lines.give(&mut fields);
    hop_by_hop::remove_from_trailers(&mut fields, reserved);
    Some(fields)
}
