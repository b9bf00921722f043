//! Resolves the name of an endpoint, and resolves it again periodically.

use crate::config::plan::EndpointAddress;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The longest time before a name is resolved again.
const AGE_MAX: Duration = Duration::from_secs(10);

/// The addresses behind one name.
#[derive(Debug)]
pub(super) struct Resolved {
    host: Box<str>,
    port: u16,
    is_srv: bool,
    /// The address, if the file or DNS has named one.
    fixed: Option<SocketAddr>,
    addresses: RefCell<Vec<SocketAddr>>,
    /// When they were resolved, or when resolving started again.
    at: Cell<Option<Instant>>,
    turn: Cell<usize>,
}

impl Resolved {
    /// Makes a resolver that has not resolved yet.
    pub(super) fn new(endpoint: &EndpointAddress) -> Resolved {
        let address = endpoint.ip.or_else(|| endpoint.host.parse().ok());
        Resolved {
            host: endpoint.host.clone(),
            port: endpoint.port,
            is_srv: endpoint.is_srv,
            fixed: address.map(|ip| SocketAddr::new(ip, endpoint.port)),
            addresses: RefCell::default(),
            at: Cell::default(),
            turn: Cell::default(),
        }
    }

    /// Returns the addresses to connect to, each time with another one first. Old addresses are resolved
    /// again; if that fails, the old ones stay.
    pub(super) async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if let Some(fixed) = self.fixed {
            return Ok(vec![fixed]);
        }
        if self.is_old()
            && let Err(error) = self.ask().await
            && self.addresses.borrow().is_empty()
        {
            return Err(error);
        }
        let mut addresses = self.addresses.borrow().clone();
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        let first = turn % addresses.len().max(1);
        addresses.rotate_left(first);
        Ok(addresses)
    }

    /// Whether the name still has this address. If the addresses are old, a task resolves the name again
    /// without delaying this request.
    pub(super) fn leads_to(self: &Rc<Self>, address: Option<SocketAddr>) -> bool {
        let Some(address) = address.filter(|_| self.fixed.is_none()) else {
            return true;
        };
        if self.is_old() {
            // Avoids resolving twice at the same time.
            self.at.set(Some(Instant::now()));
            let again = Rc::clone(self);
            tokio::task::spawn_local(async move {
                if let Err(error) = again.ask().await {
                    tracing::debug!("{} cannot be resolved again: {error}", again.host);
                }
            });
        }
        self.addresses.borrow().contains(&address)
    }

    /// Makes the next connection resolve again, because no address accepts connections.
    pub(super) fn doubt(&self) {
        self.at.set(None);
    }

    fn is_old(&self) -> bool {
        self.at.get().is_none_or(|at| at.elapsed() > AGE_MAX)
    }

    async fn ask(&self) -> io::Result<()> {
        if self.is_srv {
            return Err(io::Error::other("DNS has no SRV records of it yet"));
        }
        let found = tokio::net::lookup_host((&*self.host, self.port)).await?;
        let found: Vec<_> = found.collect();
        if found.is_empty() {
            return Err(io::Error::other("the name has no address"));
        }
        self.at.set(Some(Instant::now()));
        let before = self.addresses.replace(found.clone());
        let same = before.len() == found.len() && before.iter().all(|it| found.contains(it));
        if !before.is_empty() && !same {
            tracing::info!("{} has moved from {before:?} to {found:?}", self.host);
        }
        Ok(())
    }
}
