//! The sequential t-test, for near-Gaussian data of small samples.

use crate::stats::interval::finite;

/// ln E of no effect: t with ν degrees of
/// freedom, r = φ/(φ + z²), where z² is the effective number of users and φ the mixture's weight
/// in users. Source: Lindon, Ham, Tingley, Bojinov, arXiv 2210.08589.
pub fn ln_e_t(t: f64, nu: f64, phi: f64, z_sq: f64) -> f64 {
    let r = phi / (phi + z_sq);
    let u = t * t / nu;
    0.5 * r.ln() - 0.5 * (nu + 1.0) * ((r * u).ln_1p() - u.ln_1p())
}

/// The |t| from which on [`ln_e_t`] rejects at `alpha`. `None` while no t would.
pub fn critical_t(nu: f64, phi: f64, z_sq: f64, alpha: f64) -> Option<f64> {
    let r = phi / (phi + z_sq);
    let need = (-2.0 * alpha.ln() - r.ln()) / (nu + 1.0);
    let left = 1.0 - r * need.exp();
    (left > 0.0)
        .then(|| (nu * need.exp_m1() / left).sqrt())
        .and_then(finite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_critical_t_is_where_the_evidence_is_enough() {
        let critical = critical_t(30.0, 100.0, 40.0, 0.05).unwrap();
        assert!((ln_e_t(critical, 30.0, 100.0, 40.0) - 20.0_f64.ln()).abs() < 1e-10);
        assert_eq!(critical_t(5.0, 1e6, 1.0, 0.05), None);
    }
}
