//! Who visits the site: a user of each version, and new users.

use super::browser::{Browser, RequestBudget, Seen};
use super::diagnosis::{Diagnosis, Problem};
use super::html::{self, PageAddress};
use crate::config::plan::Plan;
use crate::experiment::override_token::{self, Override};
use std::collections::{BTreeSet, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

/// How many versions are visited.
const VERSIONS_MAX: usize = 6;
/// How many files of one version's page are loaded.
const FILES_MAX: usize = 15;
/// After how many missing responses no more files are loaded, so that a slow site does not take minutes.
const FAILURES_MAX: usize = 5;
/// How long an override is valid, in seconds.
const TOKEN_S: u64 = 600;

/// What a user of one version saw.
#[derive(Debug)]
pub(super) struct VersionVisit {
    /// The experiment.
    pub experiment: String,
    /// The group.
    pub group: String,
    /// Whether each version has cookies for itself.
    pub isolates: bool,
    /// The page, and what redirected to it.
    pub pages: Vec<Seen>,
    /// Files of the page, as this user gets them.
    pub own_files: Vec<Seen>,
    /// Files of other versions' pages, as this user gets them without a page's address.
    pub other_files: Vec<Seen>,
}

/// All visits.
#[derive(Debug, Default)]
pub(super) struct Visits {
    /// A user of each version.
    pub versions: Vec<VersionVisit>,
    /// New users: each page twice, the second time with the cookies of the first.
    pub visitors: Vec<Seen>,
    /// What went wrong on the way.
    pub failures: Vec<Problem>,
}

impl VersionVisit {
    /// The page.
    pub(super) fn page(&self) -> Option<&Seen> {
        self.pages.last()
    }

    /// The files of the site that the page needs.
    fn files(&self) -> Vec<PageAddress> {
        let Some(page) = self.page() else {
            return Vec::new();
        };
        let links = html::links(&page.address, &page.text).into_iter();
        let files = links.filter(|it| it.is_part && it.address.is_same_site(&page.address));
        let files = files.map(|it| it.address.known_from(&page.address));
        let files: BTreeSet<PageAddress> = files.collect();
        files.into_iter().take(FILES_MAX).collect()
    }
}

/// Where a page of `http` is to be visited: where its site sends browsers that ask without TLS.
pub(super) async fn secure_address(site: PageAddress, budget: &RequestBudget) -> PageAddress {
    if site.scheme() != "http" {
        return site;
    }
    let seen = Browser::default().ask_once(&site, budget).await;
    let to = seen.ok().flatten().and_then(|seen| seen.redirect());
    to.filter(|to| site.is_made_secure_by(to)).unwrap_or(site)
}

impl Visits {
    /// Visits the site. Fails where it does not answer at all.
    pub(super) async fn make(
        site: &PageAddress,
        plan: Option<&Plan>,
        (budget, visitors): (&RequestBudget, u64),
        diagnosis: &mut Diagnosis,
    ) -> anyhow::Result<Visits> {
        let mut visits = Visits::default();
        for (version, mut browser) in of_versions(plan, diagnosis) {
            let (pages, failure) = browser.open(site, budget).await;
            visits.failures.extend(failure);
            visits.versions.push(VersionVisit { pages, ..version });
        }
        visits.load_files(plan, budget).await;
        let mut browsers: Vec<Browser> = (0..visitors).map(|_| Browser::default()).collect();
        for _ in 0..2 {
            for browser in &mut browsers {
                let (mut pages, failure) = browser.open(site, budget).await;
                visits.failures.extend(failure);
                visits.visitors.extend(pages.pop());
            }
        }
        if visits.versions.is_empty() && visits.visitors.is_empty() {
            // The address is at least tried.
            let (pages, failure) = Browser::default().open(site, budget).await;
            visits.failures.extend(failure);
            visits.visitors.extend(pages);
        }
        let mut versions = visits.versions.iter();
        let has_answered = !visits.visitors.is_empty() || versions.any(|it| it.page().is_some());
        match visits.failures.is_empty() || has_answered {
            true => Ok(visits),
            false => Err(anyhow::anyhow!(visits.failures.swap_remove(0).found)),
        }
    }

    /// Loads the files of each version as its own user, and as users of the others.
    async fn load_files(&mut self, plan: Option<&Plan>, budget: &RequestBudget) {
        let Visits {
            versions, failures, ..
        } = self;
        let mut files: Vec<BTreeSet<PageAddress>> = Vec::new();
        for version in versions.iter_mut() {
            let page = version.page().map(|it| it.address.clone());
            let Some(mut browser) = plan.and_then(|plan| forced(plan, version)) else {
                continue;
            };
            let own = version.files().into_iter().map(|file| (file, page.clone()));
            version.own_files = load_all(&mut browser, own.collect(), (budget, failures)).await;
            let own = version.own_files.iter().map(|it| it.address.clone());
            files.push(own.collect());
        }
        for (place, version) in versions.iter_mut().enumerate() {
            let Some(mut browser) = plan.and_then(|plan| forced(plan, version)) else {
                continue;
            };
            let known = files.get(place).cloned().unwrap_or_default();
            let others: BTreeSet<&PageAddress> = files.iter().flatten().collect();
            let others = others.into_iter().filter(|it| !known.contains(it));
            let others = others.map(|file| (file.clone(), None));
            version.other_files =
                load_all(&mut browser, others.collect(), (budget, failures)).await;
        }
    }
}

/// Loads files, each with the page or file that names it, and what stylesheets among them need.
async fn load_all(
    browser: &mut Browser,
    mut waiting: VecDeque<(PageAddress, Option<PageAddress>)>,
    (budget, failures): (&RequestBudget, &mut Vec<Problem>),
) -> Vec<Seen> {
    let mut all: Vec<Seen> = Vec::new();
    while let Some((file, referer)) = waiting.pop_front() {
        if failures.len() >= FAILURES_MAX || all.len() >= FILES_MAX {
            break;
        }
        let seen = match browser.load(&file, referer.as_ref(), budget).await {
            Ok(seen) => seen,
            Err(problem) => {
                failures.push(problem);
                continue;
            }
        };
        let Some(seen) = seen else {
            break;
        };
        if referer.is_some() && seen.is_style() {
            for needed in html::style_links(&file, &seen.text) {
                let needed = needed.known_from(&file);
                let is_known = |it: &PageAddress| *it == needed;
                let mut known = waiting.iter().map(|(it, _)| it);
                let is_new = !known.any(is_known) && !all.iter().any(|it| is_known(&it.address));
                if is_new && needed.is_same_site(&file) {
                    waiting.push_back((needed, Some(file.clone())));
                }
            }
        }
        all.push(seen);
    }
    all
}

/// The versions of the file, each with a browser that is put into its group.
fn of_versions(plan: Option<&Plan>, diagnosis: &mut Diagnosis) -> Vec<(VersionVisit, Browser)> {
    let Some(plan) = plan else {
        let note = "no routes file was found, so that versions could not be told apart: name it with -c FILE";
        diagnosis.notes.push(note.to_owned());
        return Vec::new();
    };
    if plan.override_secret.is_none() {
        let note = "versions were not visited one by one: the file has no overrides.secret";
        diagnosis.notes.push(note.to_owned());
        return Vec::new();
    }
    let versions = versions(plan).take(VERSIONS_MAX);
    let versions = versions.filter_map(|(experiment, group, isolates)| {
        let version = VersionVisit {
            experiment: experiment.to_owned(),
            group: group.to_owned(),
            isolates,
            pages: Vec::new(),
            own_files: Vec::new(),
            other_files: Vec::new(),
        };
        let browser = forced(plan, &version)?;
        Some((version, browser))
    });
    versions.collect()
}

/// A browser whose user is in the group of a version.
fn forced(plan: &Plan, version: &VersionVisit) -> Option<Browser> {
    let secret = plan.override_secret.as_ref()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let token = Override {
        experiment: version.experiment.clone(),
        group: version.group.clone(),
        expires_s: now.as_secs() + TOKEN_S,
    };
    let token = override_token::sign(secret.reveal().as_bytes(), &token);
    Some(Browser::with_override(&token))
}

/// The groups of experiments with upstreams, and whether each version has cookies for itself.
fn versions(plan: &Plan) -> impl Iterator<Item = (&str, &str, bool)> {
    let choosing = plan.experiments.iter().filter(|it| it.chooses_upstream());
    choosing.flat_map(|experiment| {
        let isolates = experiment.versions.isolation.is_some();
        let groups = experiment.groups.iter();
        groups.map(move |group| (&*experiment.name, &*group.name, isolates))
    })
}
