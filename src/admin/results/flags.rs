//! Experiments as feature flags: which value a user gets, by OpenFeature's terms.

use crate::config::plan::Plan;
use crate::experiment::identity::{self, IdSource};
use crate::experiment::minted;
use crate::experiment::resolve::{AssignedBy, Membership, Subject, membership};
use crate::experiment::units::Units;
use crate::experiment::{ExperimentIndex, UserId};
use serde::Serialize;
use serde_json::{Map, Value};
use std::borrow::Cow;
use utoipa::ToSchema;

/// The key of the context that holds the user's ID.
pub const TARGETING_KEY: &str = "targetingKey";

/// Who a flag is evaluated for.
#[derive(Debug)]
pub struct FlagContext<'a> {
    user: UserId<'a>,
    units: Units<'a>,
}

/// Why a context names nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextError {
    /// It has no targeting key.
    NoTargetingKey,
    /// Its targeting key is no ID.
    NoId(&'static str),
}

impl<'a> FlagContext<'a> {
    /// Reads who a context names. The value of a cookie of a minted ID stands for the ID. What `bucket_by`
    /// divides is an attribute with the name of the header, cookie, parameter or claim.
    pub fn of(
        plan: &Plan,
        context: &'a Map<String, Value>,
    ) -> Result<FlagContext<'a>, ContextError> {
        let key = match context.get(TARGETING_KEY) {
            None | Some(Value::Null) => return Err(ContextError::NoTargetingKey),
            Some(Value::String(key)) if key.is_empty() => return Err(ContextError::NoTargetingKey),
            Some(Value::String(key)) => key.as_bytes(),
            Some(_) => return Err(ContextError::NoId("`targetingKey` is no text")),
        };
        let id = UserId::trim(minted::id_of(&plan.identity.keys, key));
        let user = UserId::new(id).filter(|_| !identity::is_no_id(id));
        let user = user.ok_or(ContextError::NoId("`targetingKey` is no ID"))?;
        if id.len() > plan.identity.id_bytes_max {
            return Err(ContextError::NoId(
                "`targetingKey` is longer than identity.max_length",
            ));
        }
        let unit = |source: &IdSource| {
            let name: &str = match source {
                IdSource::Header(name) => name.as_str(),
                IdSource::Cookie(name) | IdSource::Query(name) => name,
                IdSource::Jwt { claim, .. } => claim,
            };
            let mut attributes = context.iter();
            let (_, value) = attributes.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            let id = match value {
                Value::String(text) => Cow::Borrowed(text.as_bytes()),
                Value::Number(number) => Cow::Owned(number.to_string().into_bytes()),
                _ => return None,
            };
            let usable = !identity::is_no_id(&id) && id.len() <= plan.identity.id_bytes_max;
            usable.then_some(id)
        };
        Ok(FlagContext {
            user,
            units: Units::named(plan.units.iter().map(|it| unit(&it.source))),
        })
    }
}

/// The value of a flag for a user.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct EvaluatedFlag {
    /// The flag: the experiment's name.
    pub key: String,
    /// `SPLIT` (by hash), `TARGETING_MATCH` (the file names the user), `STATIC` (the experiment is over: everybody
    /// gets this value) or `DEFAULT` (the user takes no part).
    pub reason: &'static str,
    /// The group's name; empty for a user who takes no part.
    pub variant: String,
    /// What the group has as `value`, or its name. Left out for a user who takes no part: the program's own default
    /// applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub value: Option<Value>,
    /// More about the reason.
    pub metadata: FlagMetadata,
}

/// More about the reason for a value.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct FlagMetadata {
    /// `hash`, `include`, `winner` or `holdback`; or why the user takes no part, such as `traffic` or `excluded`.
    pub by: &'static str,
}

/// A user's exposure to a group by a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagExposure {
    /// The experiment's name.
    pub experiment: Box<str>,
    /// The group's name.
    pub group: Box<str>,
    /// The user's ID, or that of the unit that the experiment divides.
    pub id: Box<[u8]>,
}

/// Evaluates a flag. Conditions on requests (`match`, `expose`) do not apply, because there is none. Returns also
/// the exposure, where chance has chosen the group.
pub fn evaluate(
    plan: &Plan,
    index: ExperimentIndex,
    context: &FlagContext<'_>,
) -> (EvaluatedFlag, Option<FlagExposure>) {
    let experiment = plan.experiment(index);
    let subject = Subject {
        units: Some(&context.units),
        ..Subject::of(context.user)
    };
    let flag = |reason, by, variant: &str, value| EvaluatedFlag {
        key: experiment.name.to_string(),
        reason,
        variant: variant.to_owned(),
        value,
        metadata: FlagMetadata { by },
    };
    if plan.counting.excludes_id(context.user) {
        return (flag("DEFAULT", "excluded", "", None), None);
    }
    let (group, by) = match membership(&plan.experiments, index, &subject) {
        Membership::Outside(reason) => return (flag("DEFAULT", reason.word(), "", None), None),
        Membership::Inside { group, by } => (&experiment.groups[group.0], by),
    };
    let reason = match by {
        AssignedBy::Hash | AssignedBy::Sticky(_) | AssignedBy::Holdback => "SPLIT",
        AssignedBy::Include | AssignedBy::Override | AssignedBy::Pinned => "TARGETING_MATCH",
        AssignedBy::Winner => "STATIC",
    };
    let id = match experiment.unit {
        None => Some(context.user),
        Some(unit) => context.units.id(unit),
    };
    let exposure = id.filter(|_| by.is_random()).map(|id| FlagExposure {
        experiment: experiment.name.clone(),
        group: group.name.clone(),
        id: id.as_bytes().into(),
    });
    let value = group.value.clone();
    let value = value.unwrap_or_else(|| Value::from(&*group.name));
    (flag(reason, by.word(), &group.name, Some(value)), exposure)
}
