//! Errors of the admin API, and extractors that return them as JSON where axum would return text.

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
pub(crate) struct Failure {
    /// The status of the response.
    pub status: StatusCode,
    /// A message for the caller.
    pub error: String,
}

/// The body of an error response.
#[derive(Serialize, ToSchema)]
pub(crate) struct Refused {
    /// A message for people.
    error: String,
}

/// The message of an error response, for the middleware that makes a page of it.
#[derive(Clone, Debug)]
pub(crate) struct ErrorMessage(pub String);

impl Failure {
    /// Creates an error with a message for the caller.
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Failure {
        Failure {
            status,
            error: error.into(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Failure { status, error } = self;
        let message = Extension(ErrorMessage(error.clone()));
        (status, message, Json(Refused { error })).into_response()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let error = format!(
            "the store is unavailable: {}; the proxy still serves requests, and the journal keeps their records",
            error.with_advice()
        );
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

/// The error for an experiment that does not exist.
pub(crate) fn no_experiment(name: &str) -> Failure {
    let error = format!("there is no experiment {name:?}");
    Failure::new(StatusCode::NOT_FOUND, error)
}

/// The error while the process shuts down.
pub(crate) fn stopping() -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the process is stopping")
}

/// Keeps the status and the message of axum's own extractors.
macro_rules! from_rejections {
    ($($rejection:ty),*) => {
        $(impl From<$rejection> for Failure {
            fn from(rejection: $rejection) -> Failure {
                Failure::new(rejection.status(), rejection.body_text())
            }
        })*
    };
}
from_rejections!(BytesRejection, FormRejection, PathRejection, QueryRejection);

/// The named parameters of a path.
pub(crate) struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, Failure> {
        let extract::Path(read) = extract::Path::from_request_parts(parts, state).await?;
        Ok(Path(read))
    }
}

/// The query string.
pub(crate) struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Query<T>, Failure> {
        let extract::Query(read) = extract::Query::from_request_parts(parts, state).await?;
        Ok(Query(read))
    }
}

/// A form in the request body.
pub(crate) struct FormBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for FormBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<FormBody<T>, Failure> {
        let extract::Form(read) = extract::Form::from_request(request, state).await?;
        Ok(FormBody(read))
    }
}
