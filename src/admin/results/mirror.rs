//! What mirroring has found, in the results: of this process, since its start. docs/results.md says what each
//! field is.

use crate::admin::results::latency::Latency;
use crate::config::plan::Plan;
use crate::experiment::latency_bucket;
use crate::experiment::mirror::Mirror;
use crate::experiment::response_comparison::DifferenceKind;
use crate::experiment::{Experiment, UpstreamIndex};
use crate::stats::quantile::quantile;
use crate::telemetry::{
    MIRROR_KINDS, MirrorExample, MirrorSum, MirrorTally, MirroredPath, Telemetry,
};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How many patterns of paths are shown.
const PATHS_SHOWN: usize = 20;
/// The fewest failed copies that are worth a warning.
const FEW: u64 = 5;
/// By place in the counts.
const KINDS: [(DifferenceKind, &str); MIRROR_KINDS] = [
    (DifferenceKind::Status, "status"),
    (DifferenceKind::Location, "location"),
    (DifferenceKind::ContentType, "content_type"),
    (DifferenceKind::Body, "body"),
];

/// Copies of an experiment's requests, and in what the responses differ.
#[derive(Debug, Serialize, ToSchema)]
pub struct MirrorResult {
    pub to: String,
    pub share: f64,
    pub methods: Vec<String>,
    pub both_ways: bool,
    pub copies: u64,
    pub dropped: u64,
    pub failed: u64,
    pub asked_again: u64,
    pub compared: u64,
    pub equal: u64,
    pub differing: BTreeMap<&'static str, u64>,
    pub versions: Vec<MirroredVersion>,
    pub latency_difference_ms: Latency,
    pub paths: Vec<MirroredPathResult>,
    pub other_paths: OtherPaths,
}

/// One version that responses were compared of.
#[derive(Debug, Serialize, ToSchema)]
pub struct MirroredVersion {
    pub upstream: String,
    pub responses: u64,
    pub latency_ms: Latency,
}

/// The comparisons of paths of one pattern.
#[derive(Debug, Serialize, ToSchema)]
pub struct MirroredPathResult {
    pub path: String,
    pub compared: u64,
    pub differing: BTreeMap<&'static str, u64>,
    pub examples: Vec<MirrorExampleResult>,
}

/// A difference.
#[derive(Debug, Serialize, ToSchema)]
pub struct MirrorExampleResult {
    pub kind: &'static str,
    pub path: String,
    pub served_by: String,
    pub served: String,
    pub copied_to: String,
    pub copy: String,
}

/// The comparisons of paths that are not shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct OtherPaths {
    pub compared: u64,
    pub differing: u64,
}

/// What mirroring has found for an experiment; `None` where the file does not ask for it.
pub(crate) fn result(
    plan: &Plan,
    experiment: &Experiment,
    telemetry: &Telemetry,
) -> Option<MirrorResult> {
    let mirror = experiment.mirror.as_ref()?;
    let to = &plan.upstream(mirror.to).name;
    let sum = telemetry.mirror(&experiment.name, to);
    let methods = mirror.methods.iter();
    let tally = &sum.compared;
    let (paths, other_paths) = paths(tally);
    let versions = versions(plan, experiment, mirror, tally);
    Some(MirrorResult {
        to: to.to_string(),
        share: mirror.share.get(),
        methods: methods.map(ToString::to_string).collect(),
        both_ways: mirror.is_both_ways,
        copies: sum.copies,
        dropped: sum.dropped,
        failed: sum.failed,
        asked_again: sum.asked_again,
        compared: tally.compared,
        equal: tally.compared - tally.differing.iter().sum::<u64>(),
        differing: by_kind(&tally.differing),
        latency_difference_ms: difference(&versions),
        versions,
        paths,
        other_paths,
    })
}

/// Warns where most copies get no response.
pub(crate) fn warning(result: &MirrorResult) -> Option<String> {
    let MirrorResult {
        to, failed, copies, ..
    } = result;
    (*failed >= FEW && 2 * failed > *copies).then(|| {
        format!(
            "{failed} of {copies} mirrored requests could not be compared, because a version gave no response to the copy; look at the upstream {to}, and whether it accepts requests that it gets twice"
        )
    })
}

/// The name of a kind of difference, by its place.
fn by_kind(counts: &[u64; MIRROR_KINDS]) -> BTreeMap<&'static str, u64> {
    let kinds = KINDS.iter();
    kinds
        .map(|(kind, name)| (*name, counts[*kind as usize]))
        .collect()
}

/// The patterns of paths that differ most, and the rest.
fn paths(tally: &MirrorTally) -> (Vec<MirroredPathResult>, OtherPaths) {
    let mut paths: Vec<(&String, &MirroredPath)> = tally.paths.iter().collect();
    paths.sort_by_key(|(_, path)| (Reverse(path.differing()), Reverse(path.compared)));
    let shown = paths.iter().take(PATHS_SHOWN);
    let shown = shown.map(|(pattern, path)| MirroredPathResult {
        path: (*pattern).clone(),
        compared: path.compared,
        differing: by_kind(&path.differing),
        examples: KINDS
            .iter()
            .filter_map(|(kind, name)| {
                let example = path.examples[*kind as usize].as_ref()?;
                Some(example_result(name, example))
            })
            .collect(),
    });
    let rest = paths.iter().skip(PATHS_SHOWN);
    let (compared, differing) = rest.fold(tally.other_paths, |sum, (_, path)| {
        (sum.0 + path.compared, sum.1 + path.differing())
    });
    let other = OtherPaths {
        compared,
        differing,
    };
    (shown.collect(), other)
}

fn example_result(kind: &'static str, example: &MirrorExample) -> MirrorExampleResult {
    MirrorExampleResult {
        kind,
        path: example.path.to_string(),
        served_by: example.served.0.to_string(),
        served: example.served.1.clone(),
        copied_to: example.copy.0.to_string(),
        copy: example.copy.1.clone(),
    }
}

/// The versions that were compared: those of the groups, and the target last.
fn versions(
    plan: &Plan,
    experiment: &Experiment,
    mirror: &Mirror,
    tally: &MirrorTally,
) -> Vec<MirroredVersion> {
    let mut upstreams: Vec<UpstreamIndex> = Vec::new();
    let groups = experiment.groups.iter().filter_map(|group| group.upstream);
    for upstream in groups.filter(|it| *it != mirror.to).chain([mirror.to]) {
        if !upstreams.contains(&upstream) {
            upstreams.push(upstream);
        }
    }
    let version = |upstream| {
        let name = &plan.upstream(upstream).name;
        let latency = tally.latency.get(name);
        let of = |share| latency.and_then(|latency| quantile_ms(latency, share));
        MirroredVersion {
            upstream: name.to_string(),
            responses: latency.map_or(0, |latency| latency.values().sum()),
            latency_ms: Latency {
                p50: of(0.5),
                p95: of(0.95),
                p99: of(0.99),
            },
        }
    };
    upstreams.into_iter().map(version).collect()
}

/// How much longer the target took than the other version; nothing where there are several others.
fn difference(versions: &[MirroredVersion]) -> Latency {
    let [other, target] = versions else {
        return Latency::default();
    };
    let less = |of: fn(&Latency) -> Option<f64>| {
        let milliseconds = of(&target.latency_ms)? - of(&other.latency_ms)?;
        Some((milliseconds * 1e3).round() / 1e3)
    };
    Latency {
        p50: less(|it| it.p50),
        p95: less(|it| it.p95),
        p99: less(|it| it.p99),
    }
}

/// A quantile of latencies in buckets of [`latency_bucket`], in milliseconds.
fn quantile_ms(latency: &BTreeMap<u16, u64>, share: f64) -> Option<f64> {
    let bucket = quantile(&[(1.0, latency)], share)?;
    let middle_us = ((f64::from(bucket) + 0.5) * latency_bucket::step()).exp();
    // To the microsecond: the bucket is wider.
    Some((latency_bucket::FIRST_US * middle_us).round() / 1e3)
}

/// The counts of all experiments with a mirror, for metrics.
pub(crate) fn sums<'a>(plan: &'a Plan, telemetry: &Telemetry) -> Vec<(&'a str, MirrorSum)> {
    let mirrored = plan.experiments.iter().filter_map(|experiment| {
        let to = &plan.upstream(experiment.mirror.as_ref()?.to).name;
        let sum = telemetry.mirror(&experiment.name, to);
        Some((&*experiment.name, sum))
    });
    mirrored.collect()
}

/// How many comparisons had each result: `equal`, or the kind of the difference.
pub(crate) fn outcomes(tally: &MirrorTally) -> Vec<(&'static str, u64)> {
    let differing: u64 = tally.differing.iter().sum();
    let equal = [("equal", tally.compared - differing)];
    let kinds = by_kind(&tally.differing).into_iter();
    equal.into_iter().chain(kinds).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut latency = BTreeMap::new();
        for us in 1..=1_000_u64 {
            *latency.entry(latency_bucket::of(us * 100)).or_default() += 1;
        }
        let check = |share: f64, expected_ms: f64| {
            let found = quantile_ms(&latency, share).unwrap();
            assert!((found / expected_ms - 1.0).abs() < 0.02, "{share}: {found}");
        };
        check(0.5, 50.0);
        check(0.95, 95.0);
        check(0.99, 99.0);
        assert_eq!(quantile_ms(&BTreeMap::new(), 0.5), None);
    }
}
