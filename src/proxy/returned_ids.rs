//! Minted IDs that have come back to this worker: once is enough for the journal.

use crate::experiment::UserId;
use foldhash::quality::RandomState;
use std::cell::Cell;
use std::hash::BuildHasher;

const SLOTS: usize = 4_096;

/// Hashes of minted IDs that came back. A newer one takes the place of an older one, which is then journaled
/// once more: that changes no count.
#[derive(Debug)]
pub struct ReturnedIds {
    state: RandomState,
    slots: Box<[Cell<u64>]>,
}

impl Default for ReturnedIds {
    fn default() -> ReturnedIds {
        ReturnedIds {
            state: RandomState::default(),
            slots: vec![Cell::new(0); SLOTS].into(),
        }
    }
}

impl ReturnedIds {
    /// Notes that an ID came back. Returns whether this is the first time that is known.
    pub fn note(&self, id: UserId<'_>) -> bool {
        let hash = self.state.hash_one(id.as_bytes());
        let slot = &self.slots[(hash >> 52) as usize];
        slot.replace(hash) != hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_is_new_once() {
        let returned = ReturnedIds::default();
        let ids: Vec<String> = (0..100).map(|number| format!("id-{number}")).collect();
        let id = |text: &'static str| UserId::new(text.as_bytes()).unwrap();
        assert!(returned.note(id("a")));
        assert!(!returned.note(id("a")));
        let first = ids
            .iter()
            .filter(|text| returned.note(UserId::new(text.as_bytes()).unwrap()));
        // A few of a hundred may share a slot with another.
        assert!(first.count() >= 95);
    }
}
