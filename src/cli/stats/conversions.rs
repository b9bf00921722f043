//! Families of the exact tests on who converted.

use super::shape::{need, need_positive, need_share, p_of, put_interval, read, usual_alpha};
use crate::stats::exact_conversion::{self, Evidence};
use crate::stats::interval::finite;
use crate::stats::logistic::Term;
use crate::stats::reference::log_ratio_grid::Grid;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Conversions {
    #[serde(rename = "xA")]
    control: u64,
    #[serde(rename = "xB")]
    own: u64,
    w: f64,
    kappa: f64,
    rr0: f64,
    #[serde(default = "usual_alpha")]
    alpha: f64,
}

pub(super) fn conversions_only_e(inputs: &str) -> Result<Value, String> {
    let asked: Conversions = read(inputs)?;
    need_share("w", asked.w)?;
    need_share("alpha", asked.alpha)?;
    need_positive("kappa", asked.kappa)?;
    need_positive("rr0", asked.rr0)?;
    let term = |share: f64| Term {
        share,
        control: asked.control as f64,
        own: asked.own as f64,
    };
    let theta = asked.w * asked.rr0 / (asked.w * asked.rr0 + 1.0 - asked.w);
    let ln_e = Evidence::new(&[term(theta)], asked.kappa).ln_e();
    let evidence = Evidence::new(&[term(asked.w)], asked.kappa);
    let log = evidence.interval_of_log(asked.alpha);
    let rest = (1.0 - asked.w) / asked.w;
    let theta_at = |log: f64| 1.0 / (1.0 + rest * (-log).exp());
    let mut got = json!({
        "theta0": theta,
        "log_e_two_sided": ln_e,
        "p_two_sided": p_of(Some(ln_e)),
        "log_e_upper": exact_conversion::ln_e_above(&[term(asked.w)], asked.rr0, asked.kappa),
        "theta_lo": log.low.map_or(0.0, theta_at),
        "theta_hi": log.high.map_or(1.0, theta_at),
    });
    put_interval(&mut got, "lift_", evidence.interval(asked.alpha));
    Ok(got)
}

/// Epochs as [control's converted users, the group's, the group's share].
fn terms(epochs: &[(u64, u64, f64)]) -> Result<Vec<Term>, String> {
    let term = |&(control, own, share): &(u64, u64, f64)| {
        need_share("w", share)?;
        Ok(Term {
            share,
            control: control as f64,
            own: own as f64,
        })
    };
    epochs.iter().map(term).collect()
}

#[derive(Deserialize)]
struct Epochs {
    epochs: Vec<(u64, u64, f64)>,
    kappa: f64,
}

pub(super) fn conversions_only_epochs(inputs: &str) -> Result<Value, String> {
    let Epochs { epochs, kappa } = read(inputs)?;
    need_positive("kappa", kappa)?;
    let each = terms(&epochs)?;
    let each = each
        .iter()
        .map(|term| Evidence::new(&[*term], kappa).ln_e());
    Ok(json!({"log_e": each.sum::<f64>()}))
}

#[derive(Deserialize)]
struct GridInputs {
    epochs: Vec<(u64, u64, f64)>,
    prior_sd: f64,
    grid_lo: f64,
    grid_hi: f64,
    grid_points: u32,
    #[serde(default = "usual_alpha")]
    alpha: f64,
}

pub(super) fn conversions_only_grid(inputs: &str) -> Result<Value, String> {
    // How far the interval is looked for on each side.
    const REACH: f64 = 1.5;
    let asked: GridInputs = read(inputs)?;
    need_positive("prior_sd", asked.prior_sd)?;
    need_share("alpha", asked.alpha)?;
    let sound = (2..=1_000_000).contains(&asked.grid_points) && asked.grid_lo < asked.grid_hi;
    need(sound, "the grid needs two points and ends in order")?;
    let grid = Grid {
        ends: (asked.grid_lo, asked.grid_hi),
        points: asked.grid_points,
        spread: asked.prior_sd,
    };
    let terms = terms(&asked.epochs)?;
    let ln_e = finite(grid.ln_e(&terms));
    let mut got = json!({"log_e": ln_e, "p": p_of(ln_e)});
    let interval = grid.interval_of_log(&terms, asked.alpha, REACH);
    put_interval(&mut got, "log_rr_", interval);
    Ok(got)
}
