//! Numbers for Prometheus, read by the Prometheus project's own strict parser.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::tools;
use crate::support::until;
use crate::wire::tls::Authority;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const READ: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read
print(json.dumps([[s.name, s.labels, s.value] for f in read(sys.stdin.read()) for s in f.samples]))
";

/// All samples: name, labels, value.
fn samples(proxy: &Proxy) -> Vec<Value> {
    let answer = proxy.ask("/admin/metrics");
    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type").unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let mut reader = Command::new(tools::installed("python/bin/python"))
        .args(["-c", READ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = reader.stdin.take().unwrap();
    stdin.write_all(answer.text().as_bytes()).unwrap();
    drop(stdin);
    let read = reader.wait_with_output().unwrap();
    assert!(read.status.success(), "{}", answer.text());
    serde_json::from_slice(&read.stdout).unwrap()
}

fn value(samples: &[Value], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let found = samples.iter().find(|sample| {
        let has = |(key, value): &(&str, &str)| sample[1][key] == *value;
        sample[0] == name && labels.iter().all(has)
    });
    found?[2].as_f64()
}

#[test]
fn metrics_equal_the_results() {
    let site = Origin::start("site");
    let mut redis = Redis::start();
    let authority = Authority::new();
    authority.certify("site", &["a.test"]);
    let certificate = format!(
        "{{ cert: {}, key: {} }}",
        authority.file("site.pem"),
        authority.file("site.key")
    );
    let nobody = crate::support::refusing_address();
    let proxy = Proxy::start(&format!(
        "forward: {{ to: otlp, address: \"http://{nobody}\" }}\ntls: {{ listen: 127.0.0.1:0, certificates: {certificate} }}\nstore: {1}\nupstreams: {{ a: \"http://{0}\", b: \"http://{0}\" }}\nuser: {{ header: X-User }}\n\
         experiments: {{ site: {{ control: a, experiment: b, percent: 50 }} }}\nmetrics: {{ buy: \"POST /buy -> 2xx\" }}",
        site.address,
        redis.url()
    ));
    let mut client = proxy.client();
    for number in 0..40 {
        let user = format!("X-User: user-{number}\r\n");
        client.get("/", &user);
        client.get("/?status=503", &user);
        client.post("/buy", &user, "");
    }
    Client::admin(proxy.admin).post("/admin/experiments/site/pause", "", "");
    let results = proxy.results();
    let experiment = &results["experiments"][0];
    let samples = samples(&proxy);
    let number = |name: &str, labels: &[(&str, &str)]| value(&samples, name, labels);
    assert_eq!(number("watershed_requests_total", &[]), Some(120.0));
    assert_eq!(number("watershed_store_up", &[]), Some(1.0));
    assert_eq!(number("watershed_journal_lag_facts", &[]), Some(0.0));
    assert_eq!(
        number(
            "watershed_experiment_status",
            &[("experiment", "site"), ("status", "paused")]
        ),
        Some(1.0)
    );
    assert_eq!(
        number("watershed_experiment_verdict", &[("state", "collecting")]),
        Some(1.0)
    );
    for group in experiment["groups"].as_array().unwrap() {
        let name = group["name"].as_str().unwrap();
        let labels = [("experiment", "site"), ("group", name)];
        assert_eq!(
            number("watershed_group_users", &labels),
            group["users"].as_f64()
        );
        let failed = [labels[0], labels[1], ("class", "5xx")];
        assert_eq!(
            number("watershed_group_responses", &failed),
            group["users"].as_f64()
        );
        let slow = [labels[0], labels[1], ("quantile", "0.99")];
        let seconds = number("watershed_group_latency_seconds", &slow).unwrap();
        assert!((seconds * 1000.0 - group["latency_ms"]["p99"].as_f64().unwrap()).abs() < 1e-9);
        let bought = [labels[0], labels[1], ("metric", "buy")];
        assert_eq!(number("watershed_metric_rate", &bought), Some(1.0));
    }
    // Nobody's ID is a label.
    assert!(
        !samples
            .iter()
            .any(|sample| sample.to_string().contains("user-1"))
    );
    for file in ["dashboards/grafana.json", "dashboards/alerts.yaml"] {
        assert_asks_for_what_there_is(file, &samples);
    }
    // Without a store, what the process knows alone.
    redis.kill();
    let samples = until("a store that is down", || {
        let samples = self::samples(&proxy);
        let up = value(&samples, "watershed_store_up", &[]);
        (up == Some(0.0)).then_some(samples).ok_or(up)
    });
    assert_eq!(
        value(&samples, "watershed_requests_total", &[]),
        Some(120.0)
    );
    assert_eq!(value(&samples, "watershed_group_users", &[]), None);
}

/// Whether a file asks only for numbers, and labels of them, that are among these.
fn assert_asks_for_what_there_is(file: &str, samples: &[Value]) {
    let text = std::fs::read_to_string(format!("{ROOT}/{file}")).unwrap();
    let text = text.replace("\\\"", "'");
    let mut asked = 0;
    for part in text.split("watershed_").skip(1) {
        let end = part.find(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
        let (name, rest) = part.split_at(end.unwrap_or(part.len()));
        let name = format!("watershed_{name}");
        let of: Vec<&Value> = samples.iter().filter(|it| it[0] == *name).collect();
        assert!(!of.is_empty(), "{file} asks for {name}, which is not there");
        asked += 1;
        let labels = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        for label in labels
            .map_or("", |(labels, _)| labels)
            .split(',')
            .filter(|it| !it.is_empty())
        {
            let key = label.split(['=', '!', '~']).next().unwrap().trim();
            assert!(
                of.iter().all(|it| it[1].get(key).is_some()),
                "{file}: {name} has no label {key}"
            );
        }
    }
    assert!(asked > 7, "{file}");
}

#[test]
fn alert_rules_fire_in_their_conditions() {
    let tested = tools::command("promtool")
        .args(["test", "rules", "alerts-test.yaml"])
        .current_dir(format!("{ROOT}/dashboards"))
        .output()
        .expect("promtool is missing: run ./scripts/test, which installs it");
    assert!(
        tested.status.success(),
        "{}",
        String::from_utf8_lossy(&tested.stderr)
    );
}

#[test]
fn dashboard_is_valid() {
    let text = std::fs::read_to_string(format!("{ROOT}/dashboards/grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    // No two panels have one number or one place.
    let mut seen = std::collections::BTreeSet::new();
    for panel in panels {
        let place = &panel["gridPos"];
        assert!(
            seen.insert(panel["id"].to_string())
                && seen.insert(format!("{},{}", place["x"], place["y"]))
        );
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24);
    }
}
