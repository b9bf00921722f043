//! The history as text and as a page.

use crate::admin::format;
use crate::admin::results::history::HistoryEntry;
use askama::Template;

/// Returns the history as text for a terminal, the newest entry first.
pub(crate) fn text(entries: &[HistoryEntry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let at = entry.at.as_deref().unwrap_or("?");
        let experiment = entry.experiment.as_deref().unwrap_or("");
        let who = match entry.source {
            "person" => entry.by.clone(),
            source => format!("{} ({source})", entry.by),
        };
        text += &format!("{at}  {who}  {experiment}\n    {}\n", entry.summary());
        if let Some(reason) = &entry.reason {
            text += &format!("    reason: {reason}\n");
        }
        for line in details(entry) {
            text += &format!("    {line}\n");
        }
    }
    if entries.is_empty() {
        text.push_str("Nothing has happened yet.\n");
    }
    text
}

/// What a loaded file changes, in lines.
pub(crate) fn details(entry: &HistoryEntry) -> Vec<String> {
    let Some(file) = &entry.file else {
        return Vec::new();
    };
    let mut lines = file.diff.clone();
    match &file.effects {
        None => lines.push(
            "what this changed for users is not known: the file before cannot be read any more"
                .to_owned(),
        ),
        Some(effects) => {
            for effect in effects {
                lines.push(format!("{}: {}", effect.experiment, effect.meaning));
                let below = effect.changes.iter().chain(&effect.moves);
                lines.extend(below.map(|line| format!("  {line}")));
            }
        }
    }
    lines
}

#[derive(Template)]
#[template(path = "history.html")]
struct HistoryPage<'a> {
    entries: &'a [HistoryEntry],
    experiment: Option<&'a str>,
}

impl HistoryPage<'_> {
    fn second(&self, at: &str) -> String {
        format::second(at)
    }

    fn details(&self, entry: &HistoryEntry) -> String {
        details(entry).join("\n")
    }
}

/// Returns the history as a page.
pub(crate) fn page(
    entries: &[HistoryEntry],
    experiment: Option<&str>,
) -> Result<String, askama::Error> {
    HistoryPage {
        entries,
        experiment,
    }
    .render()
}
