//! A head of HTTP/2 in the words of HTTP/1, to be read like one that came so. PURE.

use super::lines::field;
use http::header::{COOKIE, HOST};
use http::{HeaderValue, Request};

/// Writes the head of a request; false where HTTP/1 has no words for it.
pub fn write<B>(request: &Request<B>, out: &mut Vec<u8>) -> bool {
    let (uri, headers) = (request.uri(), request.headers());
    let Some(target) = uri.path_and_query() else {
        return false;
    };
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_str().as_bytes());
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
                Some(_) => return false,
                None => field(out, b"host", value),
            },
            COOKIE => {
                cookies += 1;
                if cookies == 1 {
                    write_cookies(headers.get_all(COOKIE).iter(), out);
                }
            }
            _ => field(out, name.as_str().as_bytes(), value),
        }
    }
    out.extend_from_slice(b"\r\n");
    true
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
