//! Assignment: the properties it promises, and the vectors that anybody can reproduce.

use proptest::prelude::*;
use statrs::distribution::{ChiSquared, ContinuousCDF};
use std::path::{Path, PathBuf};
use std::process::Command;
use watershed::experiment::assign::{Share, Split, Weight, murmur3_32};
use watershed::experiment::{GroupIndex, UserId};

fn split(salt: &str, traffic: f64, weights: &[f64]) -> Split {
    let names: Vec<String> = (0..weights.len())
        .map(|place| format!("g{place}"))
        .collect();
    let groups = names
        .iter()
        .zip(weights)
        .map(|(name, &weight)| (name.as_str(), Weight::new(weight).unwrap()));
    Split::new(salt, Share::new(traffic).unwrap(), groups)
}

fn place(split: &Split, user: &str) -> Option<usize> {
    split
        .assign(UserId::new(user.as_bytes()).unwrap())
        .map(|GroupIndex(place)| place)
}

fn chi_square_p(found: &[f64], expected: &[f64]) -> f64 {
    let sum: f64 = found
        .iter()
        .zip(expected)
        .map(|(found, expected)| (found - expected).powi(2) / expected)
        .sum();
    ChiSquared::new(found.len() as f64 - 1.0).unwrap().sf(sum)
}

#[test]
fn shares_are_as_the_weights_over_a_million_ids() {
    const USERS: usize = 1_000_000;
    for weights in [
        &[50.0, 50.0][..],
        &[99.0, 1.0],
        &[1.0, 1.0, 98.0],
        &[1.0; 10],
    ] {
        let split = split("shares", 1.0, weights);
        let mut found = vec![0.0; weights.len()];
        for user in 0..USERS {
            found[place(&split, &format!("user-{user}")).unwrap()] += 1.0;
        }
        let all: f64 = weights.iter().sum();
        let expected: Vec<f64> = weights
            .iter()
            .map(|weight| USERS as f64 * weight / all)
            .collect();
        let p = chi_square_p(&found, &expected);
        // The IDs are fixed: this is no chance event.
        assert!(p > 0.001, "{weights:?}: {found:?}, p = {p}");
    }
}

#[test]
fn the_traffic_share_is_as_written_and_independent_of_the_group() {
    const USERS: usize = 200_000;
    let (some, all) = (
        split("traffic", 0.3, &[1.0, 3.0]),
        split("traffic", 1.0, &[1.0, 3.0]),
    );
    let mut cells = [[0.0; 2]; 2];
    for user in 0..USERS {
        let user = format!("{user}");
        let (inside, group) = (place(&some, &user), place(&all, &user).unwrap());
        assert!(
            inside.is_none_or(|inside| inside == group),
            "traffic moves nobody between groups"
        );
        cells[usize::from(inside.is_some())][group] += 1.0;
    }
    let expected = |inside: f64, group: f64| USERS as f64 * inside * group;
    let expected = [
        expected(0.7, 0.25),
        expected(0.7, 0.75),
        expected(0.3, 0.25),
        expected(0.3, 0.75),
    ];
    assert!(
        chi_square_p(&cells.concat(), &expected) > 0.001,
        "{cells:?}"
    );
}

#[test]
fn experiments_are_independent_of_each_other() {
    const USERS: usize = 200_000;
    let (one, other) = (
        split("one", 1.0, &[1.0, 1.0]),
        split("other", 1.0, &[1.0, 1.0]),
    );
    let mut cells = [0.0; 4];
    for user in 0..USERS {
        let user = format!("{user}");
        cells[2 * place(&one, &user).unwrap() + place(&other, &user).unwrap()] += 1.0;
    }
    assert!(
        chi_square_p(&cells, &[USERS as f64 / 4.0; 4]) > 0.001,
        "{cells:?}"
    );
}

proptest! {
    #[test]
    fn changing_weights_moves_only_users_into_groups_that_grew(
        user in "\\PC{1,40}",
        weights in proptest::collection::vec(0.01f64..100.0, 2..6),
        changed in 0usize..6,
        factor in 0.01f64..100.0,
    ) {
        let changed = changed % weights.len();
        let mut after = weights.clone();
        after[changed] *= factor;
        let (before, now) = (place(&split("s", 1.0, &weights), &user), place(&split("s", 1.0, &after), &user));
        if before != now {
            // One weight grew: into it. One shrank: out of it, into any other, all of which grew.
            if factor > 1.0 { prop_assert_eq!(now, Some(changed)) } else { prop_assert_eq!(before, Some(changed)) }
        }
    }

    #[test]
    fn widening_traffic_moves_nobody_out(user in "\\PC{1,40}", narrow in 0.0f64..1.0, more in 0.0f64..1.0) {
        let wide = narrow + more * (1.0 - narrow);
        let before = place(&split("s", narrow, &[1.0, 2.0]), &user);
        if before.is_some() {
            prop_assert_eq!(before, place(&split("s", wide, &[1.0, 2.0]), &user));
        }
    }

    #[test]
    fn any_bytes_have_one_group_and_weights_count_by_ratio(user in proptest::collection::vec(any::<u8>(), 1..8192), weight in 0.001f64..1000.0) {
        let user = UserId::new(&user).unwrap();
        let group = split("s", 1.0, &[weight, weight]).assign(user);
        prop_assert!(group.is_some());
        prop_assert_eq!(group, split("s", 1.0, &[1.0, 1.0]).assign(user));
    }
}

#[test]
fn edges() {
    assert_eq!(UserId::new(b""), None);
    assert_eq!(place(&split("s", 0.0, &[1.0, 1.0]), "anyone"), None);
    assert_eq!(place(&split("s", 1.0, &[]), "anyone"), None);
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(Weight::new(bad), None);
    }
    assert_eq!(
        (Share::new(-0.1), Share::new(1.1), Share::new(f64::NAN)),
        (None, None, None)
    );
    // Long IDs are hashed whole: their last byte counts.
    let long = "x".repeat(8191);
    let groups: std::collections::BTreeSet<_> = (b'a'..=b'z')
        .map(|last| {
            place(
                &split("s", 1.0, &[1.0; 8]),
                &format!("{long}{}", char::from(last)),
            )
        })
        .collect();
    assert!(groups.len() > 3, "{groups:?}");
}

/// MurmurHash3 x86 32, seed 0: values that implementations in other languages are tested with.
#[test]
fn the_hash_is_murmur3() {
    for (text, hash) in [
        ("", 0),
        ("a", 0x3c25_69b2),
        ("Hello, world!", 0xc036_3e43),
        ("The quick brown fox jumps over the lazy dog", 0x2e4f_f723),
    ] {
        assert_eq!(murmur3_32(text.as_bytes()), hash, "{text:?}");
    }
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_published_vectors_hold() {
    let vectors = std::fs::read_to_string(root("tests/vectors/assignment.csv")).unwrap();
    let mut groups = std::collections::BTreeSet::new();
    for line in vectors.lines().skip(1) {
        let [salt, traffic, weights, user, expected] = line.split(',').collect::<Vec<_>>()[..]
        else {
            panic!("{line}")
        };
        let pairs: Vec<(&str, f64)> = weights
            .split(' ')
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, weight)| (name, weight.parse().unwrap()))
            .collect();
        let share = Share::new(traffic.parse().unwrap()).unwrap();
        let split = Split::new(
            salt,
            share,
            pairs
                .iter()
                .map(|&(name, weight)| (name, Weight::new(weight).unwrap())),
        );
        let user: Vec<u8> = percent_encoding::percent_decode_str(user).collect();
        let found = split
            .assign(UserId::new(&user).unwrap())
            .map_or("-", |GroupIndex(place)| pairs[place].0);
        assert_eq!(found, expected, "{line}");
        groups.insert(expected.to_owned());
    }
    assert!(vectors.lines().count() > 60 && groups.len() > 3);
}

/// The very lines of the page, run by Python against the vectors.
#[test]
fn the_page_says_the_same_in_python() {
    let page = std::fs::read_to_string(root("docs/assignment.md")).unwrap();
    let blocks: Vec<&str> = page
        .split("```python\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(blocks.len(), 2);
    let check = "
import csv, sys
from urllib.parse import unquote_to_bytes
for row in csv.DictReader(open(sys.argv[1], encoding='utf-8')):
    weights = {name: float(weight) for name, weight in (pair.split('=') for pair in row['groups'].split(' '))}
    found = group(row['salt'], unquote_to_bytes(row['user']), float(row['traffic']), weights) or '-'
    assert found == row['group'], (row, found)
print('all the same')
";
    let script = format!("{}\n{}\n{check}", blocks[1], blocks[0]);
    let vectors = root("tests/vectors/assignment.csv");
    let python = Command::new("python3")
        .args(["-c", &script])
        .arg(&vectors)
        .output();
    let python = python.expect("python3 is missing: ./scripts/test installs it");
    assert!(
        python.status.success(),
        "{}",
        String::from_utf8_lossy(&python.stderr)
    );
    assert_eq!(
        String::from_utf8_lossy(&python.stdout).trim(),
        "all the same"
    );
}
