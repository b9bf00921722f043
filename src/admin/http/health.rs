//! Liveness, readiness, the loaded configuration and its reload.

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

/// Liveness
#[utoipa::path(
    get,
    path = "/admin/healthz",
    operation_id = "healthz",
    tag = "process",
    responses((status = 200, description = "`ok`", body = String))
)]
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// Readiness
#[utoipa::path(
    get,
    path = "/admin/readyz",
    operation_id = "readyz",
    tag = "process",
    responses(
        (
            status = 200,
            description = "`ready`. Each further line is a problem that does not stop requests",
            body = String,
        ),
        (status = 503, description = "The process is stopping", body = Refused),
    )
)]
pub(crate) async fn ready(State(state): State<AdminState>) -> Result<String, Failure> {
    if state.phase.now().is_stopping() {
        return Err(stopping());
    }
    let problems = state.telemetry.problems.all().into_iter();
    let lines = std::iter::once("ready".to_owned()).chain(problems);
    Ok(lines.map(|line| line + "\n").collect())
}

/// Liveness, on the health listener
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "healthz_short",
    tag = "process",
    responses((status = 200, description = "`ok`", body = String))
)]
pub(crate) async fn live_short() -> &'static str {
    live().await
}

/// Readiness, on the health listener
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz_short",
    tag = "process",
    responses(
        (status = 200, description = "`ready`", body = String),
        (status = 503, description = "The process is stopping", body = Refused),
    )
)]
pub(crate) async fn ready_short(state: State<AdminState>) -> Result<String, Failure> {
    ready(state).await
}

/// The loaded configuration.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Config {
    /// A digest of the meaning of the file. Replicas of one store with equivalent files have the same
    /// digest.
    digest: String,
    /// The routes file as it is written, without its secrets. Decisions (`/admin/acts`) take precedence
    /// over it.
    config: serde_json::Value,
    /// What the caller may do: `read` or `operate`.
    role: &'static str,
}

/// Show the loaded routes file
///
/// The file as it was last loaded; a later change that is invalid is not shown. Secrets are hidden. A
/// reference to a secret (`${NAME}`, `file:PATH`) is shown.
#[utoipa::path(
    get,
    path = "/admin/config",
    operation_id = "config",
    tag = "process",
    responses((status = 200, description = "The configuration", body = Config))
)]
pub(crate) async fn config(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
) -> Json<Config> {
    let plan = state.plan();
    // Keyed, so that a reader of the digest cannot guess secrets of the file with it.
    let keys = &plan.admin.session_keys;
    let tag = keys.sign(&[b"config", &plan.digest.to_le_bytes()]);
    let digest = tag[..8].iter().map(|byte| format!("{byte:02x}"));
    Json(Config {
        digest: digest.collect(),
        config: plan.redacted_file.clone(),
        role: caller.role.name(),
    })
}

/// The outcome of a reload.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reloaded {
    /// A message for people.
    done: String,
}

/// Reload the routes file
#[utoipa::path(
    post,
    path = "/admin/reload",
    operation_id = "reload",
    tag = "process",
    responses(
        (status = 200, description = "The file is loaded", body = Reloaded),
        (
            status = 422,
            description = "The file is invalid, with all problems; nothing has changed",
            body = Refused,
        ),
        (status = 503, description = "The process is stopping", body = Refused),
    )
)]
pub(crate) async fn reload(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Reloaded>, Failure> {
    let before = definition(&state.plan());
    let (done, outcome) = oneshot::channel();
    let by = caller.by(None);
    let request = ReloadRequest { by, done };
    let sent = state.server.reloads.send(request).await;
    sent.map_err(|_| stopping())?;
    let done = outcome.await.map_err(|_| stopping())?;
    let after = match &done {
        Ok(_) => definition(&state.plan()),
        Err(_) => "refused".to_owned(),
    };
    let mut entry = audit::entry("reload", caller.by(None), before, after);
    let refused = done
        .as_ref()
        .err()
        .and_then(|problems| problems.lines().next());
    entry.reason = refused.map(str::to_owned);
    audit::record(&*state.store, entry).await;
    let done = done.map_err(|problems| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, problems))?;
    Ok(Json(Reloaded { done }))
}
