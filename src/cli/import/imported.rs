//! The experiments of another vendor, and the routes file that they become.

use crate::config::is_name;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// What a file yields.
#[derive(Debug, Default)]
pub(super) struct Imported {
    /// In the order of the file.
    pub experiments: Vec<ImportedExperiment>,
    /// What is not carried over, a sentence each.
    pub left_out: Vec<String>,
    /// Names that are taken.
    names: BTreeSet<String>,
}

/// One experiment.
#[derive(Debug)]
pub(super) struct ImportedExperiment {
    /// Its name.
    pub name: String,
    /// The algorithm, as it is written.
    pub algorithm: &'static str,
    /// The vendor's salt.
    pub salt: String,
    /// That of its traffic share, where it is another one.
    pub traffic_salt: Option<String>,
    /// As it is written, such as `40%`.
    pub traffic: String,
    /// In the order of their ranges.
    pub groups: Vec<ImportedGroup>,
}

/// One group.
#[derive(Debug)]
pub(super) struct ImportedGroup {
    /// Its name.
    pub name: String,
    /// As it is written.
    pub weight: String,
    /// What people read, where the name had to change.
    pub label: Option<String>,
    /// What SDKs get.
    pub value: Option<Value>,
    /// Users who always get it.
    pub include: Vec<String>,
}

impl Imported {
    /// Notes what is not carried over.
    pub(super) fn leave_out(&mut self, of: &str, what: impl std::fmt::Display) {
        self.left_out.push(format!("{of}: {what}"));
    }

    /// A name for an experiment that the file may have, and that no other has.
    pub(super) fn name(&mut self, wanted: &str) -> String {
        let name = unique(&mut self.names, wanted);
        if name != wanted {
            self.leave_out(wanted, format!("the name, which is {name} now"));
        }
        name
    }

    /// The routes file.
    pub(super) fn yaml(&self, vendor: &str) -> String {
        let mut text = format!(
            "# Imported from {vendor}. Users keep their groups. Give the groups upstreams, or let the site read the\n\
             # group from the Watershed-Experiment header or by OFREP.\n\
             upstreams:\n  current: http://127.0.0.1:3000\nexperiments:\n"
        );
        for experiment in &self.experiments {
            experiment.write(&mut text);
        }
        text
    }
}

impl ImportedExperiment {
    fn write(&self, text: &mut String) {
        let quoted = |text: &str| Value::from(text).to_string();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {}:", quoted(&self.name));
        let _ = writeln!(text, "    algorithm: {}", self.algorithm);
        let _ = writeln!(text, "    salt: {}", quoted(&self.salt));
        if let Some(salt) = &self.traffic_salt {
            let _ = writeln!(text, "    traffic_salt: {}", quoted(salt));
        }
        let _ = writeln!(text, "    traffic: {}", self.traffic);
        let _ = writeln!(text, "    groups:");
        for group in &self.groups {
            let _ = write!(
                text,
                "      {}: {{ weight: {}",
                quoted(&group.name),
                group.weight
            );
            if let Some(label) = &group.label {
                let _ = write!(text, ", label: {}", quoted(label));
            }
            if let Some(value) = &group.value {
                let _ = write!(text, ", value: {value}");
            }
            text.push_str(" }\n");
        }
        let included = self.groups.iter().filter(|group| !group.include.is_empty());
        let included: Vec<String> = included
            .map(|group| {
                format!(
                    "{}: {}",
                    quoted(&group.name),
                    Value::from(group.include.clone())
                )
            })
            .collect();
        if !included.is_empty() {
            let _ = writeln!(text, "    include: {{ {} }}", included.join(", "));
        }
    }
}

/// Groups with these names: a name that the file cannot have becomes one that it can, and stays as the label.
pub(super) fn named_groups(
    wanted: impl IntoIterator<Item = (String, String, Option<Value>)>,
) -> Vec<ImportedGroup> {
    let mut names = BTreeSet::new();
    let group = |(wanted, weight, value): (String, String, Option<Value>)| {
        let name = unique(&mut names, &wanted);
        let is_label = name != wanted && wanted.chars().count() <= 80;
        ImportedGroup {
            label: (is_label && !wanted.chars().any(char::is_control)).then_some(wanted),
            name,
            weight,
            value,
            include: Vec::new(),
        }
    };
    let mut groups: Vec<ImportedGroup> = wanted.into_iter().map(group).collect();
    // An SDK reads a flag with one type.
    let kind = |value: &Option<Value>| value.as_ref().map(std::mem::discriminant);
    let first = groups.first().map(|group| kind(&group.value));
    let is_flag = |value: &Option<Value>| !matches!(value, Some(Value::Array(_) | Value::Null));
    let same = groups
        .iter()
        .all(|group| Some(kind(&group.value)) == first && is_flag(&group.value));
    if !same {
        for group in &mut groups {
            group.value = None;
        }
    }
    groups
}

/// A name that the file may have, and that is not taken; takes it.
fn unique(names: &mut BTreeSet<String>, wanted: &str) -> String {
    let sound = |letter: char| match letter.is_ascii_alphanumeric() || "_.-".contains(letter) {
        true => letter,
        false => '-',
    };
    let base: String = wanted.chars().map(sound).take(60).collect();
    let base = if is_name(&base) {
        base
    } else {
        "unnamed".to_owned()
    };
    let mut name = if is_name(wanted) {
        wanted.to_owned()
    } else {
        base.clone()
    };
    let mut number = 2;
    while !names.insert(name.clone()) {
        name = format!("{base}-{number}");
        number += 1;
    }
    name
}

/// A share as a percentage with its sign.
pub(super) fn percent(share: f64) -> String {
    format!("{}%", (share * 1e10).round() / 1e8)
}

/// Whether a value is there, and not null, empty, or false.
pub(super) fn says_something(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    }
}

/// The text of a value that is a text or a number.
pub(super) fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
