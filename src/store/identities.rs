//! Decides which minted ID belongs to which known ID. PURE. SQLite uses this file, and the script of
//! Redis implements the same.
//!
//! A minted ID is absorbed at most once, by the first known ID that came with it. An ID that absorbed
//! another is never absorbed, and an absorbed ID never absorbs. So an alias leads to its user in one
//! step, whatever clients send, and two known IDs are never joined.

use std::collections::{BTreeMap, HashSet};

/// A minted ID and a known ID on one request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Join {
    /// When the two IDs first came together in a batch, in Unix milliseconds.
    pub at_ms: u64,
    /// The minted ID, proved by its tag.
    pub minted: Vec<u8>,
    /// The known ID.
    pub known: Vec<u8>,
    /// Whether the known ID is in another shard: no atomic step could move the counts there.
    pub apart: bool,
}

/// The role of an ID, kept beside the user's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityRole {
    /// A minted ID that counts for this known ID.
    Absorbed(Vec<u8>),
    /// A minted ID that came with this known ID, which is in another shard: they stay two users.
    Apart(Vec<u8>),
    /// A known ID that has absorbed a minted ID.
    Known,
    /// A known ID that came with a minted ID which another known ID had absorbed.
    Further,
}

/// The outcome of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinOutcome {
    /// The minted ID counts for the known ID from now on, with all its counts.
    Absorb,
    /// The minted ID takes [`IdentityRole::Apart`].
    SetApart,
    /// The known ID takes [`IdentityRole::Further`].
    CountFurther,
    /// Nothing changes.
    Nothing,
}

impl Join {
    /// Decides the outcome by the roles of both IDs.
    pub fn outcome(
        &self,
        minted: Option<&IdentityRole>,
        known: Option<&IdentityRole>,
    ) -> JoinOutcome {
        if self.minted == self.known {
            return JoinOutcome::Nothing;
        }
        match (minted, known) {
            // An absorbed ID absorbs nothing.
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
            // A minted ID that was sent as a known ID.
            (Some(IdentityRole::Known | IdentityRole::Further), _) => JoinOutcome::Nothing,
        }
    }
}

/// How often each outcome occurred in an experiment. Forgotten users stay counted here: the numbers name
/// nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdentityCounts {
    /// Minted IDs that a known ID absorbed.
    pub joined: u64,
    /// Known IDs that came with a minted ID which another known ID had absorbed. Each is a separate user.
    pub shared_devices: u64,
    /// Minted IDs that stay separate users because the known ID is in another shard.
    pub apart: u64,
}

impl IdentityCounts {
    /// The names of the counts in stores.
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

    /// Returns the counts, in the order of [`Self::NAMES`].
    pub fn values(&self) -> [u64; 3] {
        [self.joined, self.shared_devices, self.apart]
    }

    /// Adds the counts of a shard, by name. Names of other versions are ignored.
    pub fn add(&mut self, counts: &BTreeMap<String, u64>) {
        let of = |name: &str| counts.get(name).copied().unwrap_or(0);
        let [joined, shared_devices, apart] = Self::NAMES.map(of);
        self.joined += joined;
        self.shared_devices += shared_devices;
        self.apart += apart;
    }
}

/// The most steps from an alias of version 0.1.0 to its user: far more than one person has devices.
/// Version 0.1.0 kept chains of aliases, which clients could make as long as they liked.
pub const OLD_STEPS_MAX: usize = 16;

impl IdentityRole {
    /// Encodes the role: one byte, and the other ID.
    pub fn write(&self) -> Vec<u8> {
        let (kind, by): (u8, &[u8]) = match self {
            IdentityRole::Absorbed(by) => (b'=', by),
            IdentityRole::Apart(by) => (b'~', by),
            IdentityRole::Known => (b'+', &[]),
            IdentityRole::Further => (b'!', &[]),
        };
        [&[kind], by].concat()
    }

    /// Decodes a role; `None` for that of another version.
    pub fn read(bytes: &[u8]) -> Option<IdentityRole> {
        match bytes.split_first()? {
            (b'=', by) => Some(IdentityRole::Absorbed(by.to_vec())),
            (b'~', by) => Some(IdentityRole::Apart(by.to_vec())),
            (b'+', []) => Some(IdentityRole::Known),
            (b'!', []) => Some(IdentityRole::Further),
            _ => None,
        }
    }

    /// Whether the role names one of these known IDs.
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
            at_ms: 1,
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
