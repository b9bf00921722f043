//! What has happened to an exchange so far. When it ends, metrics, the access log and spans are made
//! of this.

use crate::experiment::{ExperimentIndex, UpstreamIndex};
use crate::proxy::error_response::ErrorCode;
use crate::proxy::snapshot::{Snapshot, Worker};
use crate::telemetry::{HttpProtocol, Outcome};
use crate::upstream::Endpoint;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How the delivery of a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseEnd {
    /// Its last byte was given to the client's connection.
    Complete,
    /// The upstream broke off.
    Broken,
    /// The client left before.
    Left,
    /// The time of `timeouts.total` was over.
    Late,
}

/// What has happened to an exchange.
pub(crate) struct Progress {
    began: Instant,
    protocol: HttpProtocol,
    upstream: Cell<Option<UpstreamIndex>>,
    endpoint: Cell<Option<Rc<Endpoint>>>,
    attempts: Cell<u32>,
    fallback: Cell<Option<ExperimentIndex>>,
    outcome: Cell<Outcome>,
    error: Cell<Option<&'static str>>,
    /// How long it took to the head of the response, in microseconds.
    head_us: Cell<u64>,
    /// The response goes on after its head.
    goes_on: Cell<bool>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    end: Cell<ResponseEnd>,
}

impl Progress {
    /// Of a request that has been read.
    pub(crate) fn new(worker: &Worker, protocol: HttpProtocol, began: Instant) -> Progress {
        worker.telemetry().requests.add();
        Progress {
            began,
            protocol,
            upstream: Cell::new(None),
            endpoint: Cell::new(None),
            attempts: Cell::new(0),
            fallback: Cell::new(None),
            outcome: Cell::new(Outcome::Aborted),
            error: Cell::new(None),
            head_us: Cell::new(0),
            goes_on: Cell::new(true),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            end: Cell::new(ResponseEnd::Left),
        }
    }

    /// The client's HTTP.
    pub(crate) fn protocol(&self) -> HttpProtocol {
        self.protocol
    }

    /// The request goes to this upstream, control's if `fallback` names an experiment.
    pub(crate) fn goes_to(&self, upstream: UpstreamIndex, fallback: Option<ExperimentIndex>) {
        self.upstream.set(Some(upstream));
        self.fallback.set(fallback);
    }

    /// The request is sent to this endpoint of its upstream: attempt number `attempts`.
    pub(crate) fn sent(&self, snapshot: &Snapshot, endpoint: &Rc<Endpoint>, attempts: u32) {
        if attempts > 1 {
            snapshot.traffic(self.upstream.get()).retries.add();
        }
        self.attempts.set(attempts);
        self.endpoint.set(Some(Rc::clone(endpoint)));
    }

    /// So many bytes of the request's body have come.
    pub(crate) fn received(&self, bytes: u64) {
        self.bytes_in.set(bytes);
    }

    /// The head of the upstream's response is there.
    pub(crate) fn responded(&self, snapshot: &Snapshot, status: u16, latency: Duration) {
        self.has_head(Outcome::Upstream(status), latency);
        let traffic = snapshot.traffic(self.upstream.get());
        traffic.head.observe(self.head_us.get());
    }

    /// Watershed responds itself, with a body of so many bytes; `error` is the token of what was
    /// wrong.
    pub(crate) fn responded_itself(
        &self,
        status: u16,
        latency: Duration,
        error: Option<&'static str>,
        bytes: u64,
    ) {
        self.has_head(Outcome::Watershed(status), latency);
        self.error.set(error);
        self.delivered(bytes);
    }

    fn has_head(&self, outcome: Outcome, latency: Duration) {
        self.outcome.set(outcome);
        self.head_us.set(whole_us(latency));
        self.goes_on.set(false);
    }

    /// The response goes on after its head.
    pub(crate) fn goes_on(&self) {
        self.goes_on.set(true);
    }

    /// So many bytes of the response's body were given to the client's connection.
    pub(crate) fn gave(&self, bytes: u64) {
        self.bytes_out.set(self.bytes_out.get() + bytes);
    }

    /// All of the response's body, of so many bytes, was given to the client's connection.
    pub(crate) fn delivered(&self, bytes: u64) {
        self.bytes_out.set(bytes);
        self.end.set(ResponseEnd::Complete);
    }

    /// The client has taken nothing of the response's body.
    pub(crate) fn untaken(&self) {
        self.bytes_out.set(0);
        self.end.set(ResponseEnd::Left);
    }

    /// How the delivery of the response ends.
    pub(crate) fn ends(&self, end: ResponseEnd) {
        self.end.set(end);
    }

    /// The upstream that serves the request, and the experiment for which it does so in the group's place.
    pub(crate) fn served(&self) -> (Option<UpstreamIndex>, Option<ExperimentIndex>) {
        (self.upstream.get(), self.fallback.get())
    }

    /// Whether the client's connection was given all of the response.
    pub(crate) fn is_complete(&self) -> bool {
        self.end.get() == ResponseEnd::Complete
    }

    /// Counts the exchange, which ends.
    pub(crate) fn count(&self, snapshot: &Snapshot) {
        let traffic = snapshot.traffic(self.upstream.get());
        let took_us = match self.goes_on.get() {
            true => whole_us(self.began.elapsed()),
            // All of it came with its head: the clock need not be read again.
            false => self.head_us.get(),
        };
        traffic.duration.observe(took_us);
        let endpoint = self.endpoint.take();
        let requests = match &endpoint {
            Some(endpoint) => &endpoint.requests,
            None => &traffic.unsent,
        };
        requests.add(self.protocol, self.outcome.get());
        self.endpoint.set(endpoint);
    }

    /// All of it, for logs and spans.
    pub(crate) fn summary(&self) -> Summary {
        let endpoint = self.endpoint.take();
        self.endpoint.set(endpoint.clone());
        let status = match self.outcome.get() {
            Outcome::Upstream(status) | Outcome::Watershed(status) => Some(status),
            Outcome::Aborted => None,
        };
        Summary {
            protocol: self.protocol,
            upstream: self.upstream.get(),
            endpoint,
            attempts: self.attempts.get(),
            fallback: self.fallback.get(),
            status,
            error: self.error.get(),
            head_us: status.map(|_| self.head_us.get()),
            took: self.began.elapsed(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            end: self.end.get(),
        }
    }
}

/// What has happened to an exchange that ends.
#[derive(Debug)]
pub(crate) struct Summary {
    /// The client's HTTP.
    pub protocol: HttpProtocol,
    /// The upstream that it went to.
    pub upstream: Option<UpstreamIndex>,
    /// The endpoint that it was sent to last.
    pub endpoint: Option<Rc<Endpoint>>,
    /// How often it was sent.
    pub attempts: u32,
    /// The experiment for which control served in the group's place.
    pub fallback: Option<ExperimentIndex>,
    /// The response's status.
    pub status: Option<u16>,
    /// The token of what was wrong.
    pub error: Option<&'static str>,
    /// How long it took to the head of the response, in microseconds.
    pub head_us: Option<u64>,
    /// How long it took.
    pub took: Duration,
    /// The bytes of the request's body.
    pub bytes_in: u64,
    /// The bytes of the response's body that were given to the client's connection.
    pub bytes_out: u64,
    /// How the delivery of the response ended.
    pub end: ResponseEnd,
}

/// Counts a request that cannot be read, and is answered with this error.
pub(crate) fn count_unreadable(worker: &Worker, protocol: HttpProtocol, code: ErrorCode) {
    let began = Instant::now();
    let progress = Progress::new(worker, protocol, began);
    let outcome = Outcome::Watershed(code.status().as_u16());
    progress.has_head(outcome, Duration::ZERO);
    progress.count(&worker.snapshot());
}

/// The same as `as_micros`, which divides numbers of 128 bits.
pub(crate) fn whole_us(time: Duration) -> u64 {
    time.as_secs() * 1_000_000 + u64::from(time.subsec_micros())
}
