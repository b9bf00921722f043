//! What recording costs: `cargo bench --bench store [-- FACTS [USERS]]`. Appends facts to a journal, and
//! folds them into each store, as a start after a crash would. Redis and PostgreSQL are real servers of
//! their own; nothing else should run.

#![allow(
    clippy::disallowed_methods,
    reason = "a bench has its threads to itself"
)]

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use watershed::experiment::assign::{Share, Weight};
use watershed::experiment::metric::{MetricGoal, MetricKind, Observation};
use watershed::experiment::record::{
    Declaration, DeclaredExperiment, DeclaredGroup, DeclaredMetric, Exposure, Record, Served,
};
use watershed::experiment::{EpochDigest, ExperimentIndex, GroupIndex, MetricIndex, UserId};
use watershed::journal::{self, DeclaredPlan, Options};
use watershed::store::Store;
use watershed::store::ingest::Ingestor;
use watershed::store::postgres::PostgresStore;
use watershed::store::redis::{RedisStore, TlsFiles};
use watershed::store::sqlite::SqliteStore;
use watershed::telemetry::Telemetry;

fn main() {
    let mut numbers = std::env::args().filter_map(|word| word.parse().ok());
    let facts: u64 = numbers.next().unwrap_or(1_000_000);
    let users: u64 = numbers.next().unwrap_or(facts / 5);
    println!("{facts} facts by {users} users, one event in ten facts");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();

    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("watershed.db");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).unwrap());
    let (append, folded) = measure(&runtime, &store, facts, users);
    println!(
        "append: {:.0} ns a fact",
        append.as_nanos() as f64 / facts as f64
    );
    report("embedded file", facts, folded, None);
    read("embedded file", &runtime, &store);
    let bytes = std::fs::metadata(&path).unwrap().len();
    println!(
        "embedded file: {:.0} bytes a user on disk",
        bytes as f64 / users as f64
    );

    in_redis(&runtime, facts, users);
    in_postgres(&runtime, facts, users);
}

fn in_redis(runtime: &tokio::runtime::Runtime, facts: u64, users: u64) {
    let redis = Redis::start();
    let connecting = RedisStore::connect(&redis.url, TlsFiles::default(), "ws");
    let store: Arc<dyn Store> = Arc::new(runtime.block_on(connecting).unwrap());
    let before = redis.info();
    let (_, folded) = measure(runtime, &store, facts, users);
    let after = redis.info();
    let of = |name: &str| after(name) - before(name);
    let cpu = of("used_cpu_user") + of("used_cpu_sys");
    report("Redis", facts, folded, Some(cpu));
    read("Redis", runtime, &store);
    println!(
        "Redis: {:.0} bytes a user",
        of("used_memory") / users as f64
    );
    println!(
        "Redis: {:.2} script calls for a thousand facts, when behind",
        1000.0 * redis.script_calls() / facts as f64
    );
}

fn in_postgres(runtime: &tokio::runtime::Runtime, facts: u64, users: u64) {
    let postgres = Postgres::start();
    let store = PostgresStore::at(&postgres.url(), TlsFiles::default(), "watershed");
    let store: Arc<dyn Store> = Arc::new(store.unwrap());
    runtime.block_on(store.ping()).unwrap();
    let before = postgres.cpu_seconds();
    let (_, folded) = measure(runtime, &store, facts, users);
    report(
        "PostgreSQL",
        facts,
        folded,
        Some(postgres.cpu_seconds() - before),
    );
    read("PostgreSQL", runtime, &store);
    println!(
        "PostgreSQL: {:.0} bytes a user on disk",
        postgres.bytes() / users as f64
    );
}

fn report(house: &str, facts: u64, folded: Duration, its_cpu: Option<f64>) {
    let seconds = folded.as_secs_f64();
    println!(
        "{house}: {facts} facts folded in {seconds:.2} s: {:.0} a second",
        facts as f64 / seconds
    );
    if let Some(cpu) = its_cpu {
        println!(
            "{house}: {cpu:.2} s of its own processor: {:.0} facts a second and core",
            facts as f64 / cpu
        );
    }
}

/// How long it takes to read what results are made of.
fn read(house: &str, runtime: &tokio::runtime::Runtime, store: &Arc<dyn Store>) {
    let name = &declaration().experiments[0].name;
    let mut times: Vec<Duration> = (0..101)
        .map(|_| {
            let began = Instant::now();
            let totals = runtime.block_on(store.totals(name)).unwrap();
            assert!(!totals.epochs.is_empty());
            began.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "{house}: all counts read in {:.0} µs",
        times[50].as_nanos() as f64 / 1e3
    );
}

/// How long appending took, and folding.
fn measure(
    runtime: &tokio::runtime::Runtime,
    store: &Arc<dyn Store>,
    facts: u64,
    users: u64,
) -> (Duration, Duration) {
    let folder = tempfile::TempDir::new().unwrap();
    let options = Options::new(4 << 30, 1);
    let sync = Duration::from_millis(200);
    let mut journals = journal::open(folder.path(), 1, sync, &options).unwrap();
    let mut writer = journals.writers.pop().unwrap();
    let declared = DeclaredPlan::new(&declaration());
    let mut dice = fastrand::Rng::with_seed(7);
    let began = Instant::now();
    let mut making = Duration::ZERO;
    for number in 0..facts {
        let (id, group, event);
        let made = Instant::now();
        let user = dice.u64(..users);
        id = format!("{user:08x}-7ab1-7000-8000-{user:012x}");
        group = GroupIndex(user as usize % 2);
        event = Observation {
            metric: MetricIndex(0),
            count: 1,
            sum: dice.i64(1..9_999),
            base: 0,
            event_id: None,
            at_ms: None,
        };
        making += made.elapsed();
        let record = Record {
            at_ms: 1_795_000_000_000 + number / 10,
            user: UserId::new(id.as_bytes()).unwrap(),
            declaration: declared.digest,
            status: 200,
            latency_us: 1_000 + number % 5_000,
            exposures: &[Exposure {
                experiment: ExperimentIndex(0),
                group,
                served: Served::Own,
                epoch: None,
            }],
            segments: "",
            observations: if number % 10 == 0 {
                std::slice::from_ref(&event)
            } else {
                &[]
            },
            minted: None,
            is_new: false,
            unit: "",
        };
        while writer.append(&declared, &record).is_err() {
            // The keeper is behind with a segment.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let appended = began.elapsed() - making;
    drop(writer);
    let telemetry = Arc::new(Telemetry::new(1));
    let began = Instant::now();
    let folder = Ingestor::new(journals.readers, Arc::clone(store), telemetry, Vec::new);
    // Told to stop at once, it folds what is left first.
    runtime.block_on(folder.run(Duration::from_millis(500), async {}));
    (appended, began.elapsed())
}

fn declaration() -> Declaration {
    let group = |name: &str| DeclaredGroup {
        name: name.to_owned(),
        weight: Weight::new(1.0).unwrap(),
        upstream: None,
    };
    Declaration {
        digest: 1,
        experiments: vec![DeclaredExperiment {
            name: "new-site".to_owned(),
            epoch: EpochDigest(9),
            traffic: Share::ALL,
            groups: vec![group("control"), group("experiment")],
            metrics: vec![0],
            running: true,
            salt: None,
            unit: None,
        }],
        metrics: vec![DeclaredMetric {
            name: "revenue".to_owned(),
            kind: MetricKind::Mean,
            goal: MetricGoal::Increase,
            scale: 2,
            within_ms: None,
            cap: None,
            covariate_ms: None,
            definition: None,
        }],
    }
}

/// A redis-server that goes when this is dropped.
struct Redis {
    url: String,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Redis {
    fn start() -> Redis {
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let folder = tempfile::TempDir::new().unwrap();
        let child = Command::new("redis-server")
            .args([
                "--port",
                &free.port().to_string(),
                "--save",
                "",
                "--appendonly",
                "yes",
            ])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is missing: run ./scripts/test, which installs it");
        let url = format!("redis://{free}");
        while redis::Client::open(url.as_str())
            .unwrap()
            .get_connection()
            .is_err()
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        Redis {
            url,
            child,
            _folder: folder,
        }
    }

    fn script_calls(&self) -> f64 {
        let mut connection = redis::Client::open(self.url.as_str())
            .unwrap()
            .get_connection()
            .unwrap();
        let text: String = redis::cmd("INFO")
            .arg("commandstats")
            .query(&mut connection)
            .unwrap();
        let calls = text.split("cmdstat_evalsha:calls=").nth(1).unwrap();
        calls.split(',').next().unwrap().parse().unwrap()
    }

    fn info(&self) -> impl Fn(&str) -> f64 {
        let mut connection = redis::Client::open(self.url.as_str())
            .unwrap()
            .get_connection()
            .unwrap();
        let text: String = redis::cmd("INFO").query(&mut connection).unwrap();
        move |name| {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap().trim().parse().unwrap()
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// A PostgreSQL that goes when this is dropped.
struct Postgres {
    port: u16,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Postgres {
    fn start() -> Postgres {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let folder = tempfile::TempDir::new().unwrap();
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = folder.path().join("data");
        let program = |name: &str| {
            let mut command = Command::new(name);
            // It refuses to run as root.
            if is_root {
                command.uid(NOBODY).gid(NOBODY);
            }
            command.current_dir("/").stdout(Stdio::null());
            command.arg("-D").arg(&data);
            command
        };
        let made = program("initdb")
            .args(["-U", "watershed", "-A", "trust"])
            .status();
        assert!(
            made.expect("initdb is missing: install PostgreSQL")
                .success()
        );
        let child = program("postgres")
            .args(["-p", &port.to_string(), "-c", "unix_socket_directories="])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let postgres = Postgres {
            port,
            child,
            _folder: folder,
        };
        while postgres.ask("SELECT 1").is_empty() {
            std::thread::sleep(Duration::from_millis(20));
        }
        postgres
    }

    fn url(&self) -> String {
        format!("postgres://watershed@127.0.0.1:{}/postgres", self.port)
    }

    fn ask(&self, sql: &str) -> String {
        let mut psql = Command::new("psql");
        let answer = psql.args([&self.url(), "-Atc", sql]).output().unwrap();
        String::from_utf8(answer.stdout).unwrap().trim().to_owned()
    }

    /// The bytes of all tables of watershed and their indexes, after the server has tidied them up.
    fn bytes(&self) -> f64 {
        self.ask("VACUUM watershed.users");
        let sql = "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n
                   ON n.oid = relnamespace WHERE nspname = 'watershed' AND relkind = 'r'";
        self.ask(sql).parse().unwrap()
    }

    /// The processor time of the server and its connections.
    fn cpu_seconds(&self) -> f64 {
        let parent = self.child.id().to_string();
        let list = Command::new("ps")
            .args(["-o", "cputimes=", "--pid", &parent, "--ppid", &parent])
            .output()
            .unwrap();
        let text = String::from_utf8(list.stdout).unwrap();
        text.split_whitespace()
            .map(|it| it.parse::<f64>().unwrap())
            .sum()
    }
}

/// The user and group who run PostgreSQL.
const NOBODY: u32 = 65_534;

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status();
        let _ = self.child.wait();
    }
}
