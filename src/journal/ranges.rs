//! Sets of numbers, as ranges. PURE.

/// The most ranges. Beyond it, the gaps between the lowest ranges are filled.
const RANGES_MAX: usize = 10_000;

/// Numbers, as ranges that neither overlap nor touch, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds all numbers from `first` to `last`. Returns how many of them are new.
    pub(super) fn add(&mut self, first: u64, last: u64) -> u64 {
        if first > last {
            return 0;
        }
        let begin = self
            .0
            .partition_point(|&(_, end)| end.saturating_add(1) < first);
        let end = self
            .0
            .partition_point(|&(start, _)| start <= last.saturating_add(1));
        let joined = &self.0[begin..end];
        let known: u64 = joined
            .iter()
            .map(|&(start, end)| (end.min(last) + 1).saturating_sub(start.max(first)))
            .sum();
        let start = joined.first().map_or(first, |&(start, _)| start.min(first));
        let stop = joined.last().map_or(last, |&(_, end)| end.max(last));
        self.0.splice(begin..end, [(start, stop)]);
        if self.0.len() > RANGES_MAX {
            let (start, _) = self.0.remove(0);
            self.0[0].0 = start;
        }
        last - first + 1 - known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn new_numbers_are_counted_once_as_in_a_set() {
        for seed in 0..200 {
            let mut dice = fastrand::Rng::with_seed(seed);
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for _ in 0..60 {
                let first = dice.u64(1..200);
                let last = first + dice.u64(0..12) - 1;
                let before = set.len();
                set.extend(first..=last);
                assert_eq!(ranges.add(first, last), (set.len() - before) as u64);
                assert!(ranges.0.is_sorted_by(|a, b| a.1 + 1 < b.0));
            }
        }
    }
}
