//! Every response in the document occurs, and has a described content type and described headers.

use super::{OPERATE, Site, TOKENS};
use crate::support::client::{Answer, Client};
use crate::support::redis::Redis;
use serde_json::Value;
use std::collections::BTreeSet;

/// Responses that need another cause than a request: a stopping process, a full journal.
const NOT_BY_REQUESTS: [&str; 3] = [
    "get /admin/readyz 503",
    "post /admin/reload 503",
    "post /admin/events 503",
];

/// Streams of events.
const ENDLESS: [&str; 2] = ["/admin/results/live", "/ofrep/v1/stream"];
const ALL_FLAGS: &str = "/ofrep/v1/evaluate/flags";
const FLAG: &str = "/ofrep/v1/evaluate/flags/shop";

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const HTML: &str = "Accept: text/html\r\n";
const READ: &str = "Authorization: Bearer read-secret\r\n";
const OTHER_SITE: &str = "Origin: http://evil.test\r\n";
/// Announces chunks; the bodies that follow are not chunks.
const BROKEN: &str = "Transfer-Encoding: chunked\r\n";

/// The responses that occurred, such as `get /admin/results 200`.
#[derive(Default)]
struct Seen(BTreeSet<String>);

/// An admin API to which requests are sent.
struct AdminApi<'a> {
    site: &'a Site,
    document: Value,
    host: String,
}

impl AdminApi<'_> {
    fn of(site: &Site) -> AdminApi<'_> {
        AdminApi {
            site,
            document: site.document(),
            host: site.proxy.admin.to_string(),
        }
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut client = Client::admin(self.site.proxy.admin);
        let method = method.to_uppercase();
        let length = match headers.contains(BROKEN) {
            true => String::new(),
            false => format!("Content-Length: {}\r\n", body.len()),
        };
        let host = &self.host;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}{headers}\r\n");
        client.say(head + body).unwrap();
        if ENDLESS.contains(&path.split('?').next().unwrap()) && !path.ends_with("stream") {
            // The stream does not end.
            let (status, headers) = client.head().unwrap();
            let body = Vec::new();
            return Answer {
                status,
                headers,
                body,
            };
        }
        let answer = client.answer(true);
        answer.unwrap_or_else(|error| panic!("{method} {path} with {headers}: {error}"))
    }

    /// Sends a request and compares the response with the document.
    #[track_caller]
    fn expect(&self, seen: &mut Seen, status: u16, kind: &str, ask: (&str, &str, &str, &str)) {
        let (method, path, headers, body) = ask;
        let answer = self.send(method, path, headers, body);
        let what = format!("{method} {path}: {}", answer.text());
        assert_eq!(answer.status, status, "{what}");
        let content_type = answer.header("content-type").unwrap_or_default();
        assert_eq!(content_type.split(';').next(), Some(kind), "{what}");
        let form = self.form_of(path);
        let operation = &self.document["paths"][&form][method];
        let described = &operation["responses"][status.to_string()];
        assert!(described.is_object(), "{what} is not described");
        let has_kind = kind.is_empty() || described["content"][kind].is_object();
        assert!(has_kind, "{what}: {kind} is not described");
        for header in described["headers"].as_object().into_iter().flatten() {
            let has_header = answer.header(header.0).is_some() || kind == "text/html";
            assert!(has_header, "{what}: has no {}", header.0);
        }
        seen.0.insert(format!("{method} {form} {status}"));
    }

    /// Returns the path template of a path.
    fn form_of(&self, path: &str) -> String {
        let path = path.split('?').next().unwrap();
        let paths = self.document["paths"].as_object().unwrap();
        match paths.contains_key(path) {
            true => path.to_owned(),
            false => {
                let mut forms = paths.keys();
                let found = forms.find(|form| super::described::is_of(form, path));
                found.unwrap().clone()
            }
        }
    }

    /// Returns all operations that require authentication, with an existing path.
    fn guarded(&self) -> Vec<(String, String)> {
        let paths = self.document["paths"].as_object().unwrap();
        let mut all = Vec::new();
        for (form, item) in paths {
            for (method, operation) in item.as_object().unwrap() {
                if operation["responses"]["421"].is_object() {
                    let path = form
                        .replace("{experiment}", "shop")
                        .replace("{key}", "shop");
                    all.push((method.clone(), path.replace("{action}", "pause")));
                }
            }
        }
        all
    }
}

const JSON: &str = "application/json";
const PAGE: &str = "text/html";

#[test]
fn every_described_response_occurs() {
    let mut seen = Seen::default();
    let open = Site::start("");
    successes(&AdminApi::of(&open), &mut seen);
    invalid_requests(&AdminApi::of(&open), &mut seen);
    decisions(&AdminApi::of(&open), &mut seen);
    invalid_file(&open, &mut seen);
    foreign_host(&open, &mut seen);
    let with_tokens = Site::start(TOKENS);
    missing_permissions(&AdminApi::of(&with_tokens), &mut seen);
    sessions(&AdminApi::of(&with_tokens), &mut seen);
    too_many_wrong_tokens(&AdminApi::of(&with_tokens), &mut seen);
    without_a_store(&mut seen);

    let document = open.document();
    let paths = document["paths"].as_object().unwrap().iter();
    let described = paths.flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter();
        operations.flat_map(move |(method, operation)| {
            let answers = operation["responses"].as_object().unwrap().keys();
            answers.map(move |status| format!("{method} {path} {status}"))
        })
    });
    let unseen: Vec<String> = described
        .filter(|it| !seen.0.contains(it) && !NOT_BY_REQUESTS.contains(&&**it))
        .collect();
    assert_eq!(unseen, [""; 0], "described responses that did not occur");
}

fn successes(api: &AdminApi<'_>, seen: &mut Seen) {
    for (path, kind) in [
        ("/admin/results", JSON),
        ("/admin/results?format=html&view=fixed", PAGE),
        ("/admin/results?format=csv&view=any_look", "text/csv"),
        ("/admin/results/shop?format=text&bars=colours", "text/plain"),
        ("/admin/results/old?over_time=true", JSON),
        ("/admin/results/live", "text/event-stream"),
        ("/admin/assignments?user=user-1", JSON),
        ("/admin/export/shop", "text/csv"),
        (
            "/admin/export/shop?table=hours&format=jsonl",
            "application/jsonl",
        ),
        (
            "/admin/export/old?format=parquet",
            "application/vnd.apache.parquet",
        ),
        ("/admin/experiments/shop/pause", PAGE),
        ("/admin/acts", JSON),
        ("/admin/history?limit=20", JSON),
        ("/admin/history?format=text&experiment=shop", "text/plain"),
        ("/admin/history?format=html", PAGE),
        ("/admin/history/files/1", JSON),
        ("/admin/config", JSON),
        ("/admin/upstreams", JSON),
        ("/admin/upstreams?format=html", PAGE),
        (
            "/admin/new?name=cart&control=a&experiment=b&percent=10",
            PAGE,
        ),
        ("/admin/metrics", "application/openmetrics-text"),
        ("/admin/openapi.json", JSON),
        ("/admin/healthz", "text/plain"),
        ("/admin/readyz", "text/plain"),
        ("/admin/login", PAGE),
        ("/admin/page.css", "text/css"),
        ("/admin/page.js", "text/javascript"),
    ] {
        api.expect(seen, 200, kind, ("get", path, "", ""));
    }
    for method in ["get", "post"] {
        let gate = |goal: &str| format!("/admin/experiments/shop/gate?for={goal}");
        for (status, goal) in [(200, "safe"), (409, "winner"), (400, "luck")] {
            api.expect(seen, status, JSON, (method, &gate(goal), "", ""));
        }
        let unknown = "/admin/experiments/nothing/gate?for=safe";
        api.expect(seen, 404, JSON, (method, unknown, "", ""));
    }
    api.expect(seen, 307, "", ("get", "/", "", ""));
    api.expect(seen, 307, "", ("get", "/admin", "", ""));
    api.expect(
        seen,
        200,
        JSON,
        ("delete", "/admin/assignments?user=user-7", "", ""),
    );
    api.expect(seen, 200, JSON, ("post", "/admin/reload", "", ""));
    let event = r#"{"event": "purchase", "user": "user-1", "amount": 2}"#;
    api.expect(seen, 202, JSON, ("post", "/admin/events", "", event));
    flags(api, seen);
    for path in ["/admin/results", "/admin/results/old"] {
        let known = "If-None-Match: *\r\n";
        api.expect(seen, 304, "", ("get", path, known, ""));
    }
}

fn flags(api: &AdminApi<'_>, seen: &mut Seen) {
    let user = r#"{"context": {"targetingKey": "user-1"}}"#;
    let long = " ".repeat((64 << 10) + 1);
    for (status, kind, path, headers, body) in [
        (200, JSON, FLAG, "", user),
        (200, JSON, ALL_FLAGS, "", user),
        (304, "", ALL_FLAGS, "If-None-Match: *\r\n", user),
        (400, JSON, FLAG, "", "{}"),
        (400, JSON, ALL_FLAGS, "", "["),
        (404, JSON, "/ofrep/v1/evaluate/flags/nothing", "", user),
        (413, JSON, FLAG, "", &long),
        (413, JSON, ALL_FLAGS, "", &long),
    ] {
        api.expect(seen, status, kind, ("post", path, headers, body));
    }
    let all = api.send("post", ALL_FLAGS, "", user).json();
    let target = &all["eventStreams"][0]["endpoint"]["requestUri"];
    let stream = ("get", target.as_str().unwrap(), "", "");
    api.expect(seen, 200, "text/event-stream", stream);
    api.expect(seen, 401, JSON, ("get", "/ofrep/v1/stream", "", ""));
}

fn invalid_requests(api: &AdminApi<'_>, seen: &mut Seen) {
    for (method, path) in [
        ("get", "/admin/results?format=xls"),
        ("get", "/admin/results/shop?view=other"),
        ("get", "/admin/upstreams?format=xls"),
        ("get", "/admin/new?name=a&name=b"),
        ("get", "/admin/assignments"),
        ("get", "/admin/history?limit=0"),
        ("get", "/admin/history/files/first"),
        ("get", "/admin/export/shop?table=nothing"),
        ("get", "/admin/experiments/shop/pause?group=a&group=b"),
        ("delete", "/admin/assignments?user="),
        ("post", "/admin/events"),
    ] {
        api.expect(seen, 400, JSON, (method, path, "", ""));
    }
    api.expect(seen, 404, JSON, ("get", "/admin/results/nothing", "", ""));
    api.expect(seen, 404, JSON, ("get", "/admin/export/nothing", "", ""));
    api.expect(seen, 404, JSON, ("get", "/admin/history/files/9", "", ""));
    api.expect(
        seen,
        404,
        PAGE,
        ("get", "/admin/experiments/nothing/pause", "", ""),
    );
    api.expect(
        seen,
        422,
        PAGE,
        ("get", "/admin/experiments/shop/promote", "", ""),
    );
    let long = " ".repeat((8 << 20) + 1);
    api.expect(seen, 413, JSON, ("post", "/admin/events", "", &long));
    api.expect(
        seen,
        400,
        JSON,
        ("post", "/admin/events", BROKEN, "what\r\n"),
    );
}

fn decisions(api: &AdminApi<'_>, seen: &mut Seen) {
    let long = " ".repeat((2 << 20) + 1);
    let form = form_on(&api.site.get("/admin/experiments/shop/pause").text());
    for (status, kind, path, headers, body) in [
        (200, JSON, "/shop/pause", "", ""),
        (
            200,
            JSON,
            "/shop/promote",
            "",
            r#"{"group": "b", "reason": null}"#,
        ),
        (
            303,
            "",
            "/shop/resume",
            FORM,
            &*format!("form={form}&reason="),
        ),
        (400, JSON, "/shop/pause", "", "[]"),
        (400, JSON, "/shop/pause", BROKEN, "what\r\n"),
        (400, PAGE, "/shop/pause", FORM, "form=a&form=b"),
        (403, PAGE, "/shop/pause", FORM, "form=AAAA"),
        (403, JSON, "/shop/pause", OTHER_SITE, ""),
        (404, JSON, "/nothing/pause", "", ""),
        (404, JSON, "/nothing/promote", "", ""),
        (404, JSON, "/shop/explode", "", ""),
        (404, PAGE, "/nothing/pause", FORM, &format!("form={form}")),
        (409, JSON, "/settled/pause", "", ""),
        (409, PAGE, "/settled/pause", FORM, &format!("form={form}")),
        (413, JSON, "/shop/pause", "", &long),
        (422, JSON, "/shop/promote", "", ""),
        (
            422,
            PAGE,
            "/shop/promote",
            FORM,
            &format!("form={form}&group=nobody"),
        ),
    ] {
        let path = format!("/admin/experiments{path}");
        api.expect(seen, status, kind, ("post", &path, headers, body));
    }
}

/// Returns the form token of a page.
fn form_on(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"form\" value=\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

fn invalid_file(site: &Site, seen: &mut Seen) {
    let api = AdminApi::of(site);
    site.proxy.write("nonsense: true\n");
    api.expect(seen, 422, JSON, ("post", "/admin/reload", "", ""));
}

fn foreign_host(site: &Site, seen: &mut Seen) {
    let mut api = AdminApi::of(site);
    api.host = "evil.test".to_owned();
    for (method, path) in api.guarded() {
        api.expect(seen, 421, JSON, (&method, &path, "", ""));
    }
}

fn missing_permissions(api: &AdminApi<'_>, seen: &mut Seen) {
    let session = log_in(api);
    for (method, path) in api.guarded() {
        let ask = |headers| (&*method, &*path, headers, "");
        api.expect(seen, 401, JSON, ask(""));
        if method == "get" {
            api.expect(seen, 401, PAGE, ask(HTML));
            continue;
        }
        let other_site = format!("{session}{OTHER_SITE}");
        api.expect(seen, 403, JSON, ask(&other_site));
        // Every role may end its session, and evaluate flags.
        if path != "/admin/logout" && !path.starts_with("/ofrep/") && !path.ends_with("/gate") {
            api.expect(seen, 403, JSON, ask(READ));
        }
    }
    api.expect(
        seen,
        403,
        PAGE,
        ("get", "/admin/experiments/shop/pause", READ, ""),
    );
}

fn log_in(api: &AdminApi<'_>) -> String {
    let answer = api.send("post", "/admin/login", FORM, "token=operate-secret");
    let cookie = answer.header("set-cookie").unwrap();
    format!("Cookie: {}\r\n", cookie.split(';').next().unwrap())
}

fn sessions(api: &AdminApi<'_>, seen: &mut Seen) {
    let session = log_in(api);
    let page = api
        .send("get", "/admin/results?format=html", &session, "")
        .text();
    let long = " ".repeat((2 << 20) + 1);
    let (valid_logout, valid_login) = (format!("form={}", form_on(&page)), "token=operate-secret");
    for (path, session, valid) in [
        ("/admin/login", "", valid_login),
        ("/admin/logout", &*session, &valid_logout),
    ] {
        let with = |headers: &str| format!("{session}{headers}");
        for (status, kind, headers, body) in [
            (400, JSON, &*format!("{FORM}{BROKEN}"), "what\r\n"),
            (403, JSON, &*format!("{FORM}{OTHER_SITE}"), valid),
            (413, JSON, FORM, &long),
            (415, JSON, "Content-Type: text/plain\r\n", valid),
            (422, JSON, FORM, "other=1"),
        ] {
            api.expect(seen, status, kind, ("post", path, &with(headers), body));
        }
    }
    let own = format!("{session}{FORM}");
    for (status, kind, path, headers, body) in [
        (403, PAGE, "/admin/logout", &*own, "form=AAAA"),
        (303, "", "/admin/login", FORM, valid_login),
        // Comes last because it ends the session.
        (303, "", "/admin/logout", &own, &valid_logout),
    ] {
        api.expect(seen, status, kind, ("post", path, headers, body));
    }
    api.expect(
        seen,
        401,
        PAGE,
        ("post", "/admin/login", FORM, "token=wrong"),
    );
}

fn too_many_wrong_tokens(api: &AdminApi<'_>, seen: &mut Seen) {
    let wrong = "Authorization: Bearer guess\r\n";
    for _ in 0..12 {
        api.send("get", "/admin/acts", wrong, "");
    }
    for (method, path) in api.guarded() {
        api.expect(seen, 429, JSON, (&method, &path, OPERATE, ""));
    }
    api.expect(
        seen,
        429,
        JSON,
        ("post", "/admin/login", FORM, "token=operate-secret"),
    );
}

fn without_a_store(seen: &mut Seen) {
    let mut site = Site::start_with("", Some(Redis::start()));
    site.redis.as_mut().unwrap().kill();
    let api = AdminApi::of(&site);
    for path in [
        "/admin/results",
        "/admin/results/shop",
        "/admin/assignments?user=user-1",
        "/admin/export/shop",
        "/admin/acts",
        "/admin/history",
        "/admin/history/files/1",
    ] {
        api.expect(seen, 503, JSON, ("get", path, "", ""));
    }
    for method in ["get", "post"] {
        let gate = "/admin/experiments/shop/gate?for=safe";
        api.expect(seen, 503, JSON, (method, gate, "", ""));
    }
    let pause = "/admin/experiments/shop/pause";
    api.expect(seen, 503, PAGE, ("get", pause, "", ""));
    api.expect(seen, 503, JSON, ("post", pause, "", ""));
    api.expect(
        seen,
        503,
        JSON,
        ("delete", "/admin/assignments?user=user-1", "", ""),
    );
    // Metrics do not need the store.
    api.expect(
        seen,
        200,
        "application/openmetrics-text",
        ("get", "/admin/metrics", "", ""),
    );
}
