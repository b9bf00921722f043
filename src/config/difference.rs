//! What two files say differently, in lines that people read. It compares what replicas share: their own
//! addresses and paths may differ.

use super::definition::without;
use super::file::{self, Value};
use super::plan::Plan;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Keys that each replica has for itself.
const OWN: &[&[&str]] = &[
    &["listen"],
    &["admin", "listen"],
    &["admin", "health"],
    &["admin", "tls"],
    &["tls", "listen"],
    &["store"],
    &["journal"],
    &["workers"],
];
/// Keys that decide which users are in which group, and what is counted. None of them has secrets.
const DECIDING: &[&str] = &[
    "upstreams",
    "default",
    "user",
    "experiments",
    "retired",
    "metrics",
    "segments",
    "holdout",
    "exclude",
];
/// The most lines of a difference.
const LINES_MAX: usize = 200;
/// The most characters of a line.
const LINE_CHARS_MAX: usize = 300;
/// So many characters are shown of what two long values have in common in front of their difference.
const ALIKE_CHARS: usize = 60;

/// Returns a digest of what replicas share of a file with this content, as
/// [`Plan::content`](super::plan::Plan::content) has it, and of its secrets
/// ([`Plan::secrets`](super::plan::Plan::secrets)).
pub fn digest(content: &str, secrets: u16) -> String {
    let mut text = String::new();
    for (path, value) in lines(content) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{path}: {value}");
    }
    // Reading from memory cannot fail, and the crate adds no error of its own.
    let digest = murmur3::murmur3_x64_128(&mut text.as_bytes(), 0).unwrap_or_default();
    format!("{:016x}-{secrets:04x}", digest as u64)
}

/// Compares the secrets of two files by their digests. Returns a line for the difference if they differ.
pub fn secret_difference(before: &str, after: &str) -> Option<String> {
    let (_, was) = before.split_once('-')?;
    let (_, is) = after.split_once('-')?;
    (was != is).then(|| "+ (secrets): another value than before".to_owned())
}

/// Returns the lines that `before` alone has, each with `- ` before it, and those of `after`, with `+ `, in the
/// order of keys. A changed value has both.
pub fn difference(before: &str, after: &str) -> Vec<String> {
    let (before, after) = (lines(before), lines(after));
    let order = |lines: &[(String, String)]| -> Vec<String> {
        let names = lines.iter().filter_map(|(path, _)| {
            let mut keys = path.split('.');
            (keys.next() == Some("experiments")).then(|| keys.next().map(str::to_owned))?
        });
        let mut names: Vec<String> = names.collect();
        names.dedup();
        names
    };
    let (old_order, new_order) = (order(&before), order(&after));
    let old: BTreeMap<&str, &str> = before.iter().map(|(path, it)| (&**path, &**it)).collect();
    let new: BTreeMap<&str, &str> = after.iter().map(|(path, it)| (&**path, &**it)).collect();
    let mut paths: Vec<&str> = old.keys().chain(new.keys()).copied().collect();
    paths.sort_unstable();
    paths.dedup();
    let mut found = Vec::new();
    for path in paths {
        let (was, is) = (old.get(path), new.get(path));
        if was == is {
            continue;
        }
        match was.zip(is).and_then(|(was, is)| elements(was, is)) {
            Some((was, is)) => found.extend(of_elements(path, &was, &is)),
            None => found.extend(changed(path, was.copied(), is.copied())),
        }
    }
    let kept = |names: &[String], others: &[String]| -> Vec<String> {
        let kept = names.iter().filter(|name| others.contains(name));
        kept.cloned().collect()
    };
    let (was, is) = (kept(&old_order, &new_order), kept(&new_order, &old_order));
    if was != is {
        let order = "experiments (order)";
        found.extend(changed(order, Some(&was.join(", ")), Some(&is.join(", "))));
    }
    if found.len() > LINES_MAX {
        let more = found.len() - LINES_MAX;
        found.truncate(LINES_MAX);
        found.push(format!("… and {more} more lines"));
    }
    found
}

/// Returns the plan of a file with this content, as far as it decides groups and counts; `None` if it cannot be
/// read any more.
pub fn deciding_plan(content: &str, path: &Path) -> Option<Plan> {
    let (value, _) = file::parse(path, content, 0).ok()?;
    let Value::Map(map) = value else {
        return None;
    };
    let deciding = map.into_iter();
    let deciding = deciding.filter(|(key, _)| DECIDING.contains(&&**key));
    let deciding = deciding.map(|(key, value)| match &*key {
        "experiments" => (key, without_confirmation(value)),
        _ => (key, value),
    });
    let text = super::redact::text(&Value::Map(deciding.collect()), &[]);
    let environment = |name: &str| std::env::var(name).ok();
    super::parse(&text, path, &environment).ok()
}

/// Who confirms a promotion moves nobody, and `confirm: webhook` asks for webhooks, whose secrets are hidden here.
fn without_confirmation(experiments: Value) -> Value {
    let Value::Map(experiments) = experiments else {
        return experiments;
    };
    let experiments = experiments.into_iter();
    let without = experiments.map(|(name, own)| (name, without(&own, &["act_on", "confirm"])));
    Value::Map(without.collect())
}

/// The elements of two lists, if a list was changed into another one and either has an element that is more
/// than a word.
fn elements(was: &str, is: &str) -> Option<(Vec<String>, Vec<String>)> {
    let list = |text: &str| serde_json::from_str::<Vec<serde_json::Value>>(text).ok();
    let (was, is) = (list(was)?, list(is)?);
    let mut all = was.iter().chain(&is);
    if !all.any(|it| it.is_object() || it.is_array()) {
        return None;
    }
    let texts = |list: &[serde_json::Value]| list.iter().map(ToString::to_string).collect();
    Some((texts(&was), texts(&is)))
}

/// The elements that only one of two lists has. Where both have the same, their order differs.
fn of_elements(path: &str, was: &[String], is: &[String]) -> Vec<String> {
    let without = |list: &[String], others: &[String]| -> Vec<String> {
        let mut others: Vec<&String> = others.iter().collect();
        let alone = list.iter().filter(|it| {
            let known = others.iter().position(|other| other == it);
            known.map(|place| others.swap_remove(place)).is_none()
        });
        alone.cloned().collect()
    };
    let (gone, new) = (without(was, is), without(is, was));
    if gone.is_empty() && new.is_empty() {
        let order = |list: &[String]| format!("[{}]", list.join(","));
        let path = format!("{path} (order)");
        return changed(&path, Some(&order(was)), Some(&order(is)));
    }
    let pairs = (0..gone.len().max(new.len())).map(|place| (gone.get(place), new.get(place)));
    let lines = pairs
        .flat_map(|(gone, new)| changed(path, gone.map(String::as_str), new.map(String::as_str)));
    lines.collect()
}

/// The lines of a value that was changed, added or removed. A long value begins where both begin to differ.
fn changed(path: &str, was: Option<&str>, is: Option<&str>) -> Vec<String> {
    let alike = was.zip(is).map_or(0, |(was, is)| {
        let letters = was.chars().zip(is.chars());
        letters.take_while(|(was, is)| was == is).count()
    });
    let was = was.map(|was| line('-', path, was, alike));
    was.into_iter()
        .chain(is.map(|is| line('+', path, is, alike)))
        .collect()
}

/// One line, of whose value the first `alike` characters are those of the other one.
fn line(sign: char, path: &str, value: &str, alike: usize) -> String {
    let start = match alike > LINE_CHARS_MAX / 2 {
        true => alike - ALIKE_CHARS,
        false => 0,
    };
    let before = if start > 0 { "…" } else { "" };
    let value: String = value.chars().skip(start).collect();
    let line = format!("{sign} {path}: {before}{value}");
    match line.char_indices().nth(LINE_CHARS_MAX) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

/// Every value that replicas share, by its path, in the order of the file.
fn lines(content: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    // It was written by this program.
    if let Ok((value, _)) = file::parse(Path::new("routes.yaml"), content, 0) {
        add(&value, &mut Vec::new(), &mut all);
    }
    all
}

fn add<'a>(value: &'a Value, path: &mut Vec<&'a str>, all: &mut Vec<(String, String)>) {
    if OWN.contains(&&path[..]) {
        return;
    }
    match value {
        Value::Map(map) if !map.is_empty() => {
            for (key, value) in map {
                path.push(key);
                add(value, path, all);
                path.pop();
            }
        }
        Value::Map(_) if path.is_empty() => {}
        _ => all.push((path.join("."), super::redact::text(value, &[]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_every_key_can_be_compared() {
        for text in [
            include_str!("schema/all.yaml"),
            include_str!("schema/forms.yaml"),
        ] {
            let (value, _) = file::parse(Path::new("routes.yaml"), text, 0).unwrap();
            let content = crate::config::redact::text(&value, &[]);
            assert!(deciding_plan(&content, Path::new("routes.yaml")).is_some());
        }
        let confirmed = r#"{"upstreams": {"a": "http://127.0.0.1:1", "b": "http://127.0.0.1:2"}, "webhooks": {"url": "(secret)"},
            "experiments": {"e": {"control": "a", "experiment": "b", "percent": 10, "act_on": "winner", "confirm": "webhook"}}}"#;
        assert!(deciding_plan(confirmed, Path::new("routes.yaml")).is_some());
    }

    #[test]
    fn difference_names_keys_and_both_values() {
        let old = "{\"experiments\": {\"a\": {\"percent\": 10, \"match\": [\"/a\", \"/b\"]}, \"b\": {\"percent\": 1}}, \"listen\": \"127.0.0.1:1\"}";
        let new = "{\"listen\": \"127.0.0.1:2\", \"experiments\": {\"b\": {\"percent\": 1, \"owner\": \"web\"}, \"a\": {\"percent\": 50, \"match\": [\"/a\"]}}}";
        assert_eq!(
            difference(old, new),
            [
                "- experiments.a.match: [\"/a\",\"/b\"]",
                "+ experiments.a.match: [\"/a\"]",
                "- experiments.a.percent: 10",
                "+ experiments.a.percent: 50",
                "+ experiments.b.owner: \"web\"",
                "- experiments (order): a, b",
                "+ experiments (order): b, a",
            ]
        );
        assert!(difference(old, old).is_empty());
        assert_ne!(digest(old, 0), digest(new, 0));
        let elsewhere = old.replace("127.0.0.1:1", "127.0.0.1:3");
        assert_eq!(digest(old, 1), digest(&elsewhere, 1));
        let said = |was, is| secret_difference(&digest(old, was), &digest(old, is)).is_some();
        assert_eq!((said(1, 2), said(1, 1)), (true, false));
        let many: Vec<String> = (0..300).map(|it| format!("\"m{it}\": {it}")).collect();
        let long = difference("{}", &format!("{{{}}}", many.join(", ")));
        assert_eq!((long.len(), &*long[200]), (201, "… and 100 more lines"));
    }

    #[test]
    fn changes_late_in_a_list_or_a_long_value_are_seen() {
        let route = |number: u32, upstream: &str| {
            let path = format!("/{}/{number}", "p".repeat(90));
            format!("{{\"match\":\"{path}\",\"upstream\":\"{upstream}\"}}")
        };
        let file = |last: &str| {
            let routes = [route(1, "a"), route(2, "a"), route(3, "a"), route(4, last)];
            format!("{{\"routes\":[{}]}}", routes.join(","))
        };
        assert_eq!(
            difference(&file("a"), &file("b")),
            [
                format!("- routes: {}", route(4, "a")),
                format!("+ routes: {}", route(4, "b")),
            ]
        );
        let more = format!("{{\"routes\":[{}]}}", route(1, "a"));
        let two = format!("{{\"routes\":[{},{}]}}", route(2, "b"), route(1, "a"));
        let added = difference(&more, &two);
        assert_eq!(added, [format!("+ routes: {}", route(2, "b"))]);
        let turned = format!("{{\"routes\":[{},{}]}}", route(1, "a"), route(2, "b"));
        let said = difference(&two, &turned);
        assert_eq!(said.len(), 2);
        assert!(said[0].starts_with("- routes (order): ["), "{said:?}");
        let long = |end: &str| format!("{{\"description\":\"{}{end}\"}}", "x".repeat(600));
        let said = difference(&long("old"), &long("new"));
        assert!(
            said[0].ends_with("xold\"") && said[1].ends_with("xnew\""),
            "{said:?}"
        );
        assert!(said.iter().all(|line| line.chars().count() < 100));
    }

    #[test]
    fn plan_of_a_kept_file_needs_no_secrets() {
        let content = "{\"admin\": {\"token\": \"(secret)\"}, \"overrides\": {\"secret\": \"(secret)\"}, \"upstreams\": {\"a\": \"http://127.0.0.1:1\", \"b\": \"http://127.0.0.1:2\"}, \"experiments\": {\"z\": {\"control\": \"a\", \"experiment\": \"b\", \"percent\": 10}, \"c\": {\"control\": \"a\", \"experiment\": \"b\", \"percent\": 10}}}";
        let plan = deciding_plan(content, Path::new("routes.yaml")).unwrap();
        // In the order of the file.
        assert_eq!(&*plan.experiments[0].name, "z");
        assert!(deciding_plan("{\"upstreams\": 1}", Path::new("routes.yaml")).is_none());
    }
}
