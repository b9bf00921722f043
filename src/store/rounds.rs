//! The loop of a task that reads journals beside ingestion: rounds, and a delay after each.

use super::backoff::Backoff;
use futures_util::FutureExt;
use std::future::Future;
use std::time::Duration;

/// How often it is checked whether the next round is urgent.
const URGENT_INTERVAL: Duration = Duration::from_secs(5);
/// How long the last records may take when the process stops. The next process does the rest.
pub const FINISH_WITHIN: Duration = Duration::from_secs(10);

/// How a round went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// There is more to do now.
    More,
    /// All that there was is done.
    Done,
    /// It failed, and is tried again: not before the time that was asked for.
    Failed(Duration),
}

/// A task that reads journals in rounds.
pub trait JournalRounds: Send {
    /// Does what there is now, and reports how it went. It may be dropped at any await.
    fn round(&mut self) -> impl Future<Output = Round> + Send;

    /// How long records gather between two rounds.
    fn interval(&self) -> Duration;

    /// The longest delay after a round that failed, unless more is asked for.
    fn delay_max(&self) -> Duration;

    /// Whether the next round should come early.
    fn is_urgent(&self) -> bool;
}

/// Does rounds until `stop` resolves, and then what is left, if that takes not long. Returns whether nothing is
/// left, as far as is known.
pub async fn rounds(task: &mut impl JournalRounds, stop: impl Future<Output = ()>) -> bool {
    let mut stop = std::pin::pin!(stop.fuse());
    let mut backoff = Backoff::up_to(task.delay_max());
    let mut has_failed = false;
    loop {
        let round = tokio::select! {
            () = &mut stop => break,
            round = task.round() => round,
        };
        has_failed = matches!(round, Round::Failed(_));
        let wait = match round {
            Round::More => Duration::ZERO,
            Round::Done => {
                backoff = Backoff::up_to(task.delay_max());
                task.interval()
            }
            Round::Failed(asked) => backoff.delay().min(task.delay_max()).max(asked),
        };
        tokio::select! {
            () = &mut stop => break,
            () = rest(task, wait, has_failed) => {}
        }
    }
    // A stop does not wait for somebody who is unavailable. The journals keep the records.
    if has_failed {
        return true;
    }
    let finishing = async { while task.round().await == Round::More {} };
    let finished = tokio::time::timeout(FINISH_WITHIN, finishing).await;
    finished.is_ok()
}

/// Waits until the next round, or until it is urgent.
async fn rest(task: &impl JournalRounds, wait: Duration, has_failed: bool) {
    let until = tokio::time::Instant::now() + wait;
    while tokio::time::Instant::now() < until && (has_failed || !task.is_urgent()) {
        let next = tokio::time::Instant::now() + URGENT_INTERVAL;
        tokio::time::sleep_until(next.min(until)).await;
    }
}
