//! The users and decisions that the store knows, for commands that read a routes file.

use crate::config::declaration::declaration;
use crate::config::plan::{Plan, StoreConfig};
use crate::experiment::identity::IdStorage;
use crate::server::{self, KnownDecisions};
use crate::store::{Store, UserCursor, UserRecord, chain, phases};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long a store may take to answer.
const WITHIN: Duration = Duration::from_secs(5);

/// A store with users whose IDs can be assigned again.
pub(super) struct KnownUsers {
    runtime: Runtime,
    store: Arc<dyn Store>,
}

impl KnownUsers {
    /// Opens the store of a plan; `None` where it has none yet. An error says why its users are not looked
    /// at.
    pub(super) fn open(plan: &Plan) -> Result<Option<KnownUsers>, String> {
        if matches!(plan.identity.keep, IdStorage::Hashed(_)) {
            return Err("it has hashed IDs, which cannot be assigned again".to_owned());
        }
        let opened = open(plan)?;
        Ok(opened.map(|(runtime, store)| KnownUsers { runtime, store }))
    }

    /// Calls `each` for every user of an experiment who is counted.
    pub(super) fn of(
        &self,
        plan: &Plan,
        experiment: &str,
        each: impl FnMut(&[u8], &UserRecord),
    ) -> Result<(), String> {
        let scan = scan(&*self.store, plan, experiment, each);
        self.runtime.block_on(scan)
    }
}

/// Reads the decisions of the store of a plan; none where it has none yet. An error says why they are not
/// known.
pub(super) fn decisions(plan: &Plan) -> Result<KnownDecisions, String> {
    let Some((runtime, store)) = open(plan)? else {
        return Ok(KnownDecisions::default());
    };
    let read = async { tokio::time::timeout(WITHIN, KnownDecisions::read(&*store)).await };
    let read = runtime
        .block_on(read)
        .map_err(|_| "it does not answer".to_owned())?;
    read.map_err(|error| chain(&error))
}

/// A store, and the runtime that its connections belong to.
type OpenedStore = (Runtime, Arc<dyn Store>);

/// Opens the store of a plan; `None` where it has none yet.
fn open(plan: &Plan) -> Result<Option<OpenedStore>, String> {
    if let StoreConfig::Embedded { path } = &plan.store
        && !path.exists()
    {
        return Ok(None);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let opened = runtime
        .block_on(async { tokio::time::timeout(WITHIN, server::open_store(&plan.store)).await })
        .map_err(|_| "it does not answer".to_owned())?;
    Ok(Some((
        runtime,
        opened.map_err(|error| format!("{error:#}"))?,
    )))
}

async fn scan(
    store: &dyn Store,
    plan: &Plan,
    experiment: &str,
    mut each: impl FnMut(&[u8], &UserRecord),
) -> Result<(), String> {
    let key = phases::named(store, &declaration(plan), experiment).await;
    let Some(key) = key.map_err(|error| chain(&error))? else {
        return Ok(());
    };
    let mut next = Some(UserCursor::default());
    while let Some(from) = next {
        let page = store.users(&key, from).await;
        let (users, after) = page.map_err(|error| chain(&error))?;
        let counted = users.iter().filter(|(_, record)| !record.seen_once);
        counted.for_each(|(user, record)| each(user, record));
        next = after;
    }
    Ok(())
}
