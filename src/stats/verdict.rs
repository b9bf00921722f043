//! Which group is better, in one word and one sentence. What is decided rests on the evidence of
//! this analysis alone; what earlier ones showed is told as history.

use super::balance::SampleRatio;
use super::compare;
use super::judgement::{GroupJudgement, Lift, MetricJudgement, Side};
use super::narrative::{self, Narrative, users_text};
use super::question::{Goal, Question, Role};
use super::timing::is_due;

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
    /// No group has the planned lift, or a larger one: an end without an effect.
    NoPlannedLift,
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
    /// Of a winner: other metrics on which it is shown to be worse than control, by their place.
    pub harms: Vec<usize>,
}

/// The verdict: by the sample ratio first, then by guardrails, then by the primary metric.
/// Harm does not wait for the shortest duration; the rest does.
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
            harms: Vec::new(),
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
            harms: Vec::new(),
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
    let verdict = by_primary(&narrative, &harmful, judged);
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

fn by_primary(narrative: &Narrative<'_>, harmful: &[usize], judged: &[MetricJudgement]) -> Verdict {
    let (question, metric) = (narrative.question, narrative.metric);
    let groups: Vec<Compared<'_>> = narrative
        .judged
        .groups
        .iter()
        .enumerate()
        .filter_map(|(place, judged)| {
            Some(Compared {
                place,
                judged,
                lift: judged.lift?,
                is_harmful: harmful.contains(&place),
            })
        })
        .collect();
    let sign = match metric.goal {
        Goal::Increase => 1.0,
        Goal::Decrease => -1.0,
    };
    let gain = |lift: &Lift| sign * lift.relative.or(lift.absolute).unwrap_or(0.0);
    let is_worse = |group: &Compared<'_>| group.judged.shown(metric) == Some(Side::Worse);
    let is_futile = |group: &Compared<'_>| {
        let p = group.judged.planned_lift_p;
        p.is_some_and(|p| p <= question.beta)
    };
    let all = |is: &dyn Fn(&Compared<'_>) -> bool| {
        !groups.is_empty() && groups.iter().all(|group| group.is_harmful || is(group))
    };
    let best = groups
        .iter()
        .filter(|group| group.judged.shown(metric) == Some(Side::Better) && !group.is_harmful)
        .max_by(|a, b| gain(&a.lift).total_cmp(&gain(&b.lift)));
    if let (None, true, Some(worse)) = (best, all(&is_worse), groups.iter().find(|it| is_worse(it)))
    {
        // Harm is reported at once.
        return Verdict {
            state: State::Loser,
            group: Some(worse.place),
            reason: format!(
                "{}; {}",
                narrative.shown(worse.place, &worse.lift),
                narrative.basis()
            ),
            harms: Vec::new(),
        };
    }
    let harms = best.map_or(Vec::new(), |best| harms(question, best.place, judged));
    let (state, group, said) = if let Some(best) = best {
        let tied = tied(narrative, best.place, &groups);
        let said = narrative.winner(best.place, &best.lift, &tied, &harms, judged);
        (State::Winner, Some(best.place), said)
    } else if groups.iter().all(|group| group.lift.is_same()) && !groups.is_empty() {
        (State::NoDifference, None, narrative.same())
    } else if all(&|group| is_futile(group) || is_worse(group)) {
        (State::NoPlannedLift, None, narrative.no_planned_lift())
    } else {
        let lifts = groups.iter().map(|group| (group.place, group.lift));
        return collecting(narrative.so_far(&lifts.collect::<Vec<_>>()));
    };
    if !is_due(question) && !question.given.contains(&(state, group)) {
        return collecting(narrative.early(&said));
    }
    Verdict {
        state,
        group,
        reason: format!("{said}; {}", narrative.basis()),
        harms,
    }
}

/// A group and what its comparison with control says.
struct Compared<'a> {
    place: usize,
    judged: &'a GroupJudgement,
    lift: Lift,
    is_harmful: bool,
}

/// Secondary metrics on which a group is shown to be worse than control.
fn harms(question: &Question, group: usize, judged: &[MetricJudgement]) -> Vec<usize> {
    let is_worse = |place: &usize| {
        let metric = &question.metrics[*place];
        let is_guardrail = matches!(metric.role, Role::Guardrail { .. });
        !is_guardrail && judged[*place].groups[group].shown(metric) == Some(Side::Worse)
    };
    (0..question.metrics.len()).filter(is_worse).collect()
}

/// The other groups from which the best one cannot be told: the largest estimate need not be that
/// of the best group.
fn tied(narrative: &Narrative<'_>, best: usize, groups: &[Compared<'_>]) -> Vec<usize> {
    let (question, metric) = (narrative.question, narrative.metric);
    let others = groups.iter().filter(|group| group.place != best);
    let alpha = question.alpha / (groups.len() - 1).max(1) as f64;
    let is_tied = |group: &&Compared<'_>| {
        let compared = compare::compare(question, metric, group.place, best);
        !group.is_harmful
            && group.judged.shown(metric) != Some(Side::Worse)
            && !compared.is_better(metric, alpha)
    };
    others.filter(is_tied).map(|group| group.place).collect()
}

fn collecting(reason: String) -> Verdict {
    Verdict {
        state: State::Collecting,
        group: None,
        reason,
        harms: Vec::new(),
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
            "but a verdict is given from 8 January 1970 on, after whole weeks",
        );
        early.started_at_ms = None;
        check(&early, State::Collecting, "has not run");
        // Between whole weeks only what was given stands; harm is reported at once.
        let mut later = question((20_000, 2000), (20_000, 2400));
        later.now_ms += 3 * 24 * 3_600_000;
        check(&later, State::Collecting, "from 15 January 1970 on");
        later.given = vec![(State::Winner, Some(1))];
        check(&later, State::Winner, "better than control");
        let mut harm = question((20_000, 2400), (20_000, 2000));
        harm.now_ms = 60_000;
        check(&harm, State::Loser, "worse than control");
        let mut short = question((20_000, 2000), (20_000, 2400));
        (short.min_duration_ms, short.now_ms) = (3_600_000, 60_000);
        check(&short, State::Collecting, "has not run for 1 hour yet");
        short.now_ms = 10 * 24 * 3_600_000;
        check(&short, State::Winner, "better");
    }

    #[test]
    fn experiment_without_the_planned_lift_ends() {
        check(
            &question((31_000, 1550), (31_000, 1550)),
            State::NoPlannedLift,
            "no group has the planned lift of 10 % of purchase or more (90 %, however often you look)",
        );
        let mut less = question((31_000, 1550), (31_000, 1550));
        less.metrics[0].goal = Goal::Decrease;
        check(&less, State::NoPlannedLift, "planned lift of 10 %");
        // Half-way between nothing and the planned lift, nothing is known.
        check(
            &question((31_000, 1550), (31_000, 1627)),
            State::Collecting,
            "too early",
        );
        let group = &judge(&question((31_000, 1550), (31_000, 1705))).metrics[0].groups[1];
        assert_eq!(group.planned_lift_p, Some(1.0));
    }

    #[test]
    fn harm_is_named_before_the_winner() {
        let mut both = question((20_000, 2000), (20_000, 2400));
        let mut returns = both.metrics[0].clone();
        returns.name = "returns".to_owned();
        (returns.goal, returns.role) = (Goal::Decrease, Role::Secondary);
        both.metrics.push(returns);
        check(
            &both,
            State::Winner,
            "careful, returns with experiment: 8.7 % to 32.5 % higher than with control, which is worse; experiment converts",
        );
        assert_eq!(judge(&both).verdict.harms, [1]);
    }

    #[test]
    fn groups_that_cannot_be_told_apart_are_named() {
        let of = |third: u64| {
            let mut three = question((20_000, 2000), (20_000, 2450));
            three.groups.push(Group {
                name: "other".to_owned(),
                is_control: false,
            });
            three.epochs[0] = Epoch {
                shares: vec![1.0 / 3.0; 3],
                users: vec![20_000; 3],
            };
            let totals = Totals {
                users: 20_000,
                converted: third,
                ..Totals::default()
            };
            three.metrics[0].totals[0].push(totals);
            three
        };
        check(
            &of(2400),
            State::Winner,
            "; it cannot be told from other yet",
        );
        check(
            &of(2050),
            State::Winner,
            "better than control (95 %, however often you look); 60,000",
        );
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
            State::NoPlannedLift,
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
