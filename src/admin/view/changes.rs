//! What changed while an experiment ran: marks on its charts, and how many users came. PURE.

use crate::admin::format::{minute, thousands};
use crate::admin::results::history::HistoryEntry;
use crate::admin::results::schema::{EpochResult, ExperimentResult, MomentResult};
use crate::admin::view::interval_plot::WIDTH;

/// A change.
#[derive(Debug, PartialEq)]
pub(crate) struct ChangeMark {
    /// When, in RFC 3339.
    pub at: String,
    /// What.
    pub text: String,
}

/// An epoch that begins so soon after an entry of the history is a change by that entry.
const EPOCH_AFTER_ENTRY_MS: u64 = 60_000;

/// All changes of an experiment since its start, oldest first: what its history has, and epochs.
pub(crate) fn marks(experiment: &ExperimentResult) -> Vec<ChangeMark> {
    let start_ms = experiment.started_at.as_deref().and_then(unix_ms);
    let history = experiment.history.iter();
    let history = history.filter(|entry| start_ms.is_none_or(|start| entry.at_ms >= start));
    let mut all: Vec<(&HistoryEntry, ChangeMark)> = history
        .filter_map(|entry| {
            let mark = ChangeMark {
                at: entry.at.clone()?,
                text: of_entry(entry),
            };
            Some((entry, mark))
        })
        .collect();
    let mut of_epochs = Vec::new();
    for pair in experiment.epochs.windows(2) {
        let Some(at) = pair[1].started_at.clone() else {
            continue;
        };
        let text = difference(&pair[0], &pair[1]);
        let epoch_ms = unix_ms(&at).unwrap_or(0);
        // The latest before, as the history has the newest first.
        let cause = all.iter_mut().find(|(entry, _)| {
            let until_ms = entry.at_ms + EPOCH_AFTER_ENTRY_MS;
            (entry.at_ms..until_ms).contains(&epoch_ms)
        });
        match cause {
            Some((_, mark)) => mark.text += &format!("; {text}"),
            None => of_epochs.push(ChangeMark { at, text }),
        }
    }
    let of_history = all.into_iter().map(|(_, mark)| mark);
    let mut marks: Vec<ChangeMark> = of_history.chain(of_epochs).collect();
    marks.sort_by_key(|mark| unix_ms(&mark.at));
    marks
}

/// What an entry of the history is: `pause by ops: payments are down`, `file 3: 2 lines differ (SIGHUP)`.
fn of_entry(entry: &HistoryEntry) -> String {
    if entry.file.is_some() {
        return match &*entry.by {
            "file" | "start" => entry.summary(),
            by => format!("{} ({by})", entry.summary()),
        };
    }
    let reason = entry.reason.as_ref().filter(|reason| !reason.is_empty());
    let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
    // `person`, `rule` or `file`.
    let source = match entry.source {
        "person" => String::new(),
        source => format!(" ({source})"),
    };
    format!("{} by {}{source}{reason}", entry.action, entry.by)
}

fn unix_ms(at: &str) -> Option<u64> {
    let at: jiff::Timestamp = at.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok()
}

/// What differs between two epochs: `weights 60/20/20 -> 34/33/33`.
fn difference(before: &EpochResult, after: &EpochResult) -> String {
    let weights = |epoch: &EpochResult| {
        let all: Vec<String> = epoch.weights.values().map(f64::to_string).collect();
        all.join("/")
    };
    let mut parts = Vec::new();
    if before.weights.keys().ne(after.weights.keys()) {
        let names: Vec<&str> = after.weights.keys().map(String::as_str).collect();
        parts.push(format!("groups: {}", names.join(", ")));
    } else if before.weights != after.weights {
        let names: Vec<&str> = after.weights.keys().map(String::as_str).collect();
        parts.push(format!(
            "weights of {}: {} → {}",
            names.join("/"),
            weights(before),
            weights(after)
        ));
    }
    if before.traffic != after.traffic {
        let percent = |share: f64| format!("{} %", (share * 1e4).round() / 100.0);
        parts.push(format!(
            "traffic {} → {}",
            percent(before.traffic),
            percent(after.traffic)
        ));
    }
    match parts.is_empty() {
        true => "definition changed".to_owned(),
        false => parts.join("; "),
    }
}

const DAY_MS: u64 = 86_400_000;
const HEIGHT: f64 = 90.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 18.0;
/// Free between two bars.
const GAP: f64 = 1.5;

/// New users over time, as figures for a drawing.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// What a bar is.
    pub caption: String,
    /// The height of the drawing.
    pub height: f64,
    /// By time.
    pub bars: Vec<UserBar>,
    /// What is written at the ends of the axis of time.
    pub from: String,
    /// See `from`.
    pub to: String,
    /// The most users of a bar, in words.
    pub most: String,
    /// The drawing in words.
    pub said: String,
}

/// The users of one period.
#[derive(Debug)]
pub(crate) struct UserBar {
    /// Its upper left corner.
    pub x: f64,
    /// See `x`.
    pub y: f64,
    /// Its size.
    pub width: f64,
    /// See `width`.
    pub height: f64,
}

/// The new users of an experiment: by day (in UTC) if it ran for two days, else by the moments of its first
/// metric. `None` where there are fewer than two periods.
pub(crate) fn arrivals(experiment: &ExperimentResult) -> Option<Arrivals> {
    let moments = &experiment.metrics.first()?.over_time;
    let users = |moment: &MomentResult| moment.groups.values().map(|it| it.users).sum::<u64>();
    let (first, last) = (moments.first()?, moments.last()?);
    let start = experiment.started_at.clone().or(first.at.clone())?;
    let start_ms = unix_ms(&start)?;
    let by_day = last.at_ms.saturating_sub(start_ms) >= 2 * DAY_MS;
    let is_end = |moment: &&MomentResult| {
        !by_day || moment.at_ms.is_multiple_of(DAY_MS) || moment.at_ms == last.at_ms
    };
    let ends: Vec<&MomentResult> = moments.iter().filter(is_end).collect();
    if ends.len() < 2 {
        return None;
    }
    let mut before = 0;
    let came = ends.iter().map(|moment| {
        let now = users(moment);
        let came = now.saturating_sub(before);
        before = now;
        came
    });
    let came: Vec<u64> = came.collect();
    let most = came.iter().copied().max().filter(|most| *most > 0)?;
    // The first and the last period may be shorter than the others.
    let hours = (ends[1].at_ms.saturating_sub(ends[0].at_ms) as f64 / 3_600_000.0).round();
    let period = match hours {
        _ if by_day => "day".to_owned(),
        hours if hours <= 1.0 => "hour".to_owned(),
        hours => format!("{hours} hours"),
    };
    let (step, inner) = (WIDTH / came.len() as f64, HEIGHT - TOP - BOTTOM);
    let bar = |(place, count): (usize, &u64)| {
        let height = inner * *count as f64 / most as f64;
        UserBar {
            x: step * place as f64,
            y: TOP + inner - height,
            width: (step - GAP).max(0.5),
            height,
        }
    };
    let from = minute(&start);
    let to = last.at.as_deref().map_or(String::new(), minute);
    Some(Arrivals {
        caption: format!("New users per {period}"),
        height: HEIGHT,
        bars: came.iter().enumerate().map(bar).collect(),
        said: format!(
            "New users per {period} from {from} to {to}: between {} and {}",
            thousands(came.iter().copied().min().unwrap_or(0)),
            thousands(most)
        ),
        from,
        to,
        most: format!("at most {}", thousands(most)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::results::history::FileResult;
    use crate::admin::results::schema::{MetricResult, RateResult};

    fn epoch(at: &str, weights: &[(&str, f64)], traffic: f64) -> EpochResult {
        EpochResult {
            number: 1,
            digest: String::new(),
            started_at: Some(at.to_owned()),
            traffic,
            weights: weights
                .iter()
                .map(|(name, weight)| ((*name).to_owned(), *weight))
                .collect(),
            users: Default::default(),
        }
    }

    #[test]
    fn differences_of_epochs_are_named() {
        let one = epoch("2026-01-01T00:00:00Z", &[("a", 90.0), ("b", 10.0)], 0.1);
        let two = epoch("2026-01-02T00:00:00Z", &[("a", 50.0), ("b", 50.0)], 1.0);
        assert_eq!(
            difference(&one, &two),
            "weights of a/b: 90/10 → 50/50; traffic 10 % → 100 %"
        );
        let three = epoch("2026-01-03T00:00:00Z", &[("a", 50.0)], 1.0);
        assert_eq!(difference(&two, &three), "groups: a");
        assert_eq!(difference(&two, &two), "definition changed");
    }

    fn entry(at: &str, by: &str, action: &str, file: Option<u64>) -> HistoryEntry {
        HistoryEntry {
            at: Some(at.to_owned()),
            at_ms: unix_ms(at).unwrap(),
            source: if file.is_some() { "file" } else { "person" },
            by: by.to_owned(),
            action: action.to_owned(),
            experiment: None,
            from: None,
            to: None,
            reason: file.is_none().then(|| "why".to_owned()),
            file: file.map(|number| FileResult {
                number,
                diff: vec![String::new()],
                effects: None,
            }),
        }
    }

    #[test]
    fn files_and_epochs_and_decisions_are_one_list() {
        let mut experiment = ExperimentResult::of_metrics(Vec::new());
        experiment.started_at = Some("2026-01-01T00:00:00Z".to_owned());
        experiment.epochs = vec![
            epoch("2026-01-01T00:00:00Z", &[("a", 90.0)], 1.0),
            // By the file of two seconds before.
            epoch("2026-01-02T00:00:02Z", &[("a", 50.0)], 1.0),
            // By the step of a second before.
            epoch("2026-01-03T12:00:01Z", &[("a", 50.0)], 0.5),
            // By nothing that the history has.
            epoch("2026-01-04T00:00:00Z", &[("a", 40.0)], 0.5),
        ];
        experiment.history = vec![
            entry("2026-01-03T12:00:00Z", "rule", "ramp", None),
            entry("2026-01-03T00:00:00Z", "ops", "pause", None),
            entry("2026-01-02T00:00:00Z", "SIGHUP", "load", Some(2)),
            entry("2025-12-31T00:00:00Z", "start", "load", Some(1)),
        ];
        let texts: Vec<String> = marks(&experiment).into_iter().map(|it| it.text).collect();
        assert_eq!(
            texts,
            [
                "file 2: 1 line differs (SIGHUP); weights of a: 90 → 50",
                "pause by ops: why",
                "ramp by rule: why; traffic 100 % → 50 %",
                "weights of a: 50 → 40",
            ]
        );
    }

    #[test]
    fn users_come_by_period() {
        let moment = |(hour, users): (u64, u64)| MomentResult {
            at: Some(format!("2026-01-01T{hour:02}:00:00Z")),
            at_ms: 3_600_000 * hour,
            groups: [(
                "a".to_owned(),
                RateResult {
                    users,
                    rate: None,
                    interval: None,
                    lift: None,
                    lift_interval: None,
                },
            )]
            .into(),
        };
        let metric = MetricResult {
            over_time: [(0, 5), (1, 15), (2, 15), (3, 35)].map(moment).into(),
            ..MetricResult::default()
        };
        let arrivals = arrivals(&ExperimentResult::of_metrics(vec![metric])).unwrap();
        assert_eq!(arrivals.caption, "New users per hour");
        let heights: Vec<f64> = arrivals.bars.iter().map(|bar| bar.height).collect();
        assert_eq!((heights.len(), heights[2]), (4, 0.0));
        assert!((heights[1] - 2.0 * heights[0]).abs() < 1e-9);
        assert!((heights[3] - 2.0 * heights[1]).abs() < 1e-9);
        assert!(
            arrivals.said.ends_with("between 0 and 20"),
            "{}",
            arrivals.said
        );
    }
}
