//! Gathers the results: totals from the store, what the statistics say of them.

use crate::admin::clock::now_ms;
use crate::admin::decisions::decide::status;
use crate::admin::format::rfc3339;
use crate::admin::results::evaluator::{self, Evaluator};
use crate::admin::results::experiment::{ended, ended_phase, in_effect_except, past_phase, result};
use crate::admin::results::history;
use crate::admin::results::metric::{ONCE, View};
use crate::admin::results::mirror;
use crate::admin::results::missed;
use crate::admin::results::ramp_progress::{RampContext, ramp_progress};
use crate::admin::results::schema::{
    ActResult, DecidedResult, EventState, ExperimentResult, FrequentIdResult, ReplicaResult,
    Results, StoreState,
};
use crate::admin::results::time_series;
use crate::config::plan::Plan;
use crate::config::{self, declaration};
use crate::experiment::record::DeclaredExperiment;
use crate::experiment::{Experiment, Lifecycle};
use crate::store::decisions::{AuditEntry, BY_FILE, StandingDecisions, StoredDefinitions};
use crate::store::phases::{self, StoredPhase};
use crate::store::{Replica, Store, StoreError};
use crate::telemetry::Telemetry;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// How many decisions results show.
const ACTS_SHOWN: usize = 20;
/// How many entries of its history an experiment shows.
const HISTORY_SHOWN: usize = 20;
/// So many decisions are read for that.
const ACTS_READ: usize = 200;
/// So many loaded files are read for that.
const FILES_READ: usize = 50;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResultsRequest<'a> {
    /// The one experiment; all without.
    pub only: Option<&'a str>,
    /// At any look, or at a single one.
    pub view: View,
    /// Whether rates over time, too.
    pub over_time: bool,
}

/// Gathers the results.
pub(crate) async fn gather(
    plan: &Plan,
    store: &dyn Store,
    evaluator: &Evaluator,
    telemetry: &Telemetry,
    replica: &str,
    wish: ResultsRequest<'_>,
) -> Result<Results, StoreError> {
    let now_ms = now_ms();
    let wanted = |name: &str| wish.only.is_none_or(|only| only == name);
    // Before the totals: a lag of zero then means that they hold all that was answered.
    let mut state = store_state(store, telemetry, now_ms);
    state.dropped_events += store.dropped().await?;
    state.damaged_events += store.damaged().await?;
    let context = ramp_context(plan, store, telemetry).await?;
    let mut experiments = Vec::new();
    // Of all experiments, one that cannot be read is left out, and reported.
    let mut unknown = Vec::new();
    let mut leave_out = |name: &str, error: StoreError| {
        if wish.only.is_some() || !error.is_of_one_experiment() {
            return Err(error);
        }
        let error = error.with_advice();
        unknown.push(format!("the results of {name} cannot be read: {error}"));
        Ok(())
    };
    let past = PastExperiments::read(plan, store).await?;
    let (of, wishes) = ((store, evaluator), (wish, &context));
    let in_file = plan.experiments.iter().filter(|own| !own.has_left_file);
    for experiment in in_file.filter(|experiment| wanted(&experiment.name)) {
        match one(plan, experiment, of, wishes, now_ms).await {
            Ok(mut shown) => {
                let scheduled = experiment.schedule.at(now_ms);
                shown.decided = past.decided(experiment, scheduled);
                add_down(plan, experiment, evaluator, &mut shown);
                shown
                    .warnings
                    .extend(missed::warnings(plan, experiment, telemetry));
                shown.mirror = mirror::result(plan, experiment, telemetry);
                let failing = shown.mirror.as_ref().and_then(mirror::warning);
                shown.warnings.extend(failing);
                experiments.push(shown);
            }
            Err(error) => leave_out(&experiment.name, error)?,
        }
    }
    for (name, numbers) in past.names().filter(|(name, _)| wanted(name)) {
        match past.shown(name, numbers, of, wishes, now_ms).await {
            Ok(shown) => experiments.push(shown),
            Err(error) => leave_out(name, error)?,
        }
    }
    state.problems.extend(unknown);
    let acts = add_history(store, &mut experiments).await?;
    Ok(Results {
        generated_at: rfc3339(now_ms),
        view: (wish.view == View::Fixed).then_some(ONCE),
        store: state,
        events: EventState {
            faults: telemetry.event_faults(),
            unused: telemetry.unused_events(),
        },
        frequent_ids: frequent_ids(telemetry),
        replicas: replicas(plan, store, replica, now_ms).await?,
        experiments,
        acts: latest(acts, wish),
    })
}

/// Experiments that are no longer in the file.
struct PastExperiments<'a> {
    plan: &'a Plan,
    /// By name: the numbers of the phases that have counts.
    phases: BTreeMap<String, Vec<u32>>,
    definitions: StoredDefinitions,
    decisions: StandingDecisions,
}

impl<'a> PastExperiments<'a> {
    async fn read(plan: &'a Plan, store: &dyn Store) -> Result<PastExperiments<'a>, StoreError> {
        let mut phases = by_name(store.experiments().await?);
        let is_in_file = |name: &str| {
            let index = plan.experiment_named(name);
            index.is_some_and(|index| !plan.experiment(index).has_left_file)
        };
        phases.retain(|name, _| !is_in_file(name));
        for experiment in plan.experiments.iter().filter(|own| own.has_left_file) {
            phases.entry(experiment.name.to_string()).or_default();
        }
        Ok(PastExperiments {
            plan,
            phases,
            definitions: store.definitions().await?,
            decisions: store.decisions().await?,
        })
    }

    fn names(&self) -> impl Iterator<Item = (&str, &[u32])> {
        let phases = self.phases.iter();
        phases.map(|(name, numbers)| (&**name, &**numbers))
    }

    /// The plan that an experiment had, as far as it says what is counted.
    fn plan_of(&self, name: &str) -> Option<Plan> {
        let restored = config::restore_counted(&self.definitions.get(name)?.text);
        restored
            .inspect_err(|error| tracing::debug!("the definition of {name}: {error}"))
            .ok()
            .filter(|before| before.experiments.len() == 1)
    }

    /// The decision about an experiment, which does what its schedule says while it runs.
    fn decided(&self, experiment: &Experiment, scheduled: Lifecycle) -> Option<DecidedResult> {
        let definition = self.definitions.get(&*experiment.name);
        let decision = self.decisions.get(&*experiment.name);
        let decision = decision.filter(|it| it.salt == *experiment.salt);
        let is_later = definition
            .zip(decision)
            .is_some_and(|(definition, decision)| definition.precedes(decision));
        if experiment.ended_by_file && !is_later {
            let winner = &experiment.groups[experiment.winner?.0];
            return Some(DecidedResult {
                status: Lifecycle::Promoted.name(),
                group: Some(winner.name.to_string()),
                by: BY_FILE.to_owned(),
                at: definition.and_then(|it| rfc3339(it.at_ms)),
            });
        }
        decision.map(|decision| DecidedResult {
            status: status(decision.state, scheduled),
            group: decision.group.clone(),
            by: decision.by.clone(),
            at: rfc3339(decision.at_ms),
        })
    }

    /// The results of an experiment, as far as its definition is known.
    async fn shown(
        &self,
        name: &str,
        numbers: &[u32],
        of: (&dyn Store, &Evaluator),
        wish: (ResultsRequest<'_>, &RampContext),
        now_ms: u64,
    ) -> Result<ExperimentResult, StoreError> {
        match self.plan_of(name) {
            Some(before) => self.one(&before, of, wish, now_ms).await,
            None => of_ended(of.0, name, numbers).await,
        }
    }

    /// The results of an experiment by the plan that it had.
    async fn one(
        &self,
        before: &Plan,
        (store, evaluator): (&dyn Store, &Evaluator),
        wish: (ResultsRequest<'_>, &RampContext),
        now_ms: u64,
    ) -> Result<ExperimentResult, StoreError> {
        let experiment = &before.experiments[0];
        let name = &*experiment.name;
        let mut shown = one(before, experiment, (store, evaluator), wish, now_ms).await?;
        shown.status = "ended";
        let definition = self.definitions.get(name);
        shown.ended_at = definition.and_then(|it| it.left_ms).and_then(rfc3339);
        shown.decided = self.decided(experiment, Lifecycle::Running);
        let promoted = shown.decided.as_ref();
        let promoted = promoted.filter(|it| it.status == Lifecycle::Promoted.name());
        if let Some(promoted) = promoted {
            shown.winner.clone_from(&promoted.group);
        }
        shown.in_effect = false;
        if let Some(index) = self.plan.experiment_named(name) {
            let kept = self.plan.experiment(index);
            shown.winner = kept.winner.map(|it| kept.groups[it.0].name.to_string());
            shown.in_effect = !self.plan.is_unreachable(index);
        }
        shown.in_effect_except = match shown.in_effect {
            true => in_effect_except(self.plan, name),
            false => Vec::new(),
        };
        Ok(shown)
    }
}

/// What decides about ramps, if there are some.
async fn ramp_context(
    plan: &Plan,
    store: &dyn Store,
    telemetry: &Telemetry,
) -> Result<RampContext, StoreError> {
    let has_ramp = plan.experiments.iter().any(|it| it.ramp.is_some());
    Ok(match has_ramp {
        false => RampContext::default(),
        true => RampContext {
            decisions: store.decisions().await?,
            health: evaluator::data_health(plan, store, telemetry).await?,
        },
    })
}

/// Notes groups whose upstreams are down.
fn add_down(
    plan: &Plan,
    experiment: &Experiment,
    evaluator: &Evaluator,
    shown: &mut ExperimentResult,
) {
    let groups = experiment.groups.iter().zip(&mut shown.groups);
    for ((group, result), down) in groups.zip(evaluator.down(plan, experiment)) {
        if let Some(down) = &down {
            shown.warnings.push(format!("{}: {down}", group.shown()));
        }
        result.down = down;
    }
}

/// Gives experiments the latest entries of their history. Returns the latest decisions.
async fn add_history(
    store: &dyn Store,
    experiments: &mut [ExperimentResult],
) -> Result<Vec<AuditEntry>, StoreError> {
    let acts = store.audit_log(ACTS_READ).await?;
    let files = store.loaded_files(FILES_READ).await?;
    let history = history::merged(acts.clone(), files);
    for experiment in experiments {
        let own = history
            .iter()
            .filter(|entry| entry.concerns(&experiment.name));
        experiment.history = own.take(HISTORY_SHOWN).cloned().collect();
    }
    Ok(acts)
}

/// Shares are rounded, so that the results change only where a share does.
fn frequent_ids(telemetry: &Telemetry) -> Vec<FrequentIdResult> {
    let frequent = telemetry.frequent_ids().into_iter();
    let result = frequent.map(|it| FrequentIdResult {
        id: it.shown,
        share: (it.share * 100.0).round() / 100.0,
    });
    result.collect()
}

/// At most so many earlier phases are shown.
const PHASES_SHOWN: usize = 10;

/// An experiment of the plan: its phase of now, and earlier ones.
async fn one(
    plan: &Plan,
    experiment: &Experiment,
    (store, evaluator): (&dyn Store, &Evaluator),
    (wish, context): (ResultsRequest<'_>, &RampContext),
    now_ms: u64,
) -> Result<ExperimentResult, StoreError> {
    let declared = declaration::experiment(plan, experiment);
    let metrics = declaration::metrics(plan);
    let located = phases::locate(store, &declared, &metrics).await?;
    let (number, phases) = (located.placement.phase, located.phases.clone());
    let evaluation = evaluator.evaluate(plan, experiment, located, store).await?;
    let mut shown = result(plan, &evaluation, wish.view);
    if experiment.ramp.is_some() {
        let down = evaluator.down(plan, experiment);
        shown.ramp = ramp_progress(&evaluation, context, &down);
    }
    if wish.over_time {
        let over_time = time_series::over_time(plan, &evaluation, now_ms);
        for (metric, over_time) in shown.metrics.iter_mut().zip(over_time) {
            metric.over_time = over_time;
        }
    }
    let others = phases
        .all
        .iter()
        .rev()
        .filter(|(other, _)| **other != number);
    for (&other, phase) in others.take(PHASES_SHOWN) {
        let located = phases::of_phase(store, &declared, &metrics, other, &phases).await?;
        let mut past = experiment.clone();
        if let Some(salt) = &phase.salt {
            past.salt = salt.as_str().into();
        }
        let evaluation = evaluator.evaluate(plan, &past, located, store).await?;
        let because = ended_because(phase, &declared);
        shown
            .phases
            .push(past_phase(plan, &evaluation, wish.view, because));
    }
    Ok(shown)
}

/// Why a phase is over.
fn ended_because(phase: &StoredPhase, declared: &DeclaredExperiment) -> String {
    match phase.moved(declared) {
        Some((group, began, now)) if phase.salt == declared.salt => {
            let named = |upstream: &str| match upstream {
                "" => "no upstream".to_owned(),
                upstream => format!("the upstream {upstream}"),
            };
            format!("{group} had {}, and has {} now", named(began), named(now))
        }
        _ => "users are split by another salt now".to_owned(),
    }
}

/// The keys of phases, by experiment: the numbers of its phases.
fn by_name(keys: Vec<String>) -> BTreeMap<String, Vec<u32>> {
    let mut all = BTreeMap::<String, Vec<u32>>::new();
    for key in keys {
        let (name, number) = phases::of_key(&key);
        all.entry(name.to_owned()).or_default().push(number);
    }
    all
}

/// An experiment that is no longer in the file: its last phase, and earlier ones.
async fn of_ended(
    store: &dyn Store,
    name: &str,
    numbers: &[u32],
) -> Result<ExperimentResult, StoreError> {
    let last = numbers.iter().copied().max().unwrap_or(1);
    let totals = store.totals(&phases::key(name, last)).await?;
    let mut shown = ended(name.to_owned(), last, &totals);
    let mut earlier: Vec<u32> = numbers.iter().copied().filter(|it| *it != last).collect();
    earlier.sort_unstable_by_key(|number| Reverse(*number));
    for number in earlier.into_iter().take(PHASES_SHOWN) {
        let totals = store.totals(&phases::key(name, number)).await?;
        shown.phases.push(ended_phase(number, &totals));
    }
    Ok(shown)
}

/// The latest decisions, of the experiment asked for.
fn latest(acts: Vec<AuditEntry>, wish: ResultsRequest<'_>) -> Vec<ActResult> {
    // A reload that loaded a file is an entry of that file in the history.
    let acts = acts.into_iter().filter(|act| !act.is_of_loaded_file());
    let wanted = acts.filter(|act| wish.only.is_none_or(|only| only == act.experiment));
    wanted.take(ACTS_SHOWN).map(ActResult::from).collect()
}

impl From<AuditEntry> for ActResult {
    fn from(act: AuditEntry) -> ActResult {
        ActResult {
            source: act.decided_by().word(),
            experiment: act.experiment,
            action: act.action,
            from: act.from,
            to: act.to,
            at: rfc3339(act.at_ms),
            at_ms: act.at_ms,
            by: act.by,
            reason: act.reason,
        }
    }
}

/// All processes that give their facts to this store, and whether they serve the same as this one.
async fn replicas(
    plan: &Plan,
    store: &dyn Store,
    this: &str,
    now_ms: u64,
) -> Result<Vec<ReplicaResult>, StoreError> {
    let definition = declaration::definition(plan);
    let shown = |replica: Replica| ReplicaResult {
        this: replica.id == this,
        // This one may not have announced its last reload yet.
        agrees: replica.id == this || replica.definition == definition,
        definition: match replica.id == this {
            true => definition.clone(),
            false => replica.definition,
        },
        seen_at: rfc3339(replica.seen_ms),
        version: replica.version,
        id: replica.id,
    };
    let all = store.replicas(now_ms).await?;
    Ok(all.into_iter().map(shown).collect())
}

fn store_state(store: &dyn Store, telemetry: &Telemetry, now_ms: u64) -> StoreState {
    let ingestion = &telemetry.ingestion;
    let lag = telemetry.lag(now_ms);
    let text =
        |slot: &std::sync::Mutex<Option<String>>| slot.lock().ok().and_then(|text| text.clone());
    StoreState {
        kind: store.kind(),
        healthy: !ingestion.failing.load(Ordering::Relaxed),
        error: text(&ingestion.error),
        lag_events: lag.records,
        lag_seconds: lag.waited_ms as f64 / 1000.0,
        dropped_events: ingestion.dropped_unreported.load(Ordering::Relaxed),
        damaged_events: ingestion.lost_unreported.load(Ordering::Relaxed),
        damaged_records: store.damaged_records(),
        problems: telemetry.problems.all(),
        reload_error: text(&telemetry.reload.error),
    }
}
