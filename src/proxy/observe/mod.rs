//! What remains of a request: records in the journal, lines of the access log, spans.

pub(super) mod access_log;
pub(super) mod event_faults;
pub(super) mod event_log;
pub(super) mod exposure_log;
mod finish;
pub mod log_lines;
pub(super) mod logged_request;
pub(super) mod progress;
pub(super) mod spans;
pub(super) mod trace_context;
