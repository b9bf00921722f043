//! Latencies in the results. docs/results.md says what each field is.

use serde::Serialize;
use utoipa::ToSchema;

/// Times to the head of the answer, in milliseconds.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Latency {
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
}
