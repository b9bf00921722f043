//! Simulates whole experiments, and analyzes them with the same statistics as real ones.

use crate::admin::results::evaluator::{CountsSnapshot, Evaluator};
use crate::admin::results::sample_size::{MORE_EVENTS, MORE_REQUESTS, VALUE_SIGMA, planned_lift};
use crate::config::plan::Plan;
use crate::experiment::guardrail::GuardrailTarget;
use crate::experiment::metric::MetricKind;
use crate::experiment::{Experiment, Horizon, UserId};
use crate::server::ErrorWithHint;
use crate::stats::State;
use crate::store::phases::Placement;
use crate::store::running_minima::RunningMinima;
use crate::store::{
    EpochDefinition, EpochTotals, ExperimentTotals, GroupTotals, MetricTotals, UserMetric,
};
use crate::telemetry;
use fastrand::Rng;

/// A simulation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Game<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The experiment.
    pub experiment: &'a Experiment,
    /// The share of users with an event of a metric, above 0 and below 1.
    pub rate: f64,
    /// Whether the other groups have the planned lift.
    pub with_effect: bool,
    /// The number of users after which a run ends.
    pub users: u64,
    /// The number of analyses of a run.
    pub looks: u64,
    /// The seed, combined with the run's number.
    pub seed: u64,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// `Collecting` without a verdict.
    pub state: State,
    /// Users at the end.
    pub users: u64,
}

/// The share of users with a bad response, for guardrails of errors and slow responses.
const HARM_RATE: f64 = 0.01;

/// Returns the error for an experiment whose planned lift of the first metric exceeds all users.
pub(super) fn impossible_lift(
    plan: &Plan,
    experiment: &Experiment,
    rate: f64,
) -> Option<ErrorWithHint> {
    let metric = plan.metric(*experiment.metrics.first()?);
    let lifted = rate * planned_lift(metric);
    if metric.kind == MetricKind::Mean || lifted < 1.0 {
        return None;
    }
    // Rounded, without the digits of a binary fraction.
    let percent = |share: f64| format!("{}%", (share * 1e6).round() / 1e4);
    Some(ErrorWithHint::new(
        format!(
            "{}: metrics.{}.detect: a lift of {} of a rate of {} would be {} of users",
            experiment.name,
            metric.name,
            percent(metric.detect),
            percent(rate),
            percent(lifted)
        ),
        format!(
            "simulate a lower rate (--rate, below {}), or plan a smaller lift (detect, below {})",
            percent(1.0 / planned_lift(metric)),
            percent(1.0 / rate - 1.0)
        ),
    ))
}

/// Simulates one run to its verdict, or to its end.
pub(super) fn play(game: &Game<'_>, run: u64) -> End {
    let Game {
        plan,
        experiment,
        users,
        looks,
        ..
    } = *game;
    let mut crowd = Crowd::new(game, run);
    // The shortest duration is no question of the statistics: it is over from the start.
    let mut experiment = experiment.clone();
    experiment.min_duration_ms = 0;
    let all = Evaluator::default();
    let mut end = End {
        state: State::Collecting,
        users,
    };
    for look in 1..=looks {
        let until = (users as f64 * look as f64 / looks as f64).ceil() as u64;
        while crowd.came < until {
            crowd.one_comes();
        }
        // Users come evenly until the planned end.
        let at_ms = match experiment.horizon {
            Some(Horizon::Time(ms)) => (ms as f64 * look as f64 / looks as f64) as u64,
            Some(Horizon::Users(_)) | None => look,
        };
        let judged = all.judge(
            plan,
            &experiment,
            CountsSnapshot {
                totals: crowd.totals.clone(),
                // A user does everything at once.
                hours: None,
                placement: Placement::first(&experiment.name),
                counted: telemetry::Counted::Wholly,
                at_ms,
            },
            &RunningMinima::default(),
        );
        end = End {
            state: judged.judgement.verdict.state,
            users: until,
        };
        if end.state != State::Collecting {
            break;
        }
    }
    end
}

/// Users of one run, and what they did.
struct Crowd<'a> {
    experiment: &'a Experiment,
    rng: Rng,
    name: String,
    counted: Vec<Counted>,
    totals: ExperimentTotals,
    /// Users inside the experiment.
    came: u64,
    /// All users, including those outside the traffic share.
    tried: u64,
}

/// One metric, or harm.
struct Counted {
    name: String,
    kind: MetricKind,
    scale: f64,
    cap: Option<i64>,
    /// By group: the share of users with an event, and the factor of their values.
    rate: Vec<f64>,
    factor: Vec<f64>,
}

impl<'a> Crowd<'a> {
    fn new(game: &Game<'a>, run: u64) -> Crowd<'a> {
        let Game { experiment, .. } = *game;
        let groups = experiment.groups.iter();
        let definition = EpochDefinition {
            digest: experiment.epoch,
            traffic: experiment.traffic.get(),
            groups: groups
                .clone()
                .map(|group| (group.name.to_string(), group.weight.get()))
                .collect(),
            first_ms: 0,
            series: Vec::new(),
        };
        let epoch = EpochTotals {
            definition,
            number: 1,
            groups: groups
                .map(|group| (group.name.to_string(), GroupTotals::default()))
                .collect(),
        };
        Crowd {
            experiment,
            rng: Rng::with_seed(game.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ run),
            name: format!("{}-{run}-", game.seed),
            counted: counted(game),
            totals: ExperimentTotals {
                identities: Default::default(),
                epochs: vec![epoch],
                ..ExperimentTotals::default()
            },
            came: 0,
            tried: 0,
        }
    }

    /// Adds the next user of the experiment, assigned as real users are.
    fn one_comes(&mut self) {
        let group = loop {
            self.tried += 1;
            let user = format!("{}{}", self.name, self.tried);
            let inside = UserId::new(user.as_bytes());
            if let Some(group) = inside.and_then(|user| self.experiment.split.assign(user)) {
                break group;
            }
        };
        self.came += 1;
        let epoch = &mut self.totals.epochs[0];
        let name = &*self.experiment.groups[group.0].name;
        let Some(totals) = epoch.groups.get_mut(name) else {
            return;
        };
        totals.users += 1;
        totals.requests += 1;
        for counted in &self.counted {
            let (count, sum, base) = counted.of_user(group.0, &mut self.rng);
            if count > 0 || base > 0 {
                let metric = totals.metrics.entry(counted.name.clone()).or_default();
                let user = UserMetric {
                    count,
                    sum,
                    base,
                    cap: counted.cap,
                    before: None,
                };
                add(metric, &user);
            }
        }
    }
}

fn counted(game: &Game<'_>) -> Vec<Counted> {
    let Game {
        plan,
        experiment,
        rate,
        ..
    } = *game;
    let groups = experiment.groups.len();
    let metrics = experiment.metrics.iter().enumerate();
    let metrics = metrics.map(|(place, &index)| {
        let metric = plan.metric(index);
        let lift = planned_lift(metric);
        // The first metric decides; the others stay unchanged.
        let lifted = |group: usize| {
            if game.with_effect && place == 0 && group != experiment.control.0 {
                lift
            } else {
                1.0
            }
        };
        let by_rate = metric.kind != MetricKind::Mean;
        let of = |yes: bool, group: usize| if yes { lifted(group) } else { 1.0 };
        Counted {
            name: metric.name.to_string(),
            kind: metric.kind,
            scale: 10f64.powi(i32::from(metric.scale)),
            cap: metric.cap,
            rate: (0..groups).map(|group| rate * of(by_rate, group)).collect(),
            factor: (0..groups).map(|group| of(!by_rate, group)).collect(),
        }
    });
    let harm = experiment.guardrails.iter();
    let harm = harm.filter(|guardrail| !matches!(guardrail.what, GuardrailTarget::Metric(_)));
    let harm = harm.map(|guardrail| Counted {
        name: guardrail.counted_name(&plan.metrics).into_owned(),
        kind: MetricKind::Conversion,
        scale: 1.0,
        cap: None,
        rate: vec![HARM_RATE; groups],
        factor: vec![1.0; groups],
    });
    metrics.chain(harm).collect()
}

impl Counted {
    /// Draws one user: events, the sum of their values, and the base of a ratio.
    fn of_user(&self, group: usize, rng: &mut Rng) -> (u64, i64, i64) {
        let does = rng.f64() < self.rate[group];
        let stored = |value: f64| (value * self.scale).round() as i64;
        match self.kind {
            MetricKind::Conversion => (u64::from(does), 0, 0),
            MetricKind::Latency => (0, 0, 0),
            MetricKind::Count if does => (1 + poisson(MORE_EVENTS, rng), 0, 0),
            MetricKind::Mean if does => {
                // The mean is 20 before the lift.
                let log = VALUE_SIGMA * normal(rng) - 0.5 * VALUE_SIGMA * VALUE_SIGMA;
                (1, stored(20.0 * log.exp() * self.factor[group]), 0)
            }
            MetricKind::Count | MetricKind::Mean => (0, 0, 0),
            MetricKind::Ratio => {
                let sum = if does { stored(1.0) } else { 0 };
                (u64::from(does), sum, 1 + poisson(MORE_REQUESTS, rng) as i64)
            }
        }
    }
}

/// Adds a user as stores do.
fn add(metric: &mut MetricTotals, user: &UserMetric) {
    let (sum, base) = (i128::from(user.counted()), i128::from(user.base));
    let (count, cut) = (user.count, user.cut());
    let wide_count = i128::from(count);
    metric.capped += u64::from(cut > 0);
    metric.cut += i128::from(cut);
    metric.converted += u64::from(count > 0);
    metric.count += count;
    metric.count_sq += wide_count * wide_count;
    metric.sum += sum;
    metric.sum_sq += sum * sum;
    metric.base += base;
    metric.base_sq += base * base;
    metric.cross += sum * base;
}

/// Draws a normal number by the method of Box and Muller, Ann. Math. Statist. 1958.
fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

/// Draws a Poisson number by Knuth's product of uniforms, for small means.
fn poisson(mean: f64, rng: &mut Rng) -> u64 {
    let floor = (-mean).exp();
    let mut product = rng.f64();
    let mut count = 0;
    while product > floor {
        product *= rng.f64();
        count += 1;
    }
    count
}
