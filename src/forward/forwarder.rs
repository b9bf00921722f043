//! Forwards records of journals to one destination: see [`super`].

use super::client::{DestinationClient, PostFailure};
use super::delivery::{BatchState, deliver};
use super::journal::ForwardedJournal;
use super::message::Message;
use super::payload::payloads;
use super::selection::messages;
use crate::config::plan::{Destination, Plan};
use crate::journal::{Chunk, FoundJournals};
use crate::store::rounds::{FINISH_WITHIN, JournalRounds, Round, rounds};
use crate::store::{AllForgotten, Store, StoreError, chain};
use crate::telemetry::{ForwardCounters, Telemetry};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// The longest delay after an attempt that failed, unless the destination asks for a longer one.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// Forwards records of journals to one destination.
pub(crate) struct Forwarder {
    plans: watch::Receiver<Arc<Plan>>,
    client: DestinationClient,
    store: Arc<dyn Store>,
    telemetry: Arc<Telemetry>,
    counters: Arc<ForwardCounters>,
    found: FoundJournals,
    journals: Vec<ForwardedJournal>,
    /// Records that were dropped from journals that are gone.
    dropped_before: u64,
    /// Why messages were refused last.
    why_refused: Option<String>,
    has_failed: bool,
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error("{}", .0.why)]
    Post(PostFailure),
    #[error("it waits for the store, which knows forgotten users: {}", .0.with_advice())]
    Store(#[from] StoreError),
    #[error("a journal, or the position in it, cannot be read or written: {}", chain(.0))]
    Journal(#[from] io::Error),
}

impl Forwarder {
    /// Makes a forwarder of the journals in `found`, also of those that will be added. Changes of the destination in
    /// later plans take effect.
    pub(crate) fn new(
        destination: &Destination,
        plans: watch::Receiver<Arc<Plan>>,
        store: Arc<dyn Store>,
        telemetry: Arc<Telemetry>,
        found: FoundJournals,
    ) -> Forwarder {
        Forwarder {
            plans,
            client: DestinationClient::of(destination),
            store,
            counters: telemetry.forward.of(&destination.name),
            telemetry,
            found,
            journals: Vec::new(),
            dropped_before: 0,
            why_refused: None,
            has_failed: false,
        }
    }

    /// Forwards until `stop` resolves, and then what is left, if that takes not long.
    pub(crate) async fn run(&mut self, stop: impl Future<Output = ()>) {
        if !rounds(self, stop).await {
            tracing::warn!(
                "not all records were sent to {} within {FINISH_WITHIN:?}: the next process sends the rest",
                self.name()
            );
        }
    }

    fn name(&self) -> &str {
        &self.client.destination().name
    }

    /// Forwards one batch of each journal. Returns whether there is more.
    async fn forward(&mut self) -> Result<bool, ForwardError> {
        self.follow_plan();
        let name = self.name().to_owned();
        for follower in self.found.take() {
            self.journals.push(ForwardedJournal::new(follower, &name)?);
        }
        self.measure();
        let (mut is_more, mut unread) = (false, Ok(()));
        if self.journals.iter().any(|journal| journal.waiting() > 0) {
            let forgotten = AllForgotten::load(&*self.store).await?;
            for place in 0..self.journals.len() {
                match self.step(place, &forgotten).await {
                    Ok(more) => is_more |= more,
                    // The other journals can be read.
                    Err(error @ ForwardError::Journal(_)) => unread = Err(error),
                    Err(error) => return Err(error),
                }
            }
        }
        let (over, on): (Vec<_>, Vec<_>) = std::mem::take(&mut self.journals)
            .into_iter()
            .partition(ForwardedJournal::is_over);
        self.journals = on;
        self.dropped_before += over.iter().map(ForwardedJournal::dropped).sum::<u64>();
        self.measure();
        unread.map(|()| is_more)
    }

    /// Takes changes of the destination over.
    fn follow_plan(&mut self) {
        if !self.plans.has_changed().unwrap_or(false) {
            return;
        }
        let plan = Arc::clone(&self.plans.borrow_and_update());
        let mut all = plan.forward.iter();
        if let Some(destination) = all.find(|it| *it.name == *self.name()) {
            self.client = DestinationClient::of(destination);
        }
    }

    /// Forwards the next batch of a journal. Returns whether there is more.
    async fn step(&mut self, place: usize, forgotten: &AllForgotten) -> Result<bool, ForwardError> {
        let journal = &mut self.journals[place];
        let Some((chunk, last)) = journal.next()? else {
            return Ok(false);
        };
        let (destination, counters) = (self.client.destination(), &*self.counters);
        let state = (&mut journal.batch, counters);
        let payloads = payloads(
            &destination.format,
            &left(&chunk, destination, forgotten, state),
        );
        let attempt = deliver(&self.client, payloads, &mut journal.batch, counters).await;
        self.why_refused = attempt.why_refused.or(self.why_refused.take());
        if let Some(failure) = attempt.failure {
            return Err(ForwardError::Post(failure));
        }
        let records = chunk.records.len() as u64;
        counters.records.fetch_add(records, Ordering::Relaxed);
        journal.settle(last)?;
        Ok(journal.waiting() > 0)
    }

    fn measure(&self) {
        let sum = |of: fn(&ForwardedJournal) -> u64| self.journals.iter().map(of).sum::<u64>();
        let dropped = self.dropped_before + sum(ForwardedJournal::dropped);
        let counters = &*self.counters;
        counters.dropped.store(dropped, Ordering::Relaxed);
        let waiting = sum(ForwardedJournal::waiting);
        counters.waiting.store(waiting, Ordering::Relaxed);
        let held = sum(ForwardedJournal::held_bytes);
        counters.held_bytes.store(held, Ordering::Relaxed);
        self.problem("dropped", self.losses(dropped));
    }

    /// Describes what the destination never gets.
    fn losses(&self, dropped: u64) -> Option<String> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let why_refused = self.why_refused.as_deref().unwrap_or_default();
        let all = [
            (
                dropped,
                "records were deleted before they were sent, because more of the journal waited than `backlog` allows".to_owned(),
            ),
            (
                read(&self.counters.expired),
                "messages were not sent, because they waited for longer than `max_age`".to_owned(),
            ),
            (
                read(&self.counters.refused),
                format!("messages were refused ({why_refused}), and others accepted"),
            ),
        ];
        let losses = all.iter().filter(|(count, _)| *count > 0);
        let losses: Vec<_> = losses
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!losses.is_empty()).then(|| {
            format!(
                "the destination {} of `forward` does not have everything: {}; the counts have it",
                self.name(),
                losses.join("; ")
            )
        })
    }

    fn report(&mut self, error: Option<&ForwardError>) {
        let was_failing = std::mem::replace(&mut self.has_failed, error.is_some());
        let failed = u64::from(error.is_some());
        self.counters.failed.fetch_add(failed, Ordering::Relaxed);
        let problem = error.map(|error| {
            let Destination { name, target, .. } = self.client.destination();
            format!(
                "the destination {name} of `forward` gets nothing from {target}: {error}. Requests are served and counted, and records wait in the journal, up to its `backlog` and `max_age`"
            )
        });
        if was_failing && problem.is_none() {
            tracing::info!("{} gets records again", self.name());
        }
        self.problem("failing", problem);
    }

    fn problem(&self, subject: &str, problem: Option<String>) {
        let subject = format!("forward-{}-{subject}", self.name());
        if self.telemetry.problems.set(subject, problem.clone())
            && let Some(problem) = problem
        {
            tracing::error!("{problem}");
        }
    }
}

/// Returns the messages of a batch that are not settled yet. Those that are too old are settled by that.
fn left<'a>(
    chunk: &'a Chunk,
    destination: &Destination,
    forgotten: &AllForgotten,
    (state, counters): (&mut BatchState, &ForwardCounters),
) -> Vec<Message<'a>> {
    let is_gone = |id: &[u8], at_ms| at_ms <= forgotten.until_ms(id);
    let mut left = messages(chunk, destination, is_gone);
    let oldest_ms = now_ms().saturating_sub(destination.max_age.as_millis() as u64);
    left.retain(|message| !state.settled.contains(&message.id));
    left.retain(|message| {
        let is_recent = message.of.record.at_ms >= oldest_ms;
        if !is_recent {
            state.settled.insert(message.id);
            counters.expired.fetch_add(1, Ordering::Relaxed);
        }
        is_recent
    });
    left
}

impl JournalRounds for Forwarder {
    async fn round(&mut self) -> Round {
        let forwarded = self.forward().await;
        self.report(forwarded.as_ref().err());
        match forwarded {
            Ok(true) => Round::More,
            Ok(false) => Round::Done,
            Err(ForwardError::Post(failure)) => Round::Failed(failure.asked),
            Err(_) => Round::Failed(Duration::ZERO),
        }
    }

    fn interval(&self) -> Duration {
        self.client.destination().every
    }

    fn delay_max(&self) -> Duration {
        DELAY_MAX
    }

    /// Whether much of the journal is kept for the destination: what is beyond the backlog would be deleted.
    fn is_urgent(&self) -> bool {
        let held: u64 = self.journals.iter().map(ForwardedJournal::held_bytes).sum();
        held > self.client.destination().backlog_bytes / 2
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}
