//! Which group is better, in one word and one sentence.

use super::balance::Balance;
use super::{Kind, Lift, MetricJudgement, Question};

/// The word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not known yet.
    Collecting,
    /// A group is better than control.
    Winner,
    /// Every other group is worse than control.
    Loser,
    /// The groups differ by less than the margin.
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

/// The verdict by the primary metric.
pub fn verdict(
    question: &Question,
    balance: &Balance,
    primary: Option<&MetricJudgement>,
) -> Verdict {
    let users: u64 = question.epochs.iter().flat_map(|epoch| &epoch.users).sum();
    let people = format!("{} users", thousands(users));
    if balance.mismatch {
        let reason = format!(
            "the groups do not have the sizes that their weights ask for ({people}, sample ratio p = {:.2e}): something treats them differently, and no rate here can be believed",
            balance.p_value.unwrap_or_default(),
        );
        return Verdict {
            state: State::Invalid,
            group: None,
            reason,
        };
    }
    let (Some(primary), Some(metric)) = (primary, question.metrics.first()) else {
        return collecting("no metric is defined, so there is nothing to compare".to_owned());
    };
    if users == 0 {
        return collecting("no user has been seen yet".to_owned());
    }
    let lifts: Vec<(usize, Lift)> = primary
        .groups
        .iter()
        .enumerate()
        .filter_map(|(group, judged)| Some((group, judged.lift?)))
        .collect();
    let sign = if metric.increase { 1.0 } else { -1.0 };
    let control = &question.groups[question.control];
    let tell = |group: usize, lift: &Lift| {
        format!(
            "{} {} ({} %, however often you look); {people}; sample ratio sound",
            question.groups[group],
            range(metric.kind, lift, control),
            100.0 * (1.0 - question.alpha),
        )
    };
    let better = |lift: &Lift| decided(lift, sign);
    let worse = |lift: &Lift| decided(lift, -sign);
    let best = lifts
        .iter()
        .filter(|(_, lift)| better(lift))
        .max_by(|(_, a), (_, b)| {
            let gain = |lift: &Lift| sign * lift.relative.unwrap_or(0.0);
            gain(a).total_cmp(&gain(b))
        });
    let (state, group, reason) = if let Some((group, lift)) = best {
        (State::Winner, Some(*group), tell(*group, lift))
    } else if let (Some((group, lift)), true) =
        (lifts.first(), lifts.iter().all(|(_, lift)| worse(lift)))
    {
        (State::Loser, Some(*group), tell(*group, lift))
    } else if !lifts.is_empty() && lifts.iter().all(|(_, lift)| same(lift, metric.margin)) {
        let reason = format!(
            "no group differs from {control} by more than {} %; {people}",
            100.0 * metric.margin
        );
        (State::NoDifference, None, reason)
    } else {
        return collecting(format!(
            "too early to say which group is better: {}; {people}",
            so_far(question, &lifts, metric.kind)
        ));
    };
    if !question.ripe {
        return collecting(format!(
            "it looks as if {reason}; but the experiment has not run for its min_duration yet"
        ));
    }
    Verdict {
        state,
        group,
        reason,
    }
}

fn collecting(reason: String) -> Verdict {
    Verdict {
        state: State::Collecting,
        group: None,
        reason,
    }
}

/// Whether the whole interval lies on this side of no difference.
fn decided(lift: &Lift, sign: f64) -> bool {
    let (low, high) = lift.relative_interval;
    let end = if sign > 0.0 { low } else { high };
    end.is_some_and(|end| sign * end > 0.0)
}

fn same(lift: &Lift, margin: f64) -> bool {
    matches!(lift.relative_interval, (Some(low), Some(high)) if -margin <= low && high <= margin)
}

fn range(kind: Kind, lift: &Lift, control: &str) -> String {
    let verb = match kind {
        Kind::Conversion => "converts",
        Kind::Mean | Kind::Ratio => "is",
    };
    let percent = |value: f64| format!("{:.1} %", 100.0 * value.abs());
    let word = |value: f64| if value < 0.0 { "less" } else { "more" };
    match lift.relative_interval {
        (Some(low), Some(high)) if low > 0.0 => format!(
            "{verb} {} to {} more than {control}",
            percent(low),
            percent(high)
        ),
        (Some(low), Some(high)) if high < 0.0 => format!(
            "{verb} {} to {} less than {control}",
            percent(high),
            percent(low)
        ),
        (Some(low), Some(high)) => {
            format!(
                "{verb} between {} {} and {} {} than {control}",
                percent(low),
                word(low),
                percent(high),
                word(high)
            )
        }
        (Some(low), None) => format!(
            "{verb} at least {} {} than {control}",
            percent(low),
            word(low)
        ),
        (None, Some(high)) => format!(
            "{verb} at most {} {} than {control}",
            percent(high),
            word(high)
        ),
        (None, None) => format!("cannot be compared with {control} yet"),
    }
}

fn so_far(question: &Question, lifts: &[(usize, Lift)], kind: Kind) -> String {
    let control = &question.groups[question.control];
    let each = lifts
        .iter()
        .map(|(group, lift)| format!("{} {}", question.groups[*group], range(kind, lift, control)));
    let all: Vec<_> = each.collect();
    if all.is_empty() {
        "there is nothing to compare".to_owned()
    } else {
        all.join("; ")
    }
}

/// 40112 as `40,112`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::moments::Sums;
    use super::super::{Epoch, Metric, judge};
    use super::*;

    fn question(control: (u64, u64), own: (u64, u64)) -> Question {
        let sums = |(users, converted): (u64, u64)| Sums {
            users,
            converted,
            unit: 1.0,
            ..Sums::default()
        };
        Question {
            groups: vec!["control".into(), "experiment".into()],
            control: 0,
            epochs: vec![Epoch {
                shares: vec![0.5, 0.5],
                users: vec![control.0, own.0],
            }],
            metrics: vec![Metric {
                kind: Kind::Conversion,
                increase: true,
                detect: 0.1,
                margin: 0.01,
                sums: vec![vec![sums(control), sums(own)]],
            }],
            ripe: true,
            alpha: 0.05,
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
            &question((100, 10), (100, 12)),
            State::Collecting,
            "too early to say",
        );
        check(
            &question((20_000, 2000), (20_112, 2400)),
            State::Winner,
            "more than control (95 %, however often you look); 40,112 users",
        );
        check(
            &question((20_000, 2400), (20_000, 2000)),
            State::Loser,
            "less than control",
        );
        check(
            &question((9_000_000, 4_500_000), (9_000_000, 4_500_000)),
            State::NoDifference,
            "by more than 1 %",
        );
        check(
            &question((20_000, 2000), (10_000, 2000)),
            State::Invalid,
            "something treats them differently",
        );
    }

    #[test]
    fn the_relative_lift_is_the_one_that_the_rates_show() {
        let lift = judge(&question((18, 18), (13, 12))).metrics[0].groups[1]
            .lift
            .unwrap();
        assert!((lift.relative.unwrap() - (12.0 / 13.0 - 1.0)).abs() < 1e-12);
        let mut ramp = question((9900, 198), (100, 2));
        ramp.epochs = vec![
            Epoch {
                shares: vec![0.99, 0.01],
                users: vec![9900, 100],
            },
            Epoch {
                shares: vec![0.5, 0.5],
                users: vec![5000, 5000],
            },
        ];
        let sums = |users, converted| Sums {
            users,
            converted,
            unit: 1.0,
            ..Sums::default()
        };
        ramp.metrics[0].sums = vec![
            vec![sums(9900, 198), sums(100, 2)],
            vec![sums(5000, 500), sums(5000, 500)],
        ];
        let lift = judge(&ramp).metrics[0].groups[1].lift.unwrap();
        assert!(
            lift.relative.unwrap().abs() < 0.01,
            "pooled it would be +110 %: {lift:?}"
        );
    }

    #[test]
    fn less_can_be_better_and_haste_is_refused() {
        let mut less = question((20_000, 2400), (20_000, 2000));
        less.metrics[0].increase = false;
        check(&less, State::Winner, "less than control");
        less.ripe = false;
        check(&less, State::Collecting, "has not run for its min_duration");
    }
}
