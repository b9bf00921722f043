//! Records how each value of a file is read. The JSON Schema is made from these records, so that it
//! cannot differ from what is read.

use std::collections::BTreeMap;

/// How a value was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ValueForm {
    /// A map with these keys, each with a description of its value.
    Keys(Vec<(String, String)>),
    /// A map of names that the user chose.
    Named,
    /// A list.
    List,
    /// A text or a number.
    Text,
    /// One of these words.
    Words(Vec<String>),
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds.
    Whole(u64, u64),
    /// A number.
    Number,
    /// A percentage with its sign.
    Percent,
    /// A time with its unit.
    Duration,
    /// A size.
    Bytes,
    /// Any value.
    Anything,
    /// What the definition of this name says.
    Defined(&'static str),
}

/// The path of a value, and how it was read.
pub(super) type RecordedForm = (Vec<String>, ValueForm);

/// Stands for a name that the user chose, in a path.
pub(super) const ANY: &str = "*";

/// The beginning of the path of a definition, before its name.
pub(super) const DEFINITIONS: &str = "definitions";

/// Returns all records by path. Names that the user chose become [`ANY`]. Positions in lists are
/// left out, because a list may also be written as its only item. What a definition describes is recorded
/// there.
pub(super) fn by_path(all: &[RecordedForm]) -> BTreeMap<Vec<String>, Vec<ValueForm>> {
    let mut known: BTreeMap<Vec<String>, Vec<ValueForm>> = BTreeMap::new();
    let mut all: Vec<&RecordedForm> = all.iter().collect();
    // Parents come before their children.
    all.sort_by_key(|(path, _)| path.len());
    for (path, seen) in all {
        let mut general: Vec<String> = Vec::with_capacity(path.len());
        for part in path {
            enter_definition(&known, &mut general);
            let above = known.get(&general);
            let is_named = above.is_some_and(|above| above.contains(&ValueForm::Named));
            let is_place = above.is_some_and(|above| above.contains(&ValueForm::List))
                && part.parse::<usize>().is_ok();
            if !is_place {
                general.push(match is_named {
                    true => ANY.to_owned(),
                    false => part.clone(),
                });
            }
        }
        enter_definition(&known, &mut general);
        if matches!((seen, &general[..]), (ValueForm::Defined(name), [first, of]) if first == DEFINITIONS && of == name)
        {
            continue;
        }
        let there = known.entry(general).or_default();
        if !there.contains(seen) {
            there.push(seen.clone());
        }
    }
    known
}

/// Goes from a path to that of the definition that describes its value, if there is one.
fn enter_definition(known: &BTreeMap<Vec<String>, Vec<ValueForm>>, path: &mut Vec<String>) {
    let forms = known.get(path).into_iter().flatten();
    let mut names = forms.filter_map(|form| match form {
        ValueForm::Defined(name) => Some(*name),
        _ => None,
    });
    if let Some(name) = names.next() {
        *path = vec![DEFINITIONS.to_owned(), name.to_owned()];
    }
}
