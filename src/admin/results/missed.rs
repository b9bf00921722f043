//! Warnings of what arrives and is not counted: responses that nearly match a metric, and events that no
//! metric uses.

use crate::config::plan::Plan;
use crate::experiment::Experiment;
use crate::experiment::metric::{Metric, MetricRule, NearMiss, Trigger};
use crate::telemetry::{RuleSum, Telemetry};

/// The fewest responses that are worth a warning: single ones are mistakes of users.
const FEW: u64 = 5;
/// How many events are named.
const EVENTS_SHOWN: usize = 5;
/// Stands between what was found and what to do.
pub(crate) const FIX: &str = "; ";

/// The warnings of an experiment that runs. They are of this process, since its start.
pub(crate) fn warnings(plan: &Plan, experiment: &Experiment, telemetry: &Telemetry) -> Vec<String> {
    if !experiment.is_running() {
        return Vec::new();
    }
    let metrics = experiment.metrics.iter();
    let metrics = metrics.map(|index| &plan.metrics[index.0]);
    let missed =
        metrics.filter_map(|metric| missed(metric, &telemetry.metric_rule(&metric.rule_key())));
    let unused = telemetry.unused_events();
    let mut unused: Vec<_> = unused.into_iter().collect();
    unused.sort_by(|(one, a), (other, b)| b.cmp(a).then(one.cmp(other)));
    let unused = unused.into_iter().take(EVENTS_SHOWN).map(|(name, count)| {
        format!(
            "event `{name}` arrived {count} times and no metric uses it{FIX}write `event: {name}` at a metric, or correct the name"
        )
    });
    missed.chain(unused).collect()
}

/// Warns where a rule matches nothing of what it means, or where more successes miss it than match: a form
/// that is sent twice with an error is none.
fn missed(metric: &Metric, sum: &RuleSum) -> Option<String> {
    let Trigger::Rule(rule) = &metric.trigger else {
        return None;
    };
    let all: u64 = sum.misses.values().sum();
    let is_success = |code: u16| match NearMiss::of_code(code) {
        NearMiss::Header => true,
        NearMiss::Status(status) => status < 400,
    };
    let successes = sum.misses.iter().filter(|(code, _)| is_success(**code));
    let successes: u64 = successes.map(|(_, count)| count).sum();
    if all < FEW || (sum.matched > 0 && successes.max(FEW) <= sum.matched.max(FEW)) {
        return None;
    }
    let (code, count) = sum.misses.iter().max_by_key(|(_, count)| **count)?;
    let miss = NearMiss::of_code(*code);
    Some(format!(
        "{count} responses {} to {} did not match {}: metric {} counted {} of {}{}",
        with(miss, rule),
        rule.request_text(),
        wanted(miss, rule),
        metric.name,
        sum.matched,
        sum.matched + all,
        fix(miss)
    ))
}

fn with(miss: NearMiss, rule: &MetricRule) -> String {
    match (miss, &rule.header) {
        (NearMiss::Status(status), _) => format!("with {status}"),
        (NearMiss::Header, Some(header)) => format!("without a sound `{}`", header.name),
        (NearMiss::Header, None) => String::new(),
    }
}

fn wanted(miss: NearMiss, rule: &MetricRule) -> String {
    match (miss, rule.status) {
        (NearMiss::Status(_), Some(status)) if status.high == status.low + 99 => {
            format!("{}xx", status.low / 100)
        }
        (NearMiss::Status(_), Some(status)) if status.high == status.low => status.low.to_string(),
        (NearMiss::Status(_), Some(status)) => format!("{}-{}", status.low, status.high),
        (NearMiss::Status(_) | NearMiss::Header, _) => "the header of the rule".to_owned(),
    }
}

fn fix(miss: NearMiss) -> String {
    match miss {
        NearMiss::Status(status) if status < 400 => {
            format!("{FIX}if these are successes, write `-> 200-399` or `-> {status}`")
        }
        NearMiss::Status(_) => {
            format!("{FIX}if these are successes, correct the status of the rule")
        }
        NearMiss::Header => format!("{FIX}correct the header of the rule, or the site"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::collections::BTreeMap;
    use std::path::Path;

    #[test]
    fn rules_that_miss_what_they_mean_are_told() {
        let file = "upstreams: { a: \"http://a.test\" }\nmetrics: { buy: \"POST /buy -> 2xx\", add: { on: { path: /add, header: \"X-Ok: yes\" } } }\n";
        let plan = config::parse(file, Path::new("routes.yaml"), &|_: &str| None).unwrap();
        let check = |metric: usize, matched: u64, misses: &[(u16, u64)], expected: Option<&str>| {
            let misses: BTreeMap<u16, u64> = misses.iter().copied().collect();
            let found = missed(&plan.metrics[metric], &RuleSum { matched, misses });
            assert_eq!(found.as_deref(), expected, "{matched}");
        };
        check(0, 0, &[], None);
        check(0, 0, &[(303, 4)], None);
        let all = "412 responses with 303 to POST /buy did not match 2xx: metric buy counted 0 of 415; if these are successes, write `-> 200-399` or `-> 303`";
        check(0, 0, &[(303, 412), (500, 3)], Some(all));
        let errors = "50 responses with 422 to POST /buy did not match 2xx: metric buy counted 0 of 50; if these are successes, correct the status of the rule";
        check(0, 0, &[(422, 50)], Some(errors));
        check(0, 20, &[(422, 50)], None);
        check(0, 20, &[(303, 20)], None);
        let more = "21 responses with 303 to POST /buy did not match 2xx: metric buy counted 20 of 41; if these are successes, write `-> 200-399` or `-> 303`";
        check(0, 20, &[(303, 21)], Some(more));
        let header = "9 responses without a sound `x-ok` to /add did not match the header of the rule: metric add counted 0 of 9; correct the header of the rule, or the site";
        check(1, 0, &[(1, 9)], Some(header));
    }
}
