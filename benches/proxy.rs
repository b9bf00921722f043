//! What the proxy costs: `cargo bench --bench proxy`.
//!
//! Four ways of asking the same origin, taken in turns in one run: directly, through the proxy
//! without an experiment, with one that is over (split, but not recorded), and with one that runs. Prints requests per
//! second, and CPU per request of the proxy's process as the system accounts it, as ratios.

#![allow(
    clippy::disallowed_methods,
    reason = "a bench has its threads to itself"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 32;
const ROUNDS: usize = 7;
const REQUESTS: usize = 40_000;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 200\r\n\r\n";

fn main() {
    let origin = origin();
    let plain = Proxy::start("plain", origin, "");
    // The same headers and cookies; only nothing is journaled, and so nothing folded.
    let won = "experiments: { bench: { control: a, experiment: b, percent: 50, winner: experiment } }\nmetrics: { order: POST /order -> 2xx }\n";
    let unrecorded = Proxy::start("unrecorded", origin, won);
    let split = "experiments: { bench: { control: a, experiment: b, percent: 50 } }\nmetrics: { order: POST /order -> 2xx }\n";
    let recording = Proxy::start("recording", origin, split);
    let ways = [
        ("direct", origin, None),
        ("proxy, no experiment", plain.address, Some(&plain)),
        (
            "proxy, split, not recorded",
            unrecorded.address,
            Some(&unrecorded),
        ),
        (
            "proxy, split and recorded",
            recording.address,
            Some(&recording),
        ),
    ];
    let mut found: Vec<Vec<(f64, f64)>> = vec![Vec::new(); ways.len()];
    for round in 0..=ROUNDS {
        for (place, (_, address, proxy)) in ways.iter().enumerate() {
            let before = proxy.map_or(0.0, |proxy| proxy.cpu_us());
            let begun = Instant::now();
            load(*address);
            let rate = REQUESTS as f64 / begun.elapsed().as_secs_f64();
            let cpu = (proxy.map_or(0.0, |proxy| proxy.cpu_us()) - before) / REQUESTS as f64;
            // The first round warms up.
            if round > 0 {
                found[place].push((rate, cpu));
            }
        }
    }
    let medians: Vec<(f64, f64)> = found
        .iter()
        .map(|runs| {
            (
                median(runs.iter().map(|run| run.0)),
                median(runs.iter().map(|run| run.1)),
            )
        })
        .collect();
    println!(
        "{:<28}{:>12}{:>12}{:>16}",
        "", "requests/s", "of direct", "CPU us/request"
    );
    for ((name, ..), (rate, cpu)) in ways.iter().zip(&medians) {
        println!(
            "{name:<28}{rate:>12.0}{:>12.2}{cpu:>16.2}",
            rate / medians[0].0
        );
    }
    println!(
        "CPU of recording over not recording: {:.3}",
        medians[3].1 / medians[2].1
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Answers every request with the same 200 bytes.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let answer = [ANSWER, &[b'x'; 200]].concat();
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || serve(stream, &answer));
        }
    });
    address
}

fn serve(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        // Requests here are small and wait for their answer: one read is one request.
        stream.write_all(answer)?;
    }
}

/// All requests, over kept connections, each connection waiting for its answer.
fn load(address: SocketAddr) {
    let each = REQUESTS / CONNECTIONS;
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(address).expect("a connection");
                stream.set_nodelay(true).expect("no delay");
                let mut buffer = [0; 4096];
                for number in 0..each {
                    let user = (number * CONNECTIONS + connection) % 10_000;
                    let request = format!("GET /product/{number} HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: bench\r\nAccept: */*\r\nCookie: theme=dark; watershed_id=user-{user:08}\r\n\r\n");
                    stream.write_all(request.as_bytes()).expect("sent");
                    let mut got = 0;
                    // The head is over when the 200 bytes are there.
                    while !(got > 200 && buffer[got - 200..got].iter().all(|&byte| byte == b'x')) {
                        let read = stream.read(&mut buffer[got..]).expect("an answer");
                        assert!(read > 0, "closed");
                        got += read;
                    }
                }
            });
        }
    });
}

struct Proxy {
    address: SocketAddr,
    child: Child,
    folder: std::path::PathBuf,
}

impl Proxy {
    fn start(name: &str, origin: SocketAddr, more: &str) -> Proxy {
        let free = || {
            TcpListener::bind("127.0.0.1:0")
                .and_then(|free| free.local_addr())
                .expect("a port")
        };
        let (address, admin) = (free(), free());
        let folder =
            std::env::temp_dir().join(format!("watershed-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("routes.yaml");
        let routes = format!(
            "listen: {address}\nadmin: {{ listen: {admin} }}\nworkers: 1\nupstreams: {{ a: \"http://{origin}\", b: \"http://{origin}\" }}\n{more}"
        );
        std::fs::write(&file, routes).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_watershed"))
            .args(["run", "-c"])
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .expect("the program");
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "the proxy does not start"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Proxy {
            address,
            child,
            folder,
        }
    }

    /// User and system time of the process so far, in microseconds (Linux).
    fn cpu_us(&self) -> f64 {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("/proc");
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        // Fields 14 and 15 of proc(5), in hundredths of a second.
        let ticks: f64 = fields[11..13]
            .iter()
            .map(|field| field.parse::<f64>().expect("a number"))
            .sum();
        ticks * 10_000.0
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
