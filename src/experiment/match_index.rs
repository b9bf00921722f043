//! Finds the experiments of a plan that a request may be eligible for. With many experiments, most are for
//! other hosts or other parts of the site, and need not be checked.

use super::http_view::RequestView;
use super::matcher::{HostPattern, Matcher, PathPattern};
use super::{Experiment, ExperimentIndex};
use foldhash::fast::RandomState;
use std::borrow::Cow;
use std::collections::HashMap;
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
        Experiments {
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
        let mut count: HashMap<(bool, String), usize> = HashMap::new();
        let keys = |matcher: &Matcher| (host_of(matcher), segment_of(matcher));
        for (host, segment) in matchers.clone().map(keys) {
            for key in [host.map(|it| (true, it)), segment.map(|it| (false, it))] {
                key.into_iter()
                    .for_each(|key| *count.entry(key).or_default() += 1);
            }
        }
        let mut routes = Routes::default();
        for (index, (host, segment)) in matchers.map(keys).enumerate() {
            let host = host.map(|it| (true, it));
            let segment = segment.map(|it| (false, it));
            // Use the table that separates more of them.
            let rarest = [host, segment]
                .into_iter()
                .flatten()
                .min_by_key(|key| count[key]);
            let there = match rarest {
                Some((true, host)) => routes.by_host.entry(host.into()).or_default(),
                Some((false, segment)) => routes.by_segment.entry(segment.into()).or_default(),
                None => &mut routes.anywhere,
            };
            there.push(index);
        }
        routes
    }

    fn find<'a>(&self, request: impl RequestView<'a>) -> [&[usize]; 3] {
        let mut found: [&[usize]; 3] = [&self.anywhere, &[], &[]];
        if !self.by_host.is_empty() {
            let host = lower(request.host());
            found[1] = self.by_host.get(&*host).map_or(&[], Vec::as_slice);
        }
        if let Some(segment) = first_segment(request.path()) {
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

fn host_of(matcher: &Matcher) -> Option<String> {
    match matcher.host.as_ref()? {
        HostPattern::Exact(host) => Some(host.to_ascii_lowercase()),
        HostPattern::Under(_) => None,
    }
}

/// Returns the first segment of every path that matches, if it is always the same.
fn segment_of(matcher: &Matcher) -> Option<String> {
    let segment = match matcher.path.as_ref()? {
        PathPattern::Exact(path) => first_segment(path)?,
        PathPattern::Under(base) => first_segment(base)?,
        PathPattern::Glob(glob) => {
            let (segment, _) = glob.strip_prefix('/')?.split_once('/')?;
            segment
        }
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
    use proptest::prelude::*;

    fn path() -> impl Strategy<Value = String> {
        "(/(a|b|shop|\\*|\\*\\*|\\{a,b\\}|\\[a-c\\]|)){1,3}"
    }

    fn host() -> impl Strategy<Value = String> {
        "(\\*\\.|a\\.|A\\.)?(example|EXAMPLE|shop)\\.test"
    }

    fn matcher() -> impl Strategy<Value = Matcher> {
        let (path, host) = (prop::option::of(path()), prop::option::of(host()));
        (path, host).prop_map(|(path, host)| Matcher {
            path: path.as_deref().map(PathPattern::new),
            host: host.as_deref().map(HostPattern::new),
            ..Matcher::default()
        })
    }

    proptest! {
        #[test]
        fn no_eligible_experiment_is_missed_and_order_is_kept(
            matchers in prop::collection::vec(matcher(), 1..30),
            asked_path in "(/(a|b|c|shop|shopping|)){1,3}",
            asked_host in "(a\\.|A\\.|b\\.)?(example|Example|shop)\\.test(:80)?",
        ) {
            let routes = Routes::of(matchers.iter());
            let request = http::Request::get(&asked_path).header("host", &asked_host);
            let (head, ()) = request.body(()).unwrap().into_parts();
            let mut candidates = Candidates::Some(routes.find(&head));
            let found: Vec<usize> = std::iter::from_fn(|| candidates.next()).collect();
            prop_assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
            for (index, matcher) in matchers.iter().enumerate() {
                let eligible = matcher.judge(&head) != Eligibility::No;
                prop_assert!(!eligible || found.contains(&index), "{index} {matcher:?} {found:?}");
            }
        }
    }

    #[test]
    fn one_of_many_is_found_without_checking_others() {
        let of_site = |number: usize| Matcher {
            path: Some(PathPattern::new("/shop/**")),
            host: Some(HostPattern::new(&format!("site-{number}.test"))),
            ..Matcher::default()
        };
        let matchers: Vec<Matcher> = (0..1000).map(of_site).collect();
        let routes = Routes::of(matchers.iter());
        let request = http::Request::get("/shop/a").header("host", "site-7.test");
        let (head, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(routes.find(&head), [&[][..], &[7], &[]]);
    }
}
