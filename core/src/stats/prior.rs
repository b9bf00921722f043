//! Which effects the tests are tuned to: half around the planned one, half far wider, so that a
//! large effect at a small site is found soon, at a small price where the effect is the planned one.

use super::logistic::Term;

/// A normal distribution of effects, in units of the planned one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Component {
    /// Its share of the mixture.
    pub weight: f64,
    /// Its mean.
    pub center: f64,
    /// Its standard deviation.
    pub spread: f64,
}

/// ½ around plus and minus the planned effect, ¼ three times and ¼ ten times as wide. Measured at
/// the planned effect it costs 2 points of power, and it saves 7, 27 and 54 % of the users where
/// the effect is 2, 4 and 10 times the planned one.
pub const MIXTURE: [Component; 4] = [
    component(0.25, 1.0, 0.5),
    component(0.25, -1.0, 0.5),
    component(0.25, 0.0, 3.0),
    component(0.25, 0.0, 10.0),
];

const fn component(weight: f64, center: f64, spread: f64) -> Component {
    Component {
        weight,
        center,
        spread,
    }
}

/// The mixture over log rate ratios as converted users whose likelihood has the same place and
/// spread: Beta distributions of the group's share of the converted. `share` is the group's of all
/// users, `planned` the planned log ratio, above 0.
pub fn as_converted(share: f64, planned: f64) -> [(f64, Term); 4] {
    MIXTURE.map(|component| {
        let odds = share / (1.0 - share) * (component.center * planned).exp();
        let center = odds / (1.0 + odds);
        let spread = component.spread * planned;
        let users = 1.0 / (center * (1.0 - center) * spread * spread);
        let term = Term {
            share,
            control: users * (1.0 - center),
            own: users * center,
        };
        (component.weight, term)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_one() {
        let all: f64 = MIXTURE.iter().map(|component| component.weight).sum();
        assert_eq!(all, 1.0);
    }

    #[test]
    fn centered_component_is_centered_at_the_share() {
        let [.., (_, wide)] = as_converted(0.1, 0.1);
        assert!((wide.own / (wide.own + wide.control) - 0.1).abs() < 1e-15);
        assert!((wide.own + wide.control - 1.0 / 0.09).abs() < 1e-9);
    }
}
