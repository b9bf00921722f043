//! One stream of HTTP/2: its request is written as HTTP/1 and runs through the pipeline.

use super::extended_connect;
use super::request_body::Http2RequestBody;
use super::response_body::Http2ResponseBody;
use super::streamed_body::StreamedBody;
use super::translate;
use crate::proxy::client::{ClientInfo, Protocol};
use crate::proxy::error_response::ErrorCode;
use crate::proxy::exchange::{ClientStream, Exchange, RecordedResponse};
use crate::proxy::h1::body::{BodyReader, ClientFraming, UnfinishedGuard};
use crate::proxy::h1::response_head::{
    self, ClientContext, ExtraHeaders, HeadWriter, ParsedHead, ResponseLimits,
};
use crate::proxy::observe::access_log;
use crate::proxy::observe::meter::RequestMeter;
use crate::proxy::pipeline::{self, Begun, Responding};
use crate::proxy::request_body::{BodySource, RequestBody};
use crate::proxy::snapshot::Worker;
use crate::proxy::timer::Timer;
use crate::proxy::tunnel::IdleLimits;
use crate::upstream::PooledConnection;
use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// The client's side of one exchange.
struct Http2Client<'a> {
    worker: &'a Rc<Worker>,
    address: IpAddr,
    timer: Timer,
    body: Http2RequestBody,
}

impl BodySource for Http2Client<'_> {
    fn poll_bytes(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<Result<usize, ErrorCode>> {
        self.body.poll_bytes(context, into)
    }
}

impl ClientStream for Http2Client<'_> {
    fn worker(&self) -> &Rc<Worker> {
        self.worker
    }

    fn address(&self) -> IpAddr {
        self.address
    }

    fn timer(&mut self) -> &mut Timer {
        &mut self.timer
    }

    /// hyper has no way to send it.
    async fn send_interim(&mut self, _: &Exchange<'_>, _: &[u8]) -> bool {
        true
    }
}

/// What is known of the client of a connection.
pub fn client(address: IpAddr, secure: bool) -> ClientInfo {
    ClientInfo::new(address, Protocol::Http2, secure)
}

/// Answers a request. Cannot fail: an error becomes a response.
pub async fn answer(
    worker: &Rc<Worker>,
    client: &ClientInfo,
    mut request: Request<Incoming>,
) -> Response<Http2ResponseBody> {
    let snapshot = worker.snapshot();
    let tunnel = extended_connect::asked(&mut request);
    let (mut input, mut forwarded) = (worker.buffers.take(), worker.buffers.take());
    let limits = &snapshot.plan.limits;
    let translated = translate::write(&request, tunnel.is_some(), limits, &mut input);
    let response = {
        let begun = match translated {
            Ok(()) => {
                // Connections of HTTP/2 count their requests themselves.
                let client = (client, 0);
                pipeline::begin(worker, snapshot, client, &input, &mut forwarded)
            }
            Err(code) => Begun::Invalid(code),
        };
        match begun {
            Begun::Request(exchange, body) => {
                let client = Http2Client {
                    worker,
                    address: client.address,
                    timer: Timer::default(),
                    body: Http2RequestBody::new(request.into_body()),
                };
                let request = (&*input, &mut forwarded);
                respond(client, exchange, request, body, tunnel).await
            }
            Begun::Invalid(code) => refused(worker, client.address, code),
            // It was written whole.
            Begun::Incomplete => refused(worker, client.address, ErrorCode::Malformed),
        }
    };
    worker.buffers.give(input);
    worker.buffers.give(forwarded);
    response
}

/// Answers a request that cannot be parsed.
fn refused(worker: &Rc<Worker>, address: IpAddr, code: ErrorCode) -> Response<Http2ResponseBody> {
    RequestMeter::unreadable(worker, Version::HTTP_2, code);
    let whole = access_log::refused(worker, address, code);
    let mut head = Response::new(());
    let mut text = &[][..];
    if let Ok(ParsedHead::Final(response)) =
        response_head::read(&whole, ResponseLimits::OWN, false, false)
    {
        let now_ms = crate::journal::system_ms();
        let more = &ExtraHeaders::new();
        worker.with_date(now_ms, |date| {
            head.complete(&response, more, date, ClientContext::default())
        });
        text = &whole[response.head_bytes..];
    }
    head.map(|()| Http2ResponseBody::whole(Bytes::copy_from_slice(text), None))
}

/// Runs the rest of the pipeline and gives hyper the response.
async fn respond(
    mut client: Http2Client<'_>,
    mut exchange: Exchange<'_>,
    request: (&[u8], &mut Vec<u8>),
    mut body: Option<Box<RequestBody>>,
    tunnel: Option<OnUpgrade>,
) -> Response<Http2ResponseBody> {
    let worker = client.worker;
    let mut received = worker.buffers.take();
    let mut head = Response::new(());
    // A stream that is reset is dropped with all that waits for it.
    let left = pin!(std::future::pending());
    let responding = pipeline::exchange_with_upstream(
        &mut client,
        &exchange,
        request,
        body.as_deref_mut(),
        (&mut received, &mut head),
        left,
    );
    let responding = responding.await;
    if let Some(body) = &body {
        exchange.log(|entry| entry.received(body.bytes()));
    }
    let body = match responding {
        Some(Responding {
            response,
            connection: Some(connection),
        }) => {
            let first = received.get(response.head_bytes..).unwrap_or_default();
            if response.status == 101 {
                switch(&exchange, &mut head, (connection, first), tunnel)
            } else {
                let body = body.map(|body| (body, client.body));
                let upstream = (connection, body);
                response_body(worker, &mut exchange, response, upstream, first)
            }
        }
        Some(own) if exchange.method != Method::HEAD => {
            let text = received.get(own.response.head_bytes..);
            let text = Bytes::copy_from_slice(text.unwrap_or_default());
            Http2ResponseBody::whole(text, exchange.take_log())
        }
        _ => Http2ResponseBody::whole(Bytes::new(), exchange.take_log()),
    };
    worker.buffers.give(received);
    head.map(|()| body)
}

/// The upstream switches protocols: its connection is joined with the client's stream.
fn switch(
    exchange: &Exchange<'_>,
    head: &mut Response<()>,
    (connection, first): (PooledConnection, &[u8]),
    tunnel: Option<OnUpgrade>,
) -> Http2ResponseBody {
    extended_connect::agreed(head);
    let limits = IdleLimits::from(&exchange.snapshot.plan.timeouts);
    exchange.log(|entry| entry.own(0));
    if let Some(client) = tunnel {
        let joined = extended_connect::join(client, connection, first.to_vec(), limits);
        tokio::task::spawn_local(joined);
    }
    Http2ResponseBody::whole(Bytes::new(), None)
}

/// The body of an upstream's response, of which `first` has been read.
fn response_body(
    worker: &Rc<Worker>,
    exchange: &mut Exchange<'_>,
    response: RecordedResponse,
    (connection, body): (
        PooledConnection,
        Option<(Box<RequestBody>, Http2RequestBody)>,
    ),
    first: &[u8],
) -> Http2ResponseBody {
    let mut rest = BodyReader::new(response.follows, ClientFraming::Chunks);
    let through = body.as_ref().is_none_or(|(body, _)| body.is_through());
    if response.follows.is_within(first) {
        let data = &first[..rest.data(first)];
        let whole = data.len() == first.len();
        let data = Bytes::copy_from_slice(data);
        if response.keeps && whole && through {
            connection.release(response.at);
        }
        return Http2ResponseBody::whole(data, exchange.take_log());
    }
    let unfinished = UnfinishedGuard::new(exchange.unfinished(worker, &response));
    let mut streamed = StreamedBody::new(
        (connection, response.keeps),
        rest,
        BytesMut::from(first),
        Rc::clone(&exchange.snapshot.plan_headers.reserved),
        unfinished,
        (response.pause_max, exchange.deadline),
    );
    streamed.log(exchange.take_log());
    streamed.count(exchange.meter.take());
    streamed.beside(body.filter(|(body, _)| !body.is_through()));
    Http2ResponseBody::Streamed(Box::new(streamed))
}
