//! Certificates of an authority that speaks ACME (RFC 8555), such as Let's Encrypt.
//!
//! Replicas share the account, the certificate and the answers to challenges through the store. Each
//! looks there every second ([`keeper`]) and presents what it finds ([`Obtained`]). When a certificate is
//! due ([`schedule`]), the replica that gets the lease of the store orders it ([`order`]); the others
//! answer challenges meanwhile, because the authority may ask any of them. A copy of the certificate
//! beside the journal serves starts without the store ([`kept`]).
//!
//! [`Obtained`]: crate::tls::Obtained

mod attempt;
mod authority;
mod entries;
mod error;
mod keeper;
mod kept;
mod order;
mod schedule;

pub use keeper::Keeper;
