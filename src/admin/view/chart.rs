//! Rates over time with their intervals, as figures for a drawing. PURE.

use crate::admin::format;
use crate::admin::results::schema::{MetricResult, MomentResult, RateResult};
use crate::admin::view::changes::ChangeMark;
use crate::admin::view::interval_plot::WIDTH;
use crate::admin::view::metric_values;

const HEIGHT: f64 = 190.0;
const TOP: f64 = 8.0;
/// Room for the axes.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 8.0;
const BOTTOM: f64 = 24.0;
/// At most so many steps of the axis of rates.
const STEPS: f64 = 5.0;
/// How many colours there are.
const COLOURS: usize = 6;
/// The axis goes this many times as far as the rates; wide intervals of the first hours are cut.
const BEYOND: f64 = 1.6;

/// One drawing. All in its own units.
#[derive(Debug)]
pub(crate) struct Chart {
    /// Of the whole drawing.
    pub height: f64,
    /// Where the frame begins.
    pub left: f64,
    /// See `left`.
    pub top: f64,
    /// How wide the frame is.
    pub width: f64,
    /// Where the frame ends.
    pub right: f64,
    /// How high the frame is.
    pub inner: f64,
    /// The axis of rates: where a line stands, and what is written there.
    pub ticks: Vec<(f64, String)>,
    /// What is written at the ends of the axis of time.
    pub from: String,
    /// See `from`.
    pub to: String,
    /// By group.
    pub lines: Vec<Line>,
    /// Changes: where they are, and their numbers in the list of changes.
    pub marks: Vec<(f64, usize)>,
    /// The drawing in words.
    pub said: String,
}

/// One group.
#[derive(Debug)]
pub(crate) struct Line {
    /// Its name.
    pub name: String,
    /// Which colour.
    pub colour: usize,
    /// The rates.
    pub points: String,
    /// Around the intervals.
    pub band: String,
    /// The latest rate, in words.
    pub latest: String,
}

/// What is drawn of each group at each moment: a value, and its interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    /// Rates.
    Rate,
    /// Lifts over control.
    Lift,
}

impl Curve {
    fn value(self, rate: &RateResult) -> Option<f64> {
        match self {
            Curve::Rate => rate.rate,
            Curve::Lift => rate.lift,
        }
    }

    fn interval(self, rate: &RateResult) -> Option<(f64, f64)> {
        match self {
            Curve::Rate => rate.interval,
            Curve::Lift => rate.lift_interval,
        }
    }

    fn text(self, metric: &MetricResult, value: f64) -> String {
        match self {
            Curve::Rate => metric_values::amount(metric, value),
            Curve::Lift => format::change(value),
        }
    }

    /// How values are written at the axis: by what they are multiplied, and what follows.
    fn scale(self, metric: &MetricResult) -> (f64, &'static str) {
        match (self, metric.kind) {
            (Curve::Lift, _) | (Curve::Rate, "conversion") => (100.0, " %"),
            _ => (1.0, ""),
        }
    }
}

impl Chart {
    /// The drawing of a metric; `None` while there are less than two moments to draw.
    pub(crate) fn of(metric: &MetricResult, curve: Curve, changes: &[ChangeMark]) -> Option<Chart> {
        let moments = &metric.over_time;
        let (first, last) = (moments.first()?, moments.last()?);
        if moments.len() < 2 {
            return None;
        }
        let (low, high) = range(curve, moments, last)?;
        let (right, inner) = (WIDTH - RIGHT, HEIGHT - TOP - BOTTOM);
        let span = (last.at_ms - first.at_ms).max(1) as f64;
        let x = |moment: &MomentResult| {
            LEFT + (right - LEFT) * (moment.at_ms - first.at_ms) as f64 / span
        };
        let y = |rate: f64| TOP + inner * (high - rate.clamp(low, high)) / (high - low);
        let at = |moment: &MomentResult, rate: f64| format!("{:.1},{:.1}", x(moment), y(rate));
        let lines = lines(metric, curve, last, at);
        let written = |value: f64| curve.text(metric, value);
        let of = |rate: &RateResult| curve.value(rate);
        let said: Vec<String> = lines
            .iter()
            .filter_map(|line| {
                let rate =
                    |moment: &MomentResult| moment.groups.get(&line.name).and_then(of).map(written);
                Some(format!(
                    "{} went from {} to {}",
                    line.name,
                    rate(first)?,
                    rate(last)?
                ))
            })
            .collect();
        let marks = changes.iter().enumerate().filter_map(|(place, change)| {
            let at: jiff::Timestamp = change.at.parse().ok()?;
            let after_ms = at.as_millisecond() as f64 - first.at_ms as f64;
            let share = after_ms / span;
            (0.0..=1.0)
                .contains(&share)
                .then(|| (LEFT + (right - LEFT) * share, place + 1))
        });
        let what = match curve {
            Curve::Rate => "over time",
            Curve::Lift => "lift over time",
        };
        Some(Chart {
            marks: marks.collect(),
            height: HEIGHT,
            left: LEFT,
            top: TOP,
            width: right - LEFT,
            right,
            inner,
            ticks: ticks(curve.scale(metric), low, high)
                .into_iter()
                .map(|(rate, text)| (y(rate), text))
                .collect(),
            from: minute(first),
            to: minute(last),
            lines,
            said: format!("{} {what}: {}", metric.name, said.join("; ")),
        })
    }
}

/// The lowest and the highest rate of the drawing.
fn range(curve: Curve, moments: &[MomentResult], last: &MomentResult) -> Option<(f64, f64)> {
    let rates = moments.iter().flat_map(|moment| moment.groups.values());
    let rates: Vec<&RateResult> = rates.collect();
    let ends = |value: &dyn Fn(&RateResult) -> Option<f64>| {
        let all = rates.iter().filter_map(|rate| value(rate));
        let all: Vec<f64> = all.collect();
        let low = all.iter().copied().fold(f64::INFINITY, f64::min);
        let high = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (low <= high).then_some((low, high))
    };
    let (rate_low, rate_high) = ends(&|rate| curve.value(rate))?;
    let (low, high) = ends(&|rate| curve.interval(rate).map(|(low, _)| low))
        .zip(ends(&|rate| curve.interval(rate).map(|(_, high)| high)))
        .map_or((rate_low, rate_high), |((low, _), (_, high))| (low, high));
    // The latest interval is always whole.
    let latest = last.groups.values().filter_map(|rate| curve.interval(rate));
    let (late_low, late_high) = latest.fold((rate_low, rate_high), |ends, interval| {
        (ends.0.min(interval.0), ends.1.max(interval.1))
    });
    let far = BEYOND * (rate_high - rate_low).max(rate_high.abs() * 0.1).max(1e-9);
    let low = late_low.min(low.max(rate_low - far));
    let high = late_high.max(high.min(rate_high + far)).max(low + 1e-9);
    Some((low, high))
}

/// The line of each group with a rate at the `last` moment; `at` places a rate in the drawing.
fn lines(
    metric: &MetricResult,
    curve: Curve,
    last: &MomentResult,
    at: impl Fn(&MomentResult, f64) -> String,
) -> Vec<Line> {
    let moments = &metric.over_time;
    let mut lines = Vec::new();
    for (place, group) in metric.groups.iter().enumerate() {
        let of = |moment: &MomentResult| moment.groups.get(&group.name).cloned();
        let known = moments
            .iter()
            .filter_map(|it| Some((it, curve.value(&of(it)?)?)));
        let points: Vec<String> = known.map(|(it, rate)| at(it, rate)).collect();
        let known = moments
            .iter()
            .filter_map(|it| Some((it, curve.interval(&of(it)?)?)));
        let above = known.clone().map(|(it, (_, high))| at(it, high));
        let below = known.rev().map(|(it, (low, _))| at(it, low));
        let Some(rate) = of(last).and_then(|rate| curve.value(&rate)) else {
            continue;
        };
        lines.push(Line {
            name: group.name.clone(),
            colour: place % COLOURS,
            points: points.join(" "),
            band: above.chain(below).collect::<Vec<_>>().join(" "),
            latest: curve.text(metric, rate),
        });
    }
    lines
}

/// Round numbers between these, with as many digits as tell them apart.
fn ticks((scale, unit): (f64, &str), low: f64, high: f64) -> Vec<(f64, String)> {
    let (low, high) = (scale * low, scale * high);
    let least = (high - low) / STEPS;
    let ten = 10f64.powf(least.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].map(|step| step * ten);
    let step = round.into_iter().find(|step| *step >= least);
    let step = step.unwrap_or(10.0 * ten);
    let digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    let from = (low / step).ceil() as i64;
    let until = (high / step).floor() as i64;
    // Steps are at least as wide as to be STEPS at most; one stands at either end.
    let all = (from..=until).take(STEPS as usize + 2);
    let tick = |place: i64| {
        let value = place as f64 * step;
        (value / scale, format!("{value:.digits$}{unit}"))
    };
    all.map(tick).collect()
}

fn minute(moment: &MomentResult) -> String {
    moment.at.as_deref().map_or(String::new(), format::minute)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::results::schema::MetricGroup;

    fn metric(rates: &[&[(f64, f64, f64)]]) -> MetricResult {
        let name = |group: usize| format!("g{group}");
        let moment = |(hour, rates): (usize, &&[(f64, f64, f64)])| MomentResult {
            at: Some(format!("2026-01-01T{hour:02}:00:00Z")),
            at_ms: 3_600_000 * hour as u64,
            groups: rates
                .iter()
                .enumerate()
                .map(|(group, &(rate, low, high))| {
                    let rate = RateResult {
                        users: 1,
                        rate: Some(rate),
                        interval: Some((low, high)),
                        lift: (group > 0).then_some(rate),
                        lift_interval: (group > 0).then_some((low, high)),
                    };
                    (name(group), rate)
                })
                .collect(),
        };
        let group = |group| MetricGroup {
            name: name(group),
            ..MetricGroup::default()
        };
        MetricResult {
            name: "buy".to_owned(),
            kind: "conversion",
            groups: (0..rates[0].len()).map(group).collect(),
            over_time: rates.iter().enumerate().map(moment).collect(),
            ..MetricResult::default()
        }
    }

    #[test]
    fn more_is_higher_and_later_is_to_the_right() {
        let chart = Chart::of(
            &metric(&[
                &[(0.1, 0.0, 0.9), (0.1, 0.05, 0.2)],
                &[(0.1, 0.08, 0.12), (0.2, 0.18, 0.22)],
            ]),
            Curve::Rate,
            &[],
        )
        .unwrap();
        let points: Vec<Vec<(f64, f64)>> = chart
            .lines
            .iter()
            .map(|line| {
                let pair = |pair: &str| {
                    let (x, y) = pair.split_once(',').unwrap();
                    (x.parse().unwrap(), y.parse().unwrap())
                };
                line.points.split(' ').map(pair).collect()
            })
            .collect();
        assert_eq!(points[0][0].1, points[0][1].1, "the same rate");
        assert!(points[1][1].1 < points[1][0].1, "a higher one");
        assert!(points[0][0].0 < points[0][1].0);
        assert_eq!((points[0][0].0, points[0][1].0), (chart.left, chart.right));
        for line in &chart.lines {
            assert_eq!(line.band.split(' ').count(), 4);
        }
        assert_eq!(chart.lines[1].latest, "20.00 %");
        assert!(
            chart.said.contains("g1 went from 10.00 % to 20.00 %"),
            "{}",
            chart.said
        );
        assert_eq!(chart.from, "1 Jan 2026, 00:00 UTC");
    }

    #[test]
    fn lifts_have_no_line_for_control_and_changes_are_numbered() {
        let change = |at_ms: i64| ChangeMark {
            at: jiff::Timestamp::from_millisecond(at_ms)
                .unwrap()
                .to_string(),
            text: String::new(),
        };
        let marks = [change(-1), change(1_800_000)];
        let moments: [&[(f64, f64, f64)]; 2] = [
            &[(0.1, 0.0, 0.9), (0.1, 0.05, 0.2)],
            &[(0.1, 0.08, 0.12), (0.2, 0.18, 0.22)],
        ];
        let chart = Chart::of(&metric(&moments), Curve::Lift, &marks).unwrap();
        let [line] = &chart.lines[..] else {
            panic!("{chart:?}");
        };
        assert_eq!((&*line.name, &*line.latest), ("g1", "+20.0 %"));
        let middle = (chart.left + chart.right) / 2.0;
        assert_eq!(chart.marks, [(middle, 2)]);
        assert!(
            chart
                .said
                .starts_with("buy lift over time: g1 went from +10.0 %")
        );
    }

    #[test]
    fn the_axis_has_round_numbers() {
        let check = |kind, low, high, said: &[&str]| {
            let metric = MetricResult {
                kind,
                ..MetricResult::default()
            };
            let ticks = ticks(Curve::Rate.scale(&metric), low, high);
            let texts: Vec<&str> = ticks.iter().map(|(_, text)| &**text).collect();
            assert_eq!(texts, said);
            assert!(ticks.iter().all(|(rate, _)| (low..=high).contains(rate)));
        };
        let tens = ["10 %", "20 %", "30 %", "40 %"];
        check("conversion", 0.0788, 0.4331, &tens);
        let hundredths = ["0.12 %", "0.14 %", "0.16 %", "0.18 %"];
        check("conversion", 0.0011, 0.0019, &hundredths);
        check("mean", 2.261, 11.667, &["4", "6", "8", "10"]);
        check("count", 1.446, 1.954, &["1.6", "1.8"]);
        check("mean", -3000.0, 5000.0, &["-2000", "0", "2000", "4000"]);
    }

    #[test]
    fn one_moment_is_no_line() {
        assert!(Chart::of(&metric(&[&[(0.1, 0.0, 0.2)]]), Curve::Rate, &[]).is_none());
    }
}
