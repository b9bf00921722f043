//! Opens the journals, and makes the ingestion that reads them.

use super::ErrorWithHint;
use crate::config::plan::Plan;
use crate::journal::{self, Follower, FoundJournals, Journals, Options, Reader, SkippedJournal};
use crate::store::Store;
use crate::store::ingest::Ingestor;
use crate::telemetry::Telemetry;
use anyhow::anyhow;
use std::io;
use std::sync::Arc;

/// Returns the options of the journals: one for each worker, and one for events that servers report.
pub(super) fn options(plan: &Plan, telemetry: &Arc<Telemetry>) -> Options {
    let telemetry = Arc::clone(telemetry);
    Options {
        hold_bytes_max: backlogs(plan).collect(),
        problems: journal::ProblemReporter(Arc::new(move |problem| {
            telemetry.problems.set("journal", problem);
        })),
        ..Options::new(plan.journal.quota_bytes, plan.workers + 1)
    }
}

/// The most bytes that are kept for each task that reads the journals beside ingestion: for the archive, if there is
/// one, and for each destination of `forward`.
fn backlogs(plan: &Plan) -> impl Iterator<Item = u64> {
    let archive = plan.archive.iter().map(|it| it.backlog_bytes);
    archive.chain(plan.forward.iter().map(|it| it.backlog_bytes))
}

/// Journals for the tasks that read them beside ingestion.
#[derive(Clone)]
pub(super) struct Followed {
    /// Those of the archive, if there is one.
    pub archive: Option<FoundJournals>,
    /// Those of each destination of `forward`.
    pub forward: Vec<FoundJournals>,
}

impl Followed {
    /// Makes further readers of these journals.
    pub(super) fn new(plan: &Plan, readers: &mut [Reader]) -> anyhow::Result<Followed> {
        let found = || FoundJournals::default();
        let followed = Followed {
            archive: plan.archive.as_ref().map(|_| found()),
            forward: plan.forward.iter().map(|_| found()).collect(),
        };
        followed.follow(readers)?;
        Ok(followed)
    }

    /// The owners are in the order of [`backlogs`].
    fn follow(&self, readers: &mut [Reader]) -> io::Result<()> {
        for (owner, found) in self.archive.iter().chain(&self.forward).enumerate() {
            for reader in &mut *readers {
                found.add(Follower::of(reader, owner)?);
            }
        }
        Ok(())
    }
}

/// Opens the folder of journals, and reports those that are not read.
pub(super) fn open(
    plan: &Plan,
    options: &Options,
    telemetry: &Telemetry,
) -> anyhow::Result<Journals> {
    let interval = plan.journal.sync_interval;
    let journals = journal::open(&plan.journal.path, plan.workers + 1, interval, options);
    let journals = journals.map_err(|error| {
        let hint = error.advice();
        ErrorWithHint::new(format!("{:#}", anyhow!(error)), hint)
    })?;
    report_skipped(telemetry, &journals.skipped);
    Ok(journals)
}

/// Makes the ingestion from the journals to the store, which also adopts journals of ended processes.
pub(super) fn ingestion(
    plan: &Plan,
    (readers, followed): (Vec<Reader>, Followed),
    store: &Arc<dyn Store>,
    telemetry: &Arc<Telemetry>,
    options: journal::Options,
) -> Ingestor {
    let path = plan.journal.path.clone();
    let watched = Arc::clone(telemetry);
    let adopt = move || match journal::adopt(&path, &options) {
        Ok(mut adopted) => {
            report_skipped(&watched, &adopted.skipped);
            if let Err(error) = followed.follow(&mut adopted.readers) {
                tracing::error!(
                    "journals of ended processes are not archived and forwarded: {error}"
                );
            }
            adopted.readers
        }
        Err(error) => {
            tracing::warn!("journals of ended processes cannot be searched: {error}");
            Vec::new()
        }
    };
    Ingestor::new(readers, Arc::clone(store), Arc::clone(telemetry), adopt)
}

/// The most skipped journals that are named.
const SKIPPED_SHOWN_MAX: usize = 8;

/// Reports journals that are not read.
fn report_skipped(telemetry: &Telemetry, skipped: &[SkippedJournal]) {
    let shown = skipped.iter().take(SKIPPED_SHOWN_MAX);
    let mut all: Vec<String> = shown.map(SkippedJournal::to_string).collect();
    if skipped.len() > all.len() {
        all.push(format!("and {} more", skipped.len() - all.len()));
    }
    let problem = (!all.is_empty()).then(|| all.join("; "));
    if telemetry.problems.set("journals", problem.clone())
        && let Some(problem) = problem
    {
        tracing::error!("{problem}");
    }
}
