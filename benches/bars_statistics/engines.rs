//! The project's own engines, as the simulations ask them.

use watershed_core::stats::Kind;
use watershed_core::stats::exact_conversion::Evidence;
use watershed_core::stats::logistic::Term;
use watershed_core::stats::moments::Sums;
use watershed_core::stats::normal_mixture::Estimate;
use watershed_core::stats::special::ln_sum_exp;
use watershed_core::stats::stratified::{Period, Rate, Rates};

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

/// Whether a true log ratio of `truth` is excluded: by engine L, by engine C, and by the mean of
/// their evidence, as a verdict is.
pub type Found = [bool; 3];

/// Adds what these counts exclude to what was found before.
pub fn look(found: &mut Found, counts: &Counts, share: f64, truth: f64) {
    let estimate =
        rates(counts).and_then(|rates| Estimate::of_log(Kind::Conversion, &rates, DETECT));
    let log = estimate.map_or(0.0, |estimate| estimate.ln_e_at(truth));
    let term = Term {
        share,
        control: counts.x[0] as f64,
        own: counts.x[1] as f64,
    };
    let exact = Evidence::planned(&[term], DETECT.ln_1p()).ln_e_at(truth);
    let both = mean(log, exact);
    for (found, ln_e) in found.iter_mut().zip([log, exact, both]) {
        *found |= ln_e >= BOUND;
    }
}

/// ln of the mean of two e-values.
pub fn mean(log: f64, exact: f64) -> f64 {
    ln_sum_exp(&[log, exact]) - std::f64::consts::LN_2
}

/// Engine C over periods of changing weights.
pub fn exact_over_periods(periods: &[Period]) -> f64 {
    let terms: Vec<Term> = periods.iter().map(Period::term).collect();
    Evidence::planned(&terms, DETECT.ln_1p()).ln_e()
}

/// Both groups' shares of converted users. `None` while a group has no users.
pub fn rates(counts: &Counts) -> Option<Rates> {
    let [control, own] = [0, 1].map(|group| (counts.n[group], counts.x[group]));
    if control.0 == 0 || own.0 == 0 {
        return None;
    }
    let all = rate(control.0 + own.0, control.1 + own.1);
    let each = 1.0 / control.0 as f64 + 1.0 / own.0 as f64;
    Some(Rates {
        control: rate(control.0, control.1),
        own: rate(own.0, own.1),
        pooled: Rate {
            variance: all.mean * (1.0 - all.mean) * each,
            ..all
        },
    })
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
        adjustment: None,
    }
}
