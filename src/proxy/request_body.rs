//! A request's body on its way to the upstream, behind what came with its head. It is read no
//! faster than the upstream takes it.

use crate::config::plan::Plan;
use crate::proxy::error_response::ErrorCode;
use crate::proxy::h1::body::{BodyReader, write_trailers};
use crate::proxy::h1::framing::Bounds;
use crate::proxy::h1::request_head::Body;
use crate::proxy::headers::reserved::ReservedNames;
use crate::proxy::min_rate::MinRate;
use crate::proxy::timer::Timer;
use crate::upstream::Stream;
use std::io::Write as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::AsyncWrite;

/// How long a client that asked first is kept waiting for the upstream's word (RFC 9110, 10.1.1).
const CONTINUE_AFTER: Duration = Duration::from_secs(1);
/// What tells a client that it may go on.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Where a body comes from, framed as HTTP/1 frames it.
pub(super) trait BodySource {
    /// Appends what comes next; nothing, when no more will come.
    fn poll_bytes(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<Result<usize, ErrorCode>>;
}

/// A body on its way.
#[derive(Debug)]
pub(super) struct RequestBody {
    rest: BodyReader,
    /// Whether it goes on in chunks.
    chunked: bool,
    /// Whether trailers were announced, or need not be.
    trailers: bool,
    bounds: Bounds,
    reserved: Rc<ReservedNames>,
    /// Came, and was not looked at.
    buffer: Vec<u8>,
    /// To be written; so much of it was.
    out: Vec<u8>,
    sent: usize,
    flushed: bool,
    bytes: u64,
    bytes_max: u64,
    /// The client waits to be told that it may go on.
    waits: bool,
    patience: Timer,
    quiet_max: Duration,
    trickle: Option<MinRate>,
    begun: bool,
    answered: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Moving,
    /// Everything was written.
    Through,
    /// The upstream reads no more.
    Deaf,
    /// The client is at fault.
    Fault(ErrorCode),
}

impl RequestBody {
    /// The body of a request by this plan, which begins with `buffer`; with `waits`, the client
    /// sends it when it is told to. Without `trailers`, those that come are not passed on.
    pub(super) fn new(
        plan: &Plan,
        reserved: &Rc<ReservedNames>,
        body: Body,
        buffer: Vec<u8>,
        (waits, trailers): (bool, bool),
    ) -> RequestBody {
        let bounds = Bounds::from(&plan.limits);
        let rate = plan.limits.body_rate;
        RequestBody {
            rest: BodyReader::of_request(body, bounds),
            chunked: body == Body::Chunks,
            trailers,
            bounds,
            reserved: Rc::clone(reserved),
            buffer,
            out: Vec::new(),
            sent: 0,
            flushed: true,
            bytes: 0,
            bytes_max: plan.limits.body_bytes.unwrap_or(u64::MAX),
            waits,
            patience: Timer::default(),
            quiet_max: plan.timeouts.body,
            trickle: rate.map(|rate| MinRate::new(rate, plan.timeouts.body)),
            begun: false,
            answered: false,
            state: State::Moving,
        }
    }

    /// How many bytes of it have come.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether all of it was given to the upstream.
    pub(super) fn is_through(&self) -> bool {
        self.state == State::Through
    }

    /// Whether a part of it was given to an upstream, and cannot be given to another.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// What the client did wrong.
    pub(super) fn fault(&self) -> Option<ErrorCode> {
        match self.state {
            State::Fault(reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether the client waits to be told that it may go on.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// Ends the wait for `100 Continue`. Returns whether one must be sent: not to a client that has
    /// sent its body already.
    pub(super) fn go(&mut self) -> bool {
        self.patience.stop();
        std::mem::replace(&mut self.waits, false) && self.buffer.is_empty()
    }

    /// The head of the answer has come: how slowly the rest comes matters to nobody.
    pub(super) fn answered(&mut self) {
        self.answered = true;
        self.trickle = None;
    }

    /// What came behind the body.
    pub(super) fn into_left(self) -> Vec<u8> {
        self.buffer
    }

    /// Puts what has come of it behind the head, if the upstream need not be asked first.
    pub(super) fn begin(&mut self, head: &mut Vec<u8>) {
        if !self.waits
            && let Err(reason) = self.take()
        {
            self.state = State::Fault(reason);
        }
        head.append(&mut self.out);
        if self.rest.has_ended() && self.state == State::Moving {
            self.state = State::Through;
        }
    }

    /// Moves what can be moved now. Says whether something was.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        client: &mut impl BodySource,
        upstream: &mut Stream,
    ) -> bool {
        let mut moved = false;
        while self.state == State::Moving {
            if self.sent < self.out.len() {
                let out = &self.out[self.sent..];
                match Pin::new(&mut *upstream).poll_write(context, out) {
                    Poll::Ready(Ok(taken)) if taken > 0 => {
                        self.sent += taken;
                        (self.begun, self.flushed, moved) = (true, false, true);
                    }
                    Poll::Ready(_) => self.state = State::Deaf,
                    Poll::Pending => return moved,
                }
                continue;
            }
            self.out.clear();
            self.sent = 0;
            match self.poll_out(context, client, upstream) {
                Poll::Ready(Ok(more)) => moved |= more,
                Poll::Ready(Err(state)) => self.state = state,
                Poll::Pending => return moved,
            }
        }
        moved
    }

    /// Finds something to write, or says how it ends.
    fn poll_out(
        &mut self,
        context: &mut Context<'_>,
        client: &mut impl BodySource,
        upstream: &mut Stream,
    ) -> Poll<Result<bool, State>> {
        if !self.waits && self.take().map_err(State::Fault)? {
            return Poll::Ready(Ok(false));
        }
        if !self.flushed {
            // TLS buffers what is written until it is flushed.
            match Pin::new(upstream).poll_flush(context) {
                Poll::Ready(Ok(())) => self.flushed = true,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(State::Deaf)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.rest.has_ended() {
            return Poll::Ready(Err(State::Through));
        }
        if self.waits {
            if !self.answered || !self.poll_patience(context) {
                return Poll::Pending;
            }
            // Who has the head of an answer is not told any more, but may send all the same.
            self.go();
        }
        self.poll_client(context, client).map_err(State::Fault)
    }

    /// Reads more from the client, in time.
    fn poll_client(
        &mut self,
        context: &mut Context<'_>,
        client: &mut impl BodySource,
    ) -> Poll<Result<bool, ErrorCode>> {
        match client.poll_bytes(context, &mut self.buffer) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(ErrorCode::BodyBroken)),
            Poll::Ready(Ok(bytes)) => {
                self.patience.stop();
                if let Some(trickle) = &mut self.trickle {
                    trickle.came(Instant::now(), bytes as u64);
                }
                Poll::Ready(Ok(true))
            }
            Poll::Ready(Err(reason)) => Poll::Ready(Err(reason)),
            Poll::Pending => {
                let trickle = self.trickle.as_mut();
                let credit = trickle.map(|trickle| trickle.wait(Instant::now()));
                let within = credit.map_or(self.quiet_max, |it| it.min(self.quiet_max));
                match self.patience.poll_over(context, within) {
                    true => Poll::Ready(Err(ErrorCode::BodyTimedOut)),
                    false => Poll::Pending,
                }
            }
        }
    }

    /// Whether the upstream has taken too long to say whether it wants the body.
    pub(super) fn poll_patience(&mut self, context: &mut Context<'_>) -> bool {
        self.waits && self.patience.poll_over(context, CONTINUE_AFTER)
    }

    /// All of it, for watershed itself, up to so many bytes.
    pub(super) async fn collect(
        &mut self,
        client: &mut impl BodySource,
        bytes_max: u64,
    ) -> Result<Vec<u8>, ErrorCode> {
        (self.bytes_max, self.chunked) = (bytes_max, false);
        loop {
            self.take()?;
            if self.rest.has_ended() {
                self.state = State::Through;
                return Ok(std::mem::take(&mut self.out));
            }
            let more = std::future::poll_fn(|context| self.poll_client(context, client));
            more.await?;
        }
    }

    /// Frames anew what has come. Whether there is something to write.
    fn take(&mut self) -> Result<bool, ErrorCode> {
        let mut taken = 0;
        let before = self.out.len();
        loop {
            let frames = self.rest.frames(&self.buffer[taken..])?;
            let end = taken + frames.bytes;
            if frames.trailers > 0 && self.chunked {
                let trailers = match self.trailers {
                    true => &self.buffer[end - frames.trailers..end],
                    false => b"\r\n",
                };
                self.out.extend_from_slice(b"0\r\n");
                write_trailers(trailers, self.bounds, &self.reserved, &mut self.out)?;
            }
            let data = self.rest.data(&self.buffer[end..]);
            taken = end + data;
            if data == 0 {
                break;
            }
            self.bytes += data as u64;
            if self.bytes > self.bytes_max {
                return Err(ErrorCode::BodyTooLong);
            }
            if !self.chunked && before == 0 && taken == self.buffer.len() && end == 0 {
                // All that came is data: it need not be copied.
                std::mem::swap(&mut self.out, &mut self.buffer);
                self.buffer.clear();
                return Ok(true);
            }
            if self.chunked {
                // A vector takes all that is written.
                let _ = write!(self.out, "{data:x}\r\n");
            }
            self.out.extend_from_slice(&self.buffer[end..taken]);
            if self.chunked {
                self.out.extend_from_slice(b"\r\n");
            }
        }
        self.buffer.drain(..taken);
        Ok(self.out.len() > before)
    }
}
