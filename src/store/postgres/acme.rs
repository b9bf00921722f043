//! Entries of ACME, and its lease.

use super::connection::get;
use super::session::PostgresSession;
use crate::store::StoreError;
use crate::store::acme::{AcmeEntries, AcmeLease};

/// See [`crate::store::Store::acme_entries`].
pub(super) async fn entries(session: &mut PostgresSession<'_>) -> Result<AcmeEntries, StoreError> {
    let rows = session.rows("SELECT name, text FROM acme", &[]).await?;
    let read = |row| Ok((get(row, 0)?, get(row, 1)?));
    rows.iter().map(read).collect()
}

/// See [`crate::store::Store::lease_acme`].
pub(super) async fn lease(
    session: &mut PostgresSession<'_>,
    lease: AcmeLease<'_>,
) -> Result<bool, StoreError> {
    session.lock("acme_lease").await?;
    let now_ms = session.now_ms().await?;
    let holder = holder(session, now_ms).await?;
    if holder.is_some_and(|holder| holder != lease.owner) {
        return Ok(false);
    }
    session.execute("DELETE FROM acme_lease", &[]).await?;
    if lease.for_ms > 0 {
        let until_ms = now_ms.saturating_add(lease.for_ms) as i64;
        let sql = "INSERT INTO acme_lease (owner, until_ms) VALUES ($1, $2)";
        session.execute(sql, &[&lease.owner, &until_ms]).await?;
    }
    Ok(true)
}

/// See [`crate::store::Store::write_acme`].
pub(super) async fn write(
    session: &mut PostgresSession<'_>,
    lease: AcmeLease<'_>,
    changes: &[(String, Option<String>)],
) -> Result<bool, StoreError> {
    session.lock("acme_lease").await?;
    let now_ms = session.now_ms().await?;
    if holder(session, now_ms).await?.as_deref() != Some(lease.owner) {
        return Ok(false);
    }
    for (name, text) in changes {
        match text {
            Some(text) => {
                let sql = "INSERT INTO acme VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET text = excluded.text";
                session.execute(sql, &[name, text]).await?
            }
            None => {
                let sql = "DELETE FROM acme WHERE name = $1";
                session.execute(sql, &[name]).await?
            }
        };
    }
    Ok(true)
}

/// Returns the owner of the lease.
async fn holder(
    session: &mut PostgresSession<'_>,
    now_ms: u64,
) -> Result<Option<String>, StoreError> {
    let sql = "SELECT owner FROM acme_lease WHERE until_ms > $1";
    let row = session.row(sql, &[&(now_ms as i64)]).await?;
    row.map(|row| get(&row, 0)).transpose()
}
