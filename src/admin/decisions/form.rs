//! Decisions by a browser: buttons, what each would do, and the form that does it.

use crate::admin::Door;
use crate::admin::decisions::api;
use crate::admin::decisions::api::Asked;
use crate::admin::decisions::decide::Action;
use crate::admin::http::auth::Caller;
use crate::admin::http::error::{Path, Query, Refused};
use crate::admin::results::gather::Wish;
use crate::admin::results::schema::{ExperimentResult, VerdictResult};
use crate::admin::view::advice;
use crate::admin::view::html;
use crate::config::plan::Role;
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

/// A button.
#[derive(Debug)]
pub struct Choice {
    /// Its place in the page.
    pub id: String,
    /// Where it leads.
    pub href: String,
    /// What is written on it.
    pub title: String,
    /// Whether this is what the results ask for.
    pub due: bool,
}

/// What this caller may do with an experiment as it stands.
pub fn choices(caller: &Caller, experiment: &ExperimentResult) -> Vec<Choice> {
    if caller.role < Role::Operate {
        return Vec::new();
    }
    let name = &experiment.name;
    let due = advice::due(experiment);
    let choice = |action: Action, group: Option<&str>| Choice {
        due: due == Some((action, group)),
        id: format!("{}-{name}-{}", action.name(), group.unwrap_or_default()),
        href: match group {
            Some(group) => format!("/admin/experiments/{name}/{}?group={group}", action.name()),
            None => format!("/admin/experiments/{name}/{}", action.name()),
        },
        title: title(action, name, group).0,
    };
    let mut choices = Vec::new();
    match experiment.status {
        "running" => choices.push(choice(Action::Pause, None)),
        "paused" | "promoted" | "rolled_back" => choices.push(choice(Action::Resume, None)),
        _ => return choices,
    }
    let promoted = experiment.winner.as_deref();
    let others = experiment.groups.iter().map(|group| &*group.name);
    let others = others.filter(|group| experiment.status != "promoted" || promoted != Some(group));
    choices.extend(others.map(|group| choice(Action::Promote, Some(group))));
    if experiment.status != "rolled_back" {
        choices.push(choice(Action::Rollback, None));
    }
    // What is due is found first.
    choices.sort_by_key(|choice| !choice.due);
    choices
}

/// What a button says, and what it says before it is done.
fn title(action: Action, experiment: &str, group: Option<&str>) -> (String, String) {
    let short = match (action, group) {
        (Action::Pause, _) => "Pause".to_owned(),
        (Action::Resume, _) => "Resume".to_owned(),
        (Action::Promote, Some(group)) => format!("Promote {group}"),
        (Action::Promote, None) => "Promote".to_owned(),
        (Action::Rollback, _) => "Roll back".to_owned(),
    };
    let long = format!("{short}: {experiment}");
    (short, long)
}

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
    State(door): State<Door>,
    Extension(caller): Extension<Caller>,
    Path((name, action)): Path<(String, String)>,
    Query(which): Query<Which>,
) -> Response {
    let Some(action) = Action::named(&action) else {
        return html::told(StatusCode::NOT_FOUND, "There is no such action.");
    };
    if caller.role < Role::Operate {
        return html::told(StatusCode::FORBIDDEN, "Your token may read only.");
    }
    let wish = Wish {
        only: Some(&name),
        ..Wish::default()
    };
    let results = match door.results(wish).await {
        Ok(results) => results,
        Err(error) => {
            let said = format!("The store does not answer: {error}");
            return html::told(StatusCode::SERVICE_UNAVAILABLE, &said);
        }
    };
    let Some(experiment) = results.experiments.first() else {
        return html::told(StatusCode::NOT_FOUND, "There is no such experiment.");
    };
    let group = which.group.as_deref().filter(|_| action == Action::Promote);
    let known = |group: &str| experiment.groups.iter().any(|it| it.name == group);
    if group.is_some_and(|group| !known(group)) {
        return html::told(StatusCode::NOT_FOUND, "There is no such group.");
    }
    let verdict = &experiment.verdict;
    let won = verdict
        .group
        .as_deref()
        .filter(|_| verdict.state == "winner");
    let group = group.or(won.filter(|_| action == Action::Promote));
    if action == Action::Promote && group.is_none() {
        let said = "No group has won yet: choose one on the results page.";
        return html::told(StatusCode::UNPROCESSABLE_ENTITY, said);
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
    html::answer(StatusCode::OK, confirm.render())
}

fn effects(action: Action, experiment: &ExperimentResult, group: Option<&str>) -> Vec<String> {
    let upstream = |named: &dyn Fn(&crate::admin::results::schema::GroupResult) -> bool| {
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
    door: &Door,
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
        return html::stale();
    }
    let written = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let (by, reason) = (caller.by(None), written(&filled.reason));
    let asked = Asked {
        action,
        group: written(&filled.group),
        by: &by,
        reason: reason.as_deref(),
    };
    match api::act(door, name, asked).await {
        Ok(_) => {
            let back = format!("/admin/results#e-{name}");
            (StatusCode::SEE_OTHER, [(LOCATION, back)]).into_response()
        }
        Err(failure) => html::told(failure.status, &failure.error),
    }
}

fn unreadable(error: &Unreadable) -> Response {
    let said = format!("This form cannot be read: {error}.");
    html::told(StatusCode::BAD_REQUEST, &said)
}
