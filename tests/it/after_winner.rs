//! A promotion stays in effect after its experiment has left the file.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, How, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use serde_json::Value;
use std::process::Command;

struct Site {
    current: Origin,
    next: Origin,
    store: String,
}

const SITE: &str = "site: { match: /shop/**, control: current, experiment: next, percent: 50 }";
const BUY: &str = "metrics: { buy: \"POST /shop/buy -> 2xx\" }\n";

impl Site {
    fn start(store: &str) -> Site {
        Site {
            current: Origin::start("current"),
            next: Origin::start("next"),
            store: store.to_owned(),
        }
    }

    fn routes(&self, experiments: &str, more: &str) -> String {
        format!(
            "upstreams: {{ current: \"http://{}\", next: \"http://{}\" }}\nuser: {{ header: X-User }}\n\
             default: current\nexperiments: {{ {experiments} }}\n{}\n{more}",
            self.current.address, self.next.address, self.store
        )
    }

    fn without_next(&self, more: &str) -> String {
        format!(
            "upstreams: {{ current: \"http://{}\" }}\nuser: {{ header: X-User }}\n{}\n{more}",
            self.current.address, self.store
        )
    }
}

/// What twenty users see below a path: `c` for current, `n` for next.
fn seen(proxy: &Proxy, path: &str) -> String {
    let mut client = proxy.client();
    let mut see = |user: usize| {
        let answer = client.get(path, &format!("X-User: user-{user}\r\n"));
        answer.json()["version"].as_str().unwrap()[..1].to_owned()
    };
    (0..20).map(&mut see).collect()
}

fn all(letter: &str) -> String {
    letter.repeat(20)
}

fn promote(proxy: &Proxy) {
    let body = r#"{"group": "experiment", "by": "ann"}"#;
    let answer = Client::admin(proxy.admin).post("/admin/experiments/site/promote", "", body);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Loads a file, and returns what the reload says.
#[track_caller]
fn load(proxy: &Proxy, routes: &str, status: u16) -> String {
    proxy.write(routes);
    let answer = Client::admin(proxy.admin).post("/admin/reload", "", "");
    assert_eq!(answer.status, status, "{}", answer.text());
    answer.text()
}

/// Waits until the store has what a file says, which happens after it is served.
fn registered(proxy: &Proxy, left: bool) {
    until_stored(proxy, |site| site["left_ms"].is_u64() == left);
}

fn until_stored(proxy: &Proxy, is_so: impl Fn(&Value) -> bool) {
    until("the store's definition", || {
        let text =
            std::fs::read_to_string(proxy.folder.path().join("watershed-journal/decided.json"));
        let known: Value = serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
        let site = known["definitions"]["site"].clone();
        let is_so = !site.is_null() && is_so(&site);
        is_so.then_some(()).ok_or(site)
    });
}

fn stores() -> Vec<(Option<Redis>, Site)> {
    let redis = Redis::start();
    let site = Site::start(&format!("store: {}", redis.url()));
    vec![(None, Site::start("")), (Some(redis), site)]
}

fn experiment(results: &Value, name: &str) -> Value {
    let mut all = results["experiments"].as_array().unwrap().iter();
    all.find(|it| it["name"] == name).unwrap().clone()
}

#[test]
fn promotion_stays_when_the_experiment_leaves_the_file() {
    for (_redis, site) in stores() {
        let mut proxy = Proxy::start(&site.routes(SITE, BUY));
        assert!(seen(&proxy, "/shop/a").contains('c'));
        proxy.client().post("/shop/buy", "X-User: user-1\r\n", "");
        promote(&proxy);
        let counted = experiment(&proxy.results(), "site");
        let said = load(&proxy, &site.routes("", ""), 200);
        assert!(
            said.contains("site: not in the file; its promotion by ann stays in effect: matching users get experiment (upstream next), until `retired: [site]`"),
            "{said}"
        );
        assert_eq!(seen(&proxy, "/shop/a"), all("n"));
        assert_eq!(seen(&proxy, "/other"), all("c"), "the condition holds");
        // A start after a crash knows it, without a file that says so.
        proxy.kill();
        proxy.again(&site.routes("", ""));
        assert_eq!(seen(&proxy, "/shop/a"), all("n"));
        let results = proxy.results();
        let ended = experiment(&results, "site");
        assert_eq!(ended["status"], "ended");
        assert_eq!(ended["winner"], "experiment");
        assert_eq!(ended["in_effect"], true);
        assert_eq!(ended["decided"]["by"], "ann");
        assert!(ended["decided"]["at"].is_string());
        for key in ["metrics", "verdict", "started_at", "groups"] {
            // A kill within seconds forgets when the smallest p-value was found: looks are kept at intervals.
            let without = |value: &Value| {
                let mut value = value[key].clone();
                for item in value.as_array_mut().into_iter().flatten() {
                    item.as_object_mut().unwrap().remove("recently");
                    for group in item["groups"].as_array_mut().into_iter().flatten() {
                        group.as_object_mut().unwrap().remove("p_value_lowest_at");
                    }
                }
                value
            };
            assert_eq!(without(&ended), without(&counted), "{key}");
        }
        registered(&proxy, true);
        let ended = experiment(&proxy.results(), "site");
        assert!(ended["ended_at"].is_string());
        let page = Client::admin(proxy.admin).get("/admin/results", "Accept: text/html\r\n");
        let page = page.text();
        assert!(page.contains("all matching users still get experiment"));
        assert!(page.contains("promoted experiment by ann"), "{page}");
        // Nobody is divided any more, so a new visitor needs no ID.
        let given = proxy.client().get("/shop/a", "");
        assert_eq!(given.header("set-cookie"), None);
        // `default` alone changes nothing for them.
        let to_next = site
            .routes("", "")
            .replace("default: current", "default: next");
        load(&proxy, &to_next, 200);
        load(&proxy, &site.routes("", ""), 200);
        assert_eq!(seen(&proxy, "/shop/a"), all("n"));
        let said = load(&proxy, &site.routes("", "retired: [site]"), 200);
        assert!(
            said.contains(
                "the file ends the promotion of site by ann: its users get what the file says"
            ),
            "{said}"
        );
        assert_eq!(seen(&proxy, "/shop/a"), all("c"));
        // It has ended for good, and its results stay.
        until_stored(&proxy, |site| site["retired"] == true);
        load(&proxy, &site.routes("", ""), 200);
        assert_eq!(seen(&proxy, "/shop/a"), all("c"));
        let ended = experiment(&proxy.results(), "site");
        assert_eq!(
            (&ended["status"], &ended["in_effect"]),
            (&"ended".into(), &false.into())
        );
        assert_eq!(ended["winner"], "experiment");
        assert_eq!(ended["metrics"][0]["name"], "buy");
    }
}

#[test]
fn replicas_and_starts_without_a_store_keep_a_promotion() {
    let mut redis = Redis::start();
    let site = Site::start(&format!("store: {}", redis.url()));
    let routes = site.routes(SITE, "");
    let (mut one, two) = (Proxy::start(&routes), Proxy::start(&routes));
    registered(&one, false);
    load(&two, &site.routes("", ""), 200);
    promote(&one);
    until("the other replica", || {
        let seen = seen(&two, "/shop/a");
        (seen == all("n")).then_some(()).ok_or(seen)
    });
    // The one that has the experiment in its file serves it as promoted, too.
    assert_eq!(seen(&one, "/shop/a"), all("n"));
    load(&one, &site.routes("", ""), 200);
    registered(&one, true);
    one.kill();
    redis.kill();
    one.again(&site.routes("", ""));
    assert_eq!(seen(&one, "/shop/a"), all("n"));
}

#[test]
fn winner_of_the_file_stays_when_the_experiment_leaves() {
    let site = Site::start("");
    let won = SITE.replace("percent: 50", "percent: 50, winner: experiment");
    let mut proxy = Proxy::start(&site.routes(&won, ""));
    registered(&proxy, false);
    let decided = |proxy: &Proxy| experiment(&proxy.results(), "site")["decided"].clone();
    assert_eq!(decided(&proxy)["by"], "the routes file");
    assert_eq!(decided(&proxy)["group"], "experiment");
    let said = load(&proxy, &site.routes("", ""), 200);
    assert!(said.contains("its promotion by the routes file"), "{said}");
    assert_eq!(seen(&proxy, "/shop/a"), all("n"));
    assert_eq!(decided(&proxy)["by"], "the routes file");
    proxy.kill();
    proxy.again(&site.routes("", ""));
    assert_eq!(seen(&proxy, "/shop/a"), all("n"));
    // A person can still roll it back.
    registered(&proxy, true);
    let answer = Client::admin(proxy.admin).post("/admin/experiments/site/pause", "", "");
    assert_eq!(answer.status, 409, "{}", answer.text());
    let answer = Client::admin(proxy.admin).post("/admin/experiments/site/rollback", "", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(seen(&proxy, "/shop/a"), all("c"));
}

#[test]
fn winner_and_retired_that_stood_in_the_file_for_a_moment_hold() {
    for (redis, site) in stores() {
        let mut proxy = Proxy::start(&site.routes(SITE, ""));
        registered(&proxy, false);
        let away = |is_away: bool| {
            if let Some(redis) = &redis {
                redis.signal(if is_away { "STOP" } else { "CONT" });
            }
        };
        // The store learns of it later.
        away(true);
        let won = SITE.replace("percent: 50", "percent: 50, winner: experiment");
        load(&proxy, &site.routes(&won, ""), 200);
        let said = load(&proxy, &site.routes("", ""), 200);
        assert!(said.contains("its promotion by the routes file"), "{said}");
        assert_eq!(seen(&proxy, "/shop/a"), all("n"));
        away(false);
        registered(&proxy, true);
        assert_eq!(seen(&proxy, "/shop/a"), all("n"));
        proxy.kill();
        proxy.again(&site.routes("", ""));
        assert_eq!(seen(&proxy, "/shop/a"), all("n"));

        away(true);
        load(&proxy, &site.routes("", "retired: [site]"), 200);
        load(&proxy, &site.routes("", ""), 200);
        assert_eq!(seen(&proxy, "/shop/a"), all("c"));
        away(false);
        until_stored(&proxy, |site| site["retired"] == true);
        proxy.kill();
        proxy.again(&site.routes("", ""));
        assert_eq!(seen(&proxy, "/shop/a"), all("c"));
    }
}

#[test]
fn experiment_of_the_same_name_ends_a_promotion() {
    for (_redis, site) in stores() {
        let mut proxy = Proxy::start(&site.routes(SITE, ""));
        promote(&proxy);
        load(&proxy, &site.routes("", ""), 200);
        registered(&proxy, true);
        // The same experiment is still decided; a deployment may go back and forth.
        load(&proxy, &site.routes(SITE, ""), 200);
        assert_eq!(seen(&proxy, "/shop/a"), all("n"));
        registered(&proxy, false);
        load(&proxy, &site.routes("", ""), 200);
        registered(&proxy, true);
        // Another one splits its own users, and nobody else gets the promoted version.
        let other = SITE.replace("/shop/**", "/blog/**");
        load(&proxy, &site.routes(&other, ""), 200);
        assert_eq!(seen(&proxy, "/shop/a"), all("c"));
        let split = seen(&proxy, "/blog/a");
        assert!(split.contains('c') && split.contains('n'), "{split}");
        registered(&proxy, false);
        proxy.kill();
        proxy.again(&site.routes(&other, ""));
        assert_eq!(seen(&proxy, "/blog/a"), split);
        assert_eq!(experiment(&proxy.results(), "site")["status"], "running");
        let acts = proxy.ask("/admin/acts").json();
        // The load of the file may come after what follows from it.
        let mut acts = acts["acts"].as_array().unwrap().iter();
        let decided = acts.find(|act| act["action"] != "reload").unwrap();
        assert_eq!(decided["by"], "the routes file");
    }
}

#[test]
fn file_without_the_promoted_upstream_is_refused() {
    for (_redis, site) in stores() {
        let mut proxy = Proxy::start(&site.routes(SITE, ""));
        promote(&proxy);
        load(&proxy, &site.routes("", ""), 200);
        registered(&proxy, true);
        let said = load(&proxy, &site.without_next(""), 422);
        let names = "upstreams: `next` is gone, and the promotion of `site` needs it";
        assert!(said.contains(names), "{said}");
        assert_eq!(seen(&proxy, "/shop/a"), all("n"), "the plan before stays");
        let check = |routes: &str| {
            proxy.write(routes);
            let file = proxy.file();
            let done = Command::new(BINARY)
                .args(["check", "-c", file.to_str().unwrap()])
                .output()
                .unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (done.status.code(), text(done.stdout), text(done.stderr))
        };
        let (code, _, said) = check(&site.without_next(""));
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains(names) && said.contains("retired: [site]"),
            "{said}"
        );
        let (code, said, _) = check(&site.routes("", ""));
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains("matching users get experiment (upstream next)"),
            "{said}"
        );
        let (code, said, _) = check(&site.without_next("retired: [site]"));
        assert_eq!(code, Some(0), "{said}");
        load(&proxy, &site.without_next("retired: [site]"), 200);
        assert_eq!(seen(&proxy, "/shop/a"), all("c"));
        proxy.kill();
    }
}

#[test]
fn file_without_the_promoted_group_is_refused() {
    for (_redis, site) in stores() {
        let groups = |promoted: &str, more: &str| {
            let experiment = format!(
                "site: {{ match: /shop/**, groups: {{ control: {{ weight: 50, upstream: current }}, {promoted}: {{ weight: 50, upstream: next }} }}{more} }}"
            );
            site.routes(&experiment, "")
        };
        let mut proxy = Proxy::start(&groups("experiment", ""));
        registered(&proxy, false);
        promote(&proxy);
        let names = "experiments.site.groups: `experiment` is gone, which ann promoted";
        let said = load(&proxy, &groups("redesign", ""), 422);
        assert!(said.contains(names), "{said}");
        assert!(said.contains("watershed rollback site"), "{said}");
        assert_eq!(seen(&proxy, "/shop/a"), all("n"), "the plan before stays");
        proxy.kill();
        // Also at a start, and by `check`.
        let run = |command: &str| {
            let done = Command::new(BINARY)
                .args([command, "-c", proxy.file().to_str().unwrap()])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert_eq!(done.status.code(), Some(2), "{command}: {said}");
            assert!(said.contains(names), "{command}: {said}");
        };
        run("check");
        run("run");
        // Whoever says who gets which version may use other names.
        proxy.again(&groups("redesign", ", winner: redesign"));
        assert_eq!(seen(&proxy, "/shop/a"), all("n"));
        load(&proxy, &groups("redesign", ", salt: other"), 200);
        let divided = seen(&proxy, "/shop/a");
        assert!(divided.contains('c') && divided.contains('n'), "{divided}");
    }
}

#[test]
fn results_name_users_who_do_not_get_a_promoted_version() {
    let site = Site::start("");
    let held = SITE.replace("percent: 50", "percent: 50, holdback: 50%");
    let proxy = Proxy::start(&site.routes(&held, "holdout: { share: 1% }"));
    registered(&proxy, false);
    promote(&proxy);
    let blue = "blue: { control: current, experiment: next, percent: 50, match: /shop/blue/** }";
    let said = load(&proxy, &site.routes(blue, "holdout: { share: 1% }"), 200);
    let all = [
        "users who are held back",
        "users of the holdout",
        "users whom blue serves before",
    ];
    let expected = format!("(but not {})", all.join(", "));
    assert!(said.contains(&expected), "{said}");
    until_stored(&proxy, |site| site["left_ms"].is_u64());
    let ended = experiment(&proxy.results(), "site");
    assert_eq!(ended["in_effect"], true);
    assert_eq!(ended["in_effect_except"], serde_json::json!(all));
    let page = Client::admin(proxy.admin).get("/admin/results/site", "Accept: text/html\r\n");
    let page = page.text();
    let words = "all matching users still get experiment, but not users who are held back, users of the holdout and users whom blue serves before.";
    assert!(page.contains(words), "{page}");
    // Nobody gets it where another experiment takes them all.
    let whole = "blue: { control: current, experiment: next, winner: experiment }";
    load(&proxy, &site.routes(whole, ""), 200);
    let ended = experiment(&proxy.results(), "site");
    assert_eq!(ended["in_effect"], false, "{ended}");
    let said = load(&proxy, &site.routes(whole, "retired: [stie]"), 200);
    assert!(
        said.contains("`retired` names stie, of which the store knows nothing"),
        "{said}"
    );
}

#[test]
fn retired_is_checked() {
    let site = Site::start("");
    let proxy = Proxy::start_how(&site.routes(SITE, ""), How::default());
    let check = |retired: &str, says: &str| {
        let said = load(&proxy, &site.routes(SITE, retired), 422);
        assert!(said.contains(says), "{said}");
    };
    check("retired: [site]", "`site` is in `experiments`");
    check("retired: [\"a b\"]", "is not a valid name");
    check(
        "retired: [{ a: b }]",
        "the name of an experiment that left the file",
    );
}

#[test]
fn plan_says_that_a_promotion_stays() {
    let site = Site::start("");
    let proxy = Proxy::start(&site.routes(SITE, ""));
    registered(&proxy, false);
    promote(&proxy);
    let new = proxy.folder.path().join("new.yaml");
    let plan = |routes: &str| {
        std::fs::write(&new, format!("listen: 127.0.0.1:1\n{routes}")).unwrap();
        let file = proxy.file();
        let done = Command::new(BINARY)
            .args(["plan", file.to_str().unwrap(), new.to_str().unwrap()])
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    };
    let (_, said, _) = plan(&site.routes("", ""));
    assert!(
        said.contains("site: removed; its promotion stays in effect"),
        "{said}"
    );
    assert!(said.contains("100.00 %  stay"), "{said}");
    let (_, said, _) = plan(&site.routes(&SITE.replace("/shop/**", "/shop/blue/**"), ""));
    assert!(
        said.contains("  match: /shop/** -> /shop/blue/**\n"),
        "{said}"
    );
    let (_, said, _) = plan(&site.routes("", "retired: [site]"));
    assert!(
        said.contains("everybody in experiment (next) -> outside"),
        "{said}"
    );
    let (code, _, said) = plan(&site.without_next(""));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("the promotion of `site` needs it"), "{said}");
}

#[test]
fn check_and_reload_say_whom_a_file_affects_by_what_it_makes_of_a_promotion() {
    for (_redis, site) in stores() {
        let proxy = Proxy::start(&site.routes(SITE, ""));
        registered(&proxy, false);
        promote(&proxy);
        let checked = |routes: &str| {
            let before = std::fs::read_to_string(proxy.file()).unwrap();
            let file = proxy.folder.path().join("new.yaml");
            // The store is beside the file.
            std::fs::write(&file, routes).unwrap();
            assert_eq!(std::fs::read_to_string(proxy.file()).unwrap(), before);
            let check = |more: &[&str]| {
                let done = Command::new(BINARY)
                    .args(["check", "-c", file.to_str().unwrap()])
                    .args(more)
                    .output()
                    .unwrap();
                assert_eq!(done.status.code(), Some(0), "{done:?}");
                String::from_utf8(done.stdout).unwrap()
            };
            let json: Value = serde_json::from_str(&check(&["--json"])).unwrap();
            (check(&[]), json)
        };
        let known = std::fs::read(proxy.folder.path().join("watershed-journal/decided.json"));
        let known: Value = serde_json::from_slice(&known.unwrap()).unwrap();
        let first = known["definitions"]["site"]["text"].clone();
        let (said, json) = checked(&site.routes(SITE, ""));
        let line = "  site (promoted): everybody gets experiment (next)\n";
        assert!(said.contains(line), "{said}");
        assert_eq!(json["experiments"][0]["state"], "promoted");
        assert_eq!(json["promotions"], serde_json::json!([]));
        let narrower = SITE.replace("/shop/**", "/shop/blue/**");
        let salted = SITE.replace("percent: 50", "percent: 50, salt: other");
        let swapped = SITE.replace(
            "control: current, experiment: next",
            "control: next, experiment: current",
        );
        let by_file = SITE.replace("percent: 50", "percent: 50, winner: control");
        for (experiments, more, expected) in [
            (
                &*narrower,
                "",
                "the file changes the promotion of site by ann: it holds for /shop/blue/** instead of /shop/**; other requests get what the file says otherwise (default: current)",
            ),
            (
                &*salted,
                "",
                "the file ends the promotion of site by ann: another `salt` makes another experiment, which divides its users anew",
            ),
            (
                &*swapped,
                "",
                "the file changes the promotion of site by ann: matching users get experiment (upstream current) instead of experiment (upstream next)",
            ),
            (
                &*by_file,
                "",
                "the file changes the promotion of site by ann: matching users get control (upstream current) instead of experiment (upstream next)",
            ),
            (
                "",
                "retired: [site]",
                "the file ends the promotion of site by ann: its users get what the file says (default: current)",
            ),
        ] {
            let routes = site.routes(experiments, more);
            let (said, json) = checked(&routes);
            assert!(said.contains(expected), "{said}\n{expected}");
            assert_eq!(json["promotions"], serde_json::json!([expected]));
            let said = load(&proxy, &routes, 200);
            assert!(said.contains(&expected.replace('"', "\\\"")), "{said}");
            until_stored(&proxy, |it| it["left_ms"].is_u64() || it["text"] != first);
            // The file before again, as it was.
            let said = load(&proxy, &site.routes(SITE, ""), 200);
            if experiments == salted {
                assert!(!said.contains("promotion"), "{said}");
            }
            until_stored(&proxy, |it| it["left_ms"].is_null() && it["text"] == first);
            promote(&proxy);
        }
        let (said, _) = checked(&site.routes("", ""));
        assert!(
            said.contains("its promotion by ann stays in effect"),
            "{said}"
        );
    }
}

#[test]
fn leaving_of_an_experiment_that_was_rolled_back_says_whom_it_affects() {
    let site = Site::start("");
    let to_next = |routes: String| routes.replace("default: current", "default: next");
    let proxy = Proxy::start(&to_next(site.routes(SITE, "")));
    registered(&proxy, false);
    let path = "/admin/experiments/site/rollback";
    let done = Client::admin(proxy.admin).post(path, "", r#"{"by": "ann"}"#);
    assert_eq!(done.status, 200, "{}", done.text());
    let says = "site was rolled back by ann, and leaves the file: its users got control (upstream current), and get what the file says now (default: next)";
    let said = load(&proxy, &to_next(site.routes("", "")), 200);
    assert!(said.contains(says), "{said}");
    assert_eq!(seen(&proxy, "/shop/a"), all("n"));
}

#[test]
fn promotion_keeps_the_secrets_that_its_headers_name() {
    let site = Site::start("");
    let grouped = "site: { groups: { control: { weight: 1, upstream: current }, experiment: { weight: 1, upstream: next, \
                   headers: { request: { set: { X-Key: \"file:key.txt\" } } } } } }";
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.txt");
    std::fs::write(&key, "first").unwrap();
    let included = folder.path().join("site.yaml");
    std::fs::write(&included, format!("experiments: {{ {grouped} }}\n")).unwrap();
    // The key is beside the file that names it, and not beside the routes file.
    let files = format!("files: [ \"{}\" ]\n", included.display());
    let without = site.routes("", "").replace("experiments: {  }\n", "");
    let mut proxy = Proxy::start(&format!("{without}{files}"));
    registered(&proxy, false);
    promote(&proxy);
    load(&proxy, &without, 200);
    let got = |proxy: &Proxy| {
        let answer = proxy.client().get("/", "X-User: u\r\n").json();
        let headers = answer["headers"].as_array().unwrap();
        let key = headers.iter().find(|it| it[0] == "x-key");
        (
            answer["version"].clone(),
            key.map(|it| it[1].as_str().unwrap().to_owned()),
        )
    };
    assert_eq!(got(&proxy), ("next".into(), Some("first".to_owned())));
    registered(&proxy, true);
    let kept = std::fs::read_to_string(proxy.folder.path().join("watershed-journal/decided.json"));
    assert!(
        !kept.unwrap().contains("first"),
        "the secret itself is not kept"
    );
    proxy.kill();
    std::fs::write(&key, "second").unwrap();
    proxy.again(&without);
    assert_eq!(got(&proxy), ("next".into(), Some("second".to_owned())));
    // Without it, nobody gets the other version without a word.
    std::fs::remove_file(&key).unwrap();
    let said = load(&proxy, &without, 422);
    assert!(
        said.contains("`site` has left the file after ann promoted experiment")
            && said.contains("key.txt cannot be read"),
        "{said}"
    );
    assert_eq!(got(&proxy).0, "next");
    // Results need no secret.
    let shown = experiment(&proxy.results(), "site");
    assert!(shown["groups"].as_array().unwrap().len() == 2, "{shown}");
    load(&proxy, &format!("retired: [site]\n{without}"), 200);
    assert_eq!(got(&proxy), ("current".into(), None));
}

#[test]
fn holdout_of_all_experiments_holds_for_a_promotion_without_its_experiment() {
    let site = Site::start("");
    let holdout = "holdout: { share: 50% }";
    let proxy = Proxy::start(&site.routes(SITE, holdout));
    registered(&proxy, false);
    promote(&proxy);
    let held_out = seen(&proxy, "/shop/a");
    assert!(
        held_out.contains('c') && held_out.contains('n'),
        "{held_out}"
    );
    load(&proxy, &site.routes("", holdout), 200);
    assert_eq!(seen(&proxy, "/shop/a"), held_out);
    // A new visitor may be held out, and stays so.
    let given = proxy.client().get("/shop/a", "");
    assert!(given.header("set-cookie").is_some());
    load(&proxy, &site.routes("", ""), 200);
    assert_eq!(seen(&proxy, "/shop/a"), all("n"));
}
