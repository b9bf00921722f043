//! What an answer counts for.

use http::{HeaderValue, Method, Response, response};
use proptest::prelude::*;
use std::path::Path;
use watershed::config;
use watershed::experiment::metric::{EVENT_HEADER, Metric, Observation, VALUE_MAX, observe};

/// The metrics that this part of a routes file means.
fn metrics(written: &str) -> Box<[Metric]> {
    let text = format!("upstreams: {{ a: \"http://b\" }}\nmetrics: {{ {written} }}\n");
    config::parse(&text, Path::new("routes.yaml"), &|_| None)
        .unwrap_or_else(|unsound| panic!("{unsound}"))
        .metrics
}

fn answer(status: u16, headers: &[(&str, &str)]) -> response::Parts {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(()).unwrap().into_parts().0
}

/// Each observation as (metric, count, sum, base).
#[track_caller]
fn check(
    written: &str,
    request: (&str, &str),
    answer: &response::Parts,
    expected: &[(usize, u32, i64, i64)],
) {
    let method: Method = request.0.parse().unwrap();
    let (seen, readable) = observe(&metrics(written), &method, request.1, answer);
    let told = |seen: &Observation| (seen.metric.0, seen.count, seen.sum, seen.base);
    assert_eq!(seen.iter().map(told).collect::<Vec<_>>(), expected);
    assert!(readable);
}

#[test]
fn rules() {
    let once = [(0, 1, 0, 0)];
    let buy = "m: POST /checkout -> 2xx";
    check(buy, ("POST", "/checkout"), &answer(201, &[]), &once);
    check(buy, ("GET", "/checkout"), &answer(201, &[]), &[]);
    check(buy, ("POST", "/checkout/"), &answer(201, &[]), &[]);
    check(buy, ("POST", "/checkout"), &answer(302, &[]), &[]);
    check("m: /shop/**", ("GET", "/shop"), &answer(500, &[]), &once);
    check(
        "m: /shop/**",
        ("GET", "/shop/a/b"),
        &answer(500, &[]),
        &once,
    );
    check("m: /shop/**", ("GET", "/shopping"), &answer(500, &[]), &[]);
    check(
        "m: /p/*/buy -> 200-204",
        ("GET", "/p/17/buy"),
        &answer(204, &[]),
        &once,
    );
    check(
        "m: /p/*/buy -> 200-204",
        ("GET", "/p/1/2/buy"),
        &answer(204, &[]),
        &[],
    );
    let header = "m: { on: { header: \"X-Done: yes\" } }";
    check(
        header,
        ("GET", "/"),
        &answer(200, &[("x-done", "no"), ("x-done", "yes")]),
        &once,
    );
    check(header, ("GET", "/"), &answer(200, &[("x-done", "no")]), &[]);
    check(
        "m: { on: { header: X-Done } }",
        ("GET", "/"),
        &answer(200, &[("x-done", "")]),
        &once,
    );
}

#[test]
fn events_and_their_values() {
    let get = ("GET", "/");
    let says = |lines: &[&str]| {
        answer(
            200,
            &lines
                .iter()
                .map(|line| ("watershed-event", *line))
                .collect::<Vec<_>>(),
        )
    };
    let both = "a: { event: a }, m: { event: a, value: v, kind: mean }";
    check(
        both,
        get,
        &says(&["a;v=19.90"]),
        &[(0, 1, 0, 0), (1, 1, 1990, 0)],
    );
    check(
        both,
        get,
        &says(&["a;v=1, b, a;v=-2.5"]),
        &[(0, 2, 0, 0), (1, 2, -150, 0)],
    );
    check(
        both,
        get,
        &says(&["a;v=1", "a;v=2"]),
        &[(0, 2, 0, 0), (1, 2, 300, 0)],
    );
    check(both, get, &says(&["a;w=1"]), &[(0, 1, 0, 0), (1, 1, 0, 0)]);
    check(
        "m: { event: a, value: v, kind: mean, scale: 0 }",
        get,
        &says(&["a;v=2.5"]),
        &[(0, 1, 3, 0)],
    );
    check(
        "m: { event: a, kind: mean }",
        get,
        &says(&["a, a"]),
        &[(0, 2, 200, 0)],
    );
    check(
        "m: { event: a, value: v, kind: mean, scale: 6 }",
        get,
        &says(&["a;v=999999999999.0"]),
        &[(0, 1, VALUE_MAX, 0)],
    );
    let ratio = "r: { event: a, value: v, kind: ratio, per: requests }, s: { event: a, kind: ratio, per: { event: b } }";
    check(
        ratio,
        get,
        &says(&["a;v=1"]),
        &[(0, 1, 100, 1), (1, 1, 100, 0)],
    );
    check(ratio, get, &says(&["b, b"]), &[(0, 0, 0, 1), (1, 0, 0, 2)]);
}

#[test]
fn a_header_that_cannot_be_read_says_nothing_and_says_so() {
    for bad in ["a b", "\"text\"", "a;v=", "(a b)", "a,"] {
        let (seen, readable) = observe(
            &metrics("m: { event: a }"),
            &Method::GET,
            "/",
            &answer(200, &[("watershed-event", bad)]),
        );
        assert!(seen.is_empty() && !readable, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn no_header_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut answer = answer(200, &[]);
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            answer.headers.insert(EVENT_HEADER, value);
            let (seen, _) = observe(&metrics("m: { event: a, value: v, kind: mean, scale: 6 }"), &Method::GET, "/", &answer);
            prop_assert!(seen.iter().all(|seen| seen.sum.abs() <= VALUE_MAX));
        }
    }
}
