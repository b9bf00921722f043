//! Messages to webhooks in SQLite.

use super::rows::text;
use crate::store::StoreError;
use crate::store::damage::Damage;
use crate::store::json::{read_json, written};
use crate::store::messages::{
    EVENTS_MAX, Enqueued, EventMark, PENDING_MAX, PendingMessage, TakenMessages, Taker,
};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// See [`crate::store::Store::enqueue`].
pub(super) fn enqueue(
    transaction: &Transaction<'_>,
    event: EventMark<'_>,
    messages: &[PendingMessage],
) -> Result<Enqueued, StoreError> {
    let last_ms = reported_ms(transaction, event.key)?;
    let is_known = last_ms.is_some_and(|last| event.at_ms < last.saturating_add(event.quiet_ms));
    if !is_known {
        let pending = pending(transaction)?;
        if pending as usize + messages.len() > PENDING_MAX {
            return Ok(Enqueued::Full);
        }
        for message in messages {
            let sql = "INSERT OR IGNORE INTO messages VALUES (?, ?, ?, NULL)";
            let due_ms = event.at_ms as i64;
            transaction.execute(sql, params![message.entry(), written(message)?, due_ms])?;
        }
    }
    let at_ms = event.at_ms.max(last_ms.unwrap_or(0)) as i64;
    let sql = "INSERT OR REPLACE INTO reported VALUES (?, ?)";
    transaction.execute(sql, params![event.key, at_ms])?;
    let sql = "DELETE FROM reported WHERE event IN
               (SELECT event FROM reported ORDER BY at_ms DESC LIMIT -1 OFFSET ?)";
    transaction.execute(sql, [EVENTS_MAX as i64])?;
    Ok(match is_known {
        true => Enqueued::Known,
        false => Enqueued::New,
    })
}

/// See [`crate::store::Store::reported_ms`].
pub(super) fn reported_ms(connection: &Connection, event: &str) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT at_ms FROM reported WHERE event = ?";
    let at_ms: Option<i64> = connection
        .query_row(sql, [event], |row| row.get(0))
        .optional()?;
    Ok(at_ms.map(|at_ms| at_ms as u64))
}

/// See [`crate::store::Store::take_messages`].
pub(super) fn take(
    transaction: &Transaction<'_>,
    taker: Taker<'_>,
    damage: &Damage,
) -> Result<TakenMessages, StoreError> {
    let now_ms = taker.now_ms as i64;
    if taker.has_restarted {
        let sql = "UPDATE messages SET due_ms = ?, taken_by = NULL
                   WHERE due_ms > ? AND (taken_by IS NULL OR taken_by = ?)";
        transaction.execute(sql, params![now_ms, now_ms, taker.name])?;
    }
    let mut taken = TakenMessages::default();
    let mut damaged = Vec::new();
    {
        let sql = "SELECT entry, message FROM messages WHERE due_ms <= ? ORDER BY due_ms LIMIT ?";
        let mut statement = transaction.prepare_cached(sql)?;
        let mut rows = statement.query(params![now_ms, taker.max as i64])?;
        while let Some(row) = rows.next()? {
            let entry = text(row, 0)?;
            let read = text(row, 1).and_then(|text| read_json("messages", &text));
            match damage.skip(read)? {
                Some(message) => taken.messages.push(message),
                None => damaged.push(entry),
            }
        }
    }
    for entry in damaged {
        transaction.execute("DELETE FROM messages WHERE entry = ?", [entry])?;
    }
    for message in &taken.messages {
        let sql = "UPDATE messages SET due_ms = ?, taken_by = ? WHERE entry = ?";
        let until_ms = taker.until_ms as i64;
        transaction.execute(sql, params![until_ms, taker.name, message.entry()])?;
    }
    taken.pending = pending(transaction)? as u64;
    Ok(taken)
}

/// See [`crate::store::Store::settle_message`].
pub(super) fn settle(
    connection: &Connection,
    message: &PendingMessage,
    due_ms: Option<u64>,
) -> Result<(), StoreError> {
    let entry = message.entry();
    match due_ms {
        None => connection.execute("DELETE FROM messages WHERE entry = ?", [entry])?,
        Some(due_ms) => {
            let sql =
                "UPDATE messages SET message = ?, due_ms = ?, taken_by = NULL WHERE entry = ?";
            connection.execute(sql, params![written(message)?, due_ms as i64, entry])?
        }
    };
    Ok(())
}

fn pending(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.query_row("SELECT count(*) FROM messages", [], |row| row.get(0))?)
}
