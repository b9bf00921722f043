//! Families of tests that hold at every look.

use super::shape::{
    Counts, ValueSums, need, need_positive, need_share, p_of, put_interval, read, usual_alpha,
};
use crate::stats::fixed::Sample;
use crate::stats::interval::finite;
use crate::stats::multiple_testing::running_p;
use crate::stats::normal_mixture::{
    Estimate, bound_above, ln_e, ln_e_above, tightest_information, width,
};
use crate::stats::proportion_interval::{SubBernoulli, tuned_interval};
use crate::stats::reference::growthbook_sequential::{self, ByUsers};
use crate::stats::reference::sequential_t;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Looks {
    /// [xA, nA, xB, nB], each counted from the start.
    looks: Vec<(u64, u64, u64, u64)>,
    tau: f64,
    #[serde(default = "usual_alpha")]
    alpha: f64,
    #[serde(default)]
    gate_min: u64,
}

impl Looks {
    fn check(self) -> Result<Looks, String> {
        need_positive("tau", self.tau)?;
        need_share("alpha", self.alpha)?;
        let sound = |look: &(u64, u64, u64, u64)| look.0 <= look.1 && look.2 <= look.3;
        need(
            self.looks.iter().all(sound),
            "more converted users than users",
        )?;
        Ok(self)
    }
}

pub(super) fn infoclock_lift_proportion(inputs: &str) -> Result<Value, String> {
    let asked = read::<Looks>(inputs)?.check()?;
    let mut running = Some(1.0);
    let mut rows = Vec::new();
    for &(x_a, n_a, x_b, n_b) in &asked.looks {
        let gate = [x_a, x_b, n_a - x_a, n_b - x_b]
            .iter()
            .all(|&cell| cell >= asked.gate_min);
        let row = lift_row((x_a, n_a), (x_b, n_b), asked.tau, asked.alpha);
        if let (true, Some(ln_e)) = (gate, row.ln_e) {
            running = running_p(running, ln_e);
        }
        let mut object = json!({
            "delta": row.delta,
            "var": row.variance,
            "log_e": row.ln_e,
            "p": p_of(row.ln_e),
            "running_p": running,
            "gate_ok": gate,
        });
        put_interval(&mut object, "lift_", row.lift);
        rows.push(object);
    }
    Ok(json!({"rows": rows}))
}

/// A look of the log-lift, whether or not enough users are behind it.
pub(super) struct LiftRow {
    delta: Option<f64>,
    variance: Option<f64>,
    /// 0 while a group has no converted user; `None` where everybody converted.
    pub ln_e: Option<f64>,
    pub lift: crate::stats::Interval,
}

/// (converted, users) of control and of the group.
pub(super) fn lift_row(control: (u64, u64), own: (u64, u64), tau: f64, alpha: f64) -> LiftRow {
    let mut row = LiftRow {
        delta: None,
        variance: None,
        ln_e: Some(0.0),
        lift: crate::stats::Interval::UNKNOWN,
    };
    if control.0 == 0 || own.0 == 0 {
        return row;
    }
    let relative = |(x, n): (u64, u64)| (n - x) as f64 / n as f64 / x as f64;
    let share = |(x, n): (u64, u64)| x as f64 / n as f64;
    let estimate = Estimate {
        delta: (share(own) / share(control)).ln(),
        variance: relative(control) + relative(own),
        tau,
    };
    row.delta = finite(estimate.delta);
    row.variance = finite(estimate.variance);
    row.ln_e = None;
    if estimate.variance > 0.0 {
        row.ln_e = finite(estimate.ln_e());
        row.lift = estimate.interval(alpha).map(f64::exp_m1);
    }
    row
}

pub(super) fn msprt_absolute(inputs: &str) -> Result<Value, String> {
    let asked = read::<Looks>(inputs)?.check()?;
    let mut running = Some(1.0);
    let mut rows = Vec::new();
    for &(x_a, n_a, x_b, n_b) in &asked.looks {
        let shares = Sample::of_share(n_a, x_a).zip(Sample::of_share(n_b, x_b));
        let (control, own) = shares.ok_or("a group has no users")?;
        let (diff, var) = (own.mean - control.mean, own.of_mean() + control.of_mean());
        let ln_lambda = (var > 0.0)
            .then(|| ln_e(diff, var, asked.tau))
            .and_then(finite);
        running = ln_lambda.map_or(running, |ln_e| running_p(running, ln_e));
        rows.push(json!({
            "diff": diff,
            "var": var,
            "log_lambda": ln_lambda,
            "always_valid_p": running,
        }));
    }
    Ok(json!({"rows": rows}))
}

#[derive(Deserialize)]
struct Tau {
    tau: f64,
    #[serde(default = "usual_alpha")]
    alpha: f64,
}

pub(super) fn infoclock_lift_mean(inputs: &str) -> Result<Value, String> {
    let Tau { tau, alpha } = read(inputs)?;
    need_positive("tau", tau)?;
    need_share("alpha", alpha)?;
    let (control, own) = read::<ValueSums>(inputs)?.samples()?;
    let relative = |sample: &Sample| sample.of_mean() / (sample.mean * sample.mean);
    let estimate = (control.mean > 0.0 && own.mean > 0.0).then(|| Estimate {
        delta: (own.mean / control.mean).ln(),
        variance: relative(&control) + relative(&own),
        tau,
    });
    let estimate = estimate.filter(|estimate| estimate.variance > 0.0);
    let ln_e = estimate.map_or(Some(0.0), |estimate| finite(estimate.ln_e()));
    let mut got = json!({
        "delta": estimate.map(|estimate| estimate.delta),
        "var": estimate.map(|estimate| estimate.variance),
        "log_e": ln_e,
        "p": p_of(ln_e),
    });
    let lift = estimate.map(|estimate| estimate.interval(alpha).map(f64::exp_m1));
    put_interval(&mut got, "lift_", lift.unwrap_or_default());
    Ok(got)
}

#[derive(Deserialize)]
struct Clock {
    n_star: f64,
    #[serde(default = "usual_alpha")]
    alpha: f64,
    difference: Option<String>,
}

fn by_clock(inputs: &str, (control, own): (Sample, Sample)) -> Result<Value, String> {
    let clock: Clock = read(inputs)?;
    need_positive("n_star", clock.n_star)?;
    need_share("alpha", clock.alpha)?;
    let absolute = growthbook_sequential::difference(control, own, clock.alpha, clock.n_star);
    let relative = growthbook_sequential::relative(control, own, clock.alpha, clock.n_star);
    Ok(match clock.difference.as_deref() {
        None => json!({
            "rho": growthbook_sequential::rho(clock.alpha, clock.n_star),
            "absolute": by_users(&absolute),
            "relative": by_users(&relative),
        }),
        Some("absolute") => by_users(&absolute),
        Some("relative") => by_users(&relative),
        Some(other) => return Err(format!("`difference` is absolute or relative, not {other}")),
    })
}

fn by_users(found: &ByUsers) -> Value {
    json!({
        "estimate": found.estimate,
        "lo": found.interval.low,
        "hi": found.interval.high,
        "p": found.p_value,
        "se": found.error,
    })
}

pub(super) fn nclock_cs_proportion(inputs: &str) -> Result<Value, String> {
    by_clock(inputs, read::<Counts>(inputs)?.samples()?)
}

pub(super) fn nclock_cs_mean(inputs: &str) -> Result<Value, String> {
    by_clock(inputs, read::<ValueSums>(inputs)?.samples()?)
}

pub(super) fn published_gb_sequential_mean(inputs: &str) -> Result<Value, String> {
    nclock_cs_mean(inputs)
}

pub(super) fn published_gb_sequential_proportion(inputs: &str) -> Result<Value, String> {
    nclock_cs_proportion(inputs)
}

#[derive(Deserialize)]
struct Mixture {
    s: f64,
    v: f64,
    v_opt: f64,
    #[serde(default = "usual_alpha")]
    alpha_opt: f64,
    #[serde(default = "usual_alpha")]
    alpha: f64,
    #[serde(default)]
    g: f64,
    #[serde(default)]
    h: f64,
}

impl Mixture {
    fn check(self) -> Result<Mixture, String> {
        need_positive("v", self.v)?;
        need_positive("v_opt", self.v_opt)?;
        need_share("alpha", self.alpha)?;
        need_share("alpha_opt", self.alpha_opt)?;
        Ok(self)
    }
}

pub(super) fn normal_mixture(inputs: &str) -> Result<Value, String> {
    let Mixture {
        s,
        v,
        v_opt,
        alpha_opt,
        alpha,
        ..
    } = read::<Mixture>(inputs)?.check()?;
    let rho = v_opt / tightest_information(alpha_opt);
    // One side is spared half of the error; of a certain error no information is needed.
    let rho_above = v_opt / tightest_information((2.0 * alpha_opt).min(1.0 - 1e-9));
    let (delta, variance) = (s / v, 1.0 / v);
    let tau = |rho: f64| (1.0 / rho).sqrt();
    Ok(json!({
        "rho": rho,
        "log_e_two_sided": ln_e(delta, variance, tau(rho)),
        "bound_two_sided": v.sqrt() * width(v / rho, alpha),
        "rho_one_sided": rho_above,
        "log_e_one_sided": ln_e_above(delta, variance, tau(rho_above)),
        "bound_one_sided": bound_above(v, rho_above, alpha),
    }))
}

pub(super) fn published_beta_binomial_mixture(inputs: &str) -> Result<Value, String> {
    let asked = read::<Mixture>(inputs)?.check()?;
    need_positive("g", asked.g)?;
    need_positive("h", asked.h)?;
    let possible = asked.v - asked.g * asked.s >= 0.0 && asked.v + asked.h * asked.s >= 0.0;
    need(
        possible,
        "`s` is beyond what steps of `g` and `h` can reach",
    )?;
    let tuned = |above| SubBernoulli::tuned(asked.g, asked.h, asked.v_opt, asked.alpha_opt, above);
    let (both, above) = (tuned(false), tuned(true));
    Ok(json!({
        "log_e_two_sided": both.ln_e(asked.s, asked.v),
        "bound_two_sided": both.bound(asked.v, asked.alpha),
        "log_e_one_sided": above.ln_e(asked.s, asked.v),
        "bound_one_sided": above.bound(asked.v, asked.alpha),
    }))
}

#[derive(Deserialize)]
struct Bernoulli {
    successes: u64,
    trials: u64,
    alpha: f64,
    t_opt: f64,
}

pub(super) fn published_bernoulli_cs(inputs: &str) -> Result<Value, String> {
    let asked: Bernoulli = read(inputs)?;
    need_share("alpha", asked.alpha)?;
    need_positive("t_opt", asked.t_opt)?;
    let sound = asked.trials > 0 && asked.successes <= asked.trials;
    need(sound, "`trials` must be above 0 and not below `successes`")?;
    let (trials, successes) = (asked.trials as f64, asked.successes as f64);
    let mut got = json!({});
    put_interval(
        &mut got,
        "",
        tuned_interval(trials, successes, asked.alpha, asked.t_opt),
    );
    Ok(got)
}

#[derive(Deserialize)]
struct SequentialT {
    t: f64,
    nu: f64,
    phi: f64,
    z2: f64,
    #[serde(default = "usual_alpha")]
    alpha: f64,
}

pub(super) fn sequential_t(inputs: &str) -> Result<Value, String> {
    let asked: SequentialT = read(inputs)?;
    need_positive("nu", asked.nu)?;
    need_positive("phi", asked.phi)?;
    need_positive("z2", asked.z2)?;
    need_share("alpha", asked.alpha)?;
    let ln_e = sequential_t::ln_e_t(asked.t, asked.nu, asked.phi, asked.z2);
    Ok(json!({
        "log_e": ln_e,
        "p": p_of(Some(ln_e)),
        "critical_t": sequential_t::critical_t(asked.nu, asked.phi, asked.z2, asked.alpha),
    }))
}
