//! The straight way and hyper's say the same: heads made of all sorts of words go both.

use super::answer::{self, Edited, Head, More};
use super::request::{self, Ours, Read, Request};
use super::transcript;
use crate::config::{self, plan::Plan};
use crate::experiment::UserId;
use crate::experiment::asked::Asked;
use crate::experiment::identity;
use crate::experiment::visit::visit;
use crate::proxy::framing::{Bounds, Framing};
use crate::proxy::headers::{self, Words};
use crate::proxy::hops;
use crate::proxy::reserved::Reserved;
use crate::proxy::trace::{PARENT_BYTES, Tags};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));

const ROUTES: &str = "
listen: 127.0.0.1:1
user: [{ header: x-user }, { cookie: uid }, { query: u }]
trust: TRUST
request_id: true
trace: 50%
upstreams: { a: http://127.0.0.1:3, b: http://127.0.0.1:2 }
experiments:
  told: { match: { headers: { x-beta: yes } }, groups: { control: { weight: 1 }, experiment: { weight: 1 } } }
  site: { match: { path: /a/** }, control: a, experiment: b, percent: 50 }
  host: { match: { host: b.example }, control: a, experiment: b, percent: 10 }
metrics: { buy: POST /buy -> 2xx }
";

fn plan(trust: &str) -> Plan {
    let text = ROUTES.replace("TRUST", trust);
    config::parse(&text, Path::new("routes.yaml"), &|_| None).unwrap()
}

/// Lines that requests may have.
const LINES: &[&str] = &[
    "Host: a.example",
    "host: b.example:8080",
    "Cookie: uid=u1",
    "Cookie: a=b; uid=u2 ; c=d",
    "cookie: watershed_override=x",
    "Cookie: a=b; watershed_session=x; c=d",
    "X-User: u3",
    "X-User:",
    "X-Beta: yes",
    "Accept:  */* ",
    "X-Empty:",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: x-beta",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "Watershed-User: forged",
    "watershed-experiment: site=experiment",
    "X-Forwarded-For: 1.2.3.4",
    "X-Forwarded-For: 5.6.7.8, 9.9.9.9",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: c.example",
    "X-Forwarded-Port: 1",
    "X-Request-Id: theirs",
    "x-request-id: not sound",
    "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "traceparent: junk",
    "TraceState: a=b",
    "Via: 1.0 other",
    "Content-Length: 3",
    "Content-Length: 03",
    "Transfer-Encoding: chunked",
    "Upgrade: websocket",
    "TE: trailers",
    "Expect: 100-continue",
    "Forwarded: for=1.1.1.1",
    "X_User: u4",
    "X_Forwarded_For: 6.6.6.6",
    "x-forwarded_proto: https",
    "Watershed_User: forged",
    "X.Beta: yes",
    "Content_Length: 9",
    "x_other: 1",
    "Max-Forwards: 3",
    "X y: z",
    "Watershed-: x",
    "X-Forwarded-: x",
];

const FIRST: &[&str] = &[
    "GET /a/b HTTP/1.1",
    "POST /a?u=q%20x HTTP/1.1",
    "HEAD /buy?watershed_override=1 HTTP/1.1",
    "PURGE /x HTTP/1.1",
    "GET /a/b HTTP/1.0",
    "GET http://b.example/a/b HTTP/1.1",
    "OPTIONS * HTTP/1.1",
];

fn head(first: &str, lines: &[(&str, bool)]) -> String {
    let lines = lines.iter().map(|(line, crlf)| match crlf {
        true => format!("{line}\r\n"),
        false => format!("{line}\n"),
    });
    format!("{first}\r\n{}\r\n", lines.collect::<String>())
}

/// Names in small letters with their values, in order.
fn fields(head: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut room = [httparse::EMPTY_HEADER; 64];
    let start = head.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    let (_, found) = httparse::parse_headers(&head[start..], &mut room)
        .unwrap()
        .unwrap();
    let field = |it: &httparse::Header<'_>| (it.name.to_lowercase(), it.value.to_vec());
    found.iter().map(field).collect()
}

fn sorted(mut fields: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    fields.sort();
    fields
}

fn of_map(map: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), value.as_bytes().to_vec())
    };
    sorted(map.iter().map(field).collect())
}

fn map_of(fields: &[(String, Vec<u8>)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value).unwrap(),
        );
    }
    map
}

/// What the upstream gets on either way, where the head is plain.
fn check_request(text: &str, trusted: bool) -> Result<bool, TestCaseError> {
    let plan = plan(if trusted { "[10.0.0.0/8]" } else { "[]" });
    let bounds = Bounds::from(&plan.limits);
    let reserved = Reserved::new(&plan);
    let Read::Plain(mut plain) = request::read(text.as_bytes(), &bounds, &reserved, trusted) else {
        return Ok(false);
    };
    // The gate lets it through, and finds the same end.
    let (sound, fault) = Framing::new(bounds).admit(text.as_bytes());
    prop_assert_eq!((sound, fault), (text.len(), None));
    prop_assert_eq!(plain.head_bytes, text.len());

    let mut words = text.split(' ');
    let request = http::Request::builder()
        .method(words.next().unwrap())
        .uri(words.next().unwrap());
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    parts.headers = map_of(&fields(text.as_bytes()));
    agree(&plan, &mut plain, &mut parts, trusted)?;
    Ok(true)
}

/// The two ways find the same in a request, and the upstream gets the same.
fn agree(
    plan: &Plan,
    plain: &mut Request<'_>,
    parts: &mut Parts,
    trusted: bool,
) -> Result<(), TestCaseError> {
    let over_tls = trusted && headers::over_tls(&*plain);
    prop_assert_eq!(over_tls, trusted && headers::over_tls(&parts.headers));
    let asker = headers::asker(plan, &*plain, PEER);
    prop_assert_eq!(asker, headers::asker(plan, &parts.headers, PEER));
    let admitted = headers::admit(plan, &Reserved::new(plan), parts, PEER, false);
    prop_assert!(matches!(admitted, Ok(None)), "{:?}", admitted);
    let visitor = identity::find(&plan.identity, &*parts);
    prop_assert_eq!(&identity::find(&plan.identity, &*plain), &visitor);
    let user = visitor.as_ref().map(|visitor| visitor.user());
    let user = user.unwrap_or(UserId::new(b"nobody").unwrap());
    let meant = visit(&plan.experiments, &*parts, user, None);
    prop_assert_eq!(&visit(&plan.experiments, &*plain, user, None), &meant);
    prop_assert_eq!((&*plain).host(), (&*parts).host());

    let known = Words::new(plan);
    let visitor = visitor.map(identity::Visitor::into_owned);
    let mut out = Vec::new();
    let ours = Ours::new(PEER, trusted, parts.version == Version::HTTP_2);
    let tags = |fields: &HeaderMap| {
        let mut random = 1_u128..;
        Tags::of(&plan.tracing, fields, trusted, 7, || random.next().unwrap())
    };
    let by_map = tags(&parts.headers);
    let mut random = 1_u128..;
    let by_lines = Tags::of(&plan.tracing, &*plain, trusted, 7, || {
        random.next().unwrap()
    });
    let tagged = (Some(&by_lines), by_lines.begins);
    let by_whom = (&ours, over_tls);
    let at = plain.write(&mut out, by_whom, &known, tagged, visitor.as_ref(), &meant);
    if let (Some(at), Some(parent)) = (at, by_lines.begins) {
        prop_assert_eq!(&out[at..at + PARENT_BYTES], &parent.text());
    }
    by_map.put(&mut parts.headers);
    headers::prepare(
        plan,
        &known,
        parts,
        PEER,
        over_tls,
        visitor.as_ref(),
        &meant,
    );
    prop_assert_eq!(sorted(fields(&out)), of_map(&parts.headers));
    let first = format!("{} {} HTTP/1.1", parts.method, parts.uri);
    prop_assert_eq!(
        out.split(|&byte| byte == b'\r').next(),
        Some(first.as_bytes())
    );
    Ok(())
}

/// The same of a request of HTTP/2.
fn check_http2(request: http::Request<()>, trusted: bool) -> Result<bool, TestCaseError> {
    let plan = plan(if trusted { "[10.0.0.0/8]" } else { "[]" });
    let mut text = Vec::new();
    if !transcript::write(&request, &mut text) {
        return Ok(false);
    }
    let bounds = Bounds::from(&plan.limits);
    let reserved = Reserved::new(&plan);
    let Read::Plain(mut plain) = request::read(&text, &bounds, &reserved, trusted) else {
        return Ok(false);
    };
    prop_assert_eq!(plain.head_bytes, text.len());
    let (mut parts, ()) = request.into_parts();
    agree(&plan, &mut plain, &mut parts, trusted)?;
    Ok(true)
}

/// What a request of HTTP/2 may say of itself: no field that is of a connection.
fn of_http2(first: &str, host: Option<&str>, lines: &[(&str, bool)]) -> http::Request<()> {
    let words: Vec<&str> = first.split(' ').collect();
    let target = match host {
        Some(host) => format!("https://{host}{}", words[1]),
        None => words[1].to_owned(),
    };
    let mut request = http::Request::new(());
    *request.method_mut() = words[0].parse().unwrap();
    *request.uri_mut() = target.parse().unwrap();
    *request.version_mut() = Version::HTTP_2;
    let text = head(first, lines);
    let mut fields = fields(text.as_bytes());
    fields.retain(|(name, _)| {
        ![
            "connection",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
            "upgrade",
            "content-length",
        ]
        .contains(&name.as_str())
    });
    *request.headers_mut() = map_of(&fields);
    request
}

/// Lines that answers may have.
const ANSWERED: &[&str] = &[
    "Content-Length: 3",
    "Content-Length: 0",
    "Content-Length: x",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip",
    "Connection: close",
    "Connection: x-private, Keep-Alive",
    "Keep-Alive: timeout=5",
    "X-Private: 1",
    "Vary: Accept-Encoding",
    "vary: Cookie",
    "Cache-Control: public, max-age=60",
    "Surrogate-Control: max-age=5",
    "Set-Cookie: a=b",
    "Watershed-Event: buy",
    "Upgrade: h2c",
    "Date: Tue, 24 Nov 2026 05:00:00 GMT",
    "Via: 1.1 inner",
    "X-Empty:",
    "X-Odd:  1 ",
    "Watershed-: x",
];

fn check_answer(first: &str, lines: &[(&str, bool)], minted: bool) -> Result<bool, TestCaseError> {
    let plan = plan("[]");
    let text = head(first, lines);
    let read = answer::read(text.as_bytes(), false);
    let version = match first.starts_with("HTTP/1.0") {
        true => Version::HTTP_10,
        false => Version::HTTP_11,
    };
    let response = http::Response::builder()
        .version(version)
        .status(&first[9..12]);
    let (mut parts, ()) = response.body(()).unwrap().into_parts();
    parts.headers = map_of(&fields(text.as_bytes()));
    let admitted = hops::admit_answer(false, &mut parts);
    let Ok(answer::Read::Final(mut plain)) = read else {
        // hyper refuses a coding in HTTP/1.0 itself.
        let by_hyper = version == Version::HTTP_10 && text.contains("Transfer-Encoding");
        prop_assert!(admitted.is_err() || by_hyper, "{}", text);
        return Ok(false);
    };
    prop_assert_eq!(admitted, Ok(()));
    let visitor = minted.then(|| identity::mint(5, &[7; 10]));
    let user = UserId::new(b"u1").unwrap();
    let asked = http::Request::get("/a/b").body(()).unwrap().into_parts().0;
    let meant = visit(&plan.experiments, &asked, user, None);
    let words = Words::new(&plan);
    headers::strip_answer(&mut parts);
    let by = (&plan, &words);
    let mut as_fields = http::Response::new(());
    headers::finish(
        by,
        (version, &mut parts.headers),
        visitor.as_ref(),
        &meant,
        None,
        false,
    );
    plain.strip();
    let mut more = More::new();
    let mut edited = Edited {
        answer: &mut plain,
        more: &mut more,
    };
    let head = (version, &mut edited);
    headers::finish(by, head, visitor.as_ref(), &meant, None, false);
    let mut out = Vec::new();
    as_fields.complete(&plain, &more, b"now", false);
    prop_assert_eq!(as_fields.status(), parts.status);
    let mut given = of_map(as_fields.headers());
    given.retain(|(_, value)| value != b"now");
    prop_assert_eq!(given, of_map(&parts.headers), "{}", text);
    out.complete(&plain, &more, b"now", false);
    let mut said = fields(&out);
    // Framing and the date are hyper's to say on the other way.
    said.retain(|(name, value)| name != "transfer-encoding" && value != b"now");
    prop_assert_eq!(sorted(said), of_map(&parts.headers), "{}", text);
    let status = String::from_utf8_lossy(&out);
    let first = format!("HTTP/1.1 {}\r\n", &first[9..]);
    prop_assert!(status.starts_with(&first), "{}", status);
    Ok(true)
}

fn some(lines: &'static [&'static str]) -> impl Strategy<Value = Vec<(&'static str, bool)>> {
    prop::collection::vec(
        (prop::sample::select(lines), prop::bool::weighted(0.9)),
        0..7,
    )
}

#[test]
fn method_longer_than_the_gate_allows_is_not_plain() {
    let beyond = plan("[]").limits.target_bytes + 64;
    let first = format!("{} / HTTP/1.1", "M".repeat(beyond));
    let plain = check_request(&head(&first, &[("Host: a.example", true)]), false);
    assert!(!plain.unwrap());
}

proptest! {
    #[test]
    fn requests(first in prop::sample::select(FIRST), lines in some(LINES), trusted: bool) {
        check_request(&head(first, &lines), trusted)?;
    }

    #[test]
    fn plain_requests(lines in some(&LINES[6..23]), trusted: bool) {
        let mut lines = lines;
        lines.retain(|(line, _)| !line.starts_with("Connection: x-"));
        lines.push(("Host: b.example:80", true));
        prop_assert!(check_request(&head("GET /a/b?u=1 HTTP/1.1", &lines), trusted)?);
    }

    #[test]
    fn requests_of_http2(
        first in prop::sample::select(&FIRST[..4]),
        host in prop::sample::select(&[None, Some("a.example"), Some("b.example:8080"), Some("u@c.example")][..]),
        lines in some(LINES),
        trusted: bool,
    ) {
        let mut lines = lines;
        lines.retain(|(line, _)| *line != "X y: z");
        check_http2(of_http2(first, host, &lines), trusted)?;
    }

    #[test]
    fn plain_requests_of_http2(lines in some(&LINES[2..3]), more in some(&LINES[3..4]), trusted: bool) {
        let lines = [lines, more].concat();
        prop_assert!(check_http2(of_http2("GET /a/b?u=1 HTTP/1.1", Some("b.example:80"), &lines), trusted)?);
    }

    #[test]
    fn answers(
        first in prop::sample::select(&["HTTP/1.1 200 OK", "HTTP/1.1 204 No Content", "HTTP/1.0 404 Where?", "HTTP/1.1 304"][..]),
        lines in some(ANSWERED),
        minted: bool,
    ) {
        check_answer(first, &lines, minted)?;
    }

    #[test]
    fn sound_answers(lines in some(&ANSWERED[5..]), minted: bool) {
        prop_assert!(check_answer("HTTP/1.1 200 OK", &lines, minted)?);
    }
}
