//! `GET /admin/results`: results as JSON, CSV, text or a page.

use crate::admin::http::auth::Caller;
use crate::admin::http::error::{Failure, Path, Query, Refused, no_experiment};
use crate::admin::http::html::{page_response, wants_html};
use crate::admin::results::gather::ResultsRequest;
use crate::admin::results::metric::View;
use crate::admin::results::schema::Results;
use crate::admin::state::AdminState;
use crate::admin::view::bars::Paint;
use crate::admin::view::csv;
use crate::admin::view::html::{self, PageContent};
use crate::admin::view::table;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// The query of results.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ResultsQuery {
    /// The format; by default HTML for clients that accept it, else JSON.
    #[param(inline)]
    format: Option<Format>,
    /// `fixed` adds fixed-horizon estimates, which are valid for one analysis only.
    #[serde(default)]
    #[param(inline, required = false)]
    view: View,
    /// Whether to add rates over time.
    #[serde(default)]
    over_time: bool,
    /// Draws the intervals of lifts; for `text` only.
    #[param(inline)]
    bars: Option<Paint>,
    /// Whether CSV contains names unchanged, even if a spreadsheet would read them as formulas.
    #[serde(default)]
    raw: bool,
    /// Words to search for, for the list of experiments in HTML: names, groups, metrics and states.
    q: Option<String>,
}

/// The condition of a request.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(
    dead_code,
    reason = "documents a header, which can occur more than once"
)]
struct Condition {
    /// The tags of responses that the client has.
    #[param(rename = "If-None-Match", nullable = false)]
    if_none_match: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    Json,
    Text,
    Csv,
    Html,
}

impl ResultsQuery {
    fn format(&self, headers: &HeaderMap) -> Format {
        match self.format {
            None if wants_html(headers) => Format::Html,
            None => Format::Json,
            Some(format) => format,
        }
    }

    fn request<'a>(&self, only: Option<&'a str>, format: Format) -> ResultsRequest<'a> {
        ResultsRequest {
            only,
            view: self.view,
            over_time: self.over_time || format == Format::Html,
        }
    }
}

/// Results of all experiments
///
/// Experiments of the routes file come first, then those that are no longer in it. `docs/results.md`
/// explains each field.
#[utoipa::path(
    get,
    path = "/admin/results",
    operation_id = "results",
    tag = "results",
    params(ResultsQuery, Condition),
    responses(
        (
            status = 200,
            description = "The current results",
            content(
                (Results = "application/json"),
                (String = "text/csv"),
                (String = "text/plain"),
                (String = "text/html"),
            ),
            headers((
                "etag" = String,
                description = "Changes only when the results do; pages have none"
            )),
        ),
        (status = 304, description = "The results have not changed", headers(("etag" = String))),
        (status = 400, description = "The format, view or kind of bars does not exist", body = Refused),
        (status = 503, description = "The store is unavailable", body = Refused),
    )
)]
pub(crate) async fn all(
    State(state): State<AdminState>,
    Query(query): Query<ResultsQuery>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let asked = Asked {
        only: None,
        query: &query,
        caller: &caller,
        headers: &headers,
    };
    asked.respond(&state).await
}

/// Results of one experiment
#[utoipa::path(
    get,
    path = "/admin/results/{experiment}",
    operation_id = "results_of_one",
    tag = "results",
    params(("experiment" = String, Path, description = "The name of the experiment"), ResultsQuery, Condition),
    responses(
        (
            status = 200,
            description = "The current results",
            content(
                (Results = "application/json"),
                (String = "text/csv"),
                (String = "text/plain"),
                (String = "text/html"),
            ),
            headers((
                "etag" = String,
                description = "Changes only when the results do; pages have none"
            )),
        ),
        (status = 304, description = "The results have not changed", headers(("etag" = String))),
        (status = 400, description = "The format, view or kind of bars does not exist", body = Refused),
        (status = 404, description = "The experiment does not exist", body = Refused),
        (status = 503, description = "The store is unavailable", body = Refused),
    )
)]
pub(crate) async fn one(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Query(query): Query<ResultsQuery>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let asked = Asked {
        only: Some(&name),
        query: &query,
        caller: &caller,
        headers: &headers,
    };
    asked.respond(&state).await
}

/// A request for results.
struct Asked<'a> {
    /// The experiment; all without.
    only: Option<&'a str>,
    query: &'a ResultsQuery,
    caller: &'a Caller,
    headers: &'a HeaderMap,
}

impl Asked<'_> {
    async fn respond(&self, state: &AdminState) -> Result<Response, Failure> {
        let format = self.query.format(self.headers);
        let found = state.results(self.query.request(self.only, format)).await;
        let found = found.map(Arc::new);
        if let Ok(results) = &found {
            self.check(results)?;
            // Other formats leave out what the page shows.
            if format == Format::Html || state.latest.of(self.only).is_none() {
                state.latest.keep(self.only, results);
            }
        }
        if format != Format::Html {
            return Ok(self.present(format, &*found?));
        }
        match found {
            Ok(results) => Ok(self.page(state, &results, None)),
            // The last results stay readable while the store is unavailable.
            Err(error) => {
                let failure = Failure::from(error);
                match state.latest.newest(self.only) {
                    Some(results) => Ok(self.page(state, &results, Some(failure))),
                    None => Err(failure),
                }
            }
        }
    }

    fn check(&self, results: &Results) -> Result<(), Failure> {
        match self.only {
            Some(name) if results.experiments.iter().all(|it| it.name != name) => {
                Err(no_experiment(name))
            }
            _ => Ok(()),
        }
    }

    /// Returns a page, with the failure that keeps the results from being newer.
    fn page(&self, state: &AdminState, results: &Results, failure: Option<Failure>) -> Response {
        let plan = state.plan();
        // A single experiment needs no list.
        let is_list =
            self.only.is_none() && (self.query.q.is_some() || results.experiments.len() != 1);
        let status = failure.as_ref().map_or(StatusCode::OK, |it| it.status);
        let shown = PageContent {
            list: is_list.then(|| self.query.q.as_deref().unwrap_or_default()),
            file: &plan.redacted_file,
            alarm: failure.map(|it| it.error),
            only: self.only,
            waiting: state.telemetry.lag_events(),
        };
        page_response(status, html::render(results, &self.caller.viewer(), &shown))
    }

    fn present(&self, format: Format, results: &Results) -> Response {
        // The tag is weak because it ignores times such as `generated_at` (RFC 9110, 8.8.3).
        let (paint, raw) = (self.query.bars, self.query.raw);
        let tag = format!("W/\"{}-{format:?}{paint:?}{raw}\"", results.tag());
        let common = [
            (CACHE_CONTROL, "private, no-cache".to_owned()),
            (VARY, "accept, authorization, cookie".to_owned()),
            (ETAG, tag.clone()),
        ];
        if is_unchanged(self.headers, &tag) {
            return (StatusCode::NOT_MODIFIED, common).into_response();
        }
        let plain =
            |kind: &'static str, text: String| ([(CONTENT_TYPE, kind)], text).into_response();
        let response = match format {
            Format::Json | Format::Html => Json(results).into_response(),
            Format::Text => plain("text/plain; charset=utf-8", table::table(results, paint)),
            Format::Csv => plain("text/csv; charset=utf-8", csv::csv(results, raw)),
        };
        (common, response).into_response()
    }
}

/// Whether the client has what this tag names.
pub(crate) fn is_unchanged(headers: &HeaderMap, tag: &str) -> bool {
    let lists = headers.get_all(IF_NONE_MATCH).iter();
    let mut known = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    known.any(|known| matches!(known.trim(), "*") || known.trim() == tag)
}
