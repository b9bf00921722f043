//! Every socket that is listened to.

use super::Hinted;
use crate::config::plan::Plan;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Every listening socket, bound before anything is served.
#[derive(Debug)]
pub struct Sockets {
    /// One for each worker, without TLS.
    pub public: Vec<TcpListener>,
    /// As many, where TLS is listened to.
    pub secure: Vec<TcpListener>,
    /// The admin door.
    pub admin: TcpListener,
}

impl Sockets {
    /// Binds what the plan asks for: one public socket for each worker, and the admin door.
    pub fn bind(plan: &Plan) -> anyhow::Result<Sockets> {
        let admin = bind(plan.admin.listen, false)
            .map_err(|error| busy("admin.listen", plan.admin.listen, &error))?;
        let public = bind_all("listen", plan.listen, plan.workers)?;
        let secure = match &plan.tls {
            Some(tls) => bind_all("tls.listen", tls.listen, plan.workers)?,
            None => Vec::new(),
        };
        Ok(Sockets {
            public,
            secure,
            admin,
        })
    }

    /// Where TLS is listened to.
    pub fn secure_address(&self) -> Option<SocketAddr> {
        self.secure.first()?.local_addr().ok()
    }

    /// Where the public is listened to.
    pub fn public_address(&self) -> io::Result<SocketAddr> {
        self.public[0].local_addr()
    }

    /// Where people look.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }
}

/// One socket for each worker.
fn bind_all(key: &str, address: SocketAddr, workers: usize) -> anyhow::Result<Vec<TcpListener>> {
    let said = |error: io::Error| busy(key, address, &error);
    // Alone first: several sockets may share a port of ours, but not one of somebody else's.
    drop(bind(address, false).map_err(said)?);
    let mut sockets = vec![bind(address, true).map_err(said)?];
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
    Hinted::new(format!("cannot listen on {address}: {error}"), hint).into()
}
