//! Which group is better. What is decided rests on the evidence of this analysis alone; what
//! earlier ones showed is displayed as history.

use super::analysis::{GroupJudgement, Lift, MetricJudgement, Side};
use super::compare;
use super::horizon::PlannedAnalysis;
use super::input::{Goal, MetricInput, Question, Role};
use super::srm::SampleRatioTest;
use super::timing::is_due;
use super::verdict::{Finding, State, Verdict};

/// The verdict: by the sample ratio first, then by guardrails, then by the primary metric.
/// Harm does not wait for the shortest duration; the rest does.
pub(super) fn verdict(
    question: &Question,
    primary: Option<usize>,
    sample_ratio: &SampleRatioTest,
    judged: &[MetricJudgement],
) -> Verdict {
    if question.is_partial {
        return Verdict::collecting(Finding::PartialBatch);
    }
    if sample_ratio.mismatch {
        return Verdict {
            state: State::Invalid,
            ..Verdict::collecting(Finding::SampleRatioMismatch)
        };
    }
    if question.users() == 0 {
        return Verdict::collecting(Finding::NoUsers);
    }
    let harmful = harmful(question, judged);
    let others = question.groups.len().saturating_sub(1);
    if let (Some(&(group, metric)), true) = (harmful.first(), harmful.len() == others) {
        return Verdict {
            state: State::Loser,
            group: Some(group),
            ..Verdict::collecting(Finding::Breach { metric })
        };
    }
    let Some(primary) = primary else {
        return Verdict::collecting(Finding::NoMetric);
    };
    let harmful: Vec<usize> = harmful.into_iter().map(|(group, _)| group).collect();
    let primary = Primary {
        question,
        metric: &question.metrics[primary],
        groups: compared(&judged[primary], &harmful),
    };
    by_primary(&primary, judged)
}

/// Groups that do harm, each with the first guardrail that it breaches.
fn harmful(question: &Question, judged: &[MetricJudgement]) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (place, (metric, judged)) in question.metrics.iter().zip(judged).enumerate() {
        if !matches!(metric.role, Role::Guardrail { .. }) {
            continue;
        }
        for (group, judged) in judged.groups.iter().enumerate() {
            let breached = judged.guardrail.is_some_and(|guardrail| guardrail.breached);
            if breached && found.iter().all(|(other, _)| *other != group) {
                found.push((group, place));
            }
        }
    }
    found
}

/// The primary metric, and the groups that are compared on it.
struct Primary<'a> {
    question: &'a Question,
    metric: &'a MetricInput,
    groups: Vec<Compared<'a>>,
}

fn by_primary(primary: &Primary<'_>, judged: &[MetricJudgement]) -> Verdict {
    let Primary {
        question,
        metric,
        groups,
    } = primary;
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
            ..Verdict::collecting(Finding::Effect { tied: Vec::new() })
        };
    }
    let found = if let Some(best) = best {
        Verdict {
            state: State::Winner,
            group: Some(best.place),
            finding: Finding::Effect {
                tied: tied(primary, best.place),
            },
            harms: harms(question, best.place, judged),
        }
    } else if groups.iter().all(|group| group.lift.is_same()) && !groups.is_empty() {
        Verdict {
            state: State::NoDifference,
            ..Verdict::collecting(Finding::WithinMargin)
        }
    } else if all(&|group| is_futile(group) || is_worse(group)) {
        Verdict {
            state: State::NoPlannedLift,
            ..Verdict::collecting(Finding::BelowPlannedLift)
        }
    } else if is_over(question, metric, groups) {
        Verdict {
            state: State::Inconclusive,
            ..Verdict::collecting(Finding::PlannedEnd)
        }
    } else {
        return Verdict::collecting(Finding::Open);
    };
    let was_given = question.given.contains(&(found.state, found.group));
    if is_due(question) || was_given {
        return found;
    }
    Verdict::collecting(Finding::NotDue(Box::new(found)))
}

/// Whether every group had its analysis at the planned end, or has nothing to analyze there.
fn is_over(question: &Question, metric: &MetricInput, groups: &[Compared<'_>]) -> bool {
    let is_last = |group: &Compared<'_>| {
        let last = group.judged.analyses.last();
        last.is_some_and(PlannedAnalysis::is_last)
    };
    let is_over = question
        .progress(metric)
        .is_some_and(|progress| progress >= 1.0);
    question.horizon.is_some() && !groups.is_empty() && (is_over || groups.iter().all(is_last))
}

/// The groups that are compared with control.
fn compared<'a>(judged: &'a MetricJudgement, harmful: &[usize]) -> Vec<Compared<'a>> {
    let groups = judged.groups.iter().enumerate();
    let compared = groups.filter_map(|(place, judged)| {
        Some(Compared {
            place,
            judged,
            lift: judged.lift?,
            is_harmful: harmful.contains(&place),
        })
    });
    compared.collect()
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
fn tied(primary: &Primary<'_>, best: usize) -> Vec<usize> {
    let Primary {
        question,
        metric,
        groups,
    } = primary;
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

#[cfg(test)]
mod tests {
    use super::super::{Epoch, GroupInput, Kind, Totals, judge};
    use super::*;

    /// Control and groups of 20,000 users each, with so many converted.
    fn question(converted: &[u64]) -> Question {
        let totals = |&converted: &u64| Totals {
            users: 20_000,
            converted,
            ..Totals::default()
        };
        Question {
            groups: (0..converted.len())
                .map(|place| GroupInput {
                    name: place.to_string(),
                    is_control: place == 0,
                })
                .collect(),
            epochs: vec![Epoch {
                shares: vec![1.0 / converted.len() as f64; converted.len()],
                users: vec![20_000; converted.len()],
            }],
            metrics: vec![MetricInput {
                name: "purchase".to_owned(),
                kind: Kind::Conversion,
                goal: Goal::Increase,
                role: Role::Primary,
                baseline: None,
                detect: 0.1,
                margin: 0.01,
                scale: 0,
                totals: vec![converted.iter().map(totals).collect()],
                samples: None,
                history: Vec::new(),
            }],
            started_at_ms: Some(0),
            now_ms: 7 * 24 * 3_600_000,
            ..Question::default()
        }
    }

    #[track_caller]
    fn check(question: &Question, state: State, group: Option<usize>, finding: &Finding) {
        let found = judge(question).verdict;
        assert_eq!(
            (found.state, found.group, &found.finding),
            (state, group, finding)
        );
    }

    #[test]
    fn verdict_names_its_finding() {
        let effect = |tied: &[usize]| Finding::Effect {
            tied: tied.to_vec(),
        };
        check(
            &question(&[2000, 2400]),
            State::Winner,
            Some(1),
            &effect(&[]),
        );
        check(
            &question(&[2400, 2000]),
            State::Loser,
            Some(1),
            &effect(&[]),
        );
        check(
            &question(&[2000, 2400, 2450]),
            State::Winner,
            Some(2),
            &effect(&[1]),
        );
        check(
            &question(&[1000, 1050]),
            State::Collecting,
            None,
            &Finding::Open,
        );
        check(
            &question(&[2000, 1990]),
            State::NoPlannedLift,
            None,
            &Finding::BelowPlannedLift,
        );
    }

    #[test]
    fn winner_before_whole_weeks_is_not_due() {
        let mut early = question(&[2000, 2400]);
        early.now_ms -= 1;
        let found = judge(&early).verdict;
        let Finding::NotDue(due) = found.finding else {
            panic!("{found:?}");
        };
        assert_eq!((found.state, found.group), (State::Collecting, None));
        assert_eq!((due.state, due.group), (State::Winner, Some(1)));
        early.given = vec![(State::Winner, Some(1))];
        assert_eq!(judge(&early).verdict, *due);
    }

    #[test]
    fn breached_guardrail_decides_before_the_primary_metric() {
        let mut harm = question(&[2000, 2400]);
        let mut errors = harm.metrics[0].clone();
        errors.role = Role::Guardrail { max_increase: 0.01 };
        harm.metrics.push(errors);
        let breach = Finding::Breach { metric: 1 };
        check(&harm, State::Loser, Some(1), &breach);
        harm.is_partial = true;
        check(&harm, State::Collecting, None, &Finding::PartialBatch);
    }
}
