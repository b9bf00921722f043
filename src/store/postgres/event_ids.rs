//! IDs of counted events, and counts of events that are not counted: see [`crate::store::event_ids`].

use super::connection::{Params, get, whole};
use super::session::PostgresSession;
use crate::store::delta_rows::{Joined, RowChanges, Users, WantedIds};
use crate::store::event_ids::{EventCounts, FORGOTTEN_AT_ONCE};
use crate::store::{Delta, StoreError};

/// Reads the IDs of a delta's users, as far as they are needed.
pub(super) async fn read(
    session: &mut PostgresSession<'_>,
    number: i32,
    (delta, joined): (&Delta, &Joined),
    users: &mut Users,
) -> Result<(), StoreError> {
    let wanted = joined.wanted_ids(delta, users);
    let (mut all, mut counted, mut some) = (Vec::new(), Vec::new(), (Vec::new(), Vec::new()));
    for (user, wanted) in &wanted {
        match wanted {
            WantedIds::All => all.push(&**user),
            WantedIds::These(ids) => {
                counted.push(&**user);
                for &id in ids {
                    some.0.push(&**user);
                    some.1.push(id as i64);
                }
            }
        }
    }
    let from_ms = delta.remember_from_ms as i64;
    let mut rows = Vec::new();
    if !all.is_empty() {
        let sql = "SELECT user_id, id, at_ms FROM event_ids
                   WHERE experiment = $1 AND user_id = ANY($2) AND at_ms >= $3";
        rows.extend(session.rows(sql, &[&number, &all, &from_ms]).await?);
    }
    if !counted.is_empty() {
        let sql = "SELECT user_id, id, at_ms FROM event_ids
                   JOIN unnest($2::bytea[], $3::bigint[]) AS wanted (user_id, id) USING (user_id, id)
                   WHERE experiment = $1 AND at_ms >= $4";
        let params: Params<'_> = &[&number, &some.0, &some.1, &from_ms];
        rows.extend(session.rows(sql, params).await?);
    }
    for row in rows {
        let rows = users.entry(get(&row, 0)?).or_default();
        rows.ids.insert(whole(&row, 1)?, whole(&row, 2)?);
    }
    if !counted.is_empty() {
        let sql = "SELECT user_id, count(*) FROM event_ids
                   WHERE experiment = $1 AND user_id = ANY($2) AND at_ms >= $3 GROUP BY user_id";
        for row in session.rows(sql, &[&number, &counted, &from_ms]).await? {
            let rows = users.entry(get(&row, 0)?).or_default();
            rows.further_ids = whole(&row, 1)? - rows.ids.len() as u64;
        }
    }
    Ok(())
}

/// Moves the IDs of absorbed users, and writes new ones.
pub(super) async fn keep(
    session: &mut PostgresSession<'_>,
    number: i32,
    joined: &Joined,
    changes: &RowChanges,
) -> Result<(), StoreError> {
    if !joined.absorptions.is_empty() {
        // Each user is absorbed once, and by one who is not. Where several have the same ID, that of the user who
        // stays comes first, and then that of the earlier join.
        let sql = "WITH gone AS (DELETE FROM event_ids USING unnest($2::bytea[], $3::bytea[]) WITH ORDINALITY
                                   AS pair (first, second, place)
                                 WHERE experiment = $1 AND user_id = second RETURNING first, id, at_ms, place)
                   INSERT INTO event_ids SELECT DISTINCT ON (first, id) $1, first, id, at_ms FROM gone
                     ORDER BY first, id, place
                   ON CONFLICT (experiment, user_id, id) DO NOTHING";
        let pairs = joined.absorptions.iter();
        let (first, second): (Vec<&[u8]>, Vec<&[u8]>) =
            pairs.map(|pair| (&*pair.first, &*pair.second)).unzip();
        session.execute(sql, &[&number, &first, &second]).await?;
    }
    if !changes.event_ids.is_empty() {
        let new = || changes.event_ids.iter();
        let users: Vec<&[u8]> = new().map(|(user, ..)| &**user).collect();
        let ids: Vec<i64> = new().map(|(_, id, _)| *id as i64).collect();
        let times: Vec<i64> = new().map(|(.., at_ms)| *at_ms as i64).collect();
        let sql = "INSERT INTO event_ids SELECT $1, * FROM unnest($2::bytea[], $3::bigint[], $4::bigint[])
                   ON CONFLICT (experiment, user_id, id) DO UPDATE SET at_ms = excluded.at_ms";
        session
            .execute(sql, &[&number, &users, &ids, &times])
            .await?;
    }
    Ok(())
}

/// Forgets some old IDs; `added` is the number of new ones.
pub(super) async fn forget_old(
    session: &mut PostgresSession<'_>,
    number: i32,
    (delta, added): (&Delta, u64),
) -> Result<(), StoreError> {
    let sql = "DELETE FROM event_ids WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM event_ids WHERE experiment = $1 AND at_ms < $2 ORDER BY at_ms LIMIT $3))";
    let (from_ms, most) = (delta.remember_from_ms as i64, FORGOTTEN_AT_ONCE + 2 * added);
    session
        .execute(sql, &[&number, &from_ms, &(most as i64)])
        .await?;
    Ok(())
}

/// Adds to the numbers of events that do not count.
pub(super) async fn count(
    session: &mut PostgresSession<'_>,
    number: i32,
    more: EventCounts,
) -> Result<(), StoreError> {
    for (name, count) in more.named() {
        if count > 0 {
            let sql = "INSERT INTO event_counts VALUES ($1, $2, $3)
                       ON CONFLICT (experiment, name) DO UPDATE SET count = event_counts.count + excluded.count";
            session
                .execute(sql, &[&number, &name, &(count as i64)])
                .await?;
        }
    }
    Ok(())
}

/// Reads the numbers of events that do not count.
pub(super) async fn counts(
    session: &mut PostgresSession<'_>,
    number: i32,
) -> Result<EventCounts, StoreError> {
    let sql = "SELECT name, count FROM event_counts WHERE experiment = $1";
    let mut counts = EventCounts::default();
    for row in session.rows(sql, &[&number]).await? {
        counts.add([(get(&row, 0)?, whole(&row, 1)?)]);
    }
    Ok(counts)
}
