//! Errors of the admin API, as JSON, also where axum itself would answer with text.

use crate::store::StoreError;
use axum::extract::rejection::{BytesRejection, FormRejection, PathRejection, QueryRejection};
use axum::extract::{self, FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

/// An error of the admin API.
#[derive(Debug)]
pub struct Failure {
    /// Whose fault it is.
    pub status: StatusCode,
    /// A sentence for who asked.
    pub error: String,
}

/// Why there is no answer.
#[derive(Serialize, ToSchema)]
pub struct Refused {
    /// One sentence.
    error: String,
}

/// Why a request failed.
#[derive(Clone, Debug)]
pub struct Said(pub String);

impl Failure {
    /// A failure with a sentence for who asked.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Failure {
        Failure {
            status,
            error: error.into(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Failure { status, error } = self;
        let said = Extension(Said(error.clone()));
        (status, said, Json(Refused { error })).into_response()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let error = format!(
            "the store does not answer: {}; requests are served on, and facts wait in the journal",
            error.with_advice()
        );
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

/// What is said of an experiment that nobody knows.
pub fn no_experiment(name: &str) -> Failure {
    let said = format!("there is no experiment {name:?}");
    Failure::new(StatusCode::NOT_FOUND, said)
}

/// What is said of what can no longer be done.
pub fn stopping() -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "stopping")
}

/// What axum says of what it cannot read.
macro_rules! unread {
    ($($rejection:ty),*) => {
        $(impl From<$rejection> for Failure {
            fn from(rejection: $rejection) -> Failure {
                Failure::new(rejection.status(), rejection.body_text())
            }
        })*
    };
}
unread!(BytesRejection, FormRejection, PathRejection, QueryRejection);

/// The parts of a path that a route names.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, Failure> {
        let extract::Path(read) = extract::Path::from_request_parts(parts, state).await?;
        Ok(Path(read))
    }
}

/// What stands after the `?`.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Query<T>, Failure> {
        let extract::Query(read) = extract::Query::from_request_parts(parts, state).await?;
        Ok(Query(read))
    }
}

/// A form that a browser sends.
pub struct FormBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for FormBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<FormBody<T>, Failure> {
        let extract::Form(read) = extract::Form::from_request(request, state).await?;
        Ok(FormBody(read))
    }
}
