//! Periodic work of ingestion: adopts journals of ended processes, audits the store, and releases
//! ingested segments.

use super::Ingestor;
use crate::journal::{self, Reader};
use crate::store::StoreError;
use crate::store::applied_cache::AppliedCache;
use std::sync::atomic::Ordering;

impl Ingestor {
    /// Starts again after a panic: reads all kept segments again, and skips the records that the store
    /// has.
    pub fn restart(&mut self, why: &str) {
        self.cache = AppliedCache::default();
        self.refused.clear();
        self.from_the_start = true;
        self.mark = None;
        let ingestion = &self.telemetry.ingestion;
        ingestion.failing.store(true, Ordering::Relaxed);
        if let Ok(mut last) = ingestion.error.lock() {
            *last = Some(format!("ingestion {why}"));
        }
    }

    /// Adopts journals of ended processes, audits the store, and releases ingested segments.
    pub(super) async fn keep_journals(&mut self) {
        let left: Vec<Reader> = (self.adopt)();
        self.readers.extend(left);
        self.measure();
        // A segment is deleted only after the audit found its records in the store.
        if let Err(error) = self.audit().await {
            self.answers = false;
            self.report(Some(&error));
            return;
        }
        self.probe_refused().await;
        // Records that wait for a refused experiment stay.
        if self.from_the_start || !self.refused.is_empty() {
            return;
        }
        let mut excess = journal::held_beyond(&self.readers);
        let excess_before = excess.clone();
        for reader in &mut self.readers {
            if let Err(error) = reader.release(reader.position() - 1, &mut excess) {
                tracing::warn!(journal = %reader.id(), "an ingested segment cannot be deleted: {error}");
            }
        }
        let (over, on): (Vec<_>, Vec<_>) = std::mem::take(&mut self.readers)
            .into_iter()
            .partition(|reader| reader.is_over(&excess_before));
        self.readers = on;
        if !over.is_empty() {
            // The mark refers to the readers by position.
            self.mark = None;
        }
        for reader in over {
            // A journal that cannot be deleted stays, and is tried again.
            if let Err(error) = reader.remove() {
                tracing::warn!(journal = %reader.id(), "an ingested journal cannot be deleted: {error}");
                self.readers.push(reader);
                continue;
            }
            if let Err(error) = self.forget(reader).await {
                tracing::warn!("the store cannot forget an ingested journal: {error}");
            }
        }
    }

    /// Forgets the positions of a deleted journal. In the opposite order, a crash in between would make
    /// its records count twice.
    async fn forget(&mut self, reader: Reader) -> Result<(), StoreError> {
        let id = reader.id().clone();
        self.lost_before += reader.lost();
        for (experiment, shards) in &mut self.cache.experiments {
            for (shard, given) in shards.iter_mut().enumerate() {
                if given.remove(&id).is_some_and(|through| through > 0) {
                    self.store.forget(experiment, shard as u32, &id).await?;
                }
            }
        }
        Ok(())
    }

    /// Checks the position of every shard. A store can lose its last seconds while no delta is applied that
    /// would show it.
    pub(super) async fn audit(&mut self) -> Result<(), StoreError> {
        self.store.ping().await?;
        let names: Vec<String> = self.cache.experiments.keys().cloned().collect();
        let mut lost = Vec::new();
        for experiment in names {
            match self.has_all(&experiment).await {
                Ok(true) => {}
                Ok(false) => lost.push(experiment),
                Err(error) => self.tolerate(&experiment, Err(error)).await?,
            }
        }
        for experiment in lost {
            self.lost(&experiment);
        }
        Ok(())
    }

    /// Whether the store still has all positions of an experiment.
    async fn has_all(&self, experiment: &str) -> Result<bool, StoreError> {
        let Some(shards) = self.cache.experiments.get(experiment) else {
            return Ok(true);
        };
        // This also registers the experiment again, in case only that was lost.
        if self.store.shards(experiment).await? as usize != shards.len() {
            return Ok(false);
        }
        for (shard, given) in shards.iter().enumerate() {
            let (journals, through): (Vec<_>, Vec<_>) = given
                .iter()
                .map(|(id, &through)| (id.clone(), through))
                .unzip();
            let applied = self.store.applied(experiment, shard as u32, &journals);
            if applied.await? != through {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
