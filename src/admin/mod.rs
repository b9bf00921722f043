//! The admin API: results, the page, assignments, health, reload. `http/router.rs` lists its paths.
//!
//! It listens on its own address, loopback by default. If tokens are configured, every request
//! except health checks must carry one (`Authorization: Bearer …`) or the session cookie of a
//! browser that logged in with one.

pub(crate) mod clock;
mod csv_escape;
mod decisions;
pub(crate) mod export;
pub mod format;
pub(crate) mod http;
pub mod results;
mod server_handle;
mod state;
mod view;

pub use decisions::record::record_decision;
pub use http::server::serve;
pub use results::experiment::result as experiment_result;
pub use results::flags::FlagExposure;
pub use results::metric::View;
pub use server_handle::{AcceptedEvents, EventsRequest, LatestRecord, ReloadRequest, ServerHandle};
pub use state::AdminState;
pub use view::verdict_text::reason as verdict_reason;
