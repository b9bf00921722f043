//! One stream of HTTP/2: its request is written as HTTP/1 and runs through the pipeline.

use super::extended_connect::{self, Http2TunnelStream};
use super::request_body::Http2RequestBody;
use super::response_body::{self, ResponseStream};
use super::translate;
use crate::proxy::client::ClientInfo;
use crate::proxy::error_response::ErrorCode;
use crate::proxy::exchange::{ClientStream, Exchange, Responding};
use crate::proxy::h1::response_head::{
    self, ClientContext, ExtraHeaders, HeadWriter, ParsedHead, ResponseContext, ResponseLimits,
};
use crate::proxy::observe::access_log;
use crate::proxy::observe::progress::{ResponseEnd, count_unreadable};
use crate::proxy::pipeline::{self, Begun};
use crate::proxy::request_body::{BodySource, RequestBody};
use crate::proxy::snapshot::Worker;
use crate::proxy::timer::Timer;
use crate::proxy::tunnel::{self, IdleLimits, TunnelSide};
use crate::telemetry::HttpProtocol;
use crate::upstream::PooledConnection;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, Response};
use std::cell::RefCell;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Where the head of a response goes, and where it is heard that the client has reset the stream.
type Responder = RefCell<SendResponse<Bytes>>;

/// The client's side of one exchange.
struct Http2Client<'a> {
    worker: &'a Rc<Worker>,
    info: &'a ClientInfo,
    timer: Timer,
    body: Http2RequestBody,
    responder: &'a Responder,
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

    fn info(&self) -> &ClientInfo {
        self.info
    }

    fn timer(&mut self) -> &mut Timer {
        &mut self.timer
    }

    /// Clients of HTTP/2 use early hints, and expect `100 Continue` where they asked for it; other
    /// interim responses are left out. Whether the stream was reset is heard elsewhere.
    async fn send_interim(&mut self, _: &Exchange<'_>, interim: &[u8]) -> bool {
        if let Some(head) = translate::interim(interim) {
            let _ = self.responder.borrow_mut().send_informational(head);
        }
        true
    }
}

/// What is joined when the upstream has agreed to switch protocols.
struct Switched {
    client: Http2TunnelStream,
    upstream: TunnelSide<crate::upstream::Stream>,
    limits: IdleLimits,
}

/// Serves a stream to its end. Cannot fail: an error becomes a response.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    client: &Rc<ClientInfo>,
    mut request: Request<RecvStream>,
    responder: SendResponse<Bytes>,
) {
    let snapshot = worker.snapshot();
    let upgrades = extended_connect::becomes_upgrade(&mut request);
    let has_body = *request.method() != Method::CONNECT && !request.body().is_end_stream();
    let (mut input, mut forwarded) = (worker.buffers.take(), worker.buffers.take());
    let limits = &snapshot.plan.limits;
    let translated = translate::write(&request, (upgrades, has_body), limits, &mut input);
    let responder = RefCell::new(responder);
    let switched = {
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
                    info: client,
                    timer: Timer::default(),
                    body: Http2RequestBody::new(request),
                    responder: &responder,
                };
                respond(client, exchange, (&input, forwarded), body).await
            }
            Begun::Invalid(code) => refuse(worker, client.address, code, &responder),
            // It was written whole.
            Begun::Incomplete => refuse(worker, client.address, ErrorCode::Malformed, &responder),
        }
    };
    worker.buffers.give(input);
    if let Some(switched) = switched {
        let client = TunnelSide {
            stream: switched.client,
            first: Vec::new(),
        };
        let tunnel = Box::pin(tunnel::run(client, switched.upstream, switched.limits));
        if let Err(error) = tunnel.await {
            tracing::debug!("a tunnel broke: {error}");
        }
    }
}

/// Responds to a request that cannot be parsed.
fn refuse(
    worker: &Rc<Worker>,
    address: IpAddr,
    code: ErrorCode,
    responder: &Responder,
) -> Option<Switched> {
    count_unreadable(worker, HttpProtocol::Http2, code);
    let whole = access_log::refused(worker, address, code);
    let mut head = Response::new(());
    let read = response_head::read(&whole, ResponseLimits::OWN, ResponseContext::default());
    if let Ok(ParsedHead::Final(response)) = read {
        let more = &ExtraHeaders::new();
        worker.with_date(crate::journal::system_ms(), |date| {
            head.complete(&response, more, date, ClientContext::default())
        });
        let text = Bytes::copy_from_slice(&whole[response.head_bytes..]);
        if let Ok(Some(mut stream)) = send_head(responder, head, Some(&text)) {
            // So short a text waits in the stream's buffer.
            let _ = stream.send_data(text, true);
        }
    }
    None
}

/// The client has reset the stream.
struct Reset;

/// Sends the head of a response. `whole` is its body, if all of that is known. Returns the stream
/// that takes the body, if there is one.
fn send_head(
    responder: &Responder,
    mut head: Response<()>,
    whole: Option<&Bytes>,
) -> Result<Option<SendStream<Bytes>>, Reset> {
    let ends = whole.is_some_and(Bytes::is_empty);
    if let Some(whole) = whole.filter(|whole| !whole.is_empty()) {
        let length = HeaderValue::from(whole.len());
        head.headers_mut().entry(CONTENT_LENGTH).or_insert(length);
    }
    match responder.borrow_mut().send_response(head, ends) {
        Ok(stream) => Ok(Some(stream).filter(|_| !ends)),
        Err(error) => {
            tracing::debug!("a response cannot be sent: {error}");
            Err(Reset)
        }
    }
}

/// Runs the rest of the pipeline and gives the client the response.
async fn respond(
    mut client: Http2Client<'_>,
    exchange: Exchange<'_>,
    (input, mut forwarded): (&[u8], Vec<u8>),
    mut body: Option<Box<RequestBody>>,
) -> Option<Switched> {
    let (worker, responder) = (client.worker, client.responder);
    let mut received = worker.buffers.take();
    let mut head = Response::new(());
    let reset = |context: &mut Context<'_>| responder.borrow_mut().poll_reset(context).map(drop);
    let left = pin!(std::future::poll_fn(reset));
    let mut responding = None;
    let exchanged = pipeline::exchange_with_upstream(
        &mut client,
        &exchange,
        (input, &mut forwarded),
        body.as_deref_mut(),
        (&mut received, &mut head),
        left,
        &mut responding,
    );
    let exchanged = exchanged.await;
    worker.buffers.give(forwarded);
    let mut switched = None;
    match responding.filter(|_| exchanged.is_some()) {
        None => {}
        Some(Responding {
            response,
            connection: Some(connection),
        }) if response.status == 101 => {
            let first = received.split_off(response.head_bytes);
            switched = switch(client, &exchange, head, (connection, first));
        }
        Some(responding) => {
            let received = (&mut received, head);
            deliver(
                &mut client,
                &exchange,
                responding,
                received,
                body.as_deref_mut(),
            )
            .await;
        }
    }
    if let Some(body) = &body {
        exchange.progress.received(body.bytes());
    }
    worker.buffers.give(received);
    switched
}

/// Gives the client the head of a response and its body.
async fn deliver(
    client: &mut Http2Client<'_>,
    exchange: &Exchange<'_>,
    Responding {
        response,
        connection,
    }: Responding,
    (received, head): (&mut Vec<u8>, Response<()>),
    body: Option<&mut RequestBody>,
) {
    let first = received.get(response.head_bytes..).unwrap_or_default();
    let whole = match &connection {
        Some(_) => response_body::whole(&response, first),
        // Watershed's own responses are whole.
        None if exchange.method == Method::HEAD => Some(Bytes::new()),
        None => Some(Bytes::copy_from_slice(first)),
    };
    let Some(whole) = whole else {
        let Ok(Some(stream)) = send_head(client.responder, head, None) else {
            return exchange.progress.ends(ResponseEnd::Left);
        };
        let Some(connection) = connection else {
            return;
        };
        let first = bytes::BytesMut::from(first);
        let mut sending = ResponseStream::new(stream, client, exchange);
        return Box::pin(sending.stream((&response, connection), first, body)).await;
    };
    if let Some(connection) = connection
        && response.keeps
        && whole.len() == first.len()
        && body.as_ref().is_none_or(|body| body.is_through())
    {
        connection.release(response.at);
    }
    if let Some(mirrored) = exchange.mirrored.get() {
        mirrored.add(&whole);
    }
    let bytes = whole.len() as u64;
    let sent = match send_head(client.responder, head, Some(&whole)) {
        Ok(Some(stream)) => {
            let mut sending = ResponseStream::new(stream, client, exchange);
            sending.send(whole, true, None).await
        }
        Ok(None) => true,
        Err(Reset) => false,
    };
    match sent {
        true => exchange.progress.delivered(bytes),
        false => exchange.progress.untaken(),
    }
}

/// The upstream switches protocols: its connection is joined with the client's stream.
fn switch(
    client: Http2Client<'_>,
    exchange: &Exchange<'_>,
    mut head: Response<()>,
    (connection, first): (PooledConnection, Vec<u8>),
) -> Option<Switched> {
    extended_connect::agreed(&mut head);
    let send = send_head(client.responder, head, None).ok().flatten()?;
    exchange.progress.delivered(0);
    Some(Switched {
        client: Http2TunnelStream::new(send, client.body.into_stream()),
        upstream: TunnelSide {
            stream: connection.stream,
            first,
        },
        limits: IdleLimits::from(&exchange.snapshot.plan.timeouts),
    })
}
