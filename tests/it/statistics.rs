//! The statistics against known answers, through the tool that people use, and properties that
//! hold for any data, through the front door.

use proptest::prelude::*;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};
use watershed::admin::verdict_reason;
use watershed::stats::{
    Epoch, Goal, GroupInput, History, Judgement, Kind, MetricInput, Question, Role, State, Totals,
    judge,
};

const KNOWN: &str = include_str!("../vectors/statistics/known.jsonl");

#[test]
fn known_answers_are_reproduced() {
    let mut output = Vec::new();
    watershed::cli::stats::run(KNOWN.as_bytes(), &mut output).unwrap();
    let output = String::from_utf8(output).unwrap();
    assert_eq!(output.lines().count(), KNOWN.lines().count());
    let mut faults = Vec::new();
    for (known, answer) in KNOWN.lines().zip(output.lines()) {
        let known: Value = serde_json::from_str(known).unwrap();
        let answer: Value = serde_json::from_str(answer).unwrap();
        assert_eq!(known["id"], answer["id"]);
        let id = known["id"].as_str().unwrap();
        let check = Check { known: &known };
        match answer.get("got") {
            Some(got) => check.value(id, &known["expected"], got, &known["tol"], &mut faults),
            None => faults.push(format!("{id}: {answer}")),
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

struct Check<'a> {
    known: &'a Value,
}

impl Check<'_> {
    fn value(
        &self,
        at: &str,
        expected: &Value,
        got: &Value,
        tol: &Value,
        faults: &mut Vec<String>,
    ) {
        match expected {
            Value::Object(fields) => {
                for (name, expected) in fields {
                    let own = self.known["tol_fields"].get(name);
                    let at = format!("{at}.{name}");
                    match got.get(name) {
                        Some(got) => self.value(&at, expected, got, own.unwrap_or(tol), faults),
                        None => faults.push(format!("{at}: is missing")),
                    }
                }
            }
            Value::Array(items) => {
                let got = got.as_array().map_or(&[][..], Vec::as_slice);
                if items.len() != got.len() {
                    faults.push(format!("{at}: {} items, not {}", got.len(), items.len()));
                }
                for (place, (expected, got)) in items.iter().zip(got).enumerate() {
                    self.value(&format!("{at}[{place}]"), expected, got, tol, faults);
                }
            }
            Value::Number(number) => {
                let expected = number.as_f64().unwrap();
                let near = |got: f64| {
                    let (abs, rel) = (tol["abs"].as_f64(), tol["rel"].as_f64());
                    (got - expected).abs() <= abs.unwrap() + rel.unwrap() * expected.abs()
                };
                if !got.as_f64().is_some_and(near) {
                    faults.push(format!("{at}: {got}, not {expected:?}"));
                }
            }
            Value::Null | Value::Bool(_) | Value::String(_) => {
                if expected != got {
                    faults.push(format!("{at}: {got}, not {expected}"));
                }
            }
        }
    }
}

#[test]
fn stats_command_writes_to_standard_output() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"))
        .arg("stats")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = "{\"id\": 7, \"family\": \"srm_chi2\", \"inputs\": {\"users\": [5, 5], \"weights\": [1, 1]}}\n{";
    // Dropped at once: the command then sees the end of its input.
    command
        .stdin
        .take()
        .unwrap()
        .write_all(asked.as_bytes())
        .unwrap();
    let output = command.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "{\"id\":7,\"got\":{\"chi2\":0.0,\"df\":1,\"p\":1.0}}"
    );
    assert!(lines[1].starts_with("{\"id\":null,\"error\":\"not a question"));
    assert_eq!(lines.len(), 2);
}

/// An experiment with one epoch for each share of the second group.
fn question(metrics: Vec<MetricInput>, shares: &[f64]) -> Question {
    let group = |name: &str, is_control| GroupInput {
        name: name.to_owned(),
        is_control,
    };
    let users = |place: usize, group: usize| {
        let totals = metrics.first().map(|metric| metric.totals[place][group]);
        totals.unwrap_or_default().users
    };
    let epochs = shares.iter().enumerate().map(|(place, share)| Epoch {
        shares: vec![1.0 - share, *share],
        users: vec![users(place, 0), users(place, 1)],
    });
    Question {
        groups: vec![group("control", true), group("experiment", false)],
        epochs: epochs.collect(),
        metrics,
        started_at_ms: Some(0),
        now_ms: 8 * 24 * 3_600_000,
        ..Question::default()
    }
}

fn metric(kind: Kind, totals: Vec<Vec<Totals>>) -> MetricInput {
    MetricInput {
        name: "purchase".to_owned(),
        kind,
        goal: Goal::Increase,
        role: Role::Primary,
        baseline: None,
        detect: 0.1,
        margin: 0.01,
        scale: 2,
        totals,
        samples: None,
        history: Vec::new(),
    }
}

fn converted(users: u64, converted: u64) -> Totals {
    Totals {
        users,
        converted,
        ..Totals::default()
    }
}

/// Nothing that is said is NaN or infinite, and what must lie from 0 to 1 does.
fn is_sound(judgement: &Judgement) -> Result<(), TestCaseError> {
    let text = format!("{judgement:?}");
    let mut words = text.split(|c: char| !c.is_alphanumeric());
    prop_assert!(words.all(|word| word != "NaN" && word != "inf"), "{}", text);
    for group in judgement.metrics.iter().flat_map(|metric| &metric.groups) {
        for share in [
            group.p_value,
            group.adjusted_p,
            group.chance_to_beat_control,
        ] {
            prop_assert!(
                share.is_none_or(|share| (0.0..=1.0).contains(&share)),
                "{}",
                text
            );
        }
        let ordered = |low: Option<f64>, high: Option<f64>| {
            low.zip(high).is_none_or(|(low, high)| low <= high)
        };
        prop_assert!(ordered(group.interval.low, group.interval.high), "{}", text);
        if let Some(lift) = group.lift {
            let (absolute, relative) = (lift.absolute_interval, lift.relative_interval);
            prop_assert!(ordered(absolute.low, absolute.high), "{}", text);
            prop_assert!(ordered(relative.low, relative.high), "{}", text);
        }
    }
    Ok(())
}

fn counts(users_max: u64) -> impl Strategy<Value = Totals> {
    (0..=users_max).prop_flat_map(|users| {
        (0..=users).prop_flat_map(move |converted| {
            // Values of users who converted, as sums that some values do have.
            (0..=1_000_000_i128).prop_map(move |value| {
                let (n, half) = (i128::from(converted), i128::from(converted / 2));
                Totals {
                    users,
                    converted,
                    count: converted + converted / 2,
                    count_sq: n + 3 * half,
                    sum: n * value + half,
                    sum_sq: n * value * value + half * (2 * value + 1),
                    base: i128::from(users) + n,
                    base_sq: i128::from(users) + 3 * n,
                    cross: 2 * (n * value + half),
                    ..Totals::default()
                }
            })
        })
    })
}

fn kinds() -> impl Strategy<Value = (Kind, Option<f64>)> {
    prop::sample::select(vec![
        (Kind::Conversion, None),
        (Kind::Count, None),
        (Kind::Mean, None),
        (Kind::Mean, Some(12.5)),
        (Kind::Ratio, None),
    ])
}

fn sizes() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![0_u64, 1, 3, 60, 5_000, 1_000_000, 1_000_000_000])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn null_is_never_nan(
        (kind, baseline) in kinds(),
        role in prop::sample::select(vec![
            Role::Primary,
            Role::Secondary,
            Role::Guardrail { max_increase: 0.1 },
        ]),
        totals in sizes().prop_flat_map(|users| prop::collection::vec(counts(users), 4)),
        shares in prop::sample::select(vec![[0.5, 0.5], [0.01, 0.5], [0.1, 0.9], [0.0, 0.2]]),
    ) {
        let totals = vec![totals[..2].to_vec(), totals[2..].to_vec()];
        let metric = MetricInput { baseline, role, ..metric(kind, totals) };
        let question = question(vec![metric], &shares);
        let mut judged = judge(&question);
        // Users in a group that had no weight: the evidence is infinite there, and p is 0.
        prop_assert!(judged.sample_ratio.p_value.is_none_or(|p| (0.0..=1.0).contains(&p)));
        judged.sample_ratio = Default::default();
        is_sound(&judged)?;
        prop_assert_eq!(judge(&question).metrics, judged.metrics);
    }

    #[test]
    fn test_and_interval_agree(
        (kind, baseline) in kinds(),
        users in prop::sample::select(vec![60_u64, 5_000, 1_000_000]),
        a in 0.0..1.0_f64,
        lift in -0.3..0.3_f64,
        shares in prop::sample::select(vec![[0.5, 0.5], [0.02, 0.5]]),
    ) {
        let of = |rate: f64| {
            let x = ((users as f64 * rate) as u64).min(users);
            Totals {
                users,
                converted: x,
                count: x,
                count_sq: i128::from(x),
                sum: 1300 * i128::from(x),
                sum_sq: 1300 * 1300 * i128::from(x),
                base: i128::from(users) * 2,
                base_sq: i128::from(users) * 4,
                cross: 2600 * i128::from(x),
                ..Totals::default()
            }
        };
        let totals = vec![vec![of(a), of(a * (1.0 + lift))]; 2];
        let metric = MetricInput { baseline, ..metric(kind, totals) };
        let judged = judge(&question(vec![metric], &shares));
        let group = &judged.metrics[0].groups[1];
        let lift = group.lift.unwrap();
        let excludes = lift.decisive().excludes_zero();
        prop_assert_eq!(group.significant, excludes, "{:?}", group);
        // Where sizes and weights say different things, the interval is wider than the test.
        if !judged.sample_ratio.mismatch {
            prop_assert_eq!(group.p_value.unwrap() <= 0.05, excludes, "{:?}", group);
        }
        prop_assert!(group.p_value.unwrap() <= 0.05 || !excludes, "{:?}", group);
        // The lift shown is in its interval, and the ratio of the rates shown.
        let interval = lift.relative_interval;
        if let Some(relative) = lift.relative {
            prop_assert!(interval.low.is_none_or(|low| low <= relative + 1e-9), "{:?}", lift);
            prop_assert!(interval.high.is_none_or(|high| relative <= high + 1e-9), "{:?}", lift);
            let rate = |group: usize| judged.metrics[0].groups[group].rate.unwrap();
            let (control, own) = lift.averaged.unwrap_or((rate(0), rate(1)));
            prop_assert!((own / control - 1.0 - relative).abs() < 1e-9, "{:?}", lift);
        }
    }

    #[test]
    fn swapped_groups_swap_the_result(
        x in prop::collection::vec(10_u64..900, 4),
    ) {
        let totals = vec![
            vec![converted(1000, x[0]), converted(1000, x[1])],
            vec![converted(3000, x[2]), converted(1000, x[3])],
        ];
        let there = metric(Kind::Conversion, totals);
        let mut back = there.clone();
        back.totals.iter_mut().for_each(|totals| totals.reverse());
        let there = judge(&question(vec![there], &[0.5, 0.25]));
        let back = judge(&question(vec![back], &[0.5, 0.75]));
        let (there, back) = (&there.metrics[0].groups[1], &back.metrics[0].groups[1]);
        prop_assert!((there.ln_e.unwrap() - back.ln_e.unwrap()).abs() < 1e-7);
        let ratio = |end: Option<f64>| end.map(|lift| (1.0 + lift).ln());
        let (a, b) = (there.lift.unwrap().relative_interval, back.lift.unwrap().relative_interval);
        for (low, high) in [(ratio(a.low), ratio(b.high)), (ratio(b.low), ratio(a.high))] {
            prop_assert!((low.unwrap() + high.unwrap()).abs() < 1e-7, "{:?} {:?}", a, b);
        }
        let (there, back) = (there.lift.unwrap().absolute, back.lift.unwrap().absolute);
        prop_assert!((there.unwrap() + back.unwrap()).abs() < 1e-12);
    }

    #[test]
    fn lowest_p_never_rises_and_p_is_of_now(
        steps in prop::collection::vec((0_u64..60, 0_u64..60), 1..30),
    ) {
        let (mut a, mut b) = (0, 0);
        let (mut previous, mut ratio) = (History::default(), None);
        for (place, (more_a, more_b)) in steps.into_iter().enumerate() {
            (a, b) = (a + more_a, b + more_b);
            let users = 200 * (place as u64 + 1);
            let totals = vec![vec![converted(users, a), converted(users, b)]];
            let metric = MetricInput {
                history: vec![History::default(), previous],
                ..metric(Kind::Conversion, totals)
            };
            let mut question = question(vec![metric], &[0.5]);
            question.previous_sample_ratio_p = ratio;
            let judged = judge(&question);
            let group = &judged.metrics[0].groups[1];
            let p = group.p_value.unwrap();
            prop_assert!((p - (-group.ln_e.unwrap()).exp().min(1.0)).abs() < 1e-15);
            let (lowest, before) = (group.history.lowest.unwrap().p, previous.lowest);
            prop_assert_eq!(lowest, before.map_or(p, |before| before.p.min(p)));
            previous = group.history;
            ratio = judged.sample_ratio.p_value;
        }
    }
}

/// Three groups, one metric, even shares.
fn three(totals: [(u64, u64); 3]) -> Question {
    let row = totals.map(|(users, x)| converted(users, x)).to_vec();
    let mut question = question(vec![metric(Kind::Conversion, vec![row])], &[0.5]);
    question.groups.push(GroupInput {
        name: "other".to_owned(),
        is_control: false,
    });
    question.epochs[0] = Epoch {
        shares: vec![1.0 / 3.0; 3],
        users: totals.map(|(users, _)| users).to_vec(),
    };
    question
}

#[test]
fn several_groups_are_corrected() {
    // One group alone would be shown at 5 %; of two it is not, until the other one is.
    let alone = question(
        vec![metric(
            Kind::Conversion,
            vec![vec![converted(40_000, 2000), converted(40_000, 2200)]],
        )],
        &[0.5],
    );
    let alone = judge(&alone);
    assert!(alone.metrics[0].groups[1].significant, "{alone:?}");
    let both = judge(&three([(40_000, 2000), (40_000, 2200), (40_000, 2000)]));
    assert!(!both.metrics[0].groups[1].significant, "{both:?}");
    assert_eq!(both.verdict.state, State::Collecting);
    let helped = judge(&three([(40_000, 2000), (40_000, 2200), (40_000, 2500)]));
    assert!(helped.metrics[0].groups[1].significant, "{helped:?}");
    assert_eq!(
        (helped.verdict.state, helped.verdict.group),
        (State::Winner, Some(2))
    );
}

#[test]
fn secondary_metrics_are_corrected_together() {
    let pair = |b: u64| vec![vec![converted(40_000, 2000), converted(40_000, b)]];
    let secondary = |b: u64| MetricInput {
        role: Role::Secondary,
        ..metric(Kind::Conversion, pair(b))
    };
    let primary = metric(Kind::Conversion, pair(2010));
    let many: Vec<MetricInput> = [2212, 2000, 2000, 2000].map(secondary).to_vec();
    let judged = judge(&question([vec![primary.clone()], many].concat(), &[0.5]));
    assert!(!judged.metrics[1].groups[1].significant, "{judged:?}");
    let one = judge(&question(vec![primary, secondary(2212)], &[0.5]));
    assert!(one.metrics[1].groups[1].significant, "{one:?}");
    for group in [&judged, &one].map(|judged| &judged.metrics[1].groups[1]) {
        let excludes = group.lift.unwrap().relative_interval.excludes_zero();
        assert_eq!(excludes, group.significant);
    }
}

#[test]
fn harmful_group_is_no_winner() {
    let purchase = metric(
        Kind::Conversion,
        vec![vec![converted(20_000, 2000), converted(20_000, 2500)]],
    );
    let errors = |a: u64, b: u64| MetricInput {
        name: "errors".to_owned(),
        role: Role::Guardrail { max_increase: 0.1 },
        ..metric(
            Kind::Conversion,
            vec![vec![converted(20_000, a), converted(20_000, b)]],
        )
    };
    let sound = judge(&question(vec![purchase.clone(), errors(100, 104)], &[0.5]));
    assert_eq!(sound.verdict.state, State::Winner, "{sound:?}");
    let mut harm = question(vec![purchase, errors(100, 200)], &[0.5]);
    harm.now_ms = 60_000;
    let reason = verdict_reason(&harm, &judge(&harm));
    let harm = judge(&harm);
    assert_eq!(
        (harm.verdict.state, harm.verdict.group),
        (State::Loser, Some(1))
    );
    assert!(
        reason.starts_with("experiment does harm: errors at least 33.6 % higher than with control, and 10 % was tolerated"),
        "{reason}"
    );
    let guardrail = harm.metrics[1].groups[1].guardrail.unwrap();
    assert!(guardrail.breached && !guardrail.dead && guardrail.at_least.unwrap() > 0.1);
    let dead = judge(&question(
        vec![MetricInput {
            name: "errors".to_owned(),
            role: Role::Guardrail { max_increase: 0.1 },
            ..metric(
                Kind::Conversion,
                vec![vec![converted(60, 1), converted(60, 40)]],
            )
        }],
        &[0.5],
    ));
    assert!(dead.metrics[0].groups[1].guardrail.unwrap().dead);
    assert_eq!(dead.verdict.state, State::Loser);
}

#[test]
fn ramp_with_a_drifting_rate_shows_no_effect() {
    let ramp = || {
        vec![
            vec![converted(99_000, 1980), converted(1_000, 20)],
            vec![converted(50_000, 5_000), converted(50_000, 5_000)],
        ]
    };
    let judged = judge(&question(
        vec![metric(Kind::Conversion, ramp())],
        &[0.01, 0.5],
    ));
    let group = &judged.metrics[0].groups[1];
    assert_eq!(group.p_value, Some(1.0), "{group:?}");
    let lift = group.lift.unwrap();
    assert!(lift.absolute.unwrap().abs() < 1e-12 && lift.relative.unwrap().abs() < 1e-12);
    // Rates of all users would say: three times better. Those that are compared are shown beside.
    assert!(group.rate.unwrap() > 2.0 * judged.metrics[0].groups[0].rate.unwrap());
    let (control, own) = lift.averaged.unwrap();
    assert!((control - own).abs() < 1e-12, "{lift:?}");
    assert!((group.chance_to_beat_control.unwrap() - 0.5).abs() < 1e-6);
}

/// One metric of two groups at 50/50.
fn shares(control: (u64, u64), own: (u64, u64)) -> Question {
    let totals = [control, own]
        .map(|(users, x)| converted(users, x))
        .to_vec();
    question(vec![metric(Kind::Conversion, vec![totals])], &[0.5])
}

#[test]
fn small_samples_with_large_effects_need_no_baseline() {
    for (control, own, p_max) in [
        ((300, 0), (300, 30), 0.001),
        ((300, 10), (300, 40), 0.01),
        ((2013, 2013), (1987, 1789), 1e-6),
        ((10_000, 9500), (10_000, 9000), 1e-6),
    ] {
        let judged = judge(&shares(control, own));
        let group = &judged.metrics[0].groups[1];
        assert!(group.p_value.unwrap() < p_max, "{group:?}");
        let swapped = judge(&shares(own, control));
        let p = swapped.metrics[0].groups[1].p_value.unwrap();
        assert!(
            (p / group.p_value.unwrap() - 1.0).abs() < 1e-6,
            "{p} {group:?}"
        );
        let lift = group.lift.unwrap();
        let ends = lift.relative_interval;
        assert_eq!(ends.high.is_some(), control.1 > 0, "{lift:?}");
        assert!(lift.decisive().excludes_zero() && ends.low.is_some());
    }
    // The fixed interval of the last ones is ± 0.75 points of 95 %.
    let lift = judge(&shares((10_000, 9500), (10_000, 9000))).metrics[0].groups[1].lift;
    let ends = lift.unwrap().relative_interval;
    let fixed = 2.0 * 1.96 * (0.05 / 9500.0 + 0.1 / 9000.0_f64).sqrt() * (9.0 / 9.5);
    assert!(
        ends.high.unwrap() - ends.low.unwrap() < 2.5 * fixed,
        "{ends:?}"
    );
}

/// Sums of `users` values around `mean`: half of them a spread below, half above.
fn around(users: u64, mean: i128, spread: i128) -> Totals {
    let n = i128::from(users);
    Totals {
        users,
        converted: users,
        count: users,
        count_sq: n,
        sum: n * mean,
        sum_sq: n * (mean * mean + spread * spread),
        ..Totals::default()
    }
}

#[test]
fn negative_means_are_compared_by_their_difference() {
    // Losses of 2.00 and of 1.50 per user, ± 10.00.
    let pair = vec![vec![around(40_000, -200, 1000), around(40_000, -150, 1000)]];
    let asked = question(vec![metric(Kind::Mean, pair)], &[0.5]);
    let judged = judge(&asked);
    let group = &judged.metrics[0].groups[1];
    let lift = group.lift.unwrap();
    assert!(lift.is_absolute && lift.relative == Some(0.25), "{lift:?}");
    assert_eq!(judged.verdict.state, State::Winner, "{:?}", judged.verdict);
    let reason = verdict_reason(&asked, &judged);
    assert!(
        reason.contains(" higher per user than with control"),
        "{reason}"
    );
    assert!(!reason.contains("% higher"), "{reason}");
    // Of a mean around nothing there is no percentage.
    let pair = vec![vec![around(40_000, 0, 1000), around(40_000, 50, 1000)]];
    let judged = judge(&question(vec![metric(Kind::Mean, pair)], &[0.5]));
    let lift = judged.metrics[0].groups[1].lift.unwrap();
    assert_eq!((lift.relative, lift.absolute), (None, Some(0.5)));
    assert_eq!(judged.verdict.state, State::Winner, "{:?}", judged.verdict);
}

#[test]
fn decrease_can_be_the_goal() {
    let mut less = metric(
        Kind::Count,
        vec![vec![
            Totals {
                count: 6000,
                count_sq: 9000,
                ..converted(20_000, 5000)
            },
            Totals {
                count: 5000,
                count_sq: 7500,
                ..converted(20_000, 4200)
            },
        ]],
    );
    less.goal = Goal::Decrease;
    less.name = "tickets".to_owned();
    let asked = question(vec![less], &[0.5]);
    let judged = judge(&asked);
    let reason = verdict_reason(&asked, &judged);
    let group = &judged.metrics[0].groups[1];
    assert_eq!(
        (judged.verdict.state, judged.verdict.group),
        (State::Winner, Some(1))
    );
    assert!(reason.starts_with("tickets with experiment: "), "{reason}");
    assert!(group.chance_to_beat_control.unwrap() > 0.999 && group.expected_loss.unwrap() < 1e-6);
}

#[test]
fn fixed_horizon_is_returned_on_request() {
    let conversion = metric(
        Kind::Conversion,
        vec![vec![converted(80, 48), converted(70, 56)]],
    );
    let view = watershed::stats::fixed::view(&question(vec![conversion], &[0.5]));
    assert_eq!(view[0][0], None);
    // Newcombe 1998, table II, method 10.
    let interval = view[0][1].unwrap().absolute.interval;
    assert!(
        (interval.low.unwrap() - 0.0524).abs() < 6e-5,
        "{interval:?}"
    );
    assert!(
        (interval.high.unwrap() - 0.3339).abs() < 6e-5,
        "{interval:?}"
    );
}
