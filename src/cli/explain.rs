//! `watershed explain`: computes the groups of a user or a request, without a server.

use super::config_file::ConfigFile;
use crate::admin::results::assignments::{self, ExperimentAssignment};
use crate::config::plan::{Plan, RouteAnswer, RouteIndex};
use crate::experiment::http_view::ClientAddress;
use crate::experiment::identity::{self, Visitor};
use crate::experiment::kept_groups::{self, GROUPS_COOKIE};
use crate::experiment::message_edits::Redirect;
use crate::experiment::minted;
use crate::experiment::not_counted::NotCounted;
use crate::experiment::resolve::{
    self, Assignment, Membership, OutsideReason, Subject, membership,
};
use crate::experiment::robots::Robots;
use crate::experiment::units::Units;
use crate::experiment::{Experiment, ExperimentIndex, UserId};
use crate::proxy;
use anyhow::Context;
use http::request::Parts;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{SystemTime, UNIX_EPOCH};

/// The arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["user", "request"]))]
pub struct Arguments {
    /// The user ID, or the whole value of the minted cookie
    #[arg(short, long, value_name = "ID")]
    user: Option<String>,
    /// A request: its method and target, such as 'GET /checkout?step=2'
    #[arg(short, long, value_name = "REQUEST")]
    request: Option<String>,
    /// A header of the request, such as 'Cookie: uid=u1'; may be repeated
    #[arg(
        short = 'H',
        long = "header",
        value_name = "HEADER",
        requires = "request"
    )]
    headers: Vec<String>,
    /// The address that the request comes from
    #[arg(long, value_name = "ADDRESS", requires = "request", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    from: IpAddr,
    #[command(flatten)]
    file: ConfigFile,
}

/// Prints the group in every experiment, and the reason.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let plan = arguments.file.load()?;
    let user = arguments.user.as_deref().map(str::as_bytes);
    let user = user.map(|user| minted::id_of(&plan.identity.keys, user));
    let text = match (&arguments.request, user) {
        (Some(request), user) => {
            let mut request = parse(request, &arguments.headers)?;
            let peer = (arguments.from, false);
            let client = proxy::believed_client(&plan, &request.headers, peer);
            request.extensions.insert(ClientAddress(client.address));
            of_request(&plan, &request, user)
        }
        (None, user) => {
            let explained = assignments::explain(&plan, user.unwrap_or_default());
            explained.experiments.iter().map(shown).collect()
        }
    };
    print!("{text}");
    Ok(())
}

/// Two lines for one experiment.
fn shown(assignment: &ExperimentAssignment) -> String {
    let group = assignment.group.as_deref().unwrap_or("no group");
    let upstream = assignment.upstream.as_ref();
    let upstream = upstream.map_or(String::new(), |upstream| format!(" (upstream {upstream})"));
    format!(
        "{}: {group}{upstream}\n  {}\n",
        assignment.name, assignment.why
    )
}

fn parse(request: &str, headers: &[String]) -> anyhow::Result<Parts> {
    let (method, target) = match request.trim().split_once(char::is_whitespace) {
        Some((method, target)) => (method, target.trim()),
        None => ("GET", request.trim()),
    };
    let mut built = http::Request::builder().method(method).uri(target);
    for header in headers {
        let (name, value) = header
            .split_once(':')
            .with_context(|| format!("{header:?} is no header: write 'Name: value'"))?;
        built = built.header(name.trim(), value.trim());
    }
    let built = built.body(()).with_context(|| {
        format!("{request:?} is no request: write a method and a target, such as 'GET /checkout'")
    })?;
    Ok(built.into_parts().0)
}

/// What the proxy would do with a request.
fn of_request(plan: &Plan, request: &Parts, named: Option<&[u8]>) -> String {
    let consents = plan
        .consent
        .as_ref()
        .is_none_or(|consent| consent.is_given(&request.headers));
    let visitor = match named {
        Some(named) => Visitor::named(named),
        None => identity::find(&plan.identity, request).filter(|_| consents),
    };
    let kind = |rules: &Robots, user_agent: &[u8]| rules.client_kind(user_agent);
    let not_counted = plan.counting.not_counted(request, visitor.as_ref(), kind);
    let mut text = who(visitor.as_ref(), consents, not_counted);
    if let Some(why) = not_counted {
        text += &format!("not counted: {}\n", why.explained());
    }
    let follows = not_counted.is_none_or(|why| plan.counting.follows_group(why));
    match visitor.filter(|_| follows) {
        Some(visitor) => text + &of_user(plan, request, &visitor, not_counted),
        None if not_counted.is_none() && consents => text + &of_new(plan, request),
        None => text + &of_nobody(plan, request, not_counted),
    }
}

fn who(visitor: Option<&Visitor<'_>>, consents: bool, not_counted: Option<NotCounted>) -> String {
    match visitor {
        Some(visitor) => {
            let id = String::from_utf8_lossy(visitor.assigned_by().as_bytes());
            format!("user: {id}\n")
        }
        None if !consents => "user: none, because the request brings no consent\n".to_owned(),
        None if not_counted.is_some() => "user: none\n".to_owned(),
        None => "user: none, a new ID is minted\n".to_owned(),
    }
}

fn of_user(
    plan: &Plan,
    request: &Parts,
    visitor: &Visitor<'_>,
    not_counted: Option<NotCounted>,
) -> String {
    let experiments = &plan.experiments;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = now_s.map_or(0, |now| now.as_secs());
    let mut text = String::new();
    let values = identity::cookie_values(&request.headers, GROUPS_COOKIE);
    let (keys, user) = (&plan.identity.keys, visitor.assigned_by());
    let kept = kept_groups::read(keys, user, values, (experiments, now_s), |why| {
        text += &format!("the cookie {GROUPS_COOKIE}, or a part of it, is ignored: {why}\n");
    });
    let units = Units::of(&plan.units, plan.identity.id_bytes_max, request);
    let subject = Subject {
        kept: Some(&kept),
        units: Some(&units),
        ..Subject::of(visitor.assigned_by())
    };
    let assignment = resolve::resolve(experiments, request, &subject);
    for (place, experiment) in experiments.iter().enumerate() {
        let index = ExperimentIndex(place);
        let inside = assignment.inside.iter().find(|it| it.experiment == index);
        let found = match inside {
            _ if !experiment.matcher.matches(request) => {
                Membership::Outside(OutsideReason::NotMatched)
            }
            Some(inside) => Membership::Inside {
                group: inside.group,
                by: inside.by,
            },
            None => match (membership(experiments, index, &subject), assignment.chosen) {
                (Membership::Inside { .. }, Some((other, _, _))) => {
                    Membership::Outside(OutsideReason::AnotherChose(other))
                }
                (outside, _) => outside,
            },
        };
        text += &shown(&assignments::of_membership(plan, index, found));
        if inside.is_some_and(|it| !it.exposes) && not_counted.is_none() {
            text += "  not exposed yet: the request does not match `expose`\n";
        }
    }
    text + &upstream_of(plan, request, assignment)
}

/// A request of a visitor whose new ID nobody knows yet.
fn of_new(plan: &Plan, request: &Parts) -> String {
    let units = Units::of(&plan.units, plan.identity.id_bytes_max, request);
    let Some(unknown) = UserId::new(b"unknown") else {
        return String::new();
    };
    let subject = Subject {
        units: Some(&units),
        ..Subject::of(unknown)
    };
    let mut text = String::new();
    for (place, experiment) in plan.experiments.iter().enumerate() {
        let index = ExperimentIndex(place);
        let is_by_hash = experiment.unit.is_none() && experiment.divides_users();
        let found = match experiment.matcher.matches(request) {
            false => Membership::Outside(OutsideReason::NotMatched),
            // What the hash of another ID says is not told.
            true if experiment.admission.is_closed && experiment.winner.is_none() => {
                Membership::Outside(OutsideReason::Closed)
            }
            true if is_by_hash => {
                let name = &experiment.name;
                text += &format!(
                    "{name}: no group yet\n  decided by the hash of the new ID; counted once the ID comes back\n"
                );
                continue;
            }
            true => membership(&plan.experiments, index, &subject),
        };
        text += &shown(&assignments::of_membership(plan, index, found));
    }
    let undecided =
        |it: &&Experiment| it.matcher.matches(request) && (it.chooses_upstream() || it.acts());
    match plan.experiments.iter().find(undecided) {
        Some(_) => text,
        None => text + &upstream_of(plan, request, Assignment::default()),
    }
}

/// A request that belongs to nobody: it gets control's version, or the winner's.
fn of_nobody(plan: &Plan, request: &Parts, not_counted: Option<NotCounted>) -> String {
    let mut text = String::new();
    for experiment in &plan.experiments {
        let served = experiment.winner.unwrap_or(experiment.control);
        let served = &experiment.groups[served.0].name;
        let why = match experiment.matcher.matches(request) {
            false => "the request does not match".to_owned(),
            true => format!("the version of {served}, and not counted"),
        };
        text += &format!("{}: no group\n  {why}\n", experiment.name);
    }
    match not_counted {
        Some(NotCounted::Preflight) => match plan.counting.preflight {
            Some(upstream) => text + &format!("upstream: {}\n", plan.upstream(upstream).name),
            None => text + &upstream_of(plan, request, Assignment::default()),
        },
        _ => {
            let assignment = resolve::unrecorded(&plan.experiments, request, None);
            text + &upstream_of(plan, request, assignment)
        }
    }
}

/// Who answers a request, and how: what the groups do, the route, and the upstream.
fn upstream_of(plan: &Plan, request: &Parts, mut assignment: Assignment) -> String {
    let mut text = String::new();
    for &(index, group) in &assignment.acting {
        let experiment = plan.experiment(index);
        let group = &experiment.groups[group.0];
        let action = group.action.as_ref();
        if let Some(redirect) = action.and_then(|action| action.redirect.as_ref()) {
            let (name, group) = (&experiment.name, &group.name);
            let Redirect { location, status } = redirect;
            return format!("redirected to {location} ({status}) by {name}={group}\n");
        }
    }
    let mut upstream = plan.default;
    match assignment.chosen {
        Some((_, _, chosen)) => upstream = chosen,
        None => {
            let route = proxy::find_route(plan, request, &mut assignment.varies_by);
            if let Some(index @ RouteIndex(place)) = route {
                let route = plan.route(index);
                text += &format!("routes.{place}: {}\n", route.described(&plan.upstreams));
                match route.answer {
                    RouteAnswer::Upstream(of_route) => upstream = of_route,
                    _ => return text,
                }
            }
        }
    }
    text + &format!("upstream: {}\n", plan.upstream(upstream).name)
}
