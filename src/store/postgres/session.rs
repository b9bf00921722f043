//! A connection, and its use by one caller at a time. It is made when it is needed, and closed when anything went
//! wrong with it or its caller went away: PostgreSQL then takes back what was not committed. Callers decide whether and
//! when to try again.

use super::connect::connect;
use super::connection::{Params, PostgresConnection, whole};
use super::error::PostgresError;
use super::migrations;
use crate::postgres_address::PostgresAddress;
use crate::store::StoreError;
use crate::store::shared_failure::SharedFailure;
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::Row;

/// One connection, made when it is needed.
#[derive(Debug)]
pub(super) struct PostgresLink {
    address: Arc<PostgresAddress>,
    schema: String,
    open: Mutex<Option<PostgresConnection>>,
    failures: SharedFailure<PostgresError>,
}

impl PostgresLink {
    /// Makes a link without connecting.
    pub(super) fn new(address: Arc<PostgresAddress>, schema: &str) -> PostgresLink {
        PostgresLink {
            address,
            schema: schema.to_owned(),
            open: Mutex::new(None),
            failures: SharedFailure::default(),
        }
    }

    /// Waits for the connection, and makes it if there is none. Each statement is a transaction of its own.
    pub(super) async fn session(&self) -> Result<PostgresSession<'_>, StoreError> {
        let failed_before = self.failures.count();
        let mut slot = self.open.lock().await;
        // It is taken out, so that it is closed if the caller ends early.
        let open = slot.take().filter(|open| !open.is_closed());
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
        Ok(PostgresSession { slot, connection })
    }

    /// Begins a transaction, which [`PostgresSession::commit`] ends.
    pub(super) async fn begin(&self) -> Result<PostgresSession<'_>, StoreError> {
        let mut session = self.session().await?;
        session.connection.batch("BEGIN").await?;
        Ok(session)
    }

    /// Begins a transaction that sees one state of all tables.
    pub(super) async fn begin_reading(&self) -> Result<PostgresSession<'_>, StoreError> {
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

/// The connection in the hands of one caller. Without [`PostgresSession::close`] or [`PostgresSession::commit`] it is closed.
pub(super) struct PostgresSession<'a> {
    slot: MutexGuard<'a, Option<PostgresConnection>>,
    connection: PostgresConnection,
}

impl PostgresSession<'_> {
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
