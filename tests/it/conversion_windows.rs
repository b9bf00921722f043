//! Metrics with a window, through the judge that results come from, and through the real program.

use crate::support::client::Client;
use crate::support::clock::Clock;
use crate::support::origin::Origin;
use crate::support::proxy::{How, Proxy};
use crate::support::until;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use watershed::admin::results::evaluator::{CountsSnapshot, Evaluation, Evaluator};
use watershed::config;
use watershed::experiment::EpochDigest;
use watershed::stats::State;
use watershed::store::phases::Placement;
use watershed::store::running_minima::RunningMinima;
use watershed::store::{
    EpochDefinition, EpochTotals, ExperimentTotals, GroupTotals, HourTotals, MetricTotals,
};
use watershed::telemetry::Counted;

const HOUR_MS: u64 = 3_600_000;
const WEEK_HOURS: u64 = 7 * 24;
/// Of an hour and a group; a tenth of them converts in the end.
const USERS: u64 = 200;

/// After two weeks: users of control take up to a week to convert, those of the experiment an hour.
fn evaluation(windows: bool) -> Evaluation {
    let now_hours = 2 * WEEK_HOURS + 1;
    let text = "upstreams: { a: \"http://127.0.0.1:1\", b: \"http://127.0.0.1:2\" }\n\
        experiments: { site: { control: a, experiment: b, percent: 50 } }\n\
        metrics: { buy: { event: buy, within: 7d } }\n";
    let plan = config::parse(text, Path::new("routes.yaml"), &|_| None).unwrap();
    let hour = |hour: u64, group: &str, converted: u64| HourTotals {
        hour,
        epoch: EpochDigest(1),
        group: group.to_owned(),
        totals: GroupTotals {
            users: USERS,
            metrics: [(
                "buy".to_owned(),
                MetricTotals {
                    converted,
                    count: converted,
                    count_sq: i128::from(converted),
                    ..MetricTotals::default()
                },
            )]
            .into(),
            ..GroupTotals::default()
        },
    };
    let hours: Vec<HourTotals> = (0..2 * WEEK_HOURS)
        .flat_map(|came| {
            let done = USERS / 10 * (now_hours - came).min(WEEK_HOURS) / WEEK_HOURS;
            [
                hour(came, "control", done),
                hour(came, "experiment", USERS / 10),
            ]
        })
        .collect();
    let mut groups = std::collections::BTreeMap::<String, GroupTotals>::new();
    for hour in &hours {
        let group = groups.entry(hour.group.clone()).or_default();
        group.users += USERS;
        let of = group.metrics.entry("buy".to_owned()).or_default();
        let more = hour.totals.metrics["buy"];
        of.converted += more.converted;
        of.count += more.count;
        of.count_sq += more.count_sq;
    }
    let totals = ExperimentTotals {
        epochs: vec![EpochTotals {
            definition: EpochDefinition {
                digest: EpochDigest(1),
                traffic: 1.0,
                groups: vec![
                    ("control".to_owned(), 50.0),
                    ("experiment".to_owned(), 50.0),
                ],
                first_ms: 0,
                series: Vec::new(),
            },
            number: 1,
            groups: groups.into_iter().collect(),
        }],
        ..ExperimentTotals::default()
    };
    let seen = CountsSnapshot {
        totals,
        hours: windows.then(|| Arc::new(hours)),
        placement: Placement::first("site"),
        counted: Counted::Wholly,
        at_ms: now_hours * HOUR_MS,
    };
    Evaluator::default().judge(&plan, &plan.experiments[0], seen, &RunningMinima::default())
}

#[test]
fn conversion_window_excludes_users_within_it() {
    let sooner = evaluation(false);
    assert_eq!(sooner.judgement.verdict.state, State::Winner, "all users");
    let over = evaluation(true);
    let group = &over.judgement.metrics[0].groups[1];
    assert_eq!(group.p_value, Some(1.0), "{group:?}");
    assert_eq!(group.rate, Some(0.1));
    assert_ne!(over.judgement.verdict.state, State::Winner);
    // Those who came in the first week and the hour after it.
    let users = over.question.metrics[0].totals[0][1].users;
    assert_eq!(users, USERS * (WEEK_HOURS + 1));
}

/// Reported hours later, by a nightly import, when nobody visits the site.
#[test]
fn event_with_its_own_time_counts_after_the_window_is_over() {
    const HOUR_S: u64 = 3600;
    let origins = [Origin::start("a"), Origin::start("b")];
    let clock = Clock::new();
    clock.set(-6 * HOUR_S as i64);
    let routes = format!(
        "user: {{ cookie: uid }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\n\
         experiments: {{ shop: {{ control: a, experiment: b, percent: 50, guardrails: {{ fail: {{ max_increase: 10% }} }} }} }}\n\
         metrics: {{ soon: {{ event: purchase, within: 1h }}, fail: {{ event: fail, within: 1h, goal: decrease }} }}\n",
        origins[0].address, origins[1].address
    );
    let how = How {
        env: clock.environment(),
        ..How::default()
    };
    let proxy = Proxy::start_how(&routes, how);
    let mut client = proxy.client();
    for user in 0..20 {
        client.get("/", &format!("Cookie: uid=u{user}\r\n"));
    }
    clock.set(0);
    client.get("/", "Cookie: uid=late\r\n");
    let counted = || {
        let shop = proxy.results()["experiments"][0].clone();
        let sum = |groups: &serde_json::Value, key: &str| {
            let groups = groups.as_array().unwrap().iter();
            groups.map(|it| it[key].as_u64().unwrap()).sum::<u64>()
        };
        let (metric, guardrail) = (
            &shop["metrics"][0]["groups"],
            &shop["guardrails"][0]["groups"],
        );
        [
            sum(metric, "users"),
            sum(metric, "converted"),
            sum(guardrail, "users"),
            sum(guardrail, "harmed"),
        ]
    };
    assert_eq!(counted(), [20, 0, 20, 0]);
    let at = SystemTime::now() - Duration::from_secs(6 * HOUR_S - 60);
    let at = humantime::format_rfc3339_millis(at);
    let event =
        |name: &str, user: usize| format!(r#"{{"event":"{name}","user":"u{user}","at":"{at}"}}"#);
    let events: Vec<String> = (0..8)
        .map(|user| event(["purchase", "fail"][user % 2], user))
        .collect();
    let answer =
        Client::admin(proxy.admin).post("/admin/events", "", &format!("[{}]", events.join(",")));
    assert_eq!(answer.json()["accepted"], 8, "{}", answer.text());
    until("the reported events", || match counted() {
        [20, 4, 20, 4] => Ok(()),
        other => Err(other),
    });
}

/// Users come until the planned end; the last analysis is made when their windows are over. It gives a
/// word, also where there is nothing to analyze.
#[test]
fn planned_end_waits_for_windows_and_comes() {
    const HOUR_S: i64 = 3600;
    let origins = [Origin::start("a"), Origin::start("b")];
    let clock = Clock::new();
    clock.set(-40 * HOUR_S);
    let routes = format!(
        "user: {{ cookie: uid }}\nupstreams: {{ a: \"http://{a}\", b: \"http://{b}\" }}\nexperiments:\n  \
         quiet: {{ match: /quiet, control: a, experiment: b, percent: 50, min_duration: 0s, horizon: 8h, metrics: [never] }}\n  \
         shop: {{ control: a, experiment: b, percent: 50, min_duration: 0s, horizon: 8h, metrics: [soon] }}\n\
         metrics: {{ soon: {{ event: purchase, within: 12h }}, never: {{ event: nothing }} }}\n",
        a = origins[0].address,
        b = origins[1].address
    );
    let how = How {
        env: clock.environment(),
        ..How::default()
    };
    let proxy = Proxy::start_how(&routes, how);
    let come = |hours: i64, users: std::ops::Range<usize>| {
        clock.set(hours * HOUR_S);
        let mut client = proxy.client();
        for user in users {
            let path = ["/?event=purchase", "/"][user / 2 % 2];
            client.get(path, &format!("Cookie: uid=u{user}\r\n"));
            client.get("/quiet", &format!("Cookie: uid=u{user}\r\n"));
        }
    };
    let shown = |hours: i64| {
        clock.set(hours * HOUR_S);
        let experiments = proxy.results()["experiments"].clone();
        let of = |place: usize| {
            let experiment = &experiments[place];
            let state = experiment["verdict"]["state"].as_str().unwrap().to_owned();
            (
                state,
                experiment["planning"]["horizon"]["analysis"].clone(),
                experiment.clone(),
            )
        };
        (of(1), of(0))
    };
    come(-40, 0..80);
    come(-34, 80..160);
    // The planned end has come, and nobody's window is over.
    let (shop, quiet) = shown(-31);
    assert_eq!(
        (&*shop.0, &shop.1),
        ("collecting", &serde_json::Value::Null),
        "{}",
        shop.2
    );
    assert_eq!(quiet.0, "inconclusive", "{}", quiet.2);
    let reason = quiet.2["verdict"]["reason"].as_str().unwrap();
    assert!(reason.contains("no user has an event of never"), "{reason}");
    // Some windows are over.
    let (shop, _) = shown(-24);
    assert_eq!(shop.0, "collecting", "{}", shop.2);
    assert!(shop.1.as_u64().unwrap() < 30, "{}", shop.1);
    let (shop, _) = shown(-19);
    assert_eq!(
        (&*shop.0, shop.1.as_u64()),
        ("inconclusive", Some(30)),
        "{}",
        shop.2
    );
    let users = |place: usize| {
        shop.2["metrics"][0]["groups"][place]["users"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(users(0) + users(1), 160);
}
