//! What the store keeps of an experiment's part of the file, so that it can be served and shown after it
//! left the file: a routes file of this experiment alone, as JSON.

use super::file::{self, Value};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Keys of an experiment that name what other parts of the file or other files say, or that act.
const LEFT_OUT: &[&str] = &[
    "act_on", "confirm", "end", "include", "mirror", "on_alarm", "ramp", "requires", "start",
    "state",
];
/// An address for upstreams whose names alone matter.
const NOWHERE: &str = "http://127.0.0.1:9";

/// Returns the folder of the file that has the value at a path.
pub type FolderOf<'a> = dyn Fn(&[String]) -> PathBuf + 'a;

/// Returns the definition of each experiment of a file. `written` are its values as they stand there.
///
/// What the environment has said is part of a definition. Headers keep the names of secrets instead: these may change, and are
/// not for the store.
pub fn texts(file: &Value, written: &Value, folder: &FolderOf<'_>) -> BTreeMap<String, String> {
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
        let own = without_difference(&without(experiment, LEFT_OUT));
        let own = with_headers(escaped(&own), (written, folder), name);
        let experiment = Value::Map(vec![(name.clone(), own)]);
        let mut whole = vec![
            ("upstreams".to_owned(), upstreams.clone()),
            ("experiments".to_owned(), experiment),
        ];
        for key in ["metrics", "segments"] {
            whole.extend(part(file, key).map(|value| (key.to_owned(), escaped(value))));
        }
        let mut text = String::new();
        write(&Value::Map(whole), &mut text);
        (name.clone(), text)
    };
    experiments.iter().map(text).collect()
}

/// Returns a definition without the headers of groups. One that cannot be read stays as it is.
pub fn without_headers(definition: &str) -> String {
    let Ok((mut whole, _)) = file::parse(Path::new("definition"), definition, 0) else {
        return definition.to_owned();
    };
    let experiments = map_of(&mut whole).find(|(key, _)| key == "experiments");
    for (_, experiment) in experiments.into_iter().flat_map(|(_, it)| map_of(it)) {
        let groups = map_of(experiment).find(|(key, _)| key == "groups");
        for (_, group) in groups.into_iter().flat_map(|(_, it)| map_of(it)) {
            *group = without(group, &["headers"]);
        }
    }
    let mut text = String::new();
    write(&whole, &mut text);
    text
}

/// The keys of a map, none of another value.
fn map_of(value: &mut Value) -> impl Iterator<Item = &mut (String, Value)> {
    let keys = match value {
        Value::Map(keys) => &mut keys[..],
        _ => &mut [],
    };
    keys.iter_mut()
}

/// Returns a value whose texts are read again as they are: `${` is not a name in them.
fn escaped(value: &Value) -> Value {
    match value {
        Value::Text(text) => Value::Text(text.replace("${", "$${")),
        Value::List(items) => Value::List(items.iter().map(escaped).collect()),
        Value::Map(map) => {
            let pairs = map.iter().map(|(key, value)| (key.clone(), escaped(value)));
            Value::Map(pairs.collect())
        }
        other => other.clone(),
    }
}

/// Gives the groups of an experiment their headers as they are written, with whole paths of files.
fn with_headers(
    mut experiment: Value,
    (written, folder): (&Value, &FolderOf<'_>),
    name: &str,
) -> Value {
    let written = part(written, "experiments").and_then(|it| part(it, name));
    let written = written.and_then(|it| part(it, "groups"));
    let groups = map_of(&mut experiment).find(|(key, _)| key == "groups");
    for (group, keys) in groups.into_iter().flat_map(|(_, it)| map_of(it)) {
        let written = written.and_then(|it| part(it, group));
        let written = written.and_then(|it| part(it, "headers"));
        let own = map_of(keys).find(|(key, _)| key == "headers");
        if let Some(((_, own), written)) = own.zip(written) {
            let path = ["experiments", name, "groups", group, "headers"];
            *own = with_whole_paths(written, &mut path.map(str::to_owned).to_vec(), folder);
        }
    }
    experiment
}

fn with_whole_paths(value: &Value, path: &mut Vec<String>, folder: &FolderOf<'_>) -> Value {
    match value {
        Value::Text(text) => match text.strip_prefix("file:") {
            Some(file) if !file.contains("${") => {
                let file = folder(path).join(file);
                let file = std::path::absolute(&file).unwrap_or(file);
                Value::Text(format!("file:{}", file.display()))
            }
            _ => value.clone(),
        },
        Value::Map(map) => {
            let pairs = map.iter().map(|(key, value)| {
                path.push(key.clone());
                let value = with_whole_paths(value, path, folder);
                path.pop();
                (key.clone(), value)
            });
            Value::Map(pairs.collect())
        }
        other => other.clone(),
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
            for (name, text) in texts(&value, &value, &|_| PathBuf::new()) {
                let restored = config::restore(&text);
                assert!(restored.is_ok(), "{name}: {:?}\n{text}", restored.err());
            }
        }
    }
}
