//! Bodies on their way: the client's to the upstream, the upstream's to the client. Both stream,
//! and neither is read faster than the other side takes it.

use super::access::{End, Entry, bounded};
use super::clock::Clock;
use super::direct::Streamed;
use super::record::Unfinished;
use super::reply::{ERROR_HEADER, Reason};
use super::reserved::Reserved;
use super::trickle::Trickle;
use super::upload::Upload;
use crate::upstream::Lease;
use bytes::Bytes;
use http::response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

type BoxError = Box<dyn Error + Send + Sync>;

/// How long a client that asked first is kept waiting for the upstream's word (RFC 9110, 10.1.1).
const CONTINUE_AFTER: Duration = Duration::from_secs(1);

/// A request's body on its way to an upstream.
#[derive(Debug)]
pub struct Outgoing(Option<Flow>);

#[derive(Debug)]
struct Flow {
    inner: Incoming,
    left_bytes: u64,
    upload: Rc<Upload>,
    patience: Clock,
    quiet_max: Option<Duration>,
    trickle: Option<Trickle>,
    reserved: Rc<Reserved>,
}

impl Outgoing {
    /// A client's body, up to this many bytes, without reserved names in its trailers. Its pauses
    /// are watched here where a `quiet_max` is given: for HTTP/2, which has no gate. Its rate is
    /// watched where one is given, until the upstream answers.
    pub fn new(
        body: Incoming,
        max_bytes: Option<u64>,
        upload: Upload,
        (quiet_max, trickle): (Option<Duration>, Option<Trickle>),
        reserved: Rc<Reserved>,
    ) -> Outgoing {
        Outgoing(Some(Flow {
            inner: body,
            left_bytes: max_bytes.unwrap_or(u64::MAX),
            upload: Rc::new(upload),
            patience: Clock::default(),
            quiet_max,
            trickle,
            reserved,
        }))
    }

    /// No body.
    pub fn empty() -> Outgoing {
        Outgoing(None)
    }

    /// What becomes of it; `None` when there is none.
    pub fn upload(&self) -> Option<Rc<Upload>> {
        self.0.as_ref().map(|flow| Rc::clone(&flow.upload))
    }
}

impl Flow {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let upload = &self.upload;
        if upload.is_cancelled() {
            return Poll::Ready(Some(Err("the answer came before the body's end".into())));
        }
        upload.listen(context);
        if !upload.may_go() {
            if !self.patience.poll_over(context, CONTINUE_AFTER) {
                return Poll::Pending;
            }
            upload.go();
            self.patience.stop();
        }
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) else {
            let trickle = self.trickle.as_mut().filter(|_| !upload.is_answered());
            let credit = trickle.map(|trickle| trickle.wait(Instant::now()));
            let within = self.quiet_max.into_iter().chain(credit).min();
            let late = |within| self.patience.poll_over(context, within);
            if within.is_some_and(late) {
                upload.fail(Reason::BodyTimedOut);
                return Poll::Ready(Some(Err(Reason::BodyTimedOut.into())));
            }
            return Poll::Pending;
        };
        self.patience.stop();
        match frame {
            Some(Ok(mut frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                if bytes > self.left_bytes {
                    upload.fail(Reason::BodyTooLong);
                    return Poll::Ready(Some(Err(Reason::BodyTooLong.into())));
                }
                self.left_bytes -= bytes;
                if let Some(trickle) = &mut self.trickle {
                    trickle.came(Instant::now(), bytes);
                }
                if let Some(trailers) = frame.trailers_mut() {
                    super::hops::remove_from_trailers(trailers, &self.reserved);
                }
                upload.moved(bytes);
                if self.inner.is_end_stream() {
                    upload.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                upload.fail(fault(&error));
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                upload.finish();
                Poll::Ready(None)
            }
        }
    }
}

/// What the gate said of a body, or else that it broke off.
fn fault(error: &hyper::Error) -> Reason {
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>());
    let fault = cause.and_then(io::Error::get_ref);
    fault
        .and_then(|fault| fault.downcast_ref::<Reason>().copied())
        .unwrap_or(Reason::BodyBroken)
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Some(flow) => flow.poll(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|flow| flow.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Some(flow) => flow.inner.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// An answer's body on its way to the client.
#[derive(Debug)]
pub enum Answer {
    /// Watershed's own words.
    Own(Full<Bytes>),
    /// The upstream's.
    Passed(Passed),
    /// The upstream's, on the straight way.
    Streamed(Box<Streamed>),
}

impl Answer {
    /// Logs a request whose answer has this head, when its body has ended.
    pub fn log(&mut self, mut entry: Box<Entry>, head: &response::Parts) {
        let error = head.headers.get(ERROR_HEADER);
        let error = error.map(|token| bounded(token.as_bytes()).into());
        entry.answered(head.status.as_u16(), error);
        match self {
            Answer::Own(own) => entry.own(own.size_hint().lower()),
            Answer::Passed(passed) => passed.log(entry),
            Answer::Streamed(streamed) => streamed.log(Some(entry)),
        }
    }
}

/// An upstream's body. When it was read to its end the connection is kept; when the client
/// leaves before, it is closed.
#[derive(Debug)]
pub struct Passed {
    inner: Incoming,
    lease: Option<Lease<Outgoing>>,
    upload: Option<Rc<Upload>>,
    reserved: Rc<Reserved>,
    quiet: Clock,
    quiet_max: Duration,
    /// When all of it must be there.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Recorded unless the body reaches its end.
    unfinished: Option<Box<Unfinished>>,
    /// Logged at the end, whichever it is.
    entry: Option<Box<Entry>>,
}

impl Passed {
    /// The body of an answer, the connection that it comes over, the request's body that may still
    /// be on its way, the names that trailers must not have, the longest pause, and when it must
    /// have ended.
    pub fn new(
        inner: Incoming,
        lease: Lease<Outgoing>,
        upload: Option<Rc<Upload>>,
        reserved: Rc<Reserved>,
        quiet_max: Duration,
        deadline: Option<Instant>,
    ) -> Passed {
        let deadline = deadline.filter(|_| !inner.is_end_stream());
        let until = |deadline: Instant| Box::pin(tokio::time::sleep_until(deadline.into()));
        let mut passed = Passed {
            inner,
            lease: Some(lease),
            upload,
            reserved,
            quiet: Clock::default(),
            quiet_max,
            deadline: deadline.map(until),
            unfinished: None,
            entry: None,
        };
        if passed.inner.is_end_stream() {
            passed.keep();
        }
        passed
    }

    /// Records it if the body does not reach its end from here.
    pub fn watch(&mut self, unfinished: Option<Box<Unfinished>>) {
        if !self.inner.is_end_stream() {
            self.unfinished = unfinished;
        }
    }

    /// Logs it when it has ended.
    pub fn log(&mut self, mut entry: Box<Entry>) {
        if self.inner.is_end_stream() {
            entry.ends(End::Complete);
        } else {
            self.entry = Some(entry);
        }
    }

    fn complete(&mut self) {
        self.unfinished = None;
        if let Some(mut entry) = self.entry.take() {
            entry.ends(End::Complete);
        }
        self.keep();
    }

    fn late(&mut self, end: End, why: &str) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.broken(end);
        let late = io::Error::new(io::ErrorKind::TimedOut, why);
        Poll::Ready(Some(Err(late.into())))
    }

    /// It has broken off.
    fn broken(&mut self, end: End) {
        self.lease = None;
        if let Some(mut entry) = self.entry.take() {
            entry.ends(end);
        }
        self.broke_off();
    }

    fn broke_off(&mut self) {
        if let Some(unfinished) = self.unfinished.take() {
            unfinished.record();
        }
    }

    /// Gives the connection back, if the request is through as well as the answer.
    fn keep(&mut self) {
        let through = self
            .upload
            .as_ref()
            .is_none_or(|upload| upload.is_through());
        if let Some(lease) = self.lease.take_if(|_| through) {
            lease.give_back();
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let over = |deadline: &mut Pin<Box<Sleep>>| deadline.as_mut().poll(context).is_ready();
        if self.deadline.as_mut().is_some_and(over) {
            return self.late(End::Late, "the answer takes too long");
        }
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) else {
            return match self.quiet.poll_over(context, self.quiet_max) {
                true => self.late(End::Broken, "the upstream fell silent"),
                false => Poll::Pending,
            };
        };
        self.quiet.stop();
        match frame {
            Some(Ok(mut frame)) => {
                let mut is_last = self.inner.is_end_stream();
                if let Some(trailers) = frame.trailers_mut() {
                    super::hops::remove_from_trailers(trailers, &self.reserved);
                    // Nothing follows them, and nobody asks again.
                    is_last = true;
                }
                if let Some(entry) = &mut self.entry {
                    entry.gave(frame.data_ref().map_or(0, |data| data.len() as u64));
                }
                if is_last {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            // The connection's state is unknown: it is closed.
            Some(Err(error)) => {
                self.broken(End::Broken);
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                self.complete();
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        // Nobody reads on at the other end.
        self.broke_off();
        if let Some(upload) = &self.upload {
            upload.cancel();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Answer::Own(full) => Pin::new(full)
                .poll_frame(context)
                .map_err(|never| match never {}),
            Answer::Passed(passed) => passed.poll(context),
            Answer::Streamed(streamed) => streamed.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Own(full) => full.is_end_stream(),
            Answer::Passed(passed) => passed.inner.is_end_stream(),
            Answer::Streamed(streamed) => streamed.has_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Own(full) => full.size_hint(),
            Answer::Passed(passed) => passed.inner.size_hint(),
            Answer::Streamed(streamed) => match streamed.left_bytes() {
                Some(left) => SizeHint::with_exact(left),
                None => SizeHint::default(),
            },
        }
    }
}
