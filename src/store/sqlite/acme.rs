//! Entries of ACME, and its lease.

use crate::store::StoreError;
use crate::store::acme::{AcmeEntries, AcmeLease};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// See [`crate::store::Store::acme_entries`].
pub(super) fn entries(connection: &Connection) -> Result<AcmeEntries, StoreError> {
    let mut statement = connection.prepare_cached("SELECT name, text FROM acme")?;
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// See [`crate::store::Store::lease_acme`].
pub(super) fn lease(
    transaction: &Transaction<'_>,
    lease: AcmeLease<'_>,
) -> Result<bool, StoreError> {
    if holder(transaction, lease.now_ms)?.is_some_and(|holder| holder != lease.owner) {
        return Ok(false);
    }
    transaction.execute("DELETE FROM acme_lease", [])?;
    if lease.for_ms > 0 {
        let until_ms = lease.now_ms.saturating_add(lease.for_ms) as i64;
        transaction.execute(
            "INSERT INTO acme_lease (owner, until_ms) VALUES (?, ?)",
            params![lease.owner, until_ms],
        )?;
    }
    Ok(true)
}

/// See [`crate::store::Store::write_acme`].
pub(super) fn write(
    transaction: &Transaction<'_>,
    lease: AcmeLease<'_>,
    changes: &[(String, Option<String>)],
) -> Result<bool, StoreError> {
    if holder(transaction, lease.now_ms)?.as_deref() != Some(lease.owner) {
        return Ok(false);
    }
    for (name, text) in changes {
        match text {
            Some(text) => transaction.execute(
                "INSERT INTO acme (name, text) VALUES (?, ?)
                 ON CONFLICT DO UPDATE SET text = excluded.text",
                [name, text],
            )?,
            None => transaction.execute("DELETE FROM acme WHERE name = ?", [name])?,
        };
    }
    Ok(true)
}

/// Returns the owner of the lease.
fn holder(transaction: &Transaction<'_>, now_ms: u64) -> Result<Option<String>, StoreError> {
    let sql = "SELECT owner FROM acme_lease WHERE until_ms > ?";
    let mut statement = transaction.prepare_cached(sql)?;
    let holder = statement.query_row([now_ms as i64], |row| row.get(0));
    Ok(holder.optional()?)
}
