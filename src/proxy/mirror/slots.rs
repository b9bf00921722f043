//! How many copies of requests one worker has in flight.

use std::cell::Cell;
use std::rc::Rc;
use tokio::sync::{Mutex, MutexGuard};

/// How many copies of one worker may be in flight.
const COPIES_MAX: usize = 32;

/// The copies in flight of one worker, which are bounded.
#[derive(Debug, Default)]
pub struct CopySlots {
    in_flight: Rc<Cell<usize>>,
    /// Comparisons take another thread, one at a time.
    comparing: Mutex<()>,
}

/// One copy in flight, until it is dropped.
#[derive(Debug)]
pub struct CopySlot(Rc<Cell<usize>>);

impl CopySlots {
    /// Takes the place of one more copy, if there is one.
    pub fn take(&self) -> Option<CopySlot> {
        let in_flight = self.in_flight.get();
        (in_flight < COPIES_MAX).then(|| {
            self.in_flight.set(in_flight + 1);
            CopySlot(Rc::clone(&self.in_flight))
        })
    }

    /// Waits for the turn of a comparison, which lasts until the result is dropped.
    pub async fn compare(&self) -> MutexGuard<'_, ()> {
        self.comparing.lock().await
    }
}

impl Drop for CopySlot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_bounded_and_come_back() {
        let slots = CopySlots::default();
        let mut taken: Vec<_> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(taken.len(), COPIES_MAX);
        taken.pop();
        assert!(slots.take().is_some());
        assert!(slots.take().is_some());
    }
}
