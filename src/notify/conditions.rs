//! Conditions that this process sees by itself: versions that are down, and a store that is away.

use super::board::Board;
use super::notification::{Notification, rfc3339};
use crate::config::plan::{EndpointAddress, NotificationKind, Plan};
use crate::experiment::UpstreamIndex;
use crate::upstream::{EndpointCondition, HealthRegistry, RawConnection, Report};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The sources on the board. Names of experiments have no slash.
const UPSTREAMS: &str = "/upstreams";
const STORE: &str = "/store";
/// How long an upstream is down before it is told: a restart is not worth a message.
const DOWN_FOR: Duration = Duration::from_secs(3);
/// How long a connection to an endpoint in doubt may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long the store is away before it is told.
const AWAY_FOR: Duration = Duration::from_secs(5);
/// An upstream that was up for so long is told again when it is down, in milliseconds.
const QUIET_MS: u64 = 10 * 60_000;

/// Since when conditions stand.
#[derive(Debug, Default)]
pub(super) struct ProcessConditions {
    /// By upstream.
    down: HashMap<Box<str>, Instant>,
    away: Option<Instant>,
}

impl ProcessConditions {
    /// Looks at all upstreams.
    pub(super) async fn look(
        &mut self,
        plan: &Plan,
        health: &HealthRegistry,
        board: &Board,
        now_ms: u64,
    ) {
        let mut found = Vec::new();
        let mut down = HashMap::new();
        for (place, upstream) in plan.upstreams.iter().enumerate() {
            let all = upstream.endpoints.iter();
            let all: Vec<_> = all
                .map(|it| (it, health.of(upstream, it).report()))
                .collect();
            if !all.iter().all(|(_, report)| is_suspect(report)) {
                continue;
            }
            let since = self.down.get(&upstream.name).copied();
            let since = since.unwrap_or_else(Instant::now);
            if since.elapsed() >= DOWN_FOR {
                if !are_down(&all).await {
                    continue;
                }
                let endpoints = all.iter().map(|(it, report)| endpoint(it, report));
                let endpoints = endpoints.collect();
                found.push(upstream_down(plan, UpstreamIndex(place), endpoints, now_ms));
            }
            down.insert(upstream.name.clone(), since);
        }
        self.down = down;
        board.set(UPSTREAMS, found);
    }

    /// Notes the outcome of a call of the store: its error, if it failed.
    pub(super) fn store(&mut self, error: Option<String>, kind: &str, board: &Board, now_ms: u64) {
        let Some(error) = error else {
            self.away = None;
            return board.set(STORE, Vec::new());
        };
        let since = *self.away.get_or_insert_with(Instant::now);
        if since.elapsed() >= AWAY_FOR {
            board.set(STORE, vec![store_down(kind, &error, now_ms)]);
        }
    }
}

/// Whether an endpoint may be down. An ejection ends by itself, so one without requests looks healthy again.
fn is_suspect(report: &Report) -> bool {
    report.condition != EndpointCondition::Healthy || report.is_in_doubt
}

/// Whether no endpoint works. Those that are in doubt since an ejection are asked for a connection.
async fn are_down(endpoints: &[(&EndpointAddress, Report)]) -> bool {
    for (endpoint, report) in endpoints {
        if report.condition != EndpointCondition::Healthy {
            continue;
        }
        let connecting = RawConnection::to(endpoint);
        if let Ok(Ok(_)) = tokio::time::timeout(CONNECT_WITHIN, connecting).await {
            return false;
        }
    }
    true
}

fn endpoint(endpoint: &EndpointAddress, report: &Report) -> Value {
    let since = report.since_ms.map_or(Value::Null, rfc3339);
    json!({ "address": endpoint.to_string(), "reason": report.reason, "since": since })
}

fn upstream_down(
    plan: &Plan,
    index: UpstreamIndex,
    endpoints: Vec<Value>,
    now_ms: u64,
) -> Notification {
    let name = &plan.upstream(index).name;
    let reason = endpoints.iter().find_map(|it| it["reason"].as_str());
    let why = reason.map_or(String::new(), |reason| format!(" ({reason})"));
    let text = format!("upstream {name} is down: none of its endpoints is healthy{why}");
    let experiments = experiments_of(plan, index);
    let since = endpoints.iter().filter_map(|it| it["since"].as_str()).max();
    Notification {
        experiment: only(&experiments),
        data: json!({
            "upstream": **name,
            "experiments": experiments,
            "endpoints": endpoints,
            "reason": reason,
            "since": since,
        }),
        ..upstream_event(name, text, now_ms)
    }
}

/// Makes the event of a version that is down, without details. Whoever finds it first tells it.
pub fn upstream_event(upstream: &str, text: String, now_ms: u64) -> Notification {
    Notification {
        kind: NotificationKind::UpstreamDown,
        experiment: None,
        key: format!("upstream_down|{upstream}"),
        quiet_ms: QUIET_MS,
        at_ms: now_ms,
        data: Value::Null,
        text,
    }
}

/// The names of the experiments with a group that an upstream serves.
fn experiments_of(plan: &Plan, index: UpstreamIndex) -> Vec<&str> {
    let experiments = plan.experiments.iter().filter(|experiment| {
        let mut groups = experiment.groups.iter();
        groups.any(|group| group.upstream == Some(index))
    });
    experiments.map(|experiment| &*experiment.name).collect()
}

fn only(experiments: &[&str]) -> Option<String> {
    match experiments {
        [only] => Some((*only).to_owned()),
        _ => None,
    }
}

fn store_down(kind: &str, error: &str, now_ms: u64) -> Notification {
    Notification {
        kind: NotificationKind::StoreDown,
        experiment: None,
        key: "store_down".to_owned(),
        quiet_ms: QUIET_MS,
        at_ms: now_ms,
        data: json!({ "store": kind, "error": error }),
        text: format!(
            "the store is unavailable: {error}; requests are served, and the journal keeps their records"
        ),
    }
}
