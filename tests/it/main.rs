//! One binary for every test that crosses an edge: real sockets, real files, a real Redis, the
//! real program.

#![allow(
    clippy::disallowed_methods,
    reason = "a test has its threads to itself"
)]
#![allow(unreachable_pub, reason = "everything in a test is for this test")]

mod aborted_responses;
mod accounting;
mod admin_access;
mod admin_connections;
mod admin_sessions;
mod admission;
mod after_winner;
mod archive;
mod assignment;
mod assistants;
mod bucketing;
mod cli;
mod clients;
mod config;
mod conversion_windows;
mod counting;
mod covariates;
mod damaged_journals;
mod decisions;
mod doctor;
mod error_pages;
mod event_deduplication;
mod event_values;
mod events;
mod export;
mod fixtures;
mod flags;
mod forget;
mod forwarding;
mod gateway;
mod getting_started;
mod history;
mod identities;
mod identity;
mod ingestion;
mod ingestion_lag;
mod journal;
mod json_output;
mod judge;
mod latencies;
mod lifecycle;
mod logging;
mod metrics;
mod migration;
mod mirroring;
mod notifications;
mod openapi;
mod phases;
mod pipelines;
mod postgres;
mod published_experiment;
mod real_sites;
mod redis_deployments;
mod results_page;
mod rolling_upgrade;
mod routes;
mod running_minima;
mod schema;
mod segments;
mod simulate;
mod splitting;
mod startup_shutdown;
mod statistics;
mod store_model;
mod supervision;
mod support;
mod tampered_journals;
mod targeting;
mod time_to_answer;
mod tls;
mod unreadable_journals;
mod unsound_conditions;
mod unusable_stores;
mod upstreams;
mod user_records;
mod verdicts;
mod wire;
