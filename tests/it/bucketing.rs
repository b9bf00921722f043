//! Other vendors' assignment, against known answers of their SDKs; the libraries in `clients/`; and
//! `watershed import`.

use crate::support::proxy::BINARY;
use crate::support::tools;
use percent_encoding::percent_decode_str;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use watershed::config;
use watershed::experiment::UserId;
use watershed::experiment::assign::{Share, Split, Weight};
use watershed::experiment::bucketing::{Algorithm, Bucketing};

const VECTORS: &str = "tests/vectors/bucketing.csv";

fn of_project(place: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(place)
}

fn algorithm(name: &str) -> Algorithm {
    let mut all = Algorithm::ALL.into_iter();
    let found = all.find(|algorithm| algorithm.name() == name);
    found.unwrap_or_else(|| panic!("unknown algorithm {name}"))
}

fn split(
    algorithm: Algorithm,
    salts: (&str, Option<&str>),
    traffic: f64,
    weights: &[f64],
) -> Split {
    let weights: Vec<Weight> = weights.iter().map(|it| Weight::new(*it).unwrap()).collect();
    let traffic = Share::new(traffic).unwrap();
    Split::by(Bucketing::new(algorithm, salts, traffic, &weights))
}

/// The answers are those of the SDKs that tests/vectors/README.md lists.
#[test]
fn answers_of_the_vendors_are_reproduced() {
    let text = std::fs::read_to_string(of_project(VECTORS)).unwrap();
    let mut counts = BTreeMap::<&str, usize>::new();
    for line in text.lines().skip(1) {
        let [name, salt, traffic_salt, traffic, weights, user, group] =
            line.split(',').collect::<Vec<_>>()[..]
        else {
            panic!("{line}");
        };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
        let (salt, traffic_salt) = (decoded(salt), decoded(traffic_salt));
        let traffic_salt = (!traffic_salt.is_empty()).then_some(&*traffic_salt);
        let pairs: Vec<(&str, f64)> = weights
            .split(' ')
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, weight)| (name, weight.parse().unwrap()))
            .collect();
        let weights: Vec<f64> = pairs.iter().map(|(_, weight)| *weight).collect();
        let split = split(
            algorithm(name),
            (&salt, traffic_salt),
            traffic.parse().unwrap(),
            &weights,
        );
        let user: Vec<u8> = percent_decode_str(user).collect();
        let found = split.assign(UserId::new(&user).unwrap());
        assert_eq!(
            found.map_or("outside", |found| pairs[found.0].0),
            group,
            "{line}"
        );
        *counts.entry(name).or_default() += 1;
    }
    assert_eq!(counts.len(), Algorithm::ALL.len(), "{counts:?}");
    assert!(counts.values().all(|count| *count >= 30), "{counts:?}");
}

/// Users whose ID is no text are those that a decoder makes of them.
#[test]
fn bytes_that_are_no_text_hash_as_decoders_show_them() {
    for name in ["growthbook_v1", "growthbook_v2", "flagd"] {
        let split = split(algorithm(name), ("salt", None), 1.0, &[1.0; 50]);
        let group = |user: &[u8]| split.assign(UserId::new(user).unwrap());
        assert_eq!(group(b"a\xFFb"), group("a\u{FFFD}b".as_bytes()), "{name}");
        assert_ne!(group(b"a\xFFb"), group(b"ab"), "{name}");
    }
}

/// The published bucket of an experiment with these ids, in Optimizely's own tests: each pair is a user and
/// the bucket of 10,000.
#[test]
fn optimizely_buckets_are_the_published_ones() {
    for (user, bucket) in [("ppid1", 5254_u32), ("ppid2", 4299), ("ppid3", 5439)] {
        // Alone in the second group, which has this bucket only.
        let weights = [f64::from(bucket), 1.0, f64::from(9999 - bucket)];
        let split = split(Algorithm::Optimizely, ("1886780721", None), 1.0, &weights);
        let group = split.assign(UserId::new(user.as_bytes()).unwrap());
        assert_eq!(group.map(|group| group.0), Some(1), "{user}");
    }
}

proptest! {
    /// Shares are as large as they should be, and a share of 100 % takes everybody.
    #[test]
    fn shares_match_weights_and_traffic(which in 0_usize..10, first in 1_u32..99, traffic in 1_u32..=100, salt in 0_u32..1000) {
        let algorithm = Algorithm::ALL[which];
        let share = f64::from(traffic) / 100.0;
        let weights = [f64::from(first), f64::from(100 - first)];
        let (salt, traffic_salt) = (salt.to_string(), (salt + 5000).to_string());
        let traffic_salt = algorithm.has_traffic_salt().then_some(&*traffic_salt);
        let split = split(algorithm, (&salt, traffic_salt), share, &weights);
        const USERS: usize = 2000;
        let mut seen = [0_usize; 3];
        for n in 0..USERS {
            let user = format!("user-{n}");
            let user = UserId::new(user.as_bytes()).unwrap();
            let group = split.assign(user);
            seen[group.map_or(2, |group| group.0)] += 1;
            if let Some(group) = group
                && (share == 1.0 || traffic_salt.is_some() || algorithm == Algorithm::PostHog)
            {
                prop_assert_eq!(split.group(user), Some(group));
            }
        }
        let expected = [share * weights[0] / 100.0, share * weights[1] / 100.0, 1.0 - share];
        for (seen, expected) in seen.iter().zip(expected) {
            // Six standard errors, and the coarsest bucket.
            let slack = 6.0 * (expected * (1.0 - expected) / USERS as f64).sqrt() + 0.011;
            let seen = *seen as f64 / USERS as f64;
            prop_assert!((seen - expected).abs() <= slack, "{:?}: {} instead of {}", algorithm, seen, expected);
        }
        if share == 1.0 {
            prop_assert_eq!(seen[2], 0);
        }
    }

    /// Where the traffic share has a hash of its own, widening it moves nobody; GrowthBook begins each group's
    /// range at the same number whatever the coverage is.
    #[test]
    fn more_traffic_moves_nobody(which in 0_usize..10, less in 1_u32..50, more in 50_u32..=100) {
        let algorithm = Algorithm::ALL[which];
        let traffic_salt = algorithm.has_traffic_salt().then_some("77");
        let is_growthbook = algorithm.name().starts_with("growthbook");
        prop_assume!(traffic_salt.is_some() || algorithm == Algorithm::PostHog || is_growthbook);
        let of = |traffic: u32| split(algorithm, ("5", traffic_salt), f64::from(traffic) / 100.0, &[60.0, 40.0]);
        let (narrow, wide) = (of(less), of(more));
        for n in 0..300 {
            let user = format!("user-{n}");
            let user = UserId::new(user.as_bytes()).unwrap();
            if let Some(group) = narrow.assign(user) {
                prop_assert_eq!(wide.assign(user), Some(group));
            }
        }
    }
}

fn succeeded(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    out
}

#[test]
fn python_library_agrees_with_the_vectors() {
    let output = tools::command("python3")
        .arg(of_project("clients/python/check_vectors.py"))
        .args([
            of_project(VECTORS),
            of_project("tests/vectors/assignment.csv"),
        ])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert_eq!(succeeded(&output).matches("vectors\n").count(), 2);
}

#[test]
fn javascript_library_agrees_with_the_vectors() {
    let output = tools::command("node")
        .arg(of_project("clients/javascript/check-vectors.mjs"))
        .args([
            of_project(VECTORS),
            of_project("tests/vectors/assignment.csv"),
        ])
        .output()
        .unwrap();
    assert_eq!(succeeded(&output).matches("vectors\n").count(), 2);
}

/// A file with one experiment, without upstreams of its own.
fn file(keys: &str) -> String {
    format!("upstreams: {{ a: http://127.0.0.1:1 }}\nexperiments:\n  flag: {{ {keys} }}\n")
}

const EVEN: &str = "groups: { control: { weight: 500 }, other: { weight: 500 } }";

#[track_caller]
fn refused(keys: &str, says: &str) {
    match config::parse(&file(keys), Path::new("routes.yaml"), &|_| None) {
        Ok(_) => panic!("it is valid: {keys}"),
        Err(invalid) => {
            let text = invalid.to_string();
            assert!(text.contains(says), "{text}");
        }
    }
}

#[test]
fn what_a_vendor_cannot_have_is_an_error() {
    refused(
        &format!("algorithm: unlaesh, {EVEN}"),
        "did you mean `unleash`?",
    );
    refused(
        &format!("algorithm: split, {EVEN}"),
        "the seed of the feature flag in Split",
    );
    refused(
        &format!("algorithm: split, salt: 1, traffic_salt: x, {EVEN}"),
        "experiments.flag.traffic_salt",
    );
    refused(
        "algorithm: unleash, groups: { control: { weight: 0.5 }, other: { weight: 0.5 } }",
        "whole numbers as in Unleash",
    );
    refused(
        &format!("algorithm: unleash, traffic: 12.5%, {EVEN}"),
        "a whole percentage",
    );
    refused(
        &format!("algorithm: posthog, traffic_salt: x, {EVEN}"),
        "posthog hashes the traffic share with `salt`",
    );
    refused(
        &format!("traffic_salt: x, {EVEN}"),
        "`traffic_salt` without another `algorithm`",
    );
    refused(
        &format!("algorithm: eppo, sticky: true, allocation: thompson, {EVEN}"),
        "weights that change beside another vendor's algorithm",
    );
    refused(
        &format!("algorithm: optimizely, ramp: [ 1% for 1h, 50% ], {EVEN}"),
        "a ramp beside optimizely, whose groups move with the traffic share",
    );
    refused(
        "groups: { control: { weight: 1, value: [ 1 ] }, other: { weight: 1 } }",
        "experiments.flag.groups.control.value: a list",
    );
    refused(
        "groups: { control: { weight: 1, value: true }, other: { weight: 1 } }",
        "a `value` is true or false, and another is a text",
    );
}

/// The file reaches the same code, another algorithm begins a new phase, and `growthbook` is version 2.
#[test]
fn file_names_the_algorithm() {
    let plan = |keys: &str| {
        let plan = config::parse(&file(keys), Path::new("routes.yaml"), &|_| None);
        plan.unwrap_or_else(|invalid| panic!("{invalid}"))
    };
    let weights = "groups: { control: { weight: 50 }, other: { weight: 50 } }";
    let own = plan(&format!("salt: x, {weights}"));
    let named = plan(&format!("algorithm: watershed, salt: x, {weights}"));
    let short = plan(&format!("algorithm: growthbook, salt: x, {weights}"));
    let long = plan(&format!("algorithm: growthbook_v2, salt: x, {weights}"));
    let first = plan(&format!("algorithm: growthbook_v1, salt: x, {weights}"));
    let epoch =
        |plan: &config::plan::Plan| (plan.experiments[0].salt.clone(), plan.experiments[0].epoch);
    assert_eq!(epoch(&own), epoch(&named));
    assert_eq!(epoch(&short), epoch(&long));
    assert_ne!(epoch(&short), epoch(&first));
    assert_ne!(epoch(&short), epoch(&own));
    let group = |plan: &config::plan::Plan, user: &str| {
        let split = &plan.experiments[0].split;
        split
            .assign(UserId::new(user.as_bytes()).unwrap())
            .unwrap()
            .0
    };
    let direct = split(Algorithm::GrowthbookV2, ("x", None), 1.0, &[50.0, 50.0]);
    let mut differ = 0;
    for n in 0..200 {
        let user = format!("u{n}");
        let id = UserId::new(user.as_bytes()).unwrap();
        assert_eq!(group(&short, &user), direct.assign(id).unwrap().0);
        differ += usize::from(group(&short, &user) != group(&own, &user));
    }
    assert!(differ > 50, "{differ}");
}

/// What a ramp does to the traffic share, and decisions to weights, keeps the algorithm.
#[test]
fn changed_split_keeps_the_algorithm() {
    for algorithm in Algorithm::ALL {
        let traffic_salt = algorithm.has_traffic_salt().then_some("8");
        let salts = ("7", traffic_salt);
        let names = ["control", "other"];
        let weight = |weight: f64| Weight::new(weight).unwrap();
        let changed = split(algorithm, salts, 0.1, &[1.0, 1.0]).changed(
            "what it was called",
            Share::new(0.5).unwrap(),
            names.into_iter().zip([weight(30.0), weight(70.0)]),
        );
        let made = split(algorithm, salts, 0.5, &[30.0, 70.0]);
        assert_eq!(changed.seed("x"), made.seed("x"));
        for n in 0..200 {
            let user = format!("u{n}");
            let user = UserId::new(user.as_bytes()).unwrap();
            assert_eq!(changed.assign(user), made.assign(user), "{algorithm:?}");
        }
    }
}

/// Runs `watershed import`, checks that the file is valid, and returns it with what was said.
#[track_caller]
fn import(vendor: &str, text: &str) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.json");
    std::fs::write(&path, text).unwrap();
    let output = Command::new(BINARY)
        .args(["import", vendor])
        .arg(&path)
        .output()
        .unwrap();
    let yaml = succeeded(&output);
    if let Err(invalid) = config::parse(&yaml, Path::new("routes.yaml"), &|_| None) {
        panic!("{invalid}\n{yaml}");
    }
    (yaml, String::from_utf8(output.stderr).unwrap())
}

/// The group of a user in the file's first experiment.
fn group_in(yaml: &str, experiment: &str, user: &str) -> String {
    let plan = config::parse(yaml, Path::new("routes.yaml"), &|_| None).unwrap();
    let index = plan.experiment_named(experiment).unwrap();
    let experiment = plan.experiment(index);
    let group = experiment
        .split
        .assign(UserId::new(user.as_bytes()).unwrap());
    group.map_or("outside".to_owned(), |group| {
        experiment.groups[group.0].name.to_string()
    })
}

#[test]
fn growthbook_payload_is_imported() {
    let payload = r#"{"status":200,"features":{
        "new-checkout":{"defaultValue":false,"rules":[
            {"key":"checkout-test","seed":"s-1","hashAttribute":"id","hashVersion":2,"variations":[false,true],
             "weights":[0.5,0.5],"coverage":1,"meta":[{"key":"0","name":"Control"},{"key":"1","name":"New"}],"phase":"0"},
            {"force":true,"coverage":0.1,"hashAttribute":"id"}]},
        "price":{"defaultValue":"a","rules":[{"variations":["a","b"],"coverage":0.4,"weights":[0.2,0.8],
             "condition":{"country":"DE"},"namespace":["ns",0,0.5]}]},
        "plain":{"defaultValue":1}}}"#;
    let (yaml, said) = import("growthbook", payload);
    assert!(yaml.contains("algorithm: growthbook_v2"), "{yaml}");
    assert!(yaml.contains("algorithm: growthbook_v1"), "{yaml}");
    assert!(yaml.contains("traffic: 40%"), "{yaml}");
    let groups = ["control", "variation-1"];
    let own = split(Algorithm::GrowthbookV2, ("s-1", None), 1.0, &[0.5, 0.5]);
    for n in 0..50 {
        let user = format!("u{n}");
        let expected = own.assign(UserId::new(user.as_bytes()).unwrap()).unwrap();
        assert_eq!(
            group_in(&yaml, "checkout-test", &user),
            groups[expected.0],
            "{yaml}"
        );
    }
    for says in [
        "price: `condition`",
        "price: `namespace`",
        "new-checkout: a rule with `force`",
        "plain: no experiment",
    ] {
        assert!(said.contains(says), "{says} in {said}");
    }
}

#[test]
fn unleash_features_are_imported() {
    let features = r#"{"version":2,"features":[
        {"name":"checkout","enabled":true,"strategies":[{"name":"flexibleRollout",
          "parameters":{"rollout":"50","stickiness":"userId","groupId":"group-a"},
          "constraints":[{"contextName":"country","operator":"IN","values":["DE"]}],
          "variants":[{"name":"blue","weight":500,"payload":{"type":"json","value":"{\"a\":1}"}},
                      {"name":"red","weight":500,"payload":{"type":"json","value":"{\"a\":2}"}}]}]},
        {"name":"banner","enabled":true,"strategies":[{"name":"flexibleRollout","parameters":{"rollout":"100","stickiness":"default","groupId":"g"}}],
          "variants":[{"name":"a","weight":333,"overrides":[{"contextName":"userId","values":["ann"]}]},{"name":"b","weight":667}]},
        {"name":"off","enabled":false,"strategies":[]},
        {"name":"rollout","enabled":true,"strategies":[{"name":"flexibleRollout","parameters":{"rollout":"30","groupId":"r"}}]}]}"#;
    let (yaml, said) = import("unleash", features);
    let own = split(Algorithm::Unleash, ("group-a", None), 0.5, &[500.0, 500.0]);
    for n in 0..50 {
        let user = format!("u{n}");
        let expected = own.assign(UserId::new(user.as_bytes()).unwrap());
        let expected = expected.map_or("outside", |group| ["blue", "red"][group.0]);
        assert_eq!(group_in(&yaml, "checkout", &user), expected, "{yaml}");
    }
    assert!(yaml.contains(r#"value: {"a":2}"#), "{yaml}");
    assert!(yaml.contains(r#"include: { "a": ["ann"] }"#), "{yaml}");
    for says in [
        "checkout: `constraints`",
        "off: it is disabled",
        "rollout: it has no variants",
    ] {
        assert!(said.contains(says), "{says} in {said}");
    }
}

#[test]
fn optimizely_datafile_is_imported() {
    let datafile = r#"{"version":"4","experiments":[
        {"id":"1886780721","key":"checkout","status":"Running","audienceIds":["7"],"forcedVariations":{"ann":"b"},
         "variations":[{"id":"1","key":"a"},{"id":"2","key":"b"}],
         "trafficAllocation":[{"entityId":"1","endOfRange":2000},{"entityId":"2","endOfRange":4000},{"entityId":"","endOfRange":10000}]},
        {"id":"3","key":"holes","status":"Running","variations":[{"id":"1","key":"a"},{"id":"2","key":"b"}],
         "trafficAllocation":[{"entityId":"1","endOfRange":2000},{"entityId":"","endOfRange":5000},{"entityId":"2","endOfRange":7000}]},
        {"id":"4","key":"old","status":"Paused","variations":[],"trafficAllocation":[]}],
        "groups":[{"id":"g","policy":"random","trafficAllocation":[],"experiments":[{"id":"5","key":"exclusive","status":"Running","variations":[],"trafficAllocation":[]}]}]}"#;
    let (yaml, said) = import("optimizely", datafile);
    let own = split(
        Algorithm::Optimizely,
        ("1886780721", None),
        0.4,
        &[1.0, 1.0],
    );
    for n in 0..50 {
        let user = format!("u{n}");
        let expected = own.assign(UserId::new(user.as_bytes()).unwrap());
        let expected = expected.map_or("outside", |group| ["a", "b"][group.0]);
        assert_eq!(group_in(&yaml, "checkout", &user), expected, "{yaml}");
    }
    assert!(yaml.contains(r#"include: { "b": ["ann"] }"#), "{yaml}");
    for says in [
        "checkout: `audienceIds`",
        "holes: its ranges",
        "old: its status is \"Paused\"",
        "exclusive: it is in the exclusion group",
    ] {
        assert!(said.contains(says), "{says} in {said}");
    }
}

#[test]
fn import_names_what_is_wrong_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.json");
    for (vendor, text, says) in [
        ("unleash", "{", "is not JSON"),
        ("unleash", "{}", "no `features`"),
        ("growthbook", r#"{"encryptedFeatures":"x"}"#, "encrypted"),
        ("optimizely", "[]", "no `experiments`"),
        ("optimizely", r#"{"experiments":[]}"#, "nothing to import"),
    ] {
        std::fs::write(&path, text).unwrap();
        let output = Command::new(BINARY)
            .args(["import", vendor])
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{vendor}: {said}");
        assert!(said.contains(says), "{vendor}: {said}");
    }
    let output = Command::new(BINARY)
        .args(["import", "other", "x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}
