//! The history: every loaded file and every decision, once for all replicas.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::postgres::Postgres;
use crate::support::proxy::{How, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use serde_json::Value;

const TOKEN: &str = "Authorization: Bearer operator-token\r\n";

struct Site {
    current: Origin,
    next: Origin,
}

impl Site {
    fn start() -> Site {
        Site {
            current: Origin::start("current"),
            next: Origin::start("next"),
        }
    }

    fn routes(&self, store: &str, experiment: &str) -> String {
        format!(
            "{store}upstreams: {{ current: \"http://{}\", next: \"http://{}\" }}\nuser: {{ header: X-User }}\n\
             overrides: {{ secret: override-secret-17 }}\n\
             experiments:\n  site: {{ control: current, experiment: next, {experiment} }}\n\
             metrics: {{ buy: \"POST /buy -> 2xx\" }}\n",
            self.current.address, self.next.address
        )
    }
}

fn how() -> How {
    How {
        admin_keys: "tokens: { ops: { role: operate, token: operator-token } }".to_owned(),
        ..How::default()
    }
}

fn history(proxy: &Proxy) -> Vec<Value> {
    let answer = Client::admin(proxy.admin).get("/admin/history", TOKEN);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["history"].as_array().unwrap().clone()
}

/// Waits for so many loaded files, and returns them, the newest first.
fn files(proxy: &Proxy, count: usize) -> Vec<Value> {
    until("loaded files in the history", || {
        let mut all = history(proxy);
        all.retain(|entry| entry["action"] == "load");
        (all.len() == count).then_some(all.clone()).ok_or(all)
    })
}

fn post(proxy: &Proxy, path: &str, body: &str) {
    let answer = Client::admin(proxy.admin).post(path, TOKEN, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn tells_who_when_and_why(store: &str) {
    let site = Site::start();
    let proxy = Proxy::start_how(&site.routes(store, "percent: 10"), how());
    let first = files(&proxy, 1);
    assert_eq!(first[0]["by"], "start");
    assert_eq!(first[0]["source"], "file");
    assert_eq!(first[0]["file"]["number"], 1);
    proxy.write(&site.routes(store, "percent: 50, owner: web"));
    let second = files(&proxy, 2)[0].clone();
    assert_eq!(second["by"], "file");
    let diff = second["file"]["diff"].clone();
    let expected = serde_json::json!([
        "+ experiments.site.owner: \"web\"",
        "- experiments.site.percent: 10",
        "+ experiments.site.percent: 50"
    ]);
    assert_eq!(diff, expected);
    let effect = &second["file"]["effects"][0];
    assert_eq!(effect["experiment"], "site");
    let meaning = effect["meaning"].as_str().unwrap();
    assert!(meaning.starts_with("other weights or traffic"), "{meaning}");
    let moves = effect["moves"].to_string();
    assert!(
        moves.contains("control (current) -> experiment (next)"),
        "{moves}"
    );
    // A person reloads, and decides.
    proxy.write(&site.routes(store, "percent: 50, owner: shop"));
    post(&proxy, "/admin/reload", "");
    let third = files(&proxy, 3)[0].clone();
    // The program may have noticed the changed file before it was asked.
    if third["by"] != "file" {
        assert_eq!(
            (&third["by"], &third["source"]),
            (&"ops".into(), &"person".into())
        );
    }
    post(
        &proxy,
        "/admin/experiments/site/pause",
        r#"{"reason": "payments are down"}"#,
    );
    let all = history(&proxy);
    let pause = &all[0];
    assert_eq!(
        (&pause["action"], &pause["experiment"]),
        (&"pause".into(), &"site".into())
    );
    assert_eq!(
        (&pause["from"], &pause["to"]),
        (&"running".into(), &"paused".into())
    );
    assert_eq!(
        (&pause["by"], &pause["source"]),
        (&"ops".into(), &"person".into())
    );
    assert_eq!(pause["reason"], "payments are down");
    let times: Vec<u64> = all.iter().map(|it| it["at_ms"].as_u64().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    shown_everywhere(&proxy);
}

fn shown_everywhere(proxy: &Proxy) {
    let mut admin = Client::admin(proxy.admin);
    let mut ask = |path: &str, headers: &str| {
        let answer = admin.get(path, &format!("{TOKEN}{headers}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    };
    let text = ask("/admin/history?format=text", "").text();
    assert!(text.contains("reason: payments are down"), "{text}");
    assert!(text.contains("+ experiments.site.percent: 50"), "{text}");
    let page = ask("/admin/history", "Accept: text/html\r\n").text();
    assert!(page.contains(">payments are down</td>"), "{page}");
    let kept = ask("/admin/history/files/2", "").json();
    assert_eq!(kept["experiments"]["site"]["percent"], 50);
    assert_eq!(kept["overrides"]["secret"], "(secret)");
    let results = ask("/admin/results/site", "").json();
    let own = results["experiments"][0]["history"].as_array().unwrap();
    assert_eq!(own.len(), 3, "{own:#?}");
    let page = ask("/admin/results", "Accept: text/html\r\n").text();
    assert!(page.contains("id=\"history-site\""), "{page}");
    let limited = ask("/admin/history?limit=1&experiment=site", "").json();
    assert_eq!(limited["history"].as_array().unwrap().len(), 1);
    let none = ask("/admin/history?experiment=other", "").json();
    assert_eq!(none["history"].as_array().unwrap().len(), 0);
    for path in [
        "/admin/history",
        "/admin/history/files/1",
        "/admin/history?format=text",
    ] {
        let text = ask(path, "").text();
        assert!(
            !text.contains("override-secret-17") && !text.contains("operator-token"),
            "{text}"
        );
    }
    for (path, status) in [
        ("/admin/history?limit=0", 400),
        ("/admin/history?limit=1001", 400),
        ("/admin/history?format=csv", 400),
        ("/admin/history/files/99", 404),
        ("/admin/history/files/x", 400),
        ("/admin/history/files/18446744073709551615", 404),
    ] {
        assert_eq!(admin.get(path, TOKEN).status, status, "{path}");
    }
}

#[test]
fn history_tells_who_when_and_why_in_sqlite() {
    tells_who_when_and_why("");
}

#[test]
fn history_tells_who_when_and_why_in_redis() {
    let redis = Redis::start();
    tells_who_when_and_why(&format!("store: {}\n", redis.url()));
    let postgres = Postgres::start();
    tells_who_when_and_why(&format!("store: {}\n", postgres.url()));
}

#[test]
fn values_that_may_be_secrets_are_hidden_and_their_change_is_an_entry() {
    let site = Site::start();
    let headers = |credential: &str| {
        let routes = site.routes(
            "",
            "percent: 10, match: { cookie: { session_id: hunter2, plan: gold } }",
        );
        let current = format!("current: \"http://{}\"", site.current.address);
        let with = format!(
            "current: {{ endpoints: \"http://{}\", headers: {{ request: {{ set: {{ X-Internal: {credential} }} }} }} }}",
            site.current.address
        );
        let more = "routes: [ { match: /x, respond: { status: 200, headers: { X-Api-Key: hunter3, X-Color: blue } } } ]\nexclude: [ { header: { X-Probe-Token: hunter4 } } ]\n";
        format!("{}{more}", routes.replace(&current, &with))
    };
    let proxy = Proxy::start_how(&headers("hunter5"), how());
    files(&proxy, 1);
    proxy.write(&headers("hunter6"));
    let second = files(&proxy, 2)[0].clone();
    let diff = second["file"]["diff"].as_array().unwrap();
    assert_eq!(diff, &["+ (secrets): another value than before"]);
    let mut admin = Client::admin(proxy.admin);
    for path in ["/admin/history", "/admin/history/files/1", "/admin/config"] {
        let text = admin.get(path, TOKEN).text();
        assert!(!text.contains("hunter"), "{path}: {text}");
    }
    let text = admin.get("/admin/history/files/2", TOKEN).text();
    assert!(text.contains("gold") && text.contains("blue"), "{text}");
    // An invalid file shows neither.
    proxy.write(&headers("hunter7").replace("percent: 10", "percent: x"));
    let said = until("the invalid file", || {
        let results = admin.get("/admin/results", TOKEN).json();
        let error = results["store"]["reload_error"].clone();
        error.as_str().map(str::to_owned).ok_or(results)
    });
    assert!(
        said.contains("percent") && !said.contains("hunter"),
        "{said}"
    );
}

#[test]
fn effects_are_those_of_the_step_that_a_ramp_has_reached() {
    let site = Site::start();
    let proxy = Proxy::start_how(
        &site.routes("", "ramp: [1% for 1s, 60% for 1h, 100%]"),
        how(),
    );
    until("the second step", || {
        let acts = history(&proxy);
        let reached = acts.iter().any(|it| it["to"] == "60% for 1h");
        reached.then_some(()).ok_or(acts)
    });
    let same = "ramp: [1% for 1s, 60% for 2h, 100%]";
    proxy.write(&site.routes("", same));
    let second = files(&proxy, 2)[0].clone();
    let moves = second["file"]["effects"][0]["moves"].to_string();
    assert!(!moves.contains("->"), "nobody moves: {second}");
    assert!(
        moves.contains("60.") || moves.contains("39.") || moves.contains("40."),
        "{second}"
    );
}

#[test]
fn file_that_two_replicas_load_is_one_entry() {
    let redis = Redis::start();
    let site = Site::start();
    let store = format!("store: {}\n", redis.url());
    let ten = site.routes(&store, "percent: 10");
    let fifty = site.routes(&store, "percent: 50");
    // They have other addresses and journals.
    let (one, two) = (Proxy::start_how(&ten, how()), Proxy::start_how(&ten, how()));
    files(&one, 1);
    for (count, routes) in [(2, &fifty), (3, &ten), (4, &fifty)] {
        for proxy in [&one, &two] {
            proxy.write(routes);
            post(proxy, "/admin/reload", "");
        }
        assert_eq!(files(&one, count), files(&two, count));
    }
    let numbers: Vec<Value> = files(&two, 4)
        .iter()
        .map(|it| it["file"]["number"].clone())
        .collect();
    assert_eq!(numbers, [4, 3, 2, 1]);
}

#[test]
fn restart_with_the_same_file_is_no_entry_and_with_another_one_it_is() {
    let site = Site::start();
    let ten = site.routes("", "percent: 10");
    let mut proxy = Proxy::start_how(&ten, how());
    files(&proxy, 1);
    proxy.kill();
    proxy.again(&ten);
    proxy.write(&site.routes("", "percent: 20"));
    let found = files(&proxy, 2)[0].clone();
    assert_eq!(
        (&found["by"], &found["file"]["number"]),
        (&"file".into(), &2.into())
    );
    proxy.kill();
    proxy.again(&site.routes("", "percent: 50"));
    let found = files(&proxy, 3)[0].clone();
    assert_eq!(found["by"], "start");
    // What it changes is known from the file that the store has.
    let moves = found["file"]["effects"][0]["moves"].to_string();
    assert!(
        moves.contains("control (current) -> experiment (next)"),
        "{moves}"
    );
}

#[test]
fn file_that_is_loaded_while_the_store_is_away_is_recorded_later() {
    let mut redis = Redis::start();
    let site = Site::start();
    let store = format!("store: {}\n", redis.url());
    let proxy = Proxy::start_how(&site.routes(&store, "percent: 10"), how());
    files(&proxy, 1);
    redis.kill();
    proxy.write(&site.routes(&store, "percent: 50"));
    let answer = Client::admin(proxy.admin).post("/admin/reload", TOKEN, "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let loaded_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64;
    // It comes back without the first file.
    redis.up();
    let file = until("the history of a store that is back", || {
        let answer = Client::admin(proxy.admin).get("/admin/history", TOKEN);
        let all = answer.json()["history"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let load = all.iter().find(|it| it["action"] == "load").cloned();
        load.ok_or(all)
    });
    assert!(file["at_ms"].as_u64().unwrap() <= loaded_ms, "{file}");
    assert_ne!(file["by"], "start", "{file}");
}

#[test]
fn secrets_that_metrics_and_routes_test_are_shown_nowhere() {
    let site = Site::start();
    let routes = |secret: &str| {
        let metric =
            format!("{{ on: {{ method: POST, path: /buy, header: \"X-Auth-Token: {secret}\" }} }}");
        let more = format!(
            "routes: [ {{ match: {{ path: /x, cookie: {{ sessionid: {secret} }}, query: {{ api_key: {secret} }} }}, redirect: \"https://a.test/?access_token={secret}\" }} ]\n"
        );
        let routes = site.routes("", "percent: 10");
        format!("{}{more}", routes.replace("\"POST /buy -> 2xx\"", &metric))
    };
    let proxy = Proxy::start_how(&routes("hunter1"), how());
    files(&proxy, 1);
    proxy.write(&routes("hunter2"));
    let second = files(&proxy, 2)[0].clone();
    let diff = second["file"]["diff"].as_array().unwrap();
    assert_eq!(diff, &["+ (secrets): another value than before"]);
    assert!(second["file"]["effects"].is_array(), "{second}");
    let mut admin = Client::admin(proxy.admin);
    for path in [
        "/admin/history",
        "/admin/history?format=text",
        "/admin/history/files/2",
        "/admin/config",
        "/admin/results",
        "/admin/results?format=html",
    ] {
        let text = admin.get(path, TOKEN).text();
        assert!(!text.contains("hunter"), "{path}: {text}");
    }
    let check = std::process::Command::new(crate::support::proxy::BINARY)
        .args(["check", "-c", proxy.file().to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("query api_key=(secret)"), "{said}");
    assert!(!said.contains("hunter"), "{said}");
}

#[test]
fn pipe_in_the_place_of_the_file_stops_nothing() {
    let site = Site::start();
    let routes = site.routes("", "percent: 10");
    let proxy = Proxy::start_how(&routes, how());
    let file = proxy.file();
    std::fs::remove_file(&file).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&file).status();
    assert!(made.unwrap().success());
    let answer = Client::admin(proxy.admin).post("/admin/reload", TOKEN, "");
    assert!(
        answer.status >= 400 && answer.text().contains("not a regular file"),
        "{} {}",
        answer.status,
        answer.text()
    );
    assert_eq!(history(&proxy).len(), 2, "the refused file is an entry");
    std::fs::remove_file(&file).unwrap();
    proxy.write(&site.routes("", "percent: 20"));
    files(&proxy, 2);
}

#[test]
fn results_are_shown_while_the_store_is_away_although_nobody_asked_before() {
    let mut redis = Redis::start();
    let site = Site::start();
    let store = format!("store: {}\n", redis.url());
    let proxy = Proxy::start_how(&site.routes(&store, "percent: 10"), how());
    files(&proxy, 1);
    let accepts = format!("{TOKEN}Accept: text/html\r\n");
    let page = |path: &str| {
        let answer = Client::admin(proxy.admin).get(path, &accepts);
        let text = answer.text().to_string();
        (answer.status == 503 && text.contains("These are the results"))
            .then_some(text.clone())
            .ok_or(text)
    };
    let text = until("the results of before", || {
        redis.kill();
        page("/admin/results/site").inspect_err(|_| redis.up())
    });
    assert!(text.contains("id=\"verdict-site\""), "{text}");
    assert!(page("/admin/results").is_ok());
    let nobody = Client::admin(proxy.admin).get("/admin/results/other", &accepts);
    assert!(!nobody.text().contains("These are the results"));
}
