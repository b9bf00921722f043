//! Decisions by the admin API: JSON from programs, forms from pages, and what was decided until now.

use crate::admin::decisions::action::Action;
use crate::admin::decisions::apply::{Asked, apply};
use crate::admin::decisions::decide::Done;
use crate::admin::decisions::form;
use crate::admin::http::auth::Caller;
use crate::admin::http::error::{Failure, Path, Refused};
use crate::admin::results::schema::ActResult;
use crate::admin::state::AdminState;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a browser says of a form.
const FORM: &[u8] = b"application/x-www-form-urlencoded";
/// The most bytes that say what is decided.
pub const BYTES_MAX: usize = 16 << 10;
/// What a decision says beyond its name.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Said {
    /// For `promote`; left out, the one that has won.
    group: Option<String>,
    /// Who; the name of the token is added. One line of at most 500 letters.
    by: Option<String>,
    /// Why, for those who look later. One line of at most 500 letters.
    reason: Option<String>,
}

/// Decide about an experiment
///
/// JSON from programs, or nothing; a form from pages, which are answered with pages.
#[utoipa::path(
    post,
    path = "/admin/experiments/{experiment}/{action}",
    operation_id = "decide",
    tag = "decisions",
    params(
        ("experiment" = String, Path, description = "Its name"),
        ("action" = inline(Action), Path, description = "What is to be done"),
    ),
    request_body(content(
        (inline(Option<Said>) = "application/json"),
        (inline(Option<form::Filled>) = "application/x-www-form-urlencoded"),
    )),
    responses(
        (
            status = 200,
            description = "It is so, here; at other replicas within two seconds",
            body = Done,
        ),
        (status = 303, description = "The same, to a page", headers(("location" = String))),
        (
            status = 400,
            description = "The body cannot be read",
            content((Refused = "application/json"), (String = "text/html")),
        ),
        (
            status = 403,
            description = "A form of another session",
            content_type = "text/html",
            body = String,
        ),
        (
            status = 404,
            description = "There is no such experiment or action",
            content((Refused = "application/json"), (String = "text/html")),
        ),
        (
            status = 409,
            description = "The file says who has won, or somebody decided in the same moment",
            content((Refused = "application/json"), (String = "text/html")),
        ),
        (status = 413, description = "The body is too long", body = Refused),
        (
            status = 422,
            description = "There is no such group, or none is named and none has won",
            content((Refused = "application/json"), (String = "text/html")),
        ),
        (
            status = 503,
            description = "The store does not answer: nothing has changed",
            content((Refused = "application/json"), (String = "text/html")),
        ),
    )
)]
pub async fn take(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path((name, action)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let Some(action) = Action::named(&action) else {
        let hint = format!("no action {action:?}; there are pause, resume, promote and rollback");
        return Err(Failure::new(StatusCode::NOT_FOUND, hint));
    };
    let unread = |error: &dyn std::fmt::Display| {
        let hint = format!("the body is {{\"group\", \"by\", \"reason\"}} as JSON: {error}");
        Failure::new(StatusCode::BAD_REQUEST, hint)
    };
    let (kind, body) = (headers.get(CONTENT_TYPE), body?);
    let of_form = |kind: &HeaderValue| kind.as_bytes().starts_with(FORM);
    // curl says so of JSON and of nothing, too, unless told otherwise. A session's form that brings
    // nothing does not bring its proof either.
    let is_curl = body.starts_with(b"{") || body.is_empty() && !caller.has_session();
    if kind.is_some_and(of_form) && !is_curl {
        return Ok(form::take(&state, &caller, &name, action, &body).await);
    }
    if caller.must_prove() {
        let said = "a session sends a form of its page, or says where it is from (Origin)";
        return Err(Failure::new(StatusCode::FORBIDDEN, said));
    }
    let said: Option<Said> = match body.is_empty() {
        true => None,
        false => serde_json::from_slice(&body).map_err(|error| unread(&error))?,
    };
    let said = said.unwrap_or_default();
    let by = caller.by(said.by.as_deref());
    let asked = Asked {
        action,
        group: said.group,
        by: &by,
        reason: said.reason.as_deref(),
    };
    Ok(Json(apply(&state, &name, asked).await?).into_response())
}

/// Decisions.
#[derive(Debug, Serialize, ToSchema)]
pub struct Acts {
    /// The newest first, at most 1000.
    acts: Vec<ActResult>,
}

/// What was decided
#[utoipa::path(
    get,
    path = "/admin/acts",
    operation_id = "acts",
    tag = "decisions",
    responses(
        (status = 200, description = "The newest first", body = Acts),
        (status = 503, description = "The store does not answer", body = Refused),
    )
)]
pub async fn acts(State(state): State<AdminState>) -> Result<Json<Acts>, Failure> {
    let acts = state.store.audit_log(1000).await?.into_iter();
    let acts = acts.map(ActResult::from).collect();
    Ok(Json(Acts { acts }))
}
