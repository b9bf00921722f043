//! The Prometheus text format (0.0.4), for tools that do not read its successor OpenMetrics. PURE.

/// The media type.
pub(super) const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether a client accepts this format and not OpenMetrics.
pub(super) fn is_wanted(accept: &str) -> bool {
    accept.contains("text/plain") && !accept.contains("application/openmetrics-text")
}

/// Converts OpenMetrics text. Families of counters get the suffix `_total`, and a family of unknown
/// type becomes `untyped`.
pub(super) fn of_openmetrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let counts = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        let is_counter = counts(line) || lines.peek().is_some_and(|next| counts(next));
        if line == "# EOF" {
            continue;
        }
        match line.strip_prefix("# ").and_then(|rest| {
            let (kind, rest) = rest.split_once(' ')?;
            let (name, rest) = rest.split_once(' ')?;
            Some((kind, name, rest))
        }) {
            Some((kind @ ("HELP" | "TYPE"), name, rest)) => {
                let total = if is_counter { "_total" } else { "" };
                let rest = match (kind, rest) {
                    ("TYPE", "unknown") => "untyped",
                    _ => rest,
                };
                out.push_str(&format!("# {kind} {name}{total} {rest}"));
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_get_names_and_types_of_the_older_format() {
        let openmetrics = "# HELP a_b Requests.\n# TYPE a_b counter\na_b_total{} 1\n\
                           # HELP c How much.\n# TYPE c gauge\nc{x=\"# TYPE\"} 2.5\n\
                           # HELP d Latency.\n# TYPE d unknown\nd{quantile=\"0.5\"} 1\n# EOF\n";
        let expected = "# HELP a_b_total Requests.\n# TYPE a_b_total counter\na_b_total{} 1\n\
                        # HELP c How much.\n# TYPE c gauge\nc{x=\"# TYPE\"} 2.5\n\
                        # HELP d Latency.\n# TYPE d untyped\nd{quantile=\"0.5\"} 1\n";
        assert_eq!(of_openmetrics(openmetrics), expected);
    }

    #[test]
    fn text_format_is_wanted_only_by_clients_without_openmetrics() {
        assert!(is_wanted("text/plain"));
        assert!(is_wanted("text/plain;version=0.0.4;q=0.5,*/*;q=0.1"));
        assert!(!is_wanted("*/*"));
        assert!(!is_wanted(""));
        assert!(!is_wanted(
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
        ));
    }
}
