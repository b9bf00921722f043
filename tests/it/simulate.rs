//! `watershed simulate`: whole experiments through the judge, by the real program.

use crate::support::proxy::BINARY;
use serde_json::Value;
use std::process::{Command, Output};
use tempfile::TempDir;

const ROUTES: &str = "\
upstreams: { current: \"http://127.0.0.1:1\", redesign: \"http://127.0.0.1:2\" }
experiments:
  half: { control: current, experiment: redesign, percent: 50, metrics: [purchase, revenue], guardrails: { errors: { max_increase: 10% } } }
  tenth: { control: current, experiment: redesign, percent: 10, metrics: [revenue] }
  fewer: { control: current, experiment: redesign, percent: 50, metrics: [complaints], min_duration: 2d }
  over: { control: current, experiment: redesign, percent: 50, winner: experiment }
metrics:
  purchase: { event: purchase, detect: 50% }
  revenue: { event: purchase, value: amount, kind: mean, detect: 100% }
  complaints: { event: complaint, kind: count, goal: decrease, detect: 50% }
";

fn simulate(routes: &str, arguments: &[&str]) -> Output {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("routes.yaml");
    std::fs::write(&file, routes).unwrap();
    let output = Command::new(BINARY)
        .args(["simulate", "-c", file.to_str().unwrap()])
        .args(arguments)
        .output();
    output.unwrap()
}

fn answers(arguments: &[&str]) -> Vec<Value> {
    let output = simulate(ROUTES, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn simulated_verdicts_have_the_planned_error_rates() {
    let arguments = "--json --runs 80 --looks 30 --rate 30% --seed 7 --users-per-day 100";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let answers = answers(&arguments);
    let names: Vec<&str> = answers
        .iter()
        .map(|answer| answer["experiment"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["half", "half", "tenth", "tenth", "fewer", "fewer"]);
    for pair in answers.chunks(2) {
        let of = |answer: &Value, what: &str| answer[what].as_f64().unwrap();
        let (none, planned) = (&pair[0], &pair[1]);
        // 5 % and three standard errors of 80 runs.
        assert_eq!(of(none, "lift"), 0.0);
        assert!(of(none, "wrong") <= 0.11, "{none:#}");
        assert!(of(none, "winner") < 0.08, "{none:#}");
        // 83 % and three standard errors: 1 in 14 is called hopeless, which is wrong here.
        assert!(of(planned, "lift") > 0.0);
        assert!(of(planned, "winner") >= 0.70, "{planned:#}");
        assert!(of(planned, "wrong") <= 0.17, "{planned:#}");
        let half_way = of(planned, "median_users") / of(planned, "users");
        assert!((0.1..0.8).contains(&half_way), "{planned:#}");
        let shares = [
            "winner",
            "loser",
            "no_difference",
            "no_planned_lift",
            "inconclusive",
            "invalid",
            "no_verdict",
        ];
        let all: f64 = shares.iter().map(|share| of(planned, share)).sum();
        assert!((all - 1.0).abs() < 1e-9, "{planned:#}");
        let days = of(planned, "median_days");
        let by_users = of(planned, "median_users") / 100.0;
        let shortest = if planned["experiment"] == "fewer" {
            2.0
        } else {
            7.0
        };
        assert_eq!(days, by_users.max(shortest));
    }
}

#[test]
fn planned_end_is_played_to_its_end() {
    let horizon = |horizon: &str| {
        let routes = format!(
            "upstreams: {{ a: \"http://127.0.0.1:1\", b: \"http://127.0.0.1:2\" }}\n\
             experiments: {{ half: {{ control: a, experiment: b, percent: 50, horizon: {horizon} }} }}\n\
             metrics: {{ purchase: {{ event: purchase, detect: 50% }} }}\n"
        );
        let arguments = "--json --runs 40 --looks 60 --rate 30% --seed 3 --users-per-day 60";
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let output = simulate(&routes, &arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap()
    };
    for (text, users) in [("900", 900), ("14d", 840)] {
        let pair = horizon(text);
        let of = |place: usize, what: &str| pair[place][what].as_f64().unwrap();
        assert_eq!(of(0, "users"), f64::from(users), "{pair:#?}");
        for place in [0, 1] {
            assert_eq!(of(place, "no_verdict"), 0.0, "{pair:#?}");
        }
        // 5 % and three standard errors of 40 runs; 80 % and three.
        assert!(of(0, "winner") + of(0, "loser") <= 0.15, "{pair:#?}");
        assert!(of(1, "winner") >= 0.6, "{pair:#?}");
    }
}

#[test]
fn same_seed_gives_the_same_result() {
    let play = |seed: &str| {
        let arguments = [
            "--json", "--runs", "6", "--users", "400", "--looks", "8", "--rate", "40%",
        ];
        answers(&[&arguments[..], &["--seed", seed]].concat())
    };
    assert_eq!(play("1"), play("1"));
    assert_ne!(play("1"), play("2"));
}

#[test]
fn table_is_printed_and_errors_are_reported() {
    let table = simulate(ROUTES, &["--runs", "2", "--users", "100", "--looks", "2"]);
    let said = String::from_utf8(table.stdout).unwrap();
    for says in [
        "true lift",
        "wrong",
        "2 runs each, analyzed 2 times, with at most 100 for half",
    ] {
        assert!(said.contains(says), "{said}");
    }
    let nothing = "upstreams: { current: \"http://127.0.0.1:1\", redesign: \"http://127.0.0.1:2\" }\n\
                   experiments: { half: { control: current, experiment: redesign, percent: 50 } }\n";
    let refused = simulate(nothing, &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("hint: write `metrics:`"), "{said}");
    let refused = simulate(ROUTES, &["--rate", "95%"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    for says in [
        "half: metrics.purchase.detect: a lift of 50% of a rate of 95% would be 142.5% of users",
        "below 66.6667%",
        "below 5.2632%",
    ] {
        assert!(said.contains(says), "{said}");
    }
    assert_eq!(simulate("upstreams: 7\n", &[]).status.code(), Some(2));
    assert_eq!(simulate(ROUTES, &["--rate", "5"]).status.code(), Some(2));
    assert_eq!(simulate(ROUTES, &["--runs", "0"]).status.code(), Some(2));
}
