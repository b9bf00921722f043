//! Warns of IDs that make a large share of all requests.

use crate::telemetry::{FrequentId, Telemetry};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(2);
/// The log names no more IDs than these; the results name all of them.
const LOGGED_MAX: usize = 64;

/// Logs each frequent ID once.
pub(super) async fn warn(telemetry: Arc<Telemetry>) {
    let mut logged = BTreeSet::new();
    loop {
        for line in new(&telemetry.frequent_ids(), &mut logged) {
            tracing::warn!("{line}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The lines of IDs that were not logged before.
fn new(frequent: &[FrequentId], logged: &mut BTreeSet<String>) -> Vec<String> {
    let is_new = |it: &&FrequentId| logged.len() < LOGGED_MAX && logged.insert(it.shown.clone());
    let line = |it: &FrequentId| {
        format!(
            "one ID makes {:.0} % of the latest requests: {}; it counts as one user. If it is a shared or default ID, or a robot, exclude it (`exclude: [ {{ ids: [ … ] }} ]`) or fix what sends it",
            100.0 * it.share,
            it.shown
        )
    };
    frequent.iter().filter(is_new).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_is_logged_once() {
        let id = |shown: &str, share| FrequentId {
            shown: shown.to_owned(),
            share,
        };
        let mut logged = BTreeSet::new();
        let lines = new(&[id("gues… (5 bytes)", 0.126)], &mut logged);
        assert!(
            lines[0].contains("13 %") && lines[0].contains("gues…"),
            "{lines:?}"
        );
        assert!(new(&[id("gues… (5 bytes)", 0.5)], &mut logged).is_empty());
        assert_eq!(
            new(&[id("gues… (5 bytes)", 0.5), id("a", 0.1)], &mut logged).len(),
            1
        );
    }
}
