//! The admin door: results, the page, assignments, health, reload.
//!
//! It listens on its own address, loopback unless told otherwise. With tokens, every request but
//! the health checks must carry one (`Authorization: Bearer …`), or the session of a browser that
//! has shown one.

pub mod assignments;
mod bars;
mod caller;
mod chart;
mod confirm;
mod control;
pub mod events;
mod experiment;
pub mod export;
mod guardrail;
mod live;
mod login;
pub mod look;
mod metric;
mod metrics;
mod page;
mod planning;
mod plot;
mod present;
mod question;
mod recent;
pub mod results;
mod running;
mod said;
mod session;
pub mod shape;
mod sizes;
mod text;
mod trend;

use crate::config::plan::Plan;
use crate::experiment::UserId;
use crate::ledger::{Ledger, LedgerError};
use crate::rate::Rates;
use crate::vitals::Vitals;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use look::Looks;
use results::Wish;
use serde::Deserialize;
use serde_json::json;
use shape::Results;
use std::net::{SocketAddr, TcpListener};
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
    rates: Arc<Rates>,
    house: House,
    stopping: watch::Receiver<bool>,
    /// Proves that a form is from here, where nobody is asked for a token.
    key: [u8; 32],
}

impl Door {
    /// A door to this house; `replica` is its name among those that share its ledger. Fails when
    /// the system has no random numbers.
    pub fn new(
        replica: String,
        looks: Arc<Looks>,
        plan: watch::Receiver<Arc<Plan>>,
        ledger: Arc<dyn Ledger>,
        (vitals, rates): (Arc<Vitals>, Arc<Rates>),
        house: House,
        stopping: watch::Receiver<bool>,
    ) -> Result<Door, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Door {
            replica: replica.into(),
            looks,
            plan,
            ledger,
            vitals,
            rates,
            house,
            stopping,
            key,
        })
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
        .route("/admin/results", get(present::all))
        .route("/admin/results/live", get(live::live))
        .route("/admin/results/{experiment}", get(present::one))
        .route("/admin/assignments", get(assignments_of).delete(forget))
        .route("/admin/export/{experiment}", get(export::export))
        .route(
            "/admin/events",
            post(events::take).layer(DefaultBodyLimit::max(events::BYTES_MAX)),
        )
        .route(
            "/admin/experiments/{experiment}/{action}",
            get(confirm::ask).post(control::take),
        )
        .route(caller::LOGOUT, post(login::leave))
        .route("/admin/acts", get(control::acts))
        .route("/admin/metrics", get(metrics::metrics))
        .route("/admin/reload", post(reload))
        .layer(middleware::from_fn_with_state(door.clone(), caller::admit));
    let open = Router::new()
        .route("/admin/healthz", get(|| async { "ok\n" }))
        .route("/admin/readyz", get(ready))
        .route("/admin/login", get(login::ask).post(login::take))
        .route("/admin/page.css", get(page::style))
        .route("/admin/page.js", get(page::script))
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
    let door = guarded.merge(open).with_state(door);
    let door = door.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, door).await
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

async fn ready(State(door): State<Door>) -> Response {
    match *door.stopping.borrow() {
        true => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "stopping").into_response(),
        false => "ready\n".into_response(),
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
