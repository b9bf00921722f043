//! Endpoints that DNS names, by a real name server on a local port.

use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::until;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use watershed::config;

const A: u16 = 1;
const SRV: u16 = 33;

/// What is answered about a name: nothing at all, or records with their TTL in seconds.
#[derive(Clone, Default)]
struct Zone {
    is_silent: bool,
    addresses: Vec<Ipv4Addr>,
    /// Priority, port and target.
    services: Vec<(u16, u16, &'static str)>,
    ttl_s: u32,
}

/// A name server.
struct NameServer {
    address: SocketAddr,
    zones: Arc<Mutex<BTreeMap<&'static str, Zone>>>,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    fn start() -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = NameServer {
            address: socket.local_addr().unwrap(),
            zones: Arc::default(),
            asked: Arc::default(),
        };
        let (zones, asked) = (Arc::clone(&server.zones), Arc::clone(&server.asked));
        std::thread::spawn(move || {
            let mut query = [0; 512];
            loop {
                let (bytes, from) = socket.recv_from(&mut query).unwrap();
                asked.fetch_add(1, Ordering::SeqCst);
                let (name, kind, end) = question(&query[..bytes]);
                let zone = zones.lock().unwrap().get(&*name).cloned();
                if zone.as_ref().is_some_and(|zone| zone.is_silent) {
                    continue;
                }
                let answer = answer(&query[..end], zone.as_ref(), kind);
                socket.send_to(&answer, from).unwrap();
            }
        });
        server
    }

    fn set(&self, name: &'static str, zone: Zone) {
        self.zones.lock().unwrap().insert(name, zone);
    }

    fn addresses(&self, name: &'static str, last: &[u8], ttl_s: u32) {
        let addresses = last.iter().map(|last| Ipv4Addr::new(127, 0, 0, *last));
        self.set(
            name,
            Zone {
                addresses: addresses.collect(),
                ttl_s,
                ..Zone::default()
            },
        );
    }
}

/// The name and type that a query asks for, and where the question ends.
fn question(query: &[u8]) -> (String, u16, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while query[at] > 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8(query[at + 1..end].to_vec()).unwrap());
        at = end;
    }
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    (labels.join(".").to_lowercase(), kind, at + 5)
}

fn answer(query: &[u8], zone: Option<&Zone>, kind: u16) -> Vec<u8> {
    let mut records: Vec<Vec<u8>> = Vec::new();
    if let Some(zone) = zone {
        match kind {
            A => records.extend(zone.addresses.iter().map(|it| it.octets().to_vec())),
            SRV => records.extend(zone.services.iter().map(|(priority, port, target)| {
                let mut data = Vec::new();
                for number in [*priority, 10, *port] {
                    data.extend(number.to_be_bytes());
                }
                for label in target.split('.') {
                    data.push(label.len() as u8);
                    data.extend(label.as_bytes());
                }
                data.push(0);
                data
            })),
            _ => {}
        }
    }
    // A response, recursion available; NXDOMAIN for unknown names.
    let code = if zone.is_some() { 0 } else { 3 };
    let mut answer = query.to_vec();
    answer[2..4].copy_from_slice(&[0x81, 0x80 | code]);
    answer[4..12].copy_from_slice(&[0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    for data in records {
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1]);
        answer.extend(zone.map_or(0, |zone| zone.ttl_s).to_be_bytes());
        answer.extend((data.len() as u16).to_be_bytes());
        answer.extend(data);
    }
    answer
}

fn with(server: &NameServer, endpoint: &str, keys: &str) -> Proxy {
    Proxy::start(&format!(
        "workers: 1\ndns: {{ servers: \"{}\" }}\nupstreams: {{ current: {{ endpoints: \"{endpoint}\", balance: round_robin, {keys} }} }}\n",
        server.address
    ))
}

/// The endpoints and their states.
fn endpoints(proxy: &Proxy) -> Vec<(String, String)> {
    let said = proxy.ask("/admin/upstreams").json();
    let all = said["upstreams"][0]["endpoints"]
        .as_array()
        .unwrap()
        .clone();
    let word = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
    all.iter()
        .map(|it| (word(it, "address"), word(it, "state")))
        .collect()
}

/// Waits until exactly these versions answer.
fn served_by(proxy: &Proxy, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|it| (*it).to_owned()).collect();
    let mut client = proxy.client();
    until("the endpoints", || {
        let mut found = BTreeSet::new();
        for _ in 0..12 {
            let answer = client.get("/", "");
            found.insert(match answer.status {
                200 => answer.json()["version"].as_str().unwrap().to_owned(),
                status => status.to_string(),
            });
        }
        if found == expected {
            Ok(())
        } else {
            Err((found, endpoints(proxy)))
        }
    });
}

#[test]
fn each_address_of_a_name_is_an_endpoint_until_its_ttl_is_over() {
    let a = Origin::start("a");
    let port = a.address.port();
    let on = |name, last| {
        Origin::on(
            name,
            SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), port),
        )
    };
    let (_b, _c) = (on("b", 2), on("c", 3));
    let server = NameServer::start();
    server.addresses("app.test", &[1, 2], 1);
    let proxy = with(
        &server,
        &format!("http://app.test:{port}"),
        "health: { path: /, interval: 50ms }",
    );
    served_by(&proxy, &["a", "b"]);
    let both: Vec<String> = endpoints(&proxy).into_iter().map(|it| it.0).collect();
    assert_eq!(
        both,
        [format!("127.0.0.1:{port}"), format!("127.0.0.2:{port}")]
    );
    // One moves.
    server.addresses("app.test", &[1, 3], 1);
    served_by(&proxy, &["a", "c"]);
    // One has nobody who listens: it alone is unhealthy.
    server.addresses("app.test", &[1, 9], 1);
    until("an unhealthy endpoint", || {
        let found = endpoints(&proxy);
        let states: Vec<&str> = found.iter().map(|it| &*it.1).collect();
        if states == ["healthy", "unhealthy"] {
            Ok(())
        } else {
            Err(found)
        }
    });
    served_by(&proxy, &["a"]);
    // The name server says nothing, then that there is no such name: the last addresses stay.
    server.set(
        "app.test",
        Zone {
            is_silent: true,
            ..Zone::default()
        },
    );
    let asked = server.asked.load(Ordering::SeqCst);
    until("more questions", || {
        let now = server.asked.load(Ordering::SeqCst);
        if now > asked + 1 { Ok(()) } else { Err(now) }
    });
    served_by(&proxy, &["a"]);
    server.zones.lock().unwrap().clear();
    until("a warning", || {
        let log = proxy.log.lock().unwrap().clone();
        match log.contains("app.test does not resolve") {
            true => Ok(()),
            false => Err(log),
        }
    });
    served_by(&proxy, &["a"]);
    server.addresses("app.test", &[2], 1);
    served_by(&proxy, &["b"]);
}

#[test]
fn names_are_not_asked_for_before_their_ttl_is_over() {
    let a = Origin::start("a");
    let server = NameServer::start();
    server.addresses("app.test", &[1], 600);
    let proxy = with(
        &server,
        &format!("http://app.test:{}", a.address.port()),
        "",
    );
    served_by(&proxy, &["a"]);
    until("the endpoint", || {
        let found = endpoints(&proxy);
        if found[0].0.starts_with("127.0.0.1:") {
            Ok(())
        } else {
            Err(found)
        }
    });
    let asked = server.asked.load(Ordering::SeqCst);
    // That nothing is asked can only be seen by waiting: three times as long as the shortest time between questions.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(server.asked.load(Ordering::SeqCst), asked);
    served_by(&proxy, &["a"]);
}

#[test]
fn srv_records_name_hosts_and_ports() {
    let (a, b, c) = (Origin::start("a"), Origin::start("b"), Origin::start("c"));
    let server = NameServer::start();
    server.addresses("one.test", &[1], 1);
    let services = |all: &[(u16, u16, &'static str)]| Zone {
        services: all.to_vec(),
        ttl_s: 1,
        ..Zone::default()
    };
    let (a, b, c) = (a.address.port(), b.address.port(), c.address.port());
    // The best priority has the lowest number.
    let zone = services(&[(1, a, "one.test"), (1, b, "one.test"), (2, c, "one.test")]);
    server.set("_http._tcp.app.test", zone);
    let proxy = with(&server, "http+srv://_http._tcp.app.test", "host: upstream");
    served_by(&proxy, &["a", "b"]);
    let said = proxy.client().get("/", "").json();
    let host = super::sent(&said, "host")[0].to_owned();
    assert!(
        host == format!("one.test:{a}") || host == format!("one.test:{b}"),
        "{host}"
    );
    server.set("_http._tcp.app.test", services(&[(2, c, "one.test")]));
    served_by(&proxy, &["c"]);
}

#[test]
fn name_servers_and_names_change_with_a_reload() {
    let a = Origin::start("a");
    let port = a.address.port();
    let _b = Origin::on(
        "b",
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), port),
    );
    let (first, second) = (NameServer::start(), NameServer::start());
    first.addresses("app.test", &[1], 600);
    second.addresses("app.test", &[2], 600);
    second.addresses("other.test", &[1], 600);
    let proxy = with(&first, &format!("http://app.test:{port}"), "");
    served_by(&proxy, &["a"]);
    let over = |name: &str| {
        format!(
            "dns: {{ servers: \"{}\" }}\nupstreams: {{ current: \"http://{name}:{port}\" }}\n",
            second.address
        )
    };
    proxy.write(&over("app.test"));
    served_by(&proxy, &["b"]);
    proxy.write(&over("other.test"));
    served_by(&proxy, &["a"]);
    // An address needs no name server.
    proxy.write(&format!(
        "upstreams: {{ current: \"http://127.0.0.2:{port}\" }}\n"
    ));
    served_by(&proxy, &["b"]);
}

#[test]
fn unsound_names_and_servers_are_reported() {
    let check = |text: &str, place: &str, found: &str| {
        let plan = config::parse(text, Path::new("routes.yaml"), &|_| None);
        let said = plan.map(drop).expect_err(text).to_string();
        assert!(
            said.contains(&format!(": {place}: ")) && said.contains(found),
            "{text}: {said}"
        );
    };
    let upstream = "upstreams: { a: http://127.0.0.1:1 }\n";
    check(
        &format!("{upstream}dns: {{ servers: ns.test }}"),
        "dns.servers",
        "found \"ns.test\"",
    );
    check(
        &format!("{upstream}dns: {{ server: 127.0.0.1 }}"),
        "dns.server",
        "did you mean `servers`",
    );
    check(
        &format!("{upstream}dns: {{}}"),
        "dns",
        "`servers` is missing",
    );
    check(
        "upstreams: { a: \"http+srv://a.test:80\" }",
        "upstreams.a",
        "found",
    );
    check(
        "upstreams: { a: \"ftp+srv://a.test\" }",
        "upstreams.a",
        "found",
    );
}
