//! What mirroring has found, as people read it. PURE.

use crate::admin::format::{part, thousands};
use crate::admin::results::mirror::{MirrorExampleResult, MirrorResult, MirroredPathResult};

/// One line of the table.
pub(crate) struct MirrorRow {
    /// The pattern of the path.
    pub path: String,
    /// How many pairs of responses were compared.
    pub compared: String,
    /// How many of them differed, and in what.
    pub differing: String,
    /// An example.
    pub example: String,
}

/// What was copied and found, in sentences.
pub(crate) fn sentences(mirror: &MirrorResult) -> Vec<String> {
    let mut sentences = vec![copied(mirror)];
    if mirror.compared > 0 {
        sentences.push(compared(mirror));
    }
    sentences.extend(slower(mirror));
    if mirror.failed > 0 {
        sentences.push(format!(
            "{} could not be compared, because a version gave no response to the copy",
            thousands(mirror.failed)
        ));
    }
    if mirror.dropped > 0 {
        sentences.push(format!(
            "{} were not copied, because too many copies were in flight; a smaller `share` avoids that",
            thousands(mirror.dropped)
        ));
    }
    if mirror.both_ways {
        sentences.push(
            "Users are counted from their first request on whose copy was answered differently"
                .to_owned(),
        );
    }
    sentences
}

/// A line for each pattern of paths, those that differ most first.
pub(crate) fn rows(mirror: &MirrorResult) -> Vec<MirrorRow> {
    let row = |path: &MirroredPathResult| {
        let kinds = kinds(path.differing.iter());
        let differing: u64 = path.differing.values().sum();
        let kinds = match kinds.is_empty() {
            true => "none".to_owned(),
            false => format!("{}: {kinds}", part(differing, path.compared)),
        };
        MirrorRow {
            path: path.path.clone(),
            compared: thousands(path.compared),
            differing: kinds,
            example: path.examples.first().map_or(String::new(), example),
        }
    };
    mirror.paths.iter().map(row).collect()
}

fn copied(mirror: &MirrorResult) -> String {
    let share = match mirror.share {
        1.0 => "All".to_owned(),
        share => format!("{} % of", (share * 1e4).round() / 1e2),
    };
    let methods = mirror.methods.join(" and ");
    let to = match mirror.both_ways {
        true => "the version that did not serve them".to_owned(),
        false => format!("`{}`", mirror.to),
    };
    format!(
        "{share} {methods} requests are copied to {to}: {} since this process started",
        thousands(mirror.copies)
    )
}

fn compared(mirror: &MirrorResult) -> String {
    let kinds = kinds(mirror.differing.iter());
    let differing: u64 = mirror.differing.values().sum();
    let compared = thousands(mirror.compared);
    match differing {
        0 => format!("{compared} pairs of responses were compared, and none differed"),
        _ => format!(
            "{compared} pairs of responses were compared, and {} differed: {kinds}",
            part(differing, mirror.compared)
        ),
    }
}

/// How much longer the target takes.
fn slower(mirror: &MirrorResult) -> Option<String> {
    let difference = &mirror.latency_difference_ms;
    let said = |ms: f64| {
        let word = if ms < 0.0 { "less" } else { "more" };
        format!("{:.1} ms {word}", ms.abs())
    };
    Some(format!(
        "To the head of a response, `{}` took {} at the median, and {} at the 95th percentile",
        mirror.to,
        said(difference.p50?),
        said(difference.p95?)
    ))
}

/// Kinds of differences with their numbers, the ones that were found.
fn kinds<'a>(counts: impl Iterator<Item = (&'a &'static str, &'a u64)>) -> String {
    let found = counts.filter(|(_, count)| **count > 0);
    let found: Vec<String> = found
        .map(|(kind, count)| format!("{} {}", thousands(*count), kind_word(kind)))
        .collect();
    found.join(", ")
}

fn kind_word(kind: &str) -> &str {
    match kind {
        "status" => "in status",
        "location" => "in the target of a redirect",
        "content_type" => "in media type",
        _ => "in content",
    }
}

fn example(example: &MirrorExampleResult) -> String {
    let MirrorExampleResult {
        path,
        served_by,
        served,
        copied_to,
        copy,
        ..
    } = example;
    format!("{path}: {served_by} answered {served}, and {copied_to} {copy}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::results::latency::Latency;
    use crate::admin::results::mirror::{MirroredVersion, OtherPaths};
    use std::collections::BTreeMap;

    fn mirror() -> MirrorResult {
        let differing = |status, body| BTreeMap::from([("status", status), ("body", body)]);
        MirrorResult {
            to: "redesign".to_owned(),
            share: 0.05,
            methods: vec!["GET".to_owned(), "HEAD".to_owned()],
            both_ways: false,
            copies: 1_204,
            dropped: 0,
            failed: 4,
            asked_again: 0,
            compared: 1_200,
            equal: 1_177,
            differing: differing(3, 20),
            versions: Vec::<MirroredVersion>::new(),
            latency_difference_ms: Latency {
                p50: Some(-1.25),
                p95: Some(12.0),
                p99: None,
            },
            paths: vec![MirroredPathResult {
                path: "/product/*".to_owned(),
                compared: 40,
                differing: differing(3, 0),
                examples: vec![MirrorExampleResult {
                    kind: "status",
                    path: "/product/17".to_owned(),
                    served_by: "current".to_owned(),
                    served: "200".to_owned(),
                    copied_to: "redesign".to_owned(),
                    copy: "404".to_owned(),
                }],
            }],
            other_paths: OtherPaths {
                compared: 0,
                differing: 0,
            },
        }
    }

    #[test]
    fn sentences_say_what_was_found() {
        assert_eq!(
            sentences(&mirror()),
            [
                "5 % of GET and HEAD requests are copied to `redesign`: 1,204 since this process started",
                "1,200 pairs of responses were compared, and 23 (1.92 %) differed: 20 in content, 3 in status",
                "To the head of a response, `redesign` took 1.2 ms less at the median, and 12.0 ms more at the 95th percentile",
                "4 could not be compared, because a version gave no response to the copy",
            ]
        );
        let rows = rows(&mirror());
        assert_eq!(rows[0].differing, "3 (7.50 %): 3 in status");
        assert_eq!(
            rows[0].example,
            "/product/17: current answered 200, and redesign 404"
        );
    }
}
