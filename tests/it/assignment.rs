//! Who is in which group: shares, movements, independence, and the vectors that other languages
//! are checked with.

use crate::support::tools;
use proptest::prelude::*;
use statrs::distribution::{ChiSquared, ContinuousCDF};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::process::Stdio;
use watershed::experiment::assign::{Share, Split, Weight, murmur3_32};
use watershed::experiment::{GroupIndex, UserId};

/// A sound hash fails a chi-square test at this threshold once in ten thousand times. The IDs
/// are fixed, so a test that passes once passes always.
const P_MIN: f64 = 1e-4;

const VECTORS: &str = include_str!("../vectors/assignment.csv");
const PAGE: &str = include_str!("../../docs/assignment.md");

#[test]
fn published_vectors_are_reproduced() {
    let rows = vectors();
    assert!(rows.len() >= 60, "only {} vectors", rows.len());
    for row in rows {
        let groups = row.weights.iter().map(|(name, weight)| (&**name, *weight));
        let split = Split::new(&row.salt, row.traffic, groups);
        let group = split.assign(user(&row.user));
        let name = group.map_or("outside", |group| &row.weights[group.0].0);
        assert_eq!(name, row.group, "{}", row.line);
    }
}

/// The lines that the documentation publishes, run as they stand there.
#[test]
fn documented_python_agrees() {
    let mut code: String = PAGE
        .split("```python\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap())
        .collect();
    assert!(
        code.contains("def group_of(salt, traffic, weights, user):"),
        "the page has lost its Python"
    );
    code.push_str(
        r#"
import sys, urllib.parse
for line in sys.stdin:
    salt, traffic, weights, user, _ = line.rstrip("\n").split(",")
    weights = dict((name, float(weight)) for name, weight in (word.split("=") for word in weights.split()))
    print(group_of(salt, float(traffic), weights, urllib.parse.unquote_to_bytes(user)))
"#,
    );
    let python = tools::command("python3")
        .args(["-X", "utf8", "-c", &code])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut python = python.expect("python3 is missing: ./scripts/test installs it");
    let rows = vectors();
    let mut input = python.stdin.take().unwrap();
    let lines: String = rows.iter().map(|row| format!("{}\n", row.line)).collect();
    // A thread of its own: Python answers before it has read everything.
    let feed = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = python.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "python3 failed:\n{errors}\n{code}");
    feed.join().unwrap().unwrap();
    let said: Vec<&str> = std::str::from_utf8(&output.stdout)
        .unwrap()
        .lines()
        .collect();
    assert_eq!(said.len(), rows.len());
    for (row, said) in rows.iter().zip(said) {
        assert_eq!(said, row.group, "Python says otherwise for {}", row.line);
    }
}

/// The table on the page shows vectors, not something else.
#[test]
fn documented_table_matches_the_vectors() {
    let shown: Vec<String> = PAGE
        .lines()
        .filter(|line| line.contains("=") && line.starts_with("| `"))
        .map(|line| {
            line.trim_matches('|')
                .replace(['`', ' '], "")
                .replace('|', ",")
        })
        .collect();
    assert!(shown.len() >= 5, "{shown:?}");
    let vectors = VECTORS.replace(' ', "");
    for line in shown {
        assert!(vectors.lines().any(|row| row == line), "{line}");
    }
}

#[test]
fn hash_is_murmur3() {
    for line in include_str!("../vectors/murmur3.csv").lines().skip(1) {
        let (key, hash) = line.split_once(',').unwrap();
        assert_eq!(
            murmur3_32(&decoded(key)),
            hash.parse::<u32>().unwrap(),
            "{line}"
        );
    }
    for line in include_str!("../vectors/murmur3_split.csv").lines().skip(1) {
        let [seed, key, hash] = line.split(',').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let found = murmur3::murmur3_32(&mut key.as_bytes(), seed.parse().unwrap()).unwrap();
        assert_eq!(found, hash.parse::<u32>().unwrap(), "{line}");
    }
}

#[test]
fn traffic_share_bounds_are_exact() {
    // A share of 0 takes nobody, one of 1 everybody, one of a single hash only hash 0.
    for (hash, share, inside) in [
        (0_u32, 0.0, false),
        (0, 0.5_f64.powi(32), true),
        (1, 0.5_f64.powi(32), false),
        (1, 1.5 * 0.5_f64.powi(32), true),
        (u32::MAX - 1, 1.0 - 0.5_f64.powi(32), true),
        (u32::MAX, 1.0 - 0.5_f64.powi(32), false),
        (u32::MAX, 1.0, true),
    ] {
        let salt = "edge";
        let Some(user) = user_with_hash(&format!("{salt}/traffic/"), hash) else {
            panic!("no user has hash {hash}");
        };
        let split = split(salt, share, even(&["a", "b"]));
        assert_eq!(
            split.assign(UserId::new(&user).unwrap()).is_some(),
            inside,
            "hash {hash} in a share of {share}"
        );
    }
}

#[test]
fn shares_match_weights_50_50() {
    check_shares("half", &[50.0, 50.0]);
}

#[test]
fn shares_match_weights_99_1() {
    check_shares("rare", &[99.0, 1.0]);
}

#[test]
fn shares_match_weights_1_1_98() {
    check_shares("three", &[1.0, 1.0, 98.0]);
}

#[test]
fn shares_match_weights_of_ten_groups() {
    check_shares("ten", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
}

/// Half a million numbers and half a million UUID-like IDs: short texts that share most of their
/// bytes, and long ones that share few.
#[track_caller]
fn check_shares(salt: &str, weights: &[f64]) {
    let names = &NAMES[..weights.len()];
    let split = split(
        salt,
        1.0,
        names.iter().copied().zip(weights.iter().copied()),
    );
    let total: f64 = weights.iter().sum();
    for ids in [number as fn(u64) -> String, uuid] {
        const USERS: u64 = 500_000;
        let mut seen = vec![0.0; weights.len()];
        for id in (0..USERS).map(ids) {
            seen[split.assign(user(id.as_bytes())).unwrap().0] += 1.0;
        }
        let expected: Vec<f64> = weights.iter().map(|w| USERS as f64 * w / total).collect();
        let p = chi_square_p(&seen, &expected, weights.len() - 1);
        assert!(p > P_MIN, "p = {p:e} for {seen:?}, expected {expected:?}");
    }
}

#[test]
fn traffic_share_has_the_configured_size() {
    const USERS: u64 = 300_000;
    for traffic in [0.001, 0.1, 0.5, 0.9] {
        let split = split("share", traffic, even(&["control", "experiment"]));
        let inside = (0..USERS)
            .filter(|&n| split.assign(user(number(n).as_bytes())).is_some())
            .count() as f64;
        let expected = USERS as f64 * traffic;
        let p = chi_square_p(
            &[inside, USERS as f64 - inside],
            &[expected, USERS as f64 - expected],
            1,
        );
        assert!(
            p > P_MIN,
            "p = {p:e}: {inside} inside instead of {expected}"
        );
    }
}

/// Short IDs are the hard case: their hashes differ only in the last steps of murmur3.
#[test]
fn experiments_are_independent_of_each_other() {
    const USERS: u64 = 50_000;
    let groups = [("control", 30.0), ("experiment", 50.0), ("c", 20.0)];
    let salts = [
        "new-checkout",
        "new-site",
        "a",
        "b",
        "aa",
        "ab",
        "exp-1",
        "exp-2",
        "",
    ];
    let seen: Vec<Vec<usize>> = salts
        .iter()
        .map(|salt| {
            let split = split(salt, 1.0, groups);
            let group = |n| split.assign(user(number(n).as_bytes())).unwrap().0;
            (0..USERS).map(group).collect()
        })
        .collect();
    for one in 0..salts.len() {
        for other in 0..one {
            let pairs = seen[one].iter().copied().zip(seen[other].iter().copied());
            let p = independence_p(pairs, groups.len());
            // 36 pairs: the threshold is for all of them together.
            assert!(
                p > P_MIN / 36.0,
                "p = {p:e}: {:?}, {:?}",
                salts[one],
                salts[other]
            );
        }
    }
}

#[test]
fn traffic_hash_is_independent_of_the_group() {
    const USERS: u64 = 400_000;
    for (weights, ids) in [
        (
            [("control", 50.0), ("experiment", 50.0)],
            uuid as fn(u64) -> String,
        ),
        ([("control", 90.0), ("experiment", 10.0)], number),
    ] {
        let everybody = split("new-site", 1.0, weights);
        let some = split("new-site", 0.1, weights);
        let pairs = (0..USERS).map(|n| {
            let id = ids(n);
            let group = everybody.assign(user(id.as_bytes())).unwrap().0;
            (
                group,
                usize::from(some.assign(user(id.as_bytes())).is_some()),
            )
        });
        let p = independence_p(pairs, 2);
        assert!(p > P_MIN, "p = {p:e}");
    }
}

#[test]
fn more_traffic_moves_no_user() {
    let shares = [0.0, 0.01, 0.1, 0.5, 0.999, 1.0];
    let splits = shares.map(|share| split("wide", share, even(&["control", "b", "c"])));
    for n in 0..20_000 {
        let id = number(n);
        let seen: Vec<_> = splits
            .iter()
            .map(|split| split.assign(user(id.as_bytes())))
            .collect();
        assert_eq!(seen[0], None);
        assert!(seen[5].is_some());
        for two in seen.windows(2) {
            assert!(two[0].is_none() || two[0] == two[1], "user {id}: {seen:?}");
        }
    }
}

proptest! {
    /// A user goes from one group to another only if the other grew relative to the first; with
    /// one weight changed that means: only into it if it grew, only out of it if it shrank.
    #[test]
    fn users_move_only_into_groups_that_grew(
        before in proptest::collection::vec(0.01_f64..100.0, 2..6),
        changed in 0_usize..6,
        factor in 0.01_f64..100.0,
        all in proptest::collection::vec(0.01_f64..100.0, 6),
    ) {
        let names = &NAMES[..before.len()];
        let changed = changed % before.len();
        let mut one = before.clone();
        one[changed] *= factor;
        let of = |weights: &[f64]| split("moves", 1.0, names.iter().copied().zip(weights.iter().copied()));
        let (old, one_new, all_new) = (of(&before), of(&one), of(&all[..before.len()]));
        for n in 0..300 {
            let id = number(n);
            let at = |split: &Split| split.assign(user(id.as_bytes())).unwrap().0;
            let (was, is) = (at(&old), at(&one_new));
            if was != is {
                let (wanted, place) = if factor > 1.0 { ("into", is) } else { ("out of", was) };
                prop_assert_eq!(place, changed, "user {} moved, not {} {}", id, wanted, changed);
            }
            let is = at(&all_new);
            if was != is {
                prop_assert!(all[is] / before[is] > all[was] / before[was]);
            }
        }
    }

    /// The unit of weights does not matter.
    #[test]
    fn scaled_weights_move_no_user(weights in proptest::collection::vec(0.01_f64..100.0, 2..6), factor in 0.001_f64..1000.0) {
        let names = &NAMES[..weights.len()];
        let old = split("factor", 1.0, names.iter().copied().zip(weights.iter().copied()));
        let new = split("factor", 1.0, names.iter().copied().zip(weights.iter().map(|w| w * factor)));
        for n in 0..300 {
            let id = number(n);
            prop_assert_eq!(old.assign(user(id.as_bytes())), new.assign(user(id.as_bytes())));
        }
    }

    /// Any bytes, any length: an answer, the same one each time, and that of the rule written out
    /// over one text in one piece (the way of reading prefix and ID must not matter).
    #[test]
    fn any_id_is_assigned_by_the_reference(
        id in proptest::collection::vec(any::<u8>(), 1..600),
        salt in "[a-z/.é-]{0,40}",
        weights in proptest::collection::vec(0.01_f64..100.0, 2..6),
    ) {
        let groups = || NAMES.iter().copied().zip(weights.iter().copied());
        let split = split(&salt, 1.0, groups());
        let score = |name: &str, weight: f64| {
            let mut key = format!("{salt}/{name}/").into_bytes();
            key.extend_from_slice(&id);
            let hash = murmur3::murmur3_32(&mut &key[..], 0).unwrap();
            ((f64::from(hash) + 0.5) / 4_294_967_296.0).ln() / weight
        };
        let best = groups()
            .map(|(name, weight)| score(name, weight))
            .enumerate()
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(index, _)| GroupIndex(index));
        prop_assert_eq!(split.assign(user(&id)), best);
        prop_assert_eq!(split.assign(user(&id)), best);
    }
}

/// What the page says of 1/1/1 and 10/5/1: a group may shrink and yet take users from another.
#[test]
fn smaller_weight_may_still_gain_users() {
    let old = split("shrink", 1.0, [("a", 1.0), ("b", 1.0), ("c", 1.0)]);
    let new = split("shrink", 1.0, [("a", 10.0), ("b", 5.0), ("c", 1.0)]);
    let mut moves = BTreeMap::<(usize, usize), u32>::new();
    for n in 0..30_000 {
        let id = number(n);
        let at = |split: &Split| split.assign(user(id.as_bytes())).unwrap().0;
        *moves.entry((at(&old), at(&new))).or_default() += 1;
    }
    for (from, to) in [(1, 2), (0, 1), (0, 2)] {
        assert_eq!(moves.get(&(from, to)), None, "{moves:?}");
    }
    assert!(moves[&(2, 1)] > 100, "{moves:?}");
    assert!(moves[&(1, 0)] > 100, "{moves:?}");
}

#[test]
fn added_group_gains_users_and_removed_group_moves_only_its_own() {
    let two = split("grow", 1.0, [("a", 3.0), ("b", 1.0)]);
    let three = split("grow", 1.0, [("a", 3.0), ("new", 2.0), ("b", 1.0)]);
    let mut moved = 0;
    for n in 0..20_000 {
        let id = number(n);
        let was = ["a", "b"][two.assign(user(id.as_bytes())).unwrap().0];
        let is = ["a", "new", "b"][three.assign(user(id.as_bytes())).unwrap().0];
        assert!(
            is == was || is == "new",
            "user {id} went from {was} to {is}"
        );
        moved += usize::from(is == "new");
    }
    assert!((6_000..7_400).contains(&moved), "{moved} of 20000 moved");
}

#[test]
fn order_of_groups_moves_no_user() {
    let one = split("order", 1.0, [("a", 3.0), ("b", 1.0), ("c", 2.0)]);
    let other = split("order", 1.0, [("c", 2.0), ("a", 3.0), ("b", 1.0)]);
    for n in 0..20_000 {
        let id = number(n);
        let one = ["a", "b", "c"][one.assign(user(id.as_bytes())).unwrap().0];
        let other = ["c", "a", "b"][other.assign(user(id.as_bytes())).unwrap().0];
        assert_eq!(one, other, "user {id}");
    }
}

/// Equal names draw equal hashes: the only tie that can be had for the asking.
#[test]
fn first_group_wins_a_tie() {
    let split = split("tie", 1.0, even(&["a", "a"]));
    for n in 0..1_000 {
        assert_eq!(
            split.assign(user(number(n).as_bytes())),
            Some(GroupIndex(0))
        );
    }
}

#[test]
fn empty_id_is_no_user_and_no_groups_assign_nobody() {
    assert_eq!(UserId::new(b""), None);
    let nothing: [(&str, f64); 0] = [];
    assert_eq!(split("none", 1.0, nothing).assign(user(b"1")), None);
}

#[test]
fn group_of_weight_zero_gets_nobody_and_moves_nobody_else() {
    let with = split("zero", 1.0, [("a", 1.0), ("none", 0.0), ("b", 1.0)]);
    let without = split("zero", 1.0, [("a", 1.0), ("b", 1.0)]);
    for number in 0..2000 {
        let id = format!("user-{number}");
        let place = with.assign(user(id.as_bytes())).unwrap().0;
        assert_ne!(place, 1, "{id}");
        let expected = without.assign(user(id.as_bytes())).unwrap().0;
        assert_eq!(place / 2, expected, "{id}");
    }
    let nobody = split("zero", 1.0, [("a", 0.0), ("b", 0.0)]);
    assert_eq!(nobody.assign(user(b"user-1")), None);
}

#[test]
fn invalid_weights_and_shares_are_refused() {
    for weight in [
        -f64::MIN_POSITIVE,
        -1.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ] {
        assert_eq!(Weight::new(weight), None, "{weight}");
    }
    for share in [-0.1, 1.000_001, f64::NAN, f64::INFINITY] {
        assert_eq!(Share::new(share), None, "{share}");
    }
    assert_eq!(Share::new(1.0), Some(Share::ALL));
}

/// IDs that are equal for hundreds or thousands of bytes and differ in the last one are as
/// independent as any others.
#[test]
fn ids_with_one_prefix_are_independent() {
    let split = split("long", 1.0, even(&["a", "b"]));
    for length in [31, 232, 233, 255, 256, 257, 1_000, 8_192] {
        let mut id = vec![b'x'; length];
        let mut seen = [0; 2];
        for last in 0..=255 {
            id[length - 1] = last;
            seen[split.assign(user(&id)).unwrap().0] += 1;
        }
        // 128 ± 6 standard deviations.
        assert!((80..=176).contains(&seen[0]), "{length} bytes: {seen:?}");
    }
}

#[test]
fn ids_are_compared_byte_by_byte() {
    let groups: Vec<String> = (0..64).map(|n| format!("g{n}")).collect();
    let groups: Vec<&str> = groups.iter().map(|name| &**name).collect();
    let split = split("fold", 1.0, even(&groups));
    // A pair in the same group proves nothing; one in different groups proves it was not folded.
    // Over 64 groups, all of these chances failing at once is out of the question.
    for (what, one, other) in [
        ("case", "anna", "Anna"),
        ("space", "anna", "anna "),
        ("leading space", "anna", " anna"),
        ("composition", "J\u{fc}rgen", "Ju\u{308}rgen"),
        ("NUL", "anna", "anna\0"),
        ("zeros", "1", "01"),
        ("slash", "a/b", "ab"),
    ] {
        let apart = (0..20).any(|n| {
            let at = |id: &str| split.assign(user(format!("{id}{n}").as_bytes()));
            let after = |id: &str| split.assign(user(format!("{n}{id}").as_bytes()));
            at(one) != at(other) || after(one) != after(other)
        });
        assert!(apart, "{what}");
    }
}

/// A thousand users, a thousand requests each, from several threads with plans of their own, in
/// different orders: nobody is ever seen in two groups.
#[test]
fn no_user_switches_groups() {
    const USERS: u64 = 1_000;
    let replica = |seed: u64| {
        move || {
            let split = split("soak", 0.8, [("control", 70.0), ("b", 20.0), ("c", 10.0)]);
            let mut seen: HashMap<String, Option<GroupIndex>> = HashMap::new();
            for request in 0..USERS * 250 {
                // 7919 is prime to 1000, so each user comes as often as any other.
                let id = uuid((request * 7_919 + seed) % USERS);
                let group = split.assign(user(id.as_bytes()));
                let first = *seen.entry(id.clone()).or_insert(group);
                assert_eq!(first, group, "user {id}, request {request}");
            }
            seen
        }
    };
    let replicas: Vec<_> = (0..4)
        .map(|seed| std::thread::spawn(replica(seed)))
        .collect();
    let mut seen: Vec<_> = replicas.into_iter().map(|it| it.join().unwrap()).collect();
    let first = seen.pop().unwrap();
    assert_eq!(first.len(), USERS as usize);
    for other in seen {
        assert_eq!(first, other);
    }
    assert!(first.values().any(Option::is_none) && first.values().any(Option::is_some));
}

const NAMES: [&str; 10] = [
    "control",
    "b",
    "c",
    "d",
    "e",
    "f",
    "g",
    "h",
    "i",
    "experiment",
];

struct Row<'a> {
    line: &'a str,
    salt: String,
    traffic: Share,
    weights: Vec<(String, Weight)>,
    user: Vec<u8>,
    group: &'a str,
}

fn vectors() -> Vec<Row<'static>> {
    let row = |line: &'static str| {
        let [salt, traffic, weights, user, group] = line.split(',').collect::<Vec<_>>()[..] else {
            panic!("not five columns: {line}");
        };
        let weight = |word: &str| {
            let (name, weight) = word.split_once('=').unwrap();
            (
                name.to_owned(),
                Weight::new(weight.parse().unwrap()).unwrap(),
            )
        };
        Row {
            line,
            salt: salt.to_owned(),
            traffic: Share::new(traffic.parse().unwrap()).unwrap(),
            weights: weights.split(' ').map(weight).collect(),
            user: decoded(user),
            group,
        }
    };
    VECTORS.lines().skip(1).map(row).collect()
}

fn decoded(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}

fn user(id: &[u8]) -> UserId<'_> {
    UserId::new(id).expect("an ID")
}

/// Short IDs: 0, 1, 2 …
fn number(n: u64) -> String {
    n.to_string()
}

/// Long IDs of the shape of a UUID.
fn uuid(n: u64) -> String {
    let wide = u128::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let hex = format!("{:032x}", wide ^ (wide >> 61));
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

fn even<'a>(names: &[&'a str]) -> Vec<(&'a str, f64)> {
    names.iter().map(|&name| (name, 1.0)).collect()
}

fn split<'a>(salt: &str, traffic: f64, groups: impl IntoIterator<Item = (&'a str, f64)>) -> Split {
    let weighted = |(name, weight)| (name, Weight::new(weight).expect("a weight"));
    Split::new(
        salt,
        Share::new(traffic).expect("a share"),
        groups.into_iter().map(weighted),
    )
}

/// The chance of counts at least as far from what is expected.
fn chi_square_p(seen: &[f64], expected: &[f64], freedom: usize) -> f64 {
    let statistic: f64 = seen
        .iter()
        .zip(expected)
        .map(|(seen, expected)| (seen - expected).powi(2) / expected)
        .sum();
    ChiSquared::new(freedom as f64).unwrap().sf(statistic)
}

/// Pearson's test of independence of two groupings with so many groups each.
fn independence_p(pairs: impl Iterator<Item = (usize, usize)>, groups: usize) -> f64 {
    let mut seen = vec![0.0; groups * groups];
    for (one, other) in pairs {
        seen[one * groups + other] += 1.0;
    }
    let total: f64 = seen.iter().sum();
    let row = |one: usize| {
        (0..groups)
            .map(|other| seen[one * groups + other])
            .sum::<f64>()
    };
    let column = |other: usize| {
        (0..groups)
            .map(|one| seen[one * groups + other])
            .sum::<f64>()
    };
    let expected: Vec<f64> = (0..groups * groups)
        .map(|cell| row(cell / groups) * column(cell % groups) / total)
        .collect();
    chi_square_p(&seen, &expected, (groups - 1) * (groups - 1))
}

/// A user whose key has this hash, found by running murmur3 backwards: every step of it can be
/// undone, so four free bytes at the end of a key of whole words reach any hash.
fn user_with_hash(prefix: &str, hash: u32) -> Option<Vec<u8>> {
    let unshift = |x: u32, by: u32| {
        let mut found = x;
        for _ in 0..32 / by {
            found = x ^ (found >> by);
        }
        found
    };
    let inverse = |odd: u32| {
        (0..5).fold(odd, |inv, _| {
            inv.wrapping_mul(2_u32.wrapping_sub(odd.wrapping_mul(inv)))
        })
    };
    let mut id = vec![b'x'; (4 - prefix.len() % 4) % 4];
    let length = (prefix.len() + id.len() + 4) as u32;
    // The state that ends in this hash, before the last word.
    let mut state = unshift(hash, 16).wrapping_mul(inverse(0xc2b2_ae35));
    state = unshift(state, 13).wrapping_mul(inverse(0x85eb_ca6b));
    state = unshift(state, 16) ^ length;
    let after = state
        .wrapping_sub(0xe654_6b64)
        .wrapping_mul(inverse(5))
        .rotate_right(13);
    // The state of the prefix alone, by the same way back from its hash.
    let mut key = prefix.as_bytes().to_vec();
    key.extend_from_slice(&id);
    let mut before = unshift(murmur3_32(&key), 16).wrapping_mul(inverse(0xc2b2_ae35));
    before = unshift(before, 13).wrapping_mul(inverse(0x85eb_ca6b));
    before = unshift(before, 16) ^ key.len() as u32;
    let word = (after ^ before)
        .wrapping_mul(inverse(0x1b87_3593))
        .rotate_right(15)
        .wrapping_mul(inverse(0xcc9e_2d51));
    id.extend_from_slice(&word.to_le_bytes());
    key.truncate(prefix.len());
    key.extend_from_slice(&id);
    (murmur3_32(&key) == hash).then_some(id)
}
