//! The places where a Redis can be: a cluster, behind TLS, with a user of few rights.

use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::redis::{Cluster, Redis};
use crate::support::until;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use std::collections::BTreeSet;

const REDIS_DOCUMENT: &str = include_str!("../../docs/redis.md");

/// Serves a few users with this store; how many it says there were.
fn users_counted(store: &str) -> (u64, Proxy) {
    let origins = [Origin::start("control"), Origin::start("b")];
    let routes = format!(
        "{store}user: {{ cookie: uid }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\nexperiments: {{ shop: {{ control: a, experiment: b, percent: 50 }} }}\nmetrics: {{ buy: {{ event: buy }} }}\n",
        origins[0].address, origins[1].address
    );
    let proxy = Proxy::start(&routes);
    let mut client = proxy.client();
    for number in 0..60 {
        client.get("/?event=buy", &format!("Cookie: uid=user-{number}\r\n"));
    }
    let results = proxy.results();
    let experiment = &results["experiments"][0];
    let of = |what: &serde_json::Value| {
        let groups = what["groups"].as_array().unwrap();
        groups
            .iter()
            .map(|group| group["users"].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(of(experiment), of(&experiment["metrics"][0]));
    (of(experiment), proxy)
}

#[test]
fn cluster_shards_an_experiment_evenly() {
    let cluster = Cluster::start();
    let (users, proxy) = users_counted(&format!("store: \"{}\"\n", cluster.url()));
    assert_eq!(users, 60);
    let mut shards = BTreeSet::new();
    for master in cluster.masters() {
        let keys = cluster.nodes[master]
            .command(&["KEYS", "ws:{shop:*:users"])
            .unwrap();
        assert_eq!(keys.matches(":users").count(), 1, "{keys}");
        shards.insert(keys);
    }
    assert_eq!(shards.len(), 3);
    for user in ["user-0", "user-17", "user-59"] {
        let known = proxy.ask(&format!("/admin/assignments?user={user}")).json();
        assert_eq!(
            known["experiments"][0]["recorded"]["events"]["buy"], 1,
            "{known}"
        );
    }
    let exported = proxy.ask("/admin/export/shop").text();
    assert_eq!(exported.lines().count(), 61);
}

#[test]
fn documented_acl_rights_are_sufficient() {
    let line = REDIS_DOCUMENT.split("`ACL SETUSER ").nth(1).unwrap();
    let line = line
        .split('`')
        .next()
        .unwrap()
        .replace("PASSWORD", "sesame");
    assert!(line.contains(" +time "), "{line}");
    // Users of earlier versions do not have that right.
    for line in [line.replace(" +time ", " "), line] {
        counts_with(&line);
    }
}

fn counts_with(line: &str) {
    let redis = Redis::start();
    let words: Vec<&str> = ["ACL", "SETUSER"]
        .into_iter()
        .chain(line.split(' '))
        .collect();
    redis.command(&words).unwrap();
    let (users, proxy) = users_counted(&format!(
        "store: redis://watershed:sesame@{}\n",
        redis.address
    ));
    assert_eq!(users, 60);
    assert_eq!(proxy.ask("/admin/export/shop").text().lines().count(), 61);
    assert_eq!(proxy.results()["replicas"].as_array().unwrap().len(), 1);
}

#[test]
fn redis_over_tls_is_verified_and_gets_a_client_certificate() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // Apart from what it signs: a certificate that names itself as its issuer is its own.
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(file(name), issuer.pem()).unwrap();
        issuer
    };
    let (ours, _other) = (authority("ca.pem"), authority("other.pem"));
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(
        file("cert.pem"),
        params.signed_by(&key, &ours).unwrap().pem(),
    )
    .unwrap();
    std::fs::write(file("cert.key"), key.serialize_pem()).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let arguments = [
        "--tls-port",
        &port.to_string(),
        "--tls-ca-cert-file",
        &file("ca.pem"),
        "--tls-cert-file",
        &file("cert.pem"),
        "--tls-key-file",
        &file("cert.key"),
        "--tls-auth-clients",
        "yes",
    ]
    .map(str::to_owned);
    let _redis = Redis::with(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let url = format!("rediss://localhost:{port}");
    let shown = format!(
        "certificate: \"{}\", key: \"{}\"",
        file("cert.pem"),
        file("cert.key")
    );
    let sound = format!(
        "store: {{ url: \"{url}\", ca: \"{}\", {shown} }}\n",
        file("ca.pem")
    );
    assert_eq!(users_counted(&sound).0, 60);
    // Somebody else's authority is not believed: facts stay in the journal.
    let wrong = format!(
        "store: {{ url: \"{url}\", ca: \"{}\", {shown} }}\n",
        file("other.pem")
    );
    let routes = format!("{wrong}upstreams: {{ a: \"http://127.0.0.1:9\" }}\n");
    let proxy = Proxy::start(&routes);
    until("a word of it", || {
        let log = proxy.log.lock().unwrap().clone();
        let said = log.contains("the store is unavailable: Redis");
        said.then_some(()).ok_or(log)
    });
}
