//! Decisions about experiments: pause, resume, promote, roll back.

use crate::support::client::{Answer, Client};
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, How, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use serde_json::Value;
use std::process::Command;

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

    fn routes(&self, experiment: &str, more: &str) -> String {
        format!(
            "upstreams: {{ current: \"http://{}\", next: \"http://{}\" }}\nuser: {{ header: X-User }}\n\
             experiments: {{ site: {{ control: current, experiment: next, percent: 50{experiment} }} }}\n\
             metrics: {{ buy: \"POST /buy -> 2xx\" }}\n{more}",
            self.current.address, self.next.address
        )
    }
}

fn act(proxy: &Proxy, what: &str, body: &str) -> Answer {
    let path = format!("/admin/experiments/{what}");
    Client::admin(proxy.admin).post(&path, "", body)
}

/// What thirty users see: `c` for current, `n` for next.
fn seen(proxy: &Proxy) -> String {
    let mut client = proxy.client();
    let mut see = |user: usize| {
        let answer = client.get("/", &format!("X-User: user-{user}\r\n"));
        answer.json()["version"].as_str().unwrap()[..1].to_owned()
    };
    (0..30).map(&mut see).collect()
}

/// Waits until two analyses have begun and ended: whoever decides by them has decided.
fn analyzed(proxy: &Proxy) {
    let count = || {
        let metrics = proxy.ask("/admin/metrics").text();
        let line = metrics.lines().find_map(|line| {
            line.strip_prefix("watershed_analyses_total{} ")
                .and_then(|count| count.parse::<u64>().ok())
        });
        line.unwrap()
    };
    // The first of three may have begun before.
    let enough = count() + 3;
    until("analyses", || {
        let count = count();
        (count >= enough).then_some(()).ok_or(count)
    });
}

fn status(results: &Value) -> (&str, Option<&str>) {
    let experiment = &results["experiments"][0];
    (
        experiment["status"].as_str().unwrap(),
        experiment["winner"].as_str(),
    )
}

fn requests(results: &Value) -> u64 {
    let groups = results["experiments"][0]["groups"].as_array().unwrap();
    groups
        .iter()
        .map(|it| it["requests"].as_u64().unwrap())
        .sum()
}

#[test]
fn decision_takes_effect_on_requests() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes("", ""));
    let split = seen(&proxy);
    assert!(split.contains('c') && split.contains('n'));
    let (all_current, all_next) = ("c".repeat(30), "n".repeat(30));
    let check = |action: &str, body: &str, to: &str, state: (&str, Option<&str>), sees: &str| {
        let answer = act(&proxy, &format!("site/{action}"), body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(
            (&answer.json()["to"], &answer.json()["changed"]),
            (&to.into(), &true.into())
        );
        // The replica that received the decision applies it at once.
        assert_eq!(seen(&proxy), sees, "{action}");
        let results = proxy.results();
        assert_eq!(status(&results), state);
        // Requests count only while the experiment splits.
        requests(&results)
    };
    let counted = requests(&proxy.results());
    let control = Some("control");
    assert_eq!(
        check("pause", "", "paused", ("paused", control), &all_current),
        counted
    );
    assert_eq!(
        check("resume", "", "running", ("running", None), &split),
        counted + 30
    );
    let promoted = ("promoted", Some("experiment"));
    let body = r#"{"group": "experiment", "by": "ann", "reason": "it is better"}"#;
    assert_eq!(
        check("promote", body, "promoted experiment", promoted, &all_next),
        counted + 30
    );
    let again = act(&proxy, "site/promote", body);
    assert_eq!(again.json()["changed"], false);
    let back = ("rolled_back", control);
    assert_eq!(
        check("rollback", "{}", "rolled_back", back, &all_current),
        counted + 30
    );
    // Decisions are shown with their authors, and markup is escaped.
    let reason = r#"{"group": "experiment", "reason": "<script>alert(1)</script>"}"#;
    assert_eq!(act(&proxy, "site/promote", reason).status, 200);
    assert_eq!(act(&proxy, "site/rollback", "").status, 200);
    let results = proxy.results();
    assert_eq!(results["acts"][1]["to"], "promoted experiment");
    assert_eq!(results["acts"].as_array().unwrap().len(), 6);
    let page = Client::admin(proxy.admin).get("/admin/results", "Accept: text/html\r\n");
    let page = page.text();
    assert!(page.contains("lift over control"), "{page}");
    assert!(page.contains("Decisions") && page.contains(">ann</td>"));
    assert!(
        page.contains("alert(1)") && !page.contains("<script>"),
        "{page}"
    );
    // The audit log keeps all decisions, newest first.
    let acts = proxy.ask("/admin/acts").json();
    let acts = acts["acts"].as_array().unwrap();
    let actions: Vec<_> = acts
        .iter()
        .map(|it| it["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "rollback", "promote", "rollback", "promote", "resume", "pause"
        ]
    );
    let promoted = &acts[3];
    assert_eq!(
        (&promoted["by"], &promoted["reason"]),
        (&"ann".into(), &"it is better".into())
    );
    assert_eq!(
        (&promoted["from"], &promoted["to"]),
        (&"running".into(), &"promoted experiment".into())
    );
}

#[test]
fn invalid_decision_is_refused_with_a_reason() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes("", ""));
    let check = |what: &str, body: &str, status: u16, says: &str| {
        let answer = act(&proxy, what, body);
        assert_eq!(answer.status, status, "{what} {body}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(says), "{error}");
    };
    check("other/pause", "", 404, "no experiment \"other\"");
    check(
        "site/stop",
        "",
        404,
        "use pause, resume, promote or rollback",
    );
    check(
        "site/promote",
        r#"{"group": "nobody"}"#,
        422,
        "no group \"nobody\"",
    );
    check("site/promote", "", 422, "no group has won yet");
    check(
        "site/pause",
        r#"{"group": "experiment"}"#,
        422,
        "only promote",
    );
    check("site/pause", "{", 400, "must be JSON");
    check(
        "site/pause",
        r#"{"grupo": 1}"#,
        400,
        "unknown field `grupo`",
    );
    // The confirmation page changes nothing.
    assert_eq!(proxy.ask("/admin/experiments/site/pause").status, 200);
    assert_eq!(status(&proxy.results()), ("running", None));
    assert_eq!(
        proxy.ask("/admin/acts").json()["acts"],
        serde_json::json!([])
    );
    // `winner` in the file takes precedence.
    let proxy = Proxy::start(&site.routes(", winner: experiment", ""));
    let answer = act(&proxy, "site/rollback", "");
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert_eq!(status(&proxy.results()), ("promoted", Some("experiment")));
}

#[test]
fn commands_make_decisions() {
    let site = Site::start();
    let proxy = Proxy::start(&site.routes("", ""));
    let run = |arguments: &[&str]| {
        let done = Command::new(BINARY)
            .args(arguments)
            .args(["--url", &format!("http://{}", proxy.admin)])
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    };
    let (code, said, _) = run(&["promote", "site", "experiment", "--reason", "why not"]);
    assert_eq!(
        (code, &*said),
        (Some(0), "site: running -> promoted experiment\n")
    );
    let (_, said, _) = run(&["promote", "site", "experiment"]);
    assert_eq!(said, "site: promoted experiment already\n");
    let (_, said, _) = run(&["rollback", "site"]);
    assert_eq!(said, "site: promoted experiment -> rolled_back\n");
    let (_, said, _) = run(&["resume", "site"]);
    assert_eq!(said, "site: rolled_back -> running\n");
    let (code, _, said) = run(&["pause", "nothing"]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("404 Not Found: there is no experiment \"nothing\"\n"),
        "{said}"
    );
}

#[test]
fn decisions_hold_on_replicas_and_after_restarts() {
    let (site, mut redis) = (Site::start(), Redis::start());
    let store = format!("store: {}", redis.url());
    let routes = site.routes("", &store);
    let (mut one, two) = (Proxy::start(&routes), Proxy::start(&routes));
    seen(&one);
    assert_eq!(act(&one, "site/rollback", "").status, 200);
    let all_current = "c".repeat(30);
    until("the other replica", || {
        let seen = seen(&two);
        (seen == all_current).then_some(()).ok_or(seen)
    });
    // A start goes by the store; one without a store by what this machine knew.
    one.kill();
    one.again(&routes);
    assert_eq!(seen(&one), all_current);
    one.kill();
    redis.kill();
    one.again(&routes);
    assert_eq!(seen(&one), all_current);
    let answer = act(&one, "site/resume", "");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(seen(&one), all_current);
    redis.up();
    until("the store", || {
        let answer = act(&one, "site/resume", "");
        (answer.status == 200).then_some(()).ok_or(answer.text())
    });
    assert!(seen(&one).contains('n'));
}

#[test]
fn new_salt_is_a_new_experiment() {
    let site = Site::start();
    let mut proxy = Proxy::start(&site.routes("", ""));
    assert_eq!(act(&proxy, "site/rollback", "").status, 200);
    proxy.write(&site.routes(", salt: second", ""));
    until("the new split", || {
        let seen = seen(&proxy);
        seen.contains('n').then_some(()).ok_or(seen)
    });
    assert_eq!(act(&proxy, "site/pause", "").json()["from"], "running");
    proxy.kill();
    proxy.again(&site.routes(", salt: second", ""));
    assert_eq!(status(&proxy.results()).0, "paused");
}

#[test]
fn winner_that_harms_another_metric_waits_for_a_person() {
    let site = Site::start();
    // Whoever buys returns it, too.
    let routes = site
        .routes(", min_duration: 0s, act_on: [winner, loser]", "")
        .replace(
            "2xx\" }",
            "2xx\", returned: { on: POST /buy -> 2xx, goal: decrease } }",
        );
    let proxy = Proxy::start_how(&routes, How::default());
    let mut client = proxy.client();
    for number in 0..400 {
        let user = format!("X-User: user-{number}\r\n");
        if client.get("/", &user).json()["version"] == "next" {
            client.post("/buy", &user, "");
        }
    }
    let verdict = |results: &serde_json::Value| results["experiments"][0]["verdict"].clone();
    let found = until("a winner", || {
        let found = verdict(&proxy.results());
        (found["state"] == "winner")
            .then_some(found.clone())
            .ok_or(found)
    });
    assert_eq!(found["harms"], serde_json::json!(["returned"]), "{found}");
    let reason = found["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("careful, returned with experiment: "),
        "{reason}"
    );
    let text = proxy.ask("/admin/results?format=text").text();
    assert!(
        text.contains("Weigh the harm first: returned is worse"),
        "{text}"
    );
    analyzed(&proxy);
    assert_eq!(status(&proxy.results()).0, "running");
    assert_eq!(
        act(&proxy, "site/promote", "").json()["to"],
        "promoted experiment"
    );
}

#[test]
fn act_on_promotes_and_rolls_back() {
    let site = Site::start();
    // Everybody in the one group buys, and nobody in the other.
    let drive = |proxy: &Proxy, buys: &str| {
        let mut client = proxy.client();
        for number in 0..400 {
            let user = format!("X-User: user-{number}\r\n");
            let seen = client.get("/", &user).json()["version"].clone();
            if seen == buys {
                client.post("/buy", &user, "");
            }
        }
    };
    let check = |act_on: &str, buys: &str, expected: (&str, Option<&str>)| {
        let more = format!(", min_duration: 0s{act_on}");
        let proxy = Proxy::start_how(&site.routes(&more, ""), How::default());
        drive(&proxy, buys);
        let results = until(act_on, || {
            let results = proxy.results();
            let verdict = results["experiments"][0]["verdict"]["state"].clone();
            let there = status(&results) == expected && verdict != "collecting";
            there
                .then_some(results.clone())
                .ok_or(results["experiments"][0]["verdict"].clone())
        });
        drop(results);
        proxy
    };
    let proxy = check(", act_on: winner", "next", ("promoted", Some("experiment")));
    assert_eq!(seen(&proxy), "n".repeat(30));
    let acts = proxy.ask("/admin/acts").json();
    assert_eq!(acts["acts"][0]["by"], "watershed (act_on)");
    assert!(
        acts["acts"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("better")
    );
    // Who decides otherwise afterwards is not overruled at once.
    assert_eq!(act(&proxy, "site/rollback", "").status, 200);
    analyzed(&proxy);
    assert_eq!(status(&proxy.results()).0, "rolled_back");
    let proxy = check(
        ", act_on: [winner, loser]",
        "current",
        ("rolled_back", Some("control")),
    );
    drop(proxy);
    let proxy = check(", act_on: winner", "current", ("running", None));
    analyzed(&proxy);
    assert_eq!(status(&proxy.results()).0, "running");
    // Without `act_on`, the one that has won is what `promote` means.
    let proxy = check("", "next", ("running", None));
    let answer = act(&proxy, "site/promote", "");
    assert_eq!(answer.json()["to"], "promoted experiment");
}

#[test]
fn decisions_that_the_store_has_lost_are_stored_again() {
    let redis = Redis::start();
    let site = Site::start();
    let store = format!("store: {}\n", redis.url());
    let proxy = Proxy::start(&site.routes("", &store));
    let answer = act(&proxy, "site/rollback", r#"{"reason": "it is broken"}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    until("control for all", || {
        let seen = seen(&proxy);
        (seen == "c".repeat(30)).then_some(()).ok_or(seen)
    });
    // As after a restart without its disk.
    redis.command(&["FLUSHALL"]).unwrap();
    let restored = until("the decision in the store again", || {
        let acts = proxy.ask("/admin/acts").json();
        let last = acts["acts"][0].clone();
        (last["action"] == "restore")
            .then_some(last.clone())
            .ok_or(last)
    });
    assert_eq!(
        (&restored["to"], &restored["by"]),
        (&"rolled_back".into(), &"watershed".into())
    );
    assert_eq!(seen(&proxy), "c".repeat(30));
    // Another replica, which has never known it, follows it.
    let other = Proxy::start(&site.routes("", &store));
    assert_eq!(seen(&other), "c".repeat(30));
    assert_eq!(other.results()["experiments"][0]["status"], "rolled_back");
}

#[test]
fn store_that_is_empty_at_a_start_gets_the_decisions_of_the_copy() {
    let redis = Redis::start();
    let site = Site::start();
    let routes = site.routes("", &format!("store: {}\n", redis.url()));
    let mut proxy = Proxy::start(&routes);
    assert_eq!(act(&proxy, "site/rollback", "").status, 200);
    until("control for all", || {
        let seen = seen(&proxy);
        (seen == "c".repeat(30)).then_some(()).ok_or(seen)
    });
    // The copy beside the journal is written a moment later.
    until("the copy", || {
        let copy =
            std::fs::read_to_string(proxy.folder.path().join("watershed-journal/decided.json"));
        let copy = copy.unwrap_or_default();
        copy.contains("rolled_back").then_some(()).ok_or(copy)
    });
    proxy.kill();
    redis.command(&["FLUSHALL"]).unwrap();
    proxy.again(&routes);
    assert_eq!(seen(&proxy), "c".repeat(30));
    until("the decision in the store again", || {
        let acts = proxy.ask("/admin/acts").json();
        let last = acts["acts"][0].clone();
        (last["action"] == "restore").then_some(()).ok_or(last)
    });
}

#[test]
fn decision_at_the_moment_of_a_changed_file_is_taken() {
    let site = Site::start();
    let without = site.routes("", "");
    let ramp = without.replace("percent: 50", "ramp: [ 1% for 1h, 100% ]");
    let proxy = Proxy::start(&ramp);
    let load = |routes: &str| {
        proxy.write(routes);
        let answer = Client::admin(proxy.admin).post("/admin/reload", "", "");
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let ramp_begins = |after_ms: u64| {
        until("the first step of the ramp", || {
            let acts = proxy.ask("/admin/acts").json();
            let mut acts = acts["acts"].as_array().unwrap().iter();
            let begins = |act: &&Value| act["action"] == "ramp" && act["to"] == "1% for 1h";
            let at_ms = acts.find(begins).map(|act| act["at_ms"].as_u64().unwrap());
            at_ms.filter(|at_ms| *at_ms >= after_ms).ok_or(at_ms)
        })
    };
    let mut begun_ms = 0;
    for _ in 0..20 {
        begun_ms = ramp_begins(begun_ms + 1);
        // The new file ends the ramp. The store records that at the same time as this decision.
        load(&without);
        for (action, body) in [("promote", r#"{"group": "experiment"}"#), ("resume", "{}")] {
            let answer = act(&proxy, &format!("site/{action}"), body);
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        load(&ramp);
    }
}
