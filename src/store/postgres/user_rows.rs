//! The rows of users: records, waiting events, and visitors who were seen once. Triggers keep the sizes of the latter
//! two.

use super::connection::{get, whole};
use super::session::PostgresSession;
use crate::store::damage::Damage;
use crate::store::delta_rows::{RowChange, RowChanges, UserRows, Users};
use crate::store::seen_once;
use crate::store::waiting::{BYTES_MAX, EXPOSED_MS, USERS_MAX};
use crate::store::{Delta, StoreError, keys};

/// Reads what is known of these users, without event IDs.
pub(super) async fn read(
    session: &mut PostgresSession<'_>,
    number: i32,
    ids: &[Vec<u8>],
    damage: &Damage,
) -> Result<Users, StoreError> {
    let mut users = Users::new();
    if ids.is_empty() {
        return Ok(users);
    }
    let sql = "SELECT user_id, record FROM users WHERE experiment = $1 AND user_id = ANY($2)";
    for row in session.rows(sql, &[&number, &ids]).await? {
        let record = damage.skip(keys::read_user(get(&row, 1)?))?;
        users.insert(get(&row, 0)?, UserRows::new(record, Vec::new()));
    }
    let sql = "SELECT user_id, events FROM waiting WHERE experiment = $1 AND user_id = ANY($2)";
    for row in session.rows(sql, &[&number, &ids]).await? {
        let events = damage.skip(keys::read_waiting(get(&row, 1)?))?;
        users.entry(get(&row, 0)?).or_default().waiting = events.unwrap_or_default();
    }
    Ok(users)
}

/// The rows of some users that are written.
type Written<'a, T> = Vec<(&'a [u8], &'a T)>;

/// Divides changes into the users whose rows go, and rows.
fn divided<T>(changes: &[RowChange<T>]) -> (Vec<&[u8]>, Written<'_, T>) {
    let gone = changes.iter().filter(|(_, entry)| entry.is_none());
    let set = changes
        .iter()
        .filter_map(|(user, entry)| Some((&**user, entry.as_ref()?)));
    (gone.map(|(user, _)| &**user).collect(), set.collect())
}

/// Writes what changed.
pub(super) async fn keep(
    session: &mut PostgresSession<'_>,
    number: i32,
    changes: &RowChanges,
) -> Result<(), StoreError> {
    let (gone, set) = divided(&changes.records);
    delete(session, number, "users", &gone).await?;
    if !set.is_empty() {
        let (users, records): (Vec<&[u8]>, Vec<&str>) = set
            .into_iter()
            .map(|(user, record)| (user, &**record))
            .unzip();
        let sql = "INSERT INTO users SELECT $1, * FROM unnest($2::bytea[], $3::text[])
                   ON CONFLICT (experiment, user_id) DO UPDATE SET record = excluded.record";
        session.execute(sql, &[&number, &users, &records]).await?;
    }
    let (gone, set) = divided(&changes.seen_once);
    delete(session, number, "seen_once", &gone).await?;
    if !set.is_empty() {
        let users: Vec<&[u8]> = set.iter().map(|(user, _)| *user).collect();
        let first: Vec<i64> = set.iter().map(|(_, entry)| entry.0 as i64).collect();
        let bytes: Vec<i64> = set.iter().map(|(_, entry)| entry.1 as i64).collect();
        let sql = "INSERT INTO seen_once SELECT $1, * FROM unnest($2::bytea[], $3::bigint[], $4::bigint[])
                   ON CONFLICT (experiment, user_id) DO UPDATE SET first_ms = excluded.first_ms, bytes = excluded.bytes";
        session
            .execute(sql, &[&number, &users, &first, &bytes])
            .await?;
    }
    let (gone, set) = divided(&changes.waiting);
    delete(session, number, "waiting", &gone).await?;
    if !set.is_empty() {
        let users: Vec<&[u8]> = set.iter().map(|(user, _)| *user).collect();
        let since: Vec<i64> = set.iter().map(|(_, entry)| entry.0 as i64).collect();
        let events: Vec<&str> = set.iter().map(|(_, entry)| &*entry.1).collect();
        let sql = "INSERT INTO waiting SELECT $1, * FROM unnest($2::bytea[], $3::bigint[], $4::text[])
                   ON CONFLICT (experiment, user_id) DO UPDATE SET since_ms = excluded.since_ms, events = excluded.events";
        session
            .execute(sql, &[&number, &users, &since, &events])
            .await?;
    }
    Ok(())
}

/// Deletes the rows of these users. Returns their number.
pub(super) async fn delete(
    session: &mut PostgresSession<'_>,
    number: i32,
    table: &str,
    users: &[&[u8]],
) -> Result<u64, StoreError> {
    if users.is_empty() {
        return Ok(0);
    }
    let sql = format!("DELETE FROM {table} WHERE experiment = $1 AND user_id = ANY($2)");
    session.execute(&sql, &[&number, &users]).await
}

/// Drops events that waited too long, and those beyond the limits. Returns the number of the latter.
pub(super) async fn stop_waiting(
    session: &mut PostgresSession<'_>,
    number: i32,
    delta: &Delta,
) -> Result<u64, StoreError> {
    let sql = "DELETE FROM waiting WHERE experiment = $1
               AND (since_ms < $2 OR since_ms >= $3 AND since_ms < $3 + $2)";
    let (from_ms, exposed_ms) = (delta.wait_from_ms as i64, EXPOSED_MS as i64);
    session
        .execute(sql, &[&number, &from_ms, &exposed_ms])
        .await?;
    let mut dropped = 0;
    if size(session, number, "waiting").await?.0 > USERS_MAX {
        let sql = "DELETE FROM waiting WHERE experiment = $1 AND since_ms <
                   (SELECT since_ms FROM waiting WHERE experiment = $1 ORDER BY since_ms DESC LIMIT 1 OFFSET $2)
                   RETURNING events";
        dropped += count(&session.rows(sql, &[&number, &(USERS_MAX as i64)]).await?)?;
    }
    loop {
        let beyond = size(session, number, "waiting")
            .await?
            .1
            .saturating_sub(BYTES_MAX);
        // The first ones, until enough bytes are gone.
        let sql = "WITH oldest AS (SELECT user_id, sum(bytes) OVER (ORDER BY since_ms, user_id) - bytes AS before FROM
                     (SELECT user_id, since_ms, 150 + 2 * octet_length(user_id) + octet_length(events) AS bytes FROM waiting
                      WHERE experiment = $1 ORDER BY since_ms, user_id LIMIT 10000) AS first)
                   DELETE FROM waiting USING oldest
                   WHERE experiment = $1 AND waiting.user_id = oldest.user_id AND before < $2 RETURNING events";
        let rows = match beyond {
            0 => return Ok(dropped),
            beyond => session.rows(sql, &[&number, &(beyond as i64)]).await?,
        };
        if rows.is_empty() {
            return Ok(dropped);
        }
        dropped += count(&rows)?;
    }
}

/// Counts events of [`keys::write_waiting`].
fn count(rows: &[tokio_postgres::Row]) -> Result<u64, StoreError> {
    let events = rows.iter().map(|row| get::<&str>(row, 0));
    events
        .map(|events| Ok(events?.split(' ').count() as u64))
        .sum()
}

/// Forgets visitors who were seen too long ago, and the oldest beyond the limit of bytes.
pub(super) async fn forget_seen_once(
    session: &mut PostgresSession<'_>,
    number: i32,
    delta: &Delta,
) -> Result<(), StoreError> {
    let (before_ms, at_once) = (seen_once::from_ms(delta), seen_once::FORGOTTEN_AT_ONCE);
    forget_oldest(session, number, before_ms as i64, at_once).await?;
    while size(session, number, "seen_once").await?.1 > seen_once::BYTES_MAX
        && forget_oldest(session, number, i64::MAX, 100).await? > 0
    {}
    Ok(())
}

/// Forgets so many of those who were first seen before a time, the oldest first. Returns their number.
async fn forget_oldest(
    session: &mut PostgresSession<'_>,
    number: i32,
    before_ms: i64,
    at_once: u64,
) -> Result<u64, StoreError> {
    let sql = "WITH old AS (SELECT user_id FROM seen_once WHERE experiment = $1 AND first_ms < $2
                            ORDER BY first_ms, user_id LIMIT $3),
               gone AS (DELETE FROM users USING old WHERE experiment = $1 AND users.user_id = old.user_id)
               DELETE FROM seen_once USING old WHERE experiment = $1 AND seen_once.user_id = old.user_id";
    session
        .execute(sql, &[&number, &before_ms, &(at_once as i64)])
        .await
}

/// Returns the number of entries, and their bytes.
async fn size(
    session: &mut PostgresSession<'_>,
    number: i32,
    kind: &str,
) -> Result<(u64, u64), StoreError> {
    let sql = "SELECT greatest(entries, 0), greatest(bytes, 0) FROM sizes WHERE experiment = $1 AND kind = $2";
    let row = session.row(sql, &[&number, &kind]).await?;
    row.map_or(Ok((0, 0)), |row| Ok((whole(&row, 0)?, whole(&row, 1)?)))
}
