//! Decisions at the door: JSON from programs, forms from pages, and what was decided until now.

use crate::admin::Door;
use crate::admin::decisions::decide::{Action, Decision, Done, Undecided, decide, no_experiment};
use crate::admin::decisions::form;
use crate::admin::http::auth::Caller;
use crate::admin::http::error::{Failure, Path, Refused};
use crate::admin::results::gather::Wish;
use crate::admin::results::schema::ActResult;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

/// What a browser says of a form.
const FORM: &[u8] = b"application/x-www-form-urlencoded";
/// The most letters of what is kept of who decided and why.
const LETTERS_MAX: usize = 500;
/// The most bytes that say what is decided.
pub const BYTES_MAX: usize = 16 << 10;
/// How long this process is given to go by a decision that it has made.
const EFFECT_WITHIN: Duration = Duration::from_secs(5);

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

/// What somebody at the door wants done.
#[derive(Debug)]
pub struct Asked<'a> {
    /// What.
    pub action: Action,
    /// With which group; for `promote`, the one that has won unless given.
    pub group: Option<String>,
    /// Who.
    pub by: &'a str,
    /// Why.
    pub reason: Option<&'a str>,
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
    State(door): State<Door>,
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
        return Ok(form::take(&door, &caller, &name, action, &body).await);
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
    Ok(Json(act(&door, &name, asked).await?).into_response())
}

/// Decides, and waits until it is so here.
pub async fn act(door: &Door, name: &str, asked: Asked<'_>) -> Result<Done, Failure> {
    let Asked {
        action,
        mut group,
        by,
        reason,
    } = asked;
    let (by, reason) = (line(by)?, reason.map(line).transpose()?);
    let reason = reason.as_deref().filter(|reason| !reason.is_empty());
    if action == Action::Promote && group.is_none() {
        group = Some(won(door, name).await?);
    }
    let decision = Decision {
        action,
        group: group.as_deref(),
        by: &by,
        reason,
    };
    let plan = door.plan();
    let done = match decide(&plan, &*door.store, name, &decision).await {
        Ok(done) => done,
        Err(Undecided::Refused(status, sentence)) => return Err(Failure::new(status, sentence)),
        Err(Undecided::Away(error)) => return Err(error.into()),
    };
    // What it answers is so, here; other replicas follow within two seconds.
    door.house.decided.notify_one();
    let mut plans = door.plan.clone();
    let effect = plans.wait_for(|plan| {
        let index = plan.experiment_named(name);
        index.is_none_or(|index| plan.experiment(index).lifecycle.name() == done.status)
    });
    if tokio::time::timeout(EFFECT_WITHIN, effect).await.is_err() {
        tracing::warn!(
            "{name}: {} takes effect later than it should",
            action.name()
        );
    }
    Ok(done)
}

/// What somebody wrote, as one line of a log or a table.
fn line(text: &str) -> Result<String, Failure> {
    if text.chars().count() > LETTERS_MAX {
        let said = format!("`by` and `reason` have at most {LETTERS_MAX} letters");
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, said));
    }
    let letters = text.chars();
    let plain = letters.map(|letter| if letter.is_control() { ' ' } else { letter });
    Ok(plain.collect::<String>().trim().to_owned())
}

/// The group that the verdict says has won.
async fn won(door: &Door, name: &str) -> Result<String, Failure> {
    let wish = Wish {
        only: Some(name),
        ..Wish::default()
    };
    let results = door.results(wish).await?;
    let experiment = results.experiments.first();
    let verdict = &experiment.ok_or_else(|| no_experiment(name))?.verdict;
    let group = verdict.group.clone().filter(|_| verdict.state == "winner");
    group.ok_or_else(|| {
        let hint = "no group has won yet; say which one: {\"group\": \"NAME\"}";
        Failure::new(StatusCode::UNPROCESSABLE_ENTITY, hint)
    })
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
pub async fn acts(State(door): State<Door>) -> Result<Json<Acts>, Failure> {
    let acts = door.store.audit_log(1000).await?.into_iter();
    let acts = acts.map(ActResult::from).collect();
    Ok(Json(Acts { acts }))
}
