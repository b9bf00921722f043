//! What clients can do with IDs: attacks on the real program, over both paths of a request and in
//! both stores.

use crate::support::client::{Answer, Client};
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::redis::Redis;
use crate::support::tools;
use crate::support::until;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use watershed::experiment::key_ring::KeyRing;
use watershed::experiment::minted::{self, Origin as From};

const KEY: &str = "a key of this test, and no other";
const OLD_KEY: &str = "a key that was here before";

/// What the rest of the file says: the second takes requests off the fast path.
const PATHS: [&str; 2] = ["", "timeouts: { total: 60s }\n"];

struct Site {
    proxy: Proxy,
    redis: Option<Redis>,
    origins: [Origin; 2],
}

impl Site {
    fn start(redis: Option<Redis>, lines: &str) -> Site {
        let origins = [Origin::start("a"), Origin::start("b")];
        let keys = format!("identity: {{ keys: [ \"{KEY}\" ] }}\n{lines}");
        Site {
            proxy: Proxy::start(&routes(redis.as_ref(), &origins, &keys)),
            redis,
            origins,
        }
    }

    fn get(&self, path: &str, cookie: &str) -> Answer {
        get(&mut self.proxy.client(), path, cookie)
    }

    fn experiment(&self) -> Value {
        self.proxy.results()["experiments"][0].clone()
    }

    /// Users, IDs that were joined, further IDs on shared devices.
    fn counted(&self) -> [u64; 3] {
        let experiment = self.experiment();
        let groups = experiment["groups"].as_array().unwrap();
        let users = groups.iter().map(|group| group["users"].as_u64().unwrap());
        let of = |name: &str| experiment[name].as_u64().unwrap();
        [users.sum(), of("joined"), of("shared_devices")]
    }

    fn purchases_of(&self, user: &str) -> u64 {
        self.proxy.results();
        let path = format!("/admin/assignments?user={user}");
        let known = self.proxy.ask(&path).json();
        let recorded = &known["experiments"][0]["recorded"]["events"]["purchase"];
        recorded.as_u64().unwrap_or(0)
    }
}

fn routes(redis: Option<&Redis>, origins: &[Origin; 2], lines: &str) -> String {
    let store = redis.map_or(String::new(), |redis| format!("store: {}\n", redis.url()));
    let [a, b] = origins.each_ref().map(|origin| origin.address);
    format!(
        "{store}{lines}user: {{ cookie: uid }}\nupstreams: {{ a: \"http://{a}\", b: \"http://{b}\" }}\nexperiments: {{ shop: {{ match: {{ path: /shop/** }}, groups: {{ control: {{ weight: 50, upstream: a }}, b: {{ weight: 50, upstream: b }} }} }} }}\nmetrics: {{ purchase: {{ event: purchase, kind: count }} }}\n"
    )
}

fn get(client: &mut Client, path: &str, cookie: &str) -> Answer {
    client.get(path, &format!("Cookie: {cookie}\r\n"))
}

/// The cookie that this site would give.
fn cookie(key: &str, id: &str, origin: From) -> String {
    let value = minted::write(
        &KeyRing::new("identity", key.as_bytes(), []),
        id.as_bytes(),
        origin,
    );
    format!("watershed_id={}", String::from_utf8(value).unwrap())
}

fn given(answer: &Answer) -> Option<&str> {
    answer.header("set-cookie")?.split(';').next()
}

/// On both paths and in both stores.
fn everywhere(check: impl Fn(Site)) {
    for lines in PATHS {
        check(Site::start(None, lines));
        check(Site::start(Some(Redis::start()), lines));
    }
}

#[test]
fn forged_cookie_joins_no_user() {
    let wrong_tag = format!("evil.{}", "A".repeat(22));
    everywhere(|site| {
        let mut client = site.proxy.client();
        // Sent without a tag it is an ID of 0.1.0, which keeps its group and is given a tag of its
        // kind; that is sent on. A wrong tag is as good as no cookie.
        let first = get(&mut client, "/shop/", "watershed_id=evil");
        let laundered = given(&first).unwrap().to_owned();
        assert_eq!(laundered, cookie(KEY, "evil", From::Old));
        let again = get(&mut client, "/shop/", &laundered);
        assert_eq!(given(&again), None);
        assert_eq!(again.json()["version"], first.json()["version"]);
        let new = get(&mut client, "/shop/", &format!("watershed_id={wrong_tag}"));
        assert!(given(&new).is_some_and(|given| !given.contains("evil")));
        // The new ID has not come back.
        assert_eq!(site.counted(), [1, 0, 0]);
        let forged = ["evil", &wrong_tag, &laundered["watershed_id=".len()..]];
        // "0" would be no ID.
        for number in 1..=300 {
            let value = forged[number % 3];
            let both = format!("watershed_id={value}; uid={number}");
            let answer = get(&mut client, "/shop/?event=purchase", &both);
            let headers = answer.json()["headers"].to_string();
            assert!(
                headers.contains(&format!("[\"watershed-user\",\"{number}\"]")),
                "{headers}"
            );
        }
        assert_eq!(site.counted(), [301, 0, 0]);
        assert_eq!(site.purchases_of("300"), 1);
        assert_eq!(site.purchases_of("evil"), 0);
    });
}

#[test]
fn users_on_a_shared_device_stay_separate() {
    everywhere(|site| {
        let mut tablet = site.proxy.client();
        let first = tablet.get("/shop/?event=purchase", "");
        let minted = given(&first).unwrap().to_owned();
        let group = first.json()["version"].clone();
        for number in 0..30 {
            let both = format!("{minted}; uid=customer-{number}");
            for _ in 0..2 {
                let answer = get(&mut tablet, "/shop/?event=purchase", &both);
                assert_eq!(answer.json()["version"], group);
                assert_eq!(given(&answer), None);
            }
        }
        // Logged out again, the device is the first one's.
        get(&mut tablet, "/shop/?event=purchase", &minted);
        assert_eq!(site.counted(), [30, 1, 29]);
        assert_eq!(site.experiment()["crossed_over"], 0);
        assert_eq!(site.purchases_of("customer-0"), 4);
        assert_eq!(site.purchases_of("customer-7"), 2);
        let id = minted.split(['=', '.']).nth(1).unwrap();
        assert_eq!(site.purchases_of(id), 4);
        until("a warning", || {
            let log = site.proxy.log.lock().unwrap().clone();
            let said = log.matches("one device has brought 10 user IDs").count();
            (said == 1).then_some(()).ok_or(log)
        });
        let page = Client::admin(site.proxy.admin).get("/admin/results", "Accept: text/html\r\n");
        let url = format!("http://{}", site.proxy.admin);
        let words = ["results", "--url", &url];
        let done = Command::new(BINARY).args(words).output().unwrap();
        for shown in [page.text(), String::from_utf8(done.stdout).unwrap()] {
            assert!(shown.contains("29 further user IDs"), "{shown}");
        }
    });
}

#[test]
fn guessed_ids_absorb_a_minted_id_once() {
    everywhere(|site| {
        for victim in 0..20 {
            site.get("/shop/?event=purchase", &format!("uid=victim-{victim}"));
        }
        let attacker = cookie(KEY, "attacker", From::Minted);
        for _ in 0..5 {
            site.get("/shop/?event=purchase", &attacker);
        }
        for victim in 0..20 {
            // Nothing that counts for the victim: only that both came together.
            site.get("/other", &format!("{attacker}; uid=victim-{victim}"));
            site.get("/shop/", &format!("{attacker}; uid=victim-{victim}"));
        }
        assert_eq!(site.counted(), [20, 1, 19]);
        let purchases = (0..20).map(|victim| site.purchases_of(&format!("victim-{victim}")));
        let purchases: Vec<u64> = purchases.collect();
        assert_eq!((purchases[0], &purchases[1..]), (6, &[1; 19][..]));
    });
}

/// IDs that lead to one another would be chains; there are none.
#[test]
fn aliases_never_form_a_chain() {
    everywhere(|site| {
        let device = |number: usize| cookie(KEY, &format!("m{number}"), From::Minted);
        for number in 0..40 {
            site.get("/shop/", &device(number));
        }
        let known = |number: usize| match number % 3 {
            // A minted ID that is given for a known one.
            0 => format!("m{}", (number * 7) % 40),
            other => format!("u{}", (number * other) % 5),
        };
        for number in 0..120 {
            let both = format!("{}; uid={}", device(number % 40), known(number));
            site.get("/shop/", &both);
        }
        // By the clock, as the program does it.
        let (mut by, mut absorbers) = (BTreeMap::new(), Vec::new());
        let mut further = std::collections::BTreeSet::new();
        for number in 0..120 {
            let (minted, known) = (format!("m{}", number % 40), known(number));
            if minted == known || by.contains_key(&known) {
                continue;
            }
            match by.get(&minted) {
                Some(absorber) if *absorber != known => {
                    further.insert(known);
                }
                None if !absorbers.contains(&minted) && !further.contains(&minted) => {
                    absorbers.push(known.clone());
                    by.insert(minted, known);
                }
                _ => {}
            }
        }
        let users = (0..40)
            .map(|number| format!("m{number}"))
            .chain((0..120).map(known));
        let users = users.map(|id| by.get(&id).cloned().unwrap_or(id));
        let users = users.collect::<std::collections::BTreeSet<_>>().len() as u64;
        assert_eq!(
            site.counted(),
            [users, by.len() as u64, further.len() as u64]
        );
        let Some(redis) = &site.redis else { return };
        let kept = redis.command(&["HVALS", "ws:{shop:0}:identities"]).unwrap();
        for absorber in absorbers {
            let role = redis.command(&["HGET", "ws:{shop:0}:identities", &absorber]);
            let role = role.unwrap();
            assert!(!role.contains('='), "{absorber} is {role} in {kept}");
        }
    });
}

#[test]
fn malformed_cookies_are_ignored() {
    let good = cookie(KEY, "m1", From::Minted);
    let tag = good.split('.').nth(1).unwrap().to_owned();
    let odd = [
        format!(".{tag}"),
        "m1.".to_owned(),
        ".".to_owned(),
        "..".to_owned(),
        format!("m1.x.{tag}"),
        format!("m1..{tag}"),
        format!("m1.{tag}.{tag}"),
        format!("m1.{}", tag.to_uppercase()),
        format!("m1.{tag}=="),
        format!("m1.0{tag}"),
        format!("m2.{tag}"),
        format!("m1.{}", &tag[1..]),
        "x".repeat(8000),
        format!("{}.{tag}", "x".repeat(8000)),
        format!("m1.{}", "x".repeat(8000)),
        format!("m1.{}", ".".repeat(8000)),
        // Longer than `identity.max_length`, and signed by this very site.
        cookie(KEY, &"m".repeat(257), From::Minted)["watershed_id=".len()..].to_owned(),
    ];
    for lines in PATHS {
        let site = Site::start(None, lines);
        let mut client = site.proxy.client();
        for value in &odd {
            let answer = get(&mut client, "/shop/", &format!("watershed_id={value}"));
            assert_eq!(answer.status, 200);
            let given = given(&answer).unwrap_or_else(|| panic!("{value} was taken"));
            let id = given["watershed_id=".len()..].split('.').next().unwrap();
            assert!(uuid::Uuid::parse_str(id).is_ok(), "{value}: {given}");
            assert_eq!(answer.all("set-cookie").len(), 1);
            // Beside a known ID it is nothing.
            let both = format!("watershed_id={value}; uid=u1");
            let answer = get(&mut client, "/shop/", &both);
            let alone = get(&mut client, "/shop/", "uid=u1");
            assert_eq!(answer.json()["version"], alone.json()["version"]);
            assert_eq!(answer.header("set-cookie"), None, "{value}");
        }
        // No new ID came back.
        assert_eq!(site.counted(), [1, 0, 0]);
        assert_eq!(site.experiment()["seen_once"], odd.len());
    }
}

#[test]
fn key_rotation_keeps_users() {
    for lines in PATHS {
        let site = Site::start(None, lines);
        let serve = |keys: &str| {
            let text = format!("identity: {{ keys: {keys} }}\n{lines}");
            site.proxy.write(&routes(None, &site.origins, &text));
        };
        let ids: Vec<String> = (0..10).map(|number| format!("m{number}")).collect();
        let groups: Vec<Value> = ids
            .iter()
            .map(|id| site.get("/shop/", &cookie(KEY, id, From::Minted)).json()["version"].clone())
            .collect();
        serve(&format!("[ \"another key, a newer one\", \"{KEY}\" ]"));
        for origin in [From::Minted, From::Old] {
            let old = cookie(KEY, "m0", origin);
            let new = cookie("another key, a newer one", "m0", origin);
            until("the new key", || {
                let answer = site.get("/shop/", &old);
                (given(&answer) == Some(&new)).then_some(()).ok_or(answer)
            });
            assert_eq!(given(&site.get("/shop/", &new)), None);
        }
        for (id, group) in ids.iter().zip(&groups) {
            let answer = site.get("/shop/", &cookie(KEY, id, From::Minted));
            assert_eq!(answer.json()["version"], *group);
        }
        // A key that never was here, and one that is here no more.
        let stranger = site.get("/shop/", &cookie(OLD_KEY, "m0", From::Minted));
        assert!(!given(&stranger).unwrap().contains("m0."));
        serve("[ \"another key, a newer one\" ]");
        until("the old key to go", || {
            let answer = site.get("/shop/", &cookie(KEY, "m0", From::Minted));
            let is_new = given(&answer).is_some_and(|given| !given.contains("m0."));
            is_new.then_some(()).ok_or(answer)
        });
    }
}

#[test]
fn stored_key_survives_a_restart() {
    let origins = [Origin::start("a"), Origin::start("b")];
    let text = routes(None, &origins, "");
    let mut proxy = Proxy::start(&text);
    let first = proxy.client().get("/shop/", "");
    let minted = given(&first).unwrap().to_owned();
    proxy.kill();
    proxy.again(&text);
    let again = get(&mut proxy.client(), "/shop/", &minted);
    assert_eq!(given(&again), None);
    assert_eq!(again.json()["version"], first.json()["version"]);
}

#[test]
fn http2_reads_and_sets_the_same_cookie() {
    let site = Site::start(None, "");
    let ask = |cookie: &str| {
        let url = format!("http://{}/shop/", site.proxy.public);
        let words = ["--http2-prior-knowledge", "-sS", "-i", "-H", cookie, &url];
        let done = tools::command("curl").args(words).output().unwrap();
        assert!(done.status.success());
        let answer = String::from_utf8(done.stdout).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let version = serde_json::from_str::<Value>(body).unwrap()["version"].clone();
        (head.to_owned(), version)
    };
    let minted = cookie(KEY, "m1", From::Minted);
    let group = site.get("/shop/", &minted).json()["version"].clone();
    let (answer, version) = ask(&format!("Cookie: {minted}; uid=u1"));
    assert!(!answer.contains("set-cookie"), "{answer}");
    assert_eq!(version, group);
    let (old, _) = ask("Cookie: watershed_id=evil; uid=u1");
    assert!(old.contains(&cookie(KEY, "evil", From::Old)), "{old}");
    let (wrong, _) = ask("Cookie: watershed_id=m1.x");
    assert!(wrong.contains("set-cookie: watershed_id="), "{wrong}");
    assert!(!wrong.contains("watershed_id=m1"), "{wrong}");
    // m1 (which u1 absorbed); the new one has not come back.
    assert_eq!(site.counted(), [1, 1, 0]);
    assert_eq!(site.experiment()["seen_once"], 1);
}

#[test]
fn pasted_cookie_is_accepted_as_an_id() {
    let site = Site::start(None, "");
    let first = site.get("/shop/", "other=1");
    let minted = given(&first).unwrap().to_owned();
    let value = &minted["watershed_id=".len()..];
    let id = value.split('.').next().unwrap();
    let report = json!({"event": "purchase", "user": value}).to_string();
    let mut admin = Client::admin(site.proxy.admin);
    let json = "Content-Type: application/json\r\n";
    assert_eq!(admin.post("/admin/events", json, &report).status, 202);
    assert_eq!(site.purchases_of(value), 1);
    assert_eq!(site.purchases_of(id), 1);
    let path = format!("/admin/assignments?user={value}");
    let explained = site.proxy.ask(&path).json();
    assert_eq!(explained["user"], id);
    let file = site.proxy.file();
    let run = |words: &[&str]| {
        let words = [words, &["-c", file.to_str().unwrap()]].concat();
        let done = Command::new(BINARY).args(words).output().unwrap();
        assert!(done.status.success());
        String::from_utf8(done.stdout).unwrap()
    };
    let by_id = run(&["explain", "--user", id]);
    assert_eq!(run(&["explain", "--user", value]), by_id);
    assert_eq!(run(&["forget", "--user", value]), "shop: forgotten\n");
    assert_eq!(site.counted(), [0, 0, 0]);
}

#[test]
fn cookie_beside_a_known_id_is_ignored_without_join() {
    for lines in PATHS {
        let origins = [Origin::start("a"), Origin::start("b")];
        let keys = format!("identity: {{ join: false, keys: [ \"{KEY}\" ] }}\n{lines}");
        let site = Site {
            proxy: Proxy::start(&routes(None, &origins, &keys)),
            redis: None,
            origins,
        };
        let alone = site.get("/shop/", "uid=u1").json()["version"].clone();
        for number in 0..8 {
            let minted = cookie(KEY, &format!("m{number}"), From::Minted);
            site.get("/shop/", &minted);
            let both = site.get("/shop/", &format!("{minted}; uid=u1"));
            assert_eq!(both.json()["version"], alone);
        }
        assert_eq!(site.counted(), [9, 0, 0]);
    }
}
