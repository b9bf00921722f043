//! A real experiment through the real proxy: the mobile game Cookie Cats moved its first gate from
//! level 30 (control) to level 40. 90,189 players; published retention after one day 44.82 % and
//! 44.23 %, after seven days 19.02 % and 18.20 %. Only the eight counts of players by group and
//! retention are kept here; users are numbered.

use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::redis::Redis;
use serde_json::Value;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Group, stayed a day, stayed seven days, players.
const COUNTS: [(&str, bool, bool, usize); 8] = [
    ("gate_30", false, false, 22_840),
    ("gate_30", false, true, 1_826),
    ("gate_30", true, false, 13_358),
    ("gate_30", true, true, 6_676),
    ("gate_40", false, false, 23_597),
    ("gate_40", false, true, 1_773),
    ("gate_40", true, false, 13_613),
    ("gate_40", true, true, 6_506),
];

fn players() -> Vec<(&'static str, bool, bool)> {
    COUNTS
        .iter()
        .flat_map(|&(group, day, week, players)| std::iter::repeat_n((group, day, week), players))
        .collect()
}

fn routes(redis: &Redis, gate_30: &Origin, gate_40: &Origin, count_overrides: bool) -> String {
    format!(
        "store: {}\noverrides: {{ secret: cookie-cats-of-the-test }}\nuser: {{ header: X-Player }}\n\
         upstreams: {{ at_30: \"http://{}\", at_40: \"http://{}\" }}\n\
         experiments:\n  gate:\n    count_overrides: {count_overrides}\n    min_duration: 0s\n    groups:\n      gate_30: {{ weight: 1, upstream: at_30 }}\n      gate_40: {{ weight: 1, upstream: at_40 }}\n\
         metrics: {{ day_1: {{ event: day_1 }}, day_7: {{ event: day_7 }} }}\n",
        redis.url(),
        gate_30.address,
        gate_40.address
    )
}

/// Sends each of these players once, over a few connections. `header` gives more headers for a
/// player's group.
fn play(proxy: &Proxy, players: &[(&str, bool, bool)], header: impl Fn(&str) -> String + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut client = proxy.client();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&(group, day, week)) = players.get(number) else {
                        return;
                    };
                    let event = match (day, week) {
                        (false, false) => "",
                        (true, false) => "?event=day_1",
                        (false, true) => "?event=day_7",
                        (true, true) => "?event=day_1,day_7",
                    };
                    let answer = client.get(
                        &format!("/{event}"),
                        &format!("X-Player: player-{number}\r\n{}", header(group)),
                    );
                    assert_eq!(answer.status, 200);
                }
            });
        }
    });
}

fn count(results: &Value, metric: usize, group: usize, what: &str) -> u64 {
    results["experiments"][0]["metrics"][metric]["groups"][group][what]
        .as_u64()
        .unwrap()
}

#[test]
fn published_counts_are_reproduced_exactly() {
    assert_eq!(players().len(), 90_189);
    let redis = Redis::start();
    let (gate_30, gate_40) = (Origin::start("30"), Origin::start("40"));
    let proxy = Proxy::start(&routes(&redis, &gate_30, &gate_40, true));
    let token = |group: &str| {
        let file = proxy.file();
        let made = Command::new(BINARY)
            .args(["override", "gate", group, "-c", file.to_str().unwrap()])
            .output()
            .unwrap();
        format!(
            "Watershed-Override: {}\r\n",
            String::from_utf8(made.stdout).unwrap().trim()
        )
    };
    let tokens = [token("gate_30"), token("gate_40")];
    play(&proxy, &players(), |group| {
        tokens[usize::from(group == "gate_40")].clone()
    });
    let results = proxy.results();
    let found = |metric, what| {
        [
            count(&results, metric, 0, what),
            count(&results, metric, 1, what),
        ]
    };
    assert_eq!(found(0, "users"), [44_700, 45_489]);
    assert_eq!(found(0, "converted"), [20_034, 20_119]);
    assert_eq!(found(1, "converted"), [8_502, 8_279]);
    let rate = |metric: usize, group: usize| {
        let rate = results["experiments"][0]["metrics"][metric]["groups"][group]["rate"]
            .as_f64()
            .unwrap();
        format!("{:.2}", 100.0 * rate)
    };
    assert_eq!(
        [rate(0, 0), rate(0, 1), rate(1, 0), rate(1, 1)],
        ["44.82", "44.23", "19.02", "18.20"]
    );
}

#[test]
fn hashed_players_split_evenly() {
    let redis = Redis::start();
    let (gate_30, gate_40) = (Origin::start("30"), Origin::start("40"));
    let proxy = Proxy::start(&routes(&redis, &gate_30, &gate_40, false));
    // A part of them, of every kind: how a group is chosen does not depend on how many there are.
    let some: Vec<_> = players().into_iter().step_by(9).collect();
    play(&proxy, &some, |_| String::new());
    let results = proxy.results();
    let users = [
        count(&results, 0, 0, "users"),
        count(&results, 0, 1, "users"),
    ];
    let all = some.len() as u64;
    assert_eq!(users[0] + users[1], all);
    // Four standard deviations of an even split.
    let off = users[0].abs_diff(users[1]) as f64 / 2.0;
    assert!(off < 4.0 * (all as f64 / 4.0).sqrt(), "{users:?}");
    assert_eq!(results["experiments"][0]["sample_ratio"]["mismatch"], false);
}
