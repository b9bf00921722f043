//! Counts by hour, added to totals. PURE.

use crate::store::{ExperimentTotals, GroupTotals, HourTotals, MetricTotals};

/// An hour in milliseconds.
pub(crate) const HOUR_MS: u64 = 3_600_000;

/// Adds what was counted in an hour to the epoch and group that it belongs to.
pub(crate) fn add(totals: &mut ExperimentTotals, hour: &HourTotals) {
    let mut epochs = totals.epochs.iter_mut();
    let Some(epoch) = epochs.find(|epoch| epoch.definition.digest == hour.epoch) else {
        return;
    };
    let GroupTotals { users, metrics, .. } = &hour.totals;
    let group = epoch.groups.entry(hour.group.clone()).or_default();
    group.users += users;
    for (name, added) in metrics {
        let MetricTotals {
            converted,
            count,
            count_sq,
            sum,
            sum_sq,
            base,
            base_sq,
            cross,
            capped,
            cut,
            known,
            known_sum,
            before,
            before_sq,
            before_cross,
        } = *added;
        let metric = group.metrics.entry(name.clone()).or_default();
        metric.converted += converted;
        metric.count += count;
        metric.count_sq += count_sq;
        metric.sum += sum;
        metric.sum_sq += sum_sq;
        metric.base += base;
        metric.base_sq += base_sq;
        metric.cross += cross;
        metric.capped += capped;
        metric.cut += cut;
        metric.known += known;
        metric.known_sum += known_sum;
        metric.before += before;
        metric.before_sq += before_sq;
        metric.before_cross += before_cross;
    }
}
