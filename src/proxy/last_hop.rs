//! What is said of a TRACE or OPTIONS that may go no further (RFC 9110, 7.6.2).

use crate::proxy::error_response::ERROR_HEADER;
use http::header::ALLOW;
use http::{HeaderValue, Method, Response, StatusCode};

/// What is answered about any target: every method is forwarded.
const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/// What is wrong with a TRACE.
const TRACE: &str = "trace";

/// The answer to this method, and its error.
///
/// TRACE is not echoed: that would show a script what its browser hides from it.
pub(super) fn answer(method: &Method) -> (Response<Vec<u8>>, Option<&'static str>) {
    let mut response = Response::new(Vec::new());
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(ALLOWED));
    if method != Method::TRACE {
        return (response, None);
    }
    headers.insert(ERROR_HEADER, HeaderValue::from_static(TRACE));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    (response, Some(TRACE))
}
