//! What reading a file asks of its values: what the file may hold is known from that, and from
//! nowhere else.

use std::collections::BTreeMap;

/// What a value was read as.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueForm {
    /// A map with these keys, each with what it may hold.
    Keys(Vec<(String, String)>),
    /// A map of names that the writer chose.
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
}

/// A path, and what stands there was read as.
pub type RecordedForm = (Vec<String>, ValueForm);

/// The name of whatever the writer chose, in a path.
pub const ANY: &str = "*";

/// All that was seen, by path. Names that the writer chose are [`ANY`]; places in lists are left
/// out, because what may be several may be one.
pub fn by_path(all: &[RecordedForm]) -> BTreeMap<Vec<String>, Vec<ValueForm>> {
    let mut known: BTreeMap<Vec<String>, Vec<ValueForm>> = BTreeMap::new();
    let mut all: Vec<&RecordedForm> = all.iter().collect();
    // What is above is known first.
    all.sort_by_key(|(path, _)| path.len());
    for (path, seen) in all {
        let mut general: Vec<String> = Vec::with_capacity(path.len());
        for part in path {
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
        let there = known.entry(general).or_default();
        if !there.contains(seen) {
            there.push(seen.clone());
        }
    }
    known
}
