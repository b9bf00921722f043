//! What the folder does now and then: takes over journals left by others, audits the store,
//! releases what is folded.

use super::Ingestor;
use crate::journal::Reader;
use crate::store::StoreError;
use crate::store::applied_cache::AppliedCache;
use std::sync::atomic::Ordering;

impl Ingestor {
    /// Begins again after a panic: everything that is kept is read once more, and what the store
    /// has is skipped.
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

    /// Takes over journals that were left, asks whether what was given is still there, and lets
    /// go of what is done with.
    pub(super) async fn keep_journals(&mut self) {
        let left: Vec<Reader> = (self.adopt)();
        self.readers.extend(left);
        self.measure();
        // Nothing is deleted before it is known that the store has it.
        if let Err(error) = self.audit().await {
            self.answers = false;
            self.report(Some(&error));
            return;
        }
        self.probe_refused().await;
        // What an experiment waits for stays.
        if self.from_the_start || !self.refused.is_empty() {
            return;
        }
        for reader in &mut self.readers {
            if let Err(error) = reader.release(reader.position() - 1) {
                tracing::warn!(journal = %reader.id(), "a folded segment cannot be deleted: {error}");
            }
        }
        let (over, on): (Vec<_>, Vec<_>) = std::mem::take(&mut self.readers)
            .into_iter()
            .partition(Reader::is_over);
        self.readers = on;
        if !over.is_empty() {
            // It goes by their order.
            self.mark = None;
        }
        for reader in over {
            // What cannot be deleted is kept, and tried again.
            if let Err(error) = reader.remove() {
                tracing::warn!(journal = %reader.id(), "a journal that is over cannot be deleted: {error}");
                self.readers.push(reader);
                continue;
            }
            if let Err(error) = self.forget(reader).await {
                tracing::warn!("a journal that is over cannot be forgotten: {error}");
            }
        }
    }

    /// Forgets a journal that is deleted. The other way round, a crash in between would have it
    /// folded twice.
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

    /// Asks every shard whether it still has what it was given. A store can lose its last seconds
    /// when there is nothing more to give that would show it.
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

    /// Whether the store still has what it was given of an experiment.
    async fn has_all(&self, experiment: &str) -> Result<bool, StoreError> {
        let Some(shards) = self.cache.experiments.get(experiment) else {
            return Ok(true);
        };
        // Also told anew that there is such an experiment, in case that just this was lost.
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
