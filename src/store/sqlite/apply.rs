//! Adds one delta in one transaction.

use super::event_ids;
use super::forgotten;
use super::identities;
use super::rows::{number, text};
use super::seen_once;
use super::user_state::{self, known};
use super::waiting;
use crate::store::apply_semantics::Additions;
use crate::store::damage::Damage;
use crate::store::delta_rows::{self, Users};
use crate::store::{Applied, Delta, StoreError, keys};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

pub(super) fn apply(
    transaction: &Transaction<'_>,
    delta: &Delta,
    damage: &Damage,
) -> Result<Applied, StoreError> {
    let experiment = &delta.experiment;
    let has = delta.ranges.iter();
    let has = has.map(|range| applied(transaction, experiment, &range.journal));
    if let Some(outcome) = delta.compare(&has.collect::<Result<Vec<_>, _>>()?) {
        return Ok(outcome);
    }
    if forgotten::version(transaction, experiment)? != delta.forgotten {
        return Ok(Applied::Stale);
    }
    let joined = identities::join(transaction, delta)?;
    let mut users = Users::new();
    for user in joined.users(delta) {
        let rows = known(transaction, experiment, &user, damage)?;
        users.insert(user, rows);
    }
    event_ids::read(transaction, delta, &joined, &mut users)?;
    let (mut additions, changes) = delta_rows::apply(delta, &joined, users);
    identities::keep(transaction, delta, &joined, &changes)?;
    user_state::keep(transaction, delta, &changes)?;
    event_ids::keep(transaction, delta, &joined, &changes)?;
    additions.uncounted.dropped_waiting += waiting::stop(transaction, delta)?;
    seen_once::forget_old(transaction, delta)?;
    event_ids::forget_old(transaction, delta, additions.ids_added)?;
    event_ids::count(transaction, experiment, additions.uncounted)?;
    add(transaction, "totals", delta, &additions.totals, damage)?;
    add(transaction, "hours", delta, &additions.hours, damage)?;
    for epoch in &delta.epochs {
        let sql = "INSERT INTO epochs VALUES (?, ?, ?, ?)
                   ON CONFLICT DO UPDATE SET first_ms = min(first_ms, excluded.first_ms)";
        let definition = keys::write_definition(epoch);
        transaction.prepare_cached(sql)?.execute(params![
            delta.experiment,
            epoch.digest.to_string(),
            epoch.first_ms as i64,
            definition
        ])?;
    }
    for range in &delta.ranges {
        let sql = "INSERT INTO applied VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET through = excluded.through";
        transaction.prepare_cached(sql)?.execute(params![
            delta.experiment,
            &*range.journal,
            range.through as i64
        ])?;
    }
    Ok(Applied::Added)
}

/// Forgets a user and its records up to a time. Returns whether the user was known.
pub(super) fn forget(
    transaction: &Transaction<'_>,
    experiment: &str,
    (named, until_ms): (&[u8], u64),
    damage: &Damage,
) -> Result<bool, StoreError> {
    let user = identities::resolve(transaction, experiment, named)?;
    let before = known(transaction, experiment, &user, damage)?;
    // Damaged records are deleted, too.
    let mut was_there = event_ids::forget(transaction, experiment, &user)?;
    for table in ["users", "waiting", "seen_once"] {
        let sql = format!("DELETE FROM {table} WHERE experiment = ? AND user = ?");
        let mut delete = transaction.prepare_cached(&sql)?;
        was_there |= delete.execute(params![experiment, user])? > 0;
    }
    let delta = Delta::nothing(experiment);
    if let Some(record) = &before.record {
        let mut additions = Additions::default();
        additions.take_out(record);
        add(transaction, "totals", &delta, &additions.totals, damage)?;
        add(transaction, "hours", &delta, &additions.hours, damage)?;
    }
    let (mut ids, had_ids) = identities::forget(transaction, experiment, &user)?;
    if until_ms > 0 {
        ids.push(named.to_vec());
        forgotten::keep(transaction, experiment, &ids, until_ms)?;
    }
    Ok(had_ids || was_there)
}

fn add(
    transaction: &Transaction<'_>,
    table: &str,
    delta: &Delta,
    additions: &std::collections::BTreeMap<String, i128>,
    damage: &Damage,
) -> Result<(), StoreError> {
    // Sums exceed the 64 bits of an INTEGER, so they are kept as text.
    let mut read = transaction.prepare_cached(&format!(
        "SELECT value FROM {table} WHERE experiment = ? AND field = ?"
    ))?;
    let sql = format!(
        "INSERT INTO {table} VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
    );
    let mut write = transaction.prepare_cached(&sql)?;
    for (field, &more) in additions {
        let before = read
            .query_row(params![delta.experiment, field], |row| Ok(text(row, 0)))
            .optional()?;
        let before = before.map(|text| damage.skip(text.and_then(|text| number(table, &text))));
        let before = before.transpose()?.flatten().unwrap_or(0);
        write.execute(params![
            delta.experiment,
            field,
            (before + more).to_string()
        ])?;
    }
    Ok(())
}

pub(super) fn applied(
    connection: &Connection,
    experiment: &str,
    journal: &str,
) -> Result<u64, StoreError> {
    let sql = "SELECT through FROM applied WHERE experiment = ? AND journal = ?";
    let through: Option<i64> = connection
        .prepare_cached(sql)?
        .query_row(params![experiment, journal], |row| row.get(0))
        .optional()?;
    Ok(through.unwrap_or(0) as u64)
}
