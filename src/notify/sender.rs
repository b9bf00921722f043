//! The task that reports events and sends messages.

use super::audit;
use super::board::Board;
use super::conditions::ProcessConditions;
use super::post::{Delivery, post};
use super::queues::{MessageQueues, Queue, within};
use super::schedule::{GIVE_UP_MS, delay};
use crate::config::plan::{Plan, Webhook};
use crate::store::decisions::AuditEntry;
use crate::store::messages::{Enqueued, EventMark, PendingMessage};
use crate::store::{Store, StoreError, chain};
use crate::tasks::{self, Phase, PhaseWatch};
use crate::telemetry::Telemetry;
use crate::upstream::HealthRegistry;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};

/// How often events are reported and messages are looked for.
const INTERVAL: Duration = Duration::from_secs(1);
/// The most attempts at once.
const IN_FLIGHT_MAX: usize = 64;
/// How long attempts may take when the process stops. What is left is sent after the next start.
const FINISH_WITHIN: Duration = Duration::from_secs(3);
/// How long a message waits whose receiver this process does not know: another replica may.
const UNKNOWN_MS: u64 = 60_000;
/// How many decisions are read at once.
const DECISIONS: usize = 200;
/// The source of decisions on the board.
const AUDIT: &str = "/audit";
/// The event that marks since when decisions are told.
const BEGAN: &str = "began";

/// What the task reads and writes.
#[derive(Clone)]
pub struct Sources {
    /// The active plan.
    pub plans: watch::Receiver<Arc<Plan>>,
    /// What others have found.
    pub board: Arc<Board>,
    /// The store of all replicas.
    pub store: Arc<dyn Store>,
    /// The folder of the journals.
    pub folder: PathBuf,
    /// Counters.
    pub telemetry: Arc<Telemetry>,
    /// The health of every endpoint.
    pub health_registry: Arc<HealthRegistry>,
}

/// Reports events and sends messages while the plan has webhooks, until [`Phase::Closing`].
pub async fn run(sources: Sources, mut phase: PhaseWatch) {
    let mut plans = sources.plans.clone();
    let mut stopping = phase.clone();
    let mut sender = tokio::select! {
        wanted = plans.wait_for(|plan| !plan.webhooks.is_empty()) => {
            if wanted.is_err() {
                return;
            }
            Sender::new(sources)
        }
        () = stopping.reached(Phase::Closing) => return,
    };
    loop {
        let round = async {
            sender.round().await;
            sender.pause().await;
        };
        tokio::select! {
            () = round => {}
            () = phase.reached(Phase::Closing) => break,
        }
    }
    // A loop that ends early leaves messages to the next start.
    let _ = tokio::time::timeout(FINISH_WITHIN, sender.finish()).await;
}

/// An attempt that has ended.
struct Ended {
    queue: Queue,
    message: PendingMessage,
    attempt: Delivery,
}

/// What became of a message, until its queue knows it.
struct Unsettled {
    queue: Queue,
    message: PendingMessage,
    due_ms: Option<u64>,
    confirms: bool,
}

struct Sender {
    sources: Sources,
    queues: MessageQueues,
    conditions: ProcessConditions,
    in_flight: usize,
    ended: (mpsc::UnboundedSender<Ended>, mpsc::UnboundedReceiver<Ended>),
    unsettled: Vec<Unsettled>,
    /// Since when decisions are told, in Unix milliseconds.
    began_ms: Option<u64>,
}

impl Sender {
    fn new(sources: Sources) -> Sender {
        let queues = MessageQueues::new(Arc::clone(&sources.store), &sources.folder);
        Sender {
            queues,
            conditions: ProcessConditions::default(),
            in_flight: 0,
            // No more messages than attempts are in it.
            ended: mpsc::unbounded_channel(),
            unsettled: Vec::new(),
            began_ms: None,
            sources,
        }
    }

    /// Reports what was found, and begins to send what is due.
    async fn round(&mut self) {
        let plan = Arc::clone(&self.sources.plans.borrow());
        let telemetry = Arc::clone(&self.sources.telemetry);
        if plan.webhooks.is_empty() {
            return telemetry.messages.pending.store(0, Ordering::Relaxed);
        }
        self.look(&plan).await;
        self.report(&plan).await;
        self.settle().await;
        let mut pending = 0;
        for queue in [Queue::Shared, Queue::Own] {
            pending += self.send(&plan, queue).await;
        }
        telemetry.messages.pending.store(pending, Ordering::Relaxed);
    }

    /// Waits for the next round, and takes note of attempts that end.
    async fn pause(&mut self) {
        let until = tokio::time::Instant::now() + INTERVAL;
        while let Ok(Some(ended)) = tokio::time::timeout_at(until, self.ended.1.recv()).await {
            self.end(ended);
            self.settle().await;
        }
    }

    /// Waits for all attempts, and settles them.
    async fn finish(&mut self) {
        while self.in_flight > 0 {
            let Some(ended) = self.ended.1.recv().await else {
                return;
            };
            self.end(ended);
        }
        self.settle().await;
    }

    /// Finds what this process sees by itself.
    async fn look(&mut self, plan: &Plan) {
        let (board, now_ms) = (Arc::clone(&self.sources.board), now_ms());
        let health = Arc::clone(&self.sources.health_registry);
        self.conditions.look(plan, &health, &board, now_ms).await;
        let store = Arc::clone(&self.sources.store);
        let decisions = within(store.audit_log(DECISIONS)).await;
        let error = decisions.as_ref().err().map(|error| chain(error));
        self.conditions.store(error, store.kind(), &board, now_ms);
        if let (Ok(decisions), Some(began_ms)) = (decisions, self.began_ms(now_ms).await) {
            let since_ms = began_ms.max(now_ms.saturating_sub(GIVE_UP_MS));
            let is_told = |entry: &&AuditEntry| entry.at_ms >= since_ms;
            let told = decisions.iter().filter(is_told);
            board.set(AUDIT, told.filter_map(audit::notification).collect());
        }
    }

    /// Returns since when decisions are told: since the store first had a process with webhooks.
    async fn began_ms(&mut self, now_ms: u64) -> Option<u64> {
        if self.began_ms.is_none() {
            let mark = EventMark {
                key: BEGAN,
                at_ms: now_ms,
                quiet_ms: EventMark::ONCE,
            };
            let store = &self.sources.store;
            let began_ms = within(store.reported_ms(BEGAN)).await.ok()?;
            if began_ms.is_none() {
                within(store.enqueue(mark, &[])).await.ok()?;
            }
            self.began_ms = Some(began_ms.unwrap_or(now_ms));
        }
        self.began_ms
    }

    /// Tells the store what stands on the board.
    async fn report(&mut self, plan: &Plan) {
        let Sources {
            board, telemetry, ..
        } = &self.sources;
        let (mut full, mut is_away) = (None, false);
        for notification in board.due(now_ms()) {
            if is_away && !MessageQueues::needs_no_store(notification.kind) {
                continue;
            }
            match self.queues.report(plan, &notification).await {
                Ok(Enqueued::New) => {
                    tracing::info!("telling webhooks: {}", notification.text);
                    board.reported(&notification.key, notification.at_ms);
                }
                Ok(Enqueued::Known) => board.reported(&notification.key, notification.at_ms),
                Ok(Enqueued::Full) => {
                    telemetry.messages.full.fetch_add(1, Ordering::Relaxed);
                    full = Some("too many messages to webhooks wait, so new events get none: make their receivers accept them, or remove the webhooks".to_owned());
                }
                // The loss of the store is an event of its own.
                Err(error) => {
                    tracing::debug!("not reported yet: {}", chain(&error));
                    is_away = true;
                }
            }
        }
        if telemetry.problems.set("webhooks", full.clone())
            && let Some(full) = full
        {
            tracing::error!("{full}");
        }
    }

    /// Begins to send messages that are due. Returns how many wait.
    async fn send(&mut self, plan: &Plan, queue: Queue) -> u64 {
        let now_ms = now_ms();
        let room = IN_FLIGHT_MAX.saturating_sub(self.in_flight + self.unsettled.len());
        let taken = match self.queues.take(queue, now_ms, room).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::debug!("no messages are taken: {}", chain(&error));
                return 0;
            }
        };
        for message in taken.messages {
            let mut webhooks = plan.webhooks.iter();
            let webhook = webhooks.find(|it| *it.receiver == *message.receiver);
            let is_old = now_ms.saturating_sub(message.created_ms) > GIVE_UP_MS;
            match webhook {
                _ if is_old => self.give_up(queue, message, "it is three days old"),
                Some(webhook) => self.attempt(queue, message, webhook),
                None => self.put_back(queue, message, now_ms + UNKNOWN_MS),
            }
        }
        taken.pending
    }

    fn attempt(&mut self, queue: Queue, message: PendingMessage, webhook: &Webhook) {
        let (webhook, ended) = (webhook.clone(), self.ended.0.clone());
        self.in_flight += 1;
        tasks::spawn("webhook", async move {
            let attempt = post(&webhook, &message, now_ms() / 1000).await;
            // Nobody listens when the process stops; the message is sent after the next start.
            let _ = ended.send(Ended {
                queue,
                message,
                attempt,
            });
        });
    }

    /// Decides what follows from an attempt.
    fn end(&mut self, ended: Ended) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Ended {
            queue,
            mut message,
            attempt,
        } = ended;
        let counters = &self.sources.telemetry.messages;
        match attempt {
            Delivery::Delivered { confirms } => {
                counters.delivered.fetch_add(1, Ordering::Relaxed);
                self.unsettled.push(Unsettled {
                    queue,
                    message,
                    due_ms: None,
                    confirms,
                });
            }
            Delivery::Unwanted => self.give_up(queue, message, "it responds 410 Gone"),
            Delivery::Failed { why, asked } => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
                message.attempts = message.attempts.saturating_add(1);
                let delay = delay(message.attempts, fastrand::f64(), asked);
                tracing::warn!(
                    "the webhook {} did not accept {}: {why}; attempt {} failed, the next is in {delay:.0?}",
                    self.address(&message),
                    message.id,
                    message.attempts
                );
                let due_ms = now_ms().saturating_add(delay.as_millis() as u64);
                self.put_back(queue, message, due_ms);
            }
        }
    }

    fn put_back(&mut self, queue: Queue, message: PendingMessage, due_ms: u64) {
        self.unsettled.push(Unsettled {
            queue,
            message,
            due_ms: Some(due_ms),
            confirms: false,
        });
    }

    fn give_up(&mut self, queue: Queue, message: PendingMessage, why: &str) {
        let counters = &self.sources.telemetry.messages;
        counters.given_up.fetch_add(1, Ordering::Relaxed);
        let (id, address) = (&message.id, self.address(&message));
        tracing::error!("the webhook {address} never gets {id}: {why}");
        self.unsettled.push(Unsettled {
            queue,
            message,
            due_ms: None,
            confirms: false,
        });
    }

    /// The address of a receiver without its path, which may hold a secret.
    fn address(&self, message: &PendingMessage) -> String {
        let plan = self.sources.plans.borrow();
        let mut webhooks = plan.webhooks.iter();
        let webhook = webhooks.find(|it| *it.receiver == *message.receiver);
        webhook.map_or_else(|| message.receiver.clone(), |it| it.target.to_string())
    }

    /// Tells the queues what became of messages. What a queue does not take is told again in the next round,
    /// also if this future is dropped.
    async fn settle(&mut self) {
        let mut failing = [false; 2];
        let mut place = 0;
        while let Some(unsettled) = self.unsettled.get(place) {
            let queue = unsettled.queue as usize;
            if failing[queue] {
                place += 1;
                continue;
            }
            match unsettled.tell(&self.queues).await {
                Ok(()) => {
                    self.unsettled.swap_remove(place);
                }
                Err(error) => {
                    tracing::debug!("a message is not settled yet: {}", chain(&error));
                    failing[queue] = true;
                }
            }
        }
    }
}

impl Unsettled {
    async fn tell(&self, queues: &MessageQueues) -> Result<(), StoreError> {
        if self.confirms {
            queues.confirm(&self.message.event, now_ms()).await?;
        }
        queues.settle(self.queue, &self.message, self.due_ms).await
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}
