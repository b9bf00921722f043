//! Looks at experiments: at those that people ask for, and now and then at all, so that the
//! smallest p-value is kept whether anybody looks or not.

use crate::admin::clock::now_ms;
use crate::admin::decisions::act_on::act;
use crate::admin::decisions::allocate::allocate;
use crate::admin::decisions::ramp::{self, DataHealth, RampGround, RampMove};
use crate::admin::results::findings::Findings;
use crate::admin::results::recent_traffic::Recent;
use crate::admin::results::sequential_state;
use crate::admin::results::stats_input::{has_windows, question};
use crate::admin::results::upstream_health::down;
use crate::config::declaration;
use crate::config::plan::Plan;
use crate::experiment::lifecycle::OnAlarm;
use crate::experiment::{Crossover, Experiment};
use crate::notify::Board;
use crate::stats::{self, Finding, Judgement, State, Verdict};
use crate::store::apply_semantics::CROSSED_OVER;
use crate::store::phases::{self, Located, Placement};
use crate::store::running_minima::RunningMinima;
use crate::store::{ExperimentTotals, HourTotals, Store, StoreError, chain};
use crate::tasks::{Phase, PhaseWatch};
use crate::telemetry::{Counted, Telemetry};
use crate::upstream::HealthRegistry;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

pub use crate::admin::results::evaluation::Evaluation;

/// How often every experiment is looked at.
const INTERVAL: Duration = Duration::from_secs(5);
/// What a decision by rule rests on was there for so long, and in two rounds.
const CONFIRMED_AFTER: Duration = Duration::from_secs(4);
/// How long results wait for a batch of reported events that is partly counted.
const COUNTED_WITHIN: Duration = Duration::from_secs(2);
/// How long the last look may take: a stop does not wait for a store that hangs.
const LAST_LOOK: Duration = Duration::from_secs(2);
/// How often the hours of a phase are read for webhooks: they grow in number.
const HOURS_EVERY: Duration = Duration::from_secs(30);

/// What was counted when an experiment is looked at.
#[derive(Debug)]
pub struct CountsSnapshot {
    /// In all.
    pub totals: ExperimentTotals,
    /// By hour, where users have windows of time to convert in.
    pub hours: Option<Arc<Vec<HourTotals>>>,
    /// Where that stands.
    pub placement: Placement,
    /// Whether reported batches are in it as a whole.
    pub counted: Counted,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
}

type Hours = (ExperimentTotals, Arc<Vec<HourTotals>>);

/// All looks of this process, and what they found. A look of a person counts as one: what it
/// found is kept in the store at the next tick.
#[derive(Debug, Default)]
pub struct Evaluator {
    telemetry: Arc<Telemetry>,
    /// Wakes the task that applies decisions.
    decided: Arc<Notify>,
    /// What webhooks are told.
    board: Arc<Board>,
    /// The health of endpoints, as this process sees it.
    health_registry: Arc<HealthRegistry>,
    /// By phase's key: what is kept of it, here and in the store. It also outlives a store that loses
    /// its last seconds.
    known: Mutex<HashMap<String, RunningMinima>>,
    /// By phase's key: what was counted when its hours were read, and the hours.
    hours: Mutex<HashMap<String, Hours>>,
}

impl Evaluator {
    /// Looks of the process with these numbers, whose decisions are applied once `decided` is notified, and which
    /// sets on the board what it finds.
    pub fn new(
        telemetry: Arc<Telemetry>,
        (decided, board): (Arc<Notify>, Arc<Board>),
        health_registry: Arc<HealthRegistry>,
    ) -> Evaluator {
        Evaluator {
            telemetry,
            decided,
            board,
            health_registry,
            ..Evaluator::default()
        }
    }

    /// Why no endpoint of a group's upstream gets requests, for each group of which none does.
    pub fn down(&self, plan: &Plan, experiment: &Experiment) -> Vec<Option<String>> {
        let groups = experiment.groups.iter();
        let down = groups.map(|group| down(plan, group, &self.health_registry));
        down.collect()
    }

    /// Looks at a phase of an experiment now.
    pub async fn evaluate(
        &self,
        plan: &Plan,
        experiment: &Experiment,
        located: Located,
        store: &dyn Store,
    ) -> Result<Evaluation, StoreError> {
        let Located {
            placement, kept, ..
        } = located;
        let waited_until = Instant::now() + COUNTED_WITHIN;
        let (totals, counted) = loop {
            let (totals, counted) = self.totals(&placement.key, store).await?;
            if counted != Counted::Partly || Instant::now() >= waited_until {
                break (totals, counted);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let hours = self.hours(&placement.key, &totals, store).await?;
        let counts = CountsSnapshot {
            totals,
            placement,
            hours: Some(hours),
            counted,
            at_ms: now_ms(),
        };
        let mut evaluation = self.judge(plan, experiment, counts, &kept);
        evaluation.recent = recent(experiment, &evaluation, &evaluation.hours);
        Ok(evaluation)
    }

    /// What was counted, and whether batches of reported events are in it as a whole.
    async fn totals(
        &self,
        key: &str,
        store: &dyn Store,
    ) -> Result<(ExperimentTotals, Counted), StoreError> {
        let imports = &self.telemetry.imports;
        let (begun, caught_up) = (imports.begun(), &self.telemetry.ingestion.caught_up_ms);
        let counted = imports.counted(caught_up.load(Ordering::Relaxed), now_ms());
        let totals = store.totals(key).await?;
        // A batch that began in between may be partly in it.
        let is_same = imports.begun() == begun;
        Ok((totals, if is_same { counted } else { Counted::Partly }))
    }

    /// The hours grow in number: they are read only when something was counted since.
    async fn hours(
        &self,
        key: &str,
        totals: &ExperimentTotals,
        store: &dyn Store,
    ) -> Result<Arc<Vec<HourTotals>>, StoreError> {
        let all = || self.hours.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all()
            .get(key)
            .filter(|(before, _)| before == totals)
            .map(|(_, hours)| Arc::clone(hours));
        if let Some(hours) = known {
            return Ok(hours);
        }
        let hours = Arc::new(store.hours(key).await?);
        all().insert(key.to_owned(), (totals.clone(), Arc::clone(&hours)));
        Ok(hours)
    }

    /// The same of counts at hand: what `kept` says, and what this process found before, is known.
    pub fn judge(
        &self,
        plan: &Plan,
        experiment: &Experiment,
        counts: CountsSnapshot,
        kept: &RunningMinima,
    ) -> Evaluation {
        let CountsSnapshot {
            mut totals,
            mut hours,
            placement,
            counted,
            at_ms,
        } = counts;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(placement.key.clone()).or_default();
        if totals.epochs.is_empty() {
            // Nothing was counted, or the counts were deleted to begin anew.
            *known = RunningMinima::default();
        }
        known.merge(kept);
        // Version 0.1 counted users who were split by other salts under the same name.
        let all = totals.epochs.len();
        totals
            .epochs
            .retain(|epoch| sequential_state::belongs(experiment, epoch.definition.digest, known));
        let earlier = all - totals.epochs.len();
        if experiment.crossover == Crossover::Exclude {
            totals.leave_out(CROSSED_OVER);
            hours = hours.map(|hours| without(hours, CROSSED_OVER));
        }
        let begun = sequential_state::as_begun(plan, experiment, known);
        let by_hour = hours.as_ref().map(|hours| hours.as_slice());
        let mut question = question(plan, &begun, &placement, &totals, by_hour, at_ms);
        sequential_state::recall(&begun, &placement, &mut question, known);
        question.is_partial = counted == Counted::Partly;
        let mut judgement = stats::judge(&question);
        if let Some(metric) = sequential_state::gone_primary(plan, experiment, known) {
            withhold(&begun, &mut judgement, metric);
        }
        if counted == Counted::Wholly {
            let found = sequential_state::found(&begun, &placement, &question, &judgement);
            known.merge(&found);
        }
        let mut warnings = sequential_state::disagreements(plan, experiment, &placement, known);
        if earlier > 0 {
            warnings.push(format!(
                "{}: counts of {earlier} epoch(s) with another salt are kept, and not shown here",
                experiment.name
            ));
        }
        Evaluation {
            warnings,
            totals,
            question,
            judgement,
            recent: Recent::default(),
            hours: hours.unwrap_or_default(),
            at_ms,
            placement,
            experiment: begun,
        }
    }

    /// What this process knows beyond what the store has.
    fn news(&self, key: &str, kept: &RunningMinima) -> RunningMinima {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(key);
        known.map_or_else(RunningMinima::default, |known| known.beyond(kept))
    }

    /// Analyzes every experiment of the plan periodically, and keeps the running minima. After
    /// [`Phase::Concluding`] has begun, analyzes all of them once more.
    pub async fn run(
        self: Arc<Self>,
        mut plans: watch::Receiver<Arc<Plan>>,
        store: Arc<dyn Store>,
        mut phase: PhaseWatch,
    ) {
        let mut rounds = EvaluationLoop::default();
        loop {
            let plan = Arc::clone(&plans.borrow_and_update());
            let round = async {
                rounds.round(&self, &plan, &*store).await;
                tokio::select! {
                    () = tokio::time::sleep(rounds.until_next(now_ms())) => {}
                    () = ramp_begins(&mut plans) => {}
                }
            };
            // A round that is dropped half-way has kept the minima that it found until then.
            tokio::select! {
                () = round => {}
                () = phase.reached(Phase::Concluding) => break,
            }
        }
        let plan = Arc::clone(&plans.borrow());
        let last = rounds.round(&self, &plan, &*store);
        if tokio::time::timeout(LAST_LOOK, last).await.is_err() {
            tracing::debug!("no last look: the store does not answer");
        }
    }
}

/// Waits for a plan with a running ramp: its first step should not wait for the next round.
async fn ramp_begins(plans: &mut watch::Receiver<Arc<Plan>>) {
    while plans.changed().await.is_ok() {
        let plan = Arc::clone(&plans.borrow_and_update());
        let mut experiments = plan.experiments.iter();
        if experiments.any(|it| it.ramp.is_some() && it.is_running()) {
            return;
        }
    }
    // The sender is gone, and the process stops.
    std::future::pending().await
}

/// Gives no verdict by the primary metric, which is gone. Data that cannot be believed and harm stay
/// what they are.
fn withhold(experiment: &Experiment, judgement: &mut Judgement, metric: String) {
    let does_harm = |group: usize| {
        let mut judged = judgement.metrics.iter().map(|metric| &metric.groups[group]);
        judged.any(|group| group.guardrail.is_some_and(|guardrail| guardrail.breached))
    };
    let mut others = (0..experiment.groups.len()).filter(|it| *it != experiment.control.0);
    if judgement.verdict.state != State::Invalid && !others.all(does_harm) {
        judgement.verdict = Verdict::collecting(Finding::PrimaryGone { metric });
    }
}

/// Leaves out the users of a segment.
fn without(mut hours: Arc<Vec<HourTotals>>, segment: &str) -> Arc<Vec<HourTotals>> {
    let all = Arc::make_mut(&mut hours).iter_mut();
    all.for_each(|hour| hour.totals.leave_out(segment));
    hours
}

/// What happened lately, in the epochs that are shown.
fn recent(experiment: &Experiment, evaluation: &Evaluation, hours: &[HourTotals]) -> Recent {
    let groups: Vec<&str> = experiment.groups.iter().map(|group| &*group.name).collect();
    let shown = |hour: &&HourTotals| {
        let mut epochs = evaluation.totals.epochs.iter();
        epochs.any(|epoch| epoch.definition.digest == hour.epoch)
    };
    Recent::of(
        hours.iter().filter(shown),
        &groups,
        evaluation.question.started_at_ms,
        evaluation.at_ms,
    )
}

/// A decision that a verdict asks for.
type Due = (State, Option<usize>);

/// What the last round saw: what did not change is not judged again.
#[derive(Default)]
struct EvaluationLoop {
    /// By phase's key.
    totals: HashMap<String, ExperimentTotals>,
    /// By experiment's name: what its verdict asks for, where the file says that it is acted on.
    due: HashMap<String, (Due, Instant)>,
    /// By experiment's name: when the next step of its ramp is due, in Unix milliseconds.
    steps: HashMap<String, u64>,
    /// By experiment's name: since when its ramp has a grave alarm.
    alarms: HashMap<String, Instant>,
    /// What webhooks are told.
    findings: Findings,
    /// By phase's key: when its hours were read for webhooks, and the hours.
    hours: HashMap<String, (Instant, Arc<Vec<HourTotals>>)>,
    digest: u64,
    warned: BTreeSet<String>,
}

impl EvaluationLoop {
    async fn round(&mut self, evaluator: &Evaluator, plan: &Plan, store: &dyn Store) {
        if self.digest != plan.digest {
            self.digest = plan.digest;
            self.totals.clear();
            self.due.clear();
            self.steps.clear();
            self.hours.clear();
        }
        self.findings.begin(plan, &evaluator.board);
        for experiment in plan.experiments.iter().filter(|own| !own.has_left_file) {
            if let Err(error) = self.one(evaluator, plan, experiment, store).await {
                // Ingestion logs it as an error, and the next round tries again.
                tracing::debug!(experiment = %experiment.name, "no look: {}", chain(&error));
                if !error.is_of_one_experiment() {
                    return;
                }
            }
        }
        evaluator.telemetry.analyses.fetch_add(1, Ordering::Relaxed);
    }

    async fn one(
        &mut self,
        evaluator: &Evaluator,
        plan: &Plan,
        experiment: &Experiment,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        let declared = declaration::experiment(plan, experiment);
        let Located {
            placement, kept, ..
        } = phases::locate(store, &declared, &declaration::metrics(plan)).await?;
        let key = placement.key.clone();
        let (totals, counted) = evaluator.totals(&key, store).await?;
        if counted == Counted::Wholly {
            let counts = (&placement, &totals);
            allocate(plan, experiment, counts, store, now_ms()).await?;
            self.widen(evaluator, plan, experiment, store).await?;
        }
        // A verdict may also come by time alone.
        let has_windows = has_windows(plan, experiment);
        let acts = experiment.act_on.winner || experiment.act_on.loser;
        let by_time = acts || has_windows || experiment.horizon.is_some();
        let by_time = by_time || self.findings.is_open(experiment);
        let late = self.watch(evaluator, plan, (experiment, &key, &totals), store);
        let late = late.await?;
        if counted != Counted::Partly && (by_time || self.totals.get(&key) != Some(&totals)) {
            let hours = match has_windows {
                true => Some(evaluator.hours(&key, &totals, store).await?),
                false => None,
            };
            let counts = CountsSnapshot {
                totals: totals.clone(),
                hours,
                placement,
                counted,
                at_ms: now_ms(),
            };
            let mut evaluation = evaluator.judge(plan, experiment, counts, &kept);
            evaluation.hours = late;
            self.follow(evaluator, plan, evaluation, counted, store)
                .await?;
            // Otherwise they are looked at again, and what is found is kept.
            if counted == Counted::Wholly {
                self.totals.insert(key.clone(), totals);
            }
        }
        self.findings.tell(experiment, &evaluator.board, now_ms());
        let news = evaluator.news(&key, &kept);
        if !news.is_empty() {
            store.merge_minima(&key, &news).await?;
        }
        Ok(())
    }

    /// Logs, tells and does what follows from an analysis.
    async fn follow(
        &mut self,
        evaluator: &Evaluator,
        plan: &Plan,
        mut evaluation: Evaluation,
        counted: Counted,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        for warning in std::mem::take(&mut evaluation.warnings) {
            if self.warned.insert(warning.clone()) {
                tracing::warn!("{warning}");
            }
        }
        if counted == Counted::Wholly && !plan.webhooks.is_empty() {
            evaluation.recent = recent(&evaluation.experiment, &evaluation, &evaluation.hours);
            self.findings.judge(plan, &evaluation);
            let (experiment, board) = (&evaluation.experiment, &evaluator.board);
            self.findings.tell(experiment, board, now_ms());
        }
        let verdict = &evaluation.judgement.verdict;
        if self.is_confirmed(&evaluation.experiment, verdict, counted) {
            act(plan, &evaluation, store, &evaluator.board).await?;
        }
        Ok(())
    }

    /// Notes for webhooks whether data came. Returns the hours of the phase, at most half a minute old; none
    /// without webhooks.
    async fn watch(
        &mut self,
        evaluator: &Evaluator,
        plan: &Plan,
        (experiment, key, totals): (&Experiment, &str, &ExperimentTotals),
        store: &dyn Store,
    ) -> Result<Arc<Vec<HourTotals>>, StoreError> {
        if plan.webhooks.is_empty() {
            self.hours.clear();
            return Ok(Arc::default());
        }
        let known = self.hours.get(key).cloned();
        let hours = match known {
            Some((read, hours)) if read.elapsed() < HOURS_EVERY => hours,
            known => {
                let hours = evaluator.hours(key, totals, store).await?;
                if known.is_some_and(|(_, before)| !Arc::ptr_eq(&before, &hours)) {
                    // The last analysis saw earlier hours.
                    self.totals.remove(key);
                }
                let read = (Instant::now(), Arc::clone(&hours));
                self.hours.insert(key.to_owned(), read);
                hours
            }
        };
        let findings = &mut self.findings;
        findings.count(experiment, key, totals, &hours, now_ms());
        Ok(hours)
    }
}

impl EvaluationLoop {
    /// Whether what a verdict asks for was asked for by the round before, too: events that another
    /// replica is given may be partly counted at one of them.
    fn is_confirmed(
        &mut self,
        experiment: &Experiment,
        verdict: &Verdict,
        counted: Counted,
    ) -> bool {
        let name = &*experiment.name;
        let due = (verdict.state, verdict.group);
        if counted != Counted::Wholly || !matches!(due.0, State::Winner | State::Loser) {
            self.due.remove(name);
            return false;
        }
        let (_, since) = *self
            .due
            .entry(name.to_owned())
            .and_modify(|known| {
                if known.0 != due {
                    *known = (due, Instant::now());
                }
            })
            .or_insert((due, Instant::now()));
        since.elapsed() >= CONFIRMED_AFTER
    }

    /// Takes the next step of a ramp if it is due and nothing gives an alarm.
    async fn widen(
        &mut self,
        evaluator: &Evaluator,
        plan: &Plan,
        experiment: &Experiment,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        let name = experiment.name.to_string();
        self.steps.remove(&name);
        let Some(ramp) = experiment.ramp.as_ref().filter(|_| experiment.is_running()) else {
            return Ok(());
        };
        let decisions = store.decisions().await?;
        let position = ramp::standing(&decisions, experiment).and_then(|own| own.ramp.as_ref());
        if position.is_none() && experiment.traffic != ramp.steps[0].share {
            // The store has lost the step that is served, and gets it again.
            return Ok(());
        }
        let next = ramp::next_move(ramp, position, now_ms());
        if let RampMove::WaitUntil(due_ms) = next {
            self.steps.insert(name.clone(), due_ms);
        }
        let asks = matches!(next, RampMove::Widen(..)) || ramp.on_alarm == OnAlarm::Rollback;
        let (mut alarm, mut evaluation) = (None, None);
        if asks {
            let health = data_health(plan, store, &evaluator.telemetry).await?;
            let declared = declaration::experiment(plan, experiment);
            let metrics = declaration::metrics(plan);
            let located = phases::locate(store, &declared, &metrics).await?;
            let found = evaluator.evaluate(plan, experiment, located, store).await?;
            alarm = found.alarm(health, &evaluator.down(plan, experiment));
            evaluation = Some(found);
        }
        let since = match alarm.as_ref().filter(|alarm| alarm.is_grave) {
            None => self.alarms.remove(&name),
            Some(_) => Some(*self.alarms.entry(name).or_insert_with(Instant::now)),
        };
        let confirmed = since.filter(|since| since.elapsed() >= CONFIRMED_AFTER);
        if let (Some(since), Some(evaluation)) = (confirmed, &evaluation) {
            self.findings.act(plan, evaluation, since, &evaluator.board);
        }
        let ground = RampGround {
            alarm: alarm.as_ref(),
            is_confirmed: confirmed.is_some(),
            has_users: evaluation.is_some_and(|it| it.question.users() > 0),
        };
        let known = (store, &decisions);
        if ramp::advance(plan, experiment, ramp, known, ground).await? {
            evaluator.decided.notify_one();
        }
        Ok(())
    }

    /// Returns the time to the next round: a step of a ramp does not wait for others.
    fn until_next(&self, now_ms: u64) -> Duration {
        let due_ms = self.steps.values().min();
        let left_ms = due_ms.map(|due_ms| due_ms.saturating_sub(now_ms) + 1);
        left_ms.map_or(INTERVAL, |left_ms| {
            INTERVAL.min(Duration::from_millis(left_ms))
        })
    }
}

/// Whether the counts of all replicas can be believed.
pub async fn data_health(
    plan: &Plan,
    store: &dyn Store,
    telemetry: &Telemetry,
) -> Result<DataHealth, StoreError> {
    let now_ms = now_ms();
    let definition = declaration::definition(plan);
    let replicas = store.replicas(now_ms).await?;
    let others = replicas.iter().filter(|it| it.definition != definition);
    Ok(DataHealth {
        behind_ms: telemetry.lag(now_ms).waited_ms,
        disagreeing: others.count(),
    })
}
