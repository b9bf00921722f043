//! Verdicts over the whole way: real proxy, real ledger, real time.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::until;
use serde_json::Value;
use watershed::experiment::UserId;
use watershed::experiment::assign::{Share, Split, Weight};

const HALF: &str = "experiments: { new-site: { control: current, experiment: redesign, percent: 50, min_duration: 0s } }\n";

struct Site {
    current: Origin,
    redesign: Origin,
}

impl Site {
    fn start() -> Site {
        Site {
            current: Origin::start("current"),
            redesign: Origin::start("redesign"),
        }
    }

    fn routes(&self, more: &str) -> String {
        format!(
            "upstreams: {{ current: \"http://{}\", redesign: \"http://{}\" }}\nuser: {{ cookie: uid }}\n{more}",
            self.current.address, self.redesign.address
        )
    }
}

/// Users `<prefix>-0`, `<prefix>-1`, … of each group of `new-site` split in halves.
fn users(prefix: &str, salt: &str, group: &str, count: usize) -> Vec<String> {
    let half = Weight::new(50.0).unwrap();
    let split = Split::new(salt, Share::ALL, [("control", half), ("experiment", half)]);
    let wanted = ["control", "experiment"]
        .iter()
        .position(|name| *name == group);
    let named = (0..).map(|number| format!("{prefix}-{number}"));
    let mine = named.filter(|user| {
        let user = UserId::new(user.as_bytes()).unwrap();
        split.assign(user).map(|group| group.0) == wanted
    });
    mine.take(count).collect()
}

/// Lets users of both groups come, of whom so many do `path`.
fn come(client: &mut Client, prefix: &str, salt: &str, doers: [(usize, usize); 2], path: &str) {
    for (group, (count, doing)) in ["control", "experiment"].iter().zip(doers) {
        for (place, user) in users(prefix, salt, group, count).iter().enumerate() {
            let cookie = format!("Cookie: uid={user}\r\n");
            client.get("/", &cookie);
            if place < doing {
                client.get(path, &cookie);
            }
        }
    }
}

fn experiment(results: &Value) -> &Value {
    &results["experiments"][0]
}

fn metric(results: &Value, metric: usize, group: usize) -> &Value {
    &experiment(results)["metrics"][metric]["groups"][group]
}

fn p(results: &Value) -> f64 {
    metric(results, 0, 1)["p_value"].as_f64().unwrap()
}

/// Evidence comes, the process is killed, and what comes later speaks against it.
fn p_never_rises_over_a_kill(store: &str, kept: impl Fn(&Proxy) -> String) {
    let site = Site::start();
    let metrics = "metrics: { purchase: { event: purchase, detect: 100% } }\n";
    let routes = site.routes(&format!("{HALF}{metrics}{store}"));
    let mut proxy = Proxy::start(&routes);
    let buy = "/?event=purchase";
    come(
        &mut proxy.client(),
        "a",
        "new-site",
        [(40, 2), (40, 40)],
        buy,
    );
    let before = p(&proxy.results());
    assert!(before < 0.01, "{before}");
    until("p-values that are kept", || {
        let kept = kept(&proxy);
        kept.contains("p|").then_some(()).ok_or(kept)
    });
    std::thread::sleep(std::time::Duration::from_millis(2500));
    proxy.kill();
    proxy.again(&routes);
    assert!(p(&proxy.results()) <= before);
    come(
        &mut proxy.client(),
        "b",
        "new-site",
        [(60, 60), (60, 2)],
        buy,
    );
    let results = proxy.results();
    // By themselves the counts show nothing any more.
    assert!((metric(&results, 0, 0)["rate"].as_f64().unwrap() - 0.62).abs() < 0.01);
    assert!((metric(&results, 0, 1)["rate"].as_f64().unwrap() - 0.42).abs() < 0.01);
    assert!(p(&results) <= before, "{} > {before}", p(&results));
    // What was not kept before would now be known to this process only.
    proxy.kill();
    proxy.again(&routes);
    assert!(p(&proxy.results()) <= before);

    // Another planned lift changes nothing but a warning.
    proxy.write(&routes.replace("detect: 100%", "detect: 30%"));
    let results = until("a warning", || {
        let results = proxy.results();
        let warned = experiment(&results)["warnings"][0].is_string();
        warned.then_some(results.clone()).ok_or(results)
    });
    let warning = experiment(&results)["warnings"][0].as_str().unwrap();
    assert!(
        warning.starts_with(
            "metrics.purchase.detect: the file says 30 %, but new-site began with 100 %"
        ),
        "{warning}"
    );
    let log = proxy.log.lock().unwrap().clone();
    let said = until("a word in the log", || {
        let log = proxy.log.lock().unwrap().clone();
        log.contains("WARN").then_some(log.clone()).ok_or(log)
    });
    assert_eq!(said.matches("began with 100 %").count(), 1, "{log}");
    let text = proxy.ask("/admin/results?format=text").text();
    assert!(text.contains("began with 100 %"), "{text}");

    // Another salt is another experiment: nothing is known of it.
    proxy.write(&routes.replace("percent: 50", "percent: 50, salt: second"));
    until("a new beginning", || {
        let now = proxy.results();
        (p(&now) > before).then_some(()).ok_or(p(&now))
    });
}

#[test]
fn p_never_rises_over_a_kill_with_the_embedded_file() {
    p_never_rises_over_a_kill("", |proxy| {
        let path = proxy.folder.path().join("watershed.db");
        let file = rusqlite::Connection::open(path).unwrap();
        let sql = "SELECT group_concat(field || '=' || value) FROM lowest";
        let kept: Option<String> = file.query_row(sql, [], |row| row.get(0)).unwrap();
        kept.unwrap_or_default()
    });
}

#[test]
fn p_never_rises_over_a_kill_with_redis() {
    let redis = Redis::start();
    p_never_rises_over_a_kill(&format!("store: {}\n", redis.url()), |_| {
        redis
            .command(&["HGETALL", "ws:{new-site:0}:lowest"])
            .unwrap()
    });
}
