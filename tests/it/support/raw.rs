//! An origin that sends exact bytes and keeps what it receives.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A listening origin; its threads end with the process.
pub struct Raw {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
}

/// A connection to the origin.
pub struct Peer {
    pub stream: TcpStream,
    /// Bytes that were read but not returned yet.
    rest: Vec<u8>,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Raw {
    /// Calls `serve` for each connection, in a thread of its own.
    pub fn start(serve: impl Fn(Peer) + Send + Sync + 'static) -> Raw {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let all = Arc::clone(&seen);
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(super::HANG)).unwrap();
                let seen = Arc::clone(&all);
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || {
                    serve(Peer {
                        stream,
                        rest: Vec::new(),
                        seen,
                    })
                });
            }
        });
        Raw { address, seen }
    }

    /// Starts an origin that sends this response to every request and keeps the connection.
    pub fn always(answer: impl Into<Vec<u8>>) -> Raw {
        let answer = answer.into();
        Raw::start(move |mut peer| {
            while peer.request().is_some() {
                peer.say(&answer);
            }
        })
    }

    /// Returns all bytes received on any connection.
    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }
}

impl Peer {
    /// Reads the head of the next request with its empty line; `None` if the client has closed.
    pub fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.rest, b"\r\n\r\n") {
                let head = self.rest.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Reads the next request with its body, by length or in chunks.
    pub fn request(&mut self) -> Option<String> {
        let mut request = self.head()?;
        let lower = request.to_lowercase();
        if let Some((_, length)) = lower.split_once("\r\ncontent-length: ") {
            let length = length.split("\r\n").next().unwrap().parse().unwrap();
            while self.rest.len() < length {
                if !self.more() {
                    return None;
                }
            }
            let body: Vec<u8> = self.rest.drain(..length).collect();
            request.push_str(&String::from_utf8_lossy(&body));
        } else if lower.contains("\r\ntransfer-encoding: chunked") {
            while !(request.ends_with("\r\n0\r\n\r\n")
                || request.contains("\r\n0\r\n") && request.ends_with("\r\n\r\n"))
            {
                if self.rest.is_empty() && !self.more() {
                    return None;
                }
                let piece: Vec<u8> = self.rest.drain(..).collect();
                request.push_str(&String::from_utf8_lossy(&piece));
            }
        }
        Some(request)
    }

    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Waits until the client has closed or reset the connection; false if it does not in time.
    pub fn is_left(&mut self, within: Duration) -> bool {
        self.stream.set_read_timeout(Some(within)).unwrap();
        loop {
            match self.stream.read(&mut [0; 4096]) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    return !matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    );
                }
            }
        }
    }

    /// Closes the connection with a reset.
    pub fn reset(self) {
        reset(self.stream);
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) | Err(_) => false,
            Ok(read) => {
                self.rest.extend_from_slice(&buffer[..read]);
                self.seen.lock().unwrap().extend_from_slice(&buffer[..read]);
                true
            }
        }
    }
}

/// Closes a connection with a reset.
pub fn reset(stream: TcpStream) {
    let socket = socket2::Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
