//! The payload of each destination, beside a file in `tests/fixtures/forward`. With `WATERSHED_WRITE_GOLDEN` in the
//! environment the files are written.

use super::message::Message;
use super::payload::payloads;
use super::selection::messages;
use crate::config::plan::{Destination, DestinationFormat};
use crate::experiment::assign::{Share, Weight};
use crate::experiment::event::event_id;
use crate::experiment::metric::{MetricGoal, MetricKind, Observation};
use crate::experiment::not_counted::NotCounted;
use crate::experiment::record::{
    Declaration, DeclaredExperiment, DeclaredGroup, DeclaredMetric, Exposure, Served,
};
use crate::experiment::{EpochDigest, ExperimentIndex, GroupIndex, MetricIndex};
use crate::journal::{Chunk, Id, OwnedRecord};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn declaration() -> Declaration {
    let group = |name: &str| DeclaredGroup {
        name: name.to_owned(),
        weight: Weight::new(1.0).unwrap(),
        upstream: Some("a".to_owned()),
    };
    let experiment = |name: &str, unit: Option<&str>| DeclaredExperiment {
        name: name.to_owned(),
        epoch: EpochDigest(1),
        traffic: Share::ALL,
        groups: vec![group("control"), group("new")],
        metrics: vec![0, 1],
        running: true,
        salt: None,
        unit: unit.map(str::to_owned),
    };
    let metric = |name: &str, kind, scale, definition: &str| DeclaredMetric {
        name: name.to_owned(),
        kind,
        goal: MetricGoal::Increase,
        scale,
        within_ms: None,
        cap: None,
        definition: Some(definition.to_owned()),
        covariate_ms: None,
    };
    Declaration {
        digest: 7,
        experiments: vec![
            experiment("shop", None),
            experiment("seats", Some("account")),
        ],
        metrics: vec![
            metric("buy", MetricKind::Conversion, 0, "event buy"),
            metric("revenue", MetricKind::Mean, 2, "event buy, value amount"),
            metric("speed", MetricKind::Latency, 0, "latency"),
            metric("shop-errors", MetricKind::Conversion, 0, "shop-errors"),
        ],
    }
}

fn exposure(experiment: usize, group: usize, served: Served) -> Exposure {
    Exposure {
        experiment: ExperimentIndex(experiment),
        group: GroupIndex(group),
        served,
        epoch: None,
    }
}

fn observation(metric: usize, sum: i64, id: Option<&str>) -> Observation {
    Observation {
        metric: MetricIndex(metric),
        count: 1,
        sum,
        base: 0,
        event_id: id.map(|id| event_id("buy", id.as_bytes())),
        at_ms: None,
    }
}

fn record(user: &str) -> OwnedRecord {
    OwnedRecord {
        at_ms: 1_700_000_000_123,
        user: Id::from_slice(user.as_bytes()),
        declaration: 7,
        status: 200,
        latency_us: 1500,
        exposures: Default::default(),
        segments: String::new(),
        observations: Vec::new(),
        minted: None,
        is_new: false,
        unit: String::new(),
    }
}

/// Records of all sorts, some of which are not sent.
fn chunk() -> Chunk {
    let own = |experiment, group| exposure(experiment, group, Served::Own);
    let records = vec![
        OwnedRecord {
            exposures: [own(0, 1)].into_iter().collect(),
            segments: "device~31c5aa=mobile".to_owned(),
            is_new: true,
            ..record("new")
        },
        // An event with an ID, which two metrics count, of a user who was somebody else before.
        OwnedRecord {
            exposures: [own(0, 0)].into_iter().collect(),
            observations: vec![
                observation(0, 0, Some("order-1")),
                observation(1, 1990, Some("order-1")),
                observation(2, 5, None),
                observation(3, 0, None),
            ],
            minted: Some(b"minted".to_vec()),
            ..record("ann")
        },
        // Reported by a server, about an earlier time.
        OwnedRecord {
            status: 0,
            latency_us: 0,
            observations: vec![Observation {
                at_ms: NonZeroU64::new(1_699_999_000_000),
                count: 2,
                ..observation(1, -300, None)
            }],
            ..record("ann")
        },
        OwnedRecord {
            exposures: [own(1, 1)].into_iter().collect(),
            unit: "account".to_owned(),
            ..record("acme")
        },
        // Not counted, and so not sent: a fallback, a test, a robot.
        OwnedRecord {
            exposures: [exposure(0, 1, Served::Fallback)].into_iter().collect(),
            ..record("fallback")
        },
        OwnedRecord {
            exposures: [exposure(0, 1, Served::Override)].into_iter().collect(),
            observations: vec![observation(0, 0, None)],
            ..record("test")
        },
        OwnedRecord {
            exposures: [exposure(0, 0, Served::NotCounted(NotCounted::ALL[0]))]
                .into_iter()
                .collect(),
            observations: vec![observation(0, 0, None)],
            ..record("robot")
        },
        OwnedRecord {
            exposures: [own(0, 0)].into_iter().collect(),
            ..record("forgotten")
        },
    ];
    let declaration = declaration();
    Chunk {
        journal: "019aa000-0000-7000-8000-000000000001".into(),
        records: (41..).zip(records).collect(),
        declarations: [(7, Arc::new(declaration))].into_iter().collect(),
    }
}

/// The only destination of a file.
fn destination(keys: &str) -> Destination {
    let text = format!(
        "upstreams: {{ a: \"http://127.0.0.1:1\" }}\nmetrics: {{ buy: {{ event: buy }}, speed: {{ latency: p95 }} }}\nforward: {{ address: \"http://a:1\", {keys} }}"
    );
    let plan = crate::config::parse(&text, Path::new("routes.yaml"), &|_| None);
    plan.unwrap().forward[0].clone()
}

fn selected<'a>(chunk: &'a Chunk, destination: &Destination) -> Vec<Message<'a>> {
    messages(chunk, destination, |user, _| user == b"forgotten")
}

#[track_caller]
fn check(keys: &str, name: &str) {
    let (chunk, destination) = (chunk(), destination(keys));
    let messages = selected(&chunk, &destination);
    let payloads = payloads(&destination.format, &messages);
    let bodies = payloads.iter().map(|payload| {
        let body: serde_json::Value = serde_json::from_str(&payload.body()).unwrap();
        format!("{body:#}\n")
    });
    let found: String = bodies.collect();
    let found = found.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/forward", name]
        .iter()
        .collect();
    if std::env::var_os("WATERSHED_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{} should be:\n{found}", path.display());
}

#[test]
fn payloads_are_those_of_the_golden_files() {
    check("to: segment, write_key: k", "segment.json");
    check("to: posthog, api_key: phc_k", "posthog.json");
    check("to: ga4, measurement_id: G-1, api_secret: k", "ga4.json");
    check("to: snowplow, app_id: shop", "snowplow.json");
    check("to: webhook", "webhook.json");
    check("to: otlp, service: shop", "otlp.json");
}

#[test]
fn only_what_the_file_wants_is_sent() {
    #[track_caller]
    fn check(keys: &str, users: &[&str]) {
        let (chunk, destination) = (chunk(), destination(&format!("to: otlp, {keys}")));
        let found = selected(&chunk, &destination);
        let found: Vec<&str> = found.iter().map(|it| &*it.user).collect();
        assert_eq!(found, users, "{keys}");
    }
    check("events: false", &["new", "ann", "acme"]);
    check("events: false, new_ids: false", &["ann", "acme"]);
    check("exposures: false, events: buy", &["ann"]);
    check("exposures: false, events: speed", &["ann"]);
    check("exposures: false", &["ann", "ann", "ann"]);
}

#[test]
fn ids_distinguish_users_metrics_and_positions_and_stay() {
    let destination = destination("to: otlp");
    let ids = |chunk: &Chunk| -> Vec<uuid::Uuid> {
        let messages = selected(chunk, &destination);
        messages.iter().map(|message| message.id).collect()
    };
    let (mut again, first) = (chunk(), ids(&chunk()));
    let different: std::collections::BTreeSet<_> = first.iter().collect();
    assert_eq!(different.len(), first.len());
    assert_eq!(ids(&again), first);
    // Reported again: only what has the reporter's ID stays the same.
    again.records.iter_mut().for_each(|(seq, _)| *seq += 100);
    let same = ids(&again).iter().filter(|id| first.contains(id)).count();
    assert_eq!(same, 2);
    // The same ID of another user is another event.
    again.records[1].1.user = Id::from_slice(b"bob");
    let same = ids(&again).iter().filter(|id| first.contains(id)).count();
    assert_eq!(same, 0);
}

#[test]
fn forgotten_minted_id_is_not_sent_with_the_known_one() {
    let (chunk, destination) = (chunk(), destination("to: otlp"));
    let all = messages(&chunk, &destination, |id, _| id == b"minted");
    assert!(all.iter().any(|it| it.user == "ann"));
    assert!(all.iter().all(|it| it.minted.is_none()));
}

#[test]
fn google_gets_one_request_for_each_user_and_25_events() {
    let mut chunk = chunk();
    chunk.records.truncate(2);
    chunk.records[1].1.observations = vec![observation(0, 0, None); 60];
    let destination = destination("to: ga4, measurement_id: G-1, api_secret: k");
    let DestinationFormat::GoogleAnalytics = destination.format else {
        panic!("{destination:?}");
    };
    let payloads = payloads(&destination.format, &selected(&chunk, &destination));
    let counts: Vec<usize> = payloads.iter().map(|it| it.ids().count()).collect();
    assert_eq!(counts, [1, 25, 25, 11]);
}
