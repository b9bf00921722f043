//! Why a certificate was not obtained.

use crate::store::{StoreError, chain};
use instant_acme::Error as ClientError;

/// Why a certificate was not obtained.
#[derive(Debug, thiserror::Error)]
pub(super) enum AcmeError {
    /// The authority refuses, cannot be reached, or says what is no ACME.
    #[error("{}", of_client(.0))]
    Authority(#[from] ClientError),
    /// The authority could not check a name.
    #[error("{name}: {why}")]
    Challenge {
        /// The name.
        name: String,
        /// What the authority found.
        why: String,
    },
    /// The authority offers no challenge of this kind.
    #[error("{name}: the authority does not offer {challenge}: choose another `challenge`")]
    NoChallenge {
        /// The name.
        name: String,
        /// The challenge of the file.
        challenge: &'static str,
    },
    /// The certificate cannot be used.
    #[error("the authority's certificate cannot be used: {0}")]
    Unusable(String),
    /// A key or a request for a certificate could not be made.
    #[error("no key could be made: {0}")]
    Key(#[from] rcgen::Error),
    /// The store cannot share it.
    #[error("the store is unavailable: {0}")]
    Store(#[from] StoreError),
    /// Another replica has taken over.
    #[error("another replica has taken over")]
    Superseded,
}

impl AcmeError {
    /// Whether the authority has counted this attempt, so that another one must not follow soon.
    pub(super) fn is_counted(&self) -> bool {
        let is_refused = matches!(
            self,
            AcmeError::Authority(ClientError::Api(_)) | AcmeError::Challenge { .. }
        );
        // Those are mishaps of a moment.
        is_refused && !self.has_kind("badNonce") && !self.has_kind("serverInternal")
    }

    /// Whether it comes from the authority, or from the way there.
    pub(super) fn is_of_authority(&self) -> bool {
        matches!(self, AcmeError::Authority(_))
    }

    /// Whether the authority does not know the account, as after it has lost its data.
    pub(super) fn is_of_unknown_account(&self) -> bool {
        self.has_kind("accountDoesNotExist")
    }

    fn has_kind(&self, kind: &str) -> bool {
        let AcmeError::Authority(ClientError::Api(problem)) = self else {
            return false;
        };
        let found = problem.r#type.as_deref().unwrap_or_default();
        found.strip_prefix("urn:ietf:params:acme:error:") == Some(kind)
    }
}

fn of_client(error: &ClientError) -> String {
    match error {
        ClientError::Api(problem) => format!("the authority refuses: {problem}"),
        error => format!("no success with the authority: {}", chain(error)),
    }
}
