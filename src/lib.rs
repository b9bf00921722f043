//! watershed: a reverse proxy that splits live traffic between versions of a website and
//! tells, honestly, which version is better.

#![deny(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod config;
pub mod experiment;
pub mod journal;
pub mod ledger;
pub mod proxy;
pub mod rate;
pub mod server;
pub mod spans;
pub mod stats;
pub mod tasks;
pub mod tls;
pub mod upstream;
pub mod vitals;
