//! Every answer that the document names, provoked by hand: none is made up, and each is of a kind
//! that is named.

use super::{OPERATE, Site, TOKENS};
use crate::support::client::{Answer, Client};
use crate::support::redis::Redis;
use serde_json::Value;
use std::collections::BTreeSet;

/// They come of what a request does not bring about: a process that stops, a journal that is full.
const NOT_BY_REQUESTS: [&str; 3] = [
    "get /admin/readyz 503",
    "post /admin/reload 503",
    "post /admin/events 503",
];

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const HTML: &str = "Accept: text/html\r\n";
const READ: &str = "Authorization: Bearer read-secret\r\n";
const ELSEWHERE: &str = "Origin: http://evil.test\r\n";
/// A body that nobody can read.
const BROKEN: &str = "Transfer-Encoding: chunked\r\n";

/// What was answered, as `get /admin/results 200`.
#[derive(Default)]
struct Seen(BTreeSet<String>);

/// A door that is asked.
struct Asked<'a> {
    site: &'a Site,
    document: Value,
    host: String,
}

impl Asked<'_> {
    fn of(site: &Site) -> Asked<'_> {
        Asked {
            site,
            document: site.document(),
            host: site.proxy.admin.to_string(),
        }
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut client = Client::door(self.site.proxy.admin);
        let method = method.to_uppercase();
        let length = match headers.contains(BROKEN) {
            true => String::new(),
            false => format!("Content-Length: {}\r\n", body.len()),
        };
        let host = &self.host;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}{headers}\r\n");
        client.say(head + body).unwrap();
        if path == "/admin/results/live" && self.document["paths"][path].is_object() {
            // It does not end.
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

    /// Asks, and holds the answer to what the document says of it.
    #[track_caller]
    fn expect(&self, seen: &mut Seen, status: u16, kind: &str, ask: (&str, &str, &str, &str)) {
        let (method, path, headers, body) = ask;
        let answer = self.send(method, path, headers, body);
        let told = format!("{method} {path}: {}", answer.text());
        assert_eq!(answer.status, status, "{told}");
        let said = answer.header("content-type").unwrap_or_default();
        assert_eq!(said.split(';').next(), Some(kind), "{told}");
        let form = self.form_of(path);
        let operation = &self.document["paths"][&form][method];
        let written = &operation["responses"][status.to_string()];
        assert!(written.is_object(), "{told} is not written down");
        let named = kind.is_empty() || written["content"][kind].is_object();
        assert!(named, "{told}: {kind} is not written down");
        for header in written["headers"].as_object().into_iter().flatten() {
            let named = answer.header(header.0).is_some() || kind == "text/html";
            assert!(named, "{told}: has no {}", header.0);
        }
        seen.0.insert(format!("{method} {form} {status}"));
    }

    /// The path as the document writes it.
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

    /// All operations behind the guard, with a path that can be asked for.
    fn guarded(&self) -> Vec<(String, String)> {
        let paths = self.document["paths"].as_object().unwrap();
        let mut all = Vec::new();
        for (form, item) in paths {
            for (method, operation) in item.as_object().unwrap() {
                if operation["responses"]["421"].is_object() {
                    let path = form.replace("{experiment}", "shop");
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
fn every_answer_that_is_written_down_is_given() {
    let mut seen = Seen::default();
    let open = Site::start("");
    what_is_asked_for(&Asked::of(&open), &mut seen);
    what_cannot_be_done(&Asked::of(&open), &mut seen);
    decisions(&Asked::of(&open), &mut seen);
    unsound_file(&open, &mut seen);
    by_another_name(&open, &mut seen);
    let closed = Site::start(TOKENS);
    who_may_not(&Asked::of(&closed), &mut seen);
    sessions(&Asked::of(&closed), &mut seen);
    too_many_guesses(&Asked::of(&closed), &mut seen);
    without_a_store(&mut seen);

    let document = open.document();
    let paths = document["paths"].as_object().unwrap().iter();
    let written = paths.flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter();
        operations.flat_map(move |(method, operation)| {
            let answers = operation["responses"].as_object().unwrap().keys();
            answers.map(move |status| format!("{method} {path} {status}"))
        })
    });
    let unseen: Vec<String> = written
        .filter(|it| !seen.0.contains(it) && !NOT_BY_REQUESTS.contains(&&**it))
        .collect();
    assert_eq!(unseen, [""; 0], "written down, and never answered");
}

fn what_is_asked_for(door: &Asked<'_>, seen: &mut Seen) {
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
        ("/admin/config", JSON),
        ("/admin/upstreams", JSON),
        ("/admin/metrics", "application/openmetrics-text"),
        ("/admin/openapi.json", JSON),
        ("/admin/healthz", "text/plain"),
        ("/admin/readyz", "text/plain"),
        ("/admin/login", PAGE),
        ("/admin/page.css", "text/css"),
        ("/admin/page.js", "text/javascript"),
    ] {
        door.expect(seen, 200, kind, ("get", path, "", ""));
    }
    door.expect(seen, 307, "", ("get", "/", "", ""));
    door.expect(seen, 307, "", ("get", "/admin", "", ""));
    door.expect(
        seen,
        200,
        JSON,
        ("delete", "/admin/assignments?user=user-7", "", ""),
    );
    door.expect(seen, 200, JSON, ("post", "/admin/reload", "", ""));
    let event = r#"{"event": "purchase", "user": "user-1", "amount": 2}"#;
    door.expect(seen, 202, JSON, ("post", "/admin/events", "", event));
    for path in ["/admin/results", "/admin/results/old"] {
        let known = "If-None-Match: *\r\n";
        door.expect(seen, 304, "", ("get", path, known, ""));
    }
}

fn what_cannot_be_done(door: &Asked<'_>, seen: &mut Seen) {
    for (method, path) in [
        ("get", "/admin/results?format=xls"),
        ("get", "/admin/results/shop?view=other"),
        ("get", "/admin/assignments"),
        ("get", "/admin/export/shop?table=nothing"),
        ("get", "/admin/experiments/shop/pause?group=a&group=b"),
        ("delete", "/admin/assignments?user="),
        ("post", "/admin/events"),
    ] {
        door.expect(seen, 400, JSON, (method, path, "", ""));
    }
    door.expect(seen, 404, JSON, ("get", "/admin/results/nothing", "", ""));
    door.expect(seen, 404, JSON, ("get", "/admin/export/nothing", "", ""));
    door.expect(
        seen,
        404,
        PAGE,
        ("get", "/admin/experiments/nothing/pause", "", ""),
    );
    door.expect(
        seen,
        422,
        PAGE,
        ("get", "/admin/experiments/shop/promote", "", ""),
    );
    let long = " ".repeat((8 << 20) + 1);
    door.expect(seen, 413, JSON, ("post", "/admin/events", "", &long));
    door.expect(
        seen,
        400,
        JSON,
        ("post", "/admin/events", BROKEN, "what\r\n"),
    );
}

fn decisions(door: &Asked<'_>, seen: &mut Seen) {
    let long = " ".repeat((2 << 20) + 1);
    let form = form_on(&door.site.get("/admin/experiments/shop/pause").text());
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
        (403, JSON, "/shop/pause", ELSEWHERE, ""),
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
        door.expect(seen, status, kind, ("post", &path, headers, body));
    }
}

/// What a page's forms carry.
fn form_on(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"form\" value=\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

fn unsound_file(site: &Site, seen: &mut Seen) {
    let door = Asked::of(site);
    site.proxy.write("nonsense: true\n");
    door.expect(seen, 422, JSON, ("post", "/admin/reload", "", ""));
}

fn by_another_name(site: &Site, seen: &mut Seen) {
    let mut door = Asked::of(site);
    door.host = "evil.test".to_owned();
    for (method, path) in door.guarded() {
        door.expect(seen, 421, JSON, (&method, &path, "", ""));
    }
}

fn who_may_not(door: &Asked<'_>, seen: &mut Seen) {
    let session = log_in(door);
    for (method, path) in door.guarded() {
        let ask = |headers| (&*method, &*path, headers, "");
        door.expect(seen, 401, JSON, ask(""));
        if method == "get" {
            door.expect(seen, 401, PAGE, ask(HTML));
            continue;
        }
        let elsewhere = format!("{session}{ELSEWHERE}");
        door.expect(seen, 403, JSON, ask(&elsewhere));
        if path != "/admin/logout" {
            door.expect(seen, 403, JSON, ask(READ));
        }
    }
    door.expect(
        seen,
        403,
        PAGE,
        ("get", "/admin/experiments/shop/pause", READ, ""),
    );
}

fn log_in(door: &Asked<'_>) -> String {
    let answer = door.send("post", "/admin/login", FORM, "token=operate-secret");
    let cookie = answer.header("set-cookie").unwrap();
    format!("Cookie: {}\r\n", cookie.split(';').next().unwrap())
}

fn sessions(door: &Asked<'_>, seen: &mut Seen) {
    let session = log_in(door);
    let page = door
        .send("get", "/admin/results?format=html", &session, "")
        .text();
    let long = " ".repeat((2 << 20) + 1);
    let (sound, known) = (format!("form={}", form_on(&page)), "token=operate-secret");
    for (path, who, sound) in [
        ("/admin/login", "", known),
        ("/admin/logout", &*session, &sound),
    ] {
        let with = |headers: &str| format!("{who}{headers}");
        for (status, kind, headers, body) in [
            (400, JSON, &*format!("{FORM}{BROKEN}"), "what\r\n"),
            (403, JSON, &*format!("{FORM}{ELSEWHERE}"), sound),
            (413, JSON, FORM, &long),
            (415, JSON, "Content-Type: text/plain\r\n", sound),
            (422, JSON, FORM, "other=1"),
        ] {
            door.expect(seen, status, kind, ("post", path, &with(headers), body));
        }
    }
    let own = format!("{session}{FORM}");
    for (status, kind, path, who, body) in [
        (403, PAGE, "/admin/logout", &*own, "form=AAAA"),
        (303, "", "/admin/login", FORM, known),
        // The last: it ends the session.
        (303, "", "/admin/logout", &own, &sound),
    ] {
        door.expect(seen, status, kind, ("post", path, who, body));
    }
    door.expect(
        seen,
        401,
        PAGE,
        ("post", "/admin/login", FORM, "token=wrong"),
    );
}

fn too_many_guesses(door: &Asked<'_>, seen: &mut Seen) {
    let guess = "Authorization: Bearer guess\r\n";
    for _ in 0..12 {
        door.send("get", "/admin/acts", guess, "");
    }
    for (method, path) in door.guarded() {
        door.expect(seen, 429, JSON, (&method, &path, OPERATE, ""));
    }
    door.expect(
        seen,
        429,
        JSON,
        ("post", "/admin/login", FORM, "token=operate-secret"),
    );
}

fn without_a_store(seen: &mut Seen) {
    let mut site = Site::start_with("", Some(Redis::start()));
    site.redis.as_mut().unwrap().kill();
    let door = Asked::of(&site);
    for path in [
        "/admin/results",
        "/admin/results/shop",
        "/admin/assignments?user=user-1",
        "/admin/export/shop",
        "/admin/acts",
    ] {
        door.expect(seen, 503, JSON, ("get", path, "", ""));
    }
    let pause = "/admin/experiments/shop/pause";
    door.expect(seen, 503, PAGE, ("get", pause, "", ""));
    door.expect(seen, 503, JSON, ("post", pause, "", ""));
    door.expect(
        seen,
        503,
        JSON,
        ("delete", "/admin/assignments?user=user-1", "", ""),
    );
    // What needs no store is answered without it.
    door.expect(
        seen,
        200,
        "application/openmetrics-text",
        ("get", "/admin/metrics", "", ""),
    );
}
