//! What only PostgreSQL does: replicas that write at once, its places and rights, and the server that goes away.

use crate::store_model::{one_user, runtime, shop, users};
use crate::support::origin::Origin;
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;
use crate::support::until;
use futures_util::future::join_all;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use std::collections::BTreeMap;
use watershed::store::postgres::PostgresStore;
use watershed::store::redis::TlsFiles;
use watershed::store::{Applied, Delta, EventAt, JournalRange, Store};

const POSTGRES_DOCUMENT: &str = include_str!("../../docs/postgres.md");

/// One event of the user whom all replicas count.
fn delta_of(replica: u64, number: u64) -> Delta {
    let mut delta = one_user(0);
    delta.ranges = vec![JournalRange {
        journal: format!("replica-{replica}").into(),
        after: number,
        through: number + 1,
    }];
    delta.users[0].events = vec![EventAt {
        at_ms: 5,
        reported_ms: 5,
        metric: "m".to_owned(),
        within_ms: None,
        cap: None,
        covariate_ms: None,
        count: 1,
        sum: 10,
        base: 0,
        id: None,
    }];
    delta
}

#[test]
fn replicas_that_write_at_once_lose_and_double_nothing() {
    let postgres = Postgres::start();
    let replica = async |replica: u64| {
        let store = shop(&postgres);
        for number in 0..25 {
            let delta = delta_of(replica, number);
            assert_eq!(store.apply(&delta).await.unwrap(), Applied::Added);
            // As after an answer that was lost.
            assert_eq!(store.apply(&delta).await.unwrap(), Applied::AlreadyApplied);
        }
    };
    runtime().block_on(async {
        // They create the tables at once, too.
        join_all((0..4).map(replica)).await;
        let store = shop(&postgres);
        let record = store.user("exp.1", &[0]).await.unwrap().unwrap();
        let metric = record.metrics["m"];
        assert_eq!((metric.count, metric.sum), (100, 1_000));
        assert_eq!(users(&store).await, 1);
        let totals = store.totals("exp.1").await.unwrap();
        let metric = &totals.epochs[0].groups["control"].metrics["m"];
        assert_eq!(
            (metric.count, metric.sum, metric.sum_sq),
            (100, 1_000, 1_000_000)
        );
    });
    let versions = postgres
        .sql("SELECT version FROM watershed.format")
        .unwrap();
    assert_eq!(versions, [["1"]]);
}

/// A call that its caller gives up in the middle leaves nothing behind, and no lock.
#[test]
fn given_up_delta_leaves_nothing() {
    let postgres = Postgres::start();
    runtime().block_on(async {
        let (one, two) = (shop(&postgres), shop(&postgres));
        assert_eq!(one.apply(&delta_of(1, 0)).await.unwrap(), Applied::Added);
        for polls in 1..60 {
            let delta = delta_of(2, 0);
            let mut applying = one.apply(&delta);
            let mut is_done = false;
            for _ in 0..polls {
                let waits = std::time::Duration::from_micros(300);
                is_done = tokio::time::timeout(waits, &mut applying).await.is_ok();
                if is_done {
                    break;
                }
            }
            drop(applying);
            let expected = (1, 0);
            let has = two
                .applied("exp.1", 0, &["replica-2".into()])
                .await
                .unwrap();
            // Its commit may have arrived.
            let record = two.user("exp.1", &[0]).await.unwrap().unwrap();
            assert_eq!(record.metrics["m"].count, expected.0 + has[0]);
            assert!(!is_done || has[0] == 1);
            if has[0] == 1 {
                break;
            }
        }
        // No lock is left: others go on at once.
        assert_eq!(two.apply(&delta_of(3, 0)).await.unwrap(), Applied::Added);
    });
}

fn site() -> ([Origin; 2], String) {
    let origins = [Origin::start("control"), Origin::start("b")];
    let routes = format!(
        "user: {{ cookie: uid }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\nexperiments: {{ shop: {{ control: a, experiment: b, percent: 50 }} }}\nmetrics: {{ buy: {{ event: buy }} }}\n",
        origins[0].address, origins[1].address
    );
    (origins, routes)
}

fn visit(proxy: &Proxy, users: std::ops::Range<u64>) {
    let mut client = proxy.client();
    for number in users {
        let answer = client.get("/?event=buy", &format!("Cookie: uid=user-{number}\r\n"));
        assert_eq!(answer.status, 200);
    }
}

fn are_counted(proxy: &Proxy, users: u64) {
    until("all users", || {
        let results = proxy.ask("/admin/results");
        if results.status != 200 {
            return Err(results.text());
        }
        let results = results.json();
        let sum = |of: &serde_json::Value| {
            let groups = of["groups"].as_array().unwrap().iter();
            groups.map(|it| it["users"].as_u64().unwrap()).sum::<u64>()
        };
        let experiment = &results["experiments"][0];
        let counted = (sum(experiment), sum(&experiment["metrics"][0]));
        (counted == (users, users))
            .then_some(())
            .ok_or(results.to_string())
    });
}

#[test]
fn documented_rights_and_schema_are_sufficient() {
    let postgres = Postgres::start();
    let statements = POSTGRES_DOCUMENT.split("```sql\n").nth(1).unwrap();
    let statements = statements.split("```").next().unwrap();
    for statement in statements.lines().filter(|line| !line.is_empty()) {
        let statement = statement.replace("'PASSWORD'", "'pass:word/?'");
        let statement = statement.replace("ROLE watershed", "ROLE counts");
        let statement = statement.replace("OWNER watershed", "OWNER counts");
        postgres.sql_in("postgres", &statement).unwrap();
    }
    let (_origins, routes) = site();
    let url = format!(
        "postgres://counts:pass%3Aword%2F%3F@{}/watershed",
        postgres.address
    );
    let proxy = Proxy::start(&format!(
        "store: {{ url: \"{url}\", schema: split_tests }}\n{routes}"
    ));
    visit(&proxy, 0..40);
    are_counted(&proxy, 40);
    assert_eq!(proxy.ask("/admin/export/shop").text().lines().count(), 41);
    let results = proxy.results();
    assert_eq!(results["store"]["kind"], "postgres", "{results:#}");
    let tables = "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename IN ('users', 'totals')";
    assert_eq!(
        postgres.sql_in("watershed", tables).unwrap(),
        [["split_tests"]]
    );
    let log = proxy.log.lock().unwrap().clone();
    assert!(
        !log.contains("pass:word") && !log.contains("pass%3A"),
        "{log}"
    );
    // Two connections, whatever happens.
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'counts'";
    assert_eq!(postgres.sql(connections).unwrap(), [["2"]]);
}

#[test]
fn server_that_restarts_is_used_again() {
    let mut postgres = Postgres::start();
    let (_origins, routes) = site();
    let proxy = Proxy::start(&format!("store: {}\n{routes}", postgres.url()));
    visit(&proxy, 0..20);
    are_counted(&proxy, 20);
    postgres.stop();
    visit(&proxy, 20..40);
    until("a problem", || {
        let ready = proxy.ask("/admin/readyz").text();
        let place = format!("PostgreSQL at {}, database shop", postgres.address);
        let is_told = ready.contains(&place) && ready.contains("start it, or correct `store`");
        is_told.then_some(()).ok_or(ready)
    });
    postgres.up();
    visit(&proxy, 40..60);
    are_counted(&proxy, 60);
}

/// Makes an authority, and a certificate of it for a server or a client: paths of their files.
fn certificates(postgres: &Postgres, of: &str, name: &str) -> BTreeMap<&'static str, String> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, of);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    let signed = params.signed_by(&key, &issuer).unwrap();
    let file = |end: &str, text: &str| postgres.add_file(&format!("{of}.{end}"), text);
    BTreeMap::from([
        ("ca", file("ca", &issuer.pem())),
        ("cert", file("cert", &signed.pem())),
        ("key", file("key", &key.serialize_pem())),
    ])
}

#[test]
fn tls_is_verified_and_gets_a_client_certificate() {
    let postgres = Postgres::start();
    let server = certificates(&postgres, "server", "localhost");
    let client = certificates(&postgres, "client", "watershed");
    for (key, value) in [
        ("ssl_cert_file", &server["cert"]),
        ("ssl_key_file", &server["key"]),
        ("ssl_ca_file", &client["ca"]),
        ("ssl", &"on".to_owned()),
    ] {
        postgres
            .sql(&format!("ALTER SYSTEM SET {key} = '{value}'"))
            .unwrap();
    }
    let rules = "host all admin all scram-sha-256\nhostssl all watershed all scram-sha-256 clientcert=verify-full\n";
    let file = postgres.add_file("hba", rules);
    postgres
        .sql(&format!("ALTER SYSTEM SET hba_file = '{file}'"))
        .unwrap();
    let mut postgres = postgres;
    postgres.stop();
    postgres.up();
    let (_origins, routes) = site();
    let url = format!(
        "postgres://watershed:sesame@localhost:{}/shop",
        postgres.address.port()
    );
    let shown = format!(
        "certificate: \"{}\", key: \"{}\"",
        client["cert"], client["key"]
    );
    let with = |ca: &str, shown: &str| {
        format!("store: {{ url: \"{url}?sslmode=verify-full\", ca: \"{ca}\"{shown} }}\n{routes}")
    };
    let proxy = Proxy::start(&with(&server["ca"], &format!(", {shown}")));
    visit(&proxy, 0..20);
    are_counted(&proxy, 20);
    let sql = "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'watershed'";
    assert_eq!(postgres.sql(sql).unwrap(), [["t"]]);
    drop(proxy);
    let plain = format!("store: {url}\n{routes}");
    for (routes, problem) in [
        (with(&client["ca"], &format!(", {shown}")), "UnknownIssuer"),
        (with(&server["ca"], ""), "correct the user and password"),
        (plain, "add ?sslmode=require to the address"),
    ] {
        let proxy = Proxy::start(&routes);
        until(problem, || {
            let ready = proxy.ask("/admin/readyz").text();
            ready.contains(problem).then_some(()).ok_or(ready)
        });
    }
}

#[test]
fn of_several_servers_the_one_that_can_be_written_is_used() {
    let (standby, primary) = (Postgres::start(), Postgres::start());
    let read_only = "ALTER DATABASE shop SET default_transaction_read_only = on";
    standby.sql(read_only).unwrap();
    let gone = crate::support::refusing_address();
    let url = format!(
        "postgres://watershed:sesame@{gone},{},{}/shop",
        standby.address, primary.address
    );
    runtime().block_on(async {
        let store = PostgresStore::at(&url, TlsFiles::default(), "watershed").unwrap();
        assert_eq!(store.apply(&delta_of(1, 0)).await.unwrap(), Applied::Added);
    });
    let known = "SELECT count(*) FROM pg_namespace WHERE nspname = 'watershed'";
    assert_eq!(standby.sql(known).unwrap(), [["0"]]);
    assert_eq!(primary.sql(known).unwrap(), [["1"]]);
}
