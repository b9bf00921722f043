//! What the store keeps of an experiment's part of the file, so that it can be served and shown after it
//! left the file: a routes file of this experiment alone, as JSON.

use super::file::Value;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;

/// Keys of an experiment that name what other parts of the file or other files say, or that act.
const LEFT_OUT: &[&str] = &[
    "act_on", "confirm", "end", "include", "mirror", "on_alarm", "ramp", "requires", "start",
    "state",
];
/// An address for upstreams whose names alone matter.
const NOWHERE: &str = "http://127.0.0.1:9";

/// Returns the definition of each experiment of a file.
pub fn texts(file: &Value) -> BTreeMap<String, String> {
    let Some(Value::Map(experiments)) = part(file, "experiments") else {
        return BTreeMap::new();
    };
    let upstreams = match part(file, "upstreams") {
        Some(Value::Map(map)) => map.iter().map(|(name, _)| name.as_str()).collect(),
        _ => Vec::new(),
    };
    let upstreams = upstreams.into_iter();
    let upstreams = upstreams.map(|name| (name.to_owned(), Value::Text(NOWHERE.to_owned())));
    let upstreams = Value::Map(upstreams.collect());
    let text = |(name, experiment): &(String, Value)| {
        let experiment = without_difference(&without(experiment, LEFT_OUT));
        let experiment = Value::Map(vec![(name.clone(), experiment)]);
        let mut whole = vec![
            ("upstreams".to_owned(), upstreams.clone()),
            ("experiments".to_owned(), experiment),
        ];
        for key in ["metrics", "segments"] {
            whole.extend(part(file, key).map(|value| (key.to_owned(), value.clone())));
        }
        let mut text = String::new();
        write(&Value::Map(whole), &mut text);
        (name.clone(), text)
    };
    experiments.iter().map(text).collect()
}

/// Whether two definitions of an experiment mean the same versions for the same requests: the same
/// conditions, salt, groups and upstreams.
pub fn is_same_version(name: &str, one: &str, other: &str) -> bool {
    let version = |text: &str| {
        let whole: Json = serde_json::from_str(text).ok()?;
        let experiment = whole.get("experiments")?.get(name)?;
        let groups = experiment.get("groups").and_then(Json::as_object);
        let upstreams = groups.into_iter().flatten();
        let upstreams = upstreams.map(|(group, it)| (group.clone(), it["upstream"].clone()));
        Some(json!([
            experiment["match"],
            experiment["salt"],
            experiment["control"],
            experiment["experiment"],
            upstreams.collect::<Map<_, _>>(),
        ]))
    };
    version(one) == version(other)
}

/// Returns the conditions of an experiment's definition, as the file has them.
pub fn conditions(name: &str, definition: &str) -> String {
    let whole: Json = serde_json::from_str(definition).unwrap_or_default();
    match &whole["experiments"][name]["match"] {
        Json::Null => "all requests".to_owned(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn part<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let Value::Map(map) = value else {
        return None;
    };
    let (_, value) = map.iter().find(|(name, _)| name == key)?;
    Some(value)
}

/// Returns an experiment's part of the file without these keys.
pub(super) fn without(experiment: &Value, left_out: &[&str]) -> Value {
    let Value::Map(map) = experiment else {
        return experiment.clone();
    };
    let kept = map.iter().filter(|(key, _)| !left_out.contains(&&**key));
    Value::Map(kept.cloned().collect())
}

/// Returns an experiment's part of the file without `expose: differs`, which asks for a mirror.
fn without_difference(experiment: &Value) -> Value {
    let expose = part(experiment, "expose");
    match expose == Some(&Value::Text("differs".to_owned())) {
        true => without(experiment, &["expose"]),
        false => experiment.clone(),
    }
}

/// Writes a value as JSON. Maps keep their order, which decides the primary metric and control.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Nothing => out.push_str("null"),
        Value::Bool(value) => out.push_str(&value.to_string()),
        Value::Number(_, text) if serde_json::from_str::<serde_json::Number>(text).is_ok() => {
            out.push_str(text);
        }
        Value::Number(_, text) | Value::Text(text) => write_text(text, out),
        Value::List(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                out.push_str(if place > 0 { "," } else { "" });
                write(item, out);
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for (place, (key, value)) in map.iter().enumerate() {
                out.push_str(if place > 0 { "," } else { "" });
                write_text(key, out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push_str(&Json::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::plan::Plan;
    use crate::experiment::GroupIndex;
    use std::path::Path;

    fn plan(experiments: &str) -> Plan {
        let text = format!(
            "upstreams: {{ a: \"http://127.0.0.1:1\", b: \"http://127.0.0.1:2\" }}\nexperiments:\n{experiments}\n\
             metrics: {{ zeta: \"POST /z -> 2xx\", alpha: {{ event: alpha }} }}\n"
        );
        config::parse(&text, Path::new("routes.yaml"), &|_| None).unwrap()
    }

    #[test]
    fn definition_is_read_as_the_same_experiment() {
        let plan = plan(
            "  one: { match: { path: /x/**, query: { q: [ \"1\", \"a\\\"b\" ] } }, groups: { z: { weight: 0.5, upstream: b }, a: { weight: 0x10, upstream: a } }, requires: { two: control } }\n  \
               two: { control: a, experiment: b, percent: 12.5 }",
        );
        for experiment in &plan.experiments {
            let text = &plan.definitions[&*experiment.name];
            let restored = config::restore(text).unwrap();
            assert_eq!(restored.experiments.len(), 1);
            let again = &restored.experiments[0];
            assert_eq!(again.epoch, experiment.epoch, "{text}");
            assert_eq!(again.control, GroupIndex(0));
            let debug = |it: &crate::experiment::Experiment| {
                format!("{:?} {:?} {:?}", it.matcher, it.groups, it.metrics)
            };
            assert_eq!(debug(again), debug(experiment));
            assert_eq!(&*restored.metrics[again.metrics[0].0].name, "zeta");
        }
    }

    #[test]
    fn definitions_of_every_key_can_be_restored() {
        for text in [
            include_str!("schema/all.yaml"),
            include_str!("schema/forms.yaml"),
        ] {
            let (value, _) = crate::config::file::parse(Path::new("routes.yaml"), text, 0).unwrap();
            for (name, text) in texts(&value) {
                let restored = config::restore(&text);
                assert!(restored.is_ok(), "{name}: {:?}\n{text}", restored.err());
            }
        }
    }

    #[test]
    fn version_is_conditions_salt_groups_and_upstreams() {
        let check = |one: &str, other: &str, expected: bool| {
            let text = |experiment: &str| plan(experiment).definitions["e"].clone();
            let found = is_same_version("e", &text(one), &text(other));
            assert_eq!(found, expected, "{one} | {other}");
        };
        let short = "  e: { control: a, experiment: b, percent: 50 }";
        check(
            short,
            "  e: { control: a, experiment: b, percent: 20, traffic: 10% }",
            true,
        );
        check(
            short,
            "  e: { control: b, experiment: a, percent: 50 }",
            false,
        );
        check(
            short,
            "  e: { control: a, experiment: b, percent: 50, match: /x }",
            false,
        );
        check(
            short,
            "  e: { control: a, experiment: b, percent: 50, salt: s }",
            false,
        );
        let long = |weight, upstream: &str| {
            format!(
                "  e: {{ groups: {{ control: {{ weight: 1, upstream: a }}, b: {{ weight: {weight}, upstream: {upstream} }} }} }}"
            )
        };
        check(&long(1, "b"), &long(2, "b"), true);
        check(&long(1, "b"), &long(1, "a"), false);
        check(short, &long(1, "b"), false);
    }
}
