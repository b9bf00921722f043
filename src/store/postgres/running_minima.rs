//! Running minima in PostgreSQL.

use super::connection::get;
use super::experiments;
use super::session::PostgresSession;
use crate::store::StoreError;
use crate::store::running_minima::RunningMinima;

pub(super) async fn read(
    session: &mut PostgresSession<'_>,
    experiment: &str,
) -> Result<RunningMinima, StoreError> {
    let mut minima = RunningMinima::default();
    let Some(number) = experiments::number(session, experiment).await? else {
        return Ok(minima);
    };
    let sql = "SELECT field, value, at_ms FROM lowest WHERE experiment = $1";
    for row in session.rows(sql, &[&number]).await? {
        let field: String = get(&row, 0)?;
        if let Some(at_ms) = get::<Option<i64>>(&row, 2)? {
            minima.lowest_at.insert(field.clone(), at_ms as u64);
        }
        minima.lowest.insert(field, get(&row, 1)?);
    }
    let sql = "SELECT field, value FROM first WHERE experiment = $1";
    for row in session.rows(sql, &[&number]).await? {
        minima.first.insert(get(&row, 0)?, get(&row, 1)?);
    }
    Ok(minima)
}

pub(super) async fn merge(
    session: &mut PostgresSession<'_>,
    experiment: &str,
    more: &RunningMinima,
) -> Result<(), StoreError> {
    let number = experiments::lock(session, experiment).await?;
    if !more.lowest.is_empty() {
        let fields: Vec<&str> = more.lowest.keys().map(String::as_str).collect();
        let values: Vec<f64> = more.lowest.values().copied().collect();
        let at_ms = |field: &String| more.lowest_at.get(field).map(|&at_ms| at_ms as i64);
        let times: Vec<Option<i64>> = more.lowest.keys().map(at_ms).collect();
        let sql = "INSERT INTO lowest SELECT $1, * FROM unnest($2::text[], $3::float8[], $4::bigint[])
                   ON CONFLICT (experiment, field) DO UPDATE SET value = excluded.value, at_ms = excluded.at_ms
                   WHERE excluded.value < lowest.value";
        session
            .execute(sql, &[&number, &fields, &values, &times])
            .await?;
    }
    if !more.first.is_empty() {
        let fields: Vec<&str> = more.first.keys().map(String::as_str).collect();
        let texts: Vec<&str> = more.first.values().map(String::as_str).collect();
        let sql = "INSERT INTO first SELECT $1, * FROM unnest($2::text[], $3::text[])
                   ON CONFLICT (experiment, field) DO NOTHING";
        session.execute(sql, &[&number, &fields, &texts]).await?;
    }
    Ok(())
}
