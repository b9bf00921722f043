//! Two versions of a site behind one address: validators, cookies, and a version that fails.

use super::http2::{connect, run, text, whole};
use crate::support::client::{Answer, Client};
use crate::support::proxy::Proxy;
use crate::support::raw::Raw;
use crate::support::{refusing_address, until};
use hyper::Request;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use watershed::config;

/// A version that names itself and shows what it got. It answers 304 to the tag `"same"`, as the other
/// version does, and fails with the status that is set.
struct Version {
    origin: Raw,
    status: Arc<AtomicU16>,
    requests: Arc<AtomicUsize>,
}

impl Version {
    fn start(name: &'static str) -> Version {
        let (status, requests) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
        let (failing, asked) = (Arc::clone(&status), Arc::clone(&requests));
        let origin = Raw::start(move |mut peer| {
            while let Some(request) = peer.request() {
                asked.fetch_add(1, Ordering::SeqCst);
                let response = respond(name, &request, failing.load(Ordering::SeqCst));
                let head_bytes = response.find("\r\n\r\n").unwrap() + 4;
                let is_whole = !request.starts_with("HEAD ");
                peer.say(if is_whole {
                    &*response
                } else {
                    &response[..head_bytes]
                });
            }
        });
        Version {
            origin,
            status,
            requests,
        }
    }

    fn fail_with(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn field<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = request.lines();
    lines.find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

fn respond(name: &str, request: &str, status: u16) -> String {
    let shown: Vec<String> = [
        "if-none-match",
        "if-modified-since",
        "if-match",
        "if-range",
        "range",
        "cookie",
    ]
    .into_iter()
    .filter_map(|it| Some(format!("{it}={}", field(request, it)?)))
    .collect();
    let body = format!("{name} {}", shown.join("|"));
    let length = body.len();
    let path = request.split(' ').nth(1).unwrap_or_default();
    if path.starts_with("/only-") && !path.contains(name) {
        let length = name.len();
        return format!("HTTP/1.1 404 Not Found\r\nContent-Length: {length}\r\n\r\n{name}");
    }
    if status != 200 {
        return format!("HTTP/1.1 {status} Failed\r\nContent-Length: {length}\r\n\r\n{body}");
    }
    if field(request, "if-none-match") == Some("\"same\"") {
        return "HTTP/1.1 304 Not Modified\r\nETag: \"same\"\r\n\r\n".to_owned();
    }
    if field(request, "if-match").is_some_and(|tags| !tags.contains("\"same\"")) {
        return "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n".to_owned();
    }
    let more = match path {
        "/weak" => "ETag: W/\"same\"\r\n".to_owned(),
        "/none" => String::new(),
        "/app.js" => {
            "ETag: \"same\"\r\nCache-Control: public, max-age=31536000, immutable\r\n".to_owned()
        }
        "/login" => format!(
            "Set-Cookie: sid={name}; Path=/; HttpOnly\r\nSet-Cookie: theme=dark\r\nSet-Cookie: uid=set\r\nSet-Cookie: __Host-csrf={name}; Path=/; Secure\r\n"
        ),
        "/logout" => "Set-Cookie: sid=; Path=/; Max-Age=0\r\n".to_owned(),
        _ => "ETag: \"same\"\r\n".to_owned(),
    };
    format!("HTTP/1.1 200 OK\r\n{more}Content-Length: {length}\r\n\r\n{body}")
}

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
        format!(
            "upstreams: {{ current: \"http://{}\", next: \"http://{}\" }}\nuser: {{ cookie: uid }}\n\
             experiments: {{ site: {{ control: current, experiment: next, percent: 50{experiment} }} }}\n{more}",
            self.current.origin.address, self.next.origin.address
        )
    }
}

/// A user of each version: the first is control's.
fn users(proxy: &Proxy) -> [String; 2] {
    let mut client = proxy.client();
    let mut find = |version: &str| {
        let mut users = (0..).map(|number| format!("u{number}"));
        let is = |user: &String| {
            let answer = client.get("/", &format!("Cookie: uid={user}\r\n"));
            answer.text().starts_with(version)
        };
        users.find(is).unwrap()
    };
    [find("current "), find("next ")]
}

fn get(proxy: &Proxy, path: &str, user: &str, more: &str) -> Answer {
    let fields = match more.strip_prefix("Cookie: ") {
        Some(cookies) => format!("Cookie: uid={user}; {cookies}"),
        None => format!("Cookie: uid={user}\r\n{more}"),
    };
    proxy.client().get(path, &fields)
}

fn etag(answer: &Answer) -> String {
    answer.header("etag").unwrap().to_owned()
}

#[test]
fn etags_name_the_version_that_issued_them() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes("", ""));
    let [one, two] = users(&proxy);
    let tags = [get(&proxy, "/", &one, ""), get(&proxy, "/", &two, "")].map(|it| etag(&it));
    assert_ne!(tags[0], tags[1]);
    assert!(
        tags[0].starts_with("\"w") && tags[0].ends_with("-same\""),
        "{tags:?}"
    );
    let weak = etag(&get(&proxy, "/weak", &one, ""));
    assert_eq!(weak, format!("W/{}", tags[0]));
    assert_eq!(get(&proxy, "/none", &one, "").header("etag"), None);
    let check = |user: &str, fields: &str, status: u16, saw: &str| {
        let answer = get(&proxy, "/", user, fields);
        assert_eq!(answer.status, status, "{fields}");
        if status == 200 {
            let text = answer.text().replace(&format!("cookie=uid={user}"), "");
            let text = text.split_once(' ').unwrap().1;
            assert_eq!(text.trim_end_matches('|'), saw, "{fields}");
        }
    };
    let [a, b] = &tags;
    // Each version is asked about its own tags, and a browser never keeps the page of another one.
    check(&one, &format!("If-None-Match: {a}\r\n"), 304, "");
    check(&two, &format!("If-None-Match: {a}\r\n"), 200, "");
    check(&two, &format!("If-None-Match: {a}, {b}\r\n"), 304, "");
    check(&one, "If-None-Match: \"same\"\r\n", 200, "");
    let since = "If-Modified-Since: Wed, 21 Oct 2015 07:28:00 GMT\r\n";
    check(&one, since, 200, "");
    check(&one, &format!("If-None-Match: {b}\r\n{since}"), 200, "");
    check(
        &one,
        &format!("If-None-Match: \"other\"\r\nIf-None-Match: {a}\r\n"),
        304,
        "",
    );
    check(&one, "Range: bytes=0-1\r\n", 200, "range=bytes=0-1");
    check(
        &one,
        &format!("Range: bytes=0-1\r\nIf-Range: {a}\r\n"),
        200,
        "if-range=\"same\"|range=bytes=0-1",
    );
    check(
        &two,
        &format!("Range: bytes=0-1\r\nIf-Range: {a}\r\n"),
        200,
        "",
    );
    check(
        &one,
        &format!(
            "{}If-Range: Wed, 21 Oct 2015 07:28:00 GMT\r\n",
            "Range: bytes=0-1\r\n"
        ),
        200,
        "",
    );
    // A lost update is prevented, also between versions.
    let put = |user: &str, tag: &str| {
        let mut client = proxy.client();
        client.say(format!("PUT / HTTP/1.1\r\nHost: a\r\nCookie: uid={user}\r\nIf-Match: {tag}\r\nContent-Length: 1\r\n\r\nx")).unwrap();
        client.answer(true).unwrap().status
    };
    assert_eq!(
        (put(&one, a), put(&one, b), put(&two, b), put(&two, a)),
        (200, 412, 200, 412)
    );
}

#[test]
fn validators_hold_after_a_decision_and_over_http2() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes("", ""));
    let [one, two] = users(&proxy);
    let tags = [get(&proxy, "/", &one, ""), get(&proxy, "/", &two, "")].map(|it| etag(&it));
    let body = r#"{"group": "experiment"}"#;
    let answer = Client::admin(proxy.admin).post("/admin/experiments/site/promote", "", body);
    assert_eq!(answer.status, 200);
    let status =
        |user: &str, tag: &str| get(&proxy, "/", user, &format!("If-None-Match: {tag}\r\n")).status;
    let all = || {
        [
            status(&one, &tags[0]),
            status(&one, &tags[1]),
            status(&two, &tags[1]),
        ]
    };
    assert_eq!(all(), [200, 304, 304], "the old page is not kept");
    // Also after the experiment has left the file.
    let file = site.routes("", "");
    let without = file.split("experiments:").next().unwrap();
    proxy.write(without);
    let answer = Client::admin(proxy.admin).post("/admin/reload", "", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(all(), [200, 304, 304]);
    run(async {
        let mut sender = connect(proxy.public).await;
        let mut ask = async |tag: &str| {
            let request = Request::get("http://site.test/")
                .header("cookie", "uid=anybody")
                .header("if-none-match", tag);
            let response = sender.send_request(request.body(whole("")).unwrap());
            let response = response.await.unwrap();
            let etag = response.headers()["etag"].to_str().unwrap().to_owned();
            (response.status().as_u16(), etag, text(response).await)
        };
        let (status, etag, body) = ask(&tags[0]).await;
        assert_eq!((status, &*etag), (200, &*tags[1]));
        assert!(!body.contains("if-none-match"), "{body}");
        assert_eq!(ask(&tags[1]).await.0, 304);
    });
}

#[test]
fn validators_are_left_alone_where_there_is_one_version_or_the_file_says_so() {
    let site = Site::start();
    for experiment in [", validators: \"off\"", ", match: /elsewhere"] {
        let proxy = Proxy::start(&site.routes(experiment, ""));
        assert_eq!(etag(&get(&proxy, "/", "anybody", "")), "\"same\"");
        let since = "If-Modified-Since: Wed, 21 Oct 2015 07:28:00 GMT\r\n";
        assert!(
            get(&proxy, "/", "anybody", since)
                .text()
                .contains("if-modified-since=")
        );
    }
}

#[test]
fn immutable_assets_stay_cacheable_by_a_cdn() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes("", ""));
    let mut client = proxy.client();
    let asset = client.get("/app.js", "");
    assert_eq!(
        asset.header("cache-control"),
        Some("public, max-age=31536000, immutable")
    );
    assert_eq!(
        (asset.header("vary"), asset.header("set-cookie")),
        (None, None)
    );
    let page = client.get("/", "");
    assert_eq!(page.header("vary"), Some("cookie"));
}

#[test]
fn each_version_has_its_own_cookies() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(", cookies: { shared: [theme] }", ""));
    let [one, two] = users(&proxy);
    let set = |user: &str, path: &str, cookies: &str| -> Vec<String> {
        let answer = get(&proxy, path, user, &format!("Cookie: {cookies}\r\n"));
        answer
            .all("set-cookie")
            .into_iter()
            .map(str::to_owned)
            .collect()
    };
    let (of_one, of_two) = (set(&one, "/login", "x=1"), set(&two, "/login", "x=1"));
    assert_eq!(of_one.len(), 4);
    let name = |cookie: &str| cookie.split('=').next().unwrap().to_owned();
    let (sid_one, sid_two) = (name(&of_one[0]), name(&of_two[0]));
    assert!(sid_one.ends_with("-sid") && sid_two.ends_with("-sid") && sid_one != sid_two);
    assert_eq!(of_one[0], format!("{sid_one}=current; Path=/; HttpOnly"));
    assert_eq!(
        &of_one[1..3],
        ["theme=dark", "uid=set"],
        "shared, and what watershed reads"
    );
    let csrf = name(&of_one[3]);
    assert_eq!(csrf, format!("__Host-{}", sid_one.replace("-sid", "-csrf")));
    // The browser has both, and each version sees its own under the plain name.
    let both = format!("{sid_one}=1; {sid_two}=2; theme=dark; {csrf}=3");
    let sees = |user: &str, cookies: &str| {
        let text = get(&proxy, "/none", user, &format!("Cookie: {cookies}\r\n")).text();
        text.split_once("cookie=").unwrap().1.to_owned()
    };
    assert_eq!(
        sees(&one, &both),
        format!("uid={one}; sid=1; theme=dark; __Host-csrf=3")
    );
    assert_eq!(sees(&two, &both), format!("uid={two}; sid=2; theme=dark"));
    // A session from before is seen until the version has one of its own.
    assert_eq!(sees(&one, "sid=0"), format!("uid={one}; sid=0"));
    assert_eq!(
        sees(&one, &format!("sid=0; {sid_one}=1")),
        format!("uid={one}; sid=1")
    );
    assert_eq!(
        sees(&one, &format!("sid=0; {sid_two}=2")),
        format!("uid={one}; sid=0")
    );
    // A logout ends the version's session, and the one from before, which would come back.
    assert_eq!(
        set(&one, "/logout", &format!("{sid_one}=1; {sid_two}=2")),
        [format!("{sid_one}=; Path=/; Max-Age=0")]
    );
    assert_eq!(
        set(&one, "/logout", &format!("sid=0; {sid_one}=1")),
        [
            format!("{sid_one}=; Path=/; Max-Age=0"),
            "sid=; Path=/; Max-Age=0".to_owned()
        ]
    );
    // Cookies of watershed alone stay here.
    assert_eq!(
        sees(&one, &format!("watershed_session=s; {sid_one}=1")),
        format!("uid={one}; sid=1")
    );
    run(async {
        let mut sender = connect(proxy.public).await;
        let request = Request::get("http://site.test/none")
            .header("cookie", format!("uid={one}"))
            .header("cookie", "sid=0")
            .header("cookie", format!("{sid_two}=2"))
            .header("cookie", format!("{sid_one}=1"));
        let response = sender.send_request(request.body(whole("")).unwrap());
        let text = text(response.await.unwrap()).await;
        assert!(
            text.ends_with(&format!("cookie=uid={one}; sid=1")),
            "{text}"
        );
    });
}

#[test]
fn listed_cookies_alone_are_isolated() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(", cookies: { isolated: [sid] }", ""));
    let answer = get(&proxy, "/login", "anybody", "");
    let names: Vec<_> = answer
        .all("set-cookie")
        .into_iter()
        .map(|it| it.split('=').next().unwrap())
        .collect();
    assert!(names[0].ends_with("-sid"), "{names:?}");
    assert_eq!(names[1..], ["theme", "uid", "__Host-csrf"]);
    // Off by default.
    let proxy = Proxy::start(&site.routes("", ""));
    let answer = get(&proxy, "/login", "anybody", "");
    assert!(answer.all("set-cookie")[0].starts_with("sid="));
}

#[test]
fn another_version_stands_in_for_one_that_fails() {
    let check = |when_down: &str,
                 failing: usize,
                 status: u16,
                 method: &str,
                 expected: (u16, Option<&str>)| {
        let site = Site::start();
        let experiment = format!(", when_down: {when_down}");
        let proxy = Proxy::start(&site.routes(&experiment, ""));
        let users = users(&proxy);
        let versions = [&site.current, &site.next];
        versions[failing].fail_with(status);
        let before = versions.map(Version::requests);
        let user = &users[failing];
        let mut client = proxy.client();
        let body = if method == "POST" {
            "Content-Length: 1\r\n\r\nx"
        } else {
            "\r\n"
        };
        client
            .say(format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nCookie: uid={user}\r\n{body}"
            ))
            .unwrap();
        let answer = client.answer(method != "HEAD").unwrap();
        let found = (answer.status, answer.header("watershed-fallback"));
        assert_eq!(found, expected, "{when_down} {failing} {status} {method}");
        if expected.1.is_some() {
            // No cache may keep it beyond the failure.
            let kept = answer.header("cache-control").unwrap_or_default();
            assert!(kept.contains("private"), "{kept}");
        }
        let after = versions.map(Version::requests);
        let sent: usize = (0..2).map(|it| after[it] - before[it]).sum();
        assert_eq!(
            sent,
            if expected.1.is_some() { 2 } else { 1 },
            "{when_down} {status} {method}"
        );
    };
    let (to_control, to_other) = (Some("site=control"), Some("site=experiment"));
    check("control", 1, 503, "GET", (200, to_control));
    check("control", 1, 503, "HEAD", (200, to_control));
    check("control", 0, 503, "GET", (503, None));
    check("other", 0, 502, "GET", (200, to_other));
    check("other", 1, 504, "GET", (200, to_control));
    check("error", 1, 503, "GET", (503, None));
    // No body is sent twice, and other statuses are answers.
    check("other", 1, 503, "POST", (503, None));
    check("other", 1, 500, "GET", (500, None));
    check(
        "{ serve: other, status: [500, 502-503] }",
        1,
        500,
        "GET",
        (200, to_control),
    );
    check("{ serve: other, status: none }", 1, 503, "GET", (503, None));
}

#[test]
fn client_gets_the_version_that_fails_where_nothing_stands_in() {
    let site = Site::start();
    let gone = refusing_address();
    let routes = site.routes(", when_down: other", "");
    let proxy = Proxy::start(&routes);
    let [one, two] = users(&proxy);
    site.current.fail_with(503);
    site.next.fail_with(502);
    let answer = get(&proxy, "/", &two, "");
    assert_eq!(
        (answer.status, &answer.text()[..7]),
        (503, "current"),
        "the last one that was asked"
    );
    proxy.write(&routes.replace(&site.current.origin.address.to_string(), &gone.to_string()));
    assert_eq!(
        Client::admin(proxy.admin)
            .post("/admin/reload", "", "")
            .status,
        200
    );
    let answer = get(&proxy, "/", &two, "");
    assert_eq!(
        (answer.status, &answer.text()[..4]),
        (502, "next"),
        "what it said is kept"
    );
    assert_eq!(answer.header("watershed-fallback"), None);
    // Control itself is down: the other version serves its users, and they are not counted.
    site.next.fail_with(200);
    let answer = get(&proxy, "/", &one, "");
    assert_eq!(
        (answer.status, answer.header("watershed-fallback")),
        (200, Some("site=experiment"))
    );
    let results = until("the fallback", || {
        let results = proxy.results();
        let fallbacks = results["experiments"][0]["groups"][0]["fallbacks"].clone();
        (fallbacks == 1).then_some(results).ok_or(fallbacks)
    });
    drop(results);
    // Where nobody serves, nobody has stood in: it is an error of the user's group.
    let gone = format!("http://{}", refusing_address());
    let routes = format!(
        "upstreams: {{ current: \"{gone}\", next: \"http://{}\" }}\nuser: {{ cookie: uid }}\n\
         experiments: {{ site: {{ control: current, experiment: next, percent: 1, when_down: other }} }}",
        refusing_address()
    );
    let proxy = Proxy::start(&routes);
    let answer = get(&proxy, "/", "u1", "");
    assert_eq!(
        (answer.status, answer.header("watershed-fallback")),
        (502, None)
    );
    let results = proxy.results();
    let groups = results["experiments"][0]["groups"].as_array().unwrap();
    let fallbacks: Vec<_> = groups.iter().map(|it| it["fallbacks"].clone()).collect();
    assert_eq!(fallbacks, [0, 0]);
}

#[test]
fn conditions_of_one_version_never_reach_the_one_that_stands_in() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(", when_down: other, cookies: isolate", ""));
    let [one, two] = users(&proxy);
    let tag = etag(&get(&proxy, "/", &two, ""));
    let set = get(&proxy, "/login", &two, "");
    let sid = set.all("set-cookie")[0]
        .split('=')
        .next()
        .unwrap()
        .to_owned();
    site.next.fail_with(503);
    let fields = format!("Cookie: {sid}=2\r\nIf-None-Match: {tag}\r\n");
    let answer = get(&proxy, "/", &two, &fields);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), format!("current cookie=uid={two}"));
    assert_ne!(etag(&answer), tag);
    assert_eq!(etag(&answer), etag(&get(&proxy, "/", &one, "")));
}

#[test]
fn parts_of_a_page_follow_its_version() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(", match: [/, /shop/**]", "default: current"));
    let [one, two] = users(&proxy);
    let before = proxy.results()["experiments"][0]["groups"][1]["requests"].clone();
    let ask = |proxy: &Proxy, user: &str, request: &str, fields: &str, expected: &str| {
        let mut client = proxy.client();
        let body = if request.starts_with("POST") {
            "Content-Length: 1\r\n\r\nx"
        } else {
            "\r\n"
        };
        client
            .say(format!(
                "{request} HTTP/1.1\r\nHost: shop.test\r\nCookie: uid={user}\r\n{fields}{body}"
            ))
            .unwrap();
        let answer = client.answer(true).unwrap();
        assert_eq!(
            answer.text().split(' ').next(),
            Some(expected),
            "{user} {request} {fields}"
        );
        answer
    };
    let check = |user: &str, request: &str, fields: &str, expected: &str| {
        ask(&proxy, user, request, fields, expected)
    };
    let page = "Referer: https://shop.test/shop/a?b\r\nSec-Fetch-Site: same-origin\r\n";
    let part = format!("{page}Sec-Fetch-Mode: no-cors\r\n");
    let navigates = format!("{page}Sec-Fetch-Mode: navigate\r\n");
    let answer = check(&two, "GET /app.css", &part, "next");
    assert_eq!(answer.header("cache-control"), Some("private"));
    assert!(etag(&answer).starts_with("\"w"));
    check(&one, "GET /app.css", &part, "current");
    check(&two, "POST /pay", &navigates, "next");
    check(&two, "POST /api/pay", &part, "next");
    // Another page, another site, a page that no experiment matches, and none.
    check(&two, "GET /other", &navigates, "current");
    let elsewhere = part.replace("same-origin", "cross-site");
    check(&two, "GET /app.css", &elsewhere, "current");
    check(
        &two,
        "GET /app.css",
        &part.replace("/shop/", "/blog/"),
        "current",
    );
    check(
        &two,
        "GET /app.css",
        &part.replace("https://shop.test", "https://other.test"),
        "current",
    );
    check(&two, "GET /app.css", "", "current");
    // Nothing of this exposes anybody.
    let after = proxy.results()["experiments"][0]["groups"][1]["requests"].clone();
    assert_eq!(before, after);
    let proxy =
        Proxy::start(&site.routes(", match: /shop/**, assets: \"off\"", "default: current"));
    ask(&proxy, &two, "GET /app.css", &part, "current");
}

#[test]
fn what_one_version_does_not_have_is_looked_for_in_the_other() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(", match: /only-next/**", "default: current"));
    let check = |proxy: &Proxy, request: &str, expected: (u16, &str, Option<&str>)| {
        let mut client = proxy.client();
        client.say(request).unwrap();
        let answer = client.answer(!request.starts_with("HEAD")).unwrap();
        let text = answer.text();
        let version = text.split(' ').next().unwrap();
        assert_eq!(
            (answer.status, version, answer.header("watershed-fallback")),
            expected,
            "{request}"
        );
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let next = Some("site=experiment");
    // Neither a visitor without an ID nor the path names the version of the page.
    check(&proxy, &get("/only-next.js"), (200, "next", next));
    check(&proxy, &get("/only-current.js"), (200, "current", None));
    check(&proxy, &get("/only-nobody.js"), (404, "current", None));
    check(
        &proxy,
        "HEAD /only-next.js HTTP/1.1\r\nHost: a\r\n\r\n",
        (200, "", next),
    );
    let post = "POST /only-next.js HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    let before = site.next.requests();
    check(&proxy, post, (404, "current", None));
    assert_eq!(site.next.requests(), before, "no body goes to two versions");
    // A version that fails has nothing to give: the first 404 stays.
    site.next.fail_with(503);
    check(&proxy, &get("/only-nobody.js"), (404, "current", None));
    site.next.fail_with(200);
    let metrics = proxy.ask("/admin/metrics").text();
    assert!(
        metrics.contains("watershed_assets_followed_total{} 2\n"),
        "{metrics}"
    );
    // Users of the other version find what only control has.
    let proxy = Proxy::start(&site.routes("", ""));
    let [one, two] = users(&proxy);
    let get = |user: &str, path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nCookie: uid={user}\r\n\r\n")
    };
    check(
        &proxy,
        &get(&two, "/only-current.js"),
        (200, "current", Some("site=control")),
    );
    check(&proxy, &get(&one, "/only-next.js"), (200, "next", next));
    check(&proxy, &get(&two, "/only-nobody.js"), (404, "next", None));
    let results = proxy.results();
    let groups = results["experiments"][0]["groups"].as_array().unwrap();
    let fallbacks: Vec<_> = groups.iter().map(|it| it["fallbacks"].clone()).collect();
    assert_eq!(fallbacks, [1, 1]);
    // Off.
    let proxy = Proxy::start(&site.routes(", assets: \"off\"", ""));
    check(&proxy, &get(&one, "/only-next.js"), (404, "current", None));
}

#[test]
fn version_that_is_not_released_serves_nobody_in_the_place_of_another() {
    let site = Site::start();
    let check = |proxy: &Proxy, state: &str| {
        site.current.fail_with(200);
        let before = site.next.requests();
        for user in ["u1", "u2", "u3", "u4"] {
            let answer = get(proxy, "/only-next.js", user, "");
            assert_eq!(
                (answer.status, &*answer.text()),
                (404, "current"),
                "{state}"
            );
        }
        let robot = "User-Agent: Googlebot/2.1\r\n";
        let answer = proxy.client().get("/only-next.js", robot);
        assert_eq!(
            (answer.status, &*answer.text()),
            (404, "current"),
            "{state}"
        );
        site.current.fail_with(503);
        assert_eq!(get(proxy, "/", "u1", "").status, 503, "{state}");
        assert_eq!(site.next.requests(), before, "{state}");
    };
    for state in [
        ", state: draft",
        ", start: 2090-01-01T00:00:00Z",
        ", start: 2020-01-01T00:00:00Z, end: 2020-02-01T00:00:00Z, min_duration: 0s",
    ] {
        let routes = site.routes(&format!("{state}, when_down: other"), "");
        check(&Proxy::start(&routes), state);
    }
    let routes = site.routes(", when_down: other", "");
    let proxy = Proxy::start(&routes.replace("percent: 50", "percent: 0"));
    check(&proxy, "nobody gets it");
    let proxy = Proxy::start(&routes);
    for action in ["pause", "resume", "rollback"] {
        let path = format!("/admin/experiments/site/{action}");
        let answer = Client::admin(proxy.admin).post(&path, "", "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        if action != "resume" {
            check(&proxy, action);
        }
    }
    // Whoever sees a draft by an override finds what control has.
    site.current.fail_with(200);
}

#[test]
fn groups_of_one_upstream_have_validators_of_their_own() {
    let origin = Version::start("current");
    let group = |rewrite: &str| {
        format!(
            "landing: {{ match: {{ path: / }}, groups: {{ control: {{ weight: 1 }}, experiment: {{ weight: 1{rewrite} }} }}"
        )
    };
    let routes = |rewrite: &str, more: &str| {
        format!(
            "upstreams: {{ current: \"http://{}\" }}\nuser: {{ cookie: uid }}\nexperiments: {{ {}{more} }} }}\n",
            origin.origin.address,
            group(rewrite)
        )
    };
    let rewritten = routes(", rewrite: /landing/", "");
    let proxy = Proxy::start(&rewritten);
    let mut users = (0..).map(|number| format!("u{number}"));
    let first = users.next().unwrap();
    let tag = etag(&get(&proxy, "/", &first, ""));
    let other = users.find(|user| etag(&get(&proxy, "/", user, "")) != tag);
    let (other, since) = (
        other.unwrap(),
        "If-Modified-Since: Mon, 01 Nov 2026 00:00:00 GMT\r\n",
    );
    let asks = |user: &str, fields: &str| get(&proxy, "/", user, fields);
    let known = format!("If-None-Match: {tag}\r\n");
    assert_eq!(asks(&first, &known).status, 304);
    assert_eq!(
        asks(&other, &known).status,
        200,
        "a page of the other group"
    );
    for user in [&first, &other] {
        let text = asks(user, since).text();
        assert!(!text.contains("if-modified-since"), "{text}");
    }
    // After a decision, too.
    let body = r#"{"group": "experiment"}"#;
    let answer = Client::admin(proxy.admin).post("/admin/experiments/landing/promote", "", body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let all = [&first, &other].map(|user| etag(&asks(user, "")));
    assert_eq!(all[0], all[1]);
    assert!(!asks(&first, since).text().contains("if-modified-since"));
    // Groups whose requests are the same have one version, and the file may switch it off.
    let proxy = Proxy::start(&routes("", ""));
    assert_eq!(etag(&get(&proxy, "/", &first, "")), "\"same\"");
    let proxy = Proxy::start(&routes(", rewrite: /landing/", ", validators: \"off\""));
    assert_eq!(etag(&get(&proxy, "/", &first, "")), "\"same\"");
}

#[test]
fn version_rules_are_checked() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes("", ""));
    let check = |experiment: &str, says: &str| {
        proxy.write(&site.routes(experiment, ""));
        let answer = Client::admin(proxy.admin).post("/admin/reload", "", "");
        assert_eq!(answer.status, 422, "{experiment}");
        let said = answer.text().replace("\\n", "\n");
        assert!(said.contains(says), "{experiment}: {said}");
    };
    check(", validators: yes", "one of: version, off");
    check(", cookies: all", "one of: isolate, shared");
    check(
        ", cookies: { isolated: [a], shared: [a] }",
        "`a` is isolated and shared",
    );
    check(", cookies: { isolated: [\"a b\"] }", "a cookie's name");
    check(", when_down: both", "one of: control, other, error");
    check(
        ", when_down: { serve: other, status: [404] }",
        "a status from 500 to 599",
    );
    let same = site
        .routes(", when_down: other", "")
        .replace("experiment: next", "experiment: current");
    proxy.write(&same);
    let answer = Client::admin(proxy.admin).post("/admin/reload", "", "");
    assert!(
        answer.text().contains("the groups have the same upstream"),
        "{}",
        answer.text()
    );
}

#[test]
fn version_that_stands_in_after_a_decision_is_not_kept_by_caches() {
    let site = Site::start();
    let won = site.routes(", when_down: other, winner: experiment", "");
    let proxy = Proxy::start(&won);
    let get = || proxy.client().get("/", "Cookie: uid=ann\r\n");
    assert_eq!(get().header("cache-control"), None);
    site.next.fail_with(503);
    let answer = get();
    assert_eq!(answer.header("watershed-fallback"), Some("site=control"));
    assert_eq!(answer.header("cache-control"), Some("private"));
}

#[test]
fn version_that_does_not_answer_holds_up_no_404() {
    let site = Site::start();
    let silent = Raw::start(|mut peer| {
        peer.request();
        peer.is_left(std::time::Duration::from_secs(600));
    });
    let routes = site.routes("", "timeouts: { response: 10m }").replace(
        &site.next.origin.address.to_string(),
        &silent.address.to_string(),
    );
    let proxy = Proxy::start(&routes);
    let user = &users(&Proxy::start(&site.routes("", "")))[0];
    site.current.fail_with(404);
    let answer = proxy
        .client()
        .get("/gone.png", &format!("Cookie: uid={user}\r\n"));
    assert_eq!(answer.status, 404);
}

#[test]
fn statuses_that_say_nothing_are_reported() {
    let check = |when_down: &str, found: &str| {
        let text = format!(
            "upstreams: {{ a: http://127.0.0.1:1, b: http://127.0.0.1:2 }}\n\
             experiments: {{ x: {{ control: a, experiment: b, percent: 50, when_down: {when_down} }} }}\n"
        );
        let plan = config::parse(&text, std::path::Path::new("routes.yaml"), &|_| None);
        let said = plan.map(drop).expect_err(when_down).to_string();
        let place = "experiments.x.when_down.status: ";
        assert!(said.contains(place) && said.contains(found), "{said}");
    };
    check("{ serve: other, status: [] }", "an empty list");
    check(
        "{ serve: error, status: 502 }",
        "`status` beside `serve: error`",
    );
}
