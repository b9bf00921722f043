//! Follows the addresses of endpoints in DNS: each of them becomes an endpoint of the plan that is served.

use super::active_plan::ActivePlan;
use crate::config::plan::{EndpointName, Plan, ResolvedNames};
use crate::upstream::{DnsResolver, NameAnswers};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How soon a name that did not resolve is asked for again.
const AGAIN: Duration = Duration::from_secs(2);

/// What is known of a name.
struct KnownName {
    /// `None` before the first answer.
    found: Option<NameAnswers>,
    /// When it is asked for again.
    due: Instant,
    /// Whether the last question failed.
    has_failed: bool,
}

impl KnownName {
    fn new() -> KnownName {
        KnownName {
            found: None,
            due: Instant::now(),
            has_failed: false,
        }
    }
}

/// Asks for the names of all endpoints, again whenever their time is over. Ends when there can be no
/// more plans.
pub(super) async fn follow(active: Arc<ActivePlan>, mut plans: watch::Receiver<Arc<Plan>>) {
    let mut known: BTreeMap<EndpointName, KnownName> = BTreeMap::new();
    let mut asked: Option<(Box<[SocketAddr]>, Option<DnsResolver>)> = None;
    loop {
        plans.borrow_and_update();
        let (names, servers) = active.names();
        known.retain(|name, _| names.contains(name));
        for name in names {
            known.entry(name).or_insert_with(KnownName::new);
        }
        if asked.as_ref().is_none_or(|(before, _)| *before != servers) {
            known.values_mut().for_each(|it| it.due = Instant::now());
            asked = Some((servers.clone(), resolver(&servers)));
        }
        let Some((_, Some(resolver))) = &asked else {
            // The system resolves the names.
            match plans.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        if ask(resolver, &mut known).await {
            let resolved = known.iter().filter_map(|(name, known)| {
                let found = known.found.as_ref()?;
                Some((name.clone(), found.answers.clone()))
            });
            active.resolve(resolved.collect::<ResolvedNames>());
        }
        let next = known.values().map(|it| it.due).min();
        tokio::select! {
            () = until(next) => {}
            changed = plans.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

fn resolver(servers: &[SocketAddr]) -> Option<DnsResolver> {
    DnsResolver::new(servers)
        .inspect_err(|error| {
            tracing::info!(
                "the system resolves the names of endpoints, because DNS is not configured: {error}"
            )
        })
        .ok()
}

/// Asks for the names whose time is over. Returns whether an address has changed.
async fn ask(resolver: &DnsResolver, known: &mut BTreeMap<EndpointName, KnownName>) -> bool {
    let now = Instant::now();
    let due = known.iter_mut().filter(|(_, known)| known.due <= now);
    let asking = due.map(|(name, known)| async move {
        let found = resolver.resolve(name).await;
        note(name, known, found)
    });
    join_all(asking).await.contains(&true)
}

/// Keeps what was found. Where nothing was, what was known stays. Returns whether an address has changed.
fn note<E: std::fmt::Display>(
    name: &EndpointName,
    known: &mut KnownName,
    found: Result<NameAnswers, E>,
) -> bool {
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            known.due = Instant::now() + AGAIN;
            if !std::mem::replace(&mut known.has_failed, true) {
                tracing::warn!("{name} does not resolve: {error}; its last addresses stay in use");
            }
            return false;
        }
    };
    known.due = Instant::now() + found.ttl;
    if std::mem::take(&mut known.has_failed) {
        tracing::info!("{name} resolves again");
    }
    let before = known.found.replace(found);
    let (before, after) = (before.map(|it| it.answers), known.found.as_ref());
    let after = after.map(|it| &it.answers);
    let has_changed = before.as_ref() != after;
    if has_changed && let (Some(before), Some(after)) = (&before, after) {
        tracing::info!("{name} has moved from {before:?} to {after:?}");
    }
    has_changed
}

async fn until(next: Option<Instant>) {
    match next {
        Some(next) => tokio::time::sleep_until(next).await,
        None => std::future::pending().await,
    }
}
