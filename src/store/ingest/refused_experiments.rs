//! Experiments that the store refuses, for example because a key has another type. The others are
//! counted meanwhile. Records of a refused experiment stay in the journal, and are ingested once the
//! store accepts them.

use super::Ingestor;
use crate::store::{Delta, JournalId, StoreError};

impl Ingestor {
    /// Stops ingestion for this experiment until the store accepts it again.
    pub(super) async fn refuse(&mut self, experiment: &str, error: &StoreError) {
        // The probe reads every key, so its error names the one that is wrong.
        let named = self.probe(experiment).await.err();
        let text = named.as_ref().unwrap_or(error).with_advice();
        self.cache.forget(experiment);
        self.refused.insert(experiment.to_owned(), text);
        self.report_refused();
    }

    /// Accepts an error that concerns this experiment alone, and refuses the experiment then.
    pub(super) async fn tolerate(
        &mut self,
        experiment: &str,
        done: Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match done {
            Err(error) if error.is_of_one_experiment() => {
                self.refuse(experiment, &error).await;
                Ok(())
            }
            done => done,
        }
    }

    /// Checks which experiments the store accepts again, and ingests their records.
    pub(super) async fn probe_refused(&mut self) {
        let names: Vec<String> = self.refused.keys().cloned().collect();
        for experiment in names {
            match self.probe(&experiment).await {
                Ok(()) => {
                    tracing::info!(experiment, "the store accepts its results again");
                    self.refused.remove(&experiment);
                    self.from_the_start = true;
                    self.is_read_again = true;
                }
                Err(error) => {
                    let text = error.with_advice();
                    self.refused.insert(experiment, text);
                }
            }
        }
        // It stays reported until the records that waited are counted.
        if !self.is_read_again {
            self.report_refused();
        }
    }

    /// Runs every operation that ingestion needs of an experiment.
    async fn probe(&self, experiment: &str) -> Result<(), StoreError> {
        let journals: Vec<JournalId> = self.readers.iter().map(|it| it.id().clone()).collect();
        for shard in 0..self.store.shards(experiment).await? {
            let delta = Delta {
                shard,
                ..Delta::nothing(experiment)
            };
            // It adds nothing, and fails if a key has another type.
            self.store.apply(&delta).await?;
            self.store.applied(experiment, shard, &journals).await?;
            self.store.forgotten(experiment, shard).await?;
        }
        self.store.running_minima(experiment).await?;
        Ok(())
    }

    pub(super) fn report_refused(&self) {
        let refusals = self.refused.iter().map(|(experiment, error)| {
            format!("the store does not accept results of the experiment {experiment}: {error}. Its records wait in the journal, and other experiments are counted")
        });
        let problem = (!self.refused.is_empty()).then(|| refusals.collect::<Vec<_>>().join("; "));
        if self.telemetry.problems.set("experiments", problem.clone())
            && let Some(problem) = problem
        {
            tracing::error!("{problem}");
        }
    }

    /// Reports that the store cannot keep the number of lost records.
    pub(super) fn report_missing(&self, error: Option<&StoreError>) {
        let problem = error.map(|error| {
            let error = error.with_advice();
            format!("the store cannot keep the number of lost records: {error}")
        });
        if self.telemetry.problems.set("missing", problem.clone())
            && let Some(problem) = problem
        {
            tracing::error!("{problem}");
        }
    }
}
