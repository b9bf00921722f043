//! A cache of what the store has, which saves queries and repeated exposures. PURE.

use super::forgotten::ForgottenUsers;
use super::phases::Placement;
use super::{Delta, JournalId};
use foldhash::fast::RandomState;
use smallvec::SmallVec;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

/// What the store is known to have: the shards of each experiment, and each shard's position in each
/// journal.
#[derive(Clone, Debug, Default)]
pub struct AppliedCache {
    /// By key of a phase. A phase that is missing here is not ingested.
    pub experiments: HashMap<String, AppliedShards, RandomState>,
    /// By key of a phase: the forgotten users of each shard.
    pub forgotten: HashMap<String, Vec<ForgottenUsers>, RandomState>,
    /// Users whose exposure the store has.
    pub seen: SeenUsers,
    /// By declaration's digest and place of an experiment in it: where its counts stand. One that is
    /// not here stands in its first phase.
    pub placements: HashMap<(u64, usize), Placement, RandomState>,
    /// Those of phases that have begun: they stay where they are.
    pub begun: HashSet<(u64, usize), RandomState>,
}

impl AppliedCache {
    /// Records that the store has a delta. Returns devices that have brought many known IDs lately.
    pub fn given(&mut self, delta: &Delta) -> Vec<SharedDevice> {
        let many = self.seen.remember(delta);
        for range in &delta.ranges {
            self.set(delta, &range.journal, range.through);
        }
        many
    }

    /// Drops an experiment, so that the store is queried again.
    pub fn forget(&mut self, experiment: &str) {
        self.experiments.remove(experiment);
        self.forgotten.remove(experiment);
        // What a phase began with may be lost, too.
        self.placements.clear();
        self.begun.clear();
        self.seen.clear();
    }

    fn set(&mut self, delta: &Delta, journal: &JournalId, through: u64) {
        let shards = self.experiments.get_mut(&delta.experiment);
        if let Some(given) = shards.and_then(|shards| shards.get_mut(delta.shard as usize)) {
            given.insert(journal.clone(), through);
        }
    }
}

/// A device that has brought many known IDs within ten minutes: many users share it, or somebody tries
/// IDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedDevice {
    /// Its minted ID, as it is stored.
    pub minted: Vec<u8>,
    /// The number of known IDs.
    pub ids: u32,
}

/// The numbers of known IDs of one device that cause a warning.
const MANY_IDS: [u32; 4] = [10, 100, 1_000, 10_000];

/// Users whose exposure to a group the store has. Most requests are from such users, and their exposures
/// need not be sent again. Its size is bounded: an exposure that it dropped is sent again.
#[derive(Clone, Debug, Default)]
pub struct SeenUsers {
    /// Hashes the keys. It is random for each process, so that nobody can choose IDs that collide.
    keys: (
        foldhash::quality::RandomState,
        foldhash::quality::RandomState,
    ),
    /// The time of the exposure, by a 128-bit hash of experiment, group and user.
    first_ms: HashMap<u128, u64, RandomState>,
    /// Minted and known IDs that came together, by a hash of experiment and both.
    joined: HashSet<u128, RandomState>,
    /// The number of known IDs that came with each minted ID, by a hash of experiment and minted ID.
    devices: HashMap<u128, u32, RandomState>,
    /// The earliest time in it.
    since_ms: u64,
}

impl SeenUsers {
    /// The most entries: about 12 MB.
    const MAX: usize = 250_000;

    /// The longest time that an entry stays: a user who returns after being forgotten is a new user.
    const KEEP_MS: u64 = 600_000;

    /// Records the exposures and joins of a delta.
    pub fn remember(&mut self, delta: &Delta) -> Vec<SharedDevice> {
        if self.first_ms.len() + self.joined.len() >= Self::MAX {
            self.clear();
        }
        // A visitor who was seen once is not counted before the ID comes back with another exposure.
        for user in delta
            .users
            .iter()
            .filter(|user| user.came_back_ms.is_some())
        {
            for exposure in &user.exposures {
                if self.since_ms == 0 || exposure.at_ms > self.since_ms + Self::KEEP_MS {
                    self.clear();
                    self.since_ms = exposure.at_ms;
                }
                let key = self.key(&delta.experiment, &exposure.group, &user.user);
                let first_ms = self.first_ms.entry(key).or_insert(exposure.at_ms);
                *first_ms = exposure.at_ms.min(*first_ms);
            }
        }
        let mut many = Vec::new();
        for join in &delta.joins {
            let pair = self.pair(&delta.experiment, &join.minted, &join.known);
            if self.joined.insert(pair) {
                let device = self.key(&delta.experiment, "", &join.minted);
                let ids = self.devices.entry(device).or_default();
                *ids += 1;
                if MANY_IDS.contains(ids) {
                    let (minted, ids) = (join.minted.clone(), *ids);
                    many.push(SharedDevice { minted, ids });
                }
            }
        }
        many
    }

    /// Whether the store has this join.
    pub fn has_joined(&self, experiment: &str, minted: &[u8], known: &[u8]) -> bool {
        self.joined.contains(&self.pair(experiment, minted, known))
    }

    fn pair(&self, experiment: &str, first: &[u8], other: &[u8]) -> u128 {
        // An ID may contain a slash, so its length separates it from the other ID.
        let mut ids = SmallVec::<[u8; 256]>::from_slice(&first.len().to_le_bytes());
        ids.extend_from_slice(first);
        ids.extend_from_slice(other);
        self.key(experiment, "", &ids)
    }

    /// Drops all entries, because the store has lost data.
    pub fn clear(&mut self) {
        self.first_ms.clear();
        self.joined.clear();
        self.devices.clear();
        self.since_ms = 0;
    }

    /// Whether the store has an exposure of the user to this group at or before this time.
    pub fn has(&self, experiment: &str, group: &str, user: &[u8], at_ms: u64) -> bool {
        let first_ms = self.first_ms.get(&self.key(experiment, group, user));
        first_ms.is_some_and(|&first_ms| first_ms <= at_ms)
    }

    fn key(&self, experiment: &str, group: &str, user: &[u8]) -> u128 {
        let one = self.keys.0.hash_one((experiment, group, user));
        let other = self.keys.1.hash_one((one, user));
        u128::from(one) << 64 | u128::from(other)
    }
}

/// The positions of one experiment: for each shard and journal, the last sequence number it has.
pub type AppliedShards = Vec<HashMap<JournalId, u64, RandomState>>;
