//! What the document must hold: every path that is served or spoken of, and the contract of the
//! results.

use super::{ROOT, Site};
use crate::support::client::Client;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;

/// Whoever reads results relies on these.
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

/// The schema that this one refers to, or that it is when it is not `null`.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(named) = schema["$ref"].as_str() {
        return document.pointer(named.trim_start_matches('#')).unwrap();
    }
    match schema["oneOf"].as_array() {
        Some(either) => resolved(document, &either[0]),
        None => schema,
    }
}

/// The fields of `example` that the schema does not have, by path.
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
fn the_contract_of_the_results_is_described() {
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
    // And what is answered has no field that is not described.
    let schema = &document["components"]["schemas"]["Results"];
    for path in [
        "/admin/results?over_time=true&view=fixed",
        "/admin/results/old",
    ] {
        let results = site.get(path).json();
        assert_eq!(missing(&document, schema, &results, ""), [""; 0], "{path}");
    }
}

/// Paths of the door in texts for people and in what pages ask for, as the document writes them.
fn spoken_of() -> BTreeSet<String> {
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

/// With a word in place of all that a template fills in.
fn filled(template: &str) -> String {
    let mut parts = template.split("{{");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + "word" + part.split_once("}}").map_or(part, |(_, rest)| rest)
    })
}

/// Whether a path is one of this form.
pub fn is_of(form: &str, path: &str) -> bool {
    let (mut form, mut path) = (form.split('/'), path.split('/'));
    loop {
        match (form.next(), path.next()) {
            (None, None) => return true,
            (Some(part), Some(said)) if part == said || part.starts_with('{') => (),
            _ => return false,
        }
    }
}

#[test]
fn every_path_that_is_spoken_of_is_described() {
    let site = Site::start("");
    let document = site.document();
    let paths = document["paths"].as_object().unwrap();
    let spoken_of = spoken_of();
    assert!(spoken_of.len() > 15, "{spoken_of:?}");
    for path in spoken_of {
        assert!(paths.keys().any(|form| is_of(form, &path)), "{path}");
    }
    // Each is there, by the methods that are said of it, and by no other.
    for (path, item) in paths {
        let path = path
            .replace("{experiment}", "shop")
            .replace("{action}", "pause");
        let host = site.proxy.admin;
        let ask = format!("OPTIONS {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let mut client = Client::door(host);
        client.say(ask).unwrap();
        let answer = client.answer(true).unwrap();
        assert_eq!(answer.status, 405, "{path}: {}", answer.text());
        let mut allowed: Vec<_> = answer.header("allow").unwrap().split(',').collect();
        allowed.retain(|method| *method != "HEAD");
        allowed.sort_unstable();
        let said = item.as_object().unwrap().keys();
        let mut said: Vec<String> = said.map(|method| method.to_uppercase()).collect();
        said.sort_unstable();
        assert_eq!(allowed, said, "{path}");
    }
}

#[test]
fn commands_that_are_shown_do_what_they_say() {
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
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}");
    for part in [
        "\"view\":\"valid only if you look once\"",
        "\"accepted\":1",
        "\"status\":\"paused\"",
        "the checkout is broken",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_door_asks_for_a_token_where_it_says_so() {
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
    let closed = Site::start(super::TOKENS);
    assert_eq!(guarded(&closed), 16);
    // A reader is let in where the role is said to be enough, and nowhere else.
    let reader = "Authorization: Bearer read-secret\r\n";
    let document = closed.document();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(role) = operation["security"][0]["bearer"][0].as_str() else {
                continue;
            };
            let path = path.replace("{experiment}", "shop");
            let path = path.replace("{action}", "pause");
            let (method, host) = (method.to_uppercase(), closed.proxy.admin);
            let mut client = Client::door(host);
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
    let nobody = closed.proxy.ask("/admin/openapi.json");
    assert_eq!(nobody.status, 401);
}
