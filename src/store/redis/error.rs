//! Why Redis cannot be used.

use super::connector::TlsFilesError;
use crate::store::{StoreError, chain};
use redis::{ErrorKind, RedisError};

/// The version of the keys that this program writes.
pub const FORMAT: i64 = 1;

/// Why a Redis cannot be used, however long one waits.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The address is not one of Redis.
    #[error("the address is not understood")]
    Address(#[source] RedisError),
    /// There is nobody to trust, or a file for TLS is no good.
    #[error("it cannot be spoken to over TLS")]
    Tls(#[source] TlsFilesError),
    /// It asks for a password, or for another one.
    #[error("it refuses the user or password (or asks for one that the address does not give)")]
    Password(#[source] RedisError),
    /// Something else listens there.
    #[error("what listens there does not answer like Redis")]
    NotRedis(#[source] RedisError),
    /// A newer version of this program wrote its keys.
    #[error("its keys have version {0}, and this program reads up to {FORMAT}")]
    Newer(String),
    /// Another program's data stand where the version of the keys does.
    #[error("its keys are another program's: give `store` a prefix of its own")]
    Foreign(#[source] RedisError),
    /// It is too old.
    #[error("it is version {0}, and 6.2 is the oldest that works")]
    TooOld(String),
}

/// Why there is no connection now.
#[derive(Debug)]
pub enum LinkError {
    /// There will never be one.
    Unusable(Unusable),
    /// It cannot be reached now, or cannot serve yet.
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
            // Loading its data, or a replica without its master: it will answer later.
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
