//! What remains of a request: records in the journal, lines of the access log, spans.

pub mod access_log;
pub mod event_faults;
pub mod event_log;
pub mod exposure_log;
mod finish;
pub mod log_lines;
pub mod logged_request;
pub mod progress;
pub mod spans;
pub mod trace_context;
