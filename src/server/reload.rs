//! Loads the file again while serving.

use super::active_plan::ActivePlan;
use super::history::Load;
use super::logging;
use crate::admin::clock::now_ms;
use crate::config::plan::Plan;
use crate::store::decisions::DecidedBy;
use crate::telemetry::Telemetry;
use crate::{admin, config};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};

/// How often the file is checked for changes.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// After so many checks, a missing file is reported.
const MISSING_REPORTED: u32 = 3;

/// The state that survives a panic of the reload.
#[derive(Debug)]
pub struct Reloads {
    /// Requests of the admin API.
    asked: mpsc::Receiver<admin::ReloadRequest>,
    /// Receives each file that was loaded.
    loads: mpsc::Sender<Load>,
    watched: WatchedFiles,
}

/// The routes file, and others that the plan depends on, such as certificates and lists of IDs.
#[derive(Debug, Default)]
struct WatchedFiles {
    /// Their contents when they were last loaded.
    seen: Vec<Option<Vec<u8>>>,
    /// How often in a row one of them was missing.
    missing: u32,
}

impl Reloads {
    /// Watches this file, which the plan was loaded from. Changes are noticed from now on.
    pub fn new(
        file: Option<&Path>,
        plan: &Plan,
        asked: mpsc::Receiver<admin::ReloadRequest>,
        loads: mpsc::Sender<Load>,
    ) -> Reloads {
        let seen = file.map(|file| contents(file, &plan.watched));
        Reloads {
            asked,
            loads,
            watched: WatchedFiles {
                seen: seen.unwrap_or_default(),
                missing: 0,
            },
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
    /// Whether they have to be loaded again. Reports those that are gone.
    fn have_changed(&mut self, file: &Path, others: &[PathBuf], telemetry: &Telemetry) -> bool {
        let now = contents(file, others);
        let is_missing = now.contains(&None);
        // Once it is back, a reload ends the report.
        let is_back = !is_missing && self.missing >= MISSING_REPORTED;
        self.missing = if is_missing { self.missing + 1 } else { 0 };
        if self.missing == MISSING_REPORTED {
            report_missing(file, others, &now, telemetry);
        }
        // A file that is missing for a moment is being replaced; one that stays away keeps no other from
        // being loaded.
        let is_settled = !is_missing || self.missing > MISSING_REPORTED;
        let differs = |(now, seen)| now != seen && !matches!(now, &None);
        let differ = now.len() != self.seen.len() || now.iter().zip(&self.seen).any(differs);
        is_settled && (differ || is_back)
    }
}

/// Loads the file again when it changes, on SIGHUP, and on request of the admin API. An invalid file
/// changes nothing.
pub async fn reload(
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
                match watched.have_changed(&file, &active.plan().watched, &telemetry) {
                    true => Cause::Change,
                    false => continue,
                }
            }
        };
        // Read before it is loaded, so that a change in between is noticed next time.
        watched.seen = contents(&file, &active.plan().watched);
        let done = reload_once(&file, &active);
        let others = &active.plan().watched;
        let now = contents(&file, others);
        if watched.seen.len() != now.len() {
            watched.seen.clone_from(&now);
        }
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
        if done.is_ok() && now.contains(&None) {
            report_missing(&file, others, &now, &telemetry);
        }
        if let Cause::Request(request) = cause {
            // The client may have left.
            let _ = request.done.send(done);
        }
    }
}

/// Hands the loaded file to the history.
pub fn record(loads: &mpsc::Sender<Load>, active: &ActivePlan, by: String, source: DecidedBy) {
    let load = Load {
        content: Arc::clone(&active.plan().content),
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

/// Reports files that cannot be read any more, by their contents. What was read of them stays in use.
fn report_missing(file: &Path, others: &[PathBuf], now: &[Option<Vec<u8>>], telemetry: &Telemetry) {
    let all = std::iter::once(file).chain(others.iter().map(PathBuf::as_path));
    let missing: Vec<String> = all
        .zip(now)
        .filter(|(_, contents)| contents.is_none())
        .map(|(file, _)| file.display().to_string())
        .collect();
    let text = format!(
        "{} cannot be read any more; what was read before stays in use",
        missing.join(", ")
    );
    tracing::error!("{text}");
    if let Ok(mut error) = telemetry.reload.error.lock() {
        *error = Some(text);
    }
}

/// Reads the watched files: the routes file and others, such as certificates.
fn contents(file: &Path, watched: &[PathBuf]) -> Vec<Option<Vec<u8>>> {
    let all = std::iter::once(file).chain(watched.iter().map(PathBuf::as_path));
    all.map(|file| std::fs::read(file).ok()).collect()
}

fn reload_once(file: &Path, active: &ActivePlan) -> Result<String, String> {
    let old = active.plan();
    let next = config::load_again(file, &old.id_lists);
    let mut next = next.map_err(|unsound| unsound.to_string())?;
    logging::warn_of(&next.warnings);
    // The admin API keeps its address until a restart, so that address decides whether a token is needed.
    if next.admin.tokens.is_empty() && !old.admin.listen.ip().is_loopback() {
        return Err(format!(
            "the admin API listens on {} until a restart, which is not a loopback address: keep a token in `admin`\n",
            old.admin.listen
        ));
    }
    let mut kept = Vec::new();
    if next.listen != old.listen {
        kept.push("listen");
    }
    let secure = |plan: &Plan| plan.tls.as_ref().map(|tls| tls.listen);
    if secure(&next) != secure(&old) {
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
    let to = |plan: &Plan| plan.access_log.as_ref().map(|log| log.to.clone());
    if to(&next) != to(&old) {
        kept.push("access_log");
        next.access_log = old.access_log.clone();
    }
    (next.listen, next.workers) = (old.listen, old.workers);
    (next.journal, next.store) = (old.journal.clone(), old.store.clone());
    (next.admin.listen, next.admin.health) = (old.admin.listen, old.admin.health);
    let text = match &kept[..] {
        [] => format!("reloaded {}", file.display()),
        kept => format!(
            "reloaded {}; changes of {} need a restart",
            file.display(),
            kept.join(", ")
        ),
    };
    active.load(next);
    Ok(text)
}
