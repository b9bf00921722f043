//! What this worker knows of `User-Agent` headers: clients send few different ones, and looking through
//! the list takes thousands of instructions.

use crate::experiment::robots::{ClientKind, Robots};
use foldhash::quality::RandomState;
use std::cell::Cell;
use std::hash::BuildHasher;

const SLOTS: usize = 512;

/// What clients are, by the hash of their `User-Agent`. The key of the hash is random, so that no
/// client can send two headers with the same hash.
#[derive(Debug)]
pub struct RobotCache {
    state: RandomState,
    /// A hash; its lowest two bits say what the client is.
    slots: Box<[Cell<u64>]>,
}

impl Default for RobotCache {
    fn default() -> RobotCache {
        RobotCache {
            state: RandomState::default(),
            slots: vec![Cell::new(0); SLOTS].into(),
        }
    }
}

impl RobotCache {
    /// What this `User-Agent` says about the client by these rules, which must be the same in each call.
    pub fn client_kind(&self, rules: &Robots, user_agent: &[u8]) -> ClientKind {
        const KINDS: [ClientKind; 3] = [
            ClientKind::Person,
            ClientKind::PerhapsRobot,
            ClientKind::Robot,
        ];
        let hash = self.state.hash_one(user_agent) | 3;
        // The highest bits choose the slot: all others are compared.
        let slot = &self.slots[(hash >> 55) as usize];
        let known = slot.get();
        if known | 3 == hash
            && let Some(kind) = KINDS.get((known & 3) as usize)
        {
            return *kind;
        }
        let kind = rules.client_kind(user_agent);
        slot.set(hash & !3 | kind as u64);
        kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_those_of_the_list_again_and_again() {
        let (cache, rules) = (RobotCache::default(), Robots::default());
        for _ in 0..2 {
            for number in 0..2_000 {
                let robot = format!("Googlebot/{number}");
                let person = format!("Mozilla/5.0 (X11; Linux x86_64) Firefox/{number}");
                assert_eq!(
                    cache.client_kind(&rules, robot.as_bytes()),
                    ClientKind::Robot
                );
                assert_eq!(
                    cache.client_kind(&rules, person.as_bytes()),
                    ClientKind::Person
                );
            }
        }
    }
}
