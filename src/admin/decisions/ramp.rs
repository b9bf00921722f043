//! The ramp of an experiment: it admits more users step by step, while nothing gives an alarm. The store keeps
//! each step as a decision, so that replicas agree and a restart goes on where it was.

use crate::admin::clock::now_ms;
use crate::admin::decisions::action::Action;
use crate::admin::decisions::decide::{Decision, Undecided, decide};
use crate::admin::decisions::record::record_decision;
use crate::admin::results::recent_traffic::Recent;
use crate::config::plan::Plan;
use crate::experiment::Experiment;
use crate::experiment::lifecycle::{OnAlarm, Ramp};
use crate::stats::{Judgement, Question};
use crate::store::decisions::{
    AuditEntry, DecidedBy, DecidedState, RampPosition, StandingDecision, StandingDecisions,
};
use crate::store::{ExperimentTotals, Store, StoreError};

/// Who decides.
const BY: &str = "watershed (ramp)";
/// Counts that are further behind hold a ramp, in milliseconds.
const BEHIND_MAX_MS: u64 = 60_000;
/// So many crossovers, and a larger share of users, hold a ramp.
const CROSSOVERS_MIN: u64 = 10;
const CROSSOVERS_SHARE: f64 = 0.01;

/// Whether the counts of all replicas can be believed, besides what they say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataHealth {
    /// How far the counts of this process are behind, in milliseconds.
    pub behind_ms: u64,
    /// How many replicas serve other definitions.
    pub disagreeing: usize,
}

/// Why a ramp does not widen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// A clause that a person understands.
    pub reason: String,
    /// Whether users may be harmed, or the groups cannot be compared: then `on_alarm: rollback` rolls back.
    pub is_grave: bool,
}

/// What is to be done about a ramp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RampMove {
    /// The first step begins.
    Begin,
    /// The file has other steps now: this one goes on from the share that is admitted.
    Follow(usize),
    /// Nothing, until this time (in Unix milliseconds).
    WaitUntil(u64),
    /// This step is due since that time (in Unix milliseconds).
    Widen(usize, u64),
    /// Nothing: the last step stays.
    Stay,
}

/// Returns what is to be done, alarms aside.
pub(crate) fn next_move(ramp: &Ramp, position: Option<&RampPosition>, now_ms: u64) -> RampMove {
    let Some(position) = position else {
        return RampMove::Begin;
    };
    let place = ramp.step_of(position.share);
    let step = &ramp.steps[place];
    if (step.share.get() - position.share).abs() > 1e-9 {
        return RampMove::Follow(place);
    }
    match step.for_ms.filter(|_| place + 1 < ramp.steps.len()) {
        None => RampMove::Stay,
        Some(for_ms) => match position.since_ms.saturating_add(for_ms) {
            due_ms if now_ms < due_ms => RampMove::WaitUntil(due_ms),
            due_ms => RampMove::Widen(place + 1, due_ms),
        },
    }
}

/// What was found of an experiment.
#[derive(Debug)]
pub(crate) struct RampEvidence<'a> {
    /// The experiment.
    pub experiment: &'a Experiment,
    /// What was counted.
    pub totals: &'a ExperimentTotals,
    /// What was asked of the statistics.
    pub question: &'a Question,
    /// What they answered.
    pub judgement: &'a Judgement,
    /// What happened lately.
    pub recent: &'a Recent,
    /// By group: why its upstream is down, if it is.
    pub down: &'a [Option<String>],
}

/// Returns the first alarm of an experiment.
pub(crate) fn alarm(evidence: &RampEvidence<'_>, health: DataHealth) -> Option<Alarm> {
    let RampEvidence {
        experiment,
        totals,
        question,
        judgement,
        recent,
        down,
    } = evidence;
    let grave = |reason: String| Alarm {
        reason,
        is_grave: true,
    };
    if judgement.sample_ratio.mismatch {
        let reason = "sample ratio mismatch: group sizes do not match their weights";
        return Some(grave(reason.to_owned()));
    }
    let names: Vec<&str> = experiment.groups.iter().map(|group| &*group.name).collect();
    for (metric, judged) in question.metrics.iter().zip(&judgement.metrics) {
        let breached = |place: &usize| {
            let guardrail = judged.groups[*place].guardrail;
            guardrail.is_some_and(|guardrail| guardrail.breached)
        };
        if let Some(place) = (0..names.len()).find(breached) {
            let reason = format!("guardrail {} is breached in {}", metric.name, names[place]);
            return Some(grave(reason));
        }
    }
    let is_dead = |place: &usize| recent.is_dead(*place, experiment.control.0);
    if let Some(place) = (0..names.len()).find(is_dead) {
        let name = names[place];
        return Some(grave(format!("most responses of {name} failed lately")));
    }
    let fails = (0..names.len()).find(|place| recent.mostly_fails(*place));
    let groups = || totals.epochs.iter().flat_map(|epoch| epoch.groups.values());
    let users: u64 = groups().map(|group| group.users).sum();
    let crossed: u64 = groups().map(|group| group.crossed_over).sum();
    let mut down = names
        .iter()
        .zip(*down)
        .filter_map(|(name, why)| Some((name, why.as_ref()?)));
    let reason = if let Some((name, why)) = down.next() {
        format!("{name}: {why}")
    } else if let Some(place) = fails {
        let recent = &recent.groups[place];
        format!(
            "{} of the last {} responses of {} failed",
            recent.failed, recent.answers, names[place]
        )
    } else if crossed >= CROSSOVERS_MIN && crossed as f64 > CROSSOVERS_SHARE * users as f64 {
        format!("{crossed} of {users} users were exposed to more than one group")
    } else if health.behind_ms > BEHIND_MAX_MS {
        format!("counts are {} s behind", health.behind_ms / 1000)
    } else if health.disagreeing == 1 {
        "a replica serves another file".to_owned()
    } else if health.disagreeing > 0 {
        format!("{} replicas serve another file", health.disagreeing)
    } else {
        return None;
    };
    Some(Alarm {
        reason,
        is_grave: false,
    })
}

/// Returns the standing decision about this experiment as it is defined now.
pub(crate) fn standing<'a>(
    decisions: &'a StandingDecisions,
    experiment: &Experiment,
) -> Option<&'a StandingDecision> {
    let decision = decisions.get(&*experiment.name);
    decision.filter(|decision| decision.salt == *experiment.salt)
}

/// What a ramp rests on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RampGround<'a> {
    /// The alarm, if there is one.
    pub alarm: Option<&'a Alarm>,
    /// Whether it was there before, too.
    pub is_confirmed: bool,
    /// Whether any user was counted.
    pub has_users: bool,
}

/// Takes the next step of a ramp, or rolls the experiment back, if it is time. Returns whether a decision was
/// made here.
pub(crate) async fn advance(
    plan: &Plan,
    experiment: &Experiment,
    ramp: &Ramp,
    (store, decisions): (&dyn Store, &StandingDecisions),
    ground: RampGround<'_>,
) -> Result<bool, StoreError> {
    let RampGround {
        alarm,
        is_confirmed,
        has_users,
    } = ground;
    let own = standing(decisions, experiment);
    if own.is_some_and(|own| own.state != DecidedState::Running) {
        return Ok(false);
    }
    let position = own.and_then(|own| own.ramp.as_ref());
    if let Some(alarm) = alarm.filter(|alarm| alarm.is_grave && position.is_some())
        && ramp.on_alarm == OnAlarm::Rollback
    {
        return match is_confirmed {
            true => roll_back(plan, experiment, store, alarm).await,
            false => Ok(false),
        };
    }
    let now_ms = now_ms();
    let (place, reason) = match next_move(ramp, position, now_ms) {
        RampMove::Begin => (0, "the ramp begins".to_owned()),
        RampMove::Follow(place) => (place, "the file has other steps now".to_owned()),
        RampMove::Widen(place, _) if alarm.is_none() => {
            let lasted = ramp.steps[place - 1].text();
            let found = match has_users {
                true => "guardrails, sample ratio and data are sound",
                false => "no user was counted, so nothing could be checked",
            };
            let (step, steps) = (place + 1, ramp.steps.len());
            let reason = format!("{lasted} is over; {found} (step {step} of {steps})");
            (place, reason)
        }
        RampMove::Widen(..) | RampMove::WaitUntil(_) | RampMove::Stay => return Ok(false),
    };
    let before = decisions.get(&*experiment.name);
    let before_ms = before.map_or(0, |it| it.at_ms);
    let step = &ramp.steps[place];
    let next = StandingDecision {
        ramp: Some(RampPosition::begin(step.share.get(), now_ms)),
        ..StandingDecision::running(&experiment.salt, before, now_ms, BY)
    };
    let entry = AuditEntry {
        experiment: experiment.name.to_string(),
        action: "ramp".to_owned(),
        from: position.map_or("0%".to_owned(), RampPosition::percent),
        to: step.text(),
        at_ms: next.at_ms,
        by: BY.to_owned(),
        reason: Some(reason),
        source: Some(DecidedBy::Rule),
    };
    // If another replica was quicker, its step is taken, once.
    record_decision(store, before_ms, &next, &entry).await
}

async fn roll_back(
    plan: &Plan,
    experiment: &Experiment,
    store: &dyn Store,
    alarm: &Alarm,
) -> Result<bool, StoreError> {
    let decision = Decision {
        action: Action::Rollback,
        group: None,
        by: BY,
        reason: Some(&alarm.reason),
        source: DecidedBy::Rule,
    };
    match decide(plan, store, &experiment.name, &decision).await {
        Ok(_) => Ok(true),
        Err(Undecided::Away(error)) => Err(error),
        // Another replica was quicker, most often.
        Err(Undecided::Refused(_, why)) => {
            tracing::debug!("{}: not rolled back: {why}", experiment.name);
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::assign::Share;
    use crate::experiment::lifecycle::RampStep;

    fn ramp(steps: &[(f64, Option<u64>)]) -> Ramp {
        let step = |&(percent, for_ms): &(f64, Option<u64>)| RampStep {
            share: Share::new(percent / 100.0).unwrap(),
            for_ms,
            layer: None,
        };
        Ramp {
            steps: steps.iter().map(step).collect(),
            on_alarm: OnAlarm::Hold,
        }
    }

    #[test]
    fn steps_follow_each_other_by_time() {
        let ramp = ramp(&[(1.0, Some(1000)), (10.0, Some(5000)), (50.0, None)]);
        assert_eq!(next_move(&ramp, None, 0), RampMove::Begin);
        let first = RampPosition::begin(0.01, 100);
        for (now_ms, expected) in [
            (100, RampMove::WaitUntil(1100)),
            (1099, RampMove::WaitUntil(1100)),
            (1100, RampMove::Widen(1, 1100)),
            // After a long absence one step at a time.
            (1_000_000, RampMove::Widen(1, 1100)),
        ] {
            assert_eq!(next_move(&ramp, Some(&first), now_ms), expected, "{now_ms}");
        }
        let last = RampPosition::begin(0.5, 100);
        assert_eq!(next_move(&ramp, Some(&last), u64::MAX), RampMove::Stay);
        let other = RampPosition::begin(0.05, 100);
        assert_eq!(next_move(&ramp, Some(&other), 200), RampMove::Follow(1));
    }

    #[test]
    fn time_of_a_step_stops_while_the_experiment_is_paused() {
        let ramp = ramp(&[(1.0, Some(1000)), (50.0, None)]);
        let paused = RampPosition::begin(0.01, 100).when(false, 700);
        // Paused again, as by a rollback.
        let paused = paused.when(false, 5000);
        let resumed = paused.when(true, 10_000);
        let wait = RampMove::WaitUntil(10_400);
        assert_eq!(next_move(&ramp, Some(&resumed), 10_000), wait);
        assert_eq!((resumed.began_ms, resumed.ran_ms), (100, None));
    }
}
