//! The connections of clients that are open, over all workers and by address.

use crate::rate_limit;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Parts of the count by address. Workers meet only where two clients connect to the same part in
/// the same moment, once for a connection.
const PARTS: usize = 64;
/// Of the connections that may be open, so many more may wait to read that they are refused.
const REFUSED_SHARE: usize = 16;
const REFUSED_MIN: usize = 8;
const REFUSED_MAX: usize = 256;

/// The open connections of a process.
#[derive(Debug)]
pub struct ConnectionLimits {
    open: AtomicUsize,
    refused: AtomicUsize,
    by_network: [Mutex<HashMap<u64, usize>>; PARTS],
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            open: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            by_network: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

/// One open connection; it is counted until this is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<ConnectionLimits>,
    network: Option<u64>,
}

/// A connection that is refused.
#[derive(Debug)]
pub struct RefusedPermit(Arc<ConnectionLimits>);

impl ConnectionLimits {
    /// A slot for one more connection, unless `max` are open.
    pub fn take(self: &Arc<ConnectionLimits>, max: usize) -> Option<Slot> {
        take(&self.open, max).then(|| Slot {
            slots: Arc::clone(self),
            network: None,
        })
    }

    /// A slot for telling a client that it is refused, where `max` connections may be open.
    pub fn take_refused(self: &Arc<ConnectionLimits>, max: usize) -> Option<RefusedPermit> {
        let max = (max / REFUSED_SHARE).clamp(REFUSED_MIN, REFUSED_MAX);
        take(&self.refused, max).then(|| RefusedPermit(Arc::clone(self)))
    }

    fn part(&self, network: u64) -> std::sync::MutexGuard<'_, HashMap<u64, usize>> {
        // The first half of an IPv6 address ends with what its owner chooses.
        let part = (network ^ (network >> 32)) as usize % PARTS;
        // A count is whole after each statement.
        self.by_network[part]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(count: &AtomicUsize, max: usize) -> bool {
    let more = |open: usize| (open < max).then_some(open + 1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
        .is_ok()
}

impl Slot {
    /// Counts the connection for this address (in IPv6 for its /64), unless it has `max` already.
    pub fn count_for(&mut self, address: IpAddr, max: usize) -> bool {
        let network = rate_limit::network(address);
        let mut part = self.slots.part(network);
        let open = part.entry(network).or_default();
        if *open >= max {
            return false;
        }
        *open += 1;
        drop(part);
        self.network = Some(network);
        true
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.open.fetch_sub(1, Ordering::Relaxed);
        let Some(network) = self.network else { return };
        let mut part = self.slots.part(network);
        if let Some(open) = part.get_mut(&network) {
            *open -= 1;
            if *open == 0 {
                part.remove(&network);
            }
        }
    }
}

impl Drop for RefusedPermit {
    fn drop(&mut self) {
        self.0.refused.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_in_all_and_by_network() {
        let slots = Arc::<ConnectionLimits>::default();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let take = |of: &str, all: usize, each: usize| {
            let mut slot = slots.take(all)?;
            slot.count_for(address(of), each).then_some(slot)
        };
        let mut open: Vec<_> = (0..3).map(|_| take("192.0.2.1", 10, 3).unwrap()).collect();
        assert!(take("192.0.2.1", 10, 3).is_none());
        assert!(take("::ffff:192.0.2.1", 10, 3).is_none());
        open.push(take("2001:db8::1", 10, 1).unwrap());
        assert!(take("2001:db8::2:3:4:5", 10, 1).is_none());
        open.push(take("2001:db8:0:1::1", 10, 1).unwrap());
        assert!(slots.take(5).is_none());
        open.remove(0);
        open.push(take("192.0.2.1", 5, 3).unwrap());
        assert!(take("192.0.2.2", 5, 3).is_none());
        drop(open);
        assert_eq!(slots.open.load(Ordering::Relaxed), 0);
        assert!(
            slots
                .by_network
                .iter()
                .all(|part| part.lock().unwrap().is_empty())
        );
    }

    #[test]
    fn few_are_told_that_they_are_refused_at_once() {
        let slots = Arc::<ConnectionLimits>::default();
        let told: Vec<_> = (0..99).map_while(|_| slots.take_refused(160)).collect();
        assert_eq!(told.len(), 10);
        drop(told);
        assert!(slots.take_refused(1).is_some());
    }
}
