//! Stores of counts: one trait, three implementations (an embedded SQLite file, Redis and PostgreSQL), and the
//! ingestion that moves records from the journals to a store exactly once.
//!
//! The event flow: [`crate::journal::Reader`] returns chunks, [`aggregate`] (pure) turns chunks into
//! a [`Batch`], and [`Store::apply`] adds a batch in atomic steps, one per [`Delta`].
//!
//! Exactly once: for every journal that a delta was aggregated from, it states the sequence number
//! that the shard had reached before (`after`) and reaches now (`through`). The store keeps the last
//! `through` in the same atomic step as the counts. So a delta that is sent twice counts once, and
//! a store that lost its last seconds is noticed and gets those records again.

pub mod acme;
pub mod aggregate;
mod all_forgotten;
pub mod applied_cache;
pub mod apply_semantics;
pub(crate) mod backoff;
pub mod buckets;
pub mod damage;
pub mod decisions;
mod delta;
pub mod delta_rows;
mod error;
pub mod event_ids;
pub mod forget_user;
pub mod forgotten;
pub mod identities;
pub mod ingest;
mod interface;
mod json;
pub mod keys;
pub mod loaded_files;
pub mod messages;
pub mod phases;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
pub mod replicas;
pub mod retention;
pub mod rounds;
pub mod running_minima;
pub mod seen_once;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod shared_failure;
pub mod sqlite;
mod totals;
pub mod waiting;

pub use all_forgotten::AllForgotten;
pub use backoff::Backoff;
pub use delta::{
    Applied, Batch, Delta, EpochDefinition, EventAt, ExposureAt, Forget, JournalId, JournalRange,
    Tally, UserDelta,
};
pub use error::{StoreError, chain};
pub use interface::{
    ALIVE_MS, ENDED_SESSIONS_MAX, Replica, SECRETS_MAX, Store, UserCursor, UserPage,
};
pub use totals::{
    EpochTotals, ExperimentTotals, GroupTotals, HourTotals, MetricTotals, UserMetric, UserRecord,
};
