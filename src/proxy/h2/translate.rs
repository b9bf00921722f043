//! A head of HTTP/2 in the words of HTTP/1, to be read like one that came so. PURE.

use crate::config::plan::Limits;
use crate::proxy::error_response::ErrorCode;
use crate::proxy::h1::header_block::{self, HeaderBlock, field, named};
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderValue, Request, Response, StatusCode};

/// What is of one connection only, and has no place in HTTP/2 (RFC 9113, 8.2.2).
const OF_CONNECTION: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Writes the head of a request, within these limits. With `upgrades` it asks for a WebSocket.
pub fn write<B>(
    request: &Request<B>,
    (upgrades, has_body): (bool, bool),
    limits: &Limits,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    let (uri, headers) = (request.uri(), request.headers());
    let target = uri.path_and_query().map(|target| target.as_str());
    // RFC 9113, 8.3.1: a path begins with a slash.
    let target = target.filter(|target| target.starts_with(['/', '*']));
    let target = target.ok_or(ErrorCode::Target)?;
    if target.len() > limits.target_bytes {
        return Err(ErrorCode::TargetTooLong);
    }
    let bytes = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let all = target.len() + headers.iter().map(bytes).sum::<usize>();
    // The authority becomes a field.
    let added = usize::from(uri.authority().is_some() && !headers.contains_key(HOST));
    if all > limits.head_bytes || headers.len() + added > limits.headers {
        return Err(ErrorCode::HeadTooLong);
    }
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // RFC 9113, 8.3.1: what is said twice must be the same.
    let host = uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    if let Some(host) = host {
        field(out, b"host", host);
    }
    let mut cookies = 0;
    for (name, value) in headers {
        let value = value.as_bytes();
        match *name {
            HOST => match host {
                Some(host) if host.eq_ignore_ascii_case(value) => {}
                Some(_) => return Err(ErrorCode::Host),
                None => field(out, b"host", value),
            },
            COOKIE => {
                cookies += 1;
                if cookies == 1 {
                    write_cookies(headers.get_all(COOKIE).iter(), out);
                }
            }
            // RFC 9110, 9.3.6: CONNECT has no content, and its data is the tunnel's.
            CONTENT_LENGTH if upgrades && value != b"0" => return Err(ErrorCode::Length),
            _ if OF_CONNECTION.contains(name) => {}
            _ => field(out, name.as_str().as_bytes(), value),
        }
    }
    if upgrades {
        named(out, b"connection: ", b"upgrade");
        named(out, b"upgrade: ", b"websocket");
    } else if has_body && !headers.contains_key(CONTENT_LENGTH) {
        named(out, b"transfer-encoding: ", b"chunked");
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// An interim response of HTTP/1 as HTTP/2 has it, if clients of HTTP/2 get it: `100 Continue` and
/// `103 Early Hints`.
pub fn interim(head: &[u8]) -> Option<Response<()>> {
    let (line, start) = header_block::line(head, 0)?;
    let status = StatusCode::from_bytes(line.get(9..12)?).ok()?;
    if !matches!(status.as_u16(), 100 | 103) {
        return None;
    }
    let (lines, _) = HeaderBlock::read(head, start, usize::MAX).ok()??;
    let mut response = Response::new(());
    *response.status_mut() = status;
    lines.give(response.headers_mut());
    Some(response)
}

/// RFC 9113, 8.2.3: cookies may come one by one, which HTTP/1 knows as one line only.
fn write_cookies<'a>(crumbs: impl Iterator<Item = &'a HeaderValue>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"cookie: ");
    for (place, crumb) in crumbs.enumerate() {
        if place > 0 {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(crumb.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    #[test]
    fn websocket_request_with_a_length_is_refused() {
        let routes = "listen: 127.0.0.1:1\nupstreams: { a: http://127.0.0.1:3 }\n";
        let plan = config::parse(routes, Path::new("routes.yaml"), &|_| None).unwrap();
        for (length, upgrades, expected) in [
            ("0", true, Ok(())),
            ("5", true, Err(ErrorCode::Length)),
            ("5", false, Ok(())),
        ] {
            let request = Request::get("http://a/").header(CONTENT_LENGTH, length);
            let request = request.body(()).unwrap();
            let written = write(&request, (upgrades, false), &plan.limits, &mut Vec::new());
            assert_eq!(written, expected, "{length}");
        }
    }
}
