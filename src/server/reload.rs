//! Loads the file again while serving.

use super::active_plan::ActivePlan;
use super::decided_plan::DecidedPlan;
use super::history::Load;
use super::logging;
use super::promotions::KeptPromotion;
use crate::admin::clock::now_ms;
use crate::config::plan::{Destination, Plan};
use crate::regular_file;
use crate::store::decisions::DecidedBy;
use crate::telemetry::Telemetry;
use crate::{admin, config};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};

/// How often the files are checked for changes.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// A changed file is loaded after so many checks in a row that find it as it was: a file that is still
/// being written keeps changing.
const UNCHANGED: u32 = 2;

/// After so many checks, a missing file is reported.
const MISSING_REPORTED: u32 = 6;

/// The state that survives a panic of the reload.
#[derive(Debug)]
pub(super) struct Reloads {
    /// Requests of the admin API.
    asked: mpsc::Receiver<admin::ReloadRequest>,
    /// Receives each file that was loaded.
    loads: mpsc::Sender<Load>,
    watched: WatchedFiles,
}

/// The routes file, and others that the plan depends on, such as certificates and lists of IDs.
#[derive(Debug, Default)]
struct WatchedFiles {
    files: Vec<Watched>,
    /// How many checks in a row have found what the check before had found.
    unchanged: u32,
    /// How often in a row one of them was missing.
    missing: u32,
    /// Whether missing files were reported, so that a reload has to end the report.
    is_reported: bool,
}

/// What is watched, and a digest of its contents, `None` for a file that cannot be read.
#[derive(Debug)]
struct Watched {
    what: WatchedFile,
    /// When it was last loaded.
    loaded: Option<u128>,
    /// At the latest check.
    latest: Option<u128>,
}

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
enum WatchedFile {
    /// A file.
    File(PathBuf),
    /// The names of the files that match a pattern.
    Pattern(String),
}

impl Reloads {
    /// Watches this file, which the plan was loaded from. Changes are noticed from now on.
    pub(super) fn new(
        file: Option<&Path>,
        plan: &Plan,
        asked: mpsc::Receiver<admin::ReloadRequest>,
        loads: mpsc::Sender<Load>,
    ) -> Reloads {
        let mut watched = WatchedFiles::default();
        if let Some(file) = file {
            watched.watch(file, plan, &[]);
        }
        Reloads {
            asked,
            loads,
            watched,
        }
    }
}

/// Why the file is loaded again.
enum Cause {
    Request(admin::ReloadRequest),
    Hangup,
    Change,
}

impl Cause {
    /// Who loads it.
    fn by(&self) -> String {
        match self {
            Cause::Request(request) => request.by.clone(),
            Cause::Hangup => "SIGHUP".to_owned(),
            Cause::Change => "file".to_owned(),
        }
    }

    fn source(&self) -> DecidedBy {
        match self {
            Cause::Request(_) => DecidedBy::Person,
            Cause::Hangup | Cause::Change => DecidedBy::File,
        }
    }
}

impl WatchedFiles {
    /// Watches the files of a plan, and others that kept a new one from being loaded. Those that were not
    /// watched yet are loaded as they are now.
    fn watch(&mut self, file: &Path, plan: &Plan, others: &[PathBuf]) {
        let plans = plan.watched.iter().map(PathBuf::as_path);
        let others = others.iter().map(PathBuf::as_path);
        let files = std::iter::once(file).chain(plans).chain(others);
        let files = files.map(|path| WatchedFile::File(path.to_owned()));
        let patterns = plan.watched_patterns.iter().cloned();
        let mut before = std::mem::take(&mut self.files);
        for what in files.chain(patterns.map(WatchedFile::Pattern)) {
            if self.files.iter().any(|known| known.what == what) {
                continue;
            }
            let known = before.iter().position(|known| known.what == what);
            self.files.push(match known {
                Some(place) => before.swap_remove(place),
                None => {
                    let contents = what.contents();
                    Watched {
                        what,
                        loaded: contents,
                        latest: contents,
                    }
                }
            });
        }
    }

    /// Takes the present contents for those that are loaded.
    fn remember(&mut self) {
        for file in &mut self.files {
            file.latest = file.what.contents();
            file.loaded = file.latest;
        }
        self.unchanged = 0;
    }

    /// Whether they have to be loaded again. Reports those that are gone.
    fn have_changed(&mut self, telemetry: &Telemetry) -> bool {
        let mut is_unchanged = true;
        for file in &mut self.files {
            let now = file.what.contents();
            is_unchanged &= now == file.latest;
            file.latest = now;
        }
        self.unchanged = match is_unchanged {
            true => self.unchanged.saturating_add(1),
            false => 0,
        };
        let is_missing = self.files.iter().any(|file| file.latest.is_none());
        self.missing = if is_missing { self.missing + 1 } else { 0 };
        if self.missing == MISSING_REPORTED {
            self.report_missing(telemetry);
        }
        // A file that is missing for a moment is being replaced; one that stays away keeps no other from
        // being loaded.
        let is_settled = !is_missing || self.missing > MISSING_REPORTED;
        let differs = |file: &Watched| file.latest != file.loaded && file.latest.is_some();
        let is_back = self.is_reported && !is_missing;
        is_settled && self.unchanged >= UNCHANGED && (is_back || self.files.iter().any(differs))
    }

    /// Reports files that cannot be read any more. What was read of them stays in use.
    fn report_missing(&mut self, telemetry: &Telemetry) {
        let missing = self.files.iter().filter(|file| file.latest.is_none());
        let missing = missing.filter_map(|file| match &file.what {
            WatchedFile::File(path) => Some(path.display().to_string()),
            WatchedFile::Pattern(_) => None,
        });
        let missing: Vec<String> = missing.collect();
        self.is_reported = !missing.is_empty();
        if missing.is_empty() {
            return;
        }
        let text = format!(
            "{} cannot be read any more; what was read before stays in use",
            missing.join(", ")
        );
        tracing::error!("{text}");
        if let Ok(mut error) = telemetry.reload.error.lock() {
            *error = Some(text);
        }
    }
}

impl WatchedFile {
    /// Returns a digest of the contents; `None` for a file that cannot be read.
    fn contents(&self) -> Option<u128> {
        let contents = match self {
            WatchedFile::File(path) => match regular_file::read(path) {
                Ok(contents) => contents,
                // A pipe that was read once, as by `-c <(…)`, does not change.
                Err(_) if path.metadata().is_ok_and(|it| !it.is_file()) => Vec::new(),
                Err(_) => return None,
            },
            WatchedFile::Pattern(pattern) => {
                format!("{:?}", config::matching(pattern).unwrap_or_default()).into_bytes()
            }
        };
        // Reading from memory cannot fail.
        Some(murmur3::murmur3_x64_128(&mut &contents[..], 0).unwrap_or_default())
    }
}

/// Loads the file again when it changes, on SIGHUP, and on request of the admin API. An invalid file
/// changes nothing.
pub(super) async fn reload(
    file: Option<PathBuf>,
    active: Arc<ActivePlan>,
    telemetry: Arc<Telemetry>,
    reloads: Arc<Mutex<Reloads>>,
) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut reloads = reloads.lock().await;
    let Reloads {
        asked,
        loads,
        watched,
    } = &mut *reloads;
    let mut hangup = signal(SignalKind::hangup())?;
    let Some(file) = file else {
        while let Some(request) = asked.recv().await {
            let _ = request
                .done
                .send(Err("this process serves no file".to_owned()));
        }
        return Ok(());
    };
    loop {
        let cause = tokio::select! {
            request = asked.recv() => match request {
                Some(request) => Cause::Request(request),
                // The admin API is closed first when the process stops.
                None => return Ok(()),
            },
            _ = hangup.recv() => Cause::Hangup,
            () = tokio::time::sleep(WATCH_INTERVAL) => {
                match watched.have_changed(&telemetry) {
                    true => Cause::Change,
                    false => continue,
                }
            }
        };
        // Read before it is loaded, so that a change in between is noticed next time.
        watched.remember();
        let (done, others) = match reload_once(&file, &active) {
            Ok(what) => (Ok(what), Vec::new()),
            Err(refused) => (Err(refused.text), refused.files),
        };
        watched.watch(&file, &active.plan(), &others);
        match &done {
            Ok(what) => {
                telemetry.reload.succeeded();
                tracing::info!("{what}");
                record(loads, &active, cause.by(), cause.source());
            }
            Err(problems) => {
                telemetry.reload.refused.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    "the changed file is invalid; the running configuration stays:\n{problems}"
                );
            }
        }
        if let Ok(mut error) = telemetry.reload.error.lock() {
            *error = done.as_ref().err().cloned();
        }
        watched.is_reported = false;
        if done.is_ok() {
            watched.report_missing(&telemetry);
        }
        if let Cause::Request(request) = cause {
            // The client may have left.
            let _ = request.done.send(done);
        }
    }
}

/// Hands the loaded file to the history.
pub(super) fn record(
    loads: &mpsc::Sender<Load>,
    active: &ActivePlan,
    by: String,
    source: DecidedBy,
) {
    let plan = active.plan();
    let load = Load {
        content: Arc::clone(&plan.content),
        secrets: plan.secrets,
        at_ms: now_ms(),
        by,
        source,
    };
    if loads.try_send(load).is_err() {
        tracing::warn!(
            "the loaded file is not in the history: the store has been away for too long"
        );
    }
}

/// Why a changed file is not loaded, and the files of which one has to change.
struct Refused {
    text: String,
    files: Vec<PathBuf>,
}

/// The promotions that stay in effect under a changed file, and did not have to before.
fn newly_kept<'a>(old: &Plan, decided: &'a DecidedPlan) -> impl Iterator<Item = &'a KeptPromotion> {
    let kept_before = |name: &str| {
        let mut experiments = old.experiments.iter();
        experiments.any(|it| it.has_left_file && &*it.name == name)
    };
    let kept = decided.kept.iter();
    kept.filter(move |kept| !kept_before(&kept.experiment))
}

/// Keeps the archive, which reads the journals from the start on. Returns the key, if it was changed.
fn keep_archive(next: &mut Plan, old: &Plan) -> Option<&'static str> {
    let has_changed = next.archive != old.archive;
    next.archive.clone_from(&old.archive);
    has_changed.then_some("archive")
}

/// Hands the certificate and the answers that ACME has brought over to the next plan.
fn keep_obtained(next: &Plan, old: &Plan) {
    let obtained = |plan: &Plan| {
        let acme = plan.tls.as_ref().and_then(|tls| tls.acme.as_ref());
        acme.map(|acme| Arc::clone(&acme.obtained))
    };
    if let (Some(next), Some(old)) = (obtained(next), obtained(old)) {
        next.replace(old.now());
    }
}

/// Keeps the destinations that read the journals from the start on, and how much of the journals they keep; what else
/// the file says of them takes effect. Returns the key, if it says more than that.
fn keep_destinations(next: &mut Plan, old: &Plan) -> Option<&'static str> {
    let kept = |plan: &Plan| -> Vec<_> {
        let all = plan.forward.iter();
        all.map(|it| (it.name.clone(), it.backlog_bytes)).collect()
    };
    let has_changed = kept(next) != kept(old);
    let destination = |old: &Destination| {
        let mut all = next.forward.iter();
        let new = all.find(|it| it.name == old.name).unwrap_or(old);
        Destination {
            backlog_bytes: old.backlog_bytes,
            ..new.clone()
        }
    };
    next.forward = old.forward.iter().map(destination).collect();
    has_changed.then_some("forward")
}

/// Keeps what a process has from its start on. Returns the keys that say something else now.
fn keep(next: &mut Plan, old: &Plan) -> Vec<&'static str> {
    let mut kept = Vec::new();
    if next.listen != old.listen {
        kept.push("listen");
    }
    let secure = |plan: &Plan| plan.tls.as_ref().map(|tls| tls.listen);
    if secure(next) != secure(old) {
        kept.push("tls.listen");
    }
    if next.admin.listen != old.admin.listen {
        kept.push("admin.listen");
    }
    if next.admin.health != old.admin.health {
        kept.push("admin.health");
    }
    if next.workers != old.workers {
        kept.push("workers");
    }
    if next.journal.path != old.journal.path {
        kept.push("journal.path");
    }
    kept.extend(keep_archive(next, old));
    keep_obtained(next, old);
    kept.extend(keep_destinations(next, old));
    let to = |plan: &Plan| plan.access_log.as_ref().map(|log| log.to.clone());
    if to(next) != to(old) {
        kept.push("access_log");
        next.access_log = old.access_log.clone();
    }
    (next.listen, next.workers) = (old.listen, old.workers);
    (next.journal, next.store) = (old.journal.clone(), old.store.clone());
    (next.admin.listen, next.admin.health) = (old.admin.listen, old.admin.health);
    kept
}

fn reload_once(file: &Path, active: &ActivePlan) -> Result<String, Refused> {
    let old = active.plan();
    let next = config::load_again(file, &old.id_lists);
    let mut next = next.map_err(|invalid| Refused {
        text: invalid.to_string(),
        files: invalid.files,
    })?;
    logging::warn_of(&next.warnings);
    // The admin API keeps its address until a restart, so that address decides whether a token is needed.
    if next.admin.tokens.is_empty() && !old.admin.listen.ip().is_loopback() {
        let text = format!(
            "the admin API listens on {} until a restart, which is not a loopback address: keep a token in `admin`\n",
            old.admin.listen
        );
        return Err(Refused {
            text,
            files: Vec::new(),
        });
    }
    let kept = keep(&mut next, &old);
    let mut text = match &kept[..] {
        [] => format!("reloaded {}", file.display()),
        kept => format!(
            "reloaded {}; changes of {} need a restart",
            file.display(),
            kept.join(", ")
        ),
    };
    let (decided, effects) = active.preview(&next);
    let kept = newly_kept(&old, &decided).map(ToString::to_string);
    for affected in kept.chain(effects) {
        text.push_str(&format!("; {affected}"));
    }
    if let Some(invalid) = decided.problems(Some(file)) {
        return Err(Refused {
            text: invalid.to_string(),
            files: invalid.files,
        });
    }
    active.load(next);
    Ok(text)
}
