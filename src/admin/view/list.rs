//! The list of all experiments: one row for each, and those that are over apart. PURE.

use crate::admin::format::{duration, rounded_duration, thousands};
use crate::admin::results::schema::{ExperimentResult, Results};
use crate::admin::view::scorecard::{ScaleBar, Scorecard};
use crate::admin::view::{advice, narrative, planning_text};

/// The list.
#[derive(Debug)]
pub(crate) struct ExperimentList<'a> {
    /// What was searched for.
    pub query: &'a str,
    /// Experiments of the file that are not over.
    pub open: Vec<ListRow<'a>>,
    /// Those that were promoted, rolled back, or left the file.
    pub ended: Vec<ListRow<'a>>,
}

/// One experiment.
#[derive(Debug)]
pub(crate) struct ListRow<'a> {
    /// The experiment.
    pub experiment: &'a ExperimentResult,
    /// Whether its data quality is doubtful.
    pub has_doubts: bool,
    /// Names and values.
    pub facts: Vec<(&'static str, String)>,
    /// The lift of the primary metric of the first group but control.
    pub bar: Option<ScaleBar>,
    /// Whether that lift is good or bad.
    pub class: &'static str,
}

impl ExperimentList<'_> {
    /// Makes the list of the experiments that a search finds, all without one.
    pub(crate) fn of<'a>(results: &'a Results, query: &'a str) -> ExperimentList<'a> {
        let query = query.trim();
        let found = results.experiments.iter().filter(|it| is_found(it, query));
        let rows = found.map(|experiment| row(results, experiment));
        let (ended, open) = rows.partition(|row: &ListRow<'_>| is_over(row.experiment));
        ExperimentList { query, open, ended }
    }
}

fn is_over(experiment: &ExperimentResult) -> bool {
    // One that ended by its plan waits for a decision.
    matches!(experiment.status, "ended" | "promoted" | "rolled_back")
        && !advice::has_ended_by_plan(experiment)
}

/// Whether all words of a query are in what is known of an experiment.
fn is_found(experiment: &ExperimentResult, query: &str) -> bool {
    let groups = experiment.groups.iter().map(|group| &*group.name);
    let metrics = experiment.metrics.iter().map(|metric| &*metric.name);
    let words = [
        &*experiment.name,
        experiment.status,
        experiment.verdict.state,
    ];
    let texts = [
        &experiment.owner,
        &experiment.description,
        &experiment.hypothesis,
    ];
    let texts = texts.into_iter().flatten().map(String::as_str);
    let all: Vec<&str> = words
        .into_iter()
        .chain(groups)
        .chain(metrics)
        .chain(texts)
        .collect();
    let text = all.join(" ").to_lowercase();
    let query = query.to_lowercase();
    let mut words = query.split_whitespace();
    words.all(|word| text.contains(word))
}

fn row<'a>(results: &'a Results, experiment: &'a ExperimentResult) -> ListRow<'a> {
    let users: u64 = experiment.groups.iter().map(|group| group.users).sum();
    let needed = planning_text::users_needed(experiment);
    let needed = needed.map_or(String::new(), |needed| format!(" of {needed}"));
    let mut facts = vec![("users", format!("{}{needed}", thousands(users)))];
    if let Some(owner) = &experiment.owner {
        facts.push(("owner", owner.clone()));
    }
    if let Some(ran) = narrative::ran(results, experiment) {
        let label = match experiment.status {
            "running" => "running for",
            _ => "ran for",
        };
        facts.push((label, rounded_duration(ran)));
    }
    let planning = experiment.planning.as_ref();
    let left = planning
        .filter(|_| narrative::is_open(experiment))
        .and_then(|it| it.seconds_left);
    if let Some(left) = left.filter(|left| *left > 0.0) {
        facts.push(("left", format!("about {}", duration(left))));
    }
    let card = Scorecard::of(experiment).metrics.into_iter().next();
    let first = card.and_then(|metric| metric.rows.into_iter().next());
    if let Some(first) = &first {
        let lift = first.lift.replace('-', "\u{2212}");
        facts.push(("lift", lift));
    }
    ListRow {
        experiment,
        has_doubts: !narrative::doubts(results, experiment).is_empty(),
        facts,
        class: first.as_ref().map_or("", |row| row.class),
        bar: first.and_then(|row| row.bar),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_finds_names_states_and_metrics_in_any_case() {
        let mut experiment = ExperimentResult::of_metrics(Vec::new());
        experiment.name = "New-Checkout".to_owned();
        experiment.status = "promoted";
        experiment.owner = Some("Web team".to_owned());
        for query in ["", "checkout", "NEW promoted", "new collecting", "web TEAM"] {
            assert!(is_found(&experiment, query), "{query}");
        }
        for query in ["old", "new running"] {
            assert!(!is_found(&experiment, query), "{query}");
        }
        assert!(is_over(&experiment));
        experiment.status = "ended";
        experiment.ends_at = Some("2026-01-15T00:00:00Z".to_owned());
        assert!(!is_over(&experiment), "it waits for a decision");
    }
}
