//! The listening sockets: bound at the start, or inherited.

use super::ErrorWithHint;
use crate::config::plan::Plan;
use anyhow::Context;
use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use tokio::sync::watch;

/// The name of an inherited public socket (systemd: `FileDescriptorName=`).
pub(super) const PUBLIC: &str = "public";
/// The name of an inherited socket for TLS.
pub(super) const SECURE: &str = "tls";
/// The name of an inherited socket for the admin API.
pub(super) const ADMIN: &str = "admin";
/// The name of an inherited socket for health checks and metrics.
pub(super) const HEALTH: &str = "health";

/// Which other process holds the public listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherHolder {
    /// None: connections that wait are lost when this process closes the listeners.
    Nobody,
    /// The service manager, which passed them on.
    ServiceManager,
    /// A successor that has started.
    Successor,
}

/// All listening sockets, bound before anything is served.
#[derive(Debug)]
pub struct Listeners {
    /// One public socket for each worker, without TLS.
    pub public: Vec<TcpListener>,
    /// One public socket for each worker with TLS; empty without TLS.
    pub secure: Vec<TcpListener>,
    /// The socket of the admin API.
    pub admin: TcpListener,
    /// The socket for health checks and metrics alone.
    pub health: Option<TcpListener>,
    /// Which other process holds the public listeners, so that connections that wait there are not
    /// lost when this process closes them.
    pub holder: watch::Sender<OtherHolder>,
}

/// A socket that was inherited, and its name.
struct Inherited {
    name: String,
    address: SocketAddr,
    listener: TcpListener,
}

impl Listeners {
    /// Binds the sockets of the plan: public ones for each worker, and the admin API's. Inherited
    /// sockets (`LISTEN_FDS`) are used where they fit.
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
        // The kernel may give a connection to any of the inherited sockets, so each needs a worker.
        let given = secure.as_ref().map_or(0, Vec::len).max(public.len());
        let workers = plan.workers.max(given);
        let is_inherited = !public.is_empty() || secure.as_ref().is_some_and(|it| !it.is_empty());
        let public = bind_all("listen", plan.listen, workers, public)?;
        let secure = match (&plan.tls, secure) {
            (Some(tls), Some(secure)) => bind_all("tls.listen", tls.listen, workers, secure)?,
            _ => Vec::new(),
        };
        if let Some(other) = inherited.iter().find(|it| !it.is_known()) {
            let hint = "set `listen`, `tls.listen`, `admin.listen` or `admin.health` to its address, or name it `public`, `tls`, `admin` or `health`";
            let what = format!(
                "the inherited socket {} is not the address of any listener",
                other.address
            );
            return Err(ErrorWithHint::new(what, hint).into());
        }
        Ok(Listeners {
            public,
            secure,
            admin,
            health,
            holder: watch::Sender::new(match is_inherited {
                true => OtherHolder::ServiceManager,
                false => OtherHolder::Nobody,
            }),
        })
    }

    /// Clones the sockets, with their names, for a successor.
    pub fn to_hand_over(&self) -> io::Result<Vec<(&'static str, TcpListener)>> {
        let public = self.public.iter().map(|it| (PUBLIC, it));
        let secure = self.secure.iter().map(|it| (SECURE, it));
        let health = self.health.iter().map(|it| (HEALTH, it));
        let all = public.chain(secure).chain([(ADMIN, &self.admin)]);
        let all = all.chain(health);
        all.map(|(name, it)| Ok((name, it.try_clone()?))).collect()
    }

    /// The public address with TLS.
    pub fn secure_address(&self) -> Option<SocketAddr> {
        self.secure.first()?.local_addr().ok()
    }

    /// The public address.
    pub fn public_address(&self) -> io::Result<SocketAddr> {
        self.public[0].local_addr()
    }

    /// The number of workers that these sockets are for.
    pub fn workers(&self) -> usize {
        self.public.len()
    }

    /// The address of health checks and metrics alone.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health.as_ref()?.local_addr().ok()
    }

    /// The address of the admin API.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }
}

impl Inherited {
    /// Whether this socket serves instead of a new one that is bound to this address.
    fn fits(&self, name: &str, at: SocketAddr) -> bool {
        let named = self.name == name;
        let same = self.address.port() == at.port()
            && (self.address.ip() == at.ip() || self.address.ip().is_unspecified());
        (same && (named || !self.is_known())) || (named && at.port() == 0)
    }

    /// Whether its name is one of ours. Such a socket is closed if the file no longer has its address.
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
        let listener = listener.context("an inherited socket is no TCP listener")?;
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

/// Returns one socket for each worker: inherited ones, or new ones.
fn bind_all(
    key: &str,
    address: SocketAddr,
    workers: usize,
    mut sockets: Vec<TcpListener>,
) -> anyhow::Result<Vec<TcpListener>> {
    let busy = |error: io::Error| busy(key, address, &error);
    let given = sockets.len();
    if given > 0 {
        for place in given..workers {
            sockets.push(sockets[place % given].try_clone().map_err(busy)?);
        }
        return Ok(sockets);
    }
    // First without SO_REUSEPORT: our sockets may share a port, but not with another program.
    drop(bind(address, false).map_err(busy)?);
    sockets.push(bind(address, true).map_err(busy)?);
    // Port 0 is resolved once, for all sockets.
    let address = sockets[0].local_addr()?;
    for _ in 1..workers {
        sockets.push(bind(address, true).map_err(busy)?);
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
            format!("another program listens there: stop it, or write another port at `{key}`")
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
