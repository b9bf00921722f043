//! Requests as spans, on their way to a collector that speaks OTLP: what the proxy knows of one
//! ([`sampled_request`]) waits in a queue for a thread of its own ([`export`]), which makes spans of it
//! ([`semantics`]) and posts them ([`post`]). Nobody who serves ever waits for it.

mod export;
mod post;
pub mod sampled_request;
mod semantics;

pub use export::run;

use crate::telemetry::Telemetry;
use sampled_request::SampledRequest;
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
