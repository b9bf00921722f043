//! Results: totals of the store, what the statistics conclude from them, and the JSON document.

pub(crate) mod assignments;
pub(crate) mod conversion_window;
pub(crate) mod enums;
pub mod evaluation;
pub mod evaluator;
pub(crate) mod experiment;
pub(crate) mod findings;
pub mod flags;
pub(crate) mod gate;
pub(crate) mod gather;
pub(crate) mod guardrail;
pub(crate) mod history;
pub(crate) mod hours;
pub(crate) mod metric;
pub(crate) mod planning;
pub(crate) mod ramp_progress;
pub(crate) mod ramp_result;
pub(crate) mod recent_traffic;
pub mod sample_size;
pub mod schema;
pub(crate) mod segments;
pub(crate) mod sequential_state;
pub(crate) mod srm_diagnosis;
pub(crate) mod stats_input;
pub(crate) mod time_series;
pub(crate) mod upstream_health;
