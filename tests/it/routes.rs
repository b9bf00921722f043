//! `routes:` and `https:`: plain routing, redirects, responses of the file, and the rules for TLS.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::until;
use crate::wire::http2::{connect, run, text, whole};
use crate::wire::sent;
use http::Request;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use watershed::config;

fn file(origins: &[&Origin], more: &str) -> String {
    let upstreams = origins.iter().zip(["a", "b", "c"]);
    let upstreams =
        upstreams.map(|(origin, name)| format!("{name}: \"http://{}\"", origin.address));
    let upstreams: Vec<String> = upstreams.collect();
    format!("upstreams: {{ {} }}\n{more}", upstreams.join(", "))
}

/// The status and `Location`.
#[track_caller]
fn led(client: &mut Client, path: &str, status: u16, location: &str) {
    let answer = client.get(path, "");
    let found = answer.header("location").unwrap_or("");
    assert_eq!((answer.status, found), (status, location), "{path}");
}

/// A request with a host of its own.
fn of_host(proxy: &Proxy, host: &str, path: &str) -> Value {
    let mut client = proxy.client();
    client
        .say(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .unwrap();
    client.answer(true).unwrap().json()
}

#[test]
fn first_route_that_matches_decides() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let routes = file(
        &[&a, &b],
        "routes:
  - { match: { host: api.test, path: /v1/** }, upstream: b, strip_prefix: /v1, add_prefix: /api }
  - { match: { host: api.test }, upstream: b, headers: { request: { set: { X-Route: api } }, response: { set: { X-Route: api } } } }
  - { match: /find/*, rewrite: /search/by/* }
  - { match: { path: /beta/**, headers: { X-Staff: true } }, upstream: b }
",
    );
    let proxy = Proxy::start(&routes);
    let said = of_host(&proxy, "api.test", "/v1/x?y=z");
    assert_eq!(
        (&said["version"], &said["target"]),
        (&"b".into(), &"/api/x?y=z".into())
    );
    assert_eq!(sent(&said, "x-route"), [""; 0]);
    let said = of_host(&proxy, "api.test:8080", "/v2/x");
    assert_eq!(
        (&said["version"], &said["target"]),
        (&"b".into(), &"/v2/x".into())
    );
    assert_eq!(sent(&said, "x-route"), ["api"]);
    let said = of_host(&proxy, "site.test", "/find/cats?page=2");
    assert_eq!(
        (&said["version"], &said["target"]),
        (&"a".into(), &"/search/by/cats?page=2".into())
    );
    let said = of_host(&proxy, "site.test", "/v1/x");
    assert_eq!(
        (&said["version"], &said["target"]),
        (&"a".into(), &"/v1/x".into())
    );

    // A cache must know that a header decides.
    let mut client = proxy.client();
    let answer = client.get("/beta/x", "X-Staff: 1\r\n");
    assert_eq!(
        (&answer.json()["version"], answer.header("vary")),
        (&"b".into(), Some("x-staff"))
    );
    let answer = client.get("/beta/x", "");
    assert_eq!(
        (&answer.json()["version"], answer.header("vary")),
        (&"a".into(), Some("x-staff"))
    );
    assert_eq!(client.get("/other", "").header("vary"), None);
}

#[test]
fn redirects_keep_the_query_and_what_the_path_matches() {
    let a = Origin::start("a");
    let routes = file(
        &[&a],
        "routes:
  - { match: /old/**, redirect: /new/** }
  - { match: /u/*/p/*, redirect: { to: \"https://people.test/*?p=*#top\", status: 301 } }
  - { match: /moved, redirect: { to: \"/there?from=here\", status: 307 } }
  - { match: /all/**, redirect: /** }
  - { match: { host: old.test }, redirect: { to: \"https://new.test/**\", status: 308 } }
",
    );
    let proxy = Proxy::start(&routes);
    let mut client = proxy.client();
    led(&mut client, "/old/a/b?c=d", 302, "/new/a/b?c=d");
    led(&mut client, "/old", 302, "/new");
    led(&mut client, "/old/?x", 302, "/new/?x");
    led(&mut client, "/older", 200, "");
    led(
        &mut client,
        "/u/1/p/2?x=y",
        301,
        "https://people.test/1?p=2&x=y#top",
    );
    led(&mut client, "/moved?a", 307, "/there?from=here&a");
    // A browser must not take a path for another host.
    led(&mut client, "/all//evil.test/x", 302, "/evil.test/x");
    led(&mut client, "/all/./\\evil.test", 302, "/%5Cevil.test");
    led(&mut client, "/all", 302, "/");
    client
        .say("GET /x?y HTTP/1.1\r\nHost: old.test\r\n\r\n")
        .unwrap();
    let answer = client.answer(true).unwrap();
    assert_eq!(
        (answer.status, answer.header("location")),
        (308, Some("https://new.test/x?y"))
    );

    // HEAD, a body that nobody reads, and HTTP/2.
    client
        .say("HEAD /old/a HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    assert_eq!(
        client.answer(false).unwrap().header("location"),
        Some("/new/a")
    );
    let answer = client.post("/old/a", "", "body");
    assert_eq!(
        (answer.status, answer.header("location")),
        (302, Some("/new/a"))
    );
    assert_eq!(client.get("/x", "").status, 200);
    run(async {
        let mut sender = connect(proxy.public).await;
        for (method, body) in [("GET", ""), ("POST", "body"), ("HEAD", "")] {
            let request = Request::builder()
                .method(method)
                .uri("http://site.test/old/a?b");
            let response = sender
                .send_request(request.body(whole(body)).unwrap())
                .await
                .unwrap();
            assert_eq!(
                (response.status().as_u16(), &response.headers()["location"]),
                (302, &"/new/a?b".parse().unwrap())
            );
        }
    });
}

#[test]
fn file_answers_with_its_own_pages_which_a_reload_changes() {
    let a = Origin::start("a");
    let plain = file(&[&a], "");
    let proxy = Proxy::start(&plain);
    let page = proxy.folder.path().join("down.html");
    std::fs::write(&page, "<h1>Back soon</h1>").unwrap();
    let closed = file(
        &[&a],
        "routes:
  - { match: { not: { headers: { X-Staff: true } } }, respond: { status: 503, headers: { Retry-After: 120 }, file: down.html }, headers: { response: { set: { X-By: route } } } }
  - { match: /gone, respond: 410 }
  - { match: /robots.txt, respond: { body: \"User-agent: *\" } }
",
    );
    proxy.write(&closed);
    let mut client = proxy.client();
    let answer = until("the page", || {
        let answer = client.get("/x", "");
        if answer.status == 503 {
            Ok(answer)
        } else {
            Err(answer)
        }
    });
    assert_eq!(answer.text(), "<h1>Back soon</h1>");
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(answer.header("retry-after"), Some("120"));
    assert_eq!(answer.header("x-by"), Some("route"));
    assert_eq!(answer.header("watershed-error"), None);
    run(async {
        let mut sender = connect(proxy.public).await;
        let request = Request::get("http://site.test/x").body(whole("")).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(text(response).await, "<h1>Back soon</h1>");
    });
    let staff = "X-Staff: 1\r\n";
    assert_eq!(client.get("/x", staff).json()["version"], "a");
    let gone = client.get("/gone", staff);
    assert_eq!(
        (gone.status, gone.text(), gone.header("content-type")),
        (410, String::new(), None)
    );
    let robots = client.get("/robots.txt", staff);
    assert_eq!(
        (robots.status, robots.text()),
        (200, "User-agent: *".to_owned())
    );
    assert_eq!(
        robots.header("content-type"),
        Some("text/plain; charset=utf-8")
    );

    std::fs::write(&page, "<h1>Sorry</h1>").unwrap();
    until("the changed page", || {
        let text = client.get("/x", "").text();
        if text == "<h1>Sorry</h1>" {
            Ok(())
        } else {
            Err(text)
        }
    });
    proxy.write(&plain);
    until("the site", || {
        let answer = client.get("/x", "");
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer)
        }
    });
}

#[test]
fn experiments_go_before_routes_and_groups_may_redirect() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let routes = file(
        &[&a, &b],
        "default: a
user: { cookie: uid }
experiments:
  shop: { match: /shop/**, control: a, experiment: b, percent: 50 }
  landing:
    match: /landing/**
    groups:
      control: { weight: 50 }
      other: { weight: 50, redirect: /landing-2/** }
  layout:
    match: /layout/**
    groups:
      control: { weight: 50 }
      other: { weight: 50, rewrite: /layouts/new, headers: { request: { set: { X-Layout: new } } } }
routes:
  - { match: /shop/**, respond: 404 }
  - { match: [ /landing/**, /layout/** ], upstream: b }
metrics: { visit: GET /** -> 3xx }
",
    );
    let proxy = Proxy::start(&routes);
    let (mut redirected, mut served, mut layouts) = (0, 0, 0);
    let mut client = proxy.client();
    for user in 0..40 {
        let cookie = format!("Cookie: uid=user-{user}\r\n");
        assert_eq!(client.get("/shop/x", &cookie).status, 200);
        let answer = client.get("/landing/x?y", &cookie);
        assert!(answer.header("vary").is_some(), "{answer:?}");
        match answer.status {
            302 => {
                assert_eq!(answer.header("location"), Some("/landing-2/x?y"));
                redirected += 1;
            }
            _ => {
                assert_eq!(
                    answer.json()["version"],
                    "b",
                    "the route chooses the upstream"
                );
                served += 1;
            }
        }
        let said = client.get("/layout/x?y", &cookie).json();
        assert_eq!(said["version"], "b");
        if said["target"] == "/layouts/new?y" {
            assert_eq!(sent(&said, "x-layout"), ["new"]);
            layouts += 1;
        }
    }
    assert!(redirected > 5 && served > 5, "{redirected} {served}");
    assert!((5..36).contains(&layouts), "{layouts}");
    // Redirects are exposures, and count by rules like other responses.
    let results = proxy.results();
    let landing = results["experiments"].as_array().unwrap();
    let landing = landing.iter().find(|it| it["name"] == "landing").unwrap();
    assert_eq!(landing["groups"][1]["users"], redirected);
    assert_eq!(landing["groups"][0]["users"], served);
    assert_eq!(landing["groups"][1]["responses"]["3xx"], redirected);
    assert_eq!(landing["metrics"][0]["groups"][1]["converted"], redirected);
}

#[test]
fn site_is_reached_over_tls_only() {
    let a = Origin::start("a");
    let proxy = Proxy::start(&file(
        &[&a],
        "trust: 127.0.0.0/8\nhttps: { redirect: true, hsts: { max_age: 365d, subdomains: true } }\nroutes: [ { match: /gone, respond: 410 } ]\n",
    ));
    let mut client = proxy.client();
    led(&mut client, "/a//b?c", 308, "https://site.test/a//b?c");
    assert_eq!(
        client.get("/", "").header("strict-transport-security"),
        None
    );
    client
        .say("POST /x HTTP/1.1\r\nHost: shop.test:8080\r\nContent-Length: 2\r\n\r\nab")
        .unwrap();
    let answer = client.answer(true).unwrap();
    assert_eq!(answer.header("location"), Some("https://shop.test/x"));
    for path in ["/", "/gone", "/?status=500"] {
        let answer = client.get(path, "X-Forwarded-Proto: https\r\n");
        assert_ne!(answer.status, 308);
        let rule = answer.all("strict-transport-security");
        assert_eq!(rule, ["max-age=31536000; includeSubDomains"], "{path}");
    }
    let mut old = proxy.client();
    old.say("GET /a HTTP/1.0\r\n\r\n").unwrap();
    let answer = old.answer(true).unwrap();
    assert_eq!(
        (answer.status, answer.header("watershed-error")),
        (400, Some("host"))
    );
    run(async {
        let mut sender = connect(proxy.public).await;
        let request = Request::get("http://shop.test:81/a")
            .body(whole(""))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.headers()["location"], "https://shop.test/a");
    });

    let proxy = Proxy::start(&file(
        &[&a],
        "trust: 127.0.0.0/8\nhttps: { redirect: 301, port: 8443 }\n",
    ));
    led(&mut proxy.client(), "/a", 301, "https://site.test:8443/a");
}

#[test]
fn unsound_routes_are_reported() {
    #[track_caller]
    fn check(more: &str, place: &str, found: &str) {
        let text = format!("upstreams: {{ a: http://127.0.0.1:1 }}\n{more}\n");
        let plan = config::parse(&text, Path::new("routes.yaml"), &|_| None);
        let said = plan.map(drop).expect_err(more).to_string();
        let place = format!(": {place}: ");
        assert!(
            said.contains(&place) && said.contains(found),
            "{more}: {said}"
        );
        assert_eq!(said.matches("error: ").count(), 1, "{more}: {said}");
    }
    let route = |route: &str, place: &str, found: &str| {
        check(
            &format!("routes: [ {{ {route} }} ]"),
            &format!("routes.0{place}"),
            found,
        );
    };
    route("match: /a", "", "changes nothing");
    route(
        "match: /a, upstream: c",
        ".upstream",
        "there is no upstream \"c\"",
    );
    route(
        "match: /a, upstream: a, redirect: /b",
        "",
        "upstream and redirect",
    );
    route(
        "match: /a, redirekt: /b, respond: 404",
        ".redirekt",
        "did you mean `redirect`",
    );
    route("match: /a, redirect: b", ".redirect", "found \"b\"");
    route(
        "match: /a, redirect: //b.test/",
        ".redirect",
        "found \"//b.test/\"",
    );
    route("match: /a, redirect: \"/\\\\b.test\"", ".redirect", "found");
    route(
        "match: /a, redirect: \"javascript:alert(1)\"",
        ".redirect",
        "found",
    );
    route(
        "match: /a/**, redirect: \"https://*.test/\"",
        ".redirect",
        "found",
    );
    route("match: /a, redirect: /b/**", ".redirect", "has a * or **");
    route(
        "match: { not: /a/** }, redirect: /b/**",
        ".redirect",
        "stands for nothing",
    );
    route(
        "match: /a, redirect: { to: /b, status: 200 }",
        ".redirect.status",
        "found \"200\"",
    );
    route(
        "match: /a, redirect: { status: 301 }",
        ".redirect",
        "`to` is missing",
    );
    route(
        "match: /a, redirect: /b, add_prefix: /c",
        ".add_prefix",
        "beside `redirect`",
    );
    route(
        "match: /a, respond: 404, headers: { request: { remove: X-A } }",
        ".headers.request",
        "no upstream gets the request",
    );
    route("match: /a, respond: 100", ".respond", "found \"100\"");
    route(
        "match: /a, respond: { status: 304 }",
        ".respond.status",
        "found \"304\"",
    );
    route(
        "match: /a, respond: { status: 204, body: x }",
        ".respond",
        "a body with the status 204",
    );
    route(
        "match: /a, respond: { body: x, file: y }",
        ".respond.body",
        "`body` beside `file`",
    );
    route(
        "match: /a, respond: { file: /nowhere/x.html }",
        ".respond.file",
        "cannot be read",
    );
    route(
        "match: /a, respond: { headers: { Content-Length: 1 } }",
        ".respond.headers.Content-Length",
        "cannot be changed",
    );
    route(
        "match: /a, strip_prefix: a, upstream: a",
        ".strip_prefix",
        "found \"a\"",
    );
    route(
        "match: /a, rewrite: /b?c, upstream: a",
        ".rewrite",
        "found \"/b?c\"",
    );
    route(
        "match: /a, rewrite: /b, strip_prefix: /a",
        ".rewrite",
        "beside `strip_prefix`",
    );
    check("https: { redirect: true }", "https.redirect", "without end");
    check(
        "trust: 10.0.0.0/8\nhttps: { redirect: 303 }",
        "https.redirect",
        "found \"303\"",
    );
    check(
        "https: { hsts: { max_age: 1d, preload: true } }",
        "https.hsts",
        "`preload` without `subdomains`",
    );
    check(
        "https: { hsts: { subdomains: true } }",
        "https.hsts",
        "`max_age` is missing",
    );
    for header in [
        "Host",
        "Transfer-Encoding",
        "Connection",
        "X-Forwarded-For",
        "Watershed-User",
    ] {
        let set = format!("upstream: a, headers: {{ request: {{ set: {{ {header}: x }} }} }}");
        route(
            &set,
            &format!(".headers.request.set.{header}"),
            "cannot be changed",
        );
    }
    route(
        "upstream: a, headers: { response: { add: { \"X A\": b } } }",
        ".headers.response.add.X A",
        "not a header name",
    );
    route(
        "upstream: a, headers: { response: { add: { X-A: \"b\\nc\" } } }",
        ".headers.response.add.X-A",
        "control characters",
    );
}

#[test]
fn routes_that_nobody_reaches_are_warned_about() {
    #[track_caller]
    fn check(more: &str, expected: &[&str]) {
        let text =
            format!("upstreams: {{ a: http://127.0.0.1:1, b: http://127.0.0.1:2 }}\n{more}\n");
        let plan = config::parse(&text, Path::new("routes.yaml"), &|_| None).unwrap();
        let found: Vec<String> = plan.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    }
    check(
        "routes: [ { match: /a/**, upstream: a }, { match: /a/b, upstream: b } ]",
        &["routes.0` takes all of them"],
    );
    check(
        "routes: [ { upstream: a }, { match: /a/b, upstream: b } ]",
        &["routes.0` takes all of them"],
    );
    check(
        "routes: [ { match: /a/b, upstream: a }, { match: /a/**, upstream: b } ]",
        &[],
    );
    let shop = "experiments: { shop: { match: /shop/**, control: a, experiment: b, percent: 50 } }";
    check(
        &format!("{shop}\nroutes: [ {{ match: /shop/x, respond: 404 }} ]"),
        &["`shop` chooses the upstream"],
    );
    check(
        &format!("{shop}\nroutes: [ {{ match: /x, respond: 404 }} ]"),
        &[],
    );
    check(
        "routes: [ { match: /a/**, redirect: /a/b } ]",
        &["is itself redirected"],
    );
    check("routes: [ { match: /a/**, redirect: /b } ]", &[]);
}

#[test]
fn commands_know_routes() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, routes: &str| {
        let path = folder.path().join(name);
        let text =
            format!("upstreams: {{ a: http://127.0.0.1:1, b: http://127.0.0.1:2 }}\n{routes}\n");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let old = write(
        "old.yaml",
        "routes: [ { match: /api/**, upstream: b, strip_prefix: /api } ]",
    );
    let new = write(
        "new.yaml",
        "routes: [ { match: /old/**, redirect: /new/** }, { match: { path: /api/**, host: x.test }, upstream: b } ]",
    );
    let said = |arguments: &[&str]| {
        let ran = Command::new(BINARY).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(
            ran.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        text
    };
    let text = said(&["check", "-c", &new]);
    assert!(
        text.contains("routes.0: /old/** is redirected to /new/** (302)\n"),
        "{text}"
    );
    assert!(
        text.contains("routes.1: /api/** and host x.test to b\n"),
        "{text}"
    );
    let text = said(&["explain", "-c", &old, "--request", "GET /api/x"]);
    assert!(
        text.contains("routes.0: /api/** to b without /api\nupstream: b\n"),
        "{text}"
    );
    let text = said(&[
        "explain",
        "-c",
        &new,
        "--request",
        "GET /old/x",
        "-H",
        "Cookie: uid=u",
    ]);
    assert!(
        text.ends_with("routes.0: /old/** is redirected to /new/** (302)\n"),
        "{text}"
    );
    let text = said(&["explain", "-c", &new, "--request", "GET /x"]);
    assert!(
        text.ends_with("upstream: a\n") && !text.contains("routes."),
        "{text}"
    );
    let text = said(&["plan", &old, &new]);
    assert!(
        text.contains("routes: gone: /api/** to b without /api\n"),
        "{text}"
    );
    assert!(
        text.contains("routes: new: /old/** is redirected to /new/** (302)\n"),
        "{text}"
    );
}
