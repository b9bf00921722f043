//! Upstreams with a host, path and headers of their own: what they get, and what becomes of their
//! responses.

use super::http2::{connect, run, text, whole};
use super::sent;
use super::tls::{Authority, serve};
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::raw::Raw;
use crate::support::{refusing_address, until};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

/// A server with virtual hosts: it answers with the name and path that it is asked for, and 421 to
/// any other name.
fn virtual_hosts(names: &'static [&'static str]) -> Raw {
    Raw::start(move |mut peer| {
        while let Some(request) = peer.request() {
            let target = request.split(' ').nth(1).unwrap();
            let lower = request.to_lowercase();
            let host = lower.split("\r\nhost: ").nth(1);
            let host = host.and_then(|it| it.split("\r\n").next()).unwrap_or("");
            let status = match names.contains(&host) {
                true => "200 OK",
                false => "421 Misdirected Request",
            };
            let body = format!("{host} {target}");
            let location = format!("Location: https://{host}{target}?next");
            let cookie = format!("Set-Cookie: s=1; Domain={host}; Path={target}");
            let length = body.len();
            peer.say(
                format!("HTTP/1.1 {status}\r\n{location}\r\n{cookie}\r\nContent-Length: {length}\r\n\r\n{body}")
                    .as_bytes(),
            );
        }
    })
}

fn with(upstream: &str, more: &str) -> Proxy {
    Proxy::start(&format!("upstreams: {{ current: {upstream} }}\n{more}"))
}

#[test]
fn virtual_host_gets_its_name_and_its_urls_become_public() {
    let origin = virtual_hosts(&["v2.preview.test"]);
    let proxy = with(
        &format!(
            "{{ endpoints: \"http://{}\", host: v2.preview.test, path: /v2 }}",
            origin.address
        ),
        "",
    );
    let answer = proxy
        .client()
        .get("/a?b=c", "X-Forwarded-Host: evil.test\r\n");
    assert_eq!(
        (answer.status, answer.text()),
        (200, "v2.preview.test /v2/a?b=c".to_owned())
    );
    assert_eq!(
        answer.header("location"),
        Some("http://site.test/a?b=c?next")
    );
    let cookie = answer.header("set-cookie");
    assert_eq!(cookie, Some("s=1; Domain=site.test; Path=/a?b=c"));
    let seen = origin.seen().to_lowercase();
    assert!(
        seen.contains("\r\nx-forwarded-host: site.test\r\n"),
        "{seen}"
    );
    assert_eq!(seen.matches("\r\nhost: ").count(), 1, "{seen}");

    // An old client, which names no host.
    let mut old = proxy.client();
    old.say("GET /a HTTP/1.0\r\n\r\n").unwrap();
    let answer = old.answer(true).unwrap();
    assert_eq!(
        (answer.status, answer.text()),
        (200, "v2.preview.test /v2/a".to_owned())
    );
    assert_eq!(answer.header("location"), Some("/a?next"));
    assert_eq!(answer.header("set-cookie"), Some("s=1; Path=/a"));

    // A target with a host of its own, and a path that would leave the prefix.
    let mut odd = proxy.client();
    odd.say("GET http://other.test/x/../../../etc HTTP/1.1\r\nHost: other.test\r\n\r\n")
        .unwrap();
    let answer = odd.answer(true).unwrap();
    assert_eq!(
        (answer.status, answer.text()),
        (200, "v2.preview.test /v2/etc".to_owned())
    );
    assert_eq!(
        answer.header("location"),
        Some("http://other.test/etc?next")
    );

    run(async {
        let mut sender = connect(proxy.public).await;
        let request = Request::get("http://shop.test:81/a")
            .body(whole(""))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.headers()["location"], "http://shop.test:81/a?next");
        assert_eq!(
            response.headers()["set-cookie"],
            "s=1; Domain=shop.test; Path=/a"
        );
        assert_eq!(text(response).await, "v2.preview.test /v2/a");
    });
}

#[test]
fn body_follows_a_changed_head() {
    let origin = Origin::start("current");
    let proxy = with(
        &format!(
            "{{ endpoints: \"http://{}/v2\", host: v2.preview.test, headers: {{ request: {{ set: {{ X-A: b }} }} }} }}",
            origin.address
        ),
        "",
    );
    let mut client = proxy.client();
    for bytes in [0, 5, 300_000] {
        let said = client.post("/a", "X-A: a\r\n", &"x".repeat(bytes)).json();
        assert_eq!(said["body_bytes"], bytes);
        assert_eq!(said["target"], "/v2/a");
        assert_eq!(sent(&said, "x-a"), ["b"]);
    }
    client
        .say("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        .unwrap();
    assert_eq!(client.answer(true).unwrap().json()["body_bytes"], 5);
}

#[test]
fn host_is_that_of_each_endpoint() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let (a, b) = (a.address, b.address);
    let proxy = with(
        &format!(
            "{{ endpoints: [ \"http://{a}\", \"http://{b}\" ], host: upstream, balance: round_robin }}"
        ),
        "workers: 1",
    );
    let mut client = proxy.client();
    for _ in 0..4 {
        let said = client.get("/", "").json();
        let own = if said["version"] == "a" { a } else { b };
        assert_eq!(sent(&said, "host"), [own.to_string()]);
        assert_eq!(sent(&said, "x-forwarded-host"), ["site.test"]);
    }
}

#[test]
fn trusted_peer_names_the_public_host() {
    let origin = virtual_hosts(&["v2.test"]);
    let proxy = with(
        &format!(
            "{{ endpoints: \"http://{}\", host: v2.test }}",
            origin.address
        ),
        "trust: 127.0.0.0/8",
    );
    let headers = "X-Forwarded-Host: shop.test, other.test\r\nX-Forwarded-Proto: https\r\n";
    let answer = proxy.client().get("/a", headers);
    assert_eq!(answer.header("location"), Some("https://shop.test/a?next"));
    // What is no host is none.
    let answer = proxy.client().get("/a", "X-Forwarded-Host: a/b\r\n");
    assert_eq!(answer.header("location"), Some("http://site.test/a?next"));
}

#[test]
fn name_of_the_upstream_is_that_of_tls_and_http2_and_health_checks() {
    let authority = Authority::new();
    authority.certify("v2", &["v2.preview.test"]);
    let acceptor = authority.server("v2", &["h2"], false);
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let all = Arc::clone(&seen);
    let address = serve(move |stream| {
        let (acceptor, all) = (acceptor.clone(), Arc::clone(&all));
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let name = stream
                .get_ref()
                .1
                .server_name()
                .unwrap_or_default()
                .to_owned();
            let call = service_fn(move |request: Request<Incoming>| {
                let said = format!("{name} {}", request.uri());
                all.lock().unwrap().push(said.clone());
                async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(said)))) }
            });
            let service = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = service.serve_connection(TokioIo::new(stream), call).await;
        }
    });
    let proxy = with(
        &format!(
            "{{ endpoints: \"https://{address}/v2\", host: v2.preview.test, tls: {{ ca: {} }}, health: {{ path: /up, interval: 100ms }} }}",
            authority.file("ca.pem")
        ),
        "",
    );
    let answer = proxy.client().get("/a?b", "");
    assert_eq!(
        answer.text(),
        "v2.preview.test https://v2.preview.test/v2/a?b"
    );
    until("a health check", || {
        let seen = seen.lock().unwrap().clone();
        let check = "v2.preview.test https://v2.preview.test/up";
        match seen.iter().any(|it| it == check) {
            true => Ok(()),
            false => Err(seen),
        }
    });
}

#[test]
fn headers_are_set_added_and_removed_by_upstream_and_group() {
    let origin = Origin::start("current");
    let proxy = Proxy::start(&format!(
        "user: {{ cookie: uid }}
upstreams:
  current:
    endpoints: \"http://{}\"
    headers:
      request: {{ set: {{ X-Set: upstream, X-Both: upstream }}, add: {{ X-Add: two }}, remove: [ X-Gone, X-Group ] }}
      response: {{ set: {{ Server: hidden, Cache-Control: no-store }}, add: {{ X-From: upstream }}, remove: Content-Type }}
experiments:
  e:
    groups:
      control: {{ weight: 50, headers: {{ request: {{ set: {{ X-Both: control }} }} }} }}
      other: {{ weight: 50, add_prefix: /new, headers: {{ request: {{ set: {{ X-Both: other, X-Group: a }} }}, response: {{ set: {{ X-From: group }} }} }} }}
overrides: {{ secret: 0123456789abcdef }}
",
        origin.address
    ));
    let mut versions = Vec::new();
    let mut client = proxy.client();
    for number in 0..20 {
        let headers = format!(
            "X-Set: a\r\nX-Set: b\r\nX-Add: one\r\nX-Gone: 1\r\nX_Set: c\r\nX-Both: client\r\nCookie: uid=u{number}\r\n"
        );
        let answer = client.get("/a", &headers);
        let said = answer.json();
        assert_eq!(sent(&said, "x-set"), ["upstream"]);
        assert_eq!(sent(&said, "x_set"), [""; 0], "one spelling for CGI");
        assert_eq!(sent(&said, "x-add"), ["one", "two"]);
        assert_eq!(sent(&said, "x-gone"), [""; 0]);
        assert_eq!(answer.all("server"), ["hidden"]);
        assert_eq!(answer.header("content-type"), None);
        let group = sent(&said, "x-both");
        let (target, added, from) = match group[..] {
            ["control"] => ("/a", vec![], "upstream"),
            ["other"] => ("/new/a", vec!["a"], "group"),
            _ => panic!("{said}"),
        };
        assert_eq!(said["target"], target);
        assert_eq!(sent(&said, "x-group"), added);
        assert_eq!(answer.all("x-from"), [from]);
        let caches = answer.header("cache-control").unwrap();
        assert!(caches.contains("no-store"), "{caches}");
        assert!(
            answer.header("vary").is_some(),
            "groups get different pages"
        );
        versions.push(group[0].to_owned());
    }
    assert!(versions.contains(&"control".to_owned()) && versions.contains(&"other".to_owned()));
    // A robot gets what control gets.
    let said = proxy
        .client()
        .get("/a", "User-Agent: Googlebot/2.1\r\n")
        .json();
    assert_eq!(sent(&said, "x-both"), ["control"]);
}

#[test]
fn fallback_to_control_has_the_name_and_path_of_control() {
    let origin = virtual_hosts(&["v1.test"]);
    let closed = refusing_address();
    let proxy = Proxy::start(&format!(
        "upstreams:
  v1: {{ endpoints: \"http://{}\", host: v1.test, path: /one, headers: {{ request: {{ set: {{ X-V: one }} }} }} }}
  v2: {{ endpoints: \"http://{closed}/two\", host: upstream, headers: {{ request: {{ set: {{ X-V: two }} }}, response: {{ set: {{ X-V: two }} }} }} }}
experiments:
  e:
    groups:
      control: {{ weight: 1, upstream: v1, headers: {{ response: {{ set: {{ X-Group: control }} }} }} }}
      other: {{ weight: 1000, upstream: v2, headers: {{ response: {{ set: {{ X-Group: other }} }} }} }}
",
        origin.address
    ));
    let mut client = proxy.client();
    let answer = until("a fallback", || {
        let answer = client.post("/a", "", "body");
        match answer.header("watershed-fallback").is_some() {
            true => Ok(answer),
            false => Err(answer),
        }
    });
    assert_eq!(
        (answer.status, answer.text()),
        (200, "v1.test /one/a".to_owned())
    );
    assert_eq!(answer.header("location"), Some("http://site.test/a?next"));
    assert_eq!(answer.header("x-v"), None);
    assert_eq!(answer.header("x-group"), Some("control"));
    let seen = origin.seen();
    assert!(
        seen.contains("x-v: one\r\n") && !seen.contains("x-v: two"),
        "{seen}"
    );
    assert!(seen.contains("body"), "{seen}");
}

#[test]
fn reload_changes_host_path_and_headers() {
    let origin = Origin::start("current");
    let plain = format!("upstreams: {{ current: \"http://{}\" }}\n", origin.address);
    let proxy = Proxy::start(&plain);
    let mut client = proxy.client();
    let mut wait = |what: &str, is_there: &dyn Fn(&Value) -> bool| {
        until(what, || {
            let said = client.get("/a", "").json();
            if is_there(&said) { Ok(()) } else { Err(said) }
        });
    };
    wait("the client's host", &|said| {
        sent(said, "host") == ["site.test"]
    });
    proxy.write(&format!(
        "upstreams: {{ current: {{ endpoints: \"http://{}\", host: v2.test, path: /v2, headers: {{ request: {{ set: {{ X-A: b }} }} }} }} }}\n",
        origin.address
    ));
    wait("another host", &|said| {
        let is_new = sent(said, "host") == ["v2.test"];
        is_new && said["target"] == "/v2/a" && sent(said, "x-a") == ["b"]
    });
    proxy.write(&plain);
    wait("the client's host again", &|said| {
        sent(said, "host") == ["site.test"] && said["target"] == "/a"
    });
    assert_eq!(Client::connect(proxy.public).get("/", "").status, 200);
}
