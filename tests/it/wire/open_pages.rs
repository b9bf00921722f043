//! A page that is open keeps its version, whatever happens to the version of its user meanwhile.

use super::http2::{connect, run, text, whole};
use crate::support::client::{Answer, Client};
use crate::support::proxy::Proxy;
use crate::support::raw::Raw;
use crate::support::redis::Redis;
use hyper::Request;
use std::sync::{Arc, Mutex};

/// A version that names itself, and keeps all requests.
struct Version {
    origin: Raw,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Version {
    fn start(name: &'static str) -> Version {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        let origin = Raw::start(move |mut peer| {
            while let Some(request) = peer.request() {
                let path = request.split(' ').nth(1).unwrap_or_default();
                let head = match path {
                    "/pay" => "303 See Other\r\nLocation: /thanks?id=1".to_owned(),
                    "/app.js" => {
                        "200 OK\r\nCache-Control: public, max-age=31536000, immutable".to_owned()
                    }
                    "/file.zip" => "200 OK\r\nContent-Disposition: attachment".to_owned(),
                    "/broken" => "404 Not Found".to_owned(),
                    "/campaign" if name == "current" => "404 Not Found".to_owned(),
                    _ => "200 OK".to_owned(),
                };
                let length = name.len();
                kept.lock().unwrap().push(request);
                peer.say(format!(
                    "HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{name}"
                ));
            }
        });
        Version { origin, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// What the last request had in this field.
    fn last(&self, name: &str) -> Option<String> {
        let requests = self.requests();
        let mut lines = requests.last()?.lines();
        lines.find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    }
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

    fn routes(&self, percent: u32, experiment: &str, more: &str) -> String {
        format!(
            "upstreams: {{ current: \"http://{}\", next: \"http://{}\" }}\nuser: {{ header: X-User }}\n\
             overrides: {{ secret: 0123456789abcdef0123456789abcdef }}\n\
             experiments: {{ site: {{ control: current, experiment: next, percent: {percent}{experiment} }} }}\n{more}",
            self.current.origin.address, self.next.origin.address
        )
    }
}

/// A browser of one user, with the cookie of its open pages.
struct Browser<'a> {
    proxy: &'a Proxy,
    pages: Option<String>,
}

const NAVIGATES: &str = "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\n";

impl<'a> Browser<'a> {
    fn new(proxy: &'a Proxy) -> Browser<'a> {
        Browser { proxy, pages: None }
    }

    fn send(&mut self, request: &str, fields: &str) -> Answer {
        let body = match request.starts_with("GET") {
            true => "\r\n",
            false => "Content-Length: 3\r\n\r\na=b",
        };
        let cookie = self.pages.as_ref();
        let cookie = cookie.map_or(String::new(), |it| format!("Cookie: a=1; {it}; b=2\r\n"));
        let mut client = self.proxy.client();
        client
            .say(format!(
                "{request} HTTP/1.1\r\nHost: shop.test\r\nX-User: ann\r\n{cookie}{fields}{body}"
            ))
            .unwrap();
        let answer = client.answer(true).unwrap();
        for cookie in answer.all("set-cookie") {
            if cookie.starts_with("watershed_pages=") {
                self.pages = Some(cookie.split(';').next().unwrap().to_owned());
            }
        }
        answer
    }

    /// Opens a page.
    fn open(&mut self, path: &str) -> String {
        self.send(&format!("GET {path}"), NAVIGATES).text()
    }

    /// Sends a request that belongs to a page.
    fn of_page(&mut self, page: &str, request: &str) -> String {
        let referer = format!(
            "Referer: https://shop.test{page}\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n"
        );
        self.send(request, &referer).text()
    }
}

#[track_caller]
fn load(proxy: &Proxy, routes: &str) {
    proxy.write(routes);
    let answer = Client::admin(proxy.admin).post("/admin/reload", "", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[track_caller]
fn decide(proxy: &Proxy, action: &str, body: &str) {
    let path = format!("/admin/experiments/site/{action}");
    let answer = Client::admin(proxy.admin).post(&path, "", body);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Opens a page of the first version, changes something, and sees that the page keeps its version while a
/// new page has the second.
#[track_caller]
fn check_kept(proxy: &Proxy, versions: [&str; 2], change: impl FnOnce()) {
    let [before, after] = versions;
    let mut browser = Browser::new(proxy);
    assert_eq!(browser.open("/shop?a=1"), before);
    change();
    assert_eq!(browser.of_page("/shop?a=1", "GET /app.css"), before);
    assert_eq!(browser.of_page("/shop?a=1", "GET /api/cart"), before);
    assert_eq!(browser.of_page("/shop?a=1", "POST /api/cart"), before);
    // A font names its stylesheet, and some pages nothing.
    assert_eq!(browser.of_page("/app.css", "GET /font.woff2"), before);
    let part = "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n";
    assert_eq!(browser.send("GET /api/cart", part).text(), before);
    // Another site's requests, and those of a browser without the cookie, belong to no page.
    let foreign = "Referer: https://shop.test/shop?a=1\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n";
    assert_eq!(browser.send("GET /app.css", foreign).text(), after);
    assert_eq!(
        Browser::new(proxy).of_page("/shop?a=1", "GET /app.css"),
        after
    );
    // A page in another tab has the new version, and both keep their own.
    assert_eq!(browser.open("/other"), after);
    for _ in 0..2 {
        assert_eq!(browser.of_page("/other", "GET /app.css"), after);
        assert_eq!(browser.of_page("/shop?a=1", "POST /api/cart"), before);
    }
    // The same page again is of the new version, and so is what belongs to it.
    assert_eq!(browser.open("/shop?a=1"), after);
    assert_eq!(browser.of_page("/shop?a=1", "POST /api/cart"), after);
}

#[test]
fn open_page_keeps_its_version_after_a_weight_change() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(0, "", ""));
    check_kept(&proxy, ["current", "next"], || {
        load(&proxy, &site.routes(100, "", ""));
    });
    let metrics = proxy.ask("/admin/metrics").text();
    assert!(
        metrics.contains("watershed_requests_pinned_total{} 7\n"),
        "{metrics}"
    );
}

#[test]
fn open_page_keeps_its_version_after_decisions() {
    for store in ["", "redis"] {
        let redis = (store == "redis").then(Redis::start);
        let more = redis
            .as_ref()
            .map_or(String::new(), |it| format!("store: {}\n", it.url()));
        let site = Site::start();
        let proxy = Proxy::start(&site.routes(0, "", &more));
        let promote = r#"{"group": "experiment"}"#;
        check_kept(&proxy, ["current", "next"], || {
            decide(&proxy, "promote", promote);
        });
        decide(&proxy, "resume", "{}");
        load(&proxy, &site.routes(100, "", &more));
        check_kept(&proxy, ["next", "current"], || {
            decide(&proxy, "pause", "{}");
        });
        check_kept(&proxy, ["current", "next"], || {
            decide(&proxy, "resume", "{}");
        });
        let proxy = Proxy::start(&site.routes(100, "", ""));
        check_kept(&proxy, ["next", "current"], || {
            decide(&proxy, "rollback", "{}");
        });
    }
}

#[test]
fn open_page_keeps_its_version_when_more_or_fewer_users_are_admitted_and_without_the_experiment() {
    let site = Site::start();
    let routes = |share: &str| site.routes(100, &format!(", {share}"), "default: current");
    let (few, all) = (routes("traffic: 0.0001%"), routes("traffic: 100%"));
    let ramp = routes("ramp: [ 0.0001% for 1h, 100% ]").replace(
        "control: current, experiment: next, percent: 100",
        "groups: { control: { weight: 0, upstream: current }, experiment: { weight: 1, upstream: next } }",
    );
    let proxy = Proxy::start(&few);
    check_kept(&proxy, ["current", "next"], || load(&proxy, &all));
    check_kept(&proxy, ["next", "current"], || load(&proxy, &few));
    load(&proxy, &ramp);
    check_kept(&proxy, ["current", "next"], || load(&proxy, &all));
    check_kept(&proxy, ["next", "current"], || load(&proxy, &ramp));
    load(&proxy, &all);
    let mut browser = Browser::new(&proxy);
    assert_eq!(browser.open("/shop"), "next");
    decide(&proxy, "promote", r#"{"group": "control"}"#);
    let file = site.routes(100, "", "default: current");
    let without = file
        .lines()
        .filter(|line| !line.trim_start().starts_with("experiments:"));
    load(&proxy, &without.collect::<Vec<_>>().join("\n"));
    assert_eq!(browser.open("/new"), "current");
    assert_eq!(browser.of_page("/shop", "POST /api/cart"), "next");
}

#[test]
fn form_posts_to_the_version_that_served_it_and_its_redirect_leads_there() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(0, "", ""));
    let mut browser = Browser::new(&proxy);
    assert_eq!(browser.open("/checkout"), "current");
    load(&proxy, &site.routes(100, "", ""));
    let form = format!("Referer: https://shop.test/checkout\r\n{NAVIGATES}");
    let before = site.next.requests().len();
    let answer = browser.send("POST /pay", &form);
    assert_eq!((answer.status, &*answer.text()), (303, "current"));
    assert_eq!(
        site.next.requests().len(),
        before,
        "the body goes to one version"
    );
    let posts = site.current.requests();
    let posts = posts.iter().filter(|it| it.starts_with("POST "));
    assert_eq!(posts.count(), 1);
    // The order is in the session of that version.
    assert_eq!(browser.open("/thanks?id=1"), "current");
    assert_eq!(browser.of_page("/thanks?id=1", "GET /app.css"), "current");
    // Only what the redirect led to, and only once.
    assert_eq!(browser.open("/thanks?id=2"), "next");
    assert_eq!(browser.open("/thanks?id=1"), "next");
    assert_eq!(browser.of_page("/thanks?id=1", "GET /app.css"), "next");
}

#[test]
fn form_of_a_version_that_breaks_off_is_sent_to_no_other() {
    let site = Site::start();
    let broken = Raw::start(|mut peer| {
        while peer.request().is_some_and(|it| it.starts_with("GET ")) {
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold");
        }
    });
    let routes = |percent| {
        site.routes(percent, ", when_down: other", "").replace(
            &site.current.origin.address.to_string(),
            &broken.address.to_string(),
        )
    };
    let proxy = Proxy::start(&routes(0));
    let mut browser = Browser::new(&proxy);
    assert_eq!(browser.open("/checkout"), "old");
    load(&proxy, &routes(100));
    let form = format!("Referer: https://shop.test/checkout\r\n{NAVIGATES}");
    assert_eq!(browser.send("POST /pay", &form).status, 502);
    assert_eq!(site.next.requests().len(), 0);
}

#[test]
fn pages_are_remembered_no_longer_than_the_file_says() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(0, ", skew: 0", ""));
    let mut browser = Browser::new(&proxy);
    let answer = browser.send("GET /shop", NAVIGATES);
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(site.current.last("watershed-version"), None);
    // What is not a page, and what never changes, has no cookie.
    let proxy = Proxy::start(&site.routes(0, "", ""));
    let mut browser = Browser::new(&proxy);
    assert_eq!(browser.send("GET /shop", "").header("set-cookie"), None);
    let asset = browser.send("GET /app.js", NAVIGATES);
    assert_eq!(asset.header("set-cookie"), None);
    let page = browser.send("GET /shop", NAVIGATES);
    let cookie = page.header("set-cookie").unwrap();
    assert!(
        cookie.ends_with("; Path=/; Max-Age=3600; SameSite=Lax; HttpOnly"),
        "{cookie}"
    );
    assert_eq!(page.header("cache-control"), Some("private"));
    // A page that is remembered need not be again.
    let page = browser.send("GET /shop", NAVIGATES);
    assert_eq!(
        (page.header("set-cookie"), page.header("cache-control")),
        (None, None)
    );
    assert_eq!(
        site.current.last("cookie").unwrap(),
        "a=1; b=2",
        "the cookie stays here"
    );
    // A forged cookie, and an ID of another, choose nothing.
    load(&proxy, &site.routes(100, "", ""));
    let genuine = browser.pages.clone().unwrap();
    let last = genuine.len() - 1;
    let digit = if genuine.ends_with('0') { "1" } else { "0" };
    browser.pages = Some(format!("{}{digit}", &genuine[..last]));
    assert_eq!(browser.of_page("/shop", "GET /app.css"), "next");
    browser.pages = Some(genuine);
    assert_eq!(browser.of_page("/shop", "GET /app.css"), "current");
}

#[test]
fn request_is_pinned_by_header_or_query() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(0, ", match: /shop/**", "default: next"));
    let mut browser = Browser::new(&proxy);
    assert_eq!(browser.open("/shop/cart"), "current");
    let token = site.current.last("watershed-version").unwrap();
    let other = if token.starts_with('A') { "B" } else { "A" };
    let forged = format!("{other}{}", &token[1..]);
    let file = site.routes(100, ", match: /shop/**", "default: next");
    load(
        &proxy,
        &file.replace(
            "default:",
            "routes: [ { match: /internal/**, respond: { status: 403 } } ]\ndefault:",
        ),
    );
    let check = |request: &str, fields: &str, expected: &str| {
        let answer = Browser::new(&proxy).send(request, fields);
        assert_eq!(answer.text(), expected, "{request} {fields}");
        answer
    };
    let header = format!("Watershed-Version: {token}\r\n");
    for path in ["/shop/api", "/api"] {
        check(&format!("GET {path}"), "", "next");
        let answer = check(&format!("GET {path}"), &header, "current");
        assert_eq!(answer.header("cache-control"), Some("private"));
        assert_eq!(site.current.last("watershed-version"), None);
        check(&format!("POST {path}"), &header, "current");
        check(
            &format!("GET {path}?a=1&watershed_version={token}"),
            "",
            "current",
        );
        check(
            &format!("GET {path}"),
            &format!("Watershed-Version: {forged}\r\n"),
            "next",
        );
    }
    // A page comes from the version of its user's group.
    check("GET /shop/cart", &format!("{header}{NAVIGATES}"), "next");
    // What a route answers stays so, whatever the client says.
    let referer = "Referer: http://shop.test/shop/cart\r\nSec-Fetch-Mode: cors\r\n";
    for fields in [&*header, referer] {
        let answer = Browser::new(&proxy).send("GET /internal/keys", fields);
        assert_eq!(answer.status, 403, "{fields}");
    }
    // Nothing of this counts for a group.
    let results = proxy.results();
    let users = |group: usize| results["experiments"][0]["groups"][group]["users"].clone();
    assert_eq!([users(0), users(1)], [1, 0]);
    run(async {
        let mut sender = connect(proxy.public).await;
        let request = Request::get("http://shop.test/shop/api").header("watershed-version", token);
        let response = sender.send_request(request.body(whole("")).unwrap());
        assert_eq!(text(response.await.unwrap()).await, "current");
    });
}

#[test]
fn page_that_only_the_other_version_has_is_a_page_of_that_version() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(100, ", match: /checkout/**", "default: current"));
    let mut browser = Browser::new(&proxy);
    assert_eq!(browser.open("/campaign"), "next");
    for (page, request) in [
        ("/campaign", "GET /app.css"),
        ("/campaign", "POST /api/subscribe"),
        ("/assets/site.css", "GET /font.woff2"),
    ] {
        assert_eq!(browser.of_page(page, request), "next", "{request}");
    }
    assert_eq!(browser.open("/home"), "current");
    assert_eq!(browser.of_page("/home", "GET /app.css"), "current");
    assert_eq!(browser.of_page("/campaign", "GET /app.css"), "next");
    // A page that the default version has leaves nothing in a browser that has opened no other.
    let mut browser = Browser::new(&proxy);
    assert_eq!(browser.open("/home"), "current");
    assert_eq!(browser.pages, None);
}

#[test]
fn pages_that_are_the_same_in_all_versions_leave_nothing_in_a_browser() {
    let site = Site::start();
    let cache = "cache: { routes: [ { match: /legal/**, upstream: off, header: off } ] }";
    let proxy = Proxy::start(&site.routes(50, "", cache));
    let mut browser = Browser::new(&proxy);
    let answer = browser.send("GET /legal/terms", NAVIGATES);
    assert_eq!(answer.all("set-cookie"), [""; 0]);
    assert_eq!(answer.header("cache-control"), None);
    assert_eq!(answer.header("vary"), None);
    browser.open("/shop");
    assert!(browser.pages.is_some());
}

#[test]
fn what_files_of_a_page_load_follows_the_page() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(100, ", match: /checkout/**", "default: current"));
    let mut browser = Browser::new(&proxy);
    assert_eq!(browser.open("/checkout/cart"), "next");
    for (page, file) in [
        ("/checkout/cart", "/assets/site.css"),
        ("/assets/site.css", "/assets/f.woff2"),
        ("/assets/site.js", "/assets/lib.js"),
        ("/assets/lib.mjs", "/assets/part.mjs"),
    ] {
        let got = browser.of_page(page, &format!("GET {file}"));
        assert_eq!(got, "next", "{file}");
    }
    let frame = "Referer: https://shop.test/checkout/cart\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n";
    assert_eq!(browser.send("GET /widget", frame).text(), "next");
    let no_referer = "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: no-cors\r\n";
    assert_eq!(browser.send("GET /a.png", no_referer).text(), "next");
    // A page that nobody has seen here, or that was opened later, is of no experiment.
    let font = "GET /assets/f.woff2";
    assert_eq!(browser.of_page("/about", "GET /a.png"), "current");
    assert_eq!(browser.open("/home"), "current");
    assert_eq!(browser.of_page("/home", "GET /assets/site.css"), "current");
    assert_eq!(browser.of_page("/assets/site.css", font), "current");
    assert_eq!(browser.send("GET /a.png", no_referer).text(), "current");
    // The page before is still open in another tab.
    assert_eq!(
        browser.of_page("/checkout/cart", "GET /assets/site.css"),
        "next"
    );
    let pages = browser.pages.clone();
    assert_eq!(browser.open("/news"), "current");
    assert_eq!(browser.pages, pages, "one entry for all of them");
    assert_eq!(browser.open("/checkout/cart"), "next");
    assert_eq!(browser.of_page("/assets/site.css", font), "next");
    // A frame is a page for what it loads and posts, and not the one that is looked at.
    let in_frame = "Referer: https://shop.test/widget\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n";
    assert_eq!(browser.send("GET /widget", frame).text(), "next");
    assert_eq!(browser.of_page("/widget", "GET /widget.js"), "next");
    assert_eq!(browser.send("GET /widget/inner", in_frame).text(), "next");
    assert_eq!(browser.send("POST /widget", in_frame).text(), "next");
    assert_eq!(browser.open("/home"), "current");
    assert_eq!(browser.of_page("/widget", "GET /widget.js"), "next");
    assert_eq!(browser.open("/checkout/cart"), "next");
    // What is no page that is looked at does not end that: fetched ahead, a file, a request for a head.
    let ahead = format!("{NAVIGATES}Sec-Purpose: prefetch\r\n");
    assert_eq!(browser.send("GET /home", &ahead).text(), "current");
    assert_eq!(browser.send("GET /file.zip", NAVIGATES).text(), "current");
    assert_eq!(browser.of_page("/assets/site.css", font), "next");
    assert_eq!(browser.of_page("/assets/SITE.CSS", font), "next");
    let font_of_any = "Referer: https://shop.test/style?v=1\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: font\r\n";
    assert_eq!(browser.send(font, font_of_any).text(), "next");
    // A form's redirect leads to the version that got it, also where the experiment does not match.
    let form = "Referer: https://shop.test/checkout/cart\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    assert_eq!(browser.send("POST /pay", form).status, 303);
    assert_eq!(browser.open("/thanks?id=1"), "next");
    assert_eq!(
        browser.of_page("/thanks?id=1", "GET /assets/site.css"),
        "next"
    );
    assert_eq!(browser.open("/checkout/cart"), "next");
    // A frame of another site's page is a page itself.
    let framed = "Referer: https://other.test/\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n";
    assert_eq!(browser.send("GET /widget", framed).text(), "current");
    // The version that served the page is followed after its weight has changed.
    load(
        &proxy,
        &site.routes(0, ", match: /checkout/**", "default: current"),
    );
    assert_eq!(
        browser.of_page("/checkout/cart", "GET /assets/site.css"),
        "next"
    );
    assert_eq!(browser.send("GET /widget", frame).text(), "next");
}

#[test]
fn drafts_are_for_those_with_an_override_only() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(100, "", ""));
    let mut browser = Browser::new(&proxy);
    assert_eq!(browser.open("/shop"), "next");
    let token = site.next.last("watershed-version").unwrap();
    let header = format!("Watershed-Version: {token}\r\n");
    load(&proxy, &site.routes(100, ", state: draft", ""));
    assert_eq!(browser.of_page("/shop", "GET /app.css"), "current");
    assert_eq!(browser.send("GET /api", &header).text(), "current");
    // An override shows the draft. Its page gets no token and no cookie, which others could use without one.
    let secret = b"0123456789abcdef0123456789abcdef";
    let over = watershed::experiment::override_token::Override {
        experiment: "site".to_owned(),
        group: "experiment".to_owned(),
        expires_s: u32::MAX.into(),
    };
    let over = watershed::experiment::override_token::sign(secret, &over);
    let fields = format!("Watershed-Override: {over}\r\n{NAVIGATES}");
    let answer = Browser::new(&proxy).send("GET /draft", &fields);
    assert_eq!(
        (answer.text().as_str(), answer.header("set-cookie")),
        ("next", None)
    );
    assert_eq!(site.next.last("watershed-version"), None);
    // Nor is what files of its page load taken from elsewhere, where no page is remembered.
    load(
        &proxy,
        &site.routes(100, ", match: /draft, state: draft", "default: current"),
    );
    let font = format!(
        "Watershed-Override: {over}\r\nReferer: https://shop.test/app.css\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n"
    );
    assert_eq!(
        Browser::new(&proxy).send("GET /f.woff2", &font).text(),
        "next"
    );
    let other = font.replace("/app.css", "/home");
    assert_eq!(
        Browser::new(&proxy).send("GET /f.woff2", &other).text(),
        "current"
    );
    // An override is not undone by a page from before.
    load(&proxy, &site.routes(0, "", ""));
    let mut browser = Browser::new(&proxy);
    assert_eq!(browser.open("/shop"), "current");
    let fields = format!("Watershed-Override: {over}\r\nReferer: http://shop.test/shop\r\n");
    assert_eq!(browser.send("GET /api", &fields).text(), "next");
}

#[test]
fn pinned_requests_count_for_no_other_group() {
    let site = Site::start();
    let more = "metrics: { bought: \"POST /buy -> 2xx\" }\n";
    let proxy = Proxy::start(&site.routes(0, "", more));
    let mut browser = Browser::new(&proxy);
    assert_eq!(browser.open("/shop"), "current");
    load(&proxy, &site.routes(100, "", more));
    assert_eq!(browser.of_page("/shop", "POST /buy"), "current");
    assert_eq!(
        site.current.last("watershed-experiment").unwrap(),
        "site=control"
    );
    let results = proxy.results();
    let experiment = &results["experiments"][0];
    let count = |group: usize, key: &str| experiment["groups"][group][key].clone();
    assert_eq!(
        [count(0, "users"), count(1, "users")],
        [1, 0],
        "{experiment}"
    );
    assert_eq!(count(0, "requests"), 1, "{experiment}");
}

#[test]
fn route_that_names_its_upstream_keeps_the_calls_of_a_page() {
    let site = Site::start();
    let api = Version::start("api");
    let route = |route: &str| {
        let more = format!("default: current\nroutes: [ {{ match: /api/**, {route} }} ]");
        let routes = site.routes(100, ", match: /checkout/**", &more);
        let upstreams = format!("upstreams: {{ api: \"http://{}\", ", api.origin.address);
        routes.replace("upstreams: { ", &upstreams)
    };
    let proxy = Proxy::start(&route("upstream: api"));
    let mut browser = Browser::new(&proxy);
    assert_eq!(browser.open("/checkout/cart"), "next");
    for request in ["GET /api/cart", "POST /api/cart"] {
        assert_eq!(
            browser.of_page("/checkout/cart", request),
            "api",
            "{request}"
        );
    }
    assert_eq!(browser.of_page("/checkout/cart", "GET /app.css"), "next");
    // One that leaves who answers to the default upstream does not.
    load(&proxy, &route("headers: { request: { set: { X-A: b } } }"));
    assert_eq!(browser.of_page("/checkout/cart", "GET /api/cart"), "next");
}
