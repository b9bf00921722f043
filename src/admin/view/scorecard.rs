//! All metrics and groups of an experiment on one scale, as figures for a drawing. PURE.

use crate::admin::format;
use crate::admin::results::schema::{ExperimentResult, MetricGroup, MetricResult};
use crate::admin::view::lift_scale::reach;
use crate::admin::view::metric_values;

/// The width and height of a bar, in its own units.
pub(crate) const BAR_WIDTH: f64 = 240.0;
/// See [`BAR_WIDTH`].
pub(crate) const BAR_HEIGHT: f64 = 22.0;
/// Free at either end, for an arrow.
const ARROW: f64 = 10.0;
/// At least so much of a lift is shown to either side.
const LEAST: f64 = 0.05;

/// The scorecard of an experiment.
#[derive(Debug)]
pub(crate) struct Scorecard {
    /// By metric, the primary one first.
    pub metrics: Vec<ScoredMetric>,
    /// What is written at the ends of the scale: worse, better.
    pub ends: (String, String),
}

/// One metric.
#[derive(Debug)]
pub(crate) struct ScoredMetric {
    /// Its name in the file.
    pub name: String,
    /// What people read in place of it.
    pub label: String,
    /// What it is: `primary, higher is better`.
    pub what: String,
    /// The rate of control.
    pub control: String,
    /// The other groups.
    pub rows: Vec<ScoredGroup>,
}

/// One metric of one group but control.
#[derive(Debug)]
pub(crate) struct ScoredGroup {
    /// The group as people read it.
    pub group: String,
    /// Its rate.
    pub rate: String,
    /// The lift over control, `–` where it is not known.
    pub lift: String,
    /// The interval of the lift; empty where it is not known.
    pub interval: String,
    /// Whether the interval lies on one side of zero: `good`, `bad` or nothing.
    pub class: &'static str,
    /// The same in words: `better`, `worse` or nothing.
    pub side: &'static str,
    /// The chance to beat control.
    pub chance: String,
    /// The p-value, corrected where several groups or metrics are compared.
    pub p: String,
    /// The interval on the scale of all metrics.
    pub bar: Option<ScaleBar>,
}

/// An interval on the common scale. Better is to the right, also where lower is better.
#[derive(Debug)]
pub(crate) struct ScaleBar {
    /// Where no difference is.
    pub zero: f64,
    /// What counts as no difference: its left end, and its width.
    pub margin: (f64, f64),
    /// The ends of the interval.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// Whether the interval goes on beyond the drawing: to the left, to the right.
    pub beyond: (bool, bool),
    /// The estimate, where there is one.
    pub at: Option<f64>,
}

/// An estimate and the ends of its interval, where better is more.
#[derive(Clone, Copy, Debug)]
struct Improvement {
    at: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
}

impl Improvement {
    fn of(metric: &MetricResult, group: &MetricGroup) -> Option<Improvement> {
        let lift = group.lift.as_ref()?;
        let (low, high) = lift.relative_interval;
        if lift.relative.is_none() && low.is_none() && high.is_none() {
            return None;
        }
        let low = match (low, high) {
            // Nothing is known: the rate may fall to nothing, or rise to anything. Neither end is a
            // figure for the scale.
            (low, None) if low.is_none_or(|low| low <= -1.0) => None,
            // A rate cannot fall by more than all of it.
            (low, _) => low.or(Some(-1.0)),
        };
        Some(match metric.goal {
            "decrease" => Improvement {
                at: lift.relative.map(|at| -at),
                low: high.map(|high| -high),
                high: low.map(|low| -low),
            },
            _ => Improvement {
                at: lift.relative,
                low,
                high,
            },
        })
    }

    fn class(self) -> &'static str {
        match (self.low, self.high) {
            (Some(low), _) if low > 0.0 => "good",
            (_, Some(high)) if high < 0.0 => "bad",
            _ => "",
        }
    }
}

impl Scorecard {
    /// Makes the scorecard of an experiment. Where its data cannot be trusted, nothing is good or bad.
    pub(crate) fn of(experiment: &ExperimentResult) -> Scorecard {
        let metrics = experiment.metrics.iter();
        let all = metrics.flat_map(|metric| {
            let groups = metric.groups.iter();
            groups.filter_map(|group| Improvement::of(metric, group))
        });
        let all: Vec<Improvement> = all.collect();
        let ends = all.iter().flat_map(|it| [it.at, it.low, it.high]);
        let ends: Vec<f64> = ends.flatten().collect();
        let widest = experiment.metrics.iter().map(|metric| 2.0 * metric.margin);
        let shown = ends.iter().copied().chain(widest);
        let far = reach(LEAST, shown, all.iter().filter_map(|it| it.at));
        let scored = |metric: &MetricResult| scored(experiment, metric, far);
        Scorecard {
            metrics: experiment.metrics.iter().map(scored).collect(),
            ends: match ends.is_empty() {
                true => ("worse".to_owned(), "better".to_owned()),
                false => (
                    format!("{:.0} % worse", 100.0 * far),
                    format!("{:.0} % better", 100.0 * far),
                ),
            },
        }
    }
}

fn scored(experiment: &ExperimentResult, metric: &MetricResult, far: f64) -> ScoredMetric {
    let is_control = |name: &str| {
        let mut groups = experiment.groups.iter();
        groups.any(|group| group.name == name && group.role == "control")
    };
    let (control, others): (Vec<_>, Vec<_>) = metric
        .groups
        .iter()
        .partition(|group| is_control(&group.name));
    let control = control
        .first()
        .map(|group| metric_values::rate(metric, group));
    let direction = match metric.goal {
        "decrease" => "lower is better",
        _ => "higher is better",
    };
    ScoredMetric {
        name: metric.name.clone(),
        label: metric.shown().to_owned(),
        what: format!("{}, {direction}", metric.role),
        control: control.unwrap_or_else(|| "–".to_owned()),
        rows: others
            .into_iter()
            .map(|group| row(experiment, metric, group, far))
            .collect(),
    }
}

fn row(
    experiment: &ExperimentResult,
    metric: &MetricResult,
    group: &MetricGroup,
    far: f64,
) -> ScoredGroup {
    let improvement = Improvement::of(metric, group);
    let class = match experiment.sample_ratio.mismatch {
        true => "",
        false => improvement.map_or("", Improvement::class),
    };
    let lift = metric_values::lift(group);
    let (lift, interval) = match lift.split_once(" [") {
        Some((lift, interval)) => (lift.to_owned(), format!("[{interval}")),
        None => ("–".to_owned(), String::new()),
    };
    ScoredGroup {
        group: experiment.shown(&group.name).to_owned(),
        rate: metric_values::rate(metric, group),
        lift,
        interval,
        class,
        side: match class {
            "good" => "better",
            "bad" => "worse",
            _ => "",
        },
        chance: group
            .chance_to_beat_control
            .filter(|_| !experiment.sample_ratio.mismatch)
            .map_or("–".to_owned(), |chance| match chance {
                // Nothing is certain.
                high if high > 0.999 => "> 99.9 %".to_owned(),
                low if low < 0.001 => "< 0.1 %".to_owned(),
                chance => format!("{:.1} %", 100.0 * chance),
            }),
        p: group
            .adjusted_p
            .or(group.p_value)
            .map_or("–".to_owned(), format::p_value),
        bar: improvement.map(|it| bar(metric, it, far)),
    }
}

fn bar(metric: &MetricResult, improvement: Improvement, far: f64) -> ScaleBar {
    let zero = BAR_WIDTH / 2.0;
    let scale = (BAR_WIDTH / 2.0 - ARROW) / far;
    let x = |value: f64| zero + value.clamp(-far, far) * scale;
    let (low, high) = (improvement.low, improvement.high);
    ScaleBar {
        zero,
        margin: (x(-metric.margin), x(metric.margin) - x(-metric.margin)),
        low: low.map_or(ARROW, x),
        high: high.map_or(BAR_WIDTH - ARROW, x),
        beyond: (
            low.is_none_or(|low| low < -far),
            high.is_none_or(|high| high > far),
        ),
        at: improvement.at.filter(|at| at.abs() <= far).map(x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::results::schema::LiftResult;

    type Lift = (f64, Option<f64>, Option<f64>);

    fn metric(goal: &'static str, lift: Option<Lift>) -> MetricResult {
        let group = |name: &str, lift: Option<Lift>| MetricGroup {
            name: name.to_owned(),
            rate: Some(0.1),
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
            name: "buy".to_owned(),
            kind: "conversion",
            goal,
            role: "primary",
            margin: 0.01,
            groups: vec![group("control", None), group("next", lift)],
            ..MetricResult::default()
        }
    }

    #[test]
    fn all_metrics_have_one_scale_and_better_is_right() {
        let experiment = ExperimentResult::of_metrics(vec![
            metric("increase", Some((0.2, Some(0.1), Some(0.4)))),
            metric("decrease", Some((0.2, Some(0.1), Some(0.4)))),
            metric("increase", Some((0.5, Some(-0.1), None))),
            metric("decrease", Some((0.3, Some(-1.0), None))),
            metric("increase", None),
        ]);
        let card = Scorecard::of(&experiment);
        assert_eq!(
            card.ends,
            ("55 % worse".to_owned(), "55 % better".to_owned())
        );
        let rows: Vec<&ScoredGroup> = card.metrics.iter().flat_map(|it| &it.rows).collect();
        let [up, down, open, unknown, nothing] = rows[..] else {
            panic!("{card:#?}");
        };
        assert_eq!(
            (up.class, up.side, &*up.lift),
            ("good", "better", "+20.0 %")
        );
        assert_eq!(
            (down.class, down.side, &*down.lift),
            ("bad", "worse", "+20.0 %")
        );
        let (right, left) = (up.bar.as_ref().unwrap(), down.bar.as_ref().unwrap());
        assert!(right.low > right.zero && left.high < left.zero);
        let mirrored = BAR_WIDTH - left.at.unwrap();
        assert!((right.at.unwrap() - mirrored).abs() < 1e-9);
        let open = open.bar.as_ref().unwrap();
        assert_eq!((open.beyond, open.high), ((false, true), BAR_WIDTH - ARROW));
        let unknown = (unknown.class, unknown.bar.as_ref().unwrap());
        assert_eq!((unknown.0, unknown.1.beyond), ("", (true, true)));
        let ends = (unknown.1.low, unknown.1.high);
        assert_eq!(ends, (ARROW, BAR_WIDTH - ARROW));
        assert!(nothing.bar.is_none() && nothing.lift == "–" && nothing.interval.is_empty());
        assert_eq!(card.metrics[0].control, "10.00 %");
    }

    #[test]
    fn estimates_beyond_the_usual_scale_are_drawn() {
        let lift = Some((1.8, Some(0.5), Some(4.0)));
        let card = Scorecard::of(&ExperimentResult::of_metrics(vec![metric(
            "increase", lift,
        )]));
        let bar = card.metrics[0].rows[0].bar.as_ref().unwrap();
        assert!(bar.at.is_some() && bar.beyond == (false, true), "{bar:?}");
        let card = Scorecard::of(&ExperimentResult::of_metrics(vec![metric(
            "increase", None,
        )]));
        assert_eq!(card.ends, ("worse".to_owned(), "better".to_owned()));
    }

    #[test]
    fn with_a_mismatch_nothing_is_good_or_bad() {
        let mut experiment = ExperimentResult::of_metrics(vec![metric(
            "increase",
            Some((0.2, Some(0.1), Some(0.4))),
        )]);
        experiment.sample_ratio.mismatch = true;
        assert_eq!(Scorecard::of(&experiment).metrics[0].rows[0].class, "");
    }
}
