//! Which group a user is in, in every experiment, and why.

use crate::admin::format::rfc3339;
use crate::admin::results::enums;
use crate::config::plan::Plan;
use crate::experiment::identity;
use crate::experiment::resolve::{AssignedBy, Membership, OutsideReason, membership};
use crate::experiment::{Experiment, UserId};
use crate::store::UserRecord;
use serde::Serialize;
use utoipa::ToSchema;

/// What `/admin/assignments` and `watershed explain` say of one user.
#[derive(Debug, Serialize, ToSchema)]
pub struct Explained {
    /// The user's ID.
    pub user: String,
    /// In file order.
    pub experiments: Vec<ExperimentAssignment>,
}

/// The assignment in one experiment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Assignment)]
pub struct ExperimentAssignment {
    /// The experiment.
    pub name: String,
    /// The group; `null` when the user takes no part.
    pub group: Option<String>,
    /// The upstream that the group's users see; `null` without a group, or when the experiment
    /// acts through request headers.
    pub upstream: Option<String>,
    /// `hash`, `winner` or `none`.
    #[schema(schema_with = enums::assigned_by)]
    pub by: &'static str,
    /// One sentence.
    pub why: String,
    /// What the store has of the user; `null` when it was not asked or has nothing.
    pub recorded: Option<Recorded>,
}

/// What the store has of a user in one experiment.
#[derive(Debug, Serialize, ToSchema)]
pub struct Recorded {
    /// The group of first exposure.
    pub group: String,
    /// When, as RFC 3339.
    pub first_exposure: Option<String>,
    /// Whether the user was later seen in another group.
    pub crossed_over: bool,
    /// Whether the user is not counted yet, because the minted ID has not come back.
    pub seen_once: bool,
    /// Events by metric.
    pub events: std::collections::BTreeMap<String, u64>,
}

impl From<UserRecord> for Recorded {
    fn from(record: UserRecord) -> Recorded {
        Recorded {
            group: record.group,
            first_exposure: rfc3339(record.first_ms),
            crossed_over: record.crossed_over,
            seen_once: record.seen_once,
            events: record
                .metrics
                .into_iter()
                .map(|(metric, of)| (metric, of.count))
                .collect(),
        }
    }
}

/// What the plan alone says of a user.
pub fn explain(plan: &Plan, user: &[u8]) -> Explained {
    let experiments = plan
        .experiments
        .iter()
        .map(|experiment| explain_one(plan, experiment, user))
        .collect();
    Explained {
        user: String::from_utf8_lossy(user).into_owned(),
        experiments,
    }
}

fn explain_one(plan: &Plan, experiment: &Experiment, user: &[u8]) -> ExperimentAssignment {
    let is_id = !identity::is_no_id(user);
    let standing = UserId::new(user).filter(|_| is_id);
    let standing = standing.map(|user| membership(experiment, user, None));
    let (group, by, why) = match standing {
        None => (
            None,
            "none",
            "this text is no ID: a request with it gets a minted ID".to_owned(),
        ),
        Some(Membership::Inside {
            group,
            by: AssignedBy::Winner,
        }) => {
            let name = &experiment.groups[group.0].name;
            (
                Some(group),
                "winner",
                format!("{name} has won: everyone who matches sees it"),
            )
        }
        Some(Membership::Inside { group, .. }) => {
            let name = &experiment.groups[group.0].name;
            let why = format!(
                "the hash of the ID with the salt {:?} falls to {name}, on requests that match",
                experiment.salt
            );
            (Some(group), "hash", why)
        }
        Some(Membership::Outside(
            OutsideReason::OutsideTraffic
            | OutsideReason::NotMatched
            | OutsideReason::AnotherChose(_),
        )) => {
            let share = 100.0 * experiment.traffic.get();
            (
                None,
                "none",
                format!("the hash of the ID is outside the traffic share of {share} %"),
            )
        }
    };
    let group = group.map(|group| &experiment.groups[group.0]);
    ExperimentAssignment {
        name: experiment.name.to_string(),
        group: group.map(|group| group.name.to_string()),
        upstream: group
            .and_then(|group| group.upstream)
            .map(|upstream| plan.upstream(upstream).name.to_string()),
        by,
        why,
        recorded: None,
    }
}
