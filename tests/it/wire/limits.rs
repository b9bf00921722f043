//! Limits of size, count and time of requests.

use super::plain;
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::raw::Raw;
use std::io::Read;
use std::time::{Duration, Instant};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn request_over_a_limit_is_refused_with_its_status() {
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
    // A body whose announced length is too large is refused at once.
    check(
        413,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n"
            .to_owned(),
    );
}

#[test]
fn slow_head_body_or_idle_connection_times_out() {
    let origin = Origin::start("current");
    let times = "workers: 1\nlimits: { body_rate: none }\ntimeouts: { head: 500ms, body: 1s, idle: 1500ms }";
    let proxy = plain(origin.address, times);
    let late = |begun: Instant, after: u64| {
        let took = begun.elapsed();
        let after = Duration::from_millis(after);
        assert!(
            took > after && took < after + Duration::from_secs(4),
            "{took:?}"
        );
    };
    // A head that does not end, although bytes keep arriving.
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
    late(begun, 450);
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
    late(begun, 990);
    // A body that is slow but does not stop.
    let mut client = proxy.client();
    client
        .say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        .unwrap();
    for byte in b"hello" {
        std::thread::sleep(Duration::from_millis(300));
        client.say([*byte]).unwrap();
    }
    assert_eq!(client.answer(true).unwrap().json()["body_bytes"], 5);
    // A kept connection without a request is closed without a response.
    let begun = Instant::now();
    assert_eq!(client.rest().unwrap(), "");
    late(begun, 1490);
    // So is one on which nothing was ever sent.
    let begun = Instant::now();
    assert_eq!(proxy.client().rest().unwrap(), "");
    late(begun, 490);
}

#[test]
fn client_that_does_not_read_is_disconnected() {
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
fn slow_clients_do_not_block_others() {
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
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn requests_over_the_rate_limit_return_429() {
    let origin = Raw::always(OK);
    let proxy = plain(origin.address, "limits: { rate: 5/s }\ntrust: [127.0.0.1]");
    let ask = |forwarded_for: &str| {
        let mut client = proxy.client();
        client.get("/", &format!("X-Forwarded-For: {forwarded_for}\r\n"))
    };
    let begun = Instant::now();
    let answers: Vec<_> = (0..40).map(|_| ask("spoofed, 192.0.2.1")).collect();
    let refused: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 429)
        .collect();
    let admitted = answers.len() - refused.len();
    // The limit holds over all workers and connections.
    let most = 5 + (begun.elapsed().as_secs_f64() * 5.0) as usize + 1;
    assert!(
        (5..=most).contains(&admitted),
        "{admitted} of at most {most}"
    );
    assert_eq!(
        refused[0].header("watershed-error"),
        Some("too_many_requests")
    );
    assert_eq!(refused[0].header("retry-after"), Some("1"));
    assert_eq!(
        ask("192.0.2.1, 192.0.2.2").status,
        200,
        "another client is not held up"
    );
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ask("192.0.2.1").status, 200);
}

#[test]
fn connection_closes_after_its_request_limit() {
    let origin = Raw::always(OK);
    let proxy = plain(origin.address, "limits: { requests: 3 }");
    let mut client = proxy.client();
    assert_eq!(client.get("/", "").header("connection"), None);
    assert_eq!(client.get("/", "").header("connection"), None);
    assert_eq!(client.get("/", "").header("connection"), Some("close"));
    assert!(client.is_closed());
}

#[test]
fn rate_limit_counts_clients_behind_a_trusted_peer() {
    let v2 = |command: u8, family: u8, addresses: &[u8]| {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        header.extend([0x20 | command, family]);
        header.extend((addresses.len() as u16).to_be_bytes());
        header.extend(addresses);
        header
    };
    let ipv4 = [192, 0, 2, 7, 127, 0, 0, 1, 0x1f, 0x90, 0, 80];
    let ipv4_and_more = [&ipv4[..], &[4, 0, 2, 9, 9]].concat();
    let mut ipv6 = [0; 36];
    ipv6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
    ipv6[15] = 7;
    let headers: &[(Vec<u8>, &str)] = &[
        (
            b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\n".to_vec(),
            "192.0.2.7",
        ),
        (
            b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n".to_vec(),
            "2001:db8::7",
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (
            b"PROXY UNKNOWN 1 2 3 \n\r4 5 6 7 8\r\n".to_vec(),
            "127.0.0.1",
        ),
        (v2(1, 0x11, &ipv4), "192.0.2.7"),
        (v2(1, 0x11, &ipv4_and_more), "192.0.2.7"),
        (v2(1, 0x21, &ipv6), "2001:db8::7"),
        (v2(0, 0, &[]), "127.0.0.1"),
    ];
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
    let origin = Origin::start("current");
    let proxy = plain(origin.address, "trust: [127.0.0.1]");
    for (header, expected) in headers {
        for slowly in [false, true] {
            let mut client = proxy.client();
            let all = [header, request.as_bytes()].concat();
            if slowly {
                for byte in all {
                    client.say([byte]).unwrap();
                    std::thread::sleep(Duration::from_micros(200));
                }
            } else {
                client.say(all).unwrap();
            }
            let said = client.answer(true).unwrap().json();
            let seen = said["headers"].to_string();
            // `X-Forwarded-For` of a client is kept only if its address is trusted.
            let expected = match *expected {
                "127.0.0.1" => "6.6.6.6, 127.0.0.1",
                expected => expected,
            };
            assert!(
                seen.contains(&format!("[\"x-forwarded-for\",\"{expected}\"]")),
                "{header:?}: {seen}"
            );
        }
    }
    for unsound in [
        "PROXY TCP4 x y 1 2\r\n",
        "PROXY \r\n",
        "PROXY TCP9 192.0.2.7 127.0.0.1 4711 80\r\n",
    ] {
        let mut client = proxy.client();
        client.say(format!("{unsound}{request}")).unwrap();
        assert!(
            !client.rest().unwrap_or_default().contains("200 OK"),
            "{unsound}"
        );
    }
    // The PROXY line ends with CR LF only.
    let mut client = proxy.client();
    client
        .say("PROXY TCP4 192.0.2.7 127.0.0.1 4711 80 \n")
        .unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let _ = client.say(request);
    assert!(!client.rest().unwrap_or_default().contains("200 OK"));
    // Other peers cannot send a PROXY header.
    let proxy = plain(origin.address, "");
    for (header, _) in headers {
        let mut client = proxy.client();
        client.say([header, request.as_bytes()].concat()).unwrap();
        assert_eq!(client.answer(true).unwrap().status, 400, "{header:?}");
    }
}
