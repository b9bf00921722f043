//! Decisions through the admin API: JSON from programs, forms from pages, and the audit log.

use crate::admin::decisions::action::Action;
use crate::admin::decisions::apply::{DecisionRequest, apply};
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

/// The content type of forms.
const FORM: &[u8] = b"application/x-www-form-urlencoded";
/// The most bytes of a request body.
pub(crate) const BYTES_MAX: usize = 16 << 10;

/// The JSON body of a decision.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DecisionBody {
    /// The group to promote; the winner of the verdict by default.
    group: Option<String>,
    /// The author; the name of the token is added. One line of at most 500 characters.
    by: Option<String>,
    /// The reason, for the audit log. One line of at most 500 characters.
    reason: Option<String>,
}

/// Decide about an experiment
///
/// Programs send JSON or an empty body. Forms of the admin pages get a page as the response.
#[utoipa::path(
    post,
    path = "/admin/experiments/{experiment}/{action}",
    operation_id = "decide",
    tag = "decisions",
    params(
        ("experiment" = String, Path, description = "The name of the experiment"),
        ("action" = inline(Action), Path, description = "The action"),
    ),
    request_body(content(
        (inline(Option<DecisionBody>) = "application/json"),
        (inline(Option<form::DecisionForm>) = "application/x-www-form-urlencoded"),
    )),
    responses(
        (
            status = 200,
            description = "Applied on this replica; other replicas follow within 2 s",
            body = Done,
        ),
        (status = 303, description = "Applied; a form is redirected to the results page", headers(("location" = String))),
        (
            status = 400,
            description = "The body is invalid",
            content((Refused = "application/json"), (String = "text/html")),
        ),
        (
            status = 403,
            description = "The form belongs to another session",
            content_type = "text/html",
            body = String,
        ),
        (
            status = 404,
            description = "The experiment or action does not exist",
            content((Refused = "application/json"), (String = "text/html")),
        ),
        (
            status = 409,
            description = "`winner` in the routes file ended the experiment, or another decision was made at the same moment",
            content((Refused = "application/json"), (String = "text/html")),
        ),
        (status = 413, description = "The body is too long", body = Refused),
        (
            status = 422,
            description = "The group does not exist, or none is named and none has won",
            content((Refused = "application/json"), (String = "text/html")),
        ),
        (
            status = 503,
            description = "The store is unavailable; nothing has changed",
            content((Refused = "application/json"), (String = "text/html")),
        ),
    )
)]
pub(crate) async fn take(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path((name, action)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let Some(action) = Action::named(&action) else {
        let hint = format!("unknown action {action:?}: use pause, resume, promote or rollback");
        return Err(Failure::new(StatusCode::NOT_FOUND, hint));
    };
    let invalid = |error: &dyn std::fmt::Display| {
        let hint =
            format!("the body must be JSON with `group`, `by` and `reason`, all optional: {error}");
        Failure::new(StatusCode::BAD_REQUEST, hint)
    };
    let (kind, body) = (headers.get(CONTENT_TYPE), body?);
    let of_form = |kind: &HeaderValue| kind.as_bytes().starts_with(FORM);
    // curl sends this content type with JSON and with an empty body, too. An empty form of a session
    // has no form token, so it stays a form and is refused.
    let is_curl = body.starts_with(b"{") || body.is_empty() && !caller.has_session();
    if kind.is_some_and(of_form) && !is_curl {
        return Ok(form::take(&state, &caller, &name, action, &body).await);
    }
    if caller.needs_form_token() {
        let error = "a request with a session cookie needs an Origin header or a form token";
        return Err(Failure::new(StatusCode::FORBIDDEN, error));
    }
    let decision: Option<DecisionBody> = match body.is_empty() {
        true => None,
        false => serde_json::from_slice(&body).map_err(|error| invalid(&error))?,
    };
    let decision = decision.unwrap_or_default();
    let by = caller.by(decision.by.as_deref());
    let request = DecisionRequest {
        action,
        group: decision.group,
        by: &by,
        reason: decision.reason.as_deref(),
    };
    Ok(Json(apply(&state, &name, request).await?).into_response())
}

/// The audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Acts {
    /// The latest 1000 entries, newest first.
    acts: Vec<ActResult>,
}

/// List decisions
#[utoipa::path(
    get,
    path = "/admin/acts",
    operation_id = "acts",
    tag = "decisions",
    responses(
        (status = 200, description = "The latest decisions, newest first", body = Acts),
        (status = 503, description = "The store is unavailable", body = Refused),
    )
)]
pub(crate) async fn acts(State(state): State<AdminState>) -> Result<Json<Acts>, Failure> {
    let acts = state.store.audit_log(1000).await?.into_iter();
    let acts = acts.map(ActResult::from).collect();
    Ok(Json(Acts { acts }))
}
