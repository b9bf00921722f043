//! Whether this process is well, and its file anew.

use crate::admin::decisions::audit;
use crate::admin::http::auth::Caller;
use crate::admin::http::error::{Failure, Refused, stopping};
use crate::admin::server_handle::ReloadRequest;
use crate::admin::state::AdminState;
use crate::config::declaration::definition;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;

/// Whether it lives
#[utoipa::path(
    get,
    path = "/admin/healthz",
    operation_id = "healthz",
    tag = "process",
    responses((status = 200, description = "`ok`", body = String))
)]
pub async fn live() -> &'static str {
    "ok\n"
}

/// Whether it is to be given work
#[utoipa::path(
    get,
    path = "/admin/readyz",
    operation_id = "readyz",
    tag = "process",
    responses(
        (
            status = 200,
            description = "`ready`; each line after that is a problem that does not stop requests",
            body = String,
        ),
        (status = 503, description = "It stops", body = Refused),
    )
)]
pub async fn ready(State(state): State<AdminState>) -> Result<String, Failure> {
    if *state.stopping.borrow() {
        return Err(stopping());
    }
    let problems = state.telemetry.problems.all().into_iter();
    let lines = std::iter::once("ready".to_owned()).chain(problems);
    Ok(lines.map(|line| line + "\n").collect())
}

/// The same on the listener for health
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "healthz_short",
    tag = "process",
    responses((status = 200, description = "`ok`", body = String))
)]
pub async fn live_short() -> &'static str {
    live().await
}

/// The same on the listener for health
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz_short",
    tag = "process",
    responses(
        (status = 200, description = "`ready`", body = String),
        (status = 503, description = "It stops", body = Refused),
    )
)]
pub async fn ready_short(state: State<AdminState>) -> Result<String, Failure> {
    ready(state).await
}

/// What is served by.
#[derive(Debug, Serialize, ToSchema)]
pub struct Config {
    /// Tells files that mean different things apart; the same at replicas of one store that mean
    /// the same.
    digest: String,
    /// The routes file as it is written, without its secrets. Decisions stand over it: see
    /// `/admin/acts`.
    config: serde_json::Value,
}

/// The routes file that is served by
///
/// As it was loaded last: one that changed since and is unsound is not it. Secrets are hidden;
/// where one is kept elsewhere (`${NAME}`, `file:PATH`), its place is shown.
#[utoipa::path(
    get,
    path = "/admin/config",
    operation_id = "config",
    tag = "process",
    responses((status = 200, description = "The file", body = Config))
)]
pub async fn config(State(state): State<AdminState>) -> Json<Config> {
    let plan = state.plan();
    // Keyed, so that nobody can try secrets of the file against it.
    let keys = &plan.admin.session_keys;
    let tag = keys.sign(&[b"config", &plan.digest.to_le_bytes()]);
    let digest = tag[..8].iter().map(|byte| format!("{byte:02x}"));
    Json(Config {
        digest: digest.collect(),
        config: plan.redacted_file.clone(),
    })
}

/// What became of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reloaded {
    /// One sentence.
    done: String,
}

/// Load the routes file again
#[utoipa::path(
    post,
    path = "/admin/reload",
    operation_id = "reload",
    tag = "process",
    responses(
        (status = 200, description = "It is loaded", body = Reloaded),
        (
            status = 422,
            description = "All that is wrong with the file; nothing has changed",
            body = Refused,
        ),
        (status = 503, description = "It stops", body = Refused),
    )
)]
pub async fn reload(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Reloaded>, Failure> {
    let before = definition(&state.plan());
    let (done, answer) = oneshot::channel();
    let asked = state.server.reloads.send(ReloadRequest { done }).await;
    asked.map_err(|_| stopping())?;
    let done = answer.await.map_err(|_| stopping())?;
    let after = match &done {
        Ok(_) => definition(&state.plan()),
        Err(_) => "refused".to_owned(),
    };
    let act = audit::act("reload", caller.by(None), before, after);
    audit::record(&*state.store, act).await;
    let done = done.map_err(|problems| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, problems))?;
    Ok(Json(Reloaded { done }))
}
