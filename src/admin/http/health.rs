//! Whether this process is well, and its file anew.

use crate::admin::decisions::decide;
use crate::admin::http::auth::Caller;
use crate::admin::http::error::{Failure, Refused};
use crate::admin::{Door, ReloadRequest};
use crate::config::declare::definition;
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
pub async fn ready(State(door): State<Door>) -> Result<String, Failure> {
    if *door.stopping.borrow() {
        return Err(stopping());
    }
    let problems = door.telemetry.problems.all().into_iter();
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
pub async fn ready_short(door: State<Door>) -> Result<String, Failure> {
    ready(door).await
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
pub async fn config(State(door): State<Door>) -> Json<Config> {
    let plan = door.plan();
    // Keyed, so that nobody can try secrets of the file against it.
    let keys = &plan.admin.session_keys;
    let tag = keys.sign(&[b"config", &plan.digest.to_le_bytes()]);
    let digest = tag[..8].iter().map(|byte| format!("{byte:02x}"));
    Json(Config {
        digest: digest.collect(),
        config: plan.shown.clone(),
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
    State(door): State<Door>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Reloaded>, Failure> {
    let before = definition(&door.plan());
    let (done, answer) = oneshot::channel();
    let asked = door.house.reloads.send(ReloadRequest { done }).await;
    asked.map_err(|_| stopping())?;
    let done = answer.await.map_err(|_| stopping())?;
    let after = match &done {
        Ok(_) => definition(&door.plan()),
        Err(_) => "refused".to_owned(),
    };
    let act = decide::act("reload", &caller, before, after);
    decide::note(&*door.store, act).await;
    let done = done.map_err(|problems| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, problems))?;
    Ok(Json(Reloaded { done }))
}

/// What is said of what can no longer be done.
pub fn stopping() -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "stopping")
}
