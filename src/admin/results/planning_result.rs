//! The part of the results that says how long it takes.

use serde::Serialize;
use utoipa::ToSchema;

/// How many users it takes, and how long.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct PlanningResult {
    pub metric: String,
    pub detect: f64,
    pub power: f64,
    pub users: u64,
    pub users_needed: Option<u64>,
    pub groups: Vec<PlanningGroup>,
    pub users_per_day: Option<f64>,
    pub seconds_left: Option<f64>,
    pub earliest_verdict_at: Option<String>,
    pub seconds_in_all: Option<f64>,
    pub even_split: Option<EvenSplitResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub horizon: Option<HorizonResult>,
}

/// What an even split between the groups would take.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct EvenSplitResult {
    pub factor: f64,
    pub users_needed: Option<u64>,
    pub seconds_in_all: Option<f64>,
}

/// The way to a planned end.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct HorizonResult {
    pub users: Option<u64>,
    pub ends_at: Option<String>,
    pub analyses: u32,
    pub analysis: Option<u32>,
    pub analyzed_at: Option<String>,
    pub standard_errors: Option<f64>,
}

/// One group's share of the users it takes.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct PlanningGroup {
    pub name: String,
    pub users_needed: Option<u64>,
}
