//! h2load: many concurrent streams, each of which gets a response and counts.

use super::{say, secure};
use crate::support::origin::Origin;

const REQUESTS: u64 = 5000;

#[test]
fn every_http2_stream_gets_a_response_and_counts_once() {
    let origins = [Origin::start("control"), Origin::start("b")];
    let routes = format!(
        "user: {{ header: x-user }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\n\
         experiments: {{ load: {{ control: a, experiment: b, percent: 50 }} }}",
        origins[0].address, origins[1].address
    );
    let (proxy, tls, _folder) = secure(&routes);
    let requests = REQUESTS.to_string();
    let clear = format!("http://{}/", proxy.public);
    let safe = format!("https://127.0.0.1:{}/", tls.port());
    let runs: [(&str, &[&str]); 3] = [
        ("one", &["-p", "h2c", &clear]),
        ("two", &[&safe]),
        ("three", &["--h1", &clear]),
    ];
    for (round, (user, words)) in runs.into_iter().enumerate() {
        let header = format!("x-user: {user}");
        let mut all = vec!["-n", &requests, "-c", "4", "-m", "10", "-H", &header];
        all.extend(words);
        let said = say("h2load", &all);
        let summed = format!(
            "requests: {REQUESTS} total, {REQUESTS} started, {REQUESTS} done, {REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout"
        );
        assert!(said.contains(&summed), "{user}: {said}");
        let codes = format!("status codes: {REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx");
        assert!(said.contains(&codes), "{user}: {said}");
        let results = proxy.results();
        let groups = results["experiments"][0]["groups"].as_array().unwrap();
        let sum = |key: &str| {
            groups
                .iter()
                .map(|group| group[key].as_u64().unwrap())
                .sum::<u64>()
        };
        let round = round as u64 + 1;
        assert_eq!((sum("users"), sum("requests")), (round, round * REQUESTS));
        let answered = groups
            .iter()
            .map(|group| group["responses"]["2xx"].as_u64().unwrap_or(0));
        assert_eq!(answered.sum::<u64>(), round * REQUESTS);
    }
}
