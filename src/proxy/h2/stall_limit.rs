//! How long a stream of HTTP/2 waits for its client.
//!
//! hyper asks a body for more only when the client has room for it, so a body cannot time the wait
//! for a client that gives none. The task of its stream can: each is run by [`Here`], which ends
//! those that wait too long. Ending one resets the stream and drops all that it holds.

use crate::proxy::h2::response_body::Http2ResponseBody;
use crate::proxy::observe::access_log::{LogEntry, ResponseEnd};
use crate::proxy::timer::Timer;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

thread_local! {
    /// Of the stream whose task is polled.
    static CURRENT: RefCell<Option<Rc<StallLimit>>> = const { RefCell::new(None) };
}

/// Who a stream waits for.
#[derive(Debug, Default)]
pub struct StallLimit {
    /// A part of the body was given, and no more has been asked for.
    for_client: Cell<bool>,
    /// The body was asked for more since the task was last polled.
    moved: Cell<bool>,
    /// When the stream ends if it waits for its client.
    deadline: Cell<Option<Instant>>,
    /// Logged when the client has taken the last part of the body.
    entry: RefCell<Option<Box<LogEntry>>>,
}

impl StallLimit {
    /// The pace of the stream whose task calls this, which waits for its client up to the deadline.
    pub fn of_this_stream(deadline: Option<Instant>) -> Rc<StallLimit> {
        let pace = CURRENT.with_borrow(|current| current.clone());
        let pace = pace.unwrap_or_default();
        pace.deadline.set(deadline);
        pace
    }

    /// How long it may wait for its client from now on.
    fn patience(&self, stall_max: Duration) -> Duration {
        match self.deadline.get() {
            Some(deadline) => stall_max.min(deadline.saturating_duration_since(Instant::now())),
            None => stall_max,
        }
    }
}

/// The most that is given at once. A client that takes this much in time is not too slow, and what
/// is kept for one that takes nothing is no more.
const PART_BYTES: usize = 16 << 10;

/// A body that tells the task of its stream who is waited for.
#[derive(Debug)]
pub struct StallLimitedBody {
    answer: Http2ResponseBody,
    /// Of what the answer gave, what was not given on.
    rest: Bytes,
    pace: Rc<StallLimit>,
}

impl StallLimitedBody {
    /// This body, on a stream of this pace.
    pub fn new(answer: Http2ResponseBody, pace: Rc<StallLimit>) -> StallLimitedBody {
        StallLimitedBody {
            answer,
            rest: Bytes::new(),
            pace,
        }
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, <Http2ResponseBody as Body>::Error>>> {
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.answer).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
        let part = self.rest.split_to(self.rest.len().min(PART_BYTES));
        Poll::Ready(Some(Ok(Frame::data(part))))
    }
}

impl Body for StallLimitedBody {
    type Data = Bytes;
    type Error = <Http2ResponseBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = self.poll(context);
        if polled.is_ready() && self.is_end_stream() {
            let entry = self.answer.take_log();
            self.pace.entry.replace(entry);
        }
        self.pace.moved.set(true);
        self.pace.for_client.set(polled.is_ready());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Asked before anything is given.
        self.answer.size_hint()
    }
}

/// Runs what hyper starts on the worker's own thread, and ends streams that wait too long.
#[derive(Clone, Debug)]
pub struct Here {
    stall_max: Duration,
    running: Rc<Cell<u32>>,
}

impl Here {
    /// For one connection; a stream may wait so long for its client.
    pub fn new(stall_max: Duration) -> Here {
        Here {
            stall_max,
            running: Rc::default(),
        }
    }

    /// How many streams have not been answered to the end, and tunnels.
    pub fn running(&self) -> Rc<Cell<u32>> {
        Rc::clone(&self.running)
    }
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, future: F) {
        let (running, stall_max) = (Running::new(&self.running), self.stall_max);
        tokio::task::spawn_local(async move {
            let _running = running;
            let (mut future, pace, mut clock) = (pin!(future), Rc::default(), Timer::default());
            std::future::poll_fn(|context| {
                poll(future.as_mut(), &pace, (&mut clock, stall_max), context)
            })
            .await
        });
    }
}

fn poll(
    future: Pin<&mut impl Future<Output = ()>>,
    pace: &Rc<StallLimit>,
    (clock, stall_max): (&mut Timer, Duration),
    context: &mut Context<'_>,
) -> Poll<()> {
    pace.moved.set(false);
    CURRENT.set(Some(Rc::clone(pace)));
    let polled = future.poll(context);
    CURRENT.set(None);
    if polled.is_ready() {
        pace.entry.take();
        return polled;
    }
    if pace.moved.get() || !pace.for_client.get() {
        clock.stop();
    }
    if !pace.for_client.get() {
        return Poll::Pending;
    }
    if !clock.poll_over(context, pace.patience(stall_max)) {
        return Poll::Pending;
    }
    if let Some(mut entry) = pace.entry.take() {
        entry.ends(ResponseEnd::Left);
    }
    Poll::Ready(())
}

/// Counts what runs for as long as it runs, even if it is dropped.
struct Running(Rc<Cell<u32>>);

impl Running {
    fn new(running: &Rc<Cell<u32>>) -> Running {
        running.set(running.get() + 1);
        Running(Rc::clone(running))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
