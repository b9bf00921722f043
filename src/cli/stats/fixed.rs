//! Families of a single look.

use super::shape::{
    Counts, ValueSums, need, need_positive, need_share, put_interval, read, single_look,
    usual_alpha,
};
use crate::stats::fixed::{self, Adjusted, Pair, Sample, SingleLook};
use crate::stats::moments::Sums;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Proportions {
    #[serde(flatten)]
    counts: Counts,
    #[serde(default = "usual_alpha")]
    alpha: f64,
}

pub(super) fn two_proportions(inputs: &str) -> Result<Value, String> {
    let Proportions { counts, alpha } = read(inputs)?;
    need_share("alpha", alpha)?;
    let (control, own) = counts.samples()?;
    let pair = Pair {
        x_a: counts.xA as f64,
        n_a: control.n,
        x_b: counts.xB as f64,
        n_b: own.n,
    };
    let (z, p) = pair.pooled_z().unzip();
    let mut got = json!({
        "pA": control.mean,
        "pB": own.mean,
        "diff": own.mean - control.mean,
        "z_pooled": z,
        "p_pooled": p,
    });
    put_interval(&mut got, "wald_", pair.wald(alpha));
    put_interval(&mut got, "newcombe_", pair.newcombe(alpha).interval);
    put_interval(&mut got, "agresti_caffo_", pair.agresti_caffo(alpha));
    put_interval(&mut got, "lift_log_", pair.log_lift(alpha));
    Ok(got)
}

pub(super) fn gb_fixed_proportion(inputs: &str) -> Result<Value, String> {
    let Proportions { counts, alpha } = read(inputs)?;
    need_share("alpha", alpha)?;
    let (control, own) = counts.samples()?;
    Ok(both(control, own, alpha))
}

/// The difference and the relative difference.
fn both(control: Sample, own: Sample, alpha: f64) -> Value {
    json!({
        "absolute": single_look(&fixed::welch(control, own, alpha)),
        "relative": single_look(&fixed::relative(control, own, alpha)),
    })
}

#[derive(Deserialize)]
struct Difference {
    difference: String,
    #[serde(default = "usual_alpha")]
    alpha: f64,
}

/// The one of both that was asked for.
fn one(inputs: &str, (control, own): (Sample, Sample)) -> Result<Value, String> {
    let Difference { difference, alpha } = read(inputs)?;
    need_share("alpha", alpha)?;
    let look = match difference.as_str() {
        "absolute" => fixed::welch(control, own, alpha),
        "relative" => fixed::relative(control, own, alpha),
        other => return Err(format!("`difference` is absolute or relative, not {other}")),
    };
    Ok(single_look(&look))
}

pub(super) fn published_gb_proportion(inputs: &str) -> Result<Value, String> {
    let counts: Counts = read(inputs)?;
    one(inputs, counts.samples()?)
}

pub(super) fn published_gb_welch(inputs: &str) -> Result<Value, String> {
    let sums: ValueSums = read(inputs)?;
    one(inputs, sums.samples()?)
}

#[derive(Deserialize)]
struct Alpha {
    #[serde(default = "usual_alpha")]
    alpha: f64,
}

pub(super) fn welch_from_sums(inputs: &str) -> Result<Value, String> {
    let Alpha { alpha } = read(inputs)?;
    need_share("alpha", alpha)?;
    let (control, own) = read::<ValueSums>(inputs)?.samples()?;
    let look = fixed::welch(control, own, alpha);
    Ok(json!({
        "meanA": control.mean,
        "meanB": own.mean,
        "varA": control.variance,
        "varB": own.variance,
        "diff": look.estimate,
        "t": look.statistic,
        "df": look.df,
        "p": look.p_value,
        "lo": look.interval.low,
        "hi": look.interval.high,
    }))
}

#[derive(Deserialize)]
struct Samples {
    mean1: f64,
    var1: f64,
    n1: f64,
    mean2: f64,
    var2: f64,
    n2: f64,
    #[serde(default)]
    equal_var: bool,
}

pub(super) fn published_student_t(inputs: &str) -> Result<Value, String> {
    let asked: Samples = read(inputs)?;
    need_positive("n1", asked.n1)?;
    need_positive("n2", asked.n2)?;
    let first = Sample {
        n: asked.n1,
        mean: asked.mean1,
        rest: 0.0,
        variance: asked.var1,
    };
    let second = Sample {
        n: asked.n2,
        mean: asked.mean2,
        rest: 0.0,
        variance: asked.var2,
    };
    // Here the first is compared with the second.
    let SingleLook {
        statistic, p_value, ..
    } = if asked.equal_var {
        fixed::student_pooled(second, first, 0.05)
    } else {
        fixed::welch(second, first, 0.05)
    };
    Ok(json!({"t": statistic, "p": p_value}))
}

#[derive(Deserialize)]
struct Ratios {
    arms: Vec<RatioArm>,
    #[serde(default = "usual_alpha")]
    alpha: f64,
}

#[derive(Deserialize)]
struct RatioArm {
    n: u64,
    sum_m: i128,
    sumsq_m: i128,
    sum_d: i128,
    sumsq_d: i128,
    sum_md: i128,
}

pub(super) fn ratio_delta(inputs: &str) -> Result<Value, String> {
    let Ratios { arms, alpha } = read(inputs)?;
    need_share("alpha", alpha)?;
    let [control, own] = arms.as_slice() else {
        return Err("`arms` must be two".to_owned());
    };
    let sample = |arm: &RatioArm| {
        need(
            arm.n >= 2 && arm.sum_d != 0,
            "an arm needs two users and a base",
        )?;
        let sums = Sums {
            users: arm.n,
            sum: arm.sum_m,
            sum_sq: arm.sumsq_m,
            base: arm.sum_d,
            base_sq: arm.sumsq_d,
            cross: arm.sum_md,
            ..Sums::default()
        };
        let (n, ratio) = (arm.n as f64, arm.sum_m as f64 / arm.sum_d as f64);
        let base = arm.sum_d as f64 / n;
        // Not none: there are two users.
        let variance = sums.variance_off(ratio).unwrap_or(0.0) / (base * base);
        Ok::<_, String>(Sample {
            n,
            mean: ratio,
            rest: 0.0,
            variance,
        })
    };
    let (control, own) = (sample(control)?, sample(own)?);
    let mut got = both(control, own, alpha);
    got["ratioA"] = json!(control.mean);
    got["ratioB"] = json!(own.mean);
    got["varA_per_user"] = json!(control.variance);
    got["varB_per_user"] = json!(own.variance);
    let log = fixed::log_ratio(control, own, alpha).interval;
    put_interval(&mut got, "log_lift_", log);
    Ok(got)
}

#[derive(Deserialize)]
struct Covariates {
    arms: Vec<CovariateArm>,
    #[serde(default = "usual_alpha")]
    alpha: f64,
}

#[derive(Deserialize)]
struct CovariateArm {
    n: u64,
    sum_y: i128,
    sumsq_y: i128,
    sum_x: i128,
    sumsq_x: i128,
    sum_xy: i128,
}

pub(super) fn cuped(inputs: &str) -> Result<Value, String> {
    let Covariates { arms, alpha } = read(inputs)?;
    need_share("alpha", alpha)?;
    let sums = |arm: &CovariateArm| Adjusted {
        users: arm.n,
        y: arm.sum_y,
        y_sq: arm.sumsq_y,
        x: arm.sum_x,
        x_sq: arm.sumsq_x,
        cross: arm.sum_xy,
    };
    let [control, own] = arms.as_slice() else {
        return Err("`arms` must be two".to_owned());
    };
    let (control, own) = (sums(control), sums(own));
    let few = || "an arm needs two users".to_owned();
    let theta = fixed::adjustment(&control, &own).ok_or_else(few)?;
    let control = control.sample(theta).ok_or_else(few)?;
    let own = own.sample(theta).ok_or_else(few)?;
    let look = fixed::welch(control, own, alpha);
    Ok(json!({
        "theta": theta,
        "adj_meanA": control.mean,
        "adj_meanB": own.mean,
        "varA": control.variance,
        "varB": own.variance,
        "diff": look.estimate,
        "lo": look.interval.low,
        "hi": look.interval.high,
        "p": look.p_value,
    }))
}
