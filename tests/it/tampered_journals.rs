//! Other programs shorten, delete and replace the journal's files while it is written: no request
//! fails, what comes later is counted, and what is lost is reported.

use crate::journal::{append, drain, open, options, segments};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::until;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tempfile::TempDir;
use watershed::journal::{HeldExcess, Journals};

fn cut(path: &Path, bytes: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(bytes).unwrap();
}

/// The folder of the only journal in a folder.
fn only(folder: &Path) -> PathBuf {
    let mut entries = fs::read_dir(folder).unwrap();
    let only = entries.next().unwrap().unwrap().path();
    assert!(entries.next().is_none());
    only
}

/// Does something to the files of a journal of 500 records, of which some were `read`; how many
/// records were lost once it goes on.
#[track_caller]
fn vandalize(read: bool, what: impl FnOnce(&Path)) -> u64 {
    let folder = TempDir::new().unwrap();
    let options = options(64 << 20);
    let Journals {
        mut writers,
        mut readers,
        keeper,
        ..
    } = open(folder.path(), &options);
    for number in 0..500 {
        append(&mut writers[0], 1, number).unwrap();
    }
    let mut numbers = Vec::new();
    if read {
        numbers = drain(&mut readers[0]);
        assert_eq!(numbers.len(), 500);
    }
    let own = only(folder.path());
    what(&own);
    let mut next = 500;
    // The keeper sees what no write meets.
    until("records that are read back", || {
        append(&mut writers[0], 1, next).unwrap();
        next += 1;
        numbers.extend(drain(&mut readers[0]));
        let is_whole = own.join("lock").exists() && numbers.last() == Some(&(next - 1));
        if is_whole && segments(folder.path()).len() > 1 {
            Ok(())
        } else {
            Err(numbers.len())
        }
    });
    // Over many pages and segments more.
    for number in next..next + 40_000 {
        append(&mut writers[0], 1, number).unwrap();
    }
    next += 40_000;
    numbers.extend(drain(&mut readers[0]));
    assert!(numbers.is_sorted_by(|a, b| a < b));
    assert_eq!(numbers.len() as u64 + readers[0].lost(), next);
    let lost = readers[0].lost();
    drop((writers, keeper));
    // Nobody else has taken it for one that was left, and nothing of it is counted for ever.
    let adopted = watershed::journal::adopt(folder.path(), &options).unwrap();
    assert!(adopted.readers.is_empty());
    let through = readers[0].position() - 1;
    readers[0]
        .release(through, &mut HeldExcess::default())
        .unwrap();
    readers.pop().unwrap().remove().unwrap();
    assert_eq!(options.quota.used_bytes(), 0);
    lost
}

fn segment(own: &Path) -> PathBuf {
    own.join("00000000000000000001.seg")
}

#[test]
fn truncated_segment_loses_only_unread_records() {
    for bytes in [0, 1, 4096, 5000, 20_000] {
        let lost = vandalize(false, |own| cut(&segment(own), bytes));
        assert!((30..=600).contains(&lost), "{bytes}: {lost}");
        let lost = vandalize(true, |own| cut(&segment(own), bytes));
        assert!(lost <= 100, "{bytes}: {lost} of what came later");
    }
    // Behind what is written: only what is written there later can be hit, and is written again.
    let lost = vandalize(false, |own| cut(&segment(own), 40_960));
    assert_eq!(lost, 0);
    // As programs do that rotate logs by copying them.
    vandalize(false, |own| {
        let path = segment(own);
        let bytes = fs::metadata(&path).unwrap().len();
        cut(&path, 0);
        cut(&path, bytes - 1);
    });
}

#[test]
fn deleted_files_lose_no_record() {
    assert_eq!(
        vandalize(false, |own| fs::remove_file(segment(own)).unwrap()),
        0
    );
    assert_eq!(vandalize(false, |own| fs::remove_dir_all(own).unwrap()), 0);
    assert_eq!(
        vandalize(false, |own| {
            fs::rename(own, own.with_extension("away")).unwrap();
            fs::create_dir(own).unwrap();
            fs::remove_dir_all(own.with_extension("away")).unwrap();
        }),
        0
    );
    assert_eq!(vandalize(true, |own| fs::remove_dir_all(own).unwrap()), 0);
}

#[test]
fn requests_are_served_while_the_journal_is_tampered_with() {
    let origins = [Origin::start("a"), Origin::start("b")];
    // The store comes later, so that nothing is read before the files are hit.
    let store = TempDir::new().unwrap();
    let place = store.path().join("later/counts.db");
    let proxy = Proxy::start(&format!(
        "store: \"{}\"\njournal: {{ sync_interval: 50ms }}\nworkers: 1\nuser: {{ cookie: uid }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\nexperiments: {{ shop: {{ control: a, experiment: b, percent: 50 }} }}\nmetrics: {{ buy: {{ event: buy }} }}\n",
        place.display(),
        origins[0].address,
        origins[1].address
    ));
    let (stop, sent) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let client = std::thread::spawn({
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
        let mut client = proxy.client();
        move || {
            while !stop.load(Ordering::Relaxed) {
                let number = sent.fetch_add(1, Ordering::Relaxed);
                let answer = client.get("/", &format!("Cookie: uid=user-{number}\r\n"));
                assert_eq!(answer.status, 200);
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    });
    let more = |count: u64| {
        let from = sent.load(Ordering::Relaxed);
        until("more requests", || match sent.load(Ordering::Relaxed) {
            now if now >= from + count && !client.is_finished() => Ok(()),
            now => Err(now),
        });
    };
    let journals = proxy.folder.path().join("watershed-journal");
    let latest = || {
        segments(&journals)
            .into_iter()
            .filter(|path| fs::metadata(path).is_ok_and(|found| found.len() > 0))
    };
    let logged = |what: &str, times: usize| {
        until(what, || {
            let log = proxy.log.lock().unwrap().clone();
            if log.matches(what).count() >= times {
                Ok(())
            } else {
                Err(log)
            }
        });
    };
    more(100);
    latest().for_each(|path| cut(&path, 0));
    logged("was truncated by another program", 1);
    more(100);
    latest().for_each(|path| cut(&path, 3000));
    logged("was truncated by another program", 2);
    more(100);
    latest().for_each(|path| fs::remove_file(path).unwrap());
    logged("was removed by another program", 1);
    more(100);
    fs::remove_dir_all(&journals).unwrap();
    logged("was removed by another program", 2);
    more(100);
    fs::create_dir(place.parent().unwrap()).unwrap();
    more(100);
    stop.store(true, Ordering::Relaxed);
    client.join().unwrap();
    let results = proxy.results();
    let groups = results["experiments"][0]["groups"].as_array().unwrap();
    let users: u64 = groups.iter().map(|it| it["users"].as_u64().unwrap()).sum();
    let damaged = results["store"]["damaged_events"].as_u64().unwrap();
    let sent = sent.load(Ordering::Relaxed);
    assert_eq!(
        users + damaged,
        sent,
        "{users} and {damaged}: {:#}",
        results["store"]
    );
    assert!(damaged > 0 && users > 300, "{users} {damaged}");
}
