//! The secrets of all replicas.

use super::connection::get;
use super::session::PostgresSession;
use crate::store::{SECRETS_MAX, StoreError};

/// See [`crate::store::Store::secrets`].
pub(super) async fn exchange(
    session: &mut PostgresSession<'_>,
    ours: &[String],
) -> Result<Vec<String>, StoreError> {
    session.lock("secrets").await?;
    let rows = session
        .rows("SELECT secret FROM secrets ORDER BY number", &[])
        .await?;
    let known = rows.iter().map(|row| get(row, 0));
    let mut known: Vec<String> = known.collect::<Result<_, _>>()?;
    for secret in ours {
        if known.len() < SECRETS_MAX && !known.contains(secret) {
            let sql = "INSERT INTO secrets (secret) VALUES ($1)";
            session.execute(sql, &[secret]).await?;
            known.push(secret.clone());
        }
    }
    Ok(known)
}
