//! An open connection with its prepared statements, and the rows that it returns.

use super::error::PostgresFailure;
use crate::store::StoreError;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

/// The longest time for a reply. A later reply counts as a failure, and the call is repeated.
pub(super) const WITHIN: Duration = Duration::from_secs(5);

/// Parameters of a statement.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// An open connection with its prepared statements.
pub(super) struct PostgresConnection {
    client: Client,
    place: Arc<str>,
    statements: HashMap<String, Statement>,
}

impl std::fmt::Debug for PostgresConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place)
    }
}

impl PostgresConnection {
    pub(super) fn new(client: Client, place: Arc<str>) -> PostgresConnection {
        PostgresConnection {
            client,
            place,
            statements: HashMap::new(),
        }
    }

    /// Whether the server has closed it.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Runs statements without parameters.
    pub(super) async fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        in_time(&self.place, self.client.batch_execute(sql)).await
    }

    pub(super) async fn rows(
        &mut self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let statement = self.prepare(sql).await?;
        in_time(&self.place, self.client.query(&statement, params)).await
    }

    pub(super) async fn execute(
        &mut self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<u64, StoreError> {
        let statement = self.prepare(sql).await?;
        in_time(&self.place, self.client.execute(&statement, params)).await
    }

    async fn prepare(&mut self, sql: &str) -> Result<Statement, StoreError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = in_time(&self.place, self.client.prepare(sql)).await?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

async fn in_time<T>(
    place: &Arc<str>,
    reply: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StoreError> {
    // The server ends a statement after the same time; its answer says which limit it was.
    let limit = WITHIN + Duration::from_secs(1);
    match tokio::time::timeout(limit, reply).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(PostgresFailure::from(error).at(place).into()),
        Err(_) => Err(PostgresFailure::Slow(limit).at(place).into()),
    }
}

/// Reads a column. A value of another type is an error of the tables.
pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    column: usize,
) -> Result<T, StoreError> {
    row.try_get(column).map_err(|error| StoreError::Unreadable {
        place: row.columns().get(column).map_or_else(
            || "a row".to_owned(),
            |column| format!("a {} of PostgreSQL", column.name()),
        ),
        found: error.to_string(),
    })
}

/// Reads a whole number that is never negative.
pub(super) fn whole(row: &Row, column: usize) -> Result<u64, StoreError> {
    get::<i64>(row, column).map(|number| number as u64)
}
