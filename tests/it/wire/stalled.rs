//! Clients that read nothing or little: they are disconnected in time, and their upstream connections
//! are released.

use super::http2::{PREFACE, frame};
use super::plain;
use crate::support::client::Client;
use crate::support::proxy::Proxy;
use crate::support::raw::Raw;
use crate::support::{HANG, until};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
/// Flags of a HEADERS frame: END_HEADERS and END_STREAM.
const WHOLE: u8 = 5;

/// A client of HTTP/2 that sends exact frames.
pub struct Http2 {
    stream: TcpStream,
}

impl Http2 {
    /// Connects with this initial window per stream, in bytes.
    pub fn connect(address: SocketAddr, window: u32) -> Http2 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.write_all(PREFACE).unwrap();
        let mut settings = vec![0, 4];
        settings.extend(window.to_be_bytes());
        stream.write_all(&frame(SETTINGS, 0, 0, &settings)).unwrap();
        Http2 { stream }
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.stream
            .write_all(&frame(kind, flags, stream, payload))
            .unwrap();
    }

    /// Reads a frame: its type, stream and payload; `None` if the proxy has closed.
    pub fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.read(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.read(&mut payload)?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some((head[3], stream, payload))
    }

    fn read(&mut self, room: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(room) {
            Ok(()) => Some(()),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                ) =>
            {
                None
            }
            Err(error) => panic!("no frame: {error}"),
        }
    }

    /// Returns the streams that the proxy resets, until there are this many or it closes.
    fn resets(&mut self, count: usize) -> BTreeSet<u32> {
        let mut reset = BTreeSet::new();
        while reset.len() < count
            && let Some((kind, stream, _)) = self.next()
        {
            if kind == RESET {
                reset.insert(stream);
            }
        }
        reset
    }
}

/// Encodes GET of this path of http://a and these fields as HPACK.
pub fn get(path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x41, 0x01, b'a', 0x04, path.len() as u8];
    block.extend(path.bytes());
    for (name, value) in fields {
        block.extend([0, name.len() as u8]);
        block.extend(name.bytes());
        block.push(value.len() as u8);
        block.extend(value.bytes());
    }
    block
}

/// An origin that sends this and then an endless body, with the number of its busy connections.
fn endless(begin: &'static str) -> (Raw, Arc<AtomicUsize>) {
    let busy = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&busy);
    let origin = Raw::start(move |mut peer| {
        while peer.head().is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            peer.say(begin);
            while peer.stream.write_all(&[b'x'; 4096]).is_ok() {}
            count.fetch_sub(1, Ordering::SeqCst);
        }
    });
    (origin, busy)
}

const LARGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n";
const AGREE: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[track_caller]
fn come(busy: &AtomicUsize, count: usize) {
    until("the upstream connections", || {
        let now = busy.load(Ordering::SeqCst);
        (now == count).then_some(()).ok_or(now)
    });
}

/// The timeouts that end the wait for a client: its own, or the total one.
const TIMES: [&str; 3] = [
    "workers: 1\ntimeouts: { body: 1s }",
    "workers: 1\ntimeouts: { body: 1s, total: 10m }",
    "workers: 1\ntimeouts: { body: 10m, total: 1s }",
];

#[test]
fn closed_http2_windows_hold_no_upstream_connections() {
    for times in TIMES {
        for window in [0, 1, 70_000] {
            let (origin, busy) = endless(LARGE);
            let proxy = plain(origin.address, times);
            let mut client = Http2::connect(proxy.public, window);
            for number in 0..100 {
                client.send(HEADERS, WHOLE, number * 2 + 1, &get("/", &[]));
            }
            let reset = client.resets(100);
            assert_eq!(reset.len(), 100, "{times} {window}");
            come(&busy, 0);
            // The connection is still usable.
            client.send(HEADERS, WHOLE, 201, &get("/", &[]));
            come(&busy, 1);
        }
    }
}

#[test]
fn small_responses_are_not_buffered_for_closed_windows() {
    let origin = Raw::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    for times in TIMES {
        let proxy = plain(origin.address, times);
        let mut client = Http2::connect(proxy.public, 0);
        for number in 0..20 {
            client.send(HEADERS, WHOLE, number * 2 + 1, &get("/", &[]));
        }
        assert_eq!(client.resets(20).len(), 20, "{times}");
    }
}

#[test]
fn slowly_opening_window_does_not_extend_the_total_timeout() {
    let (origin, busy) = endless(LARGE);
    let proxy = plain(origin.address, TIMES[2]);
    let mut client = Http2::connect(proxy.public, 1);
    client.send(HEADERS, WHOLE, 1, &get("/", &[]));
    come(&busy, 1);
    let mut writer = Http2 {
        stream: client.stream.try_clone().unwrap(),
    };
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let opening = std::thread::spawn(move || {
        while stopped.recv_timeout(Duration::from_millis(50)).is_err() {
            writer.send(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
        }
    });
    assert_eq!(client.resets(1).len(), 1);
    stop.send(()).unwrap();
    opening.join().unwrap();
    come(&busy, 0);
}

#[test]
fn unread_complete_response_does_not_keep_its_connection_open() {
    let origin = Raw::always("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome text");
    let proxy = plain(
        origin.address,
        "workers: 1\ntimeouts: { body: 500ms, idle: 500ms }",
    );
    let mut client = Http2::connect(proxy.public, 1);
    client.send(HEADERS, WHOLE, 1, &get("/", &[]));
    // The response has left its stream, but the connection is closed nevertheless.
    while client.next().is_some() {}
    let mut client = Http2::connect(proxy.public, 1);
    client.send(HEADERS, WHOLE, 1, &get("/", &[]));
    assert!(client.next().is_some());
}

#[test]
fn tunnel_whose_client_reads_nothing_is_closed() {
    for times in &TIMES[..2] {
        let (origin, busy) = endless(AGREE);
        let proxy = plain(origin.address, times);
        let mut client = Http2::connect(proxy.public, 0);
        let mut connect = vec![0x02, 7];
        connect.extend(b"CONNECT");
        connect.extend([0x86, 0x84, 0x41, 0x01, b'a', 0x00, 9]);
        connect.extend(b":protocol\x09websocket");
        // Pseudo-header fields come first, in any order.
        client.send(HEADERS, 4, 1, &connect);
        come(&busy, 1);
        come(&busy, 0);
        let mut client = proxy.client();
        client
            .say("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .unwrap();
        assert_eq!(client.head().unwrap().0, 101);
        come(&busy, 1);
        come(&busy, 0);
    }
}

#[test]
fn http1_clients_that_do_not_read_hold_no_upstream_connections() {
    for times in TIMES {
        for ask in ["", "Connection: x-hop\r\n", "Connection: close\r\n"] {
            let (origin, busy) = endless(LARGE);
            let proxy = plain(origin.address, times);
            let mut client = proxy.client();
            client
                .say(format!("GET / HTTP/1.1\r\nHost: a\r\n{ask}\r\n"))
                .unwrap();
            come(&busy, 1);
            come(&busy, 0);
        }
    }
    // Nor do clients that do not read interim responses.
    let large = format!(
        "HTTP/1.1 103 Early Hints\r\nX: {}\r\n\r\n",
        "x".repeat(15_000)
    );
    for times in TIMES {
        let said = large.repeat(60);
        let (busy, left) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (begun, ended) = (Arc::clone(&busy), Arc::clone(&left));
        let origin = Raw::start(move |mut peer| {
            while peer.head().is_some() {
                begun.fetch_add(1, Ordering::SeqCst);
                peer.say(&said);
                peer.say(LARGE);
                while peer.stream.write_all(&[b'x'; 4096]).is_ok() {}
                ended.fetch_add(1, Ordering::SeqCst);
            }
        });
        let proxy = plain(origin.address, times);
        let mut client = proxy.client();
        client
            .say("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-hop\r\n\r\n")
            .unwrap();
        come(&busy, 1);
        come(&left, 1);
    }
}

/// Reads slowly to the end. Returns the duration.
fn sip(client: &mut Client) -> Duration {
    let (begun, mut stream) = (Instant::now(), client.try_clone());
    while begun.elapsed() < Duration::from_secs(20) {
        match stream.read(&mut [0; 20_000]) {
            Ok(1..) => std::thread::sleep(Duration::from_millis(100)),
            _ => break,
        }
    }
    begun.elapsed()
}

#[test]
fn slow_reader_is_cut_off_at_the_total_timeout() {
    for ask in ["", "Connection: x-hop\r\n"] {
        let (origin, busy) = endless(LARGE);
        let proxy = plain(origin.address, TIMES[2]);
        let mut client = proxy.client();
        client
            .say(format!("GET / HTTP/1.1\r\nHost: a\r\n{ask}\r\n"))
            .unwrap();
        come(&busy, 1);
        let reading = std::thread::spawn(move || sip(&mut client));
        come(&busy, 0);
        drop(proxy);
        reading.join().unwrap();
    }
}

#[test]
fn stalled_upload_is_cut_off_at_the_total_timeout() {
    let origin = Raw::start(|mut peer| while peer.request().is_some() {});
    let proxy = plain(origin.address, TIMES[2]);
    let mut client = proxy.client();
    client
        .say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhell")
        .unwrap();
    let answer = client.answer(true).unwrap();
    assert_eq!(
        (answer.status, answer.header("watershed-error")),
        (504, Some("total_timeout"))
    );
    let mut client = Http2::connect(proxy.public, 65_535);
    client.send(HEADERS, 4, 1, &get("/", &[]));
    client.send(0, 0, 1, b"hell");
    let status = loop {
        let (kind, _, payload) = client.next().unwrap();
        if kind == HEADERS {
            break payload;
        }
    };
    // A status that is not in HPACK's static table.
    assert_eq!(status.first(), Some(&0x48), "{status:?}");
}

#[test]
fn body_below_the_minimum_rate_is_cut_off() {
    let trickle = "workers: 1\nlimits: { body_rate: 100B/s }\ntimeouts: { body: 1s";
    for more in [" }", ", total: 10m }"] {
        let origin = Raw::start(|mut peer| while peer.request().is_some() {});
        let proxy = plain(origin.address, &format!("{trickle}{more}"));
        for head in [
            "Content-Length: 99999\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\nffff\r\n",
        ] {
            let mut client = proxy.client();
            client
                .say(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}"))
                .unwrap();
            let mut writer = client.try_clone();
            // Never silent for long, but fewer than ten bytes per second.
            let writing = std::thread::spawn(move || {
                while writer.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(150));
                }
            });
            let answer = client.answer(true).unwrap();
            assert_eq!(
                (answer.status, answer.header("watershed-error")),
                (408, Some("body_timeout"))
            );
            drop(client);
            writing.join().unwrap();
        }
        let mut client = Http2::connect(proxy.public, 65_535);
        client.send(HEADERS, 4, 1, &get("/", &[]));
        let mut writer = Http2 {
            stream: client.stream.try_clone().unwrap(),
        };
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let writing = std::thread::spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(150)).is_err() {
                writer.send(0, 0, 1, b"x");
            }
        });
        let seen = std::iter::from_fn(|| client.next())
            .any(|(kind, stream, _)| stream == 1 && kind == HEADERS);
        assert!(seen, "{more}");
        stop.send(()).unwrap();
        writing.join().unwrap();
    }
}

#[test]
fn slow_body_passes_at_or_without_the_minimum_rate() {
    let ask = |proxy: &Proxy, pause: u64| {
        let mut client = proxy.client();
        client
            .say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n")
            .unwrap();
        for byte in b"slow....".chunks(1) {
            std::thread::sleep(Duration::from_millis(pause));
            client.say(byte).unwrap();
        }
        client.answer(true).unwrap().status
    };
    let origin = Raw::start(|mut peer| {
        while peer.request().is_some() {
            // A slow upstream does not count against the client.
            std::thread::sleep(Duration::from_millis(1500));
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    for rate in ["4B/s", "none"] {
        let proxy = plain(
            origin.address,
            &format!("workers: 1\nlimits: {{ body_rate: {rate} }}\ntimeouts: {{ body: 1s }}"),
        );
        assert_eq!(ask(&proxy, 200), 200, "{rate}");
    }
}

#[test]
fn malformed_http2_head_is_not_forwarded() {
    let origin = Raw::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    for more in ["", "\ntimeouts: { total: 10m }"] {
        let proxy = plain(
            origin.address,
            &format!("workers: 1\nlimits: {{ headers: 20 }}{more}"),
        );
        let many: Vec<(&str, &str)> = (0..20).map(|_| ("x", "y")).collect();
        let with = |block: &[u8], flags: u8, data: &[u8]| {
            let mut client = Http2::connect(proxy.public, 65_535);
            client.send(HEADERS, flags, 1, block);
            if flags == 4 {
                client.send(0, 1, 1, data);
            }
            loop {
                match client.next() {
                    Some((HEADERS, 1, block)) => return Some(block[0]),
                    Some((RESET, 1, _)) | None => return None,
                    Some(_) => {}
                }
            }
        };
        const STATUS_200: Option<u8> = Some(0x88);
        const STATUS_400: Option<u8> = Some(0x8c);
        assert_eq!(with(&get("/", &[]), WHOLE, b""), STATUS_200);
        let seen = origin.seen();
        let length = ("content-length", "2");
        // A repeated length, even if both are equal, and invalid ones.
        assert_eq!(with(&get("/", &[length, length]), 4, b"ok"), STATUS_400);
        assert_ne!(
            with(&get("/", &[length, ("content-length", "3")]), 4, b"ok"),
            STATUS_200
        );
        assert_ne!(
            with(&get("/", &[("content-length", "+2")]), 4, b"ok"),
            STATUS_200
        );
        assert_ne!(with(&get("/", &[length]), WHOLE, b""), STATUS_200);
        for path in [
            "",
            "a",
            "?x",
            "//a b",
            "*",
            "http://b/",
            "/a#b",
            "/#",
            "/a?b#",
        ] {
            assert_ne!(with(&get(path, &[]), WHOLE, b""), STATUS_200, "{path}");
        }
        for (name, value) in [
            ("host", "b"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
        ] {
            assert_ne!(
                with(&get("/", &[(name, value)]), WHOLE, b""),
                STATUS_200,
                "{name}"
            );
        }
        let of = |authority: &str| {
            let mut block = vec![0x82, 0x86, 0x84, 0x01, authority.len() as u8];
            block.extend(authority.bytes());
            block
        };
        for authority in ["u@a", "a:b", "a,b", "", "a/b"] {
            assert_ne!(with(&of(authority), WHOLE, b""), STATUS_200, "{authority}");
        }
        let status = with(&get("/", &many), WHOLE, b"");
        assert!(status.is_some() && status != STATUS_200, "{status:?}");
        let found = origin.seen()[seen.len()..].matches(" HTTP/1.1").count();
        assert_eq!(found, 0, "{}", &origin.seen()[seen.len()..]);
        assert_eq!(with(&get("/", &many[2..]), WHOLE, b""), STATUS_200);
        for data in [&b"more"[..], b"o"] {
            assert_ne!(with(&get("/", &[length]), 4, data), STATUS_200);
        }
    }
}

#[test]
fn slow_http2_reader_gets_the_whole_response() {
    let body = "y".repeat(200_000);
    let origin = Raw::always(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let proxy = plain(origin.address, "workers: 1\ntimeouts: { body: 3s }");
    let mut client = Http2::connect(proxy.public, 20_000);
    client.send(HEADERS, WHOLE, 1, &get("/", &[]));
    // The whole takes longer than the limit of one wait, but each part arrives much sooner.
    let (begun, mut got) = (Instant::now(), 0);
    while got < 200_000 {
        let (kind, stream, payload) = client.next().expect("the connection ended");
        assert_ne!((kind, stream), (RESET, 1), "after {got} bytes");
        if kind == 0 {
            got += payload.len();
            std::thread::sleep(Duration::from_millis(250));
            let more = (payload.len() as u32).to_be_bytes();
            client.send(WINDOW_UPDATE, 0, 1, &more);
            client.send(WINDOW_UPDATE, 0, 0, &more);
        }
    }
    assert!(begun.elapsed() > Duration::from_secs(3));
}
