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
pub enum IdentityRole {
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
pub enum JoinOutcome {
    /// The minted ID counts for the known one from now on, with all that it brought.
    Absorb,
    /// The minted ID takes [`IdentityRole::Apart`].
    SetApart,
    /// The known ID takes [`IdentityRole::Further`].
    CountFurther,
    /// Nothing changes.
    Nothing,
}

impl Join {
    /// What this join does, by the roles that both IDs have.
    pub fn outcome(
        &self,
        minted: Option<&IdentityRole>,
        known: Option<&IdentityRole>,
    ) -> JoinOutcome {
        if self.minted == self.known {
            return JoinOutcome::Nothing;
        }
        match (minted, known) {
            // An ID that counts for another absorbs nothing.
            (_, Some(IdentityRole::Absorbed(_) | IdentityRole::Apart(_))) => JoinOutcome::Nothing,
            (None, _) if self.apart => JoinOutcome::SetApart,
            (None, _) => JoinOutcome::Absorb,
            (Some(IdentityRole::Absorbed(by) | IdentityRole::Apart(by)), _)
                if *by == self.known =>
            {
                JoinOutcome::Nothing
            }
            (
                Some(IdentityRole::Absorbed(_) | IdentityRole::Apart(_)),
                Some(IdentityRole::Further),
            ) => JoinOutcome::Nothing,
            (Some(IdentityRole::Absorbed(_) | IdentityRole::Apart(_)), _) => {
                JoinOutcome::CountFurther
            }
            // A minted ID that was given for a known one.
            (Some(IdentityRole::Known | IdentityRole::Further), _) => JoinOutcome::Nothing,
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
    pub fn count(&mut self, outcome: JoinOutcome) {
        match outcome {
            JoinOutcome::Absorb => self.joined += 1,
            JoinOutcome::SetApart => self.apart += 1,
            JoinOutcome::CountFurther => self.shared_devices += 1,
            JoinOutcome::Nothing => {}
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

impl IdentityRole {
    /// As it is kept: one byte, and the other ID.
    pub fn write(&self) -> Vec<u8> {
        let (kind, by): (u8, &[u8]) = match self {
            IdentityRole::Absorbed(by) => (b'=', by),
            IdentityRole::Apart(by) => (b'~', by),
            IdentityRole::Known => (b'+', &[]),
            IdentityRole::Further => (b'!', &[]),
        };
        [&[kind], by].concat()
    }

    /// Reads what [`IdentityRole::write`] wrote. `None` for what another version wrote.
    pub fn read(bytes: &[u8]) -> Option<IdentityRole> {
        match bytes.split_first()? {
            (b'=', by) => Some(IdentityRole::Absorbed(by.to_vec())),
            (b'~', by) => Some(IdentityRole::Apart(by.to_vec())),
            (b'+', []) => Some(IdentityRole::Known),
            (b'!', []) => Some(IdentityRole::Further),
            _ => None,
        }
    }

    /// Whether this names one of these known IDs.
    pub fn names_one_of(&self, ids: &HashSet<Vec<u8>>) -> bool {
        match self {
            IdentityRole::Absorbed(by) | IdentityRole::Apart(by) => ids.contains(by),
            IdentityRole::Known | IdentityRole::Further => false,
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
        let (ours, other) = (
            IdentityRole::Absorbed(b"u".to_vec()),
            IdentityRole::Absorbed(b"v".to_vec()),
        );
        let apart = IdentityRole::Apart(b"u".to_vec());
        let cases = [
            (None, None, JoinOutcome::Absorb),
            (None, Some(&IdentityRole::Known), JoinOutcome::Absorb),
            (None, Some(&IdentityRole::Further), JoinOutcome::Absorb),
            (None, Some(&other), JoinOutcome::Nothing),
            (None, Some(&apart), JoinOutcome::Nothing),
            (Some(&ours), None, JoinOutcome::Nothing),
            (Some(&apart), None, JoinOutcome::Nothing),
            (Some(&other), None, JoinOutcome::CountFurther),
            (
                Some(&other),
                Some(&IdentityRole::Known),
                JoinOutcome::CountFurther,
            ),
            (
                Some(&other),
                Some(&IdentityRole::Further),
                JoinOutcome::Nothing,
            ),
            (Some(&other), Some(&other), JoinOutcome::Nothing),
            (Some(&IdentityRole::Known), None, JoinOutcome::Nothing),
            (
                Some(&IdentityRole::Further),
                Some(&IdentityRole::Known),
                JoinOutcome::Nothing,
            ),
        ];
        for (minted, known, expected) in cases {
            let found = join(false).outcome(minted, known);
            assert_eq!(found, expected, "{minted:?} {known:?}");
        }
        assert_eq!(join(true).outcome(None, None), JoinOutcome::SetApart);
        let itself = Join {
            known: b"m".to_vec(),
            ..join(false)
        };
        assert_eq!(itself.outcome(None, None), JoinOutcome::Nothing);
    }

    #[test]
    fn roles_are_read_back_and_unknown_ones_are_not() {
        for role in [
            IdentityRole::Absorbed(b"\x00=~".to_vec()),
            IdentityRole::Apart(Vec::new()),
            IdentityRole::Known,
            IdentityRole::Further,
        ] {
            assert_eq!(IdentityRole::read(&role.write()), Some(role));
        }
        for bytes in [&b""[..], b"u1", b"+x", b"!!"] {
            assert_eq!(IdentityRole::read(bytes), None, "{bytes:?}");
        }
    }
}
