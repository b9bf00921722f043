//! `GET /admin/results`: results as JSON, CSV, text or a page.

use crate::admin::http::auth::Caller;
use crate::admin::http::error::{Failure, Path, Query, Refused, no_experiment};
use crate::admin::http::html::{page_response, wants_html};
use crate::admin::results::gather::ResultsRequest;
use crate::admin::results::metric::View;
use crate::admin::results::schema::Results;
use crate::admin::results::upstream_health::reports;
use crate::admin::state::AdminState;
use crate::admin::view::bars::Paint;
use crate::admin::view::csv;
use crate::admin::view::html::{self, Viewer};
use crate::admin::view::table;
use crate::config::plan::TokenRole;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

/// The query of results.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ResultsQuery {
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
pub async fn all(
    State(state): State<AdminState>,
    Query(query): Query<ResultsQuery>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let format = query.format(&headers);
    let results = state.results(query.request(None, format)).await?;
    Ok(present(
        &state,
        &results,
        (format, &query),
        &caller,
        &headers,
    ))
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
pub async fn one(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Query(query): Query<ResultsQuery>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let format = query.format(&headers);
    let results = state.results(query.request(Some(&name), format)).await?;
    if results.experiments.is_empty() {
        return Err(no_experiment(&name));
    }
    Ok(present(
        &state,
        &results,
        (format, &query),
        &caller,
        &headers,
    ))
}

fn present(
    state: &AdminState,
    results: &Results,
    (format, query): (Format, &ResultsQuery),
    caller: &Caller,
    headers: &HeaderMap,
) -> Response {
    if format == Format::Html {
        let viewer = Viewer {
            name: caller.name.as_deref(),
            may_operate: caller.role >= TokenRole::Operate,
            form: caller.form(),
        };
        let upstreams = reports(&state.plan(), &state.server.health_registry);
        return page_response(StatusCode::OK, html::render(results, &viewer, &upstreams));
    }
    // The tag is weak because it ignores times such as `generated_at` (RFC 9110, 8.8.3).
    let (paint, raw) = (query.bars, query.raw);
    let tag = format!("W/\"{}-{format:?}{paint:?}{raw}\"", results.tag());
    let common = [
        (CACHE_CONTROL, "private, no-cache".to_owned()),
        (VARY, "accept, authorization, cookie".to_owned()),
        (ETAG, tag.clone()),
    ];
    if is_unchanged(headers, &tag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let plain = |kind: &'static str, text: String| ([(CONTENT_TYPE, kind)], text).into_response();
    let response = match format {
        Format::Json | Format::Html => Json(results).into_response(),
        Format::Text => plain("text/plain; charset=utf-8", table::table(results, paint)),
        Format::Csv => plain("text/csv; charset=utf-8", csv::csv(results, raw)),
    };
    (common, response).into_response()
}

/// Whether the client has what this tag names.
pub fn is_unchanged(headers: &HeaderMap, tag: &str) -> bool {
    let lists = headers.get_all(IF_NONE_MATCH).iter();
    let mut known = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    known.any(|known| matches!(known.trim(), "*") || known.trim() == tag)
}
