//! Long-running tasks and threads, each with a name and a policy, and the [`Phase`] of the process
//! that they watch. A task that panics, or ends before the process stops, is logged, counted and
//! started again; or the process stops with an error.
//!
//! The panic hook logs and counts every panic of the process, including those that a runtime
//! contains, such as a panic in a request.

mod phase;

pub use phase::{Drain, Phase, PhaseWatch};

use crate::telemetry::Telemetry;
use futures_util::FutureExt;
use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The delay before a restart. It doubles each time, up to the longest.
const DELAY_FIRST: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(30);
/// After running for this long, a task counts as healthy again.
const SETTLED: Duration = Duration::from_secs(60);
/// How often an essential task is restarted before the process stops.
const RESTARTS_MAX: u32 = 5;

thread_local! {
    /// The task that this thread runs now.
    static RUNNING: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// What happens when a task panics or ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// It is restarted, however often: requests are served without it.
    Restart,
    /// It is restarted a few times; then the process stops with an error, so that a service
    /// manager can replace it.
    Essential,
    /// It runs once and is not restarted.
    Once,
}

/// How a task ended.
pub trait TaskResult {
    /// What went wrong, if anything.
    fn error(self) -> Option<String>;
}

impl TaskResult for () {
    fn error(self) -> Option<String> {
        None
    }
}

impl<E: Display> TaskResult for Result<(), E> {
    fn error(self) -> Option<String> {
        // An error of anyhow shows its causes this way.
        self.err().map(|error| format!("{error:#}"))
    }
}

/// Starts tasks and threads, and notices how they end. Clones share their state.
#[derive(Clone, Debug)]
pub struct Supervisor(Arc<State>);

#[derive(Debug)]
struct State {
    delay_first: Duration,
    phase: watch::Sender<Phase>,
    /// Why the process must stop.
    failure: watch::Sender<Option<String>>,
}

/// A running task. It is aborted when this is dropped.
#[derive(Debug)]
pub struct Task(tokio::task::JoinHandle<()>);

impl Supervisor {
    /// A supervisor without tasks. Sets the process's panic hook, which counts in `telemetry`.
    pub fn new(telemetry: &Arc<Telemetry>) -> Supervisor {
        log_panics(Arc::clone(telemetry));
        Supervisor::with_delay(DELAY_FIRST)
    }

    fn with_delay(delay_first: Duration) -> Supervisor {
        Supervisor(Arc::new(State {
            delay_first,
            phase: watch::Sender::new(Phase::Starting),
            failure: watch::Sender::new(None),
        }))
    }

    /// Enters the next phase, and tells every task.
    pub fn enter(&self, phase: Phase) {
        let before = self.0.phase.send_replace(phase);
        debug_assert!(before < phase, "{phase:?} after {before:?}");
    }

    /// Watches the phase of the process.
    pub fn phase(&self) -> PhaseWatch {
        PhaseWatch::new(self.0.phase.subscribe())
    }

    /// Resolves with the reason when the process must stop.
    pub async fn failed(&self) -> String {
        let mut failure = self.0.failure.subscribe();
        let known = failure.wait_for(Option::is_some).await;
        // The sender is in this supervisor, so there is one.
        known.ok().and_then(|why| why.clone()).unwrap_or_default()
    }

    /// The reason why the process must stop, if there is one.
    pub fn failure(&self) -> Option<String> {
        self.0.failure.borrow().clone()
    }

    /// Starts a task on this runtime, which ends by itself. State that must survive a panic belongs
    /// to `start`.
    pub fn spawn<F>(
        &self,
        name: &'static str,
        policy: Policy,
        start: impl FnMut() -> F + Send + 'static,
    ) -> Task
    where
        F: Future<Output: TaskResult + Send> + Send + 'static,
    {
        self.spawn_until(|_| false, name, policy, start)
    }

    /// Starts a task like [`Supervisor::spawn`], and drops its future once the process is in a phase
    /// for which `is_over` holds.
    #[expect(clippy::disallowed_methods, reason = "`keep` names what it runs")]
    pub fn spawn_until<F>(
        &self,
        is_over: fn(&Phase) -> bool,
        name: &'static str,
        policy: Policy,
        start: impl FnMut() -> F + Send + 'static,
    ) -> Task
    where
        F: Future<Output: TaskResult + Send> + Send + 'static,
    {
        let supervisor = self.clone();
        Task(tokio::spawn(async move {
            let mut phase = supervisor.phase();
            tokio::select! {
                _ = phase.until(is_over) => {}
                () = supervisor.keep(name, policy, start) => {}
            }
        }))
    }

    /// Runs the future that `start` makes, again each time that it panics, fails, or ends too early.
    /// Returns when it has ended for good.
    pub async fn keep<F: Future<Output: TaskResult>>(
        &self,
        name: &'static str,
        policy: Policy,
        mut start: impl FnMut() -> F,
    ) {
        let mut phase = self.phase();
        let mut restarts = 0;
        loop {
            let begun = Instant::now();
            // What `start` does before the first await may panic, too.
            let run = named(name, async { start().await });
            let ended = AssertUnwindSafe(run).catch_unwind().await;
            let is_ending = phase.now().is_ending();
            let may_end = is_ending || policy == Policy::Once;
            let how = match ended.map(TaskResult::error) {
                Ok(None) if may_end => return,
                Ok(None) => "ended".to_owned(),
                Ok(Some(error)) => format!("failed: {error}"),
                Err(panic) => format!("panicked: {}", message(&*panic)),
            };
            if policy == Policy::Once {
                return tracing::error!("{name} {how}");
            }
            if begun.elapsed() >= SETTLED {
                restarts = 0;
            }
            restarts += 1;
            if restarts > RESTARTS_MAX && (is_ending || policy == Policy::Essential) {
                return self.fail(format!("{name} {how}, {restarts} times in a row"));
            }
            let delay = delay(self.0.delay_first, restarts);
            tracing::error!("{name} {how}; restarting it in {delay:?}");
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                // One more start lets it do what it does at the end.
                _ = phase.ending(), if !is_ending => {}
            }
        }
    }

    /// Starts a thread. When it panics, fails, or ends early, the process stops. `task` names
    /// what it runs outside of named tasks.
    pub fn thread<T: TaskResult>(
        &self,
        name: String,
        task: &'static str,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let supervisor = self.clone();
        let thread = std::thread::Builder::new().name(name.clone());
        thread.spawn(move || {
            RUNNING.set(Some(task));
            let how = match catch_unwind(AssertUnwindSafe(run)).map(TaskResult::error) {
                Ok(None) if supervisor.phase().now().is_ending() => return,
                Ok(None) => "ended".to_owned(),
                Ok(Some(error)) => format!("failed: {error}"),
                Err(panic) => format!("panicked: {}", message(&*panic)),
            };
            supervisor.fail(format!("{name} {how}"));
        })
    }

    /// The process must stop. The first reason counts.
    fn fail(&self, why: String) {
        tracing::error!("{why}; the process stops");
        self.0.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert(why);
            first
        });
    }
}

impl Task {
    /// Waits until it has ended by itself.
    pub async fn ended(mut self) {
        // It panics nowhere but in what it catches.
        let _ = (&mut self.0).await;
    }

    /// Aborts it, and waits until nothing of it is left.
    pub async fn abort(self) {
        self.0.abort();
        self.ended().await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs `run` on this thread, again each time that it panics, for as long as it `goes_on`. To
/// unpark the thread shortens the delay.
pub fn again(name: &'static str, goes_on: impl Fn() -> bool, mut run: impl FnMut()) {
    RUNNING.set(Some(name));
    let mut restarts = 0;
    loop {
        let begun = std::time::Instant::now();
        let Err(panic) = catch_unwind(AssertUnwindSafe(&mut run)) else {
            return;
        };
        let how = format!("{name} panicked: {}", message(&*panic));
        if !goes_on() {
            return tracing::error!("{how}");
        }
        if begun.elapsed() >= SETTLED {
            restarts = 0;
        }
        restarts += 1;
        let delay = delay(DELAY_FIRST, restarts);
        tracing::error!("{how}; restarting it in {delay:?}");
        std::thread::park_timeout(delay);
    }
}

fn delay(first: Duration, restarts: u32) -> Duration {
    let doubled = first.saturating_mul(1 << (restarts - 1).min(16));
    doubled.min(DELAY_MAX)
}

/// Starts a task that nothing supervises, such as the driver of one connection. Its panics are
/// logged and counted under this name.
#[expect(clippy::disallowed_methods, reason = "the one place that names tasks")]
pub fn spawn<F>(name: &'static str, future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(named(name, future))
}

/// Gives a future a name, by which its panics are logged and counted.
pub fn named<F: Future>(name: &'static str, future: F) -> impl Future<Output = F::Output> {
    let future = async move {
        tokio::select! {
            biased;
            never = asked_to_panic(name) => match never {},
            output = future => output,
        }
    };
    Named {
        name,
        future: Box::pin(future),
    }
}

struct Named<F> {
    name: &'static str,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Named<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        /// Puts back what ran before, also when this panics.
        struct Before(Option<&'static str>);
        impl Drop for Before {
            fn drop(&mut self) {
                RUNNING.set(self.0);
            }
        }
        let _before = Before(RUNNING.replace(Some(self.name)));
        self.future.as_mut().poll(context)
    }
}

/// Whether a listening socket cannot be used any more: waiting does not help, as it does where
/// descriptors are short.
pub fn is_lost(error: &io::Error) -> bool {
    let lost = [
        rustix::io::Errno::BADF,
        rustix::io::Errno::INVAL,
        rustix::io::Errno::NOTSOCK,
        rustix::io::Errno::OPNOTSUPP,
    ];
    rustix::io::Errno::from_io_error(error).is_some_and(|errno| lost.contains(&errno))
}

fn log_panics(telemetry: Arc<Telemetry>) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let task = RUNNING.try_with(Cell::get).ok().flatten();
        let task = task.or(thread.name()).unwrap_or("unnamed");
        telemetry.panics.add(task);
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref().map(String::as_str));
        let message = text.unwrap_or("no message");
        let place = panic.location().map(ToString::to_string);
        let place = place.unwrap_or_default();
        let backtrace = Backtrace::capture();
        match backtrace.status() {
            BacktraceStatus::Captured => {
                tracing::error!("panic in {task}: {message}, at {place}\n{backtrace}");
            }
            _ => tracing::error!("panic in {task}: {message}, at {place}"),
        }
    }));
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Where tests ask for panics. Only in debug builds: the folder that `WATERSHED_PANIC` names.
#[cfg(debug_assertions)]
fn panics_asked() -> Option<&'static std::path::Path> {
    static FOLDER: std::sync::OnceLock<Option<std::path::PathBuf>> = std::sync::OnceLock::new();
    let folder = FOLDER.get_or_init(|| std::env::var_os("WATERSHED_PANIC").map(Into::into));
    folder.as_deref()
}

/// Panics when a test has asked for it, by a file of this name, which is removed.
#[inline]
pub fn failpoint(name: &str) {
    #[cfg(debug_assertions)]
    if let Some(folder) = panics_asked() {
        let asked = std::fs::remove_file(folder.join(name)).is_ok();
        assert!(!asked, "a test asked for it");
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}

async fn asked_to_panic(name: &str) -> Infallible {
    #[cfg(debug_assertions)]
    if panics_asked().is_some() {
        loop {
            failpoint(name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::mpsc;

    /// Runs a task with this policy until `times` starts have come or the process must stop; how
    /// many starts there were, and the failure.
    async fn starts(
        policy: Policy,
        times: u32,
        how: fn() -> Result<(), &'static str>,
    ) -> (u32, Option<String>) {
        let supervisor = Supervisor::with_delay(Duration::ZERO);
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let task = supervisor.spawn("test", policy, move || {
            counted.fetch_add(1, Ordering::SeqCst);
            async move { how() }
        });
        let enough = async {
            while count.load(Ordering::SeqCst) < times {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = enough => {}
            _ = supervisor.failed() => {}
        }
        task.abort().await;
        (count.load(Ordering::SeqCst), supervisor.failure())
    }

    #[tokio::test]
    async fn task_that_panics_fails_or_ends_is_restarted_for_ever() {
        let all: [fn() -> Result<(), &'static str>; 3] =
            [|| panic!("on purpose"), || Err("broken"), || Ok(())];
        for how in all {
            let (times, failure) = starts(Policy::Restart, 20, how).await;
            assert!(times >= 20 && failure.is_none(), "{times}: {failure:?}");
        }
    }

    #[tokio::test]
    async fn essential_task_stops_the_process_after_some_restarts() {
        let (times, failure) = starts(Policy::Essential, 20, || panic!("on purpose")).await;
        assert_eq!(times, RESTARTS_MAX + 1);
        assert_eq!(
            failure.as_deref(),
            Some("test panicked: on purpose, 6 times in a row")
        );
        let (times, failure) = starts(Policy::Essential, 20, || Err("broken")).await;
        assert_eq!(times, RESTARTS_MAX + 1);
        assert!(failure.is_some_and(|why| why.contains("test failed: broken")));
    }

    #[tokio::test]
    async fn task_may_end_once_the_process_stops() {
        let supervisor = Supervisor::with_delay(Duration::ZERO);
        supervisor.enter(Phase::Closing);
        let ended = supervisor
            .spawn("test", Policy::Essential, || async {})
            .ended();
        tokio::time::timeout(Duration::from_secs(1), ended)
            .await
            .expect("the task ends");
        assert_eq!(supervisor.failure(), None);
        // A task that panics now is not restarted for ever, because the process waits for it.
        let sound = false;
        let start = move || async move { assert!(sound, "on purpose") };
        let task = supervisor.spawn("test", Policy::Restart, start);
        task.ended().await;
        assert!(supervisor.failure().is_some());
    }

    #[tokio::test]
    async fn task_ends_in_its_phase_and_not_before() {
        let supervisor = Supervisor::with_delay(Duration::ZERO);
        let (alive, mut ended) = mpsc::channel::<()>(1);
        let task = supervisor.spawn_until(
            |phase| *phase >= Phase::Closing,
            "test",
            Policy::Restart,
            move || {
                let alive = alive.clone();
                async move {
                    let _alive = alive;
                    std::future::pending::<()>().await;
                }
            },
        );
        let drain = Drain {
            quiet_until: std::time::Instant::now(),
            others_listen: false,
        };
        for phase in [Phase::Ready, Phase::Leaving, Phase::Draining(drain)] {
            supervisor.enter(phase);
            tokio::task::yield_now().await;
            let state = ended.try_recv();
            assert_eq!(state, Err(mpsc::error::TryRecvError::Empty), "{phase:?}");
        }
        supervisor.enter(Phase::Closing);
        task.ended().await;
        let state = ended.try_recv();
        assert_eq!(state, Err(mpsc::error::TryRecvError::Disconnected));
        assert_eq!(supervisor.failure(), None);
    }

    #[tokio::test]
    async fn task_that_runs_once_is_not_restarted() {
        for how in [
            (|| panic!("on purpose")) as fn() -> Result<(), &'static str>,
            || Ok(()),
        ] {
            let supervisor = Supervisor::with_delay(Duration::ZERO);
            let count = Arc::new(AtomicU32::new(0));
            let counted = Arc::clone(&count);
            let task = supervisor.spawn("test", Policy::Once, move || {
                counted.fetch_add(1, Ordering::SeqCst);
                async move { how() }
            });
            task.ended().await;
            assert_eq!(count.load(Ordering::SeqCst), 1);
            assert_eq!(supervisor.failure(), None);
        }
    }

    #[test]
    fn thread_that_panics_stops_the_process() {
        let supervisor = Supervisor::with_delay(Duration::ZERO);
        let run = || -> () { panic!("on purpose") };
        let thread = supervisor.thread("test-0".to_owned(), "test", run).unwrap();
        thread.join().unwrap();
        let failure = supervisor.failure();
        assert_eq!(failure.as_deref(), Some("test-0 panicked: on purpose"));
    }

    #[test]
    fn thread_runs_again_until_it_ends() {
        let mut runs = 0;
        let run = || {
            runs += 1;
            assert!(runs == 3, "on purpose");
        };
        again("test", || true, run);
        assert_eq!(runs, 3);
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        assert_eq!(delay(DELAY_FIRST, 1), DELAY_FIRST);
        assert_eq!(delay(DELAY_FIRST, 3), DELAY_FIRST * 4);
        assert_eq!(delay(DELAY_FIRST, u32::MAX), DELAY_MAX);
    }
}
