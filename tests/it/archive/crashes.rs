//! Crashes, replays and archives that are unavailable: every record is archived once.

use super::warehouse::{Engine, Warehouse};
use super::{Site, assert_equal, files, metric, visit, visits};
use crate::support::until;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[test]
fn killed_process_loses_and_doubles_nothing() {
    let mut site = Site::start("{ to: out, every: 1s }", "", &[]);
    let next = AtomicUsize::new(0);
    for _ in 0..4 {
        let stop = AtomicBool::new(false);
        let address = site.proxy.public;
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let Ok(mut client) = super::Client::try_connect(address) else {
                        return;
                    };
                    while !stop.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if visit(&mut client, number).is_err() {
                            return;
                        }
                    }
                });
            }
            // In the middle of a batch, as often as not.
            let archived = metric(&site.proxy, "archive_records_total");
            until("records in the archive", || {
                let now = metric(&site.proxy, "archive_records_total");
                (now > archived + 50).then_some(()).ok_or(now)
            });
            site.proxy.kill();
            stop.store(true, Ordering::Relaxed);
        });
        let routes = site.routes.clone();
        site.proxy.again(&routes);
    }
    // Journals of killed processes are adopted at the start.
    visits(&site.proxy, 1_000_000..1_000_050);
    let results = site.end();
    assert_equal(&results, &site.out());
    let warehouse = Warehouse::of(Engine::Duckdb, &site.out());
    let doubled = "SELECT COUNT(*) FROM (SELECT journal, seq, experiment_id FROM watershed_exposures GROUP BY ALL HAVING COUNT(*) > 1)";
    assert_eq!(warehouse.number(doubled), 0);
}

/// The claim of a batch is written, and then the process dies before some of its files are.
#[test]
fn batch_that_was_claimed_is_completed_after_a_crash() {
    let mut site = Site::start("{ to: out, every: 1s }", "", &[]);
    visits(&site.proxy, 0..60);
    site.archived();
    let complete = files(&site.out());
    site.proxy.results();
    site.proxy.kill();
    // The files of the last batch of each journal.
    let mut last = std::collections::BTreeMap::<String, PathBuf>::new();
    for path in complete.iter().filter(|path| is_data(path)) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let journal = name[..36].to_owned();
        let later = last
            .get(&journal)
            .is_none_or(|other| other.file_name().unwrap().to_str().unwrap() < name);
        if later {
            last.insert(journal, path.clone());
        }
    }
    assert!(!last.is_empty(), "{complete:#?}");
    let removed = complete.iter().filter(|path| {
        let mut names = last.values().map(|it| it.file_name());
        names.any(|name| name == path.file_name()) && path.starts_with(site.out().join("events"))
    });
    let removed: Vec<&PathBuf> = removed.collect();
    assert!(!removed.is_empty());
    for path in &removed {
        std::fs::remove_file(path).unwrap();
    }
    let routes = site.routes.clone();
    site.proxy.again(&routes);
    until("the missing files", || {
        match removed.iter().all(|path| path.exists()) {
            true => Ok(()),
            false => Err(site.log()),
        }
    });
    let results = site.end();
    assert_eq!(files(&site.out()), complete, "nothing else was written");
    assert_equal(&results, &site.out());
}

/// Whoever restores a backup of the journals reads them again.
#[test]
fn journals_that_come_back_add_nothing() {
    let mut site = Site::start("{ to: out, every: 1s }", "", &[]);
    visits(&site.proxy, 0..40);
    let results = site.end();
    let journals = site.proxy.folder.path().join("watershed-journal");
    let backup = site.proxy.folder.path().join("backup");
    copy(&journals, &backup);
    let complete = files(&site.out());
    std::fs::remove_dir_all(&journals).unwrap();
    copy(&backup, &journals);
    let routes = site.routes.clone();
    site.proxy.again(&routes);
    site.proxy.signal("TERM");
    site.proxy.wait();
    assert_eq!(files(&site.out()), complete);
    assert_equal(&results, &site.out());
}

/// A directory that cannot be written delays the archive and nothing else.
#[test]
fn archive_that_cannot_be_written_is_reported_and_catches_up() {
    let mut site = Site::start("{ to: out/archive, every: 1s }", "", &[]);
    site.archived();
    // A file where the directory was.
    let place = site.out().join("archive");
    std::fs::rename(&place, site.out().join("away")).unwrap();
    std::fs::write(&place, "a file").unwrap();
    visits(&site.proxy, 0..40);
    let reported = until("a report", || {
        let ready = site.proxy.ask("/admin/readyz");
        assert_eq!(ready.status, 200);
        let text = ready.text();
        text.contains("is not written")
            .then_some(text.clone())
            .ok_or(text)
    });
    let named = format!("the archive {} is not written: ", place.display());
    assert!(reported.contains(&named), "{reported}");
    let results = site.proxy.results();
    let warnings = results["warnings"].to_string() + &results["store"].to_string();
    assert!(warnings.contains("is not written"), "{results:#}");
    assert!(metric(&site.proxy, "archive_records_waiting") > 0);
    assert!(metric(&site.proxy, "archive_attempts_failed_total") > 0);
    // It is reported once, not each time.
    let logged = site.log().matches("is not written").count();
    assert!((1..=2).contains(&logged), "{}", site.log());
    std::fs::remove_file(&place).unwrap();
    std::fs::rename(site.out().join("away"), &place).unwrap();
    site.archived();
    assert!(site.log().contains("the archive is written again"));
    let results = site.end();
    assert_equal(&results, &place);
}

fn is_data(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    let is_hourly = path
        .components()
        .any(|it| it.as_os_str().to_string_lossy().starts_with("hour="));
    is_hourly && name != "schema.parquet"
}

fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status();
    assert!(done.unwrap().success());
}
