//! Forgotten users in PostgreSQL.

use super::connection::{get, whole};
use super::session::{PostgresLink, PostgresSession};
use super::{counts, experiments, identities, user_rows};
use crate::store::StoreError;
use crate::store::apply_semantics::Additions;
use crate::store::damage::Damage;
use crate::store::forgotten::{ForgottenUsers, KEEP_MS, KEY_MARK, new_key, written};

/// The entry that holds the version of an experiment, in place of a digest.
const VERSION: &str = "";

/// The tables with a row for each user, or several.
const OF_USERS: [&str; 5] = ["users", "waiting", "seen_once", "identities", "event_ids"];

/// How many rows are deleted at once, so that no statement takes long.
const DELETED_AT_ONCE: i64 = 10_000;

pub(super) async fn read(
    session: &mut PostgresSession<'_>,
    experiment: &str,
) -> Result<ForgottenUsers, StoreError> {
    let Some(number) = experiments::number(session, experiment).await? else {
        return Ok(ForgottenUsers::default());
    };
    let sql = "SELECT entry, until_ms FROM forgotten WHERE experiment = $1 AND entry <> ''";
    let rows = session.rows(sql, &[&number]).await?;
    let read = |row| Ok((get(row, 0)?, whole(row, 1)?));
    let kept: Vec<(String, u64)> = rows.iter().map(read).collect::<Result<_, StoreError>>()?;
    Ok(ForgottenUsers::new(version(session, number).await?, kept))
}

pub(super) async fn version(
    session: &mut PostgresSession<'_>,
    number: i32,
) -> Result<u64, StoreError> {
    let sql = "SELECT until_ms FROM forgotten WHERE experiment = $1 AND entry = $2";
    let row = session.row(sql, &[&number, &VERSION]).await?;
    row.map_or(Ok(0), |row| whole(&row, 0))
}

/// Forgets a user and its records up to a time. Returns whether the user was known.
pub(super) async fn forget(
    session: &mut PostgresSession<'_>,
    experiment: &str,
    (named, until_ms): (&[u8], u64),
    damage: &Damage,
) -> Result<bool, StoreError> {
    let number = match until_ms {
        0 => match experiments::try_lock(session, experiment).await? {
            Some(number) => number,
            None => return Ok(false),
        },
        _ => experiments::lock(session, experiment).await?,
    };
    let user = identities::resolve(session, number, named).await?;
    let known = user_rows::read(session, number, std::slice::from_ref(&user), damage).await?;
    // Damaged records are deleted, too.
    let mut was_there = false;
    for table in ["users", "waiting", "seen_once", "event_ids"] {
        was_there |= user_rows::delete(session, number, table, &[&*user]).await? > 0;
    }
    let mut additions = Additions::default();
    if let Some(record) = known.get(&user).and_then(|rows| rows.record.as_ref()) {
        additions.take_out(record);
    }
    counts::add(session, number, &additions).await?;
    let (mut ids, had_ids) = identities::forget(session, number, &user).await?;
    if until_ms > 0 {
        ids.push(named.to_vec());
        keep(session, number, &ids, until_ms).await?;
    }
    Ok(had_ids || was_there)
}

/// Adds forgotten users.
async fn keep(
    session: &mut PostgresSession<'_>,
    number: i32,
    users: &[Vec<u8>],
    until_ms: u64,
) -> Result<(), StoreError> {
    let sql =
        "SELECT entry FROM forgotten WHERE experiment = $1 AND starts_with(entry, $2) LIMIT 1";
    let add = "INSERT INTO forgotten VALUES ($1, $2, $3) ON CONFLICT (experiment, entry)
               DO UPDATE SET until_ms = greatest(forgotten.until_ms, excluded.until_ms)";
    let key = match session.row(sql, &[&number, &KEY_MARK]).await? {
        Some(row) => get(&row, 0)?,
        None => {
            let key = new_key()?;
            // The key never expires.
            session.execute(add, &[&number, &key, &i64::MAX]).await?;
            key
        }
    };
    for user in users {
        let entry = written(&key, user);
        session
            .execute(add, &[&number, &entry, &(until_ms as i64)])
            .await?;
    }
    let sql = "INSERT INTO forgotten VALUES ($1, $2, 1)
               ON CONFLICT (experiment, entry) DO UPDATE SET until_ms = forgotten.until_ms + 1";
    session.execute(sql, &[&number, &VERSION]).await?;
    let sql = "DELETE FROM forgotten WHERE experiment = $1 AND entry <> $2 AND until_ms < $3";
    let gone = until_ms.min(session.now_ms().await?);
    let gone = gone.saturating_sub(KEEP_MS) as i64;
    session.execute(sql, &[&number, &VERSION, &gone]).await?;
    Ok(())
}

/// Forgets all users of an experiment and keeps its counts.
pub(super) async fn forget_all(link: &PostgresLink, experiment: &str) -> Result<(), StoreError> {
    for table in OF_USERS {
        let sql = format!(
            "DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE experiment = $1 LIMIT $2))"
        );
        loop {
            // Without the lock, a delta that writes the same rows in another order could wait for this forever.
            let mut session = link.begin().await?;
            let Some(number) = experiments::try_lock(&mut session, experiment).await? else {
                return session.commit().await;
            };
            let gone = session.execute(&sql, &[&number, &DELETED_AT_ONCE]).await?;
            session.commit().await?;
            if gone == 0 {
                break;
            }
        }
    }
    Ok(())
}
