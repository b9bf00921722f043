//! Adds to totals and hours.

use super::session::PostgresSession;
use crate::store::StoreError;
use crate::store::apply_semantics::Additions;
use std::collections::BTreeMap;

/// Adds to totals and hours.
pub(super) async fn add(
    session: &mut PostgresSession<'_>,
    number: i32,
    additions: &Additions,
) -> Result<(), StoreError> {
    for (table, counts) in [("totals", &additions.totals), ("hours", &additions.hours)] {
        add_to(session, number, table, counts).await?;
    }
    Ok(())
}

async fn add_to(
    session: &mut PostgresSession<'_>,
    number: i32,
    table: &str,
    counts: &BTreeMap<String, i128>,
) -> Result<(), StoreError> {
    if counts.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO {table} SELECT $1, field, value::numeric FROM unnest($2::text[], $3::text[]) AS it (field, value)
         ON CONFLICT (experiment, field) DO UPDATE SET value = {table}.value + excluded.value"
    );
    let fields: Vec<&str> = counts.keys().map(String::as_str).collect();
    // Sums exceed 64 bits.
    let values: Vec<String> = counts.values().map(i128::to_string).collect();
    session.execute(&sql, &[&number, &fields, &values]).await?;
    Ok(())
}
