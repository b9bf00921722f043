//! Outcomes that all kinds of requests share: error responses have an ID and a logged error, and their
//! connection stays usable.

use super::stalled::{Http2, get};
use super::{http2, plain};
use crate::support::client::Client;
use crate::support::proxy::Proxy;
use crate::support::raw::Raw;
use crate::support::until;
use hyper::Request;
use serde_json::Value;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Returns the line of the access log with this value.
fn logged(proxy: &Proxy, key: &str, value: &str) -> Value {
    let file = proxy.folder.path().join("access.log");
    until("a line of the log", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let found = lines.into_iter().find(|line: &Value| line[key] == value);
        found.ok_or(text)
    })
}

#[test]
fn error_response_has_the_logged_request_id() {
    let origin = Raw::always(OK);
    let proxy = plain(origin.address, "workers: 1\naccess_log: access.log");
    for (request, token) in [
        ("GET / HTTP/1.1\r\n\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", "malformed"),
        ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", "target"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "chunk",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
            "content_length",
        ),
    ] {
        let mut client = Client::connect(proxy.public);
        client.say(request).unwrap();
        let answer = client.answer(true).unwrap();
        assert_eq!(answer.header("watershed-error"), Some(token));
        let ids = answer.all("x-request-id");
        assert_eq!(ids.len(), 1, "{token}: {answer:?}");
        assert_eq!(logged(&proxy, "request_id", ids[0])["error"], token);
    }
    http2::run(async {
        let mut sender = http2::connect(proxy.public).await;
        let request = Request::get("http://a/").header("host", "b");
        let request = request.body(http2::whole("")).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 400);
        let id = answer.headers()["x-request-id"].to_str().unwrap();
        assert_eq!(logged(&proxy, "request_id", id)["error"], "host");
    });
}

#[test]
fn invalid_first_chunk_returns_502() {
    for body in ["x\r\n", "2\nok\r\n0\r\n\r\n", "2 \r\nok\r\n0\r\n\r\n"] {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let origin = Raw::always(answer);
        let proxy = plain(origin.address, "workers: 1");
        let answer = proxy.client().get("/", "");
        assert_eq!(
            (answer.status, answer.header("watershed-error")),
            (502, Some("upstream_unsound")),
            "{body:?}"
        );
    }
}

#[test]
fn announced_trailers_reach_clients_that_accept_them() {
    let origin = Raw::start(|mut peer| {
        while peer.request().is_some() {
            peer.say(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                 2\r\nok\r\n0\r\nX-Sum: 1\r\nWatershed-Event: buy\r\n\r\n",
            );
        }
    });
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    for (te, trailers) in [("TE: trailers\r\n", "X-Sum: 1\r\n"), ("", "")] {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{te}Trailer: X-In\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let body = "2\r\nin\r\n0\r\nX-In: 1\r\nHost: b\r\n\r\n";
        client.say(format!("{head}{body}")).unwrap();
        assert_eq!(client.head().unwrap().0, 200);
        let expected = format!("2\r\nok\r\n0\r\n{trailers}\r\n");
        let body = client.exactly(expected.len());
        assert_eq!(String::from_utf8_lossy(&body), expected);
    }
    let seen = origin.seen();
    assert_eq!(
        seen.matches("\r\n2\r\nin\r\n0\r\nX-In: 1\r\n\r\n").count(),
        2,
        "{seen}"
    );
    assert!(!seen.contains("Host: b"), "{seen}");
}

#[test]
fn different_kinds_of_requests_share_one_connection() {
    let origin = Raw::always(OK);
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    let long = "x".repeat(300_000);
    let chunks = "4\r\nlong\r\n".repeat(20_000);
    let coded = "Transfer-Encoding: chunked\r\n";
    for round in 0..3 {
        for (line, fields, body) in [
            ("GET / HTTP/1.1", "", ""),
            ("POST / HTTP/1.1", "Content-Length: 300000\r\n", &*long),
            ("POST / HTTP/1.1", coded, &*format!("{chunks}0\r\n\r\n")),
            ("POST / HTTP/1.1", coded, "0\r\n\r\n"),
            ("GET http://b/ HTTP/1.1", "TE: trailers\r\n", ""),
            ("GET / HTTP/1.0", "Connection: keep-alive\r\n", ""),
            ("OPTIONS /o HTTP/1.1", "Max-Forwards: 0\r\n", ""),
            (
                "GET / HTTP/1.1",
                "Connection: upgrade\r\nUpgrade: x\r\n",
                "",
            ),
        ] {
            client
                .say(format!("{line}\r\nHost: a\r\n{fields}\r\n{body}"))
                .unwrap();
            let answer = client.answer(true).unwrap();
            assert_eq!(answer.status, 200, "{line} {fields} in round {round}");
        }
        // A body that is sent only after 100 Continue.
        client
            .say(format!(
                "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{coded}\r\n"
            ))
            .unwrap();
        assert_eq!(client.head().unwrap().0, 100);
        client.say("2\r\nok\r\n0\r\n\r\n").unwrap();
        assert_eq!(client.answer(true).unwrap().status, 200);
    }
}

#[test]
fn early_response_head_is_forwarded_before_the_body_arrives() {
    let origin = Raw::start(|mut peer| {
        if peer.head().is_some() {
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
            let mut body = [0; 4];
            std::io::Read::read_exact(&mut peer.stream, &mut body).unwrap();
            peer.say(body);
        }
    });
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.say(head).unwrap();
    assert_eq!(client.head().unwrap().0, 200);
    client.say("late").unwrap();
    assert_eq!(client.exactly(4), b"late");
}

#[test]
fn event_report_without_its_body_is_logged_with_its_error() {
    let origin = Raw::always(OK);
    let proxy = plain(
        origin.address,
        "workers: 1\naccess_log: access.log\ntimeouts: { body: 300ms }\n\
         experiments: { site: { match: /x, control: current, experiment: current, percent: 50 } }\n\
         metrics: { buy: { event: buy } }",
    );
    let mut client = proxy.client();
    client
        .say("POST /_watershed/events HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{}")
        .unwrap();
    let answer = client.answer(true).unwrap();
    assert_eq!(answer.status, 408, "{}", answer.text());
    let line = logged(&proxy, "path", "/_watershed/events");
    assert_eq!(
        (&line["error"], &line["bytes_in"]),
        (&"body_timeout".into(), &2.into())
    );
}

#[test]
fn unread_http2_response_is_not_logged_as_complete() {
    let origin = Raw::always(OK);
    let more = "workers: 1\naccess_log: access.log\ntimeouts: { body: 300ms }";
    let proxy = plain(origin.address, more);
    // This client's window allows no byte of a body.
    let mut client = Http2::connect(proxy.public, 0);
    client.send(1, 5, 1, &get("/never", &[]));
    let line = logged(&proxy, "path", "/never");
    assert_eq!(line["end"], "client_left");
}

#[test]
fn slow_steady_reader_gets_the_whole_response() {
    const BYTES: usize = 4 << 20;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
    let origin = Raw::always([head.as_bytes(), &vec![b'x'; BYTES]].concat());
    let proxy = plain(origin.address, "workers: 1\ntimeouts: { body: 700ms }");
    let mut client = proxy.client();
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.head().unwrap().0, 200);
    for _ in 0..BYTES / 16384 {
        client.exactly(16384);
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
}
