//! A first routes file: two versions of a site.

use crate::config::plan::Plan;
use crate::config::{self, Diagnostic, InvalidConfig};
use std::path::Path;

/// What errors call a file that exists only as the arguments of a command.
const NO_FILE: &str = "(command line)";

/// Two versions of a site, and who gets the new one. All of it is as the user wrote it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TwoVersions<'a> {
    /// The address of the site as it is.
    pub control: &'a str,
    /// The address of the new version.
    pub experiment: &'a str,
    /// The percentage of users who get the new version.
    pub percent: &'a str,
}

impl TwoVersions<'_> {
    /// Returns `upstreams` and `experiments` of the file.
    pub(super) fn keys(&self) -> String {
        let percent = match self
            .percent
            .trim()
            .trim_end_matches('%')
            .trim()
            .parse::<f64>()
        {
            Ok(number) => number.to_string(),
            // The error of the file says what is allowed.
            Err(_) => quoted(self.percent),
        };
        format!(
            "upstreams:\n  current:  {}\n  redesign: {}\nexperiments:\n  new-site: {{ control: current, experiment: redesign, percent: {percent} }}\n",
            plain_or_quoted(&address(self.control)),
            plain_or_quoted(&address(self.experiment)),
        )
    }

    /// Returns the whole file, with comments. `goal` is the rule of what counts as success.
    pub(super) fn file(&self, goal: &str) -> String {
        let experiment = "experiments:\n";
        let keys = self.keys();
        let (upstreams, experiments) = keys.split_at(keys.find(experiment).unwrap_or(keys.len()));
        let experiments = experiments.trim_start_matches(experiment);
        format!(
            "\
# Two versions of a site, and who gets which. `watershed check` finds mistakes in this file, and a
# running watershed loads a changed file by itself.

# Visitors come here. Point the load balancer or DNS to this address.
listen: 0.0.0.0:8080

# Results and decisions: http://127.0.0.1:9900/admin/results, from this machine only.
admin: {{ listen: 127.0.0.1:9900 }}

# The two versions. Several servers of a version are a list: [http://10.0.0.5:3001, http://10.0.0.6:3001]
{upstreams}
# So many percent of the users get the new version. A user stays with one version.
experiments:
{experiments}
# What counts as success: a request and its response. Events from the browser and mean values, such as
# revenue, are possible too. The first metric decides.
metrics:
  success: {goal}

# The cookie with your user's ID. Without it, visitors get an ID from watershed, in a cookie of its own.
# user: {{ cookie: uid }}

# Counts are kept in watershed.db beside this file. Several replicas need a Redis:
# store: redis://127.0.0.1:6379
",
            goal = plain_or_quoted(goal),
        )
    }
}

/// Reads the text of a file that arguments of a command describe. An error names the argument, as
/// `arguments` has it for the path of a key: there is no line to show.
pub(super) fn plan_of_arguments(
    text: &str,
    arguments: &[(&str, &str)],
) -> Result<Plan, InvalidConfig> {
    let environment = |name: &str| std::env::var(name).ok();
    let named = |problem: Diagnostic| {
        let below = |key: &str| {
            let rest = problem.key.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        match arguments.iter().find(|(key, _)| below(key)) {
            Some((_, argument)) => Diagnostic {
                file: (*argument).to_owned(),
                place: None,
                key: String::new(),
                snippet: None,
                ..problem
            },
            None => problem,
        }
    };
    config::parse(text, Path::new(NO_FILE), &environment).map_err(|invalid| InvalidConfig {
        diagnostics: invalid.diagnostics.into_iter().map(named).collect(),
        ..invalid
    })
}

/// Completes an address that was written without its scheme, and removes the slash at its end.
pub(super) fn address(text: &str) -> String {
    let text = text.trim().trim_end_matches('/');
    match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    }
}

/// Quotes a text that would mean something else in YAML.
fn plain_or_quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || " -_./:>*".contains(letter);
    let is_safe = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(is_plain)
        && !text.contains(": ")
        && !text.ends_with([':', ' ']);
    match is_safe {
        true => text.to_owned(),
        false => quoted(text),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    #[test]
    fn the_file_is_valid_and_has_what_was_asked_for() {
        let versions = TwoVersions {
            control: "localhost:3001/",
            experiment: " https://new.example:444",
            percent: "2.5%",
        };
        let text = versions.file("POST /buy -> 2xx");
        let plan = config::parse(&text, Path::new("routes.yaml"), &|_| None).unwrap();
        let endpoints = plan.upstreams.iter().flat_map(|it| it.endpoints.iter());
        let endpoints: Vec<String> = endpoints.map(|it| it.to_string()).collect();
        assert!(endpoints[0].contains("localhost:3001"), "{endpoints:?}");
        assert!(endpoints[1].contains("new.example:444"), "{endpoints:?}");
        let groups = &plan.experiments[0].groups;
        assert!((groups[1].weight.get() / groups[0].weight.get() - 2.5 / 97.5).abs() < 1e-9);
        assert_eq!(plan.metrics.len(), 1);
        assert_eq!(plan.warnings.len(), 0);
    }

    #[test]
    fn what_is_no_percentage_or_rule_is_an_error_of_the_file() {
        let versions = TwoVersions {
            control: "a:1",
            experiment: "b: {",
            percent: "many",
        };
        let text = versions.file("- x: [");
        let invalid = config::parse(&text, Path::new("routes.yaml"), &|_| None).unwrap_err();
        let keys: Vec<&str> = invalid.diagnostics.iter().map(|it| &*it.key).collect();
        assert_eq!(
            keys,
            [
                "upstreams.redesign",
                "experiments.new-site.percent",
                "metrics.success"
            ]
        );
    }
}
