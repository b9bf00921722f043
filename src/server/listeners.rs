//! Every socket that is listened to.

use super::ErrorWithHint;
use crate::config::plan::Plan;
use anyhow::Context;
use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Names of sockets that are handed over (systemd: `FileDescriptorName=`).
pub const PUBLIC: &str = "public";
/// The same for TLS.
pub const SECURE: &str = "tls";
/// The same for the admin door.
pub const ADMIN: &str = "admin";
/// The same for health and metrics alone.
pub const HEALTH: &str = "health";

/// Every listening socket, bound before anything is served.
#[derive(Debug)]
pub struct Listeners {
    /// One for each worker, without TLS.
    pub public: Vec<TcpListener>,
    /// As many, where TLS is listened to.
    pub secure: Vec<TcpListener>,
    /// The admin door.
    pub admin: TcpListener,
    /// Where health and metrics are served alone.
    pub health: Option<TcpListener>,
    /// Whether somebody else has the public ones, too: what waits there is not lost when this
    /// process closes them.
    pub held: Arc<AtomicBool>,
    /// Whether a successor has started and is to take over.
    pub succeeded: Arc<AtomicBool>,
}

/// A socket that was handed over, and by what name.
struct Inherited {
    name: String,
    address: SocketAddr,
    listener: TcpListener,
}

impl Listeners {
    /// Binds what the plan asks for: one public socket for each worker, and the admin door.
    /// Listeners that were handed over (`LISTEN_FDS`) are used for their addresses.
    pub fn bind(plan: &Plan) -> anyhow::Result<Listeners> {
        let mut inherited = inherited()?;
        let mut take = |name: &str, at: SocketAddr| -> Vec<TcpListener> {
            let fits = |it: &mut Inherited| it.fits(name, at);
            inherited
                .extract_if(.., fits)
                .map(|it| it.listener)
                .collect()
        };
        let admin = match take(ADMIN, plan.admin.listen).pop() {
            Some(admin) => admin,
            None => bind(plan.admin.listen, false)
                .map_err(|error| busy("admin.listen", plan.admin.listen, &error))?,
        };
        let health = match plan.admin.health {
            Some(at) => Some(match take(HEALTH, at).pop() {
                Some(health) => health,
                None => bind(at, false).map_err(|error| busy("admin.health", at, &error))?,
            }),
            None => None,
        };
        let public = take(PUBLIC, plan.listen);
        let secure = plan.tls.as_ref().map(|tls| take(SECURE, tls.listen));
        // Who connects may end up at any of those that were handed over.
        let given = secure.as_ref().map_or(0, Vec::len).max(public.len());
        let workers = plan.workers.max(given);
        let held = !public.is_empty() || secure.as_ref().is_some_and(|it| !it.is_empty());
        let public = bind_all("listen", plan.listen, workers, public)?;
        let secure = match (&plan.tls, secure) {
            (Some(tls), Some(secure)) => bind_all("tls.listen", tls.listen, workers, secure)?,
            _ => Vec::new(),
        };
        if let Some(other) = inherited.iter().find(|it| !it.is_known()) {
            let hint = "let `listen`, `tls.listen`, `admin.listen` or `admin.health` be its address, or name it `public`, `tls`, `admin` or `health`";
            let said = format!(
                "nothing here listens on {}, whose socket was handed over",
                other.address
            );
            return Err(ErrorWithHint::new(said, hint).into());
        }
        Ok(Listeners {
            public,
            secure,
            admin,
            health,
            held: Arc::new(AtomicBool::new(held)),
            succeeded: Arc::default(),
        })
    }

    /// The same sockets once more, with their names, for a process that takes over.
    pub fn to_hand_over(&self) -> io::Result<Vec<(&'static str, TcpListener)>> {
        let public = self.public.iter().map(|it| (PUBLIC, it));
        let secure = self.secure.iter().map(|it| (SECURE, it));
        let health = self.health.iter().map(|it| (HEALTH, it));
        let all = public.chain(secure).chain([(ADMIN, &self.admin)]);
        let all = all.chain(health);
        all.map(|(name, it)| Ok((name, it.try_clone()?))).collect()
    }

    /// Where TLS is listened to.
    pub fn secure_address(&self) -> Option<SocketAddr> {
        self.secure.first()?.local_addr().ok()
    }

    /// Where the public is listened to.
    pub fn public_address(&self) -> io::Result<SocketAddr> {
        self.public[0].local_addr()
    }

    /// How many workers they are for.
    pub fn workers(&self) -> usize {
        self.public.len()
    }

    /// Where health and metrics are served alone.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health.as_ref()?.local_addr().ok()
    }

    /// Where people look.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }
}

impl Inherited {
    /// Whether this is what would be bound to this address.
    fn fits(&self, name: &str, at: SocketAddr) -> bool {
        let named = self.name == name;
        let same = self.address.port() == at.port()
            && (self.address.ip() == at.ip() || self.address.ip().is_unspecified());
        (same && (named || !self.is_known())) || (named && at.port() == 0)
    }

    /// Whether it has a name of ours: one whose address the file no longer has is let go.
    fn is_known(&self) -> bool {
        [PUBLIC, SECURE, ADMIN, HEALTH].contains(&&*self.name)
    }
}

fn inherited() -> anyhow::Result<Vec<Inherited>> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut fds = ListenFd::from_env();
    let mut all = Vec::new();
    for place in 0..fds.len() {
        let listener = fds.take_tcp_listener(place);
        let listener = listener.context("a socket that was handed over is no TCP listener")?;
        let name = names.next().unwrap_or_default().to_owned();
        if let Some(listener) = listener {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            all.push(Inherited {
                name,
                address,
                listener,
            });
        }
    }
    Ok(all)
}

/// One socket for each worker: those that were handed over, or new ones.
fn bind_all(
    key: &str,
    address: SocketAddr,
    workers: usize,
    mut sockets: Vec<TcpListener>,
) -> anyhow::Result<Vec<TcpListener>> {
    let said = |error: io::Error| busy(key, address, &error);
    let given = sockets.len();
    if given > 0 {
        for place in given..workers {
            sockets.push(sockets[place % given].try_clone().map_err(said)?);
        }
        return Ok(sockets);
    }
    // Alone first: several sockets may share a port of ours, but not one of somebody else's.
    drop(bind(address, false).map_err(said)?);
    sockets.push(bind(address, true).map_err(said)?);
    // A port of 0 is chosen once, for all.
    let address = sockets[0].local_addr()?;
    for _ in 1..workers {
        sockets.push(bind(address, true).map_err(said)?);
    }
    Ok(sockets)
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn busy(key: &str, address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("something else listens there: stop it, or write another port at `{key}`")
        }
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 need a privilege: write a higher port at `{key}`")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no such address: write another at `{key}`")
        }
        _ => format!("write another address at `{key}`"),
    };
    ErrorWithHint::new(format!("cannot listen on {address}: {error}"), hint).into()
}
