//! `watershed kubernetes`: HTTPRoutes of a cluster become the routes file of a running proxy. The cluster is a server of
//! this test that speaks the API; no conformance suite was run.

use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::until;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

const TOKEN: &str = "token-of-the-pod";

/// What the API server has.
struct Cluster {
    /// In the order of their names.
    routes: Mutex<Vec<Value>>,
    version: watch::Sender<u64>,
    patches: Mutex<Vec<(String, Value)>>,
    is_down: Mutex<bool>,
}

impl Cluster {
    fn apply(&self, route: Value) {
        let mut routes = self.routes.lock().unwrap();
        let name = route["metadata"]["name"].clone();
        routes.retain(|it| it["metadata"]["name"] != name);
        routes.push(route);
        self.version.send_modify(|version| *version += 1);
    }

    fn status(&self, name: &str) -> Value {
        let routes = self.routes.lock().unwrap();
        let mut found = routes.iter().filter(|it| it["metadata"]["name"] == name);
        found.next().unwrap()["status"].clone()
    }
}

/// An API server; it stops when this is dropped.
struct ApiServer {
    address: SocketAddr,
    cluster: Arc<Cluster>,
    _runtime: tokio::runtime::Runtime,
}

impl ApiServer {
    fn start() -> ApiServer {
        let cluster = Arc::new(Cluster {
            routes: Mutex::default(),
            version: watch::Sender::new(1),
            patches: Mutex::default(),
            is_down: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = "/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/httproutes";
        let api = Router::new()
            .route(routes, get(list))
            .route(&format!("{routes}/{{name}}/status"), patch(write_status))
            .with_state(Arc::clone(&cluster));
        runtime.spawn(async move { axum::serve(listener, api).await.unwrap() });
        ApiServer {
            address,
            cluster,
            _runtime: runtime,
        }
    }
}

async fn list(
    State(cluster): State<Arc<Cluster>>,
    Path(namespace): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if headers["authorization"] != format!("Bearer {TOKEN}") || namespace != "shop" {
        return StatusCode::FORBIDDEN.into_response();
    }
    if *cluster.is_down.lock().unwrap() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if query.contains_key("watch") {
        let seen: u64 = query["resourceVersion"].parse().unwrap();
        let mut version = cluster.version.subscribe();
        let _ = version.wait_for(|version| *version > seen).await;
        if *cluster.is_down.lock().unwrap() {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let object = cluster.routes.lock().unwrap()[0].clone();
        let event = json!({ "type": "MODIFIED", "object": object });
        return format!("{event}\n").into_response();
    }
    let version = cluster.version.borrow().to_string();
    let items = cluster.routes.lock().unwrap().clone();
    let list = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRouteList",
        "metadata": { "resourceVersion": version },
        "items": items,
    });
    axum::Json(list).into_response()
}

async fn write_status(
    State(cluster): State<Arc<Cluster>>,
    Path((_, name)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let written: Value = serde_json::from_slice(&body).unwrap();
    let mut routes = cluster.routes.lock().unwrap();
    let mut named = routes
        .iter_mut()
        .filter(|it| it["metadata"]["name"] == *name);
    let route = named.next().unwrap();
    route["status"] = written["status"].clone();
    let answer = axum::Json(route.clone()).into_response();
    drop(routes);
    cluster.patches.lock().unwrap().push((name, written));
    // A status is a change, as others see it.
    cluster.version.send_modify(|version| *version += 1);
    answer
}

fn route(name: &str, gateway: &str, rules: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": { "namespace": "shop", "name": name, "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "parentRefs": [{ "name": gateway }], "rules": rules },
    })
}

/// One rule with two services.
fn split(first: u32, second: u32) -> Value {
    json!([{ "name": "pages", "backendRefs": [{ "name": "v1", "port": 80, "weight": first }, { "name": "v2", "port": 80, "weight": second }] }])
}

/// The command beside a proxy that reads what it writes.
struct Follower {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Follower {
    #[track_caller]
    fn until_logged(&self, words: &str) {
        until(words, || {
            let log = self.log.lock().unwrap().clone();
            log.contains(words).then_some(()).ok_or(log)
        });
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Site {
    api: ApiServer,
    proxy: Proxy,
    _origins: [Origin; 3],
}

impl Site {
    fn start() -> Site {
        let origins = ["v1", "v2", "api"].map(Origin::start);
        let [v1, v2, api] = origins.each_ref().map(|origin| origin.address);
        // The names of services mean nothing here, so the base says where they are.
        let base = format!(
            "user: {{ cookie: uid }}\nupstreams: {{ none: \"http://{api}\", shop_v1_80: \"http://{v1}\", shop_v2_80: \"http://{v2}\", shop_api_80: \"http://{api}\" }}\ndefault: none\nmetrics: {{ buy: {{ event: buy }} }}\n"
        );
        let proxy = Proxy::start(&base);
        proxy.write(&base);
        let folder = proxy.folder.path();
        std::fs::copy(proxy.file(), folder.join("base.yaml")).unwrap();
        let api = ApiServer::start();
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{ "name": "one", "cluster": { "server": format!("http://{}", api.address) } }],
            "users": [{ "name": "pod", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "here", "context": { "cluster": "one", "user": "pod", "namespace": "shop" } }],
        });
        std::fs::write(folder.join("kubeconfig"), config.to_string()).unwrap();
        Site {
            api,
            proxy,
            _origins: origins,
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let folder = self.proxy.folder.path();
        let mut command = Command::new(BINARY);
        command
            .args([
                "kubernetes",
                "--gateway",
                "public",
                "--base",
                "base.yaml",
                "--write",
                "routes.yaml",
            ])
            .args(words)
            .current_dir(folder)
            .env("KUBECONFIG", folder.join("kubeconfig"))
            .stderr(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }

    fn follow(&self) -> Follower {
        let mut child = self.command(&[]).spawn().unwrap();
        let log: Arc<Mutex<String>> = Arc::default();
        let (lines, written) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                written.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Follower { child, log }
    }

    fn once(&self, words: &[&str]) -> Output {
        let words = [&["--once"], words].concat();
        self.command(&words).output().unwrap()
    }

    /// The versions that these users get.
    fn versions(&self, users: std::ops::Range<usize>, path: &str) -> Vec<String> {
        let mut client = self.proxy.client();
        let ask = |user| {
            let answer = client.get(path, &format!("Cookie: uid=user-{user}\r\n"));
            match answer.status {
                200 => answer.json()["version"].as_str().unwrap().to_owned(),
                status => status.to_string(),
            }
        };
        users.map(ask).collect()
    }

    /// Waits until this path gives all users one of these versions, each of them to somebody.
    #[track_caller]
    fn until_served(&self, path: &str, expected: &[&str]) -> Vec<String> {
        until(&format!("{expected:?} for {path}"), || {
            let versions = self.versions(0..60, path);
            let found: BTreeSet<&str> = versions.iter().map(String::as_str).collect();
            match found == expected.iter().copied().collect() {
                true => Ok(versions.clone()),
                false => Err((versions.clone(), self.proxy.log.lock().unwrap().clone())),
            }
        })
    }

    fn condition(&self, name: &str, kind: &str) -> Value {
        until("a status", || {
            let status = self.api.cluster.status(name);
            let parents = status["parents"].as_array().cloned().unwrap_or_default();
            let mut ours = parents.into_iter();
            let ours = ours.find(|it| it["controllerName"] == "watershed/http-routes");
            let conditions = ours.map(|it| it["conditions"].clone());
            let conditions = conditions.and_then(|it| it.as_array().cloned());
            let found = conditions
                .into_iter()
                .flatten()
                .find(|it| it["type"] == kind);
            found.ok_or(status)
        })
    }
}

#[test]
fn routes_of_a_cluster_split_users_and_follow_its_weights() {
    let site = Site::start();
    let cluster = &site.api.cluster;
    let mut own = route("site", "public", split(1, 1));
    own["status"] =
        json!({ "parents": [{ "controllerName": "other/one", "parentRef": { "name": "x" } }] });
    cluster.apply(own);
    cluster.apply(route("foreign", "another", split(0, 1)));
    let follower = site.follow();
    let before = site.until_served("/", &["v1", "v2"]);
    // The same users get the same versions.
    assert_eq!(site.versions(0..60, "/"), before);
    assert_eq!(site.condition("site", "Accepted")["status"], "True");
    let resolved = site.condition("site", "ResolvedRefs");
    assert_eq!(
        [&resolved["status"], &resolved["reason"]],
        ["True", "ResolvedRefs"]
    );
    assert_eq!(resolved["observedGeneration"], 3);
    let parents = cluster.status("site")["parents"].clone();
    assert_eq!(parents[0]["controllerName"], "other/one", "{parents:#}");
    assert_eq!(parents[1]["parentRef"], json!({ "name": "public" }));
    assert_eq!(cluster.status("foreign"), Value::Null);

    // A more specific rule of one service, and other weights.
    let rule = json!([{ "matches": [{ "path": { "value": "/api" } }], "backendRefs": [{ "name": "api", "port": 80 }] }]);
    cluster.apply(route("api", "public", rule));
    site.until_served("/api/x", &["api"]);
    assert_eq!(site.versions(0..60, "/"), before);
    cluster.apply(route("site", "public", split(0, 5)));
    site.until_served("/", &["v2"]);
    site.until_served("/api", &["api"]);
    let results = site.proxy.results();
    let experiment = &results["experiments"][0];
    assert_eq!(experiment["name"], "shop_site_pages");
    let groups = experiment["groups"].as_array().unwrap();
    let users: u64 = groups.iter().map(|it| it["users"].as_u64().unwrap()).sum();
    assert_eq!(users, 60, "{experiment:#}");

    // What cannot be done is said, and stops nobody else.
    let mirror = json!([{ "matches": [{ "path": { "value": "/m" } }], "filters": [{ "type": "RequestMirror" }], "backendRefs": [{ "name": "v1", "port": 80 }] }]);
    cluster.apply(route("mirrored", "public", mirror));
    site.until_served("/m", &["500"]);
    let accepted = site.condition("mirrored", "Accepted");
    assert_eq!(
        [&accepted["status"], &accepted["reason"]],
        ["False", "UnsupportedValue"]
    );
    let message = accepted["message"].as_str().unwrap();
    assert!(
        message.contains("rules.0.filters: RequestMirror"),
        "{message}"
    );
    let invalid = json!([{ "matches": [{ "method": "get it" }], "backendRefs": [{ "name": "v1", "port": 80 }] }]);
    cluster.apply(route("invalid", "public", invalid));
    let accepted = site.condition("invalid", "Accepted");
    assert_eq!(accepted["status"], "False");
    assert!(
        accepted["message"]
            .as_str()
            .unwrap()
            .contains("a method in capitals")
            || accepted["message"].as_str().unwrap().contains("method"),
        "{accepted}"
    );
    site.until_served("/m", &["500"]);
    site.until_served("/api", &["api"]);

    // A cluster that is away changes nothing; when it is back, it is followed again.
    *cluster.is_down.lock().unwrap() = true;
    cluster.apply(route("site", "public", split(5, 0)));
    follower.until_logged("the file stays as it is");
    site.until_served("/", &["v2"]);
    *cluster.is_down.lock().unwrap() = false;
    site.until_served("/", &["v1"]);
    follower.until_logged("are read again");

    // A status that is the same is not written again.
    let patches = cluster.patches.lock().unwrap();
    let of_api = patches.iter().filter(|(name, _)| name == "api");
    assert_eq!(of_api.count(), 1);
    drop(patches);
    let log = follower.log.lock().unwrap();
    assert!(!log.contains(TOKEN), "{log}");
}

#[test]
fn file_is_written_once_where_that_is_asked_for() {
    let site = Site::start();
    site.api.cluster.apply(route("site", "public", split(1, 1)));
    let done = site.once(&["--no-status"]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(done.stdout, b"routes.yaml has 1 routes of the cluster\n");
    site.until_served("/", &["v1", "v2"]);
    assert_eq!(site.api.cluster.patches.lock().unwrap().len(), 0);

    let refused = |done: Output, code: i32, expected: &str| {
        assert_eq!(done.status.code(), Some(code), "{done:?}");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(said.contains(expected), "{said}");
    };
    *site.api.cluster.is_down.lock().unwrap() = true;
    refused(site.once(&[]), 1, "HTTPRoute cannot be listed");
    let base = site.proxy.folder.path().join("base.yaml");
    std::fs::write(&base, "listen: 127.0.0.1:1\nupstreams: { a: nothing }\n").unwrap();
    refused(site.once(&[]), 2, "upstreams.a");
    let kubeconfig = site.proxy.folder.path().join("kubeconfig");
    std::fs::remove_file(kubeconfig).unwrap();
    refused(site.once(&[]), 1, "there is no cluster to ask");
}
