//! Experiments as feature flags: OFREP by hand, and by the OpenFeature SDKs of Python and JavaScript.

use crate::support::client::{Answer, Client};
use crate::support::origin::Origin;
use crate::support::proxy::{How, Proxy};
use crate::support::redis::Redis;
use crate::support::tools;
use crate::support::until;
use serde_json::{Value, json};
use std::process::Command;

const TOKENS: &str = "tokens: { sdk: { role: flags, token: flags-secret }, \
    reader: { role: read, token: read-secret }, boss: { role: operate, token: operate-secret } }, \
    flags: { origins: [ \"https://shop.example\" ] }";
const FLAGS: &str = "Authorization: Bearer flags-secret\r\n";
const OPERATE: &str = "Authorization: Bearer operate-secret\r\n";
const ALL: &str = "/ofrep/v1/evaluate/flags";

/// Flags of every type, and a running site.
fn routes(origin: &Origin, store: &str, more: &str) -> String {
    format!(
        "{store}user: {{ cookie: uid }}
upstreams: {{ a: \"http://{}\" }}
experiments:
  flag: {{ salt: fixed, groups: {{ control: {{ weight: 50, value: false }}, on: {{ weight: 50, value: true }} }} }}
  text: {{ salt: fixed, groups: {{ control: {{ weight: 50 }}, on: {{ weight: 50 }} }} }}
  number: {{ salt: fixed, groups: {{ control: {{ weight: 50, value: 1 }}, on: {{ weight: 50, value: 2 }} }} }}
  keys: {{ salt: fixed, groups: {{ control: {{ weight: 50, value: {{ a: 1, b: [ x ] }} }}, on: {{ weight: 50, value: {{ a: 2 }} }} }} }}
  few: {{ traffic: 0%, groups: {{ control: {{ weight: 1, value: 5 }}, on: {{ weight: 1, value: 6 }} }} }}
  named: {{ traffic: 0%, include: {{ on: [ ann ] }}, groups: {{ control: {{ weight: 1 }}, on: {{ weight: 1 }} }} }}
  teams: {{ bucket_by: {{ header: X-Team }}, groups: {{ control: {{ weight: 1 }}, on: {{ weight: 1 }} }} }}
{more}metrics:
  bought: {{ event: purchase }}
",
        origin.address
    )
}

struct Site {
    proxy: Proxy,
    origin: Origin,
    store: String,
}

impl Site {
    fn start(admin_keys: &str, store: &str) -> Site {
        let origin = Origin::start("control");
        let how = How {
            admin_keys: admin_keys.to_owned(),
            ..How::default()
        };
        let proxy = Proxy::start_how(&routes(&origin, store, ""), how);
        Site {
            proxy,
            origin,
            store: store.to_owned(),
        }
    }

    fn post(&self, path: &str, headers: &str, body: &Value) -> Answer {
        Client::admin(self.proxy.admin).post(path, headers, &body.to_string())
    }

    fn flag(&self, key: &str, user: &str) -> Value {
        let context = json!({ "context": { "targetingKey": user } });
        let answer = self.post(&format!("{ALL}/{key}"), FLAGS, &context);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// What `/admin/assignments` says of a user.
    #[track_caller]
    fn group(&self, experiment: &str, user: &str) -> Value {
        self.group_if(experiment, user).unwrap()
    }

    /// The same; `None` where there is no such experiment.
    fn group_if(&self, experiment: &str, user: &str) -> Option<Value> {
        let path = format!("/admin/assignments?user={user}");
        let answer = Client::admin(self.proxy.admin).get(&path, OPERATE).json();
        let mut all = answer["experiments"].as_array()?.iter();
        Some(all.find(|it| it["name"] == experiment)?["group"].clone())
    }
}

fn user() -> Value {
    json!({ "context": { "targetingKey": "u1" } })
}

#[test]
fn flag_has_the_group_of_the_proxy_and_its_value() {
    let site = Site::start(TOKENS, "");
    let mut seen = [0; 2];
    for n in 0..40 {
        let user = format!("u{n}");
        let group = site.group("flag", &user);
        let is_on = group == "on";
        seen[usize::from(is_on)] += 1;
        for (key, control, on) in [
            ("flag", json!(false), json!(true)),
            ("text", json!("control"), json!("on")),
            ("number", json!(1), json!(2)),
            ("keys", json!({"a": 1, "b": ["x"]}), json!({"a": 2})),
        ] {
            let found = site.flag(key, &user);
            let expected = json!({
                "key": key, "reason": "SPLIT", "variant": group,
                "value": if is_on { on } else { control }, "metadata": { "by": "hash" },
            });
            assert_eq!(found, expected);
        }
    }
    assert!(seen[0] > 5 && seen[1] > 5, "{seen:?}");
    let outside = json!({ "key": "few", "reason": "DEFAULT", "variant": "", "metadata": { "by": "traffic" } });
    assert_eq!(site.flag("few", "u1"), outside);
    let named = site.flag("named", "ann");
    assert_eq!(
        (&named["reason"], &named["value"]),
        (&json!("TARGETING_MATCH"), &json!("on"))
    );
}

#[test]
fn unit_is_an_attribute_of_the_context() {
    let site = Site::start(TOKENS, "");
    assert_eq!(site.flag("teams", "u1")["metadata"]["by"], "bucket_by");
    for team in ["t1", "t2", "t3", "t4"] {
        let of = |user: &str| {
            let context = json!({ "context": { "targetingKey": user, "x-team": team } });
            site.post(&format!("{ALL}/teams"), FLAGS, &context).json()["variant"].clone()
        };
        assert_eq!(of("u1"), of("u2"));
        assert_eq!(of("u1"), site.group("teams", team));
    }
}

#[test]
fn contexts_that_name_nobody_have_codes() {
    let site = Site::start(TOKENS, "");
    let long = "x".repeat(257);
    for (path, body, status, code) in [
        (format!("{ALL}/flag"), "{}", 400, "TARGETING_KEY_MISSING"),
        (
            format!("{ALL}/flag"),
            r#"{"context":{"targetingKey":""}}"#,
            400,
            "TARGETING_KEY_MISSING",
        ),
        (
            format!("{ALL}/flag"),
            r#"{"context":{"targetingKey":7}}"#,
            400,
            "INVALID_CONTEXT",
        ),
        (
            format!("{ALL}/flag"),
            r#"{"context":{"targetingKey":"undefined"}}"#,
            400,
            "INVALID_CONTEXT",
        ),
        (
            format!("{ALL}/flag"),
            &*format!(r#"{{"context":{{"targetingKey":"{long}"}}}}"#),
            400,
            "INVALID_CONTEXT",
        ),
        (
            format!("{ALL}/flag"),
            r#"{"context":[]}"#,
            400,
            "INVALID_CONTEXT",
        ),
        (format!("{ALL}/flag"), "[]", 400, "PARSE_ERROR"),
        (format!("{ALL}/flag"), "{", 400, "PARSE_ERROR"),
        (format!("{ALL}/nothing"), "{", 404, "FLAG_NOT_FOUND"),
        (ALL.to_owned(), "{}", 400, "TARGETING_KEY_MISSING"),
    ] {
        let answer = Client::admin(site.proxy.admin).post(&path, FLAGS, body);
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        let json = answer.json();
        assert_eq!(json["errorCode"], code, "{body}");
        assert!(json["errorDetails"].is_string(), "{json}");
        let key = path.strip_prefix(ALL).unwrap().strip_prefix('/');
        assert_eq!(json.get("key").and_then(Value::as_str), key, "{json}");
    }
}

#[test]
fn all_flags_have_a_tag_that_changes_with_them() {
    let site = Site::start(TOKENS, "");
    let first = site.post(ALL, FLAGS, &user());
    assert_eq!(first.status, 200);
    let tag = first.header("etag").unwrap().to_owned();
    let flags = first.json()["flags"].as_array().unwrap().clone();
    assert_eq!(flags.len(), 7);
    assert_eq!(flags[0], site.flag("flag", "u1"));
    let known = format!("{FLAGS}If-None-Match: {tag}\r\n");
    let again = site.post(ALL, &known, &user());
    assert_eq!((again.status, again.header("etag")), (304, Some(&*tag)));
    // Another user's tag differs where a group does.
    let other = (2..).map(|n| format!("u{n}"));
    let mut other = other.filter(|it| site.group("flag", it) != site.group("flag", "u1"));
    let other = json!({ "context": { "targetingKey": other.next().unwrap() } });
    assert_eq!(site.post(ALL, &known, &other).status, 200);
    site.proxy.write(&routes(
        &site.origin,
        &site.store,
        "  more: { groups: { control: { weight: 1 }, on: { weight: 1 } } }\n",
    ));
    until("the new flag", || {
        let answer = site.post(ALL, &known, &user());
        (answer.status == 200).then_some(()).ok_or(answer.status)
    });
}

/// Reads the data of the next event.
fn event(client: &mut Client, text: &mut String) -> Value {
    loop {
        if let Some((whole, rest)) = text.split_once("\n\n") {
            let data = whole.lines().find_map(|line| line.strip_prefix("data: "));
            let data = data.map(|data| serde_json::from_str(data).unwrap());
            *text = rest.to_owned();
            if let Some(data) = data {
                return data;
            }
            continue;
        }
        let chunk = client.chunk().unwrap().expect("the stream goes on");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}

#[test]
fn stream_announces_reloads_and_decisions() {
    let site = Site::start(TOKENS, "");
    let all = site.post(ALL, FLAGS, &user()).json();
    assert_eq!(all["eventStreams"][0]["type"], "sse");
    let target = all["eventStreams"][0]["endpoint"]["requestUri"]
        .as_str()
        .unwrap();
    // The address alone is enough, as browsers send no token with a stream.
    let mut client = Client::admin(site.proxy.admin);
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: {}\r\nOrigin: https://shop.example\r\n\r\n",
        site.proxy.admin
    );
    client.say(head).unwrap();
    let (status, headers) = client.head().unwrap();
    assert_eq!(status, 200);
    let header = |name: &str| {
        headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| &**value)
    };
    assert_eq!(header("content-type"), Some("text/event-stream"));
    assert_eq!(
        header("access-control-allow-origin"),
        Some("https://shop.example")
    );
    let mut text = String::new();
    let first = event(&mut client, &mut text);
    assert_eq!(first["type"], "refetchEvaluation");
    site.proxy.write(&routes(
        &site.origin,
        &site.store,
        "  more: { groups: { control: { weight: 1 }, on: { weight: 1 } } }\n",
    ));
    let second = event(&mut client, &mut text);
    assert_ne!(second["etag"], first["etag"]);
    let paused = site.post("/admin/experiments/flag/pause", OPERATE, &json!({}));
    assert_eq!(paused.status, 200, "{}", paused.text());
    let third = event(&mut client, &mut text);
    assert_ne!(third["etag"], second["etag"]);
    let flag = site.flag("flag", "u1");
    assert_eq!(
        (&flag["reason"], &flag["value"]),
        (&json!("STATIC"), &json!(false))
    );
    for bad in [
        "/ofrep/v1/stream",
        "/ofrep/v1/stream?until=99999999999&key=AAAA",
        &target.replace("until=1", "until=2"),
    ] {
        let answer = Client::admin(site.proxy.admin).get(bad, "");
        assert_eq!(answer.status, 401, "{bad}");
    }
}

#[test]
fn pages_of_listed_origins_may_evaluate_and_no_others() {
    let site = Site::start(TOKENS, "");
    let ask = |origin: &str| {
        let mut client = Client::admin(site.proxy.admin);
        let head = format!(
            "OPTIONS {ALL} HTTP/1.1\r\nHost: flags.example\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: authorization,content-type\r\n\r\n"
        );
        client.say(head).unwrap();
        client.answer(true).unwrap()
    };
    let allowed = ask("https://shop.example");
    assert_eq!(allowed.status, 204);
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        Some("https://shop.example")
    );
    let names = allowed.header("access-control-allow-headers").unwrap();
    for name in [
        "authorization",
        "content-type",
        "if-none-match",
        "watershed-exposure",
    ] {
        assert!(names.contains(name), "{names}");
    }
    let refused = ask("https://evil.example");
    assert_eq!(refused.header("access-control-allow-origin"), None);
    let own = site.post(
        ALL,
        &format!("{FLAGS}Origin: https://shop.example\r\n"),
        &user(),
    );
    assert_eq!(
        own.header("access-control-allow-origin"),
        Some("https://shop.example")
    );
    assert!(
        own.header("access-control-expose-headers")
            .unwrap()
            .contains("etag")
    );
    assert!(own.all("vary").contains(&"origin"));
    // Other paths share nothing.
    let mut client = Client::admin(site.proxy.admin);
    let other = client.get(
        "/admin/results",
        &format!("{OPERATE}Origin: https://shop.example\r\n"),
    );
    assert_eq!(other.header("access-control-allow-origin"), None);
    // Without tokens, a page of another origin must not use the browser's access.
    let open = Site::start("flags: { origins: [ \"https://shop.example\" ] }", "");
    let from = |origin: &str| {
        open.post(ALL, &format!("Origin: {origin}\r\n"), &user())
            .status
    };
    assert_eq!(from("https://evil.example"), 403);
    assert_eq!(from("https://shop.example"), 200);
}

#[test]
fn token_of_role_flags_evaluates_and_does_nothing_else() {
    let site = Site::start(TOKENS, "");
    assert_eq!(site.post(ALL, "", &user()).status, 401);
    assert_eq!(site.post(ALL, "X-API-Key: wrong\r\n", &user()).status, 401);
    assert_eq!(
        site.post(ALL, "X-API-Key: flags-secret\r\n", &user())
            .status,
        200
    );
    let reader = "Authorization: Bearer read-secret\r\n";
    assert_eq!(site.post(ALL, reader, &user()).status, 200);
    for path in [
        "/admin/results",
        "/admin/assignments?user=u1",
        "/admin/config",
    ] {
        let mut client = Client::admin(site.proxy.admin);
        assert_eq!(client.get(path, FLAGS).status, 403, "{path}");
        assert_eq!(
            client.get(path, "X-API-Key: operate-secret\r\n").status,
            401,
            "{path}"
        );
    }
    assert_eq!(
        site.post("/admin/experiments/flag/pause", FLAGS, &json!({}))
            .status,
        403
    );
}

#[test]
fn evaluation_exposes_only_on_request() {
    exposes("");
}

#[test]
fn evaluation_exposes_only_on_request_in_redis() {
    let redis = Redis::start();
    exposes(&format!("store: {}\n", redis.url()));
}

#[track_caller]
fn exposes(store: &str) {
    let site = Site::start(TOKENS, store);
    for n in 0..30 {
        site.flag("flag", &format!("silent-{n}"));
        let context =
            json!({ "context": { "targetingKey": format!("u{n}"), "watershedExposure": true } });
        assert_eq!(
            site.post(&format!("{ALL}/flag"), FLAGS, &context).status,
            200
        );
        let context = json!({ "context": { "targetingKey": format!("h{n}"), "X-Team": format!("t{}", n % 3) } });
        let header = format!("{FLAGS}Watershed-Exposure: true\r\n");
        assert_eq!(
            site.post(&format!("{ALL}/teams"), &header, &context).status,
            200
        );
    }
    // Nobody is exposed to what chance has not chosen.
    let context = json!({ "context": { "targetingKey": "ann", "watershedExposure": true } });
    site.post(&format!("{ALL}/named"), FLAGS, &context);
    let bought = json!({ "event": "purchase", "user": "u3" });
    assert_eq!(site.post("/admin/events", OPERATE, &bought).status, 202);
    until("the exposures", || {
        let results = Client::admin(site.proxy.admin)
            .get("/admin/results", OPERATE)
            .json();
        let of = |name: &str| {
            let all = results["experiments"].as_array().unwrap();
            let found = all.iter().find(|it| it["name"] == name).unwrap();
            let groups = found["groups"].as_array().unwrap().clone();
            let users: u64 = groups.iter().map(|it| it["users"].as_u64().unwrap()).sum();
            let converted: u64 = found["metrics"][0]["groups"]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| it["converted"].as_u64().unwrap())
                .sum();
            (users, converted)
        };
        let found = [of("flag"), of("teams"), of("named"), of("text")];
        let done = found == [(30, 1), (3, 0), (0, 0), (0, 0)];
        done.then_some(()).ok_or(format!("{found:?}"))
    });
}

#[test]
fn python_sdk_reads_flags() {
    let site = Site::start(TOKENS, "");
    let script = r#"
import json, sys
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.contrib.provider.ofrep import OFREPProvider

api.set_provider(OFREPProvider(sys.argv[1], headers_factory=lambda: {"Authorization": "Bearer flags-secret"}))
client = api.get_client()
for n in range(20):
    user = EvaluationContext(f"u{n}")
    details = client.get_boolean_details("flag", False, user)
    print(json.dumps([details.value, details.variant, details.reason,
        client.get_string_value("text", "none", user), client.get_integer_value("number", 0, user),
        client.get_object_value("keys", {}, user), client.get_integer_value("few", 77, user),
        client.get_integer_details("few", 77, user).reason]))
nobody = client.get_boolean_details("flag", False)
missing = client.get_boolean_details("nothing", True, EvaluationContext("u1"))
print(json.dumps([nobody.error_code, missing.error_code, missing.value]))
"#;
    let output = Command::new(tools::installed("openfeature/bin/python"))
        .args(["-c", script, &format!("http://{}", site.proxy.admin)])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let out = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (last, users) = lines.split_last().unwrap();
    assert_eq!(users.len(), 20);
    for (n, line) in users.iter().enumerate() {
        let is_on = site.group("flag", &format!("u{n}")) == "on";
        let expected = match is_on {
            true => json!([true, "on", "SPLIT", "on", 2, {"a": 2}, 77, "DEFAULT"]),
            false => {
                json!([false, "control", "SPLIT", "control", 1, {"a": 1, "b": ["x"]}, 77, "DEFAULT"])
            }
        };
        assert_eq!(*line, expected);
    }
    assert_eq!(
        *last,
        json!(["TARGETING_KEY_MISSING", "FLAG_NOT_FOUND", true])
    );
}

#[test]
fn javascript_sdks_read_flags_on_servers_and_in_pages() {
    let site = Site::start(TOKENS, "");
    let folder = tools::installed("openfeature-javascript");
    let script = r#"
import { OpenFeature } from "@openfeature/server-sdk";
import { OFREPProvider } from "@openfeature/ofrep-provider";
import { OpenFeature as Web, ProviderEvents } from "@openfeature/web-sdk";
import { OFREPWebProvider } from "@openfeature/ofrep-web-provider";

const [baseUrl, reload] = process.argv.slice(2);
const headers = [["Authorization", "Bearer flags-secret"]];
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl, headers }));
const client = OpenFeature.getClient();
for (let n = 0; n < 20; n++) {
  const user = { targetingKey: `u${n}` };
  const flag = await client.getBooleanDetails("flag", false, user);
  say([flag.value, flag.variant, flag.reason, await client.getStringValue("text", "none", user),
    await client.getNumberValue("number", 0, user), await client.getObjectValue("keys", {}, user),
    await client.getNumberValue("few", 77, user)]);
}
// What a browser has, and Node has not: an event stream, by fetch.
globalThis.EventSource = class {
  constructor(url) {
    this.readyState = 0;
    this.listeners = {};
    this.follow(url);
  }
  addEventListener(kind, listener) { this.listeners[kind] = listener; }
  close() { this.readyState = 2; this.reader?.cancel().catch(() => {}); }
  async follow(url) {
    const response = await fetch(url, { headers: { Origin: "https://shop.example" } });
    if (response.status !== 200) throw new Error(`the stream: ${response.status}`);
    this.readyState = 1;
    this.listeners.open?.({});
    this.reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let part = await this.reader.read(); !part.done; part = await this.reader.read()) {
      text += part.value;
      for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
        const data = /^data: (.*)$/m.exec(text.slice(0, end));
        text = text.slice(end + 2);
        if (data) this.listeners.message?.({ data: data[1] });
      }
    }
  }
};
const provider = new OFREPWebProvider({ baseUrl, headers });
await Web.setContext({ targetingKey: "u1" });
await Web.setProviderAndWait(provider);
const page = Web.getClient();
say([page.getBooleanValue("flag", false), page.getStringValue("text", "none"), page.getNumberValue("number", 0),
  page.getObjectValue("keys", {}), page.getNumberValue("few", 77), page.getNumberDetails("few", 77).reason,
  page.getStringValue("more", "none")]);
const changed = new Promise((done) => {
  Web.addHandler(ProviderEvents.ConfigurationChanged, () => {
    if (page.getStringValue("more", "none") !== "none") done();
  });
});
say("waiting");
await changed;
say(page.getStringValue("more", "none"));
process.exit(0);
"#;
    std::fs::write(folder.join("flags-test.mjs"), script).unwrap();
    let mut node = tools::command("node")
        .arg("flags-test.mjs")
        .arg(format!("http://{}", site.proxy.admin))
        .current_dir(&folder)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let out = std::io::BufReader::new(node.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(out)
        .map(|line| -> Value { serde_json::from_str(&line.unwrap()).unwrap() });
    let of = |user: &str, more: &[Value]| {
        let mut all = match site.group("flag", user) == "on" {
            true => vec![
                json!(true),
                json!("on"),
                json!("SPLIT"),
                json!("on"),
                json!(2),
                json!({"a": 2}),
            ],
            false => vec![
                json!(false),
                json!("control"),
                json!("SPLIT"),
                json!("control"),
                json!(1),
                json!({"a": 1, "b": ["x"]}),
            ],
        };
        all.extend_from_slice(more);
        all
    };
    for n in 0..20 {
        let expected = of(&format!("u{n}"), &[json!(77)]);
        assert_eq!(lines.next(), Some(Value::from(expected)), "user u{n}");
    }
    let mut expected = of("u1", &[json!(77), json!("DEFAULT"), json!("none")]);
    expected.drain(1..3);
    assert_eq!(lines.next(), Some(Value::from(expected)));
    assert_eq!(lines.next(), Some(json!("waiting")));
    site.proxy.write(&routes(
        &site.origin,
        "",
        "  more: { groups: { control: { weight: 1 }, on: { weight: 1 } } }\n",
    ));
    let more = until("the new flag", || {
        let group = site.group_if("more", "u1");
        group.ok_or("not yet")
    });
    assert_eq!(lines.next(), Some(more));
    assert!(node.wait().unwrap().success());
}
