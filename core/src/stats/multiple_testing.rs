//! Several comparisons at once: what must be asked of each so that the whole keeps its error.

use super::interval::finite;

/// p-values corrected for how many there are, in the order given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Corrected {
    /// At most 1: reject where it is at most α.
    pub adjusted: Vec<f64>,
    /// Whether each is rejected.
    pub reject: Vec<bool>,
}

/// No false rejection at all but with chance α: p·m. Source: Bonferroni.
pub fn bonferroni(p: &[f64], alpha: f64) -> Corrected {
    let m = p.len() as f64;
    corrected(p.iter().map(|p| (p * m).min(1.0)).collect(), alpha)
}

/// The same with more power, stepping down. With p-values of e-values it holds at any common look.
/// Source: Holm, Scand. J. Statist. 1979.
pub fn holm(p: &[f64], alpha: f64) -> Corrected {
    let order = ascending(p);
    let mut adjusted = vec![0.0; p.len()];
    let mut highest = 0.0_f64;
    for (rank, &place) in order.iter().enumerate() {
        highest = highest.max(p[place] * (p.len() - rank) as f64).min(1.0);
        adjusted[place] = highest;
    }
    corrected(adjusted, alpha)
}

/// The false discovery rate, for independent p-values. Source: Benjamini and Hochberg, JRSS-B
/// 1995.
pub fn benjamini_hochberg(p: &[f64], alpha: f64) -> Corrected {
    step_up(p, alpha, 1.0)
}

/// The false discovery rate under any dependence. Source: Benjamini and Yekutieli, Ann. Statist.
/// 2001.
pub fn benjamini_yekutieli(p: &[f64], alpha: f64) -> Corrected {
    let harmonic: f64 = (1..=p.len()).map(|k| 1.0 / k as f64).sum();
    step_up(p, alpha, harmonic)
}

fn step_up(p: &[f64], alpha: f64, factor: f64) -> Corrected {
    let m = p.len() as f64;
    let mut adjusted = vec![0.0; p.len()];
    let mut lowest = 1.0_f64;
    for (rank, &place) in ascending(p).iter().enumerate().rev() {
        lowest = lowest.min(p[place] * m * factor / (rank + 1) as f64);
        adjusted[place] = lowest;
    }
    corrected(adjusted, alpha)
}

/// The false discovery rate of e-values, given as logarithms, under any dependence: the largest
/// k with E_(k)·k/m ≥ 1/α are rejected. An adjusted value is the smallest α that rejects it.
/// Source: Wang and Ramdas, JRSS-B 2022 (arXiv 2009.02824).
pub fn e_bh(ln_e: &[f64], alpha: f64) -> Corrected {
    let inverted: Vec<f64> = ln_e.iter().map(|ln_e| -ln_e).collect();
    let ln_m = (ln_e.len() as f64).ln();
    let mut adjusted = vec![0.0; ln_e.len()];
    let mut lowest = 0.0_f64;
    for (rank, &place) in ascending(&inverted).iter().enumerate().rev() {
        lowest = lowest.min(inverted[place] + ln_m - ((rank + 1) as f64).ln());
        adjusted[place] = lowest.exp();
    }
    // The comparison is made in logarithms: exp(ln(1/α)) is not always 1/α.
    let reject = adjusted
        .iter()
        .map(|adjusted| adjusted.ln() <= alpha.ln() + 1e-12)
        .collect();
    Corrected { adjusted, reject }
}

/// The error of each interval when `reject` were selected out of all: α·R/m for those selected
/// (α/m while none is), so that of the selected intervals at most α miss in expectation. Others
/// are kept from excluding 0 by Holm's next step. Sources: Benjamini and Yekutieli, JASA 2005;
/// for intervals from e-values, under any dependence, Xu, Wang, Ramdas (arXiv 2203.12572).
pub fn interval_levels(reject: &[bool], alpha: f64) -> Vec<f64> {
    let m = reject.len() as f64;
    let selected = reject.iter().filter(|&&selected| selected).count() as f64;
    let own = alpha * selected.max(1.0) / m;
    let next = alpha / (m - selected).max(1.0);
    let level = |&selected: &bool| if selected { own } else { own.min(next) };
    reject.iter().map(level).collect()
}

/// min(1, 1/E): valid however often one looks. `None` for what is no number.
pub fn p_value(ln_e: f64) -> Option<f64> {
    finite((-ln_e).exp().min(1.0))
}

/// The running p-value: the smallest seen so far, of which the present one is 1/E, at most 1.
/// What is no number leaves it as it was.
pub fn running_p(previous: Option<f64>, ln_e: f64) -> Option<f64> {
    let now = p_value(ln_e);
    match (previous, now) {
        (Some(previous), Some(now)) => Some(previous.min(now)),
        (previous, now) => previous.or(now),
    }
}

fn corrected(adjusted: Vec<f64>, alpha: f64) -> Corrected {
    let reject = adjusted.iter().map(|&p| p <= alpha).collect();
    Corrected { adjusted, reject }
}

fn ascending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holm_steps_down_and_never_below_bonferroni() {
        let p = [0.02, 0.03, 0.001];
        assert_eq!(holm(&p, 0.05).reject, [true, true, true]);
        assert_eq!(bonferroni(&p, 0.05).reject, [false, false, true]);
        assert_eq!(holm(&p, 0.05).adjusted, [0.04, 0.04, 0.003]);
    }

    #[test]
    fn e_values_are_rejected_from_the_largest() {
        let e = [30.0_f64, 70.0, 1.0, 25.0].map(f64::ln);
        assert_eq!(e_bh(&e, 0.05).reject, [false, false, false, false]);
        let e = [41.0_f64, 70.0, 1.0, 25.0].map(f64::ln);
        assert_eq!(e_bh(&e, 0.05).reject, [true, true, false, false]);
        assert_eq!(e_bh(&[20.0_f64.ln()], 0.05).reject, [true]);
        assert_eq!(e_bh(&[], 0.05).reject, [false; 0]);
    }

    #[test]
    fn levels_follow_what_is_selected() {
        assert_eq!(interval_levels(&[false], 0.05), [0.05]);
        assert_eq!(interval_levels(&[true], 0.05), [0.05]);
        assert_eq!(interval_levels(&[false, false], 0.05), [0.025, 0.025]);
        assert_eq!(interval_levels(&[true, true], 0.05), [0.05, 0.05]);
        let five = interval_levels(&[true, true, false, false, false], 0.05);
        assert!((five[0] - 0.02).abs() < 1e-15 && (five[2] - 0.05 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn a_running_p_never_rises() {
        assert_eq!(running_p(None, 0.0), Some(1.0));
        assert_eq!(running_p(Some(0.2), -5.0), Some(0.2));
        assert_eq!(running_p(Some(0.2), 10.0), Some((-10.0_f64).exp()));
        assert_eq!(running_p(Some(0.2), f64::NAN), Some(0.2));
    }
}
