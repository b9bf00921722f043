//! Tests for a single look, on request: valid only for those who decide beforehand when to look
//! and then look once. No verdict uses them.

use super::input::{Kind, Question};
use super::interval::{Interval, finite};
use super::moments::{Sums, covariance};
use super::special::{
    normal_quantile, normal_two_sided, student_two_sided, student_two_sided_quantile,
};
use super::stratified::{self, Rate};

/// One group of users: how many, their mean, and their variance (of one user).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Users, at least 0.
    pub n: f64,
    /// Their mean.
    pub mean: f64,
    /// What the exact mean is above `mean`: the difference of two large means needs it.
    pub rest: f64,
    /// The variance of one user, at least 0.
    pub variance: f64,
}

/// An estimate with the interval and the p-value of a single look. `None` where undefined.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SingleLook {
    /// The estimate: 0 is no effect.
    pub estimate: Option<f64>,
    /// Its standard error.
    pub error: Option<f64>,
    /// Student's or the normal statistic.
    pub statistic: Option<f64>,
    /// Degrees of freedom, where Student's t is used.
    pub df: Option<f64>,
    /// Two-sided, 0 to 1.
    pub p_value: Option<f64>,
    /// Where the true value lies.
    pub interval: Interval,
}

/// A group against control at a single look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FixedHorizon {
    /// The difference of the rates: Newcombe's for conversions, else Welch's.
    pub absolute: SingleLook,
    /// The relative difference, by the logarithm of the ratio.
    pub relative: SingleLook,
}

/// Every metric and group of a question at a single look: by metric, then by group. `None` for
/// control, without users, and for weights that changed (pooled rates compare different days).
pub fn view(question: &Question) -> Vec<Vec<Option<FixedHorizon>>> {
    let control = question.control();
    let one = |metric, group| {
        let periods = stratified::periods(question, metric, control, group);
        let [only] = periods.as_slice() else {
            return None;
        };
        // Quantiles have no variance here: they are compared by the always valid test alone.
        let rates =
            stratified::comparable(metric, &periods).filter(|_| metric.samples.is_none())?;
        let (of_control, own) = (rates.control, rates.own);
        let absolute = match metric.kind {
            Kind::Conversion => Pair::of(&only.control, &only.own).newcombe(question.alpha),
            Kind::Count | Kind::Mean | Kind::Ratio | Kind::Quantile => {
                welch(sample(&of_control), sample(&own), question.alpha)
            }
        };
        Some(FixedHorizon {
            absolute,
            relative: log_ratio(sample(&of_control), sample(&own), question.alpha),
        })
    };
    question
        .metrics
        .iter()
        .map(|metric| {
            let groups = 0..question.groups.len();
            let each = groups.map(|group| (group != control).then(|| one(metric, group)).flatten());
            each.collect()
        })
        .collect()
}

/// A rate as a sample: the variance of one user is n times that of the mean.
fn sample(rate: &Rate) -> Sample {
    let n = rate.users as f64;
    Sample {
        n,
        mean: rate.mean,
        rest: 0.0,
        variance: rate.variance * n,
    }
}

impl Sample {
    /// Of users with sums. `None` below two users.
    pub fn of(sums: &Sums) -> Option<Sample> {
        let (mean, rest) = sums.mean_and_rest()?;
        Some(Sample {
            n: sums.users as f64,
            mean,
            rest,
            variance: sums.variance()?,
        })
    }

    /// Of converted users: p(1 − p). `None` without users.
    pub fn of_share(users: u64, converted: u64) -> Option<Sample> {
        let share = (users > 0).then(|| converted as f64 / users as f64)?;
        Some(Sample {
            n: users as f64,
            mean: share,
            rest: 0.0,
            variance: share * (1.0 - share),
        })
    }

    /// How much its mean is above another's.
    pub fn above(&self, other: &Sample) -> f64 {
        (self.mean - other.mean) + (self.rest - other.rest)
    }

    /// The variance of the mean.
    pub fn of_mean(&self) -> f64 {
        self.variance / self.n
    }
}

/// The difference of two means, by Welch's t. Source: Welch, Biometrika 1947.
pub fn welch(control: Sample, own: Sample, alpha: f64) -> SingleLook {
    let variance = control.of_mean() + own.of_mean();
    let df = welch_df(control, own, Sample::of_mean);
    student(own.above(&control), variance.sqrt(), df, alpha)
}

/// The relative difference of two means by the delta method, with Welch's degrees of freedom of
/// the difference: V = V_B/m_A² + V_A·m_B²/m_A⁴. Source: Deng, Knoblich, Lu, KDD 2018.
pub fn relative(control: Sample, own: Sample, alpha: f64) -> SingleLook {
    let variance = relative_variance(control, own);
    let df = welch_df(control, own, Sample::of_mean);
    student(
        own.above(&control) / control.mean,
        variance.sqrt(),
        df,
        alpha,
    )
}

/// The variance of m_B/m_A by the delta method.
pub fn relative_variance(control: Sample, own: Sample) -> f64 {
    let ratio = own.mean / control.mean;
    (own.of_mean() + control.of_mean() * ratio * ratio) / (control.mean * control.mean)
}

/// The relative difference by the logarithm of the ratio of two means, with Welch's degrees of
/// freedom of the logarithms. Its ends never fall below −1.
pub fn log_ratio(control: Sample, own: Sample, alpha: f64) -> SingleLook {
    if !(control.mean > 0.0 && own.mean > 0.0) {
        return SingleLook::default();
    }
    let of_log = |sample: &Sample| sample.of_mean() / (sample.mean * sample.mean);
    let df = welch_df(control, own, of_log);
    let variance = of_log(&control) + of_log(&own);
    let log = student((own.mean / control.mean).ln(), variance.sqrt(), df, alpha);
    SingleLook {
        estimate: finite(own.above(&control) / control.mean),
        interval: log.interval.map(f64::exp_m1),
        ..log
    }
}

/// The difference of two means with pooled variance. Source: Student, Biometrika 1908.
pub fn student_pooled(control: Sample, own: Sample, alpha: f64) -> SingleLook {
    let df = control.n + own.n - 2.0;
    let squares = control.variance * (control.n - 1.0) + own.variance * (own.n - 1.0);
    let variance = squares / df * (1.0 / control.n + 1.0 / own.n);
    student(own.above(&control), variance.sqrt(), df, alpha)
}

fn welch_df(control: Sample, own: Sample, variance: impl Fn(&Sample) -> f64) -> f64 {
    let (a, b) = (variance(&control), variance(&own));
    (a + b).powi(2) / (a * a / (control.n - 1.0) + b * b / (own.n - 1.0))
}

/// `None` all around where there is no variance, or no number.
fn student(estimate: f64, error: f64, df: f64, alpha: f64) -> SingleLook {
    let defined = error > 0.0 && df > 0.0 && df.is_finite() && estimate.is_finite();
    if !defined {
        return SingleLook {
            estimate: finite(estimate),
            ..SingleLook::default()
        };
    }
    let t = estimate / error;
    SingleLook {
        estimate: Some(estimate),
        error: finite(error),
        statistic: finite(t),
        df: Some(df),
        p_value: finite(student_two_sided(t, df)),
        interval: Interval::around(estimate, error * student_two_sided_quantile(alpha, df)),
    }
}

/// Converted users of two groups. A is control, B the group; n above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Control's converted users.
    pub x_a: f64,
    /// Control's users.
    pub n_a: f64,
    /// The group's converted users.
    pub x_b: f64,
    /// The group's users.
    pub n_b: f64,
}

impl Pair {
    /// Of two groups' sums.
    pub fn of(control: &Sums, own: &Sums) -> Pair {
        Pair {
            x_a: control.converted as f64,
            n_a: control.users as f64,
            x_b: own.converted as f64,
            n_b: own.users as f64,
        }
    }

    fn shares(&self) -> (f64, f64) {
        (self.x_a / self.n_a, self.x_b / self.n_b)
    }

    fn difference(&self) -> f64 {
        let (a, b) = self.shares();
        b - a
    }

    /// Wald's interval of the difference.
    pub fn wald(&self, alpha: f64) -> Interval {
        let (a, b) = self.shares();
        let variance = a * (1.0 - a) / self.n_a + b * (1.0 - b) / self.n_b;
        Interval::around(
            self.difference(),
            -normal_quantile(0.5 * alpha) * variance.sqrt(),
        )
    }

    /// Newcombe's hybrid score interval of the difference, with the pooled z-test beside it.
    /// Source: Newcombe, Statist. Med. 1998, method 10.
    pub fn newcombe(&self, alpha: f64) -> SingleLook {
        let (a, b) = self.shares();
        let (a_low, a_high) = wilson(self.x_a, self.n_a, alpha);
        let (b_low, b_high) = wilson(self.x_b, self.n_b, alpha);
        let difference = self.difference();
        let (statistic, p_value) = self.pooled_z().unzip();
        SingleLook {
            estimate: finite(difference),
            statistic,
            p_value,
            interval: Interval::new(
                difference - (b - b_low).hypot(a_high - a),
                difference + (b_high - b).hypot(a - a_low),
            ),
            ..SingleLook::default()
        }
    }

    /// The interval of the difference with two users added to each group, one of them converted.
    /// Source: Agresti and Caffo, Am. Stat. 2000.
    pub fn agresti_caffo(&self, alpha: f64) -> Interval {
        let added = Pair {
            x_a: self.x_a + 1.0,
            n_a: self.n_a + 2.0,
            x_b: self.x_b + 1.0,
            n_b: self.n_b + 2.0,
        };
        added.wald(alpha)
    }

    /// z with the pooled variance, and its two-sided p-value. `None` where nobody, or everybody,
    /// converted.
    pub fn pooled_z(&self) -> Option<(f64, f64)> {
        let pooled = (self.x_a + self.x_b) / (self.n_a + self.n_b);
        let variance = pooled * (1.0 - pooled) * (1.0 / self.n_a + 1.0 / self.n_b);
        let z = self.difference() / variance.sqrt();
        (variance > 0.0).then_some((z, normal_two_sided(z)))
    }

    /// The relative difference by the logarithm of the ratio. Unknown where a group has no
    /// converted user, or nobody failed to convert. Source: Katz and others, Biometrics 1978.
    pub fn log_lift(&self, alpha: f64) -> Interval {
        let (a, b) = self.shares();
        let variance = (1.0 - a) / self.x_a + (1.0 - b) / self.x_b;
        if !(self.x_a > 0.0 && self.x_b > 0.0 && variance > 0.0) {
            return Interval::UNKNOWN;
        }
        let half = -normal_quantile(0.5 * alpha) * variance.sqrt();
        Interval::around((b / a).ln(), half).map(f64::exp_m1)
    }
}

/// Wilson's score interval of a share. Source: Wilson, JASA 1927.
fn wilson(x: f64, n: f64, alpha: f64) -> (f64, f64) {
    let z = normal_quantile(0.5 * alpha);
    let square = z * z;
    let share = x / n;
    let center = (x + 0.5 * square) / (n + square);
    let half = -z / (n + square) * (share * (1.0 - share) * n + 0.25 * square).sqrt();
    // At its ends a share's interval ends there too, whatever was rounded.
    let low = if x == 0.0 { 0.0 } else { center - half };
    let high = if x == n { 1.0 } else { center + half };
    (low, high)
}

/// Sums of a group's values y and of something known of each user before exposure, x.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adjusted {
    /// Users, at least 2.
    pub users: u64,
    /// Σ y.
    pub y: i128,
    /// Σ y².
    pub y_sq: i128,
    /// Σ x.
    pub x: i128,
    /// Σ x².
    pub x_sq: i128,
    /// Σ x·y.
    pub cross: i128,
}

impl Adjusted {
    fn plus(self, other: Adjusted) -> Adjusted {
        Adjusted {
            users: self.users + other.users,
            y: self.y + other.y,
            y_sq: self.y_sq + other.y_sq,
            x: self.x + other.x,
            x_sq: self.x_sq + other.x_sq,
            cross: self.cross + other.cross,
        }
    }

    /// The sample of y − θ·x. `None` below two users.
    pub fn sample(&self, theta: f64) -> Option<Sample> {
        let n = self.users as f64;
        let of_y = covariance(self.users, self.y, self.y, self.y_sq)?;
        let of_x = covariance(self.users, self.x, self.x, self.x_sq)?;
        let both = covariance(self.users, self.x, self.y, self.cross)?;
        Some(Sample {
            n,
            mean: self.y as f64 / n - theta * (self.x as f64 / n),
            rest: 0.0,
            variance: (of_y - 2.0 * theta * both + theta * theta * of_x).max(0.0),
        })
    }
}

/// θ = Cov(y, x)/Var(x) over both groups together; 0 where x does not vary. Source: Deng, Xu,
/// Kohavi, Walker, WSDM 2013 (CUPED). `None` below two users.
pub fn adjustment(control: &Adjusted, own: &Adjusted) -> Option<f64> {
    let both = control.plus(*own);
    let of_x = covariance(both.users, both.x, both.x, both.x_sq)?;
    let cross = covariance(both.users, both.x, both.y, both.cross)?;
    Some(if of_x > 0.0 { cross / of_x } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcombe_is_as_printed() {
        // Newcombe 1998, table II, method 10.
        let pair = Pair {
            x_a: 48.0,
            n_a: 80.0,
            x_b: 56.0,
            n_b: 70.0,
        };
        let found = pair.newcombe(0.05).interval;
        assert!((found.low.unwrap() - 0.0524).abs() < 6e-5);
        assert!((found.high.unwrap() - 0.3339).abs() < 6e-5);
    }

    #[test]
    fn no_variance_is_no_test() {
        let same = Sample {
            n: 9.0,
            mean: 250.0,
            rest: 0.0,
            variance: 0.0,
        };
        let found = welch(same, same, 0.05);
        assert_eq!(found.estimate, Some(0.0));
        assert_eq!((found.p_value, found.interval), (None, Interval::UNKNOWN));
        let nobody = Pair {
            x_a: 0.0,
            n_a: 5.0,
            x_b: 0.0,
            n_b: 5.0,
        };
        assert_eq!(nobody.pooled_z(), None);
        assert_eq!(nobody.log_lift(0.05), Interval::UNKNOWN);
    }
}
