//! What is answered in the place of an upstream: reports of events, and what may go no further.

use crate::proxy::error_response::ErrorCode;
use crate::proxy::h1::response_head::HeadWriter;
use crate::proxy::pipeline::{Exchange, LocalResponse, RecordedResponse};
use crate::proxy::request_body::{CONTINUE, RequestBody};
use crate::proxy::send::Client;
use crate::proxy::{beacon, last_hop};
use http::Response;

/// Answers, into `said` and `head`. `None` where the client has left.
pub async fn answer<C: Client, H: HeadWriter>(
    client: &mut C,
    exchange: &Exchange<'_>,
    instead: LocalResponse,
    (inline, mut upload): (&[u8], Option<&mut RequestBody>),
    said: &mut Vec<u8>,
    head: &mut H,
) -> Option<RecordedResponse> {
    let request = exchange.own.as_deref()?;
    let (response, error) = match instead {
        LocalResponse::Report => {
            let max = exchange.snapshot.plan.beacon.body_bytes_max;
            let body = match upload.as_deref_mut() {
                Some(upload) => collect(client, exchange, upload, max).await,
                None if inline.len() > max => Err(ErrorCode::BodyTooLong),
                None => Ok(inline.to_vec()),
            };
            let error = body.as_ref().err().map(|code| code.token());
            let bytes = upload.as_ref().map_or(inline.len() as u64, |it| it.bytes());
            exchange.note(|entry| entry.brought(bytes));
            let by = (request, client.peer());
            let (worker, snapshot) = (client.worker(), &exchange.snapshot);
            let response = beacon::answer(worker, snapshot, by, body, exchange.began);
            (response, error)
        }
        _ => last_hop::answer(&request.method),
    };
    write(&response, said);
    let unread = upload.is_some_and(|upload| !upload.is_through());
    exchange.own(client.worker(), said, (error, unread), head)
}

/// The whole body of a report, in time.
async fn collect<C: Client>(
    client: &mut C,
    exchange: &Exchange<'_>,
    upload: &mut RequestBody,
    max: usize,
) -> Result<Vec<u8>, ErrorCode> {
    if upload.waits() && upload.go() && !client.tell(exchange, CONTINUE).await {
        return Err(ErrorCode::BodyBroken);
    }
    let within = exchange.within(exchange.snapshot.plan.timeouts.body);
    let collecting = upload.collect(client, max as u64);
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
        crate::proxy::h1::header_block::field(out, name.as_str().as_bytes(), value.as_bytes());
    }
    let length = response.body().len().to_string();
    crate::proxy::h1::header_block::named(out, b"content-length: ", length.as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(response.body());
}
