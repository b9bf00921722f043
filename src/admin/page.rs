//! The results as a page for a browser. The templates escape what they are given.

use super::caller::Caller;
use super::chart::Chart;
use super::confirm::{self, Choice};
use super::plot::{Plot, ROW, WIDTH};
use super::said;
use super::shape::{
    ExperimentResult, GuardrailGroup, GuardrailResult, MetricGroup, MetricResult, PlanningResult,
    Results,
};
use super::text;
use askama::Template;
use axum::http::StatusCode;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};

/// Nothing of another host, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

#[derive(Template)]
#[template(path = "results.html")]
struct Page<'a> {
    results: &'a Results,
    caller: &'a Caller,
}

impl Page<'_> {
    fn form(&self) -> String {
        self.caller.form()
    }

    fn rate(&self, metric: &MetricResult, group: &MetricGroup) -> String {
        text::rate(metric, group)
    }

    fn lift(&self, group: &MetricGroup) -> String {
        text::lift(group)
    }

    fn alarms(&self, experiment: &ExperimentResult) -> Vec<String> {
        said::alarms(experiment)
    }

    fn acts(&self, experiment: &ExperimentResult) -> Vec<Choice> {
        confirm::choices(self.caller, experiment)
    }

    fn health(
        &self,
        results: &Results,
        experiment: &ExperimentResult,
    ) -> Vec<(&'static str, String, bool)> {
        said::health(results, experiment)
    }

    fn is_unhealthy(&self, results: &Results, experiment: &ExperimentResult) -> bool {
        self.health(results, experiment)
            .iter()
            .any(|(_, _, bad)| *bad)
    }

    fn planning(&self, planning: &PlanningResult) -> String {
        said::planning(planning)
    }

    fn bound(&self, guardrail: &GuardrailResult) -> String {
        said::bound(guardrail)
    }

    fn harm(&self, group: &GuardrailGroup) -> String {
        said::harm(group)
    }

    fn fixed(&self, group: &MetricGroup) -> String {
        said::fixed(group.fixed.as_ref())
    }

    fn bayesian(&self, metric: &MetricResult) -> Vec<String> {
        said::bayesian(metric)
    }

    fn plot(&self, metric: &MetricResult) -> Option<Plot> {
        Plot::of(metric)
    }

    fn chart(&self, metric: &MetricResult) -> Option<Chart> {
        Chart::of(metric)
    }

    fn milliseconds(&self, ms: &Option<f64>) -> String {
        ms.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"))
    }
}

#[derive(Template)]
#[template(path = "told.html")]
struct Told<'a> {
    told: &'a str,
    /// Whether it may be had by and by: the page waits for it.
    waits: bool,
}

/// The page.
pub fn render(results: &Results, caller: &Caller) -> Result<String, askama::Error> {
    Page { results, caller }.render()
}

/// A page that says one thing, with the way back.
pub fn told(status: StatusCode, told: &str) -> Response {
    let waits = status == StatusCode::SERVICE_UNAVAILABLE;
    answer(status, Told { told, waits }.render())
}

/// What is said of a form that is not of the session it comes with.
pub fn stale() -> Response {
    let said = "This form is of another session: go back, load the page again, and send it again.";
    told(StatusCode::FORBIDDEN, said)
}

/// An answer with a page, and with what browsers are told of pages here.
pub fn answer(status: StatusCode, page: Result<String, askama::Error>) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // A form that says nothing of where it comes from would be taken for a stranger's.
        (REFERRER_POLICY, "same-origin"),
    ];
    match page {
        Ok(page) => (status, headers, page).into_response(),
        Err(error) => {
            tracing::error!("a page cannot be made: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// How pages look
#[utoipa::path(
    get,
    path = "/admin/page.css",
    operation_id = "style",
    tag = "pages",
    responses((
        status = 200,
        description = "For pages here",
        content_type = "text/css",
        body = String,
    ))
)]
pub async fn style() -> Response {
    asset(
        "text/css; charset=utf-8",
        include_str!("../../templates/page.css"),
    )
}

/// What keeps pages fresh
#[utoipa::path(
    get,
    path = "/admin/page.js",
    operation_id = "script",
    tag = "pages",
    responses((
        status = 200,
        description = "For pages here",
        content_type = "text/javascript",
        body = String,
    ))
)]
pub async fn script() -> Response {
    asset(
        "text/javascript; charset=utf-8",
        include_str!("../../templates/page.js"),
    )
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}
