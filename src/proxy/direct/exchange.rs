//! Asks an upstream on a bare connection, and again where that may be done.

use super::answer::{self, Head, Read};
use super::going::{Finished, Going};
use super::partial::Partial;
use super::rest::{Framed, Rest};
use super::upload::{CONTINUE, Source, Upload};
use crate::experiment::{ExperimentIndex, UpstreamIndex};
use crate::proxy::clock::Clock;
use crate::proxy::hops;
use crate::proxy::reply::{Blame, Reason, Refusal};
use crate::proxy::snapshot::Worker;
use crate::proxy::trail::Trail;
use crate::upstream::{Bare, LendError, Need, Stream, Wish};
use http::{Method, Version};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
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
    let wish = |upstream| wish(going, upstream);
    let (mut upstream, mut fallback) = (going.wanted(), None);
    let mut at_once = None;
    let mut attempts = 0;
    going.trail(|trail| trail.begins(upstream));
    going.note(|entry| entry.sent(upstream, None, attempts, fallback));
    let mut bare = match upstreams.lend_now(wish(upstream), going.began) {
        Some(bare) => {
            at_once = Some(going.began);
            bare
        }
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
            now: at_once.take(),
        };
        let failed = match try_once(client, &mut bare.stream, attempt, reset.as_mut()).await {
            Ok(finished) => {
                bare.endpoint().served();
                return Heard::Answer(finished, bare);
            }
            Err(failed) => failed,
        };
        let (refusal, unsent) = match failed {
            Failed::Gone => return Heard::Gone,
            Failed::TimedOut if going.is_late() => {
                let refusal = Refusal::new(Reason::TotalTimedOut);
                return Heard::Refused(refusal, fallback);
            }
            Failed::TimedOut => {
                bare.endpoint().failed();
                let refusal = Refusal::new(Reason::ResponseTimedOut);
                return Heard::Refused(refusal, fallback);
            }
            Failed::Client(reason) => {
                return Heard::Refused(Refusal::new(reason), fallback);
            }
            Failed::Unsound => (Refusal::new(Reason::Unsound), false),
            Failed::Broken { error, unsent } => (Refusal::because(Reason::Broken, error), unsent),
        };
        if refusal.reason.terms().2 == Blame::Upstream && !bare.reused {
            bare.endpoint().failed();
        }
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
        let lending = Box::pin(upstreams.lend_again(wish(upstream), &endpoint, reused));
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
    worker.vitals().fallbacks.add();
    (*upstream, *fallback) = (control, Some(experiment));
    going.trail(|trail| {
        trail.failed(&refused);
        trail.begins(control);
    });
    let lent = snapshot.upstreams.lend(wish(control)).await;
    lent.map_err(refusal_of)
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
        mut now,
    } = attempt;
    let longest = going.snapshot.plan.timeouts.response;
    let to_head = going.method == Method::HEAD;
    let mut sent = 0;
    let mut interims = 0;
    let mut partial = Partial::default();
    let mut deaf: Option<io::Error> = None;
    // All of the head has one time, however many reads it takes.
    let (mut waiting, mut flushed) = (false, false);
    loop {
        let read = std::future::poll_fn(|context| {
            while sent < request.len() && deaf.is_none() {
                match Pin::new(&mut *stream).poll_write(context, &request[sent..]) {
                    Poll::Ready(Ok(taken)) if taken > 0 => sent += taken,
                    Poll::Ready(Ok(_)) => deaf = Some(io::ErrorKind::WriteZero.into()),
                    // What it says last may still be heard.
                    Poll::Ready(Err(error)) => deaf = Some(error),
                    Poll::Pending => break,
                }
            }
            if sent == request.len() && !flushed {
                // TLS keeps what is written until it is told to send it.
                flushed = Pin::new(&mut *stream).poll_flush(context).is_ready();
            }
            if let Some(upload) = upload.as_deref_mut().filter(|_| flushed) {
                // A body that is still on its way takes the time it takes.
                waiting &= !upload.poll(context, client, stream);
                if let Some(reason) = upload.fault() {
                    return Poll::Ready(Err(Failed::Client(reason)));
                }
                if upload.poll_patience(context) {
                    return Poll::Ready(Ok(Came::Go));
                }
            }
            let read = pin!(stream.read_buf(&mut *said)).poll(context);
            if let Poll::Ready(read) = read {
                return Poll::Ready(Ok(Came::Read(read)));
            }
            if reset.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(Failed::Gone));
            }
            if !waiting {
                waiting = true;
                let now = now.take().unwrap_or_else(Instant::now);
                if going.is_late() {
                    return Poll::Ready(Err(Failed::TimedOut));
                }
                client
                    .clock()
                    .begin(context, now, going.within_from(now, longest));
                return Poll::Pending;
            }
            match client.clock().poll_over(context, longest) {
                true => Poll::Ready(Err(Failed::TimedOut)),
                false => Poll::Pending,
            }
        });
        let read = read.await?;
        let is_unsent = stream.is_unsent();
        let broken = |error| Failed::Broken {
            error,
            unsent: sent == 0 || is_unsent,
        };
        let closed = match read {
            Came::Go => {
                go(client, going, upload.as_deref_mut()).await?;
                continue;
            }
            Came::Read(Ok(read)) => read == 0,
            Came::Read(Err(error)) => return Err(broken(deaf.unwrap_or(error))),
        };
        // Without the end of a line, there is nothing new but the close: what cannot be read is a
        // response, though an unsound one, and no reason to ask again.
        while closed || partial.is_news(said, answer::HEAD_BYTES_MAX) {
            let (status, end) = match answer::read(said, to_head, going.upgrade.is_some()) {
                Ok(Read::Final(answer)) => {
                    let body = said.get(answer.head_bytes..).unwrap_or_default();
                    if !Rest::new(answer.follows, Framed::Chunks).may_begin(body) {
                        return Err(Failed::Unsound);
                    }
                    let version = match (stream.is_http2(), answer.http_10) {
                        (true, _) => Version::HTTP_2,
                        (false, true) => Version::HTTP_10,
                        (false, false) => Version::HTTP_11,
                    };
                    going.trail(|trail| trail.answered(answer.status, version));
                    // A client that was not told to send its body sends what cannot be told apart.
                    let mut unread = false;
                    if let Some(upload) = upload.as_deref_mut() {
                        upload.answered();
                        unread = upload.waits();
                    }
                    let how = (fallback, version, unread);
                    let mut finished = going.finish(client.worker(), answer, how, head);
                    // What is left of the request would be taken for the next one.
                    finished.keeps &= flushed && deaf.is_none();
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
                && let Some(told) = hops::interim(&said[..end])
                && !client.tell(going, &told).await
            {
                return Err(Failed::Gone);
            }
            said.drain(..end);
            partial.reset();
            waiting = false;
        }
        if closed {
            let error = io::ErrorKind::UnexpectedEof.into();
            return Err(broken(deaf.unwrap_or(error)));
        }
    }
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
