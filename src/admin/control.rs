//! Pause, resume, promote, roll back: decisions about experiments, kept in the ledger for all
//! replicas, with who decided what when.

use super::caller::Caller;
use super::confirm;
use super::results::Wish;
use super::{Door, Failure};
use crate::config::plan::Plan;
use crate::ledger::controls::{Act, Control, Lifecycle};
use crate::ledger::{Ledger, LedgerError};
use axum::body::Bytes;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a browser says of a form.
const FORM: &[u8] = b"application/x-www-form-urlencoded";
/// How long this process is given to go by a decision that it has made.
const EFFECT_WITHIN: Duration = Duration::from_secs(5);

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Control for everybody, for now.
    Pause,
    /// Split again.
    Resume,
    /// One group's version for everybody.
    Promote,
    /// Control for everybody, for good.
    Rollback,
}

impl Action {
    /// As paths and acts name it.
    pub fn name(self) -> &'static str {
        match self {
            Action::Pause => "pause",
            Action::Resume => "resume",
            Action::Promote => "promote",
            Action::Rollback => "rollback",
        }
    }

    /// The action of this name.
    pub fn named(name: &str) -> Option<Action> {
        let all = [
            Action::Pause,
            Action::Resume,
            Action::Promote,
            Action::Rollback,
        ];
        all.into_iter().find(|action| action.name() == name)
    }

    fn state(self) -> Lifecycle {
        match self {
            Action::Pause => Lifecycle::Paused,
            Action::Resume => Lifecycle::Running,
            Action::Promote => Lifecycle::Promoted,
            Action::Rollback => Lifecycle::RolledBack,
        }
    }
}

/// What a decision says beyond its name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    group: Option<String>,
    by: Option<String>,
    reason: Option<String>,
}

/// A decision, and who makes it.
#[derive(Debug)]
pub struct Decision<'a> {
    /// What is to be done.
    pub action: Action,
    /// With which group; for `promote` only.
    pub group: Option<&'a str>,
    /// Who decides.
    pub by: &'a str,
    /// Why.
    pub reason: Option<&'a str>,
}

/// Why a decision was not taken.
#[derive(Debug)]
pub enum Undecided {
    /// It cannot be, as a sentence for who asked.
    Refused(StatusCode, String),
    /// The ledger did not answer: nothing has changed.
    Away(LedgerError),
}

/// What was done.
#[derive(Debug, Serialize)]
pub struct Done {
    experiment: String,
    status: &'static str,
    group: Option<String>,
    from: String,
    to: String,
    changed: bool,
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

/// `POST /admin/experiments/{experiment}/{action}`: JSON from programs, a form from pages.
pub async fn take(
    State(door): State<Door>,
    Extension(caller): Extension<Caller>,
    Path((name, action)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Failure> {
    let Some(action) = Action::named(&action) else {
        let hint = format!("no action {action:?}; there are pause, resume, promote and rollback");
        return Err(Failure::new(StatusCode::NOT_FOUND, hint));
    };
    let unread = |error: &dyn std::fmt::Display| {
        let hint = format!("the body is {{\"group\", \"by\", \"reason\"}} as JSON: {error}");
        Failure::new(StatusCode::BAD_REQUEST, hint)
    };
    let kind = request.headers().get(CONTENT_TYPE).cloned();
    let body = Bytes::from_request(request, &door).await;
    let body = body.map_err(|error| unread(&error))?;
    let of_form = |kind: HeaderValue| kind.as_bytes().starts_with(FORM);
    // curl says so of JSON, too, unless told otherwise.
    if kind.is_some_and(of_form) && !body.is_empty() && !body.starts_with(b"{") {
        return Ok(confirm::take(&door, &caller, &name, action, &body).await);
    }
    let said: Said = match body.is_empty() {
        true => Said::default(),
        false => serde_json::from_slice(&body).map_err(|error| unread(&error))?,
    };
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
    if action == Action::Promote && group.is_none() {
        group = Some(won(door, name).await?);
    }
    let decision = Decision {
        action,
        group: group.as_deref(),
        by,
        reason,
    };
    let plan = door.plan();
    let done = match decide(&plan, &*door.ledger, name, &decision).await {
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

/// The group that the verdict says has won.
async fn won(door: &Door, name: &str) -> Result<String, Failure> {
    let wish = Wish {
        only: Some(name),
        ..Wish::default()
    };
    let results = door.results(wish).await?;
    let verdict = results.experiments.first().map(|it| &it.verdict);
    let group = verdict
        .filter(|it| it.state == "winner")
        .and_then(|it| it.group.clone());
    group.ok_or_else(|| {
        let hint = "no group has won yet; say which one: {\"group\": \"NAME\"}";
        Failure::new(StatusCode::UNPROCESSABLE_ENTITY, hint)
    })
}

/// Decides about an experiment, and keeps who did. What is so already changes nothing.
pub async fn decide(
    plan: &Plan,
    ledger: &dyn Ledger,
    name: &str,
    decision: &Decision<'_>,
) -> Result<Done, Undecided> {
    let refused = |status, sentence: String| Err(Undecided::Refused(status, sentence));
    let Some(index) = plan.experiment_named(name) else {
        return refused(
            StatusCode::NOT_FOUND,
            format!("there is no experiment {name:?}"),
        );
    };
    let experiment = plan.experiment(index);
    if experiment.ended_by_file {
        return refused(
            StatusCode::CONFLICT,
            "the file says who has won: take `winner` out of it first".to_owned(),
        );
    }
    let state = decision.action.state();
    let group = match (decision.action, decision.group) {
        (Action::Promote, Some(group)) => {
            if !experiment.groups.iter().any(|it| &*it.name == group) {
                return refused(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    format!("{name} has no group {group:?}"),
                );
            }
            Some(group.to_owned())
        }
        (Action::Promote, None) => {
            return refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                "say which group".to_owned(),
            );
        }
        (Action::Resume, None) => None,
        (Action::Pause | Action::Rollback, None) => {
            Some(experiment.groups[experiment.control.0].name.to_string())
        }
        (_, Some(_)) => {
            return refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                "only promote takes a group".to_owned(),
            );
        }
    };
    let controls = ledger.controls().await.map_err(Undecided::Away)?;
    let before = controls.get(name);
    let stands = before.filter(|control| control.salt == *experiment.salt);
    let same = match stands {
        None => state == Lifecycle::Running,
        Some(stands) => stands.state == state && stands.group == group,
    };
    let before_ms = before.map_or(0, |control| control.at_ms);
    let next = Control {
        state,
        group: group.clone(),
        salt: experiment.salt.to_string(),
        at_ms: now_ms().max(before_ms + 1),
        by: decision.by.to_owned(),
    };
    let (from, to) = (stood(stands), stood(Some(&next)));
    let done = Done {
        experiment: name.to_owned(),
        status: status(state),
        group,
        from: from.clone(),
        to: to.clone(),
        changed: !same,
    };
    if same {
        return Ok(done);
    }
    let act = Act {
        experiment: name.to_owned(),
        action: decision.action.name().to_owned(),
        from,
        to,
        at_ms: next.at_ms,
        by: decision.by.to_owned(),
        reason: decision.reason.map(str::to_owned),
    };
    let taken = ledger.control(before_ms, &next, &act).await;
    if !taken.map_err(Undecided::Away)? {
        return refused(
            StatusCode::CONFLICT,
            "somebody else decided in the same moment: look, and decide again".to_owned(),
        );
    }
    tracing::info!(
        "{name}: {} by {}: {} -> {}",
        act.action,
        act.by,
        act.from,
        act.to
    );
    Ok(done)
}

/// `GET /admin/acts`: what was decided, the newest first.
pub async fn acts(State(door): State<Door>) -> Result<Response, Failure> {
    let acts = door.ledger.acts(1000).await?;
    Ok(Json(serde_json::json!({ "acts": acts })).into_response())
}

fn stood(control: Option<&Control>) -> String {
    match control {
        None => "running".to_owned(),
        Some(Control {
            state: Lifecycle::Promoted,
            group: Some(group),
            ..
        }) => format!("promoted {group}"),
        Some(control) => status(control.state).to_owned(),
    }
}

fn status(state: Lifecycle) -> &'static str {
    use crate::experiment::Lifecycle as Own;
    match state {
        Lifecycle::Running => Own::Running.name(),
        Lifecycle::Paused => Own::Paused.name(),
        Lifecycle::Promoted => Own::Promoted.name(),
        Lifecycle::RolledBack => Own::RolledBack.name(),
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_millis() as u64)
}
