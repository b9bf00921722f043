//! The phase of the process. Every task watches it, and ends when its phase is over.

use std::time::Instant;
use tokio::sync::watch;

/// A phase of the process. The phases follow each other in this order, and a later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Files are opened and tasks are started.
    Starting,
    /// Requests are served.
    Ready,
    /// Requests are served for `timeouts.grace`, and `readyz` returns 503, so that load balancers
    /// choose another process.
    Leaving,
    /// No connection is accepted; requests in flight finish.
    Draining(Drain),
    /// The workers have ended. The admin API and the followers of the store end, so that nothing
    /// is journaled any more.
    Closing,
    /// The store gets the last records.
    Flushing,
    /// The store has all records: the experiments are analyzed for the last time.
    Concluding,
}

/// How the workers finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Drain {
    /// Until then, a connection without a request may still send one.
    pub quiet_until: Instant,
    /// Whether another process accepts the connections that still wait at the public listeners.
    pub others_listen: bool,
}

impl Phase {
    /// Whether the process is stopping.
    pub fn is_stopping(self) -> bool {
        self > Phase::Ready
    }

    /// Whether tasks may end.
    pub fn is_ending(self) -> bool {
        self > Phase::Leaving
    }

    /// How the workers finish, in [`Phase::Draining`].
    pub fn drain(self) -> Option<Drain> {
        match self {
            Phase::Draining(drain) => Some(drain),
            _ => None,
        }
    }
}

/// Watches the phase of the process.
#[derive(Clone, Debug)]
pub struct PhaseWatch(watch::Receiver<Phase>);

impl PhaseWatch {
    pub(super) fn new(receiver: watch::Receiver<Phase>) -> PhaseWatch {
        PhaseWatch(receiver)
    }

    /// Returns the current phase.
    pub fn now(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until `is_reached` holds, and returns the phase then. Without a supervisor, the last
    /// phase stands, and waiting returns at once.
    pub async fn until(&mut self, is_reached: impl FnMut(&Phase) -> bool) -> Phase {
        let reached = self.0.wait_for(is_reached).await.map(|phase| *phase);
        reached.unwrap_or_else(|_| self.now())
    }

    /// Waits until tasks may end.
    pub async fn ending(&mut self) -> Phase {
        self.until(|phase| phase.is_ending()).await
    }

    /// Waits for a phase, or a later one.
    pub async fn reached(&mut self, phase: Phase) {
        self.until(|now| *now >= phase).await;
    }
}
