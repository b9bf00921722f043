//! Decisions by a browser: buttons, what each would do, and the form that does it.

use crate::admin::decisions::action::Action;
use crate::admin::decisions::apply::{Asked, apply};
use crate::admin::http::auth::Caller;
use crate::admin::http::error::{Path, Query, Refused};
use crate::admin::http::html;
use crate::admin::results::gather::ResultsRequest;
use crate::admin::results::schema::{ExperimentResult, GroupResult, VerdictResult};
use crate::admin::state::AdminState;
use crate::admin::view::buttons::title;
use crate::config::plan::TokenRole;
use crate::stats::narrative::thousands;
use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::value::{Error as Unreadable, MapDeserializer};
use utoipa::{IntoParams, ToSchema};

#[derive(Template)]
#[template(path = "confirm.html")]
struct Confirm<'a> {
    experiment: &'a str,
    action: &'static str,
    title: String,
    effects: Vec<String>,
    verdict: &'a VerdictResult,
    doubt: Option<&'static str>,
    group: Option<&'a str>,
    form: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// For `promote`; left out, the one that has won.
    group: Option<String>,
}

/// Ask before a decision
///
/// Says what it would do, with the form that does it.
#[utoipa::path(
    get,
    path = "/admin/experiments/{experiment}/{action}",
    operation_id = "confirm",
    tag = "pages",
    params(
        ("experiment" = String, Path, description = "Its name"),
        ("action" = inline(Action), Path, description = "What is to be done"),
        Which,
    ),
    responses(
        (status = 200, description = "A form", content_type = "text/html", body = String),
        (status = 400, description = "More than one group", body = Refused),
        (
            status = 403,
            description = "The token may read only",
            content_type = "text/html",
            body = String,
        ),
        (
            status = 404,
            description = "There is no such experiment, action or group",
            content_type = "text/html",
            body = String,
        ),
        (
            status = 422,
            description = "No group has won yet, and none is named",
            content_type = "text/html",
            body = String,
        ),
        (
            status = 503,
            description = "The store does not answer",
            content_type = "text/html",
            body = String,
        ),
    )
)]
pub async fn ask(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path((name, action)): Path<(String, String)>,
    Query(which): Query<Which>,
) -> Response {
    let Some(action) = Action::named(&action) else {
        return html::message_page(StatusCode::NOT_FOUND, "There is no such action.");
    };
    if caller.role < TokenRole::Operate {
        return html::message_page(StatusCode::FORBIDDEN, "Your token may read only.");
    }
    let request = ResultsRequest {
        only: Some(&name),
        ..ResultsRequest::default()
    };
    let results = match state.results(request).await {
        Ok(results) => results,
        Err(error) => {
            let said = format!("The store does not answer: {error}");
            return html::message_page(StatusCode::SERVICE_UNAVAILABLE, &said);
        }
    };
    let Some(experiment) = results.experiments.first() else {
        return html::message_page(StatusCode::NOT_FOUND, "There is no such experiment.");
    };
    let group = which.group.as_deref().filter(|_| action == Action::Promote);
    let known = |group: &str| experiment.groups.iter().any(|it| it.name == group);
    if group.is_some_and(|group| !known(group)) {
        return html::message_page(StatusCode::NOT_FOUND, "There is no such group.");
    }
    let verdict = &experiment.verdict;
    let won = verdict
        .group
        .as_deref()
        .filter(|_| verdict.state == "winner");
    let group = group.or(won.filter(|_| action == Action::Promote));
    if action == Action::Promote && group.is_none() {
        let said = "No group has won yet: choose one on the results page.";
        return html::message_page(StatusCode::UNPROCESSABLE_ENTITY, said);
    }
    let doubt = (action == Action::Promote && won != group)
        .then_some("The verdict does not say that this group is better.");
    let confirm = Confirm {
        experiment: &experiment.name,
        action: action.name(),
        title: title(action, &experiment.name, group).1,
        effects: effects(action, experiment, group),
        verdict,
        doubt,
        group,
        form: caller.form(),
    };
    html::page_response(StatusCode::OK, confirm.render())
}

fn effects(action: Action, experiment: &ExperimentResult, group: Option<&str>) -> Vec<String> {
    let upstream = |named: &dyn Fn(&GroupResult) -> bool| {
        let group = experiment.groups.iter().find(|group| named(group));
        let upstream = group.and_then(|group| group.upstream.as_deref());
        upstream.map_or(String::new(), |upstream| format!(" (upstream {upstream})"))
    };
    let control = upstream(&|group| group.role == "control");
    let users: u64 = experiment.groups.iter().map(|group| group.users).sum();
    let stays = "What was counted stays, and nothing more is recorded until it is resumed.";
    let now = format!(
        "{} is {} now, with {} users.",
        experiment.name,
        experiment.status.replace('_', " "),
        thousands(users)
    );
    let then = match action {
        Action::Pause => format!("Everybody it matches gets control{control} for now. {stays}"),
        Action::Rollback => format!(
            "Everybody it matches gets control{control}: the other versions were not good. {stays}"
        ),
        Action::Promote => {
            let group = group.unwrap_or_default();
            let to = upstream(&|it| it.name == group);
            format!("Everybody it matches gets {group}{to}. {stays}")
        }
        Action::Resume => {
            "It splits again; users come back to the groups they were in, and are recorded."
                .to_owned()
        }
    };
    let when = "It takes effect at once here, and within two seconds at other replicas.";
    vec![now, then, when.to_owned()]
}

/// The form of a page that asks before a decision.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Filled {
    /// What forms of this session carry; who sends a token with it needs none.
    form: String,
    /// For `promote`.
    group: String,
    /// Why, for those who look later.
    reason: String,
}

/// `POST` of the form to the same path.
pub async fn take(
    state: &AdminState,
    caller: &Caller,
    name: &str,
    action: Action,
    form: &[u8],
) -> Response {
    let pairs = MapDeserializer::new(form_urlencoded::parse(form));
    let filled = match Filled::deserialize(pairs) {
        Ok(filled) => filled,
        Err(error) => return unreadable(&error),
    };
    if !caller.is_own_form(&filled.form) {
        return html::stale_form_page();
    }
    let written = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let (by, reason) = (caller.by(None), written(&filled.reason));
    let asked = Asked {
        action,
        group: written(&filled.group),
        by: &by,
        reason: reason.as_deref(),
    };
    match apply(state, name, asked).await {
        Ok(_) => {
            let back = format!("/admin/results#e-{name}");
            (StatusCode::SEE_OTHER, [(LOCATION, back)]).into_response()
        }
        Err(failure) => html::message_page(failure.status, &failure.error),
    }
}

fn unreadable(error: &Unreadable) -> Response {
    let said = format!("This form cannot be read: {error}.");
    html::message_page(StatusCode::BAD_REQUEST, &said)
}
