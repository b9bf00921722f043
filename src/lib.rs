//! watershed: a reverse proxy that splits live traffic between versions of a website and
//! tells, honestly, which version is better.

pub mod stats;
