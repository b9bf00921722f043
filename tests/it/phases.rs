//! What changes of a file mean for what is counted: over real sockets, with real processes.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::postgres::Postgres;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use serde_json::{Value, json};
use std::process::Command;

struct Site {
    origins: [Origin; 3],
}

impl Site {
    fn start() -> Site {
        Site {
            origins: ["a", "b", "c"].map(Origin::start),
        }
    }

    /// A file with this experiment and these metrics.
    fn routes(&self, store: &str, experiment: &str, metrics: &str) -> String {
        let [a, b, c] = self.origins.each_ref().map(|origin| origin.address);
        format!(
            "{store}user: {{ cookie: uid }}\nupstreams: {{ a: \"http://{a}\", b: \"http://{b}\", c: \"http://{c}\" }}\nexperiments: {{ site: {{ {experiment} }} }}\nmetrics: {{ {metrics} }}\n"
        )
    }
}

const HALF: &str =
    "groups: { control: { weight: 50, upstream: a }, next: { weight: 50, upstream: b } }";

/// Lets users `<prefix>-0` and so on come, each once for each path.
fn come(client: &mut Client, prefix: &str, count: usize, paths: &[&str]) {
    for user in 0..count {
        for path in paths {
            client.get(path, &format!("Cookie: uid={prefix}-{user}\r\n"));
        }
    }
}

fn site(results: &Value) -> &Value {
    &results["experiments"][0]
}

/// Users of all groups, as results or one of their metrics have them.
fn sum(of: &Value, what: &str) -> f64 {
    let groups = of["groups"].as_array().unwrap();
    groups
        .iter()
        .map(|group| group[what].as_f64().unwrap())
        .sum()
}

fn metric<'a>(results: &'a Value, name: &str) -> &'a Value {
    let metrics = site(results)["metrics"].as_array().unwrap();
    metrics
        .iter()
        .find(|metric| metric["name"] == name)
        .unwrap()
}

fn warnings(results: &Value) -> Vec<String> {
    let all = site(results)["warnings"].as_array().unwrap();
    all.iter()
        .map(|it| it.as_str().unwrap().to_owned())
        .collect()
}

/// Changes the file, and waits until the results are those of the new one.
#[track_caller]
fn change(proxy: &Proxy, routes: &str, is_new: impl Fn(&Value) -> bool) -> Value {
    proxy.write(routes);
    until("the changed file", || {
        let results = proxy.results();
        is_new(&results).then_some(results.clone()).ok_or(results)
    })
}

/// Each definition counts by itself, and each user for the definitions that were there.
fn definitions_are_never_mixed(store: &str) {
    let at = Site::start();
    let routes = |metrics: &str| at.routes(store, HALF, metrics);
    let one = "buy: { event: buy }, money: { event: buy, value: amount, kind: mean }, speed: { latency: p50 }";
    let mut proxy = Proxy::start(&routes(one));
    come(&mut proxy.client(), "old", 10, &["/?event=buy;amount=10"]);
    let results = proxy.results();
    assert_eq!(sum(metric(&results, "buy"), "converted"), 10.0);
    assert_eq!(sum(metric(&results, "money"), "sum"), 100.0);
    assert_eq!(sum(metric(&results, "speed"), "count"), 10.0);
    assert_eq!(warnings(&results), [""; 0]);

    // Another event, another scale, one more metric, and another quantile.
    let two = "buy: { event: sold }, money: { event: buy, value: amount, kind: mean, scale: 4 }, more: { event: buy }, speed: { latency: p95 }";
    let results = change(&proxy, &routes(two), |results| {
        site(results)["metrics"].as_array().unwrap().len() == 4
    });
    for name in ["buy", "money", "more", "speed"] {
        assert_eq!(sum(metric(&results, name), "users"), 0.0, "{results:#}");
        assert_eq!(sum(metric(&results, name), "count"), 0.0);
    }
    let told = warnings(&results);
    assert!(
        told[0].contains(
            "metrics.buy: site began with (event buy, kind conversion), and the file says (event sold, kind conversion)"
        ),
        "{told:#?}"
    );
    assert!(
        told[1].contains("scale 2), and the file says ("),
        "{told:#?}"
    );
    assert!(
        told[2].contains("metrics.more: it was added after site had begun"),
        "{told:#?}"
    );
    assert!(
        told[3].contains(
            "metrics.speed: site began with (p50 of the first response, kind latency), and the file says (p95"
        ),
        "{told:#?}"
    );
    // Who was there before counts for none of them, whatever they do now.
    come(
        &mut proxy.client(),
        "old",
        10,
        &["/?event=buy;amount=1", "/?event=sold"],
    );
    come(
        &mut proxy.client(),
        "new",
        6,
        &["/?event=buy;amount=2.5", "/?event=sold"],
    );
    let check = |results: &Value| {
        for (name, count) in [("buy", 6.0), ("money", 6.0), ("more", 6.0), ("speed", 6.0)] {
            assert_eq!(sum(metric(results, name), "users"), 6.0, "{name}");
            assert_eq!(sum(metric(results, name), "count"), count, "{name}");
            assert!(metric(results, name)["started_at"].is_string());
        }
        assert_eq!(sum(metric(results, "money"), "sum"), 15.0);
        assert_eq!(sum(site(results), "users"), 16.0);
    };
    check(&proxy.results());
    proxy.kill();
    proxy.again(&routes(two));
    check(&proxy.results());

    // What was counted first is as it was, but for users who came meanwhile.
    let results = change(&proxy, &routes(one), |results| {
        site(results)["metrics"].as_array().unwrap().len() == 3
    });
    assert_eq!(sum(metric(&results, "speed"), "count"), 10.0);
    assert_eq!(sum(metric(&results, "buy"), "users"), 10.0);
    assert_eq!(sum(metric(&results, "buy"), "converted"), 10.0);
    assert_eq!(sum(metric(&results, "money"), "sum"), 100.0);
    assert_eq!(warnings(&results), [""; 0]);
}

#[test]
fn definitions_are_never_mixed_in_the_embedded_file() {
    definitions_are_never_mixed("");
}

#[test]
fn definitions_are_never_mixed_in_redis() {
    let redis = Redis::start();
    definitions_are_never_mixed(&format!("store: {}\n", redis.url()));
}

#[test]
fn guardrail_that_is_added_later_counts_users_who_come_from_then_on() {
    let at = Site::start();
    let routes = |guardrails: &str| {
        let experiment = format!("{HALF}{guardrails}");
        at.routes("", &experiment, "buy: { event: buy }")
    };
    let proxy = Proxy::start(&routes(""));
    come(&mut proxy.client(), "old", 10, &["/?status=500"]);
    assert_eq!(sum(site(&proxy.results()), "users"), 10.0);
    let guarded = routes(", guardrails: { errors: { max_increase: 1% } }");
    let results = change(&proxy, &guarded, |results| {
        !site(results)["guardrails"].as_array().unwrap().is_empty()
    });
    let told = warnings(&results);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(
        told[0].contains("experiments.site.guardrails.errors: it was added after site had begun"),
        "{told:#?}"
    );
    // Earlier users are in none of its rates, whatever they meet now.
    come(&mut proxy.client(), "old", 10, &["/?status=500"]);
    come(&mut proxy.client(), "new", 6, &["/?status=500"]);
    let results = proxy.results();
    let guardrail = &site(&results)["guardrails"][0];
    assert_eq!(sum(guardrail, "users"), 6.0, "{guardrail:#}");
    assert_eq!(sum(guardrail, "harmed"), 6.0, "{guardrail:#}");
    assert_eq!(sum(site(&results), "users"), 16.0);
}

#[test]
fn before_the_first_user_a_definition_is_free() {
    let at = Site::start();
    let routes = |event: &str| at.routes("", HALF, &format!("buy: {{ event: {event} }}"));
    let proxy = Proxy::start(&routes("first"));
    // What happens elsewhere begins nothing.
    proxy.results();
    let log = || proxy.log.lock().unwrap().matches("reload").count();
    let before = log();
    proxy.write(&routes("second"));
    until("a reload", || (log() > before).then_some(()).ok_or(()));
    come(&mut proxy.client(), "u", 5, &["/?event=second"]);
    let results = proxy.results();
    assert_eq!(sum(metric(&results, "buy"), "converted"), 5.0);
    assert_eq!(warnings(&results), [""; 0]);
    assert!(metric(&results, "buy")["started_at"].is_null());
}

/// Another salt counts everybody afresh, and what was counted before can be read.
fn a_new_phase_counts_everybody_afresh(store: &str) {
    let at = Site::start();
    let routes = |more: &str| at.routes(store, &format!("{HALF}{more}"), "buy: { event: buy }");
    let mut proxy = Proxy::start(&routes(""));
    come(&mut proxy.client(), "u", 40, &["/?event=buy"]);
    assert_eq!(sum(site(&proxy.results()), "users"), 40.0);
    let phase = |number: u32| move |results: &Value| site(results)["phase"] == number;
    change(&proxy, &routes(", salt: second"), phase(2));
    come(&mut proxy.client(), "u", 40, &["/"]);
    let check = |results: &Value| {
        assert_eq!(sum(site(results), "users"), 40.0, "{results:#}");
        assert_eq!(site(results)["crossed_over"], 0);
        assert_eq!(sum(metric(results, "buy"), "converted"), 0.0);
        let earlier = &site(results)["phases"][0];
        assert_eq!(earlier["phase"], 1);
        assert_eq!(
            earlier["ended_because"],
            "users are split by another salt now"
        );
        assert_eq!(sum(earlier, "users"), 40.0);
        assert_eq!(sum(&earlier["metrics"][0], "converted"), 40.0);
        assert!(
            earlier["verdict"]["reason"]
                .as_str()
                .unwrap()
                .contains("40 users")
        );
    };
    check(&proxy.results());
    let text = proxy.ask("/admin/results?format=text").text();
    let said = "phase 1 (40 users, from ";
    assert!(text.contains(said), "{text}");
    // Nothing is pending of what is over.
    let ended = "users are split by another salt now; it had no verdict";
    assert!(text.contains(ended), "{text}");
    assert!(
        proxy
            .ask("/admin/results?format=html")
            .text()
            .contains(said)
    );
    proxy.kill();
    proxy.again(&routes(", salt: second"));
    check(&proxy.results());
    // Each phase is exported by itself, and a user is forgotten in all of them.
    let rows = |name: &str| {
        let csv = proxy
            .ask(&format!("/admin/export/{name}?table=values"))
            .text();
        csv.lines().count() - 1
    };
    assert_eq!((rows("site"), rows("site~1"), rows("site~2")), (0, 40, 0));
    let mut admin = Client::admin(proxy.admin);
    let forget = "DELETE /admin/assignments?user=u-7 HTTP/1.1\r\nHost: x\r\n\r\n";
    admin
        .say(forget.replace("Host: x", &format!("Host: {}", proxy.admin)))
        .unwrap();
    let answer = admin.answer(true).unwrap();
    assert_eq!(answer.json()["forgotten"], json!(["site"]));
    let results = proxy.results();
    assert_eq!(sum(site(&results), "users"), 39.0);
    assert_eq!(sum(&site(&results)["phases"][0], "users"), 39.0);
    // The old salt goes on where it was.
    let results = change(&proxy, &routes(""), phase(1));
    assert_eq!(sum(metric(&results, "buy"), "converted"), 39.0);
    assert_eq!(site(&results)["phases"][0]["phase"], 2);
}

#[test]
fn a_new_phase_counts_everybody_afresh_in_the_embedded_file() {
    a_new_phase_counts_everybody_afresh("");
}

#[test]
fn a_new_phase_counts_everybody_afresh_in_redis() {
    let redis = Redis::start();
    a_new_phase_counts_everybody_afresh(&format!("store: {}\n", redis.url()));
    let postgres = Postgres::start();
    a_new_phase_counts_everybody_afresh(&format!("store: {}\n", postgres.url()));
}

#[test]
fn another_upstream_is_a_new_phase_and_ended_groups_stay_visible() {
    let at = Site::start();
    let routes = |groups: &str| {
        at.routes(
            "",
            &format!("groups: {{ {groups} }}"),
            "buy: { event: buy }",
        )
    };
    let control = "control: { weight: 50, upstream: a }";
    let proxy = Proxy::start(&routes(&format!(
        "{control}, next: {{ weight: 50, upstream: b }}"
    )));
    come(&mut proxy.client(), "u", 20, &["/"]);
    let next = site(&proxy.results())["groups"][1]["users"]
        .as_f64()
        .unwrap();
    // A label renames, and moves nobody.
    let labelled =
        format!("{control}, next: {{ weight: 50, upstream: b, label: \"New checkout\" }}");
    let results = change(&proxy, &routes(&labelled), |results| {
        site(results)["groups"][1]["label"] == "New checkout"
    });
    assert_eq!(
        (&site(&results)["phase"], sum(site(&results), "users")),
        (&json!(1), 20.0)
    );
    let text = proxy.ask("/admin/results?format=text").text();
    assert!(text.contains("New checkout"), "{text}");
    // Another name is another group; the old one has ended.
    let renamed = format!("{control}, other: {{ weight: 50, upstream: b }}");
    let results = change(&proxy, &routes(&renamed), |results| {
        site(results)["groups"][1]["name"] == "other"
    });
    assert_eq!(site(&results)["phase"], 1);
    let ended = &site(&results)["ended_groups"][0];
    assert_eq!(
        (&ended["name"], ended["users"].as_f64()),
        (&json!("next"), Some(next))
    );
    let text = proxy.ask("/admin/results?format=text").text();
    assert!(text.contains("next ended: it had "), "{text}");
    // Another upstream is another thing that is compared.
    let moved = format!("{control}, next: {{ weight: 50, upstream: c }}");
    change(&proxy, &routes(&moved), |results| {
        site(results)["phase"] == 2
    });
    come(&mut proxy.client(), "u", 20, &["/"]);
    let results = proxy.results();
    assert_eq!(sum(site(&results), "users"), 20.0);
    assert_eq!(
        site(&results)["phases"][0]["ended_because"],
        "next had the upstream b, and has the upstream c now"
    );
}

#[test]
fn what_decides_stays_until_a_new_phase() {
    let at = Site::start();
    let one = "buy: { event: buy, margin: 1%, goal: increase }, visit: { event: visit }";
    let begun = at.routes("", &format!("{HALF}, min_duration: 0s"), one);
    let proxy = Proxy::start(&begun);
    come(&mut proxy.client(), "u", 10, &["/?event=buy"]);
    until("what the phase began with", || {
        let path = proxy.folder.path().join("watershed.db");
        let file = rusqlite::Connection::open(path).unwrap();
        let sql = "SELECT count(*) FROM first WHERE field LIKE 'primary|%'";
        let kept: i64 = file.query_row(sql, [], |row| row.get(0)).unwrap();
        (kept > 0).then_some(()).ok_or(kept)
    });
    let other =
        "buy: { event: buy, margin: 2%, goal: decrease }, visit: { event: visit, role: primary }";
    let changed = at.routes(
        "",
        &format!("{HALF}, min_duration: 1d, horizon: 14d"),
        other,
    );
    let results = change(&proxy, &changed, |results| !warnings(results).is_empty());
    let told = warnings(&results).join("\n");
    for (key, file, began) in [
        ("experiments.site.metrics", "visit", "buy"),
        ("experiments.site.min_duration", "1d", "0ms"),
        ("experiments.site.horizon", "14d", "none"),
        ("metrics.buy.margin", "2 %", "1 %"),
        ("metrics.buy.goal", "decrease", "increase"),
    ] {
        let said = format!(
            "{key}: the file says {file}, but site began with {began}, which decides until a new phase"
        );
        assert!(told.contains(&said), "{said}\n{told}");
    }
    let first = &site(&results)["metrics"][0];
    assert_eq!(
        (
            &first["name"],
            &first["role"],
            &first["goal"],
            &first["margin"]
        ),
        (
            &json!("buy"),
            &json!("primary"),
            &json!("increase"),
            &json!(0.01)
        )
    );
    // `plan` names both, before the change.
    let folder = tempfile::tempdir().unwrap();
    let files = ["old.yaml", "new.yaml"].map(|name| folder.path().join(name));
    std::fs::write(&files[0], &begun).unwrap();
    std::fs::write(
        &files[1],
        changed.replace("event: visit,", "event: visited,"),
    )
    .unwrap();
    let output = Command::new(BINARY)
        .arg("plan")
        .args(&files)
        .output()
        .unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    for line in [
        "the metric that decides: buy -> visit: buy decides until a new phase begins",
        "min_duration: 0ms -> 1d: 0ms decides until a new phase begins",
        "horizon: none -> 14d: none decides until a new phase begins",
        "metrics.buy.margin: 1 % -> 2 %: 1 % decides",
        "metrics.visit: (event visit, kind conversion) -> (event visited, kind conversion): a new series counts users",
    ] {
        assert!(output.contains(line), "{line}\n{output}");
    }
    // The file decides in a new phase.
    let anew = changed.replace("horizon: 14d", "horizon: 14d, salt: anew");
    let results = change(&proxy, &anew, |results| site(results)["phase"] == 2);
    assert_eq!(warnings(&results), [""; 0]);
    assert_eq!(site(&results)["metrics"][0]["name"], "visit");
    // Without the metric that decides there is no verdict.
    let without = at.routes(
        "",
        &format!("{HALF}, min_duration: 0s"),
        "visit: { event: visit }",
    );
    let results = change(&proxy, &without, |results| {
        site(results)["phase"] == 1 && site(results)["metrics"].as_array().unwrap().len() == 1
    });
    let reason = site(&results)["verdict"]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("buy decides this experiment, and the file no longer has it"),
        "{reason}"
    );
}

#[test]
fn a_planned_end_ends_with_a_word() {
    let at = Site::start();
    let keys = format!("{HALF}, min_duration: 0s, horizon: 400");
    let routes = at.routes("", &keys, "buy: { event: buy, detect: 5% }");
    let mut proxy = Proxy::start(&routes);
    let mut client = proxy.client();
    let state = |results: &Value| site(results)["verdict"]["state"].clone();
    come(&mut client, "a", 100, &["/?event=buy"]);
    come(&mut client, "b", 100, &["/"]);
    let results = proxy.results();
    assert_eq!(state(&results), "collecting", "{results:#}");
    let reason = site(&results)["verdict"]["reason"].as_str().unwrap();
    assert!(
        reason.contains("the planned end is at 400 users"),
        "{reason}"
    );
    let horizon = &site(&results)["planning"]["horizon"];
    assert_eq!(
        (&horizon["users"], &horizon["analyses"]),
        (&json!(400), &json!(30))
    );
    let analysis = horizon["analysis"].as_u64().unwrap();
    assert!((1..=15).contains(&analysis), "{horizon}");
    // Analyses are made once, also over a restart.
    until("the analysis that is kept", || {
        let path = proxy.folder.path().join("watershed.db");
        let file = rusqlite::Connection::open(path).unwrap();
        let sql = "SELECT count(*) FROM first WHERE field LIKE 'analysis|%'";
        let kept: i64 = file.query_row(sql, [], |row| row.get(0)).unwrap();
        (kept > 0).then_some(()).ok_or(kept)
    });
    let at_before = horizon["analyzed_at"].clone();
    proxy.kill();
    proxy.again(&routes);
    let results = proxy.results();
    assert_eq!(
        site(&results)["planning"]["horizon"]["analyzed_at"],
        at_before
    );
    let mut client = proxy.client();
    come(&mut client, "c", 100, &["/?event=buy"]);
    come(&mut client, "d", 100, &["/"]);
    let results = proxy.results();
    assert_eq!(site(&results)["planning"]["horizon"]["analysis"], 30);
    assert_eq!(state(&results), "inconclusive", "{results:#}");
    let reason = site(&results)["verdict"]["reason"].as_str().unwrap();
    assert!(
        reason.contains("(95 %, by the plan, at analysis 30 of 30)"),
        "{reason}"
    );
    // What comes later changes nothing any more.
    come(&mut client, "e", 50, &["/?event=buy"]);
    assert_eq!(state(&proxy.results()), "inconclusive");
}
