//! Assignments of one user, and forgetting a user.

use crate::admin::decisions::audit;
use crate::admin::http::auth::Caller;
use crate::admin::http::error::{Failure, Query, Refused};
use crate::admin::results::assignments;
use crate::admin::results::assignments::Explained;
use crate::admin::state::AdminState;
use crate::config::declaration::declaration;
use crate::experiment::UserId;
use crate::experiment::minted;
use crate::store::decisions::AuditEntry;
use crate::store::forget_user::forget_everywhere;
use crate::store::phases;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WhichUser {
    /// The user's ID as requests carry it, or the whole value of the cookie of a minted ID.
    #[param(value_type = String, min_length = 1)]
    user: Option<String>,
}

impl WhichUser {
    fn user(self) -> Result<String, Failure> {
        let user = self.user.filter(|user| !user.is_empty());
        user.ok_or_else(|| {
            Failure::new(
                StatusCode::BAD_REQUEST,
                "the user is missing: /admin/assignments?user=ID",
            )
        })
    }
}

/// Explain the groups of a user
///
/// Returns the user's group in every experiment, the reason, and what the store has recorded.
#[utoipa::path(
    get,
    path = "/admin/assignments",
    operation_id = "assignments",
    tag = "users",
    params(WhichUser),
    responses(
        (status = 200, description = "One entry per experiment, in file order", body = Explained),
        (status = 400, description = "The user is missing", body = Refused),
        (status = 503, description = "The store is unavailable", body = Refused),
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
    let declaration = declaration(&plan);
    let declared = explained
        .experiments
        .iter_mut()
        .zip(&declaration.experiments);
    for (assignment, declared) in declared {
        let Some(kept) = &kept else { continue };
        let located = phases::locate(&*state.store, declared, &declaration.metrics).await?;
        let key = &located.placement.key;
        let recorded = state.store.user(key, kept.id().as_bytes()).await?;
        assignment.recorded = recorded.map(Into::into);
    }
    Ok(Json(explained))
}

/// The outcome of forgetting a user.
#[derive(Debug, Serialize, ToSchema)]
pub struct Forgotten {
    /// The experiments from which data of the user was deleted.
    forgotten: Vec<String>,
}

/// Forget a user
///
/// Deletes the user's data from the store. Records that are still in journals, on this replica or on
/// others, will not be counted either. A later request counts as one of a new user.
#[utoipa::path(
    delete,
    path = "/admin/assignments",
    operation_id = "forget",
    tag = "users",
    params(WhichUser),
    responses(
        (status = 200, description = "The data is deleted", body = Forgotten),
        (status = 400, description = "The user is missing", body = Refused),
        (status = 503, description = "The store is unavailable", body = Refused),
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
        let until_ms = state.wait_for_ingestion().await;
        let declaration = declaration(&plan);
        let user = kept.id().as_bytes();
        forgotten = forget_everywhere(&*state.store, &declaration, user, until_ms).await?;
        for experiment in &forgotten {
            // The entry does not name the user, who would otherwise not be forgotten.
            let entry = audit::entry("forget", caller.by(None), "kept".into(), "forgotten".into());
            let entry = AuditEntry {
                experiment: experiment.clone(),
                ..entry
            };
            audit::record(&*state.store, entry).await;
        }
    }
    Ok(Json(Forgotten { forgotten }))
}
