//! One endpoint, as one worker sees it: its kept connections, and whether it can be relied on.

use super::LendError;
use super::balance;
use super::lent::{Bare, Held, Kept, Lent, Need};
use super::resolve::Resolved;
use super::sender::Sender;
use super::standing::Standing;
use super::tap::{Ear, Listener, Upgraded};
use crate::config::plan;
use bytes::Bytes;
use http_body::Body;
use hyper::client::conn::http2;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The most connections kept to one endpoint by one worker.
const KEPT_MAX: usize = 256;
/// How long a connection is kept without a request; below what servers usually allow.
const KEPT_FOR: Duration = Duration::from_secs(50);
/// Who waits here for a connection goes before who waits at other workers, but not for ever.
const OWN_FIRST: u32 = 8;

/// An endpoint.
#[derive(Debug)]
pub struct Endpoint<B> {
    /// Where it is, and how it is spoken to.
    pub address: Arc<plan::Endpoint>,
    /// What all workers know of it.
    pub standing: Arc<Standing>,
    /// Its place among others, where users choose.
    pub seed: u32,
    /// What runs for requests at this worker.
    pub load: Cell<u32>,
    /// When it may be asked again, after it failed.
    pub paused_until: Cell<Option<Instant>>,
    pub(super) resolved: Rc<Resolved>,
    pub(super) kept: RefCell<Vec<Kept<B>>>,
    /// The connection that HTTP/2 requests share.
    pub(super) shared: RefCell<Option<(http2::SendRequest<B>, SocketAddr)>>,
    /// Requests of this worker that wait for a connection.
    pub(super) waiting: RefCell<VecDeque<oneshot::Sender<Kept<B>>>>,
    /// Dropped with it, which ends what looks after it.
    pub(super) alive: RefCell<Option<oneshot::Sender<Infallible>>>,
    handed: Cell<u32>,
    /// Failures since it last answered.
    failures: Cell<u32>,
}

/// A connection, for one request.
#[derive(Debug)]
pub struct Lease<B> {
    /// Takes the request.
    pub sender: Sender<B>,
    /// Whether it has carried a request before: its endpoint may be closing it just now.
    pub reused: bool,
    /// Hears what comes before the answer; HTTP/2 has none.
    ear: Option<Rc<Ear>>,
    peer: SocketAddr,
    upgraded: Option<Upgraded>,
    serving: Serving<B>,
}

/// A request is being served; counted until dropped.
#[derive(Debug)]
pub(super) struct Serving<B>(Rc<Endpoint<B>>);

impl<B> Serving<B> {
    pub fn new(endpoint: &Rc<Endpoint<B>>) -> Serving<B> {
        endpoint.load.set(endpoint.load.get() + 1);
        Serving(Rc::clone(endpoint))
    }

    pub fn endpoint(&self) -> &Rc<Endpoint<B>> {
        &self.0
    }
}

impl<B> Drop for Serving<B> {
    fn drop(&mut self) {
        self.0.load.set(self.0.load.get() - 1);
    }
}

impl<B> Lease<B> {
    pub(super) fn new(
        serving: Serving<B>,
        sender: Sender<B>,
        ear: Option<Rc<Ear>>,
        peer: SocketAddr,
        reused: bool,
    ) -> Lease<B> {
        Lease {
            sender,
            reused,
            ear,
            peer,
            upgraded: None,
            serving,
        }
    }

    /// Whose connection it is.
    pub fn endpoint(&self) -> &Rc<Endpoint<B>> {
        &self.serving.0
    }

    /// The connection itself, after the endpoint agreed to upgrade.
    pub fn into_upgraded(self) -> Option<Upgraded> {
        self.upgraded
    }

    /// An answer is awaited; interim ones are told to this listener. With `upgrade`, the request
    /// asks for another protocol.
    pub fn await_answer(&mut self, listener: Option<Rc<dyn Listener>>, upgrade: bool) {
        if let Some(ear) = &self.ear {
            ear.await_answer(listener);
            self.upgraded = upgrade.then(|| ear.await_upgrade());
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Lease<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Keeps the connection for the next request. Only after the answer was read to its end.
    pub fn give_back(self) {
        let (Sender::Http1(sender), Some(ear)) = (self.sender, self.ear) else {
            // The one that is shared has never left.
            return;
        };
        if sender.is_closed() {
            return;
        }
        ear.forget();
        let kept = Kept {
            held: Held::Spoken(sender, ear),
            peer: self.peer,
            since: Instant::now(),
        };
        self.serving.0.keep(kept);
    }
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Endpoint<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Without connections yet.
    pub fn new(address: &plan::Endpoint, standing: Arc<Standing>) -> Endpoint<B> {
        Endpoint {
            address: Arc::new(address.clone()),
            standing,
            seed: balance::seed(&address.to_string()),
            load: Cell::default(),
            paused_until: Cell::default(),
            resolved: Rc::new(Resolved::new(address)),
            kept: RefCell::default(),
            shared: RefCell::default(),
            waiting: RefCell::default(),
            alive: RefCell::default(),
            handed: Cell::default(),
            failures: Cell::default(),
        }
    }

    /// Whether it would be asked if all were equal.
    pub fn state(&self, now: Instant) -> balance::State {
        let paused = self.paused_until.get().is_some_and(|until| until > now);
        let full = || !self.standing.has_room() && self.kept.borrow().is_empty();
        match self.standing.is_well() {
            false => balance::State::Down,
            true if paused || full() => balance::State::Last,
            true => balance::State::Ready,
        }
    }

    /// The connection used last, if it is still open.
    pub(super) async fn take_kept(self: &Rc<Self>, need: Need) -> Option<Lent<B>> {
        let shared = match need {
            Need::Http1 => None,
            Need::Any | Need::Bare => self.shared.borrow().clone(),
        };
        if let Some((sender, peer)) = shared {
            if sender.is_closed() || !self.resolved.leads_to(peer) {
                // What runs on it goes on.
                *self.shared.borrow_mut() = None;
            } else {
                let mut sender = Sender::Http2(sender, self.address.clone());
                if sender.is_ready().await {
                    let serving = Serving::new(self);
                    return Some(Lent::Spoken(Lease::new(serving, sender, None, peer, true)));
                }
            }
        }
        loop {
            if need == Need::Bare {
                return self.take_bare(Instant::now()).map(Lent::Bare);
            }
            let kept = self.pop(Instant::now(), |_| true)?;
            if let Some(lent) = self.revive(kept).await {
                return Some(lent);
            }
        }
    }

    /// The bare stream used last, if it is still open `now`.
    pub fn take_bare(self: &Rc<Self>, now: Instant) -> Option<Bare<B>> {
        if self.shared.borrow().is_some() {
            return None;
        }
        loop {
            let kept = self.pop(now, |kept| matches!(kept.held, Held::Bare(_)))?;
            if let Held::Bare(mut stream) = kept.held
                && stream.is_quiet()
            {
                return Some(Bare::new(Serving::new(self), stream, kept.peer, true));
            }
        }
    }

    /// The last one kept of this sort, if it is young enough and still goes where the name leads.
    fn pop(&self, now: Instant, is_meant: impl Fn(&Kept<B>) -> bool) -> Option<Kept<B>> {
        loop {
            let mut all = self.kept.borrow_mut();
            let place = all.iter().rposition(&is_meant)?;
            let kept = all.remove(place);
            if now.saturating_duration_since(kept.since) > KEPT_FOR {
                // Those below it are older still.
                all.drain(..place);
                return None;
            }
            drop(all);
            if self.resolved.leads_to(kept.peer) {
                return Some(kept);
            }
        }
    }

    /// Lets go of what has been idle for too long or was closed.
    pub(super) fn sweep(&self) {
        let is_sound = |kept: &mut Kept<B>| {
            kept.since.elapsed() <= KEPT_FOR
                && match &mut kept.held {
                    Held::Bare(stream) => stream.is_quiet(),
                    Held::Spoken(sender, _) => !sender.is_closed(),
                }
        };
        self.kept.borrow_mut().retain_mut(is_sound);
    }

    pub(super) async fn revive(self: &Rc<Self>, kept: Kept<B>) -> Option<Lent<B>> {
        let serving = Serving::new(self);
        match kept.held {
            Held::Bare(mut stream) => {
                let bare = |stream| Bare::new(serving, stream, kept.peer, true);
                stream.is_quiet().then(|| Lent::Bare(bare(stream)))
            }
            Held::Spoken(sender, ear) => {
                let mut sender = Sender::Http1(sender);
                let ready = sender.is_ready().await;
                let lease = || Lease::new(serving, sender, Some(ear), kept.peer, true);
                ready.then(|| Lent::Spoken(lease()))
            }
        }
    }

    /// Keeps a connection, or gives it to who waits for one.
    pub(super) fn keep(&self, mut kept: Kept<B>) {
        let all_waiting = self.standing.waiting();
        if all_waiting > 0 {
            let turn = self.handed.replace(self.handed.get().wrapping_add(1));
            let mut own = self.waiting.borrow_mut();
            let only_own = all_waiting as usize <= own.len();
            while (only_own || !turn.is_multiple_of(OWN_FIRST))
                && let Some(waiting) = own.pop_front()
            {
                match waiting.send(kept) {
                    Ok(()) => return,
                    // It has waited long enough, or has one.
                    Err(back) => kept = back,
                }
            }
            if !only_own {
                // Closed, so that another worker may make one.
                return;
            }
        }
        let mut all = self.kept.borrow_mut();
        if all.len() < KEPT_MAX {
            all.push(kept);
        }
    }

    /// A request that it was given found no answer. One that fails again and again is passed over
    /// for a while, unless all others are.
    pub fn failed(&self) {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        if let Some(pause) = balance::pause(failures) {
            self.paused_until.set(Some(Instant::now() + pause));
            self.standing.eject(pause, || {
                format!("{failures} requests in a row got no response")
            });
            tracing::warn!(
                "{} failed {failures} times in a row: it is passed over for {pause:?} where there are others",
                self.address
            );
        }
    }

    /// It answered.
    pub fn served(&self) {
        if self.failures.replace(0) > 0 && self.paused_until.take().is_some() {
            self.standing.restore();
        }
    }

    /// Whether a connection was made: it is passed over for a moment if not.
    pub(super) fn accepted(&self, failed: Option<&LendError>) {
        if matches!(failed, Some(LendError::Busy { .. })) {
            return;
        }
        self.tell(failed);
        if let Some(error) = failed {
            self.paused_until.set(Some(Instant::now() + balance::PAUSE));
            self.standing.eject(balance::PAUSE, || chain(error));
            self.resolved.doubt();
        } else if self.failures.get() == 0 && self.paused_until.take().is_some() {
            self.standing.restore();
        }
    }

    /// Says once when the endpoint goes away, and once when it is back: not for every request.
    fn tell(&self, failed: Option<&LendError>) {
        let address = &self.address;
        match (failed, self.paused_until.get()) {
            (Some(error), None) => tracing::warn!(
                "{}; is it running, and is its address right in `upstreams`?",
                chain(error)
            ),
            (None, Some(_)) => tracing::info!("{address} accepts connections again"),
            _ => {}
        }
    }
}

/// An error with its cause.
fn chain(error: &LendError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
