//! The features that Unleash sends to its SDKs.

use super::imported::{
    Imported, ImportedExperiment, ImportedGroup, named_groups, says_something, text,
};
use serde_json::Value;

/// Reads the features.
pub(super) fn read(payload: &Value, into: &mut Imported) -> Result<(), String> {
    let features = payload.get("features").and_then(Value::as_array);
    for feature in features.ok_or("it has no `features`")? {
        let name = text(feature.get("name")).ok_or("a feature has no `name`")?;
        if let Err(why) = experiment(&name, feature, into) {
            into.leave_out(&name, why);
        }
    }
    Ok(())
}

/// Reads a feature; or says why it is not carried over.
fn experiment(name: &str, feature: &Value, into: &mut Imported) -> Result<(), String> {
    if feature.get("enabled") == Some(&Value::Bool(false)) {
        return Err("it is disabled".to_owned());
    }
    let strategies = feature.get("strategies").and_then(Value::as_array);
    let [strategy] = strategies.map(Vec::as_slice).unwrap_or_default() else {
        return Err("it has not exactly one strategy".to_owned());
    };
    let kind = text(strategy.get("name")).unwrap_or_default();
    let rollout = match &*kind {
        "flexibleRollout" => text(strategy.pointer("/parameters/rollout")),
        "default" => Some("100".to_owned()),
        _ => return Err(format!("its strategy is {kind:?}")),
    };
    let rollout: Option<u32> = rollout.and_then(|text| text.trim().parse().ok());
    let rollout = rollout.filter(|percent| *percent <= 100);
    let rollout = rollout.ok_or("its `rollout` is no whole percentage")?;
    let group_id = text(strategy.pointer("/parameters/groupId"));
    let group_id = group_id.unwrap_or_else(|| name.to_owned());
    let variants = |of: &Value| {
        let variants = of.get("variants").and_then(Value::as_array);
        variants.filter(|all| !all.is_empty()).cloned()
    };
    // Variants of a feature are hashed with its name, those of a strategy with its group ID.
    let (variants, salt) = match (variants(strategy), variants(feature)) {
        (Some(own), _) => (own, group_id.clone()),
        (None, Some(of_feature)) => (of_feature, name.to_owned()),
        (None, None) => {
            return Err("it has no variants: it is a rollout, and no experiment".to_owned());
        }
    };
    let groups = groups(&variants)?;
    for (key, from) in [
        ("constraints", strategy),
        ("segments", strategy),
        ("dependencies", feature),
    ] {
        if says_something(from.get(key)) {
            into.leave_out(name, format!("`{key}`"));
        }
    }
    check_stickiness(
        name,
        [
            strategy.pointer("/parameters/stickiness"),
            variants[0].get("stickiness"),
        ],
        into,
    )?;
    if variants
        .iter()
        .any(|it| overrides(it).any(|(context, _)| context != "userId"))
    {
        into.leave_out(name, "`overrides` of something else than `userId`");
    }
    let own_name = into.name(name);
    into.experiments.push(ImportedExperiment {
        name: own_name,
        algorithm: "unleash",
        traffic_salt: (group_id != salt).then_some(group_id),
        salt,
        traffic: format!("{rollout}%"),
        groups,
    });
    Ok(())
}

/// Notes what decides the group where that is not the user's ID.
fn check_stickiness(
    name: &str,
    stickiness: [Option<&Value>; 2],
    into: &mut Imported,
) -> Result<(), String> {
    for stickiness in stickiness.into_iter().filter_map(text) {
        match &*stickiness {
            "default" | "userId" => {}
            "random" => return Err("its stickiness is random".to_owned()),
            other => into.leave_out(
                name,
                format!("`stickiness: {other}`: `user` or `bucket_by` must name it"),
            ),
        }
    }
    Ok(())
}

fn groups(variants: &[Value]) -> Result<Vec<ImportedGroup>, String> {
    let weight = |variant: &Value| variant.get("weight").and_then(Value::as_u64).unwrap_or(0);
    // Without weight, nobody gets it, and the sum is the same.
    let variants: Vec<&Value> = variants.iter().filter(|it| weight(it) > 0).collect();
    if variants.len() < 2 {
        return Err("it has less than two variants with a weight".to_owned());
    }
    let group = |variant: &&Value| {
        let name = text(variant.get("name")).unwrap_or_default();
        (name, weight(variant).to_string(), value(variant))
    };
    let mut groups = named_groups(variants.iter().map(group));
    for (group, variant) in groups.iter_mut().zip(variants) {
        let of_user = overrides(variant).filter(|(context, _)| *context == "userId");
        group.include = of_user
            .flat_map(|(_, values)| values)
            .filter_map(|it| text(Some(it)))
            .collect();
    }
    Ok(groups)
}

/// What its overrides compare, and with which values.
fn overrides(variant: &Value) -> impl Iterator<Item = (&str, &Vec<Value>)> {
    let all = variant
        .get("overrides")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    all.filter_map(|one| {
        let context = one.get("contextName")?.as_str()?;
        Some((context, one.get("values")?.as_array()?))
    })
}

/// The payload of a variant.
fn value(variant: &Value) -> Option<Value> {
    let payload = variant.get("payload")?;
    let written = text(payload.get("value"))?;
    match payload.get("type").and_then(Value::as_str) {
        Some("json" | "number") => serde_json::from_str(&written).ok(),
        _ => Some(Value::String(written)),
    }
}
