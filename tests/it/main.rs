//! One binary for every test that crosses an edge: real sockets, real files, a real Redis, the
//! real program.

mod accounting;
mod assignment;
mod behind;
mod cli;
mod clients;
mod config;
mod control;
mod cookie_cats;
mod damage;
mod door;
mod events;
mod export;
mod fold;
mod identity;
mod journal;
mod kept;
mod ledger;
mod life;
mod logging;
mod main_job;
mod metrics;
mod openapi;
mod page;
mod people;
mod places;
mod schema;
mod simulate;
mod statistics;
mod supervision;
mod support;
mod unfinished;
mod values;
mod verdicts;
mod wire;
