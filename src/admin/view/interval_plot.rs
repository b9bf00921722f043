//! The interval of a lift against zero, as figures for a drawing. PURE.

use crate::admin::results::schema::{MetricGroup, MetricResult};
use crate::admin::view::lift_scale::reach;

/// How wide the drawing is, in its own units.
pub(crate) const WIDTH: f64 = 400.0;
/// Free at either end, for an arrow.
const LEFT: f64 = 12.0;
const RIGHT: f64 = 12.0;
/// At least so much of a lift is shown to either side.
const LEAST: f64 = 0.02;

/// One drawing: every group but control.
#[derive(Debug)]
pub(crate) struct Plot {
    /// Where zero is.
    pub zero: f64,
    /// What is written at the ends of the axis.
    pub ends: (String, String),
    /// By group.
    pub rows: Vec<Row>,
}

/// One group.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its name.
    pub name: String,
    /// The ends of the interval.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// Whether the interval goes on beyond the drawing: to the left, to the right.
    pub beyond: (bool, bool),
    /// The estimate, where there is one.
    pub at: Option<f64>,
    /// Whether the interval lies on one side of zero: `good`, `bad` or nothing.
    pub class: &'static str,
}

/// A group, its lift, and the ends of the lift's interval.
type Drawn<'a> = (&'a MetricGroup, Option<f64>, (Option<f64>, Option<f64>));

impl Plot {
    /// From zero to either end of the axis.
    pub(crate) fn half(&self) -> f64 {
        (WIDTH - RIGHT - LEFT) / 2.0
    }

    /// The drawing of a metric; `None` while there is no interval to draw.
    pub(crate) fn of(metric: &MetricResult) -> Option<Plot> {
        let drawn: Vec<Drawn<'_>> = metric
            .groups
            .iter()
            .filter_map(|group| {
                let lift = group.lift.as_ref()?;
                Some((group, lift.relative, lift.relative_interval))
            })
            .collect();
        let known = |(_, at, (low, high)): &Drawn<'_>| {
            [*at, *low, *high].into_iter().flatten().collect::<Vec<_>>()
        };
        let all: Vec<f64> = drawn.iter().flat_map(known).collect();
        if all.is_empty() {
            return None;
        }
        let shown = all.iter().copied().chain([2.0 * metric.margin]);
        let far = reach(LEAST, shown, drawn.iter().filter_map(|(_, at, _)| *at));
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        let scale = (WIDTH - RIGHT - LEFT) / 2.0 / far;
        let x = |value: f64| middle + value.clamp(-far, far) * scale;
        let row = |(group, at, (low, high)): &Drawn<'_>| Row {
            name: group.name.clone(),
            // A rate cannot fall by more than all of it.
            low: x(low.unwrap_or(-1.0)),
            high: high.map_or(WIDTH - RIGHT, x),
            beyond: (
                low.unwrap_or(-1.0) < -far,
                high.is_none_or(|high: f64| high > far),
            ),
            at: at.filter(|at: &f64| at.abs() <= far).map(x),
            class: side(metric.goal, *low, *high),
        };
        let rows: Vec<Row> = drawn.iter().map(row).collect();
        Some(Plot {
            zero: middle,
            ends: (percent(-far), percent(far)),
            rows,
        })
    }
}

fn side(goal: &str, low: Option<f64>, high: Option<f64>) -> &'static str {
    let more = low.is_some_and(|low| low > 0.0);
    let less = high.is_some_and(|high| high < 0.0);
    match (goal == "increase", more, less) {
        (true, true, _) | (false, _, true) => "good",
        (true, _, true) | (false, true, _) => "bad",
        _ => "",
    }
}

fn percent(share: f64) -> String {
    format!("{:+.0} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::results::schema::LiftResult;

    type Lift = (f64, Option<f64>, Option<f64>);

    fn metric(goal: &'static str, lifts: &[Option<Lift>]) -> MetricResult {
        let group = |lift: &Option<Lift>| MetricGroup {
            lift: lift.map(|(at, low, high)| LiftResult {
                absolute: None,
                absolute_interval: None,
                relative: Some(at),
                shrunken: None,
                averaged: None,
                relative_interval: (low, high),
            }),
            ..MetricGroup::default()
        };
        MetricResult {
            goal,
            margin: 0.01,
            groups: lifts.iter().map(group).collect(),
            ..MetricResult::default()
        }
    }

    #[test]
    fn an_interval_stands_where_it_is() {
        let plot = Plot::of(&metric(
            "increase",
            &[None, Some((0.2, Some(0.1), Some(0.3)))],
        ))
        .unwrap();
        let [row] = &plot.rows[..] else {
            panic!("{plot:?}");
        };
        assert!(plot.zero < row.low && row.low < row.at.unwrap() && row.at.unwrap() < row.high);
        assert!(row.high <= WIDTH - RIGHT);
        assert_eq!((row.class, row.beyond), ("good", (false, false)));
        assert_eq!(plot.ends, ("-33 %".to_owned(), "+33 %".to_owned()));
    }

    #[test]
    fn what_is_too_far_away_is_cut() {
        let lifts = [
            Some((30.0, Some(-0.5), None)),
            Some((-0.4, Some(-0.6), Some(-0.2))),
        ];
        let plot = Plot::of(&metric("increase", &lifts)).unwrap();
        assert_eq!(plot.rows[0].beyond, (false, true));
        assert_eq!((plot.rows[0].high, plot.rows[0].at), (WIDTH - RIGHT, None));
        assert_eq!((plot.rows[0].class, plot.rows[1].class), ("", "bad"));
        let plot = Plot::of(&metric("decrease", &lifts)).unwrap();
        assert_eq!(plot.rows[1].class, "good");
    }

    #[test]
    fn nothing_known_is_not_drawn() {
        assert!(Plot::of(&metric("increase", &[None, None])).is_none());
    }
}
