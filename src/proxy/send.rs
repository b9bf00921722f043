//! Asks an upstream on a bare connection, and again where that may be done.

use crate::proxy::h1::response_head::{self, Answer, Head, Read};
use crate::proxy::pipeline::{Finished, Going};
use crate::proxy::h1::partial_head::Partial;
use crate::proxy::h1::body::{Framed, Rest};
use crate::proxy::request_body::{CONTINUE, Source, Upload};
use crate::experiment::{ExperimentIndex, UpstreamIndex};
use crate::proxy::timer::Clock;
use crate::proxy::headers::hop_by_hop;
use crate::proxy::error_response::{Reason, Refusal};
use crate::proxy::snapshot::Worker;
use crate::proxy::observe::spans::Trail;
use crate::upstream::{Bare, LendError, Need, Stream, Wish};
use http::{Method, Version};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWrite};

/// How often one request may be sent.
const ATTEMPTS_MAX: u32 = 3;
/// How many interim answers may come before the final one.
const INTERIM_MAX: usize = 64;

/// What asking has brought.
pub enum Heard {
    /// An answer, recorded, and the connection that the rest of it comes over.
    Answer(Finished, Bare),
    /// Watershed's own.
    Own(Finished),
    /// None, and what is said instead.
    Refused(Refusal, Option<ExperimentIndex>),
    /// The client has left.
    Gone,
}

impl Heard {
    /// Nobody is asked.
    pub fn refused(reason: Reason) -> Heard {
        Heard::Refused(Refusal::new(reason), None)
    }
}

/// For whom an upstream is asked.
pub trait Client: Source {
    /// Whose client it is.
    fn worker(&self) -> &Rc<Worker>;
    /// The address of the client, or of the one that a trusted peer speaks for.
    fn peer(&self) -> IpAddr;
    /// Times what is waited for.
    fn clock(&mut self) -> &mut Clock;
    /// Tells it of an interim answer. False when it cannot be told anything any more.
    async fn tell(&mut self, going: &Going<'_>, interim: &[u8]) -> bool;
}

/// What is sent, and where the answer goes.
struct Attempt<'a, H> {
    going: &'a Going<'a>,
    fallback: Option<ExperimentIndex>,
    request: &'a [u8],
    upload: Option<&'a mut Upload>,
    said: &'a mut Vec<u8>,
    head: &'a mut H,
    /// When it is made, where that is known.
    now: Option<Instant>,
}

/// Why one attempt has brought no answer.
enum Failed {
    /// It broke off; with `unsent`, before a byte of the request was taken.
    Broken {
        error: io::Error,
        unsent: bool,
    },
    Unsound,
    TimedOut,
    /// The client did this wrong.
    Client(Reason),
    Gone,
}

/// What waiting has brought.
enum Came {
    Read(io::Result<usize>),
    /// The upstream has taken its time: the client need not wait for its word any longer.
    Go,
}

/// Sends the request and reads the head of its answer into `said`; the head that the client gets
/// is written into `head`.
pub async fn ask<C: Client, H: Head>(
    client: &mut C,
    going: &Going<'_>,
    (request, mut upload): (&mut Vec<u8>, Option<&mut Upload>),
    said: &mut Vec<u8>,
    head: &mut H,
    mut reset: Pin<&mut impl Future<Output = ()>>,
) -> Heard {
    if let Some(reason) = upload.as_ref().and_then(|upload| upload.fault()) {
        return Heard::Refused(Refusal::new(reason), None);
    }
    let upstreams = &going.snapshot.upstreams;
    let (mut upstream, mut fallback) = (going.wanted(), None);
    let mut attempts = 0;
    going.trail(|trail| trail.begins(upstream));
    going.note(|entry| entry.sent(upstream, None, attempts, fallback));
    let at_once = upstreams.lend_now(wish(going, upstream), going.began);
    let mut now = at_once.is_some().then_some(going.began);
    let mut bare = match at_once {
        Some(bare) => bare,
        None => {
            let lending = Box::pin(lend(client.worker(), going, &mut upstream, &mut fallback));
            let lent = tokio::select! {
                biased;
                lent = lending => lent,
                () = reset.as_mut() => return Heard::Gone,
                () = until(going.deadline) => Err(Refusal::new(Reason::TotalTimedOut)),
            };
            going.note(|entry| entry.sent(upstream, None, attempts, fallback));
            match lent {
                Ok(bare) => bare,
                Err(refusal) => return Heard::Refused(refusal, fallback),
            }
        }
    };
    loop {
        attempts += 1;
        said.clear();
        let endpoint = &bare.endpoint().address;
        going.goes(endpoint, request);
        going.note(|entry| entry.sent(upstream, Some(endpoint), attempts, fallback));
        let attempt = Attempt {
            going,
            fallback,
            request,
            upload: upload.as_deref_mut(),
            said,
            head,
            now: now.take(),
        };
        let failed = match try_once(client, &mut bare.stream, attempt, reset.as_mut()).await {
            Ok(finished) => {
                bare.endpoint().served();
                return Heard::Answer(finished, bare);
            }
            Err(failed) => failed,
        };
        let Some((refusal, unsent)) = refusal_for(failed, going, &bare) else {
            return Heard::Gone;
        };
        let others = upstreams.has_others(upstream);
        let unsent = unsent && !upload.as_ref().is_some_and(|upload| upload.has_begun());
        let repeats = going.method.is_safe() && !going.has_body && (bare.reused || others);
        // An answer that cannot be read is one: it would be no better a second time.
        let again = refusal.reason == Reason::Broken && (unsent || repeats);
        if !again || attempts == ATTEMPTS_MAX {
            return Heard::Refused(refusal, fallback);
        }
        let (endpoint, reused) = (bare.endpoint().clone(), bare.reused);
        drop(bare);
        going.trail(|trail| {
            trail.failed(&refusal);
            trail.begins(upstream);
        });
        let wish = wish(going, upstream);
        let lending = Box::pin(upstreams.lend_again(wish, &endpoint, reused));
        let lent = tokio::select! {
            biased;
            lent = lending => lent,
            () = until(going.deadline) => {
                let refusal = Refusal::new(Reason::TotalTimedOut);
                return Heard::Refused(refusal, fallback);
            }
        };
        bare = match lent {
            Some(Ok(bare)) => bare,
            Some(Err(error)) => return Heard::Refused(refusal_of(error), fallback),
            None => {
                going.trail(Trail::forgets);
                return Heard::Refused(refusal, fallback);
            }
        };
    }
}

/// Why an attempt has failed, and whether nothing of the request was taken. Counts it against the
/// endpoint, if it is to blame. `None` when the client has left.
fn refusal_for(failed: Failed, going: &Going<'_>, bare: &Bare) -> Option<(Refusal, bool)> {
    // A connection that was idle may have been closed for that.
    let to_blame = !bare.reused;
    let (refusal, unsent, counts) = match failed {
        Failed::Gone => return None,
        Failed::TimedOut if going.is_late() => (Refusal::new(Reason::TotalTimedOut), false, false),
        Failed::TimedOut => (Refusal::new(Reason::ResponseTimedOut), false, true),
        Failed::Client(reason) => (Refusal::new(reason), false, false),
        Failed::Unsound => (Refusal::new(Reason::Unsound), false, to_blame),
        Failed::Broken { error, unsent } => {
            let refusal = Refusal::because(Reason::Broken, error);
            (refusal, unsent, to_blame)
        }
    };
    if counts {
        bare.endpoint().failed();
    }
    Some((refusal, unsent))
}

fn wish<'a>(going: &'a Going<'_>, upstream: UpstreamIndex) -> Wish<'a> {
    Wish {
        upstream,
        need: match going.upgrade {
            Some(_) => Need::Http1,
            None => Need::Any,
        },
        user: going.user(),
    }
}

/// Why a connection could not be lent.
fn refusal_of(error: LendError) -> Refusal {
    let reason = match error {
        LendError::Unresolved { .. } => Reason::Unresolved,
        LendError::Refused { .. } => Reason::Refused,
        LendError::Distrusted { .. } => Reason::Distrusted,
        LendError::TimedOut { .. } => Reason::ConnectTimedOut,
        LendError::Busy { .. } => Reason::Busy,
        LendError::Down { .. } => Reason::Down,
    };
    Refusal::because(reason, error)
}

/// Resolves then, or never.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// A connection to where the request goes, or to control where that cannot be connected to.
async fn lend(
    worker: &Worker,
    going: &Going<'_>,
    upstream: &mut UpstreamIndex,
    fallback: &mut Option<ExperimentIndex>,
) -> Result<Bare, Refusal> {
    let snapshot = &going.snapshot;
    let wish = |upstream| wish(going, upstream);
    let refused = match snapshot.upstreams.lend(wish(*upstream)).await {
        Ok(bare) => return Ok(bare),
        // One that is busy is not down: its users stay, and their errors count.
        Err(error @ LendError::Busy { .. }) => return Err(refusal_of(error)),
        Err(error) => refusal_of(error),
    };
    let instead = going.visit.chosen.and_then(|(experiment, _, wanted)| {
        let control = snapshot.plan.control_upstream(experiment)?;
        (control != wanted).then_some((experiment, control))
    });
    let Some((experiment, control)) = instead else {
        return Err(refused);
    };
    worker.telemetry().fallbacks.add();
    (*upstream, *fallback) = (control, Some(experiment));
    going.trail(|trail| {
        trail.failed(&refused);
        trail.begins(control);
    });
    let lent = snapshot.upstreams.lend(wish(control)).await;
    lent.map_err(refusal_of)
}

/// A request on its way over a connection, and the wait for what comes back.
struct Sending<'a> {
    stream: &'a mut Stream,
    request: &'a [u8],
    sent: usize,
    flushed: bool,
    /// Why the upstream takes no more. What it said last may still be read.
    deaf: Option<io::Error>,
    /// Whether the time of the response's head runs: all of it has one, however many reads it takes.
    waiting: bool,
    /// When the attempt is made, where that is known.
    now: Option<Instant>,
}

impl Sending<'_> {
    /// Writes what can be written of the request, without a body that follows.
    fn poll_write(&mut self, context: &mut Context<'_>) {
        while self.sent < self.request.len() && self.deaf.is_none() {
            let rest = &self.request[self.sent..];
            match Pin::new(&mut *self.stream).poll_write(context, rest) {
                Poll::Ready(Ok(taken)) if taken > 0 => self.sent += taken,
                Poll::Ready(Ok(_)) => self.deaf = Some(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Err(error)) => self.deaf = Some(error),
                Poll::Pending => break,
            }
        }
        if self.sent == self.request.len() && !self.flushed {
            // TLS keeps what is written until it is told to send it.
            self.flushed = Pin::new(&mut *self.stream).poll_flush(context).is_ready();
        }
    }

    /// Moves the request and its body, and reads into `said`, in time.
    fn poll<C: Client>(
        &mut self,
        context: &mut Context<'_>,
        client: &mut C,
        upload: Option<&mut Upload>,
        said: &mut Vec<u8>,
    ) -> Poll<Result<Came, Failed>> {
        self.poll_write(context);
        if let Some(upload) = upload.filter(|_| self.flushed) {
            // A body that is still on its way takes the time it takes.
            self.waiting &= !upload.poll(context, client, self.stream);
            if let Some(reason) = upload.fault() {
                return Poll::Ready(Err(Failed::Client(reason)));
            }
            if upload.poll_patience(context) {
                return Poll::Ready(Ok(Came::Go));
            }
        }
        let read = pin!(self.stream.read_buf(said)).poll(context);
        if let Poll::Ready(read) = read {
            return Poll::Ready(Ok(Came::Read(read)));
        }
        Poll::Pending
    }

    /// Whether the head of the response has taken too long.
    fn poll_late<C: Client>(
        &mut self,
        context: &mut Context<'_>,
        client: &mut C,
        going: &Going<'_>,
    ) -> Poll<Result<Came, Failed>> {
        let longest = going.snapshot.plan.timeouts.response;
        if !self.waiting {
            self.waiting = true;
            let now = self.now.take().unwrap_or_else(Instant::now);
            if going.is_late() {
                return Poll::Ready(Err(Failed::TimedOut));
            }
            let within = going.within_from(now, longest);
            client.clock().begin(context, now, within);
            return Poll::Pending;
        }
        match client.clock().poll_over(context, longest) {
            true => Poll::Ready(Err(Failed::TimedOut)),
            false => Poll::Pending,
        }
    }

    /// Why the connection has broken.
    fn broken(&mut self, error: io::Error) -> Failed {
        Failed::Broken {
            error: self.deaf.take().unwrap_or(error),
            unsent: self.sent == 0 || self.stream.is_unsent(),
        }
    }
}

/// Sends the request on this connection and reads until the head of the final answer is whole.
async fn try_once<C: Client, H: Head>(
    client: &mut C,
    stream: &mut Stream,
    attempt: Attempt<'_, H>,
    mut reset: Pin<&mut impl Future<Output = ()>>,
) -> Result<Finished, Failed> {
    let Attempt {
        going,
        fallback,
        request,
        mut upload,
        said,
        head,
        now,
    } = attempt;
    let mut sending = Sending {
        stream,
        request,
        sent: 0,
        flushed: false,
        deaf: None,
        waiting: false,
        now,
    };
    let to_head = going.method == Method::HEAD;
    let mut interims = 0;
    let mut partial = Partial::default();
    loop {
        let came = std::future::poll_fn(|context| {
            let upload = upload.as_deref_mut();
            let came = sending.poll(context, client, upload, said);
            if came.is_ready() {
                return came;
            }
            if reset.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(Failed::Gone));
            }
            sending.poll_late(context, client, going)
        });
        let closed = match came.await? {
            Came::Go => {
                go(client, going, upload.as_deref_mut()).await?;
                continue;
            }
            Came::Read(Ok(read)) => read == 0,
            Came::Read(Err(error)) => return Err(sending.broken(error)),
        };
        // Without the end of a line, there is nothing new but the close: what cannot be read is a
        // response, though an unsound one, and no reason to ask again.
        while closed || partial.is_news(said, response_head::HEAD_BYTES_MAX) {
            let (status, end) = match response_head::read(said, to_head, going.upgrade.is_some()) {
                Ok(Read::Final(answer)) => {
                    let body = said.get(answer.head_bytes..).unwrap_or_default();
                    let http2 = sending.stream.is_http2();
                    let (version, unread) = answered(going, &answer, (body, http2), upload)?;
                    let how = (fallback, version, unread);
                    let mut finished = going.finish(client.worker(), answer, how, head);
                    // What is left of the request would be taken for the next one.
                    finished.keeps &= sending.flushed && sending.deaf.is_none();
                    return Ok(finished);
                }
                Ok(Read::More) => break,
                Ok(Read::Interim(status, end)) => (status, end),
                Err(_) => return Err(Failed::Unsound),
            };
            interims += 1;
            if interims > INTERIM_MAX {
                return Err(Failed::Unsound);
            }
            // That a request may continue is only news to one who asked; an old client takes any
            // for the answer (RFC 9110, 15.2).
            if status == 100 {
                go(client, going, upload.as_deref_mut()).await?;
            } else if !going.http_10
                && let Some(told) = hop_by_hop::interim(&said[..end])
                && !client.tell(going, &told).await
            {
                return Err(Failed::Gone);
            }
            said.drain(..end);
            partial.reset();
            sending.waiting = false;
        }
        if closed {
            return Err(sending.broken(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Checks the beginning of the body of a final response, and ends the wait for its head. Returns
/// its version, and whether a part of the client's request is left unread.
fn answered(
    going: &Going<'_>,
    answer: &Answer<'_>,
    (body, http2): (&[u8], bool),
    upload: Option<&mut Upload>,
) -> Result<(Version, bool), Failed> {
    if !Rest::new(answer.follows, Framed::Chunks).may_begin(body) {
        return Err(Failed::Unsound);
    }
    let version = match (http2, answer.http_10) {
        (true, _) => Version::HTTP_2,
        (false, true) => Version::HTTP_10,
        (false, false) => Version::HTTP_11,
    };
    going.trail(|trail| trail.answered(answer.status, version));
    // What a client that waits for `100 Continue` sends now cannot be told apart.
    let unread = upload.is_some_and(|upload| {
        upload.answered();
        upload.waits()
    });
    Ok((version, unread))
}

/// Sends `100 Continue` to a client that waits for it.
async fn go<C: Client>(
    client: &mut C,
    going: &Going<'_>,
    upload: Option<&mut Upload>,
) -> Result<(), Failed> {
    let tells = upload.is_some_and(|upload| upload.waits() && upload.go());
    match tells && !client.tell(going, CONTINUE).await {
        true => Err(Failed::Gone),
        false => Ok(()),
    }
}
