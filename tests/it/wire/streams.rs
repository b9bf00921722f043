//! Responses of every framing to HTTP/2 clients.

use super::http2::{connect, run, text, whole};
use super::plain;
use crate::support::proxy::Proxy;
use crate::support::raw::{Peer, Raw};
use crate::support::until;
use http_body_util::BodyExt;
use hyper::Request;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The response is the same however it is cut.
fn say_in_pieces(peer: &mut Peer, answer: &[u8], bytes: usize) {
    for piece in answer.chunks(bytes) {
        peer.say(piece);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends `GET /` twice on one connection, to an upstream that sends this response in pieces. Returns the
/// outcomes and the number of upstream connections.
#[track_caller]
fn check(answer: &str, closes: bool, expected: Result<(&str, &str), ()>) -> usize {
    check_cut(answer, 7, closes, expected)
}

#[track_caller]
fn check_cut(
    answer: &str,
    bytes: usize,
    closes: bool,
    expected: Result<(&str, &str), ()>,
) -> usize {
    let connections = Arc::new(AtomicUsize::new(0));
    let (said, all) = (answer.to_owned(), Arc::clone(&connections));
    let origin = Raw::start(move |mut peer| {
        let mut asked = false;
        while peer.request().is_some() {
            if !std::mem::replace(&mut asked, true) {
                all.fetch_add(1, Ordering::SeqCst);
            }
            say_in_pieces(&mut peer, said.as_bytes(), bytes);
            if closes {
                return;
            }
        }
    });
    let proxy = plain(origin.address, "workers: 1");
    run(async {
        let mut sender = connect(proxy.public).await;
        for _ in 0..2 {
            let request = Request::get("http://a/").body(whole("")).unwrap();
            let response = match sender.send_request(request).await {
                Ok(response) => response,
                // The stream can be reset before its head is sent.
                Err(_) if expected.is_err() => continue,
                Err(error) => panic!("{answer:?}: {error}"),
            };
            assert_eq!(response.status(), 200, "{answer:?}");
            let collected = response.into_body().collect().await;
            let read = collected.map(|collected| {
                let sum = collected.trailers().and_then(|it| it.get("x-sum").cloned());
                let sum = sum.map_or(String::new(), |sum| sum.to_str().unwrap().to_owned());
                let bytes = collected.to_bytes();
                (String::from_utf8_lossy(&bytes).into_owned(), sum)
            });
            let read = read.as_ref().map(|(body, sum)| (&**body, &**sum));
            assert_eq!(read.map_err(drop), expected, "{answer:?}");
        }
    });
    connections.load(Ordering::SeqCst)
}

#[test]
fn responses_of_every_framing_are_complete() {
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(check(OK, false, Ok(("ok", ""))), 1);
    let none = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(check(none, false, Ok(("", ""))), 1);
    let pieces = format!("{chunks}5;a=\"b\"\r\nhello\r\n1\r\n!\r\n0\r\n\r\n");
    assert_eq!(check(&pieces, false, Ok(("hello!", ""))), 1);
    let trailers =
        format!("{chunks}2\r\nok\r\n0\r\nX-Sum: 7\r\nWatershed-Event: buy\r\nHost: x\r\n\r\n");
    assert_eq!(check(&trailers, false, Ok(("ok", "7"))), 1);
    let empty = format!("{chunks}0\r\n\r\n");
    assert_eq!(check(&empty, false, Ok(("", ""))), 1);
    check("HTTP/1.1 200 OK\r\n\r\nhello", true, Ok(("hello", "")));
    check("HTTP/1.0 200 OK\r\n\r\nhello", true, Ok(("hello", "")));
}

#[test]
fn truncated_response_is_not_complete_and_its_connection_is_not_reused() {
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (answer, closes) in [
        (format!("{chunks}5\r\nhello\r\n"), true),
        (format!("{chunks}5\r\nhello\r\nx\r\n"), false),
        (format!("{chunks}5\r\nhello\r\n0\r\nX y\r\n\r\n"), false),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello".to_owned(),
            true,
        ),
    ] {
        assert_eq!(check(&answer, closes, Err(())), 2, "{answer:?}");
    }
    // Bytes after a response could be mistaken for the next one.
    let more = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 No\r\n\r\n";
    for bytes in [more.len(), more.find("kHTTP").unwrap(), 7] {
        assert_eq!(check_cut(more, bytes, false, Ok(("ok", ""))), 2, "{bytes}");
    }
}

#[test]
fn large_response_waits_for_a_slow_reader() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let origin = Raw::start(move |mut peer| {
        use std::io::Write;
        while peer.request().is_some() {
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 33554432\r\n\r\n");
            for _ in 0..512 {
                if peer.stream.write_all(&[b'x'; 65536]).is_err() {
                    return;
                }
                count.fetch_add(65536, Ordering::SeqCst);
            }
        }
    });
    let proxy = plain(origin.address, "workers: 1");
    run(async {
        let mut sender = connect(proxy.public).await;
        let request = Request::get("http://a/").body(whole("")).unwrap();
        let mut response = sender.send_request(request).await.unwrap();
        response.body_mut().frame().await.unwrap().unwrap();
        // Long enough for a proxy without back-pressure to read all of it.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let held = written.load(Ordering::SeqCst);
        assert!(held < 24 << 20, "{held} bytes were taken of a slow reader");
        let mut all = 0;
        while let Some(frame) = response.body_mut().frame().await {
            all += frame.unwrap().into_data().unwrap().len();
        }
        assert!(all > 32 << 20 >> 1 && written.load(Ordering::SeqCst) == 32 << 20);
    });
}

#[test]
fn upstream_silent_during_the_body_times_out() {
    for (said, status) in [
        ("", Some(504)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", None),
    ] {
        let (told, left) = mpsc::channel();
        let origin = Raw::start(move |mut peer| {
            if peer.head().is_some() {
                peer.say(said);
                let _ = told.send(peer.is_left(Duration::from_secs(10)));
            }
        });
        let proxy = plain(
            origin.address,
            "workers: 1\ntimeouts: { response: 400ms, body: 400ms }",
        );
        run(async {
            let mut sender = connect(proxy.public).await;
            let request = Request::get("http://a/").body(whole("")).unwrap();
            let began = Instant::now();
            let response = sender.send_request(request).await.unwrap();
            match status {
                Some(status) => assert_eq!(response.status(), status),
                None => assert!(response.into_body().collect().await.is_err()),
            }
            assert!(began.elapsed() < Duration::from_secs(5));
        });
        assert!(left.recv().unwrap());
    }
}

#[test]
fn head_response_has_no_body_and_interim_responses_are_skipped() {
    let origin = Raw::always(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
    );
    let proxy = plain(origin.address, "workers: 1");
    run(async {
        let mut sender = connect(proxy.public).await;
        for _ in 0..2 {
            let request = Request::head("http://a/").body(whole("")).unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.headers()["content-length"], "7");
            assert_eq!(text(response).await, "");
        }
    });
}

#[test]
fn request_is_counted_once_on_every_outcome() {
    let origin = Raw::always(OK);
    let inner = plain(origin.address, "workers: 1");
    // The upstream's HTTP/2 is detected only with a connection.
    let http2 = format!(
        "upstreams: {{ current: \"h2c://{}\" }}\nworkers: 1\nlimits: {{ rate: 1/m }}",
        inner.public
    );
    for proxy in [
        Proxy::start(&http2),
        plain(origin.address, "workers: 1\nlimits: { rate: 1/m }"),
    ] {
        run(async {
            let mut sender = connect(proxy.public).await;
            for status in [200, 429] {
                let request = Request::get("http://a/").body(whole("")).unwrap();
                let response = sender.send_request(request).await.unwrap();
                assert_eq!(response.status(), status);
                assert_eq!(
                    response.headers().contains_key("retry-after"),
                    status == 429
                );
            }
        });
        let metrics = proxy.ask("/admin/metrics").text();
        let told = "watershed_requests_total{} 2";
        assert!(metrics.contains(told), "{metrics}");
    }
}

#[test]
fn response_that_the_client_left_is_recorded_as_aborted() {
    let origin = Raw::start(|mut peer| {
        if peer.head().is_some() {
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello");
            peer.is_left(Duration::from_secs(10));
        }
    });
    let proxy = plain(
        origin.address,
        &format!(
            "workers: 1\nuser: {{ cookie: uid }}\nexperiments: {{ shop: {{ groups: {{ control: {{ weight: 1 }}, experiment: {{ weight: 1 }} }} }} }}\nmetrics: {{ m: /{} }}",
            "whole"
        ),
    );
    run(async {
        let mut sender = connect(proxy.public).await;
        let request = Request::get("http://a/").header("cookie", "uid=u1");
        let request = request.body(whole("")).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        drop(response);
        // The connection sends the reset, and ends with this runtime.
        tokio::time::sleep(Duration::from_millis(200)).await;
    });
    until("what was left", || {
        let results = proxy.results();
        let stages = results["experiments"][0]["sample_ratio"]["stages"].clone();
        let of = |name: &str| {
            let stage = stages.as_array()?.iter().find(|it| it["stage"] == name)?;
            let groups = stage["groups"].as_object()?.values();
            groups.map(|count| count.as_u64()).sum::<Option<u64>>()
        };
        let told = (of("answered"), of("completed"));
        (told == (Some(1), Some(0))).then_some(()).ok_or(stages)
    });
}
