//! Metrics that are adjusted by what users did before their exposure: over real sockets, through the
//! real program.

use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use serde_json::Value;
use std::time::{Duration, SystemTime};

const USERS: usize = 160;

fn routes(store: &str, origins: &[Origin; 2], covariate: &str) -> String {
    format!(
        "{store}user: {{ cookie: uid }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\nexperiments:\n  shop:\n    match: {{ path: /shop }}\n    groups: {{ control: {{ weight: 50, upstream: a }}, b: {{ weight: 50, upstream: b }} }}\nmetrics:\n  revenue: {{ event: purchase, value: amount, kind: mean{covariate} }}\n",
        origins[0].address, origins[1].address
    )
}

/// `at` of a moment so long ago, as `Watershed-Event` writes it in a query.
fn ago(time: Duration) -> String {
    let at = humantime::format_rfc3339_millis(SystemTime::now() - time);
    format!("%22{at}%22")
}

fn metric(proxy: &Proxy) -> Value {
    proxy.results()["experiments"][0]["metrics"][0].clone()
}

fn sum(metric: &Value, what: &str) -> f64 {
    let groups = metric["groups"].as_array().unwrap();
    groups.iter().map(|it| it[what].as_f64().unwrap()).sum()
}

/// Half of all users buy before they are exposed, and later spend ten times as much as then.
fn adjusted_by_earlier_purchases(store: &str) {
    let origins = [Origin::start("control"), Origin::start("b")];
    let mut proxy = Proxy::start(&routes(store, &origins, ", covariate: 14d"));
    let mut client = proxy.client();
    let mut get = |user: usize, path: &str| {
        client.get(path, &format!("Cookie: uid=u{user}\r\n"));
    };
    let earlier = |user: usize| 1 + user * 7 % 10;
    let hour = Duration::from_secs(3600);
    for user in (0..USERS).filter(|user| user % 4 != 3) {
        // One in four bought too long ago.
        let time = if user % 4 == 2 { 15 * 24 * hour } else { hour };
        let amount = earlier(user);
        get(
            user,
            &format!("/other?event=purchase;amount={amount};at={}", ago(time)),
        );
    }
    for user in 0..USERS {
        get(user, "/shop");
        let amount = if user % 4 < 2 {
            10 * earlier(user)
        } else {
            3 + user % 3
        };
        get(user, &format!("/other?event=purchase;amount={amount}"));
        // Reported after the exposure, whenever it happened: no covariate, and before the exposure.
        get(
            user,
            &format!("/other?event=purchase;amount=77;at={}", ago(2 * hour)),
        );
    }
    let check = |metric: &Value| {
        assert_eq!(sum(metric, "users"), USERS as f64);
        let spent = (0..USERS).map(|user| match user % 4 {
            0 | 1 => 10 * earlier(user),
            _ => 3 + user % 3,
        });
        assert_eq!(
            sum(metric, "sum"),
            spent.sum::<usize>() as f64,
            "{metric:#}"
        );
        let covariate = &metric["covariate"];
        assert_eq!(covariate["time"], "14d");
        assert_eq!(covariate["users_known"], USERS / 2, "{covariate}");
    };
    let found = metric(&proxy);
    check(&found);
    // Fewer than a hundred are known: nothing is adjusted.
    assert!(found["covariate"]["variance_reduction"].is_null());
    assert!(found["groups"][0].get("unadjusted_rate").is_none());
    for user in USERS..2 * USERS {
        let (amount, at) = (earlier(user), ago(hour));
        get(
            user,
            &format!("/other?event=purchase;amount={amount};at={at}"),
        );
    }
    for user in USERS..2 * USERS {
        get(user, "/shop");
        let amount = 10 * earlier(user);
        get(user, &format!("/other?event=purchase;amount={amount}"));
    }
    let found = metric(&proxy);
    let covariate = &found["covariate"];
    assert_eq!(covariate["users_known"], USERS / 2 + USERS);
    let reduction = covariate["variance_reduction"].as_f64().unwrap();
    assert!(reduction > 0.98 && reduction <= 1.0, "{covariate}");
    assert!(covariate["effective_users"].as_u64().unwrap() > 50 * 2 * USERS as u64);
    let rates = |what: &str| {
        let groups = found["groups"].as_array().unwrap();
        let rates: Vec<f64> = groups.iter().map(|it| it[what].as_f64().unwrap()).collect();
        (rates[1] - rates[0]).abs()
    };
    // The groups are alike but for who is in them, and that is what the adjustment takes away.
    assert!(rates("rate") < 0.2 * rates("unadjusted_rate"), "{found:#}");
    let lift = found["groups"][1]["lift"]["relative"].as_f64().unwrap();
    let shown = found["groups"][1]["rate"].as_f64().unwrap();
    let control = found["groups"][0]["rate"].as_f64().unwrap();
    assert!((lift - (shown / control - 1.0)).abs() < 1e-9, "{found:#}");
    let text = proxy.ask("/admin/results?format=text").text();
    assert!(
        text.contains("revenue is adjusted by what 240 users did in the 14d"),
        "{text}"
    );
    // The same time of the experiment is the same definition.
    proxy.kill();
    let routes = routes(store, &origins, "");
    proxy.again(&routes.replace("    match:", "    covariate: 14d\n    match:"));
    assert_eq!(metric(&proxy)["covariate"], *covariate);
}

#[test]
fn metric_is_adjusted_by_earlier_purchases_in_the_embedded_file() {
    adjusted_by_earlier_purchases("");
}

#[test]
fn metric_is_adjusted_by_earlier_purchases_in_redis() {
    let redis = Redis::start();
    adjusted_by_earlier_purchases(&format!("store: {}\n", redis.url()));
}
