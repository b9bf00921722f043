//! A request of HTTP/2: it is written down as one of HTTP/1 would be, and goes the same way.

use crate::proxy::h1::response_head::{self, Head, More, Read, To};
use crate::proxy::send::{self, Client, Heard};
use crate::proxy::headers::forwarding::Ours;
use crate::proxy::pipeline::{self, By, Finished, Found, Going, Instead};
use crate::proxy::local_response;
use crate::proxy::h1::body::{Framed, Rest, Watched};
use crate::proxy::h2::streamed_body::Streamed;
use crate::proxy::h2::translate;
use crate::proxy::request_body::{Source, Upload};
use crate::proxy::observe::access_log;
use crate::proxy::h2::body::{Answer, Inbound};
use crate::proxy::timer::Clock;
use crate::proxy::headers::plan_headers;
use crate::proxy::policy;
use crate::proxy::error_response::Reason;
use crate::proxy::snapshot::Worker;
use crate::proxy::tunnel::Quiet;
use crate::proxy::h2::extended_connect;
use crate::upstream::Bare;
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// The client of a connection.
#[derive(Debug)]
pub struct Asker {
    ours: Ours,
    peer: IpAddr,
    secure: bool,
}

/// Waits for the answer to one request.
struct Waiting<'a> {
    worker: &'a Rc<Worker>,
    peer: IpAddr,
    clock: Clock,
    body: Inbound,
}

impl Source for Waiting<'_> {
    fn poll_bytes(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<Result<usize, Reason>> {
        self.body.poll_bytes(context, into)
    }
}

impl Client for Waiting<'_> {
    fn worker(&self) -> &Rc<Worker> {
        self.worker
    }

    fn peer(&self) -> IpAddr {
        self.peer
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
    pub fn new(worker: &Worker, peer: IpAddr, secure: bool) -> Asker {
        let trusted = plan_headers::trusts(&worker.snapshot().plan, peer);
        Asker {
            ours: Ours::new(peer, trusted, true),
            peer,
            secure,
        }
    }

    /// Answers a request. Cannot fail: what goes wrong becomes an answer.
    pub async fn answer(
        &self,
        worker: &Rc<Worker>,
        mut request: Request<Incoming>,
    ) -> Response<Answer> {
        let snapshot = worker.snapshot();
        let trusted = plan_headers::trusts(&snapshot.plan, self.peer);
        let renewed;
        let ours = match trusted == self.ours.trusted {
            true => &self.ours,
            false => {
                renewed = Ours::new(self.peer, trusted, true);
                &renewed
            }
        };
        let by = By {
            ours,
            peer: self.peer,
            secure: self.secure,
            http2: true,
            requests: 0,
        };
        let tunnel = extended_connect::asked(&mut request);
        let (mut held, mut asking) = (worker.rooms.take(), worker.rooms.take());
        let limits = &snapshot.plan.limits;
        let written = translate::write(&request, tunnel.is_some(), limits, &mut held);
        let answer = {
            let found = match written {
                Ok(()) => pipeline::find(worker, snapshot, by, &held, &mut asking),
                Err(reason) => Found::Unsound(reason),
            };
            match found {
                Found::Go(going, upload) => {
                    let client = Waiting {
                        worker,
                        peer: self.peer,
                        clock: Clock::default(),
                        body: Inbound::new(request.into_body()),
                    };
                    let sent = (&mut asking, upload);
                    ask(client, going, &held, sent, tunnel).await
                }
                Found::Unsound(reason) => refused(worker, self.peer, reason),
                // It is whole.
                Found::More => refused(worker, self.peer, Reason::Malformed),
            }
        };
        worker.rooms.give(held);
        worker.rooms.give(asking);
        answer
    }
}

/// Answers what cannot be read.
fn refused(worker: &Rc<Worker>, peer: IpAddr, reason: Reason) -> Response<Answer> {
    let said = access_log::refused(worker, peer, reason);
    let mut head = Response::new(());
    let mut text = &[][..];
    if let Ok(Read::Final(answer)) = response_head::read(&said, false, false) {
        let now_ms = crate::journal::system_ms();
        let more = &More::new();
        worker.with_date(now_ms, |date| {
            head.complete(&answer, more, date, To::default())
        });
        text = &said[answer.head_bytes..];
    }
    head.map(|()| Answer::own(Bytes::copy_from_slice(text), None))
}

async fn ask(
    mut client: Waiting<'_>,
    mut going: Going<'_>,
    held: &[u8],
    (asking, mut upload): (&mut Vec<u8>, Option<Box<Upload>>),
    tunnel: Option<OnUpgrade>,
) -> Response<Answer> {
    let worker = client.worker;
    let mut said = worker.rooms.take();
    let mut head = Response::new(());
    let heard = match going.instead {
        None => {
            // Whoever resets a stream is dropped with all that waits for it.
            let reset = pin!(std::future::pending());
            let sent = (asking, upload.as_deref_mut());
            send::ask(&mut client, &going, sent, &mut said, &mut head, reset).await
        }
        Some(Instead::Refused(reason)) => Heard::refused(reason),
        Some(instead) => {
            let body = (going.inline(held), upload.as_deref_mut());
            let own = local_response::answer(&mut client, &going, instead, body, &mut said, &mut head).await;
            own.map_or(Heard::Gone, Heard::Own)
        }
    };
    if let Some(upload) = &upload {
        going.note(|entry| entry.brought(upload.bytes()));
    }
    let own = match heard {
        Heard::Answer(finished, bare) => {
            let body = match finished.status {
                101 => changed(&going, &mut head, (bare, &finished, &said), tunnel),
                _ => {
                    let upload = upload.map(|upload| (upload, client.body));
                    passed(worker, &mut going, finished, (bare, upload), &said)
                }
            };
            worker.rooms.give(said);
            return head.map(|()| body);
        }
        Heard::Own(finished) => Some(finished),
        Heard::Refused(refusal, fallback) => {
            policy::note(worker, &refusal);
            going.trail(|trail| trail.failed(&refusal));
            let how = (refusal.reason, fallback, false);
            going.refuse(worker, how, &mut said, &mut head)
        }
        Heard::Gone => None,
    };
    let text = own.and_then(|own| said.get(own.head_bytes..));
    let text = match going.method == http::Method::HEAD {
        true => Bytes::new(),
        false => Bytes::copy_from_slice(text.unwrap_or_default()),
    };
    worker.rooms.give(said);
    head.map(|()| Answer::own(text, going.take_entry()))
}

/// The upstream has agreed to another protocol: its side is joined with the client's stream.
fn changed(
    going: &Going<'_>,
    head: &mut Response<()>,
    (bare, finished, said): (Bare, &Finished, &[u8]),
    tunnel: Option<OnUpgrade>,
) -> Answer {
    extended_connect::agreed(head);
    let first = said.get(finished.head_bytes..).unwrap_or_default();
    let quiet = Quiet::from(&going.snapshot.plan.timeouts);
    going.note(|entry| entry.own(0));
    if let Some(client) = tunnel {
        tokio::task::spawn_local(extended_connect::join(client, bare, first.to_vec(), quiet));
    }
    Answer::own(Bytes::new(), None)
}

/// The body of an answer, of which all that was `said` has been read.
fn passed(
    worker: &Rc<Worker>,
    going: &mut Going<'_>,
    finished: Finished,
    (bare, upload): (Bare, Option<(Box<Upload>, Inbound)>),
    said: &[u8],
) -> Answer {
    let mut rest = Rest::new(finished.follows, Framed::Chunks);
    let first = said.get(finished.head_bytes..).unwrap_or_default();
    let through = upload
        .as_ref()
        .is_none_or(|(upload, _)| upload.is_through());
    if finished.follows.is_within(first) {
        let data = &first[..rest.data(first)];
        let whole = data.len() == first.len();
        let data = Bytes::copy_from_slice(data);
        if finished.keeps && whole && through {
            bare.give_back(finished.at);
        }
        return Answer::own(data, going.take_entry());
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
    streamed.beside(upload.filter(|(upload, _)| !upload.is_through()));
    Answer::Streamed(Box::new(streamed))
}
