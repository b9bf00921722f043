//! How the program begins and ends while it is asked all the time.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, How, Proxy};
use crate::support::raw::Raw;
use crate::support::until;
use command_fds::{CommandFdExt, FdMapping};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn routes(origin: &Origin, more: &str) -> String {
    format!(
        "workers: 2\nupstreams: {{ current: \"http://{0}\", next: \"http://{0}\" }}\nuser: {{ header: X-User }}\n\
         experiments: {{ site: {{ control: current, experiment: next, percent: 50 }} }}\n{more}",
        origin.address
    )
}

/// Clients that connect anew for each request, until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<u64, String>>>,
}

impl Load {
    fn on(address: SocketAddr, clients: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |number| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut answered = 0;
                while !stop.load(Ordering::SeqCst) {
                    let path = match answered % 10 {
                        0 => "/?sleep_ms=30",
                        _ => "/",
                    };
                    let headers = format!("X-User: user-{number}\r\nConnection: close\r\n");
                    let answer = Client::try_connect(address)
                        .and_then(|mut client| client.try_get(path, &headers))
                        .map_err(|error| format!("after {answered}: {error}"))?;
                    if answer.status != 200 {
                        return Err(format!("status {}", answer.status));
                    }
                    answered += 1;
                }
                Ok(answered)
            })
        };
        let clients = (0..clients).map(client).collect();
        Load { stop, clients }
    }

    /// How many answers there were: all of them sound.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.clients.into_iter().map(|it| it.join().unwrap());
        ended.map(Result::unwrap).sum()
    }
}

fn requests(results: &serde_json::Value) -> u64 {
    let groups = results["experiments"][0]["groups"].as_array().unwrap();
    let requests = groups.iter().map(|it| it["requests"].as_u64().unwrap());
    requests.sum()
}

#[test]
fn connections_accepted_before_the_stop_are_answered() {
    let origin = Origin::start("a");
    let mut proxy = Proxy::start(&routes(&origin, ""));
    proxy.signal("STOP");
    // The system accepts them; the program has not seen them yet.
    let mut clients: Vec<_> = (0..30).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client
            .say("GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
            .unwrap();
    }
    proxy.signal("TERM");
    proxy.signal("CONT");
    for (number, client) in clients.iter_mut().enumerate() {
        let answer = client.answer(true);
        assert_eq!(answer.map(|it| it.status).ok(), Some(200), "{number}");
    }
    let told = Instant::now();
    assert!(proxy.wait().success());
    assert!(told.elapsed() < Duration::from_secs(5));
}

#[test]
fn stop_reports_not_ready_and_serves_for_the_grace_time() {
    let origin = Origin::start("a");
    let mut proxy = Proxy::start(&routes(&origin, "timeouts: { grace: 1s }"));
    assert_eq!(proxy.ask("/admin/readyz").status, 200);
    let told = Instant::now();
    proxy.signal("TERM");
    until("not ready", || {
        (proxy.ask("/admin/readyz").status == 503)
            .then_some(())
            .ok_or(())
    });
    while told.elapsed() < Duration::from_millis(800) {
        assert_eq!(proxy.client().get("/", "").status, 200);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(proxy.wait().success());
    assert!(told.elapsed() >= Duration::from_secs(1));
}

/// What the configuration needs for either way that requests of HTTP/1 go.
const WAYS: [&str; 2] = ["", "access_log: access.log"];

#[test]
fn idle_connection_is_served_once_more_after_sigterm() {
    let origin = Origin::start("a");
    for way in WAYS {
        let mut proxy = Proxy::start(&routes(&origin, way));
        let mut idle = proxy.client();
        assert_eq!(idle.get("/", "").header("connection"), None);
        let mut begun = proxy.client();
        begun.say("POST / HTTP/1.1\r\nHost: site.test\r\n").unwrap();
        proxy.signal("TERM");
        until("the stop", || {
            let log = proxy.log.lock().unwrap().clone();
            log.contains("stopping: finishing requests in flight")
                .then_some(())
                .ok_or(log)
        });
        let answer = idle.post("/", "", "hello");
        assert_eq!(
            (answer.status, answer.header("connection")),
            (200, Some("close"))
        );
        assert!(idle.is_closed());
        begun.say("Content-Length: 2\r\n\r\nok").unwrap();
        let answer = begun.answer(true).unwrap();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (200, Some("close"))
        );
        assert!(begun.is_closed());
        assert!(proxy.wait().success());
    }
}

#[test]
fn response_after_the_stop_closes_its_connection() {
    let origin = Origin::start("a");
    for way in WAYS {
        let mut proxy = Proxy::start(&routes(&origin, way));
        let mut client = proxy.client();
        client
            .say("GET /?sleep_ms=1500 HTTP/1.1\r\nHost: site.test\r\n\r\n")
            .unwrap();
        // The request is there once another one, sent later, is answered.
        assert_eq!(proxy.client().get("/", "").status, 200);
        proxy.signal("TERM");
        let answer = client.answer(true).unwrap();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (200, Some("close"))
        );
        assert!(client.is_closed());
        assert!(proxy.wait().success());
    }
}

#[test]
fn idle_connections_do_not_delay_a_stop() {
    let origin = Origin::start("a");
    for way in WAYS {
        let mut proxy = Proxy::start(&routes(&origin, way));
        let mut idle: Vec<_> = (0..20).map(|_| proxy.client()).collect();
        for client in &mut idle[..10] {
            assert_eq!(client.get("/", "").status, 200);
        }
        let told = Instant::now();
        proxy.signal("TERM");
        assert!(proxy.wait().success());
        // The time for what runs is 30 s.
        assert!(told.elapsed() < Duration::from_secs(10));
        drop(idle);
    }
}

#[test]
fn last_response_reaches_a_client_that_still_sends() {
    let body = vec![b'x'; 600_000];
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let origin = Raw::always([head.into_bytes(), body.clone()].concat());
    for way in WAYS {
        let proxy = Proxy::start(&format!(
            "upstreams: {{ current: \"http://{}\" }}\n{way}",
            origin.address
        ));
        let mut client = proxy.client();
        client
            .say("GET / HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n")
            .unwrap();
        client.head().unwrap();
        // It is sent, and nobody reads it: a closed socket would answer it with a reset.
        client
            .say("GET /next HTTP/1.1\r\nHost: site.test\r\n\r\n")
            .unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(client.exactly(body.len()), body);
        assert!(client.is_closed());
    }
}

#[test]
fn change_right_after_the_start_is_reloaded() {
    let origin = Origin::start("a");
    for _ in 0..5 {
        let proxy = Proxy::start(&routes(&origin, ""));
        proxy.write(&routes(&origin, "timeouts: { idle: 61s }"));
        until("the reload", || {
            let log = proxy.log.lock().unwrap().clone();
            log.contains("reloaded ").then_some(()).ok_or(log)
        });
    }
}

#[test]
fn second_stop_signal_aborts_requests() {
    let origin = Origin::start("a");
    let mut proxy = Proxy::start(&routes(&origin, ""));
    let mut client = proxy.client();
    client
        .say("GET /?sleep_ms=20000 HTTP/1.1\r\nHost: site.test\r\n\r\n")
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    proxy.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    let told = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(1));
    assert!(told.elapsed() < Duration::from_secs(5));
}

#[test]
fn reload_fails_no_request() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let mut proxy = Proxy::start(&routes(&a, ""));
    let load = Load::on(proxy.public, 6);
    // On connections that are kept, too, and on one whose answer takes longer than the reload.
    let stop = Arc::new(AtomicBool::new(false));
    let kept = |_| {
        let (stop, mut client) = (Arc::clone(&stop), proxy.client());
        std::thread::spawn(move || {
            let mut answered = 0;
            while !stop.load(Ordering::SeqCst) {
                assert_eq!(client.get("/?sleep_ms=3", "X-User: kept\r\n").status, 200);
                answered += 1;
            }
            answered
        })
    };
    let kept: Vec<_> = (0..3).map(kept).collect();
    let mut slow = proxy.client();
    slow.say("GET /?sleep_ms=1500 HTTP/1.1\r\nHost: site.test\r\nX-User: slow\r\n\r\n")
        .unwrap();
    let reloads = || proxy.log.lock().unwrap().matches("reloaded ").count();
    for round in 0..10 {
        let before = reloads();
        let origin = if round % 2 == 0 { &b } else { &a };
        proxy.write(&routes(
            origin,
            &format!("timeouts: {{ idle: {}s }}", 60 + round),
        ));
        if round % 3 == 0 {
            proxy.signal("HUP");
        } else {
            Client::admin(proxy.admin).post("/admin/reload", "", "");
        }
        until("the reload", || {
            (reloads() > before).then_some(()).ok_or(before)
        });
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(slow.answer(true).unwrap().status, 200);
    stop.store(true, Ordering::SeqCst);
    let kept: u64 = kept.into_iter().map(|it| it.join().unwrap()).sum();
    let answered = load.end() + kept + 1;
    assert_eq!(requests(&proxy.results()), answered);
    proxy.kill();
}

/// A child that goes when this is dropped.
struct Own(Child);

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program with sockets that its parent has bound, as a service manager starts it.
fn with_sockets(folder: &TempDir, sockets: &[(&str, &TcpListener)]) -> Own {
    let mapping = |(place, (_, socket)): (usize, &(&str, &TcpListener))| FdMapping {
        parent_fd: socket.try_clone().unwrap().into(),
        child_fd: 3 + place as i32,
    };
    let names: Vec<_> = sockets.iter().map(|(name, _)| *name).collect();
    let child = Command::new(BINARY)
        .args(["run", "-c"])
        .stderr(Stdio::null())
        .arg(folder.path().join("routes.yaml"))
        .env("LISTEN_FDS", sockets.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"))
        .fd_mappings(sockets.iter().enumerate().map(mapping).collect())
        .unwrap()
        .spawn();
    Own(child.unwrap())
}

#[test]
fn restart_with_inherited_sockets_fails_no_request() {
    let origin = Origin::start("a");
    let folder = TempDir::new().unwrap();
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (public, admin) = (bind(), bind());
    let (at, admin_at) = (public.local_addr().unwrap(), admin.local_addr().unwrap());
    let file = format!(
        "listen: {at}\nadmin: {{ listen: {admin_at} }}\n{}",
        routes(&origin, "")
    );
    std::fs::write(folder.path().join("routes.yaml"), file).unwrap();
    // Of the two names one says nothing, as a manager's own would.
    let sockets = [("site.socket", &public), ("admin", &admin)];
    let load = Load::on(at, 8);
    for _ in 0..3 {
        let mut child = with_sockets(&folder, &sockets);
        std::thread::sleep(Duration::from_millis(700));
        let pid = child.0.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        assert!(child.0.wait().unwrap().success());
    }
    let _child = with_sockets(&folder, &sockets);
    let answered = load.end();
    let results = until("results", || {
        let results = Client::admin(admin_at).get("/admin/results", "").json();
        let done = results["store"]["lag_events"] == 0;
        (done && requests(&results) >= answered)
            .then_some(results.clone())
            .ok_or(results)
    });
    assert_eq!(requests(&results), answered);
    assert!(answered > 100);
}

#[test]
fn inherited_socket_without_a_listener_is_an_error() {
    let folder = TempDir::new().unwrap();
    let file = "listen: 127.0.0.1:0\nadmin: { listen: 127.0.0.1:0 }\nupstreams: { a: \"http://127.0.0.1:9\" }";
    std::fs::write(folder.path().join("routes.yaml"), file).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut child = with_sockets(&folder, &[("other.socket", &socket)]);
    assert_eq!(child.0.wait().unwrap().code(), Some(1));
}

/// Ends who took over, which is not the test's own child.
struct Heir(String);

impl Drop for Heir {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-9", &self.0]).status();
    }
}

#[test]
fn handover_fails_no_request() {
    let origin = Origin::start("a");
    let copied = "cp \"$1\" {}/program && shift && exec {}/program \"$@\"";
    let how = How {
        through: ["sh", "-c", copied, "sh"].map(str::to_owned).to_vec(),
        ..How::default()
    };
    let mut proxy = Proxy::start_how(&routes(&origin, ""), how);
    let load = Load::on(proxy.public, 8);
    std::thread::sleep(Duration::from_millis(300));
    // A new version takes the program's place, as package managers do it.
    let place = |name: &str| proxy.folder.path().join(name);
    std::fs::copy(BINARY, place("new")).unwrap();
    std::fs::rename(place("new"), place("program")).unwrap();
    let mut slow = proxy.client();
    slow.say("GET /?sleep_ms=1500 HTTP/1.1\r\nHost: site.test\r\nX-User: slow\r\n\r\n")
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    proxy.signal("USR2");
    assert_eq!(slow.answer(true).unwrap().status, 200);
    assert!(proxy.wait().success());
    let log = proxy.log.lock().unwrap().clone();
    let pid = log.split(" is to take over").next().unwrap();
    let heir = Heir(pid.rsplit(' ').next().unwrap().to_owned());
    std::thread::sleep(Duration::from_millis(300));
    let answered = load.end() + 1;
    let results = until("what the old one had is folded", || {
        let results = proxy.results();
        (requests(&results) >= answered)
            .then_some(results.clone())
            .ok_or(results)
    });
    assert_eq!(requests(&results), answered);
    assert_eq!(proxy.ask("/admin/readyz").status, 200);
    drop(heir);
}

#[test]
fn successor_that_fails_to_start_changes_nothing() {
    let origin = Origin::start("a");
    let proxy = Proxy::start(&routes(&origin, ""));
    let sound = std::fs::read_to_string(proxy.file()).unwrap();
    for _ in 0..2 {
        std::fs::write(proxy.file(), "upstreams: nonsense: [").unwrap();
        let load = Load::on(proxy.public, 2);
        let failures = || {
            let log = proxy.log.lock().unwrap().clone();
            log.matches("the successor could not take over").count()
        };
        let before = failures();
        proxy.signal("USR2");
        until("the failure", || {
            (failures() > before).then_some(()).ok_or(())
        });
        assert!(load.end() > 0);
    }
    std::fs::write(proxy.file(), sound).unwrap();
    assert_eq!(proxy.ask("/admin/readyz").status, 200);
}

#[test]
fn exhausted_file_descriptors_delay_only_new_connections() {
    let origin = Origin::start("a");
    let limit = "ulimit -n 80 && exec \"$@\"";
    let how = How {
        through: ["sh", "-c", limit, "sh"].map(str::to_owned).to_vec(),
        ..How::default()
    };
    let proxy = Proxy::start_how(&routes(&origin, ""), how);
    let mut first = proxy.client();
    assert_eq!(first.get("/", "").status, 200);
    let crowd: Vec<_> = (0..200).map(|_| proxy.client()).collect();
    until("the last descriptor", || {
        let log = proxy.log.lock().unwrap().clone();
        log.contains("connections are closed")
            .then_some(())
            .ok_or(())
    });
    let before = proxy.cpu_ms();
    let until_then = Instant::now() + Duration::from_secs(2);
    let mut served = 0;
    while Instant::now() < until_then {
        assert_eq!(first.get("/", "").status, 200);
        served += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(served > 10);
    let spent = proxy.cpu_ms() - before;
    assert!(spent < 700, "{spent} ms of CPU in two seconds");
    let said = proxy
        .log
        .lock()
        .unwrap()
        .matches("connections are closed")
        .count();
    assert!(said < 10, "said {said} times");
    drop(crowd);
    until("room", || {
        let answer = Client::try_connect(proxy.public)
            .and_then(|mut client| client.try_get("/", "X-User: late\r\n"));
        match answer {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(first.get("/", "").status, 200);
    assert!(requests(&proxy.results()) > 0);
}

/// Connections of the admin API take no file descriptors that clients of the site were promised.
#[test]
fn admin_connections_do_not_exhaust_file_descriptors() {
    let origin = Origin::start("a");
    let limit = "ulimit -n 200 && exec \"$@\"";
    let how = How {
        through: ["sh", "-c", limit, "sh"].map(str::to_owned).to_vec(),
        ..How::default()
    };
    let proxy = Proxy::start_how(&routes(&origin, ""), how);
    let crowd: Vec<_> = (0..150)
        .map(|_| std::net::TcpStream::connect(proxy.admin).unwrap())
        .collect();
    // The last of them is taken or refused once this is answered.
    assert_eq!(proxy.ask("/admin/healthz").status, 200);
    let mut clients: Vec<_> = (0..30).map(|_| proxy.client()).collect();
    for _ in 0..2 {
        for client in &mut clients {
            assert_eq!(client.get("/", "").status, 200);
        }
    }
    drop(crowd);
    assert!(requests(&proxy.results()) >= 60);
}

/// Signals that are for later do not end a process that still starts.
#[test]
fn signals_during_the_start_do_not_end_the_process() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("routes.yaml");
    // The start waits a while for a store that takes connections and answers nothing.
    let store = TcpListener::bind("127.0.0.1:0").unwrap();
    let routes = format!(
        "listen: 127.0.0.1:0\nadmin: {{ listen: 127.0.0.1:0 }}\nstore: redis://{}\nupstreams: {{ a: \"http://127.0.0.1:9\" }}\n",
        store.local_addr().unwrap()
    );
    std::fs::write(&file, routes).unwrap();
    let mut child = Command::new(BINARY)
        .args(["run", "-c", file.to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _asked = store.accept().unwrap();
    for name in ["-HUP", "-USR1"] {
        let pid = child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status();
        assert!(sent.unwrap().success());
    }
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let serves = lines.any(|line| line.unwrap().contains("serving on http://"));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(serves, "{status}");
}
