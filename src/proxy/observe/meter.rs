//! Counts a request once, when its last byte has gone or its client has left.

use crate::experiment::UpstreamIndex;
use crate::proxy::error_response::ErrorCode;
use crate::proxy::snapshot::{Snapshot, Worker};
use crate::telemetry::{HttpProtocol, Outcome};
use crate::upstream::Endpoint;
use http::Version;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

/// A request that is being served; counted when it is dropped.
#[derive(Debug)]
pub struct RequestMeter {
    snapshot: Rc<Snapshot>,
    protocol: HttpProtocol,
    began: Instant,
    upstream: Cell<Option<UpstreamIndex>>,
    endpoint: RefCell<Option<Rc<Endpoint>>>,
    outcome: Cell<Outcome>,
    /// When its last byte went, where that is known already.
    ended: Cell<Option<Instant>>,
}

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
            protocol: match version {
                Version::HTTP_2 => HttpProtocol::Http2,
                Version::HTTP_10 => HttpProtocol::Http10,
                _ => HttpProtocol::Http11,
            },
            began,
            upstream: Cell::new(None),
            endpoint: RefCell::new(None),
            outcome: Cell::new(Outcome::Aborted),
            ended: Cell::new(None),
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
        self.endpoint.take();
    }

    /// It is sent to this endpoint of its upstream, not for the first time if `again`.
    pub fn sent(&self, endpoint: &Rc<Endpoint>, again: bool) {
        if again && let Some(upstream) = self.upstream.get() {
            self.snapshot.traffic(Some(upstream)).retries.add();
        }
        self.endpoint.replace(Some(Rc::clone(endpoint)));
    }

    /// The head of its response is there.
    pub fn responded(&self, outcome: Outcome, at: Instant) {
        self.outcome.set(outcome);
        self.ended.set(Some(at));
        if let Outcome::Upstream(_) = outcome {
            let traffic = self.snapshot.traffic(self.upstream.get());
            traffic.head.observe(at - self.began);
        }
    }

    /// The response goes on after its head: it ends when this is dropped.
    pub fn goes_on(&self) {
        self.ended.set(None);
    }
}

impl Drop for RequestMeter {
    fn drop(&mut self) {
        let traffic = self.snapshot.traffic(self.upstream.get());
        let ended = self.ended.get().unwrap_or_else(Instant::now);
        traffic.duration.observe(ended - self.began);
        let endpoint = self.endpoint.borrow();
        let requests = match &*endpoint {
            Some(endpoint) => &endpoint.requests,
            None => &traffic.unsent,
        };
        requests.add(self.protocol, self.outcome.get());
    }
}
