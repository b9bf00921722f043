//! `algorithm` and `traffic_salt`: experiments that are split as another vendor splits them.

use super::reader::Node;
use crate::experiment::assign::{Share, Split, Weight};
use crate::experiment::bucketing::{Algorithm, Bucketing};
use crate::experiment::{EpochDigest, Group};

/// The keys of an experiment that are read here.
pub(super) const KEYS: &[(&str, &str)] = &[
    (
        "algorithm",
        "whose SDKs assign users alike: watershed (the default), optimizely, unleash, growthbook_v1, growthbook_v2, split, launchdarkly, posthog, statsig, eppo or flagd",
    ),
    (
        "traffic_salt",
        "for unleash, split, statsig and eppo: what is hashed with the user ID to decide who takes part, where it is not `salt`",
    ),
];

/// How an experiment splits users.
pub(super) struct Division {
    /// What names the experiment's run.
    pub salt: Box<str>,
    /// Salt, traffic share and weights, prepared for hashing.
    pub split: Split,
    /// The digest of all that decides groups.
    pub epoch: EpochDigest,
}

/// Reads how an experiment divides users.
pub(super) fn read(node: &Node<'_>, salt: &str, traffic: Share, groups: &[Group]) -> Division {
    let parts = || groups.iter().map(|group| (&*group.name, group.weight));
    let traffic_salt = node.get("traffic_salt");
    let Some(algorithm) = node.get("algorithm").and_then(|node| word(&node)) else {
        if let Some(traffic_salt) = traffic_salt {
            traffic_salt.problem(
                "`traffic_salt` without another `algorithm`",
                "leave it out: watershed hashes the traffic share by itself",
            );
        }
        return Division {
            salt: salt.into(),
            split: Split::new(salt, traffic, parts()),
            epoch: EpochDigest::of(salt, traffic, parts()),
        };
    };
    if let Some(traffic_salt) = traffic_salt
        .as_ref()
        .filter(|_| !algorithm.has_traffic_salt())
    {
        traffic_salt.problem(
            format!("{} hashes the traffic share with `salt`", algorithm.name()),
            "leave it out",
        );
    }
    let traffic_salt = traffic_salt.and_then(|node| node.text("a text"));
    check(node, algorithm, (salt, traffic_salt), (traffic, groups));
    let weights: Vec<Weight> = groups.iter().map(|group| group.weight).collect();
    let split = Split::by(Bucketing::new(
        algorithm,
        (salt, traffic_salt),
        traffic,
        &weights,
    ));
    Division {
        // Another algorithm assigns everybody anew, as another salt does.
        salt: format!("{}:{salt}", algorithm.name()).into(),
        epoch: EpochDigest::of(&split.seed(salt), traffic, parts()),
        split,
    }
}

/// The algorithm; `None` for watershed's own.
fn word(node: &Node<'_>) -> Option<Algorithm> {
    let mut words = vec![("watershed", None)];
    words.extend(Algorithm::ALL.map(|algorithm| (algorithm.name(), Some(algorithm))));
    // The version that GrowthBook gives to new experiments.
    words.push(("growthbook", Some(Algorithm::GrowthbookV2)));
    node.word(&words).flatten()
}

/// Reports what the vendor cannot express.
fn check(
    node: &Node<'_>,
    algorithm: Algorithm,
    (salt, traffic_salt): (&str, Option<&str>),
    (traffic, groups): (Share, &[Group]),
) {
    let at = |key: &str| node.get(key).unwrap_or_else(|| node.clone());
    match algorithm {
        Algorithm::Unleash => {
            let weights = groups.iter().map(|group| group.weight.get());
            let sum: f64 = weights.clone().sum();
            if weights.clone().any(|weight| weight.fract() != 0.0) || sum > f64::from(u32::MAX) {
                at("groups").problem(
                    "weights that Unleash cannot have",
                    "whole numbers as in Unleash, where they usually add up to 1000, such as `weight: 500`",
                );
            }
            if is_no_whole_percent(traffic) {
                at("traffic").problem(
                    format!("a rollout of {} %", 100.0 * traffic.get()),
                    "a whole percentage: Unleash knows no others",
                );
            }
        }
        Algorithm::Split => {
            let seeds = [("salt", Some(salt)), ("traffic_salt", traffic_salt)];
            for (key, seed) in seeds {
                if seed.is_some_and(|seed| Algorithm::split_seed(seed).is_none()) {
                    at(key).problem(
                        format!("{key} {:?}", seed.unwrap_or_default()),
                        "the seed of the feature flag in Split, a whole number from -2147483648 to 4294967295",
                    );
                }
            }
        }
        _ => {}
    }
    let is_stable = traffic_salt.is_some()
        || matches!(
            algorithm,
            Algorithm::Unleash
                | Algorithm::GrowthbookV1
                | Algorithm::GrowthbookV2
                | Algorithm::PostHog
        );
    if let Some(ramp) = node.get("ramp").filter(|_| !is_stable) {
        ramp.problem(
            format!(
                "a ramp beside {}, whose groups move with the traffic share",
                algorithm.name()
            ),
            match algorithm.has_traffic_salt() {
                true => "a `traffic_salt`, or a fixed `traffic`",
                false => "a fixed `traffic`",
            },
        );
    }
    let allocation = node.get("allocation");
    if allocation
        .is_some_and(|it| !matches!(it.value, super::file::Value::Text(word) if word == "fixed"))
    {
        at("allocation").problem(
            "weights that change beside another vendor's algorithm, in which each change moves users between all groups",
            "leave `allocation` or `algorithm` out",
        );
    }
}

fn is_no_whole_percent(share: Share) -> bool {
    let percent = 100.0 * share.get();
    (percent - percent.round()).abs() > 1e-9
}
