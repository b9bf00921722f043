//! Counts a request once, when its last byte has gone or its client has left.

use crate::experiment::UpstreamIndex;
use crate::proxy::error_response::ErrorCode;
use crate::proxy::snapshot::{Snapshot, Worker};
use crate::telemetry::{HttpProtocol, Outcome};
use crate::upstream::Endpoint;
use http::Version;
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A request that is being served; counted when it is dropped. Small, because every request has one
/// and it is moved several times.
pub struct RequestMeter {
    snapshot: Rc<Snapshot>,
    began: Instant,
    endpoint: Cell<Option<Rc<Endpoint>>>,
    /// How long it took to the last byte, in microseconds; `ONGOING` until that is known.
    took_us: Cell<u64>,
    upstream: Cell<Option<UpstreamIndex>>,
    outcome: Cell<Outcome>,
    protocol: HttpProtocol,
}

const ONGOING: u64 = u64::MAX;

impl RequestMeter {
    /// A request that has been read.
    pub fn new(
        worker: &Worker,
        snapshot: &Rc<Snapshot>,
        version: Version,
        began: Instant,
    ) -> RequestMeter {
        worker.telemetry().requests.add();
        RequestMeter {
            snapshot: Rc::clone(snapshot),
            began,
            endpoint: Cell::new(None),
            took_us: Cell::new(ONGOING),
            upstream: Cell::new(None),
            outcome: Cell::new(Outcome::Aborted),
            protocol: match version {
                Version::HTTP_2 => HttpProtocol::Http2,
                Version::HTTP_10 => HttpProtocol::Http10,
                _ => HttpProtocol::Http11,
            },
        }
    }

    /// Counts a request that could not be read, and is answered with this error.
    pub fn unreadable(worker: &Worker, version: Version, code: ErrorCode) {
        let began = Instant::now();
        let meter = RequestMeter::new(worker, &worker.snapshot(), version, began);
        meter.responded(Outcome::Watershed(code.status().as_u16()), began);
    }

    /// It is sent to this upstream, or is about to be.
    pub fn sent_to(&self, upstream: UpstreamIndex) {
        self.upstream.set(Some(upstream));
    }

    /// It is sent to this endpoint of its upstream, not for the first time if `again`.
    pub fn sent(&self, endpoint: &Rc<Endpoint>, again: bool) {
        if again && let Some(upstream) = self.upstream.get() {
            self.snapshot.traffic(Some(upstream)).retries.add();
        }
        self.endpoint.set(Some(Rc::clone(endpoint)));
    }

    /// The head of its response is there.
    pub fn responded(&self, outcome: Outcome, at: Instant) {
        let took_us = whole_us(at - self.began);
        self.outcome.set(outcome);
        self.took_us.set(took_us);
        if let Outcome::Upstream(_) = outcome {
            let traffic = self.snapshot.traffic(self.upstream.get());
            traffic.head.observe(took_us);
        }
    }

    /// The response goes on after its head: it ends when this is dropped.
    pub fn goes_on(&self) {
        self.took_us.set(ONGOING);
    }
}

impl Drop for RequestMeter {
    fn drop(&mut self) {
        let traffic = self.snapshot.traffic(self.upstream.get());
        let took_us = match self.took_us.get() {
            ONGOING => whole_us(self.began.elapsed()),
            took_us => took_us,
        };
        traffic.duration.observe(took_us);
        let requests = match self.endpoint.get_mut() {
            Some(endpoint) => &endpoint.requests,
            None => &traffic.unsent,
        };
        requests.add(self.protocol, self.outcome.get());
    }
}

impl fmt::Debug for RequestMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestMeter").finish_non_exhaustive()
    }
}

/// The same as `as_micros`, which divides numbers of 128 bits.
fn whole_us(time: Duration) -> u64 {
    time.as_secs() * 1_000_000 + u64::from(time.subsec_micros())
}
