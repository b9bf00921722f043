//! Finds the experiments of a plan that a request may be eligible for. With many experiments, most are for
//! other hosts or other parts of the site, and need not be checked.

use super::http_view::RequestView;
use super::matcher::{Condition, Matcher};
use super::pattern::{HostPattern, PathPattern};
use super::{Experiment, ExperimentIndex};
use foldhash::fast::RandomState;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::{Deref, DerefMut};

/// Up to this number, all experiments are checked in turn.
const FEW: usize = 8;

type Places = HashMap<Box<str>, Vec<usize>, RandomState>;

/// Experiments in file order. Their conditions must not be changed.
#[derive(Clone, Debug, Default)]
pub struct Experiments {
    all: Box<[Experiment]>,
    routes: Option<Routes>,
    has_sticky: bool,
    follows_pages: bool,
}

#[derive(Clone, Debug, Default)]
struct Routes {
    /// Experiments that are in neither of the other tables.
    anywhere: Vec<usize>,
    /// By host, in lower case.
    by_host: Places,
    /// By the first segment of the path.
    by_segment: Places,
}

impl From<Vec<Experiment>> for Experiments {
    fn from(all: Vec<Experiment>) -> Experiments {
        let routes = (all.len() > FEW).then(|| Routes::of(all.iter().map(|it| &it.matcher)));
        let is_for_parts = |own: &Experiment| {
            let is_whole_site = *own.matcher.condition() == Condition::always();
            own.versions.follows_assets && !is_whole_site
        };
        Experiments {
            follows_pages: all.iter().any(is_for_parts),
            has_sticky: all.iter().any(|it| it.is_sticky),
            all: all.into(),
            routes,
        }
    }
}

impl Deref for Experiments {
    type Target = [Experiment];

    fn deref(&self) -> &[Experiment] {
        &self.all
    }
}

impl DerefMut for Experiments {
    fn deref_mut(&mut self) -> &mut [Experiment] {
        &mut self.all
    }
}

impl<'a> IntoIterator for &'a Experiments {
    type Item = &'a Experiment;
    type IntoIter = std::slice::Iter<'a, Experiment>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}

impl Experiments {
    /// Whether a cookie keeps users in the groups of some experiment.
    pub fn has_sticky(&self) -> bool {
        self.has_sticky
    }

    /// Whether requests that no experiment matches follow the version of their page.
    pub fn follows_pages(&self) -> bool {
        self.follows_pages
    }

    /// Returns the experiments that this request may be eligible for, in file order.
    pub fn candidates<'a>(
        &self,
        request: impl RequestView<'a>,
    ) -> impl Iterator<Item = (ExperimentIndex, &Experiment)> {
        let mut candidates = match &self.routes {
            None => Candidates::All(0..self.all.len()),
            Some(routes) => Candidates::Some(routes.find(request)),
        };
        std::iter::from_fn(move || {
            let index = candidates.next()?;
            Some((ExperimentIndex(index), &self.all[index]))
        })
    }
}

impl Routes {
    fn of<'a>(matchers: impl Iterator<Item = &'a Matcher> + Clone) -> Routes {
        let keys = |matcher: &Matcher| {
            let hosts = names(matcher.condition(), &host_of);
            let segments = names(matcher.condition(), &segment_of);
            [(true, hosts), (false, segments)]
        };
        let keys = matchers.map(keys);
        let mut count: HashMap<(bool, String), usize> = HashMap::new();
        for (is_host, name) in keys.clone().flatten().flat_map(each) {
            *count.entry((is_host, name)).or_default() += 1;
        }
        let mut routes = Routes::default();
        for (index, keys) in keys.enumerate() {
            // Use the table that separates more of them.
            let commonest = |keys: &(bool, BTreeSet<String>)| {
                let counts = each((keys.0, Some(keys.1.clone()))).map(|key| count[&key]);
                counts.max().unwrap_or_default()
            };
            let known = keys.into_iter();
            let known = known.filter_map(|(is_host, names)| Some((is_host, names?)));
            let Some((is_host, names)) = known.min_by_key(commonest) else {
                routes.anywhere.push(index);
                continue;
            };
            let table = match is_host {
                true => &mut routes.by_host,
                false => &mut routes.by_segment,
            };
            for name in names {
                table.entry(name.into()).or_default().push(index);
            }
        }
        routes
    }

    fn find<'a>(&self, request: impl RequestView<'a>) -> [&[usize]; 3] {
        let mut found: [&[usize]; 3] = [&self.anywhere, &[], &[]];
        if !self.by_host.is_empty() {
            let host = lower(request.host());
            found[1] = self.by_host.get(&*host).map_or(&[], Vec::as_slice);
        }
        if !self.by_segment.is_empty()
            && let Some(segment) = first_segment(&request.normal_path())
        {
            found[2] = self.by_segment.get(segment).map_or(&[], Vec::as_slice);
        }
        found
    }
}

enum Candidates<'a> {
    All(std::ops::Range<usize>),
    /// All of them, in order.
    Some([&'a [usize]; 3]),
}

impl Candidates<'_> {
    fn next(&mut self) -> Option<usize> {
        let lists = match self {
            Candidates::All(range) => return range.next(),
            Candidates::Some(lists) => lists,
        };
        let list = lists
            .iter_mut()
            .filter(|list| !list.is_empty())
            .min_by_key(|list| list[0])?;
        let (&first, rest) = list.split_first()?;
        *list = rest;
        Some(first)
    }
}

fn each(
    (is_host, names): (bool, Option<BTreeSet<String>>),
) -> impl Iterator<Item = (bool, String)> {
    let names = names.into_iter().flatten();
    names.map(move |name| (is_host, name))
}

/// Returns names of which every request has one for which the condition holds, if there are some. `of`
/// returns the only name for a condition that is not made of others.
fn names(
    condition: &Condition,
    of: &impl Fn(&Condition) -> Option<String>,
) -> Option<BTreeSet<String>> {
    match condition {
        Condition::All(list) => {
            let names = list.iter().filter_map(|condition| names(condition, of));
            names.min_by_key(BTreeSet::len)
        }
        Condition::Any(list) => {
            let mut all = BTreeSet::new();
            for condition in list {
                all.append(&mut names(condition, of)?);
            }
            Some(all)
        }
        Condition::Not(_) => None,
        simple => of(simple).map(|name| BTreeSet::from([name])),
    }
}

fn host_of(condition: &Condition) -> Option<String> {
    match condition {
        Condition::Host(HostPattern::Exact(host)) => Some(host.to_string()),
        _ => None,
    }
}

/// Returns the first segment of every path that matches, if it is always the same.
fn segment_of(condition: &Condition) -> Option<String> {
    let Condition::Path(pattern) = condition else {
        return None;
    };
    let segment = match pattern {
        PathPattern::Exact(path) => first_segment(path)?,
        PathPattern::Under(base) => first_segment(base)?,
        PathPattern::Glob(glob) => {
            let (segment, _) = glob.strip_prefix('/')?.split_once('/')?;
            segment
        }
        PathPattern::Regex(_) => return None,
    };
    PathPattern::is_literal(segment).then(|| segment.to_owned())
}

fn first_segment(path: &str) -> Option<&str> {
    let rest = path.strip_prefix('/')?;
    Some(rest.split('/').next().unwrap_or(rest))
}

fn lower(host: &str) -> Cow<'_, str> {
    match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => host.to_ascii_lowercase().into(),
        false => host.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::matcher::Eligibility;
    use crate::experiment::path_regex::PathRegex;
    use crate::experiment::pattern::ValueTest;
    use http::header::HeaderName;
    use proptest::prelude::*;

    fn path() -> impl Strategy<Value = Condition> {
        let regex = "\\^?/(a|b|shop)(/|\\$)?";
        let regex =
            regex.prop_map(|text: String| PathPattern::Regex(PathRegex::new(&text).unwrap()));
        let glob = "(/(a|b|shop|%61|\\*|\\*\\*|\\{a,b\\}|\\[a-c\\])){0,2}/(a|\\*\\*)?";
        let glob = glob.prop_map(|text: String| PathPattern::new(&text).unwrap());
        prop_oneof![1 => regex, 5 => glob].prop_map(Condition::Path)
    }

    fn host() -> impl Strategy<Value = Condition> {
        let host = "(\\*\\.|a\\.|A\\.)?(example|EXAMPLE|shop)\\.test\\.?";
        host.prop_map(|text: String| Condition::Host(HostPattern::new(&text).unwrap()))
    }

    fn matcher() -> impl Strategy<Value = Matcher> {
        let header = Condition::Header(HeaderName::from_static("x-a"), ValueTest::Present);
        let simple = prop_oneof![4 => path(), 4 => host(), 1 => Just(header)];
        let condition = simple.prop_recursive(3, 12, 3, |inner| {
            let list = prop::collection::vec(inner.clone(), 0..4);
            prop_oneof![
                3 => list.clone().prop_map(|list| Condition::All(list.into())),
                3 => list.prop_map(|list| Condition::Any(list.into())),
                1 => inner.prop_map(|it| Condition::Not(Box::new(it))),
            ]
        });
        condition.prop_map(Matcher::new)
    }

    proptest! {
        #[test]
        fn no_eligible_experiment_is_missed_and_order_is_kept(
            matchers in prop::collection::vec(matcher(), 1..30),
            asked_path in "(/(a|b|c|shop|shopping|%61|s%68op|\\.|\\.\\.|)){1,3}",
            asked_host in "(a\\.|A\\.|b\\.)?(example|Example|shop)\\.test\\.?(:80)?",
        ) {
            let routes = Routes::of(matchers.iter());
            let request = http::Request::get(&asked_path).header("host", &asked_host);
            let (head, ()) = request.body(()).unwrap().into_parts();
            let mut candidates = Candidates::Some(routes.find(&head));
            let found: Vec<usize> = std::iter::from_fn(|| candidates.next()).collect();
            prop_assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
            for (index, matcher) in matchers.iter().enumerate() {
                let eligible = matcher.judge(&head) != Eligibility::NO;
                prop_assert!(!eligible || found.contains(&index), "{index} {matcher:?} {found:?}");
            }
        }
    }

    #[test]
    fn one_of_many_is_found_without_checking_others() {
        let of_site = |number: usize| {
            let path = PathPattern::new("/shop/**").unwrap();
            let hosts = [
                format!("site-{number}.test"),
                format!("www.site-{number}.test"),
            ];
            let hosts = hosts.map(|host| Condition::Host(HostPattern::new(&host).unwrap()));
            let conditions = [Condition::Path(path), Condition::Any(hosts.into())];
            Matcher::new(Condition::All(conditions.into()))
        };
        let matchers: Vec<Matcher> = (0..1000).map(of_site).collect();
        let routes = Routes::of(matchers.iter());
        let request = http::Request::get("/shop/a").header("host", "site-7.test");
        let (head, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(routes.find(&head), [&[][..], &[7], &[]]);
    }
}
