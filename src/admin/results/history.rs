//! The history: every loaded file and every decision, with who, when and why.

use crate::admin::format::rfc3339;
use crate::admin::results::enums;
use crate::store::decisions::AuditEntry;
use crate::store::loaded_files::{FileEffect, LoadedFile};
use crate::store::{Store, StoreError};
use serde::Serialize;
use std::cmp::Reverse;
use utoipa::ToSchema;

/// The action of a loaded file.
const LOAD: &str = "load";

/// One entry of the history.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HistoryEntry {
    pub at: Option<String>,
    pub at_ms: u64,
    #[schema(schema_with = enums::decided_by)]
    pub source: &'static str,
    pub by: String,
    pub action: String,
    pub experiment: Option<String>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub file: Option<FileResult>,
}

/// A loaded file: its number, what differs from the one before, and what that changes for users.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FileResult {
    pub number: u64,
    pub diff: Vec<String>,
    pub effects: Option<Vec<EffectResult>>,
}

/// What a file changes for the users of one experiment, as `watershed plan` shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EffectResult {
    pub experiment: String,
    pub meaning: String,
    pub changes: Vec<String>,
    pub moves: Vec<String>,
}

/// Merges decisions and loaded files, the newest first.
pub(crate) fn merged(acts: Vec<AuditEntry>, files: Vec<LoadedFile>) -> Vec<HistoryEntry> {
    // A reload that loaded a file is an entry of that file.
    let acts = acts.into_iter().filter(|act| !act.is_of_loaded_file());
    let acts = acts.map(of_act);
    let mut all: Vec<HistoryEntry> = acts.chain(files.into_iter().map(of_file)).collect();
    all.sort_by_key(|entry| Reverse(entry.at_ms));
    all
}

/// Reads the latest entries of the store, the newest first; of one experiment, if it is named.
pub(crate) async fn read(
    store: &dyn Store,
    experiment: Option<&str>,
    max: usize,
) -> Result<Vec<HistoryEntry>, StoreError> {
    let (acts, files) = (store.audit_log(max).await?, store.loaded_files(max).await?);
    let mut all = merged(acts, files);
    all.retain(|entry| experiment.is_none_or(|name| entry.concerns(name)));
    all.truncate(max);
    Ok(all)
}

impl HistoryEntry {
    /// Whether it is about an experiment: a decision about it, or a file that says something else of it.
    pub fn concerns(&self, name: &str) -> bool {
        if self.experiment.as_deref() == Some(name) {
            return true;
        }
        let Some(file) = &self.file else {
            return false;
        };
        let mut effects = file.effects.iter().flatten();
        effects.any(|effect| effect.experiment == name) || file.diff_of(name).next().is_some()
    }

    /// A line that says what happened, such as `promote: running -> promoted next`.
    pub fn summary(&self) -> String {
        match (&self.file, &self.from, &self.to) {
            (Some(file), ..) if file.number == 1 => "the first file".to_owned(),
            (Some(file), ..) => format!("file {}: {}", file.number, lines(file.diff.len())),
            (None, Some(from), Some(to)) => format!("{}: {from} -> {to}", self.action),
            _ => self.action.clone(),
        }
    }
}

impl FileResult {
    /// The lines of the difference that are about an experiment.
    pub fn diff_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let lines = self.diff.iter().map(String::as_str);
        lines.filter(move |line| {
            let key = line
                .get(2..)
                .and_then(|key| key.strip_prefix("experiments."));
            let rest = key.and_then(|key| key.strip_prefix(name));
            rest.is_some_and(|rest| rest.starts_with(['.', ':']))
        })
    }
}

fn lines(count: usize) -> String {
    match count {
        0 => "no line differs".to_owned(),
        1 => "1 line differs".to_owned(),
        many => format!("{many} lines differ"),
    }
}

fn of_act(act: AuditEntry) -> HistoryEntry {
    HistoryEntry {
        at: rfc3339(act.at_ms),
        at_ms: act.at_ms,
        source: act.decided_by().word(),
        by: act.by,
        action: act.action,
        experiment: Some(act.experiment).filter(|name| !name.is_empty()),
        from: Some(act.from),
        to: Some(act.to),
        reason: act.reason,
        file: None,
    }
}

fn of_file(file: LoadedFile) -> HistoryEntry {
    let effect = |effect: FileEffect| EffectResult {
        experiment: effect.experiment,
        meaning: effect.meaning,
        changes: effect.changes,
        moves: effect.moves,
    };
    HistoryEntry {
        at: rfc3339(file.at_ms),
        at_ms: file.at_ms,
        source: file.source.word(),
        by: file.by,
        action: LOAD.to_owned(),
        experiment: None,
        from: None,
        to: None,
        reason: None,
        file: Some(FileResult {
            number: file.number,
            diff: file.diff,
            effects: file
                .effects
                .map(|effects| effects.into_iter().map(effect).collect()),
        }),
    }
}
