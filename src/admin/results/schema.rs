//! The results, in the shape that the contract fixes: fields may be added, not renamed. What is
//! not known yet is `null`. docs/results.md says what each field is.

use crate::admin::results::enums;
use crate::admin::results::history::HistoryEntry;
use crate::admin::results::latency::Latency;
use crate::admin::results::mirror::MirrorResult;
use crate::admin::results::planning_result::PlanningResult;
use crate::admin::results::ramp_result::RampResult;
use crate::admin::results::recent_traffic::mostly_failed;
use crate::admin::results::uncounted_events::UncountedEvents;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Everything that `/admin/results` says.
#[derive(Debug, Serialize, ToSchema)]
#[expect(
    missing_docs,
    reason = "the contract in docs/results.md says what each field is"
)]
pub struct Results {
    pub generated_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub view: Option<&'static str>,
    pub store: StoreState,
    pub events: EventState,
    pub frequent_ids: Vec<FrequentIdResult>,
    pub replicas: Vec<ReplicaResult>,
    pub experiments: Vec<ExperimentResult>,
    pub acts: Vec<ActResult>,
}

/// One decision.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct ActResult {
    pub experiment: String,
    pub action: String,
    pub from: String,
    pub to: String,
    pub at: Option<String>,
    pub at_ms: u64,
    pub by: String,
    #[schema(schema_with = enums::decided_by)]
    pub source: &'static str,
    pub reason: Option<String>,
}

/// One process that gives its facts to the store.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct ReplicaResult {
    pub id: String,
    pub this: bool,
    pub definition: String,
    pub agrees: bool,
    pub seen_at: Option<String>,
    pub version: String,
}

impl Results {
    /// Names what is said: it stays the same while nothing but clocks moves.
    pub fn tag(&self) -> String {
        let mut said = serde_json::to_value(self).unwrap_or_default();
        let moves = |value: &mut serde_json::Value, keys: &[&str]| {
            let map = value.as_object_mut();
            map.into_iter()
                .for_each(|map| map.retain(|key, _| !keys.contains(&&**key)));
        };
        moves(&mut said, &["generated_at"]);
        moves(&mut said["store"], &["lag_seconds"]);
        for replica in said["replicas"].as_array_mut().into_iter().flatten() {
            moves(replica, &["seen_at"]);
        }
        for one in said["experiments"].as_array_mut().into_iter().flatten() {
            moves(
                &mut one["planning"],
                &[
                    "users_per_day",
                    "seconds_left",
                    "earliest_verdict_at",
                    "seconds_in_all",
                ],
            );
            moves(&mut one["planning"]["even_split"], &["seconds_in_all"]);
        }
        let digest = Sha256::digest(said.to_string());
        URL_SAFE_NO_PAD.encode(&digest[..16])
    }

    /// How many replicas serve other definitions than the one that was asked.
    pub fn disagreeing(&self) -> usize {
        self.replicas
            .iter()
            .filter(|replica| !replica.agrees)
            .count()
    }
}

/// How the store is.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct StoreState {
    #[schema(schema_with = enums::store)]
    pub kind: &'static str,
    pub healthy: bool,
    pub error: Option<String>,
    pub lag_events: u64,
    pub lag_seconds: f64,
    pub dropped_events: u64,
    pub damaged_events: u64,
    pub damaged_records: u64,
    pub problems: Vec<String>,
    pub reload_error: Option<String>,
}

/// What was reported to this process.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct EventState {
    pub faults: BTreeMap<&'static str, u64>,
    pub unused: BTreeMap<String, u64>,
}

/// One ID that makes more than 5 % of the latest requests of this process.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct FrequentIdResult {
    pub id: String,
    pub share: f64,
}

/// One experiment.
#[derive(Debug, Default, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct ExperimentResult {
    pub name: String,
    #[schema(schema_with = enums::status)]
    pub status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hypothesis: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub starts_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ends_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ramp: Option<RampResult>,
    pub winner: Option<String>,
    pub started_at: Option<String>,
    pub ended_at: Option<String>,
    pub decided: Option<DecidedResult>,
    pub in_effect: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub in_effect_except: Vec<String>,
    pub epochs: Vec<EpochResult>,
    pub groups: Vec<GroupResult>,
    pub ended_groups: Vec<GroupResult>,
    pub count_overrides: bool,
    pub crossed_over: u64,
    #[schema(schema_with = enums::crossover)]
    pub crossover: &'static str,
    #[schema(schema_with = enums::enrolment)]
    pub enrolment: &'static str,
    #[schema(schema_with = enums::allocation)]
    pub allocation: &'static str,
    pub bucket_by: Option<String>,
    pub seen_once: u64,
    pub not_counted: BTreeMap<&'static str, u64>,
    pub joined: u64,
    pub shared_devices: u64,
    pub joins_across_shards: u64,
    pub sample_ratio: SampleRatio,
    pub planning: Option<PlanningResult>,
    pub guardrails: Vec<GuardrailResult>,
    pub metrics: Vec<MetricResult>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<SegmentResult>,
    pub verdict: VerdictResult,
    pub confirm: Option<ConfirmationResult>,
    pub warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub mirror: Option<MirrorResult>,
    pub uncounted: UncountedEvents,
    pub phase: u32,
    pub phases: Vec<PhaseResult>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
}

/// The latest decision about an experiment.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct DecidedResult {
    #[schema(schema_with = enums::status)]
    pub status: &'static str,
    pub group: Option<String>,
    pub by: String,
    pub at: Option<String>,
}

/// A winner that is promoted once somebody confirms it.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct ConfirmationResult {
    #[schema(schema_with = enums::confirmer)]
    pub waits_for: &'static str,
    pub group: String,
}

/// An earlier phase of an experiment.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct PhaseResult {
    pub phase: u32,
    pub started_at: Option<String>,
    pub ended_because: String,
    pub epochs: Vec<EpochResult>,
    pub groups: Vec<GroupResult>,
    pub crossed_over: u64,
    pub sample_ratio: SampleRatio,
    pub guardrails: Vec<GuardrailResult>,
    pub metrics: Vec<MetricResult>,
    pub segments: Vec<SegmentResult>,
    pub verdict: VerdictResult,
}

impl ExperimentResult {
    /// What people read in place of a group's name.
    pub fn shown<'a>(&'a self, group: &'a str) -> &'a str {
        let mut groups = self.groups.iter();
        let found = groups.find(|it| it.name == group);
        found.and_then(|it| it.label.as_deref()).unwrap_or(group)
    }
}

/// A period of constant weights.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct EpochResult {
    pub number: u32,
    pub digest: String,
    pub started_at: Option<String>,
    pub traffic: f64,
    pub weights: BTreeMap<String, f64>,
    pub users: BTreeMap<String, u64>,
}

/// One group.
#[derive(Debug, Default, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct GroupResult {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub label: Option<String>,
    #[schema(schema_with = enums::group_role)]
    pub role: &'static str,
    pub weight: Option<f64>,
    pub upstream: Option<String>,
    pub users: u64,
    pub requests: u64,
    pub responses: BTreeMap<&'static str, u64>,
    pub fallbacks: u64,
    pub seen_once: u64,
    pub latency_ms: Latency,
    pub recently: Option<Recently>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub down: Option<String>,
}

/// A group's answers of this hour and the one before.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct Recently {
    pub answers: u64,
    pub failed: u64,
    pub dead: bool,
}

impl Recently {
    /// Whether most of at least a few answers failed.
    pub fn fails(&self) -> bool {
        self.dead || mostly_failed(self.answers, self.failed)
    }
}

/// Whether the groups have the sizes that their weights ask for.
#[derive(Debug, Default, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct SampleRatio {
    pub p_value: Option<f64>,
    pub mismatch: bool,
    pub single_look_p: Option<f64>,
    pub parting: Option<PartingResult>,
    pub stages: Vec<StageResult>,
}

/// What reached one stage, by group.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct StageResult {
    pub stage: &'static str,
    pub unit: &'static str,
    pub groups: BTreeMap<String, u64>,
}

/// Where groups of the wrong sizes part.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct PartingResult {
    pub stage: &'static str,
    pub sentence: String,
    pub epochs: Vec<u32>,
}

/// One segment of users.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct SegmentResult {
    pub name: String,
    pub users_before: u64,
    pub values: Vec<SegmentValue>,
}

/// The users with one value of a segment.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct SegmentValue {
    pub value: String,
    pub sample_ratio: SegmentRatio,
    pub metrics: Vec<SegmentMetric>,
}

/// Whether the group sizes among a segment's users match their weights, corrected for all segments.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct SegmentRatio {
    pub p_value: Option<f64>,
    pub mismatch: bool,
}

/// One metric of a segment's users.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct SegmentMetric {
    pub name: String,
    #[schema(schema_with = enums::metric_kind)]
    pub kind: &'static str,
    pub groups: Vec<SegmentGroup>,
}

/// One metric of a segment's users in one group.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct SegmentGroup {
    pub name: String,
    pub users: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub users_waiting: Option<u64>,
    pub rate: Option<f64>,
    pub interval: Option<(f64, f64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub lift: Option<LiftResult>,
    pub adjusted_p: Option<f64>,
}

/// One bound on harm.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct GuardrailResult {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub over_ms: Option<f64>,
    pub max_increase: f64,
    pub alpha: f64,
    pub method: &'static str,
    pub groups: Vec<GuardrailGroup>,
}

/// One bound on harm in one group.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct GuardrailGroup {
    pub name: String,
    pub users: u64,
    pub harmed: u64,
    pub rate: Option<f64>,
    pub increase: Option<f64>,
    pub at_least: Option<f64>,
    pub p_value: Option<f64>,
    pub p_value_lowest: Option<f64>,
    pub p_value_lowest_at: Option<String>,
    pub breached: Option<bool>,
    pub dead: Option<bool>,
}

/// One metric.
#[derive(Debug, Default, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct MetricResult {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub unit: Option<String>,
    #[schema(schema_with = enums::metric_kind)]
    pub kind: &'static str,
    #[schema(schema_with = enums::metric_goal)]
    pub goal: &'static str,
    #[schema(schema_with = enums::metric_role)]
    pub role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub latency: Option<&'static str>,
    pub method: &'static str,
    pub detect: f64,
    pub margin: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub cap: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub covariate: Option<CovariateResult>,
    pub chance_caveat: &'static str,
    pub groups: Vec<MetricGroup>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub over_time: Vec<MomentResult>,
}

/// One metric at one time: of all users who had come by then.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct MomentResult {
    pub at: Option<String>,
    #[serde(skip)]
    pub at_ms: u64,
    pub groups: BTreeMap<String, RateResult>,
}

/// A group's rate at one time.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct RateResult {
    pub users: u64,
    pub rate: Option<f64>,
    pub interval: Option<(f64, f64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub lift: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub lift_interval: Option<(f64, f64)>,
}

/// One metric in one group.
#[derive(Debug, Default, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct MetricGroup {
    pub name: String,
    pub users: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub users_waiting: Option<u64>,
    pub converted: u64,
    pub count: u64,
    pub sum: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub capped: Option<CappedResult>,
    pub rate: Option<f64>,
    pub interval: Option<(f64, f64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub unadjusted_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub lift: Option<LiftResult>,
    pub p_value: Option<f64>,
    pub p_value_lowest: Option<f64>,
    pub p_value_lowest_at: Option<String>,
    pub adjusted_p: Option<f64>,
    pub planned_lift_p: Option<f64>,
    pub chance_to_beat_control: Option<f64>,
    pub expected_loss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub fixed: Option<FixedResult>,
}

/// How a metric is adjusted by what its users did before their first exposure, and what that gains.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct CovariateResult {
    pub time: String,
    pub users_known: u64,
    pub variance_reduction: Option<f64>,
    pub effective_users: Option<u64>,
}

/// What a metric's cap cut off in one group.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct CappedResult {
    pub users: u64,
    pub share_of_users: Option<f64>,
    pub sum: f64,
    pub share_of_sum: Option<f64>,
}

/// A group compared with control, for whoever looks once.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct FixedResult {
    pub note: &'static str,
    pub method: &'static str,
    pub absolute: Option<f64>,
    pub absolute_interval: Option<(f64, f64)>,
    pub relative: Option<f64>,
    pub relative_interval: Option<(f64, f64)>,
    pub p_value: Option<f64>,
}

/// A group compared with control.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct LiftResult {
    pub absolute: Option<f64>,
    pub absolute_interval: Option<(f64, f64)>,
    pub relative: Option<f64>,
    pub relative_interval: (Option<f64>, Option<f64>),
    pub shrunken: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub averaged: Option<AveragedResult>,
}

/// Both rates, averaged over the periods alike.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct AveragedResult {
    pub control: f64,
    pub group: f64,
}

/// Which group is better.
#[derive(Debug, Default, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct VerdictResult {
    #[schema(schema_with = enums::verdict)]
    pub state: &'static str,
    pub group: Option<String>,
    pub reason: String,
    pub harms: Vec<String>,
}
