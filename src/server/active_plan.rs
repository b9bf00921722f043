//! The plan that is served: the plan of the file, changed by decisions, with the secrets that sign.

use super::secrets::Secrets;
use crate::admin::clock::now_ms;
#[cfg(feature = "dns")]
use crate::config::plan::{EndpointAddress, EndpointName};
use crate::config::plan::{Plan, ResolvedNames};
use crate::experiment::assign::Weight;
use crate::experiment::{Experiment, Group, GroupIndex, Lifecycle};
use crate::journal;
use crate::store::decisions::{DecidedState, StandingDecision, StandingDecisions};
use crate::store::{Store, chain};
use crate::telemetry::Problems;
#[cfg(feature = "dns")]
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
#[cfg(feature = "dns")]
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often decisions are read from the store.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long the start waits for the decisions of the store.
const START_WITHIN: Duration = Duration::from_secs(3);

/// Makes the plan that is served, and publishes its changes.
#[derive(Debug)]
pub struct ActivePlan {
    inputs: Mutex<PlanInputs>,
    plans: watch::Sender<Arc<Plan>>,
}

/// The inputs of the plan that is served.
#[derive(Debug)]
struct PlanInputs {
    plan: Plan,
    decisions: StandingDecisions,
    secrets: Vec<String>,
    /// What experiments do by their schedules, as it is served.
    scheduled: Vec<Lifecycle>,
    names: ResolvedNames,
}

impl ActivePlan {
    /// Serves this plan with these decisions, and signs with these secrets.
    pub fn new(
        plan: Plan,
        decisions: StandingDecisions,
        secrets: &Secrets,
    ) -> (ActivePlan, watch::Receiver<Arc<Plan>>) {
        let mut inputs = PlanInputs {
            plan,
            decisions,
            secrets: secrets.known().to_vec(),
            scheduled: Vec::new(),
            names: ResolvedNames::default(),
        };
        let (plans, changes) = watch::channel(Arc::new(inputs.plan_to_serve()));
        let active = ActivePlan {
            inputs: Mutex::new(inputs),
            plans,
        };
        (active, changes)
    }

    /// Returns the plan that is served.
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plans.borrow())
    }

    /// Replaces the plan of the file.
    pub fn load(&self, plan: Plan) {
        self.change(|inputs| inputs.plan = plan);
    }

    /// Returns the names of the file's endpoints, and the name servers that know their addresses.
    #[cfg(feature = "dns")]
    pub fn names(&self) -> (BTreeSet<EndpointName>, Box<[SocketAddr]>) {
        let inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        let upstreams = inputs.plan.upstreams.iter();
        let endpoints = upstreams.flat_map(|upstream| &upstream.endpoints);
        let names = endpoints.filter_map(EndpointAddress::name);
        (names.collect(), inputs.plan.name_servers.clone())
    }

    /// Replaces the addresses of names.
    #[cfg(feature = "dns")]
    pub fn resolve(&self, names: ResolvedNames) {
        self.change(|inputs| inputs.names = names);
    }

    /// Replaces the decisions. Returns whether they have changed.
    fn decide(&self, decisions: &StandingDecisions) -> bool {
        let has_changed = {
            let inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
            inputs.decisions != *decisions
        };
        if has_changed {
            self.change(|inputs| inputs.decisions = decisions.clone());
        }
        has_changed
    }

    fn change(&self, how: impl FnOnce(&mut PlanInputs)) {
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        how(&mut inputs);
        self.plans.send_replace(Arc::new(inputs.plan_to_serve()));
    }

    /// Serves another plan if the time of a start or an end has come. Returns the time to the next one.
    fn keep_schedule(&self) -> Duration {
        let now_ms = now_ms();
        let (has_changed, next_ms) = {
            let inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
            let schedules = || inputs.plan.experiments.iter().map(|it| it.schedule);
            let changes = schedules().filter_map(|it| it.next_change_ms(now_ms));
            let does = schedules().map(|it| it.at(now_ms));
            (!does.eq(inputs.scheduled.iter().copied()), changes.min())
        };
        if has_changed {
            self.change(|_| {});
        }
        let left_ms = next_ms.map(|next_ms| next_ms.saturating_sub(now_ms));
        left_ms.map_or(Duration::MAX, |left_ms| Duration::from_millis(left_ms + 1))
    }

    /// Follows the decisions of the store, and the schedules of experiments. A notification makes it read them at once.
    pub async fn follow(
        self: Arc<Self>,
        store: Arc<dyn Store>,
        file: PathBuf,
        mut secrets: Secrets,
        notified: Arc<Notify>,
    ) {
        loop {
            if secrets.refresh(&*store).await {
                self.change(|inputs| inputs.secrets = secrets.known().to_vec());
            }
            match store.decisions().await {
                Ok(decisions) => {
                    if self.decide(&decisions) {
                        remember(&file, &decisions);
                    }
                }
                // Ingestion reports an unavailable store.
                Err(error) => tracing::debug!("decisions cannot be read: {}", chain(&error)),
            }
            let next = self.keep_schedule().min(INTERVAL);
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = notified.notified() => {}
            }
        }
    }
}

/// Returns the decisions before this start: those of the store or, if it is unavailable, those that this
/// machine knew last. A group that was rolled back must not come back with a restart.
pub async fn recall(store: &dyn Store, file: &Path, problems: &Problems) -> StandingDecisions {
    let asked = tokio::time::timeout(START_WITHIN, store.decisions()).await;
    let read = read(file);
    let problem = read.as_ref().err().cloned();
    if let Some(problem) = &problem {
        tracing::error!("{problem}");
    }
    problems.set("decisions", problem);
    if let Ok(Ok(decisions)) = asked {
        remember(file, &decisions);
        return decisions;
    }
    read.unwrap_or_default()
}

/// Reads the file; a missing or damaged one has no decisions. An error says why it must not be written: it
/// is of a newer version, or cannot be read.
fn read(file: &Path) -> Result<StandingDecisions, String> {
    let bytes = match journal::read_regular(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(StandingDecisions::default());
        }
        Err(error) => {
            return Err(format!(
                "{} cannot be read: {error}; make it a file that this user can read, or move it away",
                file.display()
            ));
        }
    };
    let version = serde_json::from_slice(&bytes).map_or(0, |Version { version }| version);
    match version {
        // Release 0.1.0 wrote decisions only.
        0 => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        VERSION => {
            let remembered: Result<Remembered, _> = serde_json::from_slice(&bytes);
            Ok(remembered.map_or_else(|_| StandingDecisions::default(), |it| it.controls))
        }
        newer => Err(format!(
            "{} has version {newer}, and this program reads up to {VERSION}; it is left unchanged: run the version that wrote it, or delete it",
            file.display()
        )),
    }
}

/// Returns the local copy of the decisions, beside the journals.
pub fn file(plan: &Plan) -> PathBuf {
    plan.journal.path.join("decided.json")
}

/// The version of the file of decisions.
const VERSION: u64 = 1;

#[derive(serde::Serialize, serde::Deserialize)]
struct Remembered {
    version: u64,
    controls: StandingDecisions,
}

#[derive(serde::Deserialize)]
struct Version {
    version: u64,
}

fn remember(file: &Path, decisions: &StandingDecisions) {
    if read(file).is_err() {
        return;
    }
    let next = file.with_extension("next");
    let remembered = Remembered {
        version: VERSION,
        controls: decisions.clone(),
    };
    let write = |bytes: Vec<u8>| {
        // A half-written file may have the permissions of an earlier release.
        let _ = std::fs::remove_file(&next);
        let mut new = OpenOptions::new();
        let mut new = new.write(true).create_new(true).mode(0o600).open(&next)?;
        new.write_all(&bytes)
    };
    let written = serde_json::to_vec(&remembered)
        .map_err(std::io::Error::from)
        .and_then(write)
        .and_then(|()| std::fs::rename(&next, file));
    if let Err(error) = written {
        tracing::warn!(
            "decisions cannot be copied to {}: {error}; the store has them",
            file.display()
        );
    }
}

impl PlanInputs {
    fn plan_to_serve(&mut self) -> Plan {
        let now_ms = now_ms();
        let schedules = self.plan.experiments.iter().map(|it| it.schedule);
        self.scheduled = schedules.map(|it| it.at(now_ms)).collect();
        let mut plan = with_decisions(&self.plan, &self.decisions, now_ms);
        let secrets: Vec<_> = self.secrets.iter().map(String::as_bytes).collect();
        if let [first, others @ ..] = &secrets[..] {
            plan.sign_by(first, others);
        }
        for upstream in &mut plan.upstreams {
            upstream.resolve(&self.names);
        }
        plan
    }
}

/// Applies decisions to a plan. A winner in the file takes precedence.
fn with_decisions(plan: &Plan, decisions: &StandingDecisions, now_ms: u64) -> Plan {
    let mut plan = plan.clone();
    plan.keep_schedules(now_ms);
    for experiment in plan.experiments.iter_mut() {
        let decision = decisions.get(&*experiment.name);
        let Some(decision) = decision.filter(|it| it.salt == *experiment.salt) else {
            continue;
        };
        if experiment.ended_by_file {
            continue;
        }
        let named = |name: &String| {
            let place = experiment.groups.iter().position(|it| *it.name == **name);
            place.map(GroupIndex)
        };
        let group = decision.group.as_ref().and_then(named);
        let weights = weights(experiment, decision);
        (experiment.lifecycle, experiment.winner) = match decision.state {
            DecidedState::Running => (experiment.lifecycle, None),
            DecidedState::Paused => (Lifecycle::Paused, Some(experiment.control)),
            // A group that no longer exists cannot be served.
            DecidedState::Promoted => (
                Lifecycle::Promoted,
                Some(group.unwrap_or(experiment.control)),
            ),
            DecidedState::RolledBack => (Lifecycle::RolledBack, Some(experiment.control)),
        };
        if let Some(weights) = weights {
            experiment.reweigh(&weights);
        }
        if let (Some(position), Some(ramp)) = (&decision.ramp, experiment.ramp.take()) {
            experiment.admit(&ramp.steps[ramp.step_of(position.share)]);
            experiment.ramp = Some(ramp);
        }
    }
    plan
}

/// The weights of a decision, where the file leaves them to it, and the groups are still the same.
fn weights(experiment: &Experiment, decision: &StandingDecision) -> Option<Vec<Weight>> {
    experiment.allocation.as_ref()?;
    let weight = |group: &Group| Weight::new(*decision.weights.get(&*group.name)?);
    let weights: Option<Vec<Weight>> = experiment.groups.iter().map(weight).collect();
    weights.filter(|weights| weights.len() == decision.weights.len())
}
