//! A connection, and its use by one caller at a time. It is made when it is needed, and closed when anything went
//! wrong with it or its caller went away: PostgreSQL then takes back what was not committed. Callers decide whether and
//! when to try again.

use super::connect::connect;
use super::error::{Failure, PostgresError};
use super::migrations;
use crate::postgres_address::PostgresAddress;
use crate::store::StoreError;
use crate::store::shared_failure::SharedFailure;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

/// The longest time for a reply. A later reply counts as a failure, and the call is repeated.
pub(super) const WITHIN: Duration = Duration::from_secs(5);

/// Parameters of a statement.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// One connection, made when it is needed.
#[derive(Debug)]
pub(super) struct Link {
    address: Arc<PostgresAddress>,
    schema: String,
    open: Mutex<Option<Connection>>,
    failures: SharedFailure<PostgresError>,
}

impl Link {
    /// Makes a link without connecting.
    pub(super) fn new(address: Arc<PostgresAddress>, schema: &str) -> Link {
        Link {
            address,
            schema: schema.to_owned(),
            open: Mutex::new(None),
            failures: SharedFailure::default(),
        }
    }

    /// Waits for the connection, and makes it if there is none. Each statement is a transaction of its own.
    pub(super) async fn session(&self) -> Result<Session<'_>, StoreError> {
        let failed_before = self.failures.count();
        let mut slot = self.open.lock().await;
        // It is taken out, so that it is closed if the caller ends early.
        let open = slot.take().filter(|open| !open.client.is_closed());
        let connection = match open {
            Some(open) => open,
            None => {
                if let Some(failure) = self.failures.since(failed_before) {
                    return Err(failure.into());
                }
                let connecting = connect(&self.address, &self.schema).await;
                connecting.inspect_err(|error| {
                    if let StoreError::Postgres(error) = error {
                        self.failures.note(error.clone());
                    }
                })?
            }
        };
        Ok(Session { slot, connection })
    }

    /// Begins a transaction, which [`Session::commit`] ends.
    pub(super) async fn begin(&self) -> Result<Session<'_>, StoreError> {
        let mut session = self.session().await?;
        session.connection.batch("BEGIN").await?;
        Ok(session)
    }

    /// Begins a transaction that sees one state of all tables.
    pub(super) async fn begin_reading(&self) -> Result<Session<'_>, StoreError> {
        let mut session = self.session().await?;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        session.connection.batch(begin).await?;
        Ok(session)
    }

    /// Reads rows.
    pub(super) async fn rows(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        let mut session = self.session().await?;
        let rows = session.rows(sql, params).await?;
        session.close();
        Ok(rows)
    }

    /// Runs a statement that returns nothing.
    pub(super) async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64, StoreError> {
        let mut session = self.session().await?;
        let changed = session.execute(sql, params).await?;
        session.close();
        Ok(changed)
    }

    /// Checks that the tables have a version that this program knows. It is repeated, because a newer program may
    /// have started since.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        migrations::migrate(&mut session.connection, &self.schema).await?;
        session.close();
        Ok(())
    }
}

/// An open connection with its prepared statements.
pub(super) struct Connection {
    client: Client,
    place: Arc<str>,
    statements: HashMap<String, Statement>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place)
    }
}

impl Connection {
    pub(super) fn new(client: Client, place: Arc<str>) -> Connection {
        Connection {
            client,
            place,
            statements: HashMap::new(),
        }
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

    async fn execute(&mut self, sql: &str, params: Params<'_>) -> Result<u64, StoreError> {
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
        Ok(Err(error)) => Err(Failure::from(error).at(place).into()),
        Err(_) => Err(Failure::Slow(limit).at(place).into()),
    }
}

/// The connection in the hands of one caller. Without [`Session::close`] or [`Session::commit`] it is closed.
pub(super) struct Session<'a> {
    slot: MutexGuard<'a, Option<Connection>>,
    connection: Connection,
}

impl Session<'_> {
    /// Reads rows.
    pub(super) async fn rows(
        &mut self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        self.connection.rows(sql, params).await
    }

    /// Reads at most one row.
    pub(super) async fn row(
        &mut self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, params).await?.into_iter().next())
    }

    /// Runs a statement. Returns the number of rows that it changed.
    pub(super) async fn execute(
        &mut self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<u64, StoreError> {
        self.connection.execute(sql, params).await
    }

    /// Returns the time of the clock of PostgreSQL, which all processes share, in Unix milliseconds. The clock of one
    /// process that is wrong does not end what others remember or wait for.
    pub(super) async fn now_ms(&mut self) -> Result<u64, StoreError> {
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        let row = self.row(sql, &[]).await?;
        row.map_or(Ok(0), |row| whole(&row, 0))
    }

    /// Makes other processes that change a table wait until the transaction ends.
    pub(super) async fn lock(&mut self, table: &str) -> Result<(), StoreError> {
        let sql = format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE");
        self.connection.batch(&sql).await
    }

    /// Ends the transaction, and keeps the connection for the next caller.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        self.connection.batch("COMMIT").await?;
        self.close();
        Ok(())
    }

    /// Keeps the connection for the next caller.
    pub(super) fn close(mut self) {
        *self.slot = Some(self.connection);
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
