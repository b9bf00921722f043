//! The upstream's event header and the browser's JSON: bounded, finite, and the same however they
//! are written. The first byte chooses: an even one gives the header's lines, an odd one JSON.
#![no_main]

use http::Method;
use http::header::HeaderValue;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use watershed::experiment::metric::{
    EVENT_HEADER, Goal, Kind, Metric, Role, Trigger, VALUE_MAX, observe, observe_events,
};
use watershed::experiment::reported::{self, EVENTS_MAX, NAME_BYTES_MAX, Reported};

fn metric(kind: Kind, value: Option<&str>) -> Metric {
    Metric {
        name: "m".into(),
        kind,
        goal: Goal::Increase,
        role: Role::Primary,
        trigger: Trigger::Event("purchase".into()),
        value: value.map(Into::into),
        per: None,
        scale: 6,
        within_ms: None,
        detect: 0.1,
        margin: 0.01,
        baseline: None,
    }
}

fn metrics() -> Vec<Metric> {
    vec![
        metric(Kind::Conversion, None),
        metric(Kind::Count, None),
        metric(Kind::Mean, Some("amount")),
    ]
}

fn answer(lines: &[&[u8]]) -> Option<http::response::Parts> {
    let (mut head, ()) = http::Response::new(()).into_parts();
    for line in lines {
        head.headers
            .append(EVENT_HEADER, HeaderValue::from_bytes(line).ok()?);
    }
    Some(head)
}

fn header(bytes: &[u8]) {
    let metrics = metrics();
    let lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    let (Some(head), Some(joined)) = (answer(&lines), answer(&[&lines.join(&b", "[..])])) else {
        return;
    };
    let seen = observe(&metrics, &Method::GET, "/", &head);
    // RFC 9651, 4.2: several lines are one list.
    assert_eq!(seen, observe(&metrics, &Method::GET, "/", &joined));
    let commas = bytes.iter().filter(|&&byte| byte == b',' || byte == b'\n');
    let most = commas.count() as u32 + 1;
    for one in &seen.0 {
        assert!((1..=most).contains(&one.count), "{one:?}");
        assert!(one.sum.abs() <= VALUE_MAX, "{one:?}");
        assert!(seen.1, "an unreadable header reports something");
    }
    // What is not even visible text is no list (RFC 9651, 4.2).
    if bytes.iter().any(|byte| !byte.is_ascii()) {
        assert!(!seen.1);
    }
}

fn written(event: &Reported) -> Value {
    let mut map = Map::new();
    for (name, value) in &event.event.parameters {
        map.insert(name.to_string(), json!(value));
    }
    map.insert("event".to_owned(), json!(event.event.name));
    map.insert("id".to_owned(), json!(event.id));
    map.insert("user".to_owned(), json!(event.user));
    Value::Object(map)
}

fn report(bytes: &[u8]) {
    let read = reported::read(bytes, EVENTS_MAX);
    let Ok(events) = read else {
        return;
    };
    assert!(events.len() <= EVENTS_MAX);
    for event in &events {
        let texts = [
            Some(&*event.event.name),
            event.id.as_deref(),
            event.user.as_deref(),
        ];
        for text in texts.into_iter().flatten() {
            assert!((1..=NAME_BYTES_MAX).contains(&text.len()));
        }
        assert!(event.event.parameters.len() <= 16);
        for (_, value) in &event.event.parameters {
            assert!(value.is_finite(), "{value}");
        }
        assert_eq!(event.id.is_some(), event.id_digest().is_some());
        for one in observe_events(&metrics(), std::slice::from_ref(&event.event)) {
            assert!(one.count == 1 && one.sum.abs() <= VALUE_MAX, "{one:?}");
        }
    }
    let again = Value::Array(events.iter().map(written).collect()).to_string();
    assert_eq!(reported::read(again.as_bytes(), EVENTS_MAX), Ok(events));
}

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((kind, bytes)) if kind % 2 == 0 => header(bytes),
        Some((_, bytes)) => report(bytes),
        None => {}
    }
});
