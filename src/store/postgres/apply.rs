//! Adds one delta in one transaction. Each table is read and written once, whatever the number of users.

use super::connection::{get, whole};
use super::session::PostgresSession;
use super::{counts, event_ids, experiments, forgotten, identities, user_rows};
use crate::store::aggregate::WAIT_MS;
use crate::store::damage::Damage;
use crate::store::event_ids::KEEP_MS;
use crate::store::{Applied, Delta, StoreError, delta_rows, keys};
use std::borrow::Cow;
use std::collections::HashMap;

/// Adds a delta. Unless it returns [`Applied::Added`], nothing was changed.
pub(super) async fn apply(
    session: &mut PostgresSession<'_>,
    delta: &Delta,
    damage: &Damage,
) -> Result<Applied, StoreError> {
    let number = experiments::lock(session, &delta.experiment).await?;
    let journals: Vec<&str> = delta.ranges.iter().map(|range| &*range.journal).collect();
    let has = positions(session, &delta.experiment, &journals).await?;
    if let Some(outcome) = delta.compare(&has) {
        return Ok(outcome);
    }
    if forgotten::version(session, number).await? != delta.forgotten {
        return Ok(Applied::Stale);
    }
    let delta = &*bounded(delta, session.now_ms().await?);
    let joined = identities::join(session, number, delta).await?;
    let ids: Vec<Vec<u8>> = joined.users(delta).into_iter().collect();
    let mut users = user_rows::read(session, number, &ids, damage).await?;
    event_ids::read(session, number, (delta, &joined), &mut users).await?;
    let (mut additions, changes) = delta_rows::apply(delta, &joined, users);
    identities::keep(session, number, &joined, &changes).await?;
    user_rows::keep(session, number, &changes).await?;
    event_ids::keep(session, number, &joined, &changes).await?;
    additions.uncounted.dropped_waiting += user_rows::stop_waiting(session, number, delta).await?;
    user_rows::forget_seen_once(session, number, delta).await?;
    event_ids::forget_old(session, number, (delta, additions.ids_added)).await?;
    event_ids::count(session, number, additions.uncounted).await?;
    counts::add(session, number, &additions).await?;
    keep_epochs(session, number, delta).await?;
    keep_positions(session, number, delta).await?;
    Ok(Applied::Added)
}

/// Returns the delta as it is applied at this time, in Unix milliseconds: events and event IDs are dropped by the
/// earlier of the clocks.
fn bounded(delta: &Delta, now_ms: u64) -> Cow<'_, Delta> {
    let wait_from_ms = now_ms.saturating_sub(WAIT_MS);
    let remember_from_ms = now_ms.saturating_sub(KEEP_MS);
    if delta.wait_from_ms <= wait_from_ms && delta.remember_from_ms <= remember_from_ms {
        return Cow::Borrowed(delta);
    }
    Cow::Owned(Delta {
        wait_from_ms: delta.wait_from_ms.min(wait_from_ms),
        remember_from_ms: delta.remember_from_ms.min(remember_from_ms),
        ..delta.clone()
    })
}

/// Returns the positions in these journals; 0 for none.
pub(super) async fn positions(
    session: &mut PostgresSession<'_>,
    experiment: &str,
    journals: &[&str],
) -> Result<Vec<u64>, StoreError> {
    let sql = "SELECT journal, through FROM applied
               WHERE experiment = (SELECT number FROM experiments WHERE name = $1) AND journal = ANY($2)";
    let mut known = HashMap::new();
    for row in session.rows(sql, &[&experiment, &journals]).await? {
        known.insert(get::<String>(&row, 0)?, whole(&row, 1)?);
    }
    let of = |journal: &&str| known.get(*journal).copied().unwrap_or(0);
    Ok(journals.iter().map(of).collect())
}

async fn keep_epochs(
    session: &mut PostgresSession<'_>,
    number: i32,
    delta: &Delta,
) -> Result<(), StoreError> {
    for epoch in &delta.epochs {
        let sql = "INSERT INTO epochs VALUES ($1, $2, $3, $4) ON CONFLICT (experiment, digest)
                   DO UPDATE SET first_ms = excluded.first_ms WHERE excluded.first_ms < epochs.first_ms";
        let (digest, first_ms) = (epoch.digest.to_string(), epoch.first_ms as i64);
        let definition = keys::write_definition(epoch);
        session
            .execute(sql, &[&number, &digest, &first_ms, &definition])
            .await?;
    }
    Ok(())
}

async fn keep_positions(
    session: &mut PostgresSession<'_>,
    number: i32,
    delta: &Delta,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO applied SELECT $1, journal, through FROM unnest($2::text[], $3::bigint[]) AS it (journal, through)
               ON CONFLICT (experiment, journal) DO UPDATE SET through = excluded.through";
    let journals: Vec<&str> = delta.ranges.iter().map(|range| &*range.journal).collect();
    let through = delta.ranges.iter().map(|range| range.through as i64);
    let through: Vec<i64> = through.collect();
    session
        .execute(sql, &[&number, &journals, &through])
        .await?;
    Ok(())
}
