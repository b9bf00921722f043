//! Limits of response heads: they are the same for both protocols on both sides, however the bytes
//! arrive, and a head over the limit does not eject its endpoint.

use super::{http2, tls};
use crate::support::client::Client;
use crate::support::proxy::Proxy;
use crate::support::raw::{Peer, Raw};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;

const HEAD_BYTES: usize = 8192;
const FIELDS: usize = 20;
const LIMITS: &str = "limits: { response_head: 8KiB, response_headers: 20 }";
const LENGTH: &str = "content-length: 2\r\n";
/// The status line of HTTP/1, which HTTP/2 does not have.
const AROUND: usize = "HTTP/1.1 200 OK\r\n\r\n".len() + LENGTH.len();

/// The fields beside the length that a path such as `/bytes/8192` or `/fields/20` requests.
fn fields(path: &str) -> Vec<(String, String)> {
    let mut parts = path.split('/').skip(1);
    let (kind, count) = (parts.next().unwrap(), parts.next().unwrap());
    let count: usize = count.parse().unwrap();
    match kind {
        "bytes" => vec![("x".to_owned(), "x".repeat(count - AROUND - "x: \r\n".len()))],
        _ => (1..count)
            .map(|it| (format!("x-{it}"), "y".to_owned()))
            .collect(),
    }
}

/// Builds the HTTP/1 head for this path with this status line.
fn head(line: &str, path: &str) -> String {
    let lines = fields(path)
        .into_iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    format!("{line}\r\n{}{LENGTH}\r\n", lines.collect::<String>())
}

/// Sends this in one piece, or in pieces of the size that `/cut/N` at the end of the path requests.
fn say(peer: &mut Peer, path: &str, text: &str) {
    let piece = path
        .split_once("/cut/")
        .map_or(text.len(), |(_, bytes)| bytes.parse().unwrap());
    text.as_bytes()
        .chunks(piece)
        .for_each(|piece| peer.say(piece));
}

fn http1_origin() -> Raw {
    Raw::start(|mut peer| {
        while let Some(request) = peer.head() {
            let path = request.split(' ').nth(1).unwrap();
            match path.split_once("/interim") {
                // Status line and the field that replaces the length have the same size.
                Some((_, path)) => {
                    let interim = head("HTTP/1.1 103 Hi", path);
                    // An interim response has no length.
                    let interim = interim.replace("content-length", "x-size-length-");
                    say(
                        &mut peer,
                        path,
                        &format!("{interim}HTTP/1.1 200 OK\r\n{LENGTH}\r\nok"),
                    );
                }
                None => say(
                    &mut peer,
                    path,
                    &format!("{}ok", head("HTTP/1.1 200 OK", path)),
                ),
            }
        }
    })
}

async fn respond(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields(request.uri().path()) {
        let name = http::HeaderName::try_from(name).unwrap();
        headers.append(name, HeaderValue::try_from(value).unwrap());
    }
    let mut response = Response::new(Full::new(Bytes::from("ok")));
    *response.headers_mut() = headers;
    Ok(response)
}

fn http2_origin() -> SocketAddr {
    tls::serve(|stream| async move {
        let mut service = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        service.auto_date_header(false);
        let _ = service
            .serve_connection(TokioIo::new(stream), service_fn(respond))
            .await;
    })
}

/// Returns the status and the error that clients of HTTP/1 and HTTP/2 get.
fn ask(proxy: &Proxy, path: &str) -> [(u16, Option<String>); 2] {
    let answer = Client::connect(proxy.public).get(path, "");
    let error = |value: Option<&str>| value.map(str::to_owned);
    if answer.status == 200 {
        assert_eq!(answer.text(), "ok");
    }
    let by_http1 = (answer.status, error(answer.header("watershed-error")));
    let by_http2 = http2::run(async {
        let mut sender = http2::connect(proxy.public).await;
        let request = Request::get(format!("http://site.test{path}"));
        let request = request.body(http2::whole("")).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let name = response.headers().get("watershed-error");
        let name = error(name.map(|name| name.to_str().unwrap()));
        let status = response.status().as_u16();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(status != 200 || text == "ok");
        (status, name)
    });
    [by_http1, by_http2]
}

#[track_caller]
fn check(proxy: &Proxy, path: &str, error: Option<&str>) {
    let expected = match error {
        None => (200, None),
        Some(error) => (502, Some(error.to_owned())),
    };
    assert_eq!(ask(proxy, path), [expected.clone(), expected], "{path}");
}

const TOO_LONG: Option<&str> = Some("upstream_head_too_long");
const TOO_MANY: Option<&str> = Some("upstream_too_many_headers");

#[test]
fn response_head_over_the_limit_returns_502() {
    let origin = http1_origin();
    let upstreams = [
        format!("http://{}", origin.address),
        format!("h2c://{}", http2_origin()),
    ];
    for (upstream, cuts) in upstreams
        .iter()
        .zip([&["", "/cut/1", "/cut/4096", "/cut/8192"][..], &[""]])
    {
        let proxy = Proxy::start(&format!(
            "upstreams: {{ current: \"{upstream}\" }}\n{LIMITS}"
        ));
        for cut in cuts {
            check(&proxy, &format!("/bytes/{HEAD_BYTES}{cut}"), None);
            check(&proxy, &format!("/bytes/{}{cut}", HEAD_BYTES + 1), TOO_LONG);
            check(
                &proxy,
                &format!("/bytes/100000{cut}").replace("/cut/1", "/cut/100"),
                TOO_LONG,
            );
            check(&proxy, &format!("/fields/{FIELDS}{cut}"), None);
            check(&proxy, &format!("/fields/{}{cut}", FIELDS + 1), TOO_MANY);
            check(&proxy, &format!("/fields/200{cut}"), TOO_MANY);
        }
        let log = proxy.log.lock().unwrap().clone();
        for limit in [
            "limits.response_head (8192 bytes)",
            "limits.response_headers (20)",
        ] {
            assert!(log.contains(limit), "{limit} is not named:\n{log}");
        }
    }
}

#[test]
fn interim_response_over_the_limit_returns_502() {
    let origin = http1_origin();
    let proxy = Proxy::start(&format!(
        "upstreams: {{ current: \"http://{}\" }}\n{LIMITS}",
        origin.address
    ));
    for cut in ["", "/cut/1"] {
        for (path, error) in [
            (format!("/interim/bytes/{HEAD_BYTES}{cut}"), None),
            (format!("/interim/bytes/{}{cut}", HEAD_BYTES + 1), TOO_LONG),
            (format!("/interim/fields/{FIELDS}{cut}"), None),
            (format!("/interim/fields/{}{cut}", FIELDS + 1), TOO_MANY),
        ] {
            let mut client = Client::connect(proxy.public);
            client
                .say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
                .unwrap();
            let (mut status, mut headers) = client.head().unwrap();
            assert_eq!(status == 103, error.is_none(), "{path}");
            if status == 103 {
                (status, headers) = client.head().unwrap();
            }
            assert_eq!(status, if error.is_some() { 502 } else { 200 }, "{path}");
            let found = headers
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case("watershed-error"));
            assert_eq!(found.map(|(_, value)| &**value), error, "{path}");
        }
    }
}

#[test]
fn large_response_heads_pass_the_default_limits_over_both_protocols() {
    let origin = http1_origin();
    for upstream in [
        format!("http://{}", origin.address),
        format!("h2c://{}", http2_origin()),
    ] {
        let proxy = Proxy::start(&format!("upstreams: {{ current: \"{upstream}\" }}"));
        let status = |path: &str| {
            let answer = Client::connect(proxy.public).get(path, "");
            (
                answer.status,
                answer.header("watershed-error").map(str::to_owned),
            )
        };
        for _ in 0..5 {
            assert_eq!(status("/bytes/262144"), (200, None));
            assert_eq!(status("/bytes/262145"), (502, TOO_LONG.map(str::to_owned)));
            assert_eq!(status("/bytes/500000"), (502, TOO_LONG.map(str::to_owned)));
            assert_eq!(status("/fields/200"), (200, None));
            assert_eq!(status("/fields/201"), (502, TOO_MANY.map(str::to_owned)));
        }
        // Beyond the largest allowed limit, the response is malformed, and the request is not retried.
        let huge = if upstream.starts_with("h2c") {
            "upstream_unsound"
        } else {
            "upstream_head_too_long"
        };
        assert_eq!(status("/bytes/17500000"), (502, Some(huge.to_owned())));
    }
}

#[test]
fn too_large_response_heads_do_not_eject_the_endpoint() {
    let (a, b) = (http1_origin(), http1_origin());
    let proxy = Proxy::start(&format!(
        "workers: 1\nupstreams: {{ current: [\"http://{}\", \"http://{}\"] }}\n{LIMITS}",
        a.address, b.address
    ));
    for _ in 0..10 {
        check(&proxy, "/bytes/9000", TOO_LONG);
        check(&proxy, "/fields/21", TOO_MANY);
    }
    let metrics = proxy.ask("/admin/metrics").text();
    for origin in [&a, &b] {
        let of = |name: &str, more: &str| {
            let address = origin.address;
            format!("watershed_{name}{{upstream=\"current\",endpoint=\"{address}\"{more}}} ")
        };
        let never = of("endpoint_ejections_total", ",cause=\"failures\"") + "0\n";
        assert!(metrics.contains(&never), "{metrics}");
        assert!(
            metrics.contains(&(of("endpoint_healthy", "") + "1")),
            "{metrics}"
        );
        // No request was retried.
        assert!(metrics.contains("watershed_upstream_retries_total{upstream=\"current\"} 0\n"));
    }
}
