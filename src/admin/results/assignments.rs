//! Which group a user is in, in every experiment, and why.

use crate::admin::format::rfc3339;
use crate::admin::results::enums;
use crate::config::plan::Plan;
use crate::experiment::identity;
use crate::experiment::resolve::{AssignedBy, Membership, OutsideReason, Subject, membership};
use crate::experiment::units::Units;
use crate::experiment::{Experiment, ExperimentIndex, Lifecycle, UserId};
use crate::store::UserRecord;
use serde::Serialize;
use utoipa::ToSchema;

/// What `/admin/assignments` and `watershed explain` say of one user.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Explained {
    /// The user's ID.
    pub user: String,
    /// In file order.
    pub experiments: Vec<ExperimentAssignment>,
}

/// The assignment in one experiment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Assignment)]
pub(crate) struct ExperimentAssignment {
    /// The experiment.
    pub name: String,
    /// The group; `null` when the user takes no part.
    pub group: Option<String>,
    /// The upstream that the group's users see; `null` without a group, or when the experiment
    /// acts through request headers.
    pub upstream: Option<String>,
    /// `hash`, `sticky`, `override`, `include`, `winner`, `holdback` or `none`.
    #[schema(schema_with = enums::assigned_by)]
    pub by: &'static str,
    /// One sentence.
    pub why: String,
    /// What the store has of the user; `null` when it was not asked or has nothing.
    pub recorded: Option<Recorded>,
}

/// What the store has of a user in one experiment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Recorded {
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

/// What the plan alone says of a user. For an experiment that divides other units, the ID is that of one.
pub(crate) fn explain(plan: &Plan, user: &[u8]) -> Explained {
    let is_id = !identity::is_no_id(user);
    let user_id = UserId::new(user).filter(|_| is_id);
    let units = Units::all(plan.units.len(), user);
    let subject = user_id.map(|user| Subject {
        units: Some(&units),
        ..Subject::of(user)
    });
    let experiments = (0..plan.experiments.len()).map(ExperimentIndex);
    let experiments = experiments.map(|index| match &subject {
        None => ExperimentAssignment {
            by: "none",
            why: "this text is no ID: a request with it gets a minted ID".to_owned(),
            ..ExperimentAssignment::outside(plan, index)
        },
        Some(subject) if plan.counting.excludes_id(subject.user) => ExperimentAssignment {
            by: "none",
            why: "the file excludes this ID: its requests get control, and are not counted"
                .to_owned(),
            ..ExperimentAssignment::outside(plan, index)
        },
        Some(subject) => of_membership(plan, index, membership(&plan.experiments, index, subject)),
    });
    Explained {
        user: String::from_utf8_lossy(user).into_owned(),
        experiments: experiments.collect(),
    }
}

impl ExperimentAssignment {
    fn outside(plan: &Plan, index: ExperimentIndex) -> ExperimentAssignment {
        ExperimentAssignment {
            name: plan.experiment(index).name.to_string(),
            group: None,
            upstream: None,
            by: "none",
            why: String::new(),
            recorded: None,
        }
    }
}

/// One experiment's assignment, and the reason in a sentence.
pub(crate) fn of_membership(
    plan: &Plan,
    index: ExperimentIndex,
    membership: Membership,
) -> ExperimentAssignment {
    let experiment = plan.experiment(index);
    let outside = ExperimentAssignment::outside(plan, index);
    match membership {
        Membership::Outside(reason) => ExperimentAssignment {
            why: why_outside(plan, experiment, reason),
            ..outside
        },
        Membership::Inside { group, by } => {
            let group = &experiment.groups[group.0];
            let upstream = group.upstream.map(|upstream| plan.upstream(upstream));
            ExperimentAssignment {
                group: Some(group.name.to_string()),
                upstream: upstream.map(|upstream| upstream.name.to_string()),
                by: by.word(),
                why: why_inside(plan, experiment, &group.name, by),
                ..outside
            }
        }
    }
}

fn why_inside(plan: &Plan, experiment: &Experiment, group: &str, by: AssignedBy) -> String {
    match by {
        AssignedBy::Hash => {
            let id = match experiment.unit {
                None => "the ID".to_owned(),
                Some(unit) => format!("the ID as {}", plan.units[unit.0].name),
            };
            let sticky = match experiment.is_sticky {
                true => "; a browser that was in another group before stays there (sticky)",
                false => "",
            };
            format!(
                "the hash of {id} with the salt {:?} falls to {group}, on requests that match{sticky}",
                experiment.salt
            )
        }
        AssignedBy::Sticky(_) => {
            format!("the cookie says that the user was in {group} before (sticky)")
        }
        AssignedBy::Override => format!("a signed override asks for {group}"),
        AssignedBy::Include => format!("the file puts this ID into {group} (include); not counted"),
        AssignedBy::Pinned => {
            format!("the page that the request belongs to came from {group}; not counted")
        }
        AssignedBy::Winner => match experiment.lifecycle {
            Lifecycle::Paused => {
                format!("the experiment is paused: everyone who matches sees {group}")
            }
            Lifecycle::RolledBack => {
                format!("the experiment was rolled back: everyone who matches sees {group}")
            }
            _ => format!("{group} has won: everyone who matches sees it"),
        },
        AssignedBy::Holdback => {
            format!("another group has won, and this user keeps {group} (holdback); not counted")
        }
    }
}

fn why_outside(plan: &Plan, experiment: &Experiment, reason: OutsideReason) -> String {
    let share = 100.0 * experiment.traffic.get();
    match reason {
        OutsideReason::NotMatched => "the request does not match".to_owned(),
        OutsideReason::OutsideTraffic => {
            format!("the hash of the ID is outside the traffic share of {share} %")
        }
        OutsideReason::Ramp => format!(
            "the ramp admits {share} % of users now, and the hash of the ID is beyond that; the user gets control, and may be admitted later"
        ),
        OutsideReason::NotRunning(lifecycle) => {
            let why = match lifecycle {
                Lifecycle::Draft => "the experiment is a draft",
                Lifecycle::Scheduled => "the experiment has not started",
                _ => "the experiment has ended",
            };
            format!("{why}: everybody gets control")
        }
        OutsideReason::AnotherChose(other) => {
            let other = &plan.experiment(other).name;
            format!("{other} has chosen the upstream of this request")
        }
        OutsideReason::Holdout => "the user is in the holdout".to_owned(),
        OutsideReason::Layer => {
            let layer = experiment.admission.layer.as_ref();
            let layer = layer.map_or("", |layer| &layer.name);
            format!(
                "the user's slot in layer {layer} is not among the {share} % of this experiment"
            )
        }
        OutsideReason::Requires(other) => {
            let requires = experiment.admission.requires.iter();
            let mut requires = requires.filter(|(required, _)| *required == other);
            let group = requires.next().map_or("", |(required, group)| {
                &plan.experiment(*required).groups[group.0].name
            });
            let other = &plan.experiment(other).name;
            format!("the user is not in {group} of {other}, which this experiment requires")
        }
        OutsideReason::Closed => {
            "enrolment is closed, and only users with a cookie from before are inside".to_owned()
        }
        OutsideReason::NoUnit => {
            let unit = experiment.unit.map(|unit| &plan.units[unit.0].name);
            let unit = unit.map_or("", |name| name);
            format!("the request has no {unit}, which this experiment divides by")
        }
    }
}
