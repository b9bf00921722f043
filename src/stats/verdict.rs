//! Which group is better, in one word and one sentence.

use super::balance::SampleRatio;
use super::judgement::{GroupJudgement, Lift, MetricJudgement};
use super::question::{Engine, Goal, Kind, Metric, Question, Role};

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
    if sample_ratio.mismatch {
        let (sizes, so) = if sample_ratio.mismatch_was_earlier {
            (
                "at an earlier look the groups did not have",
                "who was missing then is missing still",
            )
        } else {
            (
                "the groups do not have",
                "something treats them differently",
            )
        };
        let reason = format!(
            "{sizes} the sizes that their weights ask for ({}, sample ratio p = {:.1e}): {so}, and no rate here can be believed",
            people(users),
            sample_ratio.p_value.unwrap_or(0.0),
        );
        return Verdict {
            state: State::Invalid,
            group: None,
            reason,
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
            reason: format!("{reason}; {}", people(users)),
        };
    }
    let Some(primary) = primary else {
        return collecting(format!(
            "no metric is defined, so there is nothing to compare; {}",
            people(users)
        ));
    };
    let harmful: Vec<usize> = harmful.into_iter().map(|(group, _)| group).collect();
    let telling = Telling {
        question,
        control,
        metric: &question.metrics[primary],
        judged: &judged[primary],
        users,
    };
    telling.by_primary(&harmful)
}

/// Groups that do harm, each with its sentence.
fn harmful(
    question: &Question,
    control: usize,
    judged: &[MetricJudgement],
) -> Vec<(usize, String)> {
    let control = &question.groups[control].name;
    let mut found: Vec<(usize, String)> = Vec::new();
    for (metric, judged) in question.metrics.iter().zip(judged) {
        let Role::Guardrail { max_increase } = metric.role else {
            continue;
        };
        for (group, judged) in judged.groups.iter().enumerate() {
            let Some(guardrail) = judged.guardrail.filter(|guardrail| guardrail.breached) else {
                continue;
            };
            if found.iter().any(|(other, _)| *other == group) {
                continue;
            }
            let name = &question.groups[group].name;
            let reason = match (guardrail.dead, guardrail.at_least) {
                (true, _) => format!(
                    "{name} does harm: more than half of its users had {}",
                    metric.name
                ),
                (false, Some(least)) if least > max_increase => format!(
                    "{name} does harm: {} at least {} higher than with {control}, and {} was tolerated",
                    metric.name,
                    percent(least),
                    percent(max_increase)
                ),
                (false, _) => format!(
                    "{name} did harm at an earlier look: {} higher than with {control}",
                    metric.name
                ),
            };
            found.push((group, reason));
        }
    }
    found
}

/// What sentences about the primary metric are made of.
struct Telling<'a> {
    question: &'a Question,
    control: usize,
    metric: &'a Metric,
    judged: &'a MetricJudgement,
    users: u64,
}

impl Telling<'_> {
    fn by_primary(&self, harmful: &[usize]) -> Verdict {
        let groups: Vec<(usize, &GroupJudgement, Lift)> = self
            .judged
            .groups
            .iter()
            .enumerate()
            .filter_map(|(group, judged)| Some((group, judged, judged.lift?)))
            .collect();
        let sign = match self.metric.goal {
            Goal::Increase => 1.0,
            Goal::Decrease => -1.0,
        };
        let gain = |lift: &Lift| sign * lift.relative.or(lift.absolute).unwrap_or(0.0);
        let best = groups
            .iter()
            .filter(|(group, judged, lift)| {
                judged.significant && gain(lift) > 0.0 && !harmful.contains(group)
            })
            .max_by(|(_, _, a), (_, _, b)| gain(a).total_cmp(&gain(b)));
        let all_worse = !groups.is_empty()
            && groups.iter().all(|(group, judged, lift)| {
                harmful.contains(group) || judged.significant && gain(lift) < 0.0
            });
        let all_same = !groups.is_empty()
            && groups
                .iter()
                .all(|(_, _, lift)| lift.relative_interval.within(self.metric.margin));
        let (state, group, said) = if let Some((group, judged, lift)) = best {
            (
                State::Winner,
                Some(*group),
                self.shown(*group, judged, lift),
            )
        } else if let (true, Some((group, judged, lift))) = (all_worse, groups.first()) {
            (State::Loser, Some(*group), self.shown(*group, judged, lift))
        } else if all_same {
            (State::NoDifference, None, self.same())
        } else {
            return collecting(self.so_far(&groups));
        };
        if !self.ripe() {
            return collecting(format!(
                "it looks as if {said}; but the experiment has not run for {} yet; {}",
                duration(self.question.min_duration_ms),
                people(self.users)
            ));
        }
        Verdict {
            state,
            group,
            reason: format!("{said}; {}; sample ratio sound", people(self.users)),
        }
    }

    fn ripe(&self) -> bool {
        let Question {
            started_at_ms,
            now_ms,
            min_duration_ms,
            ..
        } = self.question;
        started_at_ms.is_some_and(|start| *now_ms >= start.saturating_add(*min_duration_ms))
    }

    fn name(&self, group: usize) -> &str {
        &self.question.groups[group].name
    }

    /// An effect that is shown.
    fn shown(&self, group: usize, judged: &GroupJudgement, lift: &Lift) -> String {
        let said = self.range(group, lift);
        if lift.relative_interval.excludes_zero() {
            return format!("{said} ({}, however often you look)", self.confidence());
        }
        // An earlier look showed it, and what was once shown stays shown.
        format!(
            "that {} and {} differ was shown at an earlier look (p = {:.2}); now {said}",
            self.name(group),
            self.name(self.control),
            judged.adjusted_p.unwrap_or(1.0),
        )
    }

    fn same(&self) -> String {
        format!(
            "no group differs from {} by more than {} ({}, however often you look)",
            self.name(self.control),
            percent(self.metric.margin),
            self.confidence()
        )
    }

    fn so_far(&self, groups: &[(usize, &GroupJudgement, Lift)]) -> String {
        let each: Vec<String> = groups
            .iter()
            .map(|(group, _, lift)| self.range(*group, lift))
            .collect();
        let each = if each.is_empty() {
            "there is nothing to compare".to_owned()
        } else {
            each.join("; ")
        };
        let needed = self
            .judged
            .users_needed
            .filter(|&needed| needed > self.users);
        let needed = needed.map_or(String::new(), |needed| {
            format!(
                "; to find a lift of {}, about {} users are needed",
                percent(self.metric.detect),
                thousands(two_digits(needed))
            )
        });
        format!(
            "too early to say which group is better: {each}; {}{needed}",
            people(self.users)
        )
    }

    fn confidence(&self) -> String {
        percent(1.0 - self.question.alpha)
    }

    /// Where the true lift lies, in words.
    fn range(&self, group: usize, lift: &Lift) -> String {
        let (name, control) = (self.name(group), self.name(self.control));
        let converts = self.metric.kind == Kind::Conversion && self.metric.goal == Goal::Increase;
        let (subject, up, down, end) = if converts {
            (
                format!("{name} converts"),
                "better",
                "worse",
                format!("than {control}"),
            )
        } else {
            let end = format!("than with {control}");
            (
                format!("{} with {name}:", self.metric.name),
                "higher",
                "lower",
                end,
            )
        };
        let toward = |value: f64| if value < 0.0 { down } else { up };
        let interval = lift.relative_interval;
        // A fall cannot be larger than to nothing: such an end says nothing.
        let absolute = matches!(self.metric.engine, Engine::Absolute { .. });
        let low = interval.low.filter(|&low| absolute || low > -1.0);
        match (low, interval.high) {
            (Some(low), Some(high)) if low >= 0.0 => {
                format!("{subject} {} to {} {up} {end}", percent(low), percent(high))
            }
            (Some(low), Some(high)) if high <= 0.0 => {
                format!(
                    "{subject} {} to {} {down} {end}",
                    percent(high),
                    percent(low)
                )
            }
            (Some(low), Some(high)) => format!(
                "{subject} between {} {down} and {} {up} {end}",
                percent(low),
                percent(high)
            ),
            (Some(low), None) if low >= 0.0 => {
                format!("{subject} at least {} {up} {end}", percent(low))
            }
            (Some(low), None) => format!("{subject} at most {} {down} {end}", percent(low)),
            (None, Some(high)) if high <= 0.0 => {
                format!("{subject} at least {} {down} {end}", percent(high))
            }
            (None, Some(high)) => {
                format!("{subject} at most {} {} {end}", percent(high), toward(high))
            }
            (None, None) => format!("{name} cannot be compared with {control} yet"),
        }
    }
}

fn collecting(reason: String) -> Verdict {
    Verdict {
        state: State::Collecting,
        group: None,
        reason,
    }
}

fn people(users: u64) -> String {
    let word = if users == 1 { "user" } else { "users" };
    format!("{} {word}", thousands(users))
}

/// 0.081 as `8.1 %`, without sign; whole numbers without a decimal.
fn percent(value: f64) -> String {
    let hundred = 100.0 * value.abs();
    let text = if hundred < 0.095 && hundred > 0.0 {
        format!("{hundred:.2}")
    } else {
        format!("{hundred:.1}")
    };
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

/// 40112 as `40,112`.
pub fn thousands(number: u64) -> String {
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

/// 124718 as 130000: a forecast has no more digits than that. Always rounded up.
pub fn two_digits(number: u64) -> u64 {
    let mut unit = 1;
    while number / unit >= 100 {
        unit *= 10;
    }
    number.div_ceil(unit).saturating_mul(unit)
}

fn duration(ms: u64) -> String {
    const HOUR: u64 = 3_600_000;
    let (number, word) = match ms {
        _ if ms >= 24 * HOUR && ms.is_multiple_of(24 * HOUR) => (ms / (24 * HOUR), "day"),
        _ if ms >= HOUR => (ms.div_ceil(HOUR), "hour"),
        _ => (ms.div_ceil(60_000), "minute"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}

#[cfg(test)]
mod tests {
    use super::super::{Epoch, Group, Totals, judge};
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
                engine: Engine::Exact,
                detect: 0.1,
                margin: 0.01,
                scale: 0,
                totals: vec![vec![totals(control), totals(own)]],
                previous_p: Vec::new(),
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
            "too early to say which group is better: experiment converts between 13.7 % worse and 21 % better than control; 20,112 users; to find a lift of 10 %, about 140,000 users are needed",
        );
        check(
            &question((20_000, 2000), (20_112, 2400)),
            State::Winner,
            "experiment converts 8.2 % to 33.1 % better than control (95 %, however often you look); 40,112 users; sample ratio sound",
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
    fn what_was_once_shown_stays_shown() {
        let mut later = question((20_000, 2000), (20_000, 2040));
        later.metrics[0].previous_p = vec![None, Some(0.01)];
        check(
            &later,
            State::Winner,
            "that experiment and control differ was shown at an earlier look (p = 0.01); now experiment converts between",
        );
    }

    #[test]
    fn numbers_read_well() {
        let found = [0.0, 0.0004, 0.081, 0.1, -0.153].map(percent);
        assert_eq!(found, ["0 %", "0.04 %", "8.1 %", "10 %", "15.3 %"]);
        assert_eq!([0, 999, 40_112].map(thousands), ["0", "999", "40,112"]);
        assert_eq!([7, 99, 124_718].map(two_digits), [7, 99, 130_000]);
        let found = [60_000, 3_600_000, 604_800_000].map(duration);
        assert_eq!(found, ["1 minute", "1 hour", "7 days"]);
    }
}
