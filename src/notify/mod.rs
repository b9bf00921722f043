//! Webhooks: messages about winners, harm and the like, by the specification Standard Webhooks.
//!
//! Modules that find something set it on the [`Board`]; decisions are read from the audit log. The sender
//! reports each event to the store once: the store remembers events, so that of several replicas one reports
//! it, and keeps its messages until they are delivered, given up, or too old. Any replica sends them. An
//! event that is found while the store is unavailable, and the loss of the store itself, are kept in an
//! SQLite file beside the journal, and this process sends them.
//!
//! Nothing here is on the path of a request or of ingestion.

mod audit;
mod board;
mod conditions;
mod notification;
mod post;
mod queues;
mod schedule;
mod sender;
mod signature;

pub use board::Board;
pub use conditions::upstream_event;
pub use notification::{Notification, confirmation_key, winner_key};
pub use sender::{Sources, run};
pub use signature::sign;
