//! What an answer counts for.

use http::{HeaderValue, Method, Response, response};
use proptest::prelude::*;
use std::path::Path;
use watershed::config;
use watershed::experiment::event::{EVENT_HEADER, EventFault, event_id};
use watershed::experiment::metric::{Metric, Observation, Observed, VALUE_MAX, observe};

const NOW_MS: u64 = 1_800_000_000_000;

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
    let Observed {
        observations: seen,
        faults,
        ..
    } = observe(&metrics(written), &method, request.1, answer, NOW_MS);
    let told = |seen: &Observation| (seen.metric.0, seen.count, seen.sum, seen.base);
    assert_eq!(seen.iter().map(told).collect::<Vec<_>>(), expected);
    assert_eq!(faults, []);
}

fn says(lines: &[&str]) -> response::Parts {
    let headers: Vec<_> = lines
        .iter()
        .map(|line| ("watershed-event", *line))
        .collect();
    answer(200, &headers)
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
    let ratio = "r: { event: a, value: v, kind: ratio, per: requests }, s: { event: a, kind: ratio, per: { event: b } }";
    check(
        ratio,
        get,
        &says(&["a;v=1"]),
        &[(0, 1, 100, 1), (1, 1, 100, 0)],
    );
    check(ratio, get, &says(&["b, b"]), &[(0, 0, 0, 1), (1, 0, 0, 2)]);
}

type Counted = (usize, u32, i64, Option<u64>);

/// What a header counts for, as (metric, count, sum, ID), and what is wrong with it.
fn header(written: &str, lines: &[&str]) -> (Vec<Counted>, Vec<String>) {
    let Observed {
        observations: seen,
        faults,
        ..
    } = observe(&metrics(written), &Method::GET, "/", &says(lines), NOW_MS);
    let told = |seen: &Observation| {
        let id = seen.event_id.map(u64::from);
        (seen.metric.0, seen.count, seen.sum, id)
    };
    let faults = faults.iter().map(EventFault::to_string);
    (seen.iter().map(told).collect(), faults.collect())
}

const BOTH: &str = "a: { event: a }, m: { event: a, value: v, kind: mean, max: 500 }";

#[test]
fn header_numbers_are_lenient_and_rounded_half_away_from_zero() {
    for (value, units) in [
        ("19.9999", 2000),
        ("1e2", 10_000),
        ("+5", 500),
        ("\"5\"", 500),
        (" 5 ", 500),
        ("1.005", 101),
        ("-0.005", -1),
        ("-0.0049", 0),
        ("500.004", 50_000),
        ("0.00000000000000000000000001", 0),
        ("123456789012345e-13", 1235),
    ] {
        let seen = header(BOTH, &[&format!("a;v={value}")]);
        let both = vec![(0, 1, 0, None), (1, 1, units, None)];
        assert_eq!(seen, (both, vec![]), "{value}");
    }
}

#[test]
fn invalid_parameter_drops_only_itself() {
    let counts = vec![(0, 1, 0, None), (1, 1, 0, None)];
    for (event, fault) in [
        ("a;v=abc", "`v` of `a` is not a number"),
        ("a;v=1_000", "`v` of `a` is not a number"),
        ("a;v=NaN", "`v` of `a` is not a number"),
        ("a;v=", "`v` of `a` is empty"),
        ("a;v=\"\"", "`v` of `a` is empty"),
        ("a;v", "`v` of `a` is a boolean"),
        (
            "a;v=500.005",
            "`v` of `a` is beyond 500, the largest value that is taken",
        ),
        (
            "a;v=-1e308",
            "`v` of `a` is beyond 500, the largest value that is taken",
        ),
        ("a;w=1", "`a` has no `v`, which a metric needs"),
    ] {
        let seen = header(BOTH, &[event]);
        assert_eq!(seen, (counts.clone(), vec![fault.to_owned()]), "{event}");
        // Beside others, which count whole.
        let (seen, faults) = header(BOTH, &["a;v=1", event, "a;v=2"]);
        assert_eq!(seen, [(0, 3, 0, None), (1, 3, 300, None)], "{event}");
        assert_eq!(faults.len(), 1, "{event}");
    }
    let large = "m: { event: a, value: v, kind: mean, scale: 6 }";
    assert_eq!(header(large, &["a;v=1000000"]).0, [(0, 1, VALUE_MAX, None)]);
    let (seen, faults) = header(large, &["a;v=1000000.000001"]);
    assert_eq!((seen, faults.len()), (vec![(0, 1, 0, None)], 1));
}

#[test]
fn malformed_member_is_reported_and_drops_only_itself() {
    for bad in ["(a b)", "\"\"", "", "=", "a=1", "%\"%c\""] {
        let lines = ["a;v=1", bad, "a;v=2"];
        let (seen, faults) = header(BOTH, &lines);
        assert_eq!(seen, [(0, 2, 0, None), (1, 2, 300, None)], "{bad:?}");
        assert_eq!(faults.len(), 1, "{bad:?}: {faults:?}");
        assert!(faults[0].ends_with("is not an event with parameters"));
        assert_eq!(header(BOTH, &[&lines.join(",")]), (seen, faults), "{bad:?}");
    }
}

#[test]
fn each_event_of_a_header_has_its_own_id() {
    let id = |text: &str| Some(event_id("a", text.as_bytes()).get());
    let (seen, faults) = header(BOTH, &["a;v=1;id=\"x\", a;v=2, a;v=3;id=\"y\""]);
    assert_eq!(faults, [""; 0]);
    let expected = [
        (0, 1, 0, None),
        (1, 1, 200, None),
        (0, 1, 0, id("x")),
        (1, 1, 100, id("x")),
        (0, 1, 0, id("y")),
        (1, 1, 300, id("y")),
    ];
    assert_eq!(seen, expected);
    let (seen, faults) = header(BOTH, &["a;v=1;id=\"\""]);
    assert_eq!(seen, [(0, 1, 0, None), (1, 1, 100, None)]);
    assert_eq!(faults, ["`id` of `a` is not a text of 1 to 256 bytes"]);
}

#[test]
fn names_of_events_are_any_text_and_unknown_ones_spoil_nothing() {
    let named = "m: { event: \"Order Completed\", value: v, kind: mean }, p: { event: $pageview }, k: { event: 購入 }";
    let all =
        "\"Order Completed\";v=2, Order Completed;v=1, $pageview, 購入, Other Thing;v=7, ?, p";
    let (seen, faults) = header(named, &[all]);
    assert_eq!(seen, [(0, 2, 300, None), (1, 1, 0, None), (2, 1, 0, None)]);
    assert_eq!(faults, [""; 0]);
}

#[test]
fn own_time_of_an_event_is_kept_or_the_event_is_lost() {
    let at = |ms: u64| jiff::Timestamp::from_millisecond(ms as i64).unwrap();
    let hour_ago = NOW_MS - 3_600_000;
    let line = format!("a;v=1;at=\"{}\", a;v=2", at(hour_ago));
    let Observed {
        observations: seen,
        faults,
        ..
    } = observe(&metrics(BOTH), &Method::GET, "/", &says(&[&line]), NOW_MS);
    let times = seen
        .iter()
        .map(|one| (one.metric.0, one.sum, one.at_ms.map(u64::from)));
    let expected = [
        (0, 0, None),
        (1, 200, None),
        (0, 0, Some(hour_ago)),
        (1, 100, Some(hour_ago)),
    ];
    assert_eq!(
        (times.collect::<Vec<_>>(), faults),
        (expected.to_vec(), vec![])
    );
    let line = format!("a;v=1;at=\"{}\", a;v=2", at(NOW_MS + 86_400_000));
    let (seen, faults) = header(BOTH, &[&line]);
    assert_eq!(seen, [(0, 1, 0, None), (1, 1, 200, None)]);
    let fault = "`at` of `a` is more than 30 days ago or more than 5 minutes ahead";
    assert_eq!(faults, [fault]);
}

proptest! {
    #[test]
    fn no_header_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut answer = answer(200, &[]);
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            answer.headers.insert(EVENT_HEADER, value);
            let Observed { observations: seen, .. } = observe(&metrics("m: { event: a, value: v, kind: mean, scale: 6 }"), &Method::GET, "/", &answer, NOW_MS);
            prop_assert!(seen.iter().all(|seen| seen.sum.abs() <= VALUE_MAX));
        }
    }
}
