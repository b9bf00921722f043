//! Answers the question of an authority whether a name is this site's (http-01, RFC 8555, 8.3).

use crate::config::plan::{Acme, AcmeChallenge};
use crate::experiment::http_view::RequestView;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response};

/// Where an authority asks.
const PATH: &str = "/.well-known/acme-challenge/";

/// Returns the answer to a question that this site has asked for. All others are for the upstream, which
/// may have certificates of its own.
pub(super) fn answer<'a>(acme: &Acme, request: impl RequestView<'a>) -> Option<Response<Vec<u8>>> {
    let token = request.path().strip_prefix(PATH)?;
    let is_asked = request.has_method(&Method::GET) || request.has_method(&Method::HEAD);
    if acme.settings.challenge != AcmeChallenge::Http01 || !is_asked {
        return None;
    }
    let obtained = acme.obtained.now();
    let mut response = Response::new(obtained.answers.get(token)?.clone().into_bytes());
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}
