//! The upstream's event header and the browser's JSON: bounded, finite, and the same however they
//! are written. The first byte chooses: an even one gives the header's lines, an odd one JSON.

use http::Method;
use http::header::HeaderValue;
use watershed::experiment::client_event::{self, EVENTS_MAX, PARAMETERS_MAX};
use watershed::experiment::event::{EVENT_HEADER, HEADER_EVENTS_MAX, NAME_BYTES_MAX};
use watershed::experiment::metric::{
    Metric, MetricGoal, MetricKind, MetricRole, Trigger, VALUE_MAX, observe, observe_event,
};

/// When the events are reported.
const NOW_MS: u64 = 1_800_000_000_000;

fn metric(kind: MetricKind, value: Option<&str>) -> Metric {
    Metric {
        name: "m".into(),
        label: None,
        unit: None,
        kind,
        goal: MetricGoal::Increase,
        role: MetricRole::Primary,
        trigger: Trigger::Event("purchase".into()),
        value: value.map(Into::into),
        max: Some(5_000_000),
        cap: None,
        covariate_ms: None,
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
        metric(MetricKind::Conversion, None),
        metric(MetricKind::Count, None),
        metric(MetricKind::Mean, Some("amount")),
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
    let seen = observe(&metrics, &Method::GET, "/", &head, NOW_MS);
    // RFC 9651, 4.2: several lines are one list.
    assert_eq!(seen, observe(&metrics, &Method::GET, "/", &joined, NOW_MS));
    let commas = bytes.iter().filter(|&&byte| byte == b',' || byte == b'\n');
    let most = commas.count() as u32 + 1;
    for one in &seen.observations {
        assert!((1..=most).contains(&one.count), "{one:?}");
        let bound = (i64::from(one.count) * 5_000_000).min(VALUE_MAX);
        assert!(one.sum.abs() <= bound, "{one:?}");
        assert!(one.event_id.is_none() || one.count == 1, "{one:?}");
    }
    // Every member counts or is reported.
    let purchases = seen.observations.iter().filter(|one| one.metric.0 == 0);
    let purchases = purchases.map(|one| one.count as usize).sum::<usize>();
    assert!(purchases <= HEADER_EVENTS_MAX);
    assert!(!bytes.trim_ascii().is_empty() || !seen.faults.is_empty());
}

fn report(bytes: &[u8]) {
    let read = client_event::read(bytes, None, EVENTS_MAX);
    let Ok(events) = read else {
        return;
    };
    assert!(events.len() <= EVENTS_MAX);
    for event in &events {
        let texts = [Some(&*event.event.name), event.user.as_deref()];
        for text in texts.into_iter().flatten() {
            assert!((1..=NAME_BYTES_MAX).contains(&text.len()));
        }
        assert!(event.event.parameters.len() <= PARAMETERS_MAX);
        let (seen, faults) = observe_event(&metrics(), &event.event, NOW_MS);
        for one in &seen {
            assert!(one.count == 1 && one.sum.abs() <= 5_000_000, "{one:?}");
            assert_eq!(one.event_id, event.event.id);
        }
        assert!(faults.iter().all(|fault| !fault.to_string().is_empty()));
    }
    // One event is a list of one; and with a key each has an ID.
    if bytes.trim_ascii().starts_with(b"{") {
        let list = [b"[", bytes, b"]"].concat();
        assert_eq!(
            client_event::read(&list, None, EVENTS_MAX).as_ref(),
            Ok(&events)
        );
    }
    let keyed = client_event::read(bytes, Some(b"key"), EVENTS_MAX).expect("the same report");
    assert!(keyed.iter().all(|event| event.event.id.is_some()));
}

/// Tries one input.
pub fn try_input(input: &[u8]) {
    match input.split_first() {
        Some((kind, bytes)) if kind % 2 == 0 => header(bytes),
        Some((_, bytes)) => report(bytes),
        None => {}
    }
}
