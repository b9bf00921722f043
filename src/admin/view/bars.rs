//! Intervals of lifts as bars for a terminal. PURE.

use crate::admin::results::schema::MetricResult;
use crate::admin::view::interval_plot::{Plot, Row};

/// How wide a bar is, in letters; odd, so that zero is in the middle.
const CELLS: usize = 41;

/// Whether a terminal shows colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Paint {
    /// It does not, or it is none.
    Plain,
    /// It does (ECMA-48).
    Colours,
}

impl Paint {
    /// A text in a colour: `good`, `bad`, or else that of waiting.
    pub(crate) fn paint(self, class: &str, text: &str) -> String {
        let code = match class {
            "good" => 32,
            "bad" => 31,
            _ => 33,
        };
        match self {
            Paint::Plain => text.to_owned(),
            Paint::Colours => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    /// A text about a verdict, as good or bad as its state is.
    pub(crate) fn verdict(self, state: &str, text: &str) -> String {
        let class = match state {
            "winner" | "no_difference" | "no_planned_lift" => "good",
            "loser" | "invalid" => "bad",
            _ => "",
        };
        self.paint(class, text)
    }
}

/// The bars of one experiment's metrics, below each other.
pub(crate) fn bars(metrics: &[MetricResult], paint: Paint) -> String {
    let plots = metrics.iter().filter_map(|it| Some((it, Plot::of(it)?)));
    let plots: Vec<(&MetricResult, Plot)> = plots.collect();
    let wide = |text: &str| text.chars().count();
    let rows = || plots.iter().flat_map(|(_, plot)| &plot.rows);
    let of_metrics = plots.iter().map(|(metric, _)| wide(&metric.name)).max();
    let of_groups = rows().map(|row| wide(&row.name)).max();
    let of_ends = plots.iter().map(|(_, plot)| wide(&plot.ends.0)).max();
    let [metrics, groups, ends] = [of_metrics, of_groups, of_ends].map(Option::unwrap_or_default);
    let mut text = String::new();
    for (metric, plot) in &plots {
        for row in &plot.rows {
            let bar = paint.paint(row.class, &bar(plot, row));
            let (low, high) = &plot.ends;
            text.push_str(&format!(
                "{:metrics$} {:groups$}  {low:>ends$} {bar} {high}\n",
                metric.name, row.name
            ));
        }
    }
    text
}

fn bar(plot: &Plot, row: &Row) -> String {
    let middle = CELLS / 2;
    let half = plot.half();
    let cell = |x: f64| {
        let cells = (x - plot.zero) / half * middle as f64;
        (middle as f64 + cells.round()).clamp(0.0, (CELLS - 1) as f64) as usize
    };
    let mut cells = vec!['·'; CELLS];
    cells[cell(row.low)..=cell(row.high)].fill('━');
    cells[middle] = match cells[middle] {
        '━' => '┿',
        _ => '│',
    };
    if row.beyond.0 {
        cells[0] = '‹';
    }
    if row.beyond.1 {
        cells[CELLS - 1] = '›';
    }
    if let Some(at) = row.at {
        cells[cell(at)] = '●';
    }
    cells.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::results::schema::{LiftResult, MetricGroup};

    fn metric(low: Option<f64>, at: f64, high: Option<f64>) -> MetricResult {
        let lift = LiftResult {
            absolute: None,
            absolute_interval: None,
            relative: Some(at),
            shrunken: None,
            averaged: None,
            relative_interval: (low, high),
        };
        MetricResult {
            name: "buy".to_owned(),
            goal: "increase",
            groups: vec![
                MetricGroup::default(),
                MetricGroup {
                    name: "next".to_owned(),
                    lift: Some(lift),
                    ..MetricGroup::default()
                },
            ],
            ..MetricResult::default()
        }
    }

    #[test]
    fn a_bar_lies_where_the_interval_does() {
        let better = [metric(Some(0.1), 0.2, Some(0.3))];
        assert_eq!(
            bars(&better, Paint::Plain),
            "buy next  -33 % ····················│·····━━━━━━●━━━━━━·· +33 %\n"
        );
        let painted = bars(&better, Paint::Colours);
        assert!(
            painted.contains("\x1b[32m···") && painted.contains("··\x1b[0m"),
            "{painted:?}"
        );
        let unknown = [metric(Some(-0.4), 0.5, None)];
        let bar = bars(&unknown, Paint::Plain);
        assert!(
            bar.contains('┿') && bar.contains('›') && !bar.contains('‹'),
            "{bar}"
        );
        assert!(bars(&[metric(None, -0.2, Some(-0.1))], Paint::Colours).contains("\x1b[31m"));
    }

    #[test]
    fn nothing_known_has_no_bar() {
        assert_eq!(bars(&[MetricResult::default()], Paint::Plain), "");
    }
}
