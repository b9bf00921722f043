//! Runs the real program with a routes file of its own.

use super::client::{Answer, Client};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tempfile::TempDir;

pub const BINARY: &str = env!("CARGO_BIN_EXE_watershed");

/// A running `watershed run`; it is killed when this is dropped.
pub struct Proxy {
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub log: Arc<Mutex<String>>,
    pub folder: TempDir,
    child: Child,
    how: How,
}

/// Options of the program's start.
#[derive(Clone, Default)]
pub struct How {
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// A command that runs the program, such as `unshare -rm sh -c …`; `{}` is replaced by its folder.
    pub through: Vec<String>,
    /// More keys of `admin` in the routes file.
    pub admin_keys: String,
    /// The public address; any port of 127.0.0.1 unless given.
    pub listen: Option<SocketAddr>,
}

impl Proxy {
    /// Starts the program with this file; `listen` and `admin` are added.
    pub fn start(routes: &str) -> Proxy {
        Proxy::start_how(routes, How::default())
    }

    /// Starts the program with options.
    pub fn start_how(routes: &str, how: How) -> Proxy {
        let folder = TempDir::new().unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listen = how.listen.unwrap_or(any);
        let (child, log, public, admin) = launch(&folder, routes, listen, any, &how);
        Proxy {
            public,
            admin,
            log,
            folder,
            child,
            how,
        }
    }

    /// Returns the path of a file in its folder as the program sees it, with its mounts.
    pub fn as_it_sees(&self, place: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        let folder = self.folder.path().strip_prefix("/").unwrap();
        root.join(folder).join(place)
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("routes.yaml")
    }

    /// Replaces its routes file atomically.
    pub fn write(&self, routes: &str) {
        let next = self.folder.path().join("next.yaml");
        let text = with_addresses(routes, self.public, self.admin, &self.how);
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.file()).unwrap();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Returns its peak memory.
    pub fn memory_max_kib(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse().unwrap()
    }

    /// Returns the CPU time that it has used.
    pub fn cpu_ms(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields = stat.rsplit(") ").next().unwrap().split(' ');
        // User and system time, in hundredths of a second.
        let ticks = fields.skip(11).take(2).map(|it| it.parse::<u64>().unwrap());
        ticks.sum::<u64>() * 10
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(done.success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Starts the program again after it ended, with the same ports and files.
    pub fn again(&mut self, routes: &str) {
        let (child, log, _, _) = launch(&self.folder, routes, self.public, self.admin, &self.how);
        self.child = child;
        self.log = log;
    }

    pub fn client(&self) -> Client {
        Client::connect(self.public)
    }

    pub fn ask(&self, path: &str) -> Answer {
        Client::admin(self.admin).get(path, "")
    }

    /// Returns the results once they contain every response so far.
    #[track_caller]
    pub fn results(&self) -> serde_json::Value {
        super::until("a store that has caught up", || {
            let answer = self.ask("/admin/results");
            if answer.status != 200 {
                return Err(answer.text());
            }
            let results = answer.json();
            match results["store"]["lag_events"] == 0 && results["store"]["healthy"] == true {
                true => Ok(results),
                false => Err(format!("{results:#}\n{}", self.log.lock().unwrap())),
            }
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn with_addresses(routes: &str, public: SocketAddr, admin: SocketAddr, how: &How) -> String {
    let admin_keys = &how.admin_keys;
    let routes = match std::env::var("WATERSHED_TEST_OBSERVED").is_ok() {
        true => observed(routes),
        false => routes.to_owned(),
    };
    format!("listen: {public}\nadmin: {{ listen: {admin}, {admin_keys} }}\n{routes}")
}

/// Adds an access log, request IDs, traces and a total timeout to the file unless it configures them,
/// as in production.
fn observed(routes: &str) -> String {
    let mut routes = routes.to_owned();
    for (key, line) in [
        ("access_log:", "access_log: access.log\n"),
        ("request_id:", "request_id: true\n"),
        ("trace:", "trace: 10%\n"),
    ] {
        if !routes.lines().any(|it| it.starts_with(key)) {
            routes = format!("{line}{routes}");
        }
    }
    if routes.contains("total:") {
        return routes;
    }
    match routes.contains("timeouts: {") {
        true => routes.replacen("timeouts: {", "timeouts: { total: 10m,", 1),
        false => format!("timeouts: {{ total: 10m }}\n{routes}"),
    }
}

fn launch(
    folder: &TempDir,
    routes: &str,
    public: SocketAddr,
    admin: SocketAddr,
    how: &How,
) -> (Child, Arc<Mutex<String>>, SocketAddr, SocketAddr) {
    let file = folder.path().join("routes.yaml");
    std::fs::write(&file, with_addresses(routes, public, admin, how)).unwrap();
    let place = folder.path().to_str().unwrap();
    let through: Vec<String> = how
        .through
        .iter()
        .map(|word| word.replace("{}", place))
        .collect();
    let words =
        through
            .iter()
            .map(String::as_str)
            .chain([BINARY, "run", "-c", file.to_str().unwrap()]);
    let words: Vec<&str> = words.collect();
    loop {
        let (mut child, log, reader) = spawn(&words, how);
        let mut reader = Some(reader);
        // Between an end and a start, others of this machine may have taken the port.
        let is_taken = |log: &str| public.port() != 0 && log.contains("Address already in use");
        let found = super::until("the program", || {
            let ended = child.try_wait().unwrap();
            // All of the log of a program that has ended is there once it has been read to its end.
            if let Some(reader) = reader.take_if(|_| ended.is_some()) {
                reader.join().unwrap();
            }
            let log = log.lock().unwrap().clone();
            let address = |before: &str| {
                let rest = log.split(before).nth(1)?;
                rest.split(['/', ' ', '\n'])
                    .next()?
                    .parse::<SocketAddr>()
                    .ok()
            };
            let found = address("serving on http://")
                .zip(address("results at http://").or_else(|| address("results at https://")));
            let ended = ended.filter(|_| found.is_none());
            if ended.is_some() && is_taken(&log) {
                return Ok(None);
            }
            assert!(ended.is_none(), "the program has ended: {ended:?}\n{log}");
            found.map(Some).ok_or(log)
        });
        match found {
            Some((public, admin)) => return (child, log, public, admin),
            None => super::until("free ports", || {
                let is_free = |address| TcpListener::bind(address).map(drop);
                is_free(public).and_then(|()| is_free(admin))
            }),
        }
    }
}

/// Starts the program and a thread that keeps what it logs.
fn spawn(words: &[&str], how: &How) -> (Child, Arc<Mutex<String>>, JoinHandle<()>) {
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .env("RUST_LOG", "info")
        .envs(how.env.clone())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&log);
    let errors = BufReader::new(child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in errors.lines().map_while(Result::ok) {
            let mut log = seen.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
    (child, log, reader)
}
