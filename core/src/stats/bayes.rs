//! Chances and losses by Bayes' rule. Not protected against peeking: whoever stops as soon as the
//! chance to beat control passes 95 % is wrong 30 to 45 times in 100 where there is nothing. They
//! are shown because people ask; they never drive a verdict.
//!
//! P(B > A) = ∫ f_B F_A, and the loss of shipping B = E(p_A − p_B)⁺ = ∫ F_B·(1 − F_A) dt. All
//! integrands are positive, so nothing cancels at any size. They are summed over the log odds of
//! t, where every Beta density is smooth and log-concave, with distribution functions summed
//! along the way from both ends.

use super::logistic::{Term, ln_likelihood};
use super::quadrature::{NODES, rule};
use super::special::{normal_cdf, normal_density};

/// A Beta distribution of a rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Posterior {
    /// Above 0: prior plus converted users.
    pub a: f64,
    /// Above 0: prior plus users who did not convert.
    pub b: f64,
}

impl Posterior {
    /// After `converted` of `users`, from a prior in which every rate is as likely.
    pub fn new(users: u64, converted: u64) -> Posterior {
        Posterior {
            a: 1.0 + converted as f64,
            b: 1.0 + users.saturating_sub(converted) as f64,
        }
    }

    /// The expected rate.
    pub fn mean(&self) -> f64 {
        self.a / (self.a + self.b)
    }

    fn log_odds(&self) -> f64 {
        (self.a / self.b).ln()
    }

    /// Its density over log odds is this likelihood around its peak.
    fn term(&self) -> Term {
        Term {
            share: self.mean(),
            control: self.b,
            own: self.a,
        }
    }
}

/// Two rates compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chance {
    /// The chance that the group's rate is above control's.
    pub own_is_higher: f64,
    /// Expected (control − group)⁺: what is lost, in the rate's unit, by taking a group that may
    /// be lower.
    pub loss_if_own: f64,
    /// Expected (group − control)⁺: what is lost by staying with control.
    pub loss_if_control: f64,
}

/// Compares two Beta posteriors.
pub fn compare(control: Posterior, own: Posterior) -> Chance {
    let mut chance = Chance {
        own_is_higher: 0.0,
        loss_if_own: 0.0,
        loss_if_control: 0.0,
    };
    let base = control.log_odds();
    for panel in panels(&[control, own]) {
        let at =
            |value: &dyn Fn(usize) -> f64| rule().sum(panel.width, &std::array::from_fn(value));
        let [a, b] = [&panel.groups[0], &panel.groups[1]];
        let spread = |node: usize| {
            let log_odds = base + panel.nodes[node];
            1.0 / ((1.0 + log_odds.exp()) * (1.0 + (-log_odds).exp()))
        };
        chance.own_is_higher += at(&|node| b.density[node] * a.below[node]);
        chance.loss_if_own += at(&|node| b.below[node] * a.above[node] * spread(node));
        chance.loss_if_control += at(&|node| a.below[node] * b.above[node] * spread(node));
    }
    chance.own_is_higher = chance.own_is_higher.min(1.0);
    chance
}

/// The chance of each rate to be the highest.
pub fn chances_to_be_best(posteriors: &[Posterior]) -> Vec<f64> {
    let mut chances = vec![0.0; posteriors.len()];
    for panel in panels(posteriors) {
        for (group, chance) in chances.iter_mut().enumerate() {
            let value = |node: usize| {
                let others = panel.groups.iter().enumerate();
                let below = others.filter(|(other, _)| *other != group);
                let below: f64 = below.map(|(_, other)| other.below[node]).product();
                panel.groups[group].density[node] * below
            };
            *chance += rule().sum(panel.width, &std::array::from_fn(value));
        }
    }
    chances
}

/// Thompson's shares with a floor: floor + (1 − K·floor)·chance. `floor` from 0 to 1/K.
pub fn shares_by_chance(chances: &[f64], floor: f64) -> Vec<f64> {
    let rest = 1.0 - floor * chances.len() as f64;
    chances.iter().map(|chance| floor + rest * chance).collect()
}

/// A normally distributed difference, group minus control, of this mean and spread above 0.
pub fn of_difference(mean: f64, spread: f64) -> Chance {
    let z = mean / spread;
    let density = spread * normal_density(z);
    Chance {
        own_is_higher: normal_cdf(z),
        loss_if_own: (density - mean * normal_cdf(-z)).max(0.0),
        loss_if_control: (density + mean * normal_cdf(z)).max(0.0),
    }
}

/// The posterior mean and variance of an effect estimated as `mean` with `variance`, all
/// variances above 0, from a normal prior (mean, variance); without one, the estimate itself.
pub fn normal_posterior(mean: f64, variance: f64, prior: Option<(f64, f64)>) -> (f64, f64) {
    let Some((prior_mean, prior_variance)) = prior else {
        return (mean, variance);
    };
    let posterior = 1.0 / (1.0 / variance + 1.0 / prior_variance);
    let weighted = mean / variance + prior_mean / prior_variance;
    (posterior * weighted, posterior)
}

/// A stretch of log odds, counted from the first posterior's peak.
struct Panel {
    width: f64,
    nodes: [f64; NODES],
    groups: Vec<Values>,
}

/// One posterior at the nodes of a panel.
struct Values {
    density: [f64; NODES],
    /// Its distribution function, and 1 minus that.
    below: [f64; NODES],
    above: [f64; NODES],
}

fn panels(posteriors: &[Posterior]) -> Vec<Panel> {
    let Some(first) = posteriors.first() else {
        return Vec::new();
    };
    let offsets: Vec<f64> = posteriors
        .iter()
        .map(|posterior| posterior.log_odds() - first.log_odds())
        .collect();
    let cuts = cuts(posteriors, &offsets);
    let mut panels: Vec<Panel> = cuts
        .windows(2)
        .map(|ends| Panel {
            width: ends[1] - ends[0],
            nodes: rule().nodes_in(ends[0], ends[1]),
            groups: Vec::new(),
        })
        .collect();
    for (posterior, offset) in posteriors.iter().zip(offsets) {
        let term = [posterior.term()];
        let densities: Vec<[f64; NODES]> = panels
            .iter()
            .map(|panel| {
                panel
                    .nodes
                    .map(|node| ln_likelihood(&term, node - offset).exp())
            })
            .collect();
        distribute(&mut panels, &densities);
    }
    panels
}

/// Adds one posterior's values: sums of its density from the left and from the right.
fn distribute(panels: &mut [Panel], densities: &[[f64; NODES]]) {
    let masses: Vec<f64> = panels
        .iter()
        .zip(densities)
        .map(|(panel, density)| rule().sum(panel.width, density))
        .collect();
    let all: f64 = masses.iter().sum();
    let mut right = vec![0.0; panels.len()];
    for place in (1..panels.len()).rev() {
        right[place - 1] = right[place] + masses[place];
    }
    let mut left = 0.0;
    for (place, panel) in panels.iter_mut().enumerate() {
        let running = rule().running_sums(panel.width, &densities[place]);
        panel.groups.push(Values {
            density: densities[place].map(|density| density / all),
            below: running.map(|sum| ((left + sum) / all).max(0.0)),
            above: running.map(|sum| ((right[place] + (masses[place] - sum)) / all).max(0.0)),
        });
        left += masses[place];
    }
}

/// Where panels begin and end: narrow enough for every posterior where it has mass, and nowhere
/// wider than the rates themselves are smooth.
fn cuts(posteriors: &[Posterior], offsets: &[f64]) -> Vec<f64> {
    const DEEP: f64 = -90.0;
    const WIDEST: f64 = 2.0;
    let mut cuts = Vec::new();
    for (posterior, offset) in posteriors.iter().zip(offsets) {
        let term = [posterior.term()];
        let spread = (1.0 / posterior.a + 1.0 / posterior.b).sqrt();
        cuts.push(*offset);
        for direction in [-1.0, 1.0] {
            let (mut at, mut step, mut depth) = (0.0, 0.7 * spread * direction, 0.0);
            while depth > DEEP {
                at += step;
                let next = ln_likelihood(&term, at);
                if depth - next < 0.3 {
                    step *= 1.5;
                }
                depth = next;
                cuts.push(offset + at);
            }
        }
    }
    cuts.sort_by(f64::total_cmp);
    cuts.dedup();
    let mut fine = Vec::with_capacity(cuts.len());
    for ends in cuts.windows(2) {
        let parts = ((ends[1] - ends[0]) / WIDEST).ceil().max(1.0);
        let part = |number: u32| ends[0] + (ends[1] - ends[0]) * f64::from(number) / parts;
        fine.extend((0..parts as u32).map(part));
    }
    fine.extend(cuts.last());
    fine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: f64, expected: f64, relative: f64) {
        assert!(
            (found - expected).abs() <= relative * expected.abs(),
            "{found:e} is not {expected:e}"
        );
    }

    #[test]
    fn one_user_each_is_known_in_fractions() {
        let found = compare(Posterior::new(1, 0), Posterior::new(1, 1));
        close(found.own_is_higher, 5.0 / 6.0, 1e-13);
        close(found.loss_if_own, 1.0 / 30.0, 1e-12);
        close(found.loss_if_control, 11.0 / 30.0, 1e-13);
    }

    #[test]
    fn the_losses_differ_by_the_difference_of_the_means() {
        for (control, own) in [
            ((1_000_000_000, 31_003_047), (999_992_672, 31_021_312)),
            ((869, 0), (64, 0)),
            ((285, 285), (292, 292)),
            ((10, 9), (1_000_000, 10)),
        ] {
            let control = Posterior::new(control.0, control.1);
            let own = Posterior::new(own.0, own.1);
            let found = compare(control, own);
            let difference = control.mean() - own.mean();
            let losses = found.loss_if_own - found.loss_if_control;
            assert!(
                (losses - difference).abs() <= 1e-9 * difference.abs(),
                "{found:?} {difference}"
            );
            let back = compare(own, control);
            close(back.own_is_higher, 1.0 - found.own_is_higher, 1e-7);
            close(back.loss_if_own, found.loss_if_control, 1e-7);
        }
    }

    #[test]
    fn chances_to_be_best_add_up_to_one() {
        let groups = [(100, 10), (1000, 120), (0, 0), (50, 0)];
        let posteriors = groups.map(|(users, converted)| Posterior::new(users, converted));
        let chances = chances_to_be_best(&posteriors);
        close(chances.iter().sum(), 1.0, 1e-12);
        let pair = [posteriors[0], posteriors[1]];
        let two = chances_to_be_best(&pair);
        close(two[1], compare(pair[0], pair[1]).own_is_higher, 1e-12);
        assert_eq!(shares_by_chance(&[0.0, 1.0], 0.25), [0.25, 0.75]);
        assert!(chances_to_be_best(&[]).is_empty());
    }
}
