//! Rates and lifts of metrics as people read them. PURE.

use crate::admin::format;
use crate::admin::results::schema::{MetricGroup, MetricResult};

/// A group's rate as people read it.
pub(crate) fn rate(metric: &MetricResult, group: &MetricGroup) -> String {
    group
        .rate
        .map_or("-".to_owned(), |rate| amount(metric, rate))
}

/// A rate of a metric as people read it.
pub(crate) fn amount(metric: &MetricResult, rate: f64) -> String {
    match metric.kind {
        "conversion" => format!("{:.2} %", 100.0 * rate),
        "latency" => format::latency(Some(rate)),
        _ => match &metric.unit {
            Some(unit) => format!("{rate:.2} {unit}"),
            None => format!("{rate:.3}"),
        },
    }
}

/// A group's lift and its interval as people read them.
pub(crate) fn lift(group: &MetricGroup) -> String {
    let Some(lift) = &group.lift else {
        return "-".to_owned();
    };
    let end = |end: Option<f64>, unbounded: &str| end.map_or(unbounded.to_owned(), format::change);
    let absolute = lift.absolute.zip(lift.absolute_interval);
    if let (None, Some((difference, (low, high)))) = (lift.relative, absolute) {
        return format!("{difference:+.3} [{low:+.3}, {high:+.3}]");
    }
    match (lift.relative, lift.relative_interval) {
        // Where nothing is known, a rate may still fall to nothing, or rise to anything.
        (None, (low, None)) if low.is_none_or(|low| low <= -1.0) => "-".to_owned(),
        (relative, (low, high)) => format!(
            "{} [{}, {}]",
            end(relative, "?"),
            end(low, "-100 %"),
            end(high, "∞")
        ),
    }
}
