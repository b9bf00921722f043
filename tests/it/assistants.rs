//! Assistants: `watershed mcp`, called by the official client of Python.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, How, Proxy};
use crate::support::tools;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

const READER: &str = "reader-token-0123456789";
const OPERATOR: &str = "operator-token-0123456789";

/// A site whose admin API needs a token.
struct Site {
    proxy: Proxy,
    routes: String,
    _origins: [Origin; 2],
}

impl Site {
    fn start() -> Site {
        let origins = [Origin::start("a"), Origin::start("b")];
        let [a, b] = origins.each_ref().map(|origin| origin.address);
        let routes = format!(
            "user: {{ cookie: uid }}\noverrides: {{ secret: \"hidden-0123456789abcdef\" }}\nupstreams: {{ a: \"http://{a}\", b: \"http://{b}\" }}\nexperiments: {{ shop: {{ control: a, experiment: b, percent: 50 }} }}\nmetrics: {{ buy: {{ event: buy }} }}\n"
        );
        let admin_keys = format!(
            "tokens: {{ reader: {{ token: {READER}, role: read }}, operator: {{ token: {OPERATOR}, role: operate }} }}"
        );
        let how = How {
            admin_keys,
            ..How::default()
        };
        let site = Site {
            proxy: Proxy::start_how(&routes, how),
            routes,
            _origins: origins,
        };
        let mut client = site.proxy.client();
        for number in 0..40 {
            let cookie = format!("Cookie: uid=user-{number}\r\n");
            client.get("/?event=buy", &cookie);
        }
        crate::support::until("counted users", || {
            let results = site.admin("/admin/results");
            (results["store"]["lag_events"] == 0)
                .then_some(())
                .ok_or(results)
        });
        site
    }

    fn admin(&self, path: &str) -> Value {
        let header = format!("Authorization: Bearer {READER}\r\n");
        Client::admin(self.proxy.admin).get(path, &header).json()
    }

    /// Calls tools by a server with these arguments.
    fn call(&self, token: &str, more: &[&str], calls: &[(&str, Value)]) -> Value {
        let url = format!("http://{}", self.proxy.admin);
        let words = ["mcp", "--admin", &url, "--token", token];
        called(&[&words[..], more].concat(), calls)
    }
}

#[track_caller]
fn called(words: &[&str], calls: &[(&str, Value)]) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp/client.py");
    let mut python = Command::new(tools::installed("mcp/bin/python"))
        .args([script, BINARY])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let calls = json!(calls).to_string();
    python
        .stdin
        .take()
        .unwrap()
        .write_all(calls.as_bytes())
        .unwrap();
    let output = python.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names(said: &Value) -> Vec<&str> {
    let tools = said["tools"].as_array().unwrap();
    tools
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect()
}

#[track_caller]
fn text(said: &Value, place: usize) -> String {
    let result = &said["results"][place];
    assert_eq!(result["error"], false, "{result:#}");
    result["text"].as_str().unwrap().to_owned()
}

#[track_caller]
fn error(said: &Value, place: usize) -> String {
    let result = &said["results"][place];
    assert_ne!(result["error"], false, "{result:#}");
    result["text"].as_str().unwrap().to_owned()
}

#[test]
fn assistant_reads_results_users_and_history() {
    let site = Site::start();
    let said = site.call(
        READER,
        &[],
        &[
            ("list_experiments", json!({})),
            ("experiment_results", json!({ "experiment": "shop" })),
            ("explain_user", json!({ "user": "user-7" })),
            ("history", json!({ "limit": 5 })),
            ("running_config", json!({})),
            (
                "experiment_results",
                json!({ "experiment": "../../history" }),
            ),
            ("experiment_results", json!({})),
            ("no_such_tool", json!({})),
        ],
    );
    assert_eq!(said["server"]["serverInfo"]["name"], "watershed");
    let read_only = [
        "list_experiments",
        "experiment_results",
        "explain_user",
        "history",
        "running_config",
        "check_file",
        "plan_change",
    ];
    assert_eq!(names(&said), read_only);
    for tool in said["tools"].as_array().unwrap() {
        assert_eq!(tool["annotations"]["readOnlyHint"], true, "{tool:#}");
        assert_eq!(tool["inputSchema"]["type"], "object");
    }
    let listed = text(&said, 0);
    assert!(
        listed.starts_with("shop (running): verdict collecting: "),
        "{listed}"
    );
    let groups = listed.lines().nth(1).unwrap();
    let users = groups
        .split(" users")
        .filter_map(|it| it.split(' ').next_back()?.parse::<u64>().ok());
    let users: u64 = users.sum();
    assert_eq!(users, 40, "{listed}");
    let results = text(&said, 1);
    assert!(
        results.contains("shop") && results.contains("buy"),
        "{results}"
    );
    let explained: Value = serde_json::from_str(&text(&said, 2)).unwrap();
    assert_eq!(explained, site.admin("/admin/assignments?user=user-7"));
    let history = text(&said, 3);
    assert!(history.contains("start"), "{history}");
    let config = text(&said, 4);
    assert!(
        config.contains("\"role\": \"read\"") && !config.contains("hidden"),
        "{config}"
    );
    // The name is one part of a path, whatever it has.
    let unknown = error(&said, 5);
    assert!(unknown.contains("404"), "{unknown}");
    assert!(error(&said, 6).contains("\"experiment\" is missing"));
    assert!(error(&said, 7).contains("there is no tool"));
}

#[test]
fn assistant_decides_only_where_role_and_command_line_allow_it() {
    let site = Site::start();
    let pause = [(
        "decide",
        json!({ "experiment": "shop", "action": "pause", "reason": "it is slow" }),
    )];
    let state = || site.admin("/admin/results")["experiments"][0]["status"].clone();
    // Not allowed at the start.
    let said = site.call(OPERATOR, &[], &pause);
    assert!(!names(&said).contains(&"decide"));
    assert!(error(&said, 0).contains("there is no tool"));
    // Not allowed by the role.
    let said = site.call(READER, &["--allow-decisions"], &pause);
    assert!(!names(&said).contains(&"decide"));
    let refused = error(&said, 0);
    assert!(
        refused.contains("403") && refused.contains("role: operate"),
        "{refused}"
    );
    assert_eq!(state(), "running");
    // Allowed by both.
    let said = site.call(OPERATOR, &["--allow-decisions"], &pause);
    assert!(names(&said).contains(&"decide"));
    let decided: Value = serde_json::from_str(&text(&said, 0)).unwrap();
    assert_eq!(decided["to"], "paused", "{decided:#}");
    assert_eq!(state(), "paused");
    let act = &site.admin("/admin/acts")["acts"][0];
    assert!(
        act["by"].as_str().unwrap().starts_with("an assistant of "),
        "{act:#}"
    );
    assert_eq!(act["reason"], "it is slow");
    // A refusal of the API comes with its reason.
    let calls = [
        (
            "decide",
            json!({ "experiment": "shop", "action": "delete", "reason": "x" }),
        ),
        (
            "decide",
            json!({ "experiment": "shop", "action": "promote", "group": "none", "reason": "x" }),
        ),
        (
            "decide",
            json!({ "experiment": "shop", "action": "resume" }),
        ),
    ];
    let said = site.call(OPERATOR, &["--allow-decisions"], &calls);
    assert!(error(&said, 0).contains("unknown action"), "{said:#}");
    assert!(error(&said, 1).contains("422"), "{said:#}");
    assert!(error(&said, 2).contains("\"reason\" is missing"));
    assert_eq!(state(), "paused");
}

#[test]
fn assistant_checks_and_compares_files() {
    let site = Site::start();
    let file = site.proxy.file();
    let file = file.to_str().unwrap();
    let other = site.routes.replace("percent: 50", "percent: 10");
    let wrong = site.routes.replace("percent: 50", "percnt: 10");
    let said = site.call(
        READER,
        &["-c", file],
        &[
            ("check_file", json!({})),
            ("check_file", json!({ "content": other })),
            ("check_file", json!({ "content": wrong })),
            ("plan_change", json!({ "content": other })),
            ("plan_change", json!({ "content": wrong })),
        ],
    );
    assert!(text(&said, 0).contains("is valid"), "{said:#}");
    assert!(
        text(&said, 1).contains("shop: control 90.0000 %"),
        "{said:#}"
    );
    let problem = error(&said, 2);
    assert!(
        problem.contains("experiments.shop.percnt: unknown key")
            && problem.contains("did you mean"),
        "{problem}"
    );
    let moved = text(&said, 3);
    assert!(moved.contains("experiment (b) -> control (a)"), "{moved}");
    assert!(error(&said, 4).contains("unknown key"));
    // The running file has not changed.
    assert!(
        std::fs::read_to_string(file)
            .unwrap()
            .contains("percent: 50")
    );
}

/// Whoever talks an assistant into checking a file learns nothing of this machine by it.
#[test]
fn content_that_is_checked_shows_neither_environment_nor_files() {
    let site = Site::start();
    let file = site.proxy.file();
    let secret = site.proxy.folder.path().join("secret.txt");
    std::fs::write(&secret, "hidden-in-file: [").unwrap();
    let secret = secret.to_str().unwrap();
    let contents = [
        format!("{}workers: \"${{HIDDEN}}\"\n", site.routes),
        format!("{}files: [ {secret} ]\n", site.routes),
        format!("{}\"files\": {secret}\n", site.routes),
        format!("{}webhooks: {{ url: \"file:{secret}\" }}\n", site.routes),
        format!("{}store: redis://127.0.0.1:1\n", site.routes),
    ];
    let calls = contents.iter().flat_map(|content| {
        ["check_file", "plan_change"].map(|tool| (tool, json!({ "content": content })))
    });
    let calls: Vec<_> = calls.collect();
    let url = format!("http://{}", site.proxy.admin);
    let script = "import os, sys; os.environ['HIDDEN'] = 'hidden-in-environment'; os.execv(sys.argv[1], sys.argv[1:])";
    let words = [
        "mcp",
        "--admin",
        &url,
        "--token",
        READER,
        "-c",
        file.to_str().unwrap(),
    ];
    let said = {
        let client = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp/client.py");
        let mut python = Command::new(tools::installed("mcp/bin/python"))
            .args([client, "python3", "-c", script, BINARY])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let calls = json!(calls).to_string();
        python
            .stdin
            .take()
            .unwrap()
            .write_all(calls.as_bytes())
            .unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!said.contains("hidden-in"), "{said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    for place in [0, 1] {
        let found = error(&said, place);
        assert!(
            found.contains("the environment has no HIDDEN") && found.contains("write a default"),
            "{found}"
        );
    }
    for place in 2..6 {
        let found = error(&said, place);
        assert!(found.contains("`files` names other files"), "{found}");
    }
    // No store of the content is asked.
    assert!(text(&said, 8).contains("is valid"), "{said:#}");
}

#[test]
fn assistant_is_told_what_is_wrong_with_the_admin_api() {
    let nobody = crate::support::refusing_address();
    let url = format!("http://{nobody}");
    let calls = [("list_experiments", json!({}))];
    let said = called(&["mcp", "--url", &url, "--allow-decisions"], &calls);
    let found = error(&said, 0);
    assert!(
        found.contains("no response from") && found.contains("hint: is watershed running?"),
        "{found}"
    );
    assert!(!names(&said).contains(&"decide"));
    let site = Site::start();
    let said = site.call("wrong-token-0123456789", &[], &calls);
    assert!(error(&said, 0).contains("401"), "{said:#}");
}
