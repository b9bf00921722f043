//! What commands print: text for people, or with `--json` one JSON document on standard output, also for
//! errors.

use super::exit_with::ExitWith;
use crate::config::{ConfigWarning, Diagnostic, InvalidConfig};
use crate::server::ErrorWithHint;
use serde_json::{Value, json};
use std::io::{self, Write};

/// The form of what a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

impl Output {
    /// Returns the form for the option `--json`.
    pub fn of(json: bool) -> Output {
        match json {
            true => Output::Json,
            false => Output::Text,
        }
    }

    /// Whether it is JSON.
    pub fn is_json(self) -> bool {
        self == Output::Json
    }

    /// Prints a result in one of two forms. The text ends with a line break, unless it is empty.
    pub fn print(
        self,
        text: impl FnOnce() -> String,
        document: impl FnOnce() -> Value,
    ) -> io::Result<()> {
        let printed = match self {
            Output::Text => text(),
            Output::Json => format!("{:#}\n", document()),
        };
        let mut out = io::stdout();
        out.write_all(printed.as_bytes())?;
        out.flush()
    }

    /// Prints an error in its form: JSON on standard output, text on standard error.
    pub fn print_error(self, error: &anyhow::Error) {
        if self == Output::Json {
            // Nobody reads a closed standard output.
            let _ = self.print(String::new, || document(error));
            return;
        }
        if let Some(invalid) = error.downcast_ref::<InvalidConfig>() {
            eprint!("{}", invalid.with_lines());
            return;
        }
        eprintln!("error: {error:#}");
        if let Some(with_hint) = error.downcast_ref::<ErrorWithHint>() {
            eprintln!("\nhint: {}", with_hint.hint);
        }
    }
}

/// The document of an error.
fn document(error: &anyhow::Error) -> Value {
    if let Some(invalid) = error.downcast_ref::<InvalidConfig>() {
        let problems: Vec<Value> = invalid.diagnostics.iter().map(problem).collect();
        return json!({ "error": "the routes file is invalid", "problems": problems });
    }
    let mut document = json!({ "error": format!("{error:#}") });
    if let Some(with_hint) = error.downcast_ref::<ErrorWithHint>() {
        document["hint"] = Value::String(with_hint.hint.clone());
    }
    if let Some(ExitWith { details, .. }) = error.downcast_ref::<ExitWith>() {
        for (name, value) in details.as_object().into_iter().flatten() {
            document[name] = value.clone();
        }
    }
    document
}

/// The document of an error of a routes file.
pub(super) fn problem(problem: &Diagnostic) -> Value {
    let (line, column) = problem.place.unzip();
    json!({
        "file": problem.file,
        "line": line,
        "column": column,
        "key": problem.key,
        "found": problem.found,
        "allowed": problem.allowed,
        "meant": problem.near,
    })
}

/// The documents of the warnings of a routes file.
pub(super) fn warnings(warnings: &[ConfigWarning]) -> Vec<Value> {
    warnings.iter().map(|warning| problem(&warning.0)).collect()
}
