//! Tests that others use, for comparison. No verdict depends on them.

pub mod growthbook_sequential;
pub mod log_ratio_grid;
pub mod sequential_t;
