//! The results as a page for a browser. The templates escape what they are given.

use crate::admin::decisions::form;
use crate::admin::decisions::form::Choice;
use crate::admin::format;
use crate::admin::http::auth::Caller;
use crate::admin::http::upstreams::UpstreamReport;
use crate::admin::results::schema::{
    ExperimentResult, GroupResult, GuardrailGroup, GuardrailResult, MetricGroup, MetricResult,
    Results,
};
use crate::admin::view::advice;
use crate::admin::view::chart::Chart;
use crate::admin::view::interval_plot::{Plot, WIDTH};
use crate::admin::view::narrative;
use crate::admin::view::table;
use crate::stats::narrative::thousands;
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
    upstreams: &'a [UpstreamReport],
}

impl Page<'_> {
    /// Of a single experiment its verdict: it is what a tab in the background shows.
    fn title(&self) -> String {
        match &self.results.experiments[..] {
            [one] => format!("{}: {} - watershed", one.name, self.state(one)),
            _ => "watershed results".to_owned(),
        }
    }

    fn form(&self) -> String {
        self.caller.form()
    }

    fn state(&self, experiment: &ExperimentResult) -> String {
        let verdict = &experiment.verdict;
        match (verdict.state, &verdict.group) {
            ("winner" | "loser", Some(group)) => format!("{}: {group}", verdict.state),
            (state, _) => state.replace('_', " "),
        }
    }

    fn status(&self, experiment: &ExperimentResult) -> String {
        experiment.status.replace('_', " ")
    }

    fn house(&self) -> Vec<String> {
        narrative::house(self.results)
    }

    fn doubts(&self, experiment: &ExperimentResult) -> Vec<String> {
        narrative::doubts(self.results, experiment)
    }

    fn advice(&self, experiment: &ExperimentResult) -> String {
        advice::advice(experiment)
    }

    fn acts(&self, experiment: &ExperimentResult) -> Vec<Choice> {
        form::choices(self.caller, experiment)
    }

    fn facts(&self, experiment: &ExperimentResult) -> Vec<(&'static str, String)> {
        narrative::facts(self.results, experiment)
    }

    fn planning(&self, experiment: &ExperimentResult) -> Option<String> {
        narrative::planning(experiment)
    }

    fn health(&self, experiment: &ExperimentResult) -> Vec<(&'static str, String, bool)> {
        narrative::health(self.results, experiment)
    }

    fn bound(&self, guardrail: &GuardrailResult) -> String {
        narrative::bound(guardrail)
    }

    fn harm(&self, group: &GuardrailGroup) -> String {
        narrative::harm(group)
    }

    fn rate(&self, metric: &MetricResult, group: &MetricGroup) -> String {
        match group.rate {
            Some(_) => table::rate(metric, group),
            None => "–".to_owned(),
        }
    }

    fn lift(&self, group: &MetricGroup) -> String {
        match &*table::lift(group) {
            "-" => "–".to_owned(),
            _ if group.users == 0 => "–".to_owned(),
            lift => self.typeset(lift),
        }
    }

    fn fixed(&self, group: &MetricGroup) -> String {
        self.typeset(&narrative::fixed(group.fixed.as_ref()))
    }

    /// With minus signs, which are read aloud, unlike hyphens.
    fn typeset(&self, numbers: &str) -> String {
        numbers.replace('-', "\u{2212}")
    }

    fn notes(&self, metric: &MetricResult) -> Vec<String> {
        narrative::notes(metric)
    }

    fn bayesian(&self, metric: &MetricResult) -> Vec<String> {
        narrative::bayesian(metric)
    }

    fn plot(&self, experiment: &ExperimentResult, metric: &MetricResult) -> Option<Plot> {
        let mut plot = Plot::of(metric)?;
        if experiment.sample_ratio.mismatch {
            // What cannot be believed is neither good nor bad.
            plot.rows.iter_mut().for_each(|row| row.class = "");
        }
        Some(plot)
    }

    fn is_empty(&self, experiment: &ExperimentResult) -> bool {
        experiment.groups.iter().all(|group| group.users == 0)
    }

    fn chart(&self, metric: &MetricResult) -> Option<Chart> {
        Chart::of(metric)
    }

    fn count(&self, count: &u64) -> String {
        thousands(*count)
    }

    fn sum(&self, sum: &f64) -> String {
        self.typeset(&format::sum(*sum))
    }

    fn errors(&self, group: &GroupResult) -> String {
        let failed = group.responses.get("5xx").copied().unwrap_or(0);
        format::part(failed, group.requests)
    }

    fn latency(&self, ms: &Option<f64>) -> String {
        format::latency(*ms)
    }

    fn minute(&self, at: &str) -> String {
        format::minute(at)
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
pub fn render(
    results: &Results,
    caller: &Caller,
    upstreams: &[UpstreamReport],
) -> Result<String, askama::Error> {
    let page = Page {
        results,
        caller,
        upstreams,
    };
    page.render()
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
        include_str!("../../../templates/page.css"),
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
        include_str!("../../../templates/page.js"),
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
