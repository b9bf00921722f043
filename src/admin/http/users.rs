//! What is known of one user, and how it is forgotten.

use crate::admin::decisions::audit;
use crate::admin::http::auth::Caller;
use crate::admin::http::error::{Failure, Query, Refused};
use crate::admin::results::assignments;
use crate::admin::results::assignments::Explained;
use crate::admin::state::AdminState;
use crate::experiment::UserId;
use crate::experiment::minted;
use crate::store::decisions::AuditEntry;
use crate::store::forget_user::forget_everywhere;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WhichUser {
    /// The user's ID, as requests have it, or the whole value of the minted cookie.
    #[param(value_type = String, min_length = 1)]
    user: Option<String>,
}

impl WhichUser {
    fn user(self) -> Result<String, Failure> {
        let user = self.user.filter(|user| !user.is_empty());
        user.ok_or_else(|| {
            Failure::new(
                StatusCode::BAD_REQUEST,
                "say which user: /admin/assignments?user=ID",
            )
        })
    }
}

/// In which groups a user is
///
/// In every experiment, why, and what the store has of the user.
#[utoipa::path(
    get,
    path = "/admin/assignments",
    operation_id = "assignments",
    tag = "users",
    params(WhichUser),
    responses(
        (status = 200, description = "In file order", body = Explained),
        (status = 400, description = "No user is named", body = Refused),
        (status = 503, description = "The store does not answer", body = Refused),
    )
)]
pub async fn assignments_of(
    State(state): State<AdminState>,
    Query(which): Query<WhichUser>,
) -> Result<Json<Explained>, Failure> {
    let user = which.user()?;
    let plan = state.plan();
    let user = minted::id_of(&plan.identity.keys, user.as_bytes());
    let kept = UserId::new(user).map(|user| plan.identity.keep.of(user));
    let mut explained = assignments::explain(&plan, user);
    for assignment in &mut explained.experiments {
        let recorded = match &kept {
            Some(kept) => {
                state
                    .store
                    .user(&assignment.name, kept.id().as_bytes())
                    .await?
            }
            None => None,
        };
        assignment.recorded = recorded.map(Into::into);
    }
    Ok(Json(explained))
}

/// What was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub struct Forgotten {
    /// The experiments that had something of the user.
    forgotten: Vec<String>,
}

/// Forget a user
///
/// Deletes what the store has of the user. What journals still hold of the time before, here and
/// at other replicas, is not counted later either. A later request is one of a new user.
#[utoipa::path(
    delete,
    path = "/admin/assignments",
    operation_id = "forget",
    tag = "users",
    params(WhichUser),
    responses(
        (status = 200, description = "It is deleted", body = Forgotten),
        (status = 400, description = "No user is named", body = Refused),
        (status = 503, description = "The store does not answer", body = Refused),
    )
)]
pub async fn forget(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Query(which): Query<WhichUser>,
) -> Result<Json<Forgotten>, Failure> {
    let (user, plan) = (which.user()?, state.plan());
    let mut forgotten = Vec::new();
    if let Some(user) = UserId::new(minted::id_of(&plan.identity.keys, user.as_bytes())) {
        let kept = plan.identity.keep.of(user);
        let until_ms = state.until_now().await;
        let run = plan.experiments.iter().map(|it| it.name.to_string());
        forgotten = forget_everywhere(&*state.store, run, kept.id().as_bytes(), until_ms).await?;
        for experiment in &forgotten {
            // Whose data they were is forgotten, too.
            let act = audit::act("forget", caller.by(None), "kept".into(), "forgotten".into());
            let experiment_too = AuditEntry {
                experiment: experiment.clone(),
                ..act
            };
            audit::record(&*state.store, experiment_too).await;
        }
    }
    Ok(Json(Forgotten { forgotten }))
}
