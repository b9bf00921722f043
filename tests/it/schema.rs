//! The JSON Schema of the routes file, by a validator that others wrote: what is right passes, and
//! what an editor should underline does not.

use crate::support::proxy::BINARY;
use crate::support::tools;
use std::io::Write;
use std::process::{Command, Stdio};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Says of each YAML document (one JSON text a line) what is wrong with it.
const JUDGE: &str = "
import json, sys, jsonschema
from ruamel.yaml import YAML
schema = json.load(open(sys.argv[1]))
jsonschema.Draft7Validator.check_schema(schema)
judge = jsonschema.Draft7Validator(schema)
print(json.dumps([[e.message for e in judge.iter_errors(YAML(typ='safe', pure=True).load(json.loads(line)))] for line in sys.stdin]))
";

fn judge(files: &[String]) -> Vec<Vec<String>> {
    let mut judge = Command::new(tools::installed("python/bin/python"))
        .args(["-c", JUDGE, &format!("{ROOT}/config/routes.schema.json")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = judge.stdin.take().unwrap();
    for file in files {
        writeln!(stdin, "{}", serde_json::to_string(file).unwrap()).unwrap();
    }
    drop(stdin);
    let judged = judge.wait_with_output().unwrap();
    assert!(judged.status.success());
    serde_json::from_slice(&judged.stdout).unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{ROOT}/{path}")).unwrap()
}

#[test]
fn valid_files_pass() {
    let paths = [
        "config/routes.yaml",
        "config/routes.docker.yaml",
        "src/config/schema/all.yaml",
        "src/config/schema/forms.yaml",
        "src/config/schema/files.yaml",
        "benches/peers/watershed.yaml",
    ];
    // `@` begins no YAML value.
    let files = paths.map(|path| read(path).replace('@', ""));
    for (path, wrong) in paths.iter().zip(judge(&files)) {
        assert_eq!(wrong, [""; 0], "{path}");
    }
    let example = read("config/routes.yaml");
    assert!(example.starts_with("# yaml-language-server: $schema=routes.schema.json\n"));
}

#[test]
fn invalid_files_fail_at_the_key() {
    let sound = read("src/config/schema/forms.yaml");
    let cases = [
        ("store: watershed.db", "stoer: watershed.db", "stoer"),
        ("percent: 10, winner", "percent: [], winner", "[]"),
        ("cache: private", "cache: sometimes", "sometimes"),
        (
            "kind: ratio, per: requests",
            "kind: ratios, per: requests",
            "ratios",
        ),
        ("{ header: X-User }", "{ headers: X-User }", "headers"),
        ("trace: true", "trace: sometimes", "sometimes"),
        (
            "control: a, experiment: b, percent: 10, metrics",
            "control: a, experiment: b, percent: 10, metric",
            "metric",
        ),
    ];
    let files = cases.map(|(right, wrong, _)| {
        assert!(sound.contains(right), "{right}");
        sound.replacen(right, wrong, 1)
    });
    for ((_, wrong, named), found) in cases.iter().zip(judge(&files)) {
        assert!(
            found.iter().any(|it| it.contains(named)),
            "{wrong}: {found:?}"
        );
    }
}

#[test]
fn schema_command_prints_the_schema() {
    let said = Command::new(BINARY).arg("schema").output().unwrap();
    assert!(said.status.success());
    assert_eq!(
        String::from_utf8(said.stdout).unwrap(),
        read("config/routes.schema.json")
    );
}
