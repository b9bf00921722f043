//! Moves records from the journals to the store, exactly once: read (I/O), aggregate (pure), apply
//! (I/O). While the store is unavailable it backs off, keeps the batch and releases no segment.

mod housekeeping;
mod placing;
mod refused_experiments;

use super::aggregate;
use super::applied_cache::{AppliedCache, SharedDevice};
use super::backoff::Backoff;
use super::buckets::Buckets;
use super::{Applied, Batch, Delta, Forget, JournalId, Store, StoreError};
use crate::journal::{Chunk, OwnedRecord, Reader};
use crate::telemetry::{IngestionLag, Telemetry};
use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The most records of one batch, over all journals. Redis, which runs one command at a time, adds them
/// in some tens of milliseconds.
const RECORDS_MAX: usize = 5_000;
/// The most bytes of IDs in one batch, over all journals, plus at most one piece: IDs may be long.
const ID_BYTES_MAX: usize = 4 << 20;
/// The most records that are read at once. A worker on the same core waits for them, a fraction of a
/// millisecond.
const PIECE: usize = 512;
/// The shortest pause. The timer cannot make shorter ones, which would only increase the lag.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// How often a batch is aggregated again because users were forgotten in between.
const FORGETTING_MAX: usize = 20;
/// The most deltas that are applied at the same time.
const PARTS_AT_ONCE: usize = 32;
/// The most unreadable journals that are named. Further ones have the same fix.
const FAILED_SHOWN_MAX: usize = 8;
/// How often segments are released and journals of ended processes are adopted.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// Moves records from journals to a store.
pub struct Ingestor {
    readers: Vec<Reader>,
    store: Arc<dyn Store>,
    telemetry: Arc<Telemetry>,
    cache: AppliedCache,
    /// Experiments that the store refuses, and why. They are not in `cache`.
    refused: BTreeMap<String, String>,
    buckets: Buckets,
    /// Whether all kept segments must be read again.
    from_the_start: bool,
    /// Whether records of an experiment that the store accepts again are not counted yet.
    is_read_again: bool,
    /// The time over which a lag is read; `None` to read it at once, because the process stops.
    over: Option<Duration>,
    /// A time in Unix milliseconds, and how far the journals were written then. Ingestion has not reached
    /// it yet.
    mark: Option<(u64, Vec<u64>)>,
    backoff: Backoff,
    housekept: tokio::time::Instant,
    /// By journal: how many dropped and damaged records the store knows of.
    stored_losses: HashMap<JournalId, (u64, u64)>,
    /// Damaged records of journals that were deleted.
    lost_before: u64,
    /// Whether the store has replied and has not failed since.
    answers: bool,
    /// Whether the last round failed.
    last_failed: bool,
    adopt: Box<dyn Fn() -> Vec<Reader> + Send + Sync>,
}

impl Ingestor {
    /// Makes an ingestor of these journals. `adopt` returns journals that other processes have left since.
    pub fn new(
        readers: Vec<Reader>,
        store: Arc<dyn Store>,
        telemetry: Arc<Telemetry>,
        adopt: impl Fn() -> Vec<Reader> + Send + Sync + 'static,
    ) -> Ingestor {
        let ingestor = Ingestor {
            readers,
            store,
            telemetry,
            cache: AppliedCache::default(),
            refused: BTreeMap::new(),
            buckets: Buckets::new(),
            from_the_start: false,
            is_read_again: false,
            over: None,
            mark: None,
            backoff: Backoff::new(),
            housekept: tokio::time::Instant::now(),
            stored_losses: HashMap::new(),
            lost_before: 0,
            answers: false,
            last_failed: false,
            adopt: Box::new(adopt),
        };
        // Records of earlier processes count as lag from the start.
        ingestor
            .telemetry
            .ingestion
            .caught_up_ms
            .store(now_ms(), Ordering::Relaxed);
        ingestor.measure();
        ingestor
    }

    /// Ingests every `interval` until `stop` resolves, and then the records that are left.
    pub async fn run(mut self, interval: Duration, stop: impl Future<Output = ()>) {
        self.follow(interval, stop, |_| true).await;
        self.finish().await;
    }

    /// Ingests every `interval` until `stop` resolves, or while `goes_on` holds for the lag. Returns whether
    /// it was stopped.
    pub async fn follow(
        &mut self,
        interval: Duration,
        stop: impl Future<Output = ()>,
        goes_on: impl Fn(IngestionLag) -> bool,
    ) -> bool {
        let mut stop = std::pin::pin!(stop.fuse());
        self.over = Some(interval);
        while goes_on(self.telemetry.lag(now_ms())) {
            let round = self.round(&mut stop).await;
            self.last_failed = round.is_err();
            let wait = match round {
                // A full batch means that more records wait. Otherwise records gather for a while, so
                // that the store gets a few deltas per second and not one per record.
                Ok(read) => {
                    self.report(None);
                    self.backoff = Backoff::new();
                    if read == Read::Full {
                        Duration::ZERO
                    } else {
                        interval
                    }
                }
                Err(error) => {
                    self.answers = false;
                    self.report(Some(&error));
                    self.backoff.delay()
                }
            };
            if stop.is_terminated() {
                return true;
            }
            if self.housekept.elapsed() > HOUSEKEEPING {
                self.housekept = tokio::time::Instant::now();
                self.keep_journals().await;
            }
            tokio::select! {
                () = &mut stop => return true,
                () = tokio::time::sleep(wait) => {}
            }
        }
        false
    }

    /// Ingests the records that are left.
    pub async fn finish(&mut self) {
        // A stop does not wait for a store that hangs. The journals keep the records.
        if self.last_failed {
            return;
        }
        self.over = None;
        let mut stop = std::future::pending().fuse();
        // Twice, in case the audit at the end finds a loss.
        for _ in 0..2 {
            loop {
                match self.round(&mut stop).await {
                    Ok(Read::Full | Read::Some) => {}
                    Ok(Read::Nothing) => break,
                    // The journals keep the records.
                    Err(_) => return,
                }
            }
            self.keep_journals().await;
        }
    }

    /// Ingests one batch: read, aggregate, apply.
    async fn round(
        &mut self,
        stop: &mut (impl FusedFuture<Output = ()> + Unpin),
    ) -> Result<Read, StoreError> {
        if std::mem::take(&mut self.from_the_start) {
            self.readers.iter_mut().for_each(|reader| reader.rewind(0));
        }
        let before: Vec<u64> = self
            .readers
            .iter()
            .map(|reader| reader.position() - 1)
            .collect();
        if self.mark.is_none() {
            self.mark = Some((now_ms(), self.readers.iter().map(Reader::written).collect()));
        }
        let (chunks, is_full) = self.read(stop).await;
        match self.give(&chunks).await {
            Ok(()) if self.from_the_start => {
                self.measure();
                return Ok(Read::Full);
            }
            Ok(()) if std::mem::take(&mut self.is_read_again) => self.report_refused(),
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
        let ingested: usize = chunks.iter().map(|chunk| chunk.records.len()).sum();
        self.telemetry
            .ingestion
            .ingested
            .fetch_add(ingested as u64, Ordering::Relaxed);
        self.pass_mark();
        Ok(match (is_full, ingested) {
            (true, _) => Read::Full,
            (false, 0) => Read::Nothing,
            (false, _) => Read::Some,
        })
    }

    /// Returns the most records to read of one journal at once.
    fn share(&self) -> usize {
        (RECORDS_MAX / self.readers.len().max(1)).max(1)
    }

    /// Returns the most bytes of IDs to read of one journal at once.
    fn share_of_bytes(&self) -> usize {
        (ID_BYTES_MAX / self.readers.len().max(1)).max(1)
    }

    /// Returns the lag: the records that are written and not ingested.
    fn behind(&self) -> u64 {
        let behind = |reader: &Reader| (reader.written() + 1).saturating_sub(reader.position());
        self.readers.iter().map(behind).sum()
    }

    /// Reads the next records of every journal in pieces. Returns them, and whether there may be more. It
    /// pauses between the pieces as long as the lag allows, which spreads the work.
    async fn read(
        &mut self,
        stop: &mut (impl FusedFuture<Output = ()> + Unpin),
    ) -> (Vec<Chunk>, bool) {
        let (share, share_of_bytes) = (self.share(), self.share_of_bytes());
        let pieces = u32::try_from(self.behind() / PIECE as u64).unwrap_or(u32::MAX);
        let mut pause = self.over.and_then(|over| over.checked_div(pieces));
        pause = pause.filter(|pause| *pause >= PAUSE_MIN);
        let mut chunks = Vec::with_capacity(self.readers.len());
        let mut is_full = false;
        let mut failed = Vec::new();
        // Records that are written meanwhile are left for the next batch: otherwise a record could be
        // counted before an earlier one of another worker.
        let written: Vec<u64> = self.readers.iter().map(Reader::written).collect();
        for (reader, written) in self.readers.iter_mut().zip(written) {
            let (mut records, mut bytes) = (0, 0);
            loop {
                let chunk = piece(reader, PIECE.min(share - records), written, &mut failed);
                let is_more = chunk.records.len() == PIECE;
                records += chunk.records.len();
                bytes += id_bytes(&chunk);
                chunks.push(chunk);
                let has_share = records >= share || bytes >= share_of_bytes;
                is_full |= has_share;
                if has_share || !is_more {
                    break;
                }
                if let Some(time) = pause {
                    tokio::select! {
                        () = &mut *stop => pause = None,
                        () = tokio::time::sleep(time) => {}
                    }
                }
            }
        }
        self.report_unread(&failed);
        (chunks, is_full)
    }

    /// Reports journals that cannot be read now. Their further records wait.
    fn report_unread(&self, failed: &[String]) {
        let problem = (!failed.is_empty()).then(|| {
            format!(
                "{}; its events are not counted until it can: make the file readable for the user that runs watershed and check the disk, or move it away (its records are then lost, and counted in damaged_events)",
                failed.join("; ")
            )
        });
        // Each round tries again; it is logged once.
        if self.telemetry.problems.set("reading", problem.clone())
            && let Some(problem) = problem
        {
            tracing::error!("{problem}");
        }
    }

    /// Advances `caught_up_ms` once all records up to the mark are ingested.
    fn pass_mark(&mut self) {
        let Some((at_ms, written)) = &self.mark else {
            return;
        };
        // Journals that were adopted since then are at the end.
        let passed = |(reader, &written): (&Reader, &u64)| reader.position() > written;
        if self.readers.iter().zip(written).all(passed) {
            let caught_up = &self.telemetry.ingestion.caught_up_ms;
            caught_up.store(*at_ms, Ordering::Relaxed);
            self.mark = None;
        }
    }

    /// Applies the chunks to the store.
    pub async fn give(&mut self, chunks: &[Chunk]) -> Result<(), StoreError> {
        if !self.answers {
            // Another store may be there by now.
            self.audit().await?;
            self.answers = true;
            if self.from_the_start {
                return Ok(());
            }
        }
        match self.report_loss().await {
            Err(error) if error.is_of_one_experiment() => self.report_missing(Some(&error)),
            reported => {
                reported?;
                self.report_missing(None);
            }
        }
        self.learn(chunks).await?;
        // Each repetition means that users were forgotten in between.
        for _ in 0..FORGETTING_MAX {
            let Batch { deltas, forget } =
                aggregate::aggregate(chunks, &self.cache, &self.buckets, now_ms());
            let mut stale = BTreeSet::new();
            for Forget {
                experiment,
                user,
                until_ms,
            } in forget
            {
                let forgotten = self.store.forget_user(&experiment, &user, until_ms);
                let forgotten = forgotten.await.map(drop);
                self.tolerate(&experiment, forgotten).await?;
                stale.insert(experiment);
            }
            if stale.is_empty() {
                stale = self.add(&deltas).await?;
            }
            if stale.is_empty() {
                return Ok(());
            }
            for experiment in stale {
                let learnt = self.learn_forgotten(&experiment).await;
                self.tolerate(&experiment, learnt).await?;
            }
        }
        Err(StoreError::Forgetting)
    }

    /// Applies deltas. Returns the experiments whose deltas must be aggregated again.
    async fn add(&mut self, deltas: &[Delta]) -> Result<BTreeSet<String>, StoreError> {
        let mut failed = Ok(());
        let mut refused = Vec::new();
        let mut stale = BTreeSet::new();
        // Shards are on several nodes, so deltas are applied concurrently.
        for deltas in deltas.chunks(PARTS_AT_ONCE) {
            let mut under_way = Vec::with_capacity(deltas.len());
            for delta in deltas {
                under_way.push(self.store.apply(delta));
            }
            let applied = futures_util::future::join_all(under_way).await;
            for (delta, applied) in deltas.iter().zip(applied) {
                match applied {
                    Ok(Applied::Added | Applied::AlreadyApplied) => {
                        let many = self.cache.given(delta);
                        many.iter()
                            .for_each(|many| warn_of(&delta.experiment, many));
                    }
                    Ok(Applied::PositionMismatch(has)) => {
                        tracing::debug!(?has, ranges = ?delta.ranges, "positions of the store");
                        self.lost(&delta.experiment);
                    }
                    Ok(Applied::Stale) => drop(stale.insert(delta.experiment.clone())),
                    Err(error) if error.is_of_one_experiment() => {
                        refused.push((delta.experiment.clone(), error));
                    }
                    // The other deltas are awaited, so that their outcome is known.
                    Err(error) => failed = Err(error),
                }
            }
            if failed.is_err() {
                break;
            }
        }
        for (experiment, error) in refused {
            stale.remove(&experiment);
            self.refuse(&experiment, &error).await;
        }
        failed.map(|()| stale)
    }

    /// Loads the forgotten users from the store.
    async fn learn_forgotten(&mut self, experiment: &str) -> Result<(), StoreError> {
        let shards = self.cache.experiments.get(experiment).map_or(0, Vec::len);
        let mut forgotten = Vec::with_capacity(shards);
        for shard in 0..shards {
            forgotten.push(self.store.forgotten(experiment, shard as u32).await?);
        }
        self.cache
            .forgotten
            .insert(experiment.to_owned(), forgotten);
        // The store has lost its forgotten users.
        self.cache.seen.clear();
        Ok(())
    }

    /// Handles a store whose position is behind: the next round reads all kept segments again, and skips
    /// the records that the store has.
    fn lost(&mut self, experiment: &str) {
        tracing::warn!(
            experiment,
            "the store's position is not what was written (it may have lost its last seconds): reading the journals again from its position"
        );
        self.cache.forget(experiment);
        self.from_the_start = true;
    }

    /// Stores the numbers of records that the journals dropped or lost.
    async fn report_loss(&mut self) -> Result<(), StoreError> {
        for reader in &self.readers {
            let (dropped, lost) = (reader.dropped(), reader.lost());
            let stored = self.stored_losses.entry(reader.id().clone()).or_default();
            if dropped > stored.0 {
                self.store.report_dropped(reader.id(), dropped).await?;
                stored.0 = dropped;
            }
            if lost > stored.1 {
                self.store.report_damaged(reader.id(), lost).await?;
                stored.1 = lost;
            }
        }
        Ok(())
    }

    /// Loads the store's positions for journals and experiments that are new here.
    async fn learn(&mut self, chunks: &[Chunk]) -> Result<(), StoreError> {
        let mut journals: Vec<JournalId> =
            chunks.iter().map(|chunk| chunk.journal.clone()).collect();
        journals.dedup();
        for key in self.place(chunks).await? {
            if !self.refused.contains_key(&key) {
                let learnt = self.learn_of(&key, &journals).await;
                self.tolerate(&key, learnt).await?;
            }
        }
        Ok(())
    }

    async fn learn_of(
        &mut self,
        experiment: &str,
        journals: &[JournalId],
    ) -> Result<(), StoreError> {
        if !self.cache.experiments.contains_key(experiment) {
            let shards = self.store.shards(experiment).await?;
            self.cache.experiments.insert(
                experiment.to_owned(),
                vec![HashMap::default(); shards as usize],
            );
            self.learn_forgotten(experiment).await?;
        }
        // The loop above has just inserted missing entries.
        let Some(shards) = self.cache.experiments.get_mut(experiment) else {
            return Ok(());
        };
        for (shard, given) in shards.iter_mut().enumerate() {
            let new: Vec<JournalId> = journals
                .iter()
                .filter(|id| !given.contains_key(*id))
                .cloned()
                .collect();
            if !new.is_empty() {
                let has = self.store.applied(experiment, shard as u32, &new).await?;
                given.extend(new.into_iter().zip(has));
            }
        }
        Ok(())
    }

    fn measure(&self) {
        let ingestion = &self.telemetry.ingestion;
        let live = self.readers.iter().filter(|reader| reader.is_ours());
        let left = self.readers.iter().filter(|reader| !reader.is_ours());
        ingestion.left.store(
            left.map(|reader| (reader.written() + 1).saturating_sub(reader.position()))
                .sum(),
            Ordering::Relaxed,
        );
        let stored = |reader: &Reader| {
            self.stored_losses
                .get(reader.id())
                .copied()
                .unwrap_or_default()
        };
        let unreported = |reader: &Reader| reader.dropped().saturating_sub(stored(reader).0);
        ingestion
            .dropped_unreported
            .store(self.readers.iter().map(unreported).sum(), Ordering::Relaxed);
        let unreported = |reader: &Reader| reader.lost().saturating_sub(stored(reader).1);
        ingestion
            .lost_unreported
            .store(self.readers.iter().map(unreported).sum(), Ordering::Relaxed);
        let lost: u64 = self.readers.iter().map(Reader::lost).sum();
        ingestion
            .lost
            .store(self.lost_before + lost, Ordering::Relaxed);
        ingestion.reached.store(
            live.map(|reader| reader.position() - 1).sum(),
            Ordering::Release,
        );
    }

    fn report(&self, error: Option<&StoreError>) {
        let ingestion = &self.telemetry.ingestion;
        let was_failing = ingestion.failing.swap(error.is_some(), Ordering::Relaxed);
        let text = error.map(StoreError::with_advice);
        let problem = text.as_ref().map(|text| {
            format!("the store is unavailable: {text}. Requests are served, and records wait in the journal")
        });
        let is_news = self.telemetry.problems.set("store", problem.clone());
        match problem {
            Some(problem) if is_news => tracing::error!("{problem}"),
            None if was_failing => tracing::info!("the store is available again"),
            _ => {}
        }
        if let Ok(mut last) = ingestion.error.lock() {
            *last = text;
        }
    }
}

/// Logs a device that has brought many known IDs.
fn warn_of(experiment: &str, many: &SharedDevice) {
    tracing::warn!(
        experiment,
        minted = %String::from_utf8_lossy(&many.minted),
        "one device has brought {} user IDs within ten minutes: many users share it, or somebody tries IDs. Each counts as a separate user; results report them as `shared_devices`",
        many.ids
    );
}

/// Reads the next records of a journal, up to a number of records and to the sequence number `last`. Adds
/// an error to the list if it cannot be read.
fn piece(reader: &mut Reader, records_max: usize, last: u64, failed: &mut Vec<String>) -> Chunk {
    let read = reader.next_through(records_max, last);
    read.unwrap_or_else(|error| {
        if failed.len() < FAILED_SHOWN_MAX {
            failed.push(format!(
                "the journal {} cannot be read: {error}",
                reader.id()
            ));
        }
        Chunk {
            journal: reader.id().clone(),
            records: Vec::new(),
            declarations: HashMap::default(),
        }
    })
}

/// Returns the bytes of the IDs in a chunk.
fn id_bytes(chunk: &Chunk) -> usize {
    let minted = |(_, record): &(u64, OwnedRecord)| record.minted.as_ref().map_or(0, Vec::len);
    let bytes = |record: &(u64, OwnedRecord)| record.1.user.len() + minted(record);
    chunk.records.iter().map(bytes).sum()
}

/// How much a round read.
#[derive(PartialEq)]
enum Read {
    /// A full batch: there may be more.
    Full,
    Some,
    Nothing,
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_millis() as u64)
}
