//! Long bodies and floods: what a proxy holds in memory depends on neither.

use super::http2::{PREFACE, connect, frame, run};
use super::plain;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::raw::Raw;
use crate::support::until_within;
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
/// For whatever is done below. A body of 100 MB would take six times as much.
const GROWTH_MAX_KIB: usize = 16 << 10;

/// Pieces that make up a whole body.
fn sizes() -> impl Iterator<Item = usize> {
    let last = BODY_BYTES % PIECE.len();
    std::iter::repeat_n(PIECE.len(), BODY_BYTES / PIECE.len()).chain([last])
}

/// Does it, and says how much more memory the proxy held for it.
#[track_caller]
fn without_memory(proxy: &Proxy, what: &str, act: impl FnOnce()) {
    // What one request takes at all.
    assert_eq!(proxy.client().post("/?echo", "", "small").text(), "small");
    let before = proxy.memory_max_kib();
    act();
    let growth = proxy.memory_max_kib() - before;
    assert!(growth < GROWTH_MAX_KIB, "{what}: {growth} KiB more");
}

/// While its answer is not read, an upload must come to a stand: what the systems hold on the way
/// is all that may be sent.
fn stands(sent: &AtomicUsize) {
    std::thread::sleep(Duration::from_secs(1));
    let before = sent.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(sent.load(Ordering::Relaxed), before, "still sending");
    assert!(before < BODY_BYTES, "all was taken");
}

#[test]
fn bodies_of_100_mb_take_no_memory_over_http1() {
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
                stands(&sent);
            }
            let answer = client.answer(true).unwrap();
            sending.join().unwrap();
            assert_eq!(answer.body.len(), BODY_BYTES);
        });
    }
}

#[test]
fn bodies_of_100_mb_take_no_memory_over_http2() {
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
                    tokio::task::spawn_blocking(move || stands(&sent))
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

/// Says this for a second, and reads nothing; meanwhile others are served.
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
    // Once the systems have nothing left of it to give, it costs nothing, though it stays open.
    until_within(
        Duration::from_secs(10),
        &format!("rest after {what}"),
        || {
            let before = proxy.cpu_ms();
            std::thread::sleep(Duration::from_millis(500));
            let spent = proxy.cpu_ms() - before;
            if spent < 100 { Ok(()) } else { Err(spent) }
        },
    );
}

#[test]
fn floods_whose_answers_nobody_reads_take_no_memory() {
    let origin = Raw::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = plain(origin.address, "workers: 1");
    assert_eq!(proxy.client().get("/", "").text(), "ok");
    // POST / of http://a, whose body is to come.
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
