//! The results in the form that is asked for.

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

/// How results are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ResultsQuery {
    /// As what; left out, HTML for who accepts it and JSON for everybody else.
    #[param(inline)]
    format: Option<Format>,
    /// With `fixed`, besides, what is valid only if you look once.
    #[serde(default)]
    #[param(inline, required = false)]
    view: View,
    /// Whether rates over time, too.
    #[serde(default)]
    over_time: bool,
    /// Draw the intervals of lifts into `text`.
    #[param(inline)]
    bars: Option<Paint>,
    /// Whether CSV has the exact names, also those that a spreadsheet would take for formulas.
    #[serde(default)]
    raw: bool,
}

/// What the client has.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(
    dead_code,
    reason = "read from the headers, which may say it more than once"
)]
struct Known {
    /// The tags of answers that need not be sent again.
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
/// Those of the routes file first, then those that are no longer in it. `docs/results.md` says what
/// each field means.
#[utoipa::path(
    get,
    path = "/admin/results",
    operation_id = "results",
    tag = "results",
    params(ResultsQuery, Known),
    responses(
        (
            status = 200,
            description = "What is known now",
            content(
                (Results = "application/json"),
                (String = "text/csv"),
                (String = "text/plain"),
                (String = "text/html"),
            ),
            headers((
                "etag" = String,
                description = "The same while nothing but clocks moves; pages have none"
            )),
        ),
        (status = 304, description = "Nothing has changed", headers(("etag" = String))),
        (status = 400, description = "An unknown format, view or kind of bars", body = Refused),
        (status = 503, description = "The store does not answer", body = Refused),
    )
)]
pub async fn all(
    State(state): State<AdminState>,
    Query(form): Query<ResultsQuery>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let format = form.format(&headers);
    let results = state.results(form.request(None, format)).await?;
    Ok(present(
        &state,
        &results,
        (format, &form),
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
    params(("experiment" = String, Path, description = "Its name"), ResultsQuery, Known),
    responses(
        (
            status = 200,
            description = "What is known now",
            content(
                (Results = "application/json"),
                (String = "text/csv"),
                (String = "text/plain"),
                (String = "text/html"),
            ),
            headers((
                "etag" = String,
                description = "The same while nothing but clocks moves; pages have none"
            )),
        ),
        (status = 304, description = "Nothing has changed", headers(("etag" = String))),
        (status = 400, description = "An unknown format, view or kind of bars", body = Refused),
        (status = 404, description = "There is no such experiment", body = Refused),
        (status = 503, description = "The store does not answer", body = Refused),
    )
)]
pub async fn one(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Query(form): Query<ResultsQuery>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let format = form.format(&headers);
    let results = state.results(form.request(Some(&name), format)).await?;
    if results.experiments.is_empty() {
        return Err(no_experiment(&name));
    }
    Ok(present(
        &state,
        &results,
        (format, &form),
        &caller,
        &headers,
    ))
}

fn present(
    state: &AdminState,
    results: &Results,
    (format, form): (Format, &ResultsQuery),
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
    // Weak: what only says how late it is does not count (RFC 9110, 8.8.3).
    let (paint, raw) = (form.bars, form.raw);
    let tag = format!("W/\"{}-{format:?}{paint:?}{raw}\"", results.tag());
    let common = [
        (CACHE_CONTROL, "private, no-cache".to_owned()),
        (VARY, "accept, authorization, cookie".to_owned()),
        (ETAG, tag.clone()),
    ];
    if is_known(headers, &tag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let plain = |kind: &'static str, text: String| ([(CONTENT_TYPE, kind)], text).into_response();
    let answer = match format {
        Format::Json | Format::Html => Json(results).into_response(),
        Format::Text => plain("text/plain; charset=utf-8", table::table(results, paint)),
        Format::Csv => plain("text/csv; charset=utf-8", csv::csv(results, raw)),
    };
    (common, answer).into_response()
}

fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let lists = headers.get_all(IF_NONE_MATCH).iter();
    let mut known = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    known.any(|known| matches!(known.trim(), "*") || known.trim() == tag)
}
