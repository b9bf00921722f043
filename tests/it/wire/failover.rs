//! Upstreams with several endpoints: failing ones are skipped, and idempotent requests are retried.

use crate::support::proxy::Proxy;
use crate::support::raw::Raw;
use crate::support::refusing_address;
use std::net::SocketAddr;
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

/// An origin that closes the connection on every request, and counts them.
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
fn round_robin_alternates_between_endpoints() {
    let (a, b) = (good("a"), good("b"));
    let proxy = over(&[a.address, b.address]);
    let mut client = proxy.client();
    let all: String = (0..10).map(|_| client.get("/", "").text()).collect();
    assert!(all == "ababababab" || all == "bababababa", "{all}");
}

#[test]
fn refused_connection_is_retried_on_another_endpoint() {
    let a = good("a");
    let proxy = over(&[refusing_address(), a.address]);
    let mut client = proxy.client();
    for number in 0..20 {
        assert_eq!(client.get("/", "").text(), "a", "{number}");
        assert_eq!(client.post("/", "", "x").text(), "a", "{number}");
    }
}

#[test]
fn failed_idempotent_request_is_retried_on_another_endpoint() {
    let a = good("a");
    let (b, asked) = broken();
    let proxy = over(&[a.address, b.address]);
    let mut client = proxy.client();
    for number in 0..40 {
        let answer = client.get("/", "");
        assert_eq!((answer.status, &*answer.text()), (200, "a"), "{number}");
    }
    // It was soon ejected.
    let asked = asked.load(Ordering::SeqCst);
    assert!((3..8).contains(&asked), "asked {asked} times");
}

#[test]
fn failed_non_idempotent_request_is_not_retried() {
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
fn retries_are_limited_by_a_budget() {
    let (a, asked_a) = broken();
    let (b, asked_b) = broken();
    let proxy = over(&[a.address, b.address]);
    let mut client = proxy.client();
    for _ in 0..100 {
        assert_eq!(client.get("/", "").status, 502);
    }
    let asked = asked_a.load(Ordering::SeqCst) + asked_b.load(Ordering::SeqCst);
    // The budget is one in five requests, and a burst of ten.
    assert!((110..=131).contains(&asked), "asked {asked} times");
}
