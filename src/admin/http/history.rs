//! `GET /admin/history`: every loaded file and every decision.

use crate::admin::http::error::{Failure, Path, Query, Refused};
use crate::admin::http::html::{page_response, wants_html};
use crate::admin::results::history::{HistoryEntry, read};
use crate::admin::state::AdminState;
use crate::admin::view::history;
use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The most entries of a response.
const ENTRIES_MAX: u16 = 1000;
/// So many unless the query says otherwise.
const ENTRIES: u16 = 200;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryQuery {
    /// Only what is about this experiment.
    experiment: Option<String>,
    /// The number of entries, 1 to 1000.
    #[serde(default = "entries")]
    #[param(required = false, default = 200, minimum = 1, maximum = 1000)]
    limit: u16,
    /// The format; by default HTML for clients that accept it, else JSON.
    #[param(inline)]
    format: Option<HistoryFormat>,
}

fn entries() -> u16 {
    ENTRIES
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum HistoryFormat {
    Json,
    Text,
    Html,
}

/// The history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HistoryEntries {
    /// The latest entries, newest first.
    history: Vec<HistoryEntry>,
}

/// List loaded files and decisions
///
/// Each has who, when and why. A loaded file also has what differs from the file before, with its secrets
/// hidden, and what that changes for users.
#[utoipa::path(
    get,
    path = "/admin/history",
    operation_id = "history",
    tag = "decisions",
    params(HistoryQuery),
    responses(
        (
            status = 200,
            description = "The latest entries, newest first",
            content(
                (HistoryEntries = "application/json"),
                (String = "text/plain"),
                (String = "text/html"),
            ),
        ),
        (status = 400, description = "The format does not exist, or the limit is invalid", body = Refused),
        (status = 503, description = "The store is unavailable", body = Refused),
    )
)]
pub(crate) async fn list(
    State(state): State<AdminState>,
    Query(query): Query<HistoryQuery>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    if !(1..=ENTRIES_MAX).contains(&query.limit) {
        let error = format!("limit must be from 1 to {ENTRIES_MAX}");
        return Err(Failure::new(StatusCode::BAD_REQUEST, error));
    }
    let experiment = query.experiment.as_deref();
    let history = read(&*state.store, experiment, usize::from(query.limit)).await?;
    Ok(match query.format {
        Some(HistoryFormat::Text) => {
            let kind = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
            (kind, history::text(&history)).into_response()
        }
        Some(HistoryFormat::Json) => Json(HistoryEntries { history }).into_response(),
        None if !wants_html(&headers) => Json(HistoryEntries { history }).into_response(),
        _ => page_response(StatusCode::OK, history::page(&history, experiment)),
    })
}

/// A loaded file
///
/// The file as JSON, with its secrets hidden. The latest thousand are kept.
#[utoipa::path(
    get,
    path = "/admin/history/files/{number}",
    operation_id = "loaded_file",
    tag = "decisions",
    params(("number" = u64, Path, description = "The number of the file in the history", maximum = 9007199254740991i64)),
    responses(
        (status = 200, description = "The file", body = serde_json::Value),
        (status = 400, description = "This is no number", body = Refused),
        (status = 404, description = "There is no such file", body = Refused),
        (status = 503, description = "The store is unavailable", body = Refused),
    )
)]
pub(crate) async fn file(
    State(state): State<AdminState>,
    Path(number): Path<u64>,
) -> Result<Response, Failure> {
    match state.store.loaded_content(number).await? {
        Some(content) => Ok(([(CONTENT_TYPE, "application/json")], content).into_response()),
        None => {
            let error = format!("there is no file {number} in the history");
            Err(Failure::new(StatusCode::NOT_FOUND, error))
        }
    }
}
