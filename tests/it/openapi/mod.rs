//! `/admin/openapi.json` describes what the admin API does. Schemathesis checks this with generated
//! requests; `provoked` covers the responses that such requests cannot cause.

mod described;
mod provoked;

use crate::support::client::{Answer, Client};
use crate::support::origin::Origin;
use crate::support::proxy::{How, Proxy};
use crate::support::redis::Redis;
use crate::support::tools;
use crate::support::{HANG, until};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const TOKENS: &str = "tokens: { dashboard: { role: read, token: read-secret }, \
    anna: { role: operate, token: operate-secret } }";
const OPERATE: &str = "Authorization: Bearer operate-secret\r\n";

/// A proxy with users, values, hours, a guardrail, and an experiment that is no longer in its file.
struct Site {
    proxy: Proxy,
    _origins: [Origin; 2],
    redis: Option<Redis>,
}

impl Site {
    fn start(admin_keys: &str) -> Site {
        Site::start_with(admin_keys, None)
    }

    fn start_with(admin_keys: &str, redis: Option<Redis>) -> Site {
        let origins = [Origin::start("control"), Origin::start("b")];
        let routes = |old: &str| {
            let store = redis
                .as_ref()
                .map(|redis| format!("store: {}\n", redis.url()));
            format!(
                "{}user: {{ cookie: uid }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}
experiments:
{old}  shop:
    groups: {{ control: {{ weight: 50, upstream: a }}, b: {{ weight: 50, upstream: b }} }}
    guardrails: {{ errors: {{ max_increase: 1% }}, slow: {{ over: 500ms, max_increase: 5% }} }}
  settled: {{ match: {{ path: /settled }}, control: a, experiment: b, percent: 50, winner: experiment }}
metrics:
  bought: {{ event: purchase }}
  revenue: {{ event: purchase, value: amount, kind: mean }}
",
                store.unwrap_or_default(),
                origins[0].address,
                origins[1].address
            )
        };
        let old = "  old: { match: { path: /old }, control: a, experiment: b, percent: 50 }\n";
        let how = How {
            admin_keys: admin_keys.to_owned(),
            ..How::default()
        };
        let proxy = Proxy::start_how(&routes(old), how);
        let mut client = proxy.client();
        for number in 0..200 {
            let cookie = format!("Cookie: uid=user-{number}\r\n");
            client.get("/?event=purchase;amount=9.75", &cookie);
            client.get("/old", &cookie);
        }
        proxy.write(&routes(""));
        let site = Site {
            proxy,
            _origins: origins,
            redis,
        };
        until("results with all data", || {
            let results = site.get("/admin/results").json();
            let experiments = results["experiments"].as_array().unwrap();
            let is_old = |it: &&Value| it["name"] == "old" && it["status"] == "ended";
            let done =
                results["store"]["lag_events"] == 0 && experiments.iter().find(is_old).is_some();
            done.then_some(()).ok_or(results)
        });
        site
    }

    fn get(&self, path: &str) -> Answer {
        Client::admin(self.proxy.admin).get(path, OPERATE)
    }

    fn document(&self) -> Value {
        self.get("/admin/openapi.json").json()
    }
}

/// The number of operations in the document.
const OPERATIONS: usize = 32;
/// Runs schemathesis with so many examples for each operation of the document; panics with its findings.
fn schemathesis(site: &Site, operations: usize, examples: u32, words: &[&str]) {
    let folder = site.proxy.folder.path();
    std::fs::write(folder.join("openapi.json"), site.document().to_string()).unwrap();
    let begun = Instant::now();
    let output = std::fs::File::create(folder.join("output")).unwrap();
    let mut run = Command::new(tools::installed("schemathesis/bin/st"))
        .args([
            "--config-file",
            &format!("{ROOT}/tests/it/openapi/schemathesis.toml"),
        ])
        .args([
            "run",
            "openapi.json",
            "--url",
            &format!("http://{}", site.proxy.admin),
        ])
        // Schemathesis is not reliable with more than one thread.
        .args(["--workers", "1", "--no-color"])
        .args(["--max-examples", &examples.to_string()])
        .args(words)
        .current_dir(folder)
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let ended = until_ended(&mut run, begun + HANG);
    let text = std::fs::read_to_string(folder.join("output")).unwrap();
    assert!(ended, "{text}\n{}", site.proxy.log.lock().unwrap());
    // It tested all operations, with existing experiments and users.
    let all = format!("Operations:       {operations} selected / {OPERATIONS} total");
    assert!(text.contains(&all), "{text}");
    assert!(!text.contains("Missing test data"), "{text}");
}

fn until_ended(run: &mut std::process::Child, latest: Instant) -> bool {
    loop {
        match run.try_wait().unwrap() {
            Some(status) => return status.success(),
            None if Instant::now() > latest => {
                run.kill().unwrap();
                return false;
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

#[test]
fn api_without_tokens_matches_its_document() {
    schemathesis(&Site::start(""), OPERATIONS, 40, &[]);
}

#[test]
fn api_with_a_valid_token_matches_its_document() {
    let site = Site::start(TOKENS);
    // After ten wrong tokens the API refuses a short valid one, too. So this run sends no wrong tokens:
    // `ignored_auth` and the login are tested by the run below.
    let no_wrong_tokens = [
        "--header=Authorization: Bearer operate-secret",
        "--exclude-checks=ignored_auth",
        "--exclude-operation-id=login",
        "--generation-with-security-parameters=false",
    ];
    schemathesis(&site, OPERATIONS - 1, 20, &no_wrong_tokens);
}

#[test]
fn api_without_a_valid_token_matches_its_document() {
    // With wrong tokens and sessions, and without any.
    schemathesis(&Site::start(TOKENS), OPERATIONS, 20, &[]);
}
