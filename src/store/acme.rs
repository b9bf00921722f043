//! What replicas share of certificates by ACME: entries of text, and a lease, so that one replica at a
//! time talks to the authority.

use std::collections::BTreeMap;

/// Entries by their names. They hold private keys.
pub type AcmeEntries = BTreeMap<String, String>;

/// The right to talk to the authority, and to write entries.
#[derive(Clone, Copy, Debug)]
pub struct AcmeLease<'a> {
    /// The process that has it, or wants it.
    pub owner: &'a str,
    /// Now, in Unix milliseconds. Redis and PostgreSQL have clocks of their own.
    pub now_ms: u64,
    /// How long it holds.
    pub for_ms: u64,
}
