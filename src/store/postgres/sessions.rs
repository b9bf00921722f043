//! Sessions of the admin API that were ended early.

use super::connection::{get, whole};
use super::session::PostgresSession;
use crate::store::{ENDED_SESSIONS_MAX, StoreError};

/// See [`crate::store::Store::ended_sessions`].
pub(super) async fn exchange(
    session: &mut PostgresSession<'_>,
    ours: &[(u64, String)],
    now_s: u64,
) -> Result<Vec<(u64, String)>, StoreError> {
    session.lock("ended_sessions").await?;
    let now_s = now_s.min(session.now_ms().await? / 1000);
    let sql = "DELETE FROM ended_sessions WHERE until_s <= $1";
    session.execute(sql, &[&(now_s as i64)]).await?;
    if !ours.is_empty() {
        let until: Vec<i64> = ours.iter().map(|(until_s, _)| *until_s as i64).collect();
        let nonces: Vec<&str> = ours.iter().map(|(_, nonce)| &**nonce).collect();
        let sql = "INSERT INTO ended_sessions (until_s, nonce) SELECT * FROM unnest($1::bigint[], $2::text[])
                   ON CONFLICT (nonce) DO NOTHING";
        session.execute(sql, &[&until, &nonces]).await?;
    }
    // Sessions that expire first are deleted first.
    let sql = "DELETE FROM ended_sessions WHERE nonce IN
               (SELECT nonce FROM ended_sessions ORDER BY until_s DESC, nonce DESC OFFSET $1)";
    session
        .execute(sql, &[&(ENDED_SESSIONS_MAX as i64)])
        .await?;
    let sql = "SELECT until_s, nonce FROM ended_sessions ORDER BY until_s, nonce";
    let rows = session.rows(sql, &[]).await?;
    let pair = |row| Ok((whole(row, 0)?, get(row, 1)?));
    rows.iter().map(pair).collect()
}
