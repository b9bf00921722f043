//! The words that fields of answers are one of, as schemas.

use crate::experiment::Lifecycle;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> Schema {
    let text = ObjectBuilder::new().schema_type(Type::String);
    text.enum_values(Some(words)).into()
}

/// What an experiment does.
pub fn status() -> Schema {
    let decided = [
        Lifecycle::Running,
        Lifecycle::Paused,
        Lifecycle::Promoted,
        Lifecycle::RolledBack,
    ];
    let words = decided.map(Lifecycle::name);
    // No experiment is scheduled yet: whoever reads results should know the word.
    one_of(words.into_iter().chain(["scheduled", "ended"]))
}

/// What a verdict says.
pub fn verdict() -> Schema {
    one_of([
        "collecting",
        "winner",
        "loser",
        "no_difference",
        "no_planned_lift",
        "invalid",
    ])
}

/// Where counts are.
pub fn store() -> Schema {
    one_of(["embedded", "redis"])
}

/// What a group is compared as.
pub fn group_role() -> Schema {
    one_of(["control", "experiment"])
}

/// What a metric counts.
pub fn metric_kind() -> Schema {
    one_of(["conversion", "count", "mean", "ratio"])
}

/// What is better.
pub fn metric_goal() -> Schema {
    one_of(["increase", "decrease"])
}

/// What a metric decides.
pub fn metric_role() -> Schema {
    one_of(["primary", "secondary"])
}

/// Why a user is in a group.
pub fn assigned_by() -> Schema {
    one_of(["hash", "winner", "none"])
}
