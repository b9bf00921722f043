//! The pure core of watershed: who is in which group, and what an experiment has shown.
//!
//! [`experiment`] assigns users and reads what requests and responses say; [`stats`] judges totals.
//! Nothing here reads a clock, a file, a socket or a random number: those are arguments.

#![deny(unsafe_code)]

pub mod experiment;
pub mod stats;
