//! `watershed replay`: a metric of the past has the numbers that it would have had in the file.

use super::{Site, visits};
use crate::support::proxy::BINARY;
use serde_json::Value;
use std::process::{Command, Output};

const SEGMENTS: &str = "segments: { device: device }\n";

fn replay(site: &Site, words: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command
        .args(["--json", "replay", "-c"])
        .arg(site.proxy.file());
    command.args(words).output().unwrap()
}

#[track_caller]
fn replayed(site: &Site, words: &[&str]) -> Value {
    let done = replay(site, words);
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{words:?}: {errors}{}",
        String::from_utf8_lossy(&done.stdout)
    );
    serde_json::from_slice(&done.stdout).unwrap()
}

/// What of a metric must be the same.
fn numbers(metric: &Value) -> Vec<[Value; 7]> {
    let groups = metric["groups"].as_array().unwrap().iter();
    let keys = ["name", "users", "converted", "count", "sum", "rate", "lift"];
    groups
        .map(|group| keys.map(|key| group[key].clone()))
        .collect()
}

#[test]
fn replayed_metric_has_the_numbers_of_the_results() {
    let mut site = Site::start_with(
        "{ to: out, every: 1s }",
        SEGMENTS,
        "  half: { latency: p50 }\n",
        &[],
    );
    visits(&site.proxy, 0..150);
    let mut client = site.proxy.client();
    for number in 0..30 {
        let phone = "User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148\r\n";
        let headers = format!("{phone}Cookie: uid=phone-{number}\r\n");
        client.get("/?event=buy;amount=3", &headers);
    }
    let results = site.end();
    let experiment = |name: &str| {
        let mut all = results["experiments"].as_array().unwrap().iter();
        all.find(|it| it["name"] == name).unwrap()
    };
    let metric = |name: &str| {
        let mut all = experiment("shop")["metrics"].as_array().unwrap().iter();
        all.find(|it| it["name"] == name).unwrap()
    };
    for (asked, counted) in [
        ("buy", "buy"),
        ("revenue", "revenue"),
        ("pages", "pages"),
        ("bought: { event: buy }", "buy"),
        (
            "most: { event: revenue, value: amount, kind: mean, cap: 20 }",
            "capped",
        ),
        ("per_request", "per_request"),
        ("per_page", "per_page"),
        (
            "bought_per_page: { event: revenue, value: amount, kind: ratio, per: { on: { path: /page/** } } }",
            "per_page",
        ),
        (
            "bought_per_page: { event: revenue, value: amount, kind: ratio, per: { event: pages } }",
            "per_page",
        ),
        ("seen: { on: { path: /page/** }, kind: count }", "pages"),
        ("half", "half"),
        ("median: { latency: p50 }", "half"),
    ] {
        let result = replayed(&site, &["--experiment", "shop", "--metric", asked]);
        assert_eq!(
            result["groups"][0]["users"],
            experiment("shop")["groups"][0]["users"]
        );
        let found = &result["metrics"][0];
        // Corrections depend on how many metrics there are, so intervals of secondary ones are others.
        let without_lift = |metric: &Value| -> Vec<Vec<Value>> {
            numbers(metric).iter().map(|it| it[..6].to_vec()).collect()
        };
        assert_eq!(
            without_lift(found),
            without_lift(metric(counted)),
            "{asked}"
        );
        if asked == "buy" {
            assert_eq!(numbers(found), numbers(metric(counted)));
            let verdict = &result["verdict"]["state"];
            assert_eq!(*verdict, experiment("shop")["verdict"]["state"]);
        }
    }
    // A segment of the past: the phones, whose users bought once each.
    let words = [
        "--experiment",
        "shop",
        "--metric",
        "buy",
        "--segment",
        "device=mobile",
    ];
    let result = replayed(&site, &words);
    let groups = result["metrics"][0]["groups"].as_array().unwrap();
    let sum = |key: &str| -> u64 { groups.iter().map(|it| it[key].as_u64().unwrap()).sum() };
    assert_eq!([sum("users"), sum("converted"), sum("count")], [30, 30, 30]);
    // Of a metric with a window, nobody's is over.
    let words = [&words[..2], &["--metric", "soon"], &words[4..]].concat();
    let result = replayed(&site, &words);
    let groups = result["metrics"][0]["groups"].as_array().unwrap();
    let sum = |key: &str| -> u64 { groups.iter().map(|it| it[key].as_u64().unwrap()).sum() };
    assert_eq!([sum("users"), sum("users_waiting")], [0, 30]);

    let refused = |words: &[&str]| {
        let done = replay(&site, words);
        assert!(!done.status.success(), "{words:?}");
        let said = [done.stdout, done.stderr].concat();
        String::from_utf8_lossy(&said).into_owned()
    };
    for (words, expected) in [
        (
            vec!["--metric", "buy"],
            "name one with --experiment: shop, page",
        ),
        (
            vec!["--experiment", "shop", "--metric", "x: { event: nothing }"],
            "it has no event \\\"nothing\\\"; known: buy, capped, half, pages, per_page, per_request, revenue, soon, ~errors",
        ),
        (
            vec!["--experiment", "shop", "--metric", "x: { evnt: buy }"],
            "unknown key",
        ),
        (
            vec!["--experiment", "shop", "--metric", "x: { on: GET / }"],
            "no metric counted \\\"GET /\\\"; counted were: /page/**, event buy, ",
        ),
        (
            vec![
                "--experiment",
                "shop",
                "--metric",
                "x: { event: buy, kind: ratio, value: amount, per: requests }",
            ],
            "a new ratio per requests cannot be replayed",
        ),
        (
            vec![
                "--experiment",
                "shop",
                "--metric",
                "buy",
                "--segment",
                "device=fridge",
            ],
            "no user was in the segment device=fridge",
        ),
        (
            vec![
                "--experiment",
                "shop",
                "--metric",
                "buy",
                "--from",
                "ftp://x",
            ],
            "ftp:// is not a known archive",
        ),
    ] {
        let said = refused(&words);
        assert!(said.contains(expected), "{words:?}: {said}");
    }
}
