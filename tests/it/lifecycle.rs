//! Drafts, schedules and ramps: what users get, and what results and the store say of it.

use crate::support::client::Client;
use crate::support::clock::Clock;
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, How, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

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

    /// A file in which `default` is none of the experiment's versions.
    fn routes(&self, store: &str, experiment: &str) -> String {
        format!(
            "{store}upstreams: {{ current: \"http://{}\", next: \"http://{}\", other: \"http://127.0.0.1:9\" }}\n\
             default: other\nuser: {{ header: X-User }}\noverrides: {{ secret: 0123456789abcdef }}\n\
             experiments:\n  site: {{ control: current, experiment: next, {experiment} }}\n\
             metrics: {{ buy: \"POST /buy -> 2xx\" }}\n",
            self.current.address, self.next.address
        )
    }
}

/// By user: `current` or `next`.
fn versions(proxy: &Proxy, users: usize) -> Vec<String> {
    let mut client = proxy.client();
    let mut see = |user: usize| {
        let answer = client.get("/", &format!("X-User: user-{user}\r\n"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["version"].as_str().unwrap().to_owned()
    };
    (0..users).map(&mut see).collect()
}

fn of_next(versions: &[String]) -> usize {
    versions.iter().filter(|it| *it == "next").count()
}

/// Returns the versions of these users when more than `few` of them get the next one. Results show a step as soon
/// as the store has it, and requests follow a moment later.
fn more_than(few: usize, proxy: &Proxy, users: usize) -> Vec<String> {
    until("requests of a wider step", || {
        let seen = versions(proxy, users);
        let next = of_next(&seen);
        (next > few).then_some(seen).ok_or(next)
    })
}

fn site(results: &Value) -> &Value {
    let experiments = results["experiments"].as_array().unwrap();
    experiments.iter().find(|it| it["name"] == "site").unwrap()
}

fn users(site: &Value) -> u64 {
    let groups = site["groups"].as_array().unwrap().iter();
    groups.map(|it| it["users"].as_u64().unwrap()).sum()
}

fn status_is(proxy: &Proxy, status: &str) {
    until(status, || {
        let results = proxy.results();
        let found = site(&results)["status"].clone();
        (found == status).then_some(()).ok_or(found)
    });
}

/// The steps of the ramp that were taken, the first one first.
fn steps_taken(proxy: &Proxy) -> Vec<String> {
    let acts = proxy.ask("/admin/acts").json();
    let acts = acts["acts"].as_array().unwrap().clone();
    let steps = acts.iter().rev().filter(|act| act["action"] == "ramp");
    let steps = steps.inspect(|act| {
        assert_eq!(act["by"], "watershed (ramp)");
        assert_eq!(act["source"], "rule");
    });
    steps
        .map(|act| act["to"].as_str().unwrap().to_owned())
        .collect()
}

fn step_is(proxy: &Proxy, step: u64) -> Value {
    until("a step of the ramp", || {
        let results = proxy.results();
        let ramp = site(&results)["ramp"].clone();
        (ramp["step"] == step).then_some(ramp.clone()).ok_or(ramp)
    })
}

#[test]
fn draft_gives_control_to_all_but_overrides_and_counts_nobody() {
    let site_ = Site::start();
    let draft = "percent: 50, state: draft, description: A bolder site, owner: web, hypothesis: It sells more, link: \"https://example.com/x\"";
    let proxy = Proxy::start(&site_.routes("", draft));
    assert_eq!(versions(&proxy, 20), vec!["current"; 20]);
    let run = Command::new(BINARY)
        .args(["override", "site", "experiment", "-c"])
        .arg(proxy.file())
        .output()
        .unwrap();
    let token = String::from_utf8(run.stdout).unwrap();
    let header = format!("X-User: qa\r\nWatershed-Override: {}\r\n", token.trim());
    assert_eq!(proxy.client().get("/", &header).json()["version"], "next");
    let results = proxy.results();
    let draft = site(&results);
    assert_eq!(draft["status"], "draft");
    assert_eq!(users(draft), 0);
    assert_eq!(draft["groups"][0]["requests"], 0);
    assert_eq!(draft["description"], "A bolder site");
    assert_eq!(draft["owner"], "web");
    assert_eq!(draft["hypothesis"], "It sells more");
    assert_eq!(draft["link"], "https://example.com/x");
    let text = proxy.ask("/admin/results?format=text").text();
    assert!(
        text.contains("site (draft)\nDescription: A bolder site"),
        "{text}"
    );
    let page = Client::admin(proxy.admin).get("/admin/results", "Accept: text/html\r\n");
    let page = page.text();
    assert!(page.contains("<dd>It sells more</dd>"), "{page}");
    assert!(page.contains("href=\"https://example.com/x\""), "{page}");
    // Once it runs, it splits.
    proxy.write(&site_.routes("", "percent: 50"));
    status_is(&proxy, "running");
    let seen = versions(&proxy, 40);
    assert!(seen.iter().any(|it| it == "next") && seen.iter().any(|it| it == "current"));
    assert_eq!(users(site(&proxy.results())), 40);
}

#[test]
fn draft_leaves_users_to_the_experiments_after_it() {
    let site_ = Site::start();
    let routes = site_.routes("", "percent: 50, state: draft").replace(
        "metrics:",
        "  later: { control: next, experiment: next, percent: 50 }\nmetrics:",
    );
    let proxy = Proxy::start(&routes);
    assert_eq!(versions(&proxy, 10), vec!["next"; 10]);
    let log = proxy.log.lock().unwrap().clone();
    assert!(!log.contains("no user can reach"), "{log}");
}

/// A time as RFC 3339 with this offset, so many days from now.
fn in_days(days: i64, offset: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seconds = now.as_secs() as i64 + days * 86_400;
    let time = jiff::Timestamp::from_second(seconds + offset * 3600).unwrap();
    format!("{}{offset:+03}:00", time.to_string().trim_end_matches('Z'))
}

#[test]
fn experiment_starts_and_ends_at_its_times_over_a_change_of_the_clocks() {
    let site_ = Site::start();
    let clock = Clock::new();
    // Written in summer time and in winter time.
    let (start, end) = (in_days(7, 2), in_days(21, 1));
    let experiment = format!("percent: 50, start: {start}, end: {end}");
    let how = How {
        env: clock.environment(),
        ..How::default()
    };
    let proxy = Proxy::start_how(&site_.routes("", &experiment), how);
    let day = 86_400;
    assert_eq!(versions(&proxy, 20), vec!["current"; 20]);
    status_is(&proxy, "scheduled");
    clock.set(7 * day - 120);
    status_is(&proxy, "scheduled");
    assert_eq!(users(site(&proxy.results())), 0);
    clock.set(7 * day + 60);
    status_is(&proxy, "running");
    assert!(versions(&proxy, 20).iter().any(|it| it == "next"));
    assert_eq!(users(site(&proxy.results())), 20);
    clock.set(21 * day - 120);
    status_is(&proxy, "running");
    clock.set(21 * day + 60);
    status_is(&proxy, "ended");
    assert_eq!(versions(&proxy, 30), vec!["current"; 30]);
    let results = proxy.results();
    assert_eq!(users(site(&results)), 20);
    assert!(site(&results)["ends_at"].as_str().unwrap().ends_with('Z'));
    // A decision is possible after the end.
    let promote = Client::admin(proxy.admin).post(
        "/admin/experiments/site/promote",
        "",
        r#"{"group": "experiment"}"#,
    );
    assert_eq!(promote.json()["from"], "ended", "{}", promote.text());
    assert_eq!(versions(&proxy, 5), vec!["next"; 5]);
}

/// Users once in a group of the experiment stay in it, and control's users may come in.
fn check_moves(before: &[String], after: &[String]) {
    for (user, (before, after)) in before.iter().zip(after).enumerate() {
        assert!(before == "current" || after == "next", "user-{user} left");
    }
}

fn ramp_widens_by_itself(store: &str) {
    let site_ = Site::start();
    let ramp = "ramp: [20% for 3s, 60% for 3s, 100%]";
    let proxy = Proxy::start(&site_.routes(store, ramp));
    let first = step_is(&proxy, 1);
    assert_eq!(first["share"], 0.2, "{first}");
    assert_eq!(first["next_share"], 0.6, "{first}");
    assert!(
        first["next_at"].is_string() && first["holds"].is_null(),
        "{first}"
    );
    let mut seen = versions(&proxy, 200);
    assert!(of_next(&seen) < 50, "{seen:?}");
    let mut groups = BTreeMap::new();
    for step in 2..=3 {
        step_is(&proxy, step);
        let now = more_than(of_next(&seen), &proxy, 200);
        check_moves(&seen, &now);
        seen = now;
        groups.insert(step, of_next(&seen));
    }
    assert!(groups[&2] < groups[&3], "{groups:?}");
    let results = proxy.results();
    let done = site(&results);
    assert_eq!(done["ramp"]["share"], 1.0);
    assert!(done["ramp"]["next_at"].is_null(), "{}", done["ramp"]);
    assert_eq!((users(done), &done["crossed_over"]), (200, &0.into()));
    let all = ["20% for 3s", "60% for 3s", "100%"];
    assert_eq!(steps_taken(&proxy), all);
    let epochs = done["epochs"].as_array().unwrap();
    assert_eq!(epochs.len(), 3, "{epochs:#?}");
}

#[test]
fn ramp_widens_by_itself_in_sqlite() {
    ramp_widens_by_itself("");
}

#[test]
fn ramp_widens_by_itself_in_redis() {
    let redis = Redis::start();
    ramp_widens_by_itself(&format!("store: {}\n", redis.url()));
}

#[test]
fn two_replicas_take_each_step_of_a_ramp_once() {
    let redis = Redis::start();
    let site_ = Site::start();
    let ramp = "ramp: [10% for 1s, 20% for 1s, 30% for 1s, 40% for 1s, 100%]";
    let routes = site_.routes(&format!("store: {}\n", redis.url()), ramp);
    let (one, two) = (Proxy::start(&routes), Proxy::start(&routes));
    for proxy in [&one, &two] {
        until("the last step", || {
            let ramp = site(&proxy.results())["ramp"].clone();
            (ramp["share"] == 1.0).then_some(()).ok_or(ramp)
        });
    }
    let all = [
        "10% for 1s",
        "20% for 1s",
        "30% for 1s",
        "40% for 1s",
        "100%",
    ];
    assert_eq!(steps_taken(&one), all);
    assert_eq!(steps_taken(&two), all);
    until("the same versions from both", || {
        let both = (versions(&one, 50), versions(&two, 50));
        (both.0 == both.1).then_some(()).ok_or(both)
    });
}

#[test]
fn killed_process_goes_on_where_its_ramp_was() {
    let site_ = Site::start();
    let ramp = "ramp: [20% for 1s, 60% for 1h, 100%]";
    let routes = site_.routes("", ramp);
    let mut proxy = Proxy::start(&routes);
    let before = step_is(&proxy, 2);
    let seen = more_than(20, &proxy, 100);
    proxy.kill();
    proxy.again(&routes);
    assert_eq!(versions(&proxy, 100), seen);
    assert_eq!(step_is(&proxy, 2), before);
    // A file with the same ramp does not restart it.
    proxy.write(&format!("{routes}show_group: true\n"));
    until("the changed file", || {
        let config = proxy.ask("/admin/config").json()["config"].clone();
        (config["show_group"] == true).then_some(()).ok_or(config)
    });
    assert_eq!(step_is(&proxy, 2), before);
    // A pause stops its time, and what was decided stays.
    let mut admin = Client::admin(proxy.admin);
    assert_eq!(
        admin.post("/admin/experiments/site/pause", "", "").status,
        200
    );
    let paused = step_is(&proxy, 2);
    assert_eq!(paused["holds"], "the experiment is paused");
    assert_eq!(
        admin.post("/admin/experiments/site/resume", "", "").status,
        200
    );
    assert_eq!(versions(&proxy, 100), seen);
    // Other steps go on from the share that was reached.
    let other = site_.routes("", "ramp: [10% for 1h, 70% for 1h, 80%]");
    proxy.write(&other);
    until("the next wider step", || {
        let ramp = site(&proxy.results())["ramp"].clone();
        (ramp["share"] == 0.7).then_some(()).ok_or(ramp)
    });
    check_moves(&seen, &more_than(of_next(&seen), &proxy, 100));
}

/// Half of the users get errors from the next version; then every step is due.
fn break_it(proxy: &Proxy) {
    let mut client = proxy.client();
    for user in 0..300 {
        let header = format!("X-User: user-{user}\r\n");
        if client.get("/", &header).json()["version"] == "next" {
            assert_eq!(client.get("/?status=500", &header).status, 500);
        }
    }
}

#[test]
fn ramp_holds_while_a_guardrail_is_breached() {
    let site_ = Site::start();
    let clock = Clock::new();
    let how = How {
        env: clock.environment(),
        ..How::default()
    };
    let ramp = "guardrails: { errors: { max_increase: 1% } }, ramp: [50% for 1h, 100%]";
    let proxy = Proxy::start_how(&site_.routes("", ramp), how);
    step_is(&proxy, 1);
    break_it(&proxy);
    clock.set(2 * 3600);
    let held = until("a ramp that holds", || {
        let ramp = site(&proxy.results())["ramp"].clone();
        ramp["holds"]
            .is_string()
            .then_some(ramp.clone())
            .ok_or(ramp)
    });
    assert_eq!(held["holds"], "guardrail errors is breached in experiment");
    assert_eq!((&held["step"], &held["share"]), (&1.into(), &0.5.into()));
    assert_eq!(steps_taken(&proxy), ["50% for 1h"]);
    let text = proxy.ask("/admin/results?format=text").text();
    let said = "it does not widen to 100 %: guardrail errors is breached in experiment";
    assert!(text.contains(said), "{text}");
}

#[test]
fn ramp_rolls_back_on_an_alarm_if_the_file_says_so() {
    let site_ = Site::start();
    let ramp = "guardrails: { errors: { max_increase: 1% } }, ramp: [50% for 1h, 100%], on_alarm: rollback";
    let proxy = Proxy::start(&site_.routes("", ramp));
    step_is(&proxy, 1);
    break_it(&proxy);
    status_is(&proxy, "rolled_back");
    let acts = proxy.ask("/admin/acts").json();
    let act = &acts["acts"][0];
    assert_eq!(act["action"], "rollback", "{act}");
    assert_eq!(
        (&act["by"], &act["source"]),
        (&"watershed (ramp)".into(), &"rule".into())
    );
    assert_eq!(act["reason"], "guardrail errors is breached in experiment");
    assert_eq!(versions(&proxy, 10), vec!["current"; 10]);
}

#[test]
fn new_ramp_after_a_file_without_one_begins_with_its_first_step() {
    let redis = Redis::start();
    for store in [String::new(), format!("store: {}\n", redis.url())] {
        let site_ = Site::start();
        let ramp = site_.routes(&store, "ramp: [10% for 1s, 80%]");
        let proxy = Proxy::start(&ramp);
        step_is(&proxy, 2);
        // `traffic` is lowered by hand, and a new ramp is written.
        proxy.write(&site_.routes(&store, "percent: 50, traffic: 5%"));
        until("the end of the ramp", || {
            let acts = proxy.ask("/admin/acts").json();
            let last = acts["acts"][0].clone();
            (last["to"] == "no ramp").then_some(()).ok_or(last)
        });
        assert!(site(&proxy.results())["ramp"].is_null());
        proxy.write(&site_.routes(&store, "ramp: [10% for 1h, 80%]"));
        let first = step_is(&proxy, 1);
        assert_eq!(first["share"], 0.1, "{first}");
    }
}

#[test]
fn ramp_holds_while_few_responses_fail_and_says_when_nobody_came() {
    let site_ = Site::start();
    let proxy = Proxy::start(&site_.routes("", "ramp: [50% for 6s, 100%]"));
    step_is(&proxy, 1);
    let mut client = proxy.client();
    let mut failed = 0;
    for user in 0..40 {
        let header = format!("X-User: user-{user}\r\n");
        if client.get("/", &header).json()["version"] == "next" {
            failed += 2;
            client.get("/?status=500", &header);
            client.get("/?status=500", &header);
        }
    }
    let held = until("a ramp that holds", || {
        let ramp = site(&proxy.results())["ramp"].clone();
        let holds = ramp["holds"].as_str().map(str::to_owned);
        holds
            .filter(|why| why.contains(" responses of experiment failed"))
            .ok_or(ramp)
    });
    assert!(
        held.starts_with(&format!("{failed} of the last ")),
        "{held}"
    );
    let proxy = Proxy::start(&site_.routes("", "ramp: [50% for 1s, 100%]"));
    step_is(&proxy, 2);
    let acts = proxy.ask("/admin/acts").json();
    let reason = acts["acts"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("no user was counted"), "{reason}");
}

#[test]
fn version_that_is_down_holds_its_ramp_and_closes_its_gate() {
    let site_ = Site::start();
    let routes = site_.routes("", "ramp: [50% for 1s, 100%]");
    let next = format!("next: \"http://{}\"", site_.next.address);
    let gone = "next: { endpoints: \"http://127.0.0.1:9\", health: { path: /, interval: 1s } }";
    let routes = routes.replace(&next, gone);
    let proxy = Proxy::start(&routes);
    let held = until("a ramp that holds", || {
        let ramp = site(&proxy.results())["ramp"].clone();
        let holds = ramp["holds"].as_str().map(str::to_owned);
        holds.filter(|why| why.contains(" is down")).ok_or(ramp)
    });
    assert!(held.starts_with("experiment: "), "{held}");
    let results = proxy.results();
    let down = site(&results)["groups"][1]["down"].as_str().unwrap();
    assert!(down.starts_with("127.0.0.1:9 is down since "), "{down}");
    let gate = proxy.ask("/admin/experiments/site/gate?for=safe");
    assert_eq!((gate.status, &gate.json()["state"]), (409, &"harm".into()));
    assert_eq!(steps_taken(&proxy), ["50% for 1s"]);
    let promote = "/admin/experiments/site/promote";
    let body = "{\"group\": \"experiment\"}";
    assert_eq!(
        Client::admin(proxy.admin).post(promote, "", body).status,
        200
    );
    let text = proxy.ask("/admin/results?format=text").text();
    assert!(
        text.contains("What to do now: Check the upstream of experiment"),
        "{text}"
    );
}

#[test]
fn group_of_weight_zero_gets_nobody_new() {
    let site_ = Site::start();
    let proxy = Proxy::start(&site_.routes("", "percent: 0"));
    assert_eq!(versions(&proxy, 30), vec!["current"; 30]);
    let results = proxy.results();
    assert_eq!(users(site(&results)), 30);
    assert_eq!(site(&results)["sample_ratio"]["mismatch"], false);
    proxy.write(&site_.routes("", "percent: 100"));
    until("the changed file", || {
        let seen = versions(&proxy, 1);
        (seen == ["next"]).then_some(()).ok_or(seen)
    });
    assert_eq!(versions(&proxy, 30), vec!["next"; 30]);
    let page = Client::admin(proxy.admin).get("/admin/results", "Accept: text/html\r\n");
    assert_eq!(page.status, 200);
    assert!(!page.text().contains("NaN"));
}

/// Keys of an experiment, and the key and a part of the error.
const UNSOUND: &[(&str, &str, &str)] = &[
    (
        "ramp: [1% for 1h, 50%], percent: 10",
        ".percent",
        "beside `ramp`",
    ),
    (
        "ramp: [1% for 1h, 50%], traffic: 10%",
        ".traffic",
        "beside `ramp`",
    ),
    ("ramp: []", ".ramp", "0 steps"),
    ("ramp: [1%, 50%]", ".ramp.0", "without the time"),
    (
        "ramp: [1% for 1h, 50% for 1h]",
        ".ramp.1",
        "no step follows",
    ),
    ("ramp: [10% for 1h, 5%]", ".ramp.1", "5% after 10% for 1h"),
    ("ramp: [10% for 1h, 10%]", ".ramp.1", "10% after 10% for 1h"),
    ("ramp: [10% for 999ms, 50%]", ".ramp.0", "less than 1s"),
    ("ramp: [10 for 1h, 50%]", ".ramp.0", "10 for 1h"),
    ("ramp: [10% during 1h, 50%]", ".ramp.0", "during"),
    ("ramp: [10% for 1h, 101%]", ".ramp.1", "101%"),
    ("ramp: [10% for, 50%]", ".ramp.0", "10% for"),
    ("ramp: { a: b }", ".ramp", "keys instead of a text"),
    ("on_alarm: hold", ".on_alarm", "without a ramp"),
    ("ramp: 50%, on_alarm: stop", ".on_alarm", "\"stop\""),
    ("state: started", ".state", "\"started\""),
    ("start: tomorrow", ".start", "tomorrow"),
    ("start: 2026-12-01", ".start", "2026-12-01"),
    (
        "start: 2026-12-01T08:00:00",
        ".start",
        "2026-12-01T08:00:00",
    ),
    (
        "start: 2026-12-02T08:00:00Z, end: 2026-12-02T08:00:00Z",
        ".end",
        "before it starts",
    ),
    ("link: \"javascript:alert(1)\"", ".link", "javascript"),
    ("link: /local", ".link", "/local"),
    ("owner: \"\"", ".owner", "\"\""),
    ("owner: [a]", ".owner", "a list"),
    ("percent: 101", ".percent", "101"),
    ("percent: -1", ".percent", "-1"),
    (
        "percent: 0, sticky: true, allocation: thompson",
        ".allocation",
        "a weight of 0",
    ),
];

#[test]
fn unsound_lifecycle_keys_are_errors() {
    let check = |keys: &str, key: &str, found: &str| {
        let text = format!(
            "upstreams: {{ a: \"http://127.0.0.1:1\", b: \"http://127.0.0.1:2\" }}\nexperiments: {{ site: {{ control: a, experiment: b, {keys} }} }}\n"
        );
        let path = std::path::Path::new("routes.yaml");
        let invalid = watershed::config::parse(&text, path, &|_| None);
        let all = invalid.expect_err(keys).diagnostics;
        let key = format!("experiments.site{key}");
        let mut named = all.iter().filter(|it| it.key == key);
        assert!(named.any(|it| it.found.contains(found)), "{keys}: {all:#?}");
    };
    for (keys, key, found) in UNSOUND {
        check(keys, key, found);
    }
    let text = "upstreams: { a: \"http://127.0.0.1:1\" }\nexperiments: { site: { groups: { control: { weight: 0 }, b: { weight: 0 } } } }\n";
    let invalid = watershed::config::parse(text, std::path::Path::new("routes.yaml"), &|_| None);
    let all = invalid.unwrap_err().diagnostics;
    assert!(all[0].found.contains("all weights are 0"), "{all:#?}");
}

#[test]
fn ramp_in_a_layer_reserves_its_widest_step() {
    let text = |first: &str, second: &str| {
        format!(
            "upstreams: {{ a: \"http://127.0.0.1:1\", b: \"http://127.0.0.1:2\" }}\nexperiments:\n  one: {{ control: a, experiment: b, layer: l, {first} }}\n  two: {{ control: a, experiment: b, layer: l, {second} }}\n"
        )
    };
    let parse =
        |text: &str| watershed::config::parse(text, std::path::Path::new("routes.yaml"), &|_| None);
    let plan = parse(&text("ramp: [10% for 1h, 60%]", "traffic: 40%")).unwrap();
    let one = &plan.experiments[0];
    let ramp = one.ramp.as_ref().unwrap();
    let layers: Vec<_> = ramp
        .steps
        .iter()
        .map(|it| it.layer.as_ref().unwrap())
        .collect();
    let two = plan.experiments[1].admission.layer.as_ref().unwrap();
    let admitted = one.admission.layer.as_ref().unwrap();
    let mut counts = [0; 2];
    for number in 0..5000 {
        let id = format!("user-{number}");
        let user = watershed::experiment::UserId::new(id.as_bytes()).unwrap();
        let (first, last) = (layers[0].has(user), layers[1].has(user));
        assert_eq!(admitted.has(user), first);
        assert!(!first || last, "a wider step keeps everybody");
        assert!(!(last && two.has(user)), "in both");
        counts[0] += usize::from(first);
        counts[1] += usize::from(last);
    }
    assert!(
        (400..600).contains(&counts[0]) && (2850..3150).contains(&counts[1]),
        "{counts:?}"
    );
    let full = parse(&text("ramp: [10% for 1h, 70%]", "traffic: 40%"));
    let all = full.unwrap_err().diagnostics;
    assert!(all[0].found.contains("30 % are free"), "{all:#?}");
}
