//! How an experiment keeps the versions of a site apart, and which one stands in for another that fails.

use super::{GroupIndex, UpstreamIndex};
use std::ops::RangeInclusive;

/// The rules of one experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionRules {
    /// Whether ETags name the version that issued them.
    pub marks_validators: bool,
    /// Which cookies each version has for itself; `None` for none.
    pub isolation: Option<CookieIsolation>,
    /// What is done about a version that fails.
    pub when_down: WhenDown,
    /// Whether what one version does not have is looked for in the other.
    pub follows_assets: bool,
    /// How long a page that is open keeps getting what belongs to it from the version that served it, in
    /// seconds; `None` for not at all.
    pub skew_s: Option<u32>,
}

/// Which cookies are isolated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CookieIsolation {
    /// The isolated names; `None` for all that are not shared.
    pub isolated: Option<Box<[Box<str>]>>,
    /// The shared names.
    pub shared: Box<[Box<str>]>,
}

/// What is done about a version that fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhenDown {
    /// Which version stands in.
    pub serve: StandIn,
    /// Statuses of responses to safe requests that count as failures, beside connections and health.
    pub statuses: Box<[RangeInclusive<u16>]>,
}

/// Which version stands in for one that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StandIn {
    /// Control's.
    #[default]
    Control,
    /// Control's, and for control itself the first other version.
    Other,
    /// None: the client gets the error.
    Error,
}

impl WhenDown {
    /// Whether a response of this status counts as a failure of the version.
    pub fn is_failure(&self, status: u16) -> bool {
        self.statuses.iter().any(|range| range.contains(&status))
    }

    /// Returns the group whose version stands in for that of another one.
    pub fn stand_in(&self, versions: &GroupVersions<'_>, failed: GroupIndex) -> Option<GroupIndex> {
        match self.serve {
            StandIn::Error => None,
            StandIn::Control => Some(versions.control).filter(|it| versions.differ(*it, failed)),
            StandIn::Other => versions.other(failed),
        }
    }
}

/// The versions of an experiment's groups.
pub struct GroupVersions<'a> {
    /// The upstream of each group.
    pub upstream: &'a dyn Fn(GroupIndex) -> Option<UpstreamIndex>,
    /// Whether users get the version of a group now. Others serve nobody, not even in the place of one that fails.
    pub is_released: &'a dyn Fn(GroupIndex) -> bool,
    /// The number of groups.
    pub groups: usize,
    /// The control group.
    pub control: GroupIndex,
}

impl GroupVersions<'_> {
    /// Returns the first group, control before all others, whose upstream is another one than that of a group, and whose
    /// version users get now.
    pub fn other(&self, asked: GroupIndex) -> Option<GroupIndex> {
        let all = (0..self.groups).map(GroupIndex);
        let mut all = std::iter::once(self.control).chain(all);
        all.find(|it| self.differ(*it, asked) && (self.is_released)(*it))
    }

    fn differ(&self, one: GroupIndex, other: GroupIndex) -> bool {
        let upstream = (self.upstream)(one);
        upstream.is_some() && upstream != (self.upstream)(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The group whose version no user gets.
    const UNRELEASED: usize = 3;

    #[test]
    fn stand_in_is_another_version() {
        let check =
            |serve: StandIn, upstreams: &[Option<usize>], failed, expected: Option<usize>| {
                let upstream = |group: GroupIndex| upstreams[group.0].map(UpstreamIndex);
                let versions = GroupVersions {
                    upstream: &upstream,
                    is_released: &|group| group.0 != UNRELEASED,
                    groups: upstreams.len(),
                    control: GroupIndex(0),
                };
                let when_down = WhenDown {
                    serve,
                    statuses: Box::default(),
                };
                let found = when_down.stand_in(&versions, GroupIndex(failed));
                let found = found.map(|it| it.0);
                assert_eq!(found, expected, "{serve:?} {upstreams:?} {failed}");
            };
        let two = [Some(0), Some(1)];
        check(
            StandIn::Other,
            &[Some(0), Some(0), Some(2), Some(3)],
            0,
            Some(2),
        );
        check(
            StandIn::Other,
            &[Some(0), Some(0), Some(0), Some(3)],
            0,
            None,
        );
        check(StandIn::Control, &two, 1, Some(0));
        check(StandIn::Control, &two, 0, None);
        check(StandIn::Other, &two, 1, Some(0));
        check(StandIn::Other, &two, 0, Some(1));
        check(StandIn::Error, &two, 1, None);
        check(StandIn::Other, &[Some(0), Some(0), Some(2)], 0, Some(2));
        check(StandIn::Other, &[Some(0), Some(0)], 1, None);
        // Control's upstream may have left the file.
        check(StandIn::Control, &[None, Some(1)], 1, None);
        check(StandIn::Other, &[None, Some(1), Some(2)], 1, Some(2));
    }

    #[test]
    fn failures_are_statuses_in_a_range() {
        let when_down = WhenDown {
            serve: StandIn::Control,
            statuses: [500..=500, 502..=504].into(),
        };
        let failures: Vec<u16> = (499..506).filter(|it| when_down.is_failure(*it)).collect();
        assert_eq!(failures, [500, 502, 503, 504]);
    }
}
