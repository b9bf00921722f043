//! What is asked: plain data about one experiment.

use super::horizon::PlannedEnd;
use super::quantile::SampleCounts;
use super::verdict::Given;

/// One experiment, its periods and its metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// In file order. Exactly one is control; the first one stands in where none is marked.
    pub groups: Vec<GroupInput>,
    /// Periods of constant weights, in order of first appearance.
    pub epochs: Vec<Epoch>,
    /// What judges the experiment. The first primary one decides; without one, the first that is
    /// no guardrail.
    pub metrics: Vec<MetricInput>,
    /// The smallest sample ratio p-value of earlier looks, 0 to 1.
    pub previous_sample_ratio_p: Option<f64>,
    /// The first exposure, in Unix milliseconds. `None` before it.
    pub started_at_ms: Option<u64>,
    /// The time of this look, in Unix milliseconds.
    pub now_ms: u64,
    /// Whether a batch of reported events is only partly counted: then nothing is decided, and
    /// the history stays as it was.
    pub is_partial: bool,
    /// No winner and no tie is called before the experiment has run this long.
    pub min_duration_ms: u64,
    /// When the experiment ends as planned; `None` judges it at every look, without an end.
    pub horizon: Option<PlannedEnd>,
    /// Verdicts that were given after whole weeks: they stand while their evidence does.
    pub given: Vec<Given>,
    /// The whole error allowed to the verdict, such as 0.05; above 0 and below 1.
    pub alpha: f64,
    /// The whole error allowed to all guardrails together, such as 0.01; above 0 and below 1.
    pub guardrail_alpha: f64,
    /// The chance to miss an effect of the planned size that "no planned lift" may have, such as
    /// 0.1; above 0 and below 1.
    pub beta: f64,
}

/// The usual errors and times.
impl Default for Question {
    fn default() -> Question {
        Question {
            groups: Vec::new(),
            epochs: Vec::new(),
            metrics: Vec::new(),
            previous_sample_ratio_p: None,
            started_at_ms: None,
            now_ms: 0,
            is_partial: false,
            min_duration_ms: 7 * 24 * 3_600_000,
            horizon: None,
            given: Vec::new(),
            alpha: 0.05,
            guardrail_alpha: 0.01,
            beta: 0.1,
        }
    }
}

impl Question {
    /// The place of the control group: 0 where none is marked.
    pub fn control(&self) -> usize {
        let marked = self.groups.iter().position(|group| group.is_control);
        marked.unwrap_or(0)
    }

    /// The place of the metric that decides: the first primary one, or else the first that is no
    /// guardrail.
    pub fn primary(&self) -> Option<usize> {
        let mut metrics = self.metrics.iter();
        let marked = metrics.position(|metric| metric.role == Role::Primary);
        let is_guardrail = |metric: &MetricInput| matches!(metric.role, Role::Guardrail { .. });
        marked.or_else(|| self.metrics.iter().position(|metric| !is_guardrail(metric)))
    }

    /// How much of the way to the planned end is over for a metric, 0 to 1; `None` without a planned end.
    pub fn progress(&self, metric: &MetricInput) -> Option<f64> {
        let users = metric.totals.iter().flatten().map(|it| it.users).sum();
        let start_ms = self.started_at_ms;
        let elapsed_ms = start_ms.map_or(0, |start_ms| self.now_ms.saturating_sub(start_ms));
        Some(self.horizon.as_ref()?.progress(users, elapsed_ms))
    }

    /// Users of all groups.
    pub fn users(&self) -> u64 {
        self.epochs.iter().flat_map(|epoch| &epoch.users).sum()
    }
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInput {
    /// Its name, as sentences use it.
    pub name: String,
    /// Whether the others are compared with it.
    pub is_control: bool,
}

/// A period of constant weights. Vectors are in the order of the groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Epoch {
    /// The designed share of each group, 0 to 1, adding up to 1; 0 for one that was not there.
    pub shares: Vec<f64>,
    /// Users first exposed in this epoch.
    pub users: Vec<u64>,
}

/// One metric and its data.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricInput {
    /// Its name, as sentences use it.
    pub name: String,
    /// How users become a rate.
    pub kind: Kind,
    /// Which direction is better. Not asked of guardrails: there, more is harm.
    pub goal: Goal,
    /// What it is for.
    pub role: Role,
    /// For values that may be negative, the rate expected before the start, not 0: differences
    /// are then judged, not ratios, and the planned lift is a share of it. Conversions need none.
    pub baseline: Option<f64>,
    /// The planned relative lift, above 0, such as 0.1. Fixed when the experiment starts.
    pub detect: f64,
    /// The relative difference that counts as none, above 0, such as 0.01.
    pub margin: f64,
    /// Decimal places of the stored sums: 2 means that 1990 is 19.90.
    pub scale: u8,
    /// By epoch, then by group.
    pub totals: Vec<Vec<Totals>>,
    /// For [`Kind::Quantile`]: what it is a quantile of.
    pub samples: Option<Samples>,
    /// What earlier analyses found, by group; empty at the first one.
    pub history: Vec<History>,
}

/// One sample per user, counted in buckets of equal width on the logarithmic scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// Which quantile, above 0 and below 1, such as 0.95.
    pub share: f64,
    /// Where bucket 0 begins, in the metric's unit; above 0.
    pub first: f64,
    /// The width of a bucket: ln of the ratio of its ends.
    pub step: f64,
    /// By epoch, then by group.
    pub counts: Vec<Vec<SampleCounts>>,
}

impl Samples {
    /// The middle of a bucket, in the metric's unit.
    pub fn middle(&self, bucket: u16) -> f64 {
        self.edge(f64::from(bucket) + 0.5)
    }

    /// The value so many buckets above the beginning.
    pub fn edge(&self, buckets: f64) -> f64 {
        self.first * (buckets * self.step).exp()
    }
}

/// What analyses of a group found until now. It is displayed, and never decides.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct History {
    /// The smallest p-value.
    pub lowest: Option<Shown>,
    /// The smallest corrected p-value of those analyses that showed a better group.
    pub better: Option<Shown>,
    /// The same of those that showed a worse one.
    pub worse: Option<Shown>,
}

/// A p-value and its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shown {
    /// 0 to 1.
    pub p: f64,
    /// Unix milliseconds; `None` where an older version did not keep it.
    pub at_ms: Option<u64>,
}

impl Shown {
    /// The smaller of what is known and what was found now; the earlier of two that are equal.
    pub fn lower(known: Option<Shown>, now: Shown) -> Option<Shown> {
        known.filter(|known| known.p <= now.p).or(Some(now))
    }
}

/// How a metric's users become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The share of users with at least one event.
    Conversion,
    /// Events per user.
    Count,
    /// Sum of values per user.
    Mean,
    /// Sum of values over the sum of a base.
    Ratio,
    /// A quantile of one sample per user.
    Quantile,
}

/// Which direction is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// More is better.
    Increase,
    /// Less is better.
    Decrease,
}

/// What a metric is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// It decides the verdict.
    Primary,
    /// It is shown, corrected for how many there are.
    Secondary,
    /// It must not grow.
    Guardrail {
        /// The relative growth that is tolerated, at least 0: 0.1 lets it grow by a tenth.
        max_increase: f64,
    },
}

/// What was counted for one metric in one group of one epoch. Squares and products are of the
/// users' totals, not of single events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Users exposed.
    pub users: u64,
    /// Users with at least one event.
    pub converted: u64,
    /// Events.
    pub count: u64,
    /// Σ count² over users.
    pub count_sq: i128,
    /// Σ values, in units of 10^-scale.
    pub sum: i128,
    /// Σ of squares over users, in units of 10^-2·scale.
    pub sum_sq: i128,
    /// Σ base of a ratio, in whole units.
    pub base: i128,
    /// Σ base² over users.
    pub base_sq: i128,
    /// Σ value × base over users, in units of 10^-scale.
    pub cross: i128,
    /// Users whose sum was cut to the metric's cap. Displayed only: the sums above are cut.
    pub capped: u64,
    /// Σ of what was cut off, in size and in units of 10^-scale.
    pub cut: i128,
    /// Users with a known sum from before their first exposure, of a metric with a covariate.
    pub known: u64,
    /// Σ values of these users.
    pub known_sum: i128,
    /// Σ of their sums from before, in units of 10^-scale.
    pub before: i128,
    /// Σ of the squares of these.
    pub before_sq: i128,
    /// Σ value × sum from before, over these users.
    pub before_cross: i128,
}
