//! `watershed explain`: computes the groups of a user or a request, without a server.

use super::config_file::ConfigFile;
use super::output::Output;
use crate::admin::results::assignments::{self, ExperimentAssignment};
use crate::config::plan::{Plan, RouteAnswer, RouteIndex};
use crate::experiment::http_view::{ClientAddress, HeaderView};
use crate::experiment::identity::{self, Visitor};
use crate::experiment::kept_groups::{self, GROUPS_COOKIE};
use crate::experiment::message_edits::Redirect;
use crate::experiment::minted;
use crate::experiment::not_counted::NotCounted;
use crate::experiment::resolve::{
    Assignment, Membership, OutsideReason, Subject, VariesBy, membership,
};
use crate::experiment::robots::Robots;
use crate::experiment::units::Units;
use crate::experiment::{Experiment, ExperimentIndex, UpstreamIndex, UserId};
use crate::proxy;
use anyhow::Context;
use http::request::Parts;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{SystemTime, UNIX_EPOCH};

/// The arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["user", "request"]))]
pub(super) struct Arguments {
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
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let plan = arguments.file.load()?;
    let user = arguments.user.as_deref().map(str::as_bytes);
    let user = user.map(|user| minted::id_of(&plan.identity.keys, user));
    let explanation = match (&arguments.request, user) {
        (Some(request), user) => {
            let mut request = parse(request, &arguments.headers)?;
            let peer = (arguments.from, false);
            let client = proxy::believed_client(&plan, &request.headers, peer);
            request.extensions.insert(ClientAddress(client.address));
            of_request(&plan, &request, user)
        }
        (None, user) => {
            let explained = assignments::explain(&plan, user.unwrap_or_default());
            let groups = explained.experiments.into_iter();
            Explanation {
                user: Some(explained.user),
                groups: groups.map(ExplainedGroup::of).collect(),
                ..Explanation::default()
            }
        }
    };
    Ok(output.print(|| explanation.text(), || explanation.document())?)
}

/// What is known of a user or a request.
#[derive(Default)]
struct Explanation {
    /// The user's ID, if it is known.
    user: Option<String>,
    /// Who makes a request, as people read it.
    who: Option<String>,
    /// Why a request is not counted.
    not_counted: Option<&'static str>,
    notes: Vec<String>,
    groups: Vec<ExplainedGroup>,
    /// Who answers a request.
    answer: RequestAnswer,
}

/// The group in one experiment.
struct ExplainedGroup {
    experiment: String,
    group: Option<String>,
    upstream: Option<String>,
    why: String,
    /// Whether the group is decided later.
    is_open: bool,
    /// Whether the request does not expose its user, although it is in a group.
    is_unexposed: bool,
    /// Whether it would, if its copy were answered differently.
    is_by_difference: bool,
    /// Where the request is copied to.
    mirror: Option<String>,
}

impl ExplainedGroup {
    fn of(assignment: ExperimentAssignment) -> ExplainedGroup {
        ExplainedGroup {
            group: assignment.group,
            upstream: assignment.upstream,
            ..ExplainedGroup::none(&assignment.name, assignment.why)
        }
    }

    fn none(experiment: &str, why: String) -> ExplainedGroup {
        ExplainedGroup {
            experiment: experiment.to_owned(),
            group: None,
            upstream: None,
            why,
            is_open: false,
            is_unexposed: false,
            is_by_difference: false,
            mirror: None,
        }
    }

    /// Two lines, or three.
    fn text(&self) -> String {
        let group = self.group.as_deref();
        let none = if self.is_open {
            "no group yet"
        } else {
            "no group"
        };
        let upstream = self.upstream.as_ref();
        let upstream = upstream.map_or(String::new(), |upstream| format!(" (upstream {upstream})"));
        let unexposed = match (self.is_unexposed, self.is_by_difference) {
            (true, true) => {
                "  exposed if the copy of the request is answered differently (`expose: differs`)\n"
            }
            (true, false) => "  not exposed yet: the request does not match `expose`\n",
            (false, _) => "",
        };
        let mirror = self.mirror.as_ref();
        let mirror = mirror.map_or(String::new(), |mirror| format!("  {mirror}\n"));
        let (experiment, group) = (&self.experiment, group.unwrap_or(none));
        format!(
            "{experiment}: {group}{upstream}\n  {}\n{unexposed}{mirror}",
            self.why
        )
    }

    fn document(&self) -> Value {
        json!({
            "name": self.experiment,
            "group": self.group,
            "upstream": self.upstream,
            "why": self.why,
            "exposed": self.group.is_some() && !self.is_unexposed,
            "mirror": self.mirror,
        })
    }
}

impl Explanation {
    fn text(&self) -> String {
        let mut text = self
            .who
            .as_ref()
            .map_or(String::new(), |who| format!("user: {who}\n"));
        if let Some(why) = self.not_counted {
            text += &format!("not counted: {why}\n");
        }
        for note in &self.notes {
            text += &format!("{note}\n");
        }
        text.extend(self.groups.iter().map(ExplainedGroup::text));
        if let Some(how) = &self.answer.how {
            text += &format!("{how}\n");
        }
        let upstream = self.answer.upstream.as_ref();
        text + &upstream.map_or(String::new(), |upstream| format!("upstream: {upstream}\n"))
    }

    fn document(&self) -> Value {
        let groups: Vec<Value> = self.groups.iter().map(ExplainedGroup::document).collect();
        json!({
            "user": self.user,
            "not_counted": self.not_counted,
            "notes": self.notes,
            "experiments": groups,
            "answer": self.answer.how,
            "upstream": self.answer.upstream,
        })
    }
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
fn of_request(plan: &Plan, request: &Parts, named: Option<&[u8]>) -> Explanation {
    let consents = plan
        .consent
        .as_ref()
        .is_none_or(|consent| consent.is_given(&request.headers));
    let visitor = match named {
        Some(named) => Visitor::named(named),
        None => identity::find(&plan.identity, request).filter(|_| consents),
    };
    let unverified = match visitor {
        None if consents => unverified(plan, request),
        _ => None,
    };
    let visitor = visitor.or_else(|| Visitor::named(unverified?));
    let kind = |rules: &Robots, user_agent: &[u8]| rules.client_kind(user_agent);
    let not_counted = plan.counting.not_counted(request, visitor.as_ref(), kind);
    let user = visitor.as_ref().map(|visitor| {
        let id = visitor.assigned_by();
        String::from_utf8_lossy(id.as_bytes()).into_owned()
    });
    let mut explanation = Explanation {
        who: Some(match unverified {
            Some(id) => format!(
                "{} (minted; the keys that sign it are kept with the store, so its tag was not checked)",
                String::from_utf8_lossy(id)
            ),
            None => who(user.as_deref(), consents, not_counted),
        }),
        user,
        not_counted: not_counted.map(NotCounted::explained),
        ..Explanation::default()
    };
    let follows = not_counted.is_none_or(|why| plan.counting.follows_group(why));
    match visitor.filter(|_| follows) {
        Some(visitor) => of_user(plan, request, (&visitor, not_counted), &mut explanation),
        None if not_counted.is_none() && consents => of_new(plan, request, &mut explanation),
        None => of_nobody(plan, request, not_counted, &mut explanation),
    }
    explanation
}

/// The ID in a cookie that has a tag of keys which are not known here: without `identity.keys`, only a running process has
/// them.
fn unverified<'a>(plan: &Plan, request: &'a Parts) -> Option<&'a [u8]> {
    let identity = &plan.identity;
    let mut values = (&request.headers)
        .cookie_texts(&identity.mint.cookie)
        .filter(|_| !identity.keys_from_file);
    values.find_map(|value| {
        let id = minted::id_of(&identity.keys, value);
        (id.len() < value.len()).then_some(id)
    })
}

fn who(user: Option<&str>, consents: bool, not_counted: Option<NotCounted>) -> String {
    match user {
        Some(user) => user.to_owned(),
        None if !consents => "none, because the request brings no consent".to_owned(),
        None if not_counted.is_some() => "none".to_owned(),
        None => "none, a new ID is minted".to_owned(),
    }
}

fn of_user(
    plan: &Plan,
    request: &Parts,
    (visitor, not_counted): (&Visitor<'_>, Option<NotCounted>),
    explanation: &mut Explanation,
) {
    let experiments = &plan.experiments;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = now_s.map_or(0, |now| now.as_secs());
    let values = (&request.headers).cookies(GROUPS_COOKIE);
    let (keys, user) = (&plan.identity.keys, visitor.assigned_by());
    let kept = kept_groups::read(keys, user, values, (experiments, now_s), |why| {
        let note = format!("the cookie {GROUPS_COOKIE}, or a part of it, is ignored: {why}");
        explanation.notes.push(note);
    });
    let units = Units::of(&plan.units, plan.identity.id_bytes_max, request);
    let subject = Subject {
        kept: Some(&kept),
        units: Some(&units),
        ..Subject::of(visitor.assigned_by())
    };
    let (assignment, route) = proxy::assign(plan, request, Some(&subject), None);
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
        let is_unexposed = inside.is_some_and(|it| !it.exposes) && not_counted.is_none();
        explanation.groups.push(ExplainedGroup {
            is_unexposed,
            is_by_difference: experiment.exposes_by_difference(),
            mirror: mirrored(plan, request, &assignment, index).filter(|_| not_counted.is_none()),
            ..ExplainedGroup::of(assignments::of_membership(plan, index, found))
        });
    }
    explanation.answer = answer(plan, &assignment, route);
    if let Some((index, group, _)) = assignment.chosen.filter(|_| assignment.varies_by.page) {
        let experiment = plan.experiment(index);
        let group = &experiment.groups[group.0].name;
        let how = format!(
            "with the page that `Referer` names: {}={group} (`assets: follow`)",
            experiment.name
        );
        explanation.answer.how = Some(how);
    }
}

/// Says where a copy of a request goes, if this experiment chooses its upstream and copies it.
fn mirrored(
    plan: &Plan,
    request: &Parts,
    assignment: &Assignment,
    index: ExperimentIndex,
) -> Option<String> {
    let (_, group, _) = assignment.chosen.filter(|(chosen, ..)| *chosen == index)?;
    let experiment = plan.experiment(index);
    let mirror = experiment.mirrors()?;
    let target = experiment.copy_target(group)?;
    let name = &plan.upstream(target.upstream).name;
    let share = 100.0 * mirror.share.get();
    let is_meant = mirror.methods.contains(&request.method);
    is_meant.then(|| format!("copied to {name} ({share} % of such requests)"))
}

/// A request of a visitor whose new ID nobody knows yet.
fn of_new(plan: &Plan, request: &Parts, explanation: &mut Explanation) {
    let units = Units::of(&plan.units, plan.identity.id_bytes_max, request);
    let Some(unknown) = UserId::new(b"unknown") else {
        return;
    };
    let subject = Subject {
        units: Some(&units),
        ..Subject::of(unknown)
    };
    let mut groups = Vec::new();
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
                let why = "decided by the hash of the new ID; counted once the ID comes back";
                groups.push(ExplainedGroup {
                    is_open: true,
                    ..ExplainedGroup::none(&experiment.name, why.to_owned())
                });
                continue;
            }
            true => membership(&plan.experiments, index, &subject),
        };
        let found = assignments::of_membership(plan, index, found);
        groups.push(ExplainedGroup::of(found));
    }
    explanation.groups = groups;
    let undecided =
        |it: &Experiment| it.matcher.matches(request) && (it.chooses_upstream() || it.acts());
    if !plan.experiments.iter().any(undecided) {
        explanation.answer = of_nobody_known(plan, request);
    }
}

/// A request that belongs to nobody: it gets control's version, or the winner's.
fn of_nobody(
    plan: &Plan,
    request: &Parts,
    not_counted: Option<NotCounted>,
    explanation: &mut Explanation,
) {
    for experiment in &plan.experiments {
        let served = experiment.winner.unwrap_or(experiment.control);
        let served = &experiment.groups[served.0].name;
        let why = match experiment.matcher.matches(request) {
            false => "the request does not match".to_owned(),
            true => format!("the version of {served}, and not counted"),
        };
        let group = ExplainedGroup::none(&experiment.name, why);
        explanation.groups.push(group);
    }
    explanation.answer = match not_counted {
        Some(NotCounted::Preflight) => match plan.counting.preflight {
            Some(upstream) => RequestAnswer::of(plan, upstream),
            // No experiment is asked.
            None => answer(
                plan,
                &Assignment::default(),
                proxy::find_route(plan, request, &mut VariesBy::default()),
            ),
        },
        _ => of_nobody_known(plan, request),
    };
}

fn of_nobody_known(plan: &Plan, request: &Parts) -> RequestAnswer {
    let (assignment, route) = proxy::assign(plan, request, None, None);
    answer(plan, &assignment, route)
}

/// Who answers a request, and how.
#[derive(Default)]
struct RequestAnswer {
    /// What answers in place of an upstream, or the route.
    how: Option<String>,
    upstream: Option<String>,
}

impl RequestAnswer {
    fn of(plan: &Plan, upstream: UpstreamIndex) -> RequestAnswer {
        RequestAnswer {
            how: None,
            upstream: Some(plan.upstream(upstream).name.to_string()),
        }
    }
}

/// Finds who answers a request: what the groups do, the route, and the upstream.
fn answer(plan: &Plan, assignment: &Assignment, route: Option<RouteIndex>) -> RequestAnswer {
    for &(index, group) in &assignment.acting {
        let experiment = plan.experiment(index);
        let group = &experiment.groups[group.0];
        let action = group.action.as_ref();
        if let Some(redirect) = action.and_then(|action| action.redirect.as_ref()) {
            let (name, group) = (&experiment.name, &group.name);
            let Redirect { location, status } = redirect;
            return RequestAnswer {
                how: Some(format!(
                    "redirected to {location} ({status}) by {name}={group}"
                )),
                upstream: None,
            };
        }
    }
    if let Some((_, _, chosen)) = assignment.chosen {
        return RequestAnswer::of(plan, chosen);
    }
    let Some(index @ RouteIndex(place)) = route else {
        return RequestAnswer::of(plan, plan.default);
    };
    let route = plan.route(index);
    let how = Some(format!(
        "routes.{place}: {}",
        route.described(&plan.upstreams)
    ));
    match route.answer {
        RouteAnswer::Upstream(upstream) => RequestAnswer {
            how,
            ..RequestAnswer::of(plan, upstream)
        },
        _ => RequestAnswer {
            how,
            upstream: None,
        },
    }
}
