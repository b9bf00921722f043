//! The queue between those who serve requests and the thread that exports them.

use super::sampled_request::SampledRequest;
use crate::telemetry::Telemetry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

/// How many exchanges may wait; more are lost, and counted.
const WAITING_MAX: usize = 8192;

/// Where exchanges are given when they have ended.
#[derive(Clone, Debug)]
pub struct Outbox {
    sender: mpsc::Sender<Box<SampledRequest>>,
    telemetry: Arc<Telemetry>,
}

/// Where they come out.
pub type Inbox = mpsc::Receiver<Box<SampledRequest>>;

/// A queue. While nobody gives it anything it holds next to nothing.
pub fn queue(telemetry: Arc<Telemetry>) -> (Outbox, Inbox) {
    let (sender, inbox) = mpsc::channel(WAITING_MAX);
    (Outbox { sender, telemetry }, inbox)
}

impl Outbox {
    /// Gives one away: never waits, and wakes nobody, for the other end comes and looks.
    pub fn give(&self, exchange: Box<SampledRequest>) {
        let spans = exchange.spans();
        if self.sender.try_send(exchange).is_err() {
            let overflowed = &self.telemetry.spans.overflowed;
            overflowed.fetch_add(spans, Ordering::Relaxed);
        }
    }
}
