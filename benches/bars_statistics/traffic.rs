//! Bar 1 again: revenue, ramps and bandits, where other methods fail.

use crate::dice::Dice;
use crate::engines::{BOUND, Counts, DETECT, exact_over_periods, period};
use crate::report::{Effort, Report, count, gather, percent};
use watershed_core::stats::bayes::{Posterior, compare};
use watershed_core::stats::moments::Sums;
use watershed_core::stats::normal_mixture::Estimate;
use watershed_core::stats::reference::log_ratio_grid::Grid;
use watershed_core::stats::stratified::{Period, comparable};
use watershed_core::stats::{Goal, Kind, MetricInput, Role};

type Cells = Vec<(String, usize, usize)>;

fn metric(kind: Kind) -> MetricInput {
    MetricInput {
        name: "simulated".to_owned(),
        kind,
        goal: Goal::Increase,
        role: Role::Primary,
        baseline: None,
        detect: DETECT,
        margin: 0.01,
        scale: 2,
        totals: Vec::new(),
        samples: None,
        history: Vec::new(),
    }
}

/// Engine L over periods, however many.
fn log_ln_e(metric: &MetricInput, periods: &[Period]) -> f64 {
    let estimate =
        comparable(metric, periods).and_then(|rates| Estimate::of_log(metric.kind, &rates, DETECT));
    estimate.map_or(0.0, |estimate| estimate.ln_e_at(0.0))
}

/// Users' totals, of control and of the group.
#[derive(Default)]
struct Purses {
    cents: [Vec<i128>; 2],
    sums: [Sums; 2],
}

impl Purses {
    fn expose(&mut self, group: usize) -> usize {
        self.cents[group].push(0);
        self.sums[group].users += 1;
        self.cents[group].len() - 1
    }

    fn buy(&mut self, group: usize, user: usize, cents: i128) {
        let purse = &mut self.cents[group][user];
        let sums = &mut self.sums[group];
        sums.converted += u64::from(*purse == 0);
        sums.sum_sq += (*purse + cents).pow(2) - purse.pow(2);
        sums.sum += cents;
        *purse += cents;
    }

    fn period(&self, share: f64) -> Period {
        Period {
            share,
            control: self.sums[0],
            own: self.sums[1],
            adjustment: None,
        }
    }
}

pub fn revenue(report: &mut Report, effort: Effort) -> Cells {
    const USERS: usize = 50_000;
    let runs = effort.runs(2000, 100);
    report.section(
        "1. False positives: revenue per user, lognormal purchases with σ = 1.2, looks every 100 to 50,000",
        " purchases | share of B | engine L ",
    );
    let mut cells = Vec::new();
    let kinds = [
        ("one", 0.5),
        ("one", 0.1),
        ("repeated", 0.5),
        ("repeated", 0.1),
    ];
    for (cell, (purchases, share)) in kinds.into_iter().enumerate() {
        let hits = count(runs, |run| {
            let mut dice = Dice::new("revenue", cell, run);
            let (metric, mut purses) = (metric(Kind::Mean), Purses::default());
            (1..=USERS).any(|seen| {
                let group = usize::from(dice.hits(share));
                let user = purses.expose(group);
                if dice.hits(0.05) {
                    let cents = dice.cents();
                    purses.buy(group, user, cents);
                }
                // Users of earlier days come back, for as long as the experiment runs.
                if purchases == "repeated" && dice.hits(0.05) {
                    let group = usize::from(dice.below(seen) >= purses.cents[0].len());
                    let user = dice.below(purses.cents[group].len().max(1));
                    if user < purses.cents[group].len() {
                        let cents = dice.cents();
                        purses.buy(group, user, cents);
                    }
                }
                seen % 100 == 0 && log_ln_e(&metric, &[purses.period(share)]) >= BOUND
            })
        });
        report.row(&[purchases.to_owned(), share.to_string(), percent(hits, runs)]);
        cells.push((format!("L revenue, {purchases}, {share}"), hits, runs));
    }
    cells
}

/// 1 % to 50 % in five steps of 20,000 users, while the rate goes from 2.5 % to 10 %.
const RAMP: [f64; 5] = [0.01, 0.05, 0.1, 0.25, 0.5];

fn drifting(step: usize, steps: usize) -> f64 {
    0.025 + 0.075 * step as f64 / steps as f64
}

struct RampFound {
    mixture: bool,
    grid: bool,
    log: bool,
}

fn ramp_run(mut dice: Dice, lift: f64) -> RampFound {
    const LOOKS: usize = 40;
    let metric = metric(Kind::Conversion);
    let mut found = RampFound {
        mixture: false,
        grid: false,
        log: false,
    };
    let mut periods: Vec<Period> = Vec::new();
    for (place, share) in RAMP.into_iter().enumerate() {
        let mut counts = Counts::default();
        periods.push(period(share, &counts));
        for look in 0..LOOKS {
            let rate = drifting(place * LOOKS + look, RAMP.len() * LOOKS);
            let own = dice.binomial(500, share);
            counts.n = [counts.n[0] + 500 - own, counts.n[1] + own];
            counts.x[0] += dice.binomial(500 - own, rate);
            counts.x[1] += dice.binomial(own, rate * (1.0 + lift));
            periods[place] = period(share, &counts);
            found.mixture |= !found.mixture && exact_over_periods(&periods) >= BOUND;
            let terms: Vec<_> = periods.iter().map(Period::term).collect();
            found.grid |= !found.grid && Grid::default().ln_e(&terms) >= BOUND;
            found.log |= !found.log && log_ln_e(&metric, &periods) >= BOUND;
        }
    }
    found
}

pub fn ramp(report: &mut Report, effort: Effort) -> Cells {
    let runs = effort.runs(2000, 60);
    report.section(
        "1. A ramp from 1 % to 50 % while the rate drifts from 2.5 % to 10 %, looks every 500 to 100,000",
        " true lift | engine C | engine C on the grid | engine L, averaged over periods ",
    );
    let mut cells = Vec::new();
    for (cell, lift) in [0.0, 0.2].into_iter().enumerate() {
        let found = gather(runs, |run| ramp_run(Dice::new("ramp", cell, run), lift));
        let hits = |of: fn(&RampFound) -> bool| found.iter().filter(|found| of(found)).count();
        let [mixture, grid, log] = [hits(|f| f.mixture), hits(|f| f.grid), hits(|f| f.log)];
        report.row(&[
            format!("{:.0} %", 100.0 * lift),
            percent(mixture, runs),
            percent(grid, runs),
            percent(log, runs),
        ]);
        if lift == 0.0 {
            cells.push(("C ramp".to_owned(), mixture, runs));
            cells.push(("C on the grid, ramp".to_owned(), grid, runs));
            cells.push(("L ramp".to_owned(), log, runs));
        }
    }
    let hits = count(runs, |run| {
        let mut dice = Dice::new("ramp of revenue", 0, run);
        let metric = metric(Kind::Mean);
        let mut periods: Vec<Period> = Vec::new();
        RAMP.into_iter().enumerate().any(|(place, share)| {
            let mut purses = Purses::default();
            periods.push(purses.period(share));
            (0..40).any(|look| {
                for _ in 0..500 {
                    let group = usize::from(dice.hits(share));
                    let user = purses.expose(group);
                    if dice.hits(drifting(place * 40 + look, 200)) {
                        let cents = dice.cents();
                        purses.buy(group, user, cents);
                    }
                }
                periods[place] = purses.period(share);
                log_ln_e(&metric, &periods) >= BOUND
            })
        })
    });
    report.note(&format!(
        "Revenue on the same ramp, engine L averaged over periods: {}.",
        percent(hits, runs)
    ));
    cells.push(("L ramp of revenue".to_owned(), hits, runs));
    cells
}

/// Thompson's allocation, new weights every 1,000 users, while the rate drifts.
pub fn bandit(report: &mut Report, effort: Effort) -> Cells {
    let runs = effort.runs(1000, 30);
    report.section(
        "1. Thompson's allocation while the rate drifts from 2.5 % to 10 %, looks every 1,000 to 100,000",
        " engine C | engine C on the grid | engine L, averaged over periods ",
    );
    let found = gather(runs, |run| {
        let mut dice = Dice::new("bandit", 0, run);
        let metric = metric(Kind::Conversion);
        let (mut share, mut all) = (0.5, Counts::default());
        let mut periods = Vec::new();
        let mut found = RampFound {
            mixture: false,
            grid: false,
            log: false,
        };
        for step in 0..100 {
            let mut counts = Counts::default();
            let own = dice.binomial(1000, share);
            counts.n = [1000 - own, own];
            for group in 0..2 {
                counts.x[group] = dice.binomial(counts.n[group], drifting(step, 100));
                all.n[group] += counts.n[group];
                all.x[group] += counts.x[group];
            }
            periods.push(period(share, &counts));
            found.mixture |= !found.mixture && exact_over_periods(&periods) >= BOUND;
            let terms: Vec<_> = periods.iter().map(Period::term).collect();
            found.grid |= !found.grid && Grid::default().ln_e(&terms) >= BOUND;
            found.log |= !found.log && log_ln_e(&metric, &periods) >= BOUND;
            let posterior = |group: usize| Posterior::new(all.n[group], all.x[group]);
            share = 0.05 + 0.9 * compare(posterior(0), posterior(1)).own_is_higher;
        }
        found
    });
    let hits = |of: fn(&RampFound) -> bool| found.iter().filter(|found| of(found)).count();
    let [mixture, grid, log] = [hits(|f| f.mixture), hits(|f| f.grid), hits(|f| f.log)];
    report.row(&[
        percent(mixture, runs),
        percent(grid, runs),
        percent(log, runs),
    ]);
    vec![
        ("C bandit".to_owned(), mixture, runs),
        ("C on the grid, bandit".to_owned(), grid, runs),
        ("L bandit".to_owned(), log, runs),
    ]
}
