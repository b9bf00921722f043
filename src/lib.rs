//! watershed: a reverse proxy that splits live traffic between versions of a website and
//! tells, honestly, which version is better.

#![deny(unsafe_code)]

#[cfg(feature = "acme")]
pub mod acme;
pub mod admin;
pub mod archive;
pub mod cli;
pub mod config;
pub mod features;
mod forward;
pub mod gateway;
pub mod journal;
pub mod notify;
pub mod otel;
#[cfg(feature = "postgres")]
pub mod postgres_address;
pub mod private_file;
pub mod proxy;
pub mod rate_limit;
#[cfg(feature = "redis")]
pub mod redis_address;
pub mod regular_file;
pub mod server;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod upstream;

pub use watershed_core::{experiment, stats};

// The fuzz targets name the program as other crates do.
#[cfg(test)]
extern crate self as watershed;

/// The fuzz targets, whose stored inputs the unit tests replay.
#[cfg(test)]
#[allow(
    unsafe_code,
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "measures allocations by an allocator, which is unsafe to implement; a test has its threads to itself"
)]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;
