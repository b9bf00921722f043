//! Explanations on the spot. They are HTML popovers, which need no script and close with Escape. PURE.

/// What is explained: a name, its title, the text, and where to read more.
const TIPS: &[(&str, &str, &str)] = &[
    (
        "lift",
        "Lift over control",
        "The difference to control as a share of control's rate: +10 % means 110 users do it where 100 did. The brackets are the 95 % interval: the true lift is in it in 95 of 100 experiments, however often you look. If it contains 0, either version may be better.",
    ),
    (
        "chance",
        "Chance to win",
        "The probability that the group is better than control, by a Bayesian estimate. It is easy to read but moves with every look, so the verdict does not use it.",
    ),
    (
        "p",
        "p-value",
        "How surprising the difference would be if there were none. Below 0.05 is called significant. It is corrected for the number of groups and metrics, and stays valid however often you look.",
    ),
    (
        "guardrails",
        "Guardrails",
        "What a version must not make worse, such as errors. “Not proven” means that the data do not show an increase above the limit; it is no proof that there is none.",
    ),
    (
        "sample ratio",
        "Sample ratio",
        "Whether the groups have the sizes that their weights ask for. If they do not, something treats the versions differently, and no rate can be trusted.",
    ),
    (
        "crossovers",
        "Crossovers",
        "Users who were exposed to more than one group, for example after they deleted their cookies. Many of them hide a difference.",
    ),
    (
        "not counted",
        "Not counted",
        "Visitors without an ID that came back, robots, and requests that no person made. They are served but are no users.",
    ),
    (
        "fallbacks",
        "Fallbacks",
        "Requests that another version answered because the upstream of the group was down. They count for no group.",
    ),
    (
        "identities",
        "Identities",
        "Visitors who logged in: the ID of their visit and their user ID count as one user.",
    ),
];

/// Returns the button and the text of an explanation as HTML; empty where there is none. `place` makes it
/// unique on a page.
pub(crate) fn tip(what: &str, place: &str) -> String {
    let Some((_, title, text)) = TIPS.iter().find(|(name, ..)| *name == what) else {
        return String::new();
    };
    let id = format!("tip-{}-{}", what.replace(' ', "-"), identifier(place));
    format!(
        " <button type=\"button\" class=\"tip\" popovertarget=\"{id}\" aria-label=\"What is this: {title}\">?</button><span popover id=\"{id}\" class=\"tip-text\" role=\"note\"><strong>{title}.</strong> {text}</span>"
    )
}

/// Only letters, digits, `_`, `.` and `-`, as names of experiments have.
fn identifier(place: &str) -> String {
    let is_safe = |letter: &char| letter.is_ascii_alphanumeric() || "_.-".contains(*letter);
    place.chars().filter(is_safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_terms_are_explained() {
        let html = tip("lift", "new-site");
        assert!(html.contains("popovertarget=\"tip-lift-new-site\"") && html.contains("95 of 100"));
        assert_eq!(tip("weather", "new-site"), "");
        assert!(!tip("p", "\"><b>").contains("<b>"));
    }

    #[test]
    fn texts_need_no_escapes() {
        for (_, title, text) in TIPS {
            assert!(!title.contains(['<', '>', '&', '"']) && !text.contains(['<', '>', '&', '"']));
        }
    }
}
