//! The admin door: results, the page, assignments, health, reload. `routes.rs` lists its paths.
//!
//! It listens on its own address, loopback unless told otherwise. With tokens, every request but
//! the health checks must carry one (`Authorization: Bearer …`), or the session of a browser that
//! has shown one.

mod advice;
pub mod assignments;
mod bars;
mod caller;
mod cells;
mod chart;
mod confirm;
mod control;
mod deciding;
mod digits;
mod dress;
pub mod events;
mod experiment;
pub mod export;
mod failure;
mod gate;
mod guardrail;
mod health;
mod live;
mod login;
pub mod look;
mod metric;
mod metrics;
mod openapi;
mod page;
mod planning;
mod plot;
mod present;
mod question;
mod recent;
pub mod results;
mod routes;
mod running;
mod said;
mod session;
pub mod shape;
mod sizes;
mod text;
mod trend;
mod users;
mod words;

use crate::config::plan::Plan;
use crate::ledger::{Ledger, LedgerError};
use crate::rate::Rates;
use crate::vitals::Vitals;
use axum::middleware;
use look::Looks;
use results::Wish;
use shape::Results;
use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Asks the house to load its file again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// What became of it: what was done, or all that is wrong with the file.
    pub done: oneshot::Sender<Result<String, String>>,
}

/// Whom the door asks to do what it cannot do itself.
#[derive(Clone, Debug)]
pub struct House {
    /// Loads the file again.
    pub reloads: mpsc::Sender<ReloadRequest>,
    /// Journals events.
    pub events: mpsc::Sender<events::EventsRequest>,
    /// Goes by what was decided just now.
    pub decided: Arc<Notify>,
}

/// What the door knows.
#[derive(Clone)]
pub struct Door {
    replica: Arc<str>,
    looks: Arc<Looks>,
    plan: watch::Receiver<Arc<Plan>>,
    ledger: Arc<dyn Ledger>,
    vitals: Arc<Vitals>,
    rates: Arc<Rates>,
    house: House,
    stopping: watch::Receiver<bool>,
    /// Sessions that were ended before their time, and until when they would have been good. Who
    /// comes to have one needs a token, and one token has one session in a second: they are few.
    ended: Arc<Mutex<HashMap<String, u64>>>,
    /// Proves that a form is from here, where nobody is asked for a token.
    key: [u8; 32],
}

impl Door {
    /// A door to this house; `replica` is its name among those that share its ledger. Fails when
    /// the system has no random numbers.
    pub fn new(
        replica: String,
        looks: Arc<Looks>,
        plan: watch::Receiver<Arc<Plan>>,
        ledger: Arc<dyn Ledger>,
        (vitals, rates): (Arc<Vitals>, Arc<Rates>),
        house: House,
        stopping: watch::Receiver<bool>,
    ) -> Result<Door, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Door {
            replica: replica.into(),
            looks,
            plan,
            ledger,
            vitals,
            rates,
            house,
            stopping,
            ended: Arc::default(),
            key,
        })
    }

    async fn results(&self, wish: Wish<'_>) -> Result<Results, LedgerError> {
        let (plan, replica) = (self.plan(), &self.replica);
        let (ledger, vitals) = (&*self.ledger, &*self.vitals);
        results::gather(&plan, ledger, &self.looks, vitals, replica, wish).await
    }

    fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.borrow())
    }
}

/// Serves the door until its task is dropped.
pub async fn serve(door: Door, listener: TcpListener) -> std::io::Result<()> {
    let guard = middleware::from_fn_with_state(door.clone(), caller::admit);
    let routes = routes::guarded().layer(guard).merge(routes::open());
    let (routes, _) = routes.split_for_parts();
    let routes = routes.fallback(routes::unknown).with_state(door);
    let routes = routes.layer(middleware::from_fn(dress::dress));
    gate::serve(tokio::net::TcpListener::from_std(listener)?, routes).await
}
