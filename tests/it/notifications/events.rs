//! What messages are about, and confirmations.

use super::receiver::{Mode, Receiver};
use super::{Site, act, analyzed, come, experiment};
use crate::support::client::Client;
use crate::support::clock::Clock;
use crate::support::proxy::{How, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// Waits for the one message of a type about the experiment, and returns its data and text.
#[track_caller]
fn told(receiver: &Receiver, kind: &str) -> (Value, String) {
    let message = receiver.until_accepted(kind, 1).remove(0);
    assert_eq!(message.body["experiment"], "site", "{}", message.raw);
    let text = message.body["text"].as_str().unwrap().to_owned();
    (message.body["data"].clone(), text)
}

#[test]
fn winner_is_told_once_and_promoted_after_that() {
    for site in Site::of_both_stores() {
        let receiver = Receiver::start(Mode::Accept(""));
        let proxy = Proxy::start(&site.routes(", act_on: winner", &receiver.key("")));
        come(&proxy, "a", [(60, 2), (60, 55)]);
        let (data, text) = told(&receiver, "winner");
        assert_eq!(
            (&data["group"], &data["harms"]),
            (&"experiment".into(), &json!([]))
        );
        assert_eq!(data["waits_for"], Value::Null);
        assert!(text.starts_with("site: experiment "), "{text}");
        assert_eq!(text, format!("site: {}", data["reason"].as_str().unwrap()));
        let (data, _) = told(&receiver, "decision");
        assert_eq!(
            (&data["action"], &data["by"]),
            (&"promote".into(), &"watershed (act_on)".into())
        );
        assert_eq!(experiment(&proxy)["confirm"], Value::Null);
        analyzed(&proxy);
        assert_eq!(receiver.seen().len(), 2, "{:#?}", receiver.seen());
    }
}

#[test]
fn confirmation_by_a_person_ends_the_wait() {
    let site = Site::start(None);
    // A receiver cannot confirm what a person is to confirm.
    let receiver = Receiver::start(Mode::Accept("{\"confirm\": true}"));
    let keys = ", act_on: winner, confirm: person";
    let proxy = Proxy::start(&site.routes(keys, &receiver.key("")));
    come(&proxy, "a", [(60, 2), (60, 55)]);
    let (data, text) = told(&receiver, "winner");
    assert_eq!(data["waits_for"], "person");
    assert!(
        text.ends_with("; it waits for a person to confirm"),
        "{text}"
    );
    analyzed(&proxy);
    let found = experiment(&proxy);
    assert_eq!(found["status"], "running");
    assert_eq!(
        found["confirm"],
        json!({ "waits_for": "person", "group": "experiment" })
    );
    let page = Client::admin(proxy.admin)
        .get("/admin/results", "Accept: text/html\r\n")
        .text();
    assert!(
        page.contains("it waits for a person to confirm it"),
        "{page}"
    );
    assert_eq!(act(&proxy, "promote", ""), 200);
    let found = experiment(&proxy);
    assert_eq!(
        (&found["status"], &found["confirm"]),
        (&"promoted".into(), &Value::Null)
    );
    let (data, _) = told(&receiver, "decision");
    assert_eq!(data["by"], "the admin API");
}

#[test]
fn confirmation_by_a_webhook_promotes() {
    for site in Site::of_both_stores() {
        let receiver = Receiver::start(Mode::Accept("{\"confirm\": true}"));
        let keys = ", act_on: winner, confirm: webhook";
        let proxy = Proxy::start(&site.routes(keys, &receiver.key("")));
        come(&proxy, "a", [(60, 2), (60, 55)]);
        let (data, _) = told(&receiver, "winner");
        assert_eq!(data["waits_for"], "webhook");
        let (data, _) = told(&receiver, "decision");
        assert_eq!(data["to"], "promoted experiment");
        let reason = data["reason"].as_str().unwrap();
        assert!(reason.ends_with("(confirmed by a webhook)"), "{reason}");
    }
}

#[test]
fn other_answer_than_the_confirmation_promotes_nothing() {
    for answer in [
        "",
        "{\"confirm\": false}",
        "{\"confirm\": \"true\"}",
        "[true]",
    ] {
        let site = Site::start(None);
        let receiver = Receiver::start(Mode::Accept(answer));
        let keys = ", act_on: winner, confirm: webhook";
        let proxy = Proxy::start(&site.routes(keys, &receiver.key(", on: winner")));
        come(&proxy, "a", [(60, 2), (60, 55)]);
        told(&receiver, "winner");
        analyzed(&proxy);
        let found = experiment(&proxy);
        assert_eq!(
            (&found["status"], &found["confirm"]["waits_for"]),
            (&"running".into(), &"webhook".into()),
            "{answer}"
        );
        assert_eq!(receiver.seen().len(), 1, "it was delivered: {answer}");
        assert_eq!(act(&proxy, "promote", ""), 200);
    }
}

#[test]
fn harm_mismatch_and_an_end_without_effect_are_told() {
    let site = Site::start(None);
    let receiver = Receiver::start(Mode::Accept(""));
    let guardrails = ", guardrails: { errors: { max_increase: 1% } }";
    let routes = |salt: &str| site.routes(&format!("{guardrails}{salt}"), &receiver.key(""));
    // A version whose responses fail.
    let proxy = Proxy::start(&routes(""));
    let mut client = proxy.client();
    for number in 0..300 {
        let user = format!("X-User: user-{number}\r\n");
        if client.get("/", &user).json()["version"] == "next" {
            client.get("/?status=500", &user);
            client.get("/?status=500", &user);
        }
    }
    let (data, text) = told(&receiver, "harm");
    assert_eq!(
        (&data["group"], &data["metric"], &data["guardrail"]),
        (&"experiment".into(), &"errors".into(), &true.into())
    );
    assert!(text.starts_with("site: experiment does harm: "), "{text}");
    // Two thirds of its responses failed, so the version is down as well.
    let (data, text) = told(&receiver, "upstream_down");
    assert_eq!(
        (&data["upstream"], &data["group"]),
        (&"next".into(), &"experiment".into())
    );
    assert!(
        text.starts_with("site: most responses of experiment fail"),
        "{text}"
    );

    let receiver = Receiver::start(Mode::Accept(""));
    let proxy = Proxy::start(&site.routes("", &receiver.key("")));
    come(&proxy, "a", [(250, 10), (20, 1)]);
    let (data, text) = told(&receiver, "mismatch");
    assert!(data["p_value"].as_f64().unwrap() < 0.01, "{data}");
    assert!(
        text.starts_with("site: the groups do not have the sizes"),
        "{text}"
    );

    let receiver = Receiver::start(Mode::Accept(""));
    let proxy = Proxy::start(&site.routes("", &receiver.key("")));
    come(&proxy, "a", [(60, 40), (60, 40)]);
    let (data, text) = told(&receiver, "no_planned_lift");
    assert_eq!(data["verdict"], "no_planned_lift");
    assert!(text.contains("no group has the planned lift"), "{text}");
    // A loser is harm.
    let receiver = Receiver::start(Mode::Accept(""));
    let proxy = Proxy::start(&site.routes("", &receiver.key("")));
    come(&proxy, "a", [(60, 55), (60, 2)]);
    let (data, _) = told(&receiver, "harm");
    assert_eq!(
        (&data["metric"], &data["guardrail"]),
        (&"buy".into(), &false.into())
    );
    analyzed(&proxy);
    assert_eq!(receiver.seen().len(), 1, "{:#?}", receiver.seen());
}

#[test]
fn harm_that_a_ramp_rolls_back_for_is_told() {
    for site in Site::of_both_stores() {
        let receiver = Receiver::start(Mode::Accept(""));
        let ramp = "groups: { control: { weight: 50, upstream: current }, \
            experiment: { weight: 50, upstream: next } }, ramp: [ 50% for 1h, 100% ], \
            on_alarm: rollback, guardrails: { errors: { max_increase: 1% } }";
        let routes = site.routes("", &receiver.key(", on: [harm, decision]"));
        let routes = routes.replace("control: current, experiment: next, percent: 50", ramp);
        let proxy = Proxy::start(&routes);
        until("the first step", || {
            let ramp = experiment(&proxy)["ramp"].clone();
            (ramp["step"] == 1).then_some(()).ok_or(ramp)
        });
        let mut client = proxy.client();
        for number in 0..300 {
            let user = format!("X-User: user-{number}\r\n");
            if client.get("/", &user).json()["version"] == "next" {
                client.get("/?status=500", &user);
            }
        }
        let (decision, _) = told(&receiver, "decision");
        assert_eq!(decision["action"], "rollback", "{decision}");
        let (harm, text) = told(&receiver, "harm");
        assert_eq!(harm["metric"], "errors", "{harm}");
        assert!(text.starts_with("site: experiment does harm: "), "{text}");
    }
}

#[test]
fn planned_start_and_end_are_told_once_by_two_replicas() {
    let site = Site::start(Some(Redis::start()));
    let receiver = Receiver::start(Mode::Accept(""));
    let clock = Clock::new();
    let start = || How {
        env: clock.environment(),
        ..How::default()
    };
    let now = SystemTime::now();
    let at =
        |hours: u64| humantime::format_rfc3339_seconds(now + Duration::from_secs(hours * 3600));
    let times = format!(", start: {}, end: {}", at(1), at(2));
    let routes = site.routes(&times, &receiver.key(", on: decision"));
    let proxies = [(); 2].map(|()| Proxy::start_how(&routes, start()));
    let decided = |count: usize| {
        until("planned times in the history", || {
            let history = proxies[0].ask("/admin/history").json();
            let entries = history["history"].as_array().unwrap().clone();
            let is_planned = |it: &&Value| it["action"] == "start" || it["action"] == "end";
            let planned: Vec<Value> = entries.iter().filter(is_planned).cloned().collect();
            // The file is there first: what it says of the past is no news.
            let is_loaded = entries.iter().any(|it| it["action"] == "load");
            (is_loaded && planned.len() == count)
                .then_some(planned)
                .ok_or(entries)
        })
    };
    decided(0);
    for proxy in &proxies {
        analyzed(proxy);
    }
    clock.set(3700);
    decided(1);
    clock.set(7300);
    let ended = decided(2);
    assert_eq!(
        (&ended[0]["action"], &ended[0]["from"], &ended[0]["to"]),
        (&"end".into(), &"running".into(), &"ended".into())
    );
    assert_eq!(
        (&ended[1]["from"], &ended[1]["source"]),
        (&"scheduled".into(), &"file".into())
    );
    // The other replica goes by its own clock.
    let shown = until("the end at the other replica", || {
        let shown = experiment(&proxies[1]);
        (shown["status"] == "ended")
            .then_some(shown.clone())
            .ok_or(shown)
    });
    assert_eq!(shown["ended_at"], shown["ends_at"]);
    assert!(shown["ended_at"].is_string(), "{shown}");
    until("both messages", || {
        let told = receiver.accepted("decision");
        (told.len() == 2).then_some(()).ok_or(told)
    });
    for proxy in &proxies {
        analyzed(proxy);
    }
    assert_eq!(receiver.accepted("decision").len(), 2);
}

#[test]
fn upstream_that_refuses_connections_is_told_once() {
    let mut site = Site::start(None);
    let receiver = Receiver::start(Mode::Accept(""));
    let routes = site.routes("", &receiver.key(""));
    let proxy = Proxy::start(&routes);
    come(&proxy, "a", [(20, 0), (20, 0)]);
    assert_eq!(receiver.seen().len(), 0);
    let address = site.next.address;
    site.next = crate::support::origin::Origin::start("unused");
    // Few requests are enough, and its ejection ends by itself.
    let mut client = proxy.client();
    for number in 0..10 {
        assert_eq!(
            client.get("/", &format!("X-User: u{number}\r\n")).status,
            200
        );
    }
    let (data, text) = told(&receiver, "upstream_down");
    assert_eq!(
        (&data["upstream"], &data["experiments"]),
        (&"next".into(), &json!(["site"]))
    );
    assert_eq!(data["endpoints"][0]["address"], address.to_string());
    assert!(text.starts_with("upstream next is down: "), "{text}");
    for number in 10..20 {
        client.get("/", &format!("X-User: u{number}\r\n"));
    }
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(receiver.accepted("upstream_down").len(), 1);
}

#[test]
fn hour_without_data_is_told_and_told_again_after_the_next() {
    let site = Site::start(None);
    let receiver = Receiver::start(Mode::Accept(""));
    let clock = Clock::new();
    let how = How {
        env: clock.environment(),
        ..How::default()
    };
    let proxy = Proxy::start_how(&site.routes("", &receiver.key("")), how);
    come(&proxy, "a", [(20, 5), (20, 5)]);
    proxy.results();
    analyzed(&proxy);
    clock.set(3500);
    analyzed(&proxy);
    assert_eq!(receiver.seen().len(), 0, "{:#?}", receiver.seen());
    clock.set(3700);
    let (data, text) = told(&receiver, "no_data");
    assert!(data["minutes"].as_u64().unwrap() >= 60, "{data}");
    assert!(text.starts_with("site: no data for "), "{text}");
    come(&proxy, "b", [(20, 5), (20, 5)]);
    proxy.results();
    analyzed(&proxy);
    clock.set(3700 + 3700);
    receiver.until_accepted("no_data", 2);
    // Nobody waits for the data of an experiment that is paused.
    assert_eq!(act(&proxy, "pause", ""), 200);
    until("a pause", || {
        let status = experiment(&proxy)["status"].clone();
        (status == "paused").then_some(()).ok_or(status)
    });
    clock.set(3700 * 4);
    analyzed(&proxy);
    assert_eq!(receiver.accepted("no_data").len(), 2);
}

#[test]
fn step_of_a_ramp_is_told() {
    for site in Site::of_both_stores() {
        let receiver = Receiver::start(Mode::Accept(""));
        let groups = "groups: { control: { weight: 50, upstream: current }, \
            experiment: { weight: 50, upstream: next } }, ramp: [ 10% for 1s, 100% ]";
        let routes = site.routes("", &receiver.key(", on: ramp"));
        let routes = routes.replace("control: current, experiment: next, percent: 50", groups);
        let proxy = Proxy::start(&routes);
        let (data, text) = told(&receiver, "ramp");
        assert_eq!(
            (&data["action"], &data["source"]),
            (&"ramp".into(), &"rule".into())
        );
        assert!(text.starts_with("site: ramp by "), "{text}");
        let shown = experiment(&proxy)["ramp"].clone();
        assert!(shown.is_object(), "{shown}");
    }
}
