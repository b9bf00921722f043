//! A ramp in the results. docs/results.md says what each field is.

use crate::admin::results::enums;
use serde::Serialize;
use utoipa::ToSchema;

/// Where an experiment is on its ramp.
#[derive(Debug, Serialize, ToSchema)]
pub struct RampResult {
    pub steps: Vec<RampStepResult>,
    pub step: Option<u32>,
    pub share: f64,
    pub since: Option<String>,
    pub next_share: Option<f64>,
    pub next_at: Option<String>,
    #[schema(schema_with = enums::on_alarm)]
    pub on_alarm: &'static str,
    pub holds: Option<String>,
}

/// One step of a ramp.
#[derive(Debug, Serialize, ToSchema)]
pub struct RampStepResult {
    pub share: f64,
    pub seconds: Option<f64>,
}
