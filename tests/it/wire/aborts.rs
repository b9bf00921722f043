//! Those who leave in the middle: the other side hears of it at once, and nobody else does.

use super::plain;
use crate::support::raw::{Peer, Raw};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(5);

/// An origin that does this with the first request, and tells whether and when it was left alone.
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
fn a_reset_cancels_the_upstream_while_it_thinks() {
    let (origin, left) = watched(|_| {});
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    client.reset();
    assert_left(&left);
}

#[test]
fn a_reset_cancels_the_upstream_in_the_middle_of_a_quiet_answer() {
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
fn a_broken_upload_cancels_the_upstream() {
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
fn a_client_that_does_not_read_cancels_the_upstream_when_it_leaves() {
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
fn an_upstream_that_leaves_is_told_apart() {
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
        // The client did nothing wrong: its connection stays.
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
fn an_upstream_that_falls_silent_is_not_waited_for_forever() {
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
