//! Journals that cannot be read for a while: it is reported, others are counted, and their events
//! are counted once they can be read.

use crate::journal::segments;
use crate::support::origin::Origin;
use crate::support::proxy::{How, Proxy};
use crate::support::until;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Runs it as a user whom the modes of files bind.
const AS_NOBODY: &str = "test $(id -u) != 0 || { chown -R 65534 {}; exec setpriv --reuid=65534 --clear-groups \"$0\" \"$@\"; }; exec \"$0\" \"$@\"";

struct Site {
    origins: [Origin; 2],
}

impl Site {
    fn start() -> Site {
        let origins = [Origin::start("a"), Origin::start("b")];
        Site { origins }
    }

    fn routes(&self, store: &str) -> String {
        format!(
            "store: \"{store}\"\njournal: {{ sync_interval: 50ms }}\nworkers: 1\nuser: {{ cookie: uid }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\nexperiments: {{ shop: {{ control: a, experiment: b, percent: 50 }} }}\n",
            self.origins[0].address, self.origins[1].address
        )
    }
}

fn visit(proxy: &Proxy, users: std::ops::Range<u64>) {
    let mut client = proxy.client();
    for number in users {
        let answer = client.get("/", &format!("Cookie: uid=user-{number}\r\n"));
        assert_eq!(answer.status, 200);
    }
}

/// The store's state, once so many users are counted.
#[track_caller]
fn counted(proxy: &Proxy, users: u64) -> serde_json::Value {
    until("users", || {
        let results = proxy.ask("/admin/results").json();
        let groups = results["experiments"][0]["groups"].as_array();
        let groups = groups.into_iter().flatten();
        let found: u64 = groups.filter_map(|it| it["users"].as_u64()).sum();
        match found == users {
            true => Ok(results["store"].clone()),
            false => Err(format!("{found} {results:#}")),
        }
    })
}

/// The store's state, once it reports this problem.
#[track_caller]
fn reported(proxy: &Proxy, problem: &str) -> serde_json::Value {
    until(problem, || {
        let ready = proxy.ask("/admin/readyz").text();
        let store = proxy.ask("/admin/results").json()["store"].clone();
        match ready.contains(problem) && store["problems"].to_string().contains(problem) {
            true => Ok(store),
            false => Err(format!("{ready}{store:#}")),
        }
    })
}

#[track_caller]
fn is_over(proxy: &Proxy, problem: &str) {
    until("the end of a problem", || {
        let ready = proxy.ask("/admin/readyz").text();
        match ready.contains(problem) {
            true => Err(ready),
            false => Ok(()),
        }
    });
}

fn allow(paths: &[PathBuf], mode: u32) {
    for path in paths {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
}

fn as_nobody() -> How {
    How {
        through: ["sh", "-c", AS_NOBODY].map(str::to_owned).to_vec(),
        ..How::default()
    }
}

fn journals(proxy: &Proxy) -> PathBuf {
    proxy.folder.path().join("watershed-journal")
}

#[test]
fn segment_that_cannot_be_opened_is_reported_once_and_counted_later() {
    let site = Site::start();
    let proxy = Proxy::start_how(&site.routes("counts.db"), as_nobody());
    let files = segments(&journals(&proxy));
    allow(&files, 0);
    visit(&proxy, 0..20);
    let store = reported(&proxy, "make the file readable");
    assert!(store["lag_seconds"].as_f64().unwrap() < 3600.0, "{store:#}");
    assert!(store["lag_events"].as_u64().unwrap() > 0, "{store:#}");
    visit(&proxy, 20..40);
    // Some rounds more.
    let folded = |proxy: &Proxy| proxy.ask("/admin/results").json()["store"].clone();
    until("some rounds", || {
        let store = folded(&proxy);
        match store["lag_seconds"].as_f64() {
            Some(lag) if lag > 2.0 => Ok(()),
            _ => Err(store),
        }
    });
    let log = proxy.log.lock().unwrap().clone();
    assert_eq!(log.matches("cannot be read").count(), 1, "{log}");
    allow(&files, 0o600);
    let store = counted(&proxy, 40);
    assert_eq!(store["damaged_events"], 0);
    is_over(&proxy, "cannot be read");
}

#[test]
fn start_beside_a_journal_that_cannot_be_read_counts_the_others() {
    let site = Site::start();
    let routes = site.routes("later/counts.db");
    let mut proxy = Proxy::start_how(&routes, as_nobody());
    visit(&proxy, 0..20);
    proxy.kill();
    let left = segments(&journals(&proxy));
    let folders: Vec<PathBuf> = left
        .iter()
        .filter_map(|path| path.parent().map(Path::to_owned))
        .collect();
    fs::create_dir(proxy.folder.path().join("later")).unwrap();
    for (paths, mode) in [(&left, 0o600), (&folders, 0o700)] {
        allow(paths, 0);
        proxy.again(&routes);
        visit(&proxy, 20..40);
        counted(&proxy, 20);
        reported(&proxy, "make all its files readable for the user");
        proxy.kill();
        allow(paths, mode);
    }
    proxy.again(&routes);
    let store = counted(&proxy, 40);
    assert_eq!(store["damaged_events"], 0);
    is_over(&proxy, "cannot be read");
}

#[test]
fn removed_folder_is_made_anew_or_reported_also_without_traffic() {
    const PROBLEM: &str = "was removed, replaced or shortened by another program";
    let site = Site::start();
    let proxy = Proxy::start(&site.routes("counts.db"));
    let all = segments(&journals(&proxy));
    let is_anew = || {
        until("folders that are made anew", || {
            match segments(&journals(&proxy)).len() >= all.len() {
                true => Ok(()),
                false => Err(proxy.ask("/admin/readyz").text()),
            }
        });
        is_over(&proxy, PROBLEM);
    };
    visit(&proxy, 0..20);
    counted(&proxy, 20);
    // Of each worker alone.
    for path in &all {
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        is_anew();
    }
    visit(&proxy, 20..40);
    counted(&proxy, 40);
    // Of all.
    fs::remove_dir_all(journals(&proxy)).unwrap();
    is_anew();
    visit(&proxy, 40..60);
    counted(&proxy, 60);
    assert!(proxy.log.lock().unwrap().contains(PROBLEM));
    // It cannot be made anew.
    fs::remove_dir_all(journals(&proxy)).unwrap();
    fs::write(journals(&proxy), "in its place").unwrap();
    reported(&proxy, PROBLEM);
    visit(&proxy, 60..80);
    reported(&proxy, PROBLEM);
    fs::remove_file(journals(&proxy)).unwrap();
    is_anew();
    visit(&proxy, 80..100);
    let store = counted(&proxy, 100);
    assert_eq!(store["damaged_events"], 0, "{store:#}");
}
