//! Delivers the payloads of one batch: several at once, and those that are refused in halves, until it is known which
//! messages the destination does not take.

use super::client::{DestinationClient, PartlyRefused, PostFailure, Posted};
use super::payload::Payload;
use crate::telemetry::ForwardCounters;
use futures_util::StreamExt;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use uuid::Uuid;

/// The most requests at once.
const AT_ONCE: usize = 8;
/// How many requests of one payload are refused before it counts as a failure that none was accepted.
const REFUSALS_MAX: usize = 32;

/// What is known of the messages of one batch. It lasts until all of them are settled, so that an attempt that follows
/// sends only the others.
#[derive(Debug, Default)]
pub(super) struct BatchState {
    /// Messages that are accepted, refused for good or too old.
    pub settled: HashSet<Uuid>,
    /// Whether the destination accepted any of them.
    has_accepted: bool,
}

/// What an attempt came to.
#[derive(Debug, Default)]
pub(super) struct DeliveryAttempt {
    /// Why messages were refused for good, if there are any.
    pub why_refused: Option<String>,
    /// Why messages are left, if there are any.
    pub failure: Option<PostFailure>,
}

/// Delivers payloads. What is settled is noted and counted at once, because this may be dropped at any await.
pub(super) async fn deliver(
    client: &DestinationClient,
    payloads: Vec<Payload>,
    state: &mut BatchState,
    counters: &ForwardCounters,
) -> DeliveryAttempt {
    let mut attempt = DeliveryAttempt::default();
    let has_failed = AtomicBool::new(false);
    let each = payloads.into_iter();
    let each = each.map(|payload| deliver_one(client, payload, &has_failed));
    let mut all = futures_util::stream::iter(each).buffer_unordered(AT_ONCE);
    let mut refused = Vec::new();
    while let Some(one) = all.next().await {
        state.has_accepted |= !one.accepted.is_empty();
        let (all, partly) = (one.accepted.len() as u64, one.partly.count);
        let accepted = all.saturating_sub(partly);
        counters.messages.fetch_add(accepted, Ordering::Relaxed);
        counters.refused.fetch_add(partly, Ordering::Relaxed);
        if partly > 0 {
            attempt.why_refused = Some(one.partly.why);
        }
        state.settled.extend(one.accepted);
        refused.extend(one.refused);
        attempt.failure = one.failure.or(attempt.failure.take());
    }
    let Some((_, why)) = refused.first() else {
        return attempt;
    };
    if !state.has_accepted {
        // Then it is not the messages: it might take them once its address or its key is correct.
        let failure = PostFailure::of_refusal(why);
        attempt.failure.get_or_insert(failure);
        return attempt;
    }
    let count = refused.len() as u64;
    counters.refused.fetch_add(count, Ordering::Relaxed);
    attempt.why_refused = Some(why.clone());
    state.settled.extend(refused.into_iter().map(|(id, _)| id));
    attempt
}

/// What became of one payload.
#[derive(Default)]
struct One {
    accepted: Vec<Uuid>,
    partly: PartlyRefused,
    refused: Vec<(Uuid, String)>,
    failure: Option<PostFailure>,
}

async fn deliver_one(client: &DestinationClient, payload: Payload, has_failed: &AtomicBool) -> One {
    let mut one = One::default();
    let mut refusals = 0;
    let mut left = vec![payload];
    while let Some(payload) = left.pop() {
        if has_failed.load(Ordering::Relaxed) {
            // The others of the batch wait for the next attempt, too.
            return one;
        }
        match client.post(&payload).await {
            Posted::Accepted(partly) => {
                one.accepted.extend(payload.ids());
                one.partly.count += partly.count;
                one.partly.why = partly.why;
            }
            Posted::Failed(failure) => {
                has_failed.store(true, Ordering::Relaxed);
                one.failure = Some(failure);
                return one;
            }
            Posted::Refused(why) => {
                refusals += 1;
                if one.accepted.is_empty() && refusals == REFUSALS_MAX {
                    has_failed.store(true, Ordering::Relaxed);
                    one.failure = Some(PostFailure::of_refusal(&why));
                    return one;
                }
                match payload.halves() {
                    Ok((first, second)) => left.extend([second, first]),
                    Err(single) => one.refused.extend(single.ids().map(|id| (id, why.clone()))),
                }
            }
        }
    }
    one
}
