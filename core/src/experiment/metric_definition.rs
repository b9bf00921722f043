//! What a metric counts, in one line. Two definitions that count differently have different lines,
//! and a person can read what has changed.

use super::metric::{HeaderRule, Metric, MetricKind, MetricRule, RatioBase, Trigger};
use super::secret_names::{hidden, names_secret};

impl Metric {
    /// Such as `event purchase, kind mean, value amount, scale 2`: all that decides what is counted,
    /// and nothing of what is made of the counts.
    pub fn definition(&self) -> String {
        let mut parts = vec![self.trigger.text(), format!("kind {}", self.kind.name())];
        let unit = 10f64.powi(i32::from(self.scale));
        if let Some(value) = &self.value {
            parts.push(format!("value {value}"));
        }
        parts.extend(self.max.map(|max| format!("max {}", max as f64 / unit)));
        parts.extend(self.cap.map(|cap| format!("cap {}", cap as f64 / unit)));
        let per = self.per.as_ref().map(|per| match per {
            RatioBase::Requests => "per requests".to_owned(),
            RatioBase::Event(name) => format!("per event {name}"),
            RatioBase::Rule(rule) => format!("per {}", rule.text()),
        });
        parts.extend(per);
        if matches!(self.kind, MetricKind::Mean | MetricKind::Ratio) || self.value.is_some() {
            parts.push(format!("scale {}", self.scale));
        }
        parts.extend(self.within_ms.map(|ms| format!("within {}", duration(ms))));
        let covariate = self.covariate_ms;
        parts.extend(covariate.map(|ms| format!("covariate {}", duration(ms))));
        parts.join(", ")
    }
}

impl Trigger {
    /// What counts as an event, as a definition begins.
    fn text(&self) -> String {
        match self {
            Trigger::Event(name) => format!("event {name}"),
            Trigger::Rule(rule) => rule.text(),
            Trigger::Latency(quantile) => format!("{} of the first response", quantile.name()),
        }
    }
}

/// The rule or event of which a [definition](Metric::definition) says that it is counted.
pub fn trigger_of(definition: &str) -> &str {
    definition
        .split_once(", kind ")
        .map_or(definition, |(trigger, _)| trigger)
}

impl MetricRule {
    /// Such as `POST /checkout -> 200-299`, as definitions name it.
    pub fn text(&self) -> String {
        let MetricRule {
            method,
            path,
            status,
            header,
        } = self;
        let method = method.as_ref().map(ToString::to_string);
        let path = path.as_ref().map(ToString::to_string);
        let status = status.map(|status| format!("-> {}-{}", status.low, status.high));
        let header = header.as_ref().map(|HeaderRule { name, value }| {
            let value = value.as_ref();
            value.map_or(format!("with {name}"), |value| {
                match names_secret(name.as_str()) {
                    // The line is stored and shown.
                    true => format!("with {name}: {}", hidden(&value.to_string())),
                    false => format!("with {name}: {value}"),
                }
            })
        });
        let words: Vec<String> = [method, path, status, header]
            .into_iter()
            .flatten()
            .collect();
        words.join(" ")
    }
}

/// `7d`, `90m`: in the largest unit that it is a whole number of.
pub fn duration(ms: u64) -> String {
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
    ];
    let mut whole = units
        .iter()
        .filter(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit));
    whole.next().map_or(format!("{ms}ms"), |(unit, name)| {
        format!("{}{name}", ms / unit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_in_their_largest_unit() {
        let found = [604_800_000, 5_400_000, 1500, 0].map(duration);
        assert_eq!(found, ["7d", "90m", "1500ms", "0ms"]);
    }
}
