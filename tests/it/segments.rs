//! Results by segment, over real sockets, through the real program.

use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::until;
use serde_json::{Value, json};

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
    // Users whose window is over are not known by segment, so there is nothing to compare.
    let later = &mobile["metrics"][1];
    assert_eq!(later["name"], "later");
    assert!(later["groups"][1].get("lift").is_none(), "{later}");
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
