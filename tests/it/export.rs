//! Exports, read by real Pandas.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::redis::Redis;
use crate::support::tools;
use serde_json::Value;
use std::process::{Command, Output};

const DOCUMENT: &str = include_str!("../../docs/export.md");

const METRICS: [(&str, &str); 4] = [
    ("bought", "conversion"),
    ("purchases", "count"),
    ("revenue", "mean"),
    ("per_request", "ratio"),
];

fn site(redis: Option<&Redis>) -> (Proxy, [Origin; 2]) {
    let origins = [Origin::start("control"), Origin::start("b")];
    let store = redis.map_or(String::new(), |redis| format!("store: {}\n", redis.url()));
    let routes = format!(
        "{store}user: [ {{ cookie: uid }}, {{ query: u }} ]\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}
experiments:
  shop:
    groups: {{ control: {{ weight: 50, upstream: a }}, b: {{ weight: 50, upstream: b }} }}
metrics:
  bought: {{ event: purchase }}
  purchases: {{ event: purchase, kind: count }}
  revenue: {{ event: purchase, value: amount, kind: mean }}
  per_request: {{ event: purchase, value: amount, kind: ratio, per: requests }}
",
        origins[0].address, origins[1].address
    );
    let proxy = Proxy::start(&routes);
    let mut client = proxy.client();
    for number in 0..250 {
        // Names that every format must hold together.
        let name = match number % 5 {
            // What Pandas takes for a missing value, or a number, unless it is told otherwise.
            _ if number < 5 => ["NA", "n/a", "#N/A", "007", "1e5"][number].to_owned(),
            0 => format!("=1+{number}"),
            1 => format!("a\"b,{number}"),
            2 => format!("ü\\{number}"),
            _ => format!("user-{number}"),
        };
        let headers = format!("Cookie: uid={name}\r\n");
        for visit in 0..1 + number % 3 {
            let path = match (number + visit) % 4 {
                0 => format!("/?event=purchase;amount={}.25", number % 40),
                _ => "/".to_owned(),
            };
            client.get(&path, &headers);
        }
    }
    // Bytes that are no text.
    client.get("/?u=%FF%FE%0A", "");
    (proxy, origins)
}

fn export(proxy: &Proxy, words: &[&str]) -> Output {
    let file = proxy.file();
    let always = ["export", "shop", "-c", file.to_str().unwrap()];
    let done = Command::new(BINARY).args(always).args(words).output();
    done.unwrap()
}

#[test]
fn pandas_reproduces_the_rates() {
    let python = tools::installed("python/bin/python");
    let code = DOCUMENT.split("```python\n").nth(1).unwrap();
    let code = code.split("```").next().unwrap();
    let redis = Redis::start();
    for redis in [None, Some(&redis)] {
        let (proxy, _origins) = site(redis);
        let results = proxy.results();
        let folder = tempfile::TempDir::new().unwrap();
        for (table, format) in [
            ("assignments", "parquet"),
            ("values", "csv"),
            ("hours", "jsonl"),
        ] {
            let path = folder.path().join(format!("{table}.{format}"));
            let words = [
                "--table",
                table,
                "--format",
                format,
                "--raw",
                "-o",
                path.to_str().unwrap(),
            ];
            let done = export(&proxy, &words);
            assert!(
                done.status.success(),
                "{}",
                String::from_utf8_lossy(&done.stderr)
            );
            // The admin API returns the same.
            let asked = format!("/admin/export/shop?table={table}&format={format}&raw=true");
            let body = Client::admin(proxy.admin).get(&asked, "").body;
            let lines = |bytes: &[u8]| {
                let mut lines: Vec<_> = bytes
                    .split(|&byte| byte == b'\n')
                    .map(<[u8]>::to_vec)
                    .collect();
                lines.sort();
                lines
            };
            if format != "parquet" {
                assert_eq!(lines(&body), lines(&std::fs::read(&path).unwrap()));
            }
        }
        let told = Command::new(&python)
            .args(["-c", code, folder.path().to_str().unwrap()])
            .output()
            .expect("Pandas is missing: run ./scripts/test, which installs it");
        assert!(
            told.status.success(),
            "{}",
            String::from_utf8_lossy(&told.stderr)
        );
        let told: Value = serde_json::from_slice(&told.stdout).unwrap();
        let experiment = &results["experiments"][0];
        for (place, group) in ["control", "b"].into_iter().enumerate() {
            let shown = &experiment["groups"][place];
            assert_eq!(told["users"][group], shown["users"]);
            assert_eq!(told["requests"][group], shown["requests"]);
            for (index, (metric, kind)) in METRICS.into_iter().enumerate() {
                let rate = experiment["metrics"][index]["groups"][place]["rate"]
                    .as_f64()
                    .unwrap();
                let reached = told["rates"][metric][kind][group].as_f64().unwrap();
                assert!(
                    rate > 0.0 && (rate - reached).abs() < 1e-12 * rate,
                    "{metric} of {group}: {rate} and {reached}"
                );
            }
        }
    }
}

#[test]
fn names_survive_the_export() {
    let (proxy, _origins) = site(None);
    proxy.results();
    let done = export(&proxy, &["--table", "assignments", "--raw"]);
    let mut read = csv::Reader::from_reader(&done.stdout[..]);
    let users: std::collections::BTreeSet<String> = read
        .records()
        .map(|record| record.unwrap()[1].to_owned())
        .collect();
    assert_eq!(users.len(), 251);
    for name in [
        "=1+5",
        "a\"b,6",
        "ü\\\\7",
        "user-8",
        "NA",
        "007",
        "\\xff\\xfe\n",
    ] {
        assert!(users.contains(name), "{name:?} is not among {users:?}");
    }
}

/// All fields of a CSV file, row by row.
fn fields(csv: &[u8]) -> Vec<Vec<String>> {
    let mut read = csv::Reader::from_reader(csv);
    let row = |row: Result<csv::StringRecord, csv::Error>| {
        let row = row.unwrap();
        row.iter().map(str::to_owned).collect()
    };
    read.records().map(row).collect()
}

#[test]
fn csv_formulas_are_neutralised_unless_raw() {
    let formulas = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\r=1", "-"];
    let plain = ["-1.5", "+49123", "-1e3", "a=1", "'=1"];
    let origin = Origin::start("a");
    let proxy = Proxy::start(&format!(
        "user: {{ query: u }}\nupstreams: {{ a: \"http://{0}\", b: \"http://{0}\" }}
experiments:
  -shop: {{ groups: {{ -control: {{ weight: 1, upstream: a }}, \"-1\": {{ weight: 1, upstream: b }} }} }}
metrics:
  -sold: {{ event: purchase, value: amount, kind: mean }}
",
        origin.address
    ));
    let mut client = proxy.client();
    for user in formulas.iter().chain(&plain) {
        let user: String = form_urlencoded::byte_serialize(user.as_bytes()).collect();
        client.get(&format!("/?u={user}&event=purchase;amount=-2.5"), "");
    }
    let results = proxy.results();
    assert_eq!(results["experiments"][0]["name"], "-shop");
    let file = proxy.file();
    let export = |more: &[&str]| {
        let always = ["export", "-c", file.to_str().unwrap()];
        let done = Command::new(BINARY)
            .args(always)
            .args(more)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        fields(&done.stdout)
    };
    let ask = |path: &str| fields(&proxy.ask(path).body);
    for (raw, tables) in [
        (
            false,
            [
                export(&["--table", "values"]),
                ask("/admin/export/-shop?table=values"),
            ],
        ),
        (
            true,
            [
                export(&["--table", "values", "--raw"]),
                ask("/admin/export/-shop?table=values&raw=true"),
            ],
        ),
    ] {
        let told = |text: &str| match raw {
            true => text.to_owned(),
            false => format!("'{text}"),
        };
        for rows in tables {
            assert_eq!(rows.len(), formulas.len() + plain.len());
            let users: Vec<&str> = rows.iter().map(|row| &*row[1]).collect();
            for formula in formulas {
                assert!(users.contains(&&*told(formula)), "{formula:?}: {users:?}");
            }
            for plain in plain {
                assert!(users.contains(&plain), "{plain:?}: {users:?}");
            }
            for row in &rows {
                assert_eq!(row[0], told("-shop"));
                assert!(
                    [told("-control"), "-1".to_owned()].contains(&row[2]),
                    "{row:?}"
                );
                assert_eq!(row[3], told("-sold"));
                assert_eq!(row[5], "-2.5", "numbers stay numbers");
            }
        }
    }
    let results = ask("/admin/results?format=csv");
    assert_eq!(
        [&results[0][0], &results[0][2], &results[0][7]],
        ["'-shop", "'-control", "'-sold"]
    );
    assert_eq!(results[1][2], "-1");
    let results = ask("/admin/results?format=csv&raw=true");
    assert_eq!(
        [&results[0][0], &results[0][2], &results[0][7]],
        ["-shop", "-control", "-sold"]
    );
}

#[test]
fn failed_export_is_an_error_and_leaves_no_file() {
    let mut redis = Redis::start();
    let (proxy, _origins) = site(Some(&redis));
    proxy.results();
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("out.csv");
    let wrong = Command::new(BINARY)
        .args(["export", "nothing", "-c", proxy.file().to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(
        said.contains("the store has no experiment \"nothing\"")
            && said.contains("name one of: shop"),
        "{said}"
    );
    assert_eq!(proxy.ask("/admin/export/nothing").status, 404);
    assert_eq!(proxy.ask("/admin/export/shop?format=xls").status, 400);
    // A record that cannot be read, far into the table.
    redis
        .command(&["HSET", "ws:{shop:0}:users", "broken", "what is this"])
        .unwrap();
    let done = export(&proxy, &["-o", path.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(
        said.contains("1 records of the store are damaged"),
        "{said}"
    );
    let rows = std::fs::read_to_string(&path).unwrap();
    assert!(rows.lines().count() > 1 && !rows.contains("broken"));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(proxy.ask("/admin/export/shop").status, 200);
    redis.kill();
    let done = export(&proxy, &["-o", path.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn columns_have_types_and_names_that_databases_take() {
    let python = tools::installed("python/bin/python");
    let (proxy, _origins) = site(None);
    proxy.results();
    let folder = tempfile::TempDir::new().unwrap();
    let write = |name: &str, words: &[&str]| {
        let path = folder.path().join(name);
        let done = export(&proxy, &[words, &["-o", path.to_str().unwrap()]].concat());
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        path
    };
    write("new.parquet", &["--format", "parquet"]);
    write("old.parquet", &["--format", "parquet", "--columns", "v1"]);
    write(
        "hours.parquet",
        &["--format", "parquet", "--table", "hours"],
    );
    let schemas = r#"
import json, sys, pyarrow.parquet
for name in ("new", "old", "hours"):
    schema = pyarrow.parquet.read_schema(f"{sys.argv[1]}/{name}.parquet")
    print(json.dumps([[field.name, str(field.type)] for field in schema][:6]))
"#;
    let told = Command::new(&python)
        .args(["-c", schemas, folder.path().to_str().unwrap()])
        .output()
        .unwrap();
    assert!(
        told.status.success(),
        "{}",
        String::from_utf8_lossy(&told.stderr)
    );
    let told = String::from_utf8(told.stdout).unwrap();
    let lines: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let time = "timestamp[us, tz=UTC]";
    assert_eq!(lines[0][1], serde_json::json!(["user_id", "string"]));
    assert_eq!(lines[0][2], serde_json::json!(["variation_id", "string"]));
    assert_eq!(lines[0][4], serde_json::json!(["first_exposure", time]));
    assert_eq!(lines[1][1], serde_json::json!(["user", "string"]));
    assert_eq!(lines[1][2], serde_json::json!(["group", "string"]));
    assert_eq!(lines[1][4], serde_json::json!(["first_exposure", "string"]));
    assert_eq!(lines[2][1], serde_json::json!(["hour", time]));
    let header = |words: &[&str]| {
        let done = export(&proxy, words);
        String::from_utf8(done.stdout)
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .to_owned()
    };
    assert!(header(&[]).starts_with("experiment,user_id,variation_id,epoch,"));
    assert!(header(&["--columns", "v1"]).starts_with("experiment,user,group,epoch,"));
    let asked = proxy.ask("/admin/export/shop?columns=v1").text();
    assert!(asked.starts_with("experiment,user,group,epoch,"), "{asked}");
}

#[test]
fn times_have_the_offset_of_the_zone_and_name_the_same_moment() {
    let (proxy, _origins) = site(None);
    proxy.results();
    let hours = |zone: &str| -> Vec<String> {
        let asked = format!("/admin/export/shop?table=hours&timezone={zone}");
        fields(&proxy.ask(&asked).body)
            .into_iter()
            .map(|row| row[1].clone())
            .collect()
    };
    let (utc, kolkata) = (hours("UTC"), hours("Asia/Kolkata"));
    assert!(!utc.is_empty() && utc.len() == kolkata.len());
    for (utc, kolkata) in utc.iter().zip(&kolkata) {
        assert!(
            utc.ends_with(":00:00Z") && kolkata.ends_with(":30:00+05:30"),
            "{utc} {kolkata}"
        );
        let moment = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        assert_eq!(moment(utc), moment(kolkata));
    }
    assert_eq!(
        proxy.ask("/admin/export/shop?timezone=Mars/Base").status,
        400
    );
    let done = export(&proxy, &["--timezone", "Mars/Base"]);
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("there is no time zone"));
}
