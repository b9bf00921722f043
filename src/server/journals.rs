//! Opening the journals, and the ingestion that reads them.

use super::ErrorWithHint;
use crate::config::plan::Plan;
use crate::journal::{self, Journals, Options, Reader, SkippedJournal};
use crate::store::Store;
use crate::store::ingest::Ingestor;
use crate::telemetry::Telemetry;
use anyhow::anyhow;
use std::sync::Arc;

/// How journals are written and read: one for each worker, and one for events that servers report.
pub fn options(plan: &Plan, telemetry: &Arc<Telemetry>) -> Options {
    let telemetry = Arc::clone(telemetry);
    Options {
        problems: journal::ProblemReporter(Arc::new(move |problem| {
            telemetry.problems.set("journal", problem);
        })),
        ..Options::new(plan.journal.quota_bytes, plan.workers + 1)
    }
}

/// Opens the folder of journals, and reports those in it that are not read.
pub fn open(plan: &Plan, options: &Options, telemetry: &Telemetry) -> anyhow::Result<Journals> {
    let interval = plan.journal.sync_interval;
    let journals = journal::open(&plan.journal.path, plan.workers + 1, interval, options);
    let journals = journals.map_err(|error| {
        let hint = error.advice();
        ErrorWithHint::new(format!("{:#}", anyhow!(error)), hint)
    })?;
    report_left_alone(telemetry, &journals.skipped);
    Ok(journals)
}

/// Moves records from journals to the store; looks for journals that other processes leave.
pub fn ingestion(
    plan: &Plan,
    readers: Vec<Reader>,
    store: &Arc<dyn Store>,
    telemetry: &Arc<Telemetry>,
    options: journal::Options,
) -> Ingestor {
    let path = plan.journal.path.clone();
    let watched = Arc::clone(telemetry);
    let adopt = move || match journal::adopt(&path, &options) {
        Ok(adopted) => {
            report_left_alone(&watched, &adopted.skipped);
            adopted.readers
        }
        Err(error) => {
            tracing::warn!("journals that others left cannot be looked for: {error}");
            Vec::new()
        }
    };
    Ingestor::new(readers, Arc::clone(store), Arc::clone(telemetry), adopt)
}

/// So many journals that are not read are named.
const LEFT_ALONE_SHOWN_MAX: usize = 8;

/// Reports journals that are not read.
fn report_left_alone(telemetry: &Telemetry, skipped: &[SkippedJournal]) {
    let shown = skipped.iter().take(LEFT_ALONE_SHOWN_MAX);
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
