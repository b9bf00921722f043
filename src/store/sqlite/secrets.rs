//! The secrets of all replicas.

use crate::store::{SECRETS_MAX, StoreError};
use rusqlite::Transaction;

/// See [`crate::store::Store::secrets`].
pub(super) fn exchange(
    transaction: &Transaction<'_>,
    ours: &[String],
) -> Result<Vec<String>, StoreError> {
    let mut statement = transaction.prepare_cached("SELECT secret FROM secrets ORDER BY number")?;
    let known = statement.query_map([], |row| row.get(0))?;
    let mut known = known.collect::<Result<Vec<String>, _>>()?;
    for secret in ours {
        if known.len() < SECRETS_MAX && !known.contains(secret) {
            transaction.execute("INSERT INTO secrets (secret) VALUES (?)", [secret])?;
            known.push(secret.clone());
        }
    }
    Ok(known)
}
