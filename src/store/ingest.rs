//! Moves facts from the journals to the store, exactly once: read (I/O), fold (pure), apply
//! (I/O). When the store is away it backs off, keeps the batch and releases nothing.

mod housekeeping;
mod placing;
mod refused_experiments;

use super::aggregate;
use super::applied_cache::{AppliedCache, SharedDevice};
use super::backoff::Backoff;
use super::buckets::Buckets;
use super::{Applied, Batch, Delta, Forget, JournalId, Store, StoreError};
use crate::journal::{Chunk, OwnedRecord, Reader};
use crate::telemetry::Telemetry;
use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The most records folded in one batch, over all journals: what Redis, which does one thing at
/// a time, adds in some tens of milliseconds.
const RECORDS_MAX: usize = 5_000;
/// The most bytes of IDs in one batch, over all journals, give or take a piece: IDs may be long.
const ID_BYTES_MAX: usize = 4 << 20;
/// The most records read at once while there is time: what a worker that has the same core waits
/// for, a fraction of a millisecond.
const PIECE: usize = 512;
/// Shorter ones are not kept by the timer, and would only make what is far behind stay so.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// So often, facts are folded again because users were forgotten in between.
const FORGETTING_MAX: usize = 20;
/// The most deltas under way to the store at the same time.
const PARTS_AT_ONCE: usize = 32;
/// So many journals that cannot be read are named; more wait for the same fix.
const FAILED_SHOWN_MAX: usize = 8;
/// How often finished segments are released and journals of ended processes looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// Moves facts from journals to a store.
pub struct Ingestor {
    readers: Vec<Reader>,
    store: Arc<dyn Store>,
    telemetry: Arc<Telemetry>,
    cache: AppliedCache,
    /// Experiments that the store refuses alone, and why. They are not in `cache`.
    refused: BTreeMap<String, String>,
    buckets: Buckets,
    /// Whether all that is kept is to be looked at again.
    from_the_start: bool,
    /// Whether what waited for an experiment that the store takes again is not counted yet.
    is_read_again: bool,
    /// What is behind is read over this time, not at once; `None` where it is waited for.
    over: Option<Duration>,
    /// How far the journals were written at a time that is not reached yet, in Unix milliseconds.
    mark: Option<(u64, Vec<u64>)>,
    backoff: Backoff,
    housekept: tokio::time::Instant,
    /// By journal, how many facts the store knows to be dropped, and damaged.
    told: HashMap<JournalId, (u64, u64)>,
    /// Facts that were damaged in journals that are over.
    lost_before: u64,
    /// Whether the store answered, and has not failed since.
    answers: bool,
    /// Whether it failed the last time that it was given something.
    last_failed: bool,
    adopt: Box<dyn Fn() -> Vec<Reader> + Send + Sync>,
}

impl Ingestor {
    /// A ingestor of these journals. `adopt` is asked now and then for journals that another
    /// process has left since.
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
            told: HashMap::new(),
            lost_before: 0,
            answers: false,
            last_failed: false,
            adopt: Box::new(adopt),
        };
        // What was left is behind from the first moment.
        ingestor
            .telemetry
            .ingestion
            .caught_up_ms
            .store(now_ms(), Ordering::Relaxed);
        ingestor.measure();
        ingestor
    }

    /// Folds every `interval` until `stop` resolves, and then once more what is left.
    pub async fn run(mut self, interval: Duration, stop: impl Future<Output = ()>) {
        self.follow(interval, stop, |_| true).await;
        self.finish().await;
    }

    /// Folds every `interval` until `stop` resolves, or for as long as it `goes_on` with so many
    /// facts behind; whether it was stopped.
    pub async fn follow(
        &mut self,
        interval: Duration,
        stop: impl Future<Output = ()>,
        goes_on: impl Fn(u64) -> bool,
    ) -> bool {
        let mut stop = std::pin::pin!(stop.fuse());
        self.over = Some(interval);
        while goes_on(self.behind()) {
            let round = self.round(&mut stop).await;
            self.last_failed = round.is_err();
            let wait = match round {
                // A full batch means that more is waiting; anything less is given time to gather,
                // so that the store is asked a few times a second and not for every fact.
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
                    self.backoff.next()
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

    /// Folds what is left.
    pub async fn finish(&mut self) {
        // A stop does not wait for a store that hangs. The journals keep what it has not taken.
        if self.last_failed {
            return;
        }
        self.over = None;
        let mut stop = std::future::pending().fuse();
        // Twice, in case that a loss is found at the end.
        for _ in 0..2 {
            loop {
                match self.round(&mut stop).await {
                    Ok(Read::Full | Read::Some) => {}
                    Ok(Read::Nothing) => break,
                    // The journals keep what the store does not take now.
                    Err(_) => return,
                }
            }
            self.keep_journals().await;
        }
    }

    /// One batch: read, fold, apply.
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
        let folded: usize = chunks.iter().map(|chunk| chunk.records.len()).sum();
        self.telemetry
            .ingestion
            .ingested
            .fetch_add(folded as u64, Ordering::Relaxed);
        self.pass_mark();
        Ok(match (is_full, folded) {
            (true, _) => Read::Full,
            (false, 0) => Read::Nothing,
            (false, _) => Read::Some,
        })
    }

    /// The most records read of one journal at once.
    fn share(&self) -> usize {
        (RECORDS_MAX / self.readers.len().max(1)).max(1)
    }

    /// The most bytes of IDs read of one journal at once.
    fn share_of_bytes(&self) -> usize {
        (ID_BYTES_MAX / self.readers.len().max(1)).max(1)
    }

    /// How many facts are written and not folded.
    fn behind(&self) -> u64 {
        let behind = |reader: &Reader| (reader.written() + 1).saturating_sub(reader.position());
        self.readers.iter().map(behind).sum()
    }

    /// What comes next in every journal, in pieces, and whether there may be more. Between them is
    /// waited for as long as leaves time for what is behind: the same work, but not all of it at
    /// once.
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
        // Not what is written while others are read: the response to an earlier request, which
        // another worker recorded, would be counted after it.
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

    /// Reports journals that cannot be read now: what follows in them waits.
    fn report_unread(&self, failed: &[String]) {
        let problem = (!failed.is_empty()).then(|| {
            format!(
                "{}; its events are not counted until it can: make the file readable for the user that runs watershed and look at the disk, or move it away (what is in it is then lost, and counted in damaged_events)",
                failed.join("; ")
            )
        });
        // Tried again with each round, and logged once.
        if self.telemetry.problems.set("reading", problem.clone())
            && let Some(problem) = problem
        {
            tracing::error!("{problem}");
        }
    }

    /// Notes that everything is folded that was written at a time, once that is so.
    fn pass_mark(&mut self) {
        let Some((at_ms, written)) = &self.mark else {
            return;
        };
        // Journals that were adopted since come last.
        let passed = |(reader, &written): (&Reader, &u64)| reader.position() > written;
        if self.readers.iter().zip(written).all(passed) {
            let caught_up = &self.telemetry.ingestion.caught_up_ms;
            caught_up.store(*at_ms, Ordering::Relaxed);
            self.mark = None;
        }
    }

    /// Gives the chunks to the store.
    async fn give(&mut self, chunks: &[Chunk]) -> Result<(), StoreError> {
        if !self.answers {
            // It may be another one by now.
            self.audit().await?;
            self.answers = true;
            if self.from_the_start {
                return Ok(());
            }
        }
        match self.report_loss().await {
            Err(error) if error.is_of_one_experiment() => self.report_missing(Some(&error)),
            told => {
                told?;
                self.report_missing(None);
            }
        }
        self.learn(chunks).await?;
        // Each time, users were forgotten in between.
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

    /// Adds deltas; the experiments of those that are to be folded again.
    async fn add(&mut self, deltas: &[Delta]) -> Result<BTreeSet<String>, StoreError> {
        let mut failed = Ok(());
        let mut refused = Vec::new();
        let mut stale = BTreeSet::new();
        // Shards lie on several nodes, so they are given their deltas side by side.
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
                        tracing::debug!(?has, ranges = ?delta.ranges, "what the store has");
                        self.lost(&delta.experiment);
                    }
                    Ok(Applied::Stale) => drop(stale.insert(delta.experiment.clone())),
                    Err(error) if error.is_of_one_experiment() => {
                        refused.push((delta.experiment.clone(), error));
                    }
                    // The others are looked at: what they were given is known then.
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

    /// Asks the store who was forgotten.
    async fn learn_forgotten(&mut self, experiment: &str) -> Result<(), StoreError> {
        let shards = self.cache.experiments.get(experiment).map_or(0, Vec::len);
        let mut forgotten = Vec::with_capacity(shards);
        for shard in 0..shards {
            forgotten.push(self.store.forgotten(experiment, shard as u32).await?);
        }
        self.cache
            .forgotten
            .insert(experiment.to_owned(), forgotten);
        // The store has lost what it had recorded of them.
        self.cache.seen.clear();
        Ok(())
    }

    /// The store has something else than it was given: all that is kept is looked at again from
    /// the next round on, and what it has is passed over.
    fn lost(&mut self, experiment: &str) {
        tracing::warn!(
            experiment,
            "the store has something else than it was given (it may have lost its last seconds): folding again from what it has"
        );
        self.cache.forget(experiment);
        self.from_the_start = true;
    }

    /// Tells the store what the journals could not take or have lost, so that it is known for
    /// good.
    async fn report_loss(&mut self) -> Result<(), StoreError> {
        for reader in &self.readers {
            let (dropped, lost) = (reader.dropped(), reader.lost());
            let told = self.told.entry(reader.id().clone()).or_default();
            if dropped > told.0 {
                self.store.report_dropped(reader.id(), dropped).await?;
                told.0 = dropped;
            }
            if lost > told.1 {
                self.store.report_damaged(reader.id(), lost).await?;
                told.1 = lost;
            }
        }
        Ok(())
    }

    /// Asks the store what it has of journals and experiments that are new here.
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
        // It was just put there where it was missing.
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
        let told = |reader: &Reader| self.told.get(reader.id()).copied().unwrap_or_default();
        let untold = |reader: &Reader| reader.dropped().saturating_sub(told(reader).0);
        ingestion
            .dropped_unreported
            .store(self.readers.iter().map(untold).sum(), Ordering::Relaxed);
        let untold = |reader: &Reader| reader.lost().saturating_sub(told(reader).1);
        ingestion
            .lost_unreported
            .store(self.readers.iter().map(untold).sum(), Ordering::Relaxed);
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
            format!("the store does not take results: {text}. Requests are served, and facts wait in the journal")
        });
        let is_news = self.telemetry.problems.set("store", problem.clone());
        match problem {
            Some(problem) if is_news => tracing::error!("{problem}"),
            None if was_failing => tracing::info!("the store takes results again"),
            _ => {}
        }
        if let Ok(mut last) = ingestion.error.lock() {
            *last = text;
        }
    }
}

/// Warns of a device that has brought many known IDs.
fn warn_of(experiment: &str, many: &SharedDevice) {
    tracing::warn!(
        experiment,
        minted = %String::from_utf8_lossy(&many.minted),
        "one device has brought {} user IDs within ten minutes: many people share it, or somebody tries IDs. Each counts as its own user; results report them as `shared_devices`",
        many.ids
    );
}

/// What comes next in a journal, up to so many records and to the sequence number `last`. Notes
/// where it cannot be read.
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

/// The bytes of the IDs in a chunk.
fn id_bytes(chunk: &Chunk) -> usize {
    let minted = |(_, record): &(u64, OwnedRecord)| record.minted.as_ref().map_or(0, Vec::len);
    let bytes = |record: &(u64, OwnedRecord)| record.1.user.len() + minted(record);
    chunk.records.iter().map(bytes).sum()
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
