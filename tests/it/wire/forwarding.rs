//! Forwarding headers, interim responses and `Expect: 100-continue`.

use super::plain;
use crate::support::origin::Origin;
use crate::support::raw::Raw;
use std::time::{Duration, Instant};

/// Returns this field as the origin received it.
fn line<'a>(seen: &'a str, name: &str) -> Vec<&'a str> {
    let lines = seen.split("\r\n").filter_map(|line| line.split_once(": "));
    lines
        .filter(|(other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect()
}

#[test]
fn forwarded_headers_are_accepted_from_trusted_peers_only() {
    let ask = "GET / HTTP/1.0\r\nHost: a:81\r\nVia: 1.1 other\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n\
               Forwarded: for=1.1.1.1\r\nX-Forwarded-Host: b\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n\r\n";
    let check = |more: &str, expected: &[(&str, &[&str])]| {
        let origin = Raw::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let proxy = plain(origin.address, more);
        let mut client = proxy.client();
        client.say(ask).unwrap();
        assert_eq!(client.answer(true).unwrap().status, 200);
        for &(name, values) in expected {
            assert_eq!(line(&origin.seen(), name), values, "{name} with {more:?}");
        }
    };
    check(
        "",
        &[
            ("via", &["1.1 other", "1.0 watershed"]),
            ("x-forwarded-for", &["127.0.0.1"]),
            ("forwarded", &["for=127.0.0.1;host=\"a:81\";proto=http"]),
            ("x-forwarded-host", &["a:81"]),
            ("x-forwarded-proto", &["http"]),
            ("x-forwarded-port", &[]),
        ],
    );
    check(
        "trust: [127.0.0.1]",
        &[
            ("x-forwarded-for", &["1.1.1.1, 2.2.2.2, 127.0.0.1"]),
            (
                "forwarded",
                &["for=1.1.1.1, for=127.0.0.1;host=\"a:81\";proto=https"],
            ),
            ("x-forwarded-host", &["b"]),
            ("x-forwarded-proto", &["https"]),
            ("x-forwarded-port", &["443"]),
        ],
    );
}

#[test]
fn hop_by_hop_headers_are_not_forwarded() {
    let origin = Raw::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = plain(origin.address, "");
    let answer = proxy.client().get(
        "/",
        "Connection: X-A , close\r\nConnection: x-b, content-length, host\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\n\
         Keep-Alive: 5\r\nProxy-Connection: keep-alive\r\nTE: gzip, trailers;q=1\r\nUpgrade: foo\r\n",
    );
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    let seen = origin.seen();
    assert_eq!(line(&seen, "connection"), ["te"]);
    for gone in ["x-a", "x-b", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(line(&seen, gone), [""; 0], "{gone}");
    }
    assert_eq!(line(&seen, "te"), ["trailers"]);
    assert_eq!(line(&seen, "x-c"), ["3"]);
    assert_eq!(line(&seen, "host"), ["site.test"]);
}

#[test]
fn trailers_are_forwarded_without_framing_fields() {
    let origin = Raw::always(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T, Content-Length\r\n\r\n\
         2\r\nok\r\n0\r\nX-T: done\r\nContent-Length: 9\r\n\r\n",
    );
    let proxy = plain(origin.address, "");
    let mut client = proxy.client();
    client
        .say("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n")
        .unwrap();
    let got = client.rest().unwrap();
    assert!(
        got.ends_with("2\r\nok\r\n0\r\nX-T: done\r\n\r\n")
            || got.ends_with("2\r\nok\r\n0\r\nx-t: done\r\n\r\n"),
        "{got}"
    );
}

#[test]
fn interim_responses_are_forwarded_before_the_final_one() {
    let (heard, hearing) = std::sync::mpsc::channel();
    let hearing = std::sync::Mutex::new(hearing);
    let origin = Raw::start(move |mut peer| {
        while peer.request().is_some() {
            peer.say(
                "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nWatershed-X: 1\r\n\
                 Connection: x-h\r\nX-H: 1\r\n\r\n",
            );
            peer.say("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
            // The client must have received the interim responses.
            hearing.lock().unwrap().recv().unwrap();
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    for _ in 0..3 {
        client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let (status, headers) = client.head().unwrap();
        assert_eq!(status, 103);
        assert_eq!(
            headers,
            [("Link".to_owned(), "</a.css>; rel=preload".to_owned())]
        );
        assert_eq!(client.head().unwrap().0, 102);
        heard.send(()).unwrap();
        assert_eq!(client.answer(true).unwrap().text(), "ok");
    }
    // All responses in one packet, to pipelined requests.
    let origin = Raw::always(
        "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    client
        .say("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3))
        .unwrap();
    for _ in 0..3 {
        assert_eq!(client.head().unwrap().0, 103);
        assert_eq!(client.answer(true).unwrap().text(), "ok");
    }
    // Byte by byte, to a client of HTTP/1.0.
    let origin = Raw::start(|mut peer| {
        peer.request().unwrap();
        for byte in b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" {
            peer.say([*byte]);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    client.say("GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(client.answer(true).unwrap().text(), "ok");
}

#[test]
fn expect_100_continue_is_answered_by_the_upstream() {
    let ask = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    // The upstream continues.
    let origin = Raw::start(|mut peer| {
        while let Some(head) = peer.head() {
            assert!(
                head.to_lowercase().contains("expect: 100-continue"),
                "{head}"
            );
            std::thread::sleep(Duration::from_millis(100));
            peer.say("HTTP/1.1 100 Continue\r\n\r\n");
            let mut body = [0; 5];
            std::io::Read::read_exact(&mut peer.stream, &mut body).unwrap();
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
            peer.say(body);
        }
    });
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    for _ in 0..2 {
        let asked = Instant::now();
        client.say(ask).unwrap();
        assert_eq!(client.head().unwrap().0, 100);
        let waited = asked.elapsed();
        assert!(
            waited > Duration::from_millis(90),
            "it is the upstream's word: {waited:?}"
        );
        client.say("hello").unwrap();
        assert_eq!(client.answer(true).unwrap().text(), "hello");
    }
    // The upstream refuses.
    let origin = Raw::start(|mut peer| {
        while peer.head().is_some() {
            peer.say("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno");
        }
    });
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    client.say(ask).unwrap();
    let answer = client.answer(true).unwrap();
    assert_eq!(
        (answer.status, &*answer.text()),
        (417, "no"),
        "no 100 before it"
    );
    // An upstream that ignores `Expect`.
    let origin = Origin::start("current");
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    client.say(ask).unwrap();
    assert_eq!(client.head().unwrap().0, 100);
    client.say("hello").unwrap();
    assert_eq!(client.answer(true).unwrap().json()["body_bytes"], 5);
}

#[test]
fn early_error_response_is_forwarded_during_the_upload() {
    for close in [false, true] {
        let origin = Raw::start(move |mut peer| {
            peer.head().unwrap();
            peer.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
            if close {
                return;
            }
            peer.is_left(Duration::from_secs(10));
        });
        let proxy = plain(origin.address, "workers: 1");
        let mut client = proxy.client();
        client
            .say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nbeginning")
            .unwrap();
        let asked = Instant::now();
        // The upload continues while the response arrives.
        let _ = client.say(vec![0; 1_000_000]);
        let answer = client.answer(true).unwrap();
        assert_eq!(
            (answer.status, &*answer.text()),
            (413, "big"),
            "close: {close}"
        );
        assert!(asked.elapsed() < Duration::from_secs(5));
        assert!(client.is_closed(), "what is left of the body is for nobody");
    }
}

#[test]
fn client_that_half_closes_gets_the_response() {
    let origin = Raw::start(|mut peer| {
        while peer.request().is_some() {
            std::thread::sleep(Duration::from_millis(200));
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    client
        .say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
        .unwrap();
    client.half_close();
    assert_eq!(client.answer(true).unwrap().text(), "ok");
    assert!(client.is_closed());
}

#[test]
fn header_order_is_kept_in_both_directions() {
    let fields = "X-1: a\r\nConnection: x-hop\r\nX-2: b\r\nX-Hop: c\r\nX-3: d\r\nWatershed-X: e\r\nX-3: f\r\nX-4: g\r\nX-5: h\r\n";
    let origin = Raw::always(format!(
        "HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n"
    ));
    let proxy = plain(origin.address, "");
    let mut client = proxy.client();
    let answer = client.get("/", fields);
    let expected = ["a", "b", "d", "f", "g", "h"];
    let ours = |name: &str| name.to_lowercase().starts_with("x-") && name.len() == 3;
    let back = answer.headers.iter().filter(|(name, _)| ours(name));
    assert_eq!(back.map(|(_, value)| value).collect::<Vec<_>>(), expected);
    let seen = origin.seen();
    let there = seen.split("\r\n").filter_map(|line| line.split_once(": "));
    let there = there.filter(|(name, _)| ours(name));
    assert_eq!(there.map(|(_, value)| value).collect::<Vec<_>>(), expected);
}
