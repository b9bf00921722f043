//! How large, how many, how long.

use super::plain;
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::raw::Raw;
use std::io::Read;
use std::time::{Duration, Instant};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn what_is_too_large_is_refused_by_what_it_is() {
    let origin = Raw::always(OK);
    let proxy = plain(
        origin.address,
        "limits: { head: 10KiB, target: 8KiB, headers: 20, body: 8KiB }",
    );
    let x = |count: usize| "x".repeat(count);
    let head = |more: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{more}\r\n");
    let check = |status: u16, text: String| {
        let mut client = Client::connect(proxy.public);
        let _ = client.say(&text);
        let answer = client.answer(true).unwrap();
        let text = text.get(..60).unwrap_or(&text);
        assert_eq!(answer.status, status, "{text:?}");
        let kept = answer.header("connection") != Some("close");
        assert_eq!(kept, status == 200, "{text:?}");
        if status != 200 {
            assert!(client.is_closed(), "{text:?}");
        }
    };
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", x(length - 1));
    check(200, target(8192));
    check(414, target(8193));
    check(414, target(1_000_000));
    check(200, head(&format!("X: {}\r\n", x(10_000))));
    check(431, head(&format!("X: {}\r\n", x(10_300))));
    check(431, head(&format!("X: {}\r\n", x(1_000_000))));
    check(200, head(&"X: y\r\n".repeat(19)));
    check(431, head(&"X: y\r\n".repeat(20)));
    let body = |length: usize| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{}",
            x(length)
        )
    };
    check(200, body(8192));
    check(413, body(8193));
    check(413, body(10_000_000));
    let chunked = |length: usize| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{}\r\n0\r\n\r\n",
            x(length)
        )
    };
    check(200, chunked(8192));
    check(413, chunked(8193));
    // What is announced as too large is not waited for.
    check(
        413,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n"
            .to_owned(),
    );
}

#[test]
fn what_is_too_slow_is_told_so() {
    let origin = Origin::start("current");
    let times = "workers: 1\ntimeouts: { head: 300ms, body: 300ms, idle: 600ms }";
    let proxy = plain(origin.address, times);
    let late = |begun: Instant, after: u64| {
        let took = begun.elapsed();
        let after = Duration::from_millis(after);
        assert!(
            took > after && took < after + Duration::from_secs(1),
            "{took:?}"
        );
    };
    // A head that does not come to its end, though bytes keep coming.
    let mut client = proxy.client();
    let begun = Instant::now();
    for byte in b"GET / HTTP/1.1\r\n" {
        if client.say([*byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(40));
    }
    let answer = client.answer(true).unwrap();
    assert_eq!(
        (answer.status, answer.header("watershed-error")),
        (408, Some("head_timeout"))
    );
    assert!(client.is_closed());
    late(begun, 250);
    // A body that stops.
    let mut client = proxy.client();
    let begun = Instant::now();
    client
        .say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhell")
        .unwrap();
    let answer = client.answer(true).unwrap();
    assert_eq!(
        (answer.status, answer.header("watershed-error")),
        (408, Some("body_timeout"))
    );
    assert!(client.is_closed());
    late(begun, 290);
    // One that is slow and does not stop.
    let mut client = proxy.client();
    client
        .say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        .unwrap();
    for byte in b"hello" {
        std::thread::sleep(Duration::from_millis(150));
        client.say([*byte]).unwrap();
    }
    assert_eq!(client.answer(true).unwrap().json()["body_bytes"], 5);
    // A kept connection without a request just ends.
    let begun = Instant::now();
    assert_eq!(client.rest().unwrap(), "");
    late(begun, 590);
    // So does one that never says anything.
    let begun = Instant::now();
    assert_eq!(proxy.client().rest().unwrap(), "");
    late(begun, 290);
}

#[test]
fn a_client_that_does_not_read_is_left() {
    let origin = Raw::start(|mut peer| {
        while peer.head().is_some() {
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
            peer.say(vec![0; 100_000_000]);
        }
    });
    let proxy = plain(origin.address, "workers: 1\ntimeouts: { body: 300ms }");
    let mut stream = std::net::TcpStream::connect(proxy.public).unwrap();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got);
    assert!(
        got.len() < 50_000_000,
        "{} bytes were kept for it",
        got.len()
    );
}

#[test]
fn slow_clients_hinder_nobody() {
    let origin = Raw::always(OK);
    let proxy = plain(origin.address, "workers: 1");
    let mut slow: Vec<Client> = (0..500).map(|_| proxy.client()).collect();
    for (number, client) in slow.iter_mut().enumerate() {
        let begun = match number % 3 {
            0 => "GET / HT",
            1 => "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc",
            _ => "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5",
        };
        client.say(begun).unwrap();
    }
    let mut client = proxy.client();
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(client.get("/", "").text(), "ok");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}
