//! A destination on a real socket. It keeps connections, and fails when a test asks for it.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// How a destination responds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 200 with this body.
    Accept(&'static str),
    /// This status, and these header lines.
    Refuse(u16, &'static str),
    /// Status 400 for a body with this text, and 200 for others.
    RefuseWith(&'static str),
    /// Status 413 for a body with more than so many bytes.
    RefuseLarge(usize),
    /// 500 and 200 in turn.
    FailHalf,
    /// Reads the request, and closes the connection without a response.
    Close,
    /// Nothing, and the connection stays open.
    Hang,
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Post {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub raw: String,
    pub body: Value,
    /// The status of the response; 0 for none.
    pub status: u16,
    pub at: Instant,
}

impl Post {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// The messages of a webhook.
    pub fn messages(&self) -> Vec<Value> {
        self.body["batch"].as_array().cloned().unwrap_or_default()
    }
}

/// A running destination. It refuses connections when this is dropped.
pub struct Collector {
    pub address: SocketAddr,
    mode: Arc<Mutex<Mode>>,
    seen: Arc<Mutex<Vec<Post>>>,
    connections: Arc<Mutex<usize>>,
    is_over: Arc<AtomicBool>,
}

impl Collector {
    pub fn start(mode: Mode) -> Collector {
        Collector::on(SocketAddr::from(([127, 0, 0, 1], 0)), mode)
    }

    pub fn on(address: SocketAddr, mode: Mode) -> Collector {
        let listener = crate::support::until("a free port", || TcpListener::bind(address));
        let collector = Collector {
            address: listener.local_addr().unwrap(),
            mode: Arc::new(Mutex::new(mode)),
            seen: Arc::default(),
            connections: Arc::default(),
            is_over: Arc::default(),
        };
        let (mode, seen) = (Arc::clone(&collector.mode), Arc::clone(&collector.seen));
        let (connections, is_over) = (
            Arc::clone(&collector.connections),
            Arc::clone(&collector.is_over),
        );
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                *connections.lock().unwrap() += 1;
                let (mode, seen) = (Arc::clone(&mode), Arc::clone(&seen));
                let is_over = Arc::clone(&is_over);
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    while serve(&mut reader, &mode, &seen, &is_over).is_some() {}
                });
            }
        });
        collector
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    /// All requests that arrived.
    pub fn seen(&self) -> Vec<Post> {
        self.seen.lock().unwrap().clone()
    }

    /// The messages of all requests to a webhook that were accepted.
    pub fn accepted(&self) -> Vec<Value> {
        let seen = self.seen().into_iter().filter(|it| it.status == 200);
        seen.flat_map(|post| post.messages()).collect()
    }

    /// How many connections were opened.
    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    /// Waits for this many requests.
    #[track_caller]
    pub fn until_seen(&self, count: usize) -> Vec<Post> {
        crate::support::until("requests", || {
            let seen = self.seen();
            (seen.len() >= count).then_some(seen).ok_or("too few")
        })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // The thread notices it at its next connection, and closes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    reader: &mut BufReader<TcpStream>,
    mode: &Mutex<Mode>,
    seen: &Mutex<Vec<Post>>,
    is_over: &AtomicBool,
) -> Option<()> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let path = lines.first()?.split(' ').nth(1)?.to_owned();
    let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
    let headers: Vec<_> = headers
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length?.1.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    if is_over.load(Ordering::SeqCst) {
        return None;
    }
    let raw = String::from_utf8(body).unwrap();
    let mode = mode.lock().unwrap().clone();
    let (status, more, answer) = {
        // One lock from the decision to the record, so that in turn means in turn.
        let mut seen = seen.lock().unwrap();
        let (status, more, answer) = match &mode {
            Mode::Accept(answer) => (200, "", *answer),
            Mode::Refuse(status, more) => (*status, *more, ""),
            Mode::RefuseWith(text) if raw.contains(text) => (400, "", "one event is invalid"),
            Mode::RefuseLarge(most) if raw.len() > *most => (413, "", ""),
            Mode::FailHalf if seen.len().is_multiple_of(2) => (500, "", ""),
            Mode::RefuseWith(_) | Mode::RefuseLarge(_) | Mode::FailHalf => (200, "", ""),
            Mode::Close | Mode::Hang => (0, "", ""),
        };
        seen.push(Post {
            path,
            headers,
            body: serde_json::from_str(&raw).unwrap(),
            raw,
            status,
            at: Instant::now(),
        });
        (status, more, answer)
    };
    if mode == Mode::Close {
        return None;
    }
    if status == 0 {
        // Until the sender closes the connection.
        let _ = reader.read(&mut [0]);
        return None;
    }
    let length = answer.len();
    let head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\n{more}\r\n");
    let stream = reader.get_mut();
    stream.write_all(format!("{head}{answer}").as_bytes()).ok()
}
