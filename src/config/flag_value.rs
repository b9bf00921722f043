//! `value` of a group: what flag SDKs get.

use super::reader::Node;
use crate::experiment::Group;
use serde_json::Value;

/// What it holds.
pub(super) const HOLDS: &str = "what flag SDKs get (OFREP): true or false, a text, a number, or keys; the group's name unless given";

/// Reads the value of a group.
pub(super) fn read(node: &Node<'_>) -> Option<Value> {
    let value = node.json()?;
    if kind(&value).is_none() {
        node.problem("a list", "true or false, a text, a number, or keys");
        return None;
    }
    Some(value)
}

/// Reports groups whose values have different types: an SDK reads a flag with one type. `node` are the groups.
pub(super) fn check(node: &Node<'_>, groups: &[Group]) {
    let kinds = groups.iter().map(|group| match &group.value {
        Some(value) => kind(value).unwrap_or_default(),
        // Its name.
        None => "a text",
    });
    let mut kinds: Vec<&str> = kinds.collect();
    kinds.dedup();
    if let [one, other, ..] = kinds[..] {
        node.problem(
            format!("a `value` is {one}, and another is {other}"),
            "values of one type in all groups (without `value`, a group has the text of its name)",
        );
    }
}

/// The type of a flag; `None` where no flag has it.
fn kind(value: &Value) -> Option<&'static str> {
    match value {
        Value::Bool(_) => Some("true or false"),
        Value::String(_) => Some("a text"),
        Value::Number(_) => Some("a number"),
        Value::Object(_) => Some("a map of keys"),
        Value::Null | Value::Array(_) => None,
    }
}
