//! A journal that is archived, and how far.

use super::claims::{self, Claim};
use super::error::ArchiveError;
use super::location::Location;
use crate::journal::{Chunk, Follower};
use std::sync::Arc;

/// The most records of a batch.
const RECORDS_MAX: usize = 20_000;

/// A journal that is archived.
pub(super) struct ArchivedJournal {
    follower: Follower,
    /// The last record that is archived.
    done: u64,
    /// A batch that is claimed, and perhaps not completely written.
    pending: Option<Claim>,
    /// Whether the archive was asked for an earlier process's position.
    is_located: bool,
}

impl ArchivedJournal {
    /// A journal of which nothing is archived as far as is known.
    pub(super) fn new(follower: Follower) -> ArchivedJournal {
        ArchivedJournal {
            done: follower.position() - 1,
            pending: None,
            // Nobody has archived a journal that this process made.
            is_located: follower.is_ours(),
            follower,
        }
    }

    /// Returns its name.
    pub(super) fn id(&self) -> &Arc<str> {
        self.follower.id()
    }

    /// Returns the number of records that are written and not archived.
    pub(super) fn waiting(&self) -> u64 {
        self.follower.waiting_after(self.done)
    }

    /// Returns the number of records that were deleted before they were archived.
    pub(super) fn dropped(&self) -> u64 {
        self.follower.dropped()
    }

    /// Returns the bytes that are kept for the archive alone.
    pub(super) fn held_bytes(&self) -> u64 {
        self.follower.held_bytes()
    }

    /// Whether nobody writes it, and all of it is archived or deleted.
    pub(super) fn is_over(&self) -> bool {
        self.pending.is_none() && self.is_located && self.waiting() == 0 && !self.follower.is_live()
    }

    /// Claims the next batch, and reads it; `None` if nothing new is written.
    pub(super) async fn next(
        &mut self,
        location: &Location,
    ) -> Result<Option<(Claim, Vec<Chunk>)>, ArchiveError> {
        self.locate(location).await?;
        if let Some(claim) = self.pending {
            return Ok(self.read_again(claim)?.map(|chunks| (claim, chunks)));
        }
        self.go_to(self.done);
        let chunk = self.read(u64::MAX)?;
        let (first, last) = (self.done + 1, self.follower.position() - 1);
        if last < first {
            return Ok(None);
        }
        if chunk.records.is_empty() {
            // All of them are damaged or deleted.
            self.done = last;
            self.follower.free(last);
            return Ok(None);
        }
        let asked = Claim { first, last };
        let claim = claims::claim(location, self.id(), asked).await?;
        self.pending = Some(claim);
        if claim == asked {
            return Ok(Some((claim, vec![chunk])));
        }
        Ok(self.read_again(claim)?.map(|chunks| (claim, chunks)))
    }

    /// The batch is completely archived.
    pub(super) fn done(&mut self, claim: Claim) {
        self.pending = None;
        self.done = claim.last;
        self.follower.free(claim.last);
    }

    /// Asks the archive how far an earlier process came. Its last batch is written again, in case it did not finish.
    async fn locate(&mut self, location: &Location) -> Result<(), ArchiveError> {
        if self.is_located {
            return Ok(());
        }
        let released = self.follower.released();
        if let Some(claim) = claims::last(location, self.id(), released).await? {
            // Records are deleted only after they were archived, or dropped.
            self.done = released.max(claim.first - 1);
            self.follower.free(self.done);
            self.pending = Some(claim).filter(|claim| claim.last > self.done);
        }
        self.is_located = true;
        Ok(())
    }

    /// Reads all records of a batch that are still there; `None` if they cannot be read now.
    fn read_again(&mut self, claim: Claim) -> Result<Option<Vec<Chunk>>, ArchiveError> {
        self.go_to(self.done);
        let mut chunks = Vec::new();
        while self.follower.position() <= claim.last {
            let before = self.follower.position();
            chunks.push(self.read(claim.last)?);
            if self.follower.position() == before {
                return Ok(None);
            }
        }
        Ok(Some(chunks))
    }

    fn read(&mut self, last: u64) -> Result<Chunk, ArchiveError> {
        let read = self.follower.next_through(RECORDS_MAX, last);
        read.map_err(|source| ArchiveError::Journal {
            journal: self.id().to_string(),
            source,
        })
    }

    fn go_to(&mut self, done: u64) {
        if self.follower.position() != done + 1 {
            self.follower.start_after(done);
        }
    }
}
