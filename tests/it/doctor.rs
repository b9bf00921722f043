//! `watershed doctor` on sites with mistakes, and what results say of responses that count for nothing.

use crate::support::client::Client;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::raw::Raw;
use crate::wire::tls::{Authority, tls_address};
use serde_json::Value;
use std::process::Command;

/// A version of a site. `page` is its page, `fields` are those of the page's response.
fn version(name: &'static str, fields: &'static str, page: &'static str) -> Raw {
    Raw::start(move |mut peer| {
        while let Some(request) = peer.request() {
            let path = request.split(' ').nth(1).unwrap_or_default();
            let named = format!("/{name}.js");
            let (head, body) = match path {
                "/shop" | "/shop/start" => (format!("200 OK\r\n{fields}"), page),
                "/shop/old" => ("302 Found\r\nLocation: /shop\r\n".to_owned(), ""),
                path if path == named => ("200 OK\r\n".to_owned(), "js"),
                _ => ("404 Not Found\r\n".to_owned(), "none"),
            };
            let length = body.len();
            peer.say(format!(
                "HTTP/1.1 {head}Content-Length: {length}\r\n\r\n{body}"
            ));
        }
    })
}

fn routes(origins: [&Raw; 2], experiment: &str, more: &str) -> String {
    format!(
        "upstreams: {{ current: \"http://{}\", next: \"http://{}\" }}\n\
         overrides: {{ secret: 0123456789abcdef0123456789abcdef }}\n\
         experiments: {{ site: {{ control: current, experiment: next, percent: 50{experiment} }} }}\n{more}",
        origins[0].address, origins[1].address
    )
}

/// Runs the command, and returns its exit code and document.
fn doctor(proxy: &Proxy, path: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let url = format!("http://{}{path}", proxy.public);
    visit(Command::new(BINARY), proxy, &url, arguments)
}

fn visit(
    mut command: Command,
    proxy: &Proxy,
    url: &str,
    arguments: &[&str],
) -> (Option<i32>, Value) {
    let admin = format!("http://{}", proxy.admin);
    let output = command
        .args(["doctor", url, "--json", "--url", &admin, "-c"])
        .arg(proxy.file())
        .args(arguments)
        .output()
        .unwrap();
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stdout));
    });
    (output.status.code(), document)
}

fn kinds(document: &Value) -> Vec<&str> {
    let problems = document["problems"].as_array().unwrap().iter();
    problems.map(|it| it["kind"].as_str().unwrap()).collect()
}

#[track_caller]
fn has(document: &Value, kind: &str, words: &[&str]) {
    let problems = document["problems"].as_array().unwrap();
    let is = |it: &&Value| {
        let text = format!("{} {}", it["found"], it["fix"]);
        it["kind"] == kind && words.iter().all(|word| text.contains(word))
    };
    assert!(
        problems.iter().any(|it| is(&it)),
        "{kind} {words:?}: {document:#}"
    );
}

#[test]
fn sound_site_has_no_problems() {
    let page = "<script src=/current.js></script>";
    let one = version("current", "Cache-Control: max-age=60\r\n", page);
    let other = version(
        "next",
        "Cache-Control: max-age=60\r\n",
        "<script src=/next.js></script>",
    );
    let proxy = Proxy::start(&routes([&one, &other], "", ""));
    let (code, document) = doctor(&proxy, "/shop/old", &["--visitors", "6"]);
    assert_eq!((code, kinds(&document)), (Some(0), vec![]), "{document:#}");
    assert_eq!(
        document["notes"].as_array().unwrap().len(),
        0,
        "{document:#}"
    );
    // Overrides count for nobody.
    let users: u64 = proxy.results()["experiments"][0]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["users"].as_u64().unwrap())
        .sum();
    assert!(users <= 6, "{users}");
    // For people.
    let url = format!("http://{}/shop", proxy.public);
    let output = Command::new(BINARY)
        .args(["doctor", &url, "--visitors", "0", "--url"])
        .arg(format!("http://{}", proxy.admin))
        .arg("-c")
        .arg(proxy.file())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("nothing found in "), "{text}");
}

#[test]
fn mistakes_of_versions_are_reported() {
    let cookies = "Set-Cookie: sid=1; Path=/\r\nSet-Cookie: theme=a\r\nSet-Cookie: only=1\r\n";
    let one = version("current", cookies, "<script src='/current.js'></script>");
    let cookies = "Set-Cookie: sid=2; Path=/\r\nSet-Cookie: theme=b\r\n";
    let page =
        "<script src='/next.js'></script><link href=\"/lost.css\"><a href='http://127.0.0.1:1/x'>";
    let other = version("next", cookies, page);
    let file = routes([&one, &other], ", assets: \"off\"", "");
    let proxy = Proxy::start(&file);
    let (code, document) = doctor(&proxy, "/shop", &["--visitors", "1"]);
    assert_eq!(code, Some(3), "{document:#}");
    has(
        &document,
        "equal_cookies",
        &["sid, theme", "cookies: isolate"],
    );
    has(
        &document,
        "missing_file",
        &["/lost.css", "experiment (site)"],
    );
    has(
        &document,
        "missing_in_other_version",
        &["control (site)", "/next.js", "assets: follow"],
    );
    has(
        &document,
        "missing_in_other_version",
        &["experiment (site)", "/current.js"],
    );
    assert_eq!(document["error"], "4 problems found");
    // Isolated cookies are not equal.
    proxy.write(&routes([&one, &other], ", cookies: isolate", ""));
    let admin = crate::support::client::Client::admin(proxy.admin).post("/admin/reload", "", "");
    assert_eq!(admin.status, 200);
    let (_, document) = doctor(&proxy, "/shop", &["--visitors", "0"]);
    assert_eq!(kinds(&document), ["missing_file"], "{document:#}");
}

#[test]
fn names_of_upstreams_and_lost_schemes_are_reported() {
    let redirecting = |to: &'static str| {
        Raw::start(move |mut peer| {
            while let Some(request) = peer.request() {
                let host = request
                    .lines()
                    .find_map(|line| line.strip_prefix("host: ").or(line.strip_prefix("Host: ")))
                    .unwrap_or_default();
                let to = to.replace("HOST", host);
                peer.say(format!(
                    "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
                ));
            }
        })
    };
    let (one, other) = (
        redirecting("https://elsewhere.test/"),
        redirecting("http://HOST/login"),
    );
    let proxy = Proxy::start(&routes([&one, &other], "", ""));
    let (code, document) = doctor(&proxy, "/shop", &["--visitors", "0"]);
    assert_eq!(code, Some(3));
    has(
        &document,
        "leaves_public_name",
        &["elsewhere.test", "or to a path alone"],
    );
}

#[test]
fn pages_with_a_base_a_refresh_or_compression_are_read_or_reported() {
    let moved = "<base href='/moved/'><script src='a.js'></script>";
    let one = version("current", "", moved);
    let compressed = "Content-Encoding: gzip\r\n";
    let other = version("next", compressed, "<script src='/lost.js'></script>");
    let proxy = Proxy::start(&routes([&one, &other], "", ""));
    let (_, document) = doctor(&proxy, "/shop", &["--visitors", "0"]);
    has(&document, "missing_file", &["/moved/a.js"]);
    has(&document, "compressed", &["/shop is compressed (gzip)"]);

    let refreshing = Raw::start(|mut peer| {
        let own = peer.stream.local_addr().unwrap();
        while peer.request().is_some() {
            let page = format!("<meta http-equiv=refresh content='0; url=http://{own}/x'>");
            let length = page.len();
            peer.say(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{page}"
            ));
        }
    });
    let proxy = Proxy::start(&routes([&refreshing, &refreshing], "", ""));
    let (_, document) = doctor(&proxy, "/shop", &["--visitors", "0"]);
    has(&document, "upstream_name", &["/x, which is upstream"]);
}

#[test]
fn schemes_that_are_lost_behind_tls_are_reported() {
    // One version takes every client for one without TLS; the other reads what the proxy says.
    let site = |reads_scheme: bool| {
        Raw::start(move |mut peer| {
            while let Some(request) = peer.request() {
                let field = |name: &str| {
                    let mut lines = request.lines().filter_map(|line| line.split_once(": "));
                    let found = lines.find(|(it, _)| it.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_owned())
                };
                let said = field("x-forwarded-proto").filter(|_| reads_scheme);
                let origin = format!(
                    "{}://{}",
                    said.as_deref().unwrap_or("http"),
                    field("host").unwrap()
                );
                let (head, body) = match request.starts_with("GET /login") {
                    true => ("200 OK", format!("<form action=\"{origin}/post\">")),
                    false => ("302 Found", String::new()),
                };
                let length = body.len();
                peer.say(format!(
                    "HTTP/1.1 {head}\r\nLocation: {origin}/login\r\nContent-Length: {length}\r\n\r\n{body}"
                ));
            }
        })
    };
    let authority = Authority::new();
    authority.certify("site", &["localhost"]);
    let tls = format!(
        "tls: {{ listen: 127.0.0.1:0, certificates: {{ cert: {}, key: {} }} }}\n",
        authority.file("site.pem"),
        authority.file("site.key")
    );
    let ask = |one: &Raw, other: &Raw, path: &str| {
        let proxy = Proxy::start(&routes([one, other], "", &tls));
        let port = tls_address(&proxy).port();
        let mut command = Command::new(BINARY);
        command.env("SSL_CERT_FILE", authority.file("ca.pem"));
        let url = format!("https://localhost:{port}{path}");
        visit(command, &proxy, &url, &["--visitors", "0"])
    };
    let (plain, sound) = (site(false), site(true));
    let (code, document) = ask(&sound, &plain, "/shop");
    assert_eq!(code, Some(3), "{document:#}");
    has(
        &document,
        "forwarded_scheme",
        &["it leaves https", "X-Forwarded-Proto"],
    );
    let (_, document) = ask(&sound, &plain, "/login");
    has(
        &document,
        "forwarded_scheme",
        &["links to http://localhost"],
    );
    let (code, document) = ask(&sound, &sound, "/shop");
    assert_eq!(code, Some(0), "{document:#}");

    // Whoever does not trust the certificate is told so.
    let proxy = Proxy::start(&routes([&sound, &sound], "", &tls));
    let url = format!("https://localhost:{}/shop", tls_address(&proxy).port());
    let output = Command::new(BINARY)
        .args(["doctor", &url])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("certificate"), "{error}");
}

#[test]
fn file_that_does_not_come_is_reported_and_the_rest_is_checked() {
    let silent = Raw::start(|mut peer| {
        while let Some(request) = peer.request() {
            match request.starts_with("GET /slow.js") {
                true => continue,
                false => peer.say(
                    "HTTP/1.1 200 OK\r\nSet-Cookie: sid=1\r\nContent-Length: 30\r\n\r\n<script src=/slow.js></script>",
                ),
            }
        }
    });
    let other = version(
        "next",
        "Set-Cookie: sid=2\r\n",
        "<script src=/next.js></script>",
    );
    let proxy = Proxy::start(&routes([&silent, &other], "", ""));
    let (code, document) = doctor(&proxy, "/shop", &["--visitors", "0", "--timeout", "1s"]);
    assert_eq!(code, Some(3), "{document:#}");
    has(&document, "no_response", &["/slow.js", "--timeout"]);
    has(&document, "equal_cookies", &["sid"]);
}

#[test]
fn files_that_stylesheets_need_and_redirects_are_followed() {
    let site = || {
        Raw::start(|mut peer| {
            while let Some(request) = peer.request() {
                let path = request.split(' ').nth(1).unwrap_or_default();
                let (head, body) = match path {
                    "/shop" => ("200 OK", "<link rel=stylesheet href=/app.css>"),
                    "/app.css" => (
                        "200 OK\r\nContent-Type: text/css",
                        "@import \"base.css\"; a { background: url(/gone.png) }",
                    ),
                    "/base.css" => (
                        "200 OK\r\nContent-Type: text/css",
                        "b { src: url('f.woff2') }",
                    ),
                    "/round" => ("302 Found\r\nLocation: /round", ""),
                    _ => ("404 Not Found", ""),
                };
                let length = body.len();
                peer.say(format!(
                    "HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}"
                ));
            }
        })
    };
    let (one, other) = (site(), site());
    let proxy = Proxy::start(&routes([&one, &other], "", ""));
    let (code, document) = doctor(&proxy, "/shop", &["--visitors", "0"]);
    assert_eq!(code, Some(3), "{document:#}");
    has(
        &document,
        "missing_file",
        &["control", "/gone.png", "/f.woff2"],
    );
    has(
        &document,
        "missing_file",
        &["experiment", "/gone.png", "/f.woff2"],
    );
    // A file that the other version gives is missing, too.
    let has_all = version("next", "", "<script src=/next.js></script>");
    let has_none = version("current", "", "<script src=/next.js></script>");
    let rescued = Proxy::start(&routes([&has_none, &has_all], "", ""));
    let (code, document) = doctor(&rescued, "/shop", &["--visitors", "0"]);
    assert_eq!(code, Some(3), "{document:#}");
    has(
        &document,
        "missing_file",
        &["control", "/next.js", "another version"],
    );
    let (code, document) = doctor(&proxy, "/round", &["--visitors", "0"]);
    assert_eq!(code, Some(3), "{document:#}");
    has(&document, "endless_redirect", &["/round"]);
}

#[test]
fn site_that_redirects_to_https_is_visited_there() {
    let authority = Authority::new();
    authority.certify("site", &["localhost"]);
    let (one, other) = (version("current", "", "old"), version("next", "", "new"));
    let tls = |https: &str| {
        format!(
            "tls: {{ listen: 127.0.0.1:0, certificates: {{ cert: {}, key: {} }} }}\n{https}",
            authority.file("site.pem"),
            authority.file("site.key")
        )
    };
    let proxy = Proxy::start(&routes([&one, &other], "", &tls("")));
    let port = tls_address(&proxy).port();
    proxy.write(&routes(
        [&one, &other],
        "",
        &tls(&format!(
            "https: {{ redirect: 308, port: {port}, hsts: 1h }}\n"
        )),
    ));
    let answer = Client::admin(proxy.admin).post("/admin/reload", "", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut command = Command::new(BINARY);
    command.env("SSL_CERT_FILE", authority.file("ca.pem"));
    let url = format!("http://localhost:{}/shop", proxy.public.port());
    let (code, document) = visit(command, &proxy, &url, &["--visitors", "2"]);
    assert_eq!(code, Some(0), "{document:#}");
    let note = format!("redirects to https://localhost:{port}/shop");
    assert!(
        document["notes"].to_string().contains(&note),
        "{document:#}"
    );
}

#[test]
fn caches_that_mix_versions_are_reported() {
    let one = version("current", "Cache-Control: max-age=60\r\n", "old");
    let other = version("next", "Cache-Control: max-age=60\r\n", "new");
    // Each visitor has a cookie, which such a file tells caches nothing of.
    let file = routes([&one, &other], "", "cache: \"off\"\n");
    let proxy = Proxy::start(&file);
    let (code, document) = doctor(&proxy, "/shop", &["--visitors", "12"]);
    assert_eq!(code, Some(3), "{document:#}");
    has(&document, "mixes_versions", &["/shop", "Vary"]);
}

#[test]
fn doctor_says_what_it_cannot_check_and_ends() {
    let (one, other) = (version("current", "", "old"), version("next", "", "new"));
    let proxy = Proxy::start(&routes([&one, &other], "", ""));
    let (code, document) = doctor(&proxy, "/shop", &["--requests", "2"]);
    assert_eq!(
        (code, &document["requests"]),
        (Some(0), &2.into()),
        "{document:#}"
    );
    assert!(
        document["notes"].to_string().contains("--requests"),
        "{document:#}"
    );
    // Not a watershed at all.
    let url = format!("http://{}/shop", one.address);
    let run = |url: &str| {
        let output = Command::new(BINARY)
            .args([
                "doctor",
                url,
                "--json",
                "--url",
                "http://127.0.0.1:1",
                "--timeout",
                "1s",
            ])
            .current_dir(proxy.folder.path())
            .output()
            .unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), document)
    };
    let (code, document) = run(&url);
    assert_eq!(
        (code, kinds(&document)),
        (Some(3), vec!["not_proxied"]),
        "{document:#}"
    );
    assert_eq!(
        document["notes"].as_array().unwrap().len(),
        2,
        "{document:#}"
    );
    for (url, code) in [
        ("http://127.0.0.1:1/", 1),
        ("shop.test", 2),
        ("ftp://shop.test/", 2),
        ("http:///", 2),
    ] {
        let (found, document) = run(url);
        assert_eq!(found, Some(code), "{url}: {document}");
        assert!(document["error"].is_string(), "{document}");
    }
}

#[test]
fn results_warn_of_metrics_that_miss_and_events_without_a_metric() {
    let origin = Raw::start(|mut peer| {
        while let Some(request) = peer.request() {
            let head = match request.starts_with("POST /checkout") {
                true => {
                    "303 See Other\r\nLocation: /thanks\r\nWatershed-Event: purchase; value=1\r\n"
                }
                false => "200 OK\r\nWatershed-Event: known\r\n",
            };
            peer.say(format!("HTTP/1.1 {head}Content-Length: 0\r\n\r\n"));
        }
    });
    let more = "metrics: { buy: \"POST /checkout -> 2xx\", seen: { event: known } }\n";
    let file = routes([&origin, &origin], "", more).replace(
        "control: current, experiment: next, percent: 50",
        "groups: { control: { weight: 1 }, experiment: { weight: 1 } }",
    );
    let proxy = Proxy::start(&file);
    let mut client = proxy.client();
    let warnings = |proxy: &Proxy| proxy.results()["experiments"][0]["warnings"].to_string();
    for _ in 0..4 {
        client.post("/checkout", "", "a=b");
        client.get("/", "");
    }
    assert!(
        !warnings(&proxy).contains("did not match"),
        "{}",
        warnings(&proxy)
    );
    for _ in 0..8 {
        client.post("/checkout", "", "a=b");
    }
    let found = warnings(&proxy);
    let expected =
        "12 responses with 303 to POST /checkout did not match 2xx: metric buy counted 0 of 12";
    assert!(found.contains(expected), "{found}");
    assert!(
        found.contains("event `purchase` arrived 12 times and no metric uses it"),
        "{found}"
    );
    assert!(!found.contains("`known`"), "{found}");
    assert_eq!(proxy.results()["events"]["unused"]["purchase"], 12);
    // The page shows them, and so does doctor.
    let page = crate::support::client::Client::admin(proxy.admin)
        .get("/admin/results/site", "Accept: text/html\r\n")
        .text();
    assert!(page.contains("did not match 2xx"), "{page}");
    let (code, document) = doctor(&proxy, "/", &["--visitors", "0"]);
    assert_eq!(code, Some(3), "{document:#}");
    has(&document, "metric", &["303", "POST /checkout", "200-399"]);
    has(
        &document,
        "metric",
        &["purchase", "write `event: purchase` at a metric"],
    );
    // A metric that counts something else begins again.
    proxy.write(&file.replace("-> 2xx", "-> 303"));
    let answer = crate::support::client::Client::admin(proxy.admin).post("/admin/reload", "", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    client.post("/checkout", "", "a=b");
    assert!(
        !warnings(&proxy).contains("did not match"),
        "{}",
        warnings(&proxy)
    );
}
