//! Sentences of the results table and the results page. PURE.

use crate::admin::format::{
    change, duration, minute, p_value, part, rounded_duration, seconds_between, share, thousands,
};
use crate::admin::results::schema::{
    ExperimentResult, FixedResult, GroupResult, GuardrailGroup, GuardrailResult, MetricGroup,
    MetricResult, Results, SampleRatio,
};
use crate::admin::view::metric_values::amount;

/// The label of the outcome of all data quality checks.
pub(crate) const DATA_QUALITY: &str = "Data quality";

/// Returns the state of an experiment in a word or two: its verdict or, while there is none, what it does.
pub(crate) fn state(experiment: &ExperimentResult) -> String {
    let verdict = &experiment.verdict;
    match (verdict.state, &verdict.group) {
        _ if experiment.status == "ended" && experiment.ends_at.is_none() => "ended".to_owned(),
        ("collecting", _) if experiment.status != "running" => experiment.status.replace('_', " "),
        ("winner" | "loser", Some(group)) => {
            format!("{}: {}", verdict.state, experiment.shown(group))
        }
        (state, _) => state.replace('_', " "),
    }
}

/// Returns the warnings of an experiment.
pub(crate) fn alarms(experiment: &ExperimentResult) -> Vec<String> {
    let mut said = experiment.warnings.clone();
    said.extend(parting(&experiment.sample_ratio));
    let dead = experiment.groups.iter().filter_map(|group| {
        let recently = group.recently.as_ref();
        let recently = recently.filter(|it| it.fails())?;
        Some(format!(
            "{}: {} of {} responses in this hour and the previous one failed: its upstream seems to be down",
            experiment.shown(&group.name), recently.failed, recently.answers
        ))
    });
    said.extend(dead);
    said.extend(silence(experiment).map(str::to_owned));
    for guardrail in &experiment.guardrails {
        let breached = guardrail.groups.iter();
        let breached = breached.filter(|group| group.breached == Some(true));
        said.extend(breached.map(|group| {
            format!(
                "guardrail {} is breached: {}",
                bound(guardrail),
                harm(experiment, group)
            )
        }));
    }
    said
}

/// Says that a running experiment gets no requests any more.
fn silence(experiment: &ExperimentResult) -> Option<&'static str> {
    let mut recently = experiment
        .groups
        .iter()
        .filter_map(|it| it.recently.as_ref());
    let is_silent = experiment.status == "running"
        && experiment.groups.iter().any(|group| group.requests > 0)
        && recently.all(|recently| recently.answers == 0);
    is_silent.then_some("no request was counted in this hour and the one before: check that requests arrive and that `match` still means them")
}

/// Returns the data quality checks of an experiment: the name of each, its outcome, and whether that is
/// bad.
pub(crate) fn health(
    results: &Results,
    experiment: &ExperimentResult,
) -> Vec<(&'static str, String, bool)> {
    let store = &results.store;
    let ratio = &experiment.sample_ratio;
    let sum = |count: fn(&GroupResult) -> u64| experiment.groups.iter().map(count).sum::<u64>();
    let (users, requests) = (sum(|it| it.users), sum(|it| it.requests));
    let fallbacks = sum(|it| it.fallbacks);
    let much = |count: u64, of: u64| count as f64 > MUCH * of as f64;
    let sizes = match (ratio.mismatch, ratio.p_value) {
        (true, _) => "mismatch: group sizes do not match their weights".to_owned(),
        (false, Some(p)) => format!("no mismatch (p = {})", p_value(p)),
        (false, None) => "no users yet".to_owned(),
    };
    let lost = store.dropped_events + store.damaged_events;
    let disagreeing = results.disagreeing();
    vec![
        ("sample ratio", sizes, ratio.mismatch),
        (
            "crossovers",
            crossovers(experiment, users),
            much(experiment.crossed_over, users),
        ),
        ("users", unit(experiment), false),
        ("not counted", not_counted(experiment), false),
        (
            "identities",
            identities(experiment),
            much(experiment.shared_devices, users),
        ),
        (
            "fallbacks",
            format!("{} of requests", part(fallbacks, requests + fallbacks)),
            much(fallbacks, requests + fallbacks),
        ),
        ("lost", format!("{} records", thousands(lost)), lost > 0),
        ("events", events(results, experiment), {
            let uncounted = &experiment.uncounted;
            let uncounted = uncounted.refused_ids + uncounted.dropped_waiting;
            let groups = experiment.metrics.iter().flat_map(|metric| &metric.groups);
            let counted: u64 = groups.map(|group| group.count).sum();
            much(uncounted, counted + uncounted)
        }),
        (
            "store",
            ingestion_lag(results),
            !store.healthy || store.lag_seconds > LATE_S,
        ),
        (
            "replicas",
            match disagreeing {
                0 if results.replicas.len() < 2 => "this one".to_owned(),
                0 => format!("{}, all agree", results.replicas.len()),
                some => format!("{some} of {} disagree", results.replicas.len()),
            },
            disagreeing > 0,
        ),
        (
            "overrides",
            match experiment.count_overrides {
                true => "visits with an override are counted, although they are not randomized",
                false => "visits with an override are not counted",
            }
            .to_owned(),
            experiment.count_overrides,
        ),
    ]
}

/// Describes what counts as a user, and whether new ones are admitted.
fn unit(experiment: &ExperimentResult) -> String {
    let unit = match &experiment.bucket_by {
        Some(unit) => format!("each {unit} counts as one user"),
        None => "each user ID".to_owned(),
    };
    match experiment.enrolment {
        "closed" => format!("{unit}; nobody new is admitted"),
        _ => unit,
    }
}

/// Describes users who were seen in a second group.
fn crossovers(experiment: &ExperimentResult, users: u64) -> String {
    // Those that are left out are not among the users.
    let left_out = experiment.crossover == "exclude";
    let of = users + if left_out { experiment.crossed_over } else { 0 };
    let share = part(experiment.crossed_over, of);
    match left_out {
        true => format!("{share} of users, who are left out"),
        false => format!("{share} of users, who count for the first group"),
    }
}

/// Describes who was served but is no user.
pub(crate) fn not_counted(experiment: &ExperimentResult) -> String {
    let once = match experiment.seen_once {
        0 => None,
        1 => Some("1 visitor seen once".to_owned()),
        many => Some(format!("{} visitors seen once", thousands(many))),
    };
    let reasons = experiment.not_counted.iter().map(|(why, &count)| {
        let of = match *why {
            "robot" => "by robots",
            "excluded" => "excluded by the file",
            "preflight" => "CORS preflights",
            "trace" => "TRACE",
            "head" => "HEAD",
            "prefetch" => "prefetched pages",
            "manifest" => "of manifests",
            "without_cookies" => "without cookies for parts of pages",
            other => other,
        };
        let requests = if count == 1 { "request" } else { "requests" };
        format!("{} {requests} {of}", thousands(count))
    });
    let all: Vec<String> = once.into_iter().chain(reasons).collect();
    match all.is_empty() {
        true => "nobody".to_owned(),
        false => all.join(", "),
    }
}

/// Describes the state of the store and the records that it does not have yet.
fn ingestion_lag(results: &Results) -> String {
    let waiting = thousands(results.store.lag_events);
    match results.store.healthy {
        true => format!("{waiting} records waiting for ingestion"),
        false => format!("unavailable; {waiting} records waiting for ingestion"),
    }
}

/// Describes the events that are not counted. Faults concern events of all experiments that were
/// reported to this process. Anybody can report such events, so faults alone are not bad.
fn events(results: &Results, experiment: &ExperimentResult) -> String {
    let uncounted = &experiment.uncounted;
    let mut all: Vec<String> = [
        (
            uncounted.refused_ids,
            "not counted because their users have too many IDs",
        ),
        (
            uncounted.dropped_waiting,
            "dropped while waiting for an exposure",
        ),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, why)| format!("{} {why}", thousands(count)))
    .collect();
    let faults = results
        .events
        .faults
        .iter()
        .filter(|(_, count)| **count > 0);
    let faults = faults.map(|(reason, count)| {
        let reason = reason.replace('_', " ");
        format!("{} {reason}", thousands(*count))
    });
    let faults: Vec<String> = faults.collect();
    if !faults.is_empty() {
        let faults = faults.join(", ");
        all.push(format!(
            "faults in events reported to this process: {faults}"
        ));
    }
    match all.is_empty() {
        true => "all counted".to_owned(),
        false => all.join("; "),
    }
}

/// Describes joined IDs and IDs that could not be joined.
fn identities(experiment: &ExperimentResult) -> String {
    let mut text = format!(
        "{} minted IDs count for the user who logged in",
        thousands(experiment.joined)
    );
    if experiment.shared_devices > 0 {
        text.push_str("; ");
        text.push_str(&shared_devices(experiment));
    }
    text
}

/// Describes users who share a device.
pub(crate) fn shared_devices(experiment: &ExperimentResult) -> String {
    format!(
        "{} further user IDs came from a device that had joined another user; each counts as its own user",
        thousands(experiment.shared_devices)
    )
}

/// A share above which a check is bad.
const MUCH: f64 = 0.01;
/// The ingestion lag above which a check is bad, in seconds.
const LATE_S: f64 = 30.0;

/// Returns the problems of the process and the store, which affect the results of all experiments.
pub(crate) fn process_problems(results: &Results) -> Vec<String> {
    let store = &results.store;
    let mut said = Vec::new();
    if !store.healthy {
        said.push(format!(
            "The {} store is unavailable. {} records are waiting for ingestion.",
            store.kind,
            thousands(store.lag_events)
        ));
    } else if store.lag_seconds > LATE_S {
        said.push(format!(
            "The results are {} old: {} records are waiting for ingestion.",
            duration(store.lag_seconds),
            thousands(store.lag_events)
        ));
    }
    said.extend(store.problems.iter().cloned());
    for (count, why) in [
        (store.dropped_events, "dropped because the journal was full"),
        (store.damaged_events, "damaged on disk"),
        (store.damaged_records, "damaged in the store"),
    ] {
        if count > 0 {
            said.push(format!(
                "{} records were {why}. The results do not contain them.",
                thousands(count)
            ));
        }
    }
    said.extend(results.frequent_ids.iter().map(|it| {
        format!(
            "One ID makes {:.0} % of the latest requests here: {}. It counts as one user. If it is a shared or default ID, or a robot, exclude it (`exclude: [ {{ ids: [ … ] }} ]`) or fix what sends it.",
            100.0 * it.share,
            it.id
        )
    }));
    if results.disagreeing() > 0 {
        said.push(format!(
            "{} of {} replicas serve other definitions than this one. Give all replicas the same routes file.",
            results.disagreeing(),
            results.replicas.len()
        ));
    }
    said
}

/// Checks of the process, which are in [`process_problems`].
const PROCESS_CHECKS: [&str; 3] = ["lost", "store", "replicas"];

/// Returns the bad data quality checks and the warnings of an experiment.
pub(crate) fn doubts(results: &Results, experiment: &ExperimentResult) -> Vec<String> {
    let health = health(results, experiment).into_iter();
    let bad = health.filter(|(what, _, bad)| *bad && !PROCESS_CHECKS.contains(what));
    let bad = bad.map(|(what, how, _)| format!("{what}: {how}"));
    bad.chain(alarms(experiment)).collect()
}

/// Returns notes on a metric: the users it covers, and the rates that are compared.
pub(crate) fn notes(metric: &MetricResult) -> Vec<String> {
    let waiting = |group: &MetricGroup| Some((group.users, group.users_waiting?));
    let counts: Vec<(u64, u64)> = metric.groups.iter().filter_map(waiting).collect();
    let (over, waiting) = counts
        .iter()
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let mut notes = Vec::new();
    if waiting > 0 {
        notes.push(format!(
            "{} covers the {} users whose conversion window (`within`) is over; that of {} is still open",
            metric.name,
            thousands(over),
            thousands(waiting)
        ));
    }
    if let Some(cap) = metric.cap {
        let cut = metric.groups.iter().filter_map(|group| {
            let capped = group.capped.filter(|capped| capped.users > 0)?;
            Some(format!(
                "{} of users and {} of the sum with {}",
                share(capped.share_of_users?),
                share(capped.share_of_sum?),
                group.name
            ))
        });
        let cut: Vec<String> = cut.collect();
        if !cut.is_empty() {
            notes.push(format!(
                "{} counts at most {cap} of each user's sum; this cuts {}",
                metric.name,
                cut.join(", ")
            ));
        }
    }
    notes.extend(covariate(metric));
    for group in &metric.groups {
        let lift = group.lift.as_ref();
        if let Some(averaged) = lift.and_then(|lift| lift.averaged.as_ref()) {
            notes.push(format!(
                "the weights changed, so the lift of {} compares {} within each epoch: {} with {}, {} with control",
                group.name,
                metric.name,
                amount(metric, averaged.group),
                group.name,
                amount(metric, averaged.control)
            ));
        }
    }
    notes
}

/// What a covariate gains.
fn covariate(metric: &MetricResult) -> Option<String> {
    let covariate = metric.covariate.as_ref()?;
    let (name, time) = (&metric.name, &covariate.time);
    let known = thousands(covariate.users_known);
    Some(
        match (covariate.variance_reduction, covariate.effective_users) {
            (Some(reduction), Some(users)) => format!(
                "{name} is adjusted by what {known} users did in the {time} before their first exposure: that takes {} of the variance away, as {} users would without it",
                share(reduction),
                thousands(users)
            ),
            _ => format!(
                "{name} is not adjusted yet: {known} users are known from the {time} before their first exposure, and 100 are needed"
            ),
        },
    )
}

/// Groups and phases that are over.
pub(crate) fn past(experiment: &ExperimentResult) -> Vec<String> {
    let ended = experiment.ended_groups.iter().map(|group| {
        format!(
            "{} ended: it had {} users, who are no part of any rate here",
            group.name,
            thousands(group.users)
        )
    });
    let phases = experiment.phases.iter().map(|phase| {
        let users: u64 = phase.groups.iter().map(|group| group.users).sum();
        let since = phase.started_at.as_deref().map(minute);
        let verdict = match phase.verdict.state {
            // Its reason says what it waits for, and nothing will come.
            "collecting" => "it had no verdict".to_owned(),
            state => format!(
                "its verdict: {}, {}",
                state.replace('_', " "),
                phase.verdict.reason
            ),
        };
        format!(
            "phase {} ({} users{}) is over, because {}; {verdict}",
            phase.phase,
            thousands(users),
            since.map_or(String::new(), |since| format!(", from {since}")),
            phase.ended_because,
        )
    });
    ended.chain(phases).collect()
}

/// Returns the Bayesian estimates of a metric, a sentence per group.
pub(crate) fn bayesian(metric: &MetricResult) -> Vec<String> {
    let groups = metric.groups.iter();
    let told = groups.filter_map(|group| {
        let (chance, loss) = (group.chance_to_beat_control?, group.expected_loss?);
        Some(format!(
            "{} beats control with a probability of {:.1} %; its expected loss is {} of {}",
            group.name,
            100.0 * chance,
            p_value(loss),
            metric.name
        ))
    });
    told.collect()
}

fn parting(sample_ratio: &SampleRatio) -> Option<String> {
    let parting = sample_ratio.parting.as_ref()?;
    let epochs: Vec<String> = parting.epochs.iter().map(u32::to_string).collect();
    let epochs = match &epochs[..] {
        [] => String::new(),
        epochs => format!(" (epochs at fault: {})", epochs.join(", ")),
    };
    Some(format!(
        "the sample ratio mismatch arises {}{epochs}",
        parting.sentence
    ))
}

/// Describes the limit of a guardrail, such as `errors (at most +1 %)`.
pub(crate) fn bound(guardrail: &GuardrailResult) -> String {
    let over = guardrail
        .over_ms
        .map_or(String::new(), |ms| format!(" over {ms} ms"));
    format!(
        "{}{over} (at most +{})",
        guardrail.name,
        share(guardrail.max_increase)
    )
}

/// Describes the state of a guardrail in one group.
pub(crate) fn harm(experiment: &ExperimentResult, group: &GuardrailGroup) -> String {
    let name = experiment.shown(&group.name);
    let mut said = format!("{name}: {} of {} users", group.harmed, group.users);
    match (group.breached, group.dead) {
        (_, Some(true)) => said.push_str(", more than half of them"),
        (Some(true), _) => said.push_str(", harm shown"),
        (Some(false), _) => said.push_str(", no harm shown"),
        (None, _) => {}
    }
    if let Some(least) = group.at_least.filter(|least| *least > 0.0) {
        said.push_str(&format!(
            ", at least {} more than with control",
            share(least)
        ));
    }
    if let Some(p) = group.p_value {
        said.push_str(&format!(" (p = {})", p_value(p)));
    }
    said
}

/// Whether the experiment runs without a verdict.
pub(crate) fn is_open(experiment: &ExperimentResult) -> bool {
    experiment.status == "running" && experiment.verdict.state == "collecting"
}

/// Returns the key figures of an experiment: the label and the value of each.
pub(crate) fn facts(
    results: &Results,
    experiment: &ExperimentResult,
) -> Vec<(&'static str, String)> {
    let users: u64 = experiment.groups.iter().map(|group| group.users).sum();
    let doubts = match doubts(results, experiment).len() {
        0 => "OK".to_owned(),
        1 => "1 problem".to_owned(),
        some => format!("{some} problems"),
    };
    let mut facts = vec![(DATA_QUALITY, doubts), ("Users", thousands(users))];
    if let Some(since) = experiment.started_at.as_deref() {
        let ran = ran(results, experiment);
        let ran = ran.map_or(String::new(), |it| format!(" ({})", rounded_duration(it)));
        facts.push(("Started", format!("{}{ran}", minute(since))));
    }
    if let Some(ended) = experiment.ended_at.as_deref() {
        let label = match experiment.ends_at.as_deref() == Some(ended) {
            true => "Ended",
            false => "Left the file",
        };
        facts.push((label, minute(ended)));
    }
    facts.extend(decided(experiment).map(|decided| ("Decided", decided)));
    let planning = experiment.planning.as_ref();
    let left = planning.filter(|_| is_open(experiment) && users > 0);
    if let Some(planning) = left {
        let left = match planning.seconds_left {
            None => "not known yet".to_owned(),
            Some(0.0) => "none: planned sample size reached".to_owned(),
            Some(seconds) => format!("about {}", duration(seconds)),
        };
        facts.push(("Time left", left));
    }
    facts
}

/// Returns for how many seconds an experiment has run, or ran until it ended or was decided.
pub(crate) fn ran(results: &Results, experiment: &ExperimentResult) -> Option<f64> {
    let decided = experiment.decided.as_ref();
    let decided = decided.filter(|it| is_in_effect(it.status));
    let stops = [
        decided.and_then(|it| it.at.as_deref()),
        experiment.ended_at.as_deref(),
    ];
    // Times in UTC are in the order of their texts.
    let stop = stops
        .into_iter()
        .flatten()
        .min()
        .or(results.generated_at.as_deref());
    seconds_between(experiment.started_at.as_deref()?, stop?)
}

fn is_in_effect(status: &str) -> bool {
    matches!(status, "paused" | "promoted" | "rolled_back")
}

/// The decision in effect: what, by whom, and when. None is while the experiment does what the file says.
pub(crate) fn decided(experiment: &ExperimentResult) -> Option<String> {
    let decided = experiment.decided.as_ref();
    let decided = decided.filter(|it| is_in_effect(it.status))?;
    let group = decided
        .group
        .as_ref()
        .filter(|_| decided.status == "promoted");
    let group = group.map_or(String::new(), |group| {
        format!(" {}", experiment.shown(group))
    });
    let status = decided.status.replace('_', " ");
    let at = decided
        .at
        .as_deref()
        .map_or(String::new(), |at| format!(", {}", minute(at)));
    Some(format!("{status}{group} by {}{at}", decided.by))
}

/// Formats a fixed-horizon lift with its interval and p-value.
pub(crate) fn fixed(fixed: Option<&FixedResult>) -> String {
    let Some(fixed) = fixed else {
        return "-".to_owned();
    };
    let lift = fixed.relative.map_or("?".to_owned(), change);
    let interval = fixed
        .relative_interval
        .map_or(String::new(), |(low, high)| {
            format!(" [{}, {}]", change(low), change(high))
        });
    let p = fixed
        .p_value
        .map_or(String::new(), |p| format!(", p = {}", p_value(p)));
    format!("{lift}{interval}{p}")
}
