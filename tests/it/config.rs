//! What people write wrongly, and what they are told.

use crate::support::proxy::BINARY;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use watershed::config::plan::{self, Balance, Plan, StoreConfig};
use watershed::config::{self, declaration};
use watershed::experiment::guardrail::GuardrailTarget;
use watershed::experiment::metric::{
    MetricGoal, MetricKind, MetricRole, RatioBase, Trigger, VALUE_MAX,
};
use watershed::experiment::{MetricIndex, UpstreamIndex};

fn parse(text: &str) -> Result<Plan, config::InvalidConfig> {
    let environment = |name: &str| (name == "SECRET").then(|| "from the environment".to_owned());
    config::parse(text, Path::new("routes.yaml"), &environment)
}

/// The sound file that each case below breaks in one place.
const SOUND: &str = "\
listen: 0.0.0.0:8080
upstreams:
  current:  http://127.0.0.1:3001
  redesign: http://127.0.0.1:3002
experiments:
  new-site: { control: current, experiment: redesign, percent: 10 }
metrics:
  purchase: POST /checkout -> 2xx
";

#[track_caller]
fn check(text: &str, says: &str) {
    let unsound = match parse(text) {
        Ok(_) => panic!("it is valid:\n{text}"),
        Err(unsound) => unsound.to_string(),
    };
    assert_eq!(unsound.trim_end(), says.trim(), "\n{unsound}");
}

/// `SOUND` with one thing replaced.
#[track_caller]
fn broken(what: &str, by: &str, says: &str) {
    let text = SOUND.replacen(what, by, 1);
    assert_ne!(text, SOUND, "{what:?} does not stand there");
    check(&text, says);
}

/// `SOUND` with lines added at its end, which are lines 9 and on.
#[track_caller]
fn with(lines: &str, says: &str) {
    check(&format!("{SOUND}{lines}"), says);
}

#[test]
fn horizon_must_be_a_time_or_a_number_of_users() {
    use watershed::experiment::Horizon;
    let file = |keys: &str| SOUND.replacen("percent: 10", &format!("percent: 10, {keys}"), 1);
    let sound = |keys: &str| parse(&file(keys)).unwrap().experiments[0].horizon;
    assert_eq!(sound("min_duration: 7d"), None);
    assert_eq!(sound("horizon: 20000"), Some(Horizon::Users(20_000)));
    assert_eq!(sound("horizon: 14d"), Some(Horizon::Time(14 * 86_400_000)));
    let told = |keys: &str| parse(&file(keys)).expect_err(keys).to_string();
    for horizon in ["-14d", "0", "99", "2.5", "0s", "soon", "2020-01-01"] {
        let told = told(&format!("horizon: {horizon}"));
        assert!(told.contains("horizon: "), "{told}");
        assert!(told.contains("a number of users of 100 or more"), "{told}");
    }
    let latency = SOUND
        .replacen("percent: 10", "percent: 10, horizon: 14d", 1)
        .replacen("POST /checkout -> 2xx", "{ latency: p95 }", 1);
    let latency = parse(&latency).unwrap_err().to_string();
    assert!(latency.contains("purchase is a latency"), "{latency}");
    let early = told("horizon: 3d");
    assert!(
        early.contains("it ends before the earliest verdict (min_duration: 7d)"),
        "{early}"
    );
}

#[test]
fn label_must_not_stand_for_another_group() {
    let file = |first: &str, second: &str| {
        format!(
            "upstreams: {{ a: \"http://127.0.0.1:1\" }}\nmetrics: {{ purchase: {{ event: e }} }}\n\
             experiments: {{ shop: {{ groups: {{ control: {{ weight: 1, upstream: a, label: {first} }}, b: {{ weight: 1, upstream: a, label: {second} }} }} }} }}\n"
        )
    };
    assert!(parse(&file("Old", "control-2")).is_ok());
    assert!(parse(&file("control", "b")).is_ok());
    for (first, second, group) in [
        ("b", "New", "b"),
        ("Old", "control", "control"),
        ("New", "\" New\"", "control"),
    ] {
        let told = parse(&file(first, second)).expect_err(first).to_string();
        let expected = format!("already stands for the group {group}");
        assert!(told.contains(&expected), "{told}");
    }
}

#[test]
fn metric_cap_must_be_positive_and_of_a_mean() {
    let file = |keys: &str| {
        let metric = format!("{{ event: e, value: v, {keys} }}");
        SOUND.replacen("POST /checkout -> 2xx", &metric, 1)
    };
    let sound = |keys: &str| parse(&file(keys)).unwrap().metrics[0].cap;
    assert_eq!(sound("kind: mean"), None);
    assert_eq!(sound("kind: mean, cap: 500"), Some(50_000));
    assert_eq!(sound("kind: mean, cap: 0.5, scale: 1"), Some(5));
    let told = |keys: &str| parse(&file(keys)).expect_err(keys).to_string();
    for cap in ["0", "-500", "none", ".nan", "10000000000.01"] {
        let told = told(&format!("kind: mean, cap: {cap}"));
        assert!(told.starts_with("error: routes.yaml:8:"), "{told}");
        assert!(told.contains("metrics.purchase.cap: "), "{told}");
        assert!(
            told.contains("a number above 0 and at most 10000000000, such as 500"),
            "{told}"
        );
    }
    for kind in ["count", "conversion", "ratio, per: requests"] {
        let told = told(&format!("kind: {kind}, cap: 500"));
        let why =
            "metrics.purchase.cap: a cap on the sum of a user's values, and the metric is no mean";
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn covariate_must_be_at_most_90_days_and_of_a_mean() {
    let file = |metric: &str| SOUND.replacen("POST /checkout -> 2xx", metric, 1);
    let sound = |metric: &str| parse(&file(metric)).unwrap().metrics[0].covariate_ms;
    let mean = |time: &str| format!("{{ event: e, value: v, kind: mean, covariate: {time} }}");
    assert_eq!(sound("{ event: e, kind: mean }"), None);
    assert_eq!(sound(&mean("14d")), Some(14 * 86_400_000));
    assert_eq!(
        sound("{ event: e, kind: mean, covariate: 90d }"),
        Some(90 * 86_400_000)
    );
    let told = |metric: &str| parse(&file(metric)).expect_err(metric).to_string();
    for (time, why) in [
        ("-14d", "a time with its unit"),
        ("two weeks", "a time with its unit"),
        ("91d", "write a time from 1h to 90d, such as 14d"),
        ("0s", "write a time from 1h to 90d, such as 14d"),
    ] {
        let told = told(&mean(time));
        assert!(told.starts_with("error: routes.yaml:8:"), "{told}");
        assert!(told.contains("metrics.purchase.covariate: "), "{told}");
        assert!(told.contains(why), "{told}");
    }
    for kind in ["count", "conversion", "ratio, per: requests"] {
        let told = told(&format!("{{ event: e, kind: {kind}, covariate: 14d }}"));
        assert!(
            told.contains("a covariate adjusts the mean of users' sums, and the metric is no mean"),
            "{told}"
        );
    }
    let latency = told("{ latency: p95, covariate: 14d }");
    assert!(
        latency.contains("a latency has no `covariate`"),
        "{latency}"
    );
}

#[test]
fn covariate_of_an_experiment_applies_to_its_means_without_one() {
    let file = |first: &str, second: &str| {
        format!(
            "upstreams: {{ a: http://127.0.0.1:1, b: http://127.0.0.1:2 }}\nexperiments:\n  one: {{ control: a, experiment: b, metrics: [ x, y, z ]{first} }}\n  two: {{ match: /two/**, control: a, experiment: b, metrics: [ z, buys ]{second} }}\nmetrics:\n  x: {{ event: x, kind: mean }}\n  y: {{ event: y, kind: mean, covariate: 1h }}\n  z: {{ event: z, kind: mean }}\n  buys: {{ event: x }}\n"
        )
    };
    let days = |first: &str, second: &str| {
        let plan = parse(&file(first, second)).unwrap();
        let metrics = plan.metrics.iter();
        metrics
            .map(|it| it.covariate_ms.map(|ms| ms / 3_600_000))
            .collect::<Vec<_>>()
    };
    assert_eq!(days("", ""), [None, Some(1), None, None]);
    assert_eq!(
        days(", covariate: 2d", ", covariate: 3d"),
        [Some(48), Some(1), Some(72), None]
    );
    let told = parse(&file(", covariate: 91d", ", covariate: 14"))
        .expect_err("")
        .to_string();
    assert!(told.contains("experiments.one.covariate: "), "{told}");
    assert!(told.contains("experiments.two.covariate: "), "{told}");
    let none = file("", ", covariate: 14d").replace("[ z, buys ]", "[ buys ]");
    let told = parse(&none).expect_err("").to_string();
    assert!(
        told.contains("no metric of this experiment is a mean"),
        "{told}"
    );
}

#[test]
fn a_latency_has_a_quantile_and_no_events() {
    let metric = |text: &str| {
        let file = SOUND.replacen("POST /checkout -> 2xx", text, 1);
        parse(&file).map(|plan| plan.metrics[0].clone())
    };
    let sound = metric("{ latency: p95 }").unwrap();
    assert_eq!(
        (sound.kind, sound.goal),
        (MetricKind::Latency, MetricGoal::Decrease)
    );
    let sound = metric("{ latency: p50, goal: increase, detect: 20% }").unwrap();
    assert_eq!((sound.goal, sound.detect), (MetricGoal::Increase, 0.2));
    for (wrong, said) in [
        ("{ latency: p90 }", "one of: p50, p95, p99"),
        ("{ latency: p95, event: e }", "a latency has no `event`"),
        ("{ latency: p95, within: 7d }", "a latency has no `within`"),
    ] {
        let unsound = metric(wrong).unwrap_err().to_string();
        assert!(unsound.contains(said), "{unsound}");
    }
}

#[test]
fn segments_name_their_values() {
    let segments = |text: &str| {
        let plan = parse(&format!("{SOUND}segments: {text}\n"));
        plan.map(|plan| plan.segments.len())
            .map_err(|unsound| unsound.to_string())
    };
    let all = "{ d: device, r: returning, h: { header: X-Plan, values: [a, b] }, c: { cookie: c, values: [a] }, q: { query: q, values: [1] } }";
    assert_eq!(segments(all), Ok(5));
    let many: Vec<String> = (0..1000).map(|number| format!("v{number}")).collect();
    let many = format!(
        "{{ h: {{ header: X-Plan, values: [{}] }} }}",
        many.join(", ")
    );
    let nine: Vec<String> = (0..9).map(|number| format!("s{number}: device")).collect();
    for (wrong, said) in [
        ("{ d: planet }", "device, returning, or"),
        ("{ h: { header: X-Plan } }", "values"),
        ("{ h: { header: X-Plan, values: [] } }", "0 values"),
        (&*many, "1000 values"),
        (
            "{ h: { header: X-Plan, values: [\"a b\"] } }",
            "1 to 12 values of letters",
        ),
        (
            "{ h: { header: X-Plan, cookie: c, values: [a] } }",
            "2 of header, cookie and query",
        ),
        (
            "{ h: { header: \"X Plan\", values: [a] } }",
            "the name of a header",
        ),
        (&format!("{{ {} }}", nine.join(", ")), "9 segments"),
    ] {
        let unsound = segments(wrong).unwrap_err();
        assert!(unsound.contains(said), "{wrong}: {unsound}");
    }
}

#[test]
fn metric_max_must_be_storable() {
    let file = |max: &str| {
        let metric = format!("{{ event: e, value: v, kind: mean, {max} }}");
        SOUND.replacen("POST /checkout -> 2xx", &metric, 1)
    };
    let sound = |max: &str| parse(&file(max)).unwrap().metrics[0].max;
    assert_eq!(sound("scale: 2"), None);
    assert_eq!(sound("max: 10000"), Some(1_000_000));
    assert_eq!(sound("max: 10000, scale: 0"), Some(10_000));
    assert_eq!(sound("max: 0.005, scale: 3"), Some(5));
    assert_eq!(sound("max: 10000000000"), Some(VALUE_MAX));
    for max in [
        "0",
        "-5",
        "10000000000.01",
        "1e308",
        ".inf",
        ".nan",
        "abc",
        "\"5\"",
    ] {
        let unsound = parse(&file(&format!("max: {max}")))
            .expect_err(max)
            .to_string();
        assert!(
            unsound.starts_with("error: routes.yaml:8:"),
            "{max}: {unsound}"
        );
        assert!(
            unsound.contains("metrics.purchase.max: "),
            "{max}: {unsound}"
        );
        let hint = "a number above 0 and at most 10000000000, such as 10000";
        assert!(unsound.contains(hint), "{max}: {unsound}");
    }
    let text = SOUND.replacen("POST /checkout -> 2xx", "{ event: e, max: 5 }", 1);
    let unsound = parse(&text).unwrap_err().to_string();
    assert!(unsound.contains("`value: amount`"), "{unsound}");
}

#[test]
fn unknown_keys_are_reported_with_a_suggestion() {
    broken(
        "listen",
        "lisen",
        "error: routes.yaml:1:1: lisen: unknown key\n\nhint: did you mean `listen`? (the public address, such as 0.0.0.0:8080)",
    );
    with(
        "frobnicate: 1\n",
        "error: routes.yaml:9:1: frobnicate: unknown key\n\nhint: known keys: listen, admin, store, journal, workers, user, identity, upstreams, default, dns, routes, error_pages, https, experiments, metrics, segments, timeouts, limits, trust, overrides, show_group, cache, access_log, request_id, trace, consent, robots, exclude, preflight, events, holdout, retired, retention, tls, files, archive, forward, webhooks",
    );
    check(
        "upstreams: { a: \"http://b\" }\nexperiments:\n  e:\n    groups:\n      control: { wieght: 50, upstream: a }\n      b: { weight: 50, upstream: a }\n",
        "error: routes.yaml:5:7: experiments.e.groups.control: `weight` is missing\n\nhint: a number of 0 or more, such as 50; nobody new gets a group of weight 0\n\n\
         error: routes.yaml:5:18: experiments.e.groups.control.wieght: unknown key\n\nhint: did you mean `weight`? (a number of 0 or more, such as 50; nobody new gets a group of weight 0)",
    );
}

#[test]
fn all_diagnostics_are_reported_in_file_order() {
    check(
        "listen: nowhere\nupstreams: { a: ftp://b }\nexperiments:\n  e: { control: a, experiment: c, percent: 101 }\nmetrics:\n  m: POST checkout\n",
        r#"
error: routes.yaml:1:9: listen: found "nowhere"

hint: an address and a port, such as 0.0.0.0:8080, [::1]:8080 or 8080

error: routes.yaml:2:17: upstreams.a: found "ftp://b"

hint: an address such as http://127.0.0.1:3001 (or https://, or h2c://), without a query, unix:/run/app.sock, or http+srv://_http._tcp.app.internal

error: routes.yaml:4:32: experiments.e.experiment: there is no upstream "c"

hint: known: a

error: routes.yaml:4:44: experiments.e.percent: found "101"

hint: a percentage from 0 to 100, such as 10 or 10%

error: routes.yaml:6:6: metrics.m: "checkout" is neither a method nor a path

hint: a rule, such as `POST /checkout -> 2xx`, or keys: on or event, kind, value"#,
    );
}

#[test]
fn pipe_is_a_routes_file_and_no_included_one() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("more.yaml");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let file = folder.path().join("routes.yaml");
    let upstreams = "upstreams: { a: \"http://127.0.0.1:1\" }\n";
    for (more, named) in [
        (
            "files: more.yaml",
            "more.yaml cannot be read: it is not a regular file",
        ),
        (
            "files: \"*ore.yaml\"",
            "more.yaml cannot be read: it is not a regular file",
        ),
        (
            "overrides: { secret: \"file:more.yaml\" }",
            "it is not a regular file",
        ),
        (
            "exclude: [ { ids: \"file:more.yaml\" } ]",
            "it is not a regular file",
        ),
        (
            "routes: [ { match: /x, respond: { file: more.yaml } } ]",
            "it is not a regular file",
        ),
        (
            "tls: { listen: \"127.0.0.1:0\", certificates: { cert: more.yaml, key: more.yaml } }",
            "it is not a regular file",
        ),
    ] {
        fs::write(&file, format!("{upstreams}{more}\n")).unwrap();
        let run = Command::new(BINARY)
            .args(["check", "-c"])
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8(run.stderr).unwrap();
        assert!(
            !run.status.success() && said.contains(named),
            "{more}: {said}"
        );
    }
    let shell = format!(
        "{BINARY} check -c <(printf '\\xef\\xbb\\xbf'; cat {})",
        file.display()
    );
    fs::write(&file, upstreams).unwrap();
    let run = Command::new("bash").args(["-c", &shell]).output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success() && said.contains("is valid"), "{run:?}");
}

#[test]
fn invalid_yaml_is_reported_with_its_position() {
    check(
        "a: [",
        "error: routes.yaml:1:1: did not find expected node content\n\nhint: this is not YAML: check the indentation and the colons there",
    );
    check(
        "a: 1\na: 2\n",
        "error: routes.yaml:2:1: this key also stands in line 1\n\nhint: write each key once",
    );
    let text = parse("just words").unwrap_err().to_string();
    assert!(
        text.starts_with("error: routes.yaml:1:1: the text \"just words\" instead of keys"),
        "{text}"
    );
    let text = parse("").unwrap_err().to_string();
    assert!(text.contains("nothing instead of keys"), "{text}");
}

#[test]
fn balance_and_health_keys() {
    let line = |keys: &str| format!("{{ endpoints: \"http://127.0.0.1:3002\", {keys} }}");
    let case = |keys: &str, says: &str| broken("http://127.0.0.1:3002", &line(keys), says);
    case(
        "balance: least",
        "error: routes.yaml:4:60: upstreams.redesign.balance: found \"least\"\n\nhint: one of: least_loaded, round_robin, user",
    );
    case(
        "health: healthz",
        "error: routes.yaml:4:59: upstreams.redesign.health: found \"healthz\"\n\nhint: a path, such as /healthz",
    );
    case(
        "health: { intervall: 1s }",
        "error: routes.yaml:4:51: upstreams.redesign.health: `path` is missing\n\nhint: a path, such as /healthz\n\n\
         error: routes.yaml:4:61: upstreams.redesign.health.intervall: unknown key\n\nhint: did you mean `interval`? (the time between two checks, such as 5s)",
    );
    case(
        "health: { path: /, timeout: 1ms, failures: 0, status: ok }",
        "error: routes.yaml:4:79: upstreams.redesign.health.timeout: the time is too short\n\nhint: 10ms or more\n\n\
         error: routes.yaml:4:94: upstreams.redesign.health.failures: found \"0\"\n\nhint: a whole number from 1 to 1000\n\n\
         error: routes.yaml:4:105: upstreams.redesign.health.status: found \"ok\"\n\nhint: a status, such as 200, 2xx or 200-204",
    );
    case(
        "limits: { connections: 0 }",
        "error: routes.yaml:4:74: upstreams.redesign.limits.connections: found \"0\"\n\nhint: a whole number from 1 to 1000000",
    );
    with(
        "timeouts: { total: 0s }\n",
        "error: routes.yaml:9:20: timeouts.total: the time is 0\n\nhint: more than 0s",
    );
    let keys = "balance: user, limits: { connections: 5 }, health: { path: /up, host: site.test, interval: 1s, status: 204 }";
    let plan = parse(&SOUND.replacen("http://127.0.0.1:3002", &line(keys), 1)).unwrap();
    let upstream = &plan.upstreams[1];
    assert_eq!(upstream.balance, Balance::User);
    let bounds = upstream.bounds;
    assert_eq!((bounds.connections, bounds.pending), (Some(5), 1024));
    let health = upstream.health.as_ref().unwrap();
    assert_eq!(health.status, (204, 204));
    assert_eq!((health.failures, health.successes), (3, 2));
    assert_eq!(health.interval, Duration::from_secs(1));
    assert_eq!(health.host.as_ref().unwrap(), "site.test");
    assert!(plan.upstreams[0].health.is_none());
}

#[test]
fn what_is_logged() {
    with(
        "access_log: { to: stdout, sample: 10, user: hash }\n",
        "error: routes.yaml:9:35: access_log.sample: found \"10\"\n\nhint: a percentage from 0% to 100%, with its sign\n\n\
         error: routes.yaml:9:45: access_log.user: found \"hash\"\n\nhint: did you mean `hashed`? (one of: hashed, raw, none)",
    );
    with(
        "trace: often\n",
        "error: routes.yaml:9:8: trace: found \"often\"\n\nhint: a percentage from 0% to 100%, with its sign",
    );
    with(
        "trace: { smaple: 10%, otlp: { to: 127.0.0.1:4318, header: {} } }\n",
        "error: routes.yaml:9:10: trace.smaple: unknown key\n\nhint: did you mean `sample`? (a percentage from 0% to 100%, with its sign)\n\n\
         error: routes.yaml:9:35: trace.otlp.to: found \"127.0.0.1:4318\"\n\nhint: an address such as http://127.0.0.1:4318 (or https://) of OTLP over HTTP; /v1/traces is appended\n\n\
         error: routes.yaml:9:51: trace.otlp.header: unknown key\n\nhint: did you mean `headers`? (a name for each header of a post, then its value)",
    );
    with(
        "cache: public\n",
        "error: routes.yaml:9:8: cache: found \"public\"\n\nhint: one of: vary, private, off",
    );
    with(
        "cache:\n  routes:\n  - { match: { path: /a, cookie: { beta: true } }, upstream: off }\n  - { upstream: off }\n  - { match: /b }\n  - { match: /c, upstream: off, told: off }\n",
        "error: routes.yaml:11:14: cache.routes.0.match: conditions on who asks (header, cookie, network, language or device)\n\n\
         hint: a shared cache tells responses apart by their address: use path, host, method or query\n\n\
         error: routes.yaml:12:5: cache.routes.1: `match` is missing\n\n\
         hint: which requests: a path, or { path, host, method, query }, or a list of them\n\n\
         error: routes.yaml:13:5: cache.routes.2: a rule that changes nothing\n\nhint: write upstream or header\n\n\
         error: routes.yaml:14:33: cache.routes.3.told: unknown key\n\nhint: known keys: match, upstream, header",
    );
    let plan = |lines: &str| parse(&format!("{SOUND}{lines}")).unwrap();
    assert!(plan("access_log: false\n").access_log.is_none());
    assert!(!plan("").tracing.request_id);
    assert!(plan("access_log: true\n").tracing.request_id);
    assert!(
        !plan("access_log: true\nrequest_id: false\n")
            .tracing
            .request_id
    );
}

#[test]
fn upstreams_and_listeners() {
    broken(
        "http://127.0.0.1:3002",
        "ftp://127.0.0.1",
        "error: routes.yaml:4:13: upstreams.redesign: found \"ftp://127.0.0.1\"\n\nhint: an address such as http://127.0.0.1:3001 (or https://, or h2c://), without a query, unix:/run/app.sock, or http+srv://_http._tcp.app.internal",
    );
    broken(
        "http://127.0.0.1:3002",
        "http://a/b?c",
        "error: routes.yaml:4:13: upstreams.redesign: found \"http://a/b?c\"\n\nhint: an address such as http://127.0.0.1:3001 (or https://, or h2c://), without a query, unix:/run/app.sock, or http+srv://_http._tcp.app.internal",
    );
    broken(
        "http://127.0.0.1:3002",
        "http://127.0.0.1:8080",
        "error: routes.yaml:4:13: upstreams.redesign: this is an address of watershed itself\n\nhint: requests would loop: write the address of the site",
    );
    broken(
        "  redesign: http://127.0.0.1:3002",
        "  redesign: []",
        "error: routes.yaml:4:13: upstreams.redesign: there is no address\n\nhint: at least one, such as http://127.0.0.1:3001",
    );
    broken(
        "control: current",
        "control: curent",
        "error: routes.yaml:6:24: experiments.new-site.control: there is no upstream \"curent\"\n\nhint: did you mean `current`? (known: current, redesign)",
    );
    with(
        "default: redesing\n",
        "error: routes.yaml:9:10: default: there is no upstream \"redesing\"\n\nhint: did you mean `redesign`? (known: current, redesign)",
    );
    with(
        "admin: { listen: 0.0.0.0:9900 }\n",
        "error: routes.yaml:9:18: admin.listen: 0.0.0.0:9900 is not a loopback address, and there is no token\n\nhint: write `admin: { listen: …, token: … }`, or listen on 127.0.0.1",
    );
    with(
        "admin: { listen: 127.0.0.1:8080, token: x }\nlimits: { body: lots }\n",
        "error: routes.yaml:10:17: limits.body: found \"lots\"\n\nhint: a size with its unit, such as 64KiB or 1GiB",
    );
    check(
        "listen: 1\n",
        "error: routes.yaml:1:1: `upstreams` is missing\n\nhint: write the address of the site: upstreams: { current: http://127.0.0.1:3001 }",
    );
}

#[test]
fn experiments() {
    let long = |groups: &str, says: &str| {
        check(
            &SOUND.replacen(
                "{ control: current, experiment: redesign, percent: 10 }",
                &format!("{{ groups: {{ {groups} }} }}"),
                1,
            ),
            says,
        )
    };
    let weight = |found: &str, text: &str| {
        long(
            &format!(
                "control: {{ weight: {found}, upstream: current }}, b: {{ weight: 1, upstream: redesign }}"
            ),
            &format!(
                "error: routes.yaml:6:44: experiments.new-site.groups.control.weight: {text}\n\nhint: a number of 0 or more, such as 50; nobody new gets a group of weight 0"
            ),
        );
    };
    weight("-0.1", "found -0.1");
    weight("-1", "found -1");
    weight(".nan", "found .nan");
    weight(".inf", "found .inf");
    weight("much", "the text \"much\" instead of a number");
    long(
        "control: { weight: 1, upstream: current }",
        "error: routes.yaml:6:23: experiments.new-site.groups: 1 groups\n\nhint: an experiment compares at least two groups",
    );
    long(
        "control: { weight: 1, upstream: current }, b: { weight: 1 }",
        "error: routes.yaml:6:23: experiments.new-site.groups: some groups have an upstream and some have none\n\nhint: give every group an upstream, or none of them (the upstream then reads the Watershed-Experiment header); a group that redirects needs none",
    );
    broken(
        "percent: 10",
        "percent: 10, winner: expermient",
        "error: routes.yaml:6:76: experiments.new-site.winner: there is no group \"expermient\"\n\nhint: did you mean `experiment`? (known: control, experiment)",
    );
    broken(
        "percent: 10",
        "percent: 10, traffic: 0.5",
        "error: routes.yaml:6:77: experiments.new-site.traffic: found \"0.5\"\n\nhint: a percentage from 0% to 100%, with its sign",
    );
    broken(
        "percent: 10",
        "percent: 10, metrics: [purchases]",
        "error: routes.yaml:6:78: experiments.new-site.metrics.0: there is no metric \"purchases\"\n\nhint: did you mean `purchase`? (known: purchase)",
    );
    broken(
        "percent: 10",
        "percent: 10, match: checkout",
        "error: routes.yaml:6:75: experiments.new-site.match: found \"checkout\"\n\nhint: a path that begins with /, such as /checkout or /shop/**",
    );
    broken(
        "percent: 10",
        "percent: 10, min_duration: soon",
        "error: routes.yaml:6:82: experiments.new-site.min_duration: found \"soon\"\n\nhint: a time with its unit, such as 500ms, 10s, 5m, 1h or 7d",
    );
    broken(
        "new-site",
        "\"new site\"",
        "error: routes.yaml:6:15: experiments.new site: \"new site\" is not a valid name\n\nhint: names are 1 to 64 letters, digits, `_`, `.` and `-`",
    );
    broken(
        ", experiment: redesign",
        "",
        "error: routes.yaml:6:3: experiments.new-site: `experiment` is missing\n\nhint: write `control: UPSTREAM`, `experiment: UPSTREAM` and `percent: 10`, or `groups:`",
    );
}

#[test]
fn metrics() {
    let metric = |written: &str, says: &str| broken("POST /checkout -> 2xx", written, says);
    metric(
        "POST /checkout -> 7xx",
        "error: routes.yaml:8:13: metrics.purchase: \"7xx\" is not a status\n\nhint: a status, such as 200, 2xx or 200-204",
    );
    metric(
        "{ event: \" purchase\" }",
        "error: routes.yaml:8:22: metrics.purchase.event: found \" purchase\"\n\nhint: the name of an event that is reported: 1 to 256 bytes without control characters, such as purchase, $pageview or \"Order Completed\"",
    );
    metric(
        "{ kind: mean }",
        "error: routes.yaml:8:3: metrics.purchase: `event` is missing\n\nhint: write `event: NAME` or `on: { method: …, path: …, status: … }`",
    );
    metric(
        "{ event: a, kind: average }",
        "error: routes.yaml:8:31: metrics.purchase.kind: found \"average\"\n\nhint: one of: conversion, count, mean, ratio",
    );
    metric(
        "{ event: a, kind: ratio }",
        "error: routes.yaml:8:3: metrics.purchase: `per` is missing\n\nhint: a ratio needs its base: per: requests, or per: { event: NAME }",
    );
    metric(
        "{ on: { method: post } }",
        "error: routes.yaml:8:29: metrics.purchase.on.method: found \"post\"\n\nhint: a method in capitals, such as GET or POST",
    );
    metric(
        "{ event: a, baseline: 140% }",
        "error: routes.yaml:8:35: metrics.purchase.baseline: found \"140%\"\n\nhint: a percentage of users, such as 30%",
    );
    metric(
        "{ event: a, value: b, kind: mean, baseline: 0 }",
        "error: routes.yaml:8:57: metrics.purchase.baseline: found \"0\"\n\nhint: a number other than 0, such as 12.5",
    );
    metric(
        "{ event: a, goal: increse }",
        "error: routes.yaml:8:31: metrics.purchase.goal: found \"increse\"\n\nhint: did you mean `increase`? (one of: increase, decrease)",
    );
}

#[test]
fn stores_secrets_and_the_rest() {
    with(
        "store: mysql://a\n",
        "error: routes.yaml:9:8: store: mysql:// is not a known store\n\nhint: redis://[user:password@]host:port (rediss:// for TLS; any nodes of a cluster, separated by commas), redis+sentinel://host:port,host:port/master, postgres://user[:password]@host[:port]/database (?sslmode=require for TLS), or the path of a file",
    );
    for (unusable, problem) in [
        ("redis://[bad", "the address is invalid: "),
        ("redis://a:99999", "the address is invalid: "),
        ("redis://a/x", "the address is invalid: "),
        ("rediss://a/0#insecure", "the address is invalid: "),
        ("redis+sentinel://a:1", "the address is invalid: "),
        ("postgres://a/d", "the address is invalid: it names no user"),
        (
            "postgres://u@a",
            "the address is invalid: it names no database",
        ),
        (
            "postgres://u:p?x=y@a/d?z=1",
            "the address is invalid: it has another option",
        ),
        (
            "postgresql://u@a/d?sslmode=prefer",
            "the address is invalid: its sslmode",
        ),
        (
            "rediss:/a",
            "this is neither an address with :// nor a plain path",
        ),
        (
            "localhost:6379",
            "this is neither an address with :// nor a plain path",
        ),
    ] {
        let text = parse(&format!("{SOUND}store: \"{unusable}\"\n"));
        let text = text.unwrap_err().to_string();
        let expected = format!("error: routes.yaml:9:8: store: {problem}");
        assert!(text.starts_with(&expected), "{unusable}: {text}");
        assert!(
            text.contains("hint: redis://[user:password@]host:port"),
            "{text}"
        );
    }
    parse(&format!("{SOUND}store: ./a:b.db\n")).unwrap();
    parse(&format!(
        "{SOUND}store: {{ url: \"postgres://u:p@a,b:1/d\", schema: a_1 }}\n"
    ))
    .unwrap();
    with(
        "store: { url: \"postgres://u@a/d\", schema: A, prefix: p, ca: a.pem }\n",
        "error: routes.yaml:9:43: store.schema: found \"A\"\n\nhint: 1 to 63 lower-case letters, digits and _, with a letter first; pg_ is PostgreSQL's own\n\n\
         error: routes.yaml:9:54: store.prefix: only keys of Redis have a prefix; `schema` names the schema in PostgreSQL\n\nhint: leave `prefix` out\n\n\
         error: routes.yaml:9:61: store.ca: the store is reached without TLS\n\nhint: write ?sslmode=require at the end of its address, or leave `ca` out",
    );
    with(
        "store: { url: redis://a, schema: s }\n",
        "error: routes.yaml:9:34: store.schema: only PostgreSQL has schemas\n\nhint: leave `schema` out",
    );
    with(
        "store: { url: \"rediss://a\", ca: no-such.pem, key: k.pem }\n",
        "error: routes.yaml:9:1: store: `certificate` is missing\n\nhint: a PEM file with the client certificate for the store\n\n\
         error: routes.yaml:9:33: store.ca: no-such.pem cannot be read: No such file or directory (os error 2)\n\nhint: a PEM file with the certificate and its chain",
    );
    with(
        "overrides: { secret: \"${NOWHERE}\" }\n",
        "error: routes.yaml:9:22: overrides.secret: the environment has no NOWHERE\n\nhint: set it: export NOWHERE=…, or write a default: ${NOWHERE:-…}",
    );
    with(
        "overrides: { secret: short }\n",
        "error: routes.yaml:9:22: overrides.secret: the secret is shorter than 16 bytes\n\nhint: a long random text, such as `openssl rand -hex 32` prints",
    );
    let text = parse(&format!(
        "{SOUND}overrides: {{ secret: \"file:no-such-file\" }}\n"
    ))
    .unwrap_err()
    .to_string();
    assert!(
        text.starts_with("error: routes.yaml:9:22: overrides.secret: no-such-file cannot be read:"),
        "{text}"
    );
    with(
        "tls: { listen: 1 }\n",
        "error: routes.yaml:9:1: tls: `certificates` is missing\n\nhint: { cert: site.pem, key: site.key }; or `acme` in its place",
    );
    let text = parse(&format!(
        "{SOUND}tls: {{ listen: 1, certificates: {{ cert: none.pem, key: none.key }} }}\n"
    ))
    .unwrap_err()
    .to_string();
    assert!(
        text.contains("tls.certificates.cert: none.pem cannot be read:"),
        "{text}"
    );
    with(
        "identity: { store: hashed }\n",
        "error: routes.yaml:9:1: identity: `key` is missing\n\nhint: a long random text, such as `openssl rand -hex 32` prints; or ${NAME}, or file:PATH",
    );
    with(
        "identity: { key: 0123456789abcdef }\n",
        "error: routes.yaml:9:18: identity.key: a key has no effect while IDs are stored raw\n\nhint: write `store: hashed`, or leave `key` out",
    );
    with(
        "consent: { value: yes }\n",
        "error: routes.yaml:9:1: consent: `cookie` is missing\n\nhint: the name of the cookie that holds the consent",
    );
    with(
        "events: { origins: [ shop.example ] }\n",
        "error: routes.yaml:9:22: events.origins.0: found \"shop.example\"\n\nhint: an origin, such as https://shop.example",
    );
    with(
        "identity: { max_age: 500d }\n",
        "error: routes.yaml:9:22: identity.max_age: browsers do not keep a cookie for that long\n\nhint: more than 0s and at most 400d",
    );
    with(
        "user: { cookie: uid, header: X }\n",
        "error: routes.yaml:9:7: user: 2 sources in one item\n\nhint: one of { cookie: NAME }, { header: NAME }, { query: NAME }, { jwt: CLAIM }; several as a list, the first that holds an ID wins",
    );
    with(
        "timeouts: { response: 0s }\n",
        "error: routes.yaml:9:23: timeouts.response: the time is 0\n\nhint: more than 0s",
    );
    with(
        "trust: [ 10.0.0.0/33 ]\n",
        "error: routes.yaml:9:10: trust.0: found \"10.0.0.0/33\"\n\nhint: a network or an address, such as 10.0.0.0/8 or 127.0.0.1",
    );
    with(
        "journal: { quota: 1MiB }\n",
        "error: routes.yaml:9:19: journal.quota: less than 32MiB\n\nhint: at least 32MiB",
    );
    with(
        "workers: 0\n",
        "error: routes.yaml:9:10: workers: found \"0\"\n\nhint: a whole number from 1 to 1024",
    );
    with(
        "show_group: maybe\n",
        "error: routes.yaml:9:13: show_group: found the text \"maybe\"\n\nhint: true or false",
    );
}

#[test]
fn words_that_were_booleans_are_named() {
    let old = |word: &str| format!("`{word}` is a text: only YAML 1.1 took it for a boolean");
    with(
        "access_log: yes\n",
        &format!(
            "error: routes.yaml:9:13: access_log: {}\n\nhint: write true, or \"yes\" in quotation marks for the text",
            old("yes")
        ),
    );
    with(
        "robots: Off\n",
        &format!(
            "error: routes.yaml:9:9: robots: {}\n\nhint: write false, or \"Off\" in quotation marks for the text",
            old("Off")
        ),
    );
    with(
        "show_group: ON\n",
        &format!(
            "error: routes.yaml:9:13: show_group: {}\n\nhint: write true, or \"ON\" in quotation marks for the text",
            old("ON")
        ),
    );
    for line in [
        "store: no",
        "access_log: { to: no }",
        "journal: { path: no }",
    ] {
        let text = parse(&format!("{SOUND}{line}\n")).unwrap_err().to_string();
        assert!(text.contains(&old("no")), "{text}");
    }
    for line in [
        "access_log: \"yes\"",
        "cache: off",
        "consent: { cookie: c, value: yes }",
    ] {
        let plan = parse(&format!("{SOUND}{line}\n"));
        assert!(plan.unwrap().warnings.is_empty(), "{line}");
    }
    let condition = SOUND.replacen(
        "percent: 10",
        "percent: 10, match: { cookie: { beta: on } }",
        1,
    );
    let warnings = parse(&condition).unwrap().warnings;
    assert!(warnings[0].line().contains(&old("on")), "{warnings:?}");
}

#[test]
fn rules_without_an_effect_are_warned_of() {
    let warned = |from: &str, to: &str, more: &str, words: &[&str]| {
        let text = format!("{}{more}", SOUND.replacen(from, to, 1));
        let warnings = parse(&text).unwrap().warnings;
        let lines: Vec<String> = warnings.iter().map(|it| it.line().to_string()).collect();
        for word in words {
            assert!(
                lines.iter().any(|line| line.contains(word)),
                "{word}: {lines:?}"
            );
        }
        assert_eq!(lines.len(), words.len(), "{lines:?}");
    };
    let isolated = "percent: 10, cookies: { isolated: [sid, uid, watershed_id, \"s*\"] }";
    let words = [
        "`uid` is always shared",
        "`watershed_id` is always shared",
        "`s*` is the name of one cookie",
    ];
    warned("percent: 10", isolated, "user: { cookie: uid }\n", &words);
    for redirect in [
        "/a/** , redirect: /a/b/**",
        "/** , redirect: /new/**",
        "/a , redirect: \"/a?b\"",
    ] {
        let routes = format!("routes:\n  - {{ match: {redirect} }}\n");
        warned(
            "percent: 10",
            "percent: 10, match: /x",
            &routes,
            &["without end"],
        );
    }
    let routes = "routes:\n  - { match: /a/**, redirect: /b/** }\n";
    warned("percent: 10", "percent: 10, match: /x", routes, &[]);
}

#[test]
fn tabs_in_the_indentation_are_named() {
    let tab = |text: &str, place: &str, lines: &str| {
        check(
            text,
            &format!(
                "error: routes.yaml:{place}: a tab in the indentation{lines}\n\nhint: indent with spaces: YAML allows no tabs there"
            ),
        );
    };
    tab("upstreams:\n\ta: http://127.0.0.1:1\n", "2:1", "");
    tab(
        "upstreams:\n  a: http://127.0.0.1:1\nmetrics: {\n \tm: /a\n\t}\n",
        "4:2",
        " (in 2 lines)",
    );
    for line in ["\t", "\t# a comment"] {
        let text = format!("upstreams:\n  a: http://127.0.0.1:1\n{line}\nshow_group: true\n");
        tab(&text, "3:1", "");
    }
    tab(
        "upstreams:\n  a: http://127.0.0.1:1\nconsent:\n  value: |\n   \ta\n",
        "5:4",
        "",
    );
    for (line, column) in [
        ("  a: http://127.0.0.1:1 \t# a tab", 25),
        ("  a: [ http://127.0.0.1:1,\thttp://127.0.0.1:2 ]", 27),
        ("  a: http://127.0.0.1:1\t", 24),
    ] {
        check(
            &format!("upstreams:\n{line}\n"),
            &format!(
                "error: routes.yaml:2:{column}: a tab\n\nhint: write a space: readers of YAML do not agree on tabs there"
            ),
        );
    }
    let sound = "# a\ttab\nupstreams:\n  a: http://127.0.0.1:1 # a\ttab\nconsent:\n  cookie: \"c\"\n  value: |\n   a\n   \tb\nexperiments: { e: { control: a, experiment: a, percent: 1, description: \"a\tb\" } }\n";
    assert!(parse(sound).is_ok(), "{:?}", parse(sound));
}

#[test]
fn environment_variables_are_values_of_any_key() {
    let environment = |name: &str| match name {
        "PORT" => Some("81".to_owned()),
        "LOG" => Some("true".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    let parse = |text: &str| config::parse(text, Path::new("routes.yaml"), &environment);
    let text = SOUND
        .replace("0.0.0.0:8080", "0.0.0.0:${PORT:-8080}")
        .replace("127.0.0.1:3001", "${HOST:-127.0.0.2}:3001")
        .replace("percent: 10", "percent: \"${PERCENT:-25}\"");
    let text = format!(
        "{text}workers: ${{WORKERS:-3}}\naccess_log: ${{LOG}}\nstore: ${{EMPTY:-counts.db}}\n"
    );
    let plan = parse(&text).unwrap();
    assert_eq!((plan.listen.port(), plan.workers), (81, 3));
    assert_eq!(plan.upstreams[0].endpoints[0].to_string(), "127.0.0.2:3001");
    let groups = &plan.experiments[0].groups;
    assert_eq!(groups[1].weight.get() / groups[0].weight.get(), 25.0 / 75.0);
    assert!(plan.access_log.is_some());
    // The file as it is written says where a value is from.
    assert_eq!(plan.redacted_file["workers"], "${WORKERS:-3}");
    let text = SOUND
        .replace("8080", "${NO_PORT}")
        .replace("percent: 10", "percent: \"${PORT}x\"");
    let keys: Vec<_> = parse(&text)
        .unwrap_err()
        .diagnostics
        .into_iter()
        .map(|it| (it.key, it.found))
        .collect();
    let found = |key: &str, found: &str| (key.to_owned(), found.to_owned());
    assert_eq!(
        keys,
        [
            found("listen", "the environment has no NO_PORT"),
            found("experiments.new-site.percent", "found \"81x\""),
        ]
    );
}

#[test]
fn unreadable_files_are_reported() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("routes.yaml");
    let says = |what: &str| {
        let text = config::load(&path).unwrap_err().to_string();
        assert!(text.contains(what) && text.contains("hint: "), "{text}");
    };
    says("there is no such file");
    std::fs::create_dir(&path).unwrap();
    says("cannot be read: Is a directory");
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, b"listen: \xff").unwrap();
    says("is not UTF-8 text at byte 8");
    std::fs::write(&path, "#".repeat(2 << 20)).unwrap();
    says("is larger than 1 MiB");
}

#[test]
fn short_form_equals_long_form() {
    let short = parse(SOUND).unwrap();
    let long = parse(&SOUND.replace(
        "{ control: current, experiment: redesign, percent: 10 }",
        "{ groups: { control: { weight: 90, upstream: current }, experiment: { weight: 10, upstream: redesign } } }",
    ))
    .unwrap();
    assert_eq!(
        declaration::declaration(&short),
        declaration::declaration(&long)
    );
    assert_eq!(short.experiments[0].epoch, long.experiments[0].epoch);
    assert_eq!(short.default, UpstreamIndex(0));
    let commented = parse(&format!("# a comment\n{SOUND}")).unwrap();
    assert_eq!(short.digest, commented.digest);
}

#[test]
fn long_form_is_parsed() {
    let text = "\
listen: '[::1]:81'
admin: { listen: 127.0.0.1:9901, token: \"${SECRET}\" }
store: { url: redis://127.0.0.1:6379, prefix: shop }
journal: { path: j, sync_interval: 250ms, quota: 64MiB }
workers: 3
user: [ { cookie: uid }, { header: X-User }, { query: u }, { jwt: sub } ]
identity: { name: who, max_age: 30d, secure: true, max_length: 64 }
upstreams:
  current: http://a
  redesign: [ http://b:1, http://b:2 ]
default: redesign
experiments:
  e:
    match: { path: /checkout/**, host: '*.example.com', method: [GET, POST] }
    traffic: 25%
    groups:
      control: { weight: 2, upstream: current }
      b: { weight: 1, upstream: redesign }
    metrics: [ revenue, purchase ]
    guardrails: { errors: { max_increase: 1% }, slow: { over: 500ms, max_increase: 5% } }
    count_overrides: true
    min_duration: 1h
metrics:
  purchase: { on: { method: POST, path: /checkout, status: 2xx }, within: 7d, role: primary }
  revenue: { event: purchase, value: amount, kind: mean, scale: 3, detect: 5%, margin: 2% }
  errors-per-request: { on: { status: 5xx }, kind: ratio, per: requests, goal: decrease }
timeouts: { response: 5s }
limits: { body: 1MiB }
trust: [ 10.0.0.0/8, 127.0.0.1 ]
overrides: { secret: 0123456789abcdef }
show_group: true
";
    let plan = parse(text).unwrap();
    assert_eq!(plan.listen.to_string(), "[::1]:81");
    let token = &plan.admin.tokens[0];
    assert_eq!(
        (&*token.name, token.role),
        ("admin", plan::TokenRole::Operate)
    );
    let digest: [u8; 32] = <Sha256 as Digest>::digest("from the environment").into();
    assert_eq!(token.digest, digest, "the token itself is not kept");
    assert!(matches!(&plan.store, StoreConfig::Redis { prefix, .. } if &**prefix == "shop"));
    assert!(
        !format!("{plan:?}").contains("from the environment"),
        "secrets are not printed"
    );
    assert_eq!(
        (
            plan.workers,
            plan.journal.quota_bytes,
            plan.journal.sync_interval
        ),
        (3, 64 << 20, Duration::from_millis(250))
    );
    assert_eq!(
        (
            plan.identity.sources.len(),
            plan.identity.id_bytes_max,
            plan.identity.mint.max_age_s
        ),
        (4, 64, 30 * 86_400)
    );
    let endpoints: Vec<String> = plan
        .upstreams
        .iter()
        .flat_map(|upstream| &upstream.endpoints)
        .map(ToString::to_string)
        .collect();
    assert_eq!(endpoints, ["a:80", "b:1", "b:2"]);
    assert_eq!(plan.default, UpstreamIndex(1));
    let experiment = &plan.experiments[0];
    assert_eq!(
        (
            experiment.traffic.get(),
            experiment.min_duration_ms,
            experiment.count_overrides
        ),
        (0.25, 3_600_000, true)
    );
    assert_eq!(
        &*experiment.metrics,
        [MetricIndex(0), MetricIndex(1)],
        "the primary one first"
    );
    assert_eq!(
        experiment.guardrails[1].what,
        GuardrailTarget::Slow { over_us: 500_000 }
    );
    let [purchase, revenue, ratio] = &plan.metrics[..] else {
        panic!()
    };
    assert_eq!(
        (purchase.kind, purchase.role, purchase.within_ms),
        (
            MetricKind::Conversion,
            MetricRole::Primary,
            Some(7 * 86_400_000)
        )
    );
    assert_eq!(
        (revenue.kind, revenue.scale, revenue.detect, revenue.margin),
        (MetricKind::Mean, 3, 0.05, 0.02)
    );
    assert!(matches!(
        (&ratio.per, ratio.goal, &ratio.trigger),
        (
            Some(RatioBase::Requests),
            MetricGoal::Decrease,
            Trigger::Rule(_)
        )
    ));
    assert_eq!(
        (
            plan.timeouts.response,
            plan.limits.body_bytes,
            plan.trust.len()
        ),
        (Duration::from_secs(5), Some(1 << 20), 2)
    );
}

#[test]
fn example_file_is_valid() {
    for (file, token) in [
        ("config/routes.yaml", None),
        ("config/routes.docker.yaml", Some("WATERSHED_ADMIN_TOKEN")),
    ] {
        let checked = Command::new(BINARY)
            .args(["check", "-c", file])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .envs(token.map(|name| (name, "a token of the test")))
            .output()
            .unwrap();
        assert!(checked.status.success(), "{file}: {checked:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,200}", at in 0usize..300, cut in 0usize..20) {
        let _ = parse(&text);
        let (at, end) = (at.min(SOUND.len()), (at + cut).min(SOUND.len()));
        let mutated = format!("{}{}{}", &SOUND[..at], text, &SOUND[end..]);
        if let Err(unsound) = parse(&mutated) {
            let lines = mutated.lines().count().max(1);
            for problem in unsound.diagnostics {
                let (line, column) = problem.place.unwrap();
                prop_assert!((1..=lines).contains(&line) && column > 0, "{problem}\n{mutated}");
            }
        }
    }
}

#[test]
fn tls_keys_without_effect_are_refused() {
    broken(
        "http://127.0.0.1:3002",
        "{ endpoints: [ \"http://a\", \"h2c://b\" ], tls: { name: a } }",
        "error: routes.yaml:4:58: upstreams.redesign.tls: no endpoint of this upstream is reached over TLS\n\nhint: write https:// in their addresses, or leave `tls` out",
    );
    // Whoever breaks the one would be sent the other's requests to read.
    let unsound = parse(&SOUND.replace("http://127.0.0.1:3002", "[ \"https://a\", \"http://b\" ]"));
    let said = unsound.unwrap_err().to_string();
    assert!(
        said.contains("upstreams.redesign: some endpoints are reached over TLS and some are not"),
        "{said}"
    );
    with(
        "store: { url: \"redis://a\", ca: ca.pem }\n",
        "error: routes.yaml:9:32: store.ca: the store is reached without TLS\n\nhint: write rediss:// in its address, or leave `ca` out",
    );
    with(
        "store: { url: counts.db, certificate: c.pem, key: k.pem }\n",
        "error: routes.yaml:9:39: store.certificate: the store is a file\n\nhint: name a server in its address, or leave `certificate` out\n\nerror: routes.yaml:9:51: store.key: the store is a file\n\nhint: name a server in its address, or leave `key` out",
    );
}

#[test]
fn metric_that_is_listed_twice_is_judged_once() {
    let text = "upstreams: { a: http://127.0.0.1:1, b: http://127.0.0.1:2 }\n\
                experiments: { x: { control: a, experiment: b, percent: 50, metrics: [ buy, see, buy ] } }\n\
                metrics: { see: { event: see }, buy: { event: buy } }\n";
    let plan = watershed::config::parse(text, std::path::Path::new("routes.yaml"), &|_| None);
    let plan = plan.unwrap();
    let metrics = plan.experiments[0].metrics.iter();
    let names: Vec<&str> = metrics.map(|it| &*plan.metric(*it).name).collect();
    assert_eq!(names, ["buy", "see"]);
    let warnings: Vec<String> = plan.warnings.iter().map(|it| it.with_line()).collect();
    let expected = "experiments.x.metrics.2: a metric for the second time";
    assert!(
        warnings.iter().any(|it| it.contains(expected)),
        "{warnings:?}"
    );
}
