//! Adds one delta in one transaction. Each table is read and written once, whatever the number of users.

use super::session::{Session, get, whole};
use super::{event_ids, experiments, forgotten, identities, user_rows};
use crate::store::apply_semantics::Additions;
use crate::store::damage::Damage;
use crate::store::{Applied, Delta, StoreError, delta_rows, keys};
use std::collections::{BTreeMap, HashMap};

/// Adds a delta. Unless it returns [`Applied::Added`], nothing was changed.
pub(super) async fn apply(
    session: &mut Session<'_>,
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
    let delta = &*delta.bounded(session.now_ms().await?);
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
    add(session, number, &additions).await?;
    keep_epochs(session, number, delta).await?;
    keep_positions(session, number, delta).await?;
    Ok(Applied::Added)
}

/// Returns the positions in these journals; 0 for none.
pub(super) async fn positions(
    session: &mut Session<'_>,
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

/// Adds to totals and hours.
pub(super) async fn add(
    session: &mut Session<'_>,
    number: i32,
    additions: &Additions,
) -> Result<(), StoreError> {
    for (table, counts) in [("totals", &additions.totals), ("hours", &additions.hours)] {
        add_to(session, number, table, counts).await?;
    }
    Ok(())
}

async fn add_to(
    session: &mut Session<'_>,
    number: i32,
    table: &str,
    counts: &BTreeMap<String, i128>,
) -> Result<(), StoreError> {
    if counts.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO {table} SELECT $1, field, value::numeric FROM unnest($2::text[], $3::text[]) AS it (field, value)
         ON CONFLICT (experiment, field) DO UPDATE SET value = {table}.value + excluded.value"
    );
    let fields: Vec<&str> = counts.keys().map(String::as_str).collect();
    // Sums exceed 64 bits.
    let values: Vec<String> = counts.values().map(i128::to_string).collect();
    session.execute(&sql, &[&number, &fields, &values]).await?;
    Ok(())
}

async fn keep_epochs(
    session: &mut Session<'_>,
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
    session: &mut Session<'_>,
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
