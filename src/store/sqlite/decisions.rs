//! Decisions in SQLite.

use super::rows::text;
use crate::store::StoreError;
use crate::store::damage::Damage;
use crate::store::decisions::{
    AUDIT_LOG_MAX, AuditEntry, StandingDecision, StandingDecisions, StoredDefinitions,
};
use crate::store::json::{read_json, written};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

pub(super) fn read(
    connection: &Connection,
    damage: &Damage,
) -> Result<StandingDecisions, StoreError> {
    let mut statement = connection.prepare_cached("SELECT experiment, control FROM controls")?;
    let mut rows = statement.query([])?;
    let mut decisions = StandingDecisions::new();
    while let Some(row) = rows.next()? {
        let read = || Ok((text(row, 0)?, read_json("controls", &text(row, 1)?)?));
        decisions.extend(damage.skip(read())?);
    }
    Ok(decisions)
}

pub(super) fn decide(
    transaction: &Transaction<'_>,
    before_ms: u64,
    next: &StandingDecision,
    entry: &AuditEntry,
) -> Result<bool, StoreError> {
    let sql = "SELECT at_ms FROM controls WHERE experiment = ?";
    let standing_ms: Option<i64> = transaction
        .query_row(sql, [&entry.experiment], |row| row.get(0))
        .optional()?;
    if standing_ms.unwrap_or(0) as u64 != before_ms {
        return Ok(false);
    }
    let sql = "INSERT OR REPLACE INTO controls VALUES (?, ?, ?)";
    let at_ms = next.at_ms as i64;
    transaction.execute(sql, params![entry.experiment, at_ms, written(next)?])?;
    record_action(transaction, entry)?;
    Ok(true)
}

pub(super) fn definitions(
    connection: &Connection,
    damage: &Damage,
) -> Result<StoredDefinitions, StoreError> {
    let sql = "SELECT experiment, definition FROM definitions";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut definitions = StoredDefinitions::new();
    while let Some(row) = rows.next()? {
        let read = || Ok((text(row, 0)?, read_json("definitions", &text(row, 1)?)?));
        definitions.extend(damage.skip(read())?);
    }
    Ok(definitions)
}

pub(super) fn define(
    transaction: &Transaction<'_>,
    changed: &StoredDefinitions,
) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO definitions VALUES (?, ?)";
    for (name, definition) in changed {
        transaction.execute(sql, params![name, written(definition)?])?;
    }
    Ok(())
}

pub(super) fn record_action(connection: &Connection, entry: &AuditEntry) -> Result<(), StoreError> {
    connection.execute("INSERT INTO acts (act) VALUES (?)", [written(entry)?])?;
    let sql = "DELETE FROM acts WHERE number <= (SELECT max(number) FROM acts) - ?";
    connection.execute(sql, [AUDIT_LOG_MAX as i64])?;
    Ok(())
}

pub(super) fn audit_log(
    connection: &Connection,
    max: usize,
    damage: &Damage,
) -> Result<Vec<AuditEntry>, StoreError> {
    let sql = "SELECT act FROM acts ORDER BY number DESC LIMIT ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([max.min(AUDIT_LOG_MAX) as i64])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.extend(damage.skip(text(row, 0).and_then(|text| read_json("acts", &text)))?);
    }
    Ok(entries)
}
