//! `GET /admin/new`: plans a new experiment, and shows the lines for the routes file.

use crate::admin::format::{duration, share, thousands};
use crate::admin::http::auth::Caller;
use crate::admin::http::error::{Query, Refused};
use crate::admin::http::html::page_response;
use crate::admin::results::sample_size::usual_users;
use crate::admin::state::AdminState;
use crate::admin::view::html::Viewer;
use crate::config::plan::Plan;
use crate::config::{self, ConfigWarning, is_name};
use crate::experiment::implication::excludes;
use crate::experiment::matcher::Condition;
use crate::experiment::metric::MetricKind;
use crate::experiment::pattern::PathPattern;
use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::Path;
use utoipa::IntoParams;

/// The answers of the form. All of them are texts, so that a mistake is shown beside its field.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct NewExperiment {
    /// The name.
    #[param(inline, required = false)]
    name: String,
    /// The hypothesis, a sentence.
    #[param(inline, required = false)]
    hypothesis: String,
    /// The upstream of control.
    #[param(inline, required = false)]
    control: String,
    /// The upstream of the new version.
    #[param(inline, required = false)]
    experiment: String,
    /// The percentage of users who get the new version.
    #[param(inline, required = false)]
    percent: String,
    /// The path of the pages that take part; all when empty.
    #[param(inline, required = false)]
    path: String,
    /// The name of the metric that decides.
    #[param(inline, required = false)]
    metric: String,
    /// The rule of that metric, such as `POST /checkout -> 2xx`; empty for a metric of the file.
    #[param(inline, required = false)]
    rule: String,
    /// The share of users with an event of the metric today, in percent.
    #[param(inline, required = false)]
    rate: String,
    /// The lift to find, in percent.
    #[param(inline, required = false)]
    lift: String,
    /// Users per day.
    #[param(inline, required = false)]
    users: String,
}

#[derive(Template)]
#[template(path = "new.html")]
struct NewPage<'a> {
    viewer: &'a Viewer<'a>,
    form: &'a NewExperiment,
    upstreams: Vec<&'a str>,
    metrics: Vec<&'a str>,
    draft: Option<Draft>,
}

/// What the form gives.
#[derive(Debug)]
struct Draft {
    /// The lines for the routes file.
    yaml: String,
    /// What is wrong with them.
    problems: Vec<String>,
    /// What is valid, but should be known.
    remarks: Vec<String>,
    /// How long it takes: the percentage, the users, and the time.
    durations: Vec<(String, String, String)>,
}

/// Page that plans a new experiment
///
/// Nothing is changed: the page shows the lines to add to the routes file, what `watershed check` says of
/// them, and how long an answer takes.
#[utoipa::path(
    get,
    path = "/admin/new",
    operation_id = "new_experiment",
    tag = "pages",
    params(NewExperiment),
    responses(
        (status = 200, description = "The form, with the lines for the routes file", content_type = "text/html", body = String),
        (status = 400, description = "A field stands twice in the query", body = Refused),
    )
)]
pub(super) async fn new_experiment(
    State(state): State<AdminState>,
    Query(form): Query<NewExperiment>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let plan = state.plan();
    let draft = (!form.name.is_empty()).then(|| Draft::of(&plan, &form));
    let page = NewPage {
        viewer: &caller.viewer(),
        form: &form,
        upstreams: plan.upstreams.iter().map(|it| &*it.name).collect(),
        metrics: plan.metrics.iter().map(|it| &*it.name).collect(),
        draft,
    };
    page_response(StatusCode::OK, page.render())
}

impl NewPage<'_> {
    fn or<'a>(&self, text: &'a str, usual: &'a str) -> &'a str {
        if text.is_empty() { usual } else { text }
    }
}

impl Draft {
    fn of(plan: &Plan, form: &NewExperiment) -> Draft {
        let mut problems = Vec::new();
        if !is_name(&form.name) {
            problems.push("The name may have letters, digits, `_`, `.` and `-`.".to_owned());
        } else if plan.experiment_named(&form.name).is_some() {
            problems.push(format!("The file already has an experiment {}.", form.name));
        }
        let is_lift = |lift: f64| lift > 0.0;
        if !form.lift.is_empty() && !number(&form.lift).is_some_and(is_lift) {
            problems.push("The lift is a percentage above 0, such as 10.".to_owned());
        }
        let is_rate = |rate: f64| rate > 0.0 && rate < 100.0;
        if !form.rate.is_empty() && !number(&form.rate).is_some_and(is_rate) {
            problems.push("Users who do it today are a percentage between 0 and 100.".to_owned());
        }
        let is_number_of_users = |users: f64| (1.0..=1e12).contains(&users);
        if !form.users.is_empty() && !number(&form.users).is_some_and(is_number_of_users) {
            problems.push("Users per day are a number of 1 or more.".to_owned());
        }
        let is_percentage = |percent: f64| (0.0..=100.0).contains(&percent);
        if !number(&form.percent).is_some_and(is_percentage) {
            problems.push("The percentage of users is a number from 0 to 100.".to_owned());
        }
        if form.control == form.experiment && form.path.is_empty() {
            problems.push("Both versions are the same upstream: choose two, unless the upstream tells the groups apart by a header.".to_owned());
        }
        let metric = match (&*form.metric, &*form.rule) {
            ("", "") => {
                problems.push(
                    "Choose a metric, or write the request that counts as success.".to_owned(),
                );
                None
            }
            ("", _) => Some(format!("{}-success", form.name)),
            (name, _) => Some(name.to_owned()),
        };
        let metric = metric.as_deref();
        let (checked, mut remarks) = check(plan, form, metric);
        problems.extend(checked);
        remarks.extend(shared(plan, form));
        remarks.extend(nobody(form));
        if !takes_as_long(plan, form) {
            remarks.push("How long an answer takes depends on how much the values of this metric vary: `watershed simulate` plays it.".to_owned());
        }
        Draft {
            yaml: yaml(form, metric),
            problems,
            remarks,
            durations: match takes_as_long(plan, form) {
                true => durations(form),
                false => Vec::new(),
            },
        }
    }
}

/// Returns the lines for the routes file.
fn yaml(form: &NewExperiment, metric: Option<&str>) -> String {
    let mut text = format!("experiments:\n  {}:\n", form.name);
    let mut line = |key: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("    {key}: {value}\n"));
        }
    };
    let quoted = |text: &str| match text.is_empty() {
        true => String::new(),
        // The file would read a variable of the environment.
        false => Value::from(text.replace("${", "$${")).to_string(),
    };
    line("hypothesis", &quoted(&form.hypothesis));
    line("match", &quoted(&form.path));
    line("control", &form.control);
    line("experiment", &form.experiment);
    line("percent", &form.percent);
    if let Some(metric) = metric {
        line("metrics", &format!("[ {metric} ]"));
        if !form.rule.is_empty() {
            let detect = match form.lift.is_empty() {
                true => String::new(),
                false => format!(", detect: {}%", form.lift),
            };
            text.push_str(&format!(
                "metrics:\n  {metric}: {{ on: {}{detect} }}\n",
                rule_keys(&form.rule)
            ));
        }
    }
    text
}

/// Writes a rule such as `POST /checkout -> 2xx` as keys.
fn rule_keys(rule: &str) -> String {
    let (request, status) = rule.split_once("->").unwrap_or((rule, "2xx"));
    let (method, path) = match request.trim().split_once(' ') {
        Some((method, path)) => (method, path.trim()),
        None => ("", request.trim()),
    };
    let method = match method {
        "" => String::new(),
        method => format!("method: {}, ", Value::from(method)),
    };
    format!(
        "{{ {method}path: {}, status: {} }}",
        Value::from(path),
        Value::from(status.trim())
    )
}

/// Checks the new lines among the experiments and metrics of the file. Returns errors and warnings.
fn check(plan: &Plan, form: &NewExperiment, metric: Option<&str>) -> (Vec<String>, Vec<String>) {
    let upstreams = plan.upstreams.iter();
    // Addresses, certificates and secrets have nothing to do with the new lines.
    let upstreams: Map<String, Value> = upstreams
        .map(|upstream| (upstream.name.to_string(), json!("http://192.0.2.1")))
        .collect();
    let section = |name: &str| {
        plan.redacted_file[name]
            .as_object()
            .cloned()
            .unwrap_or_default()
    };
    let mut experiments = section("experiments");
    for experiment in experiments.values_mut().filter_map(Value::as_object_mut) {
        // It may name a file.
        experiment.remove("include");
    }
    let mut metrics = section("metrics");
    if let (Some(metric), false) = (metric, form.rule.is_empty()) {
        metrics.insert(metric.to_owned(), Value::from(&*form.rule));
    }
    let mut new = json!({
        "control": form.control,
        "experiment": form.experiment,
        "percent": form.percent.parse::<f64>().map_or(json!(form.percent), |number| json!(number)),
    });
    if let Some(metric) = metric {
        new["metrics"] = json!([metric]);
    }
    if !form.path.is_empty() {
        new["match"] = Value::from(&*form.path);
    }
    experiments.insert(form.name.clone(), new);
    let file = json!({ "upstreams": upstreams, "experiments": experiments, "metrics": metrics });
    let of_new = [
        Some(format!("experiments.{}", form.name)),
        metric.map(|it| format!("metrics.{it}")),
    ];
    let is_new = |key: &str| {
        of_new.iter().flatten().any(|new| {
            let rest = key.strip_prefix(&**new);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    // JSON is YAML.
    match config::parse(&file.to_string(), Path::new("routes.yaml"), &|_| None) {
        Err(invalid) => {
            let problems = invalid.diagnostics.iter().filter(|it| is_new(&it.key));
            let text = problems.map(|it| format!("{}: {} ({})", it.key, it.found, it.allowed));
            (text.collect(), Vec::new())
        }
        Ok(checked) => {
            // What is known of the others is on their pages.
            let warnings = checked.warnings.iter().filter(|it| is_new(&it.0.key));
            (Vec::new(), warnings.map(ConfigWarning::line).collect())
        }
    }
}

/// Names the experiments that the same requests may match.
fn shared(plan: &Plan, form: &NewExperiment) -> Option<String> {
    let path = match form.path.is_empty() {
        true => Condition::always(),
        // What is no path is a problem of its own.
        false => Condition::Path(PathPattern::new(&form.path).ok()?),
    };
    // A paused one may be resumed, and a promoted one still takes its requests.
    let others = plan.experiments.iter();
    let others = others.filter(|it| !excludes(it.matcher.condition(), &path));
    let names: Vec<&str> = others
        .map(|experiment| &*experiment.name)
        .filter(|name| *name != form.name)
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "Requests may match other experiments, too: {}. The one that stands first in the file chooses the upstream; put experiments that must not meet into one `layer`.",
            names.join(", ")
        )
    })
}

/// Reads a number that somebody typed.
fn number(text: &str) -> Option<f64> {
    let number = text.trim().parse::<f64>().ok();
    number.filter(|number| number.is_finite())
}

/// Whether the durations of the form are those of its metric: they are of shares of users.
fn takes_as_long(plan: &Plan, form: &NewExperiment) -> bool {
    let mut metrics = plan.metrics.iter();
    let metric = metrics.find(|metric| *metric.name == *form.metric);
    metric.is_none_or(|metric| metric.kind == MetricKind::Conversion)
}

/// Says what a percentage without users means.
fn nobody(form: &NewExperiment) -> Option<String> {
    let percent = number(&form.percent)?;
    let nobody = match percent {
        0.0 => "the new version",
        100.0 => "the version as it is",
        _ => return None,
    };
    Some(format!(
        "At {percent} % nobody gets {nobody}, so there is nothing to compare."
    ))
}

/// How long an answer takes at the percentage of the form, at 10 % and at 50 %.
fn durations(form: &NewExperiment) -> Vec<(String, String, String)> {
    let rate = number(&form.rate).map(|percent| percent / 100.0);
    let rate = rate.filter(|rate| *rate > 0.0 && *rate < 1.0);
    let lift = number(&form.lift).filter(|lift| *lift > 0.0 && *lift <= 1000.0);
    let per_day = number(&form.users).filter(|users| *users >= 1.0);
    let (Some(rate), Some(lift)) = (rate, lift) else {
        return Vec::new();
    };
    let mut percentages: Vec<f64> = number(&form.percent)
        .into_iter()
        .chain([10.0, 50.0])
        .collect();
    percentages.retain(|percent| *percent > 0.0 && *percent < 100.0);
    percentages.sort_by(f64::total_cmp);
    percentages.dedup();
    let row = |percent: f64| {
        let file = format!(
            "upstreams: {{ a: \"http://192.0.2.1\", b: \"http://192.0.2.2\" }}\nexperiments: {{ e: {{ control: a, experiment: b, percent: {percent} }} }}\nmetrics: {{ m: {{ event: m, detect: {lift}% }} }}\n"
        );
        let plan = config::parse(&file, Path::new("routes.yaml"), &|_| None).ok()?;
        let users = usual_users(&plan, &plan.experiments[0], rate)?;
        let shortest = plan.experiments[0].min_duration_ms as f64 / 1000.0;
        let time = per_day.map_or("–".to_owned(), |per_day| {
            duration((users as f64 / per_day * 86_400.0).max(shortest))
        });
        Some((share(percent / 100.0), thousands(users), time))
    };
    percentages.into_iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let text = "upstreams: { a: \"http://127.0.0.1:1\", b: \"http://127.0.0.1:2\" }\noverrides: { secret: 0123456789abcdef }\nexperiments: { old: { control: a, experiment: b, percent: 10 } }\nmetrics: { buy: POST /buy -> 2xx }\n";
        config::parse(text, Path::new("routes.yaml"), &|_| None).unwrap()
    }

    fn form() -> NewExperiment {
        NewExperiment {
            name: "new".to_owned(),
            control: "a".to_owned(),
            experiment: "b".to_owned(),
            percent: "10".to_owned(),
            path: "/shop/**".to_owned(),
            rule: "POST /order -> 2xx".to_owned(),
            rate: "5".to_owned(),
            lift: "10".to_owned(),
            users: "10000".to_owned(),
            ..NewExperiment::default()
        }
    }

    #[test]
    fn the_lines_are_a_valid_file_with_the_upstreams() {
        let draft = Draft::of(&plan(), &form());
        assert_eq!(draft.problems, [""; 0]);
        let text = format!(
            "upstreams: {{ a: \"http://127.0.0.1:1\", b: \"http://127.0.0.1:2\" }}\n{}",
            draft.yaml
        );
        let plan = config::parse(&text, Path::new("routes.yaml"), &|_| None);
        let plan = plan.unwrap_or_else(|invalid| panic!("{invalid}\n{text}"));
        assert_eq!(&*plan.experiments[0].name, "new");
        assert_eq!(plan.metrics[0].detect, 0.1);
        let others = draft
            .remarks
            .iter()
            .any(|it| it.contains("other experiments, too: old"));
        assert!(others, "{:?}", draft.remarks);
    }

    #[test]
    fn remarks_are_about_the_new_experiment_only() {
        let old = (0..5).map(|n| format!("z{n}: {{ control: a, experiment: b, percent: 10 }}, "));
        let text = format!(
            "upstreams: {{ a: \"http://127.0.0.1:1\", b: \"http://127.0.0.1:2\" }}\nexperiments: {{ {} }}\nmetrics: {{ buy: POST /buy -> 2xx }}\n",
            old.collect::<String>()
        );
        let plan = config::parse(&text, Path::new("routes.yaml"), &|_| None).unwrap();
        let everywhere = NewExperiment {
            path: String::new(),
            ..form()
        };
        let draft = Draft::of(&plan, &everywhere);
        assert_eq!(draft.problems, [""; 0]);
        let [shared] = &draft.remarks[..] else {
            panic!("{:#?}", draft.remarks);
        };
        assert!(shared.contains("z0, z1, z2, z3, z4"), "{shared}");
    }

    #[test]
    fn mistakes_are_named() {
        let with = |change: fn(&mut NewExperiment)| {
            let mut form = form();
            change(&mut form);
            Draft::of(&plan(), &form).problems.join("\n")
        };
        assert!(with(|form| form.name = "old".to_owned()).contains("already has an experiment"));
        assert!(with(|form| form.name = "a b".to_owned()).contains("The name may have"));
        assert!(with(|form| form.control = "c".to_owned()).contains("experiments.new.control"));
        assert!(with(|form| form.percent = "x".to_owned()).contains("experiments.new.percent"));
        assert!(with(|form| form.rule = String::new()).contains("Choose a metric"));
        assert!(with(|form| form.rule = "nothing".to_owned()).contains("metrics.new-success"));
    }

    #[test]
    fn half_and_half_is_fastest() {
        let rows = durations(&form());
        let users = |row: &(String, String, String)| row.1.replace(',', "").parse::<u64>().unwrap();
        assert_eq!((&*rows[0].0, &*rows[1].0), ("10 %", "50 %"));
        assert!(users(&rows[0]) > 2 * users(&rows[1]), "{rows:?}");
        assert!(durations(&NewExperiment::default()).is_empty());
    }
}
