//! The tools that assistants may call, as they see them.

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

/// A tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AssistantTool {
    /// Lists experiments with their verdicts.
    Experiments,
    /// Shows the results of an experiment in words.
    Results,
    /// Explains the groups of a user.
    Explain,
    /// Lists loaded files and decisions.
    History,
    /// Shows the loaded routes file.
    Config,
    /// Checks a routes file.
    Check,
    /// Shows who would move under another routes file.
    Plan,
    /// Decides about an experiment.
    Decide,
}

impl AssistantTool {
    /// Those that change nothing.
    const READING: [AssistantTool; 7] = [
        AssistantTool::Experiments,
        AssistantTool::Results,
        AssistantTool::Explain,
        AssistantTool::History,
        AssistantTool::Config,
        AssistantTool::Check,
        AssistantTool::Plan,
    ];

    /// Returns the tools that may be called.
    pub(super) fn all(may_decide: bool) -> Vec<AssistantTool> {
        let decide = may_decide.then_some(AssistantTool::Decide);
        AssistantTool::READING.into_iter().chain(decide).collect()
    }

    /// Returns its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            AssistantTool::Experiments => "list_experiments",
            AssistantTool::Results => "experiment_results",
            AssistantTool::Explain => "explain_user",
            AssistantTool::History => "history",
            AssistantTool::Config => "running_config",
            AssistantTool::Check => "check_file",
            AssistantTool::Plan => "plan_change",
            AssistantTool::Decide => "decide",
        }
    }

    fn description(self) -> &'static str {
        match self {
            AssistantTool::Experiments => {
                "Lists all experiments with their state, the users of each group, and the verdict in words. Verdicts are valid at any time, however often they are looked at."
            }
            AssistantTool::Results => {
                "Shows the results of one experiment in words: groups, metrics with lifts and always-valid intervals, warnings, and the verdict. Do not conclude more than the verdict says; with a sample ratio mismatch, conclude nothing."
            }
            AssistantTool::Explain => {
                "Explains in which group of each experiment a user is, why, and what is recorded of the user."
            }
            AssistantTool::History => {
                "Lists loaded routes files and decisions, the newest first: who, when, why, what differs, and whom that moved."
            }
            AssistantTool::Config => {
                "Shows the routes file that is served now, with its secrets hidden, and the role of the token."
            }
            AssistantTool::Check => {
                "Checks a routes file (YAML) and reports all errors with their lines and fixes; or, if it is valid, who gets what. Without `content`, the file of this machine is checked. Variables of the environment are not read in `content`."
            }
            AssistantTool::Plan => {
                "Shows how many users would move, and what would be counted afresh, if a routes file with this content replaced the file of this machine. Changes nothing."
            }
            AssistantTool::Decide => {
                "Decides about an experiment for all visitors: `pause` serves control to everybody until `resume`; `promote` serves one group's version to everybody; `rollback` serves control to everybody for good. Ask a person before you call this."
            }
        }
    }

    /// The JSON Schema of its arguments.
    fn schema(self) -> JsonObject {
        let text = |holds: &str| json!({ "type": "string", "description": holds });
        let (properties, required) = match self {
            AssistantTool::Experiments | AssistantTool::Config => (json!({}), json!([])),
            AssistantTool::Results => (
                json!({ "experiment": text("the name of the experiment") }),
                json!(["experiment"]),
            ),
            AssistantTool::Explain => (
                json!({ "user": text("the ID of the user, as requests carry it") }),
                json!(["user"]),
            ),
            AssistantTool::History => (
                json!({
                    "experiment": text("only what is about this experiment"),
                    "limit": { "type": "integer", "minimum": 1, "maximum": 1000, "default": 20, "description": "the number of entries" },
                }),
                json!([]),
            ),
            AssistantTool::Check => (
                json!({ "content": text("the whole routes file as YAML") }),
                json!([]),
            ),
            AssistantTool::Plan => (
                json!({ "content": text("the whole new routes file as YAML") }),
                json!(["content"]),
            ),
            AssistantTool::Decide => (
                json!({
                    "experiment": text("the name of the experiment"),
                    "action": { "type": "string", "enum": ["pause", "resume", "promote", "rollback"], "description": "the decision" },
                    "group": text("the group to promote; the winner of the verdict unless given"),
                    "reason": text("why, for the audit log; one line"),
                }),
                json!(["experiment", "action", "reason"]),
            ),
        };
        let schema = json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        });
        match schema {
            Value::Object(schema) => schema,
            _ => JsonObject::new(),
        }
    }

    /// Returns the tool as the protocol describes it.
    pub(super) fn described(self) -> Tool {
        let reads = self != AssistantTool::Decide;
        let annotations = ToolAnnotations::new()
            .read_only(reads)
            .destructive(!reads)
            .open_world(false);
        Tool::new(self.name(), self.description(), self.schema()).with_annotations(annotations)
    }

    /// Returns what is wrong with arguments, by the schema: unknown ones, missing ones, and others than texts and
    /// numbers.
    pub(super) fn fault(self, arguments: &JsonObject) -> Option<String> {
        let schema = self.schema();
        let properties = schema["properties"].as_object()?;
        if let Some(unknown) = arguments.keys().find(|key| !properties.contains_key(*key)) {
            let known: Vec<&str> = properties.keys().map(String::as_str).collect();
            return Some(format!(
                "unknown argument {unknown:?}; known: {}",
                known.join(", ")
            ));
        }
        let mut required = schema["required"]
            .as_array()?
            .iter()
            .filter_map(Value::as_str);
        if let Some(missing) = required.find(|key| !arguments.contains_key(*key)) {
            return Some(format!("the argument {missing:?} is missing"));
        }
        let is_wrong = |(key, value): &(&String, &Value)| match properties[*key]["type"].as_str() {
            Some("integer") => !value
                .as_u64()
                .is_some_and(|number| (1..=1000).contains(&number)),
            _ => value.as_str().is_none_or(|text| text.trim().is_empty()),
        };
        let (key, _) = arguments.iter().find(is_wrong)?;
        let holds = &properties[key];
        Some(format!(
            "the argument {key:?} is not as its schema says: {holds}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked_by_the_schema() {
        #[track_caller]
        fn check(tool: AssistantTool, arguments: Value, fault: Option<&str>) {
            let found = tool.fault(arguments.as_object().unwrap());
            assert_eq!(found.is_some(), fault.is_some(), "{found:?}");
            let found = found.unwrap_or_default();
            assert!(found.contains(fault.unwrap_or_default()), "{found}");
        }
        use AssistantTool as T;
        check(T::Experiments, json!({}), None);
        check(
            T::Experiments,
            json!({ "x": 1 }),
            Some("unknown argument \"x\""),
        );
        check(T::Results, json!({}), Some("\"experiment\" is missing"));
        check(
            T::Results,
            json!({ "experiment": 7 }),
            Some("\"experiment\" is not"),
        );
        check(
            T::Results,
            json!({ "experiment": " " }),
            Some("\"experiment\" is not"),
        );
        check(T::History, json!({ "limit": 5 }), None);
        check(T::History, json!({ "limit": 0 }), Some("\"limit\" is not"));
        check(
            T::History,
            json!({ "limit": "5" }),
            Some("\"limit\" is not"),
        );
        check(
            T::Decide,
            json!({ "experiment": "a", "action": "pause" }),
            Some("\"reason\" is missing"),
        );
    }

    #[test]
    fn only_deciding_is_not_read_only() {
        for tool in AssistantTool::all(true) {
            let annotations = tool.described().annotations.unwrap();
            let decides = tool == AssistantTool::Decide;
            assert_eq!(annotations.read_only_hint, Some(!decides), "{tool:?}");
        }
        assert!(!AssistantTool::all(false).contains(&AssistantTool::Decide));
    }
}
