//! Results as people read them: pages, tables for a terminal, sentences, drawings.

pub(crate) mod advice;
pub(crate) mod bars;
pub(crate) mod buttons;
pub(crate) mod changes;
pub(crate) mod chart;
pub(crate) mod csv;
pub(crate) mod details;
pub(crate) mod history;
pub(crate) mod html;
pub(crate) mod interval_plot;
pub(crate) mod lifecycle;
mod lift_scale;
pub(crate) mod list;
pub(crate) mod metric_values;
pub(crate) mod mirror;
pub(crate) mod narrative;
mod planning_text;
pub(crate) mod scorecard;
pub(crate) mod segments;
pub(crate) mod table;
pub(crate) mod tips;
pub(crate) mod verdict_text;
