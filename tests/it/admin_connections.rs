//! Slow and numerous clients of the admin API: they lock nobody out, and health checks still work.

use crate::support::client::{Answer, Client};
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, How, Proxy};
use crate::support::{HANG, until};
use command_fds::{CommandFdExt, FdMapping};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

const SITE: &str = "upstreams: { a: \"http://127.0.0.1:9\", b: \"http://127.0.0.1:9\" }\n\
    experiments: { site: { control: a, experiment: b, percent: 50 } }\n";
const TOKEN: &str = "a token that nobody finds by trying";
const BEARER: &str = "Authorization: Bearer a token that nobody finds by trying\r\n";
const HEALTH: &str = "health checks and metrics at http://";
/// Connections of one address and in total: see `connections::ADMIN`.
const PER_ADDRESS: usize = 128;
const CONNECTIONS: usize = 512;

fn start(admin: &str) -> Proxy {
    let how = How {
        admin_keys: format!("token: \"{TOKEN}\", {admin}"),
        ..How::default()
    };
    Proxy::start_how(SITE, how)
}

fn health_of(proxy: &Proxy) -> SocketAddr {
    until("the listener for health", || {
        let log = proxy.log.lock().unwrap().clone();
        let at = log.split(HEALTH).nth(1);
        let at = at.and_then(|rest| rest.split('/').next()?.parse().ok());
        at.ok_or(log)
    })
}

/// A connection from an address of this machine, such as 127.0.0.7.
fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream
}

fn say(stream: &mut TcpStream, text: &str) {
    // The server may have closed the connection already.
    let _ = stream.write_all(text.as_bytes());
}

/// Sends a request over a new connection from this address. Returns all bytes of the response.
fn ask_from(last: u8, to: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = connect_from(last, to);
    say(
        &mut stream,
        &format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n{headers}\r\n"),
    );
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

fn get(at: SocketAddr, path: &str, headers: &str) -> Answer {
    Client::admin(at).get(path, headers)
}

#[track_caller]
fn assert_serves_other_clients(proxy: &Proxy, why: &str) {
    let status = |path, headers| get(proxy.admin, path, headers).status;
    assert_eq!(status("/admin/healthz", ""), 200, "{why}");
    assert_eq!(status("/admin/readyz", ""), 200, "{why}");
    assert_eq!(status("/admin/metrics", BEARER), 200, "{why}");
    assert_eq!(status("/admin/results", BEARER), 200, "{why}");
    assert_eq!(status("/admin/results", ""), 401, "{why}");
}

const SLOW_BODY: &str = "POST /admin/login HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\
    Content-Type: application/x-www-form-urlencoded\r\n\r\nt";
const SLOW_HEAD: &str = "GET /admin/results HTTP/1.1\r\nHost: a\r\nX-Slow: ";
const SLOW_CHUNKS: &str = "POST /admin/login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
    Content-Type: application/x-www-form-urlencoded\r\n\r\n1\r\nt\r\n";
const ANSWERED: &str = "GET /admin/healthz HTTP/1.1\r\nHost: a\r\n\r\n";
const UNREAD: &str = "GET /admin/page.js HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn slow_clients_of_one_address_do_not_block_the_admin_api() {
    let proxy = start("");
    for (why, said) in [
        ("bodies that never end", SLOW_BODY.to_owned()),
        ("heads that never end", SLOW_HEAD.to_owned()),
        ("chunks that never end", SLOW_CHUNKS.to_owned()),
        ("silence", String::new()),
        ("idle kept connections", ANSWERED.to_owned()),
        ("responses that nobody reads", UNREAD.repeat(100)),
    ] {
        let held: Vec<_> = (0..CONNECTIONS + 88)
            .map(|_| {
                let mut stream = connect_from(1, proxy.admin);
                say(&mut stream, &said);
                stream
            })
            .collect();
        assert_serves_other_clients(&proxy, why);
        drop(held);
    }
}

#[test]
fn slow_clients_of_many_addresses_do_not_block_the_admin_api() {
    let proxy = start("");
    let held: Vec<_> = (0..2 * CONNECTIONS)
        .map(|place| {
            let mut stream = connect_from(2 + (place / PER_ADDRESS) as u8, proxy.admin);
            say(&mut stream, SLOW_BODY);
            stream
        })
        .collect();
    assert_serves_other_clients(&proxy, "many addresses");
    drop(held);
}

/// Opens connections from this address, each of which has sent its token.
fn admitted(last: u8, to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let one = |_| {
        let mut stream = connect_from(last, to);
        say(
            &mut stream,
            &format!(
                "GET /admin/page.css HTTP/1.1\r\nHost: a\r\n\r\nGET /admin/acts HTTP/1.1\r\nHost: a\r\n{BEARER}\r\n"
            ),
        );
        // The second response starts after the first one.
        let mut seen = Vec::new();
        while memchr::memmem::find_iter(&seen, b"HTTP/1.1 200").count() < 2 {
            let mut buffer = [0; 8192];
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend(&buffer[..read]);
        }
        stream
    };
    (0..count).map(one).collect()
}

#[test]
fn connections_with_tokens_at_the_limit_leave_health_and_metrics_available() {
    let proxy = start("");
    let held = admitted(1, proxy.admin, PER_ADDRESS);
    let from = |last, path, headers| ask_from(last, proxy.admin, path, headers);
    let refused = from(1, "/admin/results", BEARER);
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("retry-after: 5"), "{refused}");
    assert!(refused.contains("this address's share"), "{refused}");
    for (path, headers, status) in [
        ("/admin/healthz", "", 200),
        ("/admin/readyz", "", 200),
        ("/admin/metrics", BEARER, 200),
        ("/admin/metrics", "", 401),
    ] {
        let answer = from(1, path, headers);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{path}: {answer}"
        );
    }
    // Slow clients on the reserved connections do not block health checks.
    let slow: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = connect_from(1, proxy.admin);
            say(&mut stream, SLOW_HEAD);
            stream
        })
        .collect();
    assert!(from(1, "/admin/healthz", "").starts_with("HTTP/1.1 200"));
    // Another address is not affected.
    let other = from(2, "/admin/results", BEARER);
    assert!(other.starts_with("HTTP/1.1 200"), "{other}");
    // A closed connection makes room for another.
    drop((slow, held));
    until("a free place", || {
        let answer = from(1, "/admin/results", BEARER);
        answer
            .starts_with("HTTP/1.1 200")
            .then_some(())
            .ok_or(answer)
    });
}

#[test]
fn slow_request_body_returns_408() {
    let proxy = start("");
    let mut client = Client::admin(proxy.admin);
    client.say(SLOW_BODY).unwrap();
    // The body keeps arriving, byte by byte.
    let mut trickle = client.try_clone();
    std::thread::spawn(move || {
        for _ in 0..90 {
            if trickle.write_all(b"t").is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    let answer = client.answer(true).unwrap();
    assert_eq!(answer.status, 408, "{}", answer.text());
    assert!(
        answer.text().contains("did not arrive within"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn health_listener_serves_only_health_and_metrics_without_a_token() {
    let proxy = start("health: \"127.0.0.1:0\"");
    let health = health_of(&proxy);
    for path in ["/healthz", "/readyz", "/admin/healthz", "/admin/readyz"] {
        assert_eq!(get(health, path, "").status, 200, "{path}");
    }
    for path in ["/metrics", "/admin/metrics"] {
        let metrics = get(health, path, "");
        assert_eq!(metrics.status, 200, "{path}");
        assert!(
            metrics.text().contains("watershed_requests_total"),
            "{path}"
        );
    }
    for path in [
        "/",
        "/admin",
        "/admin/results",
        "/admin/config",
        "/admin/login",
        "/admin/acts",
    ] {
        let other = get(health, path, BEARER);
        assert_eq!(other.status, 404, "{path}");
        assert!(other.text().contains("admin.listen"), "{}", other.text());
    }
    let reload = Client::admin(health).post("/admin/reload", BEARER, "");
    assert_eq!(reload.status, 404);
    // Any `Host` is accepted because this listener cannot change anything.
    assert_eq!(Client::connect(health).get("/healthz", "").status, 200);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get(proxy.admin, path, BEARER).status, 404, "{path}");
    }
    // The health listener works while the admin API is full and slow clients fill this listener, too.
    let _held = admitted(1, proxy.admin, PER_ADDRESS);
    let _slow: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = connect_from(1, health);
            say(&mut stream, SLOW_HEAD);
            stream
        })
        .collect();
    assert_eq!(get(health, "/healthz", "").status, 200);
    assert_eq!(get(health, "/metrics", "").status, 200);
}

#[test]
fn health_listener_returns_503_while_stopping_and_moves_only_with_a_restart() {
    let mut proxy = start("health: \"127.0.0.1:0\"");
    let health = health_of(&proxy);
    proxy.write(&SITE.replace("upstreams", "timeouts: { grace: 30s }\nupstreams"));
    let text = std::fs::read_to_string(proxy.file()).unwrap();
    let moved = text.replace("health: \"127.0.0.1:0\"", "health: 127.0.0.1:1");
    assert_ne!(moved, text);
    std::fs::write(proxy.file(), moved).unwrap();
    let reloaded = Client::admin(proxy.admin).post("/admin/reload", BEARER, "");
    assert!(
        reloaded.text().contains("admin.health need a restart"),
        "{}",
        reloaded.text()
    );
    assert_eq!(get(health, "/readyz", "").status, 200);
    proxy.signal("TERM");
    until("readyz returns 503", || {
        let status = get(health, "/readyz", "").status;
        (status == 503).then_some(()).ok_or(status)
    });
    assert_eq!(get(health, "/healthz", "").status, 200);
    proxy.signal("TERM");
    assert!(!proxy.wait().success());
}

#[test]
fn inherited_health_socket_is_handed_over() {
    let origin = Origin::start("a");
    let folder = tempfile::TempDir::new().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let file = folder.path().join("routes.yaml");
    let routes = format!(
        "listen: 127.0.0.1:0\nadmin: {{ listen: 127.0.0.1:0, health: {at} }}\n\
         upstreams: {{ a: \"http://{}\" }}\n",
        origin.address
    );
    std::fs::write(&file, routes).unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let fd = FdMapping {
        parent_fd: socket.try_clone().unwrap().into(),
        child_fd: 3,
    };
    let mut child = Command::new(BINARY)
        .args(["run", "-c", file.to_str().unwrap()])
        .stderr(Stdio::from(log))
        .env("RUST_LOG", "info")
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "health")
        .fd_mappings(vec![fd])
        .unwrap()
        .spawn()
        .unwrap();
    drop(socket);
    let serves = || {
        let answer = Client::try_connect(at).and_then(|mut client| client.try_get("/healthz", ""));
        answer.map(|answer| assert_eq!(answer.status, 200))
    };
    until("health", serves);
    let kill = |name: &str, pid: &str| Command::new("kill").args([name, pid]).status().unwrap();
    assert!(kill("-USR2", &child.id().to_string()).success());
    // The first process ends; the second one keeps its socket.
    until("the handover", || {
        serves().unwrap();
        child.try_wait().unwrap().ok_or(())
    });
    until("health", serves);
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    let successor = log.split(" is to take over").next().unwrap();
    assert!(kill("-TERM", successor.rsplit(' ').next().unwrap()).success());
}
