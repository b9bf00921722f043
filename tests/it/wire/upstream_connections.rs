//! Connections to upstreams: Unix domain sockets, how long idle ones are kept, and endpoints that are
//! ejected because of their errors.

use super::sent;
use crate::support::proxy::Proxy;
use crate::support::raw::Raw;
use crate::support::until;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use watershed::config;

/// Answers each request of each connection with JSON that has its `Host`.
fn serve_unix(listener: UnixListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                loop {
                    let mut buffer = [0; 4096];
                    let read = stream.read(&mut buffer).unwrap_or(0);
                    if read == 0 {
                        return;
                    }
                    seen.extend_from_slice(&buffer[..read]);
                    while let Some(end) = seen.windows(4).position(|it| it == b"\r\n\r\n") {
                        let head: Vec<u8> = seen.drain(..end + 4).collect();
                        let head = String::from_utf8(head).unwrap().to_lowercase();
                        let host = head.split("\r\nhost: ").nth(1).unwrap();
                        let host = host.split("\r\n").next().unwrap();
                        let target = head.split(' ').nth(1).unwrap();
                        let body = format!(
                            "{{\"headers\":[[\"host\",\"{host}\"]],\"target\":\"{target}\"}}"
                        );
                        let length = body.len();
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\nLocation: http://localhost{target}\r\nContent-Length: {length}\r\n\r\n{body}"
                        );
                        stream.write_all(answer.as_bytes()).unwrap();
                    }
                }
            });
        }
    });
}

#[test]
fn unix_socket_is_an_endpoint_like_others() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("app.sock");
    serve_unix(UnixListener::bind(&socket).unwrap());
    let upstream = |keys: &str| {
        format!(
            "upstreams: {{ current: {{ endpoints: \"unix:{}\", health: {{ path: /up, interval: 50ms }}, {keys} }} }}\n",
            socket.display()
        )
    };
    let proxy = Proxy::start(&upstream(""));
    let mut client = proxy.client();
    for _ in 0..3 {
        let said = client.get("/a", "").json();
        assert_eq!(
            (sent(&said, "host"), &said["target"]),
            (vec!["site.test"], &"/a".into())
        );
    }
    proxy.write(&upstream("host: upstream, path: /v2"));
    let answer = until("another host", || {
        let answer = client.get("/a", "");
        match sent(&answer.json(), "host") == ["localhost"] {
            true => Ok(answer),
            false => Err(answer),
        }
    });
    assert_eq!(answer.json()["target"], "/v2/a");
    assert_eq!(answer.header("location"), Some("http://site.test/a"));
    let health = proxy.ask("/admin/upstreams").json();
    let endpoint = &health["upstreams"][0]["endpoints"][0];
    assert_eq!(endpoint["address"], format!("unix:{}", socket.display()));
    assert_eq!(endpoint["state"], "healthy");

    // Relative to the file, and gone.
    let gone = "upstreams: { current: \"unix:gone.sock\" }\n";
    proxy.write(gone);
    until("no endpoint", || {
        let answer = client.get("/a", "");
        match answer.header("watershed-error") {
            Some("upstream_refused") => Ok(()),
            _ => Err(answer),
        }
    });
    serve_unix(UnixListener::bind(proxy.folder.path().join("gone.sock")).unwrap());
    until("the endpoint", || {
        let answer = client.get("/a", "");
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer)
        }
    });
}

#[test]
fn unsound_connection_keys_are_reported() {
    let check = |upstream: &str, place: &str, found: &str| {
        let text = format!("upstreams: {{ a: {upstream} }}\n");
        let plan = config::parse(&text, std::path::Path::new("routes.yaml"), &|_| None);
        let said = plan.map(drop).expect_err(upstream).to_string();
        let place = format!(": upstreams.a{place}: ");
        assert!(
            said.contains(&place) && said.contains(found),
            "{upstream}: {said}"
        );
        assert_eq!(said.matches("error: ").count(), 1, "{upstream}: {said}");
    };
    check("\"unix:\"", "", "found the path");
    check(
        &format!("\"unix:/{}\"", "x".repeat(120)),
        "",
        "of 121 bytes",
    );
    check(
        "[ \"unix:/a\", \"https://127.0.0.1:1\" ]",
        "",
        "some endpoints are reached over TLS",
    );
    let with = |keys: &str| format!("{{ endpoints: http://127.0.0.1:1, {keys} }}");
    check(&with("keep_alive: 4"), ".keep_alive", "found \"4\"");
    check(&with("keep_alive: 2h"), ".keep_alive", "too long");
    check(&with("eject: 5"), ".eject", "instead of keys");
    check(
        &with("eject: { errors: 0 }"),
        ".eject.errors",
        "found \"0\"",
    );
    check(
        &with("eject: { share: 0% }"),
        ".eject.share",
        "found \"0%\"",
    );
    check(&with("host: \"a b\""), ".host", "found \"a b\"");
    check(&with("host: \"user@a\""), ".host", "found");
    check(&with("host: a/b"), ".host", "found");
    check(&with("host: \"a.b:99999\""), ".host", "found");
    check(&with("host: \"a.b:\""), ".host", "found");
    check(&with("path: v2"), ".path", "found \"v2\"");
    check(&with("path: /a/../b"), ".path", "found");
    check(
        "{ endpoints: http://127.0.0.1:1/a, path: /b }",
        ".path",
        "beside addresses with a path",
    );
    check(
        "[ http://127.0.0.1:1/a, http://127.0.0.1:2/b ]",
        "",
        "different paths",
    );
    check("http://127.0.0.1:1/a?b", "", "found");
    check(
        &with("headers: { request: { set: { Host: b } } }"),
        ".headers.request.set.Host",
        "cannot be changed",
    );
    check(
        &with("headers: { requests: {} }"),
        ".headers.requests",
        "did you mean `request`",
    );
}

/// An origin that counts its connections.
fn counted(answer: &'static str) -> (Raw, Arc<AtomicUsize>) {
    let connections = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&connections);
    let origin = Raw::start(move |mut peer| {
        let mut is_counted = false;
        while peer.request().is_some() {
            if !std::mem::replace(&mut is_counted, true) {
                count.fetch_add(1, Ordering::SeqCst);
            }
            peer.say(answer.as_bytes());
        }
    });
    (origin, connections)
}

#[test]
fn idle_connections_are_kept_as_long_as_both_sides_say() {
    let check = |keys: &str, answer: &'static str, pause_ms: u64, is_kept: bool| {
        let (origin, connections) = counted(answer);
        let proxy = Proxy::start(&format!(
            "workers: 1\nupstreams: {{ current: {{ endpoints: \"http://{}\", {keys} }} }}\n",
            origin.address
        ));
        let mut client = proxy.client();
        for _ in 0..3 {
            assert_eq!(client.get("/", "").text(), "ok");
            std::thread::sleep(Duration::from_millis(pause_ms));
        }
        let found = connections.load(Ordering::SeqCst);
        let expected = if is_kept { 1 } else { 3 };
        assert_eq!(found, expected, "{keys} {answer}");
    };
    let plain = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let brief = "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1, max=100\r\nContent-Length: 2\r\n\r\nok";
    let long = "HTTP/1.1 200 OK\r\nKeep-Alive: max=100, Timeout=600\r\nContent-Length: 2\r\n\r\nok";
    check("", plain, 700, true);
    check("keep_alive: 300ms", plain, 700, false);
    check("keep_alive: 0s", plain, 0, false);
    check("", brief, 700, false);
    check("", long, 700, true);
    check("keep_alive: 300ms", long, 700, false);
}

/// An origin that answers with 500 while it is told to.
fn failing(name: &'static str) -> (Raw, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let (fails, asked) = (
        Arc::new(AtomicBool::new(true)),
        Arc::<AtomicUsize>::default(),
    );
    let (told, count) = (Arc::clone(&fails), Arc::clone(&asked));
    let origin = Raw::start(move |mut peer| {
        while peer.request().is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            let status = match told.load(Ordering::SeqCst) {
                true => "500 Internal Server Error",
                false => "200 OK",
            };
            let length = name.len();
            peer.say(
                format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{name}").as_bytes(),
            );
        }
    });
    (origin, fails, asked)
}

fn over(endpoints: &[SocketAddr], keys: &str) -> Proxy {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|it| format!("\"http://{it}\""))
        .collect();
    Proxy::start(&format!(
        "workers: 1\nupstreams: {{ current: {{ endpoints: [ {} ], balance: round_robin, {keys} }} }}\n",
        endpoints.join(", ")
    ))
}

fn state(proxy: &Proxy, place: usize) -> String {
    let said = proxy.ask("/admin/upstreams").json();
    let state = &said["upstreams"][0]["endpoints"][place];
    format!("{} {}", state["state"].as_str().unwrap(), state["reason"])
}

#[test]
fn endpoint_that_keeps_answering_5xx_is_ejected_and_returns() {
    let good = Raw::always("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
    let (bad, fails, asked) = failing("bad");
    let proxy = over(&[good.address, bad.address], "eject: { errors: 3 }");
    let mut client = proxy.client();
    while asked.load(Ordering::SeqCst) < 3 {
        client.get("/", "");
    }
    // It is ejected from now on, for a second first, then for longer.
    let ejected = until("an ejection", || {
        client.get("/", "");
        let state = state(&proxy, 1);
        if state.starts_with("ejected") {
            Ok(state)
        } else {
            Err(state)
        }
    });
    assert!(ejected.contains("responses in a row were 5xx"), "{ejected}");
    assert!(state(&proxy, 0).starts_with("healthy"));
    let errors = asked.load(Ordering::SeqCst);
    let answers = (0..200).map(|_| client.get("/", "").status);
    let bad = answers.filter(|status| *status == 500).count();
    assert!(bad < 20, "{bad} of 200 after {errors}");
    fails.store(false, Ordering::SeqCst);
    until("its return", || {
        let answer = client.get("/", "");
        assert_eq!(answer.status, 200);
        match answer.text() == "bad" {
            true => Ok(()),
            false => Err(state(&proxy, 1)),
        }
    });
    assert!(state(&proxy, 1).starts_with("healthy"));
}

#[test]
fn few_endpoints_are_ejected_for_errors_and_never_the_last() {
    // One of three, and the only one.
    let all: Vec<_> = ["a", "b", "c"].into_iter().map(failing).collect();
    let addresses: Vec<SocketAddr> = all.iter().map(|it| it.0.address).collect();
    let proxy = over(&addresses, "eject: { errors: 2, share: 50% }");
    let mut client = proxy.client();
    until("an ejection", || {
        assert_eq!(client.get("/", "").status, 500);
        let all: Vec<String> = (0..3).map(|place| state(&proxy, place)).collect();
        let ejected = all
            .iter()
            .filter(|state| state.starts_with("ejected"))
            .count();
        assert!(ejected <= 1, "{all:?}");
        if ejected == 1 { Ok(()) } else { Err(all) }
    });

    let proxy = over(&addresses[..1], "eject: { errors: 1, share: 100% }");
    let mut client = proxy.client();
    for _ in 0..5 {
        assert_eq!(client.get("/", "").status, 500);
    }
    assert!(state(&proxy, 0).starts_with("healthy"));

    let proxy = over(&addresses[..2], "eject: false");
    let mut client = proxy.client();
    for _ in 0..40 {
        assert_eq!(client.get("/", "").status, 500);
    }
    assert!((0..2).all(|place| state(&proxy, place).starts_with("healthy")));
}
