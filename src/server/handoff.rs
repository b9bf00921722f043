//! A new process in the place of this one, without a moment in which nobody listens: on SIGUSR2
//! the program is started again with the same sockets, and ends this process once it serves.

use super::listeners::Listeners;
use anyhow::Context;
use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, getppid, kill_process};
use sd_notify::NotifyState;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::oneshot;

/// Names the process that is replaced.
const REPLACES: &str = "WATERSHED_REPLACES";
/// The first socket that is handed over.
const FIRST_FD: i32 = 3;

/// What a successor needs; dropped when this process stops, because sockets that are held here
/// would be listened to by nobody.
#[derive(Debug)]
pub struct Estate {
    sockets: Vec<(&'static str, TcpListener)>,
    held: Arc<AtomicBool>,
    succeeded: Arc<AtomicBool>,
}

impl Estate {
    /// What these sockets' process would leave.
    pub fn of(sockets: &Listeners) -> anyhow::Result<Estate> {
        let all = sockets.to_hand_over();
        Ok(Estate {
            sockets: all.context("sockets cannot be handed over")?,
            held: Arc::clone(&sockets.held),
            succeeded: Arc::clone(&sockets.succeeded),
        })
    }

    /// Starts a successor on each SIGUSR2 from now on, one at a time. One that fails changes nothing.
    pub fn wait(self) -> anyhow::Result<impl Future<Output = ()>> {
        let told = signal(SignalKind::user_defined2()).context("cannot listen for SIGUSR2")?;
        Ok(self.start_on(told))
    }

    async fn start_on(self, mut told: unix::Signal) {
        while told.recv().await.is_some() {
            let before = self.held.load(Ordering::SeqCst);
            let ended = match self.start() {
                Ok(mut successor) => {
                    self.held.store(true, Ordering::SeqCst);
                    self.succeeded.store(true, Ordering::SeqCst);
                    tracing::info!("process {} is to take over", successor.id());
                    // It ends this process; or it ends itself. Not a task that may block, for
                    // which the end of this process would wait.
                    let (ended, end) = oneshot::channel();
                    std::thread::spawn(move || ended.send(successor.wait()));
                    let end = end.await.context("nobody waits for it");
                    self.held.store(before, Ordering::SeqCst);
                    self.succeeded.store(false, Ordering::SeqCst);
                    end.and_then(|end| Ok(end?.to_string()))
                }
                Err(error) => Err(error),
            };
            match ended {
                Ok(how) => tracing::error!("the successor could not take over: {how}; serving on"),
                Err(error) => {
                    tracing::error!("the successor could not be started: {error:#}; serving on");
                }
            }
        }
    }

    fn start(&self) -> anyhow::Result<std::process::Child> {
        let program = program().context("the program is not where it was")?;
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

/// Where the program is, or where another one has taken its place: the system calls a file that
/// was replaced `FILE (deleted)`.
fn program() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let replaced = program
        .to_str()
        .and_then(|it| it.strip_suffix(" (deleted)"));
    Ok(replaced.map(PathBuf::from).unwrap_or(program))
}

/// Tells who waits for it that this process serves: the service manager (sd_notify), and the
/// process that it replaces, which then finishes what runs and ends.
pub fn report_ready() {
    let replaced = std::env::var(REPLACES).ok();
    let replaced = replaced.and_then(|pid| Pid::from_raw(pid.parse().ok()?));
    // A number that was handed down further means somebody else by now.
    let replaced = replaced.filter(|pid| getppid() == Some(*pid));
    let main = NotifyState::MainPid(std::process::id());
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready, main]) {
        tracing::warn!("the service manager cannot be told that this process is ready: {error}");
    }
    if let Some(pid) = replaced
        && let Err(error) = kill_process(pid, Signal::TERM)
    {
        tracing::error!("process {pid:?}, which this one replaces, cannot be ended: {error}");
    }
}
