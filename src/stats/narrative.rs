//! The sentences of a verdict.

use super::balance::SampleRatio;
use super::guardrail::Guardrail;
use super::judgement::{Lift, MetricJudgement, Side};
use super::question::{Goal, Kind, Metric, Question, Role, Shown};
use super::timing::due_ms;

/// What sentences about the primary metric are made of.
pub struct Narrative<'a> {
    /// The whole experiment.
    pub question: &'a Question,
    /// The place of control.
    pub control: usize,
    /// The primary metric.
    pub metric: &'a Metric,
    /// What is known of it.
    pub judged: &'a MetricJudgement,
    /// Users of all groups.
    pub users: u64,
}

impl Narrative<'_> {
    /// An effect that is shown.
    pub fn shown(&self, group: usize, lift: &Lift) -> String {
        let range = self.range(group, lift);
        format!("{range} ({}, however often you look)", self.confidence())
    }

    /// A winner: first what it harms, and then from whom it cannot be told.
    pub fn winner(
        &self,
        group: usize,
        lift: &Lift,
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
            let lift = other.judged.groups[group].lift.unwrap_or_default();
            let range = other.range(group, &lift);
            said.push_str(&format!("careful, {range}, which is worse; "));
        }
        said.push_str(&self.shown(group, lift));
        if !tied.is_empty() {
            let names: Vec<&str> = tied.iter().map(|&group| self.name(group)).collect();
            let names = names.join(" or ");
            said.push_str(&format!("; it cannot be told from {names} yet"));
        }
        said
    }

    /// An end without the planned effect.
    pub fn no_planned_lift(&self) -> String {
        format!(
            "no group has the planned lift of {} of {} or more ({}, however often you look)",
            percent(self.metric.detect),
            self.metric.name,
            percent(1.0 - self.question.beta)
        )
    }

    /// No difference beyond the margin.
    pub fn same(&self) -> String {
        format!(
            "no group differs from {} by more than {} ({}, however often you look)",
            self.name(self.control),
            percent(self.metric.margin),
            self.confidence()
        )
    }

    /// What would be said, were it not too early.
    pub fn early(&self, said: &str) -> String {
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
    pub fn basis(&self) -> String {
        format!("{}; no sample ratio mismatch seen", users_text(self.users))
    }

    /// What is known while nothing is shown.
    pub fn so_far(&self, groups: &[(usize, Lift)]) -> String {
        let each: Vec<String> = groups
            .iter()
            .map(|(group, lift)| self.range(*group, lift))
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
            (None, None) => format!("{name} cannot be compared with {control} yet"),
        }
    }
}

/// Group sizes that do not match the weights.
pub fn mismatch(sample_ratio: &SampleRatio, users: u64) -> String {
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

/// A guardrail that the first of `names` breaches; the second is control.
pub fn harm(
    guarded: &str,
    [name, control]: [&String; 2],
    guardrail: &Guardrail,
    tolerated: f64,
) -> String {
    match guardrail.at_least.filter(|_| !guardrail.dead) {
        Some(least) => format!(
            "{name} does harm: {guarded} at least {} higher than with {control}, and {} was tolerated",
            percent(least),
            percent(tolerated)
        ),
        None => format!("{name} does harm: more than half of its users had {guarded}"),
    }
}

/// What earlier analyses showed and this one does not, of the primary metric and of guardrails;
/// empty where there is nothing.
pub fn past(question: &Question, control: usize, judged: &[MetricJudgement]) -> String {
    let primary = super::judge::primary_of(question);
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
pub fn users_text(users: u64) -> String {
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
    use super::*;

    #[test]
    fn numbers_read_well() {
        let found = [0.0, 0.0004, 0.081, 0.1, -0.153].map(percent);
        assert_eq!(found, ["0 %", "0.04 %", "8.1 %", "10 %", "15.3 %"]);
        let found = [0.0, 0.4031, -12.0, 0.000_123, 1234.5].map(amount);
        assert_eq!(found, ["0", "0.403", "12.00", "0.000123", "1234"]);
        assert_eq!([0, 999, 40_112].map(thousands), ["0", "999", "40,112"]);
        assert_eq!([7, 99, 124_718].map(two_digits), [7, 99, 130_000]);
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
