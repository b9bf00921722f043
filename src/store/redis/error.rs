//! Why Redis cannot be used.

use crate::store::{StoreError, chain};
use crate::tls::TlsFilesError;
use redis::{ErrorKind, RedisError};

/// The version of the keys that this program writes.
pub(super) const FORMAT: i64 = 1;

/// Why a Redis can never be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The address is invalid.
    #[error("the address is invalid")]
    Address(#[source] RedisError),
    /// TLS is not possible.
    #[error("TLS to it is not possible")]
    Tls(#[source] TlsFilesError),
    /// It requires a password, or another one.
    #[error("it refuses the user or password (or asks for one that the address does not give)")]
    Password(#[source] RedisError),
    /// Another program listens there.
    #[error("the program that listens there does not reply like Redis")]
    NotRedis(#[source] RedisError),
    /// A newer version of this program wrote its keys.
    #[error("its keys have version {0}, and this program reads up to {FORMAT}")]
    Newer(String),
    /// The key of the version has another program's data.
    #[error("its keys belong to another program: give `store` a prefix of its own")]
    Foreign(#[source] RedisError),
    /// It is too old.
    #[error("it is version {0}, and 6.2 is the oldest that works")]
    TooOld(String),
}

/// Why there is no connection now.
#[derive(Debug)]
pub enum LinkError {
    /// There can never be one.
    Unusable(Unusable),
    /// It is unavailable now.
    Away(RedisError),
}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> LinkError {
        let refused = matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
        match error.kind() {
            _ if refused => LinkError::Unusable(Unusable::Password(error)),
            ErrorKind::AuthenticationFailed => LinkError::Unusable(Unusable::Password(error)),
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
                LinkError::Unusable(Unusable::NotRedis(error))
            }
            ErrorKind::InvalidClientConfig => LinkError::Unusable(Unusable::Address(error)),
            // It loads its data, or is a replica without its master: it will reply later.
            _ => LinkError::Away(error),
        }
    }
}

impl From<LinkError> for RedisError {
    fn from(none: LinkError) -> RedisError {
        match none {
            LinkError::Away(error) => error,
            LinkError::Unusable(unusable) => (
                ErrorKind::InvalidClientConfig,
                "Redis cannot be used",
                chain(&unusable),
            )
                .into(),
        }
    }
}

impl From<LinkError> for StoreError {
    fn from(none: LinkError) -> StoreError {
        match none {
            LinkError::Unusable(Unusable::Newer(found)) => StoreError::Newer {
                place: "Redis".to_owned(),
                found,
                known: FORMAT,
            },
            none => StoreError::Redis(none.into()),
        }
    }
}
