//! A planned end: so many analyses on the way to it, whose errors add up to α.
//!
//! A test that holds at every look pays for looks that nobody needs when the end is known before. With
//! a planned end, the error is spent over [`ANALYSES`] analyses by the function of Lan and DeMets that
//! is like the bounds of O'Brien and Fleming, α(t) = 4·(1 − Φ(z/√t)) with z = Φ⁻¹(1 − α/4): little of it
//! at first, most of it at the end. Each analysis is made once, at the first look at which so much of the
//! way is over, and what it found stands until the next one.
//!
//! The bounds are those of a Brownian motion whose clock is the *information* that each analysis had,
//! 1/V of the estimate, and not the number of users; only how much is spent goes by users or time. The
//! chance to stay within the bounds until now is carried on from analysis to analysis by quadrature.
//!
//! Sources: O'Brien and Fleming, Biometrics 1979; Lan and DeMets, Biometrika 1983; Jennison and
//! Turnbull, "Group Sequential Methods", 2000, chapters 7 and 19; Armitage, McPherson and Rowe, JRSS-A
//! 1969.

use super::quadrature::{NODES, rule};
use super::special::{bisect, normal_cdf, normal_density, normal_quantile};

/// Analyses from the start to the planned end.
pub const ANALYSES: u32 = 30;

/// When an experiment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndAfter {
    /// With so many users of all groups.
    Users(u64),
    /// So many milliseconds after the first user.
    Time(u64),
}

/// A planned end, and the analyses that were made.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedEnd {
    /// When.
    pub at: EndAfter,
    /// How long the metric waits for each user, in milliseconds: its conversion window. Users come until a
    /// planned time, and their windows are over so much later.
    pub wait_ms: u64,
    /// By group, in order; empty at first.
    pub made: Vec<Vec<PlannedAnalysis>>,
}

/// One analysis of one group, as it was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlannedAnalysis {
    /// Which of [`ANALYSES`], from 1 on; some are left out where many users come at once.
    pub number: u32,
    /// How much of the way was over, above 0 and at most 1.
    pub progress: f64,
    /// The estimate, on the scale that decides.
    pub delta: f64,
    /// Its variance, above 0.
    pub variance: f64,
    /// From how many standard errors on an effect is shown.
    pub bound: f64,
    /// Whether the estimate is a difference, and not the logarithm of a ratio.
    pub is_difference: bool,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
}

impl PlannedAnalysis {
    /// Whether it shows an effect.
    pub fn shows(&self) -> bool {
        self.delta.abs() >= self.bound * self.variance.sqrt()
    }

    /// How far the interval that holds at this analysis reaches to each side of the estimate.
    pub fn half_width(&self) -> f64 {
        self.bound * self.variance.sqrt()
    }

    /// Whether it is the one at the planned end.
    pub fn is_last(&self) -> bool {
        self.number >= ANALYSES
    }
}

/// What is known when an analysis is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NewEstimate {
    /// The estimate, on the scale that decides.
    pub delta: f64,
    /// Its variance, above 0.
    pub variance: f64,
    /// Whether it is a difference, and not the logarithm of a ratio.
    pub is_difference: bool,
}

impl PlannedEnd {
    /// How much of the way is over, 0 to 1, with so many users of the metric so long after the first one.
    pub fn progress(&self, users: u64, elapsed_ms: u64) -> f64 {
        let (over, whole) = match self.at {
            EndAfter::Users(whole) => (users, whole),
            EndAfter::Time(whole) => (elapsed_ms.saturating_sub(self.wait_ms), whole),
        };
        (over as f64 / whole.max(1) as f64).min(1.0)
    }

    /// When the last analysis is due, in Unix milliseconds; `None` where that depends on users.
    pub fn ends_ms(&self, started_at_ms: Option<u64>) -> Option<u64> {
        match self.at {
            EndAfter::Users(_) => None,
            EndAfter::Time(ms) => Some(
                started_at_ms?
                    .saturating_add(ms)
                    .saturating_add(self.wait_ms),
            ),
        }
    }
}

/// The analysis that is due at this point of the way, if it was not made before. `alpha` is the
/// error of this group's comparison, both sides together.
pub fn due(
    made: &[PlannedAnalysis],
    progress: f64,
    estimate: &NewEstimate,
    alpha: f64,
    at_ms: u64,
) -> Option<PlannedAnalysis> {
    let number = (progress * f64::from(ANALYSES)).floor() as u32;
    let last = made.last().map_or(0, |analysis| analysis.number);
    if number <= last {
        return None;
    }
    let mut walk = Walk::default();
    for analysis in made {
        walk.go_on(1.0 / analysis.variance, analysis.bound);
    }
    Some(PlannedAnalysis {
        number,
        progress,
        delta: estimate.delta,
        variance: estimate.variance,
        bound: walk.bound(progress, 1.0 / estimate.variance, alpha),
        is_difference: estimate.is_difference,
        at_ms,
    })
}

/// How much of `alpha` is spent when so much of the way is over.
fn spent(alpha: f64, progress: f64) -> f64 {
    let z = -normal_quantile(0.25 * alpha);
    (4.0 * normal_cdf(-z / progress.min(1.0).sqrt())).min(alpha)
}

/// No bound is further away, in standard errors: so little is spent that nothing can be shown.
const FAR: f64 = 40.0;
/// Beyond so many standard errors nothing is carried on.
const CARRIED: f64 = 7.0;
/// Less than this is not spent by itself, but with the next analysis.
const LEAST: f64 = 1e-10;
/// Panels of the quadrature, from 0 to the bound.
const PANELS: usize = 2;
/// The least by which information is taken to grow: it falls when a large value comes.
const GROWTH: f64 = 1.005;

/// A Brownian motion on the clock of information, without an effect, that has stayed within the bounds
/// until now.
#[derive(Default)]
struct Walk {
    /// Where it is, on one side of 0: points with the mass of each. The other side is the same.
    inside: Option<Vec<(f64, f64)>>,
    information: f64,
    /// The chance that it has left.
    left: f64,
}

impl Walk {
    /// The information of the next analysis, and the standard deviation of the step to it.
    fn next(&self, information: f64) -> (f64, f64) {
        let information = information.max(self.information * GROWTH);
        (information, (information - self.information).sqrt())
    }

    /// The chance that a step of this size leads out of these ends.
    fn leaves(&self, end: f64, step: f64) -> f64 {
        let from = |at: f64| normal_cdf((at - end) / step) + normal_cdf((-end - at) / step);
        match &self.inside {
            None => 2.0 * normal_cdf(-end / step),
            Some(inside) => {
                2.0 * inside
                    .iter()
                    .map(|(at, mass)| mass * from(*at))
                    .sum::<f64>()
            }
        }
    }

    /// From how many standard errors on the next analysis shows an effect.
    fn bound(&self, progress: f64, information: f64, alpha: f64) -> f64 {
        let (information, step) = self.next(information);
        let spread = information.sqrt();
        let may_leave = spent(alpha, progress) - self.left;
        if may_leave < LEAST {
            return FAR;
        }
        let end = bisect(0.0, FAR * spread, |end| self.leaves(end, step) > may_leave);
        end / spread
    }

    /// Goes on to an analysis with this bound.
    fn go_on(&mut self, information: f64, bound: f64) {
        let (information, step) = self.next(information);
        let spread = information.sqrt();
        if bound < FAR {
            self.left += self.leaves(bound * spread, step);
        }
        let width = bound.min(CARRIED) * spread / PANELS as f64;
        let mut points = Vec::with_capacity(PANELS * NODES);
        for panel in 0..PANELS {
            let low = width * panel as f64;
            let nodes = rule().nodes_in(low, low + width);
            for (at, weight) in nodes.into_iter().zip(rule().weights) {
                points.push((at, 0.5 * width * weight * self.density(at, step)));
            }
        }
        (self.inside, self.information) = (Some(points), information);
    }

    /// The density after a step of this size.
    fn density(&self, at: f64, step: f64) -> f64 {
        let from =
            |from: f64| normal_density((at - from) / step) + normal_density((at + from) / step);
        let density = match &self.inside {
            None => normal_density(at / step),
            Some(inside) => inside.iter().map(|(place, mass)| mass * from(*place)).sum(),
        };
        density / step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bounds of analyses with this progress and information.
    fn bounds(way: &[(f64, f64)], alpha: f64) -> Vec<f64> {
        let mut walk = Walk::default();
        let each = way.iter().map(|&(progress, information)| {
            let bound = walk.bound(progress, information, alpha);
            walk.go_on(information, bound);
            bound
        });
        each.collect()
    }

    fn evenly(analyses: u32) -> Vec<(f64, f64)> {
        let shares = (1..=analyses).map(|number| f64::from(number) / f64::from(analyses));
        shares.map(|share| (share, 7.0 * share)).collect()
    }

    /// Published for five analyses at 5 %, both sides; for thirty computed apart with Python.
    #[test]
    fn bounds_are_those_of_the_tables() {
        let five = bounds(&evenly(5), 0.05);
        for (found, known) in five.iter().zip([4.8769, 3.3569, 2.6803, 2.2898, 2.0310]) {
            assert!((found - known).abs() < 2e-4, "{five:?}");
        }
        let thirty = bounds(&evenly(30), 0.05);
        for (place, known) in [(3, 6.027), (9, 3.748), (19, 2.631), (29, 2.143)] {
            assert!((thirty[place] - known).abs() < 1e-3, "{thirty:?}");
        }
    }

    #[test]
    fn one_analysis_is_a_fixed_test() {
        let one = bounds(&[(1.0, 3.0)], 0.05);
        assert!((one[0] - 1.959_964).abs() < 1e-5, "{one:?}");
        // What was left out is spent later.
        let last = bounds(&[(0.5, 1.0), (1.0, 2.0)], 0.05)[1];
        assert!((1.96..2.031).contains(&last), "{last}");
    }

    #[test]
    fn information_that_falls_gives_bounds() {
        let way = [(0.2, 1.0), (0.4, 2.0), (0.6, 0.5), (1.0, 2.5)];
        let found = bounds(&way, 0.05);
        assert!(
            found.iter().all(|bound| (1.96..=FAR).contains(bound)),
            "{found:?}"
        );
    }

    #[test]
    fn each_analysis_is_made_once() {
        let estimate = NewEstimate {
            delta: 0.3,
            variance: 0.01,
            is_difference: false,
        };
        let due =
            |made: &[PlannedAnalysis], progress| super::due(made, progress, &estimate, 0.05, 5);
        assert_eq!(due(&[], 0.03), None);
        let first = due(&[], 0.5).unwrap();
        assert_eq!((first.number, first.at_ms), (15, 5));
        assert!(first.shows() && !first.is_last());
        assert_eq!(due(&[first], 0.51), None);
        let last = due(&[first], 1.0).unwrap();
        assert!(last.is_last() && last.bound < first.bound);
        assert_eq!(due(&[first, last], 1.0), None);
    }

    #[test]
    fn progress_goes_by_users_or_time() {
        let end = |at, wait_ms| PlannedEnd {
            at,
            wait_ms,
            made: Vec::new(),
        };
        let users = end(EndAfter::Users(200), 0);
        assert_eq!((users.progress(50, 0), users.progress(500, 0)), (0.25, 1.0));
        assert_eq!(users.ends_ms(Some(5)), None);
        let time = end(EndAfter::Time(1000), 0);
        assert_eq!(
            (time.progress(9, 100), time.ends_ms(Some(5))),
            (0.1, Some(1005))
        );
        // The windows of those who come last are over so much later.
        let waits = end(EndAfter::Time(1000), 700);
        let progress = [600, 800, 1699, 1700].map(|elapsed_ms| waits.progress(9, elapsed_ms));
        assert_eq!(progress, [0.0, 0.1, 0.999, 1.0]);
        assert_eq!(waits.ends_ms(Some(5)), Some(1705));
    }
}
