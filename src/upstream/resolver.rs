//! Where an endpoint's name leads, asked again now and then: names move.

use crate::config::plan::EndpointAddress;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How old an answer may be.
const AGE_MAX: Duration = Duration::from_secs(10);

/// The addresses behind one name.
#[derive(Debug)]
pub struct Resolved {
    host: Box<str>,
    port: u16,
    /// The file gives an address, which is what it is.
    fixed: Option<SocketAddr>,
    addresses: RefCell<Vec<SocketAddr>>,
    /// When they were found, or began to be asked for again.
    at: Cell<Option<Instant>>,
    turn: Cell<usize>,
}

impl Resolved {
    /// Nothing is known yet, unless the endpoint is an address.
    pub fn new(endpoint: &EndpointAddress) -> Resolved {
        let address = endpoint.host.parse::<IpAddr>().ok();
        Resolved {
            host: endpoint.host.clone(),
            port: endpoint.port,
            fixed: address.map(|ip| SocketAddr::new(ip, endpoint.port)),
            addresses: RefCell::default(),
            at: Cell::default(),
            turn: Cell::default(),
        }
    }

    /// The addresses to connect to, another one first each time. What is old is asked for again;
    /// where the resolver has no answer, the old one stands.
    pub async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
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

    /// Whether a connection to this address still goes where the name leads. Asks again, behind
    /// the back of who is served now, when the answer is old.
    pub fn leads_to(self: &Rc<Self>, address: SocketAddr) -> bool {
        if self.fixed.is_some() {
            return true;
        }
        if self.is_old() {
            // Not twice at once.
            self.at.set(Some(Instant::now()));
            let again = Rc::clone(self);
            tokio::task::spawn_local(async move {
                if let Err(error) = again.ask().await {
                    tracing::debug!("{} is not resolved again: {error}", again.host);
                }
            });
        }
        self.addresses.borrow().contains(&address)
    }

    /// None of the addresses accepts connections: the next one who connects asks again.
    pub fn doubt(&self) {
        self.at.set(None);
    }

    fn is_old(&self) -> bool {
        self.at.get().is_none_or(|at| at.elapsed() > AGE_MAX)
    }

    async fn ask(&self) -> io::Result<()> {
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
