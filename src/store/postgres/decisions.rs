//! Decisions in PostgreSQL.

use super::connection::{get, whole};
use super::session::{PostgresLink, PostgresSession};
use crate::store::StoreError;
use crate::store::damage::Damage;
use crate::store::decisions::{
    AUDIT_LOG_MAX, AuditEntry, StandingDecision, StandingDecisions, StoredDefinitions,
};
use crate::store::json::{read_json, written};

pub(super) async fn read(
    link: &PostgresLink,
    damage: &Damage,
) -> Result<StandingDecisions, StoreError> {
    let sql = "SELECT experiment, control FROM controls";
    let mut decisions = StandingDecisions::new();
    for row in link.rows(sql, &[]).await? {
        let decision = damage.skip(read_json("controls", get(&row, 1)?))?;
        let experiment = get(&row, 0)?;
        decisions.extend(decision.map(|decision| (experiment, decision)));
    }
    Ok(decisions)
}

pub(super) async fn decide(
    session: &mut PostgresSession<'_>,
    before_ms: u64,
    next: &StandingDecision,
    entry: &AuditEntry,
) -> Result<bool, StoreError> {
    session.lock("controls").await?;
    let sql = "SELECT at_ms FROM controls WHERE experiment = $1";
    let standing = session.row(sql, &[&entry.experiment]).await?;
    if standing.map_or(Ok(0), |row| whole(&row, 0))? != before_ms {
        return Ok(false);
    }
    let sql = "INSERT INTO controls VALUES ($1, $2, $3) ON CONFLICT (experiment)
               DO UPDATE SET at_ms = excluded.at_ms, control = excluded.control";
    let (at_ms, text) = (next.at_ms as i64, written(next)?);
    session
        .execute(sql, &[&entry.experiment, &at_ms, &text])
        .await?;
    record_action(session, entry).await?;
    Ok(true)
}

pub(super) async fn definitions(
    link: &PostgresLink,
    damage: &Damage,
) -> Result<StoredDefinitions, StoreError> {
    let sql = "SELECT experiment, definition FROM definitions";
    let mut definitions = StoredDefinitions::new();
    for row in link.rows(sql, &[]).await? {
        let definition = damage.skip(read_json("definitions", get(&row, 1)?))?;
        let experiment = get(&row, 0)?;
        definitions.extend(definition.map(|definition| (experiment, definition)));
    }
    Ok(definitions)
}

pub(super) async fn define(
    session: &mut PostgresSession<'_>,
    changed: &StoredDefinitions,
) -> Result<(), StoreError> {
    session.lock("definitions").await?;
    let sql = "INSERT INTO definitions VALUES ($1, $2)
               ON CONFLICT (experiment) DO UPDATE SET definition = excluded.definition";
    for (name, definition) in changed {
        session.execute(sql, &[name, &written(definition)?]).await?;
    }
    Ok(())
}

pub(super) async fn record_action(
    session: &mut PostgresSession<'_>,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO acts (act) VALUES ($1)";
    session.execute(sql, &[&written(entry)?]).await?;
    let sql = "DELETE FROM acts WHERE number <= (SELECT max(number) FROM acts) - $1";
    session.execute(sql, &[&(AUDIT_LOG_MAX as i64)]).await?;
    Ok(())
}

pub(super) async fn audit_log(
    link: &PostgresLink,
    max: usize,
    damage: &Damage,
) -> Result<Vec<AuditEntry>, StoreError> {
    let sql = "SELECT act FROM acts ORDER BY number DESC LIMIT $1";
    let mut entries = Vec::new();
    for row in link.rows(sql, &[&(max.min(AUDIT_LOG_MAX) as i64)]).await? {
        entries.extend(damage.skip(read_json("acts", get(&row, 0)?))?);
    }
    Ok(entries)
}
