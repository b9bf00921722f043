//! Responses of watershed's own: to reports of events, to requests that may go no further, and those
//! of the file.

use super::error_response::{self, ERROR_HEADER, ErrorCode};
use super::exchange::{ClientStream, Exchange, LocalResponse, RecordedResponse};
use super::h1::header_block::{field, named};
use super::h1::request_head::Request;
use super::h1::response_head::HeadWriter;
use super::headers::forwarding::public_query;
use super::request_body::{CONTINUE, RequestBody};
use super::{acme_challenge, beacon, last_hop};
use crate::experiment::http_view::RequestView as _;
use http::{HeaderValue, Response};

/// Answers a request: the whole response is written into `received`, and its head for the client
/// into `head`. `None` where the client has left.
pub(super) async fn answer<C: ClientStream, H: HeadWriter>(
    client: &mut C,
    exchange: &Exchange<'_>,
    local: LocalResponse,
    (inline, mut body): (&[u8], Option<&mut RequestBody>),
    received: &mut Vec<u8>,
    head: &mut H,
) -> Option<RecordedResponse> {
    let request = exchange.head.as_deref()?;
    let (response, error) = match local {
        LocalResponse::Report => {
            let max = exchange.snapshot.plan.beacon.body_bytes_max;
            let report = match body.as_deref_mut() {
                Some(body) => collect(client, exchange, body, max).await,
                None if inline.len() > max => Err(ErrorCode::BodyTooLong),
                None => Ok(inline.to_vec()),
            };
            let error = report.as_ref().err().map(|code| code.token());
            let bytes = body.as_ref().map_or(inline.len() as u64, |it| it.bytes());
            exchange.progress.received(bytes);
            let from = (request, client.info().address);
            let (worker, snapshot) = (client.worker(), &exchange.snapshot);
            let response = beacon::answer(worker, snapshot, from, report, exchange.began);
            (response, error)
        }
        LocalResponse::OfPlan => (of_plan(exchange, request)?, None),
        LocalResponse::Challenge => match challenge(exchange, request) {
            Some(response) => (response, None),
            // It was answered just now, and is over.
            None => (refused(ErrorCode::Target), Some(ErrorCode::Target.token())),
        },
        LocalResponse::ToHttps => match to_https(exchange, request) {
            Some(response) => (response, None),
            // A client that names no host can be sent nowhere.
            None => (refused(ErrorCode::Host), Some(ErrorCode::Host.token())),
        },
        LocalResponse::LastHop | LocalResponse::Refused(_) => last_hop::answer(&request.method),
    };
    write(&response, received);
    let unread = body.is_some_and(|body| !body.is_through());
    if local == LocalResponse::OfPlan {
        return exchange.respond_by_plan(client.worker(), received, unread, head);
    }
    exchange.respond_locally(client.worker(), received, (error, unread), head)
}

/// What a route or a group of the user says.
fn of_plan(exchange: &Exchange<'_>, request: &Request<'_>) -> Option<Response<Vec<u8>>> {
    let plan = &exchange.snapshot.plan;
    let query = request.query().map(public_query);
    let changes = exchange.changes.as_ref()?;
    changes.own_response(plan, &exchange.assignment, query.as_deref())
}

/// The answer to the question of an authority.
fn challenge(exchange: &Exchange<'_>, request: &Request<'_>) -> Option<Response<Vec<u8>>> {
    let tls = exchange.snapshot.plan.tls.as_ref()?;
    acme_challenge::answer(tls.acme.as_ref()?, request)
}

/// The same URL with `https`.
fn to_https(exchange: &Exchange<'_>, request: &Request<'_>) -> Option<Response<Vec<u8>>> {
    let redirect = exchange.snapshot.plan.https.redirect?;
    let (_, target) = request.target();
    let target = Some(target).filter(|target| *target != "*");
    exchange
        .changes
        .as_ref()?
        .to_https(redirect, target.unwrap_or_default())
}

fn refused(code: ErrorCode) -> Response<Vec<u8>> {
    let text = error_response::text(code);
    let mut response = Response::new(text.into_bytes());
    *response.status_mut() = code.status();
    let token = HeaderValue::from_static(code.token());
    response.headers_mut().insert(ERROR_HEADER, token);
    response
}

/// The whole body of a report, in time.
async fn collect<C: ClientStream>(
    client: &mut C,
    exchange: &Exchange<'_>,
    body: &mut RequestBody,
    max: usize,
) -> Result<Vec<u8>, ErrorCode> {
    if body.waits() && body.go() && !client.send_interim(exchange, CONTINUE).await {
        return Err(ErrorCode::BodyBroken);
    }
    let within = exchange.time_left(exchange.snapshot.plan.timeouts.body);
    let collecting = body.collect(client, max as u64);
    let collected = tokio::time::timeout(within, collecting).await;
    collected.unwrap_or(Err(ErrorCode::BodyTimedOut))
}

/// A response as HTTP/1 writes it.
fn write(response: &Response<Vec<u8>>, out: &mut Vec<u8>) {
    let status = response.status();
    let phrase = status.canonical_reason().unwrap_or_default();
    out.clear();
    out.extend_from_slice(format!("HTTP/1.1 {} {phrase}\r\n", status.as_u16()).as_bytes());
    for (name, value) in response.headers() {
        field(out, name.as_str().as_bytes(), value.as_bytes());
    }
    let length = response.body().len().to_string();
    named(out, b"content-length: ", length.as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(response.body());
}
