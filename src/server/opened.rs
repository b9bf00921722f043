//! What a process opens before it serves.

use super::active_plan::{self, ActivePlan};
use super::secrets::Secrets;
use super::{journals, stores};
use crate::config::plan::Plan;
use crate::journal::{self, Journals, Reader, Writer};
use crate::store::Store;
use crate::tasks::Supervisor;
use crate::telemetry::Telemetry;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// Journals, store, decisions and secrets.
pub struct Opened {
    /// Counters.
    pub telemetry: Arc<Telemetry>,
    /// Supervises tasks and threads.
    pub supervisor: Supervisor,
    /// The store; connected to when it is used.
    pub store: Arc<dyn Store>,
    /// The plan that is served, with what was decided.
    pub active: Arc<ActivePlan>,
    /// The same, as it changes.
    pub plans: watch::Receiver<Arc<Plan>>,
    /// Where decisions are kept beside the store.
    pub decisions_file: PathBuf,
    /// What IDs and sessions are signed by.
    pub secrets: Secrets,
    /// A journal for each worker.
    pub writers: Vec<Writer>,
    /// The journal of events that servers report.
    pub server_events: Option<Writer>,
    /// Readers of all journals.
    pub readers: Vec<Reader>,
    /// Keeps journals durable.
    pub keeper: journal::JournalMaintenance,
    /// How journals are written and read.
    pub options: journal::Options,
}

impl Opened {
    /// Opens all of them. A store that does not answer is no error.
    pub async fn open(plan: Plan) -> anyhow::Result<Opened> {
        let telemetry = Arc::new(Telemetry::new(plan.workers + 1));
        telemetry.reload.started();
        let store = stores::store_of(&plan.store)?;
        let options = journals::options(&plan, &telemetry);
        let Journals {
            mut writers,
            readers,
            keeper,
            ..
        } = journals::open(&plan, &options, &telemetry)?;
        let server_events = writers.pop();
        let supervisor = Supervisor::new(&telemetry);
        let decisions_file = active_plan::file(&plan);
        let decided = active_plan::recall(&*store, &decisions_file, &telemetry.problems).await;
        let secrets = Secrets::open(&plan, &*store, &telemetry).await?;
        let (active, plans) = ActivePlan::new(plan, decided, &secrets);
        Ok(Opened {
            telemetry,
            supervisor,
            store,
            active: Arc::new(active),
            plans,
            decisions_file,
            secrets,
            writers,
            server_events,
            readers,
            keeper,
            options,
        })
    }

    /// The plan that is served now.
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plans.borrow())
    }
}
