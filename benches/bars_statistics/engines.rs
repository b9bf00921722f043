//! The project's own engines, as the simulations ask them.

use watershed::stats::Kind;
use watershed::stats::conversion::{Evidence, planned_concentration};
use watershed::stats::logistic::Term;
use watershed::stats::moments::Sums;
use watershed::stats::periods::{Period, Rate};
use watershed::stats::sequential::{self, Estimate};

/// The planned lift of every simulated experiment.
pub const DETECT: f64 = 0.1;
/// ln(1/α) for α = 5 %.
pub const BOUND: f64 = 2.995_732_273_553_991;

/// Users and converted users so far, of control and of the group.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    pub n: [u64; 2],
    pub x: [u64; 2],
}

fn rate(users: u64, converted: u64) -> Rate {
    let mean = converted as f64 / users as f64;
    Rate {
        mean,
        variance: mean * (1.0 - mean) / users as f64,
        users,
        converted,
    }
}

/// Engine L: whether a true log ratio of `truth` is excluded.
pub fn log_excludes(counts: &Counts, truth: f64) -> bool {
    let [control, own] = [0, 1].map(|group| (counts.n[group], counts.x[group]));
    if control.1 == 0 || own.1 == 0 {
        return false;
    }
    let (control, own) = (rate(control.0, control.1), rate(own.0, own.1));
    Estimate::of_log(Kind::Conversion, &control, &own, DETECT).is_some_and(|estimate| {
        sequential::ln_e(estimate.delta - truth, estimate.variance, estimate.tau) >= BOUND
    })
}

/// Engine C: whether a true log ratio of `truth` is excluded.
pub fn exact_excludes(counts: &Counts, share: f64, truth: f64) -> bool {
    let term = Term {
        share,
        control: counts.x[0] as f64,
        own: counts.x[1] as f64,
    };
    let evidence = Evidence::new(&[term], planned_concentration(share, DETECT));
    evidence.ln_e_at(truth) >= BOUND
}

/// Engine C over periods of changing weights.
pub fn exact_over_periods(periods: &[Period]) -> f64 {
    let terms: Vec<Term> = periods.iter().map(Period::term).collect();
    let share = terms.first().map_or(0.5, |term| term.share);
    Evidence::new(&terms, planned_concentration(share, DETECT)).ln_e()
}

/// A period with these counts of converted users.
pub fn period(share: f64, counts: &Counts) -> Period {
    let sums = |group: usize| Sums {
        users: counts.n[group],
        converted: counts.x[group],
        sum: i128::from(counts.x[group]),
        sum_sq: i128::from(counts.x[group]),
        ..Sums::default()
    };
    Period {
        share,
        control: sums(0),
        own: sums(1),
    }
}
