//! The gate with hyper above it: hyper takes every head that passes, and reads the same requests
//! and bodies as another parser does; the last words are one sound answer.
#![no_main]

use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;
use watershed::config::plan::Timeouts;
use watershed::proxy::fuzzing::{Bounds, Framing, Gate, Line, Times};
use watershed_fuzz::pieces::{Stream, run};
use watershed_fuzz::{http1, split};

const BOUNDS: Bounds = Bounds {
    head_bytes: 2048,
    headers: 20,
    target_bytes: 200,
};

/// Time stands still here while there is something to read.
const TIMEOUTS: Timeouts = Timeouts {
    head: Duration::from_secs(10),
    idle: Duration::from_secs(60),
    body: Duration::from_secs(30),
    connect: Duration::from_secs(2),
    response: Duration::from_secs(60),
    total: None,
    tunnel: Duration::from_secs(60),
    grace: Duration::ZERO,
    shutdown: Duration::from_secs(30),
};

#[derive(Debug, PartialEq)]
struct Seen {
    method: String,
    target: String,
    fields: usize,
    body: Option<Vec<u8>>,
}

fuzz_target!(init: watershed_fuzz::fixed::replay(), |input: &[u8]| {
    let Some((mut cutter, bytes)) = split(input) else {
        return;
    };
    let mut pieces = cutter.cut(bytes);
    let first = pieces.pop_front().unwrap_or_default();
    let line = Rc::new(Line::new(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let times = Times::from(&TIMEOUTS);
    let gate = Gate::new(Stream::new(pieces), first, Rc::clone(&line), BOUNDS, times);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let all = Rc::clone(&seen);
    let ended = run(async move {
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let all = Rc::clone(&all);
            async move {
                let (head, body) = request.into_parts();
                let target = match head.uri.scheme() {
                    None => head.uri.to_string(),
                    Some(_) => String::new(),
                };
                let body = body.collect().await;
                all.borrow_mut().push(Seen {
                    method: head.method.to_string(),
                    target,
                    fields: head.headers.len(),
                    body: body.ok().map(|body| body.to_bytes().to_vec()),
                });
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from("ok"))))
            }
        });
        server::Builder::new()
            .half_close(true)
            .preserve_header_case(true)
            .max_headers(BOUNDS.headers)
            .max_buf_size(BOUNDS.head_bytes + (16 << 10))
            .serve_connection(TokioIo::new(gate), service)
            .await
    });
    if let Err(error) = &ended {
        assert!(!error.is_parse(), "hyper refuses what passed: {error:?}");
    }
    // What passes, by the framing alone; nothing is upgraded here.
    let mut framing = Framing::new(BOUNDS);
    let mut passed = 0;
    loop {
        let (sound, fault) = framing.admit(&bytes[passed..]);
        passed += sound;
        if fault.is_some() || !framing.is_upgrade() {
            break;
        }
        framing.resume();
    }
    let (messages, _) = http1::read(&bytes[..passed], false);
    let seen = seen.take();
    assert!(seen.len() <= messages.len(), "{seen:?} {messages:?}");
    for (seen, message) in seen.iter().zip(&messages) {
        let target = String::from_utf8_lossy(&message.target);
        let expected = Seen {
            method: message.method.clone(),
            target: match target.starts_with('/') || target == "*" {
                true => target.into_owned(),
                false => String::new(),
            },
            fields: message.fields.len(),
            body: message.body.as_ref().map(|(body, _)| body.clone()),
        };
        assert_eq!(*seen, expected);
    }
});
