//! Framing, kept connections and head timeouts of HTTP/1.

use super::plain;
use crate::support::client::Client;
use crate::support::raw::Raw;
use std::net::Shutdown;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn requests_of_all_kinds_get_responses_in_order() {
    let origin = Raw::always(OK);
    let proxy = plain(origin.address, "workers: 1");
    let mut client = Client::connect(proxy.public);
    client
        .say(
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
             POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
             \r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n\
             POST /4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n\
             GET /5 HTTP/1.1\r\nHost: a\r\n\r\n\
             GET /6 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
    for request in 1..=6 {
        let answer = client.answer(true).unwrap();
        assert_eq!((answer.status, answer.text()), (200, "ok".into()));
        let closes = answer.header("connection") == Some("close");
        assert_eq!(closes, request == 6, "{request}");
    }
    assert!(client.is_closed());
    let seen = origin.seen();
    let places: Vec<_> = (1..=6)
        .map(|it| seen.find(&format!(" /{it} HTTP/1.1\r\n")).unwrap())
        .collect();
    assert!(places.is_sorted(), "{seen}");
    assert!(seen.contains("\r\n\r\nabc"), "{seen}");
    let metrics = proxy.ask("/admin/metrics").text();
    assert!(
        metrics.contains("watershed_requests_total{} 6"),
        "{metrics}"
    );
}

#[test]
fn chunked_body_is_forwarded_without_its_trailers() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                  5;a=\"b\"\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\nWatershed-Event: buy\r\n\r\n";
    let origin = Raw::start(move |mut peer| {
        while peer.request().is_some() {
            // The response is the same however it is cut.
            for piece in answer.as_bytes().chunks(7) {
                peer.say(piece);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let proxy = plain(origin.address, "workers: 1");
    let mut client = Client::connect(proxy.public);
    for _ in 0..2 {
        client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let (status, _) = client.head().unwrap();
        assert_eq!(status, 200);
        let expected = "5;a=\"b\"\r\nhello\r\n1\r\n!\r\n0\r\n\r\n";
        let body = client.exactly(expected.len());
        assert_eq!(String::from_utf8_lossy(&body), expected);
    }
}

#[test]
fn response_without_length_ends_at_connection_close_but_not_at_reset() {
    for (answer, whole) in [
        ("HTTP/1.1 200 OK\r\n\r\nhello", true),
        ("HTTP/1.0 200 OK\r\n\r\nhello", true),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n",
            false,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", false),
    ] {
        let origin = Raw::start(move |mut peer| {
            if peer.request().is_some() {
                peer.say(answer);
            }
        });
        let proxy = plain(origin.address, "workers: 1");
        let mut client = Client::connect(proxy.public);
        client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let read = client.answer(true);
        assert_eq!(read.is_ok(), whole, "{answer:?}");
        if let Ok(read) = read {
            assert_eq!(read.text(), "hello");
        }
    }
}

#[test]
fn trickled_request_head_has_one_timeout() {
    let origin = Raw::always(OK);
    let proxy = plain(origin.address, "workers: 1\ntimeouts: { head: 400ms }");
    let mut client = Client::connect(proxy.public);
    // The timeout also holds for a later request of a connection.
    assert_eq!(client.get("/", "").status, 200);
    let mut slow = client.try_clone();
    let began = Instant::now();
    std::thread::spawn(move || {
        use std::io::Write;
        let head =
            "GET / HTTP/1.1\r\nHost: a\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy";
        for byte in head.bytes() {
            if slow.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    assert_eq!(client.answer(true).unwrap().status, 408);
    assert!(began.elapsed() >= Duration::from_millis(350));
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[test]
fn kept_connection_closed_by_the_upstream_is_dropped() {
    let (sender, left) = mpsc::channel();
    let origin = Raw::start(move |mut peer| {
        if peer.request().is_some() {
            peer.say(OK);
            std::thread::sleep(Duration::from_millis(200));
            peer.stream.shutdown(Shutdown::Write).unwrap();
            let _ = sender.send(peer.is_left(Duration::from_secs(10)));
        }
    });
    let proxy = plain(origin.address, "workers: 1");
    let mut client = Client::connect(proxy.public);
    assert_eq!(client.get("/", "").status, 200);
    assert!(left.recv_timeout(Duration::from_secs(15)).unwrap());
}

#[test]
fn trickled_response_head_has_one_timeout() {
    let origin = Raw::start(|mut peer| {
        if peer.request().is_some() {
            for byte in "HTTP/1.1 200 OK\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy".bytes() {
                peer.say([byte]);
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    });
    let proxy = plain(origin.address, "workers: 1\ntimeouts: { response: 400ms }");
    let began = Instant::now();
    let answer = Client::connect(proxy.public).get("/", "");
    assert_eq!(answer.status, 504);
    assert!(began.elapsed() < Duration::from_secs(3));
}
