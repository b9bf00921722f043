//! Which requests an experiment takes, through the real program.

use crate::support::client::Answer;
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::until;
use std::process::{Command, Output};

/// A proxy whose experiment sends everybody who is meant to `b`.
fn proxy(origins: &[Origin; 2], conditions: &str, more: &str) -> Proxy {
    let [a, b] = origins.each_ref().map(|origin| origin.address);
    Proxy::start(&format!(
        "upstreams: {{ a: \"http://{a}\", b: \"http://{b}\" }}\nuser: {{ header: X-User }}\ndefault: a\n{more}\
         experiments:\n  e:\n    match: {conditions}\n    groups: {{ control: {{ weight: 1, upstream: b }}, other: {{ weight: 1, upstream: b }} }}\n\
         metrics: {{ bought: {{ on: {{ path: /caf\u{e9}/bought }}, kind: count }} }}\n"
    ))
}

fn origins() -> [Origin; 2] {
    [Origin::start("a"), Origin::start("b")]
}

fn is_meant(answer: &Answer) -> bool {
    assert_eq!(answer.status, 200);
    answer.json()["version"] == "b"
}

#[track_caller]
fn check(proxy: &Proxy, path: &str, headers: &str, expected: bool) {
    let headers = format!("X-User: ann\r\n{headers}");
    let answer = proxy.client().get(path, &headers);
    assert_eq!(is_meant(&answer), expected, "{path} {headers}");
}

#[test]
fn conditions_are_combined() {
    let origins = origins();
    let conditions = "[ /only, { path: [ /shop/**, { regex: \"^/p/[0-9]+$\" } ], not: /shop/admin/**, any: [ { language: de }, { cookie: { land: [ AT, C* ] } } ] } ]";
    let proxy = proxy(&origins, conditions, "");
    check(&proxy, "/only", "", true);
    check(&proxy, "/shop", "", false);
    check(&proxy, "/shop", "Accept-Language: de-AT, en\r\n", true);
    check(&proxy, "/shop", "Accept-Language: en, de;q=0.5\r\n", false);
    check(&proxy, "/p/17", "Cookie: x=1; land=CH\r\n", true);
    check(&proxy, "/p/17", "Cookie: land=DE\r\n", false);
    check(&proxy, "/p/17/x", "Cookie: land=CH\r\n", false);
    check(&proxy, "/shop/admin/x", "Cookie: land=AT\r\n", false);
    let answer = proxy.client().get("/shop", "X-User: ann\r\n");
    assert_eq!(answer.all("vary").join(", "), "accept-language, cookie");
    assert_eq!(
        proxy
            .client()
            .get("/only", "X-User: ann\r\n")
            .all("vary")
            .join(", "),
        "cookie, x-user"
    );
    assert!(
        proxy
            .client()
            .get("/none", "X-User: ann\r\n")
            .header("vary")
            .is_none()
    );
}

#[test]
fn client_attributes_decide() {
    let origins = origins();
    let conditions =
        "{ network: [ 203.0.113.0/24, \"2001:db8::/32\" ], device: phone, query: { ref: false } }";
    let proxy = proxy(&origins, conditions, "trust: 127.0.0.1\n");
    let phone =
        "User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Mobile/15E148\r\n";
    let from = |address: &str| format!("{phone}X-Forwarded-For: {address}\r\n");
    check(&proxy, "/", &from("203.0.113.7"), true);
    check(&proxy, "/", &from("203.0.113.7:4711"), true);
    check(&proxy, "/", &from("\"[2001:db8::1]:4711\""), true);
    check(&proxy, "/", &from("198.51.100.1"), false);
    check(&proxy, "/", phone, false);
    check(&proxy, "/?ref", &from("203.0.113.7"), false);
    let forwarded = format!("{phone}Forwarded: for=\"[2001:db8::1]:80\";proto=https\r\n");
    check(&proxy, "/", &forwarded, true);
    check(
        &proxy,
        "/",
        "User-Agent: Mozilla/5.0 (X11) Firefox/150\r\nX-Forwarded-For: 203.0.113.7\r\n",
        false,
    );
    // No header names the address to a cache.
    for headers in [from("203.0.113.7"), from("198.51.100.1")] {
        let answer = proxy
            .client()
            .get("/", &format!("X-User: ann\r\n{headers}"));
        assert_eq!(answer.header("cache-control"), Some("private"), "{headers}");
    }
    let other = proxy.client().get("/?ref", "X-User: ann\r\n");
    assert_eq!(other.header("cache-control"), None);
}

#[test]
fn paths_are_compared_in_normal_form_and_forwarded_as_they_came() {
    let origins = origins();
    let conditions = "{ path: /caf\u{e9}/**, host: shop.test. }";
    let proxy = proxy(&origins, conditions, "");
    let send = |target: &str, host: &str| {
        let mut client = proxy.client();
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nX-User: ann\r\n\r\n");
        client.say(head).unwrap();
        client.answer(true).unwrap()
    };
    for target in [
        "/caf%C3%A9",
        "/caf%c3%a9/bought",
        "//c%61f%C3%A9/./x/..//bought",
        "/x/%2e%2e/caf%C3%A9/bought",
    ] {
        let answer = send(target, "Shop.test.:80");
        assert!(is_meant(&answer), "{target}");
        assert_eq!(answer.json()["target"], target);
    }
    for (target, host) in [
        ("/caf%25C3%25A9", "shop.test"),
        ("/cafe", "shop.test"),
        ("/caf%C3%A9", "x.shop.test"),
    ] {
        assert!(!is_meant(&send(target, host)), "{target} {host}");
    }
    let results = proxy.results();
    let groups = results["experiments"][0]["metrics"][0]["groups"]
        .as_array()
        .unwrap();
    let count: u64 = groups
        .iter()
        .map(|group| group["count"].as_u64().unwrap())
        .sum();
    assert_eq!(count, 3, "the metric compares the same form: {results:#}");
}

/// `watershed check` of a file with these experiments and metrics.
fn checked(lines: &str) -> Output {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("routes.yaml");
    let upstreams = "upstreams: { a: http://127.0.0.1:1, b: http://127.0.0.1:2 }\n";
    std::fs::write(&file, format!("{upstreams}{lines}")).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["check", "-c"]).arg(&file).output().unwrap()
}

#[test]
fn experiments_that_nobody_reaches_are_named() {
    let lines = "experiments:
  first: { match: { path: /shop/** }, control: a, experiment: b, percent: 50 }
  told: { match: /shop/x, groups: { control: { weight: 1 }, other: { weight: 1 } } }
  late: { match: [ /shop/x, { path: /shop/y, device: mobile } ], control: a, experiment: b, percent: 50 }
  other: { match: /other, control: a, experiment: b, percent: 50, traffic: 50% }
  after: { match: /other, control: a, experiment: b, percent: 50 }
";
    let output = checked(lines);
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("warning: "), "{said}");
    assert_eq!(said.matches("warning: ").count(), 1, "{said}");
    assert!(
        said.contains("experiments.late.match: no user can reach this experiment: `first` always"),
        "{said}"
    );
}

#[test]
fn warnings_of_a_running_file_are_logged() {
    let [a, b] = origins();
    let proxy = Proxy::start(&format!(
        "upstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\nexperiments:\n  one: {{ control: a, experiment: b, percent: 50 }}\n  two: {{ match: /x, control: a, experiment: b, percent: 50 }}\n",
        a.address, b.address
    ));
    until("the log names the experiment", || {
        let log = proxy.log.lock().unwrap().clone();
        let said = log.contains("experiments.two.match: no user can reach this experiment");
        said.then_some(()).ok_or(log)
    });
}

#[test]
fn one_id_with_a_large_share_is_reported() {
    let [a, b] = origins();
    let proxy = Proxy::start(&format!(
        "workers: 2\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\nuser: {{ header: X-User }}\nexperiments:\n  one: {{ control: a, experiment: b, percent: 50 }}\n",
        a.address, b.address
    ));
    let mut client = proxy.client();
    for number in 0..900 {
        client.get("/", &format!("X-User: user-{number}\r\n"));
    }
    let few = proxy.results();
    assert_eq!(few["frequent_ids"], serde_json::json!([]), "{few:#}");
    let mut client = proxy.client();
    for _ in 0..100 {
        client.get("/", "X-User: everybody\r\n");
    }
    let results = proxy.results();
    let expected = serde_json::json!([{ "id": "ever… (9 bytes)", "share": 0.1 }]);
    assert_eq!(results["frequent_ids"], expected, "{results:#}");
    let metrics = proxy.ask("/admin/metrics").text();
    assert!(
        metrics.contains("\nwatershed_frequent_ids{} 1.0"),
        "{metrics}"
    );
    until("the log names the ID", || {
        let log = proxy.log.lock().unwrap().clone();
        let said = log.contains("one ID makes 10 % of the latest requests: ever… (9 bytes)");
        assert!(!log.contains("everybody"), "{log}");
        said.then_some(()).ok_or(log)
    });
    let page = proxy.ask("/admin/results?format=html").text();
    assert!(
        page.contains("One ID makes 10 % of the latest requests"),
        "{page}"
    );
    // Requests without an ID dilute it.
    let mut client = proxy.client();
    for number in 0..1_100 {
        client.get("/", &format!("X-User: late-{number}\r\n"));
    }
    assert_eq!(proxy.results()["frequent_ids"], serde_json::json!([]));
}
