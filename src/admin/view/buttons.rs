//! Buttons for decisions about an experiment. PURE.

use crate::admin::decisions::action::Action;
use crate::admin::results::schema::ExperimentResult;
use crate::admin::view::advice;

/// A button.
#[derive(Debug)]
pub(crate) struct Choice {
    /// Its HTML ID.
    pub id: String,
    /// The link.
    pub href: String,
    /// The label.
    pub title: String,
    /// Whether the results recommend this decision.
    pub due: bool,
}

/// Returns the decisions that a viewer can make about an experiment.
pub(crate) fn choices(may_operate: bool, experiment: &ExperimentResult) -> Vec<Choice> {
    if !may_operate {
        return Vec::new();
    }
    let name = &experiment.name;
    let due = advice::due(experiment);
    let choice = |action: Action, group: Option<&str>| Choice {
        due: due == Some((action, group)),
        id: format!("{}-{name}-{}", action.name(), group.unwrap_or_default()),
        href: match group {
            Some(group) => format!("/admin/experiments/{name}/{}?group={group}", action.name()),
            None => format!("/admin/experiments/{name}/{}", action.name()),
        },
        title: title(action, name, group.map(|group| experiment.shown(group))).0,
    };
    let mut choices = Vec::new();
    match experiment.status {
        "running" => choices.push(choice(Action::Pause, None)),
        "ended" if advice::has_ended_by_plan(experiment) => {}
        "paused" | "promoted" | "rolled_back" => choices.push(choice(Action::Resume, None)),
        _ => return choices,
    }
    let promoted = experiment.winner.as_deref();
    let others = experiment.groups.iter().map(|group| &*group.name);
    let others = others.filter(|group| experiment.status != "promoted" || promoted != Some(group));
    choices.extend(others.map(|group| choice(Action::Promote, Some(group))));
    if experiment.status != "rolled_back" {
        choices.push(choice(Action::Rollback, None));
    }
    // The recommended decision comes first.
    choices.sort_by_key(|choice| !choice.due);
    choices
}

/// Returns the label of a button, and the title of its confirmation page.
pub(crate) fn title(action: Action, experiment: &str, group: Option<&str>) -> (String, String) {
    let short = match (action, group) {
        (Action::Pause, _) => "Pause".to_owned(),
        (Action::Resume, _) => "Resume".to_owned(),
        (Action::Promote, Some(group)) => format!("Promote {group}"),
        (Action::Promote, None) => "Promote".to_owned(),
        (Action::Rollback, _) => "Roll back".to_owned(),
    };
    let long = format!("{short}: {experiment}");
    (short, long)
}
