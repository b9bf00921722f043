//! Handover to a successor: on SIGUSR2 the program starts again with the same sockets, and the new
//! process ends this one once it serves. At every moment one of them listens.

use super::listeners::{Listeners, OtherHolder};
use anyhow::Context;
use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, getppid, kill_process};
use sd_notify::NotifyState;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::{Mutex, oneshot, watch};

/// The environment variable with the ID of the process that is replaced.
const REPLACES: &str = "WATERSHED_REPLACES";
/// The first socket that is handed over.
const FIRST_FD: i32 = 3;

/// Starts successors. It holds the sockets, so it must be dropped when this process stops: nobody
/// would accept connections at sockets that only it holds.
#[derive(Debug)]
pub struct Handover {
    signals: unix::Signal,
    sockets: Vec<(&'static str, TcpListener)>,
    holder: watch::Sender<OtherHolder>,
}

impl Handover {
    /// Prepares to hand these sockets over. SIGUSR2 is noticed from now on.
    pub fn of(listeners: &Listeners) -> anyhow::Result<Handover> {
        let sockets = listeners.to_hand_over();
        Ok(Handover {
            signals: signal(SignalKind::user_defined2()).context("cannot listen for SIGUSR2")?,
            sockets: sockets.context("sockets cannot be handed over")?,
            holder: listeners.holder.clone(),
        })
    }

    /// Starts a successor on each SIGUSR2, one at a time. A successor that fails changes nothing.
    pub async fn run(handover: Arc<Mutex<Handover>>) {
        let mut handover = handover.lock().await;
        while handover.signals.recv().await.is_some() {
            let ended = match handover.start() {
                Ok(successor) => handover.follow(successor).await,
                Err(error) => Err(error),
            };
            match ended {
                Ok(how) => {
                    tracing::error!("the successor could not take over: {how}; still serving");
                }
                Err(error) => {
                    tracing::error!("the successor could not be started: {error:#}; still serving");
                }
            }
        }
    }

    /// Waits until a successor ends without having ended this process; returns how it ended.
    async fn follow(&self, mut successor: Child) -> anyhow::Result<String> {
        let before = self.holder.send_replace(OtherHolder::Successor);
        tracing::info!("process {} is to take over", successor.id());
        // A thread, and no blocking task: this process would wait for such a task at its end.
        let (sender, ended) = oneshot::channel();
        std::thread::spawn(move || sender.send(successor.wait()));
        let ended = ended.await.context("nobody waits for the successor");
        self.holder.send_replace(before);
        Ok(ended??.to_string())
    }

    fn start(&self) -> anyhow::Result<Child> {
        let program = program().context("the program's file is gone")?;
        let mut mappings = Vec::new();
        for ((_, socket), child_fd) in self.sockets.iter().zip(FIRST_FD..) {
            let parent_fd = socket.try_clone()?.into();
            mappings.push(FdMapping {
                parent_fd,
                child_fd,
            });
        }
        let names: Vec<&str> = self.sockets.iter().map(|(name, _)| *name).collect();
        let mut command = Command::new(program);
        command
            .args(std::env::args_os().skip(1))
            .env(REPLACES, std::process::id().to_string())
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env_remove("LISTEN_PID")
            .fd_mappings(mappings)?;
        Ok(command.spawn()?)
    }
}

/// Returns the program's file, or the file that has replaced it: the system appends ` (deleted)` to the
/// name of a file that was replaced.
fn program() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let replaced = program
        .to_str()
        .and_then(|it| it.strip_suffix(" (deleted)"));
    Ok(replaced.map(PathBuf::from).unwrap_or(program))
}

/// Reports that this process serves: to the service manager (sd_notify), and to the process that it
/// replaces, which then finishes its requests and ends.
pub fn report_ready() {
    let replaced = std::env::var(REPLACES).ok();
    let replaced = replaced.and_then(|pid| Pid::from_raw(pid.parse().ok()?));
    // A number that this process inherited from further up names another process by now.
    let replaced = replaced.filter(|pid| getppid() == Some(*pid));
    let main = NotifyState::MainPid(std::process::id());
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready, main]) {
        tracing::warn!("cannot report readiness to the service manager: {error}");
    }
    if let Some(pid) = replaced
        && let Err(error) = kill_process(pid, Signal::TERM)
    {
        tracing::error!("process {pid:?}, which this one replaces, cannot be ended: {error}");
    }
}
