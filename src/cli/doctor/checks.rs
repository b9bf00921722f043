//! What the visits say of the site.

use super::browser::Seen;
use super::diagnosis::Diagnosis;
use super::html::{self, PageAddress};
use super::shared_cache::{SharedCache, comes_from_a_cache, masked};
use super::visits::{VersionVisit, Visits};
use crate::admin::results::missed::FIX;
use crate::config::plan::Plan;
use crate::proxy::FALLBACK;
use http::StatusCode;
use http::header::{SET_COOKIE, VIA};
use serde_json::Value;
use std::collections::BTreeSet;

/// How many addresses one sentence names.
const SHOWN: usize = 5;

/// Adds all that is wrong.
pub(super) fn check(
    site: &PageAddress,
    plan: Option<&Plan>,
    visits: &Visits,
    diagnosis: &mut Diagnosis,
) {
    let pages = || {
        visits
            .versions
            .iter()
            .flat_map(|it| &it.pages)
            .chain(&visits.visitors)
    };
    through_watershed(site, pages(), diagnosis);
    for failure in &visits.failures {
        diagnosis.add(failure.kind, &failure.found, &failure.fix);
    }
    cookies(plan, visits, diagnosis);
    files(visits, diagnosis);
    for page in pages() {
        redirects(site, plan, page, diagnosis);
        names(site, plan, page, diagnosis);
        if let Some(how) = page.compression() {
            diagnosis.add(
                "compressed",
                format!("{} is compressed ({how}) although the request refuses that: its links and files were not checked", page.address),
                "let the site respect Accept-Encoding: clients exist that cannot read this either",
            );
        }
    }
    caches(&visits.visitors, diagnosis);
}

fn through_watershed<'a>(
    site: &PageAddress,
    mut pages: impl Iterator<Item = &'a Seen>,
    diagnosis: &mut Diagnosis,
) {
    let is_proxied = |it: &Seen| it.all(&VIA).any(|via| via.contains("watershed"));
    if let Some(page) = pages.find(|it| !is_proxied(it)) {
        diagnosis.add(
            "not_proxied",
            format!("{} does not come through watershed: it has no `Via: watershed`", page.address),
            format!("check that {} leads to watershed, and that nothing in front answers for it or removes `Via`", site.authority()),
        );
    }
}

/// Cookies of one name that more than one version sets: each overwrites that of the other.
fn cookies(plan: Option<&Plan>, visits: &Visits, diagnosis: &mut Diagnosis) {
    let set = |version: &VersionVisit| -> BTreeSet<String> {
        let seen = version.pages.iter().chain(&version.own_files);
        let cookies =
            seen.flat_map(|it| it.all(&SET_COOKIE).map(str::to_owned).collect::<Vec<_>>());
        let names = cookies.filter_map(|it| Some(it.split_once('=')?.0.trim().to_owned()));
        let is_read = |name: &str| {
            plan.is_some_and(|plan| plan.cookies_read.iter().any(|read| **read == *name))
        };
        names
            .filter(|it| !it.starts_with("watershed_") && !is_read(it))
            .collect()
    };
    for (place, one) in visits.versions.iter().enumerate() {
        for other in &visits.versions[place + 1..] {
            if one.experiment != other.experiment {
                continue;
            }
            let (mine, others) = (set(one), set(other));
            let both: Vec<&str> = mine.intersection(&others).map(String::as_str).collect();
            if both.is_empty() {
                continue;
            }
            diagnosis.add(
                "equal_cookies",
                format!(
                    "{} and {} of {} both set {}: each overwrites the session of the other when a user changes the version",
                    one.group, other.group, one.experiment, listed(both)
                ),
                match one.isolates {
                    true => "take the name out of `shared`, or keep it there if both versions read the same sessions".to_owned(),
                    false => format!("write `cookies: isolate` at experiment {}, or let both versions use the same sessions and CSRF keys", one.experiment),
                },
            );
        }
    }
}

/// Files of a version's page that its users, or those of another version, do not get.
fn files(visits: &Visits, diagnosis: &mut Diagnosis) {
    // What no version has is one problem, not one for each.
    let nowhere = visits.versions.iter().flat_map(|it| missing(&it.own_files));
    let nowhere: BTreeSet<&str> = nowhere.collect();
    for version in &visits.versions {
        let (experiment, group) = (&version.experiment, &version.group);
        let own: Vec<&str> = missing(&version.own_files).collect();
        if !own.is_empty() {
            diagnosis.add(
                "missing_file",
                format!("the page of {group} ({experiment}) needs {}, which it does not get (404)", listed(own)),
                "build and deploy this version with all its files, or correct the path (`strip_prefix`, `path`)",
            );
        }
        let rescued: Vec<&str> = rescued(&version.own_files).collect();
        if !rescued.is_empty() {
            diagnosis.add(
                "missing_file",
                format!("the page of {group} ({experiment}) needs {}, which only another version has: its users get that", listed(rescued)),
                "build and deploy this version with all its files",
            );
        }
        let other = missing(&version.other_files).filter(|it| !nowhere.contains(it));
        let other: Vec<&str> = other.collect();
        if !other.is_empty() {
            diagnosis.add(
                "missing_in_other_version",
                format!("users of {group} ({experiment}) do not get {}, which pages of another version need (404)", listed(other)),
                "write `assets: follow` at the experiment, and give file names a digest",
            );
        }
        if let Some(page) = version.page().filter(|it| it.status.as_u16() >= 400) {
            diagnosis.add(
                "error_page",
                format!(
                    "{} answers users of {group} ({experiment}) with {}",
                    page.address, page.status
                ),
                "check the upstream of this group, and that it knows this path",
            );
        }
    }
}

/// The files that came from another version.
fn rescued(seen: &[Seen]) -> impl Iterator<Item = &str> {
    let rescued = seen.iter().filter(|it| it.fields.contains_key(FALLBACK));
    rescued.map(|it| it.address.target())
}

/// The files that are not there.
fn missing(seen: &[Seen]) -> impl Iterator<Item = &str> {
    let missing = seen.iter().filter(|it| it.status == StatusCode::NOT_FOUND);
    missing.map(|it| it.address.target())
}

/// Redirects that leave the public name, or its scheme.
fn redirects(site: &PageAddress, plan: Option<&Plan>, page: &Seen, diagnosis: &mut Diagnosis) {
    let Some(to) = page.redirect() else {
        return;
    };
    if to.is_same_site(site) && to.scheme() == site.scheme() {
        return;
    }
    let found = format!("{} redirects to {to}", page.address);
    if to.is_same_site(site) && site.scheme() == "https" {
        return diagnosis.add(
            "forwarded_scheme",
            format!("{found}: it leaves https"),
            "let the site read X-Forwarded-Proto (in many frameworks: trust the proxy), and list the load balancer in front of watershed in `trust`",
        );
    }
    let fix = match upstream_named(plan, to.authority()) {
        Some(upstream) => format!(
            "write `host: upstream` at upstreams.{upstream}, or let the site read X-Forwarded-Host"
        ),
        None => format!(
            "let the site redirect to {}, or to a path alone",
            site.authority()
        ),
    };
    diagnosis.add(
        "leaves_public_name",
        format!("{found}: it leaves {}", site.authority()),
        fix,
    );
}

/// Links that name the upstream, or leave https.
fn names(site: &PageAddress, plan: Option<&Plan>, page: &Seen, diagnosis: &mut Diagnosis) {
    let links = html::links(&page.address, &page.text);
    let (mut plain, mut upstreams) = (BTreeSet::new(), BTreeSet::new());
    for link in links.iter().map(|link| &link.address) {
        if link.is_same_site(site) {
            if site.scheme() == "https" && link.scheme() == "http" {
                plain.insert(link.to_string());
            }
        } else if let Some(upstream) = upstream_named(plan, link.authority()) {
            upstreams.insert((upstream, link.to_string()));
        }
    }
    if !plain.is_empty() {
        diagnosis.add(
            "forwarded_scheme",
            format!("{} links to {}: browsers block such files, and forms lose https", page.address, listed(plain)),
            "let the site read X-Forwarded-Proto, and list the load balancer in front of watershed in `trust`",
        );
    }
    if let Some((upstream, link)) = upstreams.into_iter().next() {
        diagnosis.add(
            "upstream_name",
            format!(
                "{} links to {link}, which is upstream {upstream}",
                page.address
            ),
            "let the site write links without a host, or read X-Forwarded-Host",
        );
    }
}

/// The upstream that calls itself by this host, unless that is a public one.
fn upstream_named(plan: Option<&Plan>, authority: &str) -> Option<String> {
    let mut upstreams = plan?.upstreams.iter();
    let is = |it: &str| it.eq_ignore_ascii_case(authority);
    let found = upstreams.find(|upstream| {
        let mut endpoints = upstream.endpoints.iter();
        endpoints.any(|it| is(&it.authority()))
    });
    found.map(|upstream| upstream.name.to_string())
}

/// Responses that a shared cache would give to users of another version.
fn caches(visitors: &[Seen], diagnosis: &mut Diagnosis) {
    if let Some((page, age)) = visitors
        .iter()
        .find_map(|it| Some((it, comes_from_a_cache(it)?)))
    {
        diagnosis.add(
            "answered_by_cache",
            format!("a cache in front of watershed answers {} (Age: {age}): its users are neither assigned nor counted", page.address),
            "let the cache pass pages on, and keep files with a digest in their name",
        );
    }
    let mut cache = SharedCache::default();
    for seen in visitors {
        let Some(kept) = cache.ask(seen) else {
            continue;
        };
        if masked(&kept.text) != masked(&seen.text) {
            diagnosis.add(
                "mixes_versions",
                format!("a shared cache would answer {} with what another user got, and users get different responses", seen.address),
                "leave `cache` of the file as it is (`vary`), let the cache honour `Vary` and `private`, or let pages pass it",
            );
        }
    }
}

/// Adds the warnings of results.
pub(super) fn results(results: &Value, diagnosis: &mut Diagnosis) {
    let experiments = results["experiments"].as_array();
    for experiment in experiments.into_iter().flatten() {
        let name = experiment["name"].as_str().unwrap_or_default();
        let warnings = experiment["warnings"].as_array().into_iter().flatten();
        for warning in warnings.filter_map(Value::as_str) {
            let is_of_metric = warning.contains("did not match") || warning.starts_with("event `");
            if is_of_metric {
                let (found, fix) = warning.rsplit_once(FIX).unwrap_or((warning, ""));
                diagnosis.add("metric", format!("{name}: {found}"), fix);
            }
        }
    }
}

fn listed(all: impl IntoIterator<Item = impl Into<String>>) -> String {
    let all: Vec<String> = all.into_iter().map(Into::into).collect();
    let more = all.len().saturating_sub(SHOWN);
    let shown = all[..all.len() - more].join(", ");
    match more {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
