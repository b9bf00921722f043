//! Aliases in SQLite.

use super::event_ids;
use super::user_state::{keep, known};
use crate::store::apply_semantics::{Additions, UserState};
use crate::store::damage::Damage;
use crate::store::identities::{IdentityCounts, IdentityRole, Join, JoinOutcome, OLD_STEPS_MAX};
use crate::store::{Delta, StoreError};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// Adds the joins of a delta.
pub(super) fn join(
    transaction: &Transaction<'_>,
    delta: &Delta,
    additions: &mut Additions,
    damage: &Damage,
) -> Result<(), StoreError> {
    let experiment = &delta.experiment;
    let mut counts = IdentityCounts::default();
    for join in &delta.joins {
        let minted = role(transaction, experiment, &join.minted)?;
        let known_role = role(transaction, experiment, &join.known)?;
        let outcome = join.outcome(minted.as_ref(), known_role.as_ref());
        counts.count(outcome);
        let by = || join.known.clone();
        match outcome {
            JoinOutcome::Absorb => {
                absorb(transaction, delta, additions, join, damage)?;
                set_role(
                    transaction,
                    delta,
                    &join.minted,
                    &IdentityRole::Absorbed(by()),
                )?;
                if known_role.is_none() {
                    set_role(transaction, delta, &join.known, &IdentityRole::Known)?;
                }
            }
            JoinOutcome::SetApart => {
                set_role(transaction, delta, &join.minted, &IdentityRole::Apart(by()))?;
            }
            JoinOutcome::CountFurther => {
                set_role(transaction, delta, &join.known, &IdentityRole::Further)?
            }
            JoinOutcome::Nothing => {}
        }
    }
    for (name, count) in IdentityCounts::NAMES.into_iter().zip(counts.values()) {
        if count > 0 {
            let sql = "INSERT INTO identity_counts VALUES (?, ?, ?)
                       ON CONFLICT DO UPDATE SET count = count + excluded.count";
            transaction
                .prepare_cached(sql)?
                .execute(params![experiment, name, count as i64])?;
        }
    }
    Ok(())
}

/// Moves the counts of a minted ID to the user of a known ID.
fn absorb(
    transaction: &Transaction<'_>,
    delta: &Delta,
    additions: &mut Additions,
    join: &Join,
    damage: &Damage,
) -> Result<(), StoreError> {
    let experiment = &delta.experiment;
    let first = resolve(transaction, experiment, &join.known)?;
    let second = resolve(transaction, experiment, &join.minted)?;
    if first == second {
        return Ok(());
    }
    event_ids::absorb(transaction, experiment, &first, &second)?;
    let mut before = known(transaction, experiment, &first, damage)?;
    let other = known(transaction, experiment, &second, damage)?;
    let waiting = before.waiting.iter().chain(&other.waiting);
    before.ids = event_ids::known(transaction, delta, &first, waiting)?;
    let whole = additions.join(before.clone(), other.clone(), join.at_ms);
    keep(transaction, delta, &first, &before, &whole)?;
    keep(transaction, delta, &second, &other, &UserState::default())
}

/// Returns the ID of an alias: one step, or several in data of version 0.1.0.
pub(super) fn resolve(
    connection: &Connection,
    experiment: &str,
    user: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let mut id = match role(connection, experiment, user)? {
        Some(IdentityRole::Absorbed(by)) => by,
        _ => user.to_vec(),
    };
    let sql = "SELECT first FROM aliases WHERE experiment = ? AND user = ?";
    let mut statement = connection.prepare_cached(sql)?;
    for _ in 0..OLD_STEPS_MAX {
        let first = statement
            .query_row(params![experiment, id], |row| row.get(0))
            .optional()?;
        match first {
            Some(first) => id = first,
            None => break,
        }
    }
    Ok(id)
}

fn role(
    connection: &Connection,
    experiment: &str,
    id: &[u8],
) -> Result<Option<IdentityRole>, StoreError> {
    let sql = "SELECT role FROM identities WHERE experiment = ? AND user = ?";
    let kept: Option<Vec<u8>> = connection
        .prepare_cached(sql)?
        .query_row(params![experiment, id], |row| row.get(0))
        .optional()?;
    Ok(kept.and_then(|kept| IdentityRole::read(&kept)))
}

fn set_role(
    transaction: &Transaction<'_>,
    delta: &Delta,
    id: &[u8],
    role: &IdentityRole,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO identities VALUES (?, ?, ?)
               ON CONFLICT DO UPDATE SET role = excluded.role";
    transaction
        .prepare_cached(sql)?
        .execute(params![delta.experiment, id, role.write()])?;
    Ok(())
}

/// Forgets every alias of an ID. Returns the ID and its aliases, and whether there was any.
pub(super) fn forget(
    transaction: &Transaction<'_>,
    experiment: &str,
    user: &[u8],
) -> Result<(Vec<Vec<u8>>, bool), StoreError> {
    // UNION visits no ID twice, also if old aliases form a cycle.
    let sql = "WITH RECURSIVE leading(id) AS (SELECT ?2 UNION SELECT user FROM aliases, leading
                 WHERE experiment = ?1 AND first = leading.id)
               SELECT id FROM leading";
    let mut statement = transaction.prepare_cached(sql)?;
    let leading = statement.query_map(params![experiment, user], |row| row.get(0))?;
    let leading: Vec<Vec<u8>> = leading.collect::<Result<_, _>>()?;
    let (mut ids, mut forgotten) = (leading.clone(), 0);
    for id in leading {
        let sql = "SELECT user FROM identities WHERE experiment = ? AND role = ?";
        let mut statement = transaction.prepare_cached(sql)?;
        let role = IdentityRole::Absorbed(id.clone()).write();
        let absorbed = statement.query_map(params![experiment, role], |row| row.get(0))?;
        for minted in absorbed {
            ids.push(minted?);
        }
        let sql = "DELETE FROM aliases WHERE experiment = ? AND user = ?";
        forgotten += transaction
            .prepare_cached(sql)?
            .execute(params![experiment, id])?;
        let sql = "DELETE FROM identities WHERE experiment = ?1 AND (user = ?2 OR role = ?3 OR role = ?4)";
        let by = |role: fn(Vec<u8>) -> IdentityRole| role(id.clone()).write();
        let names = params![
            experiment,
            id,
            by(IdentityRole::Absorbed),
            by(IdentityRole::Apart)
        ];
        forgotten += transaction.prepare_cached(sql)?.execute(names)?;
    }
    Ok((ids, forgotten > 0))
}

/// Reads the outcomes of IDs that came together.
pub(super) fn counts(
    connection: &Connection,
    experiment: &str,
) -> Result<IdentityCounts, StoreError> {
    let sql = "SELECT name, count FROM identity_counts WHERE experiment = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([experiment], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
    })?;
    let mut counts = IdentityCounts::default();
    counts.add(&rows.collect::<Result<_, _>>()?);
    Ok(counts)
}
