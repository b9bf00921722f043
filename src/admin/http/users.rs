//! Assignments of one user, and forgetting a user.

use crate::admin::decisions::audit;
use crate::admin::http::auth::Caller;
use crate::admin::http::error::{Failure, Query, Refused};
use crate::admin::results::assignments;
use crate::admin::results::assignments::Explained;
use crate::admin::state::AdminState;
use crate::archive;
use crate::config::declaration::declaration;
use crate::experiment::UserId;
use crate::experiment::minted;
use crate::store::decisions::AuditEntry;
use crate::store::forget_user::forget_everywhere;
use crate::store::phases;
use crate::tasks;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WhichUser {
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
pub(crate) async fn assignments_of(
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
pub(crate) struct Forgotten {
    /// The experiments from which data of the user was deleted.
    forgotten: Vec<String>,
    /// What was done to the archive, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    archive: Option<ForgottenInArchive>,
    /// The destinations of `forward`, which may have got records of the user before: the user has to be deleted there,
    /// too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    forwarded_to: Vec<String>,
}

/// What was done to archived files to forget a user.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ForgottenInArchive {
    /// The files that were read.
    files: u64,
    /// Those that had rows of forgotten users and were rewritten.
    rewritten: u64,
}

/// Forget a user
///
/// Deletes the user's data from the store and from the archive, all of which is read. Records that are still in journals, on this replica or on
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
        (status = 503, description = "The store or the archive is unavailable", body = Refused),
    )
)]
pub(crate) async fn forget(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Query(which): Query<WhichUser>,
) -> Result<Json<Forgotten>, Failure> {
    let (user, plan) = (which.user()?, state.plan());
    let (mut forgotten, mut archive) = (Vec::new(), None);
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
        archive = from_archive(&state, (user.to_vec(), until_ms)).await?;
    }
    let forwarded_to = plan.forward.iter().map(|it| it.name.to_string());
    Ok(Json(Forgotten {
        forgotten,
        archive,
        forwarded_to: forwarded_to.collect(),
    }))
}

/// Removes a user from archived files, if there is an archive, also when the caller does not wait for it.
async fn from_archive(
    state: &AdminState,
    (user, until_ms): (Vec<u8>, u64),
) -> Result<Option<ForgottenInArchive>, Failure> {
    let Some(archive) = state.plan().archive.clone() else {
        return Ok(None);
    };
    let (store, to) = (Arc::clone(&state.store), archive.to.clone());
    let forgetting = tasks::spawn("forget", async move {
        archive::forget(&archive, &*store, (&user, until_ms)).await
    });
    let why = match forgetting.await {
        Ok(Ok(swept)) => {
            return Ok(Some(ForgottenInArchive {
                files: swept.read,
                rewritten: swept.replaced,
            }));
        }
        Ok(Err(error)) => error.with_advice(),
        Err(error) => error.to_string(),
    };
    Err(Failure::new(
        StatusCode::SERVICE_UNAVAILABLE,
        format!(
            "the counts have forgotten the user, and the archive {to} has not: {why}; ask again when it is available"
        ),
    ))
}
