//! Asks a cluster for its routes, and tells it what became of them.

use super::arguments::Arguments;
use super::merged_file::{MergedFile, merge};
use crate::gateway::http_route::{GROUP, HttpRoute};
use crate::gateway::problem::RouteProblem;
use crate::gateway::status::status;
use crate::private_file;
use crate::server::ErrorWithHint;
use crate::store::backoff::Backoff;
use anyhow::Context;
use futures_util::TryStreamExt;
use kube::api::{
    Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, WatchEvent,
    WatchParams,
};
use kube::{Client, Config, ResourceExt};
use serde_json::json;
use std::pin::pin;
use std::time::Duration;

/// How long changes are gathered, which often come several at once.
const GATHER: Duration = Duration::from_millis(200);
/// How long one watch lasts; the API allows less than 300.
const WATCH_SECONDS: u32 = 290;

/// Writes the file whenever routes change; or once, and returns how many routes it has.
pub(super) async fn follow(arguments: &Arguments) -> anyhow::Result<usize> {
    let no_cluster = |error: &dyn std::fmt::Display| {
        let found = format!("there is no cluster to ask: {error}");
        ErrorWithHint::new(found, "run it in a pod, or set KUBECONFIG")
    };
    let mut config = Config::infer().await.map_err(|error| no_cluster(&error))?;
    // Rounds are repeated here, and an error is to be seen at once.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(|error| no_cluster(&error))?;
    let cluster = Cluster::new(client, arguments);
    // A base that is invalid from the start is not waited for.
    merge(
        &arguments.base,
        &[],
        &arguments.cluster_domain,
        &arguments.write,
    )?;
    let mut backoff = Backoff::new();
    let mut last_error = String::new();
    loop {
        let done = cluster.round(arguments).await;
        let (version, routes) = match done {
            Ok(read) => read,
            Err(error) if arguments.once => return Err(error),
            Err(error) => {
                let error = format!("{error:#}");
                if error != last_error {
                    tracing::error!(
                        "the routes of the cluster are not read; the file stays as it is: {error}"
                    );
                    last_error = error;
                }
                tokio::time::sleep(backoff.delay()).await;
                continue;
            }
        };
        if arguments.once {
            return Ok(routes);
        }
        if !std::mem::take(&mut last_error).is_empty() {
            tracing::info!("the routes of the cluster are read again");
        }
        backoff = Backoff::new();
        if let Err(error) = cluster.wait_for_change(&version).await {
            tracing::debug!("a watch ended: {error:#}");
            tokio::time::sleep(backoff.delay()).await;
        }
        tokio::time::sleep(GATHER).await;
    }
}

struct Cluster {
    client: Client,
    kind: ApiResource,
    /// The namespace and name of the gateway.
    gateway: (String, String),
    routes: Api<DynamicObject>,
}

impl Cluster {
    fn new(client: Client, arguments: &Arguments) -> Cluster {
        let gateway = match arguments.gateway.split_once('/') {
            Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
            None => (
                client.default_namespace().to_owned(),
                arguments.gateway.clone(),
            ),
        };
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", "HTTPRoute"));
        let routes = match arguments.all_namespaces {
            true => Api::all_with(client.clone(), &kind),
            false => Api::namespaced_with(client.clone(), &gateway.0, &kind),
        };
        Cluster {
            client,
            kind,
            gateway,
            routes,
        }
    }

    /// Reads all routes, writes the file if it changes, and the status of routes. Returns the version of what was read,
    /// and how many routes the file has.
    async fn round(&self, arguments: &Arguments) -> anyhow::Result<(String, usize)> {
        let all = self.routes.list(&ListParams::default()).await;
        let all = all.with_context(|| format!("{GROUP}/v1 HTTPRoute cannot be listed"))?;
        let version = all.metadata.resource_version.clone().unwrap_or_default();
        let mut routes: Vec<HttpRoute> = all.items.iter().filter_map(|it| self.route(it)).collect();
        routes.sort_by_cached_key(|route| (route.metadata.creation_timestamp.clone(), route.id()));
        let (base, file) = (&arguments.base, &arguments.write);
        let merged = merge(base, &routes, &arguments.cluster_domain, file)?;
        let accepted = routes.len() - merged.refused.len();
        let before = std::fs::read_to_string(file).ok();
        if before.as_deref() != Some(&*merged.text) {
            private_file::write(file, merged.text.as_bytes())
                .with_context(|| format!("{} cannot be written", file.display()))?;
            tracing::info!(
                "{} has {} routes of the gateway {}/{}",
                file.display(),
                accepted,
                self.gateway.0,
                self.gateway.1
            );
        }
        self.report(&routes, &merged, arguments.no_status).await;
        Ok((version, accepted))
    }

    /// An object as a route of the gateway.
    fn route(&self, object: &DynamicObject) -> Option<HttpRoute> {
        let read = serde_json::to_value(object).and_then(serde_json::from_value::<HttpRoute>);
        let route = match read {
            Ok(route) => route,
            Err(error) => {
                tracing::warn!(
                    "the HTTPRoute {} cannot be read: {error}",
                    object.name_any()
                );
                return None;
            }
        };
        let gateway = (&*self.gateway.0, &*self.gateway.1);
        let mut parents = route.spec.parent_refs.iter();
        let own = &route.metadata.namespace;
        parents
            .any(|parent| parent.is(gateway, own))
            .then_some(route)
    }

    /// Logs what is new, and writes statuses that change.
    async fn report(&self, routes: &[HttpRoute], merged: &MergedFile, no_status: bool) {
        let now = jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string();
        for (place, route) in routes.iter().enumerate() {
            let problems = merged.problems.iter().filter(|(of, _)| *of == place);
            let problems: Vec<&RouteProblem> = problems.map(|(_, problem)| problem).collect();
            let refused = merged.refused.iter().find(|(of, _)| *of == place);
            let refused = refused.map(|(_, why)| &**why);
            let gateway = (&*self.gateway.0, &*self.gateway.1);
            let Some(status) = status(route, gateway, (&problems, refused), &now) else {
                continue;
            };
            let faults = problems
                .iter()
                .map(|problem| &*problem.message)
                .chain(refused);
            for fault in faults {
                tracing::warn!("HTTPRoute {}: {fault}", route.id());
            }
            if no_status {
                continue;
            }
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), &route.metadata.namespace, &self.kind);
            let patch = Patch::Merge(json!({ "status": status }));
            let (name, how) = (&route.metadata.name, PatchParams::default());
            if let Err(error) = api.patch_status(name, &how, &patch).await {
                tracing::warn!(
                    "the status of HTTPRoute {} cannot be written: {error}",
                    route.id()
                );
            }
        }
    }

    /// Waits until a route has changed since a version, or a watch is over.
    async fn wait_for_change(&self, version: &str) -> anyhow::Result<()> {
        let how = WatchParams::default().timeout(WATCH_SECONDS);
        let mut events = pin!(self.routes.watch(&how, version).await?);
        while let Some(event) = events.try_next().await? {
            match event {
                // They tell a version, and no change.
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(error) => anyhow::bail!("{error}"),
                _ => return Ok(()),
            }
        }
        Ok(())
    }
}
