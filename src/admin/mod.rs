//! The admin door: results, the page, assignments, health, reload.
//!
//! It listens on its own address, loopback unless told otherwise. With a token, every request
//! but the health checks must carry it (`Authorization: Bearer …`).

pub mod assignments;
mod control;
pub mod events;
mod experiment;
pub mod export;
mod guardrail;
pub mod look;
mod metric;
mod metrics;
mod page;
mod planning;
mod plot;
mod question;
mod recent;
pub mod results;
mod running;
mod said;
pub mod shape;
mod sizes;
mod text;

use crate::config::plan::Plan;
use crate::experiment::UserId;
use crate::ledger::{Ledger, LedgerError};
use crate::vitals::Vitals;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use look::Looks;
use metric::View;
use results::Wish;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use shape::Results;
use std::net::TcpListener;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Asks the house to load its file again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// What became of it: what was done, or all that is wrong with the file.
    pub done: oneshot::Sender<Result<String, String>>,
}

/// Whom the door asks to do what it cannot do itself.
#[derive(Clone, Debug)]
pub struct House {
    /// Loads the file again.
    pub reloads: mpsc::Sender<ReloadRequest>,
    /// Journals events.
    pub events: mpsc::Sender<events::EventsRequest>,
    /// Goes by what was decided just now.
    pub decided: Arc<Notify>,
}

/// What the door knows.
#[derive(Clone)]
pub struct Door {
    replica: Arc<str>,
    looks: Arc<Looks>,
    plan: watch::Receiver<Arc<Plan>>,
    ledger: Arc<dyn Ledger>,
    vitals: Arc<Vitals>,
    house: House,
    stopping: watch::Receiver<bool>,
}

impl Door {
    /// A door to this house; `replica` is its name among those that share its ledger.
    pub fn new(
        replica: String,
        looks: Arc<Looks>,
        plan: watch::Receiver<Arc<Plan>>,
        ledger: Arc<dyn Ledger>,
        vitals: Arc<Vitals>,
        house: House,
        stopping: watch::Receiver<bool>,
    ) -> Door {
        Door {
            replica: replica.into(),
            looks,
            plan,
            ledger,
            vitals,
            house,
            stopping,
        }
    }

    async fn results(&self, wish: Wish<'_>) -> Result<Results, LedgerError> {
        let (plan, replica) = (self.plan(), &self.replica);
        let (ledger, vitals) = (&*self.ledger, &*self.vitals);
        results::gather(&plan, ledger, &self.looks, vitals, replica, wish).await
    }

    fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.borrow())
    }
}

/// Serves the door until its task is dropped.
pub async fn serve(door: Door, listener: TcpListener) -> std::io::Result<()> {
    let guarded = Router::new()
        .route("/admin/results", get(all_results))
        .route("/admin/results/{experiment}", get(one_result))
        .route("/admin/assignments", get(assignments_of).delete(forget))
        .route("/admin/export/{experiment}", get(export::export))
        .route(
            "/admin/events",
            post(events::take).layer(DefaultBodyLimit::max(events::BYTES_MAX)),
        )
        .route(
            "/admin/experiments/{experiment}/{action}",
            post(control::take),
        )
        .route("/admin/acts", get(control::acts))
        .route("/admin/metrics", get(metrics::metrics))
        .route("/admin/reload", post(reload))
        .layer(middleware::from_fn_with_state(door.clone(), admit));
    let open = Router::new()
        .route("/admin/healthz", get(|| async { "ok\n" }))
        .route("/admin/readyz", get(ready))
        .route(
            "/",
            get(|| async { axum::response::Redirect::temporary("/admin/results") }),
        )
        .route(
            "/admin",
            get(|| async { axum::response::Redirect::temporary("/admin/results") }),
        )
        .fallback(|| async {
            Failure::new(StatusCode::NOT_FOUND, "no such path; try /admin/results")
        });
    let listener = tokio::net::TcpListener::from_std(listener)?;
    axum::serve(listener, guarded.merge(open).with_state(door)).await
}

/// Something that was not to be had, said as JSON.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    error: String,
}

impl Failure {
    fn new(status: StatusCode, error: impl Into<String>) -> Failure {
        Failure {
            status,
            error: error.into(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.error }))).into_response()
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Failure {
        let error = format!(
            "the store does not answer: {}",
            crate::ledger::chain(&error)
        );
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

/// Lets a request in that carries the token, where one is asked for, and that came to this door
/// by its own name: a page elsewhere must not reach a loopback door through the browser.
async fn admit(State(door): State<Door>, request: Request, next: Next) -> Response {
    let plan = door.plan();
    let Some(token) = &plan.admin.token else {
        let foreign =
            request.method() != axum::http::Method::GET && request.headers().contains_key("origin");
        return match foreign {
            true => Failure::new(
                StatusCode::FORBIDDEN,
                "a page of another site must not operate this door",
            )
            .into_response(),
            false => next.run(request).await,
        };
    };
    let brought = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    // Digests are compared: how long that takes says nothing of the token.
    let same =
        brought.is_some_and(|brought| Sha256::digest(brought) == Sha256::digest(token.reveal()));
    if same {
        return next.run(request).await;
    }
    let hint = "send the token of `admin.token`: Authorization: Bearer TOKEN";
    let mut refused = Failure::new(StatusCode::UNAUTHORIZED, hint).into_response();
    refused.headers_mut().insert(
        WWW_AUTHENTICATE,
        axum::http::HeaderValue::from_static("Bearer"),
    );
    refused
}

async fn ready(State(door): State<Door>) -> Response {
    match *door.stopping.borrow() {
        true => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "stopping").into_response(),
        false => "ready\n".into_response(),
    }
}

#[derive(Debug, Deserialize)]
struct Form {
    format: Option<String>,
    view: Option<String>,
}

impl Form {
    fn view(&self) -> Result<View, Failure> {
        match self.view.as_deref() {
            None | Some("any_look") => Ok(View::AnyLook),
            Some("fixed") => Ok(View::Fixed),
            Some(other) => Err(Failure::new(
                StatusCode::BAD_REQUEST,
                format!("no view {other:?}; there are any_look and fixed"),
            )),
        }
    }
}

async fn all_results(
    State(door): State<Door>,
    Query(form): Query<Form>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let wish = Wish {
        only: None,
        view: form.view()?,
    };
    let results = door.results(wish).await?;
    present(&results, form, &headers)
}

async fn one_result(
    State(door): State<Door>,
    Path(name): Path<String>,
    Query(form): Query<Form>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let wish = Wish {
        only: Some(&name),
        view: form.view()?,
    };
    let results = door.results(wish).await?;
    if results.experiments.is_empty() {
        return Err(Failure::new(
            StatusCode::NOT_FOUND,
            format!("there is no experiment {name:?}"),
        ));
    }
    present(&results, form, &headers)
}

fn present(results: &Results, form: Form, headers: &HeaderMap) -> Result<Response, Failure> {
    let wants_page = headers.get(ACCEPT).is_some_and(|accept| {
        accept
            .as_bytes()
            .windows(9)
            .any(|part| part == b"text/html")
    });
    let format = form
        .format
        .unwrap_or_else(|| if wants_page { "html" } else { "json" }.to_owned());
    let fresh = (CACHE_CONTROL, "no-store");
    match &*format {
        "json" => Ok(([fresh], Json(results)).into_response()),
        "text" => Ok((
            [fresh, (CONTENT_TYPE, "text/plain; charset=utf-8")],
            text::table(results),
        )
            .into_response()),
        "csv" => Ok((
            [fresh, (CONTENT_TYPE, "text/csv; charset=utf-8")],
            text::csv(results),
        )
            .into_response()),
        "html" => {
            let page = page::render(results);
            let page = page.map_err(|error| {
                Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            })?;
            let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
            let html = (CONTENT_TYPE, "text/html; charset=utf-8");
            Ok(([fresh, html, (CONTENT_SECURITY_POLICY, policy)], page).into_response())
        }
        other => Err(Failure::new(
            StatusCode::BAD_REQUEST,
            format!("no format {other:?}; there are json, csv, text and html"),
        )),
    }
}

#[derive(Debug, Deserialize)]
struct WhichUser {
    user: Option<String>,
}

impl WhichUser {
    fn user(self) -> Result<String, Failure> {
        let user = self.user.filter(|user| !user.is_empty());
        user.ok_or_else(|| {
            Failure::new(
                StatusCode::BAD_REQUEST,
                "say which user: /admin/assignments?user=ID",
            )
        })
    }
}

async fn assignments_of(
    State(door): State<Door>,
    Query(which): Query<WhichUser>,
) -> Result<Response, Failure> {
    let user = which.user()?;
    let plan = door.plan();
    let kept = UserId::new(user.as_bytes()).map(|user| plan.identity.keep.of(user));
    let mut explained = assignments::explain(&plan, user.as_bytes());
    for assignment in &mut explained.experiments {
        let recorded = match &kept {
            Some(kept) => {
                door.ledger
                    .user(&assignment.name, kept.id().as_bytes())
                    .await?
            }
            None => None,
        };
        assignment.recorded = recorded.map(Into::into);
    }
    Ok(Json(explained).into_response())
}

/// Deletes what the store has of a user.
async fn forget(
    State(door): State<Door>,
    Query(which): Query<WhichUser>,
) -> Result<Response, Failure> {
    let (user, plan) = (which.user()?, door.plan());
    let mut forgotten = Vec::new();
    if let Some(user) = UserId::new(user.as_bytes()) {
        let kept = plan.identity.keep.of(user);
        for experiment in door.ledger.experiments().await? {
            if door
                .ledger
                .forget_user(&experiment, kept.id().as_bytes())
                .await?
            {
                forgotten.push(experiment);
            }
        }
    }
    Ok(Json(json!({ "forgotten": forgotten })).into_response())
}

async fn reload(State(door): State<Door>) -> Result<Response, Failure> {
    let (done, answer) = oneshot::channel();
    let gone = |_| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "stopping");
    door.house
        .reloads
        .send(ReloadRequest { done })
        .await
        .map_err(|error| gone(error.0.done.is_closed()))?;
    let done = answer.await.map_err(|_| gone(true))?;
    match done {
        Ok(what) => Ok(Json(json!({ "done": what })).into_response()),
        Err(problems) => Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, problems)),
    }
}
