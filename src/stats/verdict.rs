//! Which group is better, in one word and one sentence. What is decided rests on the evidence of
//! this analysis alone; what earlier ones showed is told as history.

use super::balance::SampleRatio;
use super::judgement::{GroupJudgement, Lift, MetricJudgement, Side};
use super::narrative::{self, Narrative, users_text};
use super::question::{Goal, Question, Role};

/// The word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not known yet.
    Collecting,
    /// A group is better than control.
    Winner,
    /// Every other group is worse than control, or does harm.
    Loser,
    /// No group differs from control by more than the margin.
    NoDifference,
    /// The data cannot be believed.
    Invalid,
}

/// The word and the sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The word.
    pub state: State,
    /// The group it is about, by its place.
    pub group: Option<usize>,
    /// The sentence.
    pub reason: String,
}

/// The verdict: by the sample ratio first, then by guardrails, then by the primary metric.
/// Guardrails do not wait for the shortest duration; the rest does.
pub fn verdict(
    question: &Question,
    control: usize,
    primary: Option<usize>,
    sample_ratio: &SampleRatio,
    judged: &[MetricJudgement],
) -> Verdict {
    let users: u64 = question.epochs.iter().flat_map(|epoch| &epoch.users).sum();
    if question.is_partial {
        return collecting(
            "events that were reported together are still being counted; there is no verdict until all of them are".to_owned(),
        );
    }
    if sample_ratio.mismatch {
        return Verdict {
            state: State::Invalid,
            group: None,
            reason: narrative::mismatch(sample_ratio, users),
        };
    }
    if users == 0 {
        return collecting("no user has been seen yet".to_owned());
    }
    let harmful = harmful(question, control, judged);
    let others = question.groups.len().saturating_sub(1);
    if let (Some((group, reason)), true) = (harmful.first(), harmful.len() == others) {
        return Verdict {
            state: State::Loser,
            group: Some(*group),
            reason: format!("{reason}; {}", users_text(users)),
        };
    }
    let Some(primary) = primary else {
        return collecting(format!(
            "no metric is defined, so there is nothing to compare; {}",
            users_text(users)
        ));
    };
    let narrative = Narrative {
        question,
        control,
        metric: &question.metrics[primary],
        judged: &judged[primary],
        users,
    };
    let harmful: Vec<usize> = harmful.into_iter().map(|(group, _)| group).collect();
    let past = narrative::past(question, control, judged);
    let verdict = by_primary(&narrative, &harmful);
    Verdict {
        reason: format!("{}{past}", verdict.reason),
        ..verdict
    }
}

/// Groups that do harm, each with its sentence.
fn harmful(
    question: &Question,
    control: usize,
    judged: &[MetricJudgement],
) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for (metric, judged) in question.metrics.iter().zip(judged) {
        let Role::Guardrail { max_increase } = metric.role else {
            continue;
        };
        for (group, judged) in judged.groups.iter().enumerate() {
            let breached = judged.guardrail.filter(|guardrail| guardrail.breached);
            let is_known = found.iter().any(|(other, _)| *other == group);
            if let (Some(guardrail), false) = (breached, is_known) {
                let names = [&question.groups[group].name, &question.groups[control].name];
                let said = narrative::harm(&metric.name, names, &guardrail, max_increase);
                found.push((group, said));
            }
        }
    }
    found
}

fn by_primary(narrative: &Narrative<'_>, harmful: &[usize]) -> Verdict {
    let metric = narrative.metric;
    let groups: Vec<(usize, &GroupJudgement, Lift)> = narrative
        .judged
        .groups
        .iter()
        .enumerate()
        .filter_map(|(group, judged)| Some((group, judged, judged.lift?)))
        .collect();
    let sign = match metric.goal {
        Goal::Increase => 1.0,
        Goal::Decrease => -1.0,
    };
    let estimate = |lift: &Lift| {
        if lift.is_absolute {
            None
        } else {
            lift.relative
        }
    };
    let gain = |lift: &Lift| sign * estimate(lift).or(lift.absolute).unwrap_or(0.0);
    let is_better = |judged: &GroupJudgement| judged.shown(metric) == Some(Side::Better);
    let is_worse = |judged: &GroupJudgement| judged.shown(metric) == Some(Side::Worse);
    let best = groups
        .iter()
        .filter(|(group, judged, _)| is_better(judged) && !harmful.contains(group))
        .max_by(|(_, _, a), (_, _, b)| gain(a).total_cmp(&gain(b)));
    let all_worse = !groups.is_empty()
        && groups
            .iter()
            .all(|(group, judged, _)| harmful.contains(group) || is_worse(judged));
    let all_same = !groups.is_empty() && groups.iter().all(|(_, _, lift)| lift.is_same());
    let (state, group, said) = if let Some((group, _, lift)) = best {
        (State::Winner, Some(*group), narrative.shown(*group, lift))
    } else if let (true, Some((group, _, lift))) = (all_worse, groups.first()) {
        (State::Loser, Some(*group), narrative.shown(*group, lift))
    } else if all_same {
        (State::NoDifference, None, narrative.same())
    } else {
        return collecting(narrative.so_far(&groups));
    };
    if !is_ripe(narrative.question) {
        return collecting(narrative.early(&said));
    }
    Verdict {
        state,
        group,
        reason: format!("{said}; {}", narrative.basis()),
    }
}

fn is_ripe(question: &Question) -> bool {
    let earliest = |start: u64| start.saturating_add(question.min_duration_ms);
    question
        .started_at_ms
        .is_some_and(|start| question.now_ms >= earliest(start))
}

fn collecting(reason: String) -> Verdict {
    Verdict {
        state: State::Collecting,
        group: None,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Epoch, Group, History, Kind, Metric, Shown, Totals, judge};
    use super::*;

    fn question(control: (u64, u64), own: (u64, u64)) -> Question {
        let totals = |(users, converted): (u64, u64)| Totals {
            users,
            converted,
            ..Totals::default()
        };
        let group = |name: &str, is_control| Group {
            name: name.to_owned(),
            is_control,
        };
        Question {
            groups: vec![group("control", true), group("experiment", false)],
            epochs: vec![Epoch {
                shares: vec![0.5, 0.5],
                users: vec![control.0, own.0],
            }],
            metrics: vec![Metric {
                name: "purchase".to_owned(),
                kind: Kind::Conversion,
                goal: Goal::Increase,
                role: Role::Primary,
                baseline: None,
                detect: 0.1,
                margin: 0.01,
                scale: 0,
                totals: vec![vec![totals(control), totals(own)]],
                history: Vec::new(),
            }],
            started_at_ms: Some(0),
            now_ms: 7 * 24 * 3_600_000,
            ..Question::default()
        }
    }

    #[track_caller]
    fn check(question: &Question, state: State, says: &str) {
        let found = judge(question).verdict;
        assert_eq!(found.state, state, "{found:?}");
        assert!(found.reason.contains(says), "{found:?}");
    }

    #[test]
    fn each_state_has_its_sentence() {
        check(
            &question((0, 0), (0, 0)),
            State::Collecting,
            "no user has been seen yet",
        );
        check(
            &question((10_000, 500), (10_112, 511)),
            State::Collecting,
            "too early to say which group is better: experiment converts between 15.3 % worse and 21.9 % better than control; 20,112 users; to find a lift of 10 %, about 140,000 users are needed",
        );
        check(
            &question((20_000, 2000), (20_112, 2400)),
            State::Winner,
            "experiment converts 8.4 % to 31.8 % better than control (95 %, however often you look); 40,112 users; no sample ratio mismatch seen",
        );
        check(
            &question((20_000, 2400), (20_000, 2000)),
            State::Loser,
            "% worse than control",
        );
        check(
            &question((9_000_000, 4_500_000), (9_000_000, 4_500_000)),
            State::NoDifference,
            "no group differs from control by more than 1 % (95 %, however often you look); 18,000,000 users",
        );
        check(
            &question((20_000, 2000), (10_000, 2000)),
            State::Invalid,
            "something treats them differently",
        );
        let mut balanced_again = question((20_000, 2000), (20_000, 2000));
        balanced_again.previous_sample_ratio_p = Some(1e-6);
        check(
            &balanced_again,
            State::Invalid,
            "at an earlier look the groups did not have the sizes that their weights ask for (40,000 users, sample ratio p = 1.0e-6): who was missing then is missing still",
        );
        let mut nothing = question((100, 10), (100, 10));
        nothing.metrics.clear();
        check(&nothing, State::Collecting, "no metric is defined");
        check(
            &question((100, 0), (100, 0)),
            State::Collecting,
            "experiment cannot be compared with control yet",
        );
    }

    #[test]
    fn haste_is_refused() {
        let mut early = question((20_000, 2000), (20_000, 2400));
        early.now_ms -= 1;
        check(
            &early,
            State::Collecting,
            "but the experiment has not run for 7 days yet",
        );
        early.started_at_ms = None;
        check(&early, State::Collecting, "has not run");
    }

    #[test]
    fn past_significance_is_history() {
        let mut later = question((20_000, 2000), (20_000, 2040));
        later.metrics[0].history = vec![
            History::default(),
            History {
                better: Some(Shown {
                    p: 0.01,
                    at_ms: Some(1_777_800_000_000),
                }),
                ..History::default()
            },
        ];
        check(
            &later,
            State::Collecting,
            "experiment was significantly better than control on 3 May 2026 (p = 0.0100), and no longer is",
        );
        // Worse now, and better once: what counts is now.
        later.metrics[0].totals[0][1].converted = 1500;
        check(&later, State::Loser, "was significantly better");
        let found = judge(&later).metrics[0].groups[1].history;
        assert_eq!(found.better.unwrap().p, 0.01);
        assert_eq!(found.worse.unwrap().at_ms, Some(later.now_ms));
    }

    #[test]
    fn nothing_is_decided_while_a_batch_is_partly_counted() {
        let mut partial = question((20_000, 2000), (20_000, 2400));
        partial.is_partial = true;
        check(&partial, State::Collecting, "still being counted");
        let group = &judge(&partial).metrics[0].groups[1];
        assert!(group.significant && group.history == History::default());
    }
}
