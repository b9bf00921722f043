//! The plan that is served: the plan of the file, changed by decisions, with the secrets that sign.

use super::decided_plan::{DecidedPlan, KnownDecisions};
use super::file_decisions::FileDecision;
use super::secrets::Secrets;
use crate::admin::clock::now_ms;
use crate::config::InvalidConfig;
#[cfg(feature = "dns")]
use crate::config::plan::{EndpointAddress, EndpointName};
use crate::config::plan::{Plan, ResolvedNames};
use crate::experiment::Lifecycle;
use crate::regular_file;
use crate::store::decisions::{StandingDecisions, StoredDefinitions};
use crate::store::{Store, StoreError, chain};
use crate::telemetry::Problems;
use std::borrow::Cow;
#[cfg(feature = "dns")]
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
#[cfg(feature = "dns")]
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often decisions are read from the store.
const INTERVAL: Duration = Duration::from_secs(2);
/// How many files wait for the store.
const REPLACED_MAX: usize = 100;
/// How long the start waits for the decisions of the store.
const START_WITHIN: Duration = Duration::from_secs(3);

/// Makes the plan that is served, and publishes its changes.
#[derive(Debug)]
pub(super) struct ActivePlan {
    inputs: Mutex<PlanInputs>,
    plans: watch::Sender<Arc<Plan>>,
    /// Notified when another file is loaded, so that the store knows of it at once.
    loaded: Notify,
}

/// The inputs of the plan that is served.
#[derive(Debug)]
struct PlanInputs {
    plan: Plan,
    known: KnownDecisions,
    secrets: Vec<String>,
    /// What experiments do by their schedules, as it is served.
    scheduled: Vec<Lifecycle>,
    /// Whether the store has the definitions of this plan.
    is_registered: bool,
    /// Plans that were replaced before the store had their definitions, the oldest first.
    replaced: VecDeque<Arc<Plan>>,
    names: ResolvedNames,
}

impl ActivePlan {
    /// Serves this plan of `file` with these decisions, and signs with these secrets. An error names
    /// promotions that the file takes the upstream from.
    pub(super) fn new(
        plan: Plan,
        file: Option<&Path>,
        known: KnownDecisions,
        secrets: &Secrets,
    ) -> Result<(ActivePlan, watch::Receiver<Arc<Plan>>), InvalidConfig> {
        let decided = known.apply(&plan, now_ms());
        for kept in &decided.kept {
            tracing::info!("{kept}");
        }
        if let Some(invalid) = decided.problems(file) {
            return Err(invalid);
        }
        let mut inputs = PlanInputs {
            plan,
            known,
            secrets: secrets.known().to_vec(),
            scheduled: Vec::new(),
            is_registered: false,
            replaced: VecDeque::new(),
            names: ResolvedNames::default(),
        };
        inputs.note_schedules(now_ms());
        let (plans, changes) = watch::channel(Arc::new(inputs.signing(decided.plan)));
        let active = ActivePlan {
            inputs: Mutex::new(inputs),
            plans,
            loaded: Notify::new(),
        };
        Ok((active, changes))
    }

    /// Returns the plan that is served.
    pub(super) fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plans.borrow())
    }

    /// Returns what decisions would make of another plan of the file, and whom it would affect by what it makes of
    /// promotions.
    pub(super) fn preview(&self, plan: &Plan) -> (DecidedPlan, Vec<String>) {
        let now_ms = now_ms();
        let inputs = self.inputs();
        let known = inputs.expected(now_ms);
        match inputs.is_registered {
            true => known.preview(plan, now_ms),
            // What the plan of now says holds, although the store does not know it yet.
            false => known.after(&inputs.plan, now_ms).preview(plan, now_ms),
        }
    }

    /// Replaces the plan of the file.
    pub(super) fn load(&self, plan: Plan) {
        self.change(|inputs| {
            let before = std::mem::replace(&mut inputs.plan, plan);
            let says = |plan: &Plan| (plan.definitions.clone(), plan.retired.clone());
            let is_registered = std::mem::take(&mut inputs.is_registered);
            if is_registered || says(&before) == says(&inputs.plan) {
                return;
            }
            inputs.replaced.push_back(Arc::new(before));
            if inputs.replaced.len() > REPLACED_MAX {
                tracing::warn!("what an earlier file said of experiments is forgotten: the store has been away for too long");
                inputs.replaced.pop_front();
            }
        });
        self.loaded.notify_one();
    }

    /// Returns the names of the file's endpoints, and the name servers that know their addresses.
    #[cfg(feature = "dns")]
    pub(super) fn names(&self) -> (BTreeSet<EndpointName>, Box<[SocketAddr]>) {
        let inputs = self.inputs();
        let upstreams = inputs.plan.upstreams.iter();
        let endpoints = upstreams.flat_map(|upstream| &upstream.endpoints);
        let names = endpoints.filter_map(EndpointAddress::name);
        (names.collect(), inputs.plan.name_servers.clone())
    }

    /// Replaces the addresses of names.
    #[cfg(feature = "dns")]
    pub(super) fn resolve(&self, names: ResolvedNames) {
        self.change(|inputs| inputs.names = names);
    }

    /// Replaces the decisions. Returns whether they have changed.
    fn decide(&self, known: &KnownDecisions) -> bool {
        let has_changed = self.inputs().known != *known;
        if has_changed {
            self.change(|inputs| inputs.known = known.clone());
        }
        has_changed
    }

    /// Stores decisions again that the store has lost, as after a restart without its disk.
    async fn restore(
        &self,
        store: &dyn Store,
        known: &mut KnownDecisions,
    ) -> Result<(), StoreError> {
        let lost = self.inputs().known.lost_in(known);
        if lost != KnownDecisions::default() {
            tracing::error!(
                "the store has lost decisions or definitions ({} and {}), which this process stores again",
                lost.decisions.len(),
                lost.definitions.len()
            );
            lost.restore(store, known).await?;
            *known = KnownDecisions::read(store).await?;
        }
        Ok(())
    }

    /// Stores what a plan changes. Returns whether all of it is stored: a decision that somebody else made at the same moment
    /// stands, and what the plan says has to be compared with that.
    async fn store_changes(
        store: &dyn Store,
        known: &mut KnownDecisions,
        (changed, decisions): &(StoredDefinitions, Vec<FileDecision>),
    ) -> Result<bool, StoreError> {
        let mut stores_all = true;
        // An interruption or a conflict leaves the definitions as they were, from which the decisions follow.
        for decision in decisions {
            stores_all &= decision.record(store).await?;
        }
        if stores_all && !changed.is_empty() {
            store.define(changed).await?;
        }
        if !changed.is_empty() || !decisions.is_empty() {
            *known = KnownDecisions::read(store).await?;
        }
        Ok(stores_all)
    }

    /// Stores the definitions of the file's experiments, once for each plan, with the decisions that follow
    /// from them, and planned times that have passed. Plans that are no longer served go first: a winner that the file
    /// named for a moment is a promotion.
    async fn register(
        &self,
        store: &dyn Store,
        known: &mut KnownDecisions,
    ) -> Result<(), StoreError> {
        let now_ms = now_ms();
        loop {
            let next = self.inputs().replaced.front().map(Arc::clone);
            let Some(plan) = next else {
                break;
            };
            let changes = known.changes(&plan, now_ms);
            if ActivePlan::store_changes(store, known, &changes).await? {
                self.inputs().replaced.pop_front();
            }
        }
        let (digest, mut changes) = {
            let inputs = self.inputs();
            let changes = match inputs.is_registered {
                true => Default::default(),
                false => known.changes(&inputs.plan, now_ms),
            };
            (inputs.plan.digest, changes)
        };
        if changes.0.is_empty() {
            changes
                .1
                .extend(known.passed_times(&self.inputs().plan, now_ms));
        }
        let stores_all = ActivePlan::store_changes(store, known, &changes).await?;
        let mut inputs = self.inputs();
        inputs.is_registered = stores_all && inputs.plan.digest == digest;
        Ok(())
    }

    fn inputs(&self) -> MutexGuard<'_, PlanInputs> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, how: impl FnOnce(&mut PlanInputs)) {
        let mut inputs = self.inputs();
        how(&mut inputs);
        let now_ms = now_ms();
        inputs.note_schedules(now_ms);
        let DecidedPlan { plan, lost, .. } = inputs.expected(now_ms).apply(&inputs.plan, now_ms);
        // The file was sound before: another replica's file has the upstream.
        if !lost.is_empty() {
            tracing::error!("a promotion cannot stay in effect here: {lost:?}");
        }
        self.plans.send_replace(Arc::new(inputs.signing(plan)));
    }

    /// Serves another plan if the time of a start or an end has come. Returns the time to the next one.
    fn keep_schedule(&self) -> Duration {
        let now_ms = now_ms();
        let (has_changed, next_ms) = {
            let inputs = self.inputs();
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
    pub(super) async fn follow(
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
            let read = async {
                let mut known = KnownDecisions::read(&*store).await?;
                self.restore(&*store, &mut known).await?;
                self.register(&*store, &mut known).await?;
                Ok::<_, StoreError>(known)
            };
            match read.await {
                Ok(known) => {
                    if self.decide(&known) {
                        remember(&file, &known);
                    }
                }
                // Ingestion reports an unavailable store.
                Err(error) => tracing::debug!("decisions cannot be read: {}", chain(&error)),
            }
            let next = self.keep_schedule().min(INTERVAL);
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = notified.notified() => {}
                () = self.loaded.notified() => {}
            }
        }
    }
}

/// Returns the decisions before this start: those of the store or, if it is unavailable, those that this
/// machine knew last. A group that was rolled back must not come back with a restart.
pub(super) async fn recall(store: &dyn Store, file: &Path, problems: &Problems) -> KnownDecisions {
    let asked = tokio::time::timeout(START_WITHIN, KnownDecisions::read(store)).await;
    let read = read(file);
    let problem = read.as_ref().err().cloned();
    if let Some(problem) = &problem {
        tracing::error!("{problem}");
    }
    problems.set("decisions", problem);
    let local = read.unwrap_or_default();
    if let Ok(Ok(mut known)) = asked {
        // They are stored again once the process serves.
        known.add(local.lost_in(&known));
        remember(file, &known);
        return known;
    }
    local
}

/// Reads the file; a missing or damaged one has no decisions. An error says why it must not be written: it
/// is of a newer version, or cannot be read.
fn read(file: &Path) -> Result<KnownDecisions, String> {
    let bytes = match regular_file::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(KnownDecisions::default());
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
        0 => Ok(KnownDecisions {
            decisions: serde_json::from_slice(&bytes).unwrap_or_default(),
            definitions: StoredDefinitions::new(),
        }),
        VERSION => {
            let remembered: Result<Remembered, _> = serde_json::from_slice(&bytes);
            let known = remembered.map(|it| KnownDecisions {
                decisions: it.controls,
                definitions: it.definitions,
            });
            Ok(known.unwrap_or_default())
        }
        newer => Err(format!(
            "{} has version {newer}, and this program reads up to {VERSION}; it is left unchanged: run the version that wrote it, or delete it",
            file.display()
        )),
    }
}

/// Returns the local copy of the decisions, beside the journals.
pub(super) fn file(plan: &Plan) -> PathBuf {
    plan.journal.path.join("decided.json")
}

/// The version of the file of decisions.
const VERSION: u64 = 1;

#[derive(serde::Serialize, serde::Deserialize)]
struct Remembered {
    version: u64,
    controls: StandingDecisions,
    #[serde(default)]
    definitions: StoredDefinitions,
}

#[derive(serde::Deserialize)]
struct Version {
    version: u64,
}

fn remember(file: &Path, known: &KnownDecisions) {
    if read(file).is_err() {
        return;
    }
    let next = file.with_extension("next");
    let remembered = Remembered {
        version: VERSION,
        controls: known.decisions.clone(),
        definitions: known.definitions.clone(),
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
    /// What the store knows, and what it will know once it has the plans that were replaced.
    fn expected(&self, now_ms: u64) -> Cow<'_, KnownDecisions> {
        let mut known = Cow::Borrowed(&self.known);
        for plan in &self.replaced {
            known = Cow::Owned(known.after(plan, now_ms));
        }
        known
    }

    fn note_schedules(&mut self, now_ms: u64) {
        let schedules = self.plan.experiments.iter().map(|it| it.schedule);
        self.scheduled = schedules.map(|it| it.at(now_ms)).collect();
    }

    /// The plan with the addresses of its endpoints, as it signs.
    fn signing(&self, mut plan: Plan) -> Plan {
        for upstream in &mut plan.upstreams {
            upstream.resolve(&self.names);
        }
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
