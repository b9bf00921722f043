//! `watershed judge`: the same verdict for totals from elsewhere.

use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::until;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, Output};

fn routes(origins: &[Origin; 2]) -> String {
    format!(
        "user: {{ cookie: uid }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}
experiments:
  shop:
    groups: {{ control: {{ weight: 50, upstream: a }}, b: {{ weight: 50, upstream: b }} }}
    min_duration: 1s
metrics:
  bought: {{ event: purchase }}
  purchases: {{ event: purchase, kind: count }}
  revenue: {{ event: purchase, value: amount, kind: mean }}
  per_request: {{ event: purchase, value: amount, kind: ratio, per: requests }}
",
        origins[0].address, origins[1].address
    )
}

fn judge(folder: &tempfile::TempDir, routes: &str, totals: &str, words: &[&str]) -> Output {
    let (file, csv) = (
        folder.path().join("routes.yaml"),
        folder.path().join("totals.csv"),
    );
    std::fs::write(&file, routes).unwrap();
    std::fs::write(&csv, totals).unwrap();
    let mut command = Command::new(BINARY);
    command
        .arg("judge")
        .arg(csv)
        .arg("-c")
        .arg(file)
        .args(words);
    command.output().unwrap()
}

/// Adds up the rows of the exports, as a warehouse would.
fn added_up(assignments: &str, values: &str) -> String {
    let lines = |text: &str| -> Vec<Value> {
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let (users, values) = (lines(assignments), lines(values));
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let mut groups = BTreeMap::<String, (u64, String)>::new();
    for user in &users {
        let first = text(user, "first_exposure");
        let group = groups
            .entry(text(user, "variation_id"))
            .or_insert((0, first.clone()));
        group.0 += 1;
        group.1 = group.1.clone().min(first);
    }
    let mut csv = "group,users,first_exposure,metric,converted,count,count_sq,sum,sum_sq,base,base_sq,cross\n".to_owned();
    for (group, (count, first)) in &groups {
        for metric in ["bought", "purchases", "revenue", "per_request"] {
            // In hundredths, so that nothing is rounded.
            let mut sums = [0_i64; 8];
            for row in &values {
                if text(row, "variation_id") == *group && row["metric"] == metric {
                    let count = row["count"].as_i64().unwrap();
                    let value = (row["sum"].as_f64().unwrap() * 100.0).round() as i64;
                    let base = row["base"].as_i64().unwrap();
                    let each = [
                        i64::from(count > 0),
                        count,
                        count * count,
                        value,
                        value * value,
                        base,
                        base * base,
                        value * base,
                    ];
                    sums.iter_mut()
                        .zip(each)
                        .for_each(|(sum, each)| *sum += each);
                }
            }
            let [
                converted,
                count_of,
                count_sq,
                sum,
                sum_sq,
                base,
                base_sq,
                cross,
            ] = sums;
            let hundredths = |units: i64| format!("{}.{:02}", units / 100, units % 100);
            writeln!(
                csv,
                "{group},{count},{first},{metric},{converted},{count_of},{count_sq},{},{}.{:04},{base},{base_sq},{}",
                hundredths(sum), sum_sq / 10_000, sum_sq % 10_000, hundredths(cross)
            )
            .unwrap();
        }
    }
    csv
}

#[test]
fn totals_of_an_export_get_the_verdict_of_the_results() {
    let origins = [Origin::start("control"), Origin::start("b")];
    let routes = routes(&origins);
    let proxy = Proxy::start(&routes);
    let mut client = proxy.client();
    for number in 0..600 {
        let headers = format!("Cookie: uid=user-{number}\r\n");
        let first = client.get("/", &headers);
        let is_control = first.text().contains("control");
        // The other group buys far more often.
        if number % 10 < if is_control { 2 } else { 6 } {
            client.get(
                &format!("/?event=purchase;amount={}.25", number % 40),
                &headers,
            );
        }
    }
    let results = until("the verdict", || {
        let results = proxy.results();
        let is_there = results["experiments"][0]["verdict"]["state"] == "winner";
        is_there.then_some(results.clone()).ok_or(results)
    });
    let shown = &results["experiments"][0];
    let table = |table: &str| {
        let path = format!("/admin/export/shop?format=jsonl&table={table}");
        proxy.ask(&path).text()
    };
    let totals = added_up(&table("assignments"), &table("values"));
    let folder = tempfile::tempdir().unwrap();
    let done = judge(&folder, &routes, &totals, &["--json"]);
    assert!(
        done.status.success(),
        "{}\n{totals}",
        String::from_utf8_lossy(&done.stderr)
    );
    let judged: Value = serde_json::from_slice(&done.stdout).unwrap();
    let judged = &judged[0];
    assert_eq!(
        judged["sample_ratio"]["p_value"],
        shown["sample_ratio"]["p_value"]
    );
    for metric in 0..4 {
        let of = |result: &Value| {
            let metric = &result["metrics"][metric];
            let group = &metric["groups"][1];
            let keys = [
                "users",
                "converted",
                "count",
                "rate",
                "interval",
                "lift",
                "p_value",
                "chance_to_beat_control",
            ];
            (metric["name"].clone(), keys.map(|key| group[key].clone()))
        };
        assert_eq!(of(judged), of(shown), "{totals}");
    }
    for key in ["state", "group", "harms"] {
        assert_eq!(judged["verdict"][key], shown["verdict"][key], "{judged}");
    }
    let done = judge(&folder, &routes, &totals, &[]);
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.starts_with("shop\nwinner: "), "{text}");
    assert!(text.contains("revenue (mean, secondary)"), "{text}");
}

const FILE: &str = "upstreams: { a: http://127.0.0.1:1 }
experiments:
  site: { groups: { control: { weight: 1 }, b: { weight: 1 } }, guardrails: { errors: { max_increase: 1% } } }
metrics:
  bought: { event: purchase }
";

#[track_caller]
fn refused(routes: &str, totals: &str, words: &[&str], says: &str) {
    let folder = tempfile::tempdir().unwrap();
    let done = judge(&folder, routes, totals, words);
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains(says), "{said}");
}

#[test]
fn totals_that_cannot_be_judged_name_the_line() {
    const SINCE: &[&str] = &["--since", "2026-01-01T00:00:00Z"];
    let head = "group,users,metric,converted";
    for (rows, says) in [
        (
            "control,10,bought,1\nc,10,bought,1",
            "line 3: site has no group \"c\"",
        ),
        (
            "control,10,bought,11\nb,10,bought,1",
            "line 2: 11 `converted` of 10 users",
        ),
        (
            "control,10,bought,x\nb,10,bought,1",
            "line 2: `converted` is \"x\", and no number",
        ),
        (
            "control,10,bought,\nb,10,bought,1",
            "line 2: `converted` is missing",
        ),
        (
            "control,10,sold,1\nb,10,bought,1",
            "line 2: the routes file has no metric \"sold\"",
        ),
        (
            "control,10,bought,1\ncontrol,11,bought,1",
            "line 3: control has other `users` above",
        ),
        (
            "control,10,bought,1\ncontrol,10,bought,1",
            "line 3: control has another row of this metric",
        ),
        ("control,10,bought,1", "there is no row of b"),
        (
            "control,10,bought,1\nb,10,,",
            "b has no row of the metric bought",
        ),
        (
            "control,-1,bought,1\nb,10,bought,1",
            "line 2: `users` is negative",
        ),
        ("", "there are no rows"),
    ] {
        refused(FILE, &format!("{head}\n{rows}\n"), SINCE, says);
    }
    refused(
        FILE,
        &format!("{head}\ncontrol,1,bought,1\nb,1,bought,1\n"),
        &[],
        "when did the first user come?",
    );
    refused(
        FILE,
        "group,users,metirc\n",
        SINCE,
        "unknown column \"metirc\"",
    );
    let mean = FILE.replace(
        "{ event: purchase }",
        "{ event: purchase, value: amount, kind: mean }",
    );
    let totals = "group,users,metric,sum,sum_sq\ncontrol,10,bought,100,999\nb,10,bought,100,1000\n";
    refused(&mean, totals, SINCE, "line 2: `sum_sq` is too small");
}

#[test]
fn weights_of_epochs_and_guardrails_come_from_the_totals() {
    let folder = tempfile::tempdir().unwrap();
    // 90/10, then 50/50: by the weights of the file the sizes would be a mismatch.
    let totals = "epoch,group,weight,users,metric,converted,first_exposure
one,control,90,9000,bought,900,2026-01-01T00:00:00Z
one,b,10,1000,bought,100,2026-01-01T00:00:00Z
one,control,90,9000,errors,9,
one,b,10,1000,errors,900,
two,control,50,5000,bought,500,2026-01-09T00:00:00Z
two,b,50,5000,bought,500,2026-01-09T00:00:00Z
two,control,50,5000,errors,5,
two,b,50,5000,errors,4500,
";
    let judged = |totals: &str| -> (Value, String) {
        let done = judge(
            &folder,
            FILE,
            totals,
            &["--json", "--at", "2026-02-01T00:00:00Z"],
        );
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.success(), "{said}");
        let json: Value = serde_json::from_slice(&done.stdout).unwrap();
        (json[0].clone(), said)
    };
    let (result, said) = judged(totals);
    assert_eq!(result["sample_ratio"]["mismatch"], false, "{result}");
    assert_eq!(result["guardrails"][0]["name"], "errors");
    assert_eq!(result["verdict"]["state"], "loser", "{result}");
    assert_eq!(said, "");
    let without: String = totals
        .lines()
        .filter(|line| !line.contains("errors"))
        .map(|line| format!("{line}\n"))
        .collect();
    let (result, said) = judged(&without);
    assert_ne!(result["verdict"]["state"], "loser", "{result}");
    assert!(
        said.contains("the guardrail errors is not judged"),
        "{said}"
    );
    // Without weights, those of the file: a mismatch.
    let unweighted = without
        .replace(",weight", "")
        .replace(",90,", ",")
        .replace(",10,", ",")
        .replace(",50,", ",");
    let (result, _) = judged(&unweighted);
    assert_eq!(result["sample_ratio"]["mismatch"], true, "{result}");
}
