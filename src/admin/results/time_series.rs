//! Rates over time: what would have been said of all users who had come by then, from the counts
//! by hour; of a metric with a window, of those whose window is over now. PURE.

use crate::admin::format::rfc3339;
use crate::admin::results::evaluation::Evaluation;
use crate::admin::results::hours::{HOUR_MS, add};
use crate::admin::results::schema::{MomentResult, RateResult};
use crate::admin::results::stats_input::question;
use crate::config::plan::Plan;
use crate::experiment::Experiment;
use crate::stats;
use std::collections::BTreeMap;

/// At most about so many moments are looked at.
const MOMENTS_MAX: u64 = 48;
/// The hours between two moments: they divide a day, so that each day ends at a moment.
const STEPS: [u64; 8] = [1, 2, 3, 4, 6, 8, 12, 24];

/// By metric of the experiment, in order: its rates over time, oldest first. No moment is after
/// `now_ms`.
pub(crate) fn over_time(
    plan: &Plan,
    evaluation: &Evaluation,
    now_ms: u64,
) -> Vec<Vec<MomentResult>> {
    let Evaluation {
        placement,
        experiment,
        ..
    } = evaluation;
    let mut growing = evaluation.totals.clone();
    for epoch in &mut growing.epochs {
        epoch.groups.clear();
    }
    let mut hours = evaluation.hours.to_vec();
    hours.sort_by_key(|hour| hour.hour);
    let ends = hours.first().zip(hours.last());
    let Some((first, last)) = ends.map(|(first, last)| (first.hour, last.hour)) else {
        return vec![Vec::new(); experiment.metrics.len()];
    };
    let span = last - first + 1;
    let least = span.div_ceil(MOMENTS_MAX);
    let step = STEPS.into_iter().find(|step| *step >= least);
    let step = step.unwrap_or(least.div_ceil(24) * 24);
    let mut until = first + (step - 1 - first % step);
    let mut found = vec![Vec::new(); experiment.metrics.len()];
    let mut came = 0;
    loop {
        // The last one is the present.
        until = until.min(last);
        let before = came;
        came = hours.partition_point(|hour| hour.hour <= until);
        hours[before..came]
            .iter()
            .for_each(|hour| add(&mut growing, hour));
        let at_ms = now_ms.min((until + 1) * HOUR_MS);
        let asked = question(
            plan,
            experiment,
            placement,
            &growing,
            Some(&hours[..came]),
            now_ms,
        );
        for (of_metric, moment) in found.iter_mut().zip(moment(experiment, asked, at_ms)) {
            of_metric.push(moment);
        }
        if until == last {
            break;
        }
        until += step;
    }
    found
}

fn moment(experiment: &Experiment, mut question: stats::Question, at_ms: u64) -> Vec<MomentResult> {
    // The analyses of a planned end are made once, and stand until the next one.
    question.horizon = None;
    let judgement = stats::judge(&question);
    let shown = judgement.metrics.iter().take(experiment.metrics.len());
    let moment = shown.zip(&question.metrics).map(|(metric, asked)| {
        let users = |place: usize| asked.totals.iter().map(|of| of[place].users).sum();
        let groups = experiment.groups.iter().zip(&metric.groups).enumerate();
        let groups = groups.map(|(place, (group, judged))| {
            let rate = RateResult {
                users: users(place),
                rate: judged.rate,
                interval: judged.interval.low.zip(judged.interval.high),
                lift: judged.lift.and_then(|lift| lift.relative),
                lift_interval: judged
                    .lift
                    .and_then(|lift| lift.relative_interval.low.zip(lift.relative_interval.high)),
            };
            (group.name.to_string(), rate)
        });
        MomentResult {
            at: rfc3339(at_ms),
            at_ms,
            groups: groups.collect::<BTreeMap<_, _>>(),
        }
    });
    moment.collect()
}
