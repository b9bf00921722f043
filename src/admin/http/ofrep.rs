//! The OpenFeature Remote Evaluation Protocol (OFREP 0.3): experiments as flags.

use crate::admin::clock::{now_ms, now_s};
use crate::admin::http::flags_access;
use crate::admin::http::results::is_unchanged;
use crate::admin::results::flags::{
    ContextError, EvaluatedFlag, FlagContext, FlagExposure, evaluate,
};
use crate::admin::state::AdminState;
use crate::config::plan::Plan;
use crate::experiment::ExperimentIndex;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

/// The most bytes of a request.
pub(crate) const BYTES_MAX: usize = 64 << 10;
/// The header, and the key of the context, with which evaluation exposes the user.
const EXPOSURE_HEADER: &str = "watershed-exposure";
const EXPOSURE_KEY: &str = "watershedExposure";
/// The duration of a stream; clients then reconnect.
const WITHIN: Duration = Duration::from_secs(3600);
/// After so long without activity a client should close its stream, in seconds.
const INACTIVITY_S: u64 = 120;

/// What to evaluate for.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `context_of` parses")]
struct EvaluationRequest {
    #[schema(inline)]
    context: EvaluationContext,
}

/// Who to evaluate for. What `bucket_by` divides is an attribute with the name of its header, cookie, parameter or
/// claim. Other attributes have no meaning.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `FlagContext::of` parses")]
struct EvaluationContext {
    /// The user's ID.
    #[serde(rename = "targetingKey")]
    #[schema(min_length = 1, max_length = 256)]
    targeting_key: String,
    /// `true` exposes the user to the groups.
    #[serde(rename = "watershedExposure")]
    #[schema(nullable = false)]
    watershed_exposure: Option<bool>,
    #[serde(flatten)]
    attributes: BTreeMap<String, Value>,
}

/// The headers of an evaluation.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents a header, which need not be text")]
struct EvaluationHeaders {
    /// `true` exposes the user to the groups: the evaluation is counted as a request that reached them.
    #[param(rename = "Watershed-Exposure", nullable = false)]
    watershed_exposure: Option<String>,
}

/// Why nothing is evaluated.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EvaluationFailure {
    /// The flag; left out for all flags.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key: Option<String>,
    /// `PARSE_ERROR`, `TARGETING_KEY_MISSING`, `INVALID_CONTEXT`, `FLAG_NOT_FOUND` or `GENERAL`.
    #[serde(rename = "errorCode")]
    error_code: &'static str,
    /// A message for people.
    #[serde(rename = "errorDetails")]
    error_details: String,
}

/// All flags.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EvaluatedFlags {
    /// In file order.
    flags: Vec<EvaluatedFlag>,
    /// Where changes are announced.
    #[serde(rename = "eventStreams")]
    event_streams: [EventStream; 1],
}

/// A stream of changes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventStream {
    /// Always `sse`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Its address.
    endpoint: StreamEndpoint,
    /// After so many seconds without activity, a client should close it.
    #[serde(rename = "inactivityDelaySec")]
    inactivity_delay_s: u64,
}

/// The address of a stream, on the host of this API.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StreamEndpoint {
    /// Its path and query, with a key that is valid for hours.
    #[serde(rename = "requestUri")]
    request_uri: String,
}

/// Evaluate a flag
///
/// A flag is an experiment, and its variants are the groups. The evaluation is no exposure unless the caller asks.
#[utoipa::path(
    post,
    path = "/ofrep/v1/evaluate/flags/{key}",
    operation_id = "evaluateFlag",
    tag = "flags",
    params(("key" = String, Path, description = "The experiment"), EvaluationHeaders),
    request_body = inline(EvaluationRequest),
    responses(
        (status = 200, description = "The value", body = EvaluatedFlag),
        (status = 400, description = "The context names no user", body = EvaluationFailure),
        (status = 404, description = "There is no such flag", body = EvaluationFailure),
        (status = 413, description = "The request is longer than 64 KiB", body = EvaluationFailure),
    )
)]
pub(crate) async fn one(
    State(state): State<AdminState>,
    key: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<EvaluatedFlag>, FailedEvaluation> {
    // What is no text names no flag.
    let key = key.map_or_else(|_| String::new(), |Path(key)| key);
    let failed = |failure| failure_of(Some(key.clone()), failure);
    let plan = state.plan();
    let Some(index) = plan.experiment_named(&key) else {
        let details = format!("there is no experiment {key:?}");
        let failure = (StatusCode::NOT_FOUND, "FLAG_NOT_FOUND", details);
        return Err(failed(failure));
    };
    let context = context_of(body).map_err(failed)?;
    let who = who(&plan, &context).map_err(failed)?;
    let (flag, exposure) = evaluate(&plan, index, &who);
    expose(&state, is_exposure(&headers, &context), exposure).await;
    Ok(Json(flag))
}

/// Evaluate all flags
///
/// For clients that keep the flags of one user. `eventStreams` names a stream that announces changes.
#[utoipa::path(
    post,
    path = "/ofrep/v1/evaluate/flags",
    operation_id = "evaluateFlags",
    tag = "flags",
    params(EvaluationHeaders),
    request_body = inline(EvaluationRequest),
    responses(
        (
            status = 200,
            description = "All flags, in file order",
            body = EvaluatedFlags,
            headers(("etag" = String)),
        ),
        (status = 304, description = "The flags have not changed", headers(("etag" = String))),
        (status = 400, description = "The context names no user", body = EvaluationFailure),
        (status = 413, description = "The request is longer than 64 KiB", body = EvaluationFailure),
    )
)]
pub(crate) async fn all(
    State(state): State<AdminState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, FailedEvaluation> {
    let failed = |failure| failure_of(None, failure);
    let plan = state.plan();
    let context = context_of(body).map_err(failed)?;
    let who = who(&plan, &context).map_err(failed)?;
    let indices = (0..plan.experiments.len()).map(ExperimentIndex);
    let (flags, exposures): (Vec<_>, Vec<_>) =
        indices.map(|index| evaluate(&plan, index, &who)).unzip();
    expose(
        &state,
        is_exposure(&headers, &context),
        exposures.into_iter().flatten(),
    )
    .await;
    let tag = format!("\"{:016x}\"", digest(&format!("{flags:?}")));
    let common = [
        (CACHE_CONTROL, "private, no-cache".to_owned()),
        (ETAG, tag.clone()),
    ];
    if is_unchanged(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let event_streams = [EventStream {
        kind: "sse",
        endpoint: StreamEndpoint {
            request_uri: flags_access::stream_target(&plan.admin.session_keys, now_s()),
        },
        inactivity_delay_s: INACTIVITY_S,
    }];
    let body = EvaluatedFlags {
        flags,
        event_streams,
    };
    Ok((common, Json(body)).into_response())
}

/// The query of the stream.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamQuery {
    /// The end of the key's validity.
    #[serde(default)]
    #[param(value_type = String)]
    until: String,
    /// The key.
    #[serde(default)]
    #[param(value_type = String)]
    key: String,
}

/// One event.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what axum writes")]
struct RefetchEvent {
    /// Always `message`.
    event: String,
    /// A tag of the flags' configuration.
    id: String,
    /// JSON with `type: refetchEvaluation`, the tag as `etag`, and `lastModified` in Unix seconds.
    data: String,
}

/// Follow changes of flags
///
/// The address is in `eventStreams` of all flags. Sends an event at first, and whenever the experiments change in a
/// way that can change a value. The stream ends after an hour; reconnect to continue.
#[utoipa::path(
    get,
    path = "/ofrep/v1/stream",
    operation_id = "flagChanges",
    tag = "flags",
    params(StreamQuery),
    responses(
        (
            status = 200,
            description = "Server-sent events",
            content_type = "text/event-stream",
            body = inline(RefetchEvent),
        ),
        (status = 401, description = "The key is missing, wrong or no longer valid", body = EvaluationFailure),
    )
)]
pub(crate) async fn changes(
    State(state): State<AdminState>,
    query: Result<Query<StreamQuery>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, FailedEvaluation> {
    let keys = state.plan().admin.session_keys.clone();
    let query = query.ok().map(|Query(query)| query);
    let is_valid =
        |query: &StreamQuery| flags_access::is_stream_key(&keys, &query.until, &query.key, now_s());
    if !query.as_ref().is_some_and(is_valid) {
        let details = "evaluate all flags again: the address of the stream is in eventStreams";
        let failure = (StatusCode::UNAUTHORIZED, "GENERAL", details.to_owned());
        return Err(failure_of(None, failure));
    }
    let plans = state.plans.clone();
    let changes = stream::unfold((plans, None::<u64>), |(mut plans, sent)| async move {
        loop {
            let tag = flags_tag(&plans.borrow_and_update());
            if sent != Some(tag) {
                return Some((Ok(refetch(tag)), (plans, Some(tag))));
            }
            plans.changed().await.ok()?;
        }
    });
    let changes = changes.take_until(Box::pin(tokio::time::sleep(WITHIN)));
    Ok(Sse::new(changes).keep_alive(KeepAlive::default()))
}

fn refetch(tag: u64) -> Event {
    let tag = format!("{tag:016x}");
    let data = json!({
        "type": "refetchEvaluation",
        "etag": tag,
        "lastModified": now_ms() / 1000,
    });
    Event::default()
        .event("message")
        .id(tag)
        .data(data.to_string())
}

/// A tag of everything that decides values.
fn flags_tag(plan: &Plan) -> u64 {
    // Without the lookup tables of experiments: their order differs between processes.
    let (experiments, units) = (plan.experiments.to_vec(), &plan.units);
    digest(&format!("{experiments:?} {units:?}"))
}

fn digest(text: &str) -> u64 {
    // Reading from memory cannot fail, and the crate adds no error of its own.
    murmur3::murmur3_x64_128(&mut text.as_bytes(), 0).unwrap_or_default() as u64
}

/// The status, OpenFeature's code and a message.
type Failed = (StatusCode, &'static str, String);

/// The response to an evaluation that failed.
#[derive(Debug)]
pub(crate) struct FailedEvaluation(StatusCode, EvaluationFailure);

impl IntoResponse for FailedEvaluation {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

fn failure_of(key: Option<String>, failed: Failed) -> FailedEvaluation {
    let (status, error_code, error_details) = failed;
    let body = EvaluationFailure {
        key,
        error_code,
        error_details,
    };
    FailedEvaluation(status, body)
}

fn context_of(body: Result<Bytes, BytesRejection>) -> Result<Map<String, Value>, Failed> {
    let bad = |code, details: String| (StatusCode::BAD_REQUEST, code, details);
    let body = body.map_err(|error| (error.status(), "PARSE_ERROR", error.body_text()))?;
    let request: Value = serde_json::from_slice(&body)
        .map_err(|error| bad("PARSE_ERROR", format!("the body is not JSON: {error}")))?;
    match request {
        Value::Object(mut request) => match request.remove("context") {
            Some(Value::Object(context)) => Ok(context),
            None => Ok(Map::new()),
            Some(_) => Err(bad("INVALID_CONTEXT", "`context` is no object".to_owned())),
        },
        _ => Err(bad("PARSE_ERROR", "the body is no object".to_owned())),
    }
}

fn who<'a>(plan: &Plan, context: &'a Map<String, Value>) -> Result<FlagContext<'a>, Failed> {
    FlagContext::of(plan, context).map_err(|error| {
        let (code, details) = match error {
            ContextError::NoTargetingKey => (
                "TARGETING_KEY_MISSING",
                "the context has no `targetingKey`, which is the user's ID",
            ),
            ContextError::NoId(details) => ("INVALID_CONTEXT", details),
        };
        (StatusCode::BAD_REQUEST, code, details.to_owned())
    })
}

/// Whether the caller asks for an exposure.
fn is_exposure(headers: &HeaderMap, context: &Map<String, Value>) -> bool {
    let header = headers.get(EXPOSURE_HEADER);
    header.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
        || context.get(EXPOSURE_KEY) == Some(&Value::Bool(true))
}

/// Journals exposures if the caller asks. A journal that is full, or closed while the process stops, is counted
/// there and fails no evaluation.
async fn expose(
    state: &AdminState,
    is_exposure: bool,
    exposures: impl IntoIterator<Item = FlagExposure>,
) {
    let exposures: Vec<FlagExposure> = match is_exposure {
        true => exposures.into_iter().collect(),
        false => Vec::new(),
    };
    if !exposures.is_empty() {
        let _ = state.server.exposures.send(exposures).await;
    }
}
