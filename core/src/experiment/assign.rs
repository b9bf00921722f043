//! Assigns users to groups: weighted rendezvous hashing over murmur3.
//!
//! Only the user ID and the experiment's salt decide, so the group is the same on every replica and after
//! every restart. `docs/assignment.md` publishes test vectors and six lines of Python that reproduce them.

use super::bucketing::Bucketing;
use super::hashed_prefix::HashedPrefix;
pub use super::hashed_prefix::murmur3_32;
pub use super::weight::{Share, Weight};
use super::{GroupIndex, UserId};
use std::borrow::Cow;

/// A part of all users that a hash of its own chooses, prepared for hashing.
#[derive(Clone, Debug)]
pub struct Portion {
    prefix: HashedPrefix,
    /// A hash below this is inside; `2^32` includes every hash.
    below: u64,
}

impl Portion {
    /// The users for whom `murmur3_32(prefix + user, seed 0)` is below `share` of all hashes.
    pub fn new(prefix: &str, share: Share) -> Portion {
        Portion {
            prefix: HashedPrefix::new(prefix.as_bytes()),
            below: (share.get() * HASHES).ceil() as u64,
        }
    }

    /// Whether the user is inside.
    pub fn has(&self, user: UserId<'_>) -> bool {
        self.below == 1 << 32 || u64::from(self.prefix.hash(user)) < self.below
    }
}

/// The split of one experiment, prepared for hashing: prefixes are built once and not per request.
#[derive(Clone, Debug)]
pub struct Split {
    traffic: Portion,
    groups: Box<[Slot]>,
    /// Whether all weights are equal: then the largest hash wins, and the logarithm is not needed.
    even: bool,
    /// Another vendor's algorithm, which then decides alone.
    other: Option<Box<Bucketing>>,
}

#[derive(Clone, Debug)]
struct Slot {
    prefix: HashedPrefix,
    weight: f64,
}

impl Split {
    /// Makes the split of an experiment from its salt, traffic share and groups (name, weight), in file
    /// order. Without groups, no user takes part.
    pub fn new<'a>(
        salt: &str,
        traffic: Share,
        groups: impl IntoIterator<Item = (&'a str, Weight)>,
    ) -> Split {
        let groups: Box<[Slot]> = groups
            .into_iter()
            .map(|(name, weight)| Slot {
                prefix: HashedPrefix::new(format!("{salt}/{name}/").as_bytes()),
                weight: weight.get(),
            })
            .collect();
        Split {
            traffic: Portion::new(&format!("{salt}/traffic/"), traffic),
            even: groups.windows(2).all(|two| two[0].weight == two[1].weight),
            groups,
            other: None,
        }
    }

    /// Splits by another vendor's algorithm.
    pub fn by(bucketing: Bucketing) -> Split {
        Split {
            other: Some(Box::new(bucketing)),
            ..Split::new("", Share::ALL, [])
        }
    }

    /// The same split with another traffic share and other weights; the groups stay.
    pub fn changed<'a>(
        &self,
        salt: &str,
        traffic: Share,
        groups: impl IntoIterator<Item = (&'a str, Weight)>,
    ) -> Split {
        match &self.other {
            None => Split::new(salt, traffic, groups),
            Some(bucketing) => {
                let weights: Vec<Weight> = groups.into_iter().map(|(_, weight)| weight).collect();
                Split::by(bucketing.changed(traffic, &weights))
            }
        }
    }

    /// All that decides groups besides the traffic share and relative weights.
    pub fn seed<'a>(&self, salt: &'a str) -> Cow<'a, str> {
        let other = self.other.as_ref();
        other.map_or(salt.into(), |bucketing| bucketing.seed().into())
    }

    /// Returns the user's group; `None` for a user outside the traffic share.
    pub fn assign(&self, user: UserId<'_>) -> Option<GroupIndex> {
        match &self.other {
            None => self.traffic.has(user).then(|| self.heaviest(user))?,
            Some(bucketing) => bucketing.assign(user),
        }
    }

    /// Chooses the group, whatever the traffic share is.
    pub fn group(&self, user: UserId<'_>) -> Option<GroupIndex> {
        match &self.other {
            None => self.heaviest(user),
            Some(bucketing) => bucketing.group(user),
        }
    }

    /// Chooses the group by weighted rendezvous hashing: the largest `ln(u) / weight` wins, and the first group
    /// wins a tie. `None` without a group of positive weight.
    /// Source: Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005
    /// (logarithmic method).
    fn heaviest(&self, user: UserId<'_>) -> Option<GroupIndex> {
        let mut best = None;
        let mut best_score = f64::NEG_INFINITY;
        for (index, slot) in self.groups.iter().enumerate() {
            if slot.weight == 0.0 {
                continue;
            }
            let hash = f64::from(slot.prefix.hash(user));
            let score = match self.even {
                true => hash,
                false => ((hash + 0.5) / HASHES).ln() / slot.weight,
            };
            if score > best_score || best.is_none() {
                best_score = score;
                best = Some(GroupIndex(index));
            }
        }
        best
    }
}

/// The number of values that a 32-bit hash can take.
const HASHES: f64 = 4_294_967_296.0;
