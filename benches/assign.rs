//! What one assignment costs: `cargo bench --bench assign`.
//!
//! Prints nanoseconds for one assignment of a UUID: to two groups, with equal and uneven weights
//! and inside of a traffic share, and to ten; and for one bare murmur3 of the same bytes as a
//! yardstick. The aim is less than 150 ns for two groups. Then what it costs to find out what a
//! request means, with one experiment and with a thousand for as many hosts, or parts of a site.
//! The median over rounds counts; the fastest round shows how quiet the machine was.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;
use watershed::config;
use watershed::config::plan::Plan;
use watershed::experiment::UserId;
use watershed::experiment::assign::{Share, Split, Weight, murmur3_32};
use watershed::experiment::resolve::{self, Subject};

/// Enough users that no branch predictor learns them, few enough to stay in cache.
const USERS: usize = 4096;
const ROUNDS: usize = 31;
/// How often each round goes through all users.
const PASSES: usize = 25;

fn main() {
    let users: Vec<String> = (0..USERS as u64).map(uuid_of).collect();
    let keys: Vec<String> = users
        .iter()
        .map(|user| format!("new-checkout/control/{user}"))
        .collect();
    let half = Share::new(0.5).expect("a share");
    let two = [("control", 50.0), ("experiment", 50.0)];
    let uneven = [("control", 90.0), ("experiment", 10.0)];
    let ten = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"].map(|name| (name, 10.0));

    let name = format!("murmur3 of {} bytes", keys[0].len());
    let (bare, fastest) = measure(&keys, |key| u64::from(murmur3_32(key.as_bytes())));
    println!("{name:<34}{bare:>8.1} ns   fastest {fastest:.1} ns");
    for (name, split) in [
        ("two groups, 50/50", split(Share::ALL, &two)),
        ("two groups, 90/10", split(Share::ALL, &uneven)),
        ("two groups, 50/50, half the users", split(half, &two)),
        ("ten groups", split(Share::ALL, &ten)),
    ] {
        let (took, fastest) = measure(&users, |user| {
            let user = UserId::new(user.as_bytes()).expect("not empty");
            split.assign(user).map_or(99, |group| group.0 as u64)
        });
        println!(
            "{name:<34}{took:>8.1} ns   fastest {fastest:.1} ns   {:.1} murmur3",
            took / bare
        );
    }
    for (name, count, condition) in [
        ("a request, one experiment", 1, "/part-{}/**"),
        ("a request, 1,000 for parts", 1000, "/part-{}/**"),
        (
            "a request, 1,000 for hosts",
            1000,
            "{ host: site-{}.test, path: /part-7/** }",
        ),
    ] {
        let plan = plan(count, condition);
        let asked = if count == 1 { "0" } else { "7" };
        let request = http::Request::get(format!("/part-{asked}/page"));
        let request = request.header("host", format!("site-{asked}.test"));
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let (took, fastest) = measure(&users, |user| {
            let user = UserId::new(user.as_bytes()).expect("not empty");
            let visit = resolve::resolve(&plan.experiments, &head, &Subject::of(user));
            assert_eq!(visit.inside.len(), 1);
            visit.inside[0].group.0 as u64
        });
        println!("{name:<34}{took:>8.1} ns   fastest {fastest:.1} ns");
    }
}

/// So many experiments, each under a condition of its own (`{}` is its number).
fn plan(count: usize, condition: &str) -> Plan {
    let experiments: String = (0..count)
        .map(|number| {
            let condition = condition.replace("{}", &number.to_string());
            format!(
                "  e{number}: {{ match: {condition}, control: a, experiment: b, percent: 50 }}\n"
            )
        })
        .collect();
    let text = format!(
        "upstreams: {{ a: \"http://127.0.0.1:1\", b: \"http://127.0.0.1:2\" }}\nmetrics: {{ buy: POST /buy -> 2xx }}\nexperiments:\n{experiments}"
    );
    let plan = config::parse(&text, Path::new("routes.yaml"), &|_| None);
    plan.unwrap_or_else(|unsound| panic!("{unsound}"))
}

fn split(traffic: Share, groups: &[(&'static str, f64)]) -> Split {
    let weighted = |&(name, weight)| (name, Weight::new(weight).expect("a weight"));
    Split::new("new-checkout", traffic, groups.iter().map(weighted))
}

/// What one call takes in the median round and in the fastest, in nanoseconds.
fn measure(inputs: &[String], work: impl Fn(&str) -> u64) -> (f64, f64) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..PASSES {
                for input in inputs {
                    black_box(work(black_box(input)));
                }
            }
            start.elapsed().as_nanos() as f64 / (PASSES * inputs.len()) as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    (rounds[ROUNDS / 2], rounds[0])
}

/// A text of the shape of a UUID, 36 bytes, different for every number.
fn uuid_of(number: u64) -> String {
    let a = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ (a >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    format!(
        "{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}",
        a >> 32,
        a & 0xffff,
        (a >> 16) & 0xfff,
        b & 0xfff,
        b >> 16
    )
}
