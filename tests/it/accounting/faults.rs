//! What can happen to a house while it serves, and how it is mended.

use super::World;
use crate::support::postgres::Postgres;
use crate::support::redis::{Cluster, Redis, Watched};
use std::time::Duration;

/// Where the counts live.
pub enum TestStore {
    Embedded,
    Alone(Redis),
    /// Behind something that cuts connections in the middle of an answer.
    Cut(Redis, super::cutter::Cutter),
    Sentinels(Watched),
    Cluster(Cluster),
    Postgres(Postgres),
}

impl TestStore {
    pub fn line(&self) -> String {
        match self {
            TestStore::Embedded => String::new(),
            TestStore::Alone(redis) => format!("store: {}\n", redis.url()),
            TestStore::Cut(_, cutter) => format!("store: redis://{}\n", cutter.address),
            TestStore::Sentinels(watched) => format!("store: {}\n", watched.url()),
            TestStore::Cluster(cluster) => format!("store: \"{}\"\n", cluster.url()),
            TestStore::Postgres(postgres) => format!("store: {}\n", postgres.url()),
        }
    }
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    KillProxy,
    StopProxy,
    Reload,
    KillStore,
    RestartStore,
    FreezeStore,
    PauseClients,
    Sleep,
    OutOfMemory,
    ReadOnly,
    CutConnections,
    CutAnswers,
    Flush,
    FailOver,
    ClockBack,
}

pub const OF_ANY_STORE: &[Fault] = &[Fault::KillProxy, Fault::StopProxy, Fault::Reload];
pub const OF_POSTGRES: &[Fault] = &[
    Fault::KillStore,
    Fault::RestartStore,
    Fault::FreezeStore,
    Fault::ReadOnly,
    Fault::CutConnections,
    Fault::Flush,
];
pub const OF_REDIS: &[Fault] = &[
    Fault::KillStore,
    Fault::RestartStore,
    Fault::FreezeStore,
    Fault::PauseClients,
    Fault::Sleep,
    Fault::OutOfMemory,
    Fault::ReadOnly,
    Fault::CutConnections,
    Fault::Flush,
];

impl Fault {
    /// Breaks it, waits and mends it; everything serves again when this returns.
    pub fn strike(self, world: &mut World, dice: &mut fastrand::Rng) {
        let wait = Duration::from_millis(dice.u64(100..1_500));
        let proxy = dice.usize(..world.proxies.len());
        match self {
            Fault::KillProxy => {
                world.proxies[proxy].kill();
                std::thread::sleep(wait);
                world.again(proxy);
            }
            Fault::StopProxy => {
                world.proxies[proxy].signal("TERM");
                assert!(world.proxies[proxy].wait().success());
                std::thread::sleep(wait);
                world.again(proxy);
            }
            Fault::Reload => world.reload(dice.u8(20..80)),
            Fault::ClockBack => world.clock.set(-(dice.i64(3..3_000))),
            Fault::FailOver => fail_over(&mut world.store, wait),
            Fault::CutAnswers => {
                let TestStore::Cut(_, cutter) = &world.store else {
                    panic!("nothing cuts")
                };
                for _ in 0..8 {
                    cutter.cut_after(dice.usize(1..200));
                    std::thread::sleep(wait / 8);
                }
                cutter.mend();
            }
            _ if matches!(world.store, TestStore::Postgres(_)) => {
                let TestStore::Postgres(postgres) = &mut world.store else {
                    unreachable!()
                };
                self.strike_postgres(postgres, wait);
            }
            _ => {
                let (TestStore::Alone(redis) | TestStore::Cut(redis, _)) = &mut world.store else {
                    panic!("{self:?} is for one Redis")
                };
                self.strike_redis(redis, wait);
            }
        }
    }

    fn strike_postgres(self, postgres: &mut Postgres, wait: Duration) {
        let sure = |sql: &str| {
            postgres.sql(sql).unwrap();
        };
        match self {
            Fault::KillStore => {
                postgres.kill();
                std::thread::sleep(wait);
                postgres.up();
            }
            Fault::RestartStore => {
                postgres.stop();
                std::thread::sleep(wait);
                postgres.up();
            }
            // Longer than an answer is waited for.
            Fault::FreezeStore => sure("LOCK TABLE watershed.experiments; SELECT pg_sleep(6.5)"),
            Fault::ReadOnly => {
                sure("ALTER DATABASE shop SET default_transaction_read_only = on");
                sure(CUT);
                std::thread::sleep(wait);
                postgres
                    .sql_in(
                        "postgres",
                        "ALTER DATABASE shop RESET default_transaction_read_only",
                    )
                    .unwrap();
            }
            Fault::CutConnections => {
                for _ in 0..5 {
                    sure(CUT);
                    std::thread::sleep(wait / 5);
                }
            }
            Fault::Flush => sure("DROP SCHEMA watershed CASCADE"),
            _ => panic!("{self:?} is not PostgreSQL's"),
        }
    }

    fn strike_redis(self, redis: &mut Redis, wait: Duration) {
        let sure = |words: &[&str]| {
            redis.command(words).unwrap();
        };
        match self {
            Fault::KillStore => {
                redis.kill();
                std::thread::sleep(wait);
                redis.up();
            }
            Fault::RestartStore => {
                redis.stop();
                std::thread::sleep(wait);
                redis.up();
            }
            Fault::FreezeStore => {
                redis.signal("STOP");
                // Longer than an answer is waited for.
                std::thread::sleep(wait + Duration::from_secs(5));
                redis.signal("CONT");
            }
            Fault::PauseClients => {
                let pause = wait.as_millis().to_string();
                sure(&["CLIENT", "PAUSE", &pause, "ALL"]);
                std::thread::sleep(wait);
            }
            Fault::Sleep => sure(&["DEBUG", "SLEEP", &wait.as_secs_f64().to_string()]),
            Fault::OutOfMemory => {
                sure(&["CONFIG", "SET", "maxmemory", "1"]);
                std::thread::sleep(wait);
                sure(&["CONFIG", "SET", "maxmemory", "0"]);
            }
            Fault::ReadOnly => {
                sure(&["REPLICAOF", "127.0.0.1", "1"]);
                std::thread::sleep(wait);
                sure(&["REPLICAOF", "NO", "ONE"]);
            }
            Fault::CutConnections => {
                for _ in 0..5 {
                    sure(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
                    std::thread::sleep(wait / 5);
                }
            }
            Fault::Flush => sure(&["FLUSHALL"]),
            _ => panic!("{self:?} is not Redis's"),
        }
    }
}

const CUT: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'watershed'";

/// The master dies and a replica takes its place; then it comes back as a replica.
fn fail_over(store: &mut TestStore, wait: Duration) {
    match store {
        TestStore::Sentinels(watched) => {
            let master = watched.master();
            watched.servers[master].kill();
            let next = watched.master();
            assert_ne!(master, next);
            std::thread::sleep(wait);
            watched.servers[master].up();
        }
        TestStore::Cluster(cluster) => {
            let masters = cluster.masters();
            let master = masters[masters.len() / 2];
            cluster.nodes[master].kill();
            crate::support::until("another master", || {
                let masters = cluster.masters();
                (masters.len() == 3).then_some(()).ok_or(masters)
            });
            cluster.wait_until_ok();
            std::thread::sleep(wait);
            cluster.nodes[master].up();
        }
        _ => panic!("nothing to fail over to"),
    }
}
