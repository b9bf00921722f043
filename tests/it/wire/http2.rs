//! HTTP/2 from clients, by prior knowledge.

use super::plain;
use crate::support::HANG;
use crate::support::origin::Origin;
use crate::support::raw::Raw;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub type Body = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;

pub fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { tokio::time::timeout(HANG, test).await.unwrap() })
}

pub async fn connect(address: SocketAddr) -> SendRequest<Body> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

pub fn whole(text: &str) -> Body {
    Full::new(Bytes::from(text.to_owned()))
        .map_err(|never| match never {})
        .boxed()
}

fn get(path: &str) -> http::request::Builder {
    Request::get(format!("http://site.test{path}"))
}

pub async fn text(response: Response<Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn http2_requests_reach_the_upstream_as_http1() {
    let origin = Raw::always(
        "HTTP/1.1 201 Made\r\nConnection: x-h\r\nX-H: 1\r\nX-A: b\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = plain(origin.address, "workers: 1");
    run(async {
        let mut sender = connect(proxy.public).await;
        let request = get("/a?b=%2F")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("cookie", "c=3")
            .header("te", "trailers");
        let response = sender
            .send_request(request.body(whole("")).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), 201);
        let all = |name: &str| response.headers().get_all(name).iter().count();
        assert_eq!(
            (all("set-cookie"), all("x-a"), all("x-h"), all("connection")),
            (2, 1, 0, 0)
        );
        assert_eq!(response.headers()["via"], "1.1 watershed");
        assert_eq!(text(response).await, "ok");
    });
    let seen = origin.seen();
    assert!(seen.starts_with("GET /a?b=%2F HTTP/1.1\r\n"), "{seen}");
    let seen = seen.to_lowercase();
    for line in [
        "host: site.test",
        "cookie: a=1; b=2; c=3",
        "via: 2 watershed",
        "te: trailers",
    ] {
        assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line}: {seen}");
    }
    assert_eq!(seen.matches("cookie:").count(), 1);
}

#[test]
fn http2_bodies_and_trailers_stream_in_both_directions() {
    let origin = Origin::start("current");
    let proxy = plain(origin.address, "workers: 1");
    run(async {
        let mut sender = connect(proxy.public).await;
        let (mut pieces, receiver) = futures_channel();
        let body = StreamBody::new(receiver).boxed();
        let request = Request::post("http://site.test/?echo").body(body).unwrap();
        let mut response = sender.send_request(request).await.unwrap();
        for piece in ["first", "second"] {
            pieces.send(Frame::data(Bytes::from(piece))).await;
            let back = response.body_mut().frame().await.unwrap().unwrap();
            assert_eq!(back.into_data().unwrap(), piece);
        }
        drop(pieces);
        let rest = response.into_body().collect().await.unwrap();
        assert!(rest.to_bytes().is_empty());
    });
    let origin = Raw::always(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nGrpc-Status: 7\r\n\r\n",
    );
    let proxy = plain(origin.address, "workers: 1");
    run(async {
        let mut sender = connect(proxy.public).await;
        let response = sender
            .send_request(get("/").body(whole("")).unwrap())
            .await
            .unwrap();
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "7");
    });
}

#[test]
fn concurrent_http2_requests_share_a_connection() {
    let origin = Origin::start("current");
    let proxy = plain(origin.address, "workers: 1");
    run(async {
        let sender = connect(proxy.public).await;
        let begun = Instant::now();
        let all = (0..50).map(|number| {
            let mut sender = sender.clone();
            async move {
                let path = format!("/{number}?sleep_ms=200");
                let response = sender
                    .send_request(get(&path).body(whole("")).unwrap())
                    .await
                    .unwrap();
                assert!(text(response).await.contains(&format!("/{number}?")));
            }
        });
        let all: Vec<_> = all.map(tokio::spawn).collect();
        for one in all {
            one.await.unwrap();
        }
        assert!(
            begun.elapsed() < Duration::from_secs(7),
            "{:?}",
            begun.elapsed()
        );
    });
}

#[test]
fn http2_stream_reset_cancels_the_upstream_request() {
    let (told, left) = std::sync::mpsc::channel();
    let origin = Raw::start(move |mut peer| {
        if peer.head().is_some() {
            let begun = Instant::now();
            let _ = told.send(
                peer.is_left(Duration::from_secs(10))
                    .then(|| begun.elapsed()),
            );
        }
    });
    let proxy = plain(origin.address, "workers: 1");
    run(async {
        let mut sender = connect(proxy.public).await;
        let sent = sender.send_request(get("/").body(whole("")).unwrap());
        let waited = tokio::time::timeout(Duration::from_millis(300), sent).await;
        assert!(waited.is_err());
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(sender);
    });
    let after = left.recv().unwrap().expect("the upstream was not left");
    assert!(after < Duration::from_secs(5), "{after:?}");
}

#[test]
fn stream_error_does_not_end_the_http2_connection() {
    let origin = Raw::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = plain(
        origin.address,
        "workers: 1\nlimits: { body: 8KiB, target: 8KiB }",
    );
    run(async {
        let mut sender = connect(proxy.public).await;
        for (status, request) in [
            (400, get("/").header("host", "other.test").body(whole(""))),
            (400, Request::get("http://a,b/").body(whole(""))),
            (414, get(&format!("/{}", "x".repeat(9000))).body(whole(""))),
            (
                413,
                Request::post("http://a/").body(whole(&"x".repeat(9000))),
            ),
        ] {
            let response = sender.send_request(request.unwrap()).await.unwrap();
            assert_eq!(response.status(), status);
            assert!(response.headers().contains_key("watershed-error"));
            let response = sender
                .send_request(get("/").body(whole("")).unwrap())
                .await
                .unwrap();
            assert_eq!(response.status(), 200);
        }
    });
    assert!(!origin.seen().contains("other.test"));
}

/// Encodes a frame (RFC 9113, 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// GET / of http://a, as HPACK.
const HEADERS: &[u8] = &[0x82, 0x84, 0x86, 0x41, 0x01, b'a'];

/// Sends this repeatedly until the proxy closes. Returns how often it was sent.
fn flood(address: SocketAddr, most: u32, say: impl Fn(u32) -> Vec<u8>) -> u32 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let closed = std::thread::spawn(move || {
        reader
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        let mut all = Vec::new();
        reader.read_to_end(&mut all).is_ok() || all.is_empty()
    });
    for number in 0..most {
        if stream.write_all(&say(number)).is_err() {
            return number;
        }
    }
    if closed.join().unwrap() {
        return most - 1;
    }
    most
}

#[test]
fn http2_flood_ends_only_its_own_connection() {
    let origin = Raw::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = plain(origin.address, "workers: 1");
    let most = 200_000;
    let rapid_reset = |number: u32| {
        let stream = number * 2 + 1;
        [
            frame(1, 5, stream, HEADERS),
            frame(3, 0, stream, &[0, 0, 0, 8]),
        ]
        .concat()
    };
    assert!(flood(proxy.public, most, rapid_reset) < most, "rapid reset");
    let continuation = |number: u32| match number {
        0 => frame(1, 1, 1, HEADERS),
        _ => frame(
            9,
            0,
            1,
            &[b"\0\x01a\x7f\x80\x08".as_slice(), &[b'x'; 1000]].concat(),
        ),
    };
    assert!(
        flood(proxy.public, most, continuation) < most,
        "continuation"
    );
    let errors = |number: u32| {
        let stream = number * 2 + 1;
        // An overflowing window is a stream error.
        [
            frame(1, 5, stream, HEADERS),
            frame(8, 0, stream, &[0x7f, 0xff, 0xff, 0xff]),
            frame(8, 0, stream, &[0x7f, 0xff, 0xff, 0xff]),
        ]
        .concat()
    };
    assert!(flood(proxy.public, most, errors) < most, "made you reset");
    let begun = Instant::now();
    assert_eq!(proxy.client().get("/", "").text(), "ok");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn idle_http2_connection_gets_goaway() {
    let origin = Origin::start("current");
    let proxy = plain(origin.address, "workers: 1\ntimeouts: { idle: 300ms }");
    run(async {
        let mut sender = connect(proxy.public).await;
        let response = sender
            .send_request(get("/?sleep_ms=600").body(whole("")).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        text(response).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert!(sender.is_closed());
    });
}

/// A body that is sent piece by piece.
/// A connection whose streams take so many bytes before the client makes room for more.
async fn connect_with_window(address: SocketAddr, window: u32) -> h2::client::SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let (sender, connection) = builder
        .initial_window_size(window)
        .handshake(stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

#[test]
fn early_hints_and_continue_come_before_the_final_response() {
    let (heard, hearing) = std::sync::mpsc::channel();
    let hearing = std::sync::Mutex::new(hearing);
    let origin = Raw::start(move |mut peer| {
        peer.head().unwrap();
        peer.say(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nWatershed-X: 1\r\nConnection: x-h\r\nX-H: 1\r\n\r\n\
             HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
        );
        // Not before the client has them.
        hearing.lock().unwrap().recv().unwrap();
        let mut body = [0; 5];
        peer.stream.read_exact(&mut body).unwrap();
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        peer.say(body);
    });
    let proxy = plain(origin.address, "workers: 1");
    run(async {
        let mut sender = connect_with_window(proxy.public, 65_535).await;
        let request = Request::post("http://site.test/")
            .header("expect", "100-continue")
            .header("content-length", "5");
        let (mut response, mut body) = sender
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        let mut interim = Vec::new();
        for _ in 0..2 {
            let next = std::future::poll_fn(|context| response.poll_informational(context));
            let (parts, ()) = next.await.unwrap().unwrap().into_parts();
            interim.push((parts.status.as_u16(), parts.headers));
        }
        let [(103, hints), (100, none)] = &*interim else {
            panic!("{interim:?}");
        };
        assert_eq!(hints["link"], "</a.css>");
        assert_eq!((hints.len(), none.len()), (1, 0), "{interim:?}");
        heard.send(()).unwrap();
        body.send_data(Bytes::from("hello"), true).unwrap();
        let mut response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let data = response.body_mut().data().await.unwrap().unwrap();
        assert_eq!(data, "hello");
    });
}

#[test]
fn an_upload_goes_on_while_the_client_takes_nothing_of_the_response() {
    const UPLOAD: usize = 3 << 20;
    let (arrived, arriving) = std::sync::mpsc::channel();
    let origin = Raw::start(move |mut peer| {
        peer.head().unwrap();
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        peer.say(vec![b'x'; 100_000]);
        let mut body = vec![0; UPLOAD];
        peer.stream.read_exact(&mut body).unwrap();
        arrived.send(()).unwrap();
        peer.is_left(Duration::from_secs(30));
    });
    let proxy = plain(origin.address, "workers: 1");
    run(async {
        let mut sender = connect_with_window(proxy.public, 10).await;
        let request = Request::post("http://site.test/").header("content-length", UPLOAD);
        let (response, mut body) = sender
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        let response = response.await.unwrap();
        body.send_data(Bytes::from(vec![b'y'; UPLOAD]), true)
            .unwrap();
        let all = tokio::task::spawn_blocking(move || arriving.recv());
        all.await.unwrap().unwrap();
        drop(response);
    });
}

/// A body that is sent in pieces.
fn futures_channel() -> (
    Pieces,
    impl futures_util::Stream<Item = Result<Frame<Bytes>, std::io::Error>>,
) {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    (
        Pieces(sender),
        futures_util::stream::poll_fn(move |context| receiver.poll_recv(context)),
    )
}

struct Pieces(tokio::sync::mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>);

impl Pieces {
    async fn send(&mut self, frame: Frame<Bytes>) {
        self.0.send(Ok(frame)).await.unwrap();
    }
}
