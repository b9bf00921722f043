//! The datafile of Optimizely Feature Experimentation.

use super::imported::{Imported, ImportedExperiment, named_groups, percent, says_something, text};
use serde_json::Value;

/// The number of buckets.
const BUCKETS: f64 = 10_000.0;

/// Reads the datafile.
pub(super) fn read(datafile: &Value, into: &mut Imported) -> Result<(), String> {
    let experiments = datafile.get("experiments").and_then(Value::as_array);
    for own in experiments.ok_or("it has no `experiments`")? {
        let name = text(own.get("key")).ok_or("an experiment has no `key`")?;
        if let Err(why) = experiment(&name, own, into) {
            into.leave_out(&name, why);
        }
    }
    for group in datafile
        .get("groups")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let id = text(group.get("id")).unwrap_or_default();
        for own in group
            .get("experiments")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let name = text(own.get("key")).unwrap_or_default();
            into.leave_out(
                &name,
                format!("it is in the exclusion group {id}, which has a hash of its own"),
            );
        }
    }
    let rollouts = datafile
        .get("rollouts")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let rules = rollouts.flat_map(|rollout| rollout.get("experiments").and_then(Value::as_array));
    let count = rules.map(Vec::len).sum::<usize>();
    if count > 0 {
        into.leave_out(
            "rollouts",
            format!("{count} delivery rules, which are no experiments"),
        );
    }
    Ok(())
}

/// Reads an experiment; or says why it is not carried over.
fn experiment(name: &str, own: &Value, into: &mut Imported) -> Result<(), String> {
    let status = text(own.get("status")).unwrap_or_default();
    if status != "Running" {
        return Err(format!("its status is {status:?}"));
    }
    if says_something(own.get("cmab")) {
        return Err("it is a contextual bandit".to_owned());
    }
    let id = text(own.get("id")).ok_or("it has no `id`")?;
    let ranges = ranges(own)?;
    let sum: f64 = ranges.iter().map(|(_, width)| width).sum();
    let key_of = |id: &str| {
        let variations = own.get("variations").and_then(Value::as_array);
        let mut variations = variations.into_iter().flatten();
        let found = variations.find(|it| text(it.get("id")).is_some_and(|it| it == id));
        found.and_then(|it| text(it.get("key")))
    };
    let mut groups = Vec::new();
    for (id, width) in &ranges {
        let key = key_of(id).ok_or_else(|| format!("it has no variation with the id {id}"))?;
        groups.push((key.clone(), width.to_string(), Some(Value::String(key))));
    }
    let keys: Vec<String> = groups.iter().map(|(key, ..)| key.clone()).collect();
    let mut groups = named_groups(groups);
    for (group, key) in groups.iter_mut().zip(&keys) {
        // A group's value is its name unless given.
        if group.name == *key {
            group.value = None;
        }
    }
    if groups.iter().any(|group| group.value.is_some()) {
        // An SDK reads a flag with one type: all values are texts either way.
        for (group, key) in groups.iter_mut().zip(&keys) {
            group.value = Some(Value::String(key.clone()));
        }
    }
    let forced = own.get("forcedVariations").and_then(Value::as_object);
    for (user, key) in forced.into_iter().flatten() {
        match keys.iter().position(|own| Some(&**own) == key.as_str()) {
            Some(place) => groups[place].include.push(user.clone()),
            None => into.leave_out(
                name,
                format!("the forced variation of {user:?}, which has no range"),
            ),
        }
    }
    for key in ["audienceIds", "audienceConditions"] {
        if says_something(own.get(key)) {
            into.leave_out(name, format!("`{key}`"));
        }
    }
    let own_name = into.name(name);
    into.experiments.push(ImportedExperiment {
        name: own_name,
        algorithm: "optimizely",
        salt: id,
        traffic_salt: None,
        traffic: percent(sum / BUCKETS),
        groups,
    });
    Ok(())
}

/// The variations with the width of their ranges, which must follow each other from bucket 0.
fn ranges(own: &Value) -> Result<Vec<(String, f64)>, String> {
    let allocation = own.get("trafficAllocation").and_then(Value::as_array);
    let mut ranges: Vec<(String, f64)> = Vec::new();
    let (mut start, mut has_gap) = (0.0, false);
    for range in allocation.into_iter().flatten() {
        let id = text(range.get("entityId")).unwrap_or_default();
        let end = range.get("endOfRange").and_then(Value::as_f64);
        let end = end.filter(|end| (start..=BUCKETS).contains(end));
        let end = end.ok_or("its ranges do not ascend")?;
        let width = end - start;
        start = end;
        if width == 0.0 {
            continue;
        }
        if id.is_empty() {
            has_gap = true;
            continue;
        }
        let is_last = ranges.last().is_some_and(|(last, _)| *last == id);
        if has_gap || !is_last && ranges.iter().any(|(other, _)| *other == id) {
            let why = "its ranges have gaps, or a variation has several: users would move";
            return Err(why.to_owned());
        }
        match ranges.last_mut().filter(|_| is_last) {
            Some((_, wide)) => *wide += width,
            None => ranges.push((id, width)),
        }
    }
    match ranges.len() {
        0 | 1 => Err("less than two variations have a range".to_owned()),
        _ => Ok(ranges),
    }
}
