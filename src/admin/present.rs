//! The results in the form that is asked for.

use super::bars::Paint;
use super::caller::{Caller, wants_page};
use super::metric::View;
use super::results::Wish;
use super::shape::Results;
use super::{Door, Failure, page, text};
use axum::extract::{Path, Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub struct Form {
    format: Option<String>,
    view: Option<String>,
    #[serde(default)]
    over_time: bool,
    bars: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Text,
    Csv,
    Html,
}

impl Form {
    fn format(&self, headers: &HeaderMap) -> Result<Format, Failure> {
        match self.format.as_deref() {
            None if wants_page(headers) => Ok(Format::Html),
            None | Some("json") => Ok(Format::Json),
            Some("text") => Ok(Format::Text),
            Some("csv") => Ok(Format::Csv),
            Some("html") => Ok(Format::Html),
            Some(other) => Err(Failure::new(
                StatusCode::BAD_REQUEST,
                format!("no format {other:?}; there are json, csv, text and html"),
            )),
        }
    }

    fn wish<'a>(&self, only: Option<&'a str>, format: Format) -> Result<Wish<'a>, Failure> {
        Ok(Wish {
            only,
            view: self.view()?,
            over_time: self.over_time || format == Format::Html,
        })
    }

    fn paint(&self) -> Result<Option<Paint>, Failure> {
        match self.bars.as_deref() {
            None => Ok(None),
            Some("plain") => Ok(Some(Paint::Plain)),
            Some("colours") => Ok(Some(Paint::Colours)),
            Some(other) => Err(Failure::new(
                StatusCode::BAD_REQUEST,
                format!("no bars {other:?}; there are plain and colours"),
            )),
        }
    }

    fn view(&self) -> Result<View, Failure> {
        match self.view.as_deref() {
            None | Some("any_look") => Ok(View::AnyLook),
            Some("fixed") => Ok(View::Fixed),
            Some(other) => Err(Failure::new(
                StatusCode::BAD_REQUEST,
                format!("no view {other:?}; there are any_look and fixed"),
            )),
        }
    }
}

/// `GET /admin/results`.
pub async fn all(
    State(door): State<Door>,
    Query(form): Query<Form>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let format = form.format(&headers)?;
    let results = door.results(form.wish(None, format)?).await?;
    Ok(present(
        &results,
        (format, form.paint()?),
        &caller,
        &headers,
    ))
}

/// `GET /admin/results/{experiment}`.
pub async fn one(
    State(door): State<Door>,
    Path(name): Path<String>,
    Query(form): Query<Form>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let format = form.format(&headers)?;
    let results = door.results(form.wish(Some(&name), format)?).await?;
    if results.experiments.is_empty() {
        return Err(Failure::new(
            StatusCode::NOT_FOUND,
            format!("there is no experiment {name:?}"),
        ));
    }
    Ok(present(
        &results,
        (format, form.paint()?),
        &caller,
        &headers,
    ))
}

fn present(
    results: &Results,
    (format, paint): (Format, Option<Paint>),
    caller: &Caller,
    headers: &HeaderMap,
) -> Response {
    if format == Format::Html {
        return page::answer(StatusCode::OK, page::render(results, caller));
    }
    // Weak: what only says how late it is does not count (RFC 9110, 8.8.3).
    let tag = format!("W/\"{}-{format:?}{paint:?}\"", results.tag());
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
        Format::Text => plain("text/plain; charset=utf-8", text::table(results, paint)),
        Format::Csv => plain("text/csv; charset=utf-8", text::csv(results)),
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
