//! What follows from conditions, whatever the request: which can never hold together, and which always hold
//! where others do. All answers are cautious: `false` also means that it is not known.

use super::Experiment;
use super::ExperimentIndex;
use super::device::DeviceClass;
use super::matcher::Condition;
use super::pattern::{HostPattern, PathPattern, ValuePattern, ValueTest};
use http::HeaderName;
use ipnet::IpNet;

/// The most comparisons for one question. Beyond it, the answer is not known.
const STEPS_MAX: usize = 1_000_000;

/// Whether `second` certainly holds for every request for which `first` does.
pub fn implies(first: &Condition, second: &Condition) -> bool {
    contradict([Fact::new(first, true), Fact::new(second, false)].into())
}

/// Whether there is certainly no request for which both hold.
pub fn excludes(first: &Condition, second: &Condition) -> bool {
    contradict([Fact::new(first, true), Fact::new(second, true)].into())
}

/// Whether there is certainly no request for which it holds.
pub fn never_holds(condition: &Condition) -> bool {
    contradict([Fact::new(condition, true)].into())
}

/// Returns the places of conditions of which at least one certainly holds for every request for which `condition`
/// does: one place if one of them suffices, and otherwise none that could be left out. `None` for one that never holds.
pub fn covered_by(condition: &Condition, others: &[&Condition]) -> Option<Vec<usize>> {
    if never_holds(condition) {
        return None;
    }
    if let Some(place) = others.iter().position(|it| implies(condition, it)) {
        return Some(vec![place]);
    }
    let do_cover = |places: &[usize]| {
        let uncovered = places.iter().map(|&at| Fact::new(others[at], false));
        contradict(uncovered.chain([Fact::new(condition, true)]).collect())
    };
    let concerned = |&at: &usize| !excludes(condition, others[at]);
    let mut places: Vec<usize> = (0..others.len()).filter(concerned).collect();
    if !do_cover(&places) {
        return None;
    }
    for place in places.clone() {
        let fewer: Vec<usize> = places.iter().copied().filter(|&at| at != place).collect();
        if do_cover(&fewer) {
            places = fewer;
        }
    }
    Some(places)
}

/// A condition that holds for a request, or does not.
#[derive(Clone, Copy)]
struct Fact<'a> {
    condition: &'a Condition,
    holds: bool,
}

impl<'a> Fact<'a> {
    fn new(condition: &'a Condition, holds: bool) -> Fact<'a> {
        Fact { condition, holds }
    }

    /// Whether there is certainly no request with both. Both are simple conditions.
    fn contradicts(self, other: Fact<'_>) -> bool {
        match (self.holds, other.holds) {
            (true, true) => simple_excludes(self.condition, other.condition),
            (true, false) => simple_implies(self.condition, other.condition),
            (false, true) => simple_implies(other.condition, self.condition),
            (false, false) => one_of_them_holds(self.condition, other.condition),
        }
    }
}

/// Whether there is certainly no request with all of these facts.
fn contradict(facts: Vec<Fact<'_>>) -> bool {
    let mut tableau = Tableau {
        branch: Vec::new(),
        steps_left: STEPS_MAX,
    };
    tableau.closes(facts, Vec::new())
}

/// An analytic tableau: facts are taken apart until simple ones contradict each other in every branch.
/// Source: R. M. Smullyan, First-Order Logic, 1968, chapter II.
struct Tableau<'a> {
    /// The simple facts of the current branch.
    branch: Vec<Fact<'a>>,
    steps_left: usize,
}

impl<'a> Tableau<'a> {
    /// Whether no request has the facts of the branch, these, and at least one of each of the choices.
    fn closes(&mut self, facts: Vec<Fact<'a>>, choices: Vec<Vec<Fact<'a>>>) -> bool {
        let known = self.branch.len();
        let closes = self.closes_with(facts, choices);
        self.branch.truncate(known);
        closes
    }

    fn closes_with(&mut self, mut facts: Vec<Fact<'a>>, mut choices: Vec<Vec<Fact<'a>>>) -> bool {
        while let Some(fact) = facts.pop() {
            let below = |list: &'a [Condition]| list.iter().map(|it| Fact::new(it, fact.holds));
            match (fact.condition, fact.holds) {
                (Condition::Not(not), holds) => facts.push(Fact::new(not, !holds)),
                (Condition::All(list), true) | (Condition::Any(list), false) => {
                    facts.extend(below(list));
                }
                (Condition::Any(list), true) | (Condition::All(list), false) => {
                    choices.push(below(list).collect());
                }
                _ if self.contradicts(fact) => return true,
                _ => self.branch.push(fact),
            }
        }
        let shortest = (0..choices.len()).min_by_key(|&at| choices[at].len());
        let Some(shortest) = shortest else {
            return self.is_exhausted();
        };
        let choice = choices.swap_remove(shortest);
        let mut either = choice.into_iter();
        either.all(|fact| self.closes(vec![fact], choices.clone()))
    }

    /// Whether a simple fact contradicts itself or one of the branch.
    fn contradicts(&mut self, fact: Fact<'a>) -> bool {
        let steps = self.branch.len() + 1;
        let Some(left) = self.steps_left.checked_sub(steps) else {
            self.steps_left = 0;
            return false;
        };
        self.steps_left = left;
        let is_any = matches!(fact.condition, Condition::Path(path) if is_any_path(path));
        (is_any && !fact.holds) || self.branch.iter().any(|other| other.contradicts(fact))
    }

    /// Whether the facts of the branch leave nothing of what there is: no device, or no value of a list.
    fn is_exhausted(&self) -> bool {
        let excluded = || self.branch.iter().filter(|fact| !fact.holds);
        let is_excluded = |class| excluded().any(|it| *it.condition == Condition::Device(class));
        let is_left = |fact: &Fact<'_>, value: &ValuePattern| {
            !excluded().any(|other| match named_test(other.condition) {
                Some((name, ValueTest::OneOf(patterns))) => {
                    named_test(fact.condition).is_some_and(|(own, _)| own == name)
                        && patterns.iter().any(|pattern| pattern.contains(value))
                }
                _ => false,
            })
        };
        let mut values = self.branch.iter().filter(|fact| fact.holds);
        DeviceClass::ALL.into_iter().all(is_excluded)
            || values.any(|fact| match named_test(fact.condition) {
                Some((_, ValueTest::OneOf(list))) => !list.iter().any(|value| is_left(fact, value)),
                _ => false,
            })
    }
}

/// The name of a header, cookie or query parameter.
#[derive(PartialEq)]
enum ValueName<'a> {
    Header(&'a HeaderName),
    Cookie(&'a str),
    Query(&'a str),
}

fn named_test(condition: &Condition) -> Option<(ValueName<'_>, &ValueTest)> {
    match condition {
        Condition::Header(name, test) => Some((ValueName::Header(name), test)),
        Condition::Cookie(name, test) => Some((ValueName::Cookie(name), test)),
        Condition::Query(name, test) => Some((ValueName::Query(name), test)),
        _ => None,
    }
}

/// Whether one of two simple conditions certainly holds, whatever the request.
fn one_of_them_holds(first: &Condition, second: &Condition) -> bool {
    match (named_test(first), named_test(second)) {
        (Some((name, test)), Some((other, other_test))) if name == other => matches!(
            (test, other_test),
            (ValueTest::Present, ValueTest::Absent) | (ValueTest::Absent, ValueTest::Present)
        ),
        _ => false,
    }
}

/// Whether a pattern certainly means every path.
fn is_any_path(pattern: &PathPattern) -> bool {
    matches!(pattern, PathPattern::Under(base) if base.is_empty())
}

fn simple_implies(first: &Condition, second: &Condition) -> bool {
    if let (Some((name, test)), Some((other, wider))) = (named_test(first), named_test(second)) {
        return name == other && value_within(test, wider);
    }
    match (first, second) {
        (Condition::Path(first), Condition::Path(second)) => path_within(first, second),
        (Condition::Host(first), Condition::Host(second)) => host_within(first, second),
        (Condition::Language(first), Condition::Language(second)) => second.contains(first),
        (Condition::Network(first), Condition::Network(second)) => second.contains(first),
        (first, second) => first == second,
    }
}

fn simple_excludes(first: &Condition, second: &Condition) -> bool {
    if let (Some((name, test)), Some((other, second))) = (named_test(first), named_test(second)) {
        return name == other && values_apart(test, second);
    }
    match (first, second) {
        (Condition::Path(first), Condition::Path(second)) => paths_apart(first, second),
        (Condition::Host(first), Condition::Host(second)) => hosts_apart(first, second),
        (Condition::Method(first), Condition::Method(second)) => first != second,
        (Condition::Language(first), Condition::Language(second)) => {
            !first.contains(second) && !second.contains(first)
        }
        (Condition::Device(first), Condition::Device(second)) => first != second,
        (Condition::Network(first), Condition::Network(second)) => networks_apart(first, second),
        _ => false,
    }
}

fn path_within(first: &PathPattern, second: &PathPattern) -> bool {
    match (first, second) {
        (first, second) if first == second => true,
        (PathPattern::Exact(path), second) => second.matches(path),
        (PathPattern::Under(first), PathPattern::Under(second)) => is_under(first, second),
        (PathPattern::Glob(glob), PathPattern::Under(base)) => {
            // The part before the first special character ends within a segment.
            let literal = glob
                .find(['*', '[', '{', '\\'])
                .map_or(&**glob, |at| &glob[..at]);
            let (parent, _) = literal.rsplit_once('/').unwrap_or_default();
            is_under(parent, base)
        }
        _ => false,
    }
}

fn paths_apart(first: &PathPattern, second: &PathPattern) -> bool {
    match (first, second) {
        (PathPattern::Exact(path), other) | (other, PathPattern::Exact(path)) => {
            !other.matches(path)
        }
        (PathPattern::Under(first), PathPattern::Under(second)) => {
            !is_under(first, second) && !is_under(second, first)
        }
        _ => false,
    }
}

/// Whether a path without special characters is `base` or below it.
fn is_under(path: &str, base: &str) -> bool {
    PathPattern::Under(base.into()).matches(path)
}

fn host_within(first: &HostPattern, second: &HostPattern) -> bool {
    match (first, second) {
        (HostPattern::Exact(host), second) => second.matches(host),
        (HostPattern::Under(first), HostPattern::Under(second)) => first.ends_with(&**second),
        (HostPattern::Under(_), HostPattern::Exact(_)) => false,
    }
}

fn hosts_apart(first: &HostPattern, second: &HostPattern) -> bool {
    match (first, second) {
        (HostPattern::Exact(host), other) | (other, HostPattern::Exact(host)) => {
            !other.matches(host)
        }
        (HostPattern::Under(first), HostPattern::Under(second)) => {
            !first.ends_with(&**second) && !second.ends_with(&**first)
        }
    }
}

fn value_within(first: &ValueTest, second: &ValueTest) -> bool {
    match (first, second) {
        (ValueTest::OneOf(_), ValueTest::Present) => true,
        (ValueTest::OneOf(first), ValueTest::OneOf(second)) => first
            .iter()
            .all(|value| second.iter().any(|pattern| pattern.contains(value))),
        (first, second) => first == second,
    }
}

/// A request may have several values of one name, so that only `Absent` excludes others.
fn values_apart(first: &ValueTest, second: &ValueTest) -> bool {
    (*first == ValueTest::Absent) != (*second == ValueTest::Absent)
}

fn networks_apart(first: &IpNet, second: &IpNet) -> bool {
    !first.contains(second) && !second.contains(first)
}

/// Returns the experiments that never choose an upstream, each with the earlier ones that choose it in their place.
pub fn unreachable(experiments: &[Experiment]) -> Vec<(ExperimentIndex, Vec<ExperimentIndex>)> {
    let (mut always, mut conditions) = (Vec::new(), Vec::new());
    let mut found = Vec::new();
    let choosing = experiments.iter().enumerate();
    for (index, experiment) in choosing.filter(|(_, it)| it.chooses_upstream()) {
        let condition = experiment.matcher.condition();
        match covered_by(condition, &conditions) {
            Some(places) => {
                let earlier = places.into_iter().map(|place| always[place]).collect();
                found.push((ExperimentIndex(index), earlier));
            }
            None if experiment.admits_all() => {
                always.push(ExperimentIndex(index));
                conditions.push(condition);
            }
            None => {}
        }
    }
    found
}

/// Returns the earlier experiments that may choose the upstream of a request of this one in its place.
pub fn serve_before(
    experiments: &[Experiment],
    ExperimentIndex(index): ExperimentIndex,
) -> impl Iterator<Item = &Experiment> {
    let own = experiments[index].matcher.condition();
    let earlier = experiments[..index].iter();
    earlier.filter(move |it| it.chooses_upstream() && !excludes(it.matcher.condition(), own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::http_view::ClientAddress;
    use crate::experiment::language::LanguageRange;
    use crate::experiment::matcher::Matcher;
    use crate::experiment::path_regex::PathRegex;
    use http::{Method, request};
    use proptest::prelude::*;

    fn path(text: &str) -> Condition {
        Condition::Path(PathPattern::new(text).unwrap())
    }

    fn host(text: &str) -> Condition {
        Condition::Host(HostPattern::new(text).unwrap())
    }

    fn network(text: &str) -> Condition {
        Condition::Network(text.parse().unwrap())
    }

    fn language(text: &str) -> Condition {
        Condition::Language(LanguageRange::new(text).unwrap())
    }

    fn cookie(test: ValueTest) -> Condition {
        Condition::Cookie("c".into(), test)
    }

    fn one_of(values: &[&str]) -> ValueTest {
        ValueTest::OneOf(values.iter().map(|text| ValuePattern::new(text)).collect())
    }

    fn all(list: impl Into<Box<[Condition]>>) -> Condition {
        Condition::All(list.into())
    }

    fn any(list: impl Into<Box<[Condition]>>) -> Condition {
        Condition::Any(list.into())
    }

    fn not(condition: Condition) -> Condition {
        Condition::Not(Box::new(condition))
    }

    #[test]
    fn broader_conditions_follow_from_narrower_ones() {
        let check = |narrow: Condition, broad: Condition| {
            assert!(implies(&narrow, &broad), "{narrow:?} {broad:?}");
            assert!(!implies(&broad, &narrow), "{broad:?} {narrow:?}");
        };
        check(path("/a/b"), path("/a/**"));
        check(path("/a/b/**"), path("/a/**"));
        check(path("/a/*.html"), path("/a/**"));
        check(path("/a/x*"), path("/**"));
        check(host("a.example.com"), host("*.example.com"));
        check(host("*.b.example.com"), host("*.example.com"));
        check(network("10.1.0.0/16"), network("10.0.0.0/8"));
        check(language("de-AT"), language("de"));
        check(cookie(one_of(&["a"])), cookie(ValueTest::Present));
        check(cookie(one_of(&["ab"])), cookie(one_of(&["a*", "c"])));
        check(path("/a"), Condition::always());
        check(all([path("/a"), host("b")]), path("/a"));
        check(path("/a"), any([path("/b"), path("/a")]));
        check(any([path("/a/x"), path("/a/y")]), path("/a/**"));
        check(not(path("/a/**")), not(path("/a/b")));
        check(path("/b"), not(path("/a")));
        check(path("/a"), any([all([path("/a")]), host("b")]));
        assert!(!implies(&path("/a/**"), &path("/a")));
        assert!(!implies(&path("/ax/*"), &path("/a/**")));
        assert!(!implies(&path("/a*"), &path("/a/**")));
    }

    #[test]
    fn contradictions_never_hold() {
        for condition in [
            all([path("/a"), path("/b")]),
            all([path("/a/**"), path("/b/**")]),
            all([host("a"), host("*.a")]),
            all([
                Condition::Method(Method::GET),
                Condition::Method(Method::PUT),
            ]),
            all([cookie(ValueTest::Absent), cookie(one_of(&["a"]))]),
            all([network("10.0.0.0/8"), network("192.0.2.0/24")]),
            all([language("de"), language("fr")]),
            all([
                Condition::Device(DeviceClass::Mobile),
                Condition::Device(DeviceClass::Desktop),
            ]),
            all([path("/a/b"), not(path("/a/**"))]),
            all([any([path("/a"), path("/b")]), path("/c")]),
            any([all([path("/a"), path("/b")])]),
            all([path("/a"), all([host("b"), not(path("/a"))])]),
            not(Condition::always()),
            not(any([path("/a"), Condition::always()])),
        ] {
            assert!(never_holds(&condition), "{condition:?}");
        }
        for condition in [
            Condition::always(),
            all([path("/a/**"), path("/a/b")]),
            all([cookie(one_of(&["a"])), cookie(one_of(&["b"]))]),
            all([language("de"), language("de-AT")]),
            all([path("/a/*"), not(path("/a/b"))]),
            any([all([path("/a"), path("/b")]), path("/c")]),
        ] {
            assert!(!never_holds(&condition), "{condition:?}");
        }
    }

    #[test]
    fn several_conditions_cover_one_together() {
        let method = |method| Condition::Method(method);
        let device = Condition::Device;
        let check = |condition: Condition, others: &[Condition], expected: Option<&[usize]>| {
            let found = covered_by(&condition, &others.iter().collect::<Vec<_>>());
            assert_eq!(found.as_deref(), expected, "{condition:?} {others:?}");
        };
        let get = || method(Method::GET);
        check(path("/a"), &[get(), not(get())], Some(&[0, 1]));
        check(
            path("/a"),
            &[path("/b"), get(), host("h"), not(get())],
            Some(&[1, 3]),
        );
        check(path("/a"), &[get(), path("/a/**")], Some(&[1]));
        check(path("/a"), &[get(), method(Method::POST)], None);
        let present = cookie(ValueTest::Present);
        check(
            Condition::always(),
            &[present.clone(), cookie(ValueTest::Absent)],
            Some(&[0, 1]),
        );
        check(
            cookie(one_of(&["a", "b"])),
            &[cookie(one_of(&["a"])), cookie(one_of(&["b*"]))],
            Some(&[0, 1]),
        );
        check(cookie(one_of(&["a", "b"])), &[cookie(one_of(&["a"]))], None);
        check(present, &[cookie(one_of(&["*"]))], None);
        let devices = DeviceClass::ALL.map(device);
        check(path("/a"), &devices, Some(&[0, 1, 2, 3]));
        check(path("/a"), &devices[1..], None);
        check(
            any([path("/a"), path("/b")]),
            &[path("/a"), all([path("/b"), get()]), not(get())],
            Some(&[0, 1, 2]),
        );
        check(
            any([path("/a"), path("/b")]),
            &[all([path("/b"), get()]), not(get())],
            None,
        );
        check(path("/a"), &[], None);
        check(any([]), &[path("/a")], None);
    }

    #[test]
    fn hard_questions_end_without_an_answer() {
        let either = |n: usize| any([path(&format!("/{n}*")), host(&format!("h{n}"))]);
        let many = all((0..200).map(either).collect::<Vec<_>>());
        assert!(!never_holds(&many));
        assert!(!implies(&many, &path("/x")));
    }

    fn simple() -> impl Strategy<Value = Condition> {
        let value = prop::sample::select(vec![
            ValueTest::Present,
            ValueTest::Absent,
            one_of(&["1"]),
            one_of(&["1", "2*"]),
            one_of(&["*"]),
        ]);
        let named = value
            .clone()
            .prop_map(|test| Condition::Header(HeaderName::from_static("x-a"), test));
        let query = value
            .clone()
            .prop_map(|test| Condition::Query("q".into(), test));
        let regex = Condition::Path(PathPattern::Regex(PathRegex::new("^/a").unwrap()));
        let fixed = prop::sample::select(vec![
            path("/a"),
            path("/a/**"),
            path("/a/b"),
            path("/a/*"),
            path("/**"),
            path("/a*/**"),
            path("/{a,b}/**"),
            regex,
            host("a.test"),
            host("*.a.test"),
            host("b.a.test"),
            host("*.test"),
            Condition::Method(Method::GET),
            Condition::Method(Method::PUT),
            network("10.0.0.0/8"),
            network("10.1.0.0/16"),
            network("192.0.2.0/24"),
            language("de"),
            language("de-AT"),
            language("fr"),
            Condition::Device(DeviceClass::Mobile),
            Condition::Device(DeviceClass::Desktop),
        ]);
        prop_oneof![4 => fixed, 1 => named, 1 => query, 1 => value.prop_map(cookie)]
    }

    fn condition() -> impl Strategy<Value = Condition> {
        simple().prop_recursive(3, 10, 3, |inner| {
            let list = prop::collection::vec(inner.clone(), 0..4);
            prop_oneof![
                3 => list.clone().prop_map(all),
                3 => list.prop_map(any),
                2 => inner.prop_map(not),
            ]
        })
    }

    fn asked() -> impl Strategy<Value = request::Parts> {
        let target = (
            "(/(a|b|c)){0,2}/?",
            "(\\?q(=[12])?(&q=2x)?)?",
            "(b\\.)?(a\\.)?test",
        );
        let fields = ("[12x]{0,2}", prop::option::of("c=[12x]?"), "de|de-AT|fr|en");
        let client = prop::sample::select(vec!["10.1.0.1", "10.2.0.1", "192.0.2.1", "::1"]);
        let method = prop::sample::select(vec![Method::GET, Method::PUT]);
        (target, fields, client, method).prop_map(|(target, fields, client, method)| {
            let (path, query, host) = target;
            let path = if path.is_empty() {
                "/".to_owned()
            } else {
                path
            };
            let request = http::Request::builder()
                .method(method)
                .uri(format!("{path}{query}"));
            let mut request = request
                .header("host", host)
                .header("accept-language", fields.2);
            if let Some(cookie) = fields.1 {
                request = request.header("cookie", cookie);
            }
            for value in fields.0.chars() {
                request = request.header("x-a", value.to_string());
            }
            let (mut head, ()) = request.body(()).unwrap().into_parts();
            head.extensions
                .insert(ClientAddress(client.parse().unwrap()));
            head
        })
    }

    /// All simple conditions of one kind, and requests that tell them apart.
    fn kinds() -> Vec<(Vec<Condition>, Vec<request::Parts>)> {
        let ask = |uri: &str, name: &'static str, value: &str| {
            let request = http::Request::builder().uri(uri).header(name, value);
            request.body(()).unwrap().into_parts().0
        };
        let regex = Condition::Path(PathPattern::Regex(PathRegex::new("^/a").unwrap()));
        let paths = [
            "/", "/a", "/a/", "/a/b", "/a/b/c", "/a/x", "/ax", "/ax/b", "/b", "/b/a",
        ];
        let patterns = [
            "/a",
            "/a/**",
            "/a/b",
            "/a/b/**",
            "/a/*",
            "/**",
            "/a*/**",
            "/{a,b}/**",
            "/b",
        ];
        let hosts = ["a.test", "b.a.test", "c.b.a.test", "xa.test", "test"];
        let host_patterns = ["a.test", "*.a.test", "b.a.test", "*.b.a.test", "*.test"];
        let values = ["c=1", "c=2", "c=22", "c=", "x=1", "c=1; c=2"];
        let tests = [
            ValueTest::Present,
            ValueTest::Absent,
            one_of(&["1"]),
            one_of(&["1", "2*"]),
            one_of(&["2"]),
            one_of(&["*"]),
        ];
        let languages = ["de", "de-AT", "de-CH", "fr", "x"];
        let agents = [
            "Mozilla/5.0 (iPad)",
            "Mozilla/5.0 Mobile",
            "Mozilla/5.0 (X11)",
            "curl/8",
        ];
        let networks = [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "192.0.2.0/24",
            "2001:db8::/32",
            "0.0.0.0/0",
        ];
        let clients = [
            "10.1.0.1",
            "10.2.0.1",
            "192.0.2.1",
            "198.51.100.1",
            "2001:db8::1",
            "::1",
        ];
        let from = |client: &&str| {
            let mut head = ask("/", "host", "test");
            head.extensions
                .insert(ClientAddress(client.parse().unwrap()));
            head
        };
        vec![
            (
                patterns.map(path).into_iter().chain([regex]).collect(),
                paths.map(|path| ask(path, "host", "test")).into(),
            ),
            (
                host_patterns.map(host).into(),
                hosts.map(|host| ask("/", "host", host)).into(),
            ),
            (
                tests.map(cookie).into(),
                values.map(|value| ask("/", "cookie", value)).into(),
            ),
            (
                ["de", "de-AT", "fr"].map(language).into(),
                languages.map(|it| ask("/", "accept-language", it)).into(),
            ),
            (
                DeviceClass::ALL.map(Condition::Device).into(),
                agents.map(|agent| ask("/", "user-agent", agent)).into(),
            ),
            (
                networks.map(network).into(),
                clients.iter().map(from).collect(),
            ),
        ]
    }

    #[test]
    fn pairs_of_simple_conditions_agree_with_requests() {
        let (mut within, mut apart) = (0, 0);
        for (conditions, requests) in kinds() {
            let holds = |condition: &Condition| -> Vec<bool> {
                let matcher = Matcher::new(condition.clone());
                requests.iter().map(|head| matcher.matches(head)).collect()
            };
            for first in &conditions {
                for second in &conditions {
                    let pairs = || holds(first).into_iter().zip(holds(second));
                    if implies(first, second) {
                        within += usize::from(first != second);
                        assert!(pairs().all(|(a, b)| !a || b), "{first:?} {second:?}");
                    }
                    if excludes(first, second) {
                        apart += 1;
                        assert!(pairs().all(|(a, b)| !a || !b), "{first:?} {second:?}");
                    }
                }
            }
        }
        assert!(
            within > 30 && apart > 60,
            "what is plain is known: {within} {apart}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn no_request_contradicts_what_is_known(
            first in condition(),
            second in condition(),
            third in condition(),
            requests in prop::collection::vec(asked(), 12),
        ) {
            let (apart, within) = (excludes(&first, &second), implies(&first, &second));
            let (never, covered) = (never_holds(&first), covered_by(&first, &[&second, &third]));
            let third = Matcher::new(third);
            let (a, b) = (Matcher::new(first), Matcher::new(second));
            for head in &requests {
                let (a, b) = (a.matches(head), b.matches(head));
                prop_assert!(covered.is_none() || !a || b || third.matches(head), "{head:?}");
                prop_assert!(!(apart && a && b), "{head:?}");
                prop_assert!(!within || !a || b, "{head:?}");
                prop_assert!(!never || !a, "{head:?}");
            }
        }
    }
}
