//! Requests as spans, on their way to a collector that speaks OTLP: what the proxy knows of one
//! ([`sampled_request`]) waits in a queue ([`queue()`]) for a thread of its own ([`run`]), which makes
//! spans of it and posts them. Serving a request never waits for it.

#[cfg(feature = "otlp")]
mod export;
#[cfg(feature = "otlp")]
mod post;
mod queue;
pub mod sampled_request;
#[cfg(feature = "otlp")]
mod semantics;
#[cfg(not(feature = "otlp"))]
mod without_export;

#[cfg(feature = "otlp")]
pub use export::run;
pub use queue::{Inbox, Outbox, queue};
#[cfg(not(feature = "otlp"))]
pub use without_export::run;
