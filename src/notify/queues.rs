//! Where messages wait: in the store of all replicas, or in a file of this process while the store is
//! unavailable.

use super::notification::{Notification, confirmation_key};
use crate::config::plan::{NotificationKind, Plan};
use crate::store::messages::{Enqueued, EventMark, PendingMessage, TakenMessages, Taker};
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a call of the store may take.
const CALL_WITHIN: Duration = Duration::from_secs(2);
/// How long others leave a message to the process that took it: longer than an attempt.
const TAKEN_MS: u64 = 15_000;

/// The queue of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// In the store.
    Shared,
    /// In the file.
    Own,
}

/// Both queues.
pub(super) struct MessageQueues {
    store: Arc<dyn Store>,
    own: Arc<dyn Store>,
    own_file: PathBuf,
    /// The name of this process as a taker, the same over restarts.
    name: String,
    /// Whether messages were taken since the start, by queue.
    has_taken: [bool; 2],
}

impl MessageQueues {
    /// Opens the queues. `folder` is that of the journals; its file is made when it is needed.
    pub(super) fn new(store: Arc<dyn Store>, folder: &Path) -> MessageQueues {
        let own_file = folder.join("messages.db");
        MessageQueues {
            store,
            own: Arc::new(SqliteStore::at(&own_file)),
            own_file,
            name: name(&folder.join("messages.owner")),
            has_taken: [false; 2],
        }
    }

    /// Tells a store of an event, with a message for each webhook that receives its kind.
    pub(super) async fn report(
        &self,
        plan: &Plan,
        notification: &Notification,
    ) -> Result<Enqueued, StoreError> {
        let kind = notification.kind;
        let id = format!("msg_{}", uuid::Uuid::now_v7().simple());
        let body = notification.body();
        let receivers = plan.webhooks.iter().filter(|it| it.on.contains(&kind));
        let messages = receivers.map(|webhook| PendingMessage {
            id: id.clone(),
            receiver: webhook.receiver.to_string(),
            event: notification.key.clone(),
            body: body.clone(),
            created_ms: notification.at_ms,
            attempts: 0,
        });
        let messages: Vec<PendingMessage> = messages.collect();
        if messages.is_empty() {
            return Ok(Enqueued::Known);
        }
        if kind != NotificationKind::StoreDown {
            let shared = within(self.store.enqueue(notification.mark(), &messages)).await;
            // What is found in the store waits until the store is back, and is then reported once.
            if shared.is_ok() || !MessageQueues::needs_no_store(kind) {
                return shared;
            }
        }
        within(self.own.enqueue(notification.mark(), &messages)).await
    }

    /// Whether events of a kind are found, and told, without the store.
    pub(super) fn needs_no_store(kind: NotificationKind) -> bool {
        matches!(
            kind,
            NotificationKind::StoreDown | NotificationKind::UpstreamDown
        )
    }

    /// Takes messages that are due, at most `max`.
    pub(super) async fn take(
        &mut self,
        queue: Queue,
        now_ms: u64,
        max: usize,
    ) -> Result<TakenMessages, StoreError> {
        if queue == Queue::Own && !self.own_file.exists() {
            return Ok(TakenMessages::default());
        }
        let taker = Taker {
            name: &self.name,
            now_ms,
            until_ms: now_ms + TAKEN_MS,
            max,
            has_restarted: !self.has_taken[queue as usize],
        };
        let taken = within(self.of(queue).take_messages(taker)).await?;
        self.has_taken[queue as usize] = true;
        Ok(taken)
    }

    /// Puts a message back until `due_ms`, or removes it with `None`.
    pub(super) async fn settle(
        &self,
        queue: Queue,
        message: &PendingMessage,
        due_ms: Option<u64>,
    ) -> Result<(), StoreError> {
        within(self.of(queue).settle_message(message, due_ms)).await
    }

    /// Remembers for all replicas that a receiver has confirmed an event.
    pub(super) async fn confirm(&self, event: &str, now_ms: u64) -> Result<(), StoreError> {
        let mark = EventMark {
            key: &confirmation_key(event),
            at_ms: now_ms,
            quiet_ms: EventMark::ONCE,
        };
        within(self.store.enqueue(mark, &[])).await.map(|_| ())
    }

    fn of(&self, queue: Queue) -> &dyn Store {
        match queue {
            Queue::Shared => &*self.store,
            Queue::Own => &*self.own,
        }
    }
}

/// Limits the time of a call. A store that does not answer is one that is unavailable.
pub(super) async fn within<T>(
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |_| Err(StoreError::Slow(CALL_WITHIN));
    tokio::time::timeout(CALL_WITHIN, call)
        .await
        .unwrap_or_else(late)
}

/// Returns the name in a file, which is made if it is missing. A process that cannot keep it has another name
/// after a restart, and waits until what it had taken is left to others.
fn name(file: &Path) -> String {
    let kept = std::fs::read_to_string(file).unwrap_or_default();
    if let Ok(kept) = uuid::Uuid::parse_str(kept.trim()) {
        return kept.to_string();
    }
    let name = uuid::Uuid::now_v7().to_string();
    let mut options = OpenOptions::new();
    let made = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file);
    if let Err(error) = made.and_then(|mut made| made.write_all(name.as_bytes())) {
        tracing::warn!("{} cannot be written: {error}", file.display());
    }
    name
}
