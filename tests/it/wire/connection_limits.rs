//! Limits of client connections, in total and per address.

use super::plain;
use super::stalled::Http2;
use crate::support::client::{Answer, Client};
use crate::support::proxy::Proxy;
use crate::support::raw::Raw;
use crate::support::until;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const OTHER: [u8; 4] = [127, 0, 0, 2];

/// Opens this many connections, each of which gets a response and stays open.
fn open(count: usize, mut connect: impl FnMut() -> Client) -> Vec<Client> {
    let served = |_| {
        let mut client = connect();
        assert_eq!(client.get("/", "").status, 200);
        client
    };
    (0..count).map(served).collect()
}

#[track_caller]
fn is_refused(mut client: Client) {
    let answer = client.get("/", "");
    let said = |name: &str| answer.header(name);
    assert_eq!(
        (
            answer.status,
            said("watershed-error"),
            said("connection"),
            said("retry-after")
        ),
        (503, Some("too_many_connections"), Some("close"), Some("1"))
    );
    assert!(client.is_closed());
}

fn refused(proxy: &Proxy) -> u64 {
    let metrics = proxy.ask("/admin/metrics").text();
    let mut lines = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("watershed_connections_refused_total{} "));
    lines.next().unwrap().parse().unwrap()
}

#[test]
fn one_address_gets_at_most_half_of_all_connections() {
    let origin = Raw::always(OK);
    for more in ["workers: 4", "workers: 4\ntimeouts: { total: 10m }"] {
        let proxy = plain(
            origin.address,
            &format!("{more}\nlimits: {{ connections: 12 }}"),
        );
        // The limit holds however the connections are spread over workers.
        let mut mine = open(6, || proxy.client());
        for _ in 0..20 {
            is_refused(proxy.client());
        }
        assert_eq!(refused(&proxy), 20);
        let others = open(6, || Client::connect_from(OTHER, proxy.public));
        is_refused(Client::connect_from([127, 0, 0, 3], proxy.public));
        assert_eq!(refused(&proxy), 21);
        // Open connections are still served, and a closed one makes room.
        for client in &mut mine {
            assert_eq!(client.get("/", "").status, 200);
        }
        mine.pop();
        until("room", || {
            let answer =
                Client::try_connect(proxy.public).and_then(|mut client| client.try_get("/", ""));
            answer
                .map(|answer: Answer| answer.status == 200)
                .unwrap_or_default()
                .then_some(())
                .ok_or(())
        });
        drop(others);
    }
}

#[test]
fn connections_per_address_follow_the_configured_limit() {
    let origin = Raw::always(OK);
    let proxy = plain(
        origin.address,
        "workers: 2\nlimits: { connections: 5, connections_per_address: 5 }",
    );
    let all = open(5, || proxy.client());
    is_refused(proxy.client());
    is_refused(Client::connect_from(OTHER, proxy.public));
    drop(all);
}

#[test]
fn refused_client_with_unread_data_gets_the_response() {
    let origin = Raw::always(OK);
    let proxy = plain(origin.address, "workers: 1\nlimits: { connections: 2 }");
    let all = open(1, || proxy.client());
    for _ in 0..20 {
        let mut client = proxy.client();
        let body = "x".repeat(300_000);
        // The client can send all of it because the proxy keeps reading.
        client
            .say(format!(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .unwrap();
        assert_eq!(client.answer(true).unwrap().status, 503);
    }
    // A connection of HTTP/2 is closed without a response.
    let mut client = Http2::connect(proxy.public, 0);
    assert_eq!(client.next(), None);
    drop(all);
}

#[test]
fn clients_behind_a_trusted_peer_are_counted_separately() {
    let origin = Raw::always(OK);
    let proxy = plain(
        origin.address,
        "workers: 2\ntrust: [127.0.0.1, 192.0.2.9]\nlimits: { connections: 30, connections_per_address: 2 }",
    );
    let behind = |header: &'static str| {
        let mut client = proxy.client();
        client.say(header).unwrap();
        client
    };
    let peer = open(5, || proxy.client());
    let seven = "PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\n";
    let mine = open(2, || behind(seven));
    is_refused(behind(seven));
    // A trusted proxy can open many connections.
    let nine = open(3, || behind("PROXY TCP4 192.0.2.9 127.0.0.1 4711 80\r\n"));
    // In IPv6, the addresses of one /64 count as one.
    let six = open(2, || behind("PROXY TCP6 2001:db8::7 ::1 4711 80\r\n"));
    is_refused(behind("PROXY TCP6 2001:db8::8 ::1 4711 80\r\n"));
    let next = open(1, || behind("PROXY TCP6 2001:db8:0:1::7 ::1 4711 80\r\n"));
    is_refused(behind(seven));
    drop(mine);
    until("room", || {
        let status = behind(seven).try_get("/", "").map(|answer| answer.status);
        matches!(status, Ok(200)).then_some(()).ok_or(())
    });
    drop((peer, nine, six, next));
}

#[test]
fn refused_connection_without_a_request_is_closed() {
    let origin = Raw::always(OK);
    let proxy = plain(origin.address, "workers: 1\nlimits: { connections: 2 }");
    let all = open(1, || proxy.client());
    let mut silent: Vec<Client> = (0..100).map(|_| proxy.client()).collect();
    for client in &mut silent {
        // A client that sends nothing gets no response; a reset is a valid end, too.
        assert_eq!(client.rest().unwrap_or_default(), "");
    }
    assert_eq!(refused(&proxy), 100);
    drop(all);
}
