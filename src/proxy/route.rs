//! Where a request goes, and to control where that cannot be connected to.

use super::body::Outgoing;
use super::forward::{self, Sending};
use super::handle::Client;
use super::reply::{Reason, Refusal};
use super::snapshot::{Snapshot, Worker};
use super::trail::Trail;
use crate::experiment::visit::Visit;
use crate::experiment::{ExperimentIndex, UpstreamIndex, UserId};
use crate::upstream::{Lease, Need, Wish};
use http::header::{HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use std::cell::Cell;
use std::time::Instant;

/// What decides where a request goes.
#[derive(Clone, Copy)]
pub struct Route<'a> {
    /// Who serves.
    pub worker: &'a Worker,
    /// By which plan.
    pub snapshot: &'a Snapshot,
    /// What the request means.
    pub visit: &'a Visit,
    /// Who asks.
    pub client: &'a Client,
    /// By which ID.
    pub user: Option<UserId<'a>>,
    /// Whether for another protocol.
    pub upgrading: bool,
    /// Where it is noted how it goes, if it is exported.
    pub trail: Option<&'a Trail>,
}

/// What became of a request.
pub struct Sent {
    /// The experiment that control served in its group's place.
    pub fallback: Option<ExperimentIndex>,
    /// Where it went.
    pub upstream: UpstreamIndex,
    /// How often it was sent.
    pub attempts: u32,
    /// The answer.
    pub answer: Result<(Response<Incoming>, Lease<Outgoing>), Refusal>,
}

impl Route<'_> {
    /// Sends the request and waits for the head of its answer, up to the deadline.
    pub async fn send(self, request: Request<Outgoing>, deadline: Option<Instant>) -> Sent {
        let wanted = self.visit.chosen.map(|(_, _, upstream)| upstream);
        let wanted = wanted.unwrap_or(self.snapshot.plan.default);
        let gone = Cell::new((None, wanted));
        let attempts = Cell::new(0);
        let sending = self.send_to(request, &gone, &attempts);
        let answer = match deadline.filter(|_| !self.upgrading) {
            None => sending.await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), sending)
                .await
                .unwrap_or_else(|_| Err(Refusal::new(Reason::TotalTimedOut))),
        };
        let (fallback, upstream) = gone.get();
        Sent {
            fallback,
            upstream,
            attempts: attempts.get(),
            answer,
        }
    }

    async fn send_to(
        self,
        mut request: Request<Outgoing>,
        gone: &Cell<(Option<ExperimentIndex>, UpstreamIndex)>,
        attempts: &Cell<u32>,
    ) -> Result<(Response<Incoming>, Lease<Outgoing>), Refusal> {
        let (upstreams, plan) = (&self.snapshot.upstreams, &*self.snapshot.plan);
        let wish = |upstream| Wish {
            upstream,
            need: match self.upgrading {
                true => Need::Http1,
                false => Need::Any,
            },
            user: self.user,
        };
        let (_, wanted) = gone.get();
        let lease = match self.lend(wish(wanted)).await {
            Ok(lease) => lease,
            // One that is busy is not down: its users stay, and their errors count.
            Err(refusal) if refusal.reason == Reason::Busy => return Err(refusal),
            Err(refusal) => {
                let Some((experiment, control)) = self.control_instead(wanted) else {
                    return Err(refusal);
                };
                self.worker.vitals().fallbacks.add();
                gone.set((Some(experiment), control));
                if let Some(trail) = self.trail {
                    trail.failed(&refusal);
                }
                self.lend(wish(control)).await?
            }
        };
        complete(&mut request, &lease);
        // What the client spoke says nothing of what the endpoint is spoken to in.
        *request.version_mut() = http::Version::HTTP_11;
        let (_, upstream) = gone.get();
        let sending = Sending {
            request,
            wish: wish(upstream),
            line: self.client.line.as_ref(),
            within: plan.timeouts.response,
            attempts,
            trail: self.trail,
        };
        forward::send(upstreams, lease, sending).await
    }

    async fn lend(self, wish: Wish<'_>) -> Result<Lease<Outgoing>, Refusal> {
        if let Some(trail) = self.trail {
            trail.begins(wish.upstream);
        }
        forward::lend(&self.snapshot.upstreams, wish).await
    }

    fn control_instead(self, wanted: UpstreamIndex) -> Option<(ExperimentIndex, UpstreamIndex)> {
        let (experiment, _, _) = self.visit.chosen?;
        let control = self.snapshot.plan.control_upstream(experiment)?;
        (control != wanted).then_some((experiment, control))
    }
}

/// What HTTP/1.1 needs and the client may have left out.
fn complete(request: &mut Request<Outgoing>, lease: &Lease<Outgoing>) {
    let unframed = !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
    if unframed {
        // For a method that seldom has a body hyper would send none.
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
    if request.version() < http::Version::HTTP_11 && !request.headers().contains_key(HOST) {
        // RFC 9112, 3.2: an old client need not say which site it wants.
        if let Ok(host) = HeaderValue::try_from(lease.endpoint().address.to_string()) {
            request.headers_mut().insert(HOST, host);
        }
    }
}
