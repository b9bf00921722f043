//! Who is counted: a user only when one can be known, in both stores.

use crate::support::client::Answer;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::until;
use serde_json::{Value, json};

const BROWSER: &str =
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0\r\n";
const GOOGLEBOT: &str =
    "User-Agent: Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)\r\n";

/// A proxy between two versions of a shop, and a third upstream.
struct Site {
    proxy: Proxy,
    routes: String,
    _redis: Option<Redis>,
    _origins: [Origin; 3],
}

impl Site {
    fn start(redis: Option<Redis>, lines: &str) -> Site {
        let origins = [
            Origin::start("a"),
            Origin::start("b"),
            Origin::start("other"),
        ];
        let store = redis
            .as_ref()
            .map_or(String::new(), |it| format!("store: {}\n", it.url()));
        let [a, b, other] = origins.each_ref().map(|origin| origin.address);
        let routes = format!(
            "{store}{lines}user: {{ cookie: uid }}\nupstreams: {{ a: \"http://{a}\", b: \"http://{b}\", other: \"http://{other}\" }}\ndefault: other\nexperiments: {{ shop: {{ match: /shop/**, groups: {{ control: {{ weight: 50, upstream: a }}, b: {{ weight: 50, upstream: b }} }} }} }}\nmetrics: {{ purchase: {{ event: purchase, kind: count }} }}\n"
        );
        Site {
            proxy: Proxy::start(&routes),
            routes,
            _redis: redis,
            _origins: origins,
        }
    }

    fn get(&self, path: &str, headers: &str) -> Answer {
        self.proxy.client().get(path, headers)
    }

    fn send(&self, method: &str, path: &str, headers: &str) -> Answer {
        let mut client = self.proxy.client();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        client.say(head).unwrap();
        client.answer(method != "HEAD").unwrap()
    }

    fn experiment(&self) -> Value {
        self.proxy.results()["experiments"][0].clone()
    }

    /// Users, visitors who were seen once, purchases.
    fn counted(&self) -> [u64; 3] {
        let experiment = self.experiment();
        let sum = |groups: &Value, name: &str| -> u64 {
            let groups = groups.as_array().unwrap().iter();
            groups.map(|group| group[name].as_u64().unwrap()).sum()
        };
        [
            sum(&experiment["groups"], "users"),
            sum(&experiment["groups"], "seen_once"),
            sum(&experiment["metrics"][0]["groups"], "count"),
        ]
    }
}

fn both(lines: &str, check: impl Fn(Site)) {
    check(Site::start(None, lines));
    check(Site::start(Some(Redis::start()), lines));
}

/// The cookie that a response gives, as the next request sends it.
fn given(answer: &Answer) -> String {
    let cookie = answer.header("set-cookie").expect("a cookie");
    format!("{BROWSER}Cookie: {}\r\n", cookie.split(';').next().unwrap())
}

#[test]
fn visitor_without_id_counts_when_the_id_comes_back() {
    both("", |site| {
        let first = site.get("/shop/?event=purchase", BROWSER);
        let version = first.json()["version"].clone();
        assert_eq!(site.counted(), [0, 1, 0]);
        assert_eq!(site.experiment()["seen_once"], 1);
        let again = site.get("/shop/", &given(&first));
        assert_eq!(again.json()["version"], version);
        assert_eq!(again.header("set-cookie"), None);
        // The events of the first request count, too.
        assert_eq!(site.counted(), [1, 0, 1]);
        site.get("/shop/?event=purchase", &given(&first));
        assert_eq!(site.counted(), [1, 0, 2]);
    });
}

#[test]
fn id_comes_back_on_a_request_that_matches_nothing() {
    both("", |site| {
        let first = site.get("/shop/", BROWSER);
        let cookie = given(&first);
        assert_eq!(site.counted(), [0, 1, 0]);
        assert_eq!(site.get("/about", &cookie).json()["version"], "other");
        assert_eq!(site.counted(), [1, 0, 0]);
        // A visitor who never came to the experiment is nobody in it.
        let elsewhere = site.get("/about", BROWSER);
        site.get("/about", &given(&elsewhere));
        assert_eq!(site.counted(), [1, 0, 0]);
    });
}

#[test]
fn id_comes_back_on_a_page_of_another_experiment() {
    both("", |site| {
        let more = ", pages: { match: \"/**\", groups: { control: { weight: 50 }, e: { weight: 50 } } } }\nmetrics:";
        site.proxy.write(&site.routes.replace(" }\nmetrics:", more));
        let loaded = crate::support::client::Client::admin(site.proxy.admin);
        assert_eq!({ loaded }.post("/admin/reload", "", "").status, 200);
        let visitors: Vec<String> = (0..6)
            .map(|_| given(&site.get("/shop/", BROWSER)))
            .collect();
        assert_eq!(site.counted(), [0, 6, 0]);
        // `pages` counts these requests itself.
        for cookie in &visitors {
            site.get("/about", cookie);
            site.get("/about", cookie);
        }
        assert_eq!(site.counted(), [6, 0, 0]);
        site.get("/about?event=purchase", &visitors[0]);
        assert_eq!(site.counted(), [6, 0, 1]);
        let pages = site.proxy.results()["experiments"][1]["groups"].clone();
        let users = |group: usize| pages[group]["users"].as_u64().unwrap();
        assert_eq!(users(0) + users(1), 6);
    });
}

#[test]
fn clients_that_keep_no_cookie_are_no_users() {
    both("", |site| {
        for _ in 0..300 {
            site.get("/shop/", "User-Agent: curl/8.5.0\r\n");
        }
        assert_eq!(site.counted(), [0, 300, 0]);
    });
}

#[test]
fn configured_id_counts_at_once() {
    both("", |site| {
        site.get("/shop/", "User-Agent: curl/8.5.0\r\nCookie: uid=u1\r\n");
        assert_eq!(site.counted(), [1, 0, 0]);
    });
}

#[test]
fn minted_id_that_logs_in_is_one_user() {
    both("", |site| {
        let first = site.get("/shop/?event=purchase", BROWSER);
        let cookie = given(&first).replace("\r\nCookie: ", "\r\nCookie: uid=ann; ");
        site.get("/shop/", &cookie);
        assert_eq!(site.counted(), [1, 0, 1]);
    });
}

#[test]
fn what_nobody_looks_at_is_not_counted() {
    both("", |site| {
        let preflight = "Origin: https://a.example\r\nAccess-Control-Request-Method: PUT\r\n";
        let parts = [
            ("OPTIONS", format!("{BROWSER}{preflight}"), "preflight"),
            ("HEAD", BROWSER.to_owned(), "head"),
            (
                "GET",
                format!("{BROWSER}Sec-Purpose: prefetch;prerender\r\n"),
                "prefetch",
            ),
            (
                "GET",
                format!("{BROWSER}Sec-Fetch-Dest: manifest\r\n"),
                "manifest",
            ),
            (
                "GET",
                format!("{BROWSER}Sec-Fetch-Dest: font\r\nSec-Fetch-Mode: cors\r\n"),
                "without_cookies",
            ),
            ("GET", GOOGLEBOT.to_owned(), "robot"),
            ("GET", "User-Agent: kube-probe/1.29\r\n".to_owned(), "robot"),
        ];
        for (method, headers, why) in &parts {
            let answer = site.send(method, "/shop/?event=purchase", headers);
            assert_eq!(answer.header("set-cookie"), None, "{why}");
            if *method != "HEAD" {
                let expected = if *why == "preflight" { "other" } else { "a" };
                assert_eq!(answer.json()["version"], expected, "{why}");
            }
        }
        let expected = json!({
            "preflight": 1, "head": 1, "prefetch": 1, "manifest": 1, "without_cookies": 1, "robot": 2
        });
        assert_eq!(site.experiment()["not_counted"], expected);
        assert_eq!(site.counted(), [0, 0, 0]);
        // A user keeps the group, but is not exposed by what is fetched in advance.
        for method in ["HEAD", "GET"] {
            site.send(
                method,
                "/shop/",
                "Cookie: uid=u1\r\nSec-Purpose: prefetch\r\n",
            );
        }
        assert_eq!(site.counted(), [0, 0, 0]);
        let metrics = site.proxy.ask("/admin/metrics").text();
        let line = "watershed_requests_not_counted_total{reason=\"robot\"} 2";
        assert!(metrics.contains(line), "{metrics}");
    });
}

#[test]
fn prefetched_page_is_of_the_users_group() {
    let site = Site::start(None, "");
    for number in 0..20 {
        let cookie = format!("{BROWSER}Cookie: uid=u{number}\r\n");
        let page = site.get("/shop/", &cookie).json()["version"].clone();
        let prefetched = site.get("/shop/", &format!("{cookie}Sec-Purpose: prefetch\r\n"));
        assert_eq!(prefetched.json()["version"], page);
    }
    assert_eq!(site.counted(), [20, 0, 0]);
}

#[test]
fn preflights_go_where_the_file_sends_them() {
    let site = Site::start(None, "preflight: b\n");
    let preflight = "Origin: https://a.example\r\nAccess-Control-Request-Method: PUT\r\n";
    for number in 0..10 {
        let headers = format!("{preflight}Cookie: uid=u{number}\r\n");
        let answer = site.send("OPTIONS", "/shop/", &headers);
        assert_eq!(answer.json()["version"], "b");
    }
    assert_eq!(site.counted(), [0, 0, 0]);
}

#[test]
fn file_decides_who_is_a_robot() {
    let site = Site::start(
        None,
        "robots: { also: [ acme-monitor ], never: [ HeadlessChrome ], networks: [ 127.0.0.9 ] }\n",
    );
    site.get("/shop/", "User-Agent: ACME-Monitor/2\r\nCookie: uid=u1\r\n");
    site.get(
        "/shop/",
        "User-Agent: Mozilla/5.0 HeadlessChrome/156\r\nCookie: uid=u2\r\n",
    );
    let mut client =
        crate::support::client::Client::connect_from([127, 0, 0, 9], site.proxy.public);
    client.get("/shop/", &format!("{BROWSER}Cookie: uid=u3\r\n"));
    assert_eq!(site.counted(), [1, 0, 0]);
    assert_eq!(site.experiment()["not_counted"], json!({"robot": 2}));
    // People, if the file says so.
    site.proxy.write(&site.routes.replace(
        "robots: { also: [ acme-monitor ], never: [ HeadlessChrome ], networks: [ 127.0.0.9 ] }",
        "robots: false",
    ));
    until("robots count", || {
        site.get("/shop/", &format!("{GOOGLEBOT}Cookie: uid=u4\r\n"));
        match site.counted()[0] {
            2 => Ok(()),
            users => Err(users),
        }
    });
}

#[test]
fn robots_with_an_id_may_get_their_group() {
    let site = Site::start(None, "robots: { serve: assigned }\n");
    for number in 0..20 {
        let cookie = format!("Cookie: uid=u{number}\r\n");
        let person = site.get("/shop/", &format!("{BROWSER}{cookie}")).json()["version"].clone();
        let robot = site.get("/shop/", &format!("{GOOGLEBOT}{cookie}")).json();
        assert_eq!(robot["version"], person);
    }
    assert_eq!(site.counted(), [20, 0, 0]);
}

#[test]
fn excluded_requests_get_control_and_are_not_counted() {
    let lines = "exclude: [ { network: 127.0.0.9 }, { header: { X-Monitor: true, X-Team: qa } }, { cookie: { staff: \"1\" } }, { ids: [ ann ] } ]\n";
    both(lines, |site| {
        for headers in [
            "Cookie: uid=u1\r\nX-Monitor: yes\r\n",
            "Cookie: uid=u2\r\nX-Team: qa\r\n",
            "Cookie: uid=u3; staff=1\r\n",
            "Cookie: uid=ann\r\n",
        ] {
            let answer = site.get("/shop/", headers);
            assert_eq!(answer.json()["version"], "a", "{headers}");
        }
        let mut client =
            crate::support::client::Client::connect_from([127, 0, 0, 9], site.proxy.public);
        client.get("/shop/", "Cookie: uid=u4\r\n");
        assert_eq!(site.counted(), [0, 0, 0]);
        assert_eq!(site.experiment()["not_counted"], json!({"excluded": 5}));
        site.get("/shop/", "Cookie: uid=u1; staff=2\r\nX-Team: dev\r\n");
        assert_eq!(site.counted(), [1, 0, 0]);
        // Flags and explanations of an ID know it, too.
        let mut admin = crate::support::client::Client::admin(site.proxy.admin);
        let asks = "Watershed-Exposure: true\r\nContent-Type: application/json\r\n";
        let ann = r#"{"context": {"targetingKey": "ann"}}"#;
        let flag = admin.post("/ofrep/v1/evaluate/flags/shop", asks, ann);
        assert_eq!(flag.json()["metadata"]["by"], "excluded", "{}", flag.text());
        assert_eq!(site.counted(), [1, 0, 0]);
        let explained = site.proxy.ask("/admin/assignments?user=ann").json();
        let shop = &explained["experiments"][0];
        assert!(shop["group"].is_null(), "{shop}");
        assert!(
            shop["why"].as_str().unwrap().contains("excludes this ID"),
            "{shop}"
        );
    });
}

#[test]
fn list_of_ids_is_read_again_and_the_last_good_one_stays() {
    let site = Site::start(None, "");
    let list = site.proxy.folder.path().join("staff.txt");
    std::fs::write(&list, "# staff\nann\n\n bob \n").unwrap();
    let excluding = format!(
        "exclude: [ {{ ids: \"file:staff.txt\" }} ]\n{}",
        site.routes
    );
    site.proxy.write(&excluding);
    let excluded = || {
        let experiment = site.experiment();
        experiment["not_counted"]["excluded"].as_u64().unwrap_or(0)
    };
    let wait_for = |user: &str| {
        let before = excluded();
        until("the user is excluded", || {
            site.get("/shop/", &format!("Cookie: uid={user}\r\n"));
            if excluded() > before {
                Ok(())
            } else {
                Err(user.to_owned())
            }
        });
    };
    wait_for("bob");
    std::fs::write(&list, "carl\n").unwrap();
    wait_for("carl");
    std::fs::remove_file(&list).unwrap();
    // The process says that it keeps the last one.
    until("the missing list is reported", || {
        match site.proxy.results()["store"]["reload_error"].as_str() {
            Some(error) if error.contains("staff.txt") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    wait_for("carl");
    std::fs::write(&list, "dora\n").unwrap();
    wait_for("dora");
    until("the report ends", || {
        match site.proxy.results()["store"]["reload_error"].as_str() {
            None => Ok(()),
            Some(error) => Err(error.to_owned()),
        }
    });
}

#[test]
fn texts_that_are_no_ids_name_nobody() {
    both("", |site| {
        for none in [
            "undefined",
            "null",
            "None",
            "NaN",
            "0",
            "[object Object]",
            "%5Bobject%20Object%5D",
            "00000000-0000-0000-0000-000000000000",
            "",
            "\"\"",
            "\"null\"",
        ] {
            let answer = site.get("/shop/", &format!("{BROWSER}Cookie: uid={none}\r\n"));
            assert!(answer.header("set-cookie").is_some(), "{none:?}");
        }
        assert_eq!(site.counted(), [0, 11, 0]);
        // The first cookie with a value, with or without quotation marks, is the ID.
        for cookies in [
            "uid=; uid=u1",
            "uid=u1",
            "uid=\"u1\"",
            "uid=undefined; a=b; uid=u1",
        ] {
            let answer = site.get("/shop/", &format!("{BROWSER}Cookie: {cookies}\r\n"));
            let headers = answer.json()["headers"].to_string();
            assert!(headers.contains("[\"watershed-user\",\"u1\"]"), "{headers}");
        }
        assert_eq!(site.counted(), [1, 11, 0]);
    });
}

#[test]
fn crawl_adds_no_user_and_costs_no_room() {
    let site = Site::start(None, "");
    let mut client = site.proxy.client();
    for page in 0..2_000 {
        client.get(&format!("/shop/{page}"), GOOGLEBOT);
    }
    assert_eq!(site.counted(), [0, 0, 0]);
    assert_eq!(site.experiment()["not_counted"], json!({"robot": 2_000}));
}

#[test]
fn crawl_adds_no_user() {
    let site = Site::start(None, "");
    let mut client = site.proxy.client();
    for number in 0..10_000 {
        let client_name = match number % 4 {
            0 => GOOGLEBOT.to_owned(),
            1 => format!("User-Agent: scanner/{number}\r\n"),
            2 => BROWSER.to_owned(),
            _ => String::new(),
        };
        client.get(&format!("/shop/{number}?status=404"), &client_name);
    }
    let [users, seen_once, _] = site.counted();
    assert_eq!(users, 0);
    let robots = site.experiment()["not_counted"]["robot"].as_u64().unwrap();
    assert_eq!(robots + seen_once, 10_000);
    assert!((2_500..=5_000).contains(&robots), "{robots}");
}
