//! Who is admitted to experiments, and who stays in a group: over real sockets, in both stores.

use crate::support::client::{Answer, Client};
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::redis::Redis;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// A proxy before four versions of a site: `a`, `b`, `c` and `d`.
struct Site {
    proxy: Proxy,
    head: String,
    _redis: Option<Redis>,
    _origins: [Origin; 4],
}

const KEY: &str = "identity: { keys: [ 0123456789abcdef0123 ] }\n";

impl Site {
    fn start(redis: Option<Redis>, lines: &str) -> Site {
        let origins = ["a", "b", "c", "d"].map(Origin::start);
        let [a, b, c, d] = origins.each_ref().map(|origin| origin.address);
        let store = redis
            .as_ref()
            .map_or(String::new(), |it| format!("store: {}\n", it.url()));
        let head = format!(
            "{store}user: [ {{ cookie: uid }}, {{ header: X-User }} ]\ndefault: d\nupstreams: {{ a: \"http://{a}\", b: \"http://{b}\", c: \"http://{c}\", d: \"http://{d}\" }}\nmetrics: {{ purchase: {{ event: purchase, kind: count }} }}\n"
        );
        Site {
            proxy: Proxy::start(&format!("{head}{lines}")),
            head,
            _redis: redis,
            _origins: origins,
        }
    }

    /// Replaces what follows the head of the file. Returns once it is served.
    fn load(&self, lines: &str) {
        self.proxy.write(&format!("{}{lines}", self.head));
        let answer = Client::admin(self.proxy.admin).post("/admin/reload", "", "");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    fn get(&self, path: &str, headers: &str) -> Answer {
        self.proxy.client().get(path, headers)
    }

    fn version(&self, path: &str, user: &str) -> String {
        version(&self.get(path, &format!("X-User: {user}\r\n")))
    }

    fn explain(&self, arguments: &[&str]) -> String {
        let file = self.proxy.file();
        let run = Command::new(BINARY)
            .arg("explain")
            .args(arguments)
            .args(["-c", file.to_str().unwrap()])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.status.success(), "{error}");
        String::from_utf8(run.stdout).unwrap()
    }

    fn experiment(&self, name: &str) -> Value {
        let results = self.proxy.results();
        let experiments = results["experiments"].as_array().unwrap();
        let named = experiments.iter().find(|it| it["name"] == name);
        named.unwrap().clone()
    }

    /// By group: users, and events of the first metric.
    fn counted(&self, name: &str) -> BTreeMap<String, (u64, u64)> {
        let experiment = self.experiment(name);
        let groups = experiment["groups"].as_array().unwrap().iter();
        let metric = experiment["metrics"][0]["groups"].as_array().unwrap();
        groups
            .zip(metric)
            .map(|(group, metric)| {
                let name = group["name"].as_str().unwrap().to_owned();
                let users = group["users"].as_u64().unwrap();
                (name, (users, metric["count"].as_u64().unwrap()))
            })
            .collect()
    }
}

fn both(lines: &str, check: impl Fn(Site)) {
    check(Site::start(None, lines));
    check(Site::start(Some(Redis::start()), lines));
}

fn version(answer: &Answer) -> String {
    answer.json()["version"].as_str().unwrap().to_owned()
}

/// The users' browsers, each with the cookies that it was given.
struct Browsers(BTreeMap<usize, BTreeMap<String, String>>);

impl Browsers {
    /// Users of the file's cookie.
    fn new(count: usize) -> Browsers {
        let own = |number| [("uid".to_owned(), format!("user-{number}"))].into();
        Browsers((0..count).map(|number| (number, own(number))).collect())
    }

    fn get(&mut self, site: &Site, number: usize, path: &str) -> String {
        let jar = self.0.get_mut(&number).unwrap();
        let pairs: Vec<String> = jar
            .iter()
            .map(|(name, it)| format!("{name}={it}"))
            .collect();
        let answer = site.get(path, &format!("Cookie: {}\r\n", pairs.join("; ")));
        for cookie in answer.all("set-cookie") {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            jar.insert(name.to_owned(), value.to_owned());
        }
        version(&answer)
    }

    fn all(&mut self, site: &Site, path: &str) -> Vec<String> {
        let numbers: Vec<usize> = self.0.keys().copied().collect();
        numbers.iter().map(|&it| self.get(site, it, path)).collect()
    }
}

/// One experiment between `a` and `b`, on the whole site.
fn shop(keys: &str, weights: [u32; 2]) -> String {
    let [control, experiment] = weights;
    format!(
        "{KEY}experiments: {{ shop: {{ {keys}groups: {{ control: {{ weight: {control}, upstream: a }}, experiment: {{ weight: {experiment}, upstream: b }} }} }} }}\n"
    )
}

#[test]
fn sticky_users_stay_through_changes_of_weights_and_traffic_and_new_ones_follow_them() {
    both(&shop("sticky: true, ", [50, 50]), |site| {
        let mut browsers = Browsers::new(60);
        let before = browsers.all(&site, "/");
        assert!(before.contains(&"a".to_owned()) && before.contains(&"b".to_owned()));
        for lines in [
            shop("sticky: true, ", [1, 999]),
            shop("sticky: true, traffic: 1%, ", [999, 1]),
            shop("sticky: true, enrolment: closed, ", [1, 1]),
        ] {
            site.load(&lines);
            assert_eq!(browsers.all(&site, "/"), before, "{lines}");
        }
        // Nobody new is admitted now: they get the default.
        assert_eq!(site.version("/", "new-1"), "d");
        let of = |version| before.iter().filter(|it| **it == version).count() as u64;
        let counted = site.counted("shop");
        assert_eq!(
            (counted["control"].0, counted["experiment"].0),
            (of("a"), of("b"))
        );
        let experiment = site.experiment("shop");
        assert_eq!(experiment["crossed_over"], 0);
        // They are in the epoch that put them there.
        assert_eq!(experiment["epochs"].as_array().unwrap().len(), 1);
        site.load(&shop("sticky: true, ", [1, 999]));
        let new: Vec<String> = (0..30)
            .map(|it| site.version("/", &format!("new-{it}")))
            .collect();
        assert!(new.iter().filter(|it| *it == "b").count() >= 28, "{new:?}");
    });
}

#[test]
fn cookie_of_groups_is_ignored_when_forged_stale_or_another_users() {
    let site = Site::start(None, &shop("sticky: true, ", [50, 50]));
    let mut browsers = Browsers::new(40);
    let before = browsers.all(&site, "/");
    let cookie = |number: usize| browsers.0[&number]["watershed_groups"].clone();
    assert!(cookie(0).contains("~shop:"), "{}", cookie(0));
    site.load(&shop("sticky: true, ", [1, 99_999]));
    let ask = |user: usize, cookie: &str| {
        let cookie = format!("Cookie: uid=user-{user}; watershed_groups={cookie}\r\n");
        site.get("/", &cookie)
    };
    let control: Vec<usize> = (0..40).filter(|&it| before[it] == "a").collect();
    let (one, other) = (control[0], control[1]);
    assert_eq!(version(&ask(one, &cookie(one))), "a");
    // The upstream never gets it.
    let headers = ask(one, &cookie(one)).json()["headers"].to_string();
    assert!(!headers.contains("watershed_groups"), "{headers}");
    let forged = cookie(one).replace("control", "experiment");
    let tag = cookie(one).split('~').next().unwrap().to_owned();
    for wrong in [
        cookie(other),
        forged,
        cookie(one).replace(&tag, "AAAAAAAAAAAAAAAAAAAAAA"),
        tag,
        String::new(),
        "~".to_owned(),
        "x".repeat(5000),
    ] {
        let answer = ask(one, &wrong);
        assert_eq!(version(&answer), "b", "{wrong}");
        // A valid one replaces it.
        assert!(
            answer
                .header("set-cookie")
                .unwrap()
                .starts_with("watershed_groups=")
        );
    }
    // Another salt is another experiment.
    site.load(&shop("sticky: true, salt: other, ", [1, 99_999]));
    assert_eq!(version(&ask(one, &cookie(one))), "b");
    // Keys can be rotated: an older one verifies, and the cookie is signed anew.
    let rotated = shop("sticky: true, ", [1, 99_999]).replace(
        "0123456789abcdef0123",
        "another-secret-of-ours, 0123456789abcdef0123",
    );
    site.load(&rotated);
    let answer = ask(one, &cookie(one));
    assert_eq!(version(&answer), "a");
    let again = answer.header("set-cookie").unwrap();
    assert!(
        again.starts_with("watershed_groups=") && !again.contains(&cookie(one)),
        "{again}"
    );
    assert_eq!(
        ask(one, &again[17..again.find(';').unwrap()]).header("set-cookie"),
        None
    );
    // Without `sticky`, the cookie says nothing, and nobody gets one.
    site.load(&shop("", [1, 99_999]));
    assert_eq!(version(&ask(one, &cookie(one))), "b");
    assert_eq!(ask(one, "").header("set-cookie"), None);
}

#[test]
fn sticky_users_stay_in_their_experiment_when_another_comes_before_it() {
    let two = |first: &str, second: &str| {
        let named = |name: &str, upstream: &str| {
            format!(
                "{name}: {{ sticky: true, groups: {{ control: {{ weight: 1, upstream: {upstream} }}, experiment: {{ weight: 1, upstream: {upstream} }} }} }}"
            )
        };
        let all: Vec<String> = [(first, first), (second, second)]
            .into_iter()
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, upstream)| named(name, upstream))
            .collect();
        format!("{KEY}experiments: {{ {} }}\n", all.join(", "))
    };
    let site = Site::start(None, &two("b", ""));
    let mut browsers = Browsers::new(5);
    assert_eq!(browsers.all(&site, "/"), ["b"; 5]);
    site.load(&two("a", "b"));
    assert_eq!(browsers.all(&site, "/"), ["b"; 5]);
    assert_eq!(site.version("/", "new"), "a");
}

#[test]
fn exposure_begins_where_the_file_says() {
    let lines = "experiments: { shop: { expose: /checkout, groups: { control: { weight: 1, upstream: a }, experiment: { weight: 1, upstream: b } } } }\n";
    let hour_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    both(lines, |site| {
        for user in 0..10 {
            let user = format!("u{user}");
            let first = site.version("/", &user);
            // Long before: the clocks of replicas may differ by seconds.
            let event = format!("/about?event=purchase;at=%22{hour_ago}%22");
            assert_eq!(site.version(&event, &user), first);
        }
        let users = |counted: &BTreeMap<String, (u64, u64)>| {
            counted
                .values()
                .fold((0, 0), |all, of| (all.0 + of.0, all.1 + of.1))
        };
        assert_eq!(users(&site.counted("shop")), (0, 0));
        let explained = site.explain(&["--request", "GET /about", "-H", "X-User: u1"]);
        assert!(explained.contains("not exposed yet"), "{explained}");
        site.version("/checkout", "u1");
        // What came before the exposure does not count; what comes behind it does, on every page.
        site.version("/?event=purchase", "u1");
        assert_eq!(users(&site.counted("shop")), (1, 1));
        let explained = site.explain(&["--request", "GET /checkout", "-H", "X-User: u1"]);
        assert!(!explained.contains("not exposed yet"), "{explained}");
    });
}

#[test]
fn experiments_of_a_layer_exclude_each_other_and_a_new_one_moves_nobody() {
    let one = |name: &str, upstream: &str, traffic: &str| {
        format!(
            "{name}: {{ layer: page, traffic: {traffic}, groups: {{ control: {{ weight: 1, upstream: {upstream} }}, experiment: {{ weight: 1, upstream: {upstream} }} }} }}"
        )
    };
    let all = |experiments: &[String]| format!("experiments: {{ {} }}\n", experiments.join(", "));
    let (first, second) = (one("first", "a", "30%"), one("second", "b", "40%"));
    let site = Site::start(None, &all(&[first.clone(), second.clone()]));
    let users: Vec<String> = (0..200).map(|number| format!("u{number}")).collect();
    let versions = || -> Vec<String> { users.iter().map(|it| site.version("/", it)).collect() };
    let before = versions();
    let count = |of: &[String], name: &str| of.iter().filter(|it| *it == name).count();
    // Five standard deviations.
    assert!((28..=92).contains(&count(&before, "a")), "{before:?}");
    assert!((46..=114).contains(&count(&before, "b")), "{before:?}");
    assert!((28..=92).contains(&count(&before, "d")), "{before:?}");
    site.load(&all(&[first, second, one("third", "c", "30%")]));
    let after = versions();
    for (was, is) in before.iter().zip(&after) {
        assert_eq!(if was == "d" { "c" } else { was }, is);
    }
    let outside = before.iter().position(|it| it == "a").unwrap();
    let explained = site.explain(&["--user", &users[outside]]);
    assert!(
        explained.contains("second: no group\n  the user's slot in layer page is not among the 40 % of this experiment"),
        "{explained}"
    );
}

#[test]
fn holdout_sees_no_experiment_and_holdback_keeps_control() {
    let lines = |more: &str| {
        format!(
            "holdout: {{ share: 20%, experiments: [ shop ] }}\nexperiments: {{ shop: {{ {more}groups: {{ control: {{ weight: 1, upstream: a }}, experiment: {{ weight: 1, upstream: b }} }} }} }}\n"
        )
    };
    let site = Site::start(None, &lines(""));
    let users: Vec<String> = (0..100).map(|number| format!("u{number}")).collect();
    let versions = || -> Vec<String> { users.iter().map(|it| site.version("/", it)).collect() };
    let before = versions();
    let held: Vec<usize> = (0..100).filter(|&it| before[it] == "d").collect();
    assert!((5..=40).contains(&held.len()), "{before:?}");
    let explained = site.explain(&["--user", &users[held[0]]]);
    assert!(
        explained.contains("the user is in the holdout"),
        "{explained}"
    );
    let counted = site.counted("shop");
    let sum: u64 = counted.values().map(|(users, _)| users).sum();
    assert_eq!(sum, 100 - held.len() as u64);
    site.load(&lines("winner: experiment, holdback: 25%, "));
    let after = versions();
    for (place, version) in after.iter().enumerate() {
        assert_eq!(version == "d", held.contains(&place), "{after:?}");
    }
    let back = after.iter().position(|it| it == "a").unwrap();
    assert!(
        (5..=40).contains(&after.iter().filter(|it| *it == "a").count()),
        "{after:?}"
    );
    let explained = site.explain(&["--user", &users[back]]);
    assert!(explained.contains("(holdback)"), "{explained}");
    let sum: u64 = site.counted("shop").values().map(|(users, _)| users).sum();
    assert_eq!(sum, 100 - held.len() as u64);
}

#[test]
fn experiment_requires_a_group_of_another_one() {
    let lines = "experiments:\n  first: { groups: { control: { weight: 1 }, experiment: { weight: 1 } } }\n  second: { requires: { first: experiment }, groups: { control: { weight: 1, upstream: a }, experiment: { weight: 1, upstream: b } } }\n";
    let site = Site::start(None, lines);
    let mut inside = 0;
    for number in 0..40 {
        let user = format!("u{number}");
        let answer = site.get("/", &format!("X-User: {user}\r\n")).json();
        let is_required = answer["headers"].to_string().contains("first=experiment");
        assert_eq!(answer["version"] != "d", is_required, "{answer}");
        inside += usize::from(is_required);
        let explained = site.explain(&["--user", &user]);
        let reason = "the user is not in experiment of first, which this experiment requires";
        assert_eq!(explained.contains(reason), !is_required, "{explained}");
    }
    assert!((5..=35).contains(&inside));
}

#[test]
fn included_users_get_their_group_and_are_not_counted() {
    let site = Site::start(None, &shop("", [1, 1]));
    let ids = site.proxy.file().with_file_name("testers.txt");
    std::fs::write(&ids, "# testers\nann\nbob\n").unwrap();
    site.load(&shop(
        "include: { experiment: file:testers.txt, control: [ cleo ] }, traffic: 0%, ",
        [1, 1],
    ));
    let asked = ["ann", "bob", "cleo", "dora"].map(|user| site.version("/?event=purchase", user));
    assert_eq!(asked, ["b", "b", "a", "d"]);
    let counted = site.counted("shop");
    assert!(counted.values().all(|of| *of == (0, 0)), "{counted:?}");
    assert!(
        site.explain(&["--user", "ann"])
            .contains("(include); not counted")
    );
    // The file is watched.
    std::fs::write(&ids, "dora\n").unwrap();
    crate::support::until("the new list", || {
        match ["ann", "dora"].map(|user| site.version("/", user)) {
            [ann, dora] if (&*ann, &*dora) == ("d", "b") => Ok(()),
            other => Err(other),
        }
    });
}

#[test]
fn accounts_are_divided_and_counted_in_place_of_users() {
    let lines = "experiments:\n  team: { bucket_by: { header: X-Account }, groups: { control: { weight: 1, upstream: a }, experiment: { weight: 1, upstream: b } } }\n  page: { groups: { control: { weight: 1 }, experiment: { weight: 1 } } }\n";
    both(lines, |site| {
        let mut versions = Vec::new();
        for account in 0..10 {
            let ask = |user: usize| {
                let headers = format!("X-User: u{user}\r\nX-Account: acme-{account}\r\n");
                site.get("/?event=purchase", &headers)
            };
            let seen: Vec<String> = (0..4).map(|it| version(&ask(10 * account + it))).collect();
            assert!(seen.iter().all(|it| *it == seen[0]), "{seen:?}");
            let answer = ask(10 * account);
            assert!(
                answer.header("vary").unwrap().contains("x-account"),
                "{answer:?}"
            );
            versions.push(seen[0].clone());
        }
        assert!(versions.contains(&"a".to_owned()) && versions.contains(&"b".to_owned()));
        // Without an account, the experiment has no group.
        assert_eq!(site.version("/", "u999"), "d");
        let sum = |name: &str| {
            let counted = site.counted(name);
            counted
                .values()
                .fold((0, 0), |all, of| (all.0 + of.0, all.1 + of.1))
        };
        assert_eq!((sum("team"), sum("page")), ((10, 50), (41, 50)));
        // Servers say whose event it is.
        let post = |body: &str| {
            Client::admin(site.proxy.admin).post(
                "/admin/events",
                "Content-Type: application/json\r\n",
                body,
            )
        };
        let answer =
            post(r#"{"event": "purchase", "user": "acme-1", "bucket_by": "header:x-account"}"#);
        assert_eq!(answer.json()["accepted"], 1, "{}", answer.text());
        let answer = post(r#"{"event": "purchase", "user": "u1", "bucket_by": "header:x-other"}"#);
        let expected = "`bucket_by` of `purchase` names nothing that an experiment divides";
        assert!(answer.text().contains(expected), "{}", answer.text());
        assert_eq!((sum("team"), sum("page")), ((10, 51), (41, 50)));
    });
}

#[test]
fn crossovers_count_for_the_first_group_or_not_at_all() {
    let lines = |crossover: &str, weights| shop(&format!("crossover: {crossover}, "), weights);
    both(&lines("first", [50, 50]), |site| {
        for number in 0..40 {
            site.version("/?event=purchase", &format!("u{number}"));
        }
        let before = site.counted("shop");
        let total: u64 = before.values().map(|(users, _)| users).sum();
        assert_eq!(total, 40);
        // Those of control move.
        site.load(&lines("first", [1, 99_999]));
        for number in 0..40 {
            site.version("/?event=purchase", &format!("u{number}"));
        }
        let crossed = site.experiment("shop")["crossed_over"].as_u64().unwrap();
        assert_eq!(crossed, before["control"].0);
        let counted = site.counted("shop");
        assert_eq!(counted["control"], (crossed, 2 * crossed));
        site.load(&lines("exclude", [1, 99_999]));
        let counted = site.counted("shop");
        assert_eq!(counted["control"], (0, 0));
        assert_eq!(counted["experiment"], (40 - crossed, 2 * (40 - crossed)));
        let experiment = site.experiment("shop");
        assert_eq!(experiment["crossed_over"], crossed);
        assert_eq!(experiment["crossover"], "exclude");
    });
}

#[test]
fn request_is_explained() {
    let lines = "robots: true\nexclude: [ { cookie: { staff: \"1\" } } ]\nexperiments: { shop: { match: /shop/**, groups: { control: { weight: 1, upstream: a }, experiment: { weight: 1, upstream: b } } } }\n";
    let site = Site::start(None, lines);
    let explained = |arguments: &[&str]| site.explain(arguments);
    let robot = explained(&["--request", "GET /shop/", "-H", "User-Agent: Googlebot/2.1"]);
    assert_eq!(
        robot,
        "user: none\nnot counted: a robot\nshop: no group\n  the version of control, and not counted\nupstream: a\n"
    );
    let staff = explained(&["--request", "GET /shop/", "-H", "Cookie: uid=u1; staff=1"]);
    assert!(
        staff.contains("not counted: excluded by the file\n"),
        "{staff}"
    );
    assert!(staff.contains("upstream: a\n"), "{staff}");
    let elsewhere = explained(&["--request", "/about", "--user", "u1"]);
    assert_eq!(
        elsewhere,
        "user: u1\nshop: no group\n  the request does not match\nupstream: d\n"
    );
    for number in 0..10 {
        let user = format!("u{number}");
        let text = explained(&["-r", "GET /shop/x", "-H", &format!("Cookie: uid={user}")]);
        let version = site.version("/shop/x", &user);
        assert!(text.ends_with(&format!("upstream: {version}\n")), "{text}");
    }
}

#[test]
fn unsound_files_are_refused_with_one_sentence() {
    let check = |lines: &str| {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("routes.yaml");
        let head =
            "upstreams: { a: \"http://127.0.0.1:1\", b: \"http://127.0.0.1:2\" }\ndefault: a\n";
        std::fs::write(&file, format!("{head}{lines}")).unwrap();
        let run = Command::new(BINARY)
            .arg("check")
            .arg("-c")
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(run.status.code(), Some(2), "{lines}");
        String::from_utf8(run.stderr).unwrap()
    };
    let two = |first: &str, second: &str| {
        let groups = "groups: { control: { weight: 1, upstream: a }, experiment: { weight: 1, upstream: b } }";
        format!("experiments: {{ x: {{ {first}{groups} }}, y: {{ {second}{groups} }} }}\n")
    };
    for (lines, expected) in [
        (
            two("layer: l, traffic: 70%, ", "layer: l, traffic: 40%, "),
            "want more than 100 % of it: 30 % are free, and this one wants 40 %",
        ),
        (two("layer: l, traffic: 33.33%, ", ""), "in steps of 0.1%"),
        (two("layer: \"a b\", ", ""), "is not a valid name"),
        (
            two(
                "requires: { y: experiment }, ",
                "requires: { x: control }, ",
            ),
            "these experiments require each other",
        ),
        (
            two("requires: { x: control }, ", ""),
            "these experiments require each other",
        ),
        (two("requires: { z: control }, ", ""), "z"),
        (two("requires: { y: contrl }, ", ""), "control"),
        (
            two("enrolment: closed, ", ""),
            "nobody could be known to be inside",
        ),
        (
            two("sticky: true, bucket_by: { header: X-A }, ", ""),
            "the cookie belongs to a browser",
        ),
        (
            two("include: { experiment: file:missing.txt }, ", ""),
            "missing.txt cannot be read",
        ),
        (two("include: { other: [ ann ] }, ", ""), "other"),
        (
            two("holdback: 0%, ", ""),
            "a percentage above 0% and below 100%",
        ),
        (
            format!("holdout: {{ share: 5 }}\n{}", two("", "")),
            "with its sign",
        ),
        (
            format!("holdout: {{ experiments: [ x ] }}\n{}", two("", "")),
            "share",
        ),
        (
            format!(
                "holdout: {{ share: 5%, experiments: [ z ] }}\n{}",
                two("", "")
            ),
            "z",
        ),
        (two("crossover: last, ", ""), "first"),
        (
            two(
                "layer: l, traffic: 10%, bucket_by: { header: X-A }, ",
                "layer: l, traffic: 10%, ",
            ),
            "divide different things",
        ),
        (
            two("match: /a/**, expose: /b/**, ", ""),
            "no request meets both `match` and `expose`",
        ),
        (
            two("expose: { method: HEAD }, ", ""),
            "only HEAD or TRACE requests meet the conditions",
        ),
        (
            two("match: { path: /a, method: [ HEAD, TRACE ] }, ", ""),
            "only HEAD or TRACE requests meet the conditions",
        ),
        (
            two(
                "match: { method: [ HEAD, GET ] }, expose: { method: HEAD }, ",
                "",
            ),
            "only HEAD or TRACE requests meet the conditions",
        ),
        (
            two(
                "layer: l, traffic: 10%, requires: { y: control }, ",
                "layer: l, traffic: 10%, ",
            ),
            "`y` is in the same layer \"l\"",
        ),
        (
            two("requires: { y: control }, ", "winner: experiment, "),
            "the winner of `y` is experiment",
        ),
        (two("allocation: thompson, ", ""), "write `sticky: true`"),
        (
            two("sticky: true, allocation: thompson, ", ""),
            "weights follow the share of users who convert",
        ),
        (
            two("sticky: true, allocation: best, ", ""),
            "fixed, thompson",
        ),
        (
            two("sticky: true, allocation: { least: 60% }, ", ""),
            "from 1% to 50%",
        ),
        (
            two("sticky: true, allocation: { every: 0s }, ", ""),
            "less than 1s",
        ),
    ] {
        let error = check(&lines);
        assert!(error.contains(expected), "{lines}\n{error}");
    }
}

#[test]
fn plan_says_how_many_known_users_would_move() {
    both(&shop("", [1, 1]), |site| {
        let versions: Vec<String> = (0..20)
            .map(|it| site.version("/", &format!("known-{it}")))
            .collect();
        site.proxy.results();
        let control = versions.iter().filter(|it| *it == "a").count();
        let old = site.proxy.file();
        let plan = |lines: &str, more: &[&str]| {
            let new = old.with_file_name("planned.yaml");
            std::fs::write(&new, format!("{}{lines}", site.head)).unwrap();
            let run = Command::new(BINARY)
                .arg("plan")
                .args([&old, &new])
                .args(more)
                .output()
                .unwrap();
            let error = String::from_utf8_lossy(&run.stderr).into_owned();
            assert!(run.status.success(), "{error}");
            String::from_utf8(run.stdout).unwrap()
        };
        let moved = plan(&shop("", [1, 99_999]), &[]);
        let share = 100.0 * control as f64 / 20.0;
        let expected = format!(
            "  of 20 known users:\n  {share:>6.2} %  control (a) -> experiment (b)\n  {:>6.2} %  stay\n",
            100.0 - share
        );
        assert!(moved.contains(&expected), "{moved}\n{expected}");
        let unasked = plan(&shop("", [1, 99_999]), &["--no-store"]);
        assert!(!unasked.contains("known users"), "{unasked}");
        let divided = plan(&shop("bucket_by: { header: X-A }, ", [1, 1]), &[]);
        assert!(
            divided.contains("another bucket_by: a new phase begins"),
            "{divided}"
        );
        let excluded = format!("exclude: [ {{ ids: [ known-0 ] }} ]\n{}", shop("", [1, 1]));
        let excluded = plan(&excluded, &[]);
        assert!(
            excluded.contains("    5.00 %  ") && excluded.contains(" -> outside (excluded)\n"),
            "{excluded}"
        );
        let groups = "groups: { control: { weight: 1, upstream: a }, experiment: { weight: 1, upstream: b } }";
        let both = format!("experiments: {{ first: {{ {groups} }}, ");
        let behind = shop("", [1, 1]).replacen("experiments: { ", &both, 1);
        let behind = plan(&behind, &[]);
        assert!(
            behind.contains(" -> outside (another experiment)\n"),
            "{behind}"
        );
        assert!(behind.contains("first: new\n"), "{behind}");
    });
}

#[test]
fn weights_follow_the_better_group_and_move_nobody() {
    let lines = "buys: { event: buy }";
    let thompson = |more: &str| {
        format!(
            "experiments: {{ shop: {{ sticky: true, metrics: [ buys ], {more}groups: {{ control: {{ weight: 1, upstream: a }}, experiment: {{ weight: 1, upstream: b }} }} }} }}\n"
        )
    };
    for redis in [None, Some(Redis::start())] {
        let site = Site::start(redis, "");
        let head = site
            .head
            .replace("metrics: { ", &format!("metrics: {{ {lines}, "));
        let site = Site { head, ..site };
        site.load(&format!("{KEY}{}", thompson("")));
        let mut browsers = Browsers::new(260);
        let before = browsers.all(&site, "/");
        for (number, version) in before.iter().enumerate() {
            // One in twenty of control, and half of the others.
            if number % if version == "a" { 20 } else { 2 } == 0 {
                browsers.get(&site, number, "/?event=buy");
            }
        }
        site.proxy.results();
        site.load(&format!(
            "{KEY}{}",
            thompson("allocation: { least: 10%, every: 1s }, ")
        ));
        let weights = crate::support::until("other weights", || {
            let experiment = site.experiment("shop");
            let groups = experiment["groups"].as_array().unwrap();
            let weights: Vec<f64> = groups
                .iter()
                .map(|it| it["weight"].as_f64().unwrap())
                .collect();
            if weights[1] > 80.0 {
                Ok(weights)
            } else {
                Err(experiment)
            }
        });
        assert_eq!(weights, [10.0, 90.0]);
        assert_eq!(browsers.all(&site, "/"), before);
        let new: Vec<String> = (0..100)
            .map(|it| site.version("/", &format!("new-{it}")))
            .collect();
        // Five standard deviations of a share of 90 %.
        assert!(new.iter().filter(|it| *it == "b").count() >= 75, "{new:?}");
        let experiment = site.experiment("shop");
        assert_eq!(experiment["crossed_over"], 0);
        assert_eq!(experiment["allocation"], "thompson");
        assert_eq!(
            experiment["epochs"].as_array().unwrap().len(),
            2,
            "{experiment}"
        );
        let group = &experiment["metrics"][0]["groups"][1];
        assert!(
            group["chance_to_beat_control"].is_null() && group["p_value"].is_number(),
            "{group}"
        );
        // A pause ends them.
        let decide = |what: &str| {
            let path = format!("/admin/experiments/shop/{what}");
            let body = r#"{"by": "ann"}"#;
            let done =
                crate::support::client::Client::admin(site.proxy.admin).post(&path, "", body);
            assert_eq!(done.status, 200, "{}", done.text());
        };
        decide("pause");
        site.load(&format!(
            "{KEY}{}",
            thompson("allocation: { least: 10%, every: 1h }, ")
        ));
        decide("resume");
        let experiment = site.experiment("shop");
        let weights = [
            &experiment["groups"][0]["weight"],
            &experiment["groups"][1]["weight"],
        ];
        assert_eq!(weights, [1.0, 1.0]);
        let audit = site.proxy.ask("/admin/acts").json().to_string();
        assert!(
            audit.contains("\"allocate\"") && audit.contains("control 10, experiment 90"),
            "{audit}"
        );
    }
}

#[test]
fn caches_are_told_whom_a_decided_experiment_still_divides() {
    let lines = |more: &str, top: &str| {
        format!(
            "{top}experiments: {{ shop: {{ winner: experiment, {more}groups: {{ control: {{ weight: 1, upstream: a }}, experiment: {{ weight: 1, upstream: b }} }} }} }}\n"
        )
    };
    let site = Site::start(None, &lines("", ""));
    let vary = || {
        site.get("/", "X-User: u1\r\n")
            .header("vary")
            .map(str::to_owned)
    };
    assert_eq!(vary(), None);
    for (more, top) in [
        ("holdback: 5%, ", ""),
        ("bucket_by: { header: X-Account }, ", ""),
        ("", "holdout: { share: 5% }\n"),
    ] {
        site.load(&lines(more, top));
        assert!(vary().unwrap().contains("cookie"), "{more} {top}");
    }
    // A robot's response must not be kept for new visitors, who have no cookie either.
    site.load(&shop("", [1, 1]));
    let robot = site.get("/", "User-Agent: Googlebot/2.1\r\n");
    assert_eq!(robot.header("cache-control"), Some("private"));
}

#[test]
fn reports_of_robots_and_staff_do_not_count() {
    let lines = format!(
        "exclude: [ {{ header: {{ X-Staff: true }} }} ]\n{}",
        shop("", [1, 1])
    );
    let site = Site::start(None, &lines);
    site.get("/", "Cookie: uid=bea\r\n");
    let report = |headers: &str| {
        let headers = format!("Cookie: uid=bea\r\n{headers}");
        let body = r#"{"event": "purchase"}"#;
        site.proxy
            .client()
            .post("/_watershed/events", &headers, body)
            .json()
    };
    assert_eq!(report("X-Staff: 1\r\n")["not_counted"], "excluded");
    assert_eq!(
        report("User-Agent: Googlebot/2.1\r\n")["not_counted"],
        "robot"
    );
    let counted = report(
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0\r\n",
    );
    assert_eq!(counted["accepted"], 1, "{counted}");
    let events: u64 = site
        .counted("shop")
        .values()
        .map(|(_, events)| events)
        .sum();
    assert_eq!(events, 1);
}

#[test]
fn list_that_disappears_stays_in_use_through_other_changes() {
    let site = Site::start(None, &shop("", [1, 1]));
    let ids = site.proxy.file().with_file_name("testers.txt");
    std::fs::write(&ids, "\u{feff}ann\n").unwrap();
    let lines = |weight| {
        shop(
            "include: { experiment: file:testers.txt }, traffic: 0%, ",
            [1, weight],
        )
    };
    site.load(&lines(1));
    assert_eq!(site.version("/", "ann"), "b");
    std::fs::remove_file(&ids).unwrap();
    site.load(&lines(2));
    assert_eq!(
        ["ann", "dora"].map(|user| site.version("/", user)),
        ["b", "d"]
    );
    let weight = || site.experiment("shop")["groups"][1]["weight"].as_f64();
    assert_eq!(weight(), Some(2.0));
    // The same without being asked to load it.
    site.proxy.write(&format!("{}{}", site.head, lines(3)));
    crate::support::until("the changed file", || match weight() {
        Some(3.0) => Ok(()),
        other => Err(other),
    });
    assert_eq!(site.version("/", "ann"), "b");
    let page = crate::support::until("a report of the list", || {
        let page = site.proxy.ask("/admin/results?format=html").text();
        if page.contains("testers.txt") {
            Ok(page)
        } else {
            Err(page)
        }
    });
    assert!(page.contains("cannot be read any more"), "{page}");
}

#[test]
fn several_cookies_of_groups_add_up() {
    let two = |weights: [u32; 2]| {
        let one = |name: &str, path: &str| {
            format!(
                "{name}: {{ sticky: true, match: {path}, groups: {{ control: {{ weight: {}, upstream: a }}, experiment: {{ weight: {}, upstream: b }} }} }}",
                weights[0], weights[1]
            )
        };
        format!(
            "{KEY}experiments: {{ {}, {} }}\n",
            one("one", "/one"),
            one("two", "/two")
        )
    };
    let site = Site::start(None, &two([999_999, 1]));
    let cookie = |path: &str| {
        let answer = site.get(path, "Cookie: uid=u1\r\n");
        answer
            .header("set-cookie")
            .unwrap()
            .split(';')
            .next()
            .unwrap()
            .to_owned()
    };
    let cookies = format!(
        "Cookie: uid=u1; watershed_groups=x; {}; {}\r\n",
        cookie("/one"),
        cookie("/two")
    );
    site.load(&two([1, 999_999]));
    assert_eq!(
        ["/one", "/two"].map(|path| version(&site.get(path, &cookies))),
        ["a", "a"]
    );
}
