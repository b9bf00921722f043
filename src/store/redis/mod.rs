//! The shared store: Redis or Valkey, 6.2 or later; one server, a cluster, or a master that Sentinels
//! name.

mod acme;
mod client;
mod cluster;
mod connector;
mod decisions;
mod decode;
mod error;
mod forgotten;
mod identities;
mod link;
mod loaded_files;
mod messages;
mod read;
mod running_minima;
mod script;
mod secrets;
mod sessions;
mod store;
mod timeouts;

pub use crate::tls::TlsFiles;
pub use client::RedisStore;
pub use error::Unusable;
