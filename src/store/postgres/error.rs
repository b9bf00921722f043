//! Why PostgreSQL could not do something, and what to do about it.

use crate::tls::TlsFilesError;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// The oldest version that works.
pub(super) const OLDEST: u32 = 12;

/// What failed, and where. It shows no values of rows and no password.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{place}")]
pub struct PostgresError {
    /// Servers and database.
    place: Arc<str>,
    #[source]
    pub(super) why: PostgresFailure,
}

/// What failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum PostgresFailure {
    #[error("it cannot be reached")]
    Dial(#[source] Arc<io::Error>),
    #[error("TLS to it is not possible")]
    Tls(#[source] Arc<TlsFilesError>),
    #[error("no reply within {0:?}")]
    Slow(Duration),
    #[error("it is read-only")]
    ReadOnly,
    #[error("it is version {found}, and {oldest} is the oldest that works", oldest = OLDEST)]
    TooOld { found: u32 },
    /// An error of the server. Only its message: details may name users.
    #[error("{message} ({})", code.code())]
    Server { code: SqlState, message: String },
    #[error("the connection")]
    Driver(#[source] Arc<tokio_postgres::Error>),
}

impl PostgresFailure {
    pub(super) fn at(self, place: &Arc<str>) -> PostgresError {
        let place = Arc::clone(place);
        PostgresError { place, why: self }
    }
}

impl From<tokio_postgres::Error> for PostgresFailure {
    fn from(error: tokio_postgres::Error) -> PostgresFailure {
        match error.as_db_error() {
            Some(of_server) => PostgresFailure::Server {
                code: of_server.code().clone(),
                message: of_server.message().to_owned(),
            },
            None => PostgresFailure::Driver(Arc::new(error)),
        }
    }
}

const PRIMARY: &str = "name the primary at `store`, or all servers, separated by commas: the one that can be written is used";

impl PostgresError {
    /// Returns the fix; `None` if one can only wait.
    pub(crate) fn advice(&self) -> Option<&'static str> {
        let (code, message) = match &self.why {
            PostgresFailure::Slow(_) => return None,
            PostgresFailure::ReadOnly => return Some(PRIMARY),
            PostgresFailure::TooOld { .. } => return Some("name a newer server at `store`"),
            PostgresFailure::Tls(_) => return Some("correct the files at `store`"),
            PostgresFailure::Dial(_) | PostgresFailure::Driver(_) => {
                return Some("start it, or correct `store`");
            }
            PostgresFailure::Server { code, message } => (code, message),
        };
        let starts_or_stops = [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
        ];
        match code {
            code if starts_or_stops.contains(code) => None,
            &SqlState::INVALID_AUTHORIZATION_SPECIFICATION if message.contains("no encryption") => {
                Some(
                    "add ?sslmode=require to the address at `store`, or let this user in (pg_hba.conf)",
                )
            }
            &SqlState::INVALID_AUTHORIZATION_SPECIFICATION | &SqlState::INVALID_PASSWORD => {
                Some("correct the user and password at `store`, or let this user in (pg_hba.conf)")
            }
            &SqlState::INVALID_CATALOG_NAME => {
                Some("create the database (CREATE DATABASE), or correct its name at `store`")
            }
            &SqlState::INSUFFICIENT_PRIVILEGE => {
                Some("give its user the rights in docs/postgres.md")
            }
            &SqlState::READ_ONLY_SQL_TRANSACTION => Some(PRIMARY),
            &SqlState::DISK_FULL => Some("free some space on the disk of PostgreSQL"),
            &SqlState::OUT_OF_MEMORY => Some("give PostgreSQL more memory"),
            &SqlState::TOO_MANY_CONNECTIONS => Some(
                "raise max_connections, or end other clients: each replica needs two connections",
            ),
            &SqlState::UNTRANSLATABLE_CHARACTER | &SqlState::CHARACTER_NOT_IN_REPERTOIRE => {
                Some("name a database with the encoding UTF8 at `store`")
            }
            &SqlState::UNDEFINED_TABLE | &SqlState::UNDEFINED_COLUMN => Some(
                "another program has changed the tables of watershed: restore them, or give `store` another schema",
            ),
            _ => None,
        }
    }
}
