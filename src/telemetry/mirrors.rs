//! What became of copies of requests, and in what the responses to them differed. It is kept in memory only:
//! examples may show what a page said.

use crate::telemetry::counter::Counter;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many patterns of paths are kept for one experiment, at each worker.
const PATHS_MAX: usize = 200;
/// In how many ways responses may differ.
pub const MIRROR_KINDS: usize = 4;

/// The copies of one experiment's requests at one worker.
#[derive(Debug, Default)]
pub struct MirrorCounts {
    /// Requests that were copied.
    pub copies: Counter,
    /// Requests that were not copied, because too many copies were in flight.
    pub dropped: Counter,
    /// Copied requests without a comparison, because a version gave no response to the copy.
    pub failed: Counter,
    /// Copied requests for which the version that had served was asked once more.
    pub asked_again: Counter,
    compared: Mutex<MirrorTally>,
}

/// What comparisons have found.
#[derive(Clone, Debug, Default)]
pub struct MirrorTally {
    /// Comparisons.
    pub compared: u64,
    /// Those that found a difference, by kind.
    pub differing: [u64; MIRROR_KINDS],
    /// The same by pattern of the path.
    pub paths: BTreeMap<String, MirroredPath>,
    /// Comparisons of paths that there was no room for, and those of them that found a difference.
    pub other_paths: (u64, u64),
    /// By upstream: how many responses took how long, in the buckets of the caller.
    pub latency: BTreeMap<Box<str>, BTreeMap<u16, u64>>,
}

/// The comparisons of the paths of one pattern.
#[derive(Clone, Debug, Default)]
pub struct MirroredPath {
    /// Comparisons.
    pub compared: u64,
    /// Those that found a difference, by kind.
    pub differing: [u64; MIRROR_KINDS],
    /// The first difference of each kind.
    pub examples: [Option<MirrorExample>; MIRROR_KINDS],
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorExample {
    /// The path of the request, without its query.
    pub path: Box<str>,
    /// The upstream that served the client, and what its response had.
    pub served: (Box<str>, String),
    /// The upstream that got the copy, and what its response had.
    pub copy: (Box<str>, String),
}

/// One comparison.
#[derive(Debug)]
pub struct MirrorComparison<'a> {
    /// The pattern of the path.
    pub pattern: String,
    /// How long each upstream took, in the buckets of the caller.
    pub latencies: [(&'a str, u16); 2],
    /// The kind of the difference, below [`MIRROR_KINDS`], and an example.
    pub difference: Option<(usize, MirrorExample)>,
}

impl MirrorCounts {
    /// Adds a comparison. Locks: not for the request path.
    pub fn add(&self, comparison: MirrorComparison<'_>) {
        let mut tally = lock(&self.compared);
        tally.compared += 1;
        for (upstream, bucket) in comparison.latencies {
            let latency = tally.latency.entry(upstream.into()).or_default();
            *latency.entry(bucket).or_default() += 1;
        }
        let kind = comparison.difference.as_ref().map(|(kind, _)| *kind);
        if let Some(kind) = kind {
            tally.differing[kind] += 1;
        }
        if !tally.make_room(&comparison.pattern, kind.is_some()) {
            tally.other_paths.0 += 1;
            tally.other_paths.1 += u64::from(kind.is_some());
            return;
        }
        let path = tally.paths.entry(comparison.pattern).or_default();
        path.compared += 1;
        if let Some((kind, example)) = comparison.difference {
            path.differing[kind] += 1;
            path.examples[kind].get_or_insert(example);
        }
    }
}

impl MirrorTally {
    /// Whether a pattern can be kept. One that differs takes the place of one that does not.
    fn make_room(&mut self, pattern: &str, differs: bool) -> bool {
        if self.paths.contains_key(pattern) || self.paths.len() < PATHS_MAX {
            return true;
        }
        let mut paths = self.paths.iter();
        let equal = paths.find(|(_, path)| path.differing() == 0);
        let Some(equal) = equal.filter(|_| differs).map(|(name, _)| name.clone()) else {
            return false;
        };
        let gone = self.paths.remove(&equal);
        self.other_paths.0 += gone.map_or(0, |path| path.compared);
        true
    }

    /// Adds what another worker has found.
    fn merge(&mut self, other: &MirrorTally) {
        self.compared += other.compared;
        add(&mut self.differing, &other.differing);
        self.other_paths.0 += other.other_paths.0;
        self.other_paths.1 += other.other_paths.1;
        for (pattern, more) in &other.paths {
            let path = self.paths.entry(pattern.clone()).or_default();
            path.compared += more.compared;
            add(&mut path.differing, &more.differing);
            for (example, more) in path.examples.iter_mut().zip(&more.examples) {
                if example.is_none() {
                    example.clone_from(more);
                }
            }
        }
        for (upstream, buckets) in &other.latency {
            let latency = self.latency.entry(upstream.clone()).or_default();
            for (bucket, count) in buckets {
                *latency.entry(*bucket).or_default() += count;
            }
        }
    }
}

impl MirroredPath {
    /// How many comparisons found a difference.
    pub fn differing(&self) -> u64 {
        self.differing.iter().sum()
    }
}

/// The copies of all experiments at one worker, kept over reloads.
#[derive(Debug, Default)]
pub struct Mirrors(Mutex<BTreeMap<String, Arc<MirrorCounts>>>);

impl Mirrors {
    /// The copies of an experiment to an upstream. Locks: not for the request path.
    pub fn of(&self, experiment: &str, to: &str) -> Arc<MirrorCounts> {
        let key = format!("{experiment}\n{to}");
        Arc::clone(lock(&self.0).entry(key).or_default())
    }
}

/// The copies of an experiment at all workers.
#[derive(Clone, Debug, Default)]
pub struct MirrorSum {
    /// See [`MirrorCounts::copies`].
    pub copies: u64,
    /// See [`MirrorCounts::dropped`].
    pub dropped: u64,
    /// See [`MirrorCounts::failed`].
    pub failed: u64,
    /// See [`MirrorCounts::asked_again`].
    pub asked_again: u64,
    /// What comparisons have found.
    pub compared: MirrorTally,
}

impl MirrorSum {
    /// Adds those of a worker.
    pub fn add(&mut self, counts: &MirrorCounts) {
        self.copies += counts.copies.get();
        self.dropped += counts.dropped.get();
        self.failed += counts.failed.get();
        self.asked_again += counts.asked_again.get();
        self.compared.merge(&lock(&counts.compared));
    }
}

fn add(sum: &mut [u64; MIRROR_KINDS], more: &[u64; MIRROR_KINDS]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds these locks can leave what they guard half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(pattern: &str, kind: Option<usize>) -> MirrorComparison<'_> {
        let side = |text: &str| (Box::from("a"), text.to_owned());
        MirrorComparison {
            pattern: pattern.to_owned(),
            latencies: [("a", 1), ("b", 2)],
            difference: kind.map(|kind| {
                let example = MirrorExample {
                    path: pattern.into(),
                    served: side("200"),
                    copy: side("404"),
                };
                (kind, example)
            }),
        }
    }

    #[test]
    fn comparisons_of_all_workers_add_up() {
        let workers = [Mirrors::default(), Mirrors::default()];
        for worker in &workers {
            let counts = worker.of("site", "b");
            counts.copies.add();
            counts.add(comparison("/x", Some(3)));
            counts.add(comparison("/x", None));
        }
        let mut sum = MirrorSum::default();
        workers.iter().for_each(|it| sum.add(&it.of("site", "b")));
        assert_eq!((sum.copies, sum.compared.compared), (2, 4));
        assert_eq!(sum.compared.differing, [0, 0, 0, 2]);
        let path = &sum.compared.paths["/x"];
        assert_eq!((path.compared, path.differing()), (4, 2));
        assert!(path.examples[3].is_some() && path.examples[0].is_none());
        assert_eq!(sum.compared.latency["b"][&2], 4);
        // Another target has counts of its own.
        let mut other = MirrorSum::default();
        other.add(&workers[0].of("site", "c"));
        assert_eq!(other.copies, 0);
    }

    #[test]
    fn paths_are_bounded_and_differing_ones_are_kept_first() {
        let counts = MirrorCounts::default();
        for number in 0..2 * PATHS_MAX {
            counts.add(comparison(&format!("/{number}"), None));
        }
        counts.add(comparison("/differs", Some(0)));
        let mut sum = MirrorSum::default();
        sum.add(&counts);
        assert_eq!(sum.compared.paths.len(), PATHS_MAX);
        assert_eq!(sum.compared.paths["/differs"].differing(), 1);
        let kept: u64 = sum.compared.paths.values().map(|it| it.compared).sum();
        assert_eq!(kept + sum.compared.other_paths.0, sum.compared.compared);
        for number in 0..2 * PATHS_MAX {
            counts.add(comparison(&format!("/d{number}"), Some(1)));
        }
        let mut sum = MirrorSum::default();
        sum.add(&counts);
        assert_eq!(sum.compared.paths.len(), PATHS_MAX);
        let found: u64 = sum
            .compared
            .paths
            .values()
            .map(MirroredPath::differing)
            .sum();
        let all: u64 = sum.compared.differing.iter().sum();
        assert_eq!(found + sum.compared.other_paths.1, all);
    }
}
