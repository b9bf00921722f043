//! Which group a user is in: weighted rendezvous hashing over murmur3.
//!
//! The user's ID and the experiment's salt decide alone, so the answer is the same on every
//! replica and after every restart. `docs/assignment.md` publishes vectors and six lines of
//! Python that reproduce them.

use super::{GroupIndex, UserId};
use std::io::{self, Read};

/// How much of a group's traffic share it gets, relative to its siblings. Finite and positive.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Weight(f64);

impl Weight {
    /// `None` unless `value` is finite and greater than zero.
    pub fn new(value: f64) -> Option<Weight> {
        (value.is_finite() && value > 0.0).then_some(Weight(value))
    }

    /// The weight as a number, in the unit it was written in.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// A share of all users, from 0 to 1 inclusive.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Share(f64);

impl Share {
    /// Everybody.
    pub const ALL: Share = Share(1.0);

    /// `None` unless `value` lies in 0..=1.
    pub fn new(value: f64) -> Option<Share> {
        (0.0..=1.0).contains(&value).then_some(Share(value))
    }

    /// The share as a fraction, 0 to 1.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// The split of one experiment, ready to hash: prefixes are built once, not per request.
#[derive(Clone, Debug)]
pub struct Split {
    traffic_prefix: Box<[u8]>,
    /// A traffic hash below this is inside; `2^32` lets every hash in.
    traffic_below: u64,
    groups: Box<[Slot]>,
    /// All weights are one: the largest hash wins, which the logarithm does not change.
    even: bool,
}

#[derive(Clone, Debug)]
struct Slot {
    prefix: Box<[u8]>,
    weight: f64,
}

impl Split {
    /// The split of an experiment with this salt, traffic share and groups (name, weight), in
    /// file order. With no groups, everybody is outside.
    pub fn new<'a>(
        salt: &str,
        traffic: Share,
        groups: impl IntoIterator<Item = (&'a str, Weight)>,
    ) -> Split {
        let groups: Box<[Slot]> = groups
            .into_iter()
            .map(|(name, weight)| Slot {
                prefix: format!("{salt}/{name}/").into_bytes().into(),
                weight: weight.get(),
            })
            .collect();
        Split {
            traffic_prefix: format!("{salt}/traffic/").into_bytes().into(),
            traffic_below: (traffic.get() * HASHES).ceil() as u64,
            even: groups.windows(2).all(|two| two[0].weight == two[1].weight),
            groups,
        }
    }

    /// The user's group, or `None` when the user is outside the traffic share.
    pub fn assign(&self, user: UserId<'_>) -> Option<GroupIndex> {
        let all = self.traffic_below == 1 << 32;
        if !all && u64::from(hash(&self.traffic_prefix, user)) >= self.traffic_below {
            return None;
        }
        self.group(user)
    }

    /// Weighted rendezvous hashing: the largest `ln(u) / weight` wins, the first on a tie.
    /// Source: Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005
    /// (logarithmic method).
    fn group(&self, user: UserId<'_>) -> Option<GroupIndex> {
        let mut best = None;
        let mut best_score = f64::NEG_INFINITY;
        for (index, slot) in self.groups.iter().enumerate() {
            let hash = f64::from(hash(&slot.prefix, user));
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

/// `murmur3_32(prefix + user, seed 0)`.
fn hash(prefix: &[u8], user: UserId<'_>) -> u32 {
    let mut key = Joined {
        now: prefix,
        then: user.as_bytes(),
    };
    // Reading from memory cannot fail, and the crate adds no error of its own.
    murmur3::murmur3_32(&mut key, 0).unwrap_or_default()
}

/// murmur3 (x86, 32 bit) with seed 0.
pub fn murmur3_32(bytes: &[u8]) -> u32 {
    let mut key = Joined {
        now: bytes,
        then: &[],
    };
    // As above.
    murmur3::murmur3_32(&mut key, 0).unwrap_or_default()
}

/// Two texts read as one. The crate asks for four bytes at a time; the reader of the standard
/// library answers each time with a call of `memcpy`, which takes two thirds of the time.
struct Joined<'a> {
    now: &'a [u8],
    then: &'a [u8],
}

impl Read for Joined<'_> {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Ok(word) = <&mut [u8; 4]>::try_from(&mut *buffer)
            && let Some((four, rest)) = self.now.split_first_chunk::<4>()
        {
            *word = *four;
            self.now = rest;
            return Ok(4);
        }
        // What is left is shorter than a word.
        if self.now.is_empty() {
            self.now = std::mem::take(&mut self.then);
        }
        let (Some((&byte, rest)), Some(place)) = (self.now.split_first(), buffer.first_mut())
        else {
            return Ok(0);
        };
        *place = byte;
        self.now = rest;
        Ok(1)
    }
}
