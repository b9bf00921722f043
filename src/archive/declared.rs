//! Declarations as they are read back, for one experiment and another metric.

use super::encode::decode;
use super::error::ArchiveError;
use super::location::Location;
use super::question::{EventSource, ReplayQuestion};
use super::rows_back::ArchivedRows;
use super::tables::DEFINITIONS;
use crate::experiment::EpochDigest;
use crate::experiment::assign::{Share, Weight};
use crate::experiment::metric_definition::trigger_of;
use crate::experiment::record::{Declaration, DeclaredExperiment, DeclaredGroup};
use futures_util::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the archive says of one experiment.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// By digest: the declaration with this experiment and the metric alone.
    pub declarations: BTreeMap<u64, Arc<Declaration>>,
    /// The events that the experiment counted, with the digest of the declaration.
    pub counted: BTreeSet<(u64, String)>,
    /// The names of all archived events.
    pub events: BTreeSet<String>,
    /// By digest of the declaration and rule: the first event that counted a rule of the question.
    by_rule: BTreeMap<(u64, String), String>,
    /// All that was counted by a rule or as an event.
    pub triggers: BTreeSet<String>,
    /// The names of all archived experiments.
    pub experiments: BTreeSet<String>,
}

impl Declared {
    /// Reads all definitions of an archive.
    pub(super) async fn read(
        location: &Location,
        question: &ReplayQuestion,
    ) -> Result<Declared, ArchiveError> {
        let mut declared = Declared::default();
        let names: Vec<String> = location.list(DEFINITIONS, None)?.try_collect().await?;
        for name in names.iter().filter(|name| name.ends_with(".parquet")) {
            let Some((bytes, _)) = location.read(name).await? else {
                continue;
            };
            for batch in decode(name, bytes)? {
                let rows = ArchivedRows::new(name, &batch);
                for row in 0..rows.len() {
                    declared.add(question, &rows, row)?;
                }
            }
        }
        Ok(declared)
    }

    fn add_trigger(
        &mut self,
        question: &ReplayQuestion,
        (digest, event): (u64, &str),
        trigger: &str,
    ) {
        self.triggers.insert(trigger.to_owned());
        let is_asked =
            |source: &EventSource| matches!(source, EventSource::Rule(rule) if rule == trigger);
        if question.sources().any(is_asked) {
            // Two metrics may have counted the same answers.
            let first = self.by_rule.entry((digest, trigger.to_owned()));
            let first = first.or_insert_with(|| event.to_owned());
            if event < first.as_str() {
                event.clone_into(first);
            }
        }
    }

    /// Whether an event of a record with this declaration belongs to a source.
    pub(super) fn has(&self, source: &EventSource, digest: u64, event: &str) -> bool {
        match source {
            EventSource::Named(name) => name == event,
            EventSource::Rule(rule) => {
                let counted = self.by_rule.get(&(digest, rule.clone()));
                counted.is_some_and(|name| name == event)
            }
        }
    }

    /// Says what of a question the archive does not have.
    pub(super) fn missing(&self, question: &ReplayQuestion) -> Option<String> {
        let list = |names: &BTreeSet<String>| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            names.join(", ")
        };
        if self.declarations.is_empty() {
            let (name, known) = (&question.experiment, list(&self.experiments));
            return Some(format!("it has no experiment {name:?}; known: {known}"));
        }
        question.sources().find_map(|source| match source {
            EventSource::Named(name) if !self.events.contains(name) => {
                let known = list(&self.events);
                Some(format!("it has no event {name:?}; known: {known}"))
            }
            EventSource::Rule(rule) if !self.by_rule.keys().any(|(_, known)| known == rule) => {
                let known = list(&self.triggers);
                Some(format!("no metric counted {rule:?}; counted were: {known}"))
            }
            _ => None,
        })
    }

    fn add(
        &mut self,
        question: &ReplayQuestion,
        rows: &ArchivedRows<'_>,
        row: usize,
    ) -> Result<(), ArchiveError> {
        let digest = digest_of(rows, "declaration", row)?;
        let event = rows.text("event", row)?;
        self.events.extend(event.map(str::to_owned));
        let definition = rows.text("definition", row)?;
        if let Some((event, definition)) = event.zip(definition) {
            self.add_trigger(question, (digest, event), trigger_of(definition));
        }
        let experiment = rows.text("experiment_id", row)?;
        self.experiments.extend(experiment.map(str::to_owned));
        if experiment != Some(&question.experiment) {
            return Ok(());
        }
        self.counted
            .extend(event.map(|event| (digest, event.to_owned())));
        let Some(group) = rows.text("variation_id", row)? else {
            return Ok(());
        };
        let weight = rows.double("weight", row)?.and_then(Weight::new);
        let group = DeclaredGroup {
            name: group.to_owned(),
            weight: weight.ok_or_else(|| rows.unreadable("weight"))?,
            upstream: rows.text("upstream", row)?.map(str::to_owned),
        };
        let declaration = match self.declarations.get(&digest) {
            Some(known) => Arc::clone(known),
            None => Arc::new(of_row(digest, question, rows, row)?),
        };
        let mut declaration = Arc::unwrap_or_clone(declaration);
        // Rows of groups are in file order.
        declaration.experiments[0].groups.push(group);
        self.declarations.insert(digest, Arc::new(declaration));
        Ok(())
    }
}

/// A declaration of one experiment, without its groups.
fn of_row(
    digest: u64,
    question: &ReplayQuestion,
    rows: &ArchivedRows<'_>,
    row: usize,
) -> Result<Declaration, ArchiveError> {
    let traffic = rows.double("traffic", row)?.and_then(Share::new);
    let experiment = DeclaredExperiment {
        name: question.experiment.clone(),
        epoch: EpochDigest(digest_of(rows, "epoch", row)?),
        traffic: traffic.ok_or_else(|| rows.unreadable("traffic"))?,
        groups: Vec::new(),
        metrics: vec![0],
        running: rows.truth("running", row)?,
        salt: rows.text("salt", row)?.map(str::to_owned),
        unit: rows.text("unit", row)?.map(str::to_owned),
    };
    Ok(Declaration {
        digest,
        experiments: vec![experiment],
        metrics: vec![question.metric.clone()],
    })
}

/// Reads a digest that is written in hexadecimal.
pub(super) fn digest_of(
    rows: &ArchivedRows<'_>,
    name: &str,
    row: usize,
) -> Result<u64, ArchiveError> {
    let text = rows.needed(name, row)?;
    u64::from_str_radix(text, 16).map_err(|_| rows.unreadable(name))
}
