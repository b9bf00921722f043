//! Several endpoints: those that fail are passed over, and what can be asked twice is.

use crate::support::proxy::Proxy;
use crate::support::raw::Raw;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn over(endpoints: &[SocketAddr]) -> Proxy {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|it| format!("\"http://{it}\""))
        .collect();
    Proxy::start(&format!(
        "workers: 1\nupstreams: {{ current: [ {} ] }}\ntimeouts: {{ response: 500ms }}",
        endpoints.join(", ")
    ))
}

fn good(name: &'static str) -> Raw {
    Raw::always(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
        name.len()
    ))
}

fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// One that hangs up on every request, and counts them.
fn broken() -> (Raw, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    let origin = Raw::start(move |mut peer| {
        if peer.head().is_some() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (origin, asked)
}

#[test]
fn endpoints_take_turns() {
    let (a, b) = (good("a"), good("b"));
    let proxy = over(&[a.address, b.address]);
    let mut client = proxy.client();
    let all: String = (0..10).map(|_| client.get("/", "").text()).collect();
    assert!(all == "ababababab" || all == "bababababa", "{all}");
}

#[test]
fn nobody_notices_an_endpoint_that_does_not_accept() {
    let a = good("a");
    let proxy = over(&[closed(), a.address]);
    let mut client = proxy.client();
    for number in 0..20 {
        assert_eq!(client.get("/", "").text(), "a", "{number}");
        assert_eq!(client.post("/", "", "x").text(), "a", "{number}");
    }
}

#[test]
fn what_may_be_asked_twice_is_asked_another_endpoint() {
    let a = good("a");
    let (b, asked) = broken();
    let proxy = over(&[a.address, b.address]);
    let mut client = proxy.client();
    for number in 0..40 {
        let answer = client.get("/", "");
        assert_eq!((answer.status, &*answer.text()), (200, "a"), "{number}");
    }
    // It was soon passed over.
    let asked = asked.load(Ordering::SeqCst);
    assert!((3..8).contains(&asked), "asked {asked} times");
}

#[test]
fn what_may_not_be_asked_twice_is_not() {
    let (a, asked_a) = broken();
    let (b, asked_b) = broken();
    let proxy = over(&[a.address, b.address]);
    let mut client = proxy.client();
    for number in 1..=4 {
        let answer = client.post("/", "", "x");
        assert_eq!(
            (answer.status, answer.header("watershed-error")),
            (502, Some("upstream_broken"))
        );
        let asked = asked_a.load(Ordering::SeqCst) + asked_b.load(Ordering::SeqCst);
        assert_eq!(asked, number);
    }
}

#[test]
fn retries_have_a_budget() {
    let (a, asked_a) = broken();
    let (b, asked_b) = broken();
    let proxy = over(&[a.address, b.address]);
    let mut client = proxy.client();
    for _ in 0..100 {
        assert_eq!(client.get("/", "").status, 502);
    }
    let asked = asked_a.load(Ordering::SeqCst) + asked_b.load(Ordering::SeqCst);
    // One in five, and ten at once.
    assert!((110..=131).contains(&asked), "asked {asked} times");
}
