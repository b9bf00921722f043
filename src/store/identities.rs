//! Which minted ID belongs to which known ID. PURE: the embedded file asks this module, and the
//! script in Redis decides the same in its own language.
//!
//! A minted ID is absorbed at most once, by the first known ID that came with it. What absorbs is
//! never absorbed, and what is absorbed never absorbs. So an alias leads to its user in one step,
//! whatever clients send, and two known IDs are never joined.

use std::collections::{BTreeMap, HashSet};

/// That a minted ID and a known one came on one request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Join {
    /// The ID that was minted here, and proved so by its tag.
    pub minted: Vec<u8>,
    /// The ID that the site knows the user by.
    pub known: Vec<u8>,
    /// Whether the known ID lies in another shard: no single step could move the counts there.
    pub apart: bool,
}

/// What the store keeps of an ID beside its user's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A minted ID that counts for this known one.
    Absorbed(Vec<u8>),
    /// A minted ID that came with this known one, which lies in another shard: two users.
    Apart(Vec<u8>),
    /// A known ID that has absorbed a minted one.
    Known,
    /// A known ID that came with a minted one that another known ID had absorbed.
    Further,
}

/// What a join does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The minted ID counts for the known one from now on, with all that it brought.
    Absorb,
    /// The minted ID takes [`Role::Apart`].
    SetApart,
    /// The known ID takes [`Role::Further`].
    CountFurther,
    /// Nothing changes.
    Nothing,
}

impl Join {
    /// What this join does, by the roles that both IDs have.
    pub fn outcome(&self, minted: Option<&Role>, known: Option<&Role>) -> Outcome {
        if self.minted == self.known {
            return Outcome::Nothing;
        }
        match (minted, known) {
            // An ID that counts for another absorbs nothing.
            (_, Some(Role::Absorbed(_) | Role::Apart(_))) => Outcome::Nothing,
            (None, _) if self.apart => Outcome::SetApart,
            (None, _) => Outcome::Absorb,
            (Some(Role::Absorbed(by) | Role::Apart(by)), _) if *by == self.known => {
                Outcome::Nothing
            }
            (Some(Role::Absorbed(_) | Role::Apart(_)), Some(Role::Further)) => Outcome::Nothing,
            (Some(Role::Absorbed(_) | Role::Apart(_)), _) => Outcome::CountFurther,
            // A minted ID that was given for a known one.
            (Some(Role::Known | Role::Further), _) => Outcome::Nothing,
        }
    }
}

/// How often each came about in an experiment. What is forgotten stays counted here: the numbers
/// name nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdentityCounts {
    /// Minted IDs that a known ID absorbed.
    pub joined: u64,
    /// Known IDs that came with a minted ID that another known ID had absorbed. Each is a user of
    /// its own.
    pub shared_devices: u64,
    /// Minted IDs that stay users of their own because the known ID lies in another shard.
    pub apart: u64,
}

impl IdentityCounts {
    /// What the counts are called in stores.
    pub const NAMES: [&str; 3] = ["joined", "shared_devices", "apart"];

    /// Counts an outcome.
    pub fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Absorb => self.joined += 1,
            Outcome::SetApart => self.apart += 1,
            Outcome::CountFurther => self.shared_devices += 1,
            Outcome::Nothing => {}
        }
    }

    /// The counts, in the order of [`Self::NAMES`].
    pub fn values(&self) -> [u64; 3] {
        [self.joined, self.shared_devices, self.apart]
    }

    /// Adds the counts of a shard, by name. Names of other versions are left alone.
    pub fn add(&mut self, counts: &BTreeMap<String, u64>) {
        let of = |name: &str| counts.get(name).copied().unwrap_or(0);
        let [joined, shared_devices, apart] = Self::NAMES.map(of);
        self.joined += joined;
        self.shared_devices += shared_devices;
        self.apart += apart;
    }
}

/// An ID of version 0.1.0 may lead to its user over several others, and clients could make such a
/// chain as long as they liked. So many steps are taken at most: far more than the devices of one
/// person.
pub const OLD_STEPS_MAX: usize = 16;

impl Role {
    /// As it is kept: one byte, and the other ID.
    pub fn write(&self) -> Vec<u8> {
        let (kind, by): (u8, &[u8]) = match self {
            Role::Absorbed(by) => (b'=', by),
            Role::Apart(by) => (b'~', by),
            Role::Known => (b'+', &[]),
            Role::Further => (b'!', &[]),
        };
        [&[kind], by].concat()
    }

    /// Reads what [`Role::write`] wrote. `None` for what another version wrote.
    pub fn read(bytes: &[u8]) -> Option<Role> {
        match bytes.split_first()? {
            (b'=', by) => Some(Role::Absorbed(by.to_vec())),
            (b'~', by) => Some(Role::Apart(by.to_vec())),
            (b'+', []) => Some(Role::Known),
            (b'!', []) => Some(Role::Further),
            _ => None,
        }
    }

    /// Whether this names one of these known IDs.
    pub fn names_one_of(&self, ids: &HashSet<Vec<u8>>) -> bool {
        match self {
            Role::Absorbed(by) | Role::Apart(by) => ids.contains(by),
            Role::Known | Role::Further => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_by_roles() {
        let join = |apart| Join {
            minted: b"m".to_vec(),
            known: b"u".to_vec(),
            apart,
        };
        let (ours, other) = (Role::Absorbed(b"u".to_vec()), Role::Absorbed(b"v".to_vec()));
        let apart = Role::Apart(b"u".to_vec());
        let cases = [
            (None, None, Outcome::Absorb),
            (None, Some(&Role::Known), Outcome::Absorb),
            (None, Some(&Role::Further), Outcome::Absorb),
            (None, Some(&other), Outcome::Nothing),
            (None, Some(&apart), Outcome::Nothing),
            (Some(&ours), None, Outcome::Nothing),
            (Some(&apart), None, Outcome::Nothing),
            (Some(&other), None, Outcome::CountFurther),
            (Some(&other), Some(&Role::Known), Outcome::CountFurther),
            (Some(&other), Some(&Role::Further), Outcome::Nothing),
            (Some(&other), Some(&other), Outcome::Nothing),
            (Some(&Role::Known), None, Outcome::Nothing),
            (Some(&Role::Further), Some(&Role::Known), Outcome::Nothing),
        ];
        for (minted, known, expected) in cases {
            let found = join(false).outcome(minted, known);
            assert_eq!(found, expected, "{minted:?} {known:?}");
        }
        assert_eq!(join(true).outcome(None, None), Outcome::SetApart);
        let itself = Join {
            known: b"m".to_vec(),
            ..join(false)
        };
        assert_eq!(itself.outcome(None, None), Outcome::Nothing);
    }

    #[test]
    fn roles_are_read_back_and_unknown_ones_are_not() {
        for role in [
            Role::Absorbed(b"\x00=~".to_vec()),
            Role::Apart(Vec::new()),
            Role::Known,
            Role::Further,
        ] {
            assert_eq!(Role::read(&role.write()), Some(role));
        }
        for bytes in [&b""[..], b"u1", b"+x", b"!!"] {
            assert_eq!(Role::read(bytes), None, "{bytes:?}");
        }
    }
}
