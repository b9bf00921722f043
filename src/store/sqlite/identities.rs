//! Aliases in SQLite.

use crate::store::delta_rows::{Joined, Roles, RowChanges, named};
use crate::store::identities::{IdentityCounts, IdentityRole, OLD_STEPS_MAX};
use crate::store::{Delta, StoreError};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::HashMap;

/// Decides about the joins of a delta.
pub(super) fn join(transaction: &Transaction<'_>, delta: &Delta) -> Result<Joined, StoreError> {
    let experiment = &delta.experiment;
    let (mut roles, mut old_ends) = (Roles::new(), HashMap::new());
    for id in named(delta) {
        let role = role(transaction, experiment, id)?;
        let absorber = match &role {
            Some(IdentityRole::Absorbed(by)) => Some(&**by),
            _ => None,
        };
        for id in [Some(id), absorber].into_iter().flatten() {
            let end = old_end(transaction, experiment, id.to_vec())?;
            if end != id {
                old_ends.insert(id.to_vec(), end);
            }
        }
        roles.extend(role.map(|role| (id.to_vec(), role)));
    }
    Ok(Joined::new(delta, roles, old_ends))
}

/// Writes the roles of a delta, and the outcomes of its joins.
pub(super) fn keep(
    transaction: &Transaction<'_>,
    delta: &Delta,
    joined: &Joined,
    changes: &RowChanges,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO identities VALUES (?, ?, ?)
               ON CONFLICT DO UPDATE SET role = excluded.role";
    let mut set = transaction.prepare_cached(sql)?;
    for (id, role) in &changes.roles {
        set.execute(params![delta.experiment, id, role])?;
    }
    let sql = "INSERT INTO identity_counts VALUES (?, ?, ?)
               ON CONFLICT DO UPDATE SET count = count + excluded.count";
    let mut add = transaction.prepare_cached(sql)?;
    for (name, count) in IdentityCounts::NAMES
        .into_iter()
        .zip(joined.counts.values())
    {
        if count > 0 {
            add.execute(params![delta.experiment, name, count as i64])?;
        }
    }
    Ok(())
}

/// Returns the ID of an alias: one step, or several in data of version 0.1.0.
pub(super) fn resolve(
    connection: &Connection,
    experiment: &str,
    user: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let id = match role(connection, experiment, user)? {
        Some(IdentityRole::Absorbed(by)) => by,
        _ => user.to_vec(),
    };
    old_end(connection, experiment, id)
}

/// Follows the aliases of version 0.1.0.
fn old_end(
    connection: &Connection,
    experiment: &str,
    mut id: Vec<u8>,
) -> Result<Vec<u8>, StoreError> {
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
