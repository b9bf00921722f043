//! Conditions as people read them.

use super::matcher::Condition;
use super::pattern::{HostPattern, ValueTest};
use super::secret_names::{HIDDEN, names_secret};
use std::fmt;

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::All(list) if list.is_empty() => f.write_str("every request"),
            Condition::All(list) => joined(f, list, " and "),
            Condition::Any(list) => joined(f, list, " or "),
            Condition::Not(condition) => write!(f, "not ({condition})"),
            Condition::Path(pattern) => write!(f, "{pattern}"),
            Condition::Host(HostPattern::Exact(host)) => write!(f, "host {host}"),
            Condition::Host(HostPattern::Under(ending)) => write!(f, "host *{ending}"),
            Condition::Method(method) => write!(f, "{method}"),
            Condition::Query(name, test) => valued(f, "query", name, test),
            Condition::Header(name, test) => valued(f, "header", name.as_str(), test),
            Condition::Cookie(name, test) => valued(f, "cookie", name, test),
            Condition::Language(range) => write!(f, "language {range}"),
            Condition::Device(class) => write!(f, "device {}", class.name()),
            Condition::Network(network) => write!(f, "network {network}"),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, list: &[Condition], word: &str) -> fmt::Result {
    for (place, condition) in list.iter().enumerate() {
        if place > 0 {
            f.write_str(word)?;
        }
        match condition {
            Condition::All(inner) | Condition::Any(inner) if inner.len() > 1 => {
                write!(f, "({condition})")?;
            }
            simple => write!(f, "{simple}")?,
        }
    }
    Ok(())
}

fn valued(f: &mut fmt::Formatter<'_>, kind: &str, name: &str, test: &ValueTest) -> fmt::Result {
    match test {
        ValueTest::Present => write!(f, "{kind} {name}"),
        ValueTest::Absent => write!(f, "no {kind} {name}"),
        ValueTest::OneOf(_) if names_secret(name) => write!(f, "{kind} {name}={HIDDEN}"),
        ValueTest::OneOf(patterns) => {
            write!(f, "{kind} {name}=")?;
            for (place, pattern) in patterns.iter().enumerate() {
                let before = if place > 0 { "|" } else { "" };
                write!(f, "{before}{pattern}")?;
            }
            Ok(())
        }
    }
}
