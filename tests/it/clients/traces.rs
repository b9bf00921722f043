//! Spans as an OpenTelemetry collector receives them.

use super::{Site, say};
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{How, Proxy};
use crate::support::raw::{Raw, reset};
use crate::support::{HANG, until};
use crate::wire::sent;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Returns a `traceparent` with these flags.
fn traced(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{PARENT}-{flags}\r\n")
}

fn collector(how: &str) -> Site {
    Site::start(&["collector.py", how])
}

/// Nearly all users are in the group `other`, which `two` serves.
fn routes(one: &str, two: &str, more: &str) -> String {
    format!(
        "upstreams: {{ one: {one}, two: {two} }}\nuser: {{ header: X-User }}\n\
         experiments: {{ site: {{ groups: {{ control: {{ weight: 1, upstream: one }}, other: {{ weight: 99999, upstream: two }} }} }} }}\n{more}"
    )
}

fn exporting(origin: SocketAddr, to: &Site, more: &str) -> Proxy {
    let trace = format!("trace: {{ otlp: \"http://{}\" }}\n{more}", to.address);
    let origin = format!("\"http://{origin}\"");
    Proxy::start(&routes(&origin, &origin, &trace))
}

/// Returns all spans that a collector has received.
fn kept(site: &Site) -> Vec<Value> {
    let posts = site.seen();
    let posts = posts
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let posts = posts.filter(|post| post["kept"] == true);
    posts
        .flat_map(|post| post["spans"].as_array().unwrap().clone())
        .collect()
}

/// The same, once there are this many.
#[track_caller]
fn spans(site: &Site, count: usize) -> Vec<Value> {
    until("spans", || {
        let spans = kept(site);
        (spans.len() == count).then_some(spans.clone()).ok_or(spans)
    })
}

fn of<'a>(spans: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let mut found: Vec<_> = spans.iter().filter(|span| span["kind"] == kind).collect();
    found.sort_by_key(|span| span["began"].as_u64());
    found
}

/// Returns the only span of this kind.
#[track_caller]
fn only<'a>(spans: &'a [Value], kind: &str) -> &'a Value {
    match of(spans, kind)[..] {
        [only] => only,
        _ => panic!("not one {kind}: {spans:#?}"),
    }
}

#[track_caller]
fn has(span: &Value, expected: Value) {
    for (name, value) in expected.as_object().unwrap() {
        let found = &span["attributes"][name];
        assert_eq!(found, value, "{name} of {span:#}");
    }
}

/// Returns the value of a metric.
fn number(proxy: &Proxy, name: &str) -> u64 {
    let text = proxy.ask("/admin/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no {name}: {text}"));
    line.trim().parse().unwrap()
}

const EXPORTED: &str = "watershed_spans_exported_total{}";
const OVERFLOWED: &str = "watershed_spans_dropped_total{reason=\"queue_full\"}";
const UNDELIVERED: &str = "watershed_spans_dropped_total{reason=\"undelivered\"}";

#[test]
fn request_and_attempt_are_parent_and_child_spans() {
    let (origin, collector) = (Origin::start("two"), collector("take"));
    let proxy = exporting(origin.address, &collector, "trust: 127.0.0.1");
    let answer = proxy.client().get(
        "/cart?secret=1",
        &format!(
            "{}tracestate: a=1\r\ntracestate: b=2\r\nX-User: somebody\r\nUser-Agent: an agent\r\n\
             X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n",
            traced("03")
        ),
    );
    let spans = spans(&collector, 2);
    let (server, client) = (only(&spans, "SERVER"), only(&spans, "CLIENT"));
    for span in [server, client] {
        assert_eq!(span["trace"], TRACE);
        assert_eq!(
            (&span["name"], &span["status"]),
            (&"GET".into(), &"UNSET".into())
        );
        assert_eq!(span["state"], "a=1,b=2");
        assert_eq!(span["flags"].as_u64().unwrap() & 0xff, 3);
        assert_eq!(span["scope"], "watershed");
        assert_eq!(span["resource"]["service.name"], "watershed");
        assert_eq!(
            span["resource"]["service.version"],
            env!("CARGO_PKG_VERSION")
        );
    }
    assert_eq!(server["parent"], PARENT);
    assert_eq!(client["parent"], server["span"]);
    let names = [&server["span"], &client["span"], &PARENT.into(), &"".into()];
    assert_eq!(names.iter().filter(|it| **it == &client["span"]).count(), 1);
    let said = answer.json();
    let parent = client["span"].as_str().unwrap();
    assert_eq!(
        sent(&said, "traceparent"),
        [format!("00-{TRACE}-{parent}-03")]
    );
    assert_eq!(sent(&said, "tracestate"), ["a=1", "b=2"]);
    has(
        server,
        json!({
            "http.request.method": "GET", "http.response.status_code": 200,
            "url.scheme": "https", "url.path": "/cart", "url.query": null,
            "server.address": "site.test", "server.port": null, "client.address": "192.0.2.7",
            "network.protocol.version": "1.1", "user_agent.original": "an agent", "error.type": null,
            "watershed.experiment": "site", "watershed.group": "other",
            "watershed.experiments": ["site=other"], "watershed.assigned_by": "hash",
            "watershed.upstream": "two", "watershed.fallback": null, "watershed.end": "complete",
        }),
    );
    has(
        client,
        json!({
            "http.request.method": "GET", "http.response.status_code": 200,
            "url.full": format!("http://{}/cart", origin.address),
            "server.address": "127.0.0.1", "server.port": origin.address.port(),
            "network.protocol.version": "1.1", "http.request.resend_count": null,
            "error.type": null, "watershed.upstream": "two",
        }),
    );
    let time = |span: &Value, what: &str| span[what].as_u64().unwrap();
    assert!(time(server, "began") <= time(client, "began"));
    assert!(time(client, "began") < time(client, "ended"));
    assert!(time(client, "ended") <= time(server, "ended"));
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    assert!((now - 20_000_000_000..now).contains(&time(server, "began")));
    let all = json!(spans).to_string();
    assert!(
        !all.contains("somebody") && !all.contains("secret"),
        "{all}"
    );
    let post: Value = serde_json::from_str(&collector.seen()[0]).unwrap();
    assert_eq!(post["path"], "/v1/traces");
    assert_eq!(post["headers"]["host"], collector.address.to_string());
    assert_eq!(number(&proxy, EXPORTED), 2);
}

#[test]
fn only_sampled_requests_are_exported() {
    let (origin, collector) = (Origin::start("two"), collector("take"));
    let parent = |more: &str, headers: &str| {
        let proxy = exporting(origin.address, &collector, more);
        let said = proxy.client().get("/", headers).json();
        // By its exit, all sampled spans were exported.
        proxy.signal("TERM");
        let mut proxy = proxy;
        assert!(proxy.wait().success());
        sent(&said, "traceparent")[0].to_owned()
    };
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    assert_eq!(parent("", &traced("00")), unsampled, "as it came");
    assert_eq!(kept(&collector), [Value::Null; 0]);
    // The first span of a new trace has no parent.
    let begun = parent("", "traceparent: junk\r\ntracestate: a=b\r\n");
    let spans = spans(&collector, 2);
    let (server, client) = (only(&spans, "SERVER"), only(&spans, "CLIENT"));
    assert_eq!(
        (&server["parent"], &server["state"]),
        (&"".into(), &"".into())
    );
    assert_eq!(client["parent"], server["span"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let expected = format!("00-{}-{}-01", text(&client["trace"]), text(&client["span"]));
    assert_eq!(begun, expected);
    assert_eq!(server["trace"], client["trace"]);
}

#[test]
fn configured_share_of_new_traces_is_sampled() {
    let (origin, collector) = (Origin::start("two"), collector("take"));
    let origin = format!("\"http://{}\"", origin.address);
    let trace = format!(
        "trace: {{ sample: 50%, otlp: \"http://{}\" }}",
        collector.address
    );
    let proxy = Proxy::start(&routes(&origin, &origin, &trace));
    let mut client = proxy.client();
    let mut sampled = Vec::new();
    for _ in 0..100 {
        let said = client.get("/", "").json();
        let parent = sent(&said, "traceparent")[0].to_owned();
        match &parent[53..] {
            "01" => sampled.push(parent),
            "00" => {}
            _ => panic!("{parent}"),
        }
    }
    assert!((20..80).contains(&sampled.len()), "{}", sampled.len());
    let spans = spans(&collector, 2 * sampled.len());
    for parent in sampled {
        let of_it = |span: &&Value| span["trace"] == parent[3..35];
        assert_eq!(spans.iter().filter(of_it).count(), 2);
    }
}

#[test]
fn each_attempt_is_a_span() {
    let (origin, collector) = (Origin::start("well"), collector("take"));
    // Accepts the request and closes.
    let broken = Raw::start(|mut peer| drop(peer.request()));
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = dead.local_addr().unwrap();
    drop(dead);
    let both = |first: SocketAddr| {
        let two = format!(
            "{{ endpoints: [ \"http://{first}\", \"http://{}\" ], balance: round_robin }}",
            origin.address
        );
        let trace = format!("trace: {{ otlp: \"http://{}\" }}", collector.address);
        Proxy::start(&routes("\"http://127.0.0.1:1\"", &two, &trace))
    };
    let proxy = both(broken.address);
    let mut count = 1;
    while broken.seen().is_empty() {
        assert_eq!(proxy.client().get("/", "X-User: a\r\n").status, 200);
        count += 2;
    }
    let first = spans(&collector, count);
    let failed = first.iter().find(|span| span["status"] == "ERROR").unwrap();
    has(
        failed,
        json!({ "error.type": "upstream_broken", "server.port": broken.address.port(), "http.response.status_code": null }),
    );
    let again = of(&first, "CLIENT");
    let again = again
        .iter()
        .find(|span| span["attributes"]["http.request.resend_count"] == 1);
    let again = again.unwrap();
    has(
        again,
        json!({ "server.port": origin.address.port(), "http.response.status_code": 200 }),
    );
    assert_eq!(again["parent"], failed["parent"]);
    assert!(failed["ended"].as_u64() <= again["began"].as_u64());
    // Each upstream received the ID of its own span.
    let parent = format!("-{}-01\r\n", failed["span"].as_str().unwrap());
    assert!(broken.seen().contains(&parent), "{}", broken.seen());

    // Control serves a group whose upstream is down.
    let proxy = Proxy::start(&routes(
        &format!("\"http://{}\"", origin.address),
        &format!("\"http://{nobody}\""),
        &format!("trace: {{ otlp: \"http://{}\" }}", collector.address),
    ));
    let said = proxy.client().get("/", "X-User: a\r\n").json();
    let all = spans(&collector, count + 3);
    let (server, clients) = (of(&all[count..], "SERVER")[0], of(&all[count..], "CLIENT"));
    has(
        server,
        json!({ "watershed.fallback": "site", "watershed.upstream": "one", "watershed.group": "other" }),
    );
    assert_eq!(server["status"], "UNSET");
    has(
        clients[0],
        json!({ "error.type": "upstream_refused", "server.port": nobody.port(), "watershed.upstream": "two" }),
    );
    has(
        clients[1],
        json!({ "http.response.status_code": 200, "watershed.upstream": "one" }),
    );
    let told = sent(&said, "traceparent")[0];
    assert_eq!(&told[36..52], clients[1]["span"].as_str().unwrap());
}

#[test]
fn failed_request_has_its_error_in_the_span() {
    let collector = collector("take");
    let origin = Raw::start(|mut peer| {
        while let Some(head) = peer.request() {
            let path = head.split(' ').nth(1).unwrap();
            match path {
                "/break" => {
                    peer.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
                    std::thread::sleep(Duration::from_millis(100));
                    return;
                }
                "/think" => {
                    peer.is_left(Duration::from_secs(10));
                    return;
                }
                "/junk" => peer.say("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
                _ => peer.say(format!(
                    "HTTP/1.1 {} So\r\nContent-Length: 0\r\n\r\n",
                    &path[1..]
                )),
            }
        }
    });
    let proxy = exporting(origin.address, &collector, "limits: { body: 3B }");
    let mut count = 0;
    let mut ended = |ask: &dyn Fn(&mut Client), more: usize| {
        ask(&mut proxy.client());
        count += more;
        spans(&collector, count).split_off(count - more)
    };
    type Case = (&'static str, Value, &'static str, Value, &'static str);
    let cases: [Case; 5] = [
        (
            // Not 404: what one version does not have is looked for in the other.
            "/410",
            json!({ "error.type": null, "http.response.status_code": 410 }),
            "UNSET",
            json!({ "error.type": "410" }),
            "ERROR",
        ),
        (
            "/503",
            json!({ "error.type": "503", "watershed.error": null }),
            "ERROR",
            json!({ "error.type": "503" }),
            "ERROR",
        ),
        (
            "/junk",
            json!({ "error.type": "upstream_unsound", "http.response.status_code": 502, "watershed.error": "upstream_unsound" }),
            "ERROR",
            json!({ "error.type": "upstream_unsound" }),
            "ERROR",
        ),
        (
            "/break",
            json!({ "error.type": "upstream_broke_off", "http.response.status_code": 200, "watershed.end": "upstream_broke_off" }),
            "ERROR",
            json!({ "error.type": "upstream_broke_off", "http.response.status_code": 200 }),
            "ERROR",
        ),
        (
            "/think",
            json!({ "error.type": null, "http.response.status_code": null, "watershed.end": "client_left" }),
            "UNSET",
            json!({ "error.type": "client_left" }),
            "ERROR",
        ),
    ];
    for (path, server, server_status, client, client_status) in cases {
        let spans = ended(
            &|asks| match path {
                "/think" => {
                    asks.say(format!("GET {path} HTTP/1.1\r\nHost: site.test\r\n\r\n"))
                        .unwrap();
                    std::thread::sleep(Duration::from_millis(200));
                    reset(asks.try_clone());
                }
                _ => drop(asks.try_get(path, "")),
            },
            2,
        );
        let (one, other) = (only(&spans, "SERVER"), only(&spans, "CLIENT"));
        has(one, server);
        has(other, client);
        assert_eq!(
            (&one["status"], &other["status"]),
            (&server_status.into(), &client_status.into()),
            "{path}"
        );
    }
    // For a response of watershed itself there is no client span.
    let refused = ended(&|asks| drop(asks.post("/200", "", "too long")), 1);
    has(
        &refused[0],
        json!({ "error.type": null, "http.response.status_code": 413, "watershed.error": "body_too_long" }),
    );
    let odd = ended(
        &|asks| {
            asks.say("BREW /200 HTTP/1.1\r\nHost: [::1]:81\r\n\r\n")
                .unwrap();
            asks.answer(true).unwrap();
        },
        2,
    );
    let odd = only(&odd, "SERVER");
    assert_eq!(odd["name"], "HTTP");
    has(
        odd,
        json!({ "http.request.method": "_OTHER", "http.request.method_original": "BREW", "server.address": "::1", "server.port": 81 }),
    );
}

#[test]
fn unreachable_upstream_is_named_in_the_span() {
    let collector = collector("take");
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = dead.local_addr().unwrap();
    drop(dead);
    let ask = |more: &str, count: usize| {
        let proxy = Proxy::start(&format!(
            "upstreams: {{ one: {{ endpoints: \"http://{nobody}\"{more} }} }}\ntrace: {{ otlp: \"http://{}\" }}",
            collector.address
        ));
        if !more.is_empty() {
            until("a check", || {
                let log = proxy.log.lock().unwrap().clone();
                log.contains("is unhealthy").then_some(()).ok_or(log)
            });
        }
        proxy.client().get("/", "");
        spans(&collector, count)
    };
    let two = ask("", 2);
    has(
        only(&two, "SERVER"),
        json!({ "error.type": "upstream_refused", "http.response.status_code": 502 }),
    );
    has(
        only(&two, "CLIENT"),
        json!({ "error.type": "upstream_refused", "server.port": nobody.port() }),
    );
    // No request was sent.
    let third = ask(", health: { path: /, interval: 100ms }", 3)
        .pop()
        .unwrap();
    assert_eq!(third["kind"], "SERVER");
    has(
        &third,
        json!({ "error.type": "upstream_down", "watershed.upstream": "one", "watershed.experiment": null }),
    );
}

#[test]
fn query_is_in_the_span_only_if_it_is_logged() {
    let (origin, collector) = (Origin::start("two"), collector("take"));
    let log = "access_log: { to: access.log, query: true }";
    let proxy = exporting(origin.address, &collector, log);
    proxy.client().get("/a?b=c%20d", "");
    let spans = spans(&collector, 2);
    has(
        only(&spans, "SERVER"),
        json!({ "url.path": "/a", "url.query": "b=c%20d" }),
    );
    let full = format!("http://{}/a?b=c%20d", origin.address);
    has(only(&spans, "CLIENT"), json!({ "url.full": full }));
    let line = std::fs::read_to_string(proxy.folder.path().join("access.log")).unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        line["trace_id"], spans[0]["trace"],
        "the log knows it by the same name"
    );
}

#[test]
fn trace_spans_several_proxies_and_names_the_protocol() {
    let (origin, collector) = (Origin::start("two"), collector("take"));
    let second = exporting(origin.address, &collector, "");
    let h2c = format!("\"h2c://{}\"", second.public);
    let trace = format!("trace: {{ otlp: \"http://{}\" }}", collector.address);
    let first = Proxy::start(&routes(&h2c, &h2c, &trace));
    let url = format!("http://{}/a", first.public);
    say("curl", &["--silent", "--http2-prior-knowledge", &url]);
    let spans = spans(&collector, 4);
    let (servers, clients) = (of(&spans, "SERVER"), of(&spans, "CLIENT"));
    let way = [servers[0], clients[0], servers[1], clients[1]];
    for pair in way.windows(2) {
        assert_eq!(pair[1]["parent"], pair[0]["span"]);
        assert_eq!(pair[1]["trace"], pair[0]["trace"]);
    }
    for (span, version) in way.iter().zip(["2", "2", "2", "1.1"]) {
        has(span, json!({ "network.protocol.version": version }));
    }
    has(servers[0], json!({ "server.port": first.public.port() }));
}

/// Sends a hundred requests, none of which may wait for the collector.
#[track_caller]
fn ask_quickly(proxy: &Proxy) {
    let begun = Instant::now();
    let mut client = proxy.client();
    for _ in 0..100 {
        assert_eq!(client.get("/", "").status, 200);
    }
    assert!(begun.elapsed() < HANG / 4, "{:?}", begun.elapsed());
}

/// Stops the proxy, which may wait for the remaining spans for a limited time only.
#[track_caller]
fn stop_quickly(mut proxy: Proxy) -> String {
    let begun = Instant::now();
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    assert!(begun.elapsed() < HANG / 4, "{:?}", begun.elapsed());
    std::thread::sleep(Duration::from_millis(100));
    proxy.log.lock().unwrap().clone()
}

fn losses(log: &str) -> usize {
    log.matches("spans were lost").count()
}

#[test]
fn unavailable_collector_does_not_affect_requests() {
    let origin = Origin::start("two");
    let at = format!("\"http://{}\"", origin.address);
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = dead.local_addr().unwrap();
    drop(dead);
    let (sick, picky) = (collector("500"), collector("reject"));
    for (to, why) in [
        (nobody, "Connection refused"),
        (sick.address, "it answers 500"),
        (picky.address, "none of it is wanted"),
    ] {
        let trace = format!("trace: {{ otlp: \"http://{to}\" }}");
        let proxy = Proxy::start(&routes(&at, &at, &trace));
        ask_quickly(&proxy);
        until("losses", || match number(&proxy, UNDELIVERED) {
            200 => Ok(()),
            other => Err(other),
        });
        assert_eq!(
            (number(&proxy, EXPORTED), number(&proxy, OVERFLOWED)),
            (0, 0)
        );
        ask_quickly(&proxy);
        until("losses", || match number(&proxy, UNDELIVERED) {
            400 => Ok(()),
            other => Err(other),
        });
        let told = losses(&proxy.log.lock().unwrap());
        assert_eq!(told, 1, "once a minute");
        let log = stop_quickly(proxy);
        assert!(log.contains(why), "{log}");
    }
}

#[test]
fn silent_collector_does_not_affect_requests() {
    let (origin, collector) = (Origin::start("two"), collector("hang"));
    let proxy = exporting(origin.address, &collector, "");
    ask_quickly(&proxy);
    until("a post", || match collector.seen().len() {
        0 => Err(()),
        _ => Ok(()),
    });
    // More than the queue holds: the rest are dropped and counted.
    let url = format!("http://{}/", proxy.public);
    let said = say("h2load", &["--h1", "-n", "10000", "-c", "8", &url]);
    assert!(said.contains("10000 succeeded, 0 failed"), "{said}");
    let overflowed = number(&proxy, OVERFLOWED);
    assert!((1..6000).contains(&overflowed), "{overflowed}");
    ask_quickly(&proxy);
    let log = stop_quickly(proxy);
    let lost: u64 = log
        .lines()
        .filter_map(|line| {
            line.split_once(" spans were lost")?
                .0
                .rsplit(' ')
                .next()?
                .parse::<u64>()
                .ok()
        })
        .sum();
    assert_eq!(lost, 2 * 10_200, "all are accounted for: {log}");
}

#[test]
fn temporarily_refused_spans_are_sent_again() {
    let (origin, collector) = (Origin::start("two"), collector("twice"));
    let proxy = exporting(origin.address, &collector, "");
    proxy.client().get("/", "");
    spans(&collector, 2);
    assert_eq!(collector.seen().len(), 2);
    let exported = until("the count", || match number(&proxy, EXPORTED) {
        0 => Err(()),
        some => Ok(some),
    });
    assert_eq!((exported, number(&proxy, UNDELIVERED)), (2, 0));
}

#[test]
fn queued_spans_are_delivered_at_shutdown() {
    let (origin, collector) = (Origin::start("two"), collector("take"));
    let proxy = exporting(origin.address, &collector, "");
    let mut client = proxy.client();
    for _ in 0..700 {
        client.get("/", "");
    }
    let log = stop_quickly(proxy);
    assert_eq!(kept(&collector).len(), 1400);
    assert_eq!(losses(&log), 0, "{log}");
}

#[test]
fn reload_starts_stops_and_redirects_the_export() {
    let (origin, first, second) = (Origin::start("two"), collector("take"), collector("take"));
    let at = format!("\"http://{}\"", origin.address);
    let to = |trace: &str| routes(&at, &at, trace);
    let proxy = Proxy::start(&to("trace: true"));
    let mut client = proxy.client();
    let mut parent = || sent(&client.get("/", "").json(), "traceparent")[0].to_owned();
    let change = |trace: &str| {
        proxy.write(&to(trace));
        assert_eq!(
            Client::admin(proxy.admin)
                .post("/admin/reload", "", "")
                .status,
            200
        );
        // Workers apply a reload one by one.
        std::thread::sleep(Duration::from_secs(1));
    };
    parent();
    change(&format!("trace: {{ otlp: \"http://{}\" }}", first.address));
    let told = parent();
    assert_eq!(
        told[36..52],
        *only(&spans(&first, 2), "CLIENT")["span"].as_str().unwrap()
    );
    change(&format!(
        "trace: {{ otlp: {{ to: \"http://{}\", service: elsewhere }} }}",
        second.address
    ));
    parent();
    assert_eq!(
        spans(&second, 2)[0]["resource"]["service.name"],
        "elsewhere"
    );
    change("trace: true");
    let told = parent();
    assert!(told.ends_with("-01"), "{told}");
    change("");
    client.get("/", &traced("01"));
    stop_quickly(proxy);
    assert_eq!((kept(&first).len(), kept(&second).len()), (2, 2));
}

#[test]
fn spans_are_exported_over_tls_with_configured_headers() {
    let origin = Origin::start("two");
    let folder = tempfile::TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(file("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(file("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let collector = Site::start(&["collector.py", "take", &file("cert.pem"), &file("key.pem")]);
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let stranger = file("stranger.pem");
    std::fs::write(&stranger, other.cert.pem()).unwrap();
    let env = [
        ("KEY", "Bearer abc"),
        // Roots that do not contain the collector's authority.
        ("SSL_CERT_FILE", &stranger),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "x-team=shop,authorization=theirs",
        ),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=test",
        ),
        ("OTEL_SERVICE_NAME", "theirs"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    let how = How {
        env: env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..How::default()
    };
    let at = format!("\"http://{}\"", origin.address);
    let trace = |tls: &str| {
        let address = collector.address;
        format!(
            "trace: {{ otlp: {{ to: \"https://{address}/deep/\", service: ours, headers: {{ Authorization: \"${{KEY}}\" }}{tls} }} }}"
        )
    };
    let trusting = trace(&format!(", tls: {{ ca: {} }}", file("cert.pem")));
    let proxy = Proxy::start_how(&routes(&at, &at, &trusting), how.clone());
    let mut client = proxy.client();
    client.get("/", "");
    let two = spans(&collector, 2);
    client.get("/", "");
    spans(&collector, 4);
    let resource = &two[0]["resource"];
    assert_eq!(resource["service.name"], "ours", "the file decides");
    assert_eq!(resource["deployment.environment.name"], "test");
    let post: Value = serde_json::from_str(&collector.seen()[0]).unwrap();
    assert_eq!(post["path"], "/deep/v1/traces");
    let headers = &post["headers"];
    assert_eq!(headers["authorization"], "Bearer abc", "the file decides");
    assert_eq!(headers["x-team"], "shop");
    // An untrusted collector receives nothing.
    let proxy = Proxy::start_how(&routes(&at, &at, &trace("")), how);
    proxy.client().get("/", "");
    until("losses", || match number(&proxy, UNDELIVERED) {
        2 => Ok(()),
        other => Err(other),
    });
    let log = stop_quickly(proxy);
    assert!(log.contains("certificate") && !log.contains("abc"), "{log}");
    assert_eq!(kept(&collector).len(), 4);
}

#[test]
fn otel_environment_variables_fill_missing_keys() {
    let (origin, collector) = (Origin::start("two"), collector("take"));
    let at = format!("\"http://{}\"", origin.address);
    let endpoint = format!("http://{}", collector.address);
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_SERVICE_NAME", "theirs"),
    ];
    let how = How {
        env: env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..How::default()
    };
    let proxy = Proxy::start_how(&routes(&at, &at, "trace: { otlp: true }"), how);
    proxy.client().get("/", "");
    let spans = spans(&collector, 2);
    assert_eq!(spans[0]["resource"]["service.name"], "theirs");
}
