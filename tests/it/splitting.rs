//! The main job: split, forward, record, report; over real sockets, through the real program.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Two versions of a site, and routes that split between them.
fn site(more: &str) -> (Origin, Origin, String) {
    let (current, redesign) = (Origin::start("current"), Origin::start("redesign"));
    let routes = routes(&current, &redesign, more);
    (current, redesign, routes)
}

fn routes(current: &Origin, redesign: &Origin, more: &str) -> String {
    format!(
        "upstreams: {{ current: \"http://{}\", redesign: \"http://{}\" }}\n\
         user: [ {{ cookie: uid }}, {{ header: X-User }}, {{ query: u }} ]\n\
         metrics:\n  purchase: POST /checkout -> 2xx\n  signup: {{ event: signup }}\n  revenue: {{ event: purchase, value: amount, kind: mean }}\n{more}",
        current.address, redesign.address
    )
}

const HALF: &str = "experiments: { new-site: { control: current, experiment: redesign, percent: 50, min_duration: 0s } }\n";

fn version(answer: &crate::support::client::Answer) -> String {
    answer.json()["version"].as_str().unwrap().to_owned()
}

fn group<'a>(results: &'a Value, name: &str) -> &'a Value {
    let groups = results["experiments"][0]["groups"].as_array().unwrap();
    groups.iter().find(|group| group["name"] == name).unwrap()
}

fn metric<'a>(results: &'a Value, metric: &str, group: &str) -> &'a Value {
    let named = |list: &'a Value, name: &str| {
        list.as_array()
            .unwrap()
            .iter()
            .find(|item| item["name"] == name)
            .unwrap()
    };
    named(
        &named(&results["experiments"][0]["metrics"], metric)["groups"],
        group,
    )
}

#[test]
fn users_are_split_and_events_count_once() {
    let (_current, _redesign, routes) = site(HALF);
    let proxy = Proxy::start(&routes);
    let mut client = proxy.client();
    let mut users: BTreeMap<&str, u64> = BTreeMap::new();
    let mut revenue: BTreeMap<&str, (u64, f64)> = BTreeMap::new();
    for number in 0..200 {
        let user = format!("Cookie: a=b; uid=user-{number}\r\n");
        let version = version(&client.get("/", &user));
        assert_eq!(
            version,
            self::version(&client.get("/x", &user)),
            "a user sees one version"
        );
        let group = if version == "current" {
            "control"
        } else {
            "experiment"
        };
        *users.entry(group).or_default() += 1;
        if number % 3 == 0 {
            client.get(
                &format!("/?event=purchase;amount={number}.25,%20signup"),
                &user,
            );
            let answer = client.get("/?event=purchase;amount=1", &user);
            assert_eq!(
                answer.header("watershed-event"),
                None,
                "events are not for the client"
            );
            let of = revenue.entry(group).or_default();
            (of.0, of.1) = (of.0 + 1, of.1 + f64::from(number) + 1.25);
            client.post("/checkout", &user, "");
            client.post("/checkout?status=500", &user, "");
        }
    }
    let results = proxy.results();
    for name in ["control", "experiment"] {
        let (buyers, sum) = revenue[name];
        assert!((60..140).contains(&users[name]), "{users:?}");
        assert_eq!(group(&results, name)["users"], users[name]);
        assert_eq!(
            group(&results, name)["requests"],
            2 * users[name] + 4 * buyers
        );
        assert_eq!(group(&results, name)["responses"]["5xx"], buyers);
        assert!(group(&results, name)["latency_ms"]["p99"].as_f64().unwrap() > 0.0);
        assert_eq!(metric(&results, "purchase", name)["converted"], buyers);
        assert_eq!(metric(&results, "purchase", name)["count"], buyers);
        assert_eq!(metric(&results, "signup", name)["converted"], buyers);
        assert_eq!(metric(&results, "revenue", name)["count"], 2 * buyers);
        assert!((metric(&results, "revenue", name)["sum"].as_f64().unwrap() - sum).abs() < 1e-9);
        let rate = metric(&results, "purchase", name)["rate"].as_f64().unwrap();
        assert!((rate - buyers as f64 / users[name] as f64).abs() < 1e-12);
    }
    let experiment = &results["experiments"][0];
    assert_eq!(experiment["verdict"]["state"], "collecting");
    assert!(
        experiment["verdict"]["reason"]
            .as_str()
            .unwrap()
            .contains("too early"),
        "{experiment:#}"
    );
    assert_eq!(experiment["sample_ratio"]["mismatch"], false);
    assert!(
        experiment["metrics"][0]["method"]
            .as_str()
            .unwrap()
            .contains("always valid")
    );
    for (format, says) in [
        ("text", "too early"),
        ("csv", "new-site,running,control"),
        ("html", "<!doctype html>"),
    ] {
        assert!(
            proxy
                .ask(&format!("/admin/results?format={format}"))
                .text()
                .contains(says),
            "{format}"
        );
    }
    assert_eq!(
        proxy.ask("/admin/results/new-site").json()["experiments"][0]["name"],
        "new-site"
    );
    assert_eq!(proxy.ask("/admin/results/other").status, 404);
}

#[test]
fn ids_come_from_the_first_source_or_are_minted() {
    let (_current, _redesign, routes) = site(HALF);
    let proxy = Proxy::start(&routes);
    let user = |path: &str, headers: &str| {
        let said = proxy.client().get(path, headers).json();
        let lines = said["headers"].as_array().unwrap().clone();
        lines
            .iter()
            .find(|line| line[0] == "watershed-user")
            .map(|line| line[1].as_str().unwrap().to_owned())
    };
    assert_eq!(
        user("/?u=c", "X-User: b\r\nCookie: uid=a\r\n").as_deref(),
        Some("a")
    );
    assert_eq!(
        user("/?u=c", "X-User: b\r\nCookie: uid=\r\n").as_deref(),
        Some("b"),
        "an empty ID is none"
    );
    assert_eq!(user("/?u=c%2Fd", "").as_deref(), Some("c/d"));
    let long = format!("Cookie: uid={}\r\nX-User: b\r\n", "x".repeat(257));
    assert_eq!(
        user("/", &long).as_deref(),
        Some("b"),
        "a long ID is refused, not cut"
    );

    let answer = proxy.client().get("/", "");
    let cookie = answer.header("set-cookie").unwrap();
    let minted = cookie.strip_prefix("watershed_id=").unwrap();
    let (value, _) = minted.split_once(';').unwrap();
    let (id, _) = value.split_once('.').unwrap();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);
    assert!(
        cookie.ends_with("; Path=/; Max-Age=31536000; SameSite=Lax; HttpOnly"),
        "{cookie}"
    );
    assert_eq!(answer.header("cache-control"), Some("private"));
    assert_eq!(answer.header("vary"), Some("cookie, x-user"));
    let again = proxy
        .client()
        .get("/", &format!("Cookie: watershed_id={value}\r\n"));
    assert_eq!(again.header("set-cookie"), None);
    assert_eq!(version(&again), version(&answer));
}

#[test]
fn minted_cookie_is_secure_over_tls() {
    let (_current, _redesign, routes) = site(&format!("{HALF}trust: [ 127.0.0.1 ]\n"));
    let proxy = Proxy::start(&routes);
    let cookie = |headers: &str| {
        proxy
            .client()
            .get("/", headers)
            .header("set-cookie")
            .unwrap()
            .to_owned()
    };
    assert!(cookie("X-Forwarded-Proto: https\r\n").ends_with("; HttpOnly; Secure"));
    assert!(cookie("X-Forwarded-Proto: http\r\n").ends_with("; HttpOnly"));
    assert!(cookie("X-Forwarded-Proto: https, http\r\n").ends_with("; HttpOnly; Secure"));
    assert!(cookie("X-Forwarded-Proto: http, https\r\n").ends_with("; HttpOnly"));
    let forwarded = "Forwarded: for=\"[2001:db8::1]:80\";proto=https\r\n";
    assert!(cookie(forwarded).ends_with("; HttpOnly; Secure"));
    // Browsers refuse the other form.
    let none = format!("{routes}identity: {{ same_site: None }}\n");
    let answer = Proxy::start(&none).client().get("/", "");
    let cookie = answer.header("set-cookie").unwrap();
    assert!(
        cookie.contains("; SameSite=None") && cookie.ends_with("; Secure"),
        "{cookie}"
    );
}

#[test]
fn kill_loses_no_record() {
    for redis in [None, Some(Redis::start())] {
        let store = redis
            .as_ref()
            .map(|redis| format!("store: {}\n", redis.url()))
            .unwrap_or_default();
        let (_current, _redesign, routes) = site(&format!("{HALF}{store}"));
        let mut proxy = Proxy::start(&routes);
        let mut answered = 0;
        for _ in 0..4 {
            let mut client = proxy.client();
            for _ in 0..150 {
                answered += 1;
                client.get(
                    "/?event=signup",
                    &format!("X-User: user-{}\r\n", answered % 40),
                );
            }
            proxy.kill();
            proxy.again(&routes);
        }
        let results = proxy.results();
        let sum =
            |of: fn(&Value, &str) -> u64| of(&results, "control") + of(&results, "experiment");
        assert_eq!(
            sum(|results, name| group(results, name)["requests"].as_u64().unwrap()),
            answered
        );
        assert_eq!(
            sum(|results, name| group(results, name)["users"].as_u64().unwrap()),
            40
        );
        assert_eq!(
            sum(|results, name| metric(results, "signup", name)["count"].as_u64().unwrap()),
            answered
        );
    }
}

#[test]
fn requests_count_after_redis_returns() {
    let mut redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (_current, _redesign, routes) = site(&format!("{HALF}store: {}\n", redis.url()));
    let proxy = Proxy::start(&routes);
    let mut client = proxy.client();
    let mut serve = |from: usize| {
        for number in from..from + 100 {
            assert_eq!(
                client.get("/", &format!("X-User: u{number}\r\n")).status,
                200
            );
        }
    };
    serve(0);
    proxy.results();
    redis.kill();
    serve(100);
    until("an unhealthy store", || {
        match proxy
            .log
            .lock()
            .unwrap()
            .contains("the store is unavailable")
        {
            true => Ok(()),
            false => Err(()),
        }
    });
    redis.up();
    serve(200);
    // Everything is lost: the journal still has it.
    let results = proxy.results();
    assert_eq!(
        group(&results, "control")["users"].as_u64().unwrap()
            + group(&results, "experiment")["users"].as_u64().unwrap(),
        300
    );
    redis.command(&["FLUSHALL"]).unwrap();
    serve(300);
    let healed = until("what was lost", || {
        let results = proxy.results();
        let users = group(&results, "control")["users"].as_u64().unwrap()
            + group(&results, "experiment")["users"].as_u64().unwrap();
        if users == 400 {
            Ok(results)
        } else {
            Err(users)
        }
    });
    assert_eq!(healed["store"]["kind"], "redis");
}

#[test]
fn winner_in_the_file_serves_everybody() {
    let (current, redesign, before) = site(HALF);
    let after = routes(
        &current,
        &redesign,
        "experiments: { new-site: { control: current, experiment: redesign, percent: 50, winner: experiment } }\n",
    );
    let proxy = Proxy::start(&before);
    let mut client = proxy.client();
    for number in 0..50 {
        client.get("/", &format!("X-User: u{number}\r\n"));
    }
    let counted = proxy.results();
    proxy.write(&after);
    until("the winner", || {
        let versions: BTreeSet<String> = (0..50)
            .map(|number| version(&client.get("/", &format!("X-User: u{number}\r\n"))))
            .collect();
        if versions == BTreeSet::from(["redesign".to_owned()]) {
            Ok(())
        } else {
            Err(versions)
        }
    });
    let requests = |results: &Value| {
        group(results, "control")["requests"].as_u64().unwrap()
            + group(results, "experiment")["requests"].as_u64().unwrap()
    };
    let promoted = proxy.results();
    for number in 0..50 {
        client.get("/?event=signup", &format!("X-User: u{number}\r\n"));
    }
    let later = proxy.results();
    assert_eq!(later["experiments"][0]["status"], "promoted");
    assert_eq!(requests(&later), requests(&promoted), "recording stops");
    assert_eq!(
        group(&later, "control")["users"],
        group(&counted, "control")["users"],
        "the results are kept"
    );

    proxy.write("upstreams: { current: nonsense }\nexperimnts: {}\n");
    until("a word about the unsound file", || {
        let error = proxy.results()["store"]["reload_error"].clone();
        if error
            .as_str()
            .is_some_and(|error| error.contains("experimnts"))
        {
            Ok(())
        } else {
            Err(error)
        }
    });
    assert_eq!(
        version(&client.get("/", "X-User: 1\r\n")),
        "redesign",
        "an unsound file changes nothing"
    );
    proxy.write(&before);
    proxy.signal("HUP");
    until("the reload", || {
        if proxy.results()["store"]["reload_error"].is_null() {
            Ok(())
        } else {
            Err(())
        }
    });
}

#[test]
fn override_forces_a_group_and_is_not_counted() {
    let overrides = "overrides: { secret: 0123456789abcdef0123 }\n";
    let (_current, _redesign, routes) = site(&format!("{HALF}{overrides}"));
    let proxy = Proxy::start(&routes);
    let file = proxy.file();
    let token = |arguments: &[&str]| {
        let made = Command::new(BINARY)
            .arg("override")
            .args(arguments)
            .args(["-c", file.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    };
    let (control, experiment) = (
        token(&["new-site", "control"]),
        token(&["new-site", "experiment"]),
    );
    let mut client = proxy.client();
    for number in 0..20 {
        let user = format!("X-User: u{number}\r\n");
        let by = |client: &mut Client, path: &str, token: &str| {
            client.get(path, &format!("{user}{token}"))
        };
        assert_eq!(
            version(&by(
                &mut client,
                "/?event=signup",
                &format!("Watershed-Override: {control}\r\n")
            )),
            "current"
        );
        assert_eq!(
            version(&by(
                &mut client,
                "/",
                &format!("Cookie: a=1; watershed_override={experiment}; b=2\r\n")
            )),
            "redesign"
        );
        let answer = by(
            &mut client,
            &format!("/p?x=1&watershed_override={experiment}&y=2"),
            "",
        );
        assert_eq!(version(&answer), "redesign");
        let cookie = answer.header("set-cookie").unwrap();
        assert!(
            cookie.starts_with(&format!(
                "watershed_override={experiment}; Path=/; Max-Age=28"
            )),
            "{cookie}"
        );
        assert_eq!(
            answer.json()["target"],
            "/p?x=1&y=2",
            "the token stays here"
        );
    }
    let stale = token(&["new-site", "experiment", "--ttl", "0s"]);
    let forged = experiment.replace("v1.", "v1.9");
    for bad in [&stale, &forged, "nonsense", ""] {
        for number in 0..20 {
            let user = format!("X-User: u{number}\r\n");
            let hashed = version(&client.get("/", &user));
            let answer = client.get(
                "/",
                &format!("{user}Cookie: a=1; watershed_override={bad}\r\n"),
            );
            assert_eq!(version(&answer), hashed);
            let said = answer.json();
            let cookies = said["headers"]
                .as_array()
                .unwrap()
                .iter()
                .find(|line| line[0] == "cookie")
                .unwrap();
            assert_eq!(cookies[1], "a=1");
        }
    }
    let results = proxy.results();
    let requests = group(&results, "control")["requests"].as_u64().unwrap()
        + group(&results, "experiment")["requests"].as_u64().unwrap();
    assert_eq!(requests, 4 * 20 * 2, "forced visits are not counted");
    assert_eq!(metric(&results, "signup", "control")["count"], 0);
}

#[test]
fn unavailable_upstream_falls_back_to_control() {
    let (current, redesign, _) = site("");
    let down = redesign.address;
    drop(redesign);
    let routes = format!(
        "upstreams: {{ current: \"http://{}\", redesign: \"http://{down}\" }}\nuser: {{ header: X-User }}\nmetrics: {{ signup: {{ event: signup }} }}\n{HALF}",
        current.address
    );
    let proxy = Proxy::start(&routes);
    let mut client = proxy.client();
    for number in 0..100 {
        assert_eq!(
            version(&client.get("/?event=signup", &format!("X-User: u{number}\r\n"))),
            "current"
        );
    }
    let results = proxy.results();
    let control = group(&results, "control")["requests"].as_u64().unwrap();
    assert_eq!(group(&results, "experiment")["fallbacks"], 100 - control);
    assert_eq!(group(&results, "experiment")["users"], 0);
    assert_eq!(metric(&results, "signup", "control")["count"], control);
}

#[test]
fn assignments_are_explained() {
    let (_current, _redesign, routes) = site(
        "experiments: { new-site: { control: current, experiment: redesign, percent: 50, traffic: 50% } }\n",
    );
    let proxy = Proxy::start(&routes);
    let mut seen = BTreeSet::new();
    for number in 0..60 {
        let served = version(&proxy.client().get("/", &format!("X-User: u{number}\r\n")));
        let told = proxy
            .ask(&format!("/admin/assignments?user=u{number}"))
            .json()["experiments"][0]
            .clone();
        let explained = Command::new(BINARY)
            .args([
                "explain",
                "--user",
                &format!("u{number}"),
                "-c",
                proxy.file().to_str().unwrap(),
            ])
            .output()
            .unwrap();
        let explained = String::from_utf8(explained.stdout).unwrap();
        let group = told["group"].as_str().unwrap_or("no group");
        assert_eq!(served == "redesign", group == "experiment");
        assert!(
            explained.starts_with(&format!("new-site: {group}")),
            "{explained}"
        );
        assert!(
            explained.contains(told["why"].as_str().unwrap()),
            "{explained}"
        );
        seen.insert(group.to_owned());
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    proxy.results();
    let inside = (0..60).find_map(|number| {
        let told = proxy
            .ask(&format!("/admin/assignments?user=u{number}"))
            .json()["experiments"][0]
            .clone();
        (!told["group"].is_null()).then_some(told)
    });
    let inside = inside.unwrap();
    assert_eq!(inside["recorded"]["group"], inside["group"]);
    assert_eq!(proxy.ask("/admin/assignments").status, 400);
}

#[test]
fn users_stay_in_their_groups() {
    let (_current, _redesign, routes) = site(
        "experiments: { new-site: { control: current, experiment: redesign, percent: 20, min_duration: 0s } }\n",
    );
    let proxy = Proxy::start(&routes);
    let mut client = proxy.client();
    let mut versions: Vec<Option<String>> = vec![None; 1000];
    for round in 0..10 {
        for (user, seen) in versions.iter_mut().enumerate() {
            let now = version(&client.get("/", &format!("Cookie: uid=soak-{user}\r\n")));
            assert_eq!(
                *seen.get_or_insert(now.clone()),
                now,
                "user {user} in round {round}"
            );
        }
    }
    let results = proxy.results();
    let experiment = group(&results, "experiment")["users"].as_u64().unwrap();
    assert_eq!(
        experiment + group(&results, "control")["users"].as_u64().unwrap(),
        1000
    );
    assert!((160..240).contains(&experiment), "{experiment}");
    assert_eq!(results["experiments"][0]["crossed_over"], 0);
}

#[test]
fn stop_finishes_requests_and_ingests_all_records() {
    let (_current, _redesign, routes) = site(HALF);
    let mut proxy = Proxy::start(&routes);
    let mut client = proxy.client();
    client
        .say("GET /?sleep_ms=500 HTTP/1.1\r\nHost: a\r\nX-User: 1\r\n\r\n")
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    proxy.signal("TERM");
    assert_eq!(client.answer(true).unwrap().status, 200);
    assert!(proxy.wait().success());
    proxy.again(&routes);
    let results = proxy.results();
    assert_eq!(
        group(&results, "control")["users"].as_u64().unwrap()
            + group(&results, "experiment")["users"].as_u64().unwrap(),
        1
    );
}
