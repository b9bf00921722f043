//! The embedded store: one local SQLite file.

mod acme;
mod apply;
mod decisions;
mod event_ids;
mod forgotten;
mod identities;
mod loaded_files;
mod messages;
mod migrations;
mod open;
mod rows;
mod running_minima;
mod secrets;
mod seen_once;
mod sessions;
mod store;
mod user_state;
mod waiting;

pub use store::SqliteStore;
