//! Who is admitted to an experiment, before the hash of the ID chooses a group: the holdout, layers,
//! requirements, closed enrolment and included users. PURE.

use super::assign::{self, Portion, Share};
use super::hashed_prefix::HashedPrefix;
use super::{ExperimentIndex, GroupIndex, UserId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The number of slots of a layer: experiments share it in steps of 0.1 %.
pub const SLOTS: usize = 1000;

/// User IDs that the file lists.
pub type ListedIds = Arc<BTreeSet<Box<[u8]>>>;

/// The conditions for being admitted, besides the traffic share.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Users who are kept out of the experiment.
    pub holdout: Option<Portion>,
    /// The users of a layer that this experiment has for itself.
    pub layer: Option<LayerShare>,
    /// Groups of other experiments that a user must be in.
    pub requires: Box<[(ExperimentIndex, GroupIndex)]>,
    /// Users who are put into a group, and are not counted.
    pub include: Box<[(GroupIndex, ListedIds)]>,
    /// Whether nobody new is admitted.
    pub is_closed: bool,
}

impl Admission {
    /// The group that the file puts a user into.
    pub fn included(&self, user: UserId<'_>) -> Option<GroupIndex> {
        let mut include = self.include.iter();
        let found = include.find(|(_, ids)| ids.contains(user.as_bytes()));
        found.map(|(group, _)| *group)
    }
}

/// The slots of a layer that one experiment has.
#[derive(Clone, Debug)]
pub struct LayerShare {
    /// The layer's name.
    pub name: Box<str>,
    prefix: HashedPrefix,
    slots: Arc<[bool]>,
}

impl LayerShare {
    /// Whether the user is in one of the slots.
    pub fn has(&self, user: UserId<'_>) -> bool {
        self.slots[slot_of(self.prefix.hash(user))]
    }
}

/// The slot of a user with this hash of `<layer>/layer/<user>`.
fn slot_of(hash: u32) -> usize {
    ((u64::from(hash) * SLOTS as u64) >> 32) as usize
}

/// Divides one layer between experiments.
#[derive(Clone, Debug)]
pub struct LayerDivision {
    name: Box<str>,
    is_taken: [bool; SLOTS],
}

/// What an experiment asks of a layer is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerFull {
    /// The number of slots that are free.
    pub free: usize,
}

impl LayerDivision {
    /// A layer that nobody has a share of.
    pub fn new(name: &str) -> LayerDivision {
        LayerDivision {
            name: name.into(),
            is_taken: [false; SLOTS],
        }
    }

    /// Takes a share for the experiment with this salt: of the slots that no earlier experiment has, those
    /// with the lowest `murmur3_32("<layer>/<salt>/<slot>", seed 0)`, and of equal ones the first. So an
    /// experiment that comes later moves nobody, and a change of an earlier one moves few.
    pub fn take(&mut self, salt: &str, share: Share) -> Result<LayerShare, LayerFull> {
        let wanted = (share.get() * SLOTS as f64).round() as usize;
        let name = &self.name;
        let rank = |slot: &usize| {
            let text = format!("{name}/{salt}/{slot}");
            (assign::murmur3_32(text.as_bytes()), *slot)
        };
        let mut free: Vec<usize> = (0..SLOTS).filter(|&slot| !self.is_taken[slot]).collect();
        if free.len() < wanted {
            return Err(LayerFull { free: free.len() });
        }
        free.sort_by_cached_key(rank);
        let mut slots = vec![false; SLOTS];
        for &slot in &free[..wanted] {
            slots[slot] = true;
            self.is_taken[slot] = true;
        }
        Ok(LayerShare {
            name: self.name.clone(),
            prefix: HashedPrefix::new(format!("{}/layer/", self.name).as_bytes()),
            slots: slots.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn users(count: usize) -> Vec<Vec<u8>> {
        (0..count)
            .map(|number| format!("user-{number}").into_bytes())
            .collect()
    }

    fn members(share: &LayerShare, users: &[Vec<u8>]) -> Vec<bool> {
        let inside = |user: &Vec<u8>| share.has(UserId::new(user).unwrap());
        users.iter().map(inside).collect()
    }

    fn share(percent: f64) -> Share {
        Share::new(percent / 100.0).unwrap()
    }

    proptest! {
        #[test]
        fn shares_exclude_each_other_and_a_later_one_moves_nobody(
            percents in prop::collection::vec(0u32..=300, 1..5),
            last in 0u32..=300,
        ) {
            let users = users(300);
            let mut layer = LayerDivision::new("checkout");
            let mut before: Vec<Vec<bool>> = Vec::new();
            let mut left = SLOTS;
            for (place, &slots) in percents.iter().chain([&last]).enumerate() {
                let asked = share(f64::from(slots) / 10.0);
                match layer.take(&format!("experiment-{place}"), asked) {
                    Ok(taken) => {
                        left -= slots as usize;
                        before.push(members(&taken, &users));
                    }
                    Err(full) => {
                        prop_assert_eq!(full.free, left);
                        prop_assert!(slots as usize > left);
                    }
                }
            }
            for user in 0..users.len() {
                prop_assert!(before.iter().filter(|members| members[user]).count() <= 1);
            }
            let mut again = LayerDivision::new("checkout");
            for (place, &slots) in percents.iter().enumerate() {
                let asked = share(f64::from(slots) / 10.0);
                if let Ok(taken) = again.take(&format!("experiment-{place}"), asked) {
                    prop_assert_eq!(&members(&taken, &users), &before[0]);
                    before.remove(0);
                }
            }
        }
    }

    #[test]
    fn share_of_a_layer_has_its_share_of_users() {
        let users = users(20_000);
        let mut layer = LayerDivision::new("checkout");
        let small = layer.take("small", share(10.0)).unwrap();
        let large = layer.take("large", share(90.0)).unwrap();
        let count = |share| members(share, &users).iter().filter(|&&it| it).count();
        let (small, large) = (count(&small), count(&large));
        assert_eq!(small + large, 20_000);
        // Five standard deviations.
        assert!((1788..=2212).contains(&small), "{small}");
        assert_eq!(layer.take("more", share(0.1)).unwrap_err().free, 0);
    }

    /// Computed with Python: sorted by (mmh3.hash(b"checkout/small/<slot>", 0, signed=False), slot).
    #[test]
    fn slots_of_an_experiment_are_the_documented_ones() {
        let taken = LayerDivision::new("checkout").take("small", share(0.5));
        let slots = taken.unwrap().slots;
        let mut has: Vec<usize> = (0..SLOTS).filter(|&slot| slots[slot]).collect();
        has.sort_unstable();
        assert_eq!(has, [144, 263, 387, 555, 701]);
    }

    /// Computed with Python: mmh3.hash(b"checkout/layer/user-7", 0, signed=False) * 1000 >> 32.
    #[test]
    fn slot_is_the_documented_one() {
        let user = UserId::new(b"user-7").unwrap();
        let hash = HashedPrefix::new(b"checkout/layer/").hash(user);
        assert_eq!(slot_of(hash), 153);
    }
}
