//! Memory does not grow with long bodies or floods of requests.

use super::http2::{PREFACE, connect, frame, run};
use super::plain;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::raw::Raw;
use crate::support::until;
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const BODY_BYTES: usize = 100_000_000;
const PIECE: &[u8] = &[b'x'; 1 << 16];
/// The most memory of a test. A body of 100 MB would take six times as much.
const GROWTH_MAX_KIB: usize = 16 << 10;

/// Returns the sizes of the pieces of a whole body.
fn sizes() -> impl Iterator<Item = usize> {
    let last = BODY_BYTES % PIECE.len();
    std::iter::repeat_n(PIECE.len(), BODY_BYTES / PIECE.len()).chain([last])
}

/// Runs a test. Returns the growth of the proxy's peak memory.
#[track_caller]
fn without_memory(proxy: &Proxy, what: &str, act: impl FnOnce()) {
    // The memory that any request needs.
    assert_eq!(proxy.client().post("/?echo", "", "small").text(), "small");
    let before = proxy.memory_max_kib();
    act();
    let growth = proxy.memory_max_kib() - before;
    assert!(growth < GROWTH_MAX_KIB, "{what}: {growth} KiB more");
}

/// Waits until an upload has begun and stops. It must stop while its response is not read: only
/// socket buffers can take more of it, however long that takes. A second without a byte is a stop.
fn wait_until_stalled(sent: &AtomicUsize) {
    let mut before = 0;
    loop {
        let now = sent.load(Ordering::Relaxed);
        assert!(now < BODY_BYTES, "all was taken");
        if now > 0 && now == before {
            return;
        }
        before = now;
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn bodies_of_100_mb_are_streamed_over_http1() {
    let origin = Origin::start("current");
    let proxy = plain(origin.address, "workers: 1");
    for slowly in [false, true] {
        without_memory(&proxy, "HTTP/1.1", || {
            let mut client = proxy.client();
            client
                .say(format!(
                    "POST /?echo HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
                ))
                .unwrap();
            let mut stream = client.try_clone();
            let sent = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&sent);
            let sending = std::thread::spawn(move || {
                for size in sizes() {
                    stream.write_all(&PIECE[..size]).unwrap();
                    counted.fetch_add(size, Ordering::Relaxed);
                }
            });
            if slowly {
                wait_until_stalled(&sent);
            }
            let answer = client.answer(true).unwrap();
            sending.join().unwrap();
            assert_eq!(answer.body.len(), BODY_BYTES);
        });
    }
}

#[test]
fn bodies_of_100_mb_are_streamed_over_http2() {
    let origin = Origin::start("current");
    let proxy = plain(origin.address, "workers: 1");
    for slowly in [false, true] {
        without_memory(&proxy, "HTTP/2", || {
            run(async {
                let mut sender = connect(proxy.public).await;
                let sent = Arc::new(AtomicUsize::new(0));
                let counted = Arc::clone(&sent);
                let pieces = sizes().map(move |size| {
                    counted.fetch_add(size, Ordering::Relaxed);
                    Ok(Frame::data(Bytes::from_static(&PIECE[..size])))
                });
                let body = StreamBody::new(futures_util::stream::iter(pieces)).boxed();
                let request = Request::post("http://site.test/?echo").body(body).unwrap();
                let response = sender.send_request(request).await.unwrap();
                if slowly {
                    let sent = Arc::clone(&sent);
                    tokio::task::spawn_blocking(move || wait_until_stalled(&sent))
                        .await
                        .unwrap();
                }
                let mut body = response.into_body();
                let mut read = 0;
                while let Some(frame) = body.frame().await {
                    read += frame.unwrap().into_data().map_or(0, |data| data.len());
                }
                assert_eq!(read, BODY_BYTES);
            });
        });
    }
}

/// Sends this for a second and reads nothing. Other clients are served meanwhile.
fn flood(proxy: &Proxy, what: &str, first: &[u8], again: &[u8]) {
    let mut stream = TcpStream::connect(proxy.public).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    stream
        .write_all(&[PREFACE, &frame(4, 0, 0, &[]), first].concat())
        .unwrap();
    let many = again.repeat(1000);
    let begun = Instant::now();
    let mut asked = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) && stream.write_all(&many).is_ok() {
        if asked.elapsed() > Duration::from_millis(200) {
            let waited = Instant::now();
            assert_eq!(proxy.client().get("/", "").text(), "ok");
            assert!(
                waited.elapsed() < Duration::from_secs(5),
                "{:?}",
                waited.elapsed()
            );
            asked = Instant::now();
        }
    }
    // Once the socket buffers are empty, the open connection costs nothing.
    until(&format!("rest after {what}"), || {
        let before = proxy.cpu_ms();
        std::thread::sleep(Duration::from_millis(500));
        let spent = proxy.cpu_ms() - before;
        if spent < 100 { Ok(()) } else { Err(spent) }
    });
}

#[test]
fn unread_responses_of_a_flood_do_not_use_memory() {
    let origin = Raw::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = plain(origin.address, "workers: 1");
    assert_eq!(proxy.client().get("/", "").text(), "ok");
    // POST / of http://a, with a body to follow.
    let post = frame(1, 4, 1, &[0x83, 0x84, 0x86, 0x41, 0x01, b'a']);
    for (what, first, again) in [
        ("pings", Vec::new(), frame(6, 0, 0, &[7; 8])),
        (
            "settings",
            Vec::new(),
            frame(4, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
        ),
        ("priorities", Vec::new(), frame(2, 0, 1, &[0, 0, 0, 3, 7])),
        ("empty pieces", post.clone(), frame(0, 0, 1, &[])),
        ("windows", post, frame(8, 0, 1, &[0, 0, 0, 1])),
        ("unknown frames", Vec::new(), frame(0xbe, 0, 0, &[1; 100])),
    ] {
        let before = proxy.memory_max_kib();
        flood(&proxy, what, &first, &again);
        let growth = proxy.memory_max_kib() - before;
        assert!(growth < GROWTH_MAX_KIB, "{what}: {growth} KiB more");
    }
}
