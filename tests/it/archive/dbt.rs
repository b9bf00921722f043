//! The dbt project of examples/dbt-duckdb, built by the real dbt on an archive.

use super::warehouse::{Engine, Warehouse, assert_judged, statements};
use super::{Site, files, visits};
use crate::support::tools;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/dbt-duckdb");

/// Builds the project, with its database and files in this folder. All its tests must pass.
#[track_caller]
fn build(folder: &Path, variables: &str) {
    let done = Command::new(tools::installed("dbt/bin/dbt"))
        .args(["build", "--quiet", "--vars", variables])
        .args(["--project-dir", PROJECT, "--profiles-dir", PROJECT])
        .arg("--target-path")
        .arg(folder.join("target"))
        .arg("--log-path")
        .arg(folder.join("logs"))
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}{errors}");
}

#[test]
fn dbt_project_finds_the_numbers_and_verdicts_of_the_results() {
    let mut site = Site::start("{ to: out, every: 1s }", "", &[]);
    visits(&site.proxy, 0..240);
    let results = site.end();
    let folder = site.proxy.folder.path();
    build(folder, "{archive: out, event: revenue}");
    assert_judged(&site, &folder.join("totals.csv"), &results);

    let database = folder.join("watershed.duckdb");
    let attach = format!(
        "ATTACH '{}' (READ_ONLY); USE watershed;",
        database.display()
    );
    let built = Warehouse::with(Engine::Duckdb, &attach);
    let days = built.ask(
        "SELECT experiment_id, variation_id, SUM(n_users) AS users FROM users_by_day GROUP BY ALL",
    );
    let conversions = built.ask(
        "SELECT experiment_id, variation_id, COUNT(*) AS users, COUNT(*) FILTER (converted) AS converted,
                SUM(n_conversions) AS \"count\", SUM(revenue) AS \"sum\"
         FROM conversions GROUP BY ALL",
    );
    for experiment in results["experiments"].as_array().unwrap() {
        for group in experiment["groups"].as_array().unwrap() {
            assert_numbers(&days, &experiment["name"], group, &["users"]);
        }
        let mut metrics = experiment["metrics"].as_array().unwrap().iter();
        let revenue = metrics.find(|metric| metric["name"] == "revenue").unwrap();
        for group in revenue["groups"].as_array().unwrap() {
            let keys = ["users", "converted", "count", "sum"];
            assert_numbers(&conversions, &experiment["name"], group, &keys);
        }
    }
}

/// The row of this group has its numbers.
#[track_caller]
fn assert_numbers(rows: &[Value], experiment: &Value, group: &Value, keys: &[&str]) {
    let mut rows = rows.iter();
    let row = rows
        .find(|row| row["experiment_id"] == *experiment && row["variation_id"] == group["name"]);
    let row = row.unwrap();
    for key in keys {
        let [found, expected] = [row, group].map(|it| it[*key].as_f64().unwrap());
        assert!((found - expected).abs() < 1e-6, "{key}: {row:#} {group:#}");
    }
}

/// What counts is defined once: models/watershed has the views of `watershed archive sql`.
#[test]
fn models_of_the_dbt_project_are_the_printed_views() {
    let folder = TempDir::new().unwrap();
    let views = folder.path().join("views.sql");
    let written = folder.path().join("models");
    std::fs::write(&views, statements("duckdb", "archive")).unwrap();
    let done = tools::command("python3")
        .arg(Path::new(PROJECT).join("update-views"))
        .arg(&written)
        .stdin(std::fs::File::open(&views).unwrap())
        .status()
        .unwrap();
    assert!(done.success());
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    let models = |folder: &Path| files(folder).into_iter().map(read).collect::<Vec<_>>();
    let committed = Path::new(PROJECT).join("models/watershed");
    assert_eq!(
        models(&committed),
        models(&written),
        "run examples/dbt-duckdb/update-views"
    );
}
