//! Gives an answer to the client: its head, and its body as it comes.

use crate::proxy::h1::response_head::Follows;
use crate::proxy::h1::server::Straight;
use crate::proxy::pipeline::{Finished, Going};
use crate::proxy::h1::body::{Rest, Watched};
use crate::proxy::request_body::Upload;
use crate::proxy::observe::access_log::End;
use crate::upstream::{Bare, Stream};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// An upload that goes on beside the answer, and where it goes.
type Beside<'a> = Option<(&'a mut Upload, &'a mut Stream)>;

/// What waiting for an upstream has brought.
enum Heard {
    /// More of the answer.
    More,
    /// The upstream has closed its side.
    Closed,
    /// It broke off, or takes too long.
    Broken,
    /// The client has left.
    Left,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Straight<'_, S> {
    /// Gives the client the head of an answer, which is in `out`, and the rest of it, of which
    /// `said` was read. False when the connection cannot be used any more.
    pub(super) async fn relay(
        &mut self,
        (going, finished): (&Going<'_>, &Finished),
        (bare, mut upload): (Option<Bare>, Option<&mut Upload>),
        (mut out, mut said): (Vec<u8>, Vec<u8>),
        reset: Pin<&mut impl Future<Output = ()>>,
    ) -> bool {
        let mut rest = Rest::new(finished.follows, finished.framed.clone());
        said.drain(..finished.head_bytes);
        let copied = rest.copy(&mut said, &mut out);
        let given = self.give(going, &out).await;
        let Some(mut bare) = bare else {
            if !given {
                going.note(|entry| entry.ends(End::Left));
            }
            // Watershed's own words are whole.
            self.worker.rooms.give(out);
            self.worker.rooms.give(said);
            return given;
        };
        if given {
            let data = *copied.as_ref().unwrap_or(&0);
            going.note(|entry| entry.gave(data as u64));
        }
        let mut now = None;
        let whole = match (given && copied.is_ok(), rest.has_ended()) {
            (true, true) => {
                going.note(|entry| entry.ends(End::Complete));
                // All of it came at once: the clock need not be asked again.
                now = Some(finished.at);
                true
            }
            (true, false) => {
                let mut watched = Watched::new(going.unfinished(self.worker, finished));
                let rooms = (&mut out, &mut said);
                let upstream = (&mut bare, upload.as_deref_mut());
                let whole = self.stream(going, &mut rest, finished, upstream, rooms, reset);
                let whole = whole.await;
                if whole {
                    watched.let_off();
                }
                whole
            }
            (false, _) => {
                if given {
                    going.note(|entry| entry.ends(End::Broken));
                }
                let left = finished.follows != Follows::Nothing;
                drop(Watched::new(
                    going.unfinished(self.worker, finished).filter(|_| left),
                ));
                false
            }
        };
        let through = upload.is_none_or(|upload| upload.is_through());
        if whole && finished.keeps && said.is_empty() && through {
            bare.give_back(now.unwrap_or_else(Instant::now));
        }
        self.answered = now;
        self.worker.rooms.give(out);
        self.worker.rooms.give(said);
        whole
    }

    /// Streams what comes behind the first part.
    async fn stream(
        &mut self,
        going: &Going<'_>,
        rest: &mut Rest,
        finished: &Finished,
        (bare, mut upload): (&mut Bare, Option<&mut Upload>),
        (out, said): (&mut Vec<u8>, &mut Vec<u8>),
        mut reset: Pin<&mut impl Future<Output = ()>>,
    ) -> bool {
        if rest.is_wide() {
            let narrow = std::mem::replace(said, self.worker.rooms.take_wide());
            said.extend_from_slice(&narrow);
            self.worker.rooms.give(narrow);
        }
        let end = loop {
            if rest.has_ended() {
                break End::Complete;
            }
            let within = going.within(finished.quiet_max);
            let heard = match going.is_late() {
                true => Heard::Broken,
                false => {
                    let upstream = (&mut *bare, upload.as_deref_mut());
                    self.hear(upstream, said, within, reset.as_mut()).await
                }
            };
            match heard {
                Heard::Broken if going.is_late() => break End::Late,
                Heard::Closed => match rest.close() {
                    Some(last) if self.give(going, last).await => break End::Complete,
                    Some(_) => break End::Left,
                    None => break End::Broken,
                },
                Heard::Left => break End::Left,
                Heard::Broken => break End::Broken,
                Heard::More => {}
            }
            let beside = upload
                .as_deref_mut()
                .map(|upload| (upload, &mut bare.stream));
            let (given, bytes) = if rest.is_wide() {
                let Ok(taken) = rest.take(said) else {
                    break End::Broken;
                };
                let given = self.give_beside(going, &said[..taken.pass], beside).await;
                said.drain(..taken.pass);
                (given, taken.data)
            } else {
                out.clear();
                let Ok(data) = rest.copy(said, out) else {
                    break End::Broken;
                };
                (self.give_beside(going, out, beside).await, data)
            };
            if !given {
                break End::Left;
            }
            going.note(|entry| entry.gave(bytes as u64));
        };
        going.note(|entry| entry.ends(end));
        end == End::Complete
    }

    /// Reads more of an answer.
    async fn hear(
        &mut self,
        (bare, mut upload): (&mut Bare, Option<&mut Upload>),
        said: &mut Vec<u8>,
        quiet_max: Duration,
        mut reset: Pin<&mut impl Future<Output = ()>>,
    ) -> Heard {
        let mut waiting = false;
        std::future::poll_fn(|context| {
            if let Some(upload) = upload.as_deref_mut() {
                upload.poll(context, self, &mut bare.stream);
                if upload.fault().is_some() {
                    return Poll::Ready(Heard::Left);
                }
            }
            let read = pin!(bare.stream.read_buf(&mut *said)).poll(context);
            if let Poll::Ready(read) = read {
                return Poll::Ready(match read {
                    Ok(0) => Heard::Closed,
                    Ok(_) => Heard::More,
                    Err(_) => Heard::Broken,
                });
            }
            if reset.as_mut().poll(context).is_ready() {
                return Poll::Ready(Heard::Left);
            }
            if !waiting {
                waiting = true;
                self.clock.begin(context, Instant::now(), quiet_max);
                return Poll::Pending;
            }
            match self.clock.poll_over(context, quiet_max) {
                true => Poll::Ready(Heard::Broken),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Writes all of this to the client. False when it cannot be written, or not in time.
    pub(super) async fn give(&mut self, going: &Going<'_>, bytes: &[u8]) -> bool {
        self.give_beside(going, bytes, None).await
    }

    /// The same beside an upload: a client may read only when all of it was sent.
    async fn give_beside(
        &mut self,
        going: &Going<'_>,
        bytes: &[u8],
        mut beside: Beside<'_>,
    ) -> bool {
        let (mut given, mut waiting) = (0, false);
        std::future::poll_fn(|context| {
            if let Some((upload, stream)) = &mut beside {
                upload.poll(context, self, stream);
            }
            while given < bytes.len() {
                match Pin::new(&mut self.stream).poll_write(context, &bytes[given..]) {
                    Poll::Ready(Ok(taken)) if taken > 0 => {
                        (given, waiting) = (given + taken, false);
                    }
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending => return self.poll_slow(context, &mut waiting, going),
                }
            }
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
                Poll::Pending => self.poll_slow(context, &mut waiting, going),
            }
        })
        .await
    }

    fn poll_slow(
        &mut self,
        context: &mut std::task::Context<'_>,
        waiting: &mut bool,
        going: &Going<'_>,
    ) -> Poll<bool> {
        // What is left of the whole time shrinks also while the client takes a little.
        let within = going.within(going.snapshot.plan.timeouts.body);
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
