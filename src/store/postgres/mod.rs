//! The store in PostgreSQL, 12 or later: one schema of a database, for one process or several.
//!
//! Each delta is one transaction, which begins with a lock on the row of its experiment. So the deltas of an
//! experiment follow each other, and each sees all of what the one before wrote. SERIALIZABLE would need no lock,
//! but all deltas of an experiment write the same totals: of two at a time, one would always be repeated.

mod acme;
mod apply;
mod connect;
mod connection;
mod counts;
mod decisions;
mod error;
mod event_ids;
mod experiments;
mod forgotten;
mod identities;
mod loaded_files;
mod messages;
mod migrations;
mod read;
mod running_minima;
mod secrets;
mod session;
mod sessions;
mod store;
mod tls_stream;
mod user_rows;

pub use crate::tls::TlsFiles;
pub use error::PostgresError;
pub use store::PostgresStore;
