//! The archive: every record once, in directories and object stores, read by databases that others wrote.

mod crashes;
mod dbt;
mod forgetting;
mod object_stores;
mod replay;
mod warehouse;

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use warehouse::{Engine, Warehouse};

const FIRST_METRICS: &str = "
  buy: { event: buy }
  revenue: { event: buy, value: amount, kind: mean }
  capped: { event: buy, value: amount, kind: mean, cap: 20 }
  soon: { event: buy, within: 1ms, kind: count }
  per_request: { event: buy, value: amount, kind: ratio, per: requests }
  pages: { on: { path: /page/** }, kind: count }
  per_page: { event: buy, value: amount, kind: ratio, per: { on: { path: /page/** } } }
";

/// A site with two experiments, one of which has a guardrail.
pub struct Site {
    pub proxy: Proxy,
    pub routes: String,
    _origins: [Origin; 2],
}

impl Site {
    /// Starts a site with this archive, and more lines of the file.
    pub fn start(archive: &str, lines: &str, env: &[(&str, &str)]) -> Site {
        Site::start_with(archive, lines, "", env)
    }

    /// With these lines of metrics, too.
    pub fn start_with(archive: &str, lines: &str, metrics: &str, env: &[(&str, &str)]) -> Site {
        let origins = [Origin::start("a"), Origin::start("b")];
        let [a, b] = origins.each_ref().map(|origin| origin.address);
        let routes = format!(
            "{lines}workers: 2\nuser: {{ cookie: uid }}\narchive: {archive}\nupstreams: {{ a: \"http://{a}\", b: \"http://{b}\" }}
experiments:
  shop: {{ control: a, experiment: b, percent: 50, guardrails: {{ errors: {{ max_increase: 5% }} }} }}
  page: {{ match: {{ path: /page/** }}, groups: {{ control: {{ weight: 1 }}, new: {{ weight: 1 }}, newer: {{ weight: 2 }} }} }}
metrics:{FIRST_METRICS}{metrics}"
        );
        let how = crate::support::proxy::How {
            env: env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Default::default()
        };
        Site {
            proxy: Proxy::start_how(&routes, how),
            routes,
            _origins: origins,
        }
    }

    /// The directory `out` beside the file.
    pub fn out(&self) -> PathBuf {
        self.proxy.folder.path().join("out")
    }

    /// Ends the process, which archives what is left. Returns the results before.
    pub fn end(&mut self) -> Value {
        let results = self.proxy.results();
        loop {
            self.proxy.signal("TERM");
            assert!(self.proxy.wait().success(), "{}", self.log());
            // A stop does not wait long for a machine that is busy.
            if !self.log().contains("the next process archives the rest") {
                return results;
            }
            let routes = self.routes.clone();
            self.proxy.again(&routes);
        }
    }

    pub fn log(&self) -> String {
        self.proxy.log.lock().unwrap().clone()
    }

    /// Waits until nothing waits for the archive. The records before the call are archived then.
    pub fn archived(&self) {
        self.proxy.results();
        let journaled = metric(&self.proxy, "folded_facts_total");
        until("an archive that has caught up", || {
            let archived = metric(&self.proxy, "archive_records_total");
            (archived >= journaled)
                .then_some(())
                .ok_or((archived, self.log()))
        });
    }
}

/// A number of `/admin/metrics`.
pub fn metric(proxy: &Proxy, name: &str) -> u64 {
    let text = proxy.ask("/admin/metrics").text();
    let lines = text.lines();
    let mut found = lines.filter_map(|line| line.strip_prefix("watershed_")?.strip_prefix(name));
    let number = found.next().and_then(|rest| rest.split(' ').next_back());
    let number: f64 = number.expect(name).parse().unwrap();
    number as u64
}

/// Visits of one client, whose number decides what it does: known users and minted ones, some of which come back or
/// become known; purchases, some reported again; responses that are errors; users who see other pages.
pub fn visit(client: &mut Client, number: usize) -> std::io::Result<()> {
    let known = format!("Cookie: uid=user-{number}\r\n");
    let path = |event: &str| match number % 7 {
        0 => format!("/page/{number}?event={event}"),
        1 => format!("/?status=500&event={event}"),
        _ => format!("/?event={event}"),
    };
    let amount = format!("buy;amount={}.25", number % 50);
    match number % 5 {
        // Minted, and perhaps never seen again.
        0 | 1 => {
            let answer = client.try_get(&path(&amount), "")?;
            let cookie = answer.header("set-cookie").unwrap_or_default().to_owned();
            let minted = cookie.split(';').next().unwrap_or_default();
            if !number.is_multiple_of(3) {
                client.try_get(&path("look"), &format!("Cookie: {minted}\r\n"))?;
            }
            if number % 3 == 2 {
                let both = format!("Cookie: {minted}; uid=user-{number}\r\n");
                client.try_get(&path(&amount), &both)?;
            }
        }
        // The same event twice.
        2 => {
            for _ in 0..2 {
                client.try_get(&path(&format!("{amount};id=order-{number}")), &known)?;
            }
        }
        3 => {
            client.try_get(&path("look"), &known)?;
            for _ in 0..3 {
                client.try_get(&path(&amount), &known)?;
            }
        }
        // Never an event, and requests of robots.
        _ => {
            client.try_get("/", &known)?;
            client.try_get("/", "User-Agent: Googlebot/2.1\r\n")?;
        }
    }
    Ok(())
}

/// Visits with these numbers.
pub fn visits(proxy: &Proxy, numbers: std::ops::Range<usize>) {
    let mut client = proxy.client();
    for number in numbers {
        visit(&mut client, number).unwrap();
    }
}

/// Every group of every metric in the results has the numbers that databases find in the archive.
#[track_caller]
pub fn assert_equal(results: &Value, archive: &Path) {
    for engine in [Engine::Duckdb, Engine::Clickhouse] {
        let warehouse = Warehouse::of(engine, archive);
        let totals = warehouse.ask("SELECT * FROM watershed_totals");
        let requests = warehouse.ask(
            "SELECT experiment_id, variation_id, COUNT(*) AS requests FROM watershed_exposures WHERE served = 'own' GROUP BY experiment_id, variation_id",
        );
        for experiment in results["experiments"].as_array().unwrap() {
            let name = &experiment["name"];
            for group in experiment["groups"].as_array().unwrap() {
                let counted = requests.iter().find(|row| {
                    row["experiment_id"] == *name && row["variation_id"] == group["name"]
                });
                let counted = counted.map_or(0, |row| row["requests"].as_u64().unwrap());
                assert_eq!(counted, group["requests"], "{engine:?} {name} {group:#}");
            }
            let groups = experiment["groups"].as_array().unwrap().iter();
            let users = groups.map(|group| group["users"].as_u64().unwrap());
            assert!(users.sum::<u64>() > 0, "{experiment:#}");
            assert!(!experiment["metrics"].as_array().unwrap().is_empty());
            for metric in experiment["metrics"].as_array().unwrap() {
                for group in metric["groups"].as_array().unwrap() {
                    // Results have users once their window is over.
                    if group["users_waiting"].as_u64().unwrap_or(0) > 0 {
                        continue;
                    }
                    assert_group(&totals, (engine, name, metric), group);
                }
            }
        }
    }
}

#[track_caller]
fn assert_group(
    totals: &[Value],
    (engine, experiment, metric): (Engine, &Value, &Value),
    group: &Value,
) {
    let rows = totals.iter().filter(|row| {
        row["experiment_id"] == *experiment
            && row["event"] == metric["name"]
            && row["variation_id"] == group["name"]
    });
    let rows: Vec<&Value> = rows.collect();
    let sum = |column: &str| -> f64 { rows.iter().map(|row| row[column].as_f64().unwrap()).sum() };
    let place = format!(
        "{engine:?} {experiment} {} {group:#}\n{rows:#?}",
        metric["name"]
    );
    for (column, key) in [
        ("n_users", "users"),
        ("n_converted", "converted"),
        ("n", "count"),
        ("total", "sum"),
    ] {
        let expected = group[key].as_f64().unwrap();
        assert!((sum(column) - expected).abs() < 1e-6, "{column}: {place}");
    }
}

/// The names of the files of an archive, sorted.
pub fn files(archive: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![archive.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    found
}

/// In Redis a minted ID and a known one may be in two shards, and stay two users. Nobody becomes known here.
#[test]
fn databases_find_the_numbers_of_counts_in_redis() {
    let redis = Redis::start();
    let store = format!("store: {}\n", redis.url());
    let mut site = Site::start("{ to: out, every: 1s }", &store, &[]);
    for number in (0..200).filter(|number| number % 5 > 1) {
        visits(&site.proxy, number..number + 1);
    }
    let results = site.end();
    assert_equal(&results, &site.out());
}

#[test]
fn databases_find_the_numbers_of_the_results() {
    let mut site = Site::start("{ to: out, every: 1s }", "", &[]);
    visits(&site.proxy, 0..120);
    // The current hour is there while the process runs.
    site.archived();
    visits(&site.proxy, 120..240);
    let results = site.end();
    assert_equal(&results, &site.out());
    // A metric with a window, by what the store has of each user.
    let file = site.proxy.file();
    let words = ["export", "shop", "--table", "values", "--format", "jsonl"];
    let mut exported = Command::new(BINARY);
    let exported = exported.args(words).arg("-c").arg(file).output().unwrap();
    let exported = String::from_utf8(exported.stdout).unwrap();
    let rows = exported
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let soon = rows.filter(|row| row["metric"] == "soon");
    let soon: u64 = soon.map(|row| row["count"].as_u64().unwrap()).sum();
    let all = "SELECT CAST(SUM(n) AS BIGINT) FROM watershed_values WHERE experiment_id = 'shop' AND event = ";
    for engine in [Engine::Duckdb, Engine::Clickhouse] {
        let warehouse = Warehouse::of(engine, &site.out());
        let found = ["'soon'", "'buy'"].map(|name| warehouse.number(&format!("{all}{name}")));
        assert_eq!(found[0], soon, "{engine:?}");
        assert!(found[0] < found[1], "no event was too late: {found:?}");
    }
}
