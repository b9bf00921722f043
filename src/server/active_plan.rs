//! The plan that is served: what the file means, over it what was decided since, and the secrets
//! that it signs by.

use super::secrets::Secrets;
use crate::config::plan::Plan;
use crate::experiment::{GroupIndex, Lifecycle as Own};
use crate::journal;
use crate::store::decisions::{DecidedState, StandingDecisions};
use crate::store::{Store, chain};
use crate::telemetry::Problems;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often the store is asked what was decided.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long the start waits for that answer.
const START_WITHIN: Duration = Duration::from_secs(3);

/// Where plans come from.
#[derive(Debug)]
pub struct ActivePlan {
    stands: Mutex<Stands>,
    plans: watch::Sender<Arc<Plan>>,
}

/// What makes the plan that is served.
#[derive(Debug)]
struct Stands {
    plan: Plan,
    controls: StandingDecisions,
    secrets: Vec<String>,
}

impl ActivePlan {
    /// Serves this plan under these decisions, and signs by these secrets.
    pub fn new(
        plan: Plan,
        controls: StandingDecisions,
        secrets: &Secrets,
    ) -> (ActivePlan, watch::Receiver<Arc<Plan>>) {
        let stands = Stands {
            plan,
            controls,
            secrets: secrets.known().to_vec(),
        };
        let (plans, orders) = watch::channel(Arc::new(stands.served()));
        let stage = ActivePlan {
            stands: Mutex::new(stands),
            plans,
        };
        (stage, orders)
    }

    /// The plan that is served.
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plans.borrow())
    }

    /// The file means something else now.
    pub fn load(&self, plan: Plan) {
        self.change(|stands| stands.plan = plan);
    }

    fn decided(&self, controls: &StandingDecisions) -> bool {
        let news = {
            let stands = self.stands.lock().unwrap_or_else(PoisonError::into_inner);
            stands.controls != *controls
        };
        if news {
            self.change(|stands| stands.controls = controls.clone());
        }
        news
    }

    fn change(&self, how: impl FnOnce(&mut Stands)) {
        let mut stands = self.stands.lock().unwrap_or_else(PoisonError::into_inner);
        how(&mut stands);
        self.plans.send_replace(Arc::new(stands.served()));
    }

    /// Goes by what is decided, from now on; told, it asks at once.
    pub async fn follow(
        self: Arc<Self>,
        store: Arc<dyn Store>,
        file: PathBuf,
        mut secrets: Secrets,
        told: Arc<Notify>,
    ) {
        loop {
            if secrets.refresh(&*store).await {
                self.change(|stands| stands.secrets = secrets.known().to_vec());
            }
            match store.decisions().await {
                Ok(controls) => {
                    if self.decided(&controls) {
                        remember(&file, &controls);
                    }
                }
                // The folder says so louder.
                Err(error) => tracing::debug!("decisions are not known: {}", chain(&error)),
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = told.notified() => {}
            }
        }
    }
}

/// What was decided before this start: by the store, or where that does not answer by what this
/// machine knew last. A version that was rolled back must not come back with a restart.
pub async fn recall(store: &dyn Store, file: &Path, problems: &Problems) -> StandingDecisions {
    let asked = tokio::time::timeout(START_WITHIN, store.decisions()).await;
    let read = read(file);
    let in_the_way = read.as_ref().err().cloned();
    if let Some(problem) = &in_the_way {
        tracing::error!("{problem}");
    }
    problems.set("decisions", in_the_way);
    if let Ok(Ok(controls)) = asked {
        remember(file, &controls);
        return controls;
    }
    read.unwrap_or_default()
}

/// What the file holds; nothing where it is missing or damaged. An error says why it may not be
/// written: it is newer, or cannot be read.
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
            "{} has version {newer}, and this program reads up to {VERSION}; it is left as it is: run the version that wrote it, or delete it",
            file.display()
        )),
    }
}

/// Where decisions are remembered, beside the journals.
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

fn remember(file: &Path, controls: &StandingDecisions) {
    if read(file).is_err() {
        return;
    }
    let next = file.with_extension("next");
    let remembered = Remembered {
        version: VERSION,
        controls: controls.clone(),
    };
    let write = |bytes: Vec<u8>| {
        // One that was left half-written may have the rights of an earlier release.
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
            "what was decided cannot be remembered at {}: {error}; the store has it",
            file.display()
        );
    }
}

impl Stands {
    fn served(&self) -> Plan {
        let mut plan = under(&self.plan, &self.controls);
        let secrets: Vec<_> = self.secrets.iter().map(String::as_bytes).collect();
        if let [first, others @ ..] = &secrets[..] {
            plan.sign_by(first, others);
        }
        plan
    }
}

/// The plan under these decisions. What the file says of a winner stands above them.
fn under(plan: &Plan, controls: &StandingDecisions) -> Plan {
    let mut plan = plan.clone();
    for experiment in plan.experiments.iter_mut() {
        let control = controls.get(&*experiment.name);
        let Some(control) = control.filter(|it| it.salt == *experiment.salt) else {
            continue;
        };
        if experiment.ended_by_file {
            continue;
        }
        let named = |name: &String| {
            let place = experiment.groups.iter().position(|it| *it.name == **name);
            place.map(GroupIndex)
        };
        let group = control.group.as_ref().and_then(named);
        (experiment.lifecycle, experiment.winner) = match control.state {
            DecidedState::Running => (Own::Running, None),
            DecidedState::Paused => (Own::Paused, Some(experiment.control)),
            // A group that is no longer there cannot be shown.
            DecidedState::Promoted => (Own::Promoted, Some(group.unwrap_or(experiment.control))),
            DecidedState::RolledBack => (Own::RolledBack, Some(experiment.control)),
        };
    }
    plan
}
