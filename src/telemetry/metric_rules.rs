//! What responses were to the rules of metrics: a rule that misses what it means counts nothing, and nobody
//! would know.

use crate::telemetry::counter::Counter;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The number of kinds of near misses that are counted separately for each rule.
const KINDS: usize = 8;
/// How many events without a metric are kept.
const EVENTS_MAX: usize = 32;
/// Where the kind of a near miss stands beside its count.
const KIND_SHIFT: u32 = 48;

/// Responses to the requests of one rule.
#[derive(Debug, Default)]
pub struct RuleCounts {
    matched: Counter,
    /// Each has its kind in the upper bits, and 0 where there is none yet.
    misses: [Counter; KINDS],
}

impl RuleCounts {
    /// Counts a response. `miss` is not 0; it tells kinds of near misses apart. Only one thread may do so.
    pub fn note(&self, miss: Option<u16>) {
        let Some(kind) = miss.map(u64::from) else {
            return self.matched.add();
        };
        let mut slots = self.misses.iter();
        let found = slots.find(|slot| [0, kind].contains(&(slot.get() >> KIND_SHIFT)));
        if let Some(slot) = found {
            let (_, count) = split(slot.get());
            slot.set((kind << KIND_SHIFT) | (count + 1));
        }
    }
}

fn split(packed: u64) -> (u64, u64) {
    (packed >> KIND_SHIFT, packed & ((1 << KIND_SHIFT) - 1))
}

/// The counts of all rules of one worker, kept over reloads.
#[derive(Debug, Default)]
pub struct MetricRules(Mutex<BTreeMap<String, Arc<RuleCounts>>>);

impl MetricRules {
    /// The counts of the rule of this key. Locks: not for the request path.
    pub fn of(&self, key: &str) -> Arc<RuleCounts> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(key.to_owned()).or_default())
    }
}

/// The sum of the counts of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSum {
    /// Responses that it counts.
    pub matched: u64,
    /// Responses that it does not count, by kind.
    pub misses: BTreeMap<u16, u64>,
}

impl RuleSum {
    /// Adds counts.
    pub fn add(&mut self, counts: &RuleCounts) {
        self.matched += counts.matched.get();
        for (kind, count) in counts.misses.iter().map(|slot| split(slot.get())) {
            if kind > 0 {
                *self.misses.entry(kind as u16).or_default() += count;
            }
        }
    }
}

/// Names of events that no metric counts, with their number: the first ones that came.
#[derive(Debug, Default)]
pub struct UnusedEvents(Mutex<BTreeMap<String, u64>>);

impl UnusedEvents {
    /// Counts events. Locks: only where there are some.
    #[cold]
    pub fn note(&self, names: &[String]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            if let Some(count) = all.get_mut(name) {
                *count += 1;
            } else if all.len() < EVENTS_MAX {
                all.insert(name.clone(), 1);
            }
        }
    }

    /// Returns them.
    pub fn all(&self) -> Vec<(String, u64)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .map(|(name, count)| (name.clone(), *count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_counted_by_kind_and_bounded() {
        let counts = RuleCounts::default();
        counts.note(None);
        for status in 300..320 {
            for _ in 0..3 {
                counts.note(Some(status));
            }
        }
        let mut sum = RuleSum::default();
        sum.add(&counts);
        sum.add(&counts);
        assert_eq!(sum.matched, 2);
        let expected = (300..308).map(|status| (status, 6));
        assert!(sum.misses.into_iter().eq(expected));
    }

    #[test]
    fn events_without_a_metric_are_bounded() {
        let unused = UnusedEvents::default();
        let names: Vec<String> = (0..100).map(|number| format!("e{number:02}")).collect();
        unused.note(&names);
        unused.note(&names);
        assert_eq!(unused.all().len(), EVENTS_MAX);
        assert!(unused.all().iter().all(|(_, count)| *count == 2));
    }
}
