//! Decisions by a browser: the page that shows the effects of an action, and its form.

use crate::admin::decisions::action::Action;
use crate::admin::decisions::apply::{DecisionRequest, apply};
use crate::admin::format::thousands;
use crate::admin::http::auth::Caller;
use crate::admin::http::error::{Path, Query, Refused};
use crate::admin::http::html;
use crate::admin::results::gather::ResultsRequest;
use crate::admin::results::schema::{ExperimentResult, GroupResult, VerdictResult};
use crate::admin::state::AdminState;
use crate::admin::view::buttons::title;
use crate::config::plan::TokenRole;
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
    warning: Option<&'static str>,
    group: Option<&'a str>,
    form: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PromotedGroup {
    /// The group, for `promote` only; the winner of the verdict by default.
    group: Option<String>,
}

/// Confirm a decision
///
/// Returns a page that shows the effects of the action, with the form that applies it.
#[utoipa::path(
    get,
    path = "/admin/experiments/{experiment}/{action}",
    operation_id = "confirm",
    tag = "pages",
    params(
        ("experiment" = String, Path, description = "The name of the experiment"),
        ("action" = inline(Action), Path, description = "The action"),
        PromotedGroup,
    ),
    responses(
        (status = 200, description = "A page with the form", content_type = "text/html", body = String),
        (status = 400, description = "More than one group is named", body = Refused),
        (
            status = 403,
            description = "The token has role `read`",
            content_type = "text/html",
            body = String,
        ),
        (
            status = 404,
            description = "The experiment, action or group does not exist",
            content_type = "text/html",
            body = String,
        ),
        (
            status = 422,
            description = "No group is named, and none has won yet",
            content_type = "text/html",
            body = String,
        ),
        (
            status = 503,
            description = "The store is unavailable",
            content_type = "text/html",
            body = String,
        ),
    )
)]
pub(crate) async fn ask(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path((name, action)): Path<(String, String)>,
    Query(query): Query<PromotedGroup>,
) -> Response {
    let Some(action) = Action::named(&action) else {
        return html::message_page(StatusCode::NOT_FOUND, "This action does not exist.");
    };
    if caller.role < TokenRole::Operate {
        return html::message_page(
            StatusCode::FORBIDDEN,
            "Your token has role `read`, which cannot change an experiment.",
        );
    }
    let request = ResultsRequest {
        only: Some(&name),
        ..ResultsRequest::default()
    };
    let results = match state.results(request).await {
        Ok(results) => results,
        Err(error) => {
            let message = format!("The store is unavailable: {error}");
            return html::message_page(StatusCode::SERVICE_UNAVAILABLE, &message);
        }
    };
    let Some(experiment) = results.experiments.first() else {
        return html::message_page(StatusCode::NOT_FOUND, "This experiment does not exist.");
    };
    let group = query.group.as_deref().filter(|_| action == Action::Promote);
    let known = |group: &str| experiment.groups.iter().any(|it| it.name == group);
    if group.is_some_and(|group| !known(group)) {
        return html::message_page(StatusCode::NOT_FOUND, "This group does not exist.");
    }
    let verdict = &experiment.verdict;
    let won = verdict
        .group
        .as_deref()
        .filter(|_| verdict.state == "winner");
    let group = group.or(won.filter(|_| action == Action::Promote));
    if action == Action::Promote && group.is_none() {
        let message = "No group has won yet: choose one on the results page.";
        return html::message_page(StatusCode::UNPROCESSABLE_ENTITY, message);
    }
    let warning = (action == Action::Promote && won != group)
        .then_some("The verdict does not show that this group is better.");
    let confirm = Confirm {
        experiment: &experiment.name,
        action: action.name(),
        title: title(action, &experiment.name, group).1,
        effects: effects(action, experiment, group),
        verdict,
        warning,
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
    let stays = "All counts stay. Nothing more is recorded until the experiment is resumed.";
    let now = format!(
        "The experiment {} is {} and has {} users.",
        experiment.name,
        experiment.status.replace('_', " "),
        thousands(users)
    );
    let then = match action {
        Action::Pause => format!("All matching users get control{control} for now. {stays}"),
        Action::Rollback => format!(
            "All matching users get control{control}, because the other versions were not good. {stays}"
        ),
        Action::Promote => {
            let group = group.unwrap_or_default();
            let to = upstream(&|it| it.name == group);
            format!("All matching users get {group}{to}. {stays}")
        }
        Action::Resume => {
            "The experiment splits again. Users return to their groups and are recorded.".to_owned()
        }
    };
    let when =
        "The decision takes effect at once on this replica, and within two seconds on others.";
    vec![now, then, when.to_owned()]
}

/// The form of the confirmation page.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DecisionForm {
    /// The session's form token. Not needed with an `Authorization` header.
    form: String,
    /// The group, for `promote`.
    group: String,
    /// The reason, for the audit log.
    reason: String,
}

/// Applies a decision that a form posts, and redirects to the results page.
pub(crate) async fn take(
    state: &AdminState,
    caller: &Caller,
    name: &str,
    action: Action,
    form: &[u8],
) -> Response {
    let pairs = MapDeserializer::new(form_urlencoded::parse(form));
    let form = match DecisionForm::deserialize(pairs) {
        Ok(form) => form,
        Err(error) => return unreadable(&error),
    };
    if !caller.is_own_form(&form.form) {
        return html::stale_form_page();
    }
    let written = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let (by, reason) = (caller.by(None), written(&form.reason));
    let request = DecisionRequest {
        action,
        group: written(&form.group),
        by: &by,
        reason: reason.as_deref(),
    };
    match apply(state, name, request).await {
        Ok(_) => {
            let back = format!("/admin/results/{name}");
            (StatusCode::SEE_OTHER, [(LOCATION, back)]).into_response()
        }
        Err(failure) => html::message_page(failure.status, &failure.error),
    }
}

fn unreadable(error: &Unreadable) -> Response {
    let message = format!("This form is invalid: {error}.");
    html::message_page(StatusCode::BAD_REQUEST, &message)
}
