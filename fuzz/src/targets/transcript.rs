//! Requests of HTTP/2 in the words of HTTP/1: what is plain then is the same request, whoever reads
//! it. The input's lines are, in order: the method, the target, and fields.

use super::super::http1::{self, Field};
use super::super::plan;
use http::header::{COOKIE, HOST, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};
use watershed::config::plan::Limits;
use watershed::proxy::fuzzing::{Body, read_request, write_transcript};
use watershed::proxy::fuzzing::{Bounds, ReservedNames};

const BOUNDS: Bounds = Bounds {
    head_bytes: 64 << 10,
    headers: 100,
    target_bytes: 8192,
};

/// What has no place in HTTP/2.
const OF_CONNECTION: &[&str] = &[
    "connection",
    "transfer-encoding",
    "upgrade",
    "keep-alive",
    "proxy-connection",
];

/// A request as hyper gives it, with what types it has checked.
fn request(bytes: &[u8]) -> Option<Request<()>> {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = Method::from_bytes(lines.next()?).ok()?;
    *request.uri_mut() = Uri::try_from(lines.next()?).ok()?;
    for line in lines {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(&line[colon + 1..]).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}

/// The fields that the request has, in HTTP/1: one host, one line of cookies.
fn expected(request: &Request<()>) -> Vec<Field> {
    let mut fields = Vec::new();
    let host = request.uri().authority();
    if let Some(host) = host {
        fields.push(("host".to_owned(), host.as_str().as_bytes().to_vec()));
    }
    for name in request.headers().keys() {
        let values = request.headers().get_all(name).iter();
        let values = values.map(|value| value.as_bytes().trim_ascii().to_vec());
        match *name {
            _ if OF_CONNECTION.contains(&name.as_str()) => {}
            HOST if host.is_some() => {}
            COOKIE => {
                let crumbs = request.headers().get_all(COOKIE).iter();
                let crumbs: Vec<&[u8]> = crumbs.map(HeaderValue::as_bytes).collect();
                let line = crumbs.join(&b"; "[..]);
                fields.push(("cookie".to_owned(), line.trim_ascii().to_vec()));
            }
            _ => fields.extend(values.map(|value| (name.as_str().to_owned(), value))),
        }
    }
    fields.sort();
    fields
}

/// Tries one input.
pub fn try_input(bytes: &[u8]) {
    let Some(request) = request(bytes) else {
        return;
    };
    let mut text = Vec::new();
    plan::with(false, |plan, words| {
        let limits: &Limits = &plan.limits;
        if write_transcript(&request, (false, false), limits, &mut text).is_ok() {
            check(&request, text, &words.reserved);
        }
    });
}

/// What is plain is the same request.
fn check(request: &Request<()>, mut text: Vec<u8>, reserved: &ReservedNames) {
    let Ok(Some(plain)) = read_request(&text, &BOUNDS, reserved, false) else {
        return;
    };
    assert_eq!(plain.head_bytes, text.len(), "more than one request");
    assert_eq!(plain.method, *request.method());
    let end = text.len();
    let body_bytes = match plain.body {
        Body::Length(length) => length.min(64 << 10) as usize,
        Body::None | Body::Chunks => 0,
    };
    let body = vec![b'x'; body_bytes];
    drop(plain);
    text.extend_from_slice(&body);
    let (messages, sound) = http1::read(&text, false);
    assert!(sound && messages.len() == 1, "{messages:?}");
    let message = &messages[0];
    assert_eq!(
        (message.head_end, &*message.method),
        (end, request.method().as_str())
    );
    let target = request
        .uri()
        .path_and_query()
        .map(|it| it.as_str().as_bytes());
    assert_eq!(Some(&message.target[..]), target);
    let mut fields = message.fields.clone();
    fields.sort();
    assert_eq!(fields, expected(request));
}
