//! Choice of the endpoint: health, load, users, connection limits and DNS; and the total timeout.

use crate::support::client::Answer;
use crate::support::proxy::{How, Proxy};
use crate::support::raw::Raw;
use crate::support::until;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const HEALTH: &str = "health: { path: /healthz, interval: 30ms, timeout: 300ms, failures: 2 }";

/// An origin that responds with its name, and at `/healthz` with its health.
fn checked(name: &'static str) -> (Raw, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(true));
    let says = Arc::clone(&well);
    let origin = Raw::start(move |mut peer| {
        while let Some(head) = peer.request() {
            let asked = head.starts_with("GET /healthz ");
            let status = match asked && !says.load(Ordering::SeqCst) {
                true => "503 Service Unavailable",
                false => "200 OK",
            };
            let length = name.len();
            peer.say(format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{name}"
            ));
        }
    });
    (origin, well)
}

fn names(proxy: &Proxy, count: usize) -> String {
    let mut client = proxy.client();
    (0..count).map(|_| client.get("/", "").text()).collect()
}

fn error(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status, answer.header("watershed-error"))
}

#[test]
fn unhealthy_endpoint_gets_no_requests() {
    let ((a, _), (b, well)) = (checked("a"), checked("b"));
    let proxy = Proxy::start(&format!(
        "upstreams: {{ current: {{ endpoints: [\"http://{}\", \"http://{}\"], {HEALTH} }} }}",
        a.address, b.address
    ));
    let seen = |expected: &str| {
        until("the checks' effect", || {
            let names = names(&proxy, 6);
            let found: HashSet<char> = names.chars().collect();
            (found == expected.chars().collect())
                .then_some(())
                .ok_or(names)
        });
    };
    seen("ab");
    well.store(false, Ordering::SeqCst);
    seen("a");
    assert_eq!(names(&proxy, 50), "a".repeat(50));
    well.store(true, Ordering::SeqCst);
    seen("ab");
    let asked = b.seen();
    let check = asked.split("\r\n\r\n").find(|it| it.contains("/healthz"));
    let host = format!("host: {}", b.address);
    assert!(check.unwrap().to_lowercase().contains(&host), "{check:?}");
    // Without checks it counts as healthy.
    well.store(false, Ordering::SeqCst);
    seen("a");
    proxy.write(&format!(
        "upstreams: {{ current: [\"http://{}\", \"http://{}\"] }}",
        a.address, b.address
    ));
    seen("ab");
}

#[test]
fn control_serves_a_group_whose_upstream_is_unhealthy() {
    let ((a, a_well), (b, b_well)) = (checked("a"), checked("b"));
    b_well.store(false, Ordering::SeqCst);
    let proxy = Proxy::start(&format!(
        "upstreams:\n  one: {{ endpoints: [\"http://{}\"], {HEALTH} }}\n  two: {{ endpoints: [\"http://{}\"], {HEALTH} }}\n\
         user: {{ header: X-User }}\n\
         experiments:\n  site: {{ groups: {{ control: {{ weight: 1, upstream: one }}, other: {{ weight: 99999, upstream: two }} }} }}",
        a.address, b.address
    ));
    let mut client = proxy.client();
    let mut ask = |user: &str| client.get("/", &format!("X-User: {user}\r\n"));
    let answer = until("checks", || {
        let answer = ask("early");
        (answer.text() == "a").then_some(answer).ok_or(())
    });
    assert_eq!(answer.header("watershed-fallback"), Some("site=control"));
    for number in 0..10 {
        assert_eq!(ask(&format!("user-{number}")).text(), "a");
    }
    b_well.store(true, Ordering::SeqCst);
    let answer = until("recovery", || {
        let answer = ask("late");
        (answer.text() == "b").then_some(answer).ok_or(())
    });
    assert_eq!(answer.header("watershed-fallback"), None);
    let results = proxy.results();
    let groups = results["experiments"][0]["groups"].as_array().unwrap();
    assert!(groups[1]["fallbacks"].as_u64().unwrap() >= 11);
    a_well.store(false, Ordering::SeqCst);
    b_well.store(false, Ordering::SeqCst);
    let answer = until("nobody is well", || {
        let answer = ask("nobody");
        (answer.status == 503).then_some(answer).ok_or(())
    });
    assert_eq!(error(&answer), (503, Some("upstream_down")));
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[test]
fn busy_endpoint_gets_fewer_requests() {
    let named = |name: &'static str| {
        Raw::start(move |mut peer| {
            while let Some(head) = peer.request() {
                if head.starts_with("GET /hold ") {
                    std::thread::sleep(Duration::from_secs(20));
                }
                let length = name.len();
                peer.say(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}"
                ));
            }
        })
    };
    let (a, b) = (named("a"), named("b"));
    let with = |balance: &str| {
        let proxy = Proxy::start(&format!(
            "workers: 1\nupstreams: {{ current: {{ endpoints: [\"http://{}\", \"http://{}\"], balance: {balance} }} }}",
            a.address, b.address
        ));
        let holds = |origin: &Raw| origin.seen().matches("GET /hold ").count();
        let before = holds(&a) + holds(&b);
        let mut held = proxy.client();
        held.say("GET /hold HTTP/1.1\r\nHost: site.test\r\n\r\n")
            .unwrap();
        until("the one that is held", || {
            (holds(&a) + holds(&b) > before).then_some(()).ok_or(())
        });
        let found: HashSet<char> = names(&proxy, 20).chars().collect();
        found.len()
    };
    assert_eq!((with("round_robin"), with("least_loaded")), (2, 1));
}

#[test]
fn user_balancing_keeps_users_on_their_endpoint() {
    let all = [checked("a"), checked("b"), checked("c")];
    let addresses: Vec<_> = all
        .iter()
        .map(|(it, _)| format!("\"http://{}\"", it.address))
        .collect();
    let routes = format!(
        "upstreams: {{ current: {{ endpoints: [{}], balance: user, {HEALTH} }} }}\nuser: {{ header: X-User }}",
        addresses.join(", ")
    );
    let proxy = Proxy::start(&routes);
    // Users outside an experiment have an ID, too.
    let home = |user: usize| {
        let answer = proxy.client().get("/", &format!("X-User: user-{user}\r\n"));
        answer.text()
    };
    let homes: Vec<_> = (0..30).map(home).collect();
    for name in ["a", "b", "c"] {
        assert!(homes.iter().any(|home| home == name), "{homes:?}");
    }
    assert_eq!((0..30).map(home).collect::<Vec<_>>(), homes);
    all[1].1.store(false, Ordering::SeqCst);
    until("b is passed over", || {
        let now: Vec<_> = (0..30).map(home).collect();
        (!now.contains(&"b".to_owned())).then_some(()).ok_or(())
    });
    for (user, before) in homes.iter().enumerate() {
        assert!(before == "b" || home(user) == *before);
    }
}

/// An origin that responds after a delay, with the number of its connections and the most that were open
/// for longer than a moment (a thread notices a closed connection late).
fn counting(after: Duration) -> (Raw, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let all = Arc::<AtomicUsize>::default();
    let most = Arc::<AtomicUsize>::default();
    let open = Arc::<AtomicUsize>::default();
    let (made, seen, now) = (Arc::clone(&all), Arc::clone(&most), Arc::clone(&open));
    std::thread::spawn(move || {
        loop {
            let look = |_| {
                std::thread::sleep(Duration::from_millis(2));
                now.load(Ordering::SeqCst)
            };
            let least = (0..50).map(look).min().unwrap();
            seen.fetch_max(least, Ordering::SeqCst);
        }
    });
    let origin = Raw::start(move |mut peer| {
        let mut counted = false;
        while peer.request().is_some() {
            if !std::mem::replace(&mut counted, true) {
                made.fetch_add(1, Ordering::SeqCst);
                open.fetch_add(1, Ordering::SeqCst);
            }
            std::thread::sleep(after);
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
        if counted {
            open.fetch_sub(1, Ordering::SeqCst);
        }
    });
    (origin, all, most)
}

fn bounded(origin: &Raw, workers: usize, limits: &str) -> Proxy {
    Proxy::start(&format!(
        "workers: {workers}\nupstreams: {{ current: {{ endpoints: \"http://{}\", limits: {limits} }} }}\ntimeouts: {{ connect: 5s }}",
        origin.address
    ))
}

#[test]
fn request_without_a_free_connection_waits_or_returns_503() {
    let (origin, made, _) = counting(Duration::from_millis(500));
    let proxy = bounded(&origin, 1, "{ connections: 1, pending: 1 }");
    let began = Instant::now();
    let ask = |_| {
        let mut client = proxy.client();
        std::thread::sleep(Duration::from_millis(50));
        std::thread::spawn(move || (client.get("/", ""), began.elapsed()))
    };
    let asked: Vec<_> = (0..3).map(ask).collect();
    let answers: Vec<_> = asked.into_iter().map(|it| it.join().unwrap()).collect();
    let statuses: Vec<_> = answers.iter().map(|(answer, _)| answer.status).collect();
    assert_eq!(statuses, [200, 200, 503]);
    assert_eq!(error(&answers[2].0), (503, Some("upstream_busy")));
    assert!(answers[2].1 < answers[0].1, "the refusal is immediate");
    // The second request used the connection of the first.
    assert_eq!(made.load(Ordering::SeqCst), 1);
}

#[test]
fn workers_share_the_connection_limit_of_an_endpoint() {
    let (origin, _, most) = counting(Duration::from_millis(4));
    let proxy = bounded(&origin, 2, "{ connections: 3 }");
    let ask = |_| {
        let mut client = proxy.client();
        std::thread::spawn(move || (0..25).all(|_| client.get("/", "").status == 200))
    };
    let asked: Vec<_> = (0..24).map(ask).collect();
    assert!(asked.into_iter().all(|it| it.join().unwrap()));
    let most = most.load(Ordering::SeqCst);
    assert!((1..=3).contains(&most), "{most} connections");
}

#[test]
fn idle_connection_of_one_worker_is_closed_for_another() {
    let (origin, made, most) = counting(Duration::ZERO);
    let proxy = bounded(&origin, 4, "{ connections: 1 }");
    // Client connections are spread over workers, all of which need the only upstream connection.
    for _ in 0..24 {
        assert_eq!(proxy.client().get("/", "").status, 200);
    }
    assert!(most.load(Ordering::SeqCst) <= 1);
    assert!(made.load(Ordering::SeqCst) > 1);
}

#[test]
fn changed_dns_records_are_followed() {
    let (a, _) = checked("a");
    let port = a.address.port();
    let b = std::net::TcpListener::bind(("127.0.0.2", port)).unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in b.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb");
                }
            });
        }
    });
    let mount = "echo '127.0.0.1 moving.test' > {}/hosts && mount --bind {}/hosts /etc/hosts && exec \"$@\"";
    let through = ["unshare", "-rm", "sh", "-c", mount, "sh"].map(str::to_owned);
    let how = How {
        through: through.to_vec(),
        ..How::default()
    };
    let routes = format!("workers: 1\nupstreams: {{ current: \"http://moving.test:{port}\" }}");
    let proxy = Proxy::start_how(&routes, how);
    let mut client = proxy.client();
    assert_eq!(client.get("/", "").text(), "a");
    std::fs::write(proxy.folder.path().join("hosts"), "127.0.0.2 moving.test\n").unwrap();
    // The connection to the old address is always busy, and is given up nevertheless.
    until("the new place", || {
        let text = client.get("/", "").text();
        (text == "b").then_some(()).ok_or(text)
    });
    // If a name no longer resolves, its last addresses stay in use.
    std::fs::write(proxy.folder.path().join("hosts"), "").unwrap();
    let until = Instant::now() + Duration::from_secs(11);
    while Instant::now() < until {
        assert_eq!(client.get("/", "").text(), "b");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn total_timeout_limits_the_whole_request() {
    let origin = Raw::start(|mut peer| {
        while let Some(head) = peer.request() {
            if head.starts_with("GET /never ") {
                std::thread::sleep(Duration::from_secs(5));
            }
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
            let bytes = if head.starts_with("GET /slow ") {
                1
            } else {
                1000
            };
            while !peer.is_left(Duration::from_millis(20)) && bytes == 1 {
                peer.say("x");
            }
            peer.say("x".repeat(1000));
        }
    });
    let proxy = Proxy::start(&format!(
        "upstreams: {{ current: \"http://{}\" }}\ntimeouts: {{ total: 400ms }}",
        origin.address
    ));
    let mut client = proxy.client();
    assert_eq!(client.get("/fast", "").text().len(), 1000);
    assert_eq!(
        error(&client.get("/never", "")),
        (504, Some("total_timeout"))
    );
    let began = Instant::now();
    assert!(client.try_get("/slow", "").is_err(), "a whole answer");
    assert!(began.elapsed() < Duration::from_secs(3));
}
