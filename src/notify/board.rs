//! What stands now, by who found it, and what of it is reported.

use super::notification::Notification;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What stands now. A source replaces all that it found at once, so the board holds no more than the
/// sources find. What stands is reported again and again until the store has it: nothing is lost when the
/// store is unavailable for a while.
#[derive(Debug, Default)]
pub struct Board(Mutex<Contents>);

#[derive(Debug, Default)]
struct Contents {
    /// By source.
    standing: BTreeMap<String, Vec<Notification>>,
    /// By event: when the store was last told of it, in Unix milliseconds.
    reported: HashMap<String, u64>,
}

/// How often the store is told that a lasting event goes on, in milliseconds.
const AGAIN_MS: u64 = 60_000;

impl Board {
    /// Replaces what a source has found.
    pub fn set(&self, source: &str, found: Vec<Notification>) {
        let mut contents = self.contents();
        match found.is_empty() {
            true => contents.standing.remove(source),
            false => contents.standing.insert(source.to_owned(), found),
        };
    }

    /// Removes what sources have found for which `is_source` does not hold.
    pub fn retain(&self, is_source: impl Fn(&str) -> bool) {
        let standing = &mut self.contents().standing;
        standing.retain(|source, _| is_source(source));
    }

    /// Whether the store has been told of an event.
    pub fn is_reported(&self, event: &str) -> bool {
        self.contents().reported.contains_key(event)
    }

    /// Returns what the store is to be told now.
    pub(super) fn due(&self, now_ms: u64) -> Vec<Notification> {
        let mut contents = self.contents();
        let Contents { standing, reported } = &mut *contents;
        let all = || standing.values().flatten();
        reported.retain(|key, _| all().any(|it| it.key == *key));
        let is_due = |it: &&Notification| match reported.get(&it.key) {
            None => true,
            Some(at_ms) => it.is_lasting() && now_ms.abs_diff(*at_ms) >= AGAIN_MS,
        };
        let due = all().filter(is_due).cloned();
        let again = |it| Notification {
            at_ms: now_ms,
            ..it
        };
        due.map(again).collect()
    }

    /// Notes that the store has been told of an event.
    pub(super) fn reported(&self, event: &str, now_ms: u64) {
        self.contents().reported.insert(event.to_owned(), now_ms);
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // No code that holds this lock can leave the contents half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::NotificationKind;
    use crate::store::messages::EventMark;

    fn found(key: &str, quiet_ms: u64) -> Notification {
        Notification {
            kind: NotificationKind::Harm,
            experiment: None,
            key: key.to_owned(),
            quiet_ms,
            at_ms: 0,
            data: serde_json::Value::Null,
            text: String::new(),
        }
    }

    #[track_caller]
    fn check(board: &Board, now_ms: u64, expected: &[&str]) {
        let due = board.due(now_ms);
        let keys: Vec<&str> = due.iter().map(|it| &*it.key).collect();
        assert_eq!(keys, expected);
        assert!(due.iter().all(|it| it.at_ms == now_ms));
    }

    #[test]
    fn event_is_due_until_it_is_reported_and_lasting_one_again_after_a_minute() {
        let board = Board::default();
        board.set(
            "site",
            vec![found("a", EventMark::ONCE), found("b", 300_000)],
        );
        check(&board, 1, &["a", "b"]);
        check(&board, 2, &["a", "b"]);
        board.reported("a", 2);
        board.reported("b", 2);
        assert!(board.is_reported("a"));
        check(&board, 60_001, &[]);
        check(&board, 60_002, &["b"]);
        // An event that stands no longer is forgotten, and due when it stands again.
        board.set("site", vec![found("b", 300_000)]);
        check(&board, 3, &[]);
        assert!(!board.is_reported("a"));
        board.set("site", vec![found("a", EventMark::ONCE)]);
        check(&board, 4, &["a"]);
        board.retain(|source| source != "site");
        check(&board, 5, &[]);
    }
}
