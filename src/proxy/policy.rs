//! What the plan decides about a request: who is recorded, by which ID, and what an override may
//! choose.

use crate::config::plan::Plan;
use crate::experiment::Experiment;
use crate::experiment::http_view::{HeaderView, RequestView};
use crate::experiment::identity::{self, Visitor};
use crate::experiment::kept_groups::{self, GROUPS_COOKIE, KeptGroup, KeptGroups};
use crate::experiment::not_counted::NotCounted;
use crate::experiment::override_token::{self, Override};
use crate::experiment::resolve::{self, AssignedBy, Assignment};
use crate::experiment::robots::Robots;
use crate::experiment::units::Units;
use crate::proxy::error_response::{self, ErrorCode, ProxyError};
use crate::proxy::headers::plan_headers::{self, OverrideToken};
use crate::proxy::observe::trace_context::Correlation;
use crate::proxy::robot_cache::RobotCache;
use crate::proxy::snapshot::Worker;
use std::time::Duration;

/// What the file says that a request must be told apart by.
pub(super) fn correlation<'a>(
    plan: &Plan,
    fields: impl HeaderView<'a>,
    trusted: bool,
    now_ms: u64,
) -> Correlation {
    Correlation::of(&plan.tracing, fields, trusted, now_ms, || {
        fastrand::u128(..)
    })
}

/// How long an upstream may pause in the middle of an answer. Events are waited for.
pub(super) fn pause_max(plan: &Plan, of_events: bool) -> Duration {
    match of_events {
        true => plan.timeouts.tunnel,
        false => plan.timeouts.body,
    }
}

/// Whether this visitor may be recorded.
pub(super) fn consents<'a>(plan: &Plan, fields: impl HeaderView<'a>) -> bool {
    let consent = plan.consent.as_ref();
    consent.is_none_or(|consent| consent.is_given(fields))
}

/// Why a request is not counted, if it is not. `visitor` is the user whom it names.
pub(super) fn not_counted<'a>(
    (plan, robots): (&Plan, &RobotCache),
    request: impl RequestView<'a>,
    visitor: Option<&Visitor<'_>>,
) -> Option<NotCounted> {
    let kind = |rules: &Robots, user_agent: &[u8]| robots.client_kind(rules, user_agent);
    plan.counting.not_counted(request, visitor, kind)
}

/// Counts how often an ID comes. An ID that was minted just now comes for the first time.
pub(super) fn note_id(worker: &Worker, plan: &Plan, visitor: Option<&Visitor<'_>>) {
    let known = visitor.filter(|visitor| !visitor.is_new());
    let id = known.map(Visitor::user);
    let shown = || id.map_or(String::new(), |id| plan.identity.keep.shown(id));
    let frequent_ids = &worker.telemetry().frequent_ids;
    frequent_ids.note(id.map(|id| id.as_bytes()), shown);
}

/// What a token asks for, if it is sound and for an experiment and group of this plan.
pub(super) fn honour(plan: &Plan, brought: &OverrideToken, now_ms: u64) -> Option<Override> {
    let secret = plan.override_secret.as_ref()?;
    let forced = override_token::verify(secret.reveal().as_bytes(), &brought.token, now_ms / 1000);
    let forced = forced
        .inspect_err(|unsound| tracing::debug!("an override was ignored: {unsound}"))
        .ok()?;
    let known = plan
        .experiments
        .iter()
        .any(|experiment| forced.group_in(experiment).is_some());
    known.then_some(forced)
}

/// A new ID for the sender of a request, unless the system has no random numbers to give.
pub(super) fn mint<'a>(
    plan: &Plan,
    request: impl RequestView<'a>,
    now_ms: u64,
) -> Option<Visitor<'static>> {
    // A promotion without its experiment may give everybody one version.
    let divides = |it: &Experiment| !it.has_left_file || it.divides_users();
    if !plan.experiments.iter().any(divides) {
        return None;
    }
    let mut random = [0; 10];
    getrandom::fill(&mut random).ok()?;
    let mut eligible = resolve::eligible(&plan.experiments, request);
    let in_experiment = eligible.next().is_some();
    Some(identity::mint(now_ms, &random, in_experiment))
}

/// What the request names besides the user, where experiments divide such units.
pub(super) fn units<'a>(plan: &Plan, request: impl RequestView<'a>) -> Option<Box<Units<'a>>> {
    let wanted = !plan.units.is_empty();
    wanted.then(|| Box::new(Units::of(&plan.units, plan.identity.id_bytes_max, request)))
}

/// The groups that the user was in before, by the cookie; `None` where no experiment is sticky.
pub(super) fn kept_groups<'a>(
    plan: &Plan,
    fields: impl HeaderView<'a>,
    visitor: Option<&Visitor<'_>>,
    now_ms: u64,
) -> Option<Box<KeptGroups>> {
    let visitor = visitor.filter(|_| plan.experiments.has_sticky())?;
    let values = fields.cookies(GROUPS_COOKIE);
    let at = (&plan.experiments, now_ms / 1000);
    let (keys, user) = (&plan.identity.keys, visitor.assigned_by());
    let kept = kept_groups::read(keys, user, values, at, |why| {
        tracing::debug!("the cookie {GROUPS_COOKIE}, or a part of it, was ignored: {why}");
    });
    Some(Box::new(kept))
}

/// The cookie that keeps the user in the groups of sticky experiments; `None` if the client has the same.
pub(super) fn keep_groups(
    plan: &Plan,
    visitor: &Visitor<'_>,
    kept: &KeptGroups,
    assignment: &Assignment,
    (now_ms, over_tls): (u64, bool),
) -> Option<String> {
    let inside = assignment.inside.iter();
    let new = inside.filter(|inside| {
        let is_sticky = plan.experiment(inside.experiment).is_sticky;
        is_sticky && inside.by == AssignedBy::Hash
    });
    let mut entries = kept.entries.clone();
    entries.extend(new.map(|inside| KeptGroup {
        experiment: inside.experiment,
        group: inside.group,
        epoch: plan.experiment(inside.experiment).epoch,
        since_s: now_ms / 1000,
    }));
    if entries.len() == kept.entries.len() && !kept.is_old {
        return None;
    }
    let user = visitor.assigned_by();
    let value = kept_groups::write(&plan.identity.keys, user, &entries, &plan.experiments);
    Some(plan_headers::groups_cookie(plan, &value, over_tls))
}

/// The cookie that keeps an override which came in a link.
pub(super) fn keep_override(
    brought: &OverrideToken,
    forced: &Override,
    now_ms: u64,
    over_tls: bool,
) -> Option<String> {
    let seconds = forced.expires_s.saturating_sub(now_ms / 1000);
    brought
        .by_link
        .then(|| plan_headers::override_cookie(&brought.token, seconds, over_tls))
}

/// Counts an error and logs its cause.
pub(super) fn log_error(worker: &Worker, error: &ProxyError) {
    worker.telemetry().refusals.add();
    let cause = error
        .source
        .as_ref()
        .map_or(String::new(), |cause| format!(": {cause}"));
    match error.code {
        // Said once by the pool, when the endpoint went away.
        ErrorCode::Unresolved
        | ErrorCode::Refused
        | ErrorCode::Distrusted
        | ErrorCode::ConnectTimedOut => {
            tracing::debug!("{error}{cause}")
        }
        _ if error.code.blame() == error_response::Blame::Upstream => {
            tracing::warn!("{error}{cause}")
        }
        _ => tracing::debug!("{error}{cause}"),
    }
}
