//! What a client has seen answered is in the results, once. Clients keep books of every answer
//! while things go wrong; in the end the books and the store say the same.
//!
//! Each test is bounded; `scripts/accounting` plays longer, with other seeds.

mod books;
mod cutter;
mod driver;
mod faults;

use crate::store_model::shop;
use crate::support::clock::Clock;
use crate::support::origin::Origin;
use crate::support::postgres::Postgres;
use crate::support::proxy::{How, Proxy};
use crate::support::redis::{Cluster, Redis, Watched};
use books::{Books, StoredUsers};
use cutter::Cutter;
use driver::Driver;
use faults::{Fault, OF_ANY_STORE, OF_POSTGRES, OF_REDIS, TestStore};
use std::time::Duration;
use watershed::store::Store;
use watershed::store::redis::{RedisStore, TlsFiles};
use watershed::store::sqlite::SqliteStore;

/// A house with its surroundings.
pub struct World {
    store: TestStore,
    proxies: Vec<Proxy>,
    routes: String,
    weight: u8,
    /// The proxies' own.
    clock: Clock,
    /// Two versions of the site.
    _origins: [Origin; 2],
}

impl World {
    fn new(store: TestStore, proxies: usize) -> World {
        World::with(store, proxies, "workers: 2\n", Vec::new())
    }

    fn with(store: TestStore, proxies: usize, lines: &str, through: Vec<String>) -> World {
        let origins = [Origin::start("control"), Origin::start("b")];
        let [a, b] = [0, 1].map(|index: usize| origins[index].address);
        let routes = format!(
            "{}{lines}user: {{ cookie: uid }}
upstreams: {{ a: \"http://{a}\", b: \"http://{b}\" }}
experiments:
  shop:
    groups:
      control: {{ weight: WEIGHT, upstream: a }}
      b: {{ weight: 50, upstream: b }}
metrics:
  purchase: {{ event: purchase, kind: count }}
  revenue: {{ event: purchase, value: amount, kind: mean }}
",
            store.line()
        );
        let mut world = World {
            store,
            proxies: Vec::new(),
            routes,
            weight: 50,
            clock: Clock::new(),
            _origins: origins,
        };
        let how = How {
            env: world.clock.environment(),
            through,
            ..How::default()
        };
        for _ in 0..proxies {
            let proxy = Proxy::start_how(&world.file(), how.clone());
            world.proxies.push(proxy);
        }
        world
    }

    fn file(&self) -> String {
        self.routes.replace("WEIGHT", &self.weight.to_string())
    }

    fn again(&mut self, proxy: usize) {
        let file = self.file();
        self.proxies[proxy].again(&file);
    }

    /// Moves some users to the other group.
    fn reload(&mut self, weight: u8) {
        self.weight = weight;
        for proxy in &self.proxies {
            proxy.write(&self.file());
        }
    }

    async fn store(&self) -> Box<dyn Store> {
        async fn redis(url: &str) -> Box<dyn Store> {
            Box::new(
                RedisStore::connect(url, TlsFiles::default(), "ws")
                    .await
                    .unwrap(),
            )
        }
        match &self.store {
            TestStore::Embedded => {
                let path = self.proxies[0].folder.path().join("watershed.db");
                Box::new(SqliteStore::open(&path).unwrap())
            }
            TestStore::Alone(server) | TestStore::Cut(server, _) => redis(&server.url()).await,
            TestStore::Sentinels(watched) => redis(&watched.url()).await,
            TestStore::Cluster(cluster) => redis(&cluster.url()).await,
            TestStore::Postgres(postgres) => Box::new(shop(postgres)),
        }
    }

    /// Everything is folded; books and store are compared.
    #[track_caller]
    fn close(&self, books: &Books, story: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let told = crate::support::until("books that agree", || {
            for proxy in &self.proxies {
                proxy.results();
            }
            let results = self.proxies[0].results();
            let stored = runtime.block_on(async {
                let store = self.store().await;
                StoredUsers::read(&*store, books).await
            });
            // A Redis that has just failed over may not be there yet.
            let stored = stored.map_err(|error| format!("{error:?}"))?;
            let mut faults = stored.agrees_with(books);
            faults.extend(stored.add_up_to(&results, books));
            let export = |table: &str| {
                let path = format!("/admin/export/shop?format=jsonl&table={table}");
                match self.proxies[0].ask(&path) {
                    answer if answer.status == 200 => Ok(answer.text()),
                    answer => Err(answer.text()),
                }
            };
            let exported = (export("assignments")?, export("values")?);
            faults.extend(stored.is_exported(&exported.0, &exported.1));
            faults.truncate(10);
            if faults.is_empty() {
                Ok(results)
            } else {
                Err(format!("{story}: {faults:#?}"))
            }
        });
        assert_eq!(told["store"]["dropped_events"], 0, "{story}");
        let answered: u64 = books.values().map(|book| book.requests).sum();
        let unanswered: usize = books.values().map(|book| book.unanswered.len()).sum();
        assert!(answered > 100, "{story}: only {answered} answers");
        println!(
            "{story}: {answered} answers, {unanswered} without one, {} users",
            books.len()
        );
    }
}

/// These faults, one after the other, under load.
fn play(store: TestStore, proxies: usize, seed: u64, faults: &[Fault]) {
    let mut world = World::new(store, proxies);
    let mut dice = fastrand::Rng::with_seed(seed);
    let addresses: Vec<_> = world.proxies.iter().map(|proxy| proxy.public).collect();
    let driver = Driver::start(seed, &addresses, Duration::from_millis(2));
    driver.until_answered(100);
    for fault in faults {
        fault.strike(&mut world, &mut dice);
        driver.until_answered(20);
        std::thread::sleep(Duration::from_millis(dice.u64(200..1_200)));
    }
    let books = driver.finish();
    world.close(
        &books,
        &format!("seed {seed}, {proxies} proxies, {faults:?}"),
    );
}

fn alone() -> TestStore {
    let arguments = ["--appendonly", "yes", "--enable-debug-command", "yes"];
    TestStore::Alone(Redis::with(&arguments))
}

fn postgres() -> TestStore {
    TestStore::Postgres(Postgres::start())
}

fn cut() -> TestStore {
    let arguments = ["--appendonly", "yes", "--enable-debug-command", "yes"];
    let redis = Redis::with(&arguments);
    let cutter = Cutter::before(redis.address);
    TestStore::Cut(redis, cutter)
}

fn sentinels() -> TestStore {
    TestStore::Sentinels(Watched::start())
}

fn cluster() -> TestStore {
    TestStore::Cluster(Cluster::start())
}

fn mixture(dice: &mut fastrand::Rng, of: &[&[Fault]], length: usize) -> Vec<Fault> {
    let all: Vec<Fault> = of.iter().copied().flatten().copied().collect();
    std::iter::repeat_with(|| all[dice.usize(..all.len())])
        .take(length)
        .collect()
}

#[test]
fn the_embedded_file_through_kills_stops_reloads_and_a_clock_set_back() {
    let faults = [
        Fault::KillProxy,
        Fault::Reload,
        Fault::ClockBack,
        Fault::KillProxy,
        Fault::StopProxy,
    ];
    play(TestStore::Embedded, 1, 1, &faults);
}

#[test]
fn redis_alone_through_each_of_its_faults() {
    for (seed, &fault) in OF_REDIS.iter().enumerate() {
        play(alone(), 1, seed as u64, &[fault]);
    }
}

#[test]
fn postgres_through_each_of_its_faults() {
    for (seed, &fault) in OF_POSTGRES.iter().enumerate() {
        play(postgres(), 1, seed as u64, &[fault]);
    }
}

#[test]
fn three_proxies_on_one_postgres_through_a_mixture() {
    let seed = 9;
    let mut dice = fastrand::Rng::with_seed(seed);
    let faults = mixture(&mut dice, &[OF_ANY_STORE, OF_POSTGRES], 5);
    play(
        postgres(),
        3,
        seed,
        &[&[Fault::KillProxy], &faults[..]].concat(),
    );
}

#[test]
fn connections_cut_in_the_middle_of_answers() {
    play(cut(), 2, 3, &[Fault::CutAnswers, Fault::CutAnswers]);
}

#[test]
fn sentinels_that_fail_over() {
    play(sentinels(), 2, 4, &[Fault::FailOver, Fault::KillProxy]);
}

#[test]
fn a_cluster_that_fails_over() {
    play(cluster(), 2, 5, &[Fault::FailOver, Fault::KillProxy]);
}

#[test]
fn four_proxies_on_one_redis_through_a_mixture() {
    let seed = 6;
    let faults = mixture(
        &mut fastrand::Rng::with_seed(seed),
        &[OF_ANY_STORE, OF_REDIS],
        6,
    );
    play(alone(), 4, seed, &faults);
}

#[test]
fn what_a_full_disk_cannot_take_is_counted() {
    let mount = "mkdir -p {}/small && mount -t tmpfs -o size=10m none {}/small && exec \"$@\"";
    let through = ["unshare", "-rm", "sh", "-c", mount, "sh"].map(str::to_owned);
    let lines = "workers: 8\njournal: { path: small, quota: 32MiB }\n";
    let mut world = World::with(alone(), 1, lines, through.to_vec());
    let TestStore::Alone(redis) = &mut world.store else {
        unreachable!()
    };
    redis.kill();
    let driver = Driver::start(7, &[world.proxies[0].public], Duration::ZERO);
    crate::support::until("a full disk", || {
        let log = world.proxies[0].log.lock().unwrap().clone();
        log.contains("the journal is full").then_some(()).ok_or(log)
    });
    std::thread::sleep(Duration::from_millis(500));
    let books = driver.finish();
    redis.up();
    let answered: u64 = books.values().map(|book| book.requests).sum();
    let results = world.proxies[0].results();
    let groups = results["experiments"][0]["groups"].as_array().unwrap();
    let counted: u64 = groups
        .iter()
        .map(|group| group["requests"].as_u64().unwrap())
        .sum();
    let dropped = results["store"]["dropped_events"].as_u64().unwrap();
    assert!(dropped > 0 && counted > 0);
    assert_eq!(answered, counted + dropped);
    // It is known for good, also to a process that was not there.
    world.proxies[0].signal("TERM");
    world.proxies[0].wait();
    world.again(0);
    assert_eq!(
        world.proxies[0].results()["store"]["dropped_events"],
        dropped
    );
}

#[test]
fn what_is_lost_while_nothing_happens_is_noticed() {
    let world = World::new(alone(), 1);
    let driver = Driver::start(8, &[world.proxies[0].public], Duration::from_millis(1));
    driver.until_answered(150);
    let books = driver.finish();
    world.close(&books, "before");
    let TestStore::Alone(redis) = &world.store else {
        unreachable!()
    };
    redis.command(&["FLUSHALL"]).unwrap();
    world.close(&books, "after");
}

#[test]
fn replicas_that_serve_something_else_are_named() {
    let world = World::new(alone(), 2);
    let agree = |number: usize| {
        crate::support::until("replicas", || {
            let results = world.proxies[0].results();
            let replicas = results["replicas"].as_array().unwrap().clone();
            let agreeing = replicas
                .iter()
                .filter(|replica| replica["agrees"] == true)
                .count();
            (replicas.len() == 2 && agreeing == number)
                .then_some(())
                .ok_or(results)
        });
    };
    agree(2);
    world.proxies[1].write(&world.routes.replace("WEIGHT", "70"));
    agree(1);
    let text = world.proxies[0].ask("/admin/results?format=text").text();
    assert!(
        text.contains("1 of 2 replicas serve other definitions"),
        "{text}"
    );
    world.proxies[1].write(&world.file());
    agree(2);
}

/// Any mixture, of any store and number of proxies, until the time is up: `scripts/accounting`.
#[test]
#[ignore = "as long as it is told to be: scripts/accounting"]
fn for_as_long_as_told() {
    let told = |name: &str, otherwise: u64| match std::env::var(name) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => otherwise,
    };
    let time = Duration::from_secs(60 * told("ACCOUNTING_MINUTES", 10));
    let begun = std::time::Instant::now();
    let only = std::env::var("ACCOUNTING_ONLY").ok();
    for seed in told("ACCOUNTING_SEED", 100).. {
        let mut dice = fastrand::Rng::with_seed(seed);
        let proxies = [1, 2, 4][dice.usize(..3)];
        let (any, clock) = (OF_ANY_STORE, &[Fault::ClockBack][..]);
        let length = dice.usize(2..7);
        if let Some(only) = &only {
            // For one that was seen to fail.
            let fault = OF_REDIS.iter().find(|fault| format!("{fault:?}") == *only);
            play(alone(), 1, seed, &[*fault.unwrap()]);
            if begun.elapsed() > time {
                return;
            }
            continue;
        }
        let (store, faults) = match dice.u8(..7) {
            0 => {
                let faults = mixture(&mut dice, &[any, clock], length);
                play(TestStore::Embedded, 1, seed, &faults);
                continue;
            }
            6 => (postgres(), mixture(&mut dice, &[any, OF_POSTGRES], length)),
            1 => (
                sentinels(),
                mixture(&mut dice, &[any, &[Fault::FailOver]], length),
            ),
            2 => (
                cluster(),
                mixture(&mut dice, &[any, &[Fault::FailOver]], length),
            ),
            3 => (
                cut(),
                mixture(&mut dice, &[any, OF_REDIS, &[Fault::CutAnswers]], length),
            ),
            _ => (alone(), mixture(&mut dice, &[any, OF_REDIS], length)),
        };
        play(store, proxies, seed, &faults);
        if begun.elapsed() > time {
            return;
        }
    }
}
