//! Databases that read the archive with the statements of `watershed archive sql`.

use super::Site;
use crate::support::proxy::BINARY;
use crate::support::tools;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use tempfile::NamedTempFile;

const ASK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/archive/ask.py");

#[derive(Clone, Copy, Debug)]
pub enum Engine {
    Duckdb,
    Clickhouse,
}

/// A database with the views of an archive.
pub struct Warehouse {
    engine: Engine,
    statements: NamedTempFile,
}

/// The statements for a database.
pub fn statements(database: &str, archive: &str) -> String {
    let words = ["archive", "sql", "--for", database, "--from", archive];
    let done = Command::new(BINARY).args(words).output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{errors}");
    String::from_utf8(done.stdout).unwrap()
}

impl Warehouse {
    pub fn of(engine: Engine, archive: &Path) -> Warehouse {
        let sql = statements(engine.name(), archive.to_str().unwrap());
        Warehouse::with(engine, &sql)
    }

    /// A database after these statements.
    pub fn with(engine: Engine, sql: &str) -> Warehouse {
        let statements = NamedTempFile::new().unwrap();
        std::fs::write(statements.path(), sql).unwrap();
        Warehouse { engine, statements }
    }

    /// The rows of a query.
    #[track_caller]
    pub fn ask(&self, query: &str) -> Vec<Value> {
        let done = Command::new(tools::installed("archive/bin/python"))
            .args([ASK, self.engine.name()])
            .arg(self.statements.path())
            .arg(query)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{errors}");
        serde_json::from_slice(&done.stdout).unwrap()
    }

    /// The number that a query returns.
    #[track_caller]
    pub fn number(&self, query: &str) -> u64 {
        let rows = self.ask(query);
        let row = rows[0].as_object().unwrap();
        row.values().next().unwrap().as_u64().unwrap()
    }
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Engine::Duckdb => "duckdb",
            Engine::Clickhouse => "clickhouse",
        }
    }
}

/// `watershed judge` comes to the verdicts and numbers of the results with these totals.
#[track_caller]
pub fn assert_judged(site: &Site, totals: &Path, results: &Value) {
    let judged = Command::new(BINARY)
        .args(["--json", "judge"])
        .arg(totals)
        .arg("-c")
        .arg(site.proxy.file())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&judged.stderr);
    assert!(
        judged.status.success(),
        "{errors}{}",
        String::from_utf8_lossy(&judged.stdout)
    );
    let judged: Value = serde_json::from_slice(&judged.stdout).unwrap();
    for (judged, counted) in judged
        .as_array()
        .unwrap()
        .iter()
        .zip(results["experiments"].as_array().unwrap())
    {
        assert_eq!(judged["name"], counted["name"]);
        assert_eq!(judged["verdict"]["state"], counted["verdict"]["state"]);
        let metrics = |it: &Value| it["metrics"].as_array().unwrap().clone();
        for (judged, counted) in metrics(judged).iter().zip(metrics(counted)) {
            // Results have users of a window once it is over.
            if counted["name"] == "soon" {
                continue;
            }
            for (judged, counted) in judged["groups"]
                .as_array()
                .unwrap()
                .iter()
                .zip(counted["groups"].as_array().unwrap())
            {
                for key in ["name", "users", "converted", "rate"] {
                    assert_eq!(judged[key], counted[key], "{key}: {judged:#} {counted:#}");
                }
            }
        }
    }
}

/// The query of the guide gives `watershed judge` the totals with which it comes to the verdict of the results.
#[test]
fn judge_agrees_with_the_results_on_totals_of_the_archive() {
    const GUIDE: &str = include_str!("../../../docs/guides/archive.md");
    let query = GUIDE.split("```sql\n").nth(1).unwrap();
    let query = query
        .split("```")
        .next()
        .unwrap()
        .trim()
        .trim_end_matches(';');
    let mut site = Site::start("{ to: out, every: 1s }", "", &[]);
    super::visits(&site.proxy, 0..150);
    let results = site.end();
    let folder = tempfile::TempDir::new().unwrap();
    let totals = folder.path().join("totals.csv");
    let query = query.replace("totals.csv", totals.to_str().unwrap());
    Warehouse::of(Engine::Duckdb, &site.out()).ask(&query);
    assert_judged(&site, &totals, &results);
}

#[test]
fn views_for_other_databases_are_sound_sql() {
    let code = "
import sys, sqlglot
dialect, path = sys.argv[1:]
parsed = [it for it in sqlglot.parse(open(path).read(), read=dialect, error_level=sqlglot.ErrorLevel.RAISE) if it]
views = [it for it in parsed if isinstance(it, sqlglot.exp.Create) and it.args['kind'] == 'VIEW']
print(len(parsed), len(views))
";
    for (database, archive) in [
        ("bigquery", "gs://shop/archive"),
        ("snowflake", "s3://shop/archive"),
        ("postgres", "out"),
        ("duckdb", "s3://shop/archive"),
        ("clickhouse", "s3://shop/archive"),
    ] {
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), statements(database, archive)).unwrap();
        let done = Command::new(tools::installed("archive/bin/python"))
            .args(["-c", code, database])
            .arg(file.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{database}: {errors}");
        let numbers: Vec<u32> = said
            .split_whitespace()
            .map(|it| it.parse().unwrap())
            .collect();
        // Four tables and six views.
        assert!(numbers[0] >= 10 && numbers[1] >= 6, "{database}: {said}");
    }
}
