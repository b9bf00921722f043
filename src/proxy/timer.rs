//! Waits with an end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A wait with an end. To wait anew costs a note; the timer is moved when it goes off too early.
#[derive(Debug, Default)]
pub(super) struct Timer {
    until: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// What was waited for has come.
    pub(super) fn stop(&mut self) {
        self.until = None;
    }

    /// Begins to wait anew `from` then: the task is woken when, or before, the wait has taken this
    /// long.
    pub(super) fn begin(
        &mut self,
        context: &mut Context<'_>,
        from: std::time::Instant,
        within: Duration,
    ) {
        let until = Instant::from_std(from) + within;
        self.until = Some(until);
        let wakes = |timer: &Pin<Box<Sleep>>| !timer.is_elapsed() && timer.deadline() <= until;
        if !self.timer.as_ref().is_some_and(wakes) && self.poll_over(context, within) {
            // So short a wait is over already: nothing else would wake the task.
            context.waker().wake_by_ref();
        }
    }

    /// Whether the wait, which begins with the first call, has taken this long.
    pub(super) fn poll_over(&mut self, context: &mut Context<'_>, within: Duration) -> bool {
        let until = *self.until.get_or_insert_with(|| Instant::now() + within);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        while timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= until {
                return true;
            }
            timer.as_mut().reset(until);
        }
        false
    }

    /// A write that waits for the other side, for so long and no longer.
    pub(super) fn in_time<T>(
        &mut self,
        context: &mut Context<'_>,
        within: Duration,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stop();
        } else if self.poll_over(context, within) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        written
    }
}
