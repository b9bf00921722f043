//! Clients and upstreams that disconnect midway: the other side is disconnected at once, and other
//! connections are not affected.

use super::plain;
use crate::support::raw::{Peer, Raw};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(5);

/// Starts an origin that handles its first request with `serve`, and reports whether and when its
/// connection was closed.
fn watched(
    first: impl Fn(&mut Peer) + Send + Sync + 'static,
) -> (Raw, mpsc::Receiver<Option<Duration>>) {
    let (told, left) = mpsc::channel();
    let origin = Raw::start(move |mut peer| {
        if peer.head().is_none() {
            return;
        }
        first(&mut peer);
        let begun = Instant::now();
        let _ = told.send(peer.is_left(SOON * 2).then(|| begun.elapsed()));
    });
    (origin, left)
}

#[track_caller]
fn assert_left(left: &mpsc::Receiver<Option<Duration>>) {
    let left = left.recv_timeout(SOON * 4).unwrap();
    assert!(
        left.is_some_and(|after| after < SOON),
        "the upstream was left after {left:?}"
    );
}

#[test]
fn client_reset_before_the_response_cancels_the_upstream_request() {
    let (origin, left) = watched(|_| {});
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    client.reset();
    assert_left(&left);
}

#[test]
fn client_reset_during_a_silent_body_cancels_the_upstream_request() {
    let (origin, left) = watched(|peer| {
        peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    });
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    client.head().unwrap();
    assert_eq!(client.chunk().unwrap().unwrap(), b"hello");
    client.reset();
    assert_left(&left);
}

#[test]
fn aborted_upload_cancels_the_upstream_request() {
    for how in ["reset", "close"] {
        let (origin, left) = watched(|_| {});
        let proxy = plain(origin.address, "workers: 1");
        let mut client = proxy.client();
        client
            .say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello")
            .unwrap();
        std::thread::sleep(Duration::from_millis(100));
        match how {
            "reset" => client.reset(),
            _ => drop(client),
        }
        assert_left(&left);
    }
}

#[test]
fn disconnect_of_a_client_that_does_not_read_cancels_the_upstream_request() {
    let (origin, left) = watched(|peer| {
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        let _ = peer
            .stream
            .set_write_timeout(Some(Duration::from_millis(300)));
        for _ in 0..100 {
            if std::io::Write::write_all(&mut peer.stream, &[0; 1 << 20]).is_err() {
                break;
            }
        }
    });
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(600));
    drop(client);
    assert_left(&left);
}

#[test]
fn upstream_disconnect_returns_502_and_keeps_the_client_connection() {
    let check = |origin: Raw, more: &str, status: u16, token: &str| {
        let proxy = plain(origin.address, more);
        let mut client = proxy.client();
        let answer = client.try_get("/", "");
        let answer = answer.unwrap_or_else(|error| panic!("{token}: {error}"));
        assert_eq!(
            (answer.status, answer.header("watershed-error")),
            (status, Some(token))
        );
        assert!(!answer.text().is_empty());
        // The fault is not the client's, so its connection stays open.
        assert_eq!(client.get("/", "").status, status);
    };
    let closes = Raw::start(|mut peer| drop(peer.head()));
    check(closes, "", 502, "upstream_broken");
    let resets = Raw::start(|mut peer| {
        peer.head();
        peer.reset();
    });
    check(resets, "", 502, "upstream_broken");
    let babbles = Raw::always("what?\r\n\r\n");
    check(babbles, "", 502, "upstream_unsound");
    let thinks = Raw::start(|mut peer| {
        peer.head();
        peer.is_left(SOON * 2);
    });
    check(
        thinks,
        "timeouts: { response: 200ms }",
        504,
        "upstream_response_timeout",
    );
}

#[test]
fn silent_upstream_times_out() {
    let (origin, left) = watched(|peer| {
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    });
    let proxy = plain(origin.address, "workers: 1\ntimeouts: { body: 300ms }");
    let mut client = proxy.client();
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let asked = Instant::now();
    assert!(client.answer(true).is_err());
    assert!(asked.elapsed() < SOON);
    assert_left(&left);
}
