//! `Max-Forwards`: how far TRACE and OPTIONS go (RFC 9110, 7.6.2).

use super::body::Answer;
use super::reply::{ERROR_HEADER, Reason, Refusal};
use http::header::{ALLOW, MAX_FORWARDS};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;

/// What is answered about any target: every method is forwarded.
const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/// The most that is passed on.
const FORWARDS_MAX: u32 = 1000;

/// Counts a TRACE or OPTIONS down, or answers it where it may go no further.
///
/// TRACE is not echoed: that would show a script what its browser hides from it.
pub fn count_down(head: &mut Parts) -> Result<Option<Response<Answer>>, Refusal> {
    if !matches!(head.method, Method::TRACE | Method::OPTIONS) {
        return Ok(None);
    }
    let mut lines = head.headers.get_all(MAX_FORWARDS).iter();
    let Some(said) = lines.next() else {
        return Ok(None);
    };
    let said = said.as_bytes();
    let sound = !said.is_empty() && said.iter().all(u8::is_ascii_digit);
    if !sound || lines.next().is_some() {
        return Err(Refusal::new(Reason::Malformed));
    }
    let digit = |sum: u32, digit: &u8| {
        let sum = sum
            .saturating_mul(10)
            .saturating_add(u32::from(digit - b'0'));
        sum.min(FORWARDS_MAX + 1)
    };
    match said.iter().fold(0, digit) {
        0 => Ok(Some(answer(&head.method))),
        left => {
            head.headers
                .insert(MAX_FORWARDS, HeaderValue::from(left - 1));
            Ok(None)
        }
    }
}

fn answer(method: &Method) -> Response<Answer> {
    let mut response = Response::new(Answer::Own(Full::default()));
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(ALLOWED));
    if method == Method::TRACE {
        headers.insert(ERROR_HEADER, HeaderValue::from_static("trace"));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    }
    response
}
