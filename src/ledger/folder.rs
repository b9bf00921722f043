//! Moves facts from the journals to the ledger, exactly once: read (I/O), fold (pure), apply
//! (I/O). When the ledger is away it backs off, keeps the batch and releases nothing.

mod housekeeping;

use super::backoff::Backoff;
use super::buckets::Buckets;
use super::fold;
use super::known::Known;
use super::{Applied, Batch, JournalId, Ledger, LedgerError, chain};
use crate::journal::{Chunk, Reader};
use crate::vitals::Vitals;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The most records folded in one batch, over all journals: what Redis, which does one thing at
/// a time, adds in some tens of milliseconds.
const RECORDS_MAX: usize = 5_000;
/// The most parts under way to the ledger at the same time.
const PARTS_AT_ONCE: usize = 32;
/// How often finished segments are released and journals of ended processes looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// Moves facts from journals to a ledger.
pub struct Folder {
    readers: Vec<Reader>,
    ledger: Arc<dyn Ledger>,
    vitals: Arc<Vitals>,
    known: Known,
    buckets: Buckets,
    /// Whether all that is kept is to be looked at again.
    from_the_start: bool,
    /// By journal, how many facts the ledger knows to be dropped.
    told_dropped: HashMap<JournalId, u64>,
    adopt: Box<dyn Fn() -> Vec<Reader> + Send>,
}

impl Folder {
    /// A folder of these journals. `adopt` is asked now and then for journals that another
    /// process has left since.
    pub fn new(
        readers: Vec<Reader>,
        ledger: Arc<dyn Ledger>,
        vitals: Arc<Vitals>,
        adopt: impl Fn() -> Vec<Reader> + Send + 'static,
    ) -> Folder {
        let folder = Folder {
            readers,
            ledger,
            vitals,
            known: Known::default(),
            buckets: Buckets::new(),
            from_the_start: false,
            told_dropped: HashMap::new(),
            adopt: Box::new(adopt),
        };
        // What was left is behind from the first moment.
        folder.measure();
        folder
    }

    /// Folds every `interval` until `stop` resolves, and then once more what is left.
    pub async fn run(mut self, interval: Duration, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut backoff = Backoff::new();
        let mut housekept = tokio::time::Instant::now();
        loop {
            let wait = match self.round().await {
                // A full batch means that more is waiting; anything less is given time to gather,
                // so that the ledger is asked a few times a second and not for every fact.
                Ok(read) => {
                    self.report(None);
                    backoff = Backoff::new();
                    if read == Read::Full {
                        Duration::ZERO
                    } else {
                        interval
                    }
                }
                Err(error) => {
                    self.report(Some(&error));
                    backoff.next()
                }
            };
            if housekept.elapsed() > HOUSEKEEPING {
                housekept = tokio::time::Instant::now();
                self.keep_house().await;
            }
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        // Twice, in case that a loss is found at the end.
        for _ in 0..2 {
            while let Ok(Read::Full | Read::Some) = self.round().await {}
            self.keep_house().await;
        }
    }

    /// One batch: read, fold, apply.
    async fn round(&mut self) -> Result<Read, LedgerError> {
        let begun_ms = now_ms();
        if std::mem::take(&mut self.from_the_start) {
            self.readers.iter_mut().for_each(|reader| reader.rewind(0));
        }
        let before: Vec<u64> = self
            .readers
            .iter()
            .map(|reader| reader.position() - 1)
            .collect();
        let chunks = self.read();
        match self.give(&chunks).await {
            Ok(()) if self.from_the_start => {
                self.measure();
                return Ok(Read::Full);
            }
            Ok(()) => {}
            Err(error) => {
                for (reader, before) in self.readers.iter_mut().zip(before) {
                    reader.rewind(before);
                }
                self.measure();
                return Err(error);
            }
        }
        self.measure();
        let folded: usize = chunks.iter().map(|chunk| chunk.records.len()).sum();
        self.vitals
            .folding
            .folded
            .fetch_add(folded as u64, Ordering::Relaxed);
        let is_full = |chunk: &Chunk| chunk.records.len() >= self.share();
        if chunks.iter().any(is_full) {
            return Ok(Read::Full);
        }
        self.vitals
            .folding
            .caught_up_ms
            .store(begun_ms, Ordering::Relaxed);
        Ok(if folded > 0 {
            Read::Some
        } else {
            Read::Nothing
        })
    }

    /// The most records read of one journal at once.
    fn share(&self) -> usize {
        (RECORDS_MAX / self.readers.len().max(1)).max(1)
    }

    fn read(&mut self) -> Vec<Chunk> {
        let share = self.share();
        let read = |reader: &mut Reader| {
            reader.next(share).unwrap_or_else(|error| {
                tracing::error!(journal = %reader.id(), "a journal cannot be read: {error}");
                Chunk {
                    journal: reader.id().clone(),
                    records: Vec::new(),
                    declarations: HashMap::default(),
                    through: 0,
                }
            })
        };
        self.readers.iter_mut().map(read).collect()
    }

    /// Gives the chunks to the ledger.
    async fn give(&mut self, chunks: &[Chunk]) -> Result<(), LedgerError> {
        self.tell_dropped().await?;
        self.learn(chunks).await?;
        let Batch { parts } = fold::fold(chunks, &self.known, &self.buckets);
        let mut failed = Ok(());
        // Shards lie on several nodes, so they are given their parts side by side.
        for parts in parts.chunks(PARTS_AT_ONCE) {
            let mut under_way = Vec::with_capacity(parts.len());
            for part in parts {
                under_way.push(self.ledger.apply(part));
            }
            let applied = futures_util::future::join_all(under_way).await;
            for (part, applied) in parts.iter().zip(applied) {
                match applied {
                    Ok(Applied::Now | Applied::Before) => self.known.given(part),
                    Ok(Applied::Mismatch(has)) => {
                        tracing::debug!(?has, spans = ?part.spans, "what the ledger has");
                        self.lost(&part.experiment);
                    }
                    // The others are looked at: what they were given is known then.
                    Err(error) => failed = Err(error),
                }
            }
            if failed.is_err() {
                break;
            }
        }
        failed
    }

    /// The ledger has something else than it was given: all that is kept is looked at again from
    /// the next round on, and what it has is passed over.
    fn lost(&mut self, experiment: &str) {
        tracing::warn!(
            experiment,
            "the ledger has something else than it was given (it may have lost its last seconds): folding again from what it has"
        );
        self.known.forget(experiment);
        self.from_the_start = true;
    }

    /// Tells the ledger what the journals could not take, so that it is known for good.
    async fn tell_dropped(&mut self) -> Result<(), LedgerError> {
        for reader in &self.readers {
            let dropped = reader.dropped();
            let told = self.told_dropped.entry(reader.id().clone()).or_default();
            if dropped > *told {
                self.ledger.tell_dropped(reader.id(), dropped).await?;
                *told = dropped;
            }
        }
        Ok(())
    }

    /// Asks the ledger what it has of journals and experiments that are new here.
    async fn learn(&mut self, chunks: &[Chunk]) -> Result<(), LedgerError> {
        let journals: Vec<JournalId> = chunks.iter().map(|chunk| chunk.journal.clone()).collect();
        for experiment in fold::touched(chunks) {
            if !self.known.experiments.contains_key(experiment) {
                let shards = self.ledger.shards(experiment).await?;
                self.known.experiments.insert(
                    experiment.to_owned(),
                    vec![HashMap::default(); shards as usize],
                );
            }
            // It was just put there where it was missing.
            let Some(shards) = self.known.experiments.get_mut(experiment) else {
                continue;
            };
            for (shard, given) in shards.iter_mut().enumerate() {
                let new: Vec<JournalId> = journals
                    .iter()
                    .filter(|id| !given.contains_key(*id))
                    .cloned()
                    .collect();
                if !new.is_empty() {
                    let has = self.ledger.applied(experiment, shard as u32, &new).await?;
                    given.extend(new.into_iter().zip(has));
                }
            }
        }
        Ok(())
    }

    fn measure(&self) {
        let folding = &self.vitals.folding;
        let live = self.readers.iter().filter(|reader| reader.is_ours());
        let left = self.readers.iter().filter(|reader| !reader.is_ours());
        folding.left.store(
            left.map(|reader| (reader.written() + 1).saturating_sub(reader.position()))
                .sum(),
            Ordering::Relaxed,
        );
        let untold = |reader: &Reader| {
            let told = self.told_dropped.get(reader.id()).copied().unwrap_or(0);
            reader.dropped().saturating_sub(told)
        };
        folding
            .dropped_untold
            .store(self.readers.iter().map(untold).sum(), Ordering::Relaxed);
        folding.lost.store(
            self.readers.iter().map(Reader::lost).sum(),
            Ordering::Relaxed,
        );
        folding.reached.store(
            live.map(|reader| reader.position() - 1).sum(),
            Ordering::Release,
        );
    }

    fn report(&self, error: Option<&LedgerError>) {
        let folding = &self.vitals.folding;
        let was_failing = folding.failing.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_failing => {
                tracing::error!(
                    "the ledger does not take results: {}; requests are served on, facts wait in the journal",
                    chain(error)
                );
            }
            None if was_failing => tracing::info!("the ledger takes results again"),
            _ => {}
        }
        if let Ok(mut last) = folding.error.lock() {
            *last = error.map(|error| chain(error));
        }
    }
}

/// What a round found in the journals.
#[derive(PartialEq)]
enum Read {
    /// As much as is read at once: there may be more.
    Full,
    Some,
    Nothing,
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_millis() as u64)
}
