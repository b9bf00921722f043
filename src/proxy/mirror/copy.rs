//! The task of one copy: it asks the other version, compares, and counts what it finds.

use super::ask::{self, CopyRequest, CopyResponse};
use super::collected::BodyPart;
use super::slots::CopySlot;
use crate::experiment::identity::Visitor;
use crate::experiment::response_comparison::{self, ComparedResponse, ResponseDifference};
use crate::experiment::{UpstreamIndex, latency_bucket};
use crate::journal;
use crate::proxy::observe::exposure_log::{self, LateExposure};
use crate::proxy::observe::progress::whole_us;
use crate::proxy::snapshot::{Snapshot, Worker};
use crate::telemetry::{MirrorComparison, MirrorCounts, MirrorExample};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The response that the client gets, without its body.
#[derive(Debug)]
pub(super) struct OriginalResponse {
    /// What is compared.
    pub compared: ComparedResponse,
    /// Whether its body can be compared.
    pub is_comparable: bool,
    /// The time to its head.
    pub took: Duration,
}

/// A copy of a request, and all that its task needs.
pub(super) struct RequestCopy {
    /// The worker that serves the client.
    pub worker: Rc<Worker>,
    /// The configuration that applies to the request.
    pub snapshot: Rc<Snapshot>,
    /// Where it is counted.
    pub counts: Arc<MirrorCounts>,
    /// The user.
    pub visitor: Option<Visitor<'static>>,
    /// The request's path.
    pub path: Box<str>,
    /// Whether the method is HEAD.
    pub to_head: bool,
    /// The upstream that has served the client.
    pub served: UpstreamIndex,
    /// The upstream that gets the copy.
    pub target: UpstreamIndex,
    /// The copy.
    pub request: CopyRequest,
    /// The copy for the version that has served.
    pub again: CopyRequest,
    /// What the client gets.
    pub original: OriginalResponse,
    /// The body that the client gets.
    pub collected: oneshot::Receiver<BodyPart>,
    /// What is journaled if there is a difference.
    pub exposure: Option<Box<LateExposure>>,
    /// Its place among the copies in flight.
    pub slot: CopySlot,
}

impl RequestCopy {
    /// Runs it to its end.
    pub(super) async fn run(self) {
        let counts = Arc::clone(&self.counts);
        if self.compare().await.is_none() {
            counts.failed.add();
        }
    }

    /// `None` if there was nothing to compare.
    async fn compare(mut self) -> Option<()> {
        let (mut collected, original) = (self.collected, self.original);
        let user = self.visitor.as_ref().map(Visitor::assigned_by);
        let (snapshot, to_head) = (&self.snapshot, self.to_head);
        let own = async {
            let within = snapshot.plan.timeouts.response;
            let waiting = tokio::time::timeout(within, &mut collected);
            match original.is_comparable {
                true => waiting.await.ok()?.ok(),
                false => None,
            }
        };
        let asking = ask::ask(snapshot, (self.target, user), &self.request, to_head);
        let (copy, own) = tokio::join!(asking, own);
        let copy = copy?;
        let own = match own {
            Some(body) => {
                let mut compared = original.compared;
                (compared.body, compared.is_cut) = (body.data, body.is_cut);
                let took = original.took;
                CopyResponse { compared, took }
            }
            None => {
                self.counts.asked_again.add();
                ask::ask(snapshot, (self.served, user), &self.again, to_head).await?
            }
        };
        let took = [own.took, copy.took];
        let both = (own.compared, copy.compared);
        let difference = differing(&self.worker, both).await?;
        if difference.is_some()
            && let Some(exposure) = self.exposure.take()
        {
            exposure_log::late(&self.worker, snapshot, *exposure);
        }
        let name = |upstream| &*snapshot.plan.upstream(upstream).name;
        let names = [name(self.served), name(self.target)];
        let bucket = |took| latency_bucket::of(whole_us(took));
        self.counts.add(MirrorComparison {
            pattern: response_comparison::path_pattern(&self.path),
            latencies: [(names[0], bucket(took[0])), (names[1], bucket(took[1]))],
            difference: difference.map(|found| {
                let example = MirrorExample {
                    path: self.path.clone(),
                    served: (names[0].into(), found.one),
                    copy: (names[1].into(), found.other),
                };
                (found.kind as usize, example)
            }),
        });
        drop(self.slot);
        Some(())
    }
}

/// Finds the difference of two responses. Masking takes another thread, so that no request waits for it. `None` if that
/// thread failed.
async fn differing(
    worker: &Worker,
    (one, other): (ComparedResponse, ComparedResponse),
) -> Option<Option<ResponseDifference>> {
    if one == other {
        return Some(None);
    }
    let now_s = journal::system_ms() / 1000;
    let _turn = worker.copies.compare().await;
    let comparing = move || response_comparison::compare(&one, &other, now_s);
    tokio::task::spawn_blocking(comparing).await.ok()
}
