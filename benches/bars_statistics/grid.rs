//! Bars 1 to 3: false positives, coverage and power of the two engines for conversions.

use crate::dice::Dice;
use crate::engines::{Counts, DETECT, Found, look};
use crate::report::{Effort, Report, count, gather, percent, within};
use watershed_core::stats::judge;
use watershed_core::stats::planning::{SampleSizePlan, sample_size};

const RATES: [f64; 6] = [0.5, 0.3, 0.1, 0.05, 0.02, 0.002];
const SHARES: [f64; 3] = [0.5, 0.1, 0.01];

/// Looks after every 100 users to 100,000.
fn every_hundred(mut dice: Dice, share: f64, rate: f64, lift: f64, users: u64) -> Found {
    let (mut counts, mut found) = (Counts::default(), Found::default());
    let truth = lift.ln_1p();
    for _ in 0..users / 100 {
        add(&mut dice, &mut counts, share, rate, lift);
        look(&mut found, &counts, share, truth);
    }
    found
}

fn add(dice: &mut Dice, counts: &mut Counts, share: f64, rate: f64, lift: f64) {
    let own = dice.binomial(100, share);
    counts.n[0] += 100 - own;
    counts.n[1] += own;
    counts.x[0] += dice.binomial(100 - own, rate);
    counts.x[1] += dice.binomial(own, rate * (1.0 + lift));
}

/// Looks after every user to 5,000.
fn every_user(mut dice: Dice, share: f64, rate: f64) -> Found {
    let (mut counts, mut found) = (Counts::default(), Found::default());
    for _ in 0..5000 {
        let group = usize::from(dice.hits(share));
        counts.n[group] += 1;
        counts.x[group] += u64::from(dice.hits(rate));
        look(&mut found, &counts, share, 0.0);
    }
    found
}

pub fn false_positives(report: &mut Report, effort: Effort) -> Vec<(String, usize, usize)> {
    let runs = effort.runs(2000, 200);
    report.section(
        "1. False positives under continuous peeking: conversions",
        " looks | share of B | rate | engine L | engine C | both ",
    );
    let mut cells = Vec::new();
    for (looks, per_user) in [
        ("every 100 to 100,000", false),
        ("every user to 5,000", true),
    ] {
        for (place, share) in SHARES.into_iter().enumerate() {
            for (row, rate) in RATES.into_iter().enumerate() {
                let cell = place * RATES.len() + row;
                let found = gather(runs, |run| {
                    let dice = Dice::new(looks, cell, run);
                    if per_user {
                        every_user(dice, share, rate)
                    } else {
                        every_hundred(dice, share, rate, 0.0, 100_000)
                    }
                });
                let [l, c, mean] = hits(&found);
                report.row(&[
                    looks.to_owned(),
                    share.to_string(),
                    rate.to_string(),
                    percent(l, runs),
                    percent(c, runs),
                    percent(mean, runs),
                ]);
                let name = format!("{looks}, {share}, {rate}");
                if (share, rate, per_user) == (0.5, 0.1, false) {
                    let fires = mean as f64 >= 0.005 * runs as f64;
                    report.bar("at least 0.5 % at 50/50, 10 %, every 100", fires);
                    report.section(
                        "1. (continued)",
                        " looks | share of B | rate | engine L | engine C | both ",
                    );
                }
                cells.push((format!("L {name}"), l, runs));
                cells.push((format!("C {name}"), c, runs));
                cells.push((format!("both {name}"), mean, runs));
            }
        }
    }
    cells
}

fn hits(found: &[Found]) -> [usize; 3] {
    [0, 1, 2].map(|engine| found.iter().filter(|found| found[engine]).count())
}

/// All users are there from the start; conversions trickle in.
pub fn delayed(report: &mut Report, effort: Effort) -> Vec<(String, usize, usize)> {
    const USERS: u64 = 20_000;
    const LOOKS: usize = 1000;
    let runs = effort.runs(2000, 200);
    report.section(
        "1. False positives: conversions that come late",
        " share of B | rate | engine L | engine C | both ",
    );
    let mut cells = Vec::new();
    for (cell, (share, rate)) in [(0.5, 0.05), (0.1, 0.05), (0.5, 0.3)]
        .into_iter()
        .enumerate()
    {
        let found = gather(runs, |run| {
            let mut dice = Dice::new("delayed", cell, run);
            let own = dice.binomial(USERS, share);
            let mut counts = Counts {
                n: [USERS - own, own],
                ..Counts::default()
            };
            let mut late = vec![[0u64; 2]; LOOKS];
            for (group, users) in counts.n.into_iter().enumerate() {
                for _ in 0..dice.binomial(users, rate) {
                    late[dice.below(LOOKS)][group] += 1;
                }
            }
            let mut found = Found::default();
            for come in late {
                counts.x = [counts.x[0] + come[0], counts.x[1] + come[1]];
                look(&mut found, &counts, share, 0.0);
            }
            found
        });
        let [l, c, mean] = hits(&found);
        report.row(&[
            share.to_string(),
            rate.to_string(),
            percent(l, runs),
            percent(c, runs),
            percent(mean, runs),
        ]);
        cells.push((format!("L delayed, {share}, {rate}"), l, runs));
        cells.push((format!("C delayed, {share}, {rate}"), c, runs));
        cells.push((format!("both delayed, {share}, {rate}"), mean, runs));
    }
    cells
}

pub fn coverage(report: &mut Report, effort: Effort) {
    const LIFT: f64 = 0.1;
    let runs = effort.runs(2000, 200);
    report.section(
        "2. The interval ever misses a true lift of 10 %, looks every 100 to 100,000",
        " share of B | rate | engine L | engine C | both ",
    );
    let mut kept = true;
    for (place, share) in SHARES.into_iter().enumerate() {
        for (row, rate) in RATES.into_iter().enumerate() {
            let cell = place * RATES.len() + row;
            let found = gather(runs, |run| {
                every_hundred(Dice::new("coverage", cell, run), share, rate, LIFT, 100_000)
            });
            let [l, c, mean] = hits(&found);
            kept &= [l, c, mean].iter().all(|hits| within(*hits, runs, 0.05));
            report.row(&[
                share.to_string(),
                rate.to_string(),
                percent(l, runs),
                percent(c, runs),
                percent(mean, runs),
            ]);
        }
    }
    report.bar(
        "misses at most 5 % and two standard errors in every cell",
        kept,
    );
}

pub fn power(report: &mut Report, effort: Effort) {
    const RATE: f64 = 0.05;
    const LIFT: f64 = 0.1;
    let runs = effort.runs(2000, 200);
    report.section(
        "3. Power at a true lift of the planned 10 %, rate 5 %",
        " share of B | users | of the fixed test's | engine L | engine C | both | asked ",
    );
    let mut kept = true;
    let cells = [
        (0.5, 1.0, 0.5),
        (0.5, 2.0, 0.85),
        (0.1, 1.0, 0.0),
        (0.1, 2.0, 0.85),
    ];
    for (cell, (share, times, asked)) in cells.into_iter().enumerate() {
        let ratio = share / (1.0 - share);
        let size = sample_size(&SampleSizePlan {
            share: RATE,
            lift: LIFT,
            alpha: 0.05,
            power: 0.8,
            ratio,
        });
        let users = (times * size.unpooled * (1.0 + ratio)) as u64;
        let reject = |run: usize| {
            let mut dice = Dice::new("power", cell, run);
            let (mut counts, mut found) = (Counts::default(), Found::default());
            for _ in 0..users / 100 {
                add(&mut dice, &mut counts, share, RATE, LIFT);
                look(&mut found, &counts, share, 0.0);
            }
            found
        };
        let [l, c, mean] = hits(&gather(runs, reject));
        // A part of the runs is allowed two standard errors.
        let slack = if effort.full {
            0.0
        } else {
            2.0 * (asked * (1.0 - asked) / runs as f64).sqrt()
        };
        kept &= mean as f64 / runs as f64 >= asked - slack;
        report.row(&[
            share.to_string(),
            users.to_string(),
            format!("{times}×"),
            percent(l, runs),
            percent(c, runs),
            percent(mean, runs),
            percent((asked * 100.0) as usize, 100),
        ]);
    }
    report.bar("power as asked", kept);
    let agree = count(runs.min(500), |run| agrees(Dice::new("agree", 0, run)));
    report.bar(
        "test and interval agree on every look",
        agree == runs.min(500),
    );
}

/// Whether test and interval say the same on every look of a run, in whole judgements.
fn agrees(mut dice: Dice) -> bool {
    let lift = 0.3 * (dice.share() - 0.5);
    let mut counts = Counts::default();
    (0..100).all(|_| {
        add(&mut dice, &mut counts, 0.5, 0.1, lift);
        let judged = judge(&crate::whole::question(&counts, 0.5, DETECT));
        let group = &judged.metrics[0].groups[1];
        let interval = group.lift.unwrap_or_default().relative_interval;
        (group.p_value.unwrap_or(1.0) <= 0.05) == interval.excludes_zero()
    })
}
