//! Results by segment, over real sockets, through the real program.

use crate::support::client::Client;
use crate::support::clock::Clock;
use crate::support::origin::Origin;
use crate::support::proxy::{How, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const PHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Mobile/15E148";
const DESKTOP: &str = "Mozilla/5.0 (X11; Linux x86_64) Firefox/145.0";

fn routes(origins: &[Origin; 2], segments: &str) -> String {
    format!(
        "user: {{ cookie: uid }}\nsegments: {{ {segments} }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\nexperiments:\n  shop:\n    groups: {{ control: {{ weight: 50, upstream: a }}, b: {{ weight: 50, upstream: b }} }}\nmetrics:\n  purchase: {{ event: purchase }}\n  later: {{ event: purchase, within: 1h }}\n",
        origins[0].address, origins[1].address
    )
}

fn start() -> (Proxy, [Origin; 2]) {
    let origins = [Origin::start("control"), Origin::start("b")];
    let segments = "device: device, plan: { header: X-Plan, values: [free, pro] }";
    (Proxy::start(&routes(&origins, segments)), origins)
}

/// Users of a segment's value, over all groups, and how many of them bought.
fn of_value(experiment: &Value, segment: &str, value: &str) -> (u64, u64) {
    let segments = experiment["segments"].as_array().unwrap();
    let segment = segments.iter().find(|it| it["name"] == segment).unwrap();
    let mut values = segment["values"].as_array().unwrap().iter();
    let Some(value) = values.find(|it| it["value"] == value) else {
        return (0, 0);
    };
    let groups = value["metrics"][0]["groups"].as_array().unwrap();
    groups.iter().fold((0, 0), |(users, bought), group| {
        let count = group["users"].as_u64().unwrap();
        let rate = group["rate"].as_f64().unwrap_or(0.0);
        (users + count, bought + (rate * count as f64).round() as u64)
    })
}

#[test]
fn user_stays_in_the_segments_of_the_first_exposure() {
    let (proxy, _origins) = start();
    let mut client = proxy.client();
    let mut get = |path: &str, user: usize, agent: &str, plan: &str| {
        let headers = format!("Cookie: uid=u{user}\r\nUser-Agent: {agent}\r\nX-Plan: {plan}\r\n");
        client.get(path, &headers);
    };
    for user in 0..12 {
        let (agent, plan) = match user % 3 {
            0 => (PHONE, "free"),
            1 => (DESKTOP, "pro"),
            // A thousand plans are one.
            _ => (DESKTOP, &*format!("plan-{user}")),
        };
        get("/", user, agent, plan);
    }
    // Later requests change no segment, and events count where the user was first.
    get("/?event=purchase", 0, DESKTOP, "pro");
    get("/?event=purchase", 1, PHONE, "free");
    let results = proxy.results();
    let experiment = &results["experiments"][0];
    assert_eq!(
        of_value(experiment, "device", "mobile"),
        (4, 1),
        "{experiment}"
    );
    assert_eq!(of_value(experiment, "device", "desktop"), (8, 1));
    assert_eq!(of_value(experiment, "plan", "free"), (4, 1));
    assert_eq!(of_value(experiment, "plan", "pro"), (4, 1));
    assert_eq!(of_value(experiment, "plan", "other"), (4, 0));
    assert_eq!(of_value(experiment, "plan", "plan-2"), (0, 0));
    let mobile = &experiment["segments"][0]["values"];
    let mobile = mobile
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["value"] == "mobile")
        .unwrap();
    assert_eq!(mobile["sample_ratio"]["mismatch"], json!(false));
    // Nobody's window is over.
    let later = &mobile["metrics"][1];
    assert_eq!(later["name"], "later");
    let waiting = |group: usize| later["groups"][group]["users_waiting"].as_u64().unwrap();
    assert_eq!(waiting(0) + waiting(1), 4, "{later}");
    assert_eq!(later["groups"][0]["users"], 0, "{later}");
    let text = proxy.ask("/admin/results?format=text").text();
    assert!(
        text.contains("device: mobile") && text.contains("no verdict rests on them"),
        "{text}"
    );
}

#[test]
fn redefined_segment_counts_users_who_come_from_then_on() {
    let (proxy, origins) = start();
    let come = |proxy: &Proxy, from: usize, count: usize| {
        let mut client = proxy.client();
        for user in from..from + count {
            client.get("/", &format!("Cookie: uid=u{user}\r\nX-Plan: gold\r\n"));
        }
    };
    come(&proxy, 0, 8);
    let experiment = proxy.results()["experiments"][0].clone();
    assert_eq!(of_value(&experiment, "plan", "other"), (8, 0));
    let segments = "device: device, plan: { header: X-Plan, values: [free, gold] }";
    proxy.write(&routes(&origins, segments));
    // Users come until the new file is served.
    let mut come_since = 0;
    let experiment = until("the changed segment", || {
        come(&proxy, 8 + come_since, 1);
        come_since += 1;
        let experiment = proxy.results()["experiments"][0].clone();
        let is_new = experiment["segments"].as_array().unwrap().len() == 2
            && of_value(&experiment, "plan", "gold") != (0, 0);
        is_new.then_some(experiment.clone()).ok_or(experiment)
    });
    let (gold, _) = of_value(&experiment, "plan", "gold");
    assert_eq!(of_value(&experiment, "plan", "other"), (0, 0));
    let segment = |name: &str| {
        let segments = experiment["segments"].as_array().unwrap();
        segments.iter().find(|it| it["name"] == name).unwrap()["users_before"].clone()
    };
    assert_eq!(segment("device"), 0);
    assert_eq!(segment("plan"), 8 + come_since as u64 - gold);
    let text = proxy.ask("/admin/results?format=text").text();
    assert!(text.contains("plan does not include"), "{text}");
}

/// By value of `device`: users, users whose window is not over, and users who bought, of each group.
fn of_device(experiment: &Value) -> BTreeMap<String, [[u64; 3]; 2]> {
    let devices = experiment["segments"][0]["values"].as_array().unwrap();
    let of = |device: &Value| {
        let metric = &device["metrics"][0];
        [0, 1].map(|place| counted(&metric["groups"][place]))
    };
    let devices = devices.iter();
    devices
        .map(|device| (device["value"].as_str().unwrap().to_owned(), of(device)))
        .collect()
}

fn counted(group: &Value) -> [u64; 3] {
    let number = |key: &str| group[key].as_u64().unwrap();
    let bought = group["rate"].as_f64().unwrap_or(0.0) * number("users") as f64;
    [
        number("users"),
        number("users_waiting"),
        bought.round() as u64,
    ]
}

/// Sums what each device has, by group.
fn over_devices(devices: &BTreeMap<String, [[u64; 3]; 2]>) -> [[u64; 3]; 2] {
    let mut sums = [[0; 3]; 2];
    for (place, group) in devices
        .values()
        .flat_map(|groups| groups.iter().enumerate())
    {
        sums[place]
            .iter_mut()
            .zip(group)
            .for_each(|(sum, more)| *sum += more);
    }
    sums
}

/// Users of the last hours, of whom some come back in the other group.
fn windows_and_crossovers(store: &str) {
    const HOURS: i64 = 3600;
    let origins = [Origin::start("control"), Origin::start("b")];
    let clock = Clock::new();
    clock.set(-6 * HOURS);
    let routes = |weights: [u64; 2], crossover: &str| {
        format!(
            "{store}user: {{ cookie: uid }}\nsegments: {{ device: device }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\nexperiments:\n  shop:\n    crossover: {crossover}\n    horizon: 1000000\n    groups: {{ control: {{ weight: {}, upstream: a }}, b: {{ weight: {}, upstream: b }} }}\nmetrics: {{ soon: {{ event: purchase, within: 1h }} }}\n",
            origins[0].address, origins[1].address, weights[0], weights[1]
        )
    };
    let how = How {
        env: clock.environment(),
        ..How::default()
    };
    let proxy = Proxy::start_how(&routes([50, 50], "first"), how);
    let load = |weights: [u64; 2], crossover: &str| {
        proxy.write(&routes(weights, crossover));
        let answer = Client::admin(proxy.admin).post("/admin/reload", "", "");
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let come = |users: std::ops::Range<usize>, path: &str| {
        let mut client = proxy.client();
        for user in users {
            let agent = if user % 3 == 0 { PHONE } else { DESKTOP };
            client.get(
                path,
                &format!("Cookie: uid=u{user}\r\nUser-Agent: {agent}\r\n"),
            );
        }
    };
    let experiment = || proxy.results()["experiments"][0].clone();
    come(0..90, "/");
    come(0..45, "/?event=purchase");
    clock.set(0);
    // Their window is not over, whatever they buy.
    come(90..150, "/?event=purchase");
    let shown = experiment();
    let whole = [0, 1].map(|place| counted(&shown["metrics"][0]["groups"][place]));
    let of = |counted: [[u64; 3]; 2], field: usize| counted[0][field] + counted[1][field];
    assert_eq!(
        [0, 1, 2].map(|field| of(whole, field)),
        [90, 60, 45],
        "{shown}"
    );
    let devices = of_device(&shown);
    assert_eq!(over_devices(&devices), whole, "{shown}");
    assert_eq!(
        [0, 1, 2].map(|field| of(devices["mobile"], field)),
        [30, 20, 15]
    );
    let mobile = &shown["segments"][0]["values"][1]["metrics"][0];
    // By present evidence, and not by the analyses of the planned end, none of which was made yet.
    let low = |group: &Value| group["lift"]["relative_interval"][0].as_f64().unwrap();
    assert!(low(&mobile["groups"][1]) > -1.0, "{mobile}");
    assert_eq!(low(&shown["metrics"][0]["groups"][1]), -1.0);

    // Those of control cross over, and are in no rate.
    load([1, 99_999], "exclude");
    come(0..150, "/");
    let shown = experiment();
    assert_eq!(
        shown["crossed_over"],
        of(whole, 0) + of(whole, 1) - whole[1][0] - whole[1][1]
    );
    let left = [0, 1].map(|place| counted(&shown["metrics"][0]["groups"][place]));
    assert_eq!(left, [[0; 3], whole[1]], "{shown}");
    assert_eq!(over_devices(&of_device(&shown)), left, "{shown}");
    // Rates over time are of the same users.
    let path = "/admin/results/shop?format=json&over_time=true";
    let over_time = proxy.ask(path).json();
    let last = over_time["experiments"][0]["metrics"][0]["over_time"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    let users = ["control", "b"].map(|group| last["groups"][group]["users"].as_u64().unwrap_or(0));
    assert_eq!(users, [0, left[1][0]], "{last}");
}

#[test]
fn metric_with_a_window_is_judged_by_segment_and_without_crossovers() {
    windows_and_crossovers("");
}

#[test]
fn metric_with_a_window_is_judged_by_segment_and_without_crossovers_in_redis() {
    let redis = Redis::start();
    windows_and_crossovers(&format!("store: {}\n", redis.url()));
}
