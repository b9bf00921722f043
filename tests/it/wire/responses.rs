//! Malformed responses of upstreams, and unusual ones that are valid.

use super::plain;
use crate::support::raw::Raw;
use std::time::Duration;

/// Section and bytes of a response to GET that must not be forwarded: the client gets 502, and the next
/// request succeeds.
const UNSOUND: &[(&str, &str)] = &[
    ("9112 4", "nonsense\r\n\r\n"),
    ("9112 4", "HTTP/1.1 20 OK\r\n\r\n"),
    ("9112 4", "HTTP/1.1 2000 OK\r\n\r\n"),
    ("9112 4", "HTTP/1.1 abc OK\r\n\r\n"),
    ("9112 4", "HTTP/9.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("9112 4", "HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n"),
    (
        "9112 2.2",
        "HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "9110 5.5",
        "HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "9112 5.1",
        "HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "9112 5.1",
        "HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "9112 5.1",
        "HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "9112 5.1",
        "HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "9112 5.2",
        "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "9112 6.3",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "9112 6.3",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nabc",
    ),
    (
        "9110 8.6",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
    ),
    (
        "9110 8.6",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nabc",
    ),
    (
        "9110 8.6",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc",
    ),
    (
        "9110 8.6",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
    ),
    (
        "9112 6.1",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "9112 6.1",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "9112 6.1",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    ),
    (
        "9112 6.1",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 6.1",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 6.1",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 6.1",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "9110 15.2.2",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ),
    ("9112 8", "HTTP/1.1 200 OK\r\nContent-"),
    ("9112 8", ""),
];

/// Section, method, bytes of a response, and the body that the client gets. Bytes after the response
/// are discarded.
const CUT: &[(&str, &str, &str, &str)] = &[
    (
        "9112 6.3",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "ok",
    ),
    (
        "9112 6.3",
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "ok",
    ),
    (
        "9110 9.3.2",
        "HEAD",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "",
    ),
    (
        "9110 9.3.2",
        "HEAD",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        "",
    ),
    (
        "9110 15.3.5",
        "GET",
        "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil",
        "",
    ),
    (
        "9110 15.3.5",
        "GET",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        "",
    ),
    (
        "9110 15.4.5",
        "GET",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil",
        "",
    ),
];

/// Starts an origin that sends this response to `/first`, and a valid one to other paths.
fn origin(answer: &'static str, close: bool) -> Raw {
    Raw::start(move |mut peer| {
        while let Some(request) = peer.request() {
            if request.contains(" /first ") {
                peer.say(answer);
                if close {
                    return;
                }
            } else {
                peer.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
            }
        }
    })
}

#[test]
fn malformed_response_returns_502() {
    for &(section, answer) in UNSOUND {
        // A truncated body is known to be so only at its end.
        let origin = origin(answer, answer.is_empty() || answer.ends_with('-'));
        let proxy = plain(origin.address, "workers: 1");
        let mut client = proxy.client();
        let first = client.get("/first", "");
        assert_eq!(first.status, 502, "{section}: {answer:?}: {first:?}");
        assert!(
            first.header("watershed-error").is_some(),
            "{section}: {answer:?}"
        );
        assert_eq!(first.header("x-a"), None);
        let next = client.get("/", "");
        assert_eq!(
            (next.status, &*next.text()),
            (200, "good"),
            "{section}: {answer:?}"
        );
    }
}

#[test]
fn bytes_after_a_response_are_not_the_next_response() {
    for &(section, method, answer, body) in CUT {
        let origin = origin(answer, false);
        let proxy = plain(origin.address, "workers: 1");
        let mut client = proxy.client();
        client
            .say(format!("{method} /first HTTP/1.1\r\nHost: a\r\n\r\n"))
            .unwrap();
        let first = client.answer(method != "HEAD").unwrap();
        assert_eq!(first.text(), body, "{section}: {answer:?}");
        for _ in 0..3 {
            let next = client.get("/", "");
            assert_eq!(
                (next.status, &*next.text()),
                (200, "good"),
                "{section}: {answer:?}"
            );
        }
        let mut other = proxy.client();
        assert_eq!(other.get("/", "").text(), "good", "{section}: {answer:?}");
    }
}

#[test]
fn unsolicited_response_is_discarded() {
    let (told, said) = std::sync::mpsc::channel();
    let origin = Raw::start(move |mut peer| {
        while peer.request().is_some() {
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
            std::thread::sleep(Duration::from_millis(20));
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
            told.send(()).unwrap();
        }
    });
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    for _ in 0..5 {
        assert_eq!(client.get("/", "").text(), "good");
        said.recv().unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn truncated_response_is_truncated_for_the_client() {
    for (http, answer) in [
        ("1.1", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"),
        (
            "1.1",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        ),
        (
            "1.1",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhe",
        ),
        (
            "1.1",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n",
        ),
        (
            "1.1",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        ),
        ("1.0", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"),
        (
            "1.0",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        ),
    ] {
        let origin = origin(answer, true);
        let proxy = plain(origin.address, "workers: 1");
        let mut client = proxy.client();
        client
            .say(format!("GET /first HTTP/{http}\r\nHost: a\r\n\r\n"))
            .unwrap();
        let got = client.answer(true);
        assert!(
            got.as_ref().map_or(true, |got| got.status == 502),
            "HTTP/{http}: {answer:?}: {got:?}"
        );
    }
}

#[test]
fn body_until_connection_close_is_complete() {
    let origin = origin("HTTP/1.1 200 OK\r\n\r\nhello", true);
    let proxy = plain(origin.address, "workers: 1");
    let answer = proxy.client().get("/first", "");
    assert_eq!(answer.text(), "hello");
    // If the connection is reset, the body is not complete.
    let origin = Raw::start(|mut peer| {
        peer.request().unwrap();
        peer.say("HTTP/1.1 200 OK\r\n\r\nhello");
        std::thread::sleep(Duration::from_millis(50));
        peer.reset();
    });
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(client.answer(true).is_err());
}

#[test]
fn response_heads_are_forwarded_byte_for_byte() {
    let head = "HTTP/1.1 299 Fine, thanks\r\nServer: x/1\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nX-A: 1\r\nx-a: \x22\u{e9}\x22\r\n\
                Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok";
    let origin = Raw::always(head);
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    client.say("GET / HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    let got = client.rest().unwrap();
    assert!(got.contains(" 299 Fine, thanks\r\n"), "{got}");
    for line in head.split("\r\n").skip(1).take(6) {
        assert!(got.contains(&format!("{line}\r\n")), "{line}: {got}");
    }
    assert_eq!(got.matches("ate:").count(), 1);
    assert!(got.find("Set-Cookie: a=1").unwrap() < got.find("Set-Cookie: b=2").unwrap());
}
