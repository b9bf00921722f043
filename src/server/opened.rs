//! The files and the store that a process opens before it serves.

use super::active_plan::{self, ActivePlan};
use super::secrets::Secrets;
use super::{journals, stores};
use crate::config::plan::Plan;
use crate::journal::{self, Journals, Reader, Writer};
use crate::store::Store;
use crate::tasks::Supervisor;
use crate::telemetry::Telemetry;
use journals::Followed;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// Journals, store, decisions and secrets.
pub(super) struct Opened {
    /// Counters.
    pub telemetry: Arc<Telemetry>,
    /// Supervises tasks and threads.
    pub supervisor: Supervisor,
    /// The store. It connects when it is used.
    pub store: Arc<dyn Store>,
    /// The plan that is served, with decisions applied.
    pub active: Arc<ActivePlan>,
    /// Changes of the plan.
    pub plans: watch::Receiver<Arc<Plan>>,
    /// The local copy of the decisions.
    pub decisions_file: PathBuf,
    /// The secrets that sign IDs and sessions.
    pub secrets: Secrets,
    /// A journal for each worker.
    pub writers: Vec<Writer>,
    /// The journal of events that servers report.
    pub server_events: Option<Writer>,
    /// Readers of all journals.
    pub readers: Vec<Reader>,
    /// Further readers of them, for the archive and for destinations.
    pub followed: Followed,
    /// Makes journals durable.
    pub keeper: journal::JournalMaintenance,
    /// The options of the journals.
    pub options: journal::Options,
    /// Obtains certificates.
    #[cfg(feature = "acme")]
    pub certificates: Arc<tokio::sync::Mutex<crate::acme::Keeper>>,
}

impl Opened {
    /// Opens everything for the plan of `file`. An unavailable store is not an error.
    pub(super) async fn open(plan: Plan, file: Option<&Path>) -> anyhow::Result<Opened> {
        let telemetry = Arc::new(Telemetry::new(plan.workers + 1));
        telemetry.reload.started();
        let store = stores::store_of(&plan.store)?;
        let options = journals::options(&plan, &telemetry);
        let Journals {
            mut writers,
            mut readers,
            keeper,
            ..
        } = journals::open(&plan, &options, &telemetry)?;
        let followed = Followed::new(&plan, &mut readers)?;
        let server_events = writers.pop();
        let supervisor = Supervisor::new(&telemetry);
        let decisions_file = active_plan::file(&plan);
        let decided = active_plan::recall(&*store, &decisions_file, &telemetry.problems).await;
        let secrets = Secrets::open(&plan, &*store, &telemetry).await?;
        let (active, plans) = ActivePlan::new(plan, file, decided, &secrets)?;
        #[cfg(feature = "acme")]
        let certificates = {
            let (store, telemetry) = (Arc::clone(&store), Arc::clone(&telemetry));
            let keeper = crate::acme::Keeper::open(plans.clone(), store, telemetry);
            Arc::new(keeper.await.into())
        };
        Ok(Opened {
            #[cfg(feature = "acme")]
            certificates,
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
            followed,
            keeper,
            options,
        })
    }

    /// Returns the plan that is served now.
    pub(super) fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plans.borrow())
    }
}
