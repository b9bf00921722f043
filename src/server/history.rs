//! Keeps each loaded file in the store, once for all replicas, with what it changes.

use super::decided_plan::KnownDecisions;
use crate::config::changes::{self, UNCHANGED, compare};
use crate::config::difference::{deciding_plan, difference, digest, secret_difference};
use crate::config::plan::Plan;
use crate::store::decisions::DecidedBy;
use crate::store::loaded_files::{FileEffect, LoadedFile};
use crate::store::{Store, StoreError, chain};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};

/// So many loads wait for a store that is away; further ones are not kept.
pub(super) const WAITING_MAX: usize = 64;
/// How long to wait for a store that is away.
const RETRY: Duration = Duration::from_secs(2);
/// So many files of other replicas are compared with a new one.
const COMPARED: usize = 50;
/// The number of user IDs in the sample that shows who moves.
const SAMPLE: u32 = 10_000;

/// A file that this process has loaded.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// Its content as JSON, with its secrets hidden.
    pub content: Arc<str>,
    /// A digest of its secrets.
    pub secrets: u16,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// Who loaded it.
    pub by: String,
    /// What decided to.
    pub source: DecidedBy,
}

/// What outlives a panic of the task.
#[derive(Debug)]
pub(super) struct FileRecorder {
    loads: mpsc::Receiver<Load>,
    /// The load that the store does not have yet.
    pending: Option<Load>,
    /// The number of this process's file in the store, and its digest.
    latest: Option<(u64, String)>,
}

impl FileRecorder {
    /// Records these loads.
    pub(super) fn new(loads: mpsc::Receiver<Load>) -> FileRecorder {
        FileRecorder {
            loads,
            pending: None,
            latest: None,
        }
    }
}

/// Records loads until the sender is gone. `path` is that of the file.
pub(super) async fn keep(
    recorder: Arc<Mutex<FileRecorder>>,
    store: Arc<dyn Store>,
    path: PathBuf,
) -> anyhow::Result<()> {
    let mut recorder = recorder.lock().await;
    loop {
        let load = match recorder.pending.take() {
            Some(load) => load,
            None => match recorder.loads.recv().await {
                Some(load) => load,
                None => return Ok(()),
            },
        };
        recorder.pending = Some(load.clone());
        match record(&mut recorder, &load, &*store, &path).await {
            Ok(()) => recorder.pending = None,
            Err(error) => {
                // Ingestion reports an unavailable store.
                tracing::debug!(
                    "the loaded file is not in the history yet: {}",
                    chain(&error)
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn record(
    recorder: &mut FileRecorder,
    load: &Load,
    store: &dyn Store,
    path: &std::path::Path,
) -> Result<(), StoreError> {
    let digest = digest(&load.content, load.secrets);
    if recorder
        .latest
        .as_ref()
        .is_some_and(|(_, own)| *own == digest)
    {
        return Ok(());
    }
    loop {
        let files = store.loaded_files(COMPARED).await?;
        if let Some(number) = already_there(&files, recorder.latest.as_ref(), &digest, load.at_ms) {
            recorder.latest = Some((number, digest));
            return Ok(());
        }
        let before = files.first().map_or(0, |file| file.number);
        let content = match before {
            0 => None,
            number => store.loaded_content(number).await?,
        };
        let mut file = LoadedFile {
            number: before + 1,
            digest: digest.clone(),
            at_ms: load.at_ms,
            by: load.by.clone(),
            source: load.source,
            diff: Vec::new(),
            effects: Some(Vec::new()),
        };
        if let Some(content) = content {
            file.diff = difference(&content, &load.content);
            let latest = files.first();
            file.diff
                .extend(latest.and_then(|latest| secret_difference(&latest.digest, &digest)));
            let known = KnownDecisions::read(store).await?;
            file.effects = effects(content, load, known, path.to_owned()).await;
        }
        if store.record_file(&file, &load.content).await? {
            recorder.latest = Some((file.number, digest));
            return Ok(());
        }
        // Another replica was quicker.
    }
}

/// Returns the number of the file if another replica has recorded it: it was the latest at the time of the load, or
/// follows the one that this process loaded before. A load may be recorded late, when others were loaded since.
fn already_there(
    files: &[LoadedFile],
    own: Option<&(u64, String)>,
    digest: &str,
    at_ms: u64,
) -> Option<u64> {
    let mut before = files.iter().filter(|file| file.at_ms <= at_ms);
    let latest = before.next().or(files.last());
    let latest = latest.filter(|file| file.digest == digest);
    let since = own.and_then(|(own, _)| {
        let mut later = files.iter().rev().filter(|file| file.number > *own);
        later.find(|file| file.digest == digest)
    });
    since.or(latest).map(|file| file.number)
}

/// What a file changes for users, as `watershed plan` shows it, under the decisions that stand.
async fn effects(
    before: String,
    load: &Load,
    known: KnownDecisions,
    path: PathBuf,
) -> Option<Vec<FileEffect>> {
    let (after, at_ms) = (Arc::clone(&load.content), load.at_ms);
    let compared = tokio::task::spawn_blocking(move || {
        let old = deciding_plan(&before, &path)?;
        let new = deciding_plan(&after, &path)?;
        let decided = |plan| known.apply(plan, at_ms).plan;
        Some(of_plans(&decided(&old), &decided(&new)))
    });
    compared.await.ok()?
}

fn of_plans(old: &Plan, new: &Plan) -> Vec<FileEffect> {
    let ids: Vec<String> = (0..SAMPLE).map(|number| format!("user-{number}")).collect();
    let mut effects = Vec::new();
    for name in changes::names(old, new) {
        let found = compare(old, new, name, ids.iter().map(String::as_bytes));
        let is_moving = found.moves.is_any();
        if found.meaning != UNCHANGED || is_moving || !found.changes.is_empty() {
            effects.push(FileEffect {
                experiment: name.to_owned(),
                meaning: found.meaning.to_owned(),
                changes: found.changes,
                moves: found.moves.lines(),
            });
        }
    }
    effects
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: u64, digest: &str) -> LoadedFile {
        LoadedFile {
            number,
            digest: digest.to_owned(),
            at_ms: number,
            by: "file".to_owned(),
            source: DecidedBy::File,
            diff: Vec::new(),
            effects: None,
        }
    }

    #[test]
    fn file_of_another_replica_is_found_and_a_reverted_one_is_new() {
        let files = [file(3, "c"), file(2, "b"), file(1, "a")];
        let at = |number: u64, digest: &str| Some((number, digest.to_owned()));
        for (own, digest, expected) in [
            // A start with the file that is served, and with another one.
            (None, "c", Some(3)),
            (None, "a", None),
            // A replica that is behind.
            (at(1, "a"), "b", Some(2)),
            (at(2, "b"), "c", Some(3)),
            // The file before, again.
            (at(3, "c"), "b", None),
            (at(2, "b"), "a", None),
        ] {
            let found = already_there(&files, own.as_ref(), digest, 3);
            assert_eq!(found, expected, "{own:?} {digest}");
        }
        // A start that is recorded after others have loaded more.
        for (at_ms, digest, expected) in [(0, "a", Some(1)), (1, "a", Some(1)), (2, "a", None)] {
            let found = already_there(&files, None, digest, at_ms);
            assert_eq!(found, expected, "{at_ms} {digest}");
        }
    }
}
