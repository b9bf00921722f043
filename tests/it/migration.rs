//! The code of docs/migrate/flask-redis-pandas.md, as it stands there, beside watershed.

use crate::support::client::Client;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::site::Site;
use crate::support::tools;
use serde_json::Value;
use std::process::Command;

const DOCUMENT: &str = include_str!("../../docs/migrate/flask-redis-pandas.md");

/// What serves the page's app here.
const SERVE: &str = "
from werkzeug.serving import make_server
server = make_server('127.0.0.1', 0, app, threaded=True)
print(server.port, flush=True)
server.serve_forever()
";

/// The blocks of Python of the page, without the indent of a list.
fn python() -> Vec<String> {
    let blocks = DOCUMENT.split("```python\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap());
    let without_indent = |block: &str| {
        let indent = block.len() - block.trim_start().len();
        let lines = block
            .lines()
            .map(|line| line.get(indent..).unwrap_or_default());
        lines.map(|line| format!("{line}\n")).collect()
    };
    blocks.map(without_indent).collect()
}

/// The routes file of the page, at addresses of this test.
fn routes(port: u16) -> String {
    let file = DOCUMENT.split("```yaml\n").nth(1).unwrap();
    let file = file.split("```").next().unwrap();
    let (_listen, rest) = file.split_once('\n').unwrap();
    let moved = rest.replace("127.0.0.1:5000", &format!("127.0.0.1:{port}"));
    assert_ne!(moved, rest);
    moved
}

fn buy(client: &mut Client, user: &str, amount: &str) -> u16 {
    let headers =
        format!("Cookie: uid={user}\r\nContent-Type: application/x-www-form-urlencoded\r\n");
    let answer = client.post("/checkout", &headers, &format!("amount={amount}"));
    answer.status
}

#[test]
fn flask_redis_and_pandas_count_what_watershed_counts() {
    let [app, notebook, migrated] = &python()[..] else {
        panic!("the page has other blocks of Python");
    };
    let mut redis = Redis::start();
    let mut command = Command::new(tools::installed("sites/bin/python"));
    let site = Site::start(
        command
            .args(["-c", &format!("{app}{migrated}{SERVE}")])
            .env("REDIS_URL", redis.url()),
    );
    let proxy = Proxy::start(&routes(site.port));
    let mut client = proxy.client();
    for user in 0..300 {
        let id = format!("user-{user}");
        let cookie = format!("Cookie: uid={id}\r\n");
        // Every fifth user reloads the page, every third buys, and every sixth twice.
        for _ in 0..1 + usize::from(user % 5 == 0) {
            assert_eq!(client.get("/", &cookie).status, 200);
        }
        for _ in 0..usize::from(user % 3 == 0) + usize::from(user % 6 == 0) {
            assert_eq!(buy(&mut client, &id, &format!("{user}.25")), 200);
        }
    }
    let told = Command::new(tools::installed("python/bin/python"))
        .args(["-c", notebook])
        .env("REDIS_URL", redis.url())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{errors}");
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    let results = proxy.results();
    let shown = &results["experiments"][0];
    for (place, group) in ["control", "experiment"].into_iter().enumerate() {
        let theirs = &told[group];
        assert_eq!(shown["groups"][place]["users"], theirs["users"], "{told}");
        for (index, metric) in ["purchase", "revenue"].into_iter().enumerate() {
            let ours = shown["metrics"][index]["groups"][place]["rate"].as_f64();
            let (ours, theirs) = (ours.unwrap(), theirs[metric].as_f64().unwrap());
            // Pandas writes ten decimal places.
            let differ = (ours - theirs).abs();
            assert!(
                ours > 0.0 && differ < 1e-9,
                "{metric} of {group}: {ours}, {theirs}"
            );
        }
    }
    // Their handlers need Redis; ours do not.
    redis.kill();
    assert_eq!(buy(&mut client, "user-1", "1"), 500);
    let only_ours = app.lines().filter(|line| !line.starts_with("    count("));
    let only_ours: String = only_ours.map(|line| format!("{line}\n")).collect();
    let mut command = Command::new(tools::installed("sites/bin/python"));
    let site = Site::start(
        command
            .args(["-c", &format!("{only_ours}{migrated}{SERVE}")])
            .env("REDIS_URL", redis.url()),
    );
    proxy.write(&routes(site.port));
    Client::admin(proxy.admin).post("/admin/reload", "", "");
    assert_eq!(buy(&mut client, "user-1", "1"), 200);
}
