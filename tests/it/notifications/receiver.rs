//! A receiver of webhooks on a real socket, and a check of signatures that shares no code with the sender.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How a receiver responds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 200 with this body.
    Accept(&'static str),
    /// 500 and 200 in turn.
    FailHalf,
    /// This status, and this header line.
    Refuse(u16, String),
    /// Nothing, and the connection stays open.
    Hang,
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Message {
    pub headers: Vec<(String, String)>,
    pub raw: String,
    pub body: Value,
    /// The status of the response; 0 for none.
    pub status: u16,
    pub at: Instant,
}

impl Message {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap()
    }

    /// Checks the signature with Python's libraries.
    #[track_caller]
    pub fn check_signature(&self, secret: &str) {
        let signed = format!(
            "{}.{}.{}",
            self.id(),
            self.header("webhook-timestamp"),
            self.raw
        );
        let script = "import sys, hmac, hashlib, base64\n\
            key = base64.b64decode(sys.argv[1].removeprefix('whsec_'))\n\
            digest = hmac.new(key, sys.stdin.buffer.read(), hashlib.sha256).digest()\n\
            print('v1,' + base64.b64encode(digest).decode(), end='')";
        let mut python = Command::new("python3")
            .args(["-c", script, secret])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        python
            .stdin
            .take()
            .unwrap()
            .write_all(signed.as_bytes())
            .unwrap();
        let output = python.wait_with_output().unwrap();
        let expected = String::from_utf8(output.stdout).unwrap();
        assert_eq!(self.header("webhook-signature"), expected, "{signed}");
    }
}

/// A running receiver.
pub struct Receiver {
    pub address: SocketAddr,
    mode: Arc<Mutex<Mode>>,
    seen: Arc<Mutex<Vec<Message>>>,
}

impl Receiver {
    pub fn start(mode: Mode) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Receiver {
            address: listener.local_addr().unwrap(),
            mode: Arc::new(Mutex::new(mode)),
            seen: Arc::default(),
        };
        let (mode, seen) = (Arc::clone(&receiver.mode), Arc::clone(&receiver.seen));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (mode, seen) = (Arc::clone(&mode), Arc::clone(&seen));
                std::thread::spawn(move || serve(stream, &mode, &seen));
            }
        });
        receiver
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?x=secret-path", self.address)
    }

    /// The key `webhooks` with this receiver alone.
    pub fn key(&self, more: &str) -> String {
        format!(
            "webhooks: [ {{ url: \"{}\", secret: {SECRET}{more} }} ]\n",
            self.url()
        )
    }

    /// All requests that arrived.
    pub fn seen(&self) -> Vec<Message> {
        self.seen.lock().unwrap().clone()
    }

    /// The requests of this type that were accepted.
    pub fn accepted(&self, kind: &str) -> Vec<Message> {
        let mut seen = self.seen();
        seen.retain(|it| it.status == 200 && it.kind() == kind);
        seen
    }

    /// Waits for this many accepted requests of a type.
    #[track_caller]
    pub fn until_accepted(&self, kind: &str, count: usize) -> Vec<Message> {
        crate::support::until(kind, || {
            let accepted = self.accepted(kind);
            let enough = accepted.len() >= count;
            enough.then_some(accepted).ok_or_else(|| self.seen())
        })
    }
}

fn serve(stream: TcpStream, mode: &Mutex<Mode>, seen: &Mutex<Vec<Message>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    assert_eq!(lines.first()?, "POST /hook?x=secret-path HTTP/1.1");
    let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
    let headers: Vec<_> = headers
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length?.1.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let raw = String::from_utf8(body).unwrap();
    let mode = mode.lock().unwrap().clone();
    let (status, more, answer) = {
        // One lock from the decision to the record, so that in turn means in turn.
        let mut seen = seen.lock().unwrap();
        let (status, more, answer) = match &mode {
            Mode::Accept(answer) => (200, String::new(), *answer),
            Mode::FailHalf if seen.len().is_multiple_of(2) => (500, String::new(), ""),
            Mode::FailHalf => (200, String::new(), ""),
            Mode::Refuse(status, more) => (*status, more.clone(), ""),
            Mode::Hang => (0, String::new(), ""),
        };
        seen.push(Message {
            headers,
            body: serde_json::from_str(&raw).unwrap(),
            raw,
            status,
            at: Instant::now(),
        });
        (status, more, answer)
    };
    let mut stream = stream;
    match status {
        0 => {
            // Until the sender closes the connection.
            let _ = stream.read(&mut [0]);
        }
        302 => {
            std::thread::sleep(Duration::from_secs(1));
            write(&mut stream, status, &more, answer)?;
        }
        _ => write(&mut stream, status, &more, answer)?,
    }
    Some(())
}

fn write(stream: &mut TcpStream, status: u16, more: &str, answer: &str) -> Option<()> {
    let length = answer.len();
    let head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\n{more}\r\n");
    stream.write_all(format!("{head}{answer}").as_bytes()).ok()
}
