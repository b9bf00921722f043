//! Families of sample ratios, chances, several comparisons, planning, and the edges.

use super::sequential::lift_row;
use super::shape::{Counts, need, need_positive, read, usual_alpha};
use crate::stats::bayes::{self, Posterior};
use crate::stats::fixed;
use crate::stats::multiple_testing::{self, Corrected, running_p};
use crate::stats::special::{chi_squared_upper, normal_quantile};
use crate::stats::srm::{chi_squared, ln_bayes_factor, ln_bayes_factor_of};
use crate::stats::{Epoch, Goal, GroupInput, Kind, MetricInput, Question, Role, Totals, judge};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct BetaPrior {
    prior_alpha: f64,
    prior_beta: f64,
}

pub(super) fn beta_binomial(inputs: &str) -> Result<Value, String> {
    let counts: Counts = read(inputs)?;
    counts.check()?;
    let prior: BetaPrior = read(inputs)?;
    need_positive("prior_alpha", prior.prior_alpha)?;
    need_positive("prior_beta", prior.prior_beta)?;
    let posterior = |x: u64, n: u64| Posterior {
        a: prior.prior_alpha + x as f64,
        b: prior.prior_beta + (n - x) as f64,
    };
    let control = posterior(counts.xA, counts.nA);
    let own = posterior(counts.xB, counts.nB);
    let chance = bayes::compare(control, own);
    Ok(json!({
        "prob_B_beats_A": chance.own_is_higher,
        "loss_if_choose_B": chance.loss_if_own,
        "loss_if_choose_A": chance.loss_if_control,
        "post_mean_A": control.mean(),
        "post_mean_B": own.mean(),
    }))
}

#[derive(Deserialize)]
struct NormalPrior {
    prior_mean: f64,
    prior_var: f64,
    proper: bool,
}

pub(super) fn gb_gaussian_bayes(inputs: &str) -> Result<Value, String> {
    let (control, own) = read::<Counts>(inputs)?.samples()?;
    let prior: NormalPrior = read(inputs)?;
    need_positive("prior_var", prior.prior_var)?;
    let variance = fixed::relative_variance(control, own);
    need(
        variance > 0.0 && variance.is_finite(),
        "the lift has no variance",
    )?;
    let prior = prior.proper.then_some((prior.prior_mean, prior.prior_var));
    let lift = own.mean / control.mean - 1.0;
    let (mean, variance) = bayes::normal_posterior(lift, variance, prior);
    let chance = bayes::of_difference(mean, variance.sqrt());
    let half = normal_quantile(0.975) * variance.sqrt();
    Ok(json!({
        "chance_to_win": chance.own_is_higher,
        "mean": mean,
        "lo": mean - half,
        "hi": mean + half,
        "risk_choose_A": chance.loss_if_control,
        "risk_choose_B": chance.loss_if_own,
    }))
}

#[derive(Deserialize)]
struct Posteriors {
    alpha: Vec<f64>,
    beta: Vec<f64>,
    #[serde(default)]
    floor: f64,
}

pub(super) fn prob_best(inputs: &str) -> Result<Value, String> {
    let asked: Posteriors = read(inputs)?;
    need(
        asked.alpha.len() == asked.beta.len(),
        "`alpha` and `beta` differ in length",
    )?;
    for (&a, &b) in asked.alpha.iter().zip(&asked.beta) {
        need_positive("alpha", a)?;
        need_positive("beta", b)?;
    }
    let pairs = asked.alpha.iter().zip(&asked.beta);
    let posteriors: Vec<Posterior> = pairs.map(|(&a, &b)| Posterior { a, b }).collect();
    let chances = bayes::chances_to_be_best(&posteriors);
    Ok(json!({
        "thompson_weights": bayes::shares_by_chance(&chances, asked.floor),
        "prob_best": chances,
    }))
}

#[derive(Deserialize)]
struct Sizes {
    users: Vec<u64>,
    weights: Vec<f64>,
}

fn need_weights(weights: &[f64], groups: usize) -> Result<(), String> {
    let sound = weights
        .iter()
        .all(|&weight| weight >= 0.0 && weight.is_finite());
    need(
        sound && weights.iter().sum::<f64>() > 0.0,
        "weights must add up to more than 0",
    )?;
    need(
        weights.len() == groups,
        "there must be as many weights as groups",
    )
}

pub(super) fn srm_chi2(inputs: &str) -> Result<Value, String> {
    let Sizes { users, weights } = read(inputs)?;
    need_weights(&weights, users.len())?;
    let (statistic, df) = chi_squared(&weights, &users);
    let p = if df > 0.0 {
        chi_squared_upper(statistic, df)
    } else {
        1.0
    };
    Ok(json!({"chi2": statistic, "df": df as u64, "p": p}))
}

#[derive(Deserialize)]
struct Batches {
    batches: Vec<Vec<u64>>,
    weights: Vec<f64>,
    #[serde(default = "usual_concentration")]
    concentration: f64,
    #[serde(default)]
    dirichlet_alpha: Vec<f64>,
}

fn usual_concentration() -> f64 {
    1000.0
}

impl Batches {
    fn check(self) -> Result<Batches, String> {
        need_positive("concentration", self.concentration)?;
        for batch in &self.batches {
            need_weights(&self.weights, batch.len())?;
        }
        Ok(self)
    }

    /// Users after each batch.
    fn totals(&self) -> Vec<Vec<u64>> {
        let mut sum = vec![0; self.weights.len()];
        let each = self.batches.iter().map(|batch| {
            for (sum, users) in sum.iter_mut().zip(batch) {
                *sum += users;
            }
            sum.clone()
        });
        each.collect()
    }
}

pub(super) fn srm_sequential(inputs: &str) -> Result<Value, String> {
    let asked = read::<Batches>(inputs)?.check()?;
    let factors: Vec<f64> = asked
        .totals()
        .iter()
        .map(|users| ln_bayes_factor(&asked.weights, users, asked.concentration))
        .collect();
    let mut running = None;
    let p = factors.iter().map(|&factor| {
        running = running_p(running, factor);
        running
    });
    let p: Vec<Option<f64>> = p.collect();
    Ok(json!({"log_bayes_factor": factors, "running_p": p}))
}

pub(super) fn published_srm_sequential(inputs: &str) -> Result<Value, String> {
    let asked = read::<Batches>(inputs)?.check()?;
    need(
        asked.dirichlet_alpha.len() == asked.weights.len(),
        "`dirichlet_alpha` and `weights` differ in length",
    )?;
    let all: f64 = asked.weights.iter().sum();
    let mut null = 0.0;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for (batch, users) in asked.batches.iter().zip(asked.totals()) {
        let ln_factorial = |users: u64| libm::lgamma(users as f64 + 1.0);
        null += ln_factorial(batch.iter().sum());
        for (&users, weight) in batch.iter().zip(&asked.weights) {
            null -= ln_factorial(users);
            null += if users > 0 {
                users as f64 * (weight / all).ln()
            } else {
                0.0
            };
        }
        let groups = asked.dirichlet_alpha.iter().zip(users).zip(&asked.weights);
        let groups = groups.map(|((&alpha, users), weight)| (alpha, users, weight / all));
        without.push(null);
        with.push(null + ln_bayes_factor_of(groups));
    }
    Ok(json!({"log_m1": with, "log_m0": without}))
}

#[derive(Deserialize)]
struct PValues {
    p: Vec<f64>,
    #[serde(default = "usual_alpha")]
    alpha: f64,
}

pub(super) fn multiplicity(inputs: &str) -> Result<Value, String> {
    let PValues { p, alpha } = read(inputs)?;
    let shown = |found: Corrected| json!({"adjusted": found.adjusted, "reject": found.reject});
    Ok(json!({
        "bonferroni": shown(multiple_testing::bonferroni(&p, alpha)),
        "holm": shown(multiple_testing::holm(&p, alpha)),
        "fdr_bh": shown(multiple_testing::benjamini_hochberg(&p, alpha)),
        "fdr_by": shown(multiple_testing::benjamini_yekutieli(&p, alpha)),
    }))
}

fn rejected(found: &Corrected) -> usize {
    found.reject.iter().filter(|&&rejected| rejected).count()
}

pub(super) fn published_multiplicity(inputs: &str) -> Result<Value, String> {
    let PValues { p, alpha } = read(inputs)?;
    Ok(json!({
        "rejected_bh": rejected(&multiple_testing::benjamini_hochberg(&p, alpha)),
        "rejected_bonferroni": rejected(&multiple_testing::bonferroni(&p, alpha)),
        "rejected_holm": rejected(&multiple_testing::holm(&p, alpha)),
    }))
}

#[derive(Deserialize)]
struct EValues {
    e: Vec<f64>,
    #[serde(default = "usual_alpha")]
    alpha: f64,
}

pub(super) fn e_bh(inputs: &str) -> Result<Value, String> {
    let EValues { e, alpha } = read(inputs)?;
    need(e.iter().all(|&e| e >= 0.0), "e-values are never negative")?;
    let ln_e: Vec<f64> = e.iter().map(|e| e.ln()).collect();
    let found = multiple_testing::e_bh(&ln_e, alpha);
    Ok(json!({"k": rejected(&found), "reject": found.reject}))
}

pub(super) fn contract_edges(inputs: &str) -> Result<Value, String> {
    const ALPHA: f64 = 0.05;
    let counts: Counts = read(inputs)?;
    counts.check()?;
    // The asymptotic engine by itself, behind the gate of ten users in each cell; and that a whole
    // judgement is sound.
    let row = lift_row(
        (counts.xA, counts.nA),
        (counts.xB, counts.nB),
        0.1_f64.ln_1p(),
        ALPHA,
    );
    let judged = judge(&edge(&counts));
    let group = &judged.metrics[0].groups[1];
    let cells = [
        counts.xA,
        counts.xB,
        counts.nA - counts.xA,
        counts.nB - counts.xB,
    ];
    let is_open = cells.iter().all(|&cell| cell >= 10);
    let shown = format!("{judged:?}");
    let mut words = shown.split(|c: char| !c.is_alphanumeric());
    let sound = words.all(|word| word != "NaN" && word != "inf");
    let p = match row.ln_e {
        Some(ln_e) if is_open => multiple_testing::p_value(ln_e),
        ln_e => ln_e.map(|_| 1.0),
    };
    Ok(json!({
        "valid_json_without_nan_or_inf": sound,
        "two_sided_p_asymptotic": p,
        "significant": group.significant,
        "lift_interval_unbounded_or_null": !is_open || row.lift.low.is_none() || row.lift.high.is_none(),
    }))
}

fn edge(counts: &Counts) -> Question {
    let totals = |users: u64, converted: u64| Totals {
        users,
        converted,
        ..Totals::default()
    };
    let group = |name: &str, is_control| GroupInput {
        name: name.to_owned(),
        is_control,
    };
    Question {
        groups: vec![group("control", true), group("experiment", false)],
        epochs: vec![Epoch {
            shares: vec![0.5, 0.5],
            users: vec![counts.nA, counts.nB],
        }],
        metrics: vec![MetricInput {
            name: "conversion".to_owned(),
            kind: Kind::Conversion,
            goal: Goal::Increase,
            role: Role::Primary,
            baseline: None,
            detect: 0.1,
            margin: 0.01,
            scale: 0,
            totals: vec![vec![
                totals(counts.nA, counts.xA),
                totals(counts.nB, counts.xB),
            ]],
            samples: None,
            history: Vec::new(),
        }],
        ..Question::default()
    }
}
