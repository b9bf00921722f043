//! A request of HTTP/2: it is written down as one of HTTP/1 would be, and goes the same way.

use crate::proxy::error_response::ErrorCode;
use crate::proxy::h1::body::{BodyReader, ClientFraming, UnfinishedGuard};
use crate::proxy::h1::response_head::{self, ClientContext, ExtraHeaders, HeadWriter, ParsedHead};
use crate::proxy::h2::body::{Http2RequestBody, Http2ResponseBody};
use crate::proxy::h2::extended_connect;
use crate::proxy::h2::streamed_body::StreamedBody;
use crate::proxy::h2::translate;
use crate::proxy::headers::forwarding::ClientInfo;
use crate::proxy::headers::plan_headers;
use crate::proxy::local_response;
use crate::proxy::observe::access_log;
use crate::proxy::pipeline::{self, By, Exchange, Found, LocalResponse, RecordedResponse};
use crate::proxy::policy;
use crate::proxy::request_body::{BodySource, RequestBody};
use crate::proxy::send::{self, Client, SendOutcome};
use crate::proxy::snapshot::Worker;
use crate::proxy::timer::Timer;
use crate::proxy::tunnel::IdleLimits;
use crate::upstream::PooledConnection;
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
pub struct Http2Client {
    ours: ClientInfo,
    peer: IpAddr,
    secure: bool,
}

/// Waits for the answer to one request.
struct Waiting<'a> {
    worker: &'a Rc<Worker>,
    peer: IpAddr,
    clock: Timer,
    body: Http2RequestBody,
}

impl BodySource for Waiting<'_> {
    fn poll_bytes(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<Result<usize, ErrorCode>> {
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

    fn clock(&mut self) -> &mut Timer {
        &mut self.clock
    }

    /// hyper has no way to send it.
    async fn tell(&mut self, _: &Exchange<'_>, _: &[u8]) -> bool {
        true
    }
}

impl Http2Client {
    /// The client of one connection.
    pub fn new(worker: &Worker, peer: IpAddr, secure: bool) -> Http2Client {
        let trusted = plan_headers::trusts(&worker.snapshot().plan, peer);
        Http2Client {
            ours: ClientInfo::new(peer, trusted, true),
            peer,
            secure,
        }
    }

    /// Answers a request. Cannot fail: what goes wrong becomes an answer.
    pub async fn answer(
        &self,
        worker: &Rc<Worker>,
        mut request: Request<Incoming>,
    ) -> Response<Http2ResponseBody> {
        let snapshot = worker.snapshot();
        let trusted = plan_headers::trusts(&snapshot.plan, self.peer);
        let renewed;
        let ours = match trusted == self.ours.trusted {
            true => &self.ours,
            false => {
                renewed = ClientInfo::new(self.peer, trusted, true);
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
        let (mut held, mut asking) = (worker.buffers.take(), worker.buffers.take());
        let limits = &snapshot.plan.limits;
        let written = translate::write(&request, tunnel.is_some(), limits, &mut held);
        let answer = {
            let found = match written {
                Ok(()) => pipeline::find(worker, snapshot, by, &held, &mut asking),
                Err(code) => Found::Unsound(code),
            };
            match found {
                Found::Go(exchange, body) => {
                    let client = Waiting {
                        worker,
                        peer: self.peer,
                        clock: Timer::default(),
                        body: Http2RequestBody::new(request.into_body()),
                    };
                    let sent = (&mut asking, body);
                    ask(client, exchange, &held, sent, tunnel).await
                }
                Found::Unsound(code) => refused(worker, self.peer, code),
                // It is whole.
                Found::More => refused(worker, self.peer, ErrorCode::Malformed),
            }
        };
        worker.buffers.give(held);
        worker.buffers.give(asking);
        answer
    }
}

/// Answers what cannot be read.
fn refused(worker: &Rc<Worker>, peer: IpAddr, code: ErrorCode) -> Response<Http2ResponseBody> {
    let said = access_log::refused(worker, peer, code);
    let mut head = Response::new(());
    let mut text = &[][..];
    if let Ok(ParsedHead::Final(answer)) = response_head::read(&said, false, false) {
        let now_ms = crate::journal::system_ms();
        let more = &ExtraHeaders::new();
        worker.with_date(now_ms, |date| {
            head.complete(&answer, more, date, ClientContext::default())
        });
        text = &said[answer.head_bytes..];
    }
    head.map(|()| Http2ResponseBody::own(Bytes::copy_from_slice(text), None))
}

async fn ask(
    mut client: Waiting<'_>,
    mut exchange: Exchange<'_>,
    held: &[u8],
    (asking, mut body): (&mut Vec<u8>, Option<Box<RequestBody>>),
    tunnel: Option<OnUpgrade>,
) -> Response<Http2ResponseBody> {
    let worker = client.worker;
    let mut said = worker.buffers.take();
    let mut head = Response::new(());
    let heard = match exchange.instead {
        None => {
            // Whoever resets a stream is dropped with all that waits for it.
            let reset = pin!(std::future::pending());
            let sent = (asking, body.as_deref_mut());
            send::ask(&mut client, &exchange, sent, &mut said, &mut head, reset).await
        }
        Some(LocalResponse::Refused(code)) => SendOutcome::refused(code),
        Some(instead) => {
            let body = (exchange.inline(held), body.as_deref_mut());
            let own =
                local_response::answer(&mut client, &exchange, instead, body, &mut said, &mut head)
                    .await;
            own.map_or(SendOutcome::ClientGone, SendOutcome::Local)
        }
    };
    if let Some(body) = &body {
        exchange.note(|entry| entry.brought(body.bytes()));
    }
    let own = match heard {
        SendOutcome::Response(finished, connection) => {
            let body = match finished.status {
                101 => changed(&exchange, &mut head, (connection, &finished, &said), tunnel),
                _ => {
                    let body = body.map(|body| (body, client.body));
                    passed(worker, &mut exchange, finished, (connection, body), &said)
                }
            };
            worker.buffers.give(said);
            return head.map(|()| body);
        }
        SendOutcome::Local(finished) => Some(finished),
        SendOutcome::Failed(error, fallback) => {
            policy::note(worker, &error);
            exchange.trail(|trail| trail.failed(&error));
            let how = (error.code, fallback, false);
            exchange.refuse(worker, how, &mut said, &mut head)
        }
        SendOutcome::ClientGone => None,
    };
    let text = own.and_then(|own| said.get(own.head_bytes..));
    let text = match exchange.method == http::Method::HEAD {
        true => Bytes::new(),
        false => Bytes::copy_from_slice(text.unwrap_or_default()),
    };
    worker.buffers.give(said);
    head.map(|()| Http2ResponseBody::own(text, exchange.take_entry()))
}

/// The upstream has agreed to another protocol: its side is joined with the client's stream.
fn changed(
    exchange: &Exchange<'_>,
    head: &mut Response<()>,
    (connection, finished, said): (PooledConnection, &RecordedResponse, &[u8]),
    tunnel: Option<OnUpgrade>,
) -> Http2ResponseBody {
    extended_connect::agreed(head);
    let first = said.get(finished.head_bytes..).unwrap_or_default();
    let quiet = IdleLimits::from(&exchange.snapshot.plan.timeouts);
    exchange.note(|entry| entry.own(0));
    if let Some(client) = tunnel {
        tokio::task::spawn_local(extended_connect::join(
            client,
            connection,
            first.to_vec(),
            quiet,
        ));
    }
    Http2ResponseBody::own(Bytes::new(), None)
}

/// The body of an answer, of which all that was `said` has been read.
fn passed(
    worker: &Rc<Worker>,
    exchange: &mut Exchange<'_>,
    finished: RecordedResponse,
    (connection, body): (
        PooledConnection,
        Option<(Box<RequestBody>, Http2RequestBody)>,
    ),
    said: &[u8],
) -> Http2ResponseBody {
    let mut rest = BodyReader::new(finished.follows, ClientFraming::Chunks);
    let first = said.get(finished.head_bytes..).unwrap_or_default();
    let through = body.as_ref().is_none_or(|(body, _)| body.is_through());
    if finished.follows.is_within(first) {
        let data = &first[..rest.data(first)];
        let whole = data.len() == first.len();
        let data = Bytes::copy_from_slice(data);
        if finished.keeps && whole && through {
            connection.release(finished.at);
        }
        return Http2ResponseBody::own(data, exchange.take_entry());
    }
    let watched = UnfinishedGuard::new(exchange.unfinished(worker, &finished));
    let mut streamed = StreamedBody::new(
        (connection, finished.keeps),
        rest,
        BytesMut::from(first),
        Rc::clone(&exchange.snapshot.words.reserved),
        watched,
        (finished.quiet_max, exchange.deadline),
    );
    streamed.log(exchange.take_entry());
    streamed.beside(body.filter(|(body, _)| !body.is_through()));
    Http2ResponseBody::StreamedBody(Box::new(streamed))
}
