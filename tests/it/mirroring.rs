//! Copies of requests to another version, the comparison of what comes back, and exposure by a difference.

use crate::support::client::{Answer, Client};
use crate::support::proxy::{BINARY, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use crate::wire::http2;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use serde_json::Value;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use watershed::experiment::override_token::{self, Override};

/// How long a version takes to answer the copy of a request to `/late`.
const LATE_MS: u64 = 2_000;

/// A version of a site that notes what it gets.
struct Version {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _runtime: tokio::runtime::Runtime,
}

/// A request that a version got.
#[derive(Clone, Debug)]
struct Seen {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body_bytes: usize,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name)?;
        Some(&found.1)
    }
}

impl Version {
    fn start(name: &'static str) -> Version {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = runtime.block_on(listener).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let site = Router::new().fallback(move |request| answer(name, request, Arc::clone(&noted)));
        runtime.spawn(async move { axum::serve(listener, site).await.unwrap() });
        Version {
            address,
            seen,
            _runtime: runtime,
        }
    }

    /// The copies that it got so far.
    fn copies(&self) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        let copies = seen
            .iter()
            .filter(|it| it.header("watershed-mirror").is_some());
        copies.cloned().collect()
    }
}

async fn answer(name: &str, request: Request, seen: Arc<Mutex<Vec<Seen>>>) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 10 << 20).await.unwrap();
    let headers = head.headers.iter();
    let seen_now = Seen {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        headers: headers
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect(),
        body_bytes: body.len(),
    };
    seen.lock().unwrap().push(seen_now.clone());
    let html = Response::builder()
        .header("content-type", "text/html")
        .header("set-cookie", format!("{name}=1"))
        .header("watershed-event", "seen");
    if head.uri.path() == "/late" && seen_now.header("watershed-mirror").is_some() {
        tokio::time::sleep(Duration::from_millis(LATE_MS)).await;
    }
    let page = match head.uri.path() {
        "/late" => name.to_owned(),
        // Clients get the beginning only.
        "/stalls" if seen_now.header("watershed-mirror").is_none() => {
            let first = futures_util::stream::once(async { Ok(Bytes::from("<h1>")) });
            let never = futures_util::stream::pending::<std::io::Result<Bytes>>();
            let body = futures_util::StreamExt::chain(first, never);
            return html.body(Body::from_stream(body)).unwrap();
        }
        "/stalls" => format!("<h1>{name}</h1>"),
        "/differs" => format!("<h1>This is {name}</h1>"),
        "/missing" if name == "next" => {
            return html.status(404).body(Body::from("none")).unwrap();
        }
        "/moved" => {
            let to = format!("http://{name}.internal/{name}");
            return html
                .status(302)
                .header("location", to)
                .body(Body::empty())
                .unwrap();
        }
        "/json" if name == "next" => {
            let json = Response::builder().header("content-type", "application/json");
            return json.body(Body::from("{}")).unwrap();
        }
        "/etag" => {
            let html = html.header("etag", format!("\"{name}\""));
            if seen_now.header("if-none-match").is_some() {
                return html.status(304).body(Body::empty()).unwrap();
            }
            return html.body(Body::from(format!("<h1>{name}</h1>"))).unwrap();
        }
        "/zipped"
            if seen_now
                .header("accept-encoding")
                .is_some_and(|it| it.contains("gzip")) =>
        {
            let html = html.header("content-encoding", "gzip");
            return html.body(Body::from(format!("not really {name}"))).unwrap();
        }
        "/chunks" => {
            let pieces = (0..50).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'a'; 3_000])));
            return html.body(Body::from_stream(tokio_stream(pieces))).unwrap();
        }
        "/large" => {
            // They differ within the first mebibyte, or only beyond it.
            let at = match head.uri.query() {
                Some("early") => 1_000,
                _ => 2 << 20,
            };
            let mut page = "word ".repeat(600_000).into_bytes();
            page.splice(at..at, name.bytes());
            return html.body(Body::from(page)).unwrap();
        }
        _ => same(),
    };
    html.body(Body::from(page)).unwrap()
}

/// A page that is the same for people, and never the same byte for byte.
fn same() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap();
    let (id, token) = (uuid::Uuid::now_v7(), fastrand::u128(..));
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    format!(
        "<html><head><meta name=\"csrf-token\" content=\"c{token}\">\n <script nonce=\"n{token:x}\" src=\"/app.js\"></script></head>\
         <body data-id='{id}' data-key='{token:032x}'> <p>Hello</p>{}<p>{date}, {}, {}</p></body></html>",
        " ".repeat(fastrand::usize(..9)),
        now.as_millis(),
        jiff_now(now)
    )
}

fn jiff_now(now: Duration) -> String {
    jiff::Timestamp::from_millisecond(now.as_millis() as i64)
        .unwrap()
        .to_string()
}

fn tokio_stream<T: Send + 'static>(
    items: impl Iterator<Item = T> + Send + 'static,
) -> impl futures_util::Stream<Item = T> + Send + 'static {
    futures_util::stream::iter(items)
}

/// Two versions of a site.
struct Site {
    current: Version,
    next: Version,
}

impl Site {
    fn start() -> Site {
        Site {
            current: Version::start("current"),
            next: Version::start("next"),
        }
    }

    fn routes(&self, experiment: &str, more: &str) -> String {
        routes(self.current.address, self.next.address, experiment, more)
    }
}

fn routes(current: SocketAddr, next: SocketAddr, experiment: &str, more: &str) -> String {
    format!(
        "workers: 1\nupstreams: {{ current: \"http://{current}\", next: \"http://{next}\" }}\n\
         user: {{ header: x-user }}\nmetrics: {{ seen: {{ event: seen }} }}\n\
         experiments:\n  site: {{ control: current, experiment: next, {experiment} }}\n{more}"
    )
}

/// What mirroring has found, once so many requests were copied and are done with.
#[track_caller]
fn mirrored(proxy: &Proxy, copies: u64) -> Value {
    until("the comparisons", || {
        let results = proxy.ask("/admin/results");
        if results.status != 200 {
            return Err(results.text());
        }
        let mirror = results.json()["experiments"][0]["mirror"].clone();
        let number = |name: &str| mirror[name].as_u64().unwrap_or(u64::MAX);
        let done = number("compared").saturating_add(number("failed"));
        let is_done = number("copies") == copies && done == copies;
        is_done.then(|| mirror.clone()).ok_or(mirror.to_string())
    })
}

fn differing(mirror: &Value) -> [u64; 4] {
    ["status", "location", "content_type", "body"]
        .map(|kind| mirror["differing"][kind].as_u64().unwrap())
}

/// The users of both groups, and how often they had the event.
fn counted(proxy: &Proxy) -> [u64; 4] {
    let results = proxy.results();
    let experiment = &results["experiments"][0];
    let number = |path: &Value| path.as_u64().unwrap();
    let group = |place: usize| &experiment["groups"][place];
    let metric = |place: usize| &experiment["metrics"][0]["groups"][place];
    [
        number(&group(0)["users"]),
        number(&group(1)["users"]),
        number(&metric(0)["count"]),
        number(&metric(1)["count"]),
    ]
}

/// Everybody gets control.
const ALL_CONTROL: &str = "percent: 0";
const TO_NEXT: &str = "percent: 0, mirror: { to: next }";

#[test]
fn copies_carry_the_headers_of_requests_and_nothing_comes_back() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(TO_NEXT, ""));
    let headers = "X-User: ann\r\nCookie: a=1; b=2\r\nX-One: 1\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
                   If-None-Match: \"x\"\r\nAccept-Encoding: gzip, br\r\nWatershed-Mirror: 7\r\nX-Forwarded-For: 6.6.6.6\r\n";
    let answer = proxy.client().get("/a%20b?x=1", headers);
    assert_eq!(
        (answer.status, answer.all("set-cookie")),
        (200, vec!["current=1"])
    );
    mirrored(&proxy, 1);
    let copies = site.next.copies();
    assert_eq!(copies.len(), 1, "{copies:?}");
    let copy = &copies[0];
    assert_eq!((&*copy.method, &*copy.target), ("GET", "/a%20b?x=1"));
    for (name, expected) in [
        ("watershed-mirror", Some("1")),
        ("accept-encoding", Some("identity")),
        ("host", Some("site.test")),
        ("cookie", Some("a=1; b=2")),
        ("x-one", Some("1")),
        ("x-hop", None),
        ("if-none-match", None),
        ("via", Some("1.1 watershed")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-host", Some("site.test")),
        ("x-forwarded-proto", Some("http")),
        ("watershed-user", Some("ann")),
        // What the user would be told in the group of this version.
        ("watershed-experiment", Some("site=experiment")),
    ] {
        assert_eq!(copy.header(name), expected, "{name}: {copy:?}");
    }
    // The original is no copy, whatever the client says.
    let current = site.current.seen.lock().unwrap().clone();
    assert_eq!(current.len(), 1);
    assert_eq!(current[0].header("watershed-mirror"), None);
    assert_eq!(current[0].header("accept-encoding"), Some("gzip, br"));
    // One user, one event: the response to the copy counts for nothing.
    assert_eq!(counted(&proxy), [1, 0, 1, 0]);
}

#[test]
fn only_safe_requests_of_counted_users_are_copied() {
    let site = Site::start();
    let more =
        "overrides: { secret: 0123456789abcdef }\nexclude: [ { header: { X-Monitor: true } } ]\n";
    let proxy = Proxy::start(&site.routes(TO_NEXT, more));
    let mut client = proxy.client();
    let user = "X-User: ann\r\n";
    client.post("/", user, "form");
    client.post("/", user, "");
    client
        .say("DELETE / HTTP/1.1\r\nHost: a\r\nX-User: ann\r\n\r\n")
        .unwrap();
    client.answer(true).unwrap();
    client
        .say("GET / HTTP/1.1\r\nHost: a\r\nX-User: ann\r\nContent-Length: 4\r\n\r\nbody")
        .unwrap();
    client.answer(true).unwrap();
    client.get("/", "X-User: ann\r\nX-Monitor: 1\r\n");
    client.get("/", "X-User: ann\r\nUser-Agent: Googlebot/2.1\r\n");
    client.get("/", "X-User: ann\r\nRange: bytes=0-1\r\n");
    let now_s = jiff::Timestamp::now().as_second() as u64;
    let forced = Override {
        experiment: "site".to_owned(),
        group: "control".to_owned(),
        expires_s: now_s + 60,
    };
    let token = override_token::sign(b"0123456789abcdef", &forced);
    client.get(
        "/",
        &format!("X-User: ann\r\nWatershed-Override: {token}\r\n"),
    );
    client.get("/", user);
    client
        .say("HEAD / HTTP/1.1\r\nHost: a\r\nX-User: ann\r\n\r\n")
        .unwrap();
    client.answer(false).unwrap();
    let mirror = mirrored(&proxy, 2);
    assert_eq!(differing(&mirror), [0; 4]);
    let copies = site.next.copies();
    let mut methods: Vec<_> = copies
        .iter()
        .map(|it| (&*it.method, it.body_bytes))
        .collect();
    // Each copy has a task of its own.
    methods.sort_unstable();
    assert_eq!(methods, [("GET", 0), ("HEAD", 0)]);
    assert_eq!(site.next.seen.lock().unwrap().len(), 2);
}

#[test]
fn differences_are_found_and_equal_pages_are_equal() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(TO_NEXT, ""));
    let mut client = proxy.client();
    let user = "X-User: ann\r\n";
    for path in ["/same", "/chunks", "/large", "/product/17", "/product/18"] {
        assert_eq!(client.get(path, user).status, 200);
    }
    assert_eq!(differing(&mirrored(&proxy, 5)), [0; 4]);
    for path in ["/differs", "/missing", "/moved", "/json", "/large?early"] {
        client.get(path, user);
    }
    let mirror = mirrored(&proxy, 10);
    assert_eq!(differing(&mirror), [1, 1, 1, 2], "{mirror:#}");
    assert_eq!(
        (&mirror["equal"], &mirror["failed"]),
        (&5.into(), &0.into())
    );
    let paths = mirror["paths"].as_array().unwrap();
    let path = |name: &str| paths.iter().find(|it| it["path"] == name).unwrap();
    assert_eq!(path("/product/*")["compared"], 2);
    let example = &path("/differs")["examples"][0];
    assert_eq!(
        (&example["kind"], &example["served_by"], &example["served"]),
        (
            &"body".into(),
            &"current".into(),
            &"<h1>This is current</h1>".into()
        )
    );
    assert_eq!(example["copy"], "<h1>This is next</h1>");
    assert_eq!(path("/missing")["examples"][0]["copy"], "404");
    assert_eq!(path("/moved")["examples"][0]["copy"], "/next");
    for version in mirror["versions"].as_array().unwrap() {
        assert_eq!(version["responses"], 10, "{version}");
        assert!(version["latency_ms"]["p50"].as_f64().unwrap() > 0.0);
    }
    let page = Client::admin(proxy.admin)
        .get("/admin/results/site", "Accept: text/html\r\n")
        .text();
    for text in [
        "10 pairs of responses were compared",
        "/product/*",
        "This is next",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let metrics = proxy.ask("/admin/metrics").text();
    for line in [
        "watershed_mirror_copies_total{experiment=\"site\"} 10",
        "watershed_mirror_comparisons_total{experiment=\"site\",result=\"equal\"} 5",
        "watershed_mirror_comparisons_total{experiment=\"site\",result=\"body\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[test]
fn compressed_and_unchanged_responses_are_asked_for_again() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(TO_NEXT, ""));
    let mut client = proxy.client();
    let zipped = client.get("/zipped", "X-User: ann\r\nAccept-Encoding: gzip\r\n");
    assert_eq!(zipped.text(), "not really current");
    let etag = client.get("/etag", "X-User: ann\r\n");
    let etag = etag.header("etag").unwrap().to_owned();
    let unchanged = client.get(
        "/etag",
        &format!("X-User: ann\r\nIf-None-Match: {etag}\r\n"),
    );
    assert_eq!(unchanged.status, 304);
    let mirror = mirrored(&proxy, 3);
    assert_eq!(
        (&mirror["asked_again"], &mirror["failed"]),
        (&2.into(), &0.into())
    );
    assert_eq!(differing(&mirror), [0, 0, 0, 2], "{mirror:#}");
    let again = site.current.copies();
    let mut targets: Vec<_> = again.iter().map(|it| &*it.target).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["/etag", "/zipped"]);
    assert!(
        again
            .iter()
            .all(|it| it.header("accept-encoding") == Some("identity"))
    );
    assert_eq!(counted(&proxy)[0], 1);
}

/// Asks many times, and returns the slowest answer.
fn slowest(proxy: &Proxy, requests: usize) -> Duration {
    let mut client = proxy.client();
    let mut slowest = Duration::ZERO;
    for number in 0..requests {
        let begun = Instant::now();
        let answer = client.get("/same", &format!("X-User: u{number}\r\n"));
        assert_eq!(answer.status, 200);
        slowest = slowest.max(begun.elapsed());
    }
    slowest
}

#[test]
fn dead_mirror_changes_nothing_and_ejects_nobody() {
    let current = Version::start("current");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    let proxy = Proxy::start(&routes(current.address, nobody, TO_NEXT, ""));
    slowest(&proxy, 20);
    let mirror = mirrored(&proxy, 20);
    assert_eq!(
        (&mirror["failed"], &mirror["compared"]),
        (&20.into(), &0.into())
    );
    let results = proxy.results();
    let warnings = results["experiments"][0]["warnings"].to_string();
    assert!(
        warnings.contains("20 of 20 mirrored requests could not be compared"),
        "{warnings}"
    );
    assert_eq!(counted(&proxy), [20, 0, 20, 0]);
    let metrics = proxy.ask("/admin/metrics").text();
    let ejections = metrics
        .lines()
        .filter(|it| it.starts_with("watershed_endpoint_ejections_total"));
    assert!(ejections.clone().count() > 0);
    for line in ejections {
        assert!(line.ends_with(" 0"), "{line}");
    }
    let of_next: Vec<_> = metrics
        .lines()
        .filter(|it| {
            it.starts_with("watershed_http_requests_total") && it.contains("upstream=\"next\"")
        })
        .collect();
    assert_eq!(of_next, [""; 0]);
}

#[test]
fn silent_mirror_delays_nothing_and_copies_beyond_the_bound_are_dropped() {
    let current = Version::start("current");
    // It accepts connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let proxy = Proxy::start(&routes(
        current.address,
        address,
        TO_NEXT,
        "timeouts: { response: 20s }\n",
    ));
    let slowest = slowest(&proxy, 100);
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    let mirror = &proxy.results()["experiments"][0]["mirror"];
    let number = |name: &str| mirror[name].as_u64().unwrap();
    assert_eq!(number("copies") + number("dropped"), 100);
    assert_eq!(
        (number("copies"), number("compared")),
        (32, 0),
        "{mirror:#}"
    );
    // Their time is over in the end, and others find room.
    mirrored(&proxy, 32);
    drop(silent);
}

#[test]
fn reload_adds_and_removes_the_mirror() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(ALL_CONTROL, ""));
    let ask = || proxy.client().get("/same", "X-User: ann\r\n");
    ask();
    assert_eq!(proxy.results()["experiments"][0].get("mirror"), None);
    let reload = |experiment: &str| {
        proxy.write(&site.routes(experiment, ""));
        let answer = Client::admin(proxy.admin).post("/admin/reload", "", "");
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    reload(TO_NEXT);
    until("a copy", || {
        ask();
        let copies = site.next.copies();
        (!copies.is_empty()).then_some(()).ok_or(copies)
    });
    let copies = || {
        proxy.results()["experiments"][0]["mirror"]["copies"]
            .as_u64()
            .unwrap()
    };
    let before = copies();
    reload(ALL_CONTROL);
    assert_eq!(proxy.results()["experiments"][0].get("mirror"), None);
    (0..50).for_each(|_| drop(ask()));
    // Counts go on when the mirror comes back. A worker may have taken the file up a moment later.
    reload(TO_NEXT);
    let after = copies();
    assert!(after < before + 25, "{before} {after}");
}

#[test]
fn http2_clients_and_upstreams_are_mirrored() {
    let site = Site::start();
    // Another proxy, which speaks HTTP/2 to the first one.
    let behind = |version: &Version| {
        let upstream = version.address;
        Proxy::start(&format!(
            "workers: 1\nupstreams: {{ site: \"http://{upstream}\" }}\n"
        ))
    };
    let next = behind(&site.next);
    let text = site.routes(TO_NEXT, "").replace(
        &format!("http://{}", site.next.address),
        &format!("h2c://{}", next.public),
    );
    let proxy = Proxy::start(&text);
    http2::run(async {
        let mut sender = http2::connect(proxy.public).await;
        for path in ["/same", "/differs", "/chunks", "/large"] {
            let request =
                http::Request::get(format!("http://site.test{path}")).header("x-user", "ann");
            let response = sender.send_request(request.body(http2::whole("")).unwrap());
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            http2::text(response).await;
        }
    });
    let mirror = mirrored(&proxy, 4);
    assert_eq!(
        (differing(&mirror), &mirror["asked_again"]),
        ([0, 0, 0, 1], &0.into()),
        "{mirror:#}"
    );
    assert_eq!(mirror["failed"], 0);
}

#[test]
fn client_who_leaves_is_compared_by_asking_again() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(TO_NEXT, ""));
    let mut client = proxy.client();
    client
        .say("GET /stalls HTTP/1.1\r\nHost: a\r\nX-User: ann\r\n\r\n")
        .unwrap();
    client.head().unwrap();
    assert_eq!(client.chunk().unwrap().unwrap(), b"<h1>");
    client.reset();
    let mirror = mirrored(&proxy, 1);
    assert_eq!(differing(&mirror), [0, 0, 0, 1], "{mirror:#}");
    assert_eq!(mirror["asked_again"], 1);
}

const DIFFERS: &str = "percent: 50, expose: differs, mirror: { to: next }";

/// Users see what is the same, then half of them what differs.
fn visit(proxy: &Proxy, users: usize) -> u64 {
    let mut client = proxy.client();
    let mut copies = 0;
    for number in 0..users {
        let user = format!("X-User: u{number}\r\n");
        if number % 5 == 0 {
            // No more than there is room for.
            mirrored(proxy, copies);
        }
        client.get("/same", &user);
        copies += 1;
        if number % 2 == 0 {
            client.get("/differs", &user);
            client.get("/same", &user);
            copies += 2;
        }
    }
    copies
}

#[track_caller]
fn difference_exposes(store: &str) {
    let site = Site::start();
    let mut proxy = Proxy::start(&site.routes(DIFFERS, store));
    let users = 40;
    let copies = visit(&proxy, users);
    let mirror = mirrored(&proxy, copies);
    assert_eq!(
        differing(&mirror),
        [0, 0, 0, users as u64 / 2],
        "{mirror:#}"
    );
    assert_eq!(mirror["both_ways"], true);
    let [control, experiment, before, after] = counted(&proxy);
    assert_eq!(control + experiment, users as u64 / 2);
    assert!(control > 0 && experiment > 0, "{control} {experiment}");
    // The events of the request that exposes and of later ones, and not of the one before. Clocks of replicas
    // may differ, so events of the last two seconds count, too.
    assert_eq!(before + after, 3 * users as u64 / 2);
    // Every request was copied, in both directions.
    let copied = |version: &Version| version.copies().len() as u64;
    assert_eq!(copied(&site.current) + copied(&site.next), copies);
    assert!(copied(&site.current) > 0 && copied(&site.next) > 0);
    // What was found is not lost.
    proxy.kill();
    proxy.again(&site.routes(DIFFERS, store));
    assert_eq!(counted(&proxy), [control, experiment, before, after]);
}

#[test]
fn users_are_exposed_by_a_difference() {
    difference_exposes("");
}

#[test]
fn users_are_exposed_by_a_difference_in_redis() {
    let redis = Redis::start();
    difference_exposes(&format!("store: {}\n", redis.url()));
}

#[test]
fn exposure_by_difference_has_the_time_of_the_request() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(DIFFERS, ""));
    let before = jiff::Timestamp::now();
    proxy.client().get("/late", "X-User: ann\r\n");
    let after = jiff::Timestamp::now();
    mirrored(&proxy, 1);
    let compared = jiff::Timestamp::now();
    proxy.results();
    let rows = proxy.ask("/admin/export/site?format=jsonl").text();
    let row: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    let at: jiff::Timestamp = row["first_exposure"].as_str().unwrap().parse().unwrap();
    // Times are kept to the millisecond.
    let to_ms = |time: jiff::Timestamp| time.as_millisecond();
    assert!(
        (to_ms(before)..=to_ms(after)).contains(&to_ms(at)),
        "{before} {at} {after}"
    );
    assert!(to_ms(compared) >= to_ms(before) + LATE_MS as i64);
}

#[test]
fn minted_visitors_count_once_they_come_back() {
    let site = Site::start();
    let text = site
        .routes(DIFFERS, "")
        .replace("user: { header: x-user }\n", "");
    let proxy = Proxy::start(&text);
    let cookie = |answer: &Answer| {
        let cookies = answer.all("set-cookie");
        let own = cookies.iter().find(|it| it.starts_with("watershed"));
        own.map(|it| it.split(';').next().unwrap().to_owned())
    };
    for _ in 0..10 {
        proxy.client().get("/differs", "");
    }
    mirrored(&proxy, 10);
    assert_eq!(counted(&proxy)[..2], [0, 0]);
    for _ in 0..10 {
        let mut client = proxy.client();
        let answer = client.get("/differs", "");
        let cookie = cookie(&answer).unwrap_or_else(|| panic!("{:?}", answer.headers));
        client.get("/same", &format!("Cookie: {cookie}\r\n"));
    }
    mirrored(&proxy, 30);
    let [control, experiment, ..] = counted(&proxy);
    assert_eq!(control + experiment, 10);
}

#[test]
fn small_share_copies_some_requests() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes("percent: 0, mirror: { to: next, share: 20% }", ""));
    slowest(&proxy, 500);
    let copies = until("the copies", || {
        let mirror = proxy.results()["experiments"][0]["mirror"].clone();
        let copies = mirror["copies"].as_u64().unwrap();
        let done = mirror["compared"].as_u64().unwrap() + mirror["dropped"].as_u64().unwrap();
        (done == copies).then_some(copies).ok_or(mirror)
    });
    // Five standard deviations.
    assert!((55..=145).contains(&copies), "{copies}");
}

#[test]
fn draft_is_mirrored_and_a_paused_experiment_is_not() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes("percent: 50, state: draft, mirror: { to: next }", ""));
    for number in 0..10 {
        let answer = proxy
            .client()
            .get("/differs", &format!("X-User: u{number}\r\n"));
        assert_eq!(answer.text(), "<h1>This is current</h1>");
    }
    assert_eq!(differing(&mirrored(&proxy, 10)), [0, 0, 0, 10]);
    assert_eq!(counted(&proxy)[..2], [0, 0]);
    let proxy = Proxy::start(&site.routes(TO_NEXT, ""));
    let paused = Client::admin(proxy.admin).post("/admin/experiments/site/pause", "", "");
    assert_eq!(paused.status, 200, "{}", paused.text());
    let before = site.next.seen.lock().unwrap().len();
    slowest(&proxy, 10);
    assert_eq!(mirrored(&proxy, 0)["copies"], 0);
    assert_eq!(site.next.seen.lock().unwrap().len(), before);
}

/// What a command says of two files, the second of which is `new`.
fn command(arguments: &[&str], old: &str, new: &str) -> (i32, String) {
    let folder = tempfile::TempDir::new().unwrap();
    let file = |name: &str, experiment: &str| {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let path = folder.path().join(name);
        std::fs::write(&path, routes(address(1), address(2), experiment, "")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (old, new) = (file("old.yaml", old), file("new.yaml", new));
    let arguments = arguments.iter().map(|argument| match *argument {
        "OLD" => &*old,
        "NEW" => &*new,
        other => other,
    });
    let output = std::process::Command::new(BINARY)
        .args(arguments)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(said).unwrap(),
    )
}

#[test]
fn commands_explain_the_mirror() {
    let check = |arguments: &[&str], new: &str, code: i32, expected: &[&str]| {
        let (found, said) = command(arguments, "percent: 50", new);
        assert_eq!(found, code, "{said}");
        for text in expected {
            assert!(said.contains(text), "{text}: {said}");
        }
    };
    let small = "percent: 50, expose: differs, mirror: { to: next, share: 5% }";
    check(
        &["check", "-c", "NEW"],
        small,
        0,
        &["copies of 5 % of requests: users are exposed later"],
    );
    check(
        &["check", "-c", "NEW"],
        "percent: 50, expose: differs",
        2,
        &[
            ":6:",
            "experiments.site.expose: `differs` without `mirror`",
            "hint: write `mirror: { to: NAME }`",
        ],
    );
    check(
        &["check", "-c", "NEW"],
        "percent: 50, mirror: { to: nxet, methods: [ PUT ], share: 5 }",
        2,
        &[
            "experiments.site.mirror.to: there is no upstream or group \"nxet\"",
            "did you mean `next`?",
            "experiments.site.mirror.methods.0: PUT may change something",
            "experiments.site.mirror.share: found \"5\"",
        ],
    );
    check(
        &["plan", "OLD", "NEW", "--no-store", "--users", "100"],
        small,
        0,
        &[
            "site: users are exposed only by a difference from now on",
            "mirror: none -> 5 % of GET and HEAD to next, both ways",
        ],
    );
    let explain = |new: &str, request: &str, expected: &[&str]| {
        let arguments = [
            "explain",
            "--request",
            request,
            "-H",
            "X-User: u1",
            "-c",
            "NEW",
        ];
        check(&arguments, new, 0, expected);
    };
    explain(
        &small.replace("percent: 50", "percent: 0"),
        "GET /",
        &[
            "exposed if the copy of the request is answered differently",
            "copied to next (5 % of such requests)",
        ],
    );
    explain(
        &small.replace("percent: 50", "percent: 100"),
        "GET /",
        &["copied to current (5 % of such requests)"],
    );
    let (_, said) = command(
        &[
            "explain",
            "--request",
            "POST /",
            "-H",
            "X-User: u1",
            "-c",
            "NEW",
        ],
        "percent: 50",
        TO_NEXT,
    );
    assert!(!said.contains("copied"), "{said}");
}
