//! Who is recorded, as whom, what else is known of them, and how they are forgotten. Over real
//! sockets, through the real program, in both houses.

use crate::support::client::{Answer, Client};
use crate::support::origin::Origin as Site;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::redis::Redis;
use serde_json::{Value, json};
use std::process::Command;
use watershed::experiment::key_ring::KeyRing;
use watershed::experiment::minted::{self, Origin};

/// A proxy between two versions, with these lines more.
struct House {
    proxy: Proxy,
    redis: Option<Redis>,
    _origins: [Site; 2],
}

impl House {
    fn start(redis: Option<Redis>, lines: &str) -> House {
        let origins = [Site::start("control"), Site::start("b")];
        let store = redis
            .as_ref()
            .map_or(String::new(), |redis| format!("store: {}\n", redis.url()));
        let routes = format!(
            "{store}user: {{ cookie: uid }}\n{lines}upstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\nexperiments: {{ shop: {{ match: {{ path: /shop/** }}, control: a, b: b, percent: 50 }} }}\nmetrics:\n  purchase: {{ event: purchase, kind: count }}\n  revenue: {{ event: purchase, value: amount, kind: mean }}\n  per_request: {{ event: purchase, value: amount, kind: ratio, per: requests }}\n",
            origins[0].address, origins[1].address
        )
        .replace("control: a, b: b, percent: 50", "groups: { control: { weight: 50, upstream: a }, b: { weight: 50, upstream: b } }");
        House {
            proxy: Proxy::start(&routes),
            redis,
            _origins: origins,
        }
    }

    /// The sums of both groups: users, purchases, cents.
    fn counted(&self) -> (u64, u64, i64) {
        let results = self.proxy.results();
        let experiment = &results["experiments"][0];
        let sum = |of: &dyn Fn(usize) -> f64| of(0) + of(1);
        let users = sum(&|group| experiment["groups"][group]["users"].as_f64().unwrap());
        let of = |metric: usize, what: &'static str| {
            let groups = &experiment["metrics"][metric]["groups"];
            sum(&|group| groups[group][what].as_f64().unwrap())
        };
        (
            users as u64,
            of(0, "count") as u64,
            (of(1, "sum") * 100.0).round() as i64,
        )
    }

    /// Reports what a browser would.
    fn beacon(&self, headers: &str, body: &Value) -> Answer {
        let body = body.to_string();
        self.proxy
            .client()
            .post("/_watershed/events", headers, &body)
    }

    fn admin(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut client = Client::admin(self.proxy.admin);
        let length = body.len();
        client
            .say(format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nContent-Type: application/json\r\n{headers}\r\n{body}"
            ))
            .unwrap();
        client.answer(true).unwrap()
    }

    fn everything_in_redis(&self) -> String {
        let redis = self.redis.as_ref().unwrap();
        let keys = redis.command(&["KEYS", "*"]).unwrap();
        let mut all = keys.clone();
        for key in ["users", "waiting", "waiting-since", "identities"] {
            let key = format!("ws:{{shop:0}}:{key}");
            for words in [["HGETALL", &key], ["ZRANGE", &key]] {
                let mut words = words.to_vec();
                if words[0] == "ZRANGE" {
                    words.extend(["0", "-1"]);
                }
                all.push_str(&redis.command(&words).unwrap_or_default());
            }
        }
        all
    }
}

fn both(check: impl Fn(Option<Redis>)) {
    check(None);
    check(Some(Redis::start()));
}

#[test]
fn browser_events_count_for_exposed_users() {
    both(|redis| {
        let house = House::start(
            redis,
            "events: { origins: [ \"https://other.example\" ], body: 4KiB, per_minute: 50 }\n",
        );
        let exposed = "Cookie: uid=exposed\r\n";
        house.proxy.client().get("/shop/", exposed);
        let event = json!({"event": "purchase", "amount": 19.9, "id": "order-1"});
        let taken = house.beacon(exposed, &event);
        assert_eq!(
            (taken.status, taken.json()),
            (
                202,
                json!({"accepted": 1, "unknown": [], "refused": [], "unused": []})
            )
        );
        // The same again, and in a list, and as the browser's beacon says it.
        house.beacon(exposed, &event);
        house.beacon(
            &format!("{exposed}Content-Type: text/plain;charset=UTF-8\r\n"),
            &json!([event, {"event": "purchase", "amount": 0.1, "id": "order-2"}, {"event": "nonsense"}]),
        );
        // Without an ID each counts.
        for _ in 0..2 {
            house.beacon(exposed, &json!({"event": "purchase", "amount": 1}));
        }
        // Somebody who is in no experiment.
        let stranger = house.beacon("Cookie: uid=stranger\r\n", &event);
        assert_eq!(stranger.status, 202);
        assert_eq!(house.counted(), (1, 4, 1990 + 10 + 200));
        let refused = [
            (house.beacon("", &event), 403),
            (house.beacon(exposed, &json!(7)), 400),
            (house.beacon(exposed, &json!([{"event": 1}])), 400),
            (house.beacon(exposed, &json!("x".repeat(5000))), 413),
            (
                house.beacon(
                    &format!("{exposed}Origin: https://evil.example\r\n"),
                    &event,
                ),
                403,
            ),
            (house.proxy.client().get("/_watershed/events", exposed), 405),
        ];
        for (answer, status) in refused {
            assert_eq!(answer.status, status, "{}", answer.text());
            assert!(answer.json()["error"].is_string());
        }
        for (origin, allowed) in [
            ("https://other.example", Some("https://other.example")),
            ("http://site.test", None),
        ] {
            let told = house.beacon(&format!("{exposed}Origin: {origin}\r\n"), &event);
            assert_eq!(told.status, 202, "{origin}");
            assert_eq!(told.header("access-control-allow-origin"), allowed);
        }
        let mut asking = house.proxy.client();
        asking
            .say("OPTIONS /_watershed/events HTTP/1.1\r\nHost: site.test\r\nOrigin: https://other.example\r\nAccess-Control-Request-Method: POST\r\n\r\n")
            .unwrap();
        let told = asking.answer(false).unwrap();
        assert_eq!(told.status, 204);
        assert_eq!(
            told.header("access-control-allow-credentials"),
            Some("true")
        );
        let many: Vec<_> = (0..60).map(|_| json!({"event": "purchase"})).collect();
        assert_eq!(
            house.beacon("Cookie: uid=busy\r\n", &json!(many)).status,
            429
        );
        assert_eq!(house.counted(), (1, 4, 2200));
    });
}

#[test]
fn server_events_with_a_key_count_once() {
    both(|redis| {
        let house = House::start(redis, "");
        for user in ["u1", "u2"] {
            let cookie = format!("Cookie: uid={user}\r\n");
            house.proxy.client().get("/shop/", &cookie);
        }
        let batch = json!([
            {"event": "purchase", "amount": 5, "user": "u1"},
            {"event": "purchase", "amount": 7, "user": "u2", "id": "order-7"},
            {"event": "purchase", "amount": 9, "user": "never-seen"},
            {"event": "refund", "user": "u1"},
        ])
        .to_string();
        let key = "Idempotency-Key: batch-1\r\n";
        for _ in 0..3 {
            let taken = house.admin("POST", "/admin/events", key, &batch);
            assert_eq!(
                (taken.status, taken.json()),
                (
                    202,
                    json!({"accepted": 3, "unknown": ["refund"], "refused": [], "unused": []})
                )
            );
        }
        // Another key, and the order is known again by its own ID.
        house.admin(
            "POST",
            "/admin/events",
            "Idempotency-Key: batch-2\r\n",
            &batch,
        );
        assert_eq!(house.counted(), (2, 3, 500 + 700 + 500));
        let nobody = house.admin(
            "POST",
            "/admin/events",
            "",
            r#"[{"event":"purchase","user":"u1"},{"event":"purchase"}]"#,
        );
        assert_eq!(nobody.status, 400);
        assert_eq!(nobody.json()["error"], "event 1: `user` is missing");
        // Nothing of an unsound report counts; what a ratio is divided by is requests, not reports.
        let results = house.proxy.results();
        let ratio = &results["experiments"][0]["metrics"][2]["groups"];
        let rates: f64 = [0, 1]
            .map(|group| ratio[group]["rate"].as_f64().unwrap_or(0.0))
            .iter()
            .sum();
        assert!(
            (rates - 17.0).abs() < 1e-9 || (rates - 8.5).abs() < 1e-9,
            "{ratio}"
        );
        assert_eq!(house.counted().1, 3);
    });
}

#[test]
fn login_keeps_the_user_in_one_group() {
    both(|redis| {
        let house = House::start(redis, "");
        let version =
            |headers: &str| house.proxy.client().get("/shop/", headers).json()["version"].clone();
        for number in 0..20 {
            let first = house.proxy.client().get("/shop/", "");
            let group = first.json()["version"].clone();
            let minted = first
                .header("set-cookie")
                .unwrap()
                .split(';')
                .next()
                .unwrap()
                .to_owned();
            // Logging in: both arrive.
            let both = format!("Cookie: {minted}; uid=person-{number}\r\n");
            assert_eq!(version(&both), group);
            house
                .proxy
                .client()
                .get("/shop/buy?event=purchase;amount=1.00", &both);
            // Elsewhere, only the user's ID is known, and what it did before is joined, too.
            house.proxy.client().get(
                "/other?event=purchase;amount=0.50",
                &format!("Cookie: uid=person-{number}\r\n"),
            );
            // Their bank knows them by that.
            let paid =
                json!({"event": "purchase", "amount": 0.25, "user": format!("person-{number}")});
            house.admin("POST", "/admin/events", "", &paid.to_string());
        }
        assert_eq!(house.counted(), (20, 60, 20 * 175));
        let results = house.proxy.results();
        assert_eq!(results["experiments"][0]["crossed_over"], 0);
        let known = house.proxy.ask("/admin/assignments?user=person-3").json();
        assert_eq!(known["experiments"][0]["recorded"]["events"]["purchase"], 3);
    });
}

#[test]
fn nothing_is_recorded_without_consent() {
    both(|redis| {
        let house = House::start(redis, "consent: { cookie: cc, value: \"*stats*\" }\n");
        for number in 0..30 {
            for cc in ["", "; cc=necessary"] {
                let headers = format!("Cookie: uid=u{number}{cc}\r\n");
                let answer = house.proxy.client().get("/shop/?event=purchase", &headers);
                let said = answer.json();
                assert_eq!(said["version"], "control");
                assert!(
                    !said["headers"].to_string().contains("watershed-"),
                    "{said}"
                );
            }
            assert!(
                house
                    .proxy
                    .client()
                    .get("/shop/", "")
                    .header("set-cookie")
                    .is_none()
            );
        }
        let quiet = house.beacon("Cookie: uid=u1\r\n", &json!({"event": "purchase"}));
        assert_eq!(quiet.json()["accepted"], 0);
        assert_eq!(house.counted(), (0, 0, 0));
        let mut versions = std::collections::BTreeSet::new();
        for number in 0..30 {
            let headers = format!("Cookie: uid=u{number}; cc=all,stats\r\n");
            let said = house
                .proxy
                .client()
                .get("/shop/?event=purchase", &headers)
                .json();
            versions.insert(said["version"].to_string());
        }
        assert_eq!((house.counted(), versions.len()), ((30, 30, 0), 2));
    });
}

#[test]
fn only_hashed_ids_are_stored_and_users_can_be_forgotten() {
    let house = House::start(
        Some(Redis::start()),
        "identity: { store: hashed, key: 0123456789abcdef, keys: [ fedcba9876543210 ] }\n",
    );
    for number in 0..20 {
        let headers = format!("Cookie: uid=customer-{number}\r\n");
        house
            .proxy
            .client()
            .get("/shop/?event=purchase;amount=2", &headers);
        house.proxy.client().get(
            "/?event=purchase;amount=1",
            &format!("Cookie: uid=stranger-{number}\r\n"),
        );
    }
    let keys = KeyRing::new("identity", b"fedcba9876543210", []);
    let minted = minted::write(&keys, b"minted-1", Origin::Minted);
    let minted = String::from_utf8(minted).unwrap();
    let joined = format!("Cookie: watershed_id={minted}; uid=customer-1\r\n");
    house.proxy.client().get("/shop/", &joined);
    assert_eq!(house.counted(), (20, 20, 4000));
    let kept = house.everything_in_redis();
    assert!(kept.contains("revenue:1:200:0"), "{kept}");
    for raw in ["customer", "stranger", "minted"] {
        assert!(!kept.contains(raw), "{raw} stands in {kept}");
    }
    for entry in walk(&house.proxy.folder.path().join("watershed-journal")) {
        let bytes = std::fs::read(&entry).unwrap();
        let raw = bytes.windows(8).any(|window| window == b"customer");
        assert!(!raw, "an ID stands in {}", entry.display());
    }
    // They are known by what they are called outside.
    let known = house.proxy.ask("/admin/assignments?user=customer-3").json();
    assert_eq!(known["experiments"][0]["recorded"]["events"]["purchase"], 1);

    let forget = |user: &str| {
        let file = house.proxy.file();
        let words = ["forget", "--user", user, "-c", file.to_str().unwrap()];
        let done = Command::new(BINARY).args(words).output().unwrap();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8(done.stdout).unwrap()
    };
    assert_eq!(forget("customer-3"), "shop: forgotten\n");
    assert_eq!(forget("customer-3"), "the store does not know this user\n");
    assert_eq!(forget("stranger-3"), "shop: forgotten\n");
    // By any of their IDs.
    let done = house.admin("DELETE", "/admin/assignments?user=minted-1", "", "");
    assert_eq!(done.json(), json!({"forgotten": ["shop"]}));
    assert_eq!(house.counted(), (18, 18, 3600));
    let known = house.proxy.ask("/admin/assignments?user=customer-1").json();
    assert_eq!(known["experiments"][0]["recorded"], Value::Null);
    let aliases = house
        .redis
        .as_ref()
        .unwrap()
        .command(&["HLEN", "ws:{shop:0}:identities"]);
    assert_eq!(aliases.unwrap(), "int(0)");
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(walk(&path)),
            false => files.push(path),
        }
    }
    files
}
