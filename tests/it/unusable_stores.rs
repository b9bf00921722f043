//! Stores that cannot be used: the program starts, serves and journals, says what is wrong and
//! what to do, changes nothing that is not its own, and goes on when it is put right.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::until;
use rusqlite::Connection;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/0.1.0");
    fixtures.join(name)
}

struct Site([Origin; 2]);

impl Site {
    fn start() -> Site {
        Site([Origin::start("a"), Origin::start("b")])
    }

    fn routes(&self, store: &str) -> String {
        format!(
            "store: \"{store}\"\nworkers: 1\nuser: {{ cookie: uid }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\nexperiments: {{ shop: {{ control: a, experiment: b, percent: 50 }} }}\nmetrics: {{ buy: {{ event: buy }} }}\n",
            self.0[0].address, self.0[1].address
        )
    }
}

#[track_caller]
fn visit(client: &mut Client, users: std::ops::Range<u64>) {
    for number in users {
        let answer = client.get("/?event=buy", &format!("Cookie: uid=user-{number}\r\n"));
        assert_eq!(answer.status, 200);
    }
}

fn users(results: &serde_json::Value) -> u64 {
    let groups = results["experiments"][0]["groups"].as_array().unwrap();
    groups
        .iter()
        .map(|group| group["users"].as_u64().unwrap())
        .sum()
}

/// Starts with a store that cannot be used, and sees that everything else goes on.
#[track_caller]
fn serves_on(store: &str, problem: &str, advice: &str) -> Proxy {
    let site = Box::leak(Box::new(Site::start()));
    let proxy = Proxy::start(&site.routes(store));
    visit(&mut proxy.client(), 0..20);
    until(problem, || {
        let ready = proxy.ask("/admin/readyz");
        assert_eq!(ready.status, 200, "{}", ready.text());
        let text = ready.text();
        let is_told =
            text.starts_with("ready\n") && text.contains(problem) && text.contains(advice);
        if is_told { Ok(()) } else { Err(text) }
    });
    until("a line of the log", || {
        let log = proxy.log.lock().unwrap().clone();
        let is_told = log.contains(problem) && log.contains(advice);
        is_told.then_some(()).ok_or(log)
    });
    let results = proxy.ask("/admin/results");
    assert_eq!(results.status, 503);
    assert!(results.text().contains(advice), "{}", results.text());
    visit(&mut proxy.client(), 20..40);
    proxy
}

/// Everything that was answered is counted once the store can be used.
#[track_caller]
fn catches_up(proxy: &Proxy) {
    let results = until("all users", || {
        let results = proxy.results();
        if users(&results) == 40 {
            Ok(results)
        } else {
            Err(results)
        }
    });
    assert_eq!(results["store"]["problems"], serde_json::json!([]));
    assert_eq!(proxy.ask("/admin/readyz").text(), "ready\n");
}

/// A file that stands in the way: what is said, and whether it stays as it is.
#[track_caller]
fn stands_in_the_way(make: impl FnOnce(&Path), problem: &str, advice: &str) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("counts.db");
    make(&path);
    let before = crate::damaged_journals::contents(folder.path());
    let proxy = serves_on(path.to_str().unwrap(), problem, advice);
    assert!(
        crate::damaged_journals::contents(folder.path()) == before,
        "{problem}: it was changed"
    );
    match path.is_dir() {
        true => fs::remove_dir(&path).unwrap(),
        false => fs::rename(&path, folder.path().join("aside.db")).unwrap(),
    }
    catches_up(&proxy);
}

fn ours(path: &Path) {
    fs::copy(fixture("watershed.db"), path).unwrap();
}

#[test]
fn damaged_file_is_reported_and_a_new_one_is_picked_up() {
    stands_in_the_way(
        |path| fs::write(path, [7; 9000]).unwrap(),
        "is not an SQLite database",
        "move it away",
    );
    stands_in_the_way(
        |path| {
            ours(path);
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..50]).unwrap();
        },
        "is not an SQLite database",
        "move it away",
    );
    stands_in_the_way(
        |path| {
            ours(path);
            let mut bytes = fs::read(path).unwrap();
            // The table of tables.
            bytes[100..4096].fill(0xA5);
            fs::write(path, bytes).unwrap();
        },
        "malformed",
        "move it away",
    );
}

#[test]
fn folder_in_the_place_of_the_file_is_reported() {
    stands_in_the_way(
        |path| fs::create_dir(path).unwrap(),
        "cannot be opened",
        "readable and writable for this user",
    );
}

#[test]
fn newer_or_foreign_file_stays_as_it_is() {
    stands_in_the_way(
        |path| {
            ours(path);
            let file = Connection::open(path).unwrap();
            file.pragma_update(None, "user_version", 99).unwrap();
        },
        "has version 99",
        "run the version that wrote it",
    );
    let foreign = |sql: &'static str| {
        move |path: &Path| Connection::open(path).unwrap().execute_batch(sql).unwrap()
    };
    let advice = "name another place at `store`";
    stands_in_the_way(
        foreign("PRAGMA application_id = 42; CREATE TABLE notes (text TEXT)"),
        "application_id 42",
        advice,
    );
    stands_in_the_way(
        foreign(
            "CREATE TABLE notes (text TEXT); CREATE TABLE users (name TEXT); PRAGMA user_version = 3",
        ),
        "the table \"notes\"",
        advice,
    );
    // All of it in its write-ahead log, as another program leaves it that is killed.
    stands_in_the_way(
        |path| {
            let source = path.with_file_name("source.db");
            let file = Connection::open(&source).unwrap();
            file.pragma_update(None, "journal_mode", "WAL").unwrap();
            file.execute_batch("CREATE TABLE notes (text TEXT)")
                .unwrap();
            fs::copy(&source, path).unwrap();
            let wal = |of: &Path| PathBuf::from(format!("{}-wal", of.display()));
            fs::copy(wal(&source), wal(path)).unwrap();
        },
        "the table \"notes\"",
        advice,
    );
}

#[test]
fn missing_folder_is_reported_and_picked_up() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("missing/counts.db");
    let proxy = serves_on(
        path.to_str().unwrap(),
        "cannot be opened",
        "readable and writable for this user",
    );
    fs::create_dir(path.parent().unwrap()).unwrap();
    catches_up(&proxy);
}

/// Opening one would wait until somebody writes to it.
fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[test]
fn pipe_in_the_place_of_the_file_is_reported() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("counts.db");
    make_pipe(&path);
    let proxy = serves_on(
        path.to_str().unwrap(),
        "not a regular file",
        "readable and writable for this user",
    );
    fs::remove_file(&path).unwrap();
    catches_up(&proxy);
}

#[test]
fn locked_file_is_reported_and_used_once_unlocked() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("counts.db");
    ours(&path);
    let other = Connection::open(&path).unwrap();
    other
        .execute_batch(
            "DELETE FROM users; DELETE FROM totals; DELETE FROM controls; BEGIN EXCLUSIVE",
        )
        .unwrap();
    let proxy = serves_on(
        path.to_str().unwrap(),
        "locked",
        "another program holds the file",
    );
    other.execute_batch("COMMIT").unwrap();
    drop(other);
    catches_up(&proxy);
}

#[test]
fn pages_that_are_damaged_while_serving_are_reported_and_a_copy_is_picked_up() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("counts.db");
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(path.to_str().unwrap()));
    visit(&mut proxy.client(), 0..20);
    assert_eq!(users(&proxy.results()), 20);
    for end in ["-wal", "-shm"] {
        fs::remove_file(format!("{}{end}", path.display())).unwrap();
    }
    let next = folder.path().join("next.db");
    fs::write(&next, [3; 9000]).unwrap();
    fs::rename(next, &path).unwrap();
    visit(&mut proxy.client(), 20..40);
    until("a problem", || {
        let ready = proxy.ask("/admin/readyz").text();
        if ready.contains("move it away") {
            Ok(())
        } else {
            Err(ready)
        }
    });
    fs::remove_file(&path).unwrap();
    catches_up(&proxy);
}

#[test]
fn redis_that_cannot_be_used_is_reported_and_picked_up() {
    let redis = Redis::with(&["--requirepass", "sesame"]);
    let proxy = serves_on(&redis.url(), "refuses the user or password", "correct");
    let authorized = format!("redis://:sesame@{}", redis.address);
    let client = redis::Client::open(authorized).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut set = redis::cmd("CONFIG");
    let () = set
        .arg(&["SET", "requirepass", ""])
        .query(&mut connection)
        .unwrap();
    catches_up(&proxy);
    let site = Origin::start("site");
    let at = format!("redis://{}", site.address);
    serves_on(&at, "does not reply like Redis", "correct `store`");
}

#[test]
fn newer_or_foreign_keys_in_redis_stay_as_they_are() {
    let redis = Redis::start();
    redis
        .command(&["HSET", "ws:format", "version", "2"])
        .unwrap();
    let proxy = serves_on(&redis.url(), "version 2", "run the version that wrote it");
    let keys = redis.command(&["KEYS", "*"]).unwrap();
    assert!(
        keys.contains("ws:format") && !keys.contains("ws:experiments"),
        "{keys}"
    );
    redis.command(&["DEL", "ws:format"]).unwrap();
    catches_up(&proxy);
    let version = redis.command(&["HGET", "ws:format", "version"]).unwrap();
    assert!(version.contains('1'), "{version}");
    drop(proxy);
    let redis = Redis::start();
    redis.command(&["SET", "ws:format", "png"]).unwrap();
    let proxy = serves_on(&redis.url(), "WRONGTYPE", "a prefix of its own");
    let keys = redis.command(&["KEYS", "*"]).unwrap();
    assert!(!keys.contains("ws:experiments"), "{keys}");
    redis.command(&["DEL", "ws:format"]).unwrap();
    catches_up(&proxy);
}

#[test]
fn damaged_records_are_skipped_and_reported() {
    let redis = Redis::start();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("counts.db");
    let site = Site::start();
    for store in [path.to_str().unwrap(), &redis.url()] {
        let proxy = Proxy::start(&site.routes(store));
        visit(&mut proxy.client(), 0..20);
        assert_eq!(users(&proxy.results()), 20);
        if store.starts_with("redis") {
            let set = |key: &str, field: &str, value: &str| {
                redis.command(&["HSET", key, field, value]).unwrap();
            };
            set("ws:{shop:0}:users", "user-3", "control");
            set("ws:{shop:0}:users", "user-4", "control 1 2 0 buy:x:y:z");
            set("ws:{shop:0}:totals", "nonsense", "5");
            set("ws:{shop:0}:totals", "1|control|users", "many");
            set("ws:{shop:0}:epochs", "zz", "nonsense");
            set("ws:{shop:0}:waiting", "user-5", "what:is:this");
            set("ws:{shop:0}:hours", "1|2|control|unheard-of", "1");
            set(
                "ws:{controls}:now",
                "shop",
                "{\"at_ms\": 1, \"state\": \"unheard-of\"}",
            );
            redis
                .command(&["LPUSH", "ws:{controls}:acts", "{"])
                .unwrap();
        } else {
            let file = Connection::open(&path).unwrap();
            file.execute_batch(
                "UPDATE users SET record = 'control' WHERE user = CAST('user-3' AS BLOB);
                 UPDATE users SET record = X'FF00' WHERE user = CAST('user-4' AS BLOB);
                 INSERT INTO totals VALUES ('shop', 'nonsense', '5'), ('shop', '1|control|users', 'many');
                 INSERT INTO epochs VALUES ('shop', 'zz', 'soon', 'nonsense');
                 INSERT INTO waiting VALUES ('shop', CAST('user-5' AS BLOB), 9999999999999, 'what:is:this');
                 INSERT INTO hours VALUES ('shop', '1|2|control|unheard-of', '1');
                 INSERT OR REPLACE INTO controls VALUES ('shop', 1, '{\"state\": \"unheard-of\"}');
                 INSERT INTO acts (act) VALUES ('{')",
            )
            .unwrap();
        }
        visit(&mut proxy.client(), 20..40);
        // Their records are made anew, and the counts have them a second time.
        visit(&mut proxy.client(), 3..6);
        let results = until("all damage", || {
            let results = proxy.results();
            let damaged = results["store"]["damaged_records"].as_u64().unwrap();
            if damaged >= 7 {
                Ok(results)
            } else {
                Err(results)
            }
        });
        assert!((40..=42).contains(&users(&results)), "{results:#}");
        let known = proxy.ask("/admin/assignments?user=user-30").json();
        assert_eq!(known["experiments"][0]["recorded"]["events"]["buy"], 1);
        let exported = proxy.ask("/admin/export/shop").text();
        assert!(exported.contains("user-30"), "{exported}");
    }
}

/// A number, a text and bytes where each kind of count stands.
#[test]
fn junk_in_redis_takes_nothing_else_down() {
    let redis = Redis::start();
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(&redis.url()));
    visit(&mut proxy.client(), 0..20);
    assert_eq!(users(&proxy.results()), 20);
    let keys = [
        "ws:dropped",
        "ws:damaged",
        "ws:experiments",
        "ws:{shop:0}:event-counts",
        "ws:{shop:0}:identity-counts",
    ];
    for key in keys {
        for (field, value) in [("x", "junk"), ("y", ""), ("z", "-1"), ("shop", "1.5")] {
            redis.command(&["HSET", key, field, value]).unwrap();
        }
    }
    let kinds = ["refused_ids", "dropped_waiting", "waiting_bytes"];
    for field in kinds {
        let event_counts = "ws:{shop:0}:event-counts";
        redis
            .command(&["HSET", event_counts, field, "junk"])
            .unwrap();
    }
    for field in ["joined", "shared_devices", "apart"] {
        let identity_counts = "ws:{shop:0}:identity-counts";
        redis
            .command(&["HSET", identity_counts, field, "junk"])
            .unwrap();
    }
    // Bytes that are no text.
    let bytes = "redis.call('HSET', 'ws:replicas', '\\255', '\\254') redis.call('HSET', 'ws:{shop:0}:epochs', '\\255', '\\254') redis.call('HSET', 'ws:{controls}:now', '\\255', '\\254') redis.call('HSET', 'ws:experiments', '\\255', '\\254') redis.call('LPUSH', 'ws:{controls}:acts', '\\255') redis.call('RPUSH', 'ws:secrets', '\\255')";
    redis.command(&["EVAL", bytes, "0"]).unwrap();
    let counted = |now: u64| {
        until("the counts", || {
            let results = proxy.results();
            let damaged = results["store"]["damaged_records"].as_u64();
            if users(&results) == now && damaged.is_some_and(|damaged| damaged >= 20) {
                Ok(())
            } else {
                Err(results)
            }
        });
    };
    counted(20);
    // Ingestion goes on, too: also where an event waits, which changes a damaged count.
    let headers = "Cookie: uid=unseen\r\n";
    let event = r#"{"event": "buy"}"#;
    let reported = proxy.client().post("/_watershed/events", headers, event);
    assert_eq!(reported.status, 202);
    visit(&mut proxy.client(), 20..40);
    counted(40);
    let log = proxy.log.lock().unwrap().clone();
    assert!(
        log.contains("ws:dropped in the store holds \"x: junk\""),
        "{log}"
    );
    assert!(!log.contains("Incompatible type"), "{log}");
    // A process that starts now reads it, too.
    let other = Proxy::start(&site.routes(&redis.url()));
    assert_eq!(users(&other.results()), 40);
}

#[test]
fn stores_of_release_0_1_0_are_migrated() {
    let site = Site::start();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("counts.db");
    ours(&path);
    let redis = Redis::start();
    let commands = fs::read_to_string(fixture("redis.jsonl")).unwrap();
    for line in commands.lines() {
        let words: Vec<String> = serde_json::from_str(line).unwrap();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        redis.command(&words).unwrap();
    }
    for store in [path.to_str().unwrap(), &redis.url()] {
        let proxy = Proxy::start(&site.routes(store));
        let results = proxy.results();
        assert_eq!(results["experiments"][0]["status"], "paused", "{results:#}");
        assert_eq!(users(&results), 30);
        assert_eq!(results["store"]["damaged_records"], 0);
    }
    let file = Connection::open(&path).unwrap();
    let id: i64 = file
        .query_row("PRAGMA application_id", [], |row| row.get(0))
        .unwrap();
    assert_eq!(id, 0x5754_5253);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it was made for all to read");
}

#[test]
fn files_are_private_to_their_owner() {
    let site = Site::start();
    let store = TempDir::new().unwrap();
    let path = store.path().join("counts.db");
    let proxy = Proxy::start(&site.routes(path.to_str().unwrap()));
    visit(&mut proxy.client(), 0..20);
    proxy.results();
    fn check(folder: &Path, seen: &mut usize) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            *seen += 1;
            if path.is_dir() {
                assert_eq!(mode, 0o700, "{}", path.display());
                check(&path, seen);
            } else {
                assert_eq!(mode, 0o600, "{}", path.display());
            }
        }
    }
    let mut seen = 0;
    fs::remove_file(proxy.file()).unwrap();
    check(proxy.folder.path(), &mut seen);
    check(store.path(), &mut seen);
    assert!(seen > 8, "{seen}");
}

/// A file beside the journal that is newer, damaged in its version or no file stays as it is, and is
/// reported until it is moved away, with the store and without.
#[test]
fn newer_or_unreadable_files_beside_the_journal_stay_and_are_reported() {
    let redis = Redis::start();
    let site = Site::start();
    for store in [redis.url(), "redis://127.0.0.1:1".to_owned()] {
        let routes = site.routes(&store);
        let mut proxy = Proxy::start(&routes);
        for name in ["decided.json", "secrets.json"] {
            proxy.signal("TERM");
            proxy.wait();
            let file = proxy.folder.path().join("watershed-journal").join(name);
            let remove = || {
                let _ = fs::remove_file(&file);
                let _ = fs::remove_dir(&file);
            };
            remove();
            let newer = r#"{"version":2,"all":[]}"#;
            fs::write(&file, newer).unwrap();
            proxy.again(&routes);
            is_told(&proxy, &format!("{name} has version 2"));
            visit(&mut proxy.client(), 0..1);
            assert_eq!(fs::read_to_string(&file).unwrap(), newer, "{store}");
            proxy.signal("TERM");
            proxy.wait();
            remove();
            // Whom it may not be read by depends on who runs the test; these nobody can read.
            for make in [|file: &Path| fs::create_dir(file).unwrap(), make_pipe] {
                make(&file);
                proxy.again(&routes);
                is_told(&proxy, &format!("{name} cannot be read"));
                visit(&mut proxy.client(), 0..1);
                assert!(file.exists() && !file.is_file(), "{store}");
                proxy.signal("TERM");
                proxy.wait();
                remove();
            }
            proxy.again(&routes);
        }
        // What goes while it runs is replaced.
        let file = proxy.folder.path().join("watershed-journal/secrets.json");
        proxy.signal("TERM");
        proxy.wait();
        fs::rename(&file, file.with_extension("kept")).unwrap();
        fs::create_dir(&file).unwrap();
        proxy.again(&routes);
        is_told(&proxy, "secrets.json cannot be read");
        fs::rename(file.with_extension("kept"), &file).unwrap_err();
        fs::remove_dir(&file).unwrap();
        until("no problem with secrets", || {
            let ready = proxy.ask("/admin/readyz").text();
            let is_over = !ready.contains("secrets.json") && file.is_file();
            is_over.then_some(()).ok_or(ready)
        });
    }
    // Secrets that cannot be shared are reported, too.
    redis.command(&["DEL", "ws:secrets"]).unwrap();
    redis.command(&["SET", "ws:secrets", "x"]).unwrap();
    let proxy = Proxy::start(&site.routes(&redis.url()));
    is_told(&proxy, "the store cannot share the secrets");
    visit(&mut proxy.client(), 0..10);
    assert_eq!(users(&proxy.results()), 10);
}

/// The problem is in `readyz`, and in results where the store answers.
#[track_caller]
fn is_told(proxy: &Proxy, problem: &str) {
    until(problem, || {
        let ready = proxy.ask("/admin/readyz").text();
        ready.contains(problem).then_some(()).ok_or(ready)
    });
    let results = proxy.ask("/admin/results");
    if results.status == 200 {
        let problems = results.json()["store"]["problems"].to_string();
        assert!(problems.contains(problem), "{problems}");
    }
}

/// A key of another type stands in the place of one experiment's; the other experiment is
/// counted meanwhile, and this one afterwards.
#[test]
fn key_of_another_type_stops_only_its_experiment() {
    let redis = Redis::start();
    let site = Site::start();
    let routes = format!(
        "{}experiments: {{ shop: {{ control: a, experiment: b, percent: 50, match: {{ path: /shop }} }}, blog: {{ control: a, experiment: b, percent: 50, match: {{ path: /blog }} }} }}\n",
        site.routes(&redis.url()).replace(
            "experiments: { shop: { control: a, experiment: b, percent: 50 } }\n",
            ""
        )
    );
    let proxy = Proxy::start(&routes);
    let visit = |users: std::ops::Range<u64>| {
        let mut client = proxy.client();
        for number in users {
            for path in ["/shop?event=buy", "/blog?event=buy"] {
                let cookie = format!("Cookie: uid=user-{number}\r\n");
                assert_eq!(client.get(path, &cookie).status, 200);
            }
        }
    };
    let counted = |name: &str| {
        let results = proxy.ask("/admin/results").json();
        let mut all = results["experiments"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        all.retain(|it| it["name"] == name);
        let count = all.first().map(|it| {
            let groups = it["groups"].as_array().unwrap().iter();
            groups.map(|it| it["users"].as_u64().unwrap()).sum::<u64>()
        });
        (count, results["store"].clone())
    };
    let is_counted = |name: &str, users: u64| {
        until(name, || match counted(name) {
            (Some(found), _) if found == users => Ok(()),
            found => Err(found),
        });
    };
    visit(0..10);
    is_counted("shop", 10);
    let mut users = 10;
    for (key, command) in [
        ("users", "SET"),
        ("forgotten", "SET"),
        ("event-ids-at", "SADD"),
    ] {
        let key = format!("ws:{{shop:0}}:{key}");
        let was_there = redis.command(&["RENAME", &key, "aside"]).is_ok();
        let words: &[&str] = match command {
            "SET" => &["SET", &key, "x"],
            command => &[command, &key, "x"],
        };
        redis.command(words).unwrap();
        visit(users..users + 10);
        users += 10;
        is_counted("blog", users);
        let problem = until("the problem", || {
            let (_, store) = counted("shop");
            let problems = store["problems"].to_string();
            let is_told = problems.contains(&key) && problems.contains("experiment shop");
            match is_told && store["healthy"] == true {
                true => Ok(problems),
                false => Err(store),
            }
        });
        assert!(problem.contains("rename or delete the key"), "{problem}");
        assert!(proxy.ask("/admin/readyz").text().contains(&key));
        redis.command(&["DEL", &key]).unwrap();
        if was_there {
            redis.command(&["RENAME", "aside", &key]).unwrap();
        }
        is_counted("shop", users);
        until("no problem", || {
            let problems = counted("shop").1["problems"].clone();
            (problems == serde_json::json!([]))
                .then_some(())
                .ok_or(problems)
        });
    }
    // What is kept beside all experiments holds up none.
    redis.command(&["SET", "ws:dropped", "x"]).unwrap();
    redis.command(&["SET", "ws:damaged", "x"]).unwrap();
    visit(users..users + 10);
    for name in ["shop", "blog"] {
        is_counted(name, users + 10);
    }
}

/// Breaks a PostgreSQL, and puts it right.
#[track_caller]
fn postgres_is_put_right(break_it: &[&str], problem: &str, advice: &str, mend_it: &[&str]) {
    let postgres = Postgres::start();
    for sql in break_it {
        postgres.sql(sql).unwrap();
    }
    let before = postgres.sql(TABLES).unwrap();
    let proxy = serves_on(&postgres.url(), problem, advice);
    assert_eq!(
        postgres.sql(TABLES).unwrap(),
        before,
        "{problem}: it was changed"
    );
    let log = proxy.log.lock().unwrap().clone();
    assert!(!log.contains("sesame"), "the password is in the log: {log}");
    for sql in mend_it {
        postgres
            .sql_in("postgres", sql)
            .or_else(|_| postgres.sql(sql))
            .unwrap();
    }
    catches_up(&proxy);
}

const TABLES: &str = "SELECT schemaname, tablename FROM pg_tables ORDER BY 1, 2";

#[test]
fn postgres_that_refuses_is_reported_and_picked_up() {
    postgres_is_put_right(
        &["ALTER ROLE watershed PASSWORD 'other'"],
        "password authentication failed for user \"watershed\"",
        "correct the user and password at `store`",
        &["ALTER ROLE watershed PASSWORD 'sesame'"],
    );
    postgres_is_put_right(
        &["ALTER ROLE watershed CONNECTION LIMIT 0"],
        "too many connections",
        "raise max_connections",
        &["ALTER ROLE watershed CONNECTION LIMIT -1"],
    );
    postgres_is_put_right(
        &["ALTER DATABASE shop OWNER TO admin"],
        "permission denied for database shop",
        "give its user the rights in docs/postgres.md",
        &["GRANT CREATE ON DATABASE shop TO watershed"],
    );
    postgres_is_put_right(
        &["ALTER DATABASE shop SET default_transaction_read_only = on"],
        "it is read-only",
        "name the primary at `store`",
        &["ALTER DATABASE shop RESET default_transaction_read_only"],
    );
}

#[test]
fn missing_database_is_reported_and_picked_up() {
    let postgres = Postgres::start();
    let url = postgres.url().replace("/shop", "/none");
    let proxy = serves_on(
        &url,
        "database \"none\" does not exist",
        "create the database",
    );
    postgres
        .sql_in("postgres", "CREATE DATABASE none OWNER watershed")
        .unwrap();
    catches_up(&proxy);
    let site = Origin::start("site");
    let at = format!("postgres://u:sesame@{}/d", site.address);
    serves_on(&at, "PostgreSQL at 127.0.0.1", "correct `store`");
}

#[test]
fn newer_or_foreign_tables_in_postgres_stay_as_they_are() {
    postgres_is_put_right(
        &["CREATE SCHEMA watershed AUTHORIZATION watershed; CREATE TABLE watershed.format (single boolean, version bigint);
           INSERT INTO watershed.format VALUES (true, 99); ALTER TABLE watershed.format OWNER TO watershed"],
        "has version 99",
        "run the version that wrote it",
        &["DROP TABLE watershed.format"],
    );
    postgres_is_put_right(
        &[
            "CREATE SCHEMA watershed AUTHORIZATION watershed; CREATE TABLE watershed.notes (text text)",
        ],
        "the table \"notes\"",
        "name another place at `store`",
        &["DROP TABLE watershed.notes"],
    );
}

/// What a full disk says. A disk that is really full would be that of all tests.
#[test]
fn full_disk_of_postgres_is_reported_and_nothing_is_lost() {
    let postgres = Postgres::start();
    let site = Site::start();
    let proxy = Proxy::start(&site.routes(&postgres.url()));
    visit(&mut proxy.client(), 0..20);
    assert_eq!(users(&proxy.results()), 20);
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'could not extend file: No space left on device'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON watershed.totals FOR EACH STATEMENT EXECUTE FUNCTION full_disk()";
    postgres.sql(full).unwrap();
    visit(&mut proxy.client(), 20..40);
    until("a problem", || {
        let ready = proxy.ask("/admin/readyz").text();
        let is_told =
            ready.contains("No space left") && ready.contains("free some space on the disk");
        is_told.then_some(()).ok_or(ready)
    });
    postgres.sql("DROP FUNCTION full_disk CASCADE").unwrap();
    catches_up(&proxy);
}
