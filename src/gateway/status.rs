//! What the API is told of a route. PURE.

use super::http_route::{HttpRoute, ParentRef};
use super::problem::{ProblemReason, RouteProblem};
use serde_json::{Value, json};

/// Who writes the status.
pub const CONTROLLER: &str = "watershed/http-routes";

/// Returns the status of a route, where it has to change: what others have written stays. `gateway` is its namespace
/// and name, `now` a time in RFC 3339. `refused` is why the routes file that has the route is invalid.
pub fn status(
    route: &HttpRoute,
    gateway: (&str, &str),
    (problems, refused): (&[&RouteProblem], Option<&str>),
    now: &str,
) -> Option<Value> {
    let (mut of_values, mut of_services) = (Vec::new(), Vec::new());
    for problem in problems {
        match problem.reason {
            ProblemReason::UnsupportedValue => of_values.push(&*problem.message),
            ProblemReason::RefNotPermitted | ProblemReason::InvalidKind => {
                of_services.push(&*problem.message);
            }
        }
    }
    of_values.extend(refused);
    let reason = match problems
        .iter()
        .find(|it| it.reason != ProblemReason::UnsupportedValue)
    {
        Some(problem) if problem.reason == ProblemReason::InvalidKind => "InvalidKind",
        _ => "RefNotPermitted",
    };
    let condition = |kind: &str, faults: &[&str], otherwise: (&str, &str)| {
        let is_sound = faults.is_empty();
        json!({
            "type": kind,
            "status": if is_sound { "True" } else { "False" },
            "reason": if is_sound { otherwise.0 } else { otherwise.1 },
            "message": faults.join("; "),
            "observedGeneration": route.metadata.generation,
        })
    };
    let conditions = [
        condition("Accepted", &of_values, ("Accepted", "UnsupportedValue")),
        condition("ResolvedRefs", &of_services, ("ResolvedRefs", reason)),
    ];
    let written = route.status["parents"].as_array();
    let written: &[Value] = written.map_or(&[], |list| list);
    let is_ours = |parent: &Value| parent["controllerName"] == CONTROLLER;
    let mut parents: Vec<Value> = written.iter().filter(|it| !is_ours(it)).cloned().collect();
    let mut has_changed = false;
    let refs = route.spec.parent_refs.iter();
    for parent in refs.filter(|it| it.is(gateway, &route.metadata.namespace)) {
        let reference = reference(parent);
        let before = written
            .iter()
            .find(|it| is_ours(it) && it["parentRef"] == reference);
        let conditions = conditions.iter();
        let conditions = conditions.map(|condition| since(condition, before, now));
        let parent = json!({
            "parentRef": reference,
            "controllerName": CONTROLLER,
            "conditions": conditions.collect::<Vec<_>>(),
        });
        has_changed |= before != Some(&parent);
        parents.push(parent);
    }
    has_changed |= parents.len() != written.len();
    has_changed.then(|| json!({ "parents": parents }))
}

/// A gateway as a route names it.
fn reference(parent: &ParentRef) -> Value {
    let mut reference = json!({ "name": parent.name });
    let fields = [
        ("group", parent.group.clone().map(Value::from)),
        ("kind", parent.kind.clone().map(Value::from)),
        ("namespace", parent.namespace.clone().map(Value::from)),
        ("sectionName", parent.section_name.clone().map(Value::from)),
        ("port", parent.port.map(Value::from)),
    ];
    for (key, value) in fields {
        if let Some(value) = value {
            reference[key] = value;
        }
    }
    reference
}

/// A condition with the time since when it has its status.
fn since(condition: &Value, before: Option<&Value>, now: &str) -> Value {
    let known = before.and_then(|parent| parent["conditions"].as_array());
    let mut known = known.into_iter().flatten();
    let same =
        known.find(|it| it["type"] == condition["type"] && it["status"] == condition["status"]);
    let since = same.map(|it| it["lastTransitionTime"].clone());
    let mut condition = condition.clone();
    condition["lastTransitionTime"] = since.unwrap_or_else(|| json!(now));
    condition
}
