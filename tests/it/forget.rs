//! Who is forgotten stays forgotten, also where the last facts are still in a journal.

use crate::store_model::shop;
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::postgres::Postgres;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use rusqlite::Connection;
use std::process::Command;
use tempfile::TempDir;
use watershed::store::Store;
use watershed::store::redis::{RedisStore, TlsFiles};
use watershed::store::sqlite::SqliteStore;

struct Site([Origin; 2]);

impl Site {
    fn start() -> Site {
        Site([Origin::start("a"), Origin::start("b")])
    }

    fn routes(&self, more: &str) -> String {
        format!(
            "{more}workers: 1\nuser: {{ cookie: uid }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\nexperiments: {{ shop: {{ control: a, experiment: b, percent: 50 }} }}\nmetrics: {{ buy: {{ event: buy }} }}\n",
            self.0[0].address, self.0[1].address
        )
    }
}

fn ask(client: &mut Client, cookies: &str) -> Option<String> {
    let answer = client.get("/?event=buy", &format!("Cookie: {cookies}\r\n"));
    assert_eq!(answer.status, 200);
    let minted = answer.header("set-cookie")?;
    minted.split(';').next().map(str::to_owned)
}

/// Forgets a user by the admin API; the status.
fn forget(proxy: &Proxy, user: &str) -> u16 {
    let mut client = Client::admin(proxy.admin);
    client
        .say(format!(
            "DELETE /admin/assignments?user={user} HTTP/1.1\r\nHost: {}\r\n\r\n",
            proxy.admin
        ))
        .unwrap();
    client.answer(true).unwrap().status
}

/// Users and requests of all groups.
fn counted(proxy: &Proxy) -> (u64, u64) {
    let results = proxy.results();
    let Some(groups) = results["experiments"][0]["groups"].as_array() else {
        return (0, 0);
    };
    let sum = |what: &str| groups.iter().map(|it| it[what].as_u64().unwrap()).sum();
    (sum("users"), sum("requests"))
}

#[track_caller]
fn is_unknown(proxy: &Proxy, user: &str) {
    let known = proxy.ask(&format!("/admin/assignments?user={user}")).json();
    let recorded = &known["experiments"][0]["recorded"];
    assert!(recorded.is_null(), "{user}: {recorded}");
}

/// What is kept of a user goes also where it cannot be read.
#[test]
fn damaged_user_can_be_forgotten() {
    let site = Site::start();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("counts.db");
    let (redis, postgres) = (Redis::start(), Postgres::start());
    for store in [path.to_str().unwrap(), &redis.url(), &postgres.url()] {
        let proxy = Proxy::start(&site.routes(&format!("store: \"{store}\"\n")));
        for user in ["garbage", "binary", "sound"] {
            ask(&mut proxy.client(), &format!("uid={user}"));
        }
        until("three users", || match counted(&proxy) {
            (3, _) => Ok(()),
            other => Err(other),
        });
        let kind = store.split_once("://").map_or("file", |(kind, _)| kind);
        let rows = || match kind {
            "postgres" => {
                let sql = "SELECT (SELECT count(*) FROM watershed.users) + (SELECT count(*) FROM watershed.waiting)";
                postgres.sql(sql).unwrap()[0][0].parse().unwrap()
            }
            "file" => {
                let file = Connection::open(&path).unwrap();
                let sql = "SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM waiting)";
                file.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
            }
            _ => {
                let all = "return redis.call('HLEN', 'ws:{shop:0}:users') + redis.call('HLEN', 'ws:{shop:0}:waiting')";
                let count = redis.command(&["EVAL", all, "0"]).unwrap();
                let digits: String = count.chars().filter(char::is_ascii_digit).collect();
                digits.parse().unwrap()
            }
        };
        if kind == "postgres" {
            let damage = "UPDATE watershed.users SET record = 'garbage' WHERE user_id = 'garbage';
                 UPDATE watershed.users SET record = '' WHERE user_id = 'binary';
                 INSERT INTO watershed.waiting SELECT number, 'waits', 9999999999999, 'what:is:this' FROM watershed.experiments";
            postgres.sql(damage).unwrap();
        } else if kind == "file" {
            let file = Connection::open(&path).unwrap();
            file.execute_batch(
                "UPDATE users SET record = 'garbage' WHERE user = CAST('garbage' AS BLOB);
                 UPDATE users SET record = X'FF00' WHERE user = CAST('binary' AS BLOB);
                 INSERT INTO waiting VALUES ('shop', CAST('waits' AS BLOB), 9999999999999, 'what:is:this')",
            )
            .unwrap();
        } else {
            let all = "redis.call('HSET', 'ws:{shop:0}:users', 'garbage', 'garbage') redis.call('HSET', 'ws:{shop:0}:users', 'binary', '\\255') redis.call('HSET', 'ws:{shop:0}:waiting', 'waits', 'what:is:this')";
            redis.command(&["EVAL", all, "0"]).unwrap();
        }
        assert_eq!(rows(), 4, "{store}");
        for user in ["garbage", "binary", "waits"] {
            assert_eq!(forget(&proxy, user), 200, "{user} in {store}");
        }
        assert_eq!(rows(), 1, "{store}");
    }
}

#[test]
fn user_forgotten_right_after_a_request_does_not_come_back() {
    let site = Site::start();
    let redis = Redis::start();
    let hashed = "identity: { store: hashed, key: \"a-key-of-more-than-16-bytes\" }\n";
    for more in [
        String::new(),
        format!("store: {}\n", redis.url()),
        hashed.to_owned(),
    ] {
        let proxy = Proxy::start(&site.routes(&more));
        let mut client = proxy.client();
        for number in 0..5 {
            ask(&mut client, &format!("uid=gone-{number}"));
            assert_eq!(forget(&proxy, &format!("gone-{number}")), 200);
        }
        ask(&mut client, "uid=stays");
        assert_eq!(counted(&proxy), (1, 6), "{more}");
        is_unknown(&proxy, "gone-3");
        // Who comes again is a new user, also where the process knew the old one.
        ask(&mut client, "uid=gone-3");
        assert_eq!(counted(&proxy), (2, 7), "{more}");
        assert_eq!(forget(&proxy, "gone-3"), 200);
        assert_eq!(counted(&proxy), (1, 7), "{more}");
    }
}

#[test]
fn forget_command_covers_what_is_still_in_the_journal() {
    let site = Site::start();
    let redis = Redis::start();
    for more in [String::new(), format!("store: {}\n", redis.url())] {
        let proxy = Proxy::start(&site.routes(&more));
        let mut client = proxy.client();
        ask(&mut client, "uid=first");
        for number in 0..5 {
            ask(&mut client, &format!("uid=gone-{number}"));
            let done = Command::new(BINARY)
                .args(["forget", "--user", &format!("gone-{number}"), "-c"])
                .arg(proxy.file())
                .output()
                .unwrap();
            let errors = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(done.status.success(), "{errors}");
        }
        assert_eq!(counted(&proxy), (1, 6), "{more}");
        ask(&mut client, "uid=gone-1");
        assert_eq!(counted(&proxy), (2, 7), "{more}");
    }
}

#[test]
fn user_forgotten_at_one_replica_does_not_come_back_from_another_ones_journal() {
    let site = Site::start();
    let redis = Redis::start();
    let routes = site.routes(&format!("store: {}\n", redis.url()));
    let (here, there) = (Proxy::start(&routes), Proxy::start(&routes));
    // Both of them know the experiment, and the one that falls behind knows who was forgotten.
    ask(&mut here.client(), "uid=stays");
    ask(&mut there.client(), "uid=stays-too");
    until("both users", || {
        match (counted(&here).0, counted(&there).0) {
            (2, 2) => Ok(()),
            users => Err(users),
        }
    });
    let mut client = there.client();
    // What the store does not know yet: that a minted ID and a known one are the same person's.
    let minted = ask(&mut client, "other=1").expect("a minted ID");
    ask(&mut client, &minted);
    ask(&mut client, &format!("{minted}; uid=gone"));
    ask(&mut client, "uid=gone");
    there.signal("STOP");
    assert_eq!(forget(&here, "gone"), 200);
    there.signal("CONT");
    let users = || counted(&there).0;
    until("what was behind", || {
        let (users, requests) = counted(&there);
        if requests == 6 {
            Ok(users)
        } else {
            Err((users, requests))
        }
    });
    assert_eq!(users(), 2);
    is_unknown(&here, "gone");
    ask(&mut client, "uid=gone");
    assert_eq!(users(), 3);
}

#[test]
fn forget_fails_while_the_store_is_unavailable() {
    let site = Site::start();
    let mut redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let proxy = Proxy::start(&site.routes(&format!("store: {}\n", redis.url())));
    let mut client = proxy.client();
    ask(&mut client, "uid=user");
    assert_eq!(counted(&proxy).0, 1);
    redis.kill();
    assert_eq!(forget(&proxy, "user"), 503);
    redis.up();
    assert_eq!(counted(&proxy).0, 1);
    assert_eq!(forget(&proxy, "user"), 200);
    assert_eq!(counted(&proxy).0, 0);
}

/// What the store keeps of who was forgotten cannot be tested with guessed IDs, and what earlier
/// versions kept still holds.
#[test]
fn forgotten_users_are_kept_by_a_keyed_digest_in_every_store() {
    let (folder, redis) = (TempDir::new().unwrap(), Redis::start());
    let postgres = Postgres::start();
    let path = folder.path().join("counts.db");
    let old_digest = |mut user: &[u8]| {
        let digest = murmur3::murmur3_x64_128(&mut user, 0).unwrap();
        format!("{digest:032x}")
    };
    let later_ms = 4_000_000_000_000_u64;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let check = async |store: &dyn Store, keep_old: &dyn Fn(String)| {
        for experiment in ["one", "two"] {
            store.shards(experiment).await.unwrap();
            for user in [&b"ann"[..], b"bob"] {
                let forget = store.forget_user(experiment, user, later_ms);
                forget.await.unwrap();
            }
        }
        keep_old(old_digest(b"eve"));
        for experiment in ["one", "two"] {
            let forgotten = store.forgotten(experiment, 0).await.unwrap();
            assert_eq!(forgotten.version, 2);
            let users = [&b"ann"[..], b"bob", b"joe"];
            let expected = [later_ms, later_ms, 0];
            assert_eq!(users.map(|user| forgotten.until_ms(user)), expected);
        }
        let forgotten = store.forgotten("one", 0).await.unwrap();
        assert_eq!(forgotten.until_ms(b"eve"), later_ms, "{}", store.kind());
    };
    let (members, rows, third) = runtime.block_on(async {
        let url = redis.url();
        let store = RedisStore::connect(&url, TlsFiles::default(), "ws").await;
        let keep_old = |digest: String| {
            let later_ms = later_ms.to_string();
            let words = ["ZADD", "ws:{one:0}:forgotten", &later_ms, &digest];
            redis.command(&words).unwrap();
        };
        check(&store.unwrap(), &keep_old).await;
        let members = ["one", "two"]
            .map(|it| redis.command(&["ZRANGE", &format!("ws:{{{it}:0}}:forgotten"), "0", "-1"]));
        let store = SqliteStore::open(&path).unwrap();
        let file = || Connection::open(&path).unwrap();
        let keep_old = |digest: String| {
            let sql = "INSERT INTO forgotten VALUES ('one', ?, ?)";
            let values = rusqlite::params![digest, later_ms as i64];
            file().execute(sql, values).unwrap();
        };
        check(&store, &keep_old).await;
        let rows = ["one", "two"].map(|it| {
            let file = file();
            let sql = "SELECT user FROM forgotten WHERE experiment = ?";
            let mut select = file.prepare(sql).unwrap();
            let rows = select.query_map([it], |row| row.get(0)).unwrap();
            rows.collect::<Result<Vec<String>, _>>().unwrap().join(" ")
        });
        let keep_old = |digest: String| {
            let number = "(SELECT number FROM watershed.experiments WHERE name = 'one')";
            let sql = format!(
                "INSERT INTO watershed.forgotten VALUES ({number}, '{digest}', {later_ms})"
            );
            postgres.sql(&sql).unwrap();
        };
        check(&shop(&postgres), &keep_old).await;
        let third = ["one", "two"].map(|it| {
            let number = format!("(SELECT number FROM watershed.experiments WHERE name = '{it}')");
            let sql = format!("SELECT entry FROM watershed.forgotten WHERE experiment = {number}");
            postgres.sql(&sql).unwrap().concat().join(" ")
        });
        (members.map(Result::unwrap), rows, third)
    });
    for kept in members.iter().chain(&rows).chain(&third) {
        assert_eq!(kept.matches("key:").count(), 1, "{kept}");
        assert_eq!(kept.matches("hmac:").count(), 2, "{kept}");
        for user in [&b"ann"[..], b"bob"] {
            assert!(!kept.contains(&old_digest(user)), "{kept}");
        }
    }
}
