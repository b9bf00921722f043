//! Sessions of the admin API that were ended early.

use crate::store::{ENDED_SESSIONS_MAX, StoreError};
use rusqlite::{Transaction, params};

/// See [`crate::store::Store::ended_sessions`].
pub(super) fn exchange(
    transaction: &Transaction<'_>,
    ours: &[(u64, String)],
    now_s: u64,
) -> Result<Vec<(u64, String)>, StoreError> {
    let now_s = now_s as i64;
    transaction.execute("DELETE FROM ended_sessions WHERE until_s <= ?", [now_s])?;
    for (until_s, nonce) in ours {
        transaction.execute(
            "INSERT OR IGNORE INTO ended_sessions (until_s, nonce) VALUES (?, ?)",
            params![*until_s as i64, nonce],
        )?;
    }
    // Sessions that expire first are deleted first.
    transaction.execute(
        "DELETE FROM ended_sessions WHERE nonce NOT IN
         (SELECT nonce FROM ended_sessions ORDER BY until_s DESC, nonce DESC LIMIT ?)",
        [ENDED_SESSIONS_MAX as i64],
    )?;
    let mut statement = transaction
        .prepare_cached("SELECT until_s, nonce FROM ended_sessions ORDER BY until_s, nonce")?;
    let pair = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?));
    let found = statement.query_map([], pair)?;
    Ok(found.collect::<Result<_, _>>()?)
}
