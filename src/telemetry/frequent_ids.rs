//! IDs that make a large share of all requests: texts that several users share, or robots. Memory and cost do
//! not depend on the number of users.
//!
//! Each request adds to a slot that its ID's hash chooses. Only IDs of slots with a large share are
//! watched one by one. Counts are halved from time to time, so that they follow the latest requests.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

/// The bits of a hash that choose its slot.
const SLOT_BITS: u32 = 10;
/// Counts of one worker are halved after so many requests.
const WINDOW: u32 = 1 << 16;
/// IDs of slots with more than one of so many requests are watched. It is below the reported share, because
/// an ID may be more frequent at other workers.
const WATCHED_ABOVE: u32 = 50;
/// The IDs that are watched; more than there can be slots with that share.
const WATCHED_MAX: usize = 64;
/// An ID that came so often gets the text that is shown.
const SHOWN_FROM: u32 = 8;
/// IDs with more than one of so many requests are reported: 5 %.
const REPORTED_ABOVE: u64 = 20;
/// Nothing is reported before so many requests.
const REQUESTS_MIN: u64 = 1_000;

/// The same for all workers, and unknown to clients.
#[cfg(not(test))]
static STATE: LazyLock<foldhash::quality::RandomState> = LazyLock::new(Default::default);
/// The same in each run: which IDs share a slot decides how exact their counts are.
#[cfg(test)]
static STATE: LazyLock<foldhash::quality::FixedState> = LazyLock::new(Default::default);

/// What one worker knows of frequent IDs. Only that worker adds to it.
#[derive(Debug)]
pub struct FrequentIds {
    requests: AtomicU32,
    slots: Box<[AtomicU32; 1 << SLOT_BITS]>,
    watched: Mutex<Vec<WatchedId>>,
}

#[derive(Debug)]
struct WatchedId {
    hash: u64,
    requests: u32,
    shown: Option<String>,
}

/// An ID that makes more than 5 % of the latest requests.
#[derive(Clone, Debug, PartialEq)]
pub struct FrequentId {
    /// What may be shown of it.
    pub shown: String,
    /// Its share of the latest requests, up to 1.
    pub share: f64,
}

impl Default for FrequentIds {
    fn default() -> FrequentIds {
        FrequentIds {
            requests: AtomicU32::new(0),
            slots: Box::new([const { AtomicU32::new(0) }; 1 << SLOT_BITS]),
            watched: Mutex::default(),
        }
    }
}

impl FrequentIds {
    /// Adds a request and its ID, if it has one. `shown` returns what may be shown of the ID.
    pub fn note(&self, id: Option<&[u8]>, shown: impl FnOnce() -> String) {
        // One writer needs no locked instructions.
        let requests = self.requests.load(Ordering::Relaxed) + 1;
        self.requests.store(requests, Ordering::Relaxed);
        if let Some(id) = id {
            let hash = STATE.hash_one(id);
            let slot = &self.slots[slot_of(hash)];
            let of_slot = slot.load(Ordering::Relaxed) + 1;
            slot.store(of_slot, Ordering::Relaxed);
            if of_slot * WATCHED_ABOVE > requests {
                self.watch(hash, of_slot, shown);
            }
        }
        if requests >= WINDOW {
            self.halve();
        }
    }

    #[cold]
    fn watch(&self, hash: u64, of_slot: u32, shown: impl FnOnce() -> String) {
        // A reader holds the lock for a moment: then this request is not counted.
        let Ok(mut watched) = self.watched.try_lock() else {
            return;
        };
        let place = match watched.iter().position(|it| it.hash == hash) {
            Some(place) => place,
            None => {
                let is_shared = watched.iter().any(|it| slot_of(it.hash) == slot_of(hash));
                let new = WatchedId {
                    hash,
                    // The first one of a slot has made most of its requests.
                    requests: if is_shared { 0 } else { of_slot - 1 },
                    shown: None,
                };
                let rarest = watched.iter().enumerate().min_by_key(|(_, it)| it.requests);
                match rarest {
                    Some((place, _)) if watched.len() == WATCHED_MAX => {
                        watched[place] = new;
                        place
                    }
                    _ => {
                        watched.push(new);
                        watched.len() - 1
                    }
                }
            }
        };
        let it = &mut watched[place];
        it.requests += 1;
        if it.shown.is_none() && it.requests >= SHOWN_FROM {
            it.shown = Some(shown());
        }
    }

    #[cold]
    fn halve(&self) {
        let halve = |count: &AtomicU32| {
            count.store(count.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
        };
        halve(&self.requests);
        self.slots.iter().for_each(halve);
        // A panic leaves counts that are at most too small.
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        for it in watched.iter_mut() {
            it.requests /= 2;
        }
    }
}

fn slot_of(hash: u64) -> usize {
    (hash >> (u64::BITS - SLOT_BITS)) as usize
}

/// Returns the IDs with more than 5 % of the latest requests over these workers, the most frequent first.
pub(super) fn most_frequent<'a>(workers: impl Iterator<Item = &'a FrequentIds>) -> Vec<FrequentId> {
    let mut all = 0;
    let mut by_hash: BTreeMap<u64, (u64, Option<String>)> = BTreeMap::new();
    for worker in workers {
        all += u64::from(worker.requests.load(Ordering::Relaxed));
        let watched = worker.watched.lock();
        let watched = watched.unwrap_or_else(PoisonError::into_inner);
        for it in watched.iter() {
            let (requests, shown) = by_hash.entry(it.hash).or_default();
            *requests += u64::from(it.requests);
            if shown.is_none() {
                shown.clone_from(&it.shown);
            }
        }
    }
    if all < REQUESTS_MIN {
        return Vec::new();
    }
    let frequent = by_hash
        .into_values()
        .filter(|(requests, _)| requests * REPORTED_ABOVE > all);
    let mut frequent: Vec<FrequentId> = frequent
        .filter_map(|(requests, shown)| {
            let share = requests as f64 / all as f64;
            Some(FrequentId {
                shown: shown?,
                share: share.min(1.0),
            })
        })
        .collect();
    frequent.sort_by(|a, b| b.share.total_cmp(&a.share));
    frequent
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests by the number of their user, or without an ID.
    fn note(ids: &FrequentIds, users: impl IntoIterator<Item = Option<u64>>) {
        for user in users {
            let id = user.map(|user| format!("user-{user}"));
            let shown = || id.clone().unwrap_or_default();
            ids.note(id.as_deref().map(str::as_bytes), shown);
        }
    }

    #[track_caller]
    fn check(workers: &[FrequentIds], expected: &[(&str, f64)]) {
        let found = most_frequent(workers.iter());
        let near = |(found, (shown, share)): (&FrequentId, &(&str, f64))| {
            found.shown == *shown && (found.share - share).abs() < 0.01
        };
        let is_same = found.len() == expected.len() && found.iter().zip(expected).all(near);
        assert!(is_same, "{found:?} {expected:?}");
    }

    fn ids() -> FrequentIds {
        FrequentIds::default()
    }

    #[test]
    fn one_of_many_users_with_a_large_share_is_found() {
        let all = [ids()];
        // User 0 makes one request in ten, the others two each.
        note(
            &all[0],
            (0..20_000).map(|at| Some(if at % 10 == 0 { 0 } else { 1 + at / 2 })),
        );
        check(&all, &[("user-0", 0.1)]);
    }

    #[test]
    fn users_with_equal_shares_are_not_reported() {
        let all = [ids()];
        note(&all[0], (0..60_000).map(|at| Some(at % 30)));
        check(&all, &[]);
        let few = [ids()];
        note(&few[0], (0..2_000).map(|at| Some(at % 3)));
        let third = 1.0 / 3.0;
        let found = most_frequent(few.iter());
        assert!(found.len() == 3 && found.iter().all(|it| (it.share - third).abs() < 0.01));
    }

    #[test]
    fn first_requests_do_not_warn_and_others_dilute() {
        let all = [ids()];
        note(&all[0], (0..999).map(|_| Some(7)));
        check(&all, &[]);
        note(&all[0], [Some(7)]);
        check(&all, &[("user-7", 1.0)]);
        note(&all[0], (0..9_000).map(|_| None));
        check(&all, &[("user-7", 0.1)]);
        note(&all[0], (0..15_000).map(|_| None));
        check(&all, &[]);
    }

    #[test]
    fn shares_are_those_of_all_workers() {
        let all = [ids(), ids()];
        note(
            &all[0],
            (0..10_000).map(|at| Some(if at % 10 == 0 { 0 } else { at + 1 })),
        );
        note(&all[1], (0..30_000).map(|at| Some(at + 50_000)));
        check(&all, &[]);
        note(&all[1], (0..2_000).map(|_| Some(0)));
        check(&all, &[("user-0", 3_000.0 / 42_000.0)]);
    }

    #[test]
    fn latest_requests_decide() {
        let all = [ids()];
        note(&all[0], (0..60_000).map(|_| Some(1)));
        note(
            &all[0],
            (0..900_000).map(|at| Some(if at % 5 == 0 { 2 } else { at + 10 })),
        );
        check(&all, &[("user-2", 0.2)]);
        let watched = all[0].watched.lock().unwrap().len();
        assert!(watched <= WATCHED_MAX, "{watched}");
    }
}
