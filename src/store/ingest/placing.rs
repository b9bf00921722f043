//! Where the counts of declared experiments stand: see [`crate::store::phases`].

use super::Ingestor;
use crate::experiment::record::Declaration;
use crate::journal::Chunk;
use crate::store::{StoreError, aggregate, phases};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Ingestor {
    /// Asks the store where the counts of the experiments stand that records concern; the keys of
    /// their phases. What a phase begins with is kept before its first user is counted.
    pub(super) async fn place(&mut self, chunks: &[Chunk]) -> Result<BTreeSet<String>, StoreError> {
        let declarations = chunks.iter().flat_map(|chunk| &chunk.declarations);
        let declarations: BTreeMap<u64, &Arc<Declaration>> =
            declarations.map(|(digest, it)| (*digest, it)).collect();
        let mut keys = BTreeSet::new();
        for (digest, concerned) in aggregate::concerned(chunks) {
            let Some(declaration) = declarations.get(&digest) else {
                continue;
            };
            let experiments = declaration.experiments.iter().enumerate();
            for (index, experiment) in experiments.filter(|(index, it)| concerned.has(*index, it)) {
                let is_exposed = concerned.exposed.contains(&index);
                let placed = self
                    .place_one((digest, index), declaration, is_exposed)
                    .await;
                match placed {
                    Ok(key) => drop(keys.insert(key)),
                    // It is not known where it is counted, so nothing of it is.
                    Err(error) => self.tolerate(&experiment.name, Err(error)).await?,
                }
            }
        }
        Ok(keys)
    }

    async fn place_one(
        &mut self,
        place: (u64, usize),
        declaration: &Declaration,
        is_exposed: bool,
    ) -> Result<String, StoreError> {
        if let Some(placement) = self.cache.placements.get(&place)
            && self.cache.begun.contains(&place)
        {
            return Ok(placement.key.clone());
        }
        let (store, experiment) = (&*self.store, &declaration.experiments[place.1]);
        let placement = match is_exposed {
            true => {
                let placement = phases::claim(store, experiment, &declaration.metrics).await?;
                self.cache.begun.insert(place);
                placement
            }
            // Before the first user it may still begin otherwise.
            false => {
                let located = phases::locate(store, experiment, &declaration.metrics);
                located.await?.placement
            }
        };
        let key = placement.key.clone();
        self.cache.placements.insert(place, placement);
        Ok(key)
    }
}
