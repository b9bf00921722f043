//! Writes records of journals to an archive, each once: see [`super`].

use super::batch::{clean_again, write};
use super::definitions;
use super::encode::encode;
use super::error::ArchiveError;
use super::journal::ArchivedJournal;
use super::location::Location;
use super::rows::{BatchRows, PhaseNumbers, folder};
use super::tables::{self, RecordTable};
use crate::config::plan::Archive;
use crate::experiment::record::{Declaration, Served};
use crate::journal::rows::JournaledRecord;
use crate::journal::{Chunk, FoundJournals};
use crate::store::rounds::{FINISH_WITHIN, JournalRounds, Round, rounds};
use crate::store::{AllForgotten, Store, phases};
use crate::telemetry::Telemetry;
use arrow_array::RecordBatch;
use std::collections::{BTreeSet, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The name of files without rows.
const SCHEMA_FILE: &str = "schema.parquet";
/// The longest delay after an attempt that failed.
const DELAY_MAX: Duration = Duration::from_secs(5);

/// Writes records of journals to an archive.
pub struct Archiver {
    archive: Archive,
    location: Option<Location>,
    store: Arc<dyn Store>,
    telemetry: Arc<Telemetry>,
    found: FoundJournals,
    journals: Vec<ArchivedJournal>,
    phases: PhaseNumbers,
    /// Those that have begun: their numbers stay.
    begun: HashSet<(u64, usize)>,
    /// Declarations that the archive has.
    defined: HashSet<u64>,
    /// Records that were dropped from journals that are gone.
    dropped_before: u64,
    has_failed: bool,
}

impl Archiver {
    /// Makes an archiver of the journals in `found`, also of those that will be added.
    pub fn new(
        archive: Archive,
        store: Arc<dyn Store>,
        telemetry: Arc<Telemetry>,
        found: FoundJournals,
    ) -> Archiver {
        Archiver {
            archive,
            location: None,
            store,
            telemetry,
            found,
            journals: Vec::new(),
            phases: PhaseNumbers::new(),
            begun: HashSet::new(),
            defined: HashSet::new(),
            dropped_before: 0,
            has_failed: false,
        }
    }

    /// Archives at intervals until `stop` resolves, and then what is left, if that takes not long.
    pub async fn run(&mut self, stop: impl Future<Output = ()>) {
        if !rounds(self, stop).await {
            tracing::warn!(
                "not all records were archived within {FINISH_WITHIN:?}: the next process archives the rest"
            );
        }
    }

    /// Archives what is written now. Returns whether there is more.
    async fn archive(&mut self) -> Result<bool, ArchiveError> {
        let found = self.found.take().into_iter();
        self.journals.extend(found.map(ArchivedJournal::new));
        self.measure();
        let location = match &self.location {
            Some(location) => location.clone(),
            None => {
                let opened = self.open().await?;
                self.location.insert(opened).clone()
            }
        };
        let (mut is_more, mut unread) = (false, Ok(()));
        for place in 0..self.journals.len() {
            match self.step(&location, place).await {
                Ok(more) => is_more |= more,
                // The other journals can be read.
                Err(error @ ArchiveError::Journal { .. }) => unread = Err(error),
                Err(error) => return Err(error),
            }
        }
        let (over, on): (Vec<_>, Vec<_>) = std::mem::take(&mut self.journals)
            .into_iter()
            .partition(ArchivedJournal::is_over);
        self.journals = on;
        self.dropped_before += over.iter().map(ArchivedJournal::dropped).sum::<u64>();
        self.measure();
        unread.map(|()| is_more)
    }

    /// Archives the next batch of a journal. Returns whether there is more.
    async fn step(&mut self, location: &Location, place: usize) -> Result<bool, ArchiveError> {
        let journal = &mut self.journals[place];
        let Some((claim, chunks)) = journal.next(location).await? else {
            return Ok(false);
        };
        let id = Arc::clone(journal.id());
        let forgotten = AllForgotten::load(&*self.store).await?;
        self.place(&chunks).await?;
        self.define(location, &chunks).await?;
        let is_gone = |id: &[u8], at_ms| at_ms <= forgotten.until_ms(id);
        let rows = BatchRows::of(&chunks, &self.phases, is_gone);
        let files = write(location, (&id, claim), &rows).await?;
        clean_again(location, &*self.store, &forgotten, &files).await?;
        self.journals[place].done(claim);
        let archived = chunks
            .iter()
            .map(|chunk| chunk.records.len())
            .sum::<usize>();
        let counters = &self.telemetry.archive;
        counters
            .records
            .fetch_add(archived as u64, Ordering::Relaxed);
        let created = files.iter().filter(|file| !file.was_there).count();
        counters.files.fetch_add(created as u64, Ordering::Relaxed);
        Ok(self.journals[place].waiting() > 0)
    }

    /// Asks the store for the numbers of phases, as ingestion does.
    async fn place(&mut self, chunks: &[Chunk]) -> Result<(), ArchiveError> {
        let mut seen = BTreeSet::new();
        for (_, record) in chunks.iter().flat_map(|chunk| &chunk.records) {
            for exposure in &record.exposures {
                let begins = exposure.served == Served::Own;
                seen.insert((record.declaration, exposure.experiment.0, begins));
            }
        }
        for (digest, index, begins) in seen {
            let mut declarations = chunks.iter().filter_map(|it| it.declarations.get(&digest));
            if let Some(declaration) = declarations.next() {
                self.place_one(declaration, index, begins).await?;
            }
        }
        Ok(())
    }

    /// Asks for the number of the phase of an experiment. The first exposure that counts begins it.
    async fn place_one(
        &mut self,
        declaration: &Declaration,
        index: usize,
        begins: bool,
    ) -> Result<(), ArchiveError> {
        let place = (declaration.digest, index);
        let Some(experiment) = declaration.experiments.get(index) else {
            return Ok(());
        };
        if self.begun.contains(&place) {
            return Ok(());
        }
        let (store, metrics) = (&*self.store, &declaration.metrics);
        let placement = match begins {
            true => phases::claim(store, experiment, metrics).await?,
            false => phases::locate(store, experiment, metrics).await?.placement,
        };
        self.phases.insert(place, placement.phase);
        if begins {
            self.begun.insert(place);
        }
        Ok(())
    }

    /// Writes the declarations that records refer to, where the archive does not have them.
    async fn define(&mut self, location: &Location, chunks: &[Chunk]) -> Result<(), ArchiveError> {
        for chunk in chunks {
            for (seq, record) in &chunk.records {
                let digest = record.declaration;
                if self.defined.contains(&digest) {
                    continue;
                }
                let Some(declaration) = chunk.declarations.get(&digest) else {
                    continue;
                };
                for index in 0..declaration.experiments.len() {
                    self.place_one(declaration, index, false).await?;
                }
                let first = JournaledRecord {
                    journal: &chunk.journal,
                    seq: *seq,
                    record,
                };
                let rows = definitions::rows(declaration, first, &self.phases)?;
                let name = definitions::file_name(digest);
                location.create(&name, encode(&rows)?).await?;
                self.defined.insert(digest);
            }
        }
        Ok(())
    }

    /// Opens the archive, and gives each table a file without rows: programs that read a table of which there is no file
    /// do not know its columns.
    async fn open(&self) -> Result<Location, ArchiveError> {
        Location::prepare(&self.archive.to)?;
        // The next round tries again, and this one reports.
        let location = Location::open(&self.archive.to, 0)?;
        for table in RecordTable::ALL {
            let empty = RecordBatch::new_empty(table.schema());
            let name = format!("{}/{SCHEMA_FILE}", folder(table, 0));
            location.create(&name, encode(&empty)?).await?;
        }
        let empty = RecordBatch::new_empty(tables::definitions());
        let name = format!("{}/{SCHEMA_FILE}", tables::DEFINITIONS);
        location.create(&name, encode(&empty)?).await?;
        Ok(location)
    }

    fn measure(&self) {
        let counters = &self.telemetry.archive;
        let sum = |of: fn(&ArchivedJournal) -> u64| self.journals.iter().map(of).sum::<u64>();
        let dropped = self.dropped_before + sum(ArchivedJournal::dropped);
        counters.dropped.store(dropped, Ordering::Relaxed);
        let waiting = sum(ArchivedJournal::waiting);
        counters.waiting.store(waiting, Ordering::Relaxed);
        let held = sum(ArchivedJournal::held_bytes);
        counters.held_bytes.store(held, Ordering::Relaxed);
        let problem = (dropped > 0).then(|| {
            format!(
                "{dropped} records were deleted before the archive {} had them, because more of the journal waited than `archive.backlog` allows; the counts have them",
                self.archive.to
            )
        });
        self.problem("archive-dropped", problem);
    }

    fn report(&mut self, error: Option<&ArchiveError>) {
        let was_failing = std::mem::replace(&mut self.has_failed, error.is_some());
        if let Some(ArchiveError::Objects(_) | ArchiveError::Folder { .. }) = error {
            // A directory may have been removed.
            self.location = None;
        }
        let counters = &self.telemetry.archive;
        counters
            .failed
            .fetch_add(u64::from(error.is_some()), Ordering::Relaxed);
        let problem = error.map(|error| {
            format!(
                "the archive {} is not written: {}. Requests are served and counted, and records wait in the journal, up to `archive.backlog`",
                self.archive.to,
                error.with_advice()
            )
        });
        if was_failing && problem.is_none() {
            tracing::info!("the archive is written again");
        }
        self.problem("archive", problem);
    }

    fn problem(&self, subject: &'static str, problem: Option<String>) {
        if self.telemetry.problems.set(subject, problem.clone())
            && let Some(problem) = problem
        {
            tracing::error!("{problem}");
        }
    }
}

impl JournalRounds for Archiver {
    async fn round(&mut self) -> Round {
        let archived = self.archive().await;
        self.report(archived.as_ref().err());
        match archived {
            Ok(true) => Round::More,
            Ok(false) => Round::Done,
            Err(_) => Round::Failed(Duration::ZERO),
        }
    }

    fn interval(&self) -> Duration {
        self.archive.every
    }

    fn delay_max(&self) -> Duration {
        self.archive.every.min(DELAY_MAX)
    }

    /// Whether much of the journal is kept for the archive: what is beyond the backlog would be deleted.
    fn is_urgent(&self) -> bool {
        let held = self.journals.iter().map(ArchivedJournal::held_bytes);
        held.sum::<u64>() > self.archive.backlog_bytes / 2
    }
}
