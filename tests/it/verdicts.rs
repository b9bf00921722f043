//! Verdicts over the whole way: real proxy, real store, real time.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::postgres::Postgres;
use crate::support::proxy::{BINARY, Proxy};
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
            client.get("/shop/", &cookie);
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

fn lowest(results: &Value) -> f64 {
    metric(results, 0, 1)["p_value_lowest"].as_f64().unwrap()
}

/// Evidence comes, the process is killed, and what comes later speaks against it: p rises, and the
/// lowest one stays, with its time.
fn lowest_p_outlives_a_kill(store: &str, kept: impl Fn(&Proxy) -> String) {
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
    assert_eq!(lowest(&proxy.results()), before);
    until("p-values that are kept", || {
        let kept = kept(&proxy);
        kept.contains("p|").then_some(()).ok_or(kept)
    });
    std::thread::sleep(std::time::Duration::from_millis(2500));
    proxy.kill();
    proxy.again(&routes);
    let at = metric(&proxy.results(), 0, 1)["p_value_lowest_at"].clone();
    assert!(at.is_string(), "{at}");
    come(
        &mut proxy.client(),
        "b",
        "new-site",
        [(60, 60), (60, 2)],
        buy,
    );
    let results = proxy.results();
    // By themselves the counts show nothing any more, and neither does the verdict.
    assert!((metric(&results, 0, 0)["rate"].as_f64().unwrap() - 0.62).abs() < 0.01);
    assert!((metric(&results, 0, 1)["rate"].as_f64().unwrap() - 0.42).abs() < 0.01);
    assert!(p(&results) > 10.0 * before, "{}", p(&results));
    state(
        &results,
        "no_planned_lift",
        "experiment was significantly better than control on ",
    );
    let lowest_now = lowest(&results);
    assert!(lowest_now <= before, "{lowest_now} > {before}");
    // What was not kept before would now be known to this process only.
    proxy.kill();
    proxy.again(&routes);
    let results = proxy.results();
    assert_eq!(lowest(&results), lowest_now);
    assert_eq!(metric(&results, 0, 1)["p_value_lowest_at"], at);
    state(&results, "no_planned_lift", "and no longer is");

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
        log.contains("began with 100 %")
            .then_some(log.clone())
            .ok_or(log)
    });
    assert_eq!(said.matches("began with 100 %").count(), 1, "{log}");
    let text = proxy.ask("/admin/results?format=text").text();
    assert!(text.contains("began with 100 %"), "{text}");

    // Another salt is another experiment: nothing is known of it, and its lift is its own.
    let anew = routes
        .replace("percent: 50", "percent: 50, salt: second")
        .replace("detect: 100%", "detect: 50%");
    proxy.write(&anew);
    until("a new beginning", || {
        let results = proxy.results();
        let users = experiment(&results)["groups"][0]["users"] == 0;
        users.then_some(()).ok_or(results)
    });
    come(
        &mut proxy.client(),
        "c",
        "second",
        [(20, 10), (20, 11)],
        buy,
    );
    let results = proxy.results();
    assert_eq!(experiment(&results)["groups"][1]["users"], 20);
    assert_eq!(experiment(&results)["metrics"][0]["detect"], 0.5);
    assert!(lowest(&results) > before, "{results:#}");
    assert_eq!(experiment(&results)["phase"], 2);
    let earlier = &experiment(&results)["phases"][0];
    assert_eq!(
        (&earlier["phase"], &earlier["groups"][0]["users"]),
        (&1.into(), &100.into())
    );
    // And with the old one it is what it was.
    proxy.write(&routes);
    until("the old experiment", || {
        let results = proxy.results();
        let users = experiment(&results)["groups"][0]["users"] == 100;
        (users && lowest(&results) == lowest_now)
            .then_some(())
            .ok_or(results)
    });
}

#[test]
fn lowest_p_survives_a_kill_with_sqlite() {
    lowest_p_outlives_a_kill("", |proxy| {
        let path = proxy.folder.path().join("watershed.db");
        let file = rusqlite::Connection::open(path).unwrap();
        let sql = "SELECT group_concat(field || '=' || value) FROM lowest";
        let kept: Option<String> = file.query_row(sql, [], |row| row.get(0)).unwrap();
        kept.unwrap_or_default()
    });
}

#[test]
fn lowest_p_survives_a_kill_with_postgres() {
    let postgres = Postgres::start();
    lowest_p_outlives_a_kill(&format!("store: {}\n", postgres.url()), |_| {
        let rows = postgres.sql("SELECT field, value FROM watershed.lowest ORDER BY field");
        format!("{:?}", rows.unwrap())
    });
}

#[test]
fn lowest_p_survives_a_kill_with_redis() {
    let redis = Redis::start();
    lowest_p_outlives_a_kill(&format!("store: {}\n", redis.url()), |_| {
        redis
            .command(&["HGETALL", "ws:{new-site:0}:lowest"])
            .unwrap()
    });
}

/// Routes with this experiment's keys beside its upstreams, and these metrics.
fn routes(site: &Site, keys: &str, metrics: &str) -> String {
    site.routes(&format!(
        "experiments: {{ new-site: {{ control: current, experiment: redesign, percent: 50{keys} }} }}\nmetrics: {{ {metrics} }}\n"
    ))
}

const PURCHASE: &str = "purchase: { event: purchase, detect: 100% }";
const BUY: &str = "/shop/?event=purchase";

#[track_caller]
fn state(results: &Value, state: &str, says: &str) {
    let verdict = &experiment(results)["verdict"];
    assert_eq!(verdict["state"], state, "{verdict}");
    let reason = verdict["reason"].as_str().unwrap();
    assert!(reason.contains(says), "{reason}");
}

#[test]
fn configured_guardrails_show_harm() {
    let site = Site::start();
    let keys = ", min_duration: 0s, match: /shop/**, metrics: [purchase], guardrails: { errors: { max_increase: 0% }, slow: { over: 1500ms, max_increase: 5% }, returns: { max_increase: 10% } }";
    let metrics = format!("{PURCHASE}, returns: {{ event: return }}");
    let proxy = Proxy::start(&routes(&site, keys, &metrics));
    let mut client = proxy.client();
    let slow = "/shop/?sleep_ms=1700";
    // Errors elsewhere are none of the experiment's.
    let broken = "/shop/?status=500";
    come(&mut client, "a", "new-site", [(40, 0), (40, 36)], broken);
    come(&mut client, "a", "new-site", [(40, 1), (40, 1)], slow);
    come(
        &mut client,
        "a",
        "new-site",
        [(40, 40), (40, 0)],
        "/else?status=503",
    );
    come(
        &mut client,
        "a",
        "new-site",
        [(40, 2), (40, 2)],
        "/shop/?event=return",
    );
    let results = proxy.results();
    let guardrails = &experiment(&results)["guardrails"];
    let group = |guardrail: usize, group: usize| &guardrails[guardrail]["groups"][group];
    assert_eq!(guardrails[0]["name"], "errors");
    assert_eq!(guardrails[0]["max_increase"], 0.0);
    assert_eq!(guardrails[0]["alpha"], 0.01 / 3.0);
    assert_eq!(group(0, 0)["harmed"], 0, "{guardrails:#}");
    assert_eq!(group(0, 1)["harmed"], 36);
    assert_eq!(group(0, 1)["users"], 40);
    assert_eq!(group(0, 1)["breached"], true, "{guardrails:#}");
    assert!(group(0, 1)["p_value"].as_f64().unwrap() < 0.01 / 3.0);
    assert!(group(0, 1)["at_least"].as_f64().unwrap() > 0.0);
    assert_eq!(
        group(0, 0)["breached"],
        Value::Null,
        "control is no danger to itself"
    );
    assert_eq!(guardrails[1]["name"], "slow");
    assert_eq!(guardrails[1]["over_ms"], 1500.0);
    assert_eq!(
        (&group(1, 0)["harmed"], &group(1, 1)["harmed"]),
        (&1.into(), &1.into())
    );
    assert_eq!(group(1, 1)["breached"], false);
    assert_eq!(guardrails[2]["name"], "returns");
    assert_eq!(
        (&group(2, 0)["harmed"], &group(2, 1)["harmed"]),
        (&2.into(), &2.into())
    );
    assert_eq!(experiment(&results)["metrics"].as_array().unwrap().len(), 1);
    state(&results, "loser", "experiment does harm: ");
    let text = proxy.ask("/admin/results?format=text").text();
    assert!(
        text.contains("Warning: guardrail errors (at most +0 %) is breached: experiment: 36 of 40"),
        "{text}"
    );
    let page = proxy.ask("/admin/results?format=html").text();
    assert!(
        page.contains("slow over 1500 ms</th><td data-label=\"group\">control</td><td data-label=\"users with it\">2.50 % (1 of 40)</td>"),
        "{page}"
    );
}

#[test]
fn dead_upstream_is_reported_with_its_missing_users() {
    let Site { current, redesign } = Site::start();
    let site = Site { current, redesign };
    let text = routes(&site, ", min_duration: 0s", PURCHASE);
    drop(site.redesign);
    let proxy = Proxy::start(&text);
    come(
        &mut proxy.client(),
        "a",
        "new-site",
        [(250, 10), (250, 0)],
        BUY,
    );
    let results = proxy.results();
    let recently = |group: usize| &experiment(&results)["groups"][group]["recently"];
    assert_eq!(recently(1)["answers"], 250, "{results:#}");
    assert_eq!(recently(1)["failed"], 250);
    assert_eq!(recently(1)["dead"], true);
    assert_eq!(recently(0)["dead"], false);
    let gate = Client::admin(proxy.admin).get("/admin/experiments/new-site/gate?for=safe", "");
    assert_eq!((gate.status, &gate.json()["state"]), (409, &"harm".into()));
    state(&results, "invalid", "the groups do not have the sizes");
    let parting = &experiment(&results)["sample_ratio"]["parting"];
    assert_eq!(parting["stage"], "answered", "{parting:#}");
    assert_eq!(parting["epochs"], serde_json::json!([1]));
    let stages = &experiment(&results)["sample_ratio"]["stages"];
    let counts = |stage: usize| {
        (
            &stages[stage]["groups"]["control"],
            &stages[stage]["groups"]["experiment"],
        )
    };
    assert_eq!(
        counts(0),
        (&260.into(), &250.into()),
        "assigned: {stages:#}"
    );
    assert_eq!(counts(1), (&260.into(), &0.into()), "answered: {stages:#}");
    assert_eq!(counts(2), (&260.into(), &0.into()), "completed: {stages:#}");
    assert_eq!(counts(3), (&250.into(), &0.into()), "exposed: {stages:#}");
    assert_eq!(counts(4), (&10.into(), &0.into()), "seen again: {stages:#}");
    let text = proxy.ask("/admin/results?format=text").text();
    for says in [
        "250 of 250 responses to users of experiment came from control's upstream",
        "its upstream seems to be down",
    ] {
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn sample_ratio_mismatch_is_explained() {
    let site = Site::start();
    let proxy = Proxy::start(&routes(&site, ", min_duration: 0s", PURCHASE));
    come(
        &mut proxy.client(),
        "a",
        "new-site",
        [(250, 10), (20, 1)],
        BUY,
    );
    let results = proxy.results();
    state(&results, "invalid", "the groups do not have the sizes");
    let parting = &experiment(&results)["sample_ratio"]["parting"];
    assert_eq!(parting["stage"], "assigned", "{parting:#}");
    let sentence = parting["sentence"].as_str().unwrap();
    assert!(
        sentence.contains("(control 250, experiment 20)"),
        "{sentence}"
    );
    // Those who come later do not bring back who was missing.
    come(
        &mut proxy.client(),
        "b",
        "new-site",
        [(0, 0), (230, 10)],
        BUY,
    );
    state(
        &proxy.results(),
        "invalid",
        "at an earlier look the groups did not have",
    );
}

#[test]
fn no_verdict_before_min_duration() {
    let site = Site::start();
    let proxy = Proxy::start(&routes(&site, ", min_duration: 1h", PURCHASE));
    come(
        &mut proxy.client(),
        "a",
        "new-site",
        [(40, 2), (40, 38)],
        BUY,
    );
    let results = proxy.results();
    state(&results, "collecting", "it looks as if experiment converts");
    state(&results, "collecting", "has not run for 1 hour yet");
    let planning = &experiment(&results)["planning"];
    assert!(
        planning["seconds_left"]
            .as_f64()
            .is_none_or(|left| left <= 3600.0),
        "{planning}"
    );
    assert!(planning["earliest_verdict_at"].is_string(), "{planning}");
    // The duration counts from the first user, and another one holds from the next phase on.
    proxy.write(&routes(&site, ", min_duration: 2s, salt: anew", PURCHASE));
    until("a new phase", || {
        let results = proxy.results();
        let is_new = experiment(&results)["phase"] == 2;
        is_new.then_some(()).ok_or(results)
    });
    come(&mut proxy.client(), "a", "anew", [(40, 2), (40, 38)], BUY);
    let results = until("a verdict", || {
        let results = proxy.results();
        let done = experiment(&results)["verdict"]["state"] != "collecting";
        done.then_some(results.clone()).ok_or(results)
    });
    state(&results, "winner", "however often you look");
    assert_eq!(experiment(&results)["verdict"]["group"], "experiment");
}

#[test]
fn effect_within_the_margin_is_no_difference() {
    let site = Site::start();
    let wide = "purchase: { event: purchase, detect: 100%, margin: 900% }";
    let proxy = Proxy::start(&routes(&site, ", min_duration: 0s", wide));
    come(
        &mut proxy.client(),
        "a",
        "new-site",
        [(60, 40), (60, 40)],
        BUY,
    );
    state(&proxy.results(), "no_difference", "by more than 900 %");
    // Another margin holds from the next phase on.
    proxy.write(&routes(&site, ", min_duration: 0s, salt: tight", PURCHASE));
    until("the usual margin", || {
        let results = proxy.results();
        let changed = experiment(&results)["metrics"][0]["margin"] == 0.01;
        changed.then_some(()).ok_or(results)
    });
    come(&mut proxy.client(), "a", "tight", [(60, 40), (60, 40)], BUY);
    let results = proxy.results();
    // Nor is there the lift that was planned: the experiment is over either way.
    let says = "no group has the planned lift of 100 % of purchase or more";
    state(&results, "no_planned_lift", says);
}

#[test]
fn money_is_counted_in_minor_units() {
    let site = Site::start();
    let metrics = "whole: { event: buy, value: amount, kind: mean, scale: 0 }, cents: { event: buy, value: amount, kind: mean }, exact: { event: buy, value: amount, kind: mean, scale: 4 }";
    let redis = Redis::start();
    let store = format!("store: {}\n", redis.url());
    for store in [&store[..], ""] {
        let text = routes(&site, ", min_duration: 0s", metrics) + store;
        let proxy = Proxy::start(&text);
        let mut client = proxy.client();
        let path = "/?event=buy;amount=0.126,%20buy;amount=-0.001";
        come(&mut client, "a", "new-site", [(10, 3), (10, 0)], path);
        let results = proxy.results();
        for (place, (sum, rate)) in [(0.0, 0.0), (0.39, 0.039), (0.375, 0.0375)]
            .into_iter()
            .enumerate()
        {
            let of = metric(&results, place, 0);
            assert_eq!(of["sum"], sum, "{of:#}");
            assert!(
                (of["rate"].as_f64().unwrap() - rate).abs() < 1e-15,
                "{of:#}"
            );
            assert_eq!(of["count"], 6);
        }
    }
}

#[test]
fn planning_and_fixed_horizon_are_shown_on_request() {
    let site = Site::start();
    let proxy = Proxy::start(&routes(
        &site,
        "",
        "purchase: { event: purchase, detect: 20% }",
    ));
    come(&mut proxy.client(), "a", "new-site", [(5, 1), (5, 1)], BUY);
    let early = proxy.results();
    assert_eq!(experiment(&early)["planning"]["users_needed"], Value::Null);
    come(
        &mut proxy.client(),
        "b",
        "new-site",
        [(60, 20), (60, 25)],
        BUY,
    );
    let results = proxy.results();
    let planning = &experiment(&results)["planning"];
    let needed = planning["users_needed"].as_u64().unwrap();
    assert!((500..10_000).contains(&needed), "{planning:#}");
    assert_eq!(planning["users"], 130);
    let half = planning["groups"][1]["users_needed"].as_u64().unwrap();
    assert_eq!(half, needed.div_ceil(2));
    assert!(planning["users_per_day"].as_f64().unwrap() > 130.0);
    // A week is asked for, and the traffic would bring the users sooner.
    let left = planning["seconds_left"].as_f64().unwrap();
    assert!((604_700.0..604_800.0).contains(&left), "{left}");
    let text = proxy.ask("/admin/results?format=text").text();
    assert!(
        text.contains("about 7 days left at the current traffic"),
        "{text}"
    );

    assert_eq!(metric(&results, 0, 1)["fixed"], Value::Null);
    let results = proxy.ask("/admin/results?view=fixed").json();
    let fixed = &metric(&results, 0, 1)["fixed"];
    assert_eq!(fixed["note"], "valid only if you look once");
    let (low, high) = (
        &fixed["relative_interval"][0],
        &fixed["relative_interval"][1],
    );
    let any = &metric(&results, 0, 1)["lift"]["relative_interval"];
    let width = |low: &Value, high: &Value| high.as_f64().unwrap() - low.as_f64().unwrap();
    assert!(
        width(low, high) < width(&any[0], &any[1]),
        "{fixed:#} {any:#}"
    );
    assert!(fixed["p_value"].as_f64().unwrap() > 0.0);
    assert_eq!(
        metric(&results, 0, 0)["fixed"],
        Value::Null,
        "control alone"
    );
    assert_eq!(proxy.ask("/admin/results?view=other").status, 400);
    let page = proxy.ask("/admin/results?view=fixed&format=html").text();
    assert!(page.contains("lift (95 % CI, fixed horizon)"), "{page}");
    let labelled = "They are not protected against peeking, and the verdict does not use them.";
    assert!(
        page.contains(labelled) && page.contains("experiment beats control with a probability of"),
        "{page}"
    );
    let url = format!("http://{}", proxy.admin);
    let output = std::process::Command::new(BINARY)
        .args(["results", "--fixed", "--url", &url])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("fixed horizon"), "{text}");
}

#[test]
fn replicas_share_minima_and_plans() {
    let site = Site::start();
    let redis = Redis::start();
    let store = format!("store: {}\n", redis.url());
    let text = routes(&site, ", min_duration: 0s", PURCHASE) + &store;
    let one = Proxy::start(&text);
    come(&mut one.client(), "a", "new-site", [(40, 2), (40, 40)], BUY);
    let before = p(&one.results());
    assert!(before < 0.01, "{before}");
    until("a p-value that is kept", || {
        let kept = redis
            .command(&["HGETALL", "ws:{new-site:0}:lowest"])
            .unwrap();
        let planned = redis
            .command(&["HGETALL", "ws:{new-site:0}:first"])
            .unwrap();
        let done = kept.contains("p|") && planned.contains("detect|");
        done.then_some(()).ok_or(kept + &planned)
    });
    // The other one comes later, with another plan, and sees what speaks against it.
    let two = Proxy::start(&text.replace("detect: 100%", "detect: 5%"));
    come(&mut two.client(), "b", "new-site", [(60, 60), (60, 2)], BUY);
    for replica in [&two, &one] {
        let results = until("the counts of both", || {
            let results = replica.results();
            let users = experiment(&results)["groups"][0]["users"] == 100;
            users.then_some(results.clone()).ok_or(results)
        });
        assert!(
            lowest(&results) <= before,
            "{} > {before}",
            lowest(&results)
        );
        assert_eq!(experiment(&results)["metrics"][0]["detect"], 1.0);
    }
    let results = two.results();
    let warning = &experiment(&results)["warnings"][0];
    assert!(
        warning.as_str().unwrap().contains("began with 100 %"),
        "{warning}"
    );
}

#[test]
fn stop_does_not_wait_for_analyses_of_a_hanging_store() {
    let site = Site::start();
    let redis = Redis::start();
    let half = "{ control: current, experiment: redesign, percent: 50 }";
    let text = site.routes(&format!(
        "experiments: {{ a: {half}, b: {half}, c: {half}, d: {half} }}\nmetrics: {{ {PURCHASE} }}\nstore: {}\n",
        redis.url()
    ));
    let mut proxy = Proxy::start(&text);
    proxy.results();
    redis.signal("STOP");
    // A look is under way.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let begun = std::time::Instant::now();
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    let took = begun.elapsed();
    redis.signal("CONT");
    assert!(took < std::time::Duration::from_secs(9), "{took:?}");
}

#[test]
fn proportion_test_does_not_depend_on_the_expected_rate() {
    let site = Site::start();
    let metrics = "none: { event: purchase }, low: { event: purchase, baseline: 5% }, high: { event: purchase, baseline: 30% }, money: { event: purchase, value: amount, kind: mean }, profit: { event: purchase, value: amount, kind: mean, baseline: -2 }";
    let proxy = Proxy::start(&routes(&site, "", metrics));
    come(
        &mut proxy.client(),
        "a",
        "new-site",
        [(20, 5), (20, 5)],
        BUY,
    );
    let results = proxy.results();
    let methods: Vec<_> = experiment(&results)["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|metric| {
            let method = metric["method"].as_str().unwrap();
            method.split(' ').next().unwrap().to_owned()
        })
        .collect();
    assert_eq!(
        methods,
        ["mean", "mean", "mean", "log-lift", "normal"],
        "{results:#}"
    );
    let p = |place: usize| metric(&results, place, 1)["p_value"].clone();
    assert_eq!((p(0), p(0)), (p(1), p(2)));
}

/// A nightly import, sorted by version: half-way all buyers are of one group.
#[test]
fn partial_import_shows_no_result() {
    let site = Site::start();
    let keys = ", min_duration: 0s, act_on: [winner, loser]";
    let proxy = Proxy::start(&routes(&site, keys, PURCHASE));
    come(
        &mut proxy.client(),
        "a",
        "new-site",
        [(50, 0), (50, 0)],
        BUY,
    );
    proxy.results();
    // As many events as one report may hold: more than are counted in one step.
    let mut events = Vec::new();
    for group in ["control", "experiment"] {
        for user in users("a", "new-site", group, 50) {
            for _ in 0..100 {
                events.push(serde_json::json!({"event": "purchase", "user": user}));
            }
        }
    }
    let body = serde_json::to_string(&events).unwrap();
    let reported = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let answer = Client::admin(proxy.admin).post("/admin/events", "", &body);
            assert_eq!(answer.status, 202, "{}", answer.text());
            reported.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let whole = |results: &Value| {
            let converted = |group| metric(results, 0, group)["converted"] == 50;
            converted(0) && converted(1)
        };
        // People look all the time.
        until("all events", || {
            let results = proxy.ask("/admin/results").json();
            let state = experiment(&results)["verdict"]["state"].clone();
            assert!(state != "winner" && state != "loser", "{results:#}");
            let done = reported.load(std::sync::atomic::Ordering::SeqCst) && whole(&results);
            done.then_some(()).ok_or(results)
        });
    });
    let results = proxy.results();
    assert_eq!(lowest(&results), 1.0, "{results:#}");
    assert_eq!(experiment(&results)["status"], "running");
}
