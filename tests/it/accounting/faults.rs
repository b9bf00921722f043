//! What can happen to a house while it serves, and how it is mended.

use super::World;
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
}

impl TestStore {
    pub fn line(&self) -> String {
        match self {
            TestStore::Embedded => String::new(),
            TestStore::Alone(redis) => format!("store: {}\n", redis.url()),
            TestStore::Cut(_, cutter) => format!("store: redis://{}\n", cutter.address),
            TestStore::Sentinels(watched) => format!("store: {}\n", watched.url()),
            TestStore::Cluster(cluster) => format!("store: \"{}\"\n", cluster.url()),
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
            _ => {
                let (TestStore::Alone(redis) | TestStore::Cut(redis, _)) = &mut world.store else {
                    panic!("{self:?} is for one Redis")
                };
                self.strike_redis(redis, wait);
            }
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
