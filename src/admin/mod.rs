//! The admin API: results, the page, assignments, health, reload. `http/router.rs` lists its paths.
//!
//! It listens on its own address, loopback unless told otherwise. With tokens, every request but
//! the health checks must carry one (`Authorization: Bearer …`), or the session of a browser that
//! has shown one.

mod clock;
mod csv_escape;
mod decisions;
pub(crate) mod export;
mod format;
pub(crate) mod http;
pub mod results;
mod server_handle;
mod state;
mod view;

pub use http::server::serve;
pub use server_handle::{AcceptedEvents, EventsRequest, LatestRecord, ReloadRequest, ServerHandle};
pub use state::AdminState;
