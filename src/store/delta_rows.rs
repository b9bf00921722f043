//! Applies one delta to the rows of its users, as relational stores keep them. PURE: a store reads the rows that
//! are asked for, and writes the changes.
//!
//! In this order: [`named`] says whose roles to read, [`Joined`] whose rows and which event IDs, and [`apply`] what
//! to write.

use super::apply_semantics::{Additions, UserState};
use super::event_ids::EventIds;
use super::identities::{IdentityCounts, IdentityRole, Join, JoinOutcome};
use super::waiting::rank;
use super::{Delta, EventAt, UserRecord, keys, seen_once};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The roles of IDs, by ID.
pub type Roles = HashMap<Vec<u8>, IdentityRole>;

/// The users that a delta changes, by ID.
pub type Users = BTreeMap<Vec<u8>, UserRows>;

/// Returns the IDs that a delta names.
pub fn named(delta: &Delta) -> BTreeSet<&[u8]> {
    let joins = delta.joins.iter();
    let joined = joins.flat_map(|join| [&*join.minted, &*join.known]);
    let users = delta.users.iter().map(|user_delta| &*user_delta.user);
    joined.chain(users).collect()
}

/// The outcome of the joins of a delta.
#[derive(Debug, Default)]
pub struct Joined {
    /// The roles of the delta's IDs after its joins.
    roles: Roles,
    /// Where the aliases of version 0.1.0 lead, by ID.
    old_ends: HashMap<Vec<u8>, Vec<u8>>,
    /// The roles that changed.
    changed: BTreeSet<Vec<u8>>,
    /// In the order of the joins.
    pub absorptions: Vec<Absorption>,
    /// How often each outcome occurred.
    pub counts: IdentityCounts,
}

/// One user becomes a part of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absorption {
    /// The user who stays.
    pub first: Vec<u8>,
    /// The user who goes.
    pub second: Vec<u8>,
    /// When a request said that they are one, in Unix milliseconds.
    at_ms: u64,
}

impl Joined {
    /// Decides about the joins of a delta by the roles that its IDs have, and where the old aliases of these IDs, and
    /// of those that absorbed them, lead.
    pub fn new(delta: &Delta, roles: Roles, old_ends: HashMap<Vec<u8>, Vec<u8>>) -> Joined {
        let mut joined = Joined {
            roles,
            old_ends,
            ..Joined::default()
        };
        for join in &delta.joins {
            joined.add(join);
        }
        joined
    }

    fn add(&mut self, join: &Join) {
        let known_role = self.roles.get(&join.known);
        let outcome = join.outcome(self.roles.get(&join.minted), known_role);
        let is_first = known_role.is_none();
        self.counts.count(outcome);
        let by = || join.known.clone();
        match outcome {
            JoinOutcome::Absorb => {
                let (first, second) = (self.resolve(&join.known), self.resolve(&join.minted));
                if first != second {
                    self.absorptions.push(Absorption {
                        first,
                        second,
                        at_ms: join.at_ms,
                    });
                }
                self.set(&join.minted, IdentityRole::Absorbed(by()));
                if is_first {
                    self.set(&join.known, IdentityRole::Known);
                }
            }
            JoinOutcome::SetApart => self.set(&join.minted, IdentityRole::Apart(by())),
            JoinOutcome::CountFurther => self.set(&join.known, IdentityRole::Further),
            JoinOutcome::Nothing => {}
        }
    }

    fn set(&mut self, id: &[u8], role: IdentityRole) {
        self.roles.insert(id.to_vec(), role);
        self.changed.insert(id.to_vec());
    }

    /// Returns the user that an ID counts for.
    fn resolve(&self, id: &[u8]) -> Vec<u8> {
        let id = match self.roles.get(id) {
            Some(IdentityRole::Absorbed(by)) => by,
            _ => id,
        };
        let end = self.old_ends.get(id).map_or(id, |end| end);
        end.to_vec()
    }

    /// Returns the users whose rows are read.
    pub fn users(&self, delta: &Delta) -> BTreeSet<Vec<u8>> {
        let absorptions = self.absorptions.iter();
        let joined = absorptions.flat_map(|it| [it.first.clone(), it.second.clone()]);
        let users = delta.users.iter();
        let changed = users.map(|user_delta| self.resolve(&user_delta.user));
        joined.chain(changed).collect()
    }

    /// Returns which event IDs are looked up, by user.
    pub fn wanted_ids(&self, delta: &Delta, users: &Users) -> BTreeMap<Vec<u8>, WantedIds> {
        let mut wanted: BTreeMap<Vec<u8>, WantedIds> = BTreeMap::new();
        for absorption in &self.absorptions {
            for id in [&absorption.first, &absorption.second] {
                wanted.insert(id.clone(), WantedIds::All);
            }
        }
        for user_delta in &delta.users {
            let user = self.resolve(&user_delta.user);
            let waiting = users.get(&user).into_iter().flat_map(|rows| &rows.waiting);
            let mut ids = waiting
                .chain(&user_delta.events)
                .filter_map(|event| event.id)
                .peekable();
            if ids.peek().is_none() {
                continue;
            }
            let nothing = || WantedIds::These(BTreeSet::new());
            if let WantedIds::These(these) = wanted.entry(user).or_insert_with(nothing) {
                these.extend(ids);
            }
        }
        wanted
    }
}

/// Which event IDs of a user are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedIds {
    /// All: they move to another user, or others move here.
    All,
    /// Only these, and the number of all.
    These(BTreeSet<u64>),
}

/// The rows of one user.
#[derive(Clone, Debug, Default)]
pub struct UserRows {
    /// The record; `None` until an exposure is known.
    pub record: Option<UserRecord>,
    /// Events that wait for an exposure, oldest arrival first.
    pub waiting: Vec<EventAt>,
    /// The IDs of counted events that were looked up and are kept, with the times of their events.
    pub ids: BTreeMap<u64, u64>,
    /// The number of the other IDs that are kept.
    pub further_ids: u64,
    /// The IDs that the delta added.
    added_ids: BTreeMap<u64, u64>,
}

impl UserRows {
    /// Makes the rows of a user, before any event IDs are looked up.
    pub fn new(record: Option<UserRecord>, waiting: Vec<EventAt>) -> UserRows {
        UserRows {
            record,
            waiting,
            ..UserRows::default()
        }
    }

    /// Returns the state for [`Additions`], with the IDs that these events need.
    fn state<'a>(&self, delta: &Delta, events: impl IntoIterator<Item = &'a EventAt>) -> UserState {
        let known = |id: &u64| self.ids.contains_key(id);
        let ids = events.into_iter().filter_map(|event| event.id);
        UserState {
            record: self.record.clone(),
            waiting: self.waiting.clone(),
            ids: EventIds {
                counted: ids.filter(known).collect(),
                remembered: self.ids.len() as u64 + self.further_ids,
                new: BTreeMap::new(),
                from_ms: delta.remember_from_ms,
            },
        }
    }

    fn set(&mut self, state: UserState) {
        self.record = state.record;
        self.waiting = state.waiting;
        self.ids.extend(&state.ids.new);
        self.added_ids.extend(state.ids.new);
    }

    /// Adds the event IDs of another user. Where both have one, that of this user stays.
    fn take_ids(&mut self, other: &UserRows) {
        for (&id, &at_ms) in &other.ids {
            self.ids.entry(id).or_insert(at_ms);
        }
        for (&id, &at_ms) in &other.added_ids {
            self.added_ids.entry(id).or_insert(at_ms);
        }
        self.further_ids += other.further_ids;
    }
}

/// A user, and the new content of a row; `None` deletes it.
pub type RowChange<T> = (Vec<u8>, Option<T>);

/// The rows that a delta writes.
#[derive(Debug, Default, PartialEq)]
pub struct RowChanges {
    /// User, and record.
    pub records: Vec<RowChange<String>>,
    /// Visitor who was seen once; the first exposure in Unix milliseconds, and the bytes.
    pub seen_once: Vec<RowChange<(u64, u64)>>,
    /// User; the rank in the order of dropping, and waiting events.
    pub waiting: Vec<RowChange<(u64, String)>>,
    /// ID, and role.
    pub roles: Vec<(Vec<u8>, Vec<u8>)>,
    /// User, event ID, and the time of the event. Written after the IDs of absorbed users were moved.
    pub event_ids: Vec<(Vec<u8>, u64, u64)>,
}

/// Applies a delta to its users. Joins come before the changes of users.
pub fn apply(delta: &Delta, joined: &Joined, users: Users) -> (Additions, RowChanges) {
    let mut additions = Additions::of_tallies(delta);
    let before = users;
    let mut after = before.clone();
    for absorption in &joined.absorptions {
        absorb(delta, absorption, &mut additions, &mut after);
    }
    for user_delta in &delta.users {
        let rows = after.entry(joined.resolve(&user_delta.user)).or_default();
        let state = rows.state(delta, rows.waiting.iter().chain(&user_delta.events));
        rows.set(additions.user(state, user_delta));
    }
    let mut changes = RowChanges::default();
    let nothing = UserRows::default();
    for (user, rows) in after {
        changes.add(user.clone(), before.get(&user).unwrap_or(&nothing), rows);
    }
    let changed = joined.changed.iter();
    let roles = changed.filter_map(|id| Some((id.clone(), joined.roles.get(id)?.write())));
    changes.roles.extend(roles);
    (additions, changes)
}

/// Moves everything of a user to another one.
fn absorb(delta: &Delta, absorption: &Absorption, additions: &mut Additions, users: &mut Users) {
    let other = users.insert(absorption.second.clone(), UserRows::default());
    let other = other.unwrap_or_default();
    let rows = users.entry(absorption.first.clone()).or_default();
    rows.take_ids(&other);
    let first = rows.state(delta, rows.waiting.iter().chain(&other.waiting));
    let second = other.state(delta, []);
    rows.set(additions.join(first, second, absorption.at_ms));
}

impl RowChanges {
    /// Adds what differs. Most users return without a change.
    fn add(&mut self, user: Vec<u8>, before: &UserRows, after: UserRows) {
        let (was_exposed, is_exposed) = (before.record.is_some(), after.record.is_some());
        if after.record != before.record {
            let bytes = seen_once::bytes(&user, after.record.as_ref());
            let entry = after.record.as_ref().map(|it| it.first_ms).zip(bytes);
            if entry.is_some() || seen_once::bytes(&user, before.record.as_ref()).is_some() {
                self.seen_once.push((user.clone(), entry));
            }
            let text = after.record.as_ref().map(keys::write_user);
            self.records.push((user.clone(), text));
        }
        if after.waiting != before.waiting || is_exposed != was_exposed {
            let rank = rank(&after.waiting, is_exposed);
            let entry = rank.map(|rank| (rank, keys::write_waiting(&after.waiting)));
            self.waiting.push((user.clone(), entry));
        }
        let ids = after.added_ids.into_iter();
        self.event_ids
            .extend(ids.map(|(id, at_ms)| (user.clone(), id, at_ms)));
    }
}
