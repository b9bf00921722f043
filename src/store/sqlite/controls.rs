//! What was decided about experiments.

use super::rows::text;
use crate::store::controls::{ACTS_MAX, Act, Control, Controls};
use crate::store::damage::Damage;
use crate::store::{StoreError, read_json, written};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

pub fn controls(connection: &Connection, damage: &Damage) -> Result<Controls, StoreError> {
    let mut statement = connection.prepare_cached("SELECT experiment, control FROM controls")?;
    let mut rows = statement.query([])?;
    let mut controls = Controls::new();
    while let Some(row) = rows.next()? {
        let read = || Ok((text(row, 0)?, read_json("controls", &text(row, 1)?)?));
        controls.extend(damage.skip(read())?);
    }
    Ok(controls)
}

pub fn control(
    transaction: &Transaction<'_>,
    before_ms: u64,
    next: &Control,
    act: &Act,
) -> Result<bool, StoreError> {
    let sql = "SELECT at_ms FROM controls WHERE experiment = ?";
    let stands: Option<i64> = transaction
        .query_row(sql, [&act.experiment], |row| row.get(0))
        .optional()?;
    if stands.unwrap_or(0) as u64 != before_ms {
        return Ok(false);
    }
    let sql = "INSERT OR REPLACE INTO controls VALUES (?, ?, ?)";
    let at_ms = next.at_ms as i64;
    transaction.execute(sql, params![act.experiment, at_ms, written(next)?])?;
    note(transaction, act)?;
    Ok(true)
}

pub fn note(connection: &Connection, act: &Act) -> Result<(), StoreError> {
    connection.execute("INSERT INTO acts (act) VALUES (?)", [written(act)?])?;
    let sql = "DELETE FROM acts WHERE number <= (SELECT max(number) FROM acts) - ?";
    connection.execute(sql, [ACTS_MAX as i64])?;
    Ok(())
}

pub fn acts(connection: &Connection, max: usize, damage: &Damage) -> Result<Vec<Act>, StoreError> {
    let sql = "SELECT act FROM acts ORDER BY number DESC LIMIT ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([max.min(ACTS_MAX) as i64])?;
    let mut acts = Vec::new();
    while let Some(row) = rows.next()? {
        acts.extend(damage.skip(text(row, 0).and_then(|text| read_json("acts", &text)))?);
    }
    Ok(acts)
}
