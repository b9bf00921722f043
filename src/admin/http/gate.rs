//! `/admin/experiments/{experiment}/gate`: whether a pipeline may go on, as a status.

use crate::admin::http::error::{Failure, Path, Query, Refused, no_experiment};
use crate::admin::results::gate::{GateAnswer, GateGoal, GateState, gate};
use crate::admin::results::gather::ResultsRequest;
use crate::admin::state::AdminState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

/// The end of the paths of gates, which every role may read with any method.
pub(crate) const GATE: &str = "/gate";

/// The query of a gate.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct GateQuery {
    /// What the caller waits for: `winner`, `end` (any answer), or `safe` (nothing is known against the
    /// experiment).
    #[serde(rename = "for")]
    #[param(inline)]
    goal: GateGoal,
}

/// Read a gate
///
/// Whether a pipeline may go on with an experiment.
#[utoipa::path(
    get,
    path = "/admin/experiments/{experiment}/gate",
    operation_id = "gate",
    tag = "decisions",
    params(("experiment" = String, Path, description = "The name of the experiment"), GateQuery),
    responses(
        (status = 200, description = "It may: the goal is reached", body = GateAnswer),
        (status = 400, description = "`for` is missing or unknown", body = Refused),
        (status = 404, description = "The experiment does not exist", body = Refused),
        (
            status = 409,
            description = "It may not: the state is `waiting`, `failed` or `harm`",
            body = GateAnswer,
        ),
        (status = 503, description = "The store is unavailable", body = Refused),
    )
)]
pub(crate) async fn read(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Query(query): Query<GateQuery>,
) -> Result<(StatusCode, Json<GateAnswer>), Failure> {
    let request = ResultsRequest {
        only: Some(&name),
        ..ResultsRequest::default()
    };
    let results = state.results(request).await?;
    let experiment = results.experiments.first();
    let experiment = experiment.ok_or_else(|| no_experiment(&name))?;
    let answer = gate(query.goal, experiment);
    let status = match answer.state {
        GateState::Passed => StatusCode::OK,
        GateState::Waiting | GateState::Failed | GateState::Harm => StatusCode::CONFLICT,
    };
    Ok((status, Json(answer)))
}

/// Read a gate by POST
///
/// The same as `GET`, for callers that only send POST. The body is ignored, and nothing changes.
#[utoipa::path(
    post,
    path = "/admin/experiments/{experiment}/gate",
    operation_id = "post_gate",
    tag = "decisions",
    params(("experiment" = String, Path, description = "The name of the experiment"), GateQuery),
    responses(
        (status = 200, description = "It may: the goal is reached", body = GateAnswer),
        (status = 400, description = "`for` is missing or unknown", body = Refused),
        (status = 404, description = "The experiment does not exist", body = Refused),
        (
            status = 409,
            description = "It may not: the state is `waiting`, `failed` or `harm`",
            body = GateAnswer,
        ),
        (status = 503, description = "The store is unavailable", body = Refused),
    )
)]
pub(crate) async fn read_by_post(
    state: State<AdminState>,
    path: Path<String>,
    query: Query<GateQuery>,
) -> Result<(StatusCode, Json<GateAnswer>), Failure> {
    read(state, path, query).await
}
