//! The JSON Schema of `routes.yaml`. It is derived from how example files with every key are read.

use super::check;
use super::document::RoutesDocument;
use super::key_recorder::{ANY, DEFINITIONS, ValueForm, by_path};
use super::plan::IdLists;
use super::reader::ReadContext;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

/// Examples that have every key in each of its forms. A test names a missing one.
const SHOWN: &[&str] = &[
    include_str!("schema/all.yaml"),
    include_str!("schema/forms.yaml"),
    NAMING_FILES,
    // `trace` has more forms than there are files.
    "upstreams: { a: http://127.0.0.1:1 }\ntrace: 10%",
    "upstreams: { a: http://127.0.0.1:1 }\ntrace: { otlp: true }",
    "upstreams: { a: http://127.0.0.1:1 }\nstore: { url: postgres://ws@127.0.0.1/db, schema: watershed }",
];
/// An example that names files which do not exist.
const NAMING_FILES: &str = include_str!("schema/files.yaml");

/// The definition of a value with an environment variable.
const ENVIRONMENT: &str = "environment";

type Known = BTreeMap<Vec<String>, Vec<ValueForm>>;

/// Returns the schema (draft 7, which editors support best).
pub fn schema() -> Value {
    let known = known();
    let mut schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "watershed routes.yaml",
    });
    let whole = of(&known, &[], None);
    if let (Value::Object(schema), Value::Object(whole)) = (&mut schema, whole) {
        schema.extend(whole);
        let paths = known.keys();
        let paths = paths.filter(|path| path.len() == 2 && path[0] == DEFINITIONS);
        let definitions = paths.map(|path| (path[1].clone(), of(&known, path, None)));
        let environment = json!({
            "type": "string",
            "pattern": r"\$\{",
            "description": "${NAME} or ${NAME:-default}: an environment variable",
        });
        let definitions = definitions.chain([(ENVIRONMENT.to_owned(), environment)]);
        schema.insert(DEFINITIONS.to_owned(), Value::Object(definitions.collect()));
    }
    schema
}

fn known() -> Known {
    let mut all = Vec::new();
    let path = Path::new("routes.yaml");
    for text in SHOWN {
        let Ok(document) = RoutesDocument::read(path, text, &|_| None) else {
            continue;
        };
        let ids = IdLists::new();
        let mut reading = ReadContext::of(&document, &|_| None, &ids);
        reading.recorded = Some(RefCell::default());
        check::plan(&check::root(&reading, &document.value), 1, 0);
        all.extend(reading.recorded.into_iter().flat_map(RefCell::into_inner));
    }
    by_path(&all)
}

/// Returns the schema of the value at a path.
fn of(known: &Known, path: &[String], holds: Option<&str>) -> Value {
    let below = |part: &str, holds: Option<&str>| {
        let path: Vec<String> = path.iter().cloned().chain([part.to_owned()]).collect();
        of(known, &path, holds)
    };
    let mut forms: Vec<Value> = Vec::new();
    let mut keys = Map::new();
    let mut is_list = false;
    for seen in known.get(path).into_iter().flatten() {
        match seen {
            ValueForm::Keys(all) => {
                for (key, holds) in all {
                    keys.insert(key.clone(), below(key, Some(holds)));
                }
            }
            ValueForm::Named => {
                forms.push(json!({ "type": "object", "additionalProperties": below(ANY, None) }));
            }
            ValueForm::List => is_list = true,
            ValueForm::Text => forms.push(json!({ "type": ["string", "number"] })),
            ValueForm::Words(words) => forms.push(json!({ "enum": words })),
            ValueForm::Bool => forms.push(json!({ "type": "boolean" })),
            ValueForm::Whole(low, high) => {
                forms.push(json!({ "type": "integer", "minimum": low, "maximum": high }));
            }
            ValueForm::Number => forms.push(json!({ "type": "number" })),
            ValueForm::Percent => {
                forms.push(json!({ "type": "string", "pattern": "^[0-9.]+ *%$" }));
            }
            ValueForm::Duration => {
                forms.push(json!({ "type": "string", "pattern": "^([0-9]+ *[A-Za-zµ]+ *)+$" }));
            }
            ValueForm::Defined(name) => {
                forms.push(json!({ "$ref": format!("#/{DEFINITIONS}/{name}") }));
            }
            ValueForm::Anything => {
                forms.push(json!({ "type": ["boolean", "string", "number", "object"] }));
            }
            ValueForm::Bytes => forms.push(json!({ "type": ["string", "integer"] })),
        }
    }
    if may_come_from_environment(known.get(path)) {
        forms.push(json!({ "$ref": format!("#/{DEFINITIONS}/{ENVIRONMENT}") }));
    }
    if !keys.is_empty() {
        forms.push(json!({ "type": "object", "additionalProperties": false, "properties": keys }));
    }
    let any = |mut forms: Vec<Value>| match forms.len() {
        0 => json!({}),
        1 => forms.remove(0),
        _ => json!({ "anyOf": forms }),
    };
    if is_list {
        forms.push(json!({ "type": "array", "items": any(forms.clone()) }));
    }
    let mut schema = match &forms[..] {
        // Draft 7 ignores what stands beside a reference.
        [form] if form.get("$ref").is_some() => json!({ "allOf": forms }),
        _ => any(forms),
    };
    if let (Some(holds), Value::Object(schema)) = (holds, &mut schema) {
        schema.insert("description".to_owned(), holds.into());
    }
    schema
}

/// Whether an environment variable is a value of its own beside these forms. A text may be one anyway.
fn may_come_from_environment(forms: Option<&Vec<ValueForm>>) -> bool {
    let is_typed = |form: &ValueForm| {
        matches!(
            form,
            ValueForm::Words(_)
                | ValueForm::Bool
                | ValueForm::Whole(..)
                | ValueForm::Number
                | ValueForm::Percent
                | ValueForm::Duration
        )
    };
    let forms = || forms.into_iter().flatten();
    let mut texts = forms().filter(|form| matches!(form, ValueForm::Text | ValueForm::Bytes));
    forms().any(is_typed) && texts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_valid() {
        for text in SHOWN {
            let found = super::super::parse(text, Path::new("routes.yaml"), &|_| None);
            let diagnostics = found
                .err()
                .map_or(Vec::new(), |invalid| invalid.diagnostics);
            let mut other = diagnostics.iter().filter(|problem| {
                *text != NAMING_FILES || !problem.found.contains("cannot be read")
            });
            assert!(other.next().is_none(), "{diagnostics:#?}");
        }
    }

    #[test]
    fn every_key_has_an_example() {
        let known = known();
        let mut missing = Vec::new();
        for (path, seen) in &known {
            for seen in seen {
                let ValueForm::Keys(keys) = seen else {
                    continue;
                };
                for (key, _) in keys {
                    let below: Vec<String> = path.iter().cloned().chain([key.clone()]).collect();
                    if !known.contains_key(&below) {
                        missing.push(below.join("."));
                    }
                }
            }
        }
        assert!(
            missing.is_empty(),
            "no example in src/config/schema/*.yaml: {missing:#?}"
        );
    }

    #[test]
    fn schema_file_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/routes.schema.json");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        let now = format!("{:#}\n", schema());
        assert!(
            kept == now,
            "run: cargo run -- schema > config/routes.schema.json"
        );
    }
}
