//! The words that fields of results are one of, and their schemas.

use crate::experiment::Lifecycle;
use crate::stats::Method;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> Schema {
    let text = ObjectBuilder::new().schema_type(Type::String);
    text.enum_values(Some(words)).into()
}

/// What an experiment does.
pub(crate) fn status() -> Schema {
    one_of(Lifecycle::ALL.map(Lifecycle::name))
}

/// What a verdict says.
pub(crate) fn verdict() -> Schema {
    one_of([
        "collecting",
        "winner",
        "loser",
        "no_difference",
        "no_planned_lift",
        "inconclusive",
        "invalid",
    ])
}

/// How results name a method.
pub(crate) fn method(method: Method) -> &'static str {
    match method {
        Method::Shares => {
            "mean of the exact conversions-only mixture and the log-lift mixture (always valid)"
        }
        Method::Log => {
            "log-lift normal mixtures on the information clock (always valid, asymptotic)"
        }
        Method::Difference => {
            "normal mixtures of the difference on the information clock (always valid, asymptotic)"
        }
        Method::PlannedAnalyses => {
            "O'Brien-Fleming alpha spending over 30 analyses to the planned end, on the information clock"
        }
        Method::Quantile => {
            "nonparametric mixtures at each place of the quantile, one sample per user (always valid)"
        }
        Method::HarmOnQuantile => {
            "one-sided nonparametric mixtures at each place of the quantile, one sample per user (always valid)"
        }
        Method::HarmedUsers => "exact one-sided conversions-only mixture (always valid)",
        Method::HarmOnLog => "one-sided log-lift normal mixture (always valid, asymptotic)",
    }
}

/// Where counts are.
pub(crate) fn store() -> Schema {
    one_of(["embedded", "postgres", "redis"])
}

/// What a group is compared as.
pub(crate) fn group_role() -> Schema {
    one_of(["control", "experiment"])
}

/// What a metric counts.
pub(crate) fn metric_kind() -> Schema {
    one_of(["conversion", "count", "mean", "ratio", "latency"])
}

/// What is better.
pub(crate) fn metric_goal() -> Schema {
    one_of(["increase", "decrease"])
}

/// What a metric decides.
pub(crate) fn metric_role() -> Schema {
    one_of(["primary", "secondary"])
}

/// Why a user is in a group.
pub(crate) fn crossover() -> Schema {
    one_of(["first", "exclude"])
}

pub(crate) fn confirmer() -> Schema {
    one_of(["person", "webhook"])
}

pub(crate) fn allocation() -> Schema {
    one_of(["fixed", "thompson"])
}

pub(crate) fn on_alarm() -> Schema {
    one_of(["hold", "rollback"])
}

pub(crate) fn decided_by() -> Schema {
    one_of(["person", "rule", "file"])
}

pub(crate) fn enrolment() -> Schema {
    one_of(["open", "closed"])
}

pub(crate) fn assigned_by() -> Schema {
    one_of([
        "hash", "sticky", "override", "include", "winner", "holdback", "none",
    ])
}
