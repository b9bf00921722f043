//! The features of a GrowthBook SDK connection.

use super::imported::{Imported, ImportedExperiment, named_groups, percent, says_something, text};
use serde_json::Value;

/// What a rule may have that this program does not do by itself.
const LEFT_OUT: &[&str] = &[
    "condition",
    "parentConditions",
    "namespace",
    "filters",
    "fallbackAttribute",
    "urlPatterns",
];

/// Reads the payload.
pub(super) fn read(payload: &Value, into: &mut Imported) -> Result<(), String> {
    if payload.get("encryptedFeatures").is_some() {
        return Err("it is encrypted".to_owned());
    }
    let features = payload.get("features").and_then(Value::as_object);
    let features = features.ok_or("it has no `features`")?;
    for (name, feature) in features {
        let rules = feature.get("rules").and_then(Value::as_array);
        let rules = rules.map(Vec::as_slice).unwrap_or_default();
        let mut found = false;
        for rule in rules {
            if rule.get("variations").is_some() {
                found = true;
                experiment(name, rule, into);
            } else if rule.get("force").is_some() {
                into.leave_out(name, "a rule with `force`, which is no experiment");
            }
        }
        if !found {
            into.leave_out(name, "no experiment");
        }
    }
    for own in payload
        .get("experiments")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let name = text(own.get("key")).unwrap_or_default();
        into.leave_out(
            &name,
            "an experiment of the visual editor, or one that redirects",
        );
    }
    Ok(())
}

fn experiment(feature: &str, rule: &Value, into: &mut Imported) {
    // As in the SDKs: a rule without a key has that of its feature.
    let key = text(rule.get("key")).unwrap_or_else(|| feature.to_owned());
    let salt = text(rule.get("seed")).filter(|seed| !seed.is_empty());
    let variations = rule.get("variations").and_then(Value::as_array);
    let Some(variations) = variations.filter(|all| all.len() >= 2) else {
        return into.leave_out(&key, "it has less than two variations");
    };
    let algorithm = match rule.get("hashVersion").and_then(Value::as_u64).unwrap_or(1) {
        1 => "growthbook_v1",
        2 => "growthbook_v2",
        other => return into.leave_out(&key, format!("`hashVersion` {other}")),
    };
    let coverage = rule.get("coverage").and_then(Value::as_f64).unwrap_or(1.0);
    let coverage = coverage.clamp(0.0, 1.0);
    let weights = weights(rule, variations.len());
    if !has_own_ranges(rule, &weights, coverage) {
        return into.leave_out(
            &key,
            "its `ranges`, which are not those of its weights and coverage: users would move",
        );
    }
    if weights.contains(&0.0) {
        return into.leave_out(&key, "a variation without weight");
    }
    for left in LEFT_OUT
        .iter()
        .filter(|left| says_something(rule.get(left)))
    {
        into.leave_out(&key, format!("`{left}`"));
    }
    let attribute = text(rule.get("hashAttribute")).unwrap_or_else(|| "id".to_owned());
    if attribute != "id" {
        into.leave_out(
            &key,
            format!("`hashAttribute: {attribute}`: `user` or `bucket_by` must name it"),
        );
    }
    let groups = variations.iter().zip(&weights).enumerate();
    let groups = groups.map(|(place, (value, weight))| {
        let name = match place {
            0 => "control".to_owned(),
            _ => format!("variation-{place}"),
        };
        (name, weight.to_string(), Some(value.clone()))
    });
    let mut groups = named_groups(groups);
    for (place, group) in groups.iter_mut().enumerate() {
        let name = rule.pointer(&format!("/meta/{place}/name"));
        let sound =
            |name: &String| (1..=80).contains(&name.chars().count()) && !name.contains('\n');
        group.label = text(name).filter(sound);
    }
    let name = into.name(&key);
    into.experiments.push(ImportedExperiment {
        name,
        algorithm,
        salt: salt.unwrap_or(key),
        traffic_salt: None,
        traffic: percent(coverage),
        groups,
    });
}

/// The weights that the SDKs use: equal ones where they are missing or do not add up.
fn weights(rule: &Value, count: usize) -> Vec<f64> {
    let given = rule.get("weights").and_then(Value::as_array);
    let given: Option<Vec<f64>> = given.map(|all| all.iter().filter_map(Value::as_f64).collect());
    let sound =
        |all: &Vec<f64>| all.len() == count && (0.99..=1.01).contains(&all.iter().sum::<f64>());
    given
        .filter(sound)
        .unwrap_or_else(|| vec![1.0 / count as f64; count])
}

/// Whether the rule has no ranges, or those that follow from weights and coverage.
fn has_own_ranges(rule: &Value, weights: &[f64], coverage: f64) -> bool {
    let Some(ranges) = rule.get("ranges").and_then(Value::as_array) else {
        return true;
    };
    let mut start = 0.0;
    ranges.len() == weights.len()
        && ranges.iter().zip(weights).all(|(range, weight)| {
            let is = |place: usize, expected: f64| {
                let found = range.get(place).and_then(Value::as_f64);
                found.is_some_and(|found| (found - expected).abs() < 1e-9)
            };
            let same = is(0, start) && is(1, start + coverage * weight);
            start += weight;
            same
        })
}
