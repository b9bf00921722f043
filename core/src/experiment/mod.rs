//! The pure core of the proxy. [`resolve::resolve`] is the entry point: it assigns a user to a
//! group in every matching experiment.
//!
//! - [`identity`] reads the user ID, [`matcher`] decides eligibility, [`assign`] chooses the group.
//! - [`bucketing`] assigns as other vendors do.
//! - [`metric`] decides which events a response counts as, [`guardrail`] which harm it shows.
//! - [`not_counted`] decides which requests are served without being counted, [`robots`] who is one.
//! - [`message_edits`] and [`path_rewrite`] say what a version changes in requests and responses.
//! - [`mirror`] says which requests are copied, [`response_comparison`] what differs between two responses.
//! - [`override_token`] forces a group for QA; [`record`] defines what is journaled.
//!
//! Nothing here reads a clock, a file, a socket or a random number: those are arguments.

pub mod admission;
pub mod assign;
pub mod bucketing;
pub mod client_event;
mod condition_text;
pub mod consent;
pub mod cookies;
pub mod decimal;
mod definition;
pub mod device;
mod epoch;
pub mod event;
pub mod guardrail;
mod hashed_prefix;
pub mod http_view;
pub mod identity;
pub mod implication;
mod index;
pub mod kept_groups;
pub mod key_ring;
pub mod language;
pub mod latency_bucket;
pub mod lifecycle;
pub mod match_index;
pub mod matcher;
pub mod message_edits;
pub mod metric;
pub mod metric_definition;
pub mod minted;
pub mod mirror;
pub mod normal_path;
pub mod not_counted;
pub mod override_token;
pub mod page_view;
pub mod path_regex;
pub mod path_rewrite;
pub mod pattern;
pub mod record;
pub mod resolve;
pub mod response_comparison;
pub mod response_mask;
pub mod robots;
pub mod secret_names;
pub mod segment;
pub mod served_pages;
pub mod units;
pub mod user_id;
pub mod version_rules;
pub mod weight;

pub use definition::{ActOn, Confirmer, Crossover, Experiment, Group, Horizon, Thompson};
pub use epoch::EpochDigest;
pub use index::{ExperimentIndex, GroupIndex, MetricIndex, UpstreamIndex};
pub use lifecycle::Lifecycle;
pub use user_id::UserId;
