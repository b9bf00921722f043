//! WebSocket and other upgrades, and server-sent events.

use super::plain;
use crate::support::client::Client;
use crate::support::raw::{Peer, Raw};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Echoes bytes until the client closes.
fn echo(peer: &mut Peer) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = peer.stream.read(&mut buffer) {
        peer.stream.write_all(&buffer[..read]).unwrap();
    }
}

fn agreeing(with: impl Fn(&mut Peer) + Send + Sync + 'static) -> Raw {
    Raw::start(move |mut peer| {
        let Some(head) = peer.head() else { return };
        let head = head.to_lowercase();
        assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
        assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
        assert!(head.contains("\r\nsec-websocket-key: "), "{head}");
        peer.say(AGREE);
        with(&mut peer);
    })
}

fn upgrade(client: &mut Client) {
    client.say(ASK).unwrap();
    let (status, headers) = client.head().unwrap();
    assert_eq!(status, 101);
    let has = |name: &str, value: &str| {
        let same = |(other, said): &(String, String)| {
            other.eq_ignore_ascii_case(name) && said.eq_ignore_ascii_case(value)
        };
        assert!(headers.iter().any(same), "{name}: {value} in {headers:?}");
    };
    has("connection", "upgrade");
    has("upgrade", "websocket");
    has("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert!(
        !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("content-length"))
    );
}

#[test]
fn upgraded_connection_forwards_bytes_in_both_directions() {
    let origin = agreeing(|peer| {
        // Sent before the client sends anything.
        peer.say("welcome");
        echo(peer);
    });
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    upgrade(&mut client);
    assert_eq!(client.exactly(7), b"welcome");
    // Bytes that are nothing like HTTP.
    let bytes: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
    client.say(&bytes).unwrap();
    assert_eq!(client.exactly(bytes.len()), bytes);
    // A half-close is forwarded, and later bytes of the other side, too.
    client.half_close();
    assert!(client.is_closed());
}

#[test]
fn bytes_after_an_upgrade_request_reach_the_upstream() {
    let origin = agreeing(echo);
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    client
        .say([ASK.as_bytes(), b"\x81\x05hello\0\r\n"].concat())
        .unwrap();
    assert_eq!(client.head().unwrap().0, 101);
    assert_eq!(client.exactly(10), b"\x81\x05hello\0\r\n");
}

#[test]
fn refused_upgrade_is_an_ordinary_request() {
    let origin = Raw::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    client.say(format!("{ASK}{ASK}")).unwrap();
    for _ in 0..2 {
        let answer = client.answer(true).unwrap();
        assert_eq!((answer.status, &*answer.text()), (200, "no"));
        assert_eq!(answer.header("upgrade"), None);
    }
    // The connection is still parsed as HTTP.
    client
        .say(format!(
            "{ASK}GET /bad HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"
        ))
        .unwrap();
    assert_eq!(client.answer(true).unwrap().status, 200);
    assert_eq!(client.answer(true).unwrap().status, 400);
    // A request ID may contain the letters.
    assert!(!origin.seen().contains("/bad"));
}

#[test]
fn h2c_upgrade_is_not_forwarded() {
    let origin = Raw::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    let answer = client.get(
        "/",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    );
    assert_eq!(answer.status, 200);
    let seen = origin.seen().to_lowercase();
    assert!(
        !seen.contains("upgrade") && !seen.contains("http2-settings"),
        "{seen}"
    );
}

#[test]
fn tunnel_closes_both_sides_when_one_closes() {
    let (told, left) = std::sync::mpsc::channel();
    let origin = agreeing(move |peer| {
        let begun = Instant::now();
        let _ = told.send(
            peer.is_left(Duration::from_secs(10))
                .then(|| begun.elapsed()),
        );
    });
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    upgrade(&mut client);
    client.reset();
    let after = left.recv().unwrap().expect("the upstream was left alone");
    assert!(after < Duration::from_secs(5), "{after:?}");
    let origin = agreeing(|peer| peer.say("bye"));
    let proxy = plain(origin.address, "workers: 1");
    let mut client = proxy.client();
    upgrade(&mut client);
    assert_eq!(client.exactly(3), b"bye");
    assert!(client.is_closed());
}

#[test]
fn idle_tunnel_is_closed() {
    let origin = agreeing(echo);
    let proxy = plain(
        origin.address,
        "workers: 1\ntimeouts: { tunnel: 1500ms, idle: 100ms, body: 100ms }",
    );
    let mut client = proxy.client();
    upgrade(&mut client);
    let begun = Instant::now();
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(500));
        client.say("x").unwrap();
        assert_eq!(client.exactly(1), b"x");
    }
    assert!(client.is_closed());
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(3400), "{took:?}");
}

#[test]
fn server_sent_events_are_forwarded_immediately() {
    let (heard, hearing) = std::sync::mpsc::channel();
    let hearing = std::sync::Mutex::new(hearing);
    let origin = Raw::start(move |mut peer| {
        if peer.head().is_none() {
            return;
        }
        peer.say(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        for number in 0..4 {
            // The client must have received everything so far.
            hearing.lock().unwrap().recv().unwrap();
            std::thread::sleep(Duration::from_millis(300));
            peer.say(format!("9\r\ndata: {number}\n\n\r\n"));
        }
        peer.say("0\r\n\r\n");
    });
    // The pause between events can be longer than that between pieces of a body.
    let proxy = plain(
        origin.address,
        "workers: 1\ntimeouts: { body: 100ms, tunnel: 10s }",
    );
    let mut client = proxy.client();
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    client.head().unwrap();
    for number in 0..4 {
        heard.send(()).unwrap();
        assert_eq!(
            client.chunk().unwrap().unwrap(),
            format!("data: {number}\n\n").as_bytes()
        );
    }
    assert_eq!(client.chunk().unwrap(), None);
}

#[test]
fn http2_extended_connect_becomes_a_websocket() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let origin = agreeing(echo);
    let proxy = plain(origin.address, "workers: 1");
    super::http2::run(async {
        let mut sender = super::http2::connect(proxy.public).await;
        for _ in 0..2 {
            let request = hyper::Request::connect("http://site.test/chat")
                .header("sec-websocket-version", "13")
                .extension(hyper::ext::Protocol::from_static("websocket"))
                .body(super::http2::whole(""))
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            for gone in ["connection", "upgrade", "sec-websocket-accept"] {
                assert!(!response.headers().contains_key(gone), "{gone}");
            }
            let stream = hyper::upgrade::on(response).await.unwrap();
            let mut stream = hyper_util::rt::TokioIo::new(stream);
            for _ in 0..3 {
                stream.write_all(b"\x81\x05hello\0").await.unwrap();
                let mut back = [0; 8];
                stream.read_exact(&mut back).await.unwrap();
                assert_eq!(&back, b"\x81\x05hello\0");
            }
            // A half-close is forwarded.
            stream.shutdown().await.unwrap();
            assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        }
        // Other CONNECT requests are refused.
        let request = hyper::Request::connect("http://site.test/chat")
            .extension(hyper::ext::Protocol::from_static("connect-udp"))
            .body(super::http2::whole(""));
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 400);
    });
    let seen = origin.seen();
    assert!(seen.starts_with("GET /chat HTTP/1.1\r\n"), "{seen}");
}

#[test]
fn http2_extended_connect_without_101_is_502_for_2xx_and_passes_otherwise() {
    let origin = Raw::start(|mut peer| {
        while let Some(head) = peer.head() {
            let status = head.split(['/', ' ']).nth(2).unwrap();
            peer.say(format!(
                "HTTP/1.1 {status} X\r\nContent-Length: 4\r\nLocation: /other\r\n\r\ntext"
            ));
        }
    });
    let proxy = plain(origin.address, "workers: 1");
    super::http2::run(async {
        let mut sender = super::http2::connect(proxy.public).await;
        let mut ask = async |path: String| {
            let request = hyper::Request::connect(format!("http://site.test/{path}"))
                .extension(hyper::ext::Protocol::from_static("websocket"))
                .body(super::http2::whole(""));
            let response = sender.send_request(request.unwrap()).await.unwrap();
            let status = response.status().as_u16();
            let error = response.headers().get("watershed-error").cloned();
            (status, error.map(|it| it.to_str().unwrap().to_owned()))
        };
        // More often than failures eject an endpoint.
        for _ in 0..10 {
            for status in [200, 201, 299] {
                let refused = Some("upstream_not_upgraded".to_owned());
                assert_eq!(ask(status.to_string()).await, (502, refused), "{status}");
            }
        }
        for status in [302, 403, 503] {
            assert_eq!(ask(status.to_string()).await, (status, None));
        }
    });
    // HTTP/1 clients know the status: a 200 is an ordinary response to them.
    let mut client = proxy.client();
    client.say(ASK.replace("/chat", "/200")).unwrap();
    assert_eq!(client.head().unwrap().0, 200);
}
