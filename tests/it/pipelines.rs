//! Gates and `watershed wait`; the requests and JSON paths of docs/guides/pipelines.md.

use crate::support::client::{Answer, Client};
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, How, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::process::{Command, Output, Stdio};

const READ: &str = "Authorization: Bearer read-secret\r\n";
const TOKENS: &str = "tokens: { ci: { role: read, token: read-secret }, \
    ann: { role: operate, token: operate-secret-of-ann } }";
const LONG_TOKEN: &str = "operate-secret-of-ann";

struct Site {
    proxy: Proxy,
    _origins: [Origin; 2],
}

impl Site {
    fn start(store: &str) -> Site {
        let origins = [Origin::start("current"), Origin::start("next")];
        let routes = format!(
            "{store}upstreams: {{ current: \"http://{}\", next: \"http://{}\" }}\nuser: {{ header: X-User }}\n\
             experiments:\n  site: {{ control: current, experiment: next, percent: 50, min_duration: 0s, \
             guardrails: {{ errors: {{ max_increase: 1% }} }} }}\nmetrics: {{ buy: \"POST /buy -> 2xx\" }}\n",
            origins[0].address, origins[1].address
        );
        let how = How {
            admin_keys: TOKENS.to_owned(),
            ..How::default()
        };
        Site {
            proxy: Proxy::start_how(&routes, how),
            _origins: origins,
        }
    }

    /// Sends so many users; those who see the version `buys` buy, and those who see `fails` get errors.
    fn visit(&self, users: usize, buys: &str, fails: &str) {
        let mut client = self.proxy.client();
        for number in 0..users {
            let user = format!("X-User: user-{number}\r\n");
            let version = client.get("/", &user).json()["version"].clone();
            if version == buys {
                client.post("/buy", &user, "");
            }
            if version == fails {
                client.get("/?status=500", &user);
            }
        }
    }

    fn gate(&self, goal: &str) -> Answer {
        let path = format!("/admin/experiments/site/gate?for={goal}");
        Client::admin(self.proxy.admin).get(&path, READ)
    }

    /// Waits until a gate has this status and state.
    #[track_caller]
    fn gate_becomes(&self, goal: &str, status: u16, state: &str) -> Value {
        until(goal, || {
            let answer = self.gate(goal);
            let found = answer.json();
            let is_so = answer.status == status && found["state"] == state;
            is_so.then_some(found.clone()).ok_or(found)
        })
    }

    fn wait_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args([
                "wait",
                "site",
                "--url",
                &format!("http://{}", self.proxy.admin),
            ])
            .args(words)
            .env("WATERSHED_TOKEN", "read-secret")
            .stdin(Stdio::null());
        command
    }

    fn wait(&self, words: &[&str]) -> Output {
        self.wait_command(words).output().unwrap()
    }

    fn decide(&self, action: &str, body: &str) {
        let path = format!("/admin/experiments/site/{action}");
        let operate = format!("Authorization: Bearer {LONG_TOKEN}\r\n");
        let answer = Client::admin(self.proxy.admin).post(&path, &operate, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[track_caller]
fn ends(output: &Output, code: i32, says: &str) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    let said = if code == 0 { &out } else { &err };
    assert!(said.contains(says), "{said}");
}

#[test]
fn gate_opens_with_the_winner_and_wait_reaches_it() {
    for redis in [None, Some(Redis::start())] {
        let store = redis.as_ref().map(|it| format!("store: {}\n", it.url()));
        let site = Site::start(&store.unwrap_or_default());
        site.gate_becomes("winner", 409, "waiting");
        site.gate_becomes("end", 409, "waiting");
        site.gate_becomes("safe", 200, "passed");
        ends(&site.wait(&["--timeout", "1s"]), 3, "timed out after 1s");
        let mut waiting =
            site.wait_command(&["--for", "winner", "--fail-on", "harm", "--timeout", "1h"]);
        let waiting = waiting
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        site.visit(400, "next", "");
        let output = waiting.unwrap().wait_with_output().unwrap();
        ends(&output, 0, "site: experiment converts at least ");
        let found = site.gate_becomes("winner", 200, "passed");
        let names: Vec<&String> = found.as_object().unwrap().keys().collect();
        assert_eq!(names, ["reason", "state"]);
        site.gate_becomes("end", 200, "passed");
        ends(&site.wait(&["--for", "end"]), 0, "better");
        // A decision for the other version closes the gate for good.
        site.decide("promote", r#"{"group": "control"}"#);
        site.gate_becomes("winner", 409, "failed");
        ends(&site.wait(&[]), 1, "control of site was promoted");
        site.gate_becomes("end", 200, "passed");
    }
}

#[test]
fn harm_closes_every_gate_but_the_end() {
    let site = Site::start("");
    site.visit(400, "current", "next");
    let found = site.gate_becomes("safe", 409, "harm");
    assert_ne!(found["reason"], "");
    site.gate_becomes("winner", 409, "harm");
    site.gate_becomes("end", 200, "passed");
    ends(&site.wait(&["--fail-on", "harm"]), 4, "site: ");
    ends(
        &site.wait(&["--for", "end", "--fail-on", "harm"]),
        4,
        "site: ",
    );
    ends(&site.wait(&["--for", "end"]), 0, "site: ");
    ends(&site.wait(&["--for", "winner"]), 1, "site: ");
    site.decide("rollback", "");
    site.gate_becomes("end", 200, "passed");
    site.gate_becomes("winner", 409, "failed");
}

#[test]
fn gate_needs_the_read_role_and_a_goal() {
    let site = Site::start("");
    let ask = |method: &str, path: &str, headers: &str| {
        let path = format!("/admin/experiments/{path}");
        let mut client = Client::admin(site.proxy.admin);
        match method {
            "POST" => client.post(
                &path,
                headers,
                r#"{"name": "podinfo", "phase": "Progressing"}"#,
            ),
            _ => client.get(&path, headers),
        }
    };
    for method in ["GET", "POST"] {
        assert_eq!(ask(method, "site/gate?for=safe", READ).status, 200);
        assert_eq!(ask(method, "site/gate?for=safe", "").status, 401);
        assert_eq!(ask(method, "site/gate?for=luck", READ).status, 400);
        assert_eq!(ask(method, "site/gate", READ).status, 400);
        assert_eq!(ask(method, "other/gate?for=safe", READ).status, 404);
    }
    // The role decides nothing else.
    assert_eq!(ask("POST", "site/pause", READ).status, 403);
    assert_eq!(ask("POST", "gate/pause", READ).status, 403);
}

#[test]
fn wait_ends_with_what_is_wrong() {
    let site = Site::start("");
    let run = |words: &[&str]| {
        let mut command = Command::new(BINARY);
        let command = command.args(["wait"]).args(words);
        command
            .env("WATERSHED_TOKEN", "read-secret")
            .output()
            .unwrap()
    };
    let url = format!("http://{}", site.proxy.admin);
    ends(
        &run(&["other", "--url", &url]),
        2,
        "there is no experiment \"other\"",
    );
    ends(
        &run(&["site", "--url", &url, "--for", "luck"]),
        2,
        "invalid value 'luck'",
    );
    ends(
        &run(&["site", "--url", &url, "--timeout", "soon"]),
        2,
        "invalid value 'soon'",
    );
    ends(&run(&["site", "--url", &url, "--token", "guess"]), 1, "401");
    ends(
        &run(&["site", "--url", "http://127.0.0.1:1"]),
        1,
        "no response from",
    );
}

#[test]
fn wait_outlives_a_restart_of_the_server() {
    let mut site = Site::start("");
    let waiting = site
        .wait_command(&["--timeout", "1h"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It has asked at least once.
    until("a request of the command", || {
        let metrics = Client::admin(site.proxy.admin)
            .get("/admin/metrics", READ)
            .text();
        let asked = metrics
            .lines()
            .any(|it| it.contains("analyses_total") && !it.ends_with(" 0"));
        asked.then_some(()).ok_or(metrics)
    });
    std::thread::sleep(std::time::Duration::from_secs(3));
    let routes = std::fs::read_to_string(site.proxy.file()).unwrap();
    let (_, routes) = routes.split_once("upstreams:").unwrap();
    site.proxy.kill();
    std::thread::sleep(std::time::Duration::from_secs(3));
    site.proxy.again(&format!("upstreams:{routes}"));
    site.visit(400, "next", "");
    ends(&waiting.wait_with_output().unwrap(), 0, "better");
}

/// The value at a JSON path of names and places, such as `{$.experiments[0].name}`, as Argo Rollouts
/// evaluates it.
fn at_path<'a>(path: &str, value: &'a Value) -> &'a Value {
    let path = path.strip_prefix("{$").unwrap().strip_suffix('}').unwrap();
    let pointer = path.replace(['.', '['], "/").replace(']', "");
    value.pointer(&pointer).unwrap()
}

/// The text between two others.
fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    line.split_once(before)?.1.split(after).next()
}

#[test]
fn requests_of_the_guide_work() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guides/pipelines.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let site = Site::start("");
    site.visit(400, "next", "");
    site.gate_becomes("winner", 200, "passed");
    // Flagger: Go sends the user and password of an address as Basic, and 200 to 202 is a success.
    let flagger = guide
        .lines()
        .filter_map(|it| between(it, "http://ci:TOKEN@watershed:9900", "\""));
    let mut asked = 0;
    let payload = r#"{"name":"site","namespace":"default","phase":"Progressing","metadata":{}}"#;
    for path in flagger {
        let ask = |password: &str| {
            let basic = STANDARD.encode(format!("ci:{password}"));
            let headers =
                format!("Content-Type: application/json\r\nAuthorization: Basic {basic}\r\n");
            Client::admin(site.proxy.admin)
                .post(path, &headers, payload)
                .status
        };
        assert_eq!(ask(LONG_TOKEN), 200, "{path}");
        assert_eq!(ask("read-secret"), 401, "a short token");
        asked += usize::from(path.contains("/gate?for="));
    }
    assert_eq!(asked, 2);
    // curl of a workflow.
    let curl = guide.lines().find(|it| it.contains("curl -fsS")).unwrap();
    let path = between(curl, "http://watershed:9900", "'").unwrap();
    assert_eq!(Client::admin(site.proxy.admin).get(path, READ).status, 200);
    // Argo Rollouts: the path is evaluated on a 2xx response, and the condition on its value.
    let (mut condition, mut path, mut metrics) = ("", "", 0);
    for line in guide.lines().map(str::trim) {
        condition = line
            .strip_prefix("successCondition: result == ")
            .unwrap_or(condition);
        path = between(line, "url: \"http://watershed:9900", "\"").unwrap_or(path);
        if let Some(json_path) = between(line, "jsonPath: \"", "\"") {
            let answer = Client::admin(site.proxy.admin).get(path, READ);
            assert_eq!(answer.status, 200, "{path}");
            let value = at_path(json_path, &answer.json()).clone();
            assert_eq!(value, condition.trim_matches('\''), "{path} {json_path}");
            metrics += 1;
        }
    }
    assert_eq!(metrics, 2);
    // The commands of the page, with the address of this server.
    let commands = guide
        .lines()
        .filter_map(|it| between(it, "watershed wait site ", " --url"));
    let commands: Vec<&str> = commands.collect();
    assert_eq!(commands.len(), 2);
    for command in commands {
        let words: Vec<&str> = command.split(' ').collect();
        ends(&site.wait(&words), 0, "better");
    }
}

#[test]
fn token_as_a_password_only_reads() {
    let site = Site::start("");
    let basic = STANDARD.encode(format!("ann:{LONG_TOKEN}"));
    let headers = format!("Authorization: basic {basic}\r\n");
    let mut client = Client::admin(site.proxy.admin);
    assert_eq!(client.get("/admin/results", &headers).status, 200);
    // The token may operate, but not as a password, which browsers attach by themselves.
    let pause = "/admin/experiments/site/pause";
    assert_eq!(client.post(pause, &headers, "").status, 403);
    let bearer = format!("Authorization: Bearer {LONG_TOKEN}\r\n");
    assert_eq!(client.post(pause, &bearer, "").status, 200);
}
