//! `${NAME}` and `${NAME:-default}` in values of the file.

use super::file::Value;
use std::collections::HashSet;

/// The environment: the value of a name, if it is set.
pub(super) type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// What [`substitute`] found.
#[derive(Debug, Default)]
pub(super) struct Substituted {
    /// The paths of values that come from the environment, wholly or in part.
    pub paths: HashSet<Vec<String>>,
    /// The paths of values that cannot be had, each with what was found and what is allowed.
    pub problems: Vec<(Vec<String>, String, String)>,
}

/// Replaces the names of environment variables in all values by their contents. What comes out has the
/// type that it would have if it were written there.
pub(super) fn substitute(value: &Value, environment: &Environment<'_>) -> (Value, Substituted) {
    let mut found = Substituted::default();
    let value = below(value, &mut Vec::new(), environment, &mut found);
    (value, found)
}

fn below(
    value: &Value,
    path: &mut Vec<String>,
    environment: &Environment<'_>,
    found: &mut Substituted,
) -> Value {
    let mut at = |key: &str, value: &Value| {
        path.push(key.to_owned());
        let value = below(value, path, environment, found);
        path.pop();
        value
    };
    match value {
        Value::List(items) => {
            let items = items.iter().enumerate();
            let item = |(place, value): (usize, &Value)| at(&place.to_string(), value);
            Value::List(items.map(item).collect())
        }
        Value::Map(map) => {
            let pair = |(key, value): &(String, Value)| (key.clone(), at(key, value));
            Value::Map(map.iter().map(pair).collect())
        }
        Value::Text(text) if text.contains("${") => match expand(text, environment) {
            Ok(expanded) => {
                found.paths.insert(path.clone());
                typed(expanded)
            }
            Err((what, allowed)) => {
                found.problems.push((path.clone(), what, allowed));
                value.clone()
            }
        },
        other => other.clone(),
    }
}

/// Replaces `${NAME}` and `${NAME:-default}`; `$${` is `${`. An error has what was found and what is
/// allowed.
pub(super) fn expand(
    text: &str,
    environment: &Environment<'_>,
) -> Result<String, (String, String)> {
    let mut rest = text;
    let mut whole = String::new();
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            whole.push_str(before);
            whole.push_str("${");
            rest = after;
            continue;
        }
        whole.push_str(before);
        let Some((inside, after)) = after.split_once('}') else {
            return Err((
                "`${` without its `}`".to_owned(),
                "write ${NAME}, or $${ for the two characters themselves".to_owned(),
            ));
        };
        whole.push_str(&one(inside, environment)?);
        rest = after;
    }
    whole.push_str(rest);
    Ok(whole)
}

/// Returns what `${inside}` stands for. A default counts where the variable is missing or empty.
fn one(inside: &str, environment: &Environment<'_>) -> Result<String, (String, String)> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_variable(name) {
        return Err((
            format!("`${{{inside}}}` has no name of an environment variable"),
            "write ${NAME} or ${NAME:-default}, or $${ for the two characters themselves"
                .to_owned(),
        ));
    }
    if default.is_some_and(|default| default.contains("${")) {
        return Err((
            format!("the default of ${{{name}:-…}} has a variable in it"),
            "write a plain default: defaults cannot be nested".to_owned(),
        ));
    }
    match (environment(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err((
            format!("the environment has no {name}"),
            format!("set it: export {name}=…, or write a default: ${{{name}:-…}}"),
        )),
    }
}

fn is_variable(name: &str) -> bool {
    let is_start = |letter: char| letter.is_ascii_alphabetic() || letter == '_';
    name.starts_with(is_start)
        && name
            .chars()
            .all(|letter| is_start(letter) || letter.is_ascii_digit())
}

/// Gives a text the type that it has as a YAML value. A number keeps its text.
fn typed(text: String) -> Value {
    let may_be_number =
        text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
    let number = text
        .parse::<f64>()
        .ok()
        .filter(|number| may_be_number && number.is_finite());
    match (&*text, number) {
        ("", _) => Value::Nothing,
        ("true", _) => Value::Bool(true),
        ("false", _) => Value::Bool(false),
        (_, Some(number)) => Value::Number(number, text),
        (_, None) => Value::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        let value = match name {
            "PORT" => "81",
            "EMPTY" => "",
            "ON" => "true",
            "ID" => "007",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[track_caller]
    fn check(text: &str, value: Value) {
        let text = Value::List(vec![Value::Text(text.to_owned())]);
        let (list, found) = substitute(&text, &environment);
        assert_eq!(list, Value::List(vec![value]), "{found:?}");
    }

    #[track_caller]
    fn refused(text: &str, what: &str) {
        let found = expand(text, &environment).unwrap_err();
        assert_eq!(found.0, what);
    }

    #[test]
    fn values_have_the_type_of_the_result() {
        let text = |text: &str| Value::Text(text.to_owned());
        check("${PORT}", Value::Number(81.0, "81".to_owned()));
        check("${ID}", Value::Number(7.0, "007".to_owned()));
        check("${NONE:-0.5}", Value::Number(0.5, "0.5".to_owned()));
        check("${PORT}%", text("81%"));
        check("0.0.0.0:${PORT:-8080}", text("0.0.0.0:81"));
        check("${ON}", Value::Bool(true));
        check("${EMPTY}", Value::Nothing);
        check("${EMPTY:-x}", text("x"));
        check("${NONE:-http://a:1/b}", text("http://a:1/b"));
        check("${NONE:-inf}", text("inf"));
        check("a ${PORT} b ${PORT}", text("a 81 b 81"));
        check("a$${PORT}", text("a${PORT}"));
        check("pa$$word", text("pa$$word"));
    }

    #[test]
    fn missing_and_malformed_names_are_refused() {
        refused("${NONE}", "the environment has no NONE");
        refused("a ${PORT", "`${` without its `}`");
        refused("${a b}", "`${a b}` has no name of an environment variable");
        refused("${:-x}", "`${:-x}` has no name of an environment variable");
    }
}
