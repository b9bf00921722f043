//! The sentences of a verdict. PURE.

use crate::admin::format::{thousands, two_digits};
use crate::admin::results::metric::asked_totals;
use crate::stats::normal_mixture::{COUNTED_USERS_MIN, VALUED_USERS_MIN};
use crate::stats::timing::due_ms;
use crate::stats::{
    ANALYSES, EndAfter, Finding, Goal, GuardrailJudgement, Judgement, Kind, Lift, MetricInput,
    MetricJudgement, Question, Role, SampleRatioTest, Shown, Side, Verdict,
};

/// Why the verdict of a judgement is given, in one sentence.
pub fn reason(question: &Question, judgement: &Judgement) -> String {
    let verdict = &judgement.verdict;
    let users = question.users();
    match &verdict.finding {
        Finding::PartialBatch => {
            "events that were reported together are still being counted; there is no verdict until all of them are".to_owned()
        }
        Finding::SampleRatioMismatch => mismatch(&judgement.sample_ratio, users),
        Finding::NoUsers => "no user has been seen yet".to_owned(),
        Finding::NoMetric => format!(
            "no metric is defined, so there is nothing to compare; {}",
            users_text(users)
        ),
        Finding::PrimaryGone { metric } => format!(
            "{metric} decides this experiment, and the file no longer has it among its metrics; put it back, or begin a new phase with another `salt`"
        ),
        Finding::Breach { metric } => {
            let harm = harm(question, judgement, *metric, verdict.group.unwrap_or_default());
            format!("{harm}; {}", users_text(users))
        }
        Finding::Effect { .. }
        | Finding::WithinMargin
        | Finding::BelowPlannedLift
        | Finding::PlannedEnd
        | Finding::Open
        | Finding::NotDue(_) => {
            let Some(primary) = question.primary() else {
                return String::new();
            };
            let narrative = Narrative {
                question,
                control: question.control(),
                metric: &question.metrics[primary],
                judged: &judgement.metrics[primary],
                users,
            };
            let said = narrative.by_primary(verdict, &judgement.metrics);
            let past = past(question, question.control(), &judgement.metrics);
            format!("{said}{past}")
        }
    }
}

/// What sentences about the primary metric are made of.
struct Narrative<'a> {
    /// The whole experiment.
    question: &'a Question,
    /// The place of control.
    control: usize,
    /// The primary metric.
    metric: &'a MetricInput,
    /// What is known of it.
    judged: &'a MetricJudgement,
    /// Users of all groups.
    users: u64,
}

impl Narrative<'_> {
    /// The sentence of a verdict that rests on the primary metric.
    fn by_primary(&self, verdict: &Verdict, judged: &[MetricJudgement]) -> String {
        match &verdict.finding {
            Finding::Open => self.so_far(),
            Finding::NotDue(verdict) => self.early(&self.found(verdict, judged)),
            _ => format!("{}; {}", self.found(verdict, judged), self.basis()),
        }
    }

    /// What was found, without the data that it rests on.
    fn found(&self, verdict: &Verdict, judged: &[MetricJudgement]) -> String {
        match &verdict.finding {
            Finding::WithinMargin => self.same(),
            Finding::BelowPlannedLift => self.no_planned_lift(),
            Finding::PlannedEnd => self.inconclusive(),
            Finding::Effect { tied } => {
                let group = verdict.group.unwrap_or_default();
                self.effect(group, tied, &verdict.harms, judged)
            }
            _ => String::new(),
        }
    }

    fn lift(&self, group: usize) -> Lift {
        self.judged.groups[group].lift.unwrap_or_default()
    }

    /// An effect that is shown.
    fn shown(&self, group: usize) -> String {
        let range = self.range(group, &self.lift(group));
        format!("{range} ({}, {})", self.confidence(), self.held(group))
    }

    /// When it holds what is said of a group.
    fn held(&self, group: usize) -> String {
        match self.judged.groups[group].analyses.last() {
            Some(last) => format!("by the plan, at analysis {} of {ANALYSES}", last.number),
            None => "however often you look".to_owned(),
        }
    }

    /// The planned end, without a difference.
    fn inconclusive(&self) -> String {
        let others = (0..self.question.groups.len()).filter(|group| *group != self.control);
        let each = others.map(|group| match self.lift(group).decisive() {
            interval if interval.low.is_none() && interval.high.is_none() => {
                self.incomparable(group)
            }
            _ => self.shown(group),
        });
        let each: Vec<String> = each.collect();
        format!(
            "the planned end has come, and no difference is shown: {}",
            each.join("; ")
        )
    }

    /// That a group cannot be compared with control yet, and why.
    fn incomparable(&self, group: usize) -> String {
        let of = |place: usize| asked_totals(self.metric, place);
        let (own, control) = (of(group), of(self.control));
        let (users, converted) = (
            own.users.min(control.users),
            own.converted.min(control.converted),
        );
        let metric = &self.metric.name;
        let needs = |least: u64| match converted < least {
            true => format!(": {metric} needs {least} users of each with an event"),
            false => format!(": all users of a group have the same {metric}"),
        };
        let why = match self.metric.kind {
            _ if users == 0 => format!(": {metric} has no users of both yet"),
            Kind::Quantile => String::new(),
            _ if own.converted + control.converted == 0 => {
                format!(": no user has an event of {metric}")
            }
            Kind::Conversion => String::new(),
            Kind::Count => needs(COUNTED_USERS_MIN),
            Kind::Mean | Kind::Ratio => needs(VALUED_USERS_MIN),
        };
        let (name, control) = (self.name(group), self.name(self.control));
        format!("{name} cannot be compared with {control} yet{why}")
    }

    /// `; the planned end is at 20,000 users`.
    fn planned_end(&self) -> Option<String> {
        Some(match self.question.horizon.as_ref()?.at {
            EndAfter::Users(users) => format!("; the planned end is at {}", users_text(users)),
            EndAfter::Time(_) => {
                let end = self.question.horizon.as_ref()?;
                let end_ms = end.ends_ms(self.question.started_at_ms)?;
                format!("; the planned end is on {}", day(end_ms)?)
            }
        })
    }

    /// An effect: first what a winner harms, and last from whom it cannot be told.
    fn effect(
        &self,
        group: usize,
        tied: &[usize],
        harms: &[usize],
        judged: &[MetricJudgement],
    ) -> String {
        let mut said = String::new();
        for &place in harms {
            let other = Narrative {
                metric: &self.question.metrics[place],
                judged: &judged[place],
                ..*self
            };
            let range = other.range(group, &other.lift(group));
            said.push_str(&format!("careful, {range}, which is worse; "));
        }
        said.push_str(&self.shown(group));
        if !tied.is_empty() {
            let names: Vec<&str> = tied.iter().map(|&group| self.name(group)).collect();
            let names = names.join(" or ");
            said.push_str(&format!("; it cannot be told from {names} yet"));
        }
        said
    }

    /// An end without the planned effect.
    fn no_planned_lift(&self) -> String {
        format!(
            "no group has the planned lift of {} of {} or more ({}, however often you look)",
            percent(self.metric.detect),
            self.metric.name,
            percent(1.0 - self.question.beta)
        )
    }

    /// No difference beyond the margin.
    fn same(&self) -> String {
        let mut others = (0..self.question.groups.len()).filter(|it| *it != self.control);
        let held = others
            .next()
            .map_or(String::new(), |group| self.held(group));
        format!(
            "no group differs from {} by more than {} ({}, {held})",
            self.name(self.control),
            percent(self.metric.margin),
            self.confidence()
        )
    }

    /// What would be said, were it not too early.
    fn early(&self, said: &str) -> String {
        let users = users_text(self.users);
        let Some(due_ms) = due_ms(self.question).filter(|_| self.knows_weeks()) else {
            let shortest = duration(self.question.min_duration_ms);
            return format!(
                "it looks as if {said}; but the experiment has not run for {shortest} yet; {users}"
            );
        };
        let day = day(due_ms).unwrap_or_default();
        format!(
            "it looks as if {said}; but a verdict is given from {day} on, after whole weeks; {users}"
        )
    }

    /// What a verdict rests on.
    fn basis(&self) -> String {
        format!("{}; no sample ratio mismatch seen", users_text(self.users))
    }

    /// What is known while nothing is shown.
    fn so_far(&self) -> String {
        let groups = self.judged.groups.iter().enumerate();
        let each: Vec<String> = groups
            .filter_map(|(group, judged)| Some(self.range(group, &judged.lift?)))
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
        let planned_end = self.planned_end();
        let needed = needed.filter(|_| planned_end.is_none());
        let needed = needed.map_or(planned_end.unwrap_or_default(), |needed| {
            format!(
                "; to find a lift of {}, about {} users are needed",
                percent(self.metric.detect),
                thousands(two_digits(needed))
            )
        });
        format!(
            "too early to say which group is better: {each}; {}{needed}",
            users_text(self.users)
        )
    }

    fn confidence(&self) -> String {
        percent(1.0 - self.question.alpha)
    }

    fn knows_weeks(&self) -> bool {
        self.question.min_duration_ms >= 7 * 24 * 3_600_000
    }

    fn name(&self, group: usize) -> &str {
        &self.question.groups[group].name
    }

    /// Where the true lift lies, in words.
    fn range(&self, group: usize, lift: &Lift) -> String {
        let (name, control) = (self.name(group), self.name(self.control));
        // Of several metrics, one that does not decide is named.
        let primary = self.question.primary();
        let decides =
            primary.is_some_and(|place| self.question.metrics[place].name == self.metric.name);
        let is_rate = self.metric.kind == Kind::Conversion && self.metric.goal == Goal::Increase;
        let converts = is_rate && decides;
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
        let interval = lift.decisive();
        // A fall cannot be larger than to nothing: such an end says nothing.
        let low = interval.low.filter(|&low| lift.is_absolute || low > -1.0);
        let end = match (lift.is_absolute, self.metric.kind) {
            (true, Kind::Mean | Kind::Count) => format!("per user {end}"),
            _ => end,
        };
        let percent = |value: f64| match lift.is_absolute {
            true => amount(value),
            false => percent(value),
        };
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
            (None, None) => self.incomparable(group),
        }
    }
}

/// Group sizes that do not match the weights.
fn mismatch(sample_ratio: &SampleRatioTest, users: u64) -> String {
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
    format!(
        "{sizes} the sizes that their weights ask for ({}, sample ratio p = {:.1e}): {so}, and no rate here can be believed",
        users_text(users),
        sample_ratio.p_value.unwrap_or(0.0),
    )
}

/// What harm a group does by a guardrail, in one sentence.
pub(crate) fn harm(
    question: &Question,
    judgement: &Judgement,
    metric: usize,
    group: usize,
) -> String {
    let name = &question.groups[group].name;
    let control = &question.groups[question.control()].name;
    let guarded = &question.metrics[metric];
    let found = judgement.metrics[metric].groups[group].guardrail;
    let tolerated = match guarded.role {
        Role::Guardrail { max_increase } => max_increase,
        Role::Primary | Role::Secondary => 0.0,
    };
    let at_least = |found: GuardrailJudgement| found.at_least.filter(|_| !found.dead);
    match found.and_then(at_least) {
        Some(least) => format!(
            "{name} does harm: {} at least {} higher than with {control}, and {} was tolerated",
            guarded.name,
            percent(least),
            percent(tolerated)
        ),
        None => format!(
            "{name} does harm: more than half of its users had {}",
            guarded.name
        ),
    }
}

/// What earlier analyses showed and this one does not, of the primary metric and of guardrails;
/// empty where there is nothing.
fn past(question: &Question, control: usize, judged: &[MetricJudgement]) -> String {
    let primary = question.primary();
    let mut said = String::new();
    for (place, (metric, judged)) in question.metrics.iter().zip(judged).enumerate() {
        let is_guardrail = matches!(metric.role, Role::Guardrail { .. });
        if Some(place) != primary && !is_guardrail {
            continue;
        }
        for (group, judged) in judged.groups.iter().enumerate() {
            let name = &question.groups[group].name;
            let control = &question.groups[control].name;
            let now = judged.shown(metric);
            let (better, worse) = (judged.history.better, judged.history.worse);
            let better = better.filter(|_| now != Some(Side::Better));
            let worse = worse.filter(|_| now != Some(Side::Worse));
            for (shown, word) in [(better, "better"), (worse, "worse")] {
                let Some(shown) = shown else { continue };
                said.push_str(&if is_guardrail {
                    format!(
                        "; {} showed harm by {name} {}, and no longer does",
                        metric.name,
                        when(shown)
                    )
                } else {
                    format!(
                        "; {name} was significantly {word} than {control} {}, and no longer is",
                        when(shown)
                    )
                });
            }
        }
    }
    said
}

/// `on 3 May 2026 (p = 0.0012)`.
fn when(shown: Shown) -> String {
    let day = shown.at_ms.and_then(day);
    let when = day.map_or("at an earlier look".to_owned(), |day| format!("on {day}"));
    format!("{when} (p {})", short_p(shown.p))
}

/// `3 May 2026`, in UTC.
fn day(ms: u64) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?;
    Some(time.strftime("%-d %B %Y").to_string())
}

/// A p-value, never rounded to zero.
fn short_p(p: f64) -> String {
    if p >= 0.0001 {
        format!("= {p:.4}")
    } else {
        "below 0.0001".to_owned()
    }
}

/// `1 user`, `40,112 users`.
fn users_text(users: u64) -> String {
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

/// 0.4031 as `0.40`, without sign: three digits, and at least two decimals below 100.
fn amount(value: f64) -> String {
    let value = value.abs();
    let decimals = match value {
        _ if value == 0.0 || value >= 100.0 => 0,
        _ => (2 - value.log10().floor() as i32).clamp(2, 12),
    };
    format!("{value:.*}", decimals as usize)
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
    use super::*;
    use crate::stats::{Epoch, GroupInput, History, PlannedEnd, State, Totals, judge};

    fn question(control: (u64, u64), own: (u64, u64)) -> Question {
        let totals = |(users, converted): (u64, u64)| Totals {
            users,
            converted,
            ..Totals::default()
        };
        let group = |name: &str, is_control| GroupInput {
            name: name.to_owned(),
            is_control,
        };
        Question {
            groups: vec![group("control", true), group("experiment", false)],
            epochs: vec![Epoch {
                shares: vec![0.5, 0.5],
                users: vec![control.0, own.0],
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
                totals: vec![vec![totals(control), totals(own)]],
                samples: None,
                history: Vec::new(),
            }],
            started_at_ms: Some(0),
            now_ms: 7 * 24 * 3_600_000,
            ..Question::default()
        }
    }

    #[track_caller]
    fn check(question: &Question, state: State, says: &str) {
        let judgement = judge(question);
        let reason = reason(question, &judgement);
        assert_eq!(judgement.verdict.state, state, "{reason}");
        assert!(reason.contains(says), "{reason}");
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
            "experiment cannot be compared with control yet: no user has an event of purchase",
        );
        let mut values = question((300, 90), (300, 200));
        values.metrics[0].kind = Kind::Mean;
        let needed = "yet: purchase needs 100 users of each with an event";
        check(&values, State::Collecting, needed);
        let mut same = question((300, 300), (300, 300));
        same.metrics[0].kind = Kind::Mean;
        for totals in &mut same.metrics[0].totals[0] {
            (totals.sum, totals.sum_sq) = (300 * 5, 300 * 25);
        }
        let same_value = "yet: all users of a group have the same purchase";
        check(&same, State::Collecting, same_value);
        // With a planned end, that is all there will be.
        let mut over = question((100, 0), (100, 0));
        over.horizon = Some(PlannedEnd {
            at: EndAfter::Time(over.now_ms),
            wait_ms: 0,
            made: Vec::new(),
        });
        let nothing = "the planned end has come, and no difference is shown: experiment cannot be compared with control yet: no user";
        check(&over, State::Inconclusive, nothing);
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
        let signup = &mut both.metrics[1];
        (signup.name, signup.goal) = ("signup".to_owned(), Goal::Increase);
        signup.totals[0].swap(0, 1);
        let named = "careful, signup with experiment: 8 % to 24.5 % lower than with control, which is worse; experiment converts";
        check(&both, State::Winner, named);
    }

    #[test]
    fn groups_that_cannot_be_told_apart_are_named() {
        let of = |third: u64| {
            let mut three = question((20_000, 2000), (20_000, 2450));
            three.groups.push(GroupInput {
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

    #[test]
    fn numbers_read_well() {
        let found = [0.0, 0.0004, 0.081, 0.1, -0.153].map(percent);
        assert_eq!(found, ["0 %", "0.04 %", "8.1 %", "10 %", "15.3 %"]);
        let found = [0.0, 0.4031, -12.0, 0.000_123, 1234.5].map(amount);
        assert_eq!(found, ["0", "0.403", "12.00", "0.000123", "1234"]);
        let found = [60_000, 3_600_000, 604_800_000].map(duration);
        assert_eq!(found, ["1 minute", "1 hour", "7 days"]);
        assert_eq!([0.0, 0.0123].map(short_p), ["below 0.0001", "= 0.0123"]);
    }

    #[test]
    fn past_shows_its_day() {
        let shown = Shown {
            p: 0.001,
            at_ms: Some(1_777_800_000_000),
        };
        assert_eq!(when(shown), "on 3 May 2026 (p = 0.0010)");
        let unknown = Shown {
            at_ms: None,
            ..shown
        };
        assert_eq!(when(unknown), "at an earlier look (p = 0.0010)");
    }
}
