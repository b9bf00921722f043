//! A plain request of HTTP/2: it is written down as one of HTTP/1 would be, and goes the same way.

use super::exchange::{self, Bare, Client, Heard};
use super::going::{self, By, Finished, Found, Going};
use super::request::Ours;
use super::rest::{Rest, Watched};
use super::streamed::Streamed;
use super::transcript;
use crate::proxy::body::Answer;
use crate::proxy::clock::Clock;
use crate::proxy::handle;
use crate::proxy::headers;
use crate::proxy::snapshot::Worker;
use bytes::{Bytes, BytesMut};
use http::{Request, Response, Version};
use http_body::Body;
use http_body_util::Full;
use std::pin::pin;
use std::rc::Rc;

/// Who asks.
#[derive(Debug)]
pub struct Asker {
    ours: Ours,
    client: handle::Client,
}

/// Waits for the answer to one request.
struct Waiting<'a> {
    worker: &'a Rc<Worker>,
    clock: Clock,
}

impl Client for Waiting<'_> {
    fn worker(&self) -> &Rc<Worker> {
        self.worker
    }

    fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    /// hyper has no way to send it.
    async fn tell(&mut self, _: &Going<'_>, _: &[u8]) -> bool {
        true
    }
}

impl Asker {
    /// The client of one connection.
    pub fn new(worker: &Worker, client: handle::Client) -> Asker {
        let trusted = headers::trusts(&worker.snapshot().plan, client.ip);
        Asker {
            ours: Ours::new(client.ip, trusted, true),
            client,
        }
    }

    /// The same client on the other way; with `admitted`, the rate limit has let the request
    /// through already.
    pub fn client(&self, admitted: bool) -> handle::Client {
        handle::Client {
            admitted,
            ..self.client.clone()
        }
    }

    /// Answers a request if it is plain, or says whether the rate limit was asked and let it
    /// through.
    pub async fn answer<B: Body>(
        &self,
        worker: &Rc<Worker>,
        request: &Request<B>,
    ) -> Result<Response<Answer>, bool> {
        let snapshot = worker.snapshot();
        let trusted = headers::trusts(&snapshot.plan, self.client.ip);
        if trusted != self.ours.trusted || !request.body().is_end_stream() {
            return Err(false);
        }
        let mut admitted = false;
        let by = By {
            ours: &self.ours,
            peer: self.client.ip,
            secure: self.client.secure,
            version: Version::HTTP_2,
            requests: 0,
            admitted: &mut admitted,
        };
        let (mut held, mut asking) = (worker.rooms.take(), worker.rooms.take());
        let found = match transcript::write(request, &mut held) {
            true => going::find(worker, snapshot, by, &held, &mut asking),
            false => Found::Other,
        };
        let answer = match found {
            Found::Go(mut going) => ask(worker, &mut going, &mut asking).await,
            // It is whole: that there could be more of it is for others to say.
            Found::Other | Found::More => None,
        };
        worker.rooms.give(held);
        worker.rooms.give(asking);
        answer.ok_or(admitted)
    }
}

async fn ask(
    worker: &Rc<Worker>,
    going: &mut Going<'_>,
    asking: &mut [u8],
) -> Option<Response<Answer>> {
    let mut waiting = Waiting {
        worker,
        clock: Clock::default(),
    };
    let mut said = worker.rooms.take();
    let mut head = Response::new(());
    // Whoever resets a stream is dropped with all that waits for it.
    let reset = pin!(std::future::pending());
    let heard = exchange::ask(&mut waiting, going, asking, &mut said, &mut head, reset);
    let body = match heard.await {
        Heard::Answer(finished, bare) => passed(worker, going, finished, bare, &said),
        Heard::Refused(refusal, fallback) => {
            handle::note(worker, &refusal);
            going.trail(|trail| trail.failed(&refusal));
            said.clear();
            let own = going.refuse(worker, refusal.reason, fallback, &mut said, &mut head)?;
            let text = said.get(own.head_bytes..).unwrap_or_default();
            Answer::Own(Full::new(Bytes::copy_from_slice(text)))
        }
        Heard::Other | Heard::Gone => return None,
    };
    worker.vitals().requests.add();
    worker.rooms.give(said);
    Some(head.map(|()| body))
}

/// The body of an answer, of which all that was `said` has been read.
fn passed(
    worker: &Rc<Worker>,
    going: &mut Going<'_>,
    finished: Finished,
    bare: Bare,
    said: &[u8],
) -> Answer {
    let mut rest = Rest::new(finished.follows);
    let first = said.get(finished.head_bytes..).unwrap_or_default();
    if finished.follows.is_within(first) {
        let data = &first[..rest.data(first)];
        if finished.keeps && data.len() == first.len() {
            bare.give_back(finished.at);
        }
        going.note(|entry| entry.own(data.len() as u64));
        return Answer::Own(Full::new(Bytes::copy_from_slice(data)));
    }
    let watched = Watched::new(going.unfinished(worker, &finished));
    let mut streamed = Streamed::new(
        (bare, finished.keeps),
        rest,
        BytesMut::from(first),
        Rc::clone(&going.snapshot.words.reserved),
        watched,
        (finished.quiet_max, going.deadline),
    );
    streamed.log(going.take_entry());
    Answer::Streamed(Box::new(streamed))
}
