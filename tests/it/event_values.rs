//! Events from strangers: what a value may be, what is refused, and how much one client may
//! report. Over real sockets, through the real program.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::tools;
use serde_json::{Value, json};
use std::time::Instant;

/// A proxy in front of two versions, with these lines more.
struct Site {
    proxy: Proxy,
    _origins: [Origin; 2],
}

impl Site {
    fn start(lines: &str) -> Site {
        let origins = [Origin::start("control"), Origin::start("b")];
        let routes = format!(
            "user: {{ cookie: uid }}\n{lines}upstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\nexperiments: {{ shop: {{ match: {{ path: /shop/** }}, groups: {{ control: {{ weight: 50, upstream: a }}, b: {{ weight: 50, upstream: b }} }} }} }}\nmetrics:\n  purchase: {{ event: purchase, kind: count }}\n  revenue: {{ event: purchase, value: amount, kind: mean, max: 10000 }}\n",
            origins[0].address, origins[1].address
        );
        let proxy = Proxy::start(&routes);
        proxy.client().get("/shop/", USER);
        Site {
            proxy,
            _origins: origins,
        }
    }

    fn browser(&self, body: &str) -> (u16, Value) {
        let answer = self.proxy.client().post("/_watershed/events", USER, body);
        (answer.status, answer.json())
    }

    fn server(&self, body: &str) -> (u16, Value) {
        let mut client = Client::admin(self.proxy.admin);
        let json = "Content-Type: application/json\r\n";
        let answer = client.post("/admin/events", json, body);
        (answer.status, answer.json())
    }

    /// Events and the hundredfold of their amounts, over both groups.
    fn counted(&self) -> (u64, i64) {
        let results = self.proxy.results();
        let metrics = &results["experiments"][0]["metrics"];
        let sum = |metric: usize, what: &str| -> f64 {
            let groups = &metrics[metric]["groups"];
            (0..2).map(|it| groups[it][what].as_f64().unwrap()).sum()
        };
        let place = |name| {
            metrics
                .as_array()
                .unwrap()
                .iter()
                .position(|it| it["name"] == name)
        };
        let (purchase, revenue) = (place("purchase").unwrap(), place("revenue").unwrap());
        let cents = (sum(revenue, "sum") * 100.0).round() as i64;
        (sum(purchase, "count") as u64, cents)
    }
}

const USER: &str = "Cookie: uid=exposed\r\n";

#[test]
fn events_with_invalid_numbers_are_refused() {
    let site = Site::start("");
    for (amount, said) in [
        ("1e308", "beyond 10000"),
        ("-1e308", "beyond 10000"),
        ("10000.01", "beyond 10000"),
        ("-10000.01", "beyond 10000"),
        ("\"1e308\"", "beyond 10000"),
        ("null", "is null"),
        ("true", "is a boolean"),
        ("{}", "is an object"),
        ("[1]", "is a list"),
        ("\"\"", "is empty"),
        ("\" \"", "is empty"),
        ("\"abc\"", "is not a number"),
        ("\"NaN\"", "is not a number"),
        ("\"Infinity\"", "is not a number"),
        ("\"1,5\"", "is not a number"),
    ] {
        let bad = format!("{{\"event\":\"purchase\",\"user\":\"exposed\",\"amount\":{amount}}}");
        for (status, told) in [site.browser(&bad), site.server(&bad)] {
            assert_eq!(status, 400, "{amount}: {told}");
            let error = told["error"].as_str().unwrap();
            assert!(
                error.starts_with("event 0: `amount` of `purchase`"),
                "{error}"
            );
            assert!(error.contains(said), "{amount}: {error}");
        }
        // In a list, the others count.
        let list = format!("[{{\"event\":\"purchase\",\"user\":\"exposed\",\"amount\":1}},{bad}]");
        for (status, told) in [site.browser(&list), site.server(&list)] {
            assert_eq!((status, &told["accepted"]), (202, &json!(1)), "{told}");
            let refused = &told["refused"];
            assert_eq!(
                (&refused[0]["place"], &refused[0]["event"]),
                (&json!(1), &json!("purchase"))
            );
            let reason = refused[0]["reason"].as_str().unwrap();
            assert!(reason.contains(said) && refused[1].is_null(), "{told}");
        }
    }
    assert_eq!(site.counted(), (30, 3000));
    let results = site.proxy.results();
    let faults = &results["events"]["faults"];
    assert_eq!(
        (&faults["too_large"], &faults["not_a_number"]),
        (&json!(20), &json!(40))
    );
    let numbers = site.proxy.ask("/admin/metrics").text();
    let line = "watershed_event_faults_total{reason=\"too_large\"} 20\n";
    assert!(numbers.contains(line), "{numbers}");
}

/// The sum of a user counts up to the cap, however many events it has, and what is cut is reported.
fn sums_count_up_to_their_cap(store: &str) {
    let origins = [Origin::start("control"), Origin::start("b")];
    let routes = format!(
        "{store}user: {{ cookie: uid }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\nexperiments: {{ shop: {{ control: a, experiment: b, percent: 50 }} }}\nmetrics: {{ revenue: {{ event: purchase, value: amount, kind: mean, cap: 500 }} }}\n",
        origins[0].address, origins[1].address
    );
    let mut proxy = Proxy::start(&routes);
    let mut client = proxy.client();
    let mut buy = |user: &str, amount: i64| {
        let path = format!("/shop?event=purchase;amount={amount}");
        client.get(&path, &format!("Cookie: uid={user}\r\n"));
    };
    // Of two users in ten each; one of them comes back for more, and one takes some back.
    for user in 0..20 {
        buy(&format!("small-{user}"), 100);
    }
    for amount in [300, 150, 400, -100] {
        buy("large", amount);
        proxy.results();
    }
    for amount in [900, -500] {
        buy("gives-back", amount);
        proxy.results();
    }
    let sums = |proxy: &Proxy| {
        let metric = &proxy.results()["experiments"][0]["metrics"][0];
        assert_eq!(metric["cap"], 500.0);
        let sum = |what: fn(&Value) -> &Value| -> f64 {
            let groups = metric["groups"].as_array().unwrap();
            groups.iter().map(|it| what(it).as_f64().unwrap()).sum()
        };
        [
            sum(|group| &group["sum"]),
            sum(|group| &group["capped"]["users"]),
            sum(|group| &group["capped"]["sum"]),
        ]
    };
    assert_eq!(sums(&proxy), [2_000.0 + 500.0 + 400.0, 1.0, 250.0]);
    let results = proxy.results();
    let groups = results["experiments"][0]["metrics"][0]["groups"].clone();
    let cut = |it: &&Value| it["capped"]["users"] == 1;
    let group = groups.as_array().unwrap().iter().find(cut).unwrap();
    let (users, sum) = (group["users"].as_f64(), group["sum"].as_f64().unwrap());
    assert_eq!(
        group["capped"]["share_of_users"].as_f64().unwrap(),
        1.0 / users.unwrap()
    );
    assert_eq!(
        group["capped"]["share_of_sum"].as_f64().unwrap(),
        250.0 / (sum + 250.0)
    );
    let text = proxy.ask("/admin/results?format=text").text();
    assert!(
        text.contains("revenue counts at most 500 of each user's sum; this cuts"),
        "{text}"
    );
    // The user's own sum is kept, so that it can be taken out as it was counted.
    proxy.kill();
    proxy.again(&routes);
    let mut admin = Client::admin(proxy.admin);
    let forget = format!(
        "DELETE /admin/assignments?user=large HTTP/1.1\r\nHost: {}\r\n\r\n",
        proxy.admin
    );
    admin.say(forget).unwrap();
    assert_eq!(admin.answer(true).unwrap().status, 200);
    assert_eq!(sums(&proxy), [2_400.0, 0.0, 0.0]);
}

#[test]
fn sums_count_up_to_their_cap_in_embedded_store() {
    sums_count_up_to_their_cap("");
}

#[test]
fn sums_count_up_to_their_cap_in_redis() {
    let redis = Redis::start();
    sums_count_up_to_their_cap(&format!("store: {}\n", redis.url()));
}

#[test]
fn own_time_of_an_event_decides_whether_it_counts() {
    let site = Site::start("");
    let event = |at: &str| {
        format!("{{\"event\":\"purchase\",\"user\":\"exposed\",\"amount\":1,\"at\":{at}}}")
    };
    let now = jiff::Timestamp::now();
    let ago = |seconds: i64| format!("\"{}\"", now - jiff::SignedDuration::from_secs(seconds));
    for (at, said) in [
        ("\"yesterday\"".to_owned(), "is not a time"),
        ("\"1800000000\"".to_owned(), "is not a time"),
        (ago(31 * 86_400), "more than 30 days ago"),
        (ago(-86_400), "more than 5 minutes ahead"),
    ] {
        for (status, told) in [site.browser(&event(&at)), site.server(&event(&at))] {
            let error = told["error"].as_str().unwrap_or_default();
            assert_eq!(status, 400, "{at}: {told}");
            assert!(
                error.starts_with("event 0: `at` of `purchase`") && error.contains(said),
                "{error}"
            );
        }
    }
    let faults = &site.proxy.results()["events"]["faults"];
    assert_eq!(
        (&faults["not_a_time"], &faults["time_out_of_range"]),
        (&json!(4), &json!(4))
    );
    // An hour ago this user was not exposed yet; within minutes ahead the event counts.
    for at in [ago(3600), ago(-120)] {
        for (status, told) in [site.browser(&event(&at)), site.server(&event(&at))] {
            assert_eq!((status, &told["accepted"]), (202, &json!(1)), "{told}");
        }
    }
    assert_eq!(site.counted(), (2, 200));
    let path = format!(
        "/other?event=purchase;amount=1;at={}",
        ago(3600).replace('"', "%22")
    );
    site.proxy.client().get(&path, USER);
    let path = format!(
        "/other?event=purchase;amount=1;at={}",
        ago(-120).replace('"', "%22")
    );
    site.proxy.client().get(&path, USER);
    assert_eq!(site.counted(), (3, 300));
}

#[test]
fn keys_that_no_metric_reads_are_named() {
    let site = Site::start("");
    let report = json!([
        {"event": "purchase", "user": "exposed", "amount": 1, "timestamp": 5, "id": "o-1"},
        {"event": "purchase", "user": "exposed", "currency": "EUR", "timestamp": 6},
        {"event": "unheard", "user": "exposed", "page": "/"},
    ])
    .to_string();
    for (status, told) in [site.browser(&report), site.server(&report)] {
        assert_eq!(
            (status, &told["unused"]),
            (202, &json!(["currency", "timestamp"])),
            "{told}"
        );
    }
}

#[test]
fn values_are_rounded_the_same_from_all_sources() {
    let site = Site::start("");
    let mut expected = (0, 0);
    for (amount, cents) in [
        ("19.9999", 2000),
        ("1e3", 100_000),
        ("1.005", 101),
        ("-0.005", -1),
        ("-0.0049", 0),
        ("2.675", 268),
        ("10000.004", 1_000_000),
        ("-10000", -1_000_000),
    ] {
        let quoted = format!("\"{amount}\"");
        for written in [amount, &quoted] {
            let event =
                format!("{{\"event\":\"purchase\",\"user\":\"exposed\",\"amount\":{written}}}");
            assert_eq!(site.browser(&event).0, 202, "{event}");
            assert_eq!(site.server(&event).0, 202, "{event}");
            expected = (expected.0 + 2, expected.1 + 2 * cents);
            assert_eq!(site.counted(), expected, "{event}");
        }
        let path = format!("/other?event=purchase;amount={amount}");
        site.proxy.client().get(&path, USER);
        expected = (expected.0 + 1, expected.1 + cents);
        assert_eq!(site.counted(), expected, "the header, {amount}");
    }
}

/// On both HTTP/1 paths: the second key sends every request through the other one.
#[test]
fn invalid_value_in_a_header_drops_only_its_event() {
    for lines in ["", "timeouts: { total: 60s }\n"] {
        let site = Site::start(lines);
        // One connection, so one worker, which logs once.
        let mut client = site.proxy.client();
        for event in [
            "purchase;amount=1e308",
            "purchase;amount=abc",
            "purchase;amount=2,%20(x)",
        ] {
            let path = format!("/shop/?event={event}");
            let answer = client.get(&path, USER);
            assert_eq!(
                (answer.status, answer.header("watershed-event")),
                (200, None)
            );
        }
        assert_eq!(site.counted(), (3, 200), "{lines}");
        // The same over HTTP/2, which goes the one way or the other, too.
        let url = format!(
            "http://{}/shop/?event=purchase;amount=abc",
            site.proxy.public
        );
        let curl = tools::command("curl")
            .args([
                "-sS",
                "--http2-prior-knowledge",
                "-H",
                USER.trim_end(),
                &url,
            ])
            .output()
            .unwrap();
        assert!(curl.status.success(), "{curl:?}");
        assert_eq!(site.counted(), (4, 200), "{lines}");
        let faults = site.proxy.results()["events"]["faults"].clone();
        let expected = json!({
            "unreadable": 1, "too_many": 0, "not_a_number": 2, "too_large": 1, "missing": 0, "id": 0,
            "not_a_time": 0, "time_out_of_range": 0, "unknown_unit": 0,
        });
        assert_eq!(faults, expected, "{lines}");
        let numbers = site.proxy.ask("/admin/metrics").text();
        assert!(
            numbers.contains("watershed_unreadable_events_total{} 1\n"),
            "{numbers}"
        );
        let log = site.proxy.log.lock().unwrap().clone();
        let said = "`amount` of `purchase` is beyond 10000, the largest value that is taken";
        assert!(log.contains(said), "{log}");
        assert!(log.contains("Watershed-Event of upstream"), "{log}");
        // What comes at once with it is not logged line by line.
        assert!(!log.contains("is not an event with parameters"), "{log}");
    }
}

#[test]
fn looping_page_limits_only_its_own_user() {
    let lines = "events: { per_minute: 50, per_minute_per_address: 100 }\n";
    let site = Site::start(lines);
    let ten = json!(vec![json!({"event": "purchase", "amount": 1}); 10]).to_string();
    let mut client = site.proxy.client();
    let mut report = |user: &str| {
        let headers = format!("Cookie: uid={user}\r\n");
        client.post("/_watershed/events", &headers, &ten)
    };
    let taken = (0..50).filter(|_| report("looping").status == 202).count();
    assert!((5..=6).contains(&taken), "{taken}");
    let refused = report("looping");
    assert_eq!(refused.status, 429);
    assert!(refused.text().contains("of one user"), "{}", refused.text());
    for _ in 0..4 {
        assert_eq!(report("neighbour").status, 202);
    }
}

#[test]
fn address_limit_holds_for_all_ids() {
    let lines = "events: { per_minute: 50, per_minute_per_address: 100 }\ntrust: 127.0.0.1\n";
    let site = Site::start(lines);
    let twenty = json!(vec![json!({"event": "purchase", "amount": 1}); 20]).to_string();
    let report = |address: &str, user: usize| {
        let headers = format!("Cookie: uid=made-up-{user}\r\nX-Forwarded-For: {address}\r\n");
        site.proxy
            .client()
            .post("/_watershed/events", &headers, &twenty)
    };
    let begun = Instant::now();
    let mut taken = 0;
    let refused = loop {
        let answer = report("203.0.113.7", taken);
        if answer.status != 202 || taken > 100 {
            break answer;
        }
        taken += 1;
    };
    // A hundred at once, and what a minute allows for the time that this took.
    let most = 100.0 + 100.0 * begun.elapsed().as_secs_f64() / 60.0;
    assert!(taken >= 5 && 20.0 * taken as f64 <= most, "{taken}");
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(
        refused
            .text()
            .contains("more than 100 events of one address")
    );
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=13).contains(&seconds), "{seconds}");
    // Others go on; one /64 of IPv6 is one client.
    assert_eq!(report("203.0.113.8", 6).status, 202);
    for user in 7..12 {
        let address = format!("2001:db8::{user}");
        assert_eq!(report(&address, user).status, 202);
    }
    assert_eq!(report("2001:db8::ffff", 12).status, 429);
    assert_eq!(report("2001:db8:0:1::1", 13).status, 202);
    // Nonsense costs as much, and a trusted peer that names nobody is not bounded by address.
    let nonsense = "X-Forwarded-For: 203.0.113.9\r\n";
    let mut client = site.proxy.client();
    let statuses: Vec<u16> = (0..110)
        .map(|_| client.post("/_watershed/events", nonsense, "{").status)
        .collect();
    assert_eq!(
        statuses.iter().filter(|&&status| status == 400).count(),
        100
    );
    for user in 20..30 {
        let headers = format!("Cookie: uid=inside-{user}\r\n");
        let taken = site
            .proxy
            .client()
            .post("/_watershed/events", &headers, &twenty);
        assert_eq!(taken.status, 202);
    }
    // The ID is limited from wherever it reports.
    assert_eq!(report("203.0.113.20", 40).status, 202);
    assert_eq!(report("203.0.113.21", 40).status, 202);
    assert_eq!(report("203.0.113.22", 40).status, 429);
    let log = site.proxy.log.lock().unwrap().clone();
    assert!(log.contains("events from 203.0.113.7 are refused"), "{log}");
}

/// The page shows events that are not counted, and faults in events.
#[test]
fn uncounted_events_are_shown_on_the_page() {
    let site = Site::start("");
    let page = || {
        let mut client = Client::admin(site.proxy.admin);
        client.get("/admin/results", "Accept: text/html\r\n").text()
    };
    site.counted();
    assert!(page().contains("all counted"), "{}", page());
    let (status, _) = site.browser(r#"{"event": "purchase", "amount": 1e308}"#);
    assert_eq!(status, 400);
    let waiting = json!(vec![
        json!({"event": "purchase", "amount": 1, "user": "unseen"});
        70
    ]);
    assert_eq!(site.server(&waiting.to_string()).0, 202);
    crate::support::until("the page", || {
        let page = page();
        let shown = page.contains("dropped while waiting for an exposure")
            && page.contains("faults in events reported to this process: 1 too large");
        shown.then_some(()).ok_or(page)
    });
}
