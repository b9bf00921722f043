//! Malformed requests, which are refused, and well-formed ones, which pass. Each case names the section
//! of its RFC.

use super::plain;
use crate::support::client::Client;
use crate::support::raw::Raw;

/// Section, status and bytes of requests that are refused. The connection is closed, and nothing is
/// forwarded.
const REFUSED: &[(&str, u16, &str)] = &[
    // Request lines
    ("9112 3", 400, "nonsense\r\n\r\n"),
    ("9112 3", 400, "GET /bad\r\n\r\n"),
    ("9112 3", 400, "GET  /bad HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9112 3", 400, "GET /bad  HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9112 3", 400, "GET\t/bad HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9112 3", 400, "GET /bad\tHTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9112 3", 400, "GET /bad HTTP/1.1 \r\nHost: a\r\n\r\n"),
    ("9112 3", 400, "GET /bad more HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9112 3", 400, " GET /bad HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9112 3.1", 400, "G@T /bad HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9112 2.3", 400, "GET /bad HTTP/1.2\r\nHost: a\r\n\r\n"),
    ("9112 2.3", 400, "GET /bad HTTP/3.0\r\nHost: a\r\n\r\n"),
    ("9112 2.3", 400, "GET /bad http/1.1\r\nHost: a\r\n\r\n"),
    ("9112 3.2", 400, "GET /bad#part HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9112 3.2", 400, "GET /ba\0d HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9112 3.2", 400, "GET bad HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        "9112 3.2.3",
        400,
        "CONNECT bad:443 HTTP/1.1\r\nHost: bad:443\r\n\r\n",
    ),
    ("9112 3.2.4", 400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        "9112 3.2.2",
        400,
        "GET ftp://a/bad HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "9110 4.2.4",
        400,
        "GET http://user@a/bad HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    // Host
    ("9112 3.2", 400, "GET /bad HTTP/1.1\r\n\r\n"),
    (
        "9112 3.2",
        400,
        "GET /bad HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    ),
    (
        "9112 3.2",
        400,
        "GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ),
    (
        "9112 3.2",
        400,
        "GET /bad HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    ),
    ("9112 3.2", 400, "GET /bad HTTP/1.1\r\nHost:\r\n\r\n"),
    ("9112 3.2", 400, "GET /bad HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("9112 3.2", 400, "GET /bad HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    ("9112 3.2", 400, "GET /bad HTTP/1.1\r\nHost: a,b\r\n\r\n"),
    ("9112 3.2", 400, "GET /bad HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    (
        "9112 3.2",
        400,
        "GET /bad HTTP/1.1\r\nHost: http://a\r\n\r\n",
    ),
    ("9112 3.2", 400, "GET /bad HTTP/1.1\r\nHost: user@a\r\n\r\n"),
    ("9112 3.2", 400, "GET /bad HTTP/1.1\r\nHost: a:b\r\n\r\n"),
    (
        "9112 3.2",
        400,
        "GET /bad HTTP/1.1\r\nHost: a:80:80\r\n\r\n",
    ),
    (
        "9112 3.2",
        400,
        "GET /bad HTTP/1.1\r\nHost: a:99999\r\n\r\n",
    ),
    ("9112 3.2", 400, "GET /bad HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    ("9112 3.2", 400, "GET /bad HTTP/1.1\r\nHost: [x]\r\n\r\n"),
    ("9112 3.2.2", 400, "GET http://a/bad HTTP/1.1\r\n\r\n"),
    // Fields
    ("9112 5.1", 400, "GET /bad HTTP/1.1\r\nHost : a\r\n\r\n"),
    (
        "9112 5.1",
        400,
        "GET /bad HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n",
    ),
    (
        "9112 5.1",
        400,
        "GET /bad HTTP/1.1\r\nHost: a\r\nX-A\t: b\r\n\r\n",
    ),
    (
        "9112 5.1",
        400,
        "GET /bad HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    ),
    (
        "9112 5.1",
        400,
        "GET /bad HTTP/1.1\r\nHost: a\r\nX-A\r\n\r\n",
    ),
    (
        "9112 5.1",
        400,
        "GET /bad HTTP/1.1\r\nHost: a\r\nX(A: b\r\n\r\n",
    ),
    ("9112 2.2", 400, "GET /bad HTTP/1.1\r\n Host: a\r\n\r\n"),
    (
        "9112 5.2",
        400,
        "GET /bad HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
    ),
    (
        "9112 5.2",
        400,
        "GET /bad HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\tc\r\n\r\n",
    ),
    (
        "9112 2.2",
        400,
        "GET /bad HTTP/1.1\r\nHost: a\r\nX-A: b\rc\r\n\r\n",
    ),
    ("9112 2.2", 400, "GET /bad HTTP/1.1\rHost: a\r\r\n\r\n"),
    (
        "9110 5.5",
        400,
        "GET /bad HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n",
    ),
    (
        "9110 5.5",
        400,
        "GET /bad HTTP/1.1\r\nHost: a\r\nX-\0A: b\r\n\r\n",
    ),
    (
        "9110 5.5",
        400,
        "GET /bad HTTP/1.1\r\nHost: a\r\nX-A: \x08\r\n\r\n",
    ),
    (
        "9110 5.5",
        400,
        "GET /bad HTTP/1.1\r\nHost: a\r\nX-A: \x7f\r\n\r\n",
    ),
    // Lengths
    (
        "9112 6.3",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ),
    (
        "9112 6.3",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\nab",
    ),
    (
        "9110 8.6",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nab",
    ),
    (
        "9110 8.6",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nab",
    ),
    (
        "9110 8.6",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nab",
    ),
    (
        "9110 8.6",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1a\r\n\r\nab",
    ),
    (
        "9110 8.6",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\nab",
    ),
    (
        "9110 8.6",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nab",
    ),
    (
        "9110 8.6",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\nab",
    ),
    // Codings
    (
        "9112 6.1",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 6.1",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 6.1",
        400,
        "POST /bad HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 6.1",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    ),
    (
        "9112 6.1",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 6.1",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 6.1",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 6.1",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 6.1",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 6.1",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 6.1",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
    ),
    (
        "9112 6.1",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
    ),
    (
        "9112 6.1",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 6.1",
        400,
        "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    ),
];

/// Malformed bodies after a valid head with `Transfer-Encoding: chunked`. They return 400 although the
/// upstream has received the beginning.
const BROKEN_CHUNKS: &[(&str, &str)] = &[
    ("9112 7.1", "x\r\nhello\r\n0\r\n\r\n"),
    ("9112 7.1", "5\nhello\r\n0\r\n\r\n"),
    ("9112 7.1", "5\r\nhello\n0\r\n\r\n"),
    ("9112 7.1", "5\r\nhelloX\r\n0\r\n\r\n"),
    ("9112 7.1", "5\r\nhello\r\nx\r\n\r\n"),
    ("9112 7.1", "5\r\nhello\r\n-1\r\n\r\n"),
    ("9112 7.1", "+5\r\nhello\r\n0\r\n\r\n"),
    ("9112 7.1", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("9112 7.1", "5 \r\nhello\r\n0\r\n\r\n"),
    ("9112 7.1", " 5\r\nhello\r\n0\r\n\r\n"),
    ("9112 7.1", "ffffffffffffffff1\r\nhello\r\n0\r\n\r\n"),
    ("9112 7.1", "\r\nhello\r\n0\r\n\r\n"),
    ("9112 7.1.1", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ("9112 7.1.1", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("9112 7.1.1", "5;a=\0\r\nhello\r\n0\r\n\r\n"),
    ("9112 7.1.1", "5;=b\r\nhello\r\n0\r\n\r\n"),
    ("9112 7.1.2", "5\r\nhello\r\n0\r\nX-T : a\r\n\r\n"),
    ("9112 7.1.2", "5\r\nhello\r\n0\r\nX-T: a\0\r\n\r\n"),
    ("9112 7.1.2", "5\r\nhello\r\n0\r\nX-T: a\n\r\n"),
];

/// Section, bytes, and what reaches the upstream.
const FORWARDED: &[(&str, &str, &str)] = &[
    (
        "9112 2.2",
        "\r\n\r\nGET /ok HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /ok HTTP/1.1\r\n",
    ),
    (
        "9112 2.2",
        "GET /ok HTTP/1.1\nHost: a\nX-A: b\n\n",
        "x-a: b\r\n",
    ),
    (
        "9112 3.1",
        "REPORT-9 /ok HTTP/1.1\r\nHost: a\r\n\r\n",
        "REPORT-9 /ok HTTP/1.1\r\n",
    ),
    (
        "9112 3.2.1",
        "GET /ok?a=%2F&b={}|^[]\\ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /ok?a=%2F&b={}|^[]\\ HTTP/1.1\r\n",
    ),
    (
        "9112 3.2.1",
        "GET //ok/../%2e/;x=1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET //ok/../%2e/;x=1 HTTP/1.1\r\n",
    ),
    (
        "9112 3.2.1",
        "GET /ok? HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /ok? HTTP/1.1\r\n",
    ),
    (
        "9112 3.2.2",
        "GET http://b:81/ok HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /ok HTTP/1.1\r\n",
    ),
    (
        "9112 3.2.2",
        "GET http://b:81/ok HTTP/1.1\r\nHost: a\r\n\r\n",
        "host: b:81\r\n",
    ),
    (
        "9112 3.2.4",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\n",
    ),
    (
        "9112 3.2",
        "GET /ok HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        "host: [::1]:80\r\n",
    ),
    (
        "9112 3.2",
        "GET /ok HTTP/1.1\r\nHost: a_b.c-d:80\r\n\r\n",
        "host: a_b.c-d:80\r\n",
    ),
    (
        "9112 5",
        "GET /ok HTTP/1.1\r\nHost: a\r\nX-A:\t b\tc \t\r\n\r\n",
        "x-a: b\tc\r\n",
    ),
    (
        "9112 5",
        "GET /ok HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-A: b\r\n\r\n",
        "X-Empty:\r\n",
    ),
    (
        "9110 5.3",
        "GET /ok HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nX-A: 2\r\n\r\n",
        "x-a: 1\r\nx-a: 2\r\n",
    ),
    (
        "9112 6.3",
        "GET /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
        "\r\n\r\nab",
    ),
    (
        "9112 6.3",
        "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "content-length: 0\r\n",
    ),
    (
        "9112 7.1",
        "POST /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n2;a=b;c=\"d;\\\"\"\r\nab\r\n000\r\n\r\n",
        "2\r\nab\r\n0\r\n\r\n",
    ),
    (
        "9112 7.1.2",
        "POST /ok HTTP/1.1\r\nHost: a\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-T: c\r\n\r\n",
        "0\r\nx-t: c\r\n\r\n",
    ),
    (
        "9110 9.3.1",
        "GET /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "2\r\nab\r\n0\r\n\r\n",
    ),
    ("9112 3.2", "GET /ok HTTP/1.0\r\n\r\n", "host: 127.0.0.1:"),
    (
        "6265 5.4",
        "GET /ok HTTP/1.1\r\nHost: a\r\nCookie: a=1; =; b c;;\r\nCookie: d\r\n\r\n",
        "cookie: a=1; =; b c;;\r\ncookie: d\r\n",
    ),
];

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GOOD: &str = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn malformed_request_is_refused_and_not_forwarded() {
    let origin = Raw::always(OK);
    let proxy = plain(origin.address, "workers: 1");
    for &(section, status, bytes) in REFUSED {
        // Alone, and after a valid request in the same packet.
        for before in ["", GOOD] {
            let mut client = Client::connect(proxy.public);
            client.say(format!("{before}{bytes}")).unwrap();
            let mut answer = client.answer(true);
            if !before.is_empty() {
                assert_eq!(answer.unwrap().text(), "ok", "{section}: {bytes:?}");
                answer = client.answer(true);
            }
            let answer = answer.unwrap_or_else(|error| panic!("{section}: {bytes:?}: {error}"));
            assert_eq!(answer.status, status, "{section}: {bytes:?}");
            assert!(
                answer.header("watershed-error").is_some(),
                "{section}: {bytes:?}"
            );
            assert_eq!(
                answer.header("connection"),
                Some("close"),
                "{section}: {bytes:?}"
            );
            assert!(client.is_closed(), "{section}: {bytes:?}");
        }
    }
    let seen = origin.seen();
    // Random digits can contain the word.
    let random =
        |line: &&str| line.starts_with("traceparent:") || line.starts_with("x-request-id:");
    let seen: String = seen.lines().filter(|line| !random(line)).collect();
    assert_eq!(seen.matches(" /good ").count(), REFUSED.len());
    assert!(!seen.contains("bad"), "{seen}");
}

#[test]
fn malformed_chunks_of_a_client_return_400() {
    let origin = Raw::always(OK);
    let proxy = plain(origin.address, "workers: 1");
    for &(section, chunks) in BROKEN_CHUNKS {
        for pause in [false, true] {
            let mut client = Client::connect(proxy.public);
            let head = "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            client.say(head).unwrap();
            if pause {
                // The upstream has received the head.
                client.say("3\r\nabc\r\n").unwrap();
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            client.say(chunks).unwrap();
            let answer = client
                .answer(true)
                .unwrap_or_else(|error| panic!("{section}: {chunks:?}: {error}"));
            assert_eq!(answer.status, 400, "{section}: {chunks:?}");
            assert!(client.is_closed(), "{section}: {chunks:?}");
        }
    }
    assert!(!origin.seen().contains("\r\n0\r\n"), "{}", origin.seen());
}

#[test]
fn well_formed_request_is_forwarded() {
    for &(section, bytes, expected) in FORWARDED {
        let origin = Raw::always(OK);
        let proxy = plain(origin.address, "workers: 1");
        let mut client = Client::connect(proxy.public);
        client.say(bytes).unwrap();
        let answer = client
            .answer(true)
            .unwrap_or_else(|error| panic!("{section}: {bytes:?}: {error}"));
        assert_eq!(
            answer.status,
            200,
            "{section}: {bytes:?}: {}",
            answer.text()
        );
        let seen = origin.seen();
        let (first, rest) = seen.split_once("\r\n").unwrap();
        // Field names are compared without case; all other bytes are unchanged.
        let lines: Vec<String> = rest
            .split("\r\n")
            .map(|line| match line.split_once(": ") {
                Some((name, value)) => format!("{}: {value}", name.to_lowercase()),
                None => line.to_owned(),
            })
            .collect();
        let seen = format!("{first}\r\n{}", lines.join("\r\n"));
        assert!(
            seen.contains(expected),
            "{section}: {bytes:?} arrived as {seen:?}"
        );
    }
}

#[test]
fn byte_by_byte_request_has_the_same_outcome() {
    let origin = Raw::always(OK);
    let proxy = plain(origin.address, "workers: 1");
    let whole = "POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n";
    let mut client = Client::connect(proxy.public);
    for byte in whole.bytes() {
        client.say([byte]).unwrap();
        std::thread::sleep(std::time::Duration::from_micros(300));
    }
    assert_eq!(client.answer(true).unwrap().text(), "ok");
    let seen = origin.seen();
    let body = seen.split_once("\r\n\r\n").unwrap().1;
    let pieces: String = body.split("\r\n").skip(1).step_by(2).collect();
    assert_eq!(pieces, "hello", "{seen}");
    assert!(seen.ends_with("\r\n0\r\n\r\n"), "{seen}");
}

#[test]
fn pipelined_requests_get_responses_in_order() {
    let origin = Raw::start(|mut peer| {
        while let Some(head) = peer.head() {
            let path = head.split(' ').nth(1).unwrap();
            peer.say(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
                path.len()
            ));
        }
    });
    let proxy = plain(origin.address, "");
    let mut client = proxy.client();
    let all: String = (0..20)
        .map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    client.say(all).unwrap();
    client.half_close();
    for number in 0..20 {
        assert_eq!(client.answer(true).unwrap().text(), format!("/{number}"));
    }
    assert!(client.is_closed());
}

#[test]
fn incomplete_head_is_refused() {
    let origin = Raw::always(OK);
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    client.say("GET / HTTP/1.1\r\nHost: a\r\n").unwrap();
    client.half_close();
    assert_eq!(client.answer(true).unwrap().status, 400);
    let mut client = proxy.client();
    client
        .say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc")
        .unwrap();
    client.half_close();
    assert_eq!(client.answer(true).unwrap().status, 400);
    // A client that sends nothing gets no response.
    let mut client = proxy.client();
    client.half_close();
    assert!(client.is_closed());
}
