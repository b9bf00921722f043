//! One worker: a thread with a single-threaded runtime, its own listening socket, its own
//! upstream connections and its own journal.

use crate::config::plan::Plan;
use crate::proxy::connection;
use crate::proxy::headers::believed_client;
use crate::proxy::snapshot::Worker;
use crate::tasks::{self, Drain, PhaseWatch, Policy, Supervisor};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How often the same trouble is told.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How often upstream connections are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What a worker follows.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The plan. A new one takes effect with the next request.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// Restarts the loop that accepts connections after a panic, and knows the phase of the process.
    pub supervisor: Supervisor,
}

/// What one worker listens to.
#[derive(Debug)]
pub struct Sockets {
    /// Without TLS.
    pub public: StdListener,
    /// With TLS.
    pub secure: Option<StdListener>,
}

/// Serves on these sockets until the process drains; then requests in flight finish, within
/// `timeouts.shutdown`. Blocks its thread.
pub fn run(worker: Worker, sockets: Sockets, config: WorkerConfig) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())?;
    runtime.block_on(serve(Rc::new(worker), sockets, config))
}

async fn serve(worker: Rc<Worker>, sockets: Sockets, config: WorkerConfig) -> io::Result<()> {
    let listeners = Listeners::of(sockets)?;
    let WorkerConfig { plan, supervisor } = config;
    let phase = supervisor.phase();
    if worker.log.is_some() {
        let (worker, supervisor) = (Rc::clone(&worker), supervisor.clone());
        tokio::task::spawn_local(async move {
            let keeping = || keep_lines(&worker);
            supervisor.keep("log lines", Policy::Restart, keeping).await;
        });
    }
    let accepting = || accept_all(&worker, &listeners, plan.clone(), phase.clone());
    // Open connections are served while this is restarted.
    let accepting = supervisor.keep("worker", Policy::Essential, accepting);
    accepting.await;
    let drain = phase.now().drain().unwrap_or(Drain {
        quiet_until: Instant::now(),
        others_listen: false,
    });
    worker.stop(drain.quiet_until);
    let Listeners { public, secure } = listeners;
    if !drain.others_listen {
        take_waiting(&worker, public, false, &phase);
        if let Some(secure) = secure {
            take_waiting(&worker, secure, true, &phase);
        }
    }
    let deadline = tokio::time::Instant::now() + worker.snapshot().plan.timeouts.shutdown;
    while worker.open.get() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

struct Listeners {
    public: TcpListener,
    secure: Option<TcpListener>,
}

impl Listeners {
    fn of(sockets: Sockets) -> io::Result<Listeners> {
        let listen = |socket: StdListener| {
            socket.set_nonblocking(true)?;
            TcpListener::from_std(socket)
        };
        Ok(Listeners {
            public: listen(sockets.public)?,
            secure: sockets.secure.map(listen).transpose()?,
        })
    }
}

/// Accepts connections, and follows the plan, until the process drains.
async fn accept_all(
    worker: &Rc<Worker>,
    Listeners { public, secure }: &Listeners,
    mut plan: watch::Receiver<Arc<Plan>>,
    mut phase: PhaseWatch,
) -> io::Result<()> {
    let watched = phase.clone();
    let mut sweeping = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            accepted = public.accept() => take(worker, accepted, false, &watched).await?,
            accepted = accept_on(secure.as_ref()) => take(worker, accepted, true, &watched).await?,
            changed = plan.changed() => match changed {
                Ok(()) => worker.reload(Arc::clone(&plan.borrow_and_update())),
                // The server is gone.
                Err(_) => return Ok(()),
            },
            _ = sweeping.tick() => {
                worker.sweep();
                worker.journal.borrow_mut().restore();
            }
            _ = phase.ending() => return Ok(()),
        }
    }
}

/// Gives lines of the access log away.
async fn keep_lines(worker: &Worker) {
    match &worker.log {
        Some(lines) => lines.keep().await,
        None => std::future::pending().await,
    }
}

/// Accepts the connections that wait at a listener before it is closed, which would reset them.
fn take_waiting(worker: &Rc<Worker>, listener: TcpListener, secure: bool, phase: &PhaseWatch) {
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Ok((stream, peer)) = listener.accept() {
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            accept(worker, stream, peer, secure, phase.clone());
        }
    }
}

async fn accept_on(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn take(
    worker: &Rc<Worker>,
    accepted: io::Result<(TcpStream, SocketAddr)>,
    secure: bool,
    phase: &PhaseWatch,
) -> io::Result<()> {
    match accepted {
        Ok((stream, peer)) => accept(worker, stream, peer, secure, phase.clone()),
        Err(error) if tasks::is_lost(&error) => return Err(error),
        Err(error) => {
            // Out of file descriptors, most often: connections that end give some back.
            let now = Instant::now();
            let told = worker.told.get();
            if told.is_none_or(|told| now > told + TELL_EVERY) {
                worker.told.set(Some(now));
                tracing::warn!(
                    "a connection cannot be accepted: {error}; raise the limit of open files (ulimit -n), or lower limits.connections"
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

fn accept(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    secure: bool,
    phase: PhaseWatch,
) {
    let peer = peer.ip().to_canonical();
    let trusted = believed_client::trusts(&worker.snapshot().plan, peer);
    let slot = worker.slots.take(worker.connections_max());
    let slot = slot.and_then(|mut slot| {
        // A trusted peer brings many clients: those that it names are counted then.
        let counts = trusted || slot.count_for(peer, worker.connections_per_address_max());
        counts.then_some(slot)
    });
    let Some(slot) = slot else {
        return refuse(worker, stream, peer, secure);
    };
    worker.telemetry().connections.add();
    let open = Open::new(worker);
    tokio::task::spawn_local(async move {
        connection::serve(&open.0, (stream, slot), peer, secure, phase).await;
    });
}

/// Counts a connection for as long as it is served, even if that panics.
struct Open(Rc<Worker>);

impl Open {
    fn new(worker: &Rc<Worker>) -> Open {
        worker.open.set(worker.open.get() + 1);
        Open(Rc::clone(worker))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.telemetry().ended_connections.add();
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// Tells a client that there is no room for its connection, unless many others are being told.
fn refuse(worker: &Rc<Worker>, stream: TcpStream, peer: IpAddr, secure: bool) {
    worker.telemetry().refused_connections.add();
    let now = Instant::now();
    if worker.told.get().is_none_or(|told| now > told + TELL_EVERY) {
        worker.told.set(Some(now));
        tracing::warn!(
            %peer,
            "connections are closed: limits.connections or limits.connections_per_address is reached, or what open files (ulimit -n) have room for"
        );
    }
    let Some(slot) = worker.slots.take_refused(worker.connections_max()) else {
        return;
    };
    // There is no answer before the handshake, which is too much work for one who is refused.
    if secure {
        return;
    }
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        connection::refuse(&worker, stream, peer).await;
        drop(slot);
    });
}
