//! Access to the admin API: tokens, roles, sessions, and protection against pages of other sites.

use crate::support::client::{Answer, Client};
use crate::support::proxy::{BINARY, How, Proxy};
use crate::support::until;
use std::process::Command;

const SITE: &str = "upstreams: { a: \"http://127.0.0.1:9\", b: \"http://127.0.0.1:9\" }\n\
    experiments: { site: { control: a, experiment: b, percent: 50 } }\n\
    metrics: { buy: \"POST /buy -> 2xx\" }\n";

/// A proxy without tokens.
fn without_tokens() -> Proxy {
    Proxy::start(SITE)
}

fn with_admin_keys(admin_keys: String) -> Proxy {
    let how = How {
        admin_keys,
        ..How::default()
    };
    Proxy::start_how(SITE, how)
}

/// A proxy with a reader and an operator.
fn with_tokens() -> Proxy {
    let hash = "sha256:".to_owned() + &sha256("read-secret");
    with_admin_keys(format!(
        "tokens: {{ dashboard: {{ role: read, hash: \"{hash}\" }}, anna: {{ role: operate, token: operate-secret }} }}"
    ))
}

fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn get(proxy: &Proxy, path: &str, headers: &str) -> Answer {
    Client::admin(proxy.admin).get(path, headers)
}

fn post(proxy: &Proxy, path: &str, headers: &str, body: &str) -> Answer {
    Client::admin(proxy.admin).post(path, headers, body)
}

fn status(proxy: &Proxy, headers: &str) -> String {
    let results = get(proxy, "/admin/results", headers).json();
    results["experiments"][0]["status"]
        .as_str()
        .unwrap()
        .to_owned()
}

const READ: &str = "Authorization: Bearer read-secret\r\n";
const OPERATE: &str = "Authorization: Bearer operate-secret\r\n";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const PAUSE: &str = "/admin/experiments/site/pause";

/// Returns the form token of a page.
fn form_of(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"form\" value=\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

#[test]
fn config_is_shown_without_its_secrets() {
    let hash = "sha256:".to_owned() + &sha256("read-secret");
    let how = How {
        admin_keys: format!(
            "tokens: {{ dashboard: {{ role: read, hash: \"{hash}\" }}, anna: {{ role: operate, token: operate-secret }} }}"
        ),
        env: vec![(
            "OVERRIDES".to_owned(),
            "a secret of the environment".to_owned(),
        )],
        ..How::default()
    };
    let site = format!("{SITE}overrides: {{ secret: \"${{OVERRIDES}}\" }}\n");
    let proxy = Proxy::start_how(&site, how);
    assert_eq!(get(&proxy, "/admin/config", "").status, 401);
    let text = get(&proxy, "/admin/config", READ).text();
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    let config = &shown["config"];
    assert_eq!(config["upstreams"]["a"], "http://127.0.0.1:9");
    assert_eq!(config["experiments"]["site"]["percent"], 50);
    let tokens = &config["admin"]["tokens"];
    assert_eq!(tokens["anna"]["token"], "(secret)");
    assert_eq!(tokens["dashboard"]["hash"], "(secret)");
    assert_eq!(tokens["dashboard"]["role"], "read");
    assert_eq!(config["overrides"]["secret"], "${OVERRIDES}");
    for secret in ["operate-secret", &*hash, "a secret of"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn read_token_cannot_change_anything() {
    let proxy = with_tokens();
    assert_eq!(get(&proxy, "/admin/results", "").status, 401);
    assert_eq!(get(&proxy, "/admin/healthz", "").status, 200);
    assert_eq!(get(&proxy, "/admin/results", READ).status, 200);
    let refused = post(&proxy, PAUSE, READ, "");
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert!(
        refused.text().contains("role: operate"),
        "{}",
        refused.text()
    );
    assert_eq!(status(&proxy, READ), "running");
    let done = post(
        &proxy,
        PAUSE,
        OPERATE,
        "{\"by\": \"a script\", \"reason\": \"why not\"}",
    );
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(status(&proxy, READ), "paused");
    // The name of the token is added to any author that the caller states.
    let acts = get(&proxy, "/admin/acts", READ).json();
    assert_eq!(acts["acts"][0]["by"], "a script (anna)");
    for scheme in [
        "Bearer ",
        "Bearer x",
        "Basic read-secret",
        "Bearer read-secret ",
        "bearer read-secret",
        "BEARER read-secret",
        "bEaReR    read-secret",
        "bearer",
        "bearerread-secret",
        "Bearer\tread-secret",
    ] {
        let answer = get(
            &proxy,
            "/admin/results",
            &format!("Authorization: {scheme}\r\n"),
        );
        // RFC 9110, 11.1: the scheme is case-insensitive, and spaces may follow.
        let words: Vec<&str> = scheme.split(' ').filter(|word| !word.is_empty()).collect();
        let known =
            matches!(words[..], [scheme, "read-secret"] if scheme.eq_ignore_ascii_case("bearer"));
        assert_eq!(answer.status, if known { 200 } else { 401 }, "{scheme:?}");
    }
}

#[test]
fn wrong_tokens_are_limited_and_sessions_continue() {
    let proxy = with_tokens();
    let session = log_in(&proxy, "operate-secret");
    let guess = |number: usize| {
        get(
            &proxy,
            "/admin/results",
            &format!("Authorization: Bearer guess-{number}\r\n"),
        )
    };
    let statuses: Vec<u16> = (0..15).map(|number| guess(number).status).collect();
    assert_eq!(&statuses[..10], [401; 10]);
    assert_eq!(&statuses[11..], [429; 4]);
    let refused = get(&proxy, "/admin/results", OPERATE);
    assert_eq!(refused.status, 429, "a short valid token is refused, too");
    assert_eq!(refused.header("retry-after"), Some("60"));
    assert_eq!(
        post(&proxy, "/admin/login", FORM, "token=operate-secret").status,
        429
    );
    assert_eq!(get(&proxy, "/admin/results", &session).status, 200);
}

/// Logs in. Returns the header line of the session.
fn log_in(proxy: &Proxy, token: &str) -> String {
    let answer = post(proxy, "/admin/login", FORM, &format!("token={token}"));
    assert_eq!(answer.status, 303, "{}", answer.text());
    let cookie = answer.header("set-cookie").unwrap();
    for held in ["HttpOnly", "SameSite=Strict", "Path=/admin"] {
        assert!(cookie.contains(held), "{cookie}");
    }
    format!("Cookie: {}\r\n", cookie.split(';').next().unwrap())
}

#[test]
fn browser_logs_in_once_with_its_token() {
    let proxy = with_tokens();
    let page = get(&proxy, "/admin/results", "Accept: text/html\r\n");
    assert_eq!(page.status, 401);
    assert!(page.text().contains("action=\"/admin/login\""));
    assert_eq!(
        post(&proxy, "/admin/login", FORM, "token=wrong").status,
        401
    );
    let other_site = "Origin: http://evil.test\r\n";
    let refused = post(
        &proxy,
        "/admin/login",
        &format!("{FORM}{other_site}"),
        "token=operate-secret",
    );
    assert_eq!(refused.status, 403);

    let session = log_in(&proxy, "operate-secret");
    let page = get(
        &proxy,
        "/admin/results",
        &format!("{session}Accept: text/html\r\n"),
    );
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        !policy.contains("unsafe") && policy.contains("script-src 'self'"),
        "{policy}"
    );
    let form = form_of(&page.text());
    // Browsers attach the cookie to requests of other sites' pages, too, so a form token is needed.
    let send =
        |more: &str, body: &str| post(&proxy, PAUSE, &format!("{session}{FORM}{more}"), body);
    assert_eq!(send("", "group=").status, 403);
    assert_eq!(send("", "").status, 403);
    assert_eq!(send("", "form=AAAA").status, 403);
    assert_eq!(send(other_site, &format!("form={form}")).status, 403);
    assert_eq!(
        send("Sec-Fetch-Site: cross-site\r\n", &format!("form={form}")).status,
        403
    );
    assert_eq!(status(&proxy, READ), "running");
    let done = send(
        "Sec-Fetch-Site: same-origin\r\n",
        &format!("form={form}&reason=it+is+time"),
    );
    assert_eq!(done.status, 303, "{}", done.text());
    assert_eq!(status(&proxy, READ), "paused");
    let acts = get(&proxy, "/admin/acts", READ).json();
    assert_eq!(
        (&acts["acts"][0]["by"], &acts["acts"][0]["reason"]),
        (&"anna".into(), &"it is time".into())
    );

    // A session of role `read` sees no buttons and cannot post their forms, but can log out.
    let session = log_in(&proxy, "read-secret");
    let page = get(
        &proxy,
        "/admin/results",
        &format!("{session}Accept: text/html\r\n"),
    )
    .text();
    assert!(!page.contains("/admin/experiments/"), "{page}");
    let form = form_of(&page);
    let refused = post(
        &proxy,
        "/admin/experiments/site/resume",
        &format!("{session}{FORM}"),
        &format!("form={form}"),
    );
    assert_eq!(refused.status, 403);
    let left = post(
        &proxy,
        "/admin/logout",
        &format!("{session}{FORM}"),
        &format!("form={form}"),
    );
    assert_eq!(left.status, 303);
    assert!(left.header("set-cookie").unwrap().contains("Max-Age=0"));
}

#[test]
fn admin_api_without_tokens_is_only_for_loopback() {
    let proxy = without_tokens();
    assert_eq!(get(&proxy, "/admin/results", "").status, 200);
    // DNS rebinding: another site's name that points here.
    let rebound = Client::connect(proxy.admin).get("/admin/results", "");
    assert_eq!(rebound.status, 421, "{}", rebound.text());
    assert!(rebound.text().contains("site.test"), "{}", rebound.text());
    let other_site = "Origin: http://evil.test\r\n";
    assert_eq!(post(&proxy, PAUSE, other_site, "").status, 403);
    assert_eq!(post(&proxy, PAUSE, "Origin: null\r\n", "").status, 403);
    assert_eq!(status(&proxy, ""), "running");
    // curl sends this content type with JSON by default.
    assert_eq!(
        post(&proxy, PAUSE, FORM, "{\"reason\": \"lunch\"}").status,
        200
    );
    assert_eq!(status(&proxy, ""), "paused");
}

#[test]
fn decision_is_confirmed_with_its_effect() {
    let proxy = without_tokens();
    let html = "Accept: text/html\r\n";
    let results = get(&proxy, "/admin/results", html).text();
    let promote = "/admin/experiments/site/promote?group=experiment";
    assert!(results.contains(promote), "{results}");
    let page = get(&proxy, promote, html).text();
    for text in [
        "All matching users get experiment (upstream b)",
        "does not show that this group is better",
        "Promote experiment: site",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert_eq!(
        status(&proxy, ""),
        "running",
        "the page itself changes nothing"
    );
    let form = form_of(&page);
    let sent = post(
        &proxy,
        "/admin/experiments/site/promote",
        FORM,
        &format!("form={form}&group=experiment"),
    );
    assert_eq!(sent.status, 303, "{}", sent.text());
    assert_eq!(status(&proxy, ""), "promoted");
    for (path, status) in [
        ("/admin/experiments/site/promote?group=nobody", 404),
        ("/admin/experiments/nothing/pause", 404),
        ("/admin/experiments/site/explode", 404),
        ("/admin/experiments/site/resume", 200),
    ] {
        assert_eq!(get(&proxy, path, html).status, status, "{path}");
    }
}

#[test]
fn event_stream_reports_changed_results() {
    let proxy = without_tokens();
    let mut client = Client::admin(proxy.admin);
    client
        .say(format!(
            "GET /admin/results/live HTTP/1.1\r\nHost: {}\r\n\r\n",
            proxy.admin
        ))
        .unwrap();
    let (status, headers) = client.head().unwrap();
    assert_eq!(status, 200);
    assert!(headers.contains(&("content-type".to_owned(), "text/event-stream".to_owned())));
    let mut event = || {
        let chunk = client.chunk().unwrap().unwrap();
        String::from_utf8(chunk).unwrap()
    };
    let first = event();
    assert!(first.starts_with("event: changed\n"), "{first}");
    assert_eq!(post(&proxy, PAUSE, "", "").status, 200);
    let second = event();
    assert!(
        second.starts_with("event: changed\n") && second != first,
        "{second}"
    );
}

#[test]
fn unchanged_results_return_304() {
    let proxy = without_tokens();
    for format in ["json", "text", "csv"] {
        let path = format!("/admin/results?format={format}");
        // The replica may register itself between the two requests.
        until("two equal responses", || {
            let answer = get(&proxy, &path, "");
            let tag = answer.header("etag").unwrap().to_owned();
            let again = get(&proxy, &path, &format!("If-None-Match: \"x\", {tag}\r\n"));
            let same = again.status == 304 && again.body.is_empty();
            same.then_some(()).ok_or((again.status, tag))
        });
    }
    let tag = |format: &str| {
        let answer = get(&proxy, &format!("/admin/results?format={format}"), "");
        answer.header("etag").unwrap().to_owned()
    };
    assert_ne!(tag("json"), tag("csv"));
    let before = tag("json");
    assert_eq!(post(&proxy, PAUSE, "", "").status, 200);
    assert_ne!(tag("json"), before);
    assert_eq!(
        get(
            &proxy,
            "/admin/results",
            &format!("If-None-Match: {before}\r\n")
        )
        .status,
        200
    );
}

#[test]
fn generated_token_is_accepted_by_its_hash() {
    let made = Command::new(BINARY)
        .args(["token", "ci", "--role", "read"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let token = String::from_utf8(made.stdout).unwrap();
    let err = String::from_utf8(made.stderr).unwrap();
    let line = err.lines().find(|line| line.contains("sha256:")).unwrap();
    assert!(token.trim().len() >= 43 && !err.contains(token.trim()));
    let proxy = with_admin_keys(format!("tokens: {{ {} }}", line.trim()));
    let bearer = format!("Authorization: Bearer {}\r\n", token.trim());
    assert_eq!(get(&proxy, "/admin/results", &bearer).status, 200);
    assert_eq!(
        post(&proxy, PAUSE, &bearer, "").status,
        403,
        "the token has role `read`"
    );
    let bad = Command::new(BINARY)
        .args(["token", "a b"])
        .output()
        .unwrap();
    assert!(!bad.status.success());
}

const LONG: &str = "a token that nobody finds by trying";

#[test]
fn long_token_is_accepted_while_its_address_is_limited() {
    let proxy = with_admin_keys(format!("token: \"{LONG}\""));
    let right = format!("Authorization: Bearer {LONG}\r\n");
    let wrong = "Authorization: Bearer guess\r\n";
    let guesses: Vec<u16> = (0..15)
        .map(|_| get(&proxy, "/admin/results", wrong).status)
        .collect();
    assert_eq!((guesses[0], guesses[14]), (401, 429), "{guesses:?}");
    assert_eq!(get(&proxy, "/admin/results", &right).status, 200);
    log_in(&proxy, &LONG.replace(' ', "+"));
    // The log has a line for each counted wrong token, and contains no token.
    let log = until("a line for each wrong token", || {
        let log = proxy.log.lock().unwrap().clone();
        let lines = log.matches("received an unknown token").count();
        (10..=11).contains(&lines).then_some(log.clone()).ok_or(log)
    });
    assert!(!log.contains(LONG) && !log.contains("guess"), "{log}");
}

#[test]
fn session_cannot_change_anything_from_another_origin() {
    let proxy = with_tokens();
    let session = log_in(&proxy, "operate-secret");
    let own = format!("Origin: http://{}\r\n", proxy.admin);
    let ask = |method: &str, path: &str, more: &str, body: &str| {
        let mut client = Client::admin(proxy.admin);
        let length = body.len();
        client
            .say(format!(
                "{method} {path} HTTP/1.1\r\nHost: {}\r\n{session}{more}Content-Length: {length}\r\n\r\n{body}",
                proxy.admin
            ))
            .unwrap();
        client.answer(true).unwrap().status
    };
    for (method, path, body) in [
        ("POST", PAUSE, ""),
        ("POST", PAUSE, "{}"),
        ("POST", "/admin/reload", ""),
        ("POST", "/admin/events", "[]"),
        ("DELETE", "/admin/assignments?user=ann", ""),
    ] {
        for more in ["", FORM, "Content-Type: text/plain\r\n"] {
            assert_eq!(ask(method, path, more, body), 403, "{path} {more} {body}");
        }
    }
    assert_eq!(status(&proxy, READ), "running");
    assert_eq!(ask("POST", PAUSE, &own, "{}"), 200);
    assert_eq!(ask("POST", "/admin/reload", &own, ""), 200);
}

#[test]
fn logout_ends_the_session_and_its_event_stream() {
    let proxy = with_tokens();
    let session = log_in(&proxy, "read-secret");
    let page = get(
        &proxy,
        "/admin/results",
        &format!("{session}Accept: text/html\r\n"),
    );
    let form = form_of(&page.text());
    let mut stream = Client::admin(proxy.admin);
    stream
        .say(format!(
            "GET /admin/results/live HTTP/1.1\r\nHost: {}\r\n{session}\r\n",
            proxy.admin
        ))
        .unwrap();
    assert_eq!(stream.head().unwrap().0, 200);
    assert!(stream.chunk().unwrap().is_some());
    let left = post(
        &proxy,
        "/admin/logout",
        &format!("{session}{FORM}"),
        &format!("form={form}"),
    );
    assert_eq!(left.status, 303);
    assert_eq!(get(&proxy, "/admin/results", &session).status, 401);
    let over = (0..3).any(|_| matches!(stream.chunk(), Ok(None) | Err(_)));
    assert!(over, "the stream goes on");
}

#[test]
fn admin_actions_are_in_the_audit_log() {
    let proxy = with_tokens();
    let mut client = Client::admin(proxy.admin);
    assert_eq!(post(&proxy, "/admin/reload", OPERATE, "").status, 200);
    let sites = SITE.replace("percent: 50", "percent: many");
    proxy.write(&sites);
    assert_eq!(post(&proxy, "/admin/reload", OPERATE, "").status, 422);
    proxy.write(SITE);
    let body = r#"{"by": "x\ny", "reason": "\u001b[31mred\n2026 INFO forged"}"#;
    assert_eq!(post(&proxy, PAUSE, OPERATE, body).status, 200);
    let long = format!(r#"{{"reason": "{}"}}"#, "x".repeat(501));
    let resume = "/admin/experiments/site/resume";
    let refused = post(&proxy, resume, OPERATE, &long);
    assert_eq!(refused.status, 422, "{}", refused.text());
    let longer = format!(r#"{{"reason": "{}"}}"#, "x".repeat(20_000));
    assert_eq!(post(&proxy, resume, OPERATE, &longer).status, 413);
    let acts = client.get("/admin/acts", READ).json();
    let acts = acts["acts"].as_array().unwrap();
    let summary = |act: &serde_json::Value| {
        let text = |key: &str| act[key].as_str().unwrap_or_default().to_owned();
        [text("action"), text("experiment"), text("by")].join("|")
    };
    let summaries: Vec<String> = acts.iter().map(summary).collect();
    assert_eq!(
        summaries,
        ["pause|site|x y (anna)", "reload||anna", "reload||anna"]
    );
    assert_eq!(acts[0]["reason"], "[31mred 2026 INFO forged");
    assert_eq!(acts[1]["to"], "refused");
    assert!(acts[2]["to"].as_str().unwrap().len() == 16 && acts[2]["from"] == acts[2]["to"]);
    let log = proxy.log.lock().unwrap().clone();
    assert!(
        !log.contains("\n2026 INFO forged") && !log.contains('\x1b'),
        "{log}"
    );
}

#[test]
fn audit_log_does_not_name_forgotten_users() {
    let site = crate::support::origin::Origin::start("site");
    let proxy = Proxy::start(&format!(
        "upstreams: {{ a: \"http://{0}\", b: \"http://{0}\" }}\nuser: {{ header: X-User }}\n\
         experiments: {{ site: {{ control: a, experiment: b, percent: 50 }} }}\n",
        site.address
    ));
    proxy.client().get("/", "X-User: secret-ann\r\n");
    proxy.results();
    let mut client = Client::admin(proxy.admin);
    client
        .say(format!(
            "DELETE /admin/assignments?user=secret-ann HTTP/1.1\r\nHost: {}\r\n\r\n",
            proxy.admin
        ))
        .unwrap();
    assert_eq!(client.answer(true).unwrap().status, 200);
    let acts = get(&proxy, "/admin/acts", "");
    let act = &acts.json()["acts"][0];
    assert_eq!(
        (&act["action"], &act["experiment"], &act["to"]),
        (&"forget".into(), &"site".into(), &"forgotten".into())
    );
    assert!(!acts.text().contains("secret-ann"));
    let page = get(&proxy, "/admin/results", "Accept: text/html\r\n").text();
    assert!(page.contains("forget site") && !page.contains("secret-ann"));
}

#[test]
fn errors_are_pages_for_browsers_with_security_headers() {
    let proxy = with_tokens();
    let html = "Accept: text/html\r\n";
    let as_reader = format!("{READ}{html}");
    for (path, status, text) in [
        (
            "/admin/results/%3Cscript%3E",
            404,
            "experiment &#34;&#60;script&#62;&#34;",
        ),
        ("/admin/results?format=%3Cb%3E", 400, "&#60;b&#62;"),
        ("/nothing", 404, "This path does not exist"),
        ("/admin/experiments/site/pause", 403, "has role `read`"),
    ] {
        let page = get(&proxy, path, &as_reader);
        assert_eq!(page.status, status, "{path}");
        let kind = page.header("content-type").unwrap();
        assert!(kind.starts_with("text/html"), "{path}: {kind}");
        assert!(page.text().contains(text), "{path}: {}", page.text());
        // Programs get JSON.
        let error = get(&proxy, path, READ);
        if path != "/admin/experiments/site/pause" {
            assert!(error.json()["error"].is_string(), "{path}");
        }
    }
    for path in [
        "/admin/results",
        "/admin/results?format=csv",
        "/admin/results?format=html",
        "/admin/page.js",
        "/admin/metrics",
        "/admin/acts",
        "/admin/healthz",
        "/nothing",
    ] {
        let answer = get(&proxy, path, READ);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let resource = answer.header("cross-origin-resource-policy");
        assert_eq!(resource, Some("same-origin"), "{path}");
    }
}

/// A running program whose admin API listens beyond loopback.
struct Exposed {
    child: std::process::Child,
    folder: tempfile::TempDir,
    admin: std::net::SocketAddr,
}

impl Exposed {
    fn start(admin: &str) -> Exposed {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("routes.yaml");
        std::fs::write(&file, format!("listen: 127.0.0.1:0\n{admin}{SITE}")).unwrap();
        let mut child = Command::new(BINARY)
            .args(["run", "-c", file.to_str().unwrap()])
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines =
            std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
        let admin = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, rest) = line.split_once("results at http://")?;
            let port = rest.split(['/', ':']).nth(1)?;
            Some(([127, 0, 0, 1], port.parse().ok()?).into())
        });
        std::thread::spawn(move || lines.for_each(drop));
        Exposed {
            child,
            folder,
            admin: admin.unwrap(),
        }
    }
}

impl Drop for Exposed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn reload_cannot_remove_the_token_of_a_public_admin_api() {
    let exposed = Exposed::start("admin: { listen: \"0.0.0.0:0\", token: secret }\n");
    let bearer = "Authorization: Bearer secret\r\n";
    // The new file is valid, but the admin API keeps its address until a restart.
    let file = exposed.folder.path().join("routes.yaml");
    std::fs::write(&file, format!("listen: 127.0.0.1:0\n{SITE}")).unwrap();
    let refused = Client::admin(exposed.admin).post("/admin/reload", bearer, "");
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(
        refused.text().contains("keep a token"),
        "{}",
        refused.text()
    );
    let mut client = Client::admin(exposed.admin);
    assert_eq!(client.get("/admin/results", "").status, 401);
    assert_eq!(client.get("/admin/results", bearer).status, 200);
}
