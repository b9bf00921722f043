//! The document describes every path that is served or documented, and the contract of the results.

use super::{ROOT, Site};
use crate::support::client::Client;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;

/// Fields of the results that clients rely on.
fn contract() -> Value {
    let group = json!({
        "name": "", "role": "", "weight": 0, "upstream": "", "users": 0, "requests": 0,
        "responses": {}, "latency_ms": {"p50": 0, "p95": 0, "p99": 0},
    });
    let lift = json!({
        "absolute": 0, "absolute_interval": [0, 0], "relative": 0, "relative_interval": [0, 0],
    });
    let of_group = json!({
        "name": "", "users": 0, "converted": 0, "count": 0, "sum": 0, "rate": 0,
        "interval": [0, 0], "lift": lift, "p_value": 0, "chance_to_beat_control": 0,
        "expected_loss": 0,
    });
    let metric = json!({ "name": "", "kind": "", "goal": "", "role": "", "groups": [of_group] });
    json!({
        "generated_at": "",
        "store": {
            "kind": "", "healthy": true, "lag_events": 0, "lag_seconds": 0, "dropped_events": 0,
        },
        "experiments": [{
            "name": "", "status": "", "started_at": "", "groups": [group], "crossed_over": 0,
            "sample_ratio": {"p_value": 0, "mismatch": true}, "metrics": [metric],
            "verdict": {"state": "", "group": "", "reason": ""},
        }],
    })
}

/// Returns the schema behind a reference, or the one of a value that is not `null`.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(named) = schema["$ref"].as_str() {
        return document.pointer(named.trim_start_matches('#')).unwrap();
    }
    match schema["oneOf"].as_array() {
        Some(either) => resolved(document, &either[0]),
        None => schema,
    }
}

/// Returns the paths of fields in `example` that the schema lacks.
fn missing(document: &Value, schema: &Value, example: &Value, path: &str) -> Vec<String> {
    let schema = resolved(document, schema);
    match example {
        Value::Object(fields) => {
            let each = fields.iter().flat_map(|(name, example)| {
                let path = format!("{path}.{name}");
                let named = schema["properties"].get(name);
                match named.or(schema.get("additionalProperties")) {
                    None => vec![path],
                    Some(found) => missing(document, found, example, &path),
                }
            });
            each.collect()
        }
        Value::Array(each) if schema["items"].is_object() => {
            let path = format!("{path}[]");
            let each = each.iter();
            each.flat_map(|one| missing(document, &schema["items"], one, &path))
                .collect()
        }
        Value::Array(each)
            if schema["prefixItems"].as_array().map(Vec::len) == Some(each.len()) =>
        {
            Vec::new()
        }
        Value::Array(_) => vec![format!("{path}[]")],
        _ => Vec::new(),
    }
}

#[test]
fn document_describes_every_field_of_the_results() {
    let site = Site::start("");
    let document = site.document();
    assert_eq!(document["openapi"], "3.1.0");
    for path in ["/admin/results", "/admin/results/{experiment}"] {
        let answer = &document["paths"][path]["get"]["responses"]["200"]["content"];
        let schema = &answer["application/json"]["schema"];
        assert_eq!(
            missing(&document, schema, &contract(), ""),
            [""; 0],
            "{path}"
        );
    }
    // Responses have no field that is not described.
    let schema = &document["components"]["schemas"]["Results"];
    for path in [
        "/admin/results?over_time=true&view=fixed",
        "/admin/results/old",
    ] {
        let results = site.get(path).json();
        assert_eq!(missing(&document, schema, &results, ""), [""; 0], "{path}");
    }
}

/// Returns the admin paths in documentation, pages and dashboards.
fn documented_paths() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["docs", "templates", "dashboards", "."] {
        for entry in std::fs::read_dir(format!("{ROOT}/{folder}")).unwrap() {
            let path = entry.unwrap().path();
            let kinds = ["md", "html", "js", "yml", "yaml"];
            if !path
                .extension()
                .is_some_and(|end| kinds.iter().any(|kind| end == *kind))
            {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let text = filled(&text);
            for rest in text.split("/admin/").skip(1) {
                let is_part = |byte: char| byte.is_ascii_alphanumeric() || "_-./{}|".contains(byte);
                let end = rest.find(|byte| !is_part(byte)).unwrap_or(rest.len());
                let end = rest[..end].trim_end_matches(['.', '/']);
                found.insert(format!("/admin/{end}"));
            }
        }
    }
    found
}

/// Returns a template with a word in place of each expression.
fn filled(template: &str) -> String {
    let mut parts = template.split("{{");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + "word" + part.split_once("}}").map_or(part, |(_, rest)| rest)
    })
}

/// Whether a path matches a path template.
pub fn is_of(form: &str, path: &str) -> bool {
    let (mut form, mut path) = (form.split('/'), path.split('/'));
    loop {
        match (form.next(), path.next()) {
            (None, None) => return true,
            (Some(part), Some(actual)) if part == actual || part.starts_with('{') => (),
            _ => return false,
        }
    }
}

#[test]
fn every_documented_path_is_described_with_its_methods() {
    let site = Site::start("");
    let document = site.document();
    let paths = document["paths"].as_object().unwrap();
    let documented = documented_paths();
    assert!(documented.len() > 15, "{documented:?}");
    for path in documented {
        assert!(paths.keys().any(|form| is_of(form, &path)), "{path}");
    }
    // Each path is served with the described methods and no others.
    for (path, item) in paths {
        let path = path
            .replace("{experiment}", "shop")
            .replace("{key}", "shop")
            .replace("{action}", "pause");
        let host = site.proxy.admin;
        let ask = format!("OPTIONS {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let mut client = Client::admin(host);
        client.say(ask).unwrap();
        let answer = client.answer(true).unwrap();
        assert_eq!(answer.status, 405, "{path}: {}", answer.text());
        let mut allowed: Vec<_> = answer.header("allow").unwrap().split(',').collect();
        allowed.retain(|method| *method != "HEAD");
        allowed.sort_unstable();
        let described = item.as_object().unwrap().keys();
        let mut described: Vec<String> = described.map(|method| method.to_uppercase()).collect();
        described.sort_unstable();
        assert_eq!(allowed, described, "{path}");
    }
}

#[test]
fn commands_of_the_api_documentation_work() {
    let site = Site::start("");
    let shown = include_str!("../../../docs/api.md");
    let address = format!("http://{}", site.proxy.admin);
    let commands = shown.lines().filter_map(|line| line.strip_prefix("$ "));
    let commands: Vec<String> = commands
        .map(|line| line.replace("http://127.0.0.1:9900", &address))
        .map(|line| line.replace("new-site", "shop"))
        .collect();
    assert!(commands.len() > 10);
    let script = "set -e\ncurl() { command curl --fail-with-body \"$@\"; }\n".to_owned();
    let done = Command::new("sh")
        .args(["-c", &(script + &commands.join("\n"))])
        .current_dir(site.proxy.folder.path())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{out}");
    for part in [
        "\"view\":\"valid only if you look once\"",
        "\"accepted\":1",
        "\"status\":\"paused\"",
        "the checkout is broken",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
}

#[test]
fn document_names_the_role_that_each_operation_requires() {
    let guarded = |site: &Site| -> usize {
        let document = site.document();
        let paths = document["paths"].as_object().unwrap();
        let all = paths
            .values()
            .flat_map(|item| item.as_object().unwrap().values());
        all.filter(|operation| operation["security"].is_array())
            .count()
    };
    assert_eq!(guarded(&Site::start("")), 0);
    let with_tokens = Site::start(super::TOKENS);
    assert_eq!(guarded(&with_tokens), 23);
    // Role `read` is accepted where the document says that it suffices, and nowhere else.
    let reader = "Authorization: Bearer read-secret\r\n";
    let document = with_tokens.document();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(role) = operation["security"][0]["bearer"][0].as_str() else {
                continue;
            };
            let path = path.replace("{experiment}", "shop");
            let path = path.replace("{action}", "pause");
            let (method, host) = (method.to_uppercase(), with_tokens.proxy.admin);
            let mut client = Client::admin(host);
            let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{reader}\r\n");
            client.say(head).unwrap();
            let (status, _) = client.head().unwrap();
            assert_eq!(
                status == 403,
                role == "operate",
                "{method} {path}: {status}"
            );
        }
    }
    let nobody = with_tokens.proxy.ask("/admin/openapi.json");
    assert_eq!(nobody.status, 401);
}
