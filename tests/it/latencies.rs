//! Quantiles of latencies as metrics and guardrails, over real sockets, through the real program.

use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use serde_json::json;

#[test]
fn quantile_of_first_responses_is_a_metric_and_a_guardrail() {
    let origins = [Origin::start("control"), Origin::start("b")];
    let routes = format!(
        "user: {{ cookie: uid }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\nexperiments:\n  shop:\n    groups: {{ control: {{ weight: 50, upstream: a }}, b: {{ weight: 50, upstream: b }} }}\n    metrics: [speed]\n    guardrails: {{ tail: {{ max_increase: 10% }} }}\nmetrics:\n  speed: {{ latency: p50 }}\n  tail: {{ latency: p99, goal: decrease, detect: 20% }}\n",
        origins[0].address, origins[1].address
    );
    let proxy = Proxy::start(&routes);
    let mut client = proxy.client();
    let mut users = 0;
    // Two slow users of a group, and then quick ones: the median of so few may be either.
    for (user, path) in [("u1", "/?sleep_ms=150"), ("u2", "/?sleep_ms=150")] {
        client.get(path, &format!("Cookie: uid={user}\r\n"));
        users += 1;
    }
    // What follows a user's first response is no sample.
    client.get("/", "Cookie: uid=u1\r\n");
    for number in 0..20 {
        client.get("/", &format!("Cookie: uid=quick-{number}\r\n"));
        users += 1;
    }
    let results = proxy.results();
    let experiment = &results["experiments"][0];
    let speed = &experiment["metrics"][0];
    assert_eq!(
        (&speed["kind"], &speed["latency"], &speed["goal"]),
        (&json!("latency"), &json!("p50"), &json!("decrease"))
    );
    let groups = speed["groups"].as_array().unwrap();
    let measured: u64 = groups.iter().map(|it| it["count"].as_u64().unwrap()).sum();
    assert_eq!(measured, users);
    for group in groups {
        let rate = group["rate"].as_f64().unwrap();
        assert!(rate > 0.0 && rate < 150.0, "{group}");
    }
    assert_eq!(speed["groups"][1]["p_value"], json!(1.0), "{speed}");
    let guardrail = &experiment["guardrails"][0];
    assert_eq!(guardrail["name"], "tail");
    let slowest = guardrail["groups"].as_array().unwrap().iter();
    let slowest = slowest.map(|it| it["rate"].as_f64().unwrap());
    assert!(slowest.fold(0.0, f64::max) > 145.0, "{guardrail}");
    assert_eq!(
        guardrail["groups"][1]["breached"],
        json!(false),
        "{guardrail}"
    );
    let page = proxy.ask("/admin/results?format=text").text();
    assert!(page.contains("speed") && page.contains(" ms"), "{page}");
}
