//! Experiments that the store refuses alone, such as one with a key of another type: others are
//! counted meanwhile. Their facts stay in the journal, and are folded once the store takes them.

use super::Ingestor;
use crate::store::{Delta, JournalId, StoreError};

impl Ingestor {
    /// Folds nothing for this experiment until the store takes it again.
    pub(super) async fn refuse(&mut self, experiment: &str, error: &StoreError) {
        // The store names the key where it is asked for all of them.
        let named = self.probe(experiment).await.err();
        let text = named.as_ref().unwrap_or(error).with_advice();
        self.cache.forget(experiment);
        self.refused.insert(experiment.to_owned(), text);
        self.report_refused();
    }

    /// Whether an error concerns this experiment alone; then it is held up.
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

    /// Looks which experiments the store takes again, and folds for them what is kept.
    pub(super) async fn probe_refused(&mut self) {
        let names: Vec<String> = self.refused.keys().cloned().collect();
        for experiment in names {
            match self.probe(&experiment).await {
                Ok(()) => {
                    tracing::info!(experiment, "the store takes its results again");
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
        // Reported as long as what waited is not counted.
        if !self.is_read_again {
            self.report_refused();
        }
    }

    /// Asks for all that ingestion needs of an experiment.
    async fn probe(&self, experiment: &str) -> Result<(), StoreError> {
        let journals: Vec<JournalId> = self.readers.iter().map(|it| it.id().clone()).collect();
        for shard in 0..self.store.shards(experiment).await? {
            let delta = Delta {
                shard,
                ..Delta::nothing(experiment)
            };
            // It adds nothing, and is refused where a key has another type.
            self.store.apply(&delta).await?;
            self.store.applied(experiment, shard, &journals).await?;
            self.store.forgotten(experiment, shard).await?;
        }
        self.store.running_minima(experiment).await?;
        Ok(())
    }

    pub(super) fn report_refused(&self) {
        let told = self.refused.iter().map(|(experiment, error)| {
            format!("the store does not take results of the experiment {experiment}: {error}. Its facts wait in the journal, and other experiments are counted")
        });
        let problem = (!self.refused.is_empty()).then(|| told.collect::<Vec<_>>().join("; "));
        if self.telemetry.problems.set("experiments", problem.clone())
            && let Some(problem) = problem
        {
            tracing::error!("{problem}");
        }
    }

    /// Reports that the store cannot keep how many facts were lost.
    pub(super) fn report_missing(&self, error: Option<&StoreError>) {
        let problem = error.map(|error| {
            let error = error.with_advice();
            format!("the store does not keep how many facts were lost: {error}")
        });
        if self.telemetry.problems.set("missing", problem.clone())
            && let Some(problem) = problem
        {
            tracing::error!("{problem}");
        }
    }
}
