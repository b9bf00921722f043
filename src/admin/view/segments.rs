//! Results by segment as people read them. PURE.

use crate::admin::format::{change, latency, thousands};
use crate::admin::results::schema::{ExperimentResult, SegmentGroup, SegmentMetric};

/// One line of the table.
pub(crate) struct SegmentRow {
    /// Such as `device: mobile`.
    pub segment: String,
    /// The metric.
    pub metric: String,
    /// The group.
    pub group: String,
    /// Its users in the segment.
    pub users: String,
    /// Their rate.
    pub rate: String,
    /// The lift over control and its interval.
    pub lift: String,
}

/// The text above the table.
pub(crate) const NOTE: &str = "By segment, as users were at their first exposure. Intervals and sample ratios are corrected for the number of segments, and no verdict rests on them.";

/// A line for each value, metric and group.
pub(crate) fn rows(experiment: &ExperimentResult) -> Vec<SegmentRow> {
    let mut rows = Vec::new();
    for segment in &experiment.segments {
        for value in &segment.values {
            for (metric, group) in value
                .metrics
                .iter()
                .flat_map(|metric| metric.groups.iter().map(move |group| (metric, group)))
            {
                let mut metrics = experiment.metrics.iter();
                let unit = metrics.find(|it| it.name == metric.name);
                let unit = unit.and_then(|it| it.unit.as_deref());
                rows.push(SegmentRow {
                    segment: format!("{}: {}", segment.name, value.value),
                    metric: metric.name.clone(),
                    group: experiment.shown(&group.name).to_owned(),
                    users: thousands(group.users),
                    rate: rate(metric, group, unit),
                    lift: lift(group),
                });
            }
        }
    }
    rows
}

/// What to know of the segments, each in a sentence: sample ratio mismatches, and users that are in no
/// segment because it was defined otherwise when they came.
pub(crate) fn remarks(experiment: &ExperimentResult) -> Vec<String> {
    let values = experiment.segments.iter().flat_map(|segment| {
        let values = segment.values.iter();
        values.map(move |value| (&segment.name, value))
    });
    let mismatches = values.filter(|(_, value)| value.sample_ratio.mismatch);
    let mismatches = mismatches.map(|(name, value)| {
        format!(
            "Sample ratio mismatch in {name} {}: do not act on the results of this segment",
            value.value
        )
    });
    let redefined = experiment.segments.iter().filter(|it| it.users_before > 0);
    let redefined = redefined.map(|segment| {
        format!(
            "{} does not include {} users who came before it was defined as it is now",
            segment.name,
            thousands(segment.users_before)
        )
    });
    mismatches.chain(redefined).collect()
}

fn rate(metric: &SegmentMetric, group: &SegmentGroup, unit: Option<&str>) -> String {
    match (group.rate, metric.kind) {
        (None, _) => "-".to_owned(),
        (Some(rate), "conversion") => format!("{:.2} %", 100.0 * rate),
        (Some(rate), "latency") => latency(Some(rate)),
        (Some(rate), _) => match unit {
            Some(unit) => format!("{rate:.2} {unit}"),
            None => format!("{rate:.3}"),
        },
    }
}

fn lift(group: &SegmentGroup) -> String {
    let Some(lift) = &group.lift else {
        return "-".to_owned();
    };
    let (low, high) = lift.relative_interval;
    let end = |end: Option<f64>, unbounded: &str| end.map_or(unbounded.to_owned(), change);
    match lift.relative {
        None => "-".to_owned(),
        Some(relative) => format!(
            "{} [{}, {}]",
            change(relative),
            end(low, "-100 %"),
            end(high, "∞")
        ),
    }
}
