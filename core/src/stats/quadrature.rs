//! Gauss–Legendre quadrature with 16 nodes, and running integrals at the nodes.

use std::sync::OnceLock;

/// Nodes in a panel.
pub const NODES: usize = 16;

/// The rule on the interval from −1 to 1.
pub struct Rule {
    /// Where the integrand is asked, ascending.
    pub nodes: [f64; NODES],
    /// What each value counts.
    pub weights: [f64; NODES],
    /// `running[i][j]`: what the value at node j counts in the integral from −1 to node i.
    pub running: [[f64; NODES]; NODES],
}

/// The rule, made once. Source: NIST DLMF 3.5(v); running integrals by expansion in Legendre
/// polynomials, of which the rule integrates every product exactly.
pub fn rule() -> &'static Rule {
    static RULE: OnceLock<Rule> = OnceLock::new();
    RULE.get_or_init(make)
}

impl Rule {
    /// Nodes moved to the panel from `low` to `high`.
    pub fn nodes_in(&self, low: f64, high: f64) -> [f64; NODES] {
        let (middle, half) = (0.5 * (low + high), 0.5 * (high - low));
        self.nodes.map(|node| middle + half * node)
    }

    /// The integral over a panel of this width of a function with these values at the nodes.
    pub fn sum(&self, width: f64, values: &[f64; NODES]) -> f64 {
        let each = self.weights.iter().zip(values);
        0.5 * width * each.map(|(weight, value)| weight * value).sum::<f64>()
    }

    /// The integrals from the panel's low end to each node.
    pub fn running_sums(&self, width: f64, values: &[f64; NODES]) -> [f64; NODES] {
        let to = |row: &[f64; NODES]| {
            let each = row.iter().zip(values);
            0.5 * width * each.map(|(weight, value)| weight * value).sum::<f64>()
        };
        std::array::from_fn(|node| to(&self.running[node]))
    }
}

fn make() -> Rule {
    let nodes: [f64; NODES] = std::array::from_fn(|place| {
        let mut x = -(std::f64::consts::PI * (place as f64 + 0.75) / (NODES as f64 + 0.5)).cos();
        for _ in 0..50 {
            let (value, slope) = last_polynomial(x);
            x -= value / slope;
        }
        x
    });
    let weights = nodes.map(|x| {
        let slope = last_polynomial(x).1;
        2.0 / ((1.0 - x * x) * slope * slope)
    });
    let running = std::array::from_fn(|to| {
        let upper = polynomials(nodes[to]);
        std::array::from_fn(|at| {
            let own = polynomials(nodes[at]);
            let mut sum = 0.5 * (upper[1] + 1.0);
            for k in 1..NODES {
                // (2k+1)/2 · P_k(node) · ∫ P_k, where ∫ P_k = (P_{k+1} − P_{k−1})/(2k+1).
                sum += 0.5 * own[k] * (upper[k + 1] - upper[k - 1]);
            }
            weights[at] * sum
        })
    });
    Rule {
        nodes,
        weights,
        running,
    }
}

/// P_0 to P_NODES at x.
fn polynomials(x: f64) -> [f64; NODES + 1] {
    let mut values = [1.0; NODES + 1];
    values[1] = x;
    for k in 1..NODES {
        let order = k as f64;
        values[k + 1] =
            ((2.0 * order + 1.0) * x * values[k] - order * values[k - 1]) / (order + 1.0);
    }
    values
}

/// P_NODES and its slope at x, strictly between −1 and 1.
fn last_polynomial(x: f64) -> (f64, f64) {
    let values = polynomials(x);
    let slope = NODES as f64 * (x * values[NODES] - values[NODES - 1]) / (x * x - 1.0);
    (values[NODES], slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exponential_is_integrated_to_every_node() {
        let (low, high) = (-1.0, 2.5);
        let nodes = rule().nodes_in(low, high);
        let values = nodes.map(f64::exp);
        let whole = rule().sum(high - low, &values);
        assert!((whole - (high.exp() - low.exp())).abs() < 1e-13);
        for (node, sum) in nodes.iter().zip(rule().running_sums(high - low, &values)) {
            assert!((sum - (node.exp() - low.exp())).abs() < 1e-13, "to {node}");
        }
    }
}
