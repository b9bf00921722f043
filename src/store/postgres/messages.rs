//! Messages to webhooks in PostgreSQL.

use super::connection::{get, whole};
use super::session::{PostgresLink, PostgresSession};
use crate::store::StoreError;
use crate::store::damage::Damage;
use crate::store::json::{read_json, written};
use crate::store::messages::{
    EVENTS_MAX, Enqueued, EventMark, PENDING_MAX, PendingMessage, TakenMessages, Taker,
};

const REPORTED: &str = "SELECT at_ms FROM reported WHERE event = $1";

/// See [`crate::store::Store::enqueue`].
pub(super) async fn enqueue(
    session: &mut PostgresSession<'_>,
    event: EventMark<'_>,
    messages: &[PendingMessage],
) -> Result<Enqueued, StoreError> {
    session.lock("messages").await?;
    let last_ms = session.row(REPORTED, &[&event.key]).await?;
    let last_ms = last_ms.map(|row| whole(&row, 0)).transpose()?;
    let is_known = last_ms.is_some_and(|last| event.at_ms < last.saturating_add(event.quiet_ms));
    if !is_known {
        if pending(session).await? as usize + messages.len() > PENDING_MAX {
            return Ok(Enqueued::Full);
        }
        for message in messages {
            let sql =
                "INSERT INTO messages VALUES ($1, $2, $3, NULL) ON CONFLICT (entry) DO NOTHING";
            let (entry, text, due_ms) = (message.entry(), written(message)?, event.at_ms as i64);
            session.execute(sql, &[&entry, &text, &due_ms]).await?;
        }
    }
    let at_ms = event.at_ms.max(last_ms.unwrap_or(0)) as i64;
    let sql = "INSERT INTO reported VALUES ($1, $2) ON CONFLICT (event) DO UPDATE SET at_ms = excluded.at_ms";
    session.execute(sql, &[&event.key, &at_ms]).await?;
    let sql = "DELETE FROM reported WHERE event IN
               (SELECT event FROM reported ORDER BY at_ms DESC OFFSET $1)";
    session.execute(sql, &[&(EVENTS_MAX as i64)]).await?;
    Ok(match is_known {
        true => Enqueued::Known,
        false => Enqueued::New,
    })
}

/// See [`crate::store::Store::reported_ms`].
pub(super) async fn reported_ms(
    link: &PostgresLink,
    event: &str,
) -> Result<Option<u64>, StoreError> {
    let rows = link.rows(REPORTED, &[&event]).await?;
    rows.first().map(|row| whole(row, 0)).transpose()
}

/// See [`crate::store::Store::take_messages`].
pub(super) async fn take(
    session: &mut PostgresSession<'_>,
    taker: Taker<'_>,
    damage: &Damage,
) -> Result<TakenMessages, StoreError> {
    session.lock("messages").await?;
    let (now_ms, until_ms) = (taker.now_ms as i64, taker.until_ms as i64);
    if taker.has_restarted {
        let sql = "UPDATE messages SET due_ms = $1, taken_by = NULL
                   WHERE due_ms > $1 AND (taken_by IS NULL OR taken_by = $2)";
        session.execute(sql, &[&now_ms, &taker.name]).await?;
    }
    let mut taken = TakenMessages::default();
    let (mut damaged, mut entries): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let sql = "SELECT entry, message FROM messages WHERE due_ms <= $1 ORDER BY due_ms LIMIT $2";
    for row in session.rows(sql, &[&now_ms, &(taker.max as i64)]).await? {
        match damage.skip(read_json("messages", get(&row, 1)?))? {
            Some(message) => {
                taken.messages.push(message);
                entries.push(get(&row, 0)?);
            }
            None => damaged.push(get(&row, 0)?),
        }
    }
    let sql = "DELETE FROM messages WHERE entry = ANY($1)";
    session.execute(sql, &[&damaged]).await?;
    let sql = "UPDATE messages SET due_ms = $1, taken_by = $2 WHERE entry = ANY($3)";
    session
        .execute(sql, &[&until_ms, &taker.name, &entries])
        .await?;
    taken.pending = pending(session).await?;
    Ok(taken)
}

/// See [`crate::store::Store::settle_message`].
pub(super) async fn settle(
    link: &PostgresLink,
    message: &PendingMessage,
    due_ms: Option<u64>,
) -> Result<(), StoreError> {
    let entry = message.entry();
    match due_ms {
        None => {
            let sql = "DELETE FROM messages WHERE entry = $1";
            link.execute(sql, &[&entry]).await?
        }
        Some(due_ms) => {
            let sql =
                "UPDATE messages SET message = $1, due_ms = $2, taken_by = NULL WHERE entry = $3";
            let text = written(message)?;
            link.execute(sql, &[&text, &(due_ms as i64), &entry])
                .await?
        }
    };
    Ok(())
}

async fn pending(session: &mut PostgresSession<'_>) -> Result<u64, StoreError> {
    let row = session.row("SELECT count(*) FROM messages", &[]).await?;
    row.map_or(Ok(0), |row| whole(&row, 0))
}
