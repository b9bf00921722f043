//! What one worker served: requests by upstream and endpoint, and how long they took.

use crate::telemetry::counter::Counter;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The HTTP of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpProtocol {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

impl HttpProtocol {
    const ALL: [HttpProtocol; 3] = [
        HttpProtocol::Http10,
        HttpProtocol::Http11,
        HttpProtocol::Http2,
    ];

    /// As the access log writes it.
    pub fn name(self) -> &'static str {
        match self {
            HttpProtocol::Http10 => "HTTP/1.0",
            HttpProtocol::Http11 => "HTTP/1.1",
            HttpProtocol::Http2 => "HTTP/2",
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream's response, of this status.
    Upstream(u16),
    /// Watershed's own response, of this status.
    Watershed(u16),
    /// The client left before a response.
    Aborted,
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const ABORTED: usize = 2 * CLASSES.len();
const OUTCOMES: usize = ABORTED + 1;

impl Outcome {
    fn place(self) -> usize {
        let class = |status: u16| usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        match self {
            Outcome::Upstream(status) => class(status),
            Outcome::Watershed(status) => CLASSES.len() + class(status),
            Outcome::Aborted => ABORTED,
        }
    }
}

/// Requests by protocol and outcome.
#[derive(Debug)]
pub struct RequestCounts([Counter; HttpProtocol::ALL.len() * OUTCOMES]);

/// How many requests ended in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKind {
    /// The HTTP of the client.
    pub protocol: &'static str,
    /// The class of the status, or `aborted`.
    pub class: &'static str,
    /// Who responded: `upstream`, `watershed`, or `none`.
    pub responder: &'static str,
}

impl Default for RequestCounts {
    fn default() -> RequestCounts {
        RequestCounts(std::array::from_fn(|_| Counter::default()))
    }
}

impl RequestCounts {
    /// Adds a request. Only one thread may do so.
    pub fn add(&self, protocol: HttpProtocol, outcome: Outcome) {
        self.0[protocol as usize * OUTCOMES + outcome.place()].add();
    }

    /// The kinds of requests that there were.
    pub fn all(&self) -> impl Iterator<Item = (RequestKind, u64)> {
        let kind = |place: usize| {
            let protocol = HttpProtocol::ALL[place / OUTCOMES].name();
            let (class, responder) = match place % OUTCOMES {
                ABORTED => ("aborted", "none"),
                place if place < CLASSES.len() => (CLASSES[place], "upstream"),
                place => (CLASSES[place - CLASSES.len()], "watershed"),
            };
            RequestKind {
                protocol,
                class,
                responder,
            }
        };
        let counts = self.0.iter().map(Counter::get).enumerate();
        counts
            .filter(|(_, count)| *count > 0)
            .map(move |(place, count)| (kind(place), count))
    }
}

/// The upper bounds of a histogram's buckets, in microseconds; one more bucket has no bound.
pub const BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// How long something took, by fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    /// How many were in each bucket.
    buckets: [Counter; BOUNDS_US.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    /// Adds one that took so many microseconds. Only one thread may do so.
    pub fn observe(&self, us: u64) {
        let place = BOUNDS_US.iter().position(|bound| us <= *bound);
        self.buckets[place.unwrap_or(BOUNDS_US.len())].add();
        self.sum_us.set(self.sum_us.get() + us);
    }
}

/// The sum of histograms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSum {
    /// How many were in each bucket, the last of which has no bound.
    pub buckets: [u64; BOUNDS_US.len() + 1],
    /// Of all that was added, in microseconds.
    pub sum_us: u64,
}

impl HistogramSum {
    /// Adds a histogram.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.get();
        }
        self.sum_us += histogram.sum_us.get();
    }
}

/// What one worker served for one upstream.
#[derive(Debug, Default)]
pub struct UpstreamTraffic {
    /// From a request's head to the last byte of its response.
    pub duration: Histogram,
    /// From a request's head to the head of the upstream's response.
    pub head: Histogram,
    /// Further attempts for requests that had been sent.
    pub retries: Counter,
    /// Requests that reached no endpoint.
    pub unsent: RequestCounts,
}

/// The name of an upstream, and the address of one of its endpoints.
type EndpointName = (Box<str>, Box<str>);

/// What one worker served. Upstreams and endpoints are never removed, so that no count goes back
/// when a reload takes one out of the file and another brings it back.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Requests that were for no upstream.
    pub own: Arc<UpstreamTraffic>,
    upstreams: Mutex<BTreeMap<Box<str>, Arc<UpstreamTraffic>>>,
    endpoints: Mutex<BTreeMap<EndpointName, Arc<RequestCounts>>>,
}

impl Traffic {
    /// The counts of an upstream. Locks: not for the request path.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamTraffic> {
        let mut all = lock(&self.upstreams);
        Arc::clone(all.entry(name.into()).or_default())
    }

    /// The counts of an endpoint. Locks: not for the request path.
    pub fn endpoint(&self, upstream: &str, address: &str) -> Arc<RequestCounts> {
        let mut all = lock(&self.endpoints);
        let key = (upstream.into(), address.into());
        Arc::clone(all.entry(key).or_default())
    }
}

/// What all workers served.
#[derive(Debug, Default)]
pub struct TrafficSum {
    /// By upstream and endpoint, either of which may be empty.
    pub requests: BTreeMap<(Box<str>, Box<str>, RequestKind), u64>,
    /// By upstream, which is empty for requests that were for none.
    pub upstreams: BTreeMap<Box<str>, UpstreamSum>,
    /// Requests that have ended.
    pub ended: u64,
}

/// What all workers served for one upstream.
#[derive(Debug, Default)]
pub struct UpstreamSum {
    /// See [`UpstreamTraffic::duration`].
    pub duration: HistogramSum,
    /// See [`UpstreamTraffic::head`].
    pub head: HistogramSum,
    /// See [`UpstreamTraffic::retries`].
    pub retries: u64,
}

impl TrafficSum {
    /// Adds what one worker served.
    pub fn add(&mut self, traffic: &Traffic) {
        self.add_upstream("", &traffic.own);
        for (name, upstream) in &*lock(&traffic.upstreams) {
            self.add_upstream(name, upstream);
        }
        for ((upstream, endpoint), counts) in &*lock(&traffic.endpoints) {
            self.add_requests(upstream, endpoint, counts);
        }
    }

    fn add_upstream(&mut self, name: &str, upstream: &UpstreamTraffic) {
        let sum = self.upstreams.entry(name.into()).or_default();
        sum.duration.add(&upstream.duration);
        sum.head.add(&upstream.head);
        sum.retries += upstream.retries.get();
        self.add_requests(name, "", &upstream.unsent);
    }

    fn add_requests(&mut self, upstream: &str, endpoint: &str, counts: &RequestCounts) {
        for (kind, count) in counts.all() {
            let key = (upstream.into(), endpoint.into(), kind);
            *self.requests.entry(key).or_default() += count;
            self.ended += count;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing that holds these locks can leave what they guard half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_and_outcome_has_a_count_of_its_own() {
        let counts = RequestCounts::default();
        let mut expected = Vec::new();
        for protocol in HttpProtocol::ALL {
            let both = |status| [Outcome::Upstream(status), Outcome::Watershed(status)];
            let outcomes = [101, 299, 300, 404, 599].into_iter().flat_map(both);
            for outcome in outcomes.chain([Outcome::Aborted]) {
                counts.add(protocol, outcome);
                let (class, responder) = match outcome {
                    Outcome::Upstream(status) => {
                        (CLASSES[usize::from(status / 100) - 1], "upstream")
                    }
                    Outcome::Watershed(status) => {
                        (CLASSES[usize::from(status / 100) - 1], "watershed")
                    }
                    Outcome::Aborted => ("aborted", "none"),
                };
                let kind = RequestKind {
                    protocol: protocol.name(),
                    class,
                    responder,
                };
                expected.push((kind, 1));
            }
        }
        let mut all: Vec<_> = counts.all().collect();
        all.sort();
        expected.sort();
        assert_eq!(all, expected);
        // Statuses beyond the classes of RFC 9110 count as errors.
        counts.add(HttpProtocol::Http11, Outcome::Upstream(999));
        assert!(
            counts
                .all()
                .any(|(kind, count)| kind.class == "5xx" && count == 2)
        );
    }

    #[test]
    fn bounds_belong_to_their_buckets() {
        let histogram = Histogram::default();
        for us in [0, 500, 501, 10_000_000, 10_000_001, 1 << 40] {
            histogram.observe(us);
        }
        let mut sum = HistogramSum::default();
        sum.add(&histogram);
        assert_eq!((sum.buckets[0], sum.buckets[1]), (2, 1));
        assert_eq!((sum.buckets[13], sum.buckets[14]), (1, 2));
        assert_eq!(sum.sum_us, 1001 + 20_000_001 + (1 << 40));
    }

    #[test]
    fn counts_of_an_endpoint_go_on_when_it_comes_back() {
        let traffic = Traffic::default();
        for _ in 0..2 {
            let endpoint = traffic.endpoint("site", "127.0.0.1:80");
            endpoint.add(HttpProtocol::Http2, Outcome::Upstream(200));
        }
        traffic.upstream("site").retries.add();
        traffic
            .own
            .unsent
            .add(HttpProtocol::Http11, Outcome::Watershed(400));
        let mut sum = TrafficSum::default();
        sum.add(&traffic);
        assert_eq!(sum.ended, 3);
        assert_eq!(sum.upstreams["site"].retries, 1);
        let endpoints = sum.requests.iter().map(|(key, count)| (&*key.1, *count));
        assert_eq!(
            endpoints.collect::<Vec<_>>(),
            [("", 1), ("127.0.0.1:80", 2)]
        );
    }
}
