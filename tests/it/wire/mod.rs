//! HTTP on the wire, byte by byte.

mod aborts;
mod caches;
mod connection_limits;
mod cookies;
mod differential;
mod dns;
mod endpoints;
mod failover;
mod forwarding;
mod header_names;
mod http1;
pub mod http2;
mod limits;
mod memory;
mod open_pages;
mod pipeline;
mod requests;
mod response_limits;
mod responses;
mod stalled;
mod streams;
mod te_and_max_forwards;
pub mod tls;
mod traffic_metrics;
mod trust;
mod upgrades;
mod upstream_connections;
mod versions;
mod virtual_hosts;

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::refusing_address;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

fn plain(origin: SocketAddr, more: &str) -> Proxy {
    Proxy::start(&format!(
        "upstreams: {{ current: \"http://{origin}\" }}\n{more}"
    ))
}

/// Returns the values of this header that the origin received.
pub fn sent<'a>(said: &'a Value, name: &str) -> Vec<&'a str> {
    let lines = said["headers"].as_array().unwrap().iter();
    lines
        .filter(|line| line[0] == name)
        .map(|line| line[1].as_str().unwrap())
        .collect()
}

/// Accepts the first connection with a request. Returns it with its first bytes. The proxy probes the
/// upstream at its start with a connection that carries nothing.
fn first_request(listener: &TcpListener) -> (TcpStream, Vec<u8>) {
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).unwrap();
        if read > 0 {
            return (stream, buffer[..read].to_vec());
        }
    }
}

#[test]
fn request_head_reaches_the_upstream_with_proxy_headers() {
    let origin = Origin::start("current");
    let proxy = plain(origin.address, "");
    let mut client = proxy.client();
    let headers = "X-One: a\r\nX-One: b\r\nCookie: a=1; b=2\r\nCookie: c=3\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
                   Keep-Alive: timeout=5\r\nTE: trailers\r\nUpgrade: h2c\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
                   Watershed-User: someone-else\r\n";
    let answer = client.get("/a%20b/../c?x=1&y=%2F", headers);
    assert_eq!(answer.status, 200);
    let said = answer.json();
    assert_eq!(said["target"], "/a%20b/../c?x=1&y=%2F");
    assert_eq!(sent(&said, "x-one"), ["a", "b"]);
    assert_eq!(sent(&said, "cookie"), ["a=1; b=2", "c=3"]);
    assert_eq!(sent(&said, "host"), ["site.test"]);
    assert_eq!(sent(&said, "x-forwarded-host"), ["site.test"]);
    assert_eq!(
        sent(&said, "x-forwarded-for"),
        ["127.0.0.1"],
        "the header of an untrusted peer is replaced"
    );
    assert_eq!(sent(&said, "x-forwarded-proto"), ["http"]);
    assert_eq!(sent(&said, "te"), ["trailers"]);
    assert_eq!(sent(&said, "via"), ["1.1 watershed"]);
    assert_eq!(sent(&said, "connection"), ["te"]);
    for gone in ["x-hop", "keep-alive", "upgrade", "watershed-user"] {
        assert_eq!(sent(&said, gone), [""; 0], "{gone}");
    }
    assert_eq!(answer.header("server"), Some("current"));
    assert_eq!(answer.header("via"), Some("1.1 watershed"));
    // Only the last one is added by a key of the file.
    let allowed = [
        "content-type",
        "server",
        "content-length",
        "date",
        "via",
        "x-request-id",
    ];
    for (name, _) in &answer.headers {
        assert!(
            allowed.contains(&name.to_lowercase().as_str()),
            "{name} leaks"
        );
    }
}

#[test]
fn hop_by_hop_response_headers_are_not_forwarded() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = plain(listener.local_addr().unwrap(), "");
    std::thread::spawn(move || {
        let (mut stream, _) = first_request(&listener);
        let head = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Gone\r\nX-Gone: 1\r\nKeep-Alive: timeout=5\r\n\
                    Watershed-Group: forged\r\nTransfer-Encoding: chunked\r\nX-Stays: a\r\nX-Stays: b\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(b"5\r\nhello\r\n0\r\n\r\n").unwrap();
    });
    let answer = proxy.client().get("/", "");
    assert_eq!(answer.text(), "hello");
    for gone in ["x-gone", "keep-alive", "watershed-group", "content-length"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    assert_eq!(answer.all("x-stays"), ["a", "b"]);
}

#[test]
fn forwarded_headers_of_trusted_peers_are_appended_to() {
    let origin = Origin::start("current");
    let proxy = plain(origin.address, "trust: [ 127.0.0.0/8 ]");
    let said = proxy
        .client()
        .get(
            "/",
            "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n",
        )
        .json();
    assert_eq!(sent(&said, "x-forwarded-for"), ["1.2.3.4, 127.0.0.1"]);
    assert_eq!(sent(&said, "x-forwarded-proto"), ["https"]);
}

#[test]
fn client_and_upstream_connections_are_reused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = plain(listener.local_addr().unwrap(), "workers: 1");
    let served = std::thread::spawn(move || {
        // One connection serves all three requests.
        let (mut stream, mut seen) = first_request(&listener);
        let mut answered = 0;
        loop {
            while let Some(end) = seen.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                seen.drain(..end + 4);
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .unwrap();
                answered += 1;
            }
            if answered == 3 {
                return;
            }
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the proxy closed after {answered} answers");
            seen.extend_from_slice(&buffer[..read]);
        }
    });
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/", "").text(), "ok");
    }
    served.join().unwrap();
}

#[test]
fn bodies_stream_in_both_directions() {
    let origin = Origin::start("current");
    let proxy = plain(origin.address, "");
    let mut client = proxy.client();
    client
        .say("POST /?echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    client.say("5\r\nfirst\r\n").unwrap();
    let (status, _) = client.head().unwrap();
    assert_eq!(status, 200);
    // The first piece returns before the second one is sent.
    assert_eq!(client.chunk().unwrap().unwrap(), b"first");
    client.say("6\r\nsecond\r\n0\r\n\r\n").unwrap();
    assert_eq!(client.chunk().unwrap().unwrap(), b"second");
    assert_eq!(client.chunk().unwrap(), None);
    let body = "x".repeat(3_000_000);
    let answer = client.post("/?echo", "", &body);
    assert_eq!(
        answer.body.len(),
        body.len(),
        "after a chunked body the connection is still good"
    );
}

#[test]
fn bodiless_responses_and_http_1_0_clients_are_served() {
    let origin = Origin::start("current");
    let proxy = plain(origin.address, "");
    let mut client = proxy.client();
    client.say("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let head = client.answer(false).unwrap();
    assert!(
        head.header("content-length")
            .is_some_and(|length| length != "0")
    );
    assert_eq!(client.get("/?status=204", "").status, 204);
    assert_eq!(client.get("/?status=304", "").status, 304);
    assert_eq!(client.get("/", "").status, 200);
    let mut old = proxy.client();
    old.say("GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(old.answer(true).unwrap().status, 200);
    assert!(old.is_closed());
}

#[test]
fn set_cookie_lines_stay_separate() {
    let origin = Origin::start("current");
    let proxy = plain(origin.address, "");
    let answer = proxy.client().get("/?cookies=a=1,b=2", "");
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
}

#[test]
fn invalid_request_is_refused_and_not_forwarded() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let proxy = plain(listener.local_addr().unwrap(), "");
    let check = |status: u16, text: &str| {
        let mut client = Client::connect(proxy.public);
        client.say(text).unwrap();
        let text = text.get(..60).unwrap_or(text);
        let answer = client
            .answer(true)
            .unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(answer.status, status, "{text:?}");
        assert!(client.is_closed(), "{text:?}");
    };
    check(400, "GET / HTTP/1.1\r\n\r\n");
    check(400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    check(
        400,
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    );
    check(400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n");
    check(400, "nonsense\r\n\r\n");
    check(400, "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n");
    check(
        414,
        &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(17 << 10)),
    );
    check(
        431,
        &format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(80 << 10)
        ),
    );
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_nonblocking(false).unwrap();
        let read = stream.read(&mut [0; 1000]).unwrap();
        assert_eq!(read, 0, "something reached the upstream");
    }
}

#[test]
fn upstream_fault_returns_its_status_and_error_token() {
    let check = |upstream: SocketAddr, more: &str, status: u16, token: &str| {
        let proxy = plain(upstream, more);
        let answer = proxy.client().get("/?sleep_ms=3000", "");
        assert_eq!(
            (answer.status, answer.header("watershed-error")),
            (status, Some(token))
        );
    };
    let closed = refusing_address();
    check(closed, "", 502, "upstream_refused");
    let slow = Origin::start("current");
    check(
        slow.address,
        "timeouts: { response: 100ms }",
        504,
        "upstream_response_timeout",
    );
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in mute.incoming() {
            let _ = stream.unwrap().read(&mut [0; 100]);
        }
    });
    check(address, "", 502, "upstream_broken");
}

#[test]
fn truncated_body_is_not_complete_for_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = plain(listener.local_addr().unwrap(), "");
    std::thread::spawn(move || {
        let (mut stream, _) = first_request(&listener);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .unwrap();
    });
    let mut client = proxy.client();
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(client.answer(true).is_err());
}

#[test]
fn request_on_closed_kept_connection_is_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = plain(listener.local_addr().unwrap(), "workers: 1");
    std::thread::spawn(move || {
        // Sends one response on each connection, then closes it without an announcement.
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1000]).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let mut client = proxy.client();
    for number in 0..200 {
        let answer = client.get("/", "");
        assert_eq!(answer.status, 200, "request {number}: {}", answer.text());
    }
}

#[test]
fn body_over_the_limit_returns_413() {
    let origin = Origin::start("current");
    let proxy = plain(origin.address, "limits: { body: 10KiB }");
    let answer = proxy.client().post("/", "", &"x".repeat(10_241));
    assert_eq!(
        (answer.status, answer.header("watershed-error")),
        (413, Some("body_too_long"))
    );
    assert_eq!(
        proxy.client().post("/", "", &"x".repeat(10_240)).status,
        200
    );
}
