//! Replicas on one Redis are replaced one after another while clients ask, as docs/operate/upgrade.md
//! says: first by the newer program, then by the older one again. Nothing fails, and everything is counted
//! once.
//!
//! `WATERSHED_OLDER=PROGRAM` names the older program, such as that of the last release; the tested one
//! unless given.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, How, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What was answered, or what the results have.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    users: u64,
    requests: u64,
    converted: u64,
}

impl Counts {
    fn and(self, more: Counts) -> Counts {
        Counts {
            users: self.users + more.users,
            requests: self.requests + more.requests,
            converted: self.converted + more.converted,
        }
    }
}

/// Clients behind a load balancer that sends each request to the next replica of the rotation.
struct Load {
    rotation: Arc<Mutex<Vec<SocketAddr>>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Counts>>,
}

impl Load {
    /// Clients whose users no other load has.
    fn on(replicas: &[Proxy], name: &'static str) -> Load {
        let rotation = replicas.iter().map(|it| it.public).collect();
        let mut load = Load {
            rotation: Arc::new(Mutex::new(rotation)),
            stop: Arc::default(),
            answered: Arc::default(),
            clients: Vec::new(),
        };
        let client = |number| {
            let rotation = Arc::clone(&load.rotation);
            let (stop, answered) = (Arc::clone(&load.stop), Arc::clone(&load.answered));
            std::thread::spawn(move || {
                visit(&format!("{name}-{number}"), &rotation, &stop, &answered)
            })
        };
        load.clients = (0..4).map(client).collect();
        load
    }

    fn add(&self, replica: SocketAddr) {
        self.rotation.lock().unwrap().push(replica);
    }

    fn remove(&self, replica: SocketAddr) {
        self.rotation.lock().unwrap().retain(|it| *it != replica);
    }

    /// Waits until clients were served by whoever is in the rotation now.
    fn goes_on(&self) {
        let before = self.answered.load(Ordering::SeqCst);
        until("more responses", || {
            let more = self.answered.load(Ordering::SeqCst) - before;
            let failed = self.clients.iter().any(JoinHandle::is_finished);
            (more > 200 || failed).then_some(()).ok_or(more)
        });
    }

    fn end(self) -> Counts {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.clients.into_iter().map(|it| it.join().unwrap());
        ended.fold(Counts::default(), Counts::and)
    }
}

/// Visitors of one client, one after another, on connections that are kept. Every other visitor has an ID
/// that the site made, the others one that watershed mints; every third one buys.
fn visit(
    name: &str,
    rotation: &Mutex<Vec<SocketAddr>>,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> Counts {
    let mut connections = HashMap::new();
    let mut counts = Counts::default();
    while !stop.load(Ordering::SeqCst) {
        let mut id = match counts.users % 2 {
            0 => format!("X-User: {name}-{}\r\n", counts.users),
            _ => String::new(),
        };
        let buys = counts.users.is_multiple_of(3);
        for path in ["/", "/?sleep_ms=5", if buys { "/?event=buy" } else { "/" }] {
            let rotation = rotation.lock().unwrap().clone();
            connections.retain(|replica, _| rotation.contains(replica));
            let replica = rotation[counts.requests as usize % rotation.len()];
            let kept = connections.remove(&replica);
            let mut client = kept.unwrap_or_else(|| Client::connect(replica));
            let answer = client.try_get(path, &id);
            let answer = answer.unwrap_or_else(|error| panic!("{replica}: {path}: {error}"));
            assert_eq!(answer.status, 200, "{replica}: {path}");
            if id.is_empty() {
                let cookie = answer.header("set-cookie").unwrap();
                id = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
            }
            if answer.header("connection") != Some("close") {
                connections.insert(replica, client);
            }
            counts.requests += 1;
            answered.fetch_add(1, Ordering::SeqCst);
        }
        counts.users += 1;
        counts.converted += u64::from(buys);
    }
    counts
}

fn counted(results: &Value) -> Counts {
    let sum = |groups: &Value, field: &str| {
        let groups = groups.as_array().into_iter().flatten();
        groups.map(|it| it[field].as_u64().unwrap()).sum()
    };
    let site = &results["experiments"][0];
    Counts {
        users: sum(&site["groups"], "users"),
        requests: sum(&site["groups"], "requests"),
        converted: sum(&site["metrics"][0]["groups"], "converted"),
    }
}

/// Starts the program that the file `program` of its folder names, or else this one.
fn starts(program: &str) -> How {
    let script =
        format!("shift; exec \"$(cat {{}}/program 2>/dev/null || echo {program})\" \"$@\"");
    How {
        through: ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec(),
        ..How::default()
    }
}

/// Stops a replica as an orchestrator does: the balancer leaves it out once it is not ready, and it ends
/// when its requests have ended. A user buys with the last of them.
fn stop(replica: &mut Proxy, load: &Load, user: &str) -> Counts {
    let mut last = replica.client();
    last.say(format!(
        "GET /?event=buy&sleep_ms=3500 HTTP/1.1\r\nHost: site.test\r\nX-User: {user}\r\n\r\n"
    ))
    .unwrap();
    load.goes_on();
    replica.signal("TERM");
    until("a replica that is not ready", || {
        match replica.ask("/admin/readyz").status {
            503 => Ok(()),
            other => Err(other),
        }
    });
    load.remove(replica.public);
    assert_eq!(last.answer(true).unwrap().status, 200);
    // The process would wait for more on this connection, and would have the time to ingest meanwhile.
    drop(last);
    let ended = replica.wait();
    assert!(ended.success(), "{}", replica.log.lock().unwrap());
    Counts {
        users: 1,
        requests: 1,
        converted: 1,
    }
}

#[test]
fn rolling_upgrade_and_rollback_under_load_lose_nothing() {
    let origins = [Origin::start("a"), Origin::start("b")];
    let redis = Redis::start();
    let routes = format!(
        "workers: 1\nuser: {{ header: X-User }}\nstore: {}\ntimeouts: {{ grace: 2s }}\n\
         upstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\n\
         experiments: {{ site: {{ control: a, experiment: b, percent: 50 }} }}\nmetrics: {{ buy: {{ event: buy }} }}\n",
        redis.url(),
        origins[0].address,
        origins[1].address
    );
    let older = std::env::var("WATERSHED_OLDER").unwrap_or_else(|_| BINARY.to_owned());
    let start = |program: &str| Proxy::start_how(&routes, starts(program));
    let mut replicas = [start(&older), start(&older)];
    let mut answered = Counts::default();
    for (name, program) in [("upgrade", BINARY), ("rollback", &older)] {
        let load = Load::on(&replicas, name);
        // A pod of a Deployment: the next one is ready before it leaves, and its volume goes with it.
        let next = start(program);
        load.add(next.public);
        let mut left = std::mem::replace(&mut replicas[0], next);
        let last = stop(&mut left, &load, &format!("{name}-last-0"));
        answered = answered.and(last);
        drop(left);
        // A pod of a StatefulSet: the next one has its place, its address and its volume.
        let last = stop(&mut replicas[1], &load, &format!("{name}-last-1"));
        answered = answered.and(last);
        std::fs::write(replicas[1].folder.path().join("program"), program).unwrap();
        replicas[1].again(&routes);
        load.add(replicas[1].public);
        load.goes_on();
        answered = answered.and(load.end());
        for replica in &replicas {
            count_exactly(answered, replica, name);
        }
    }
}

fn count_exactly(answered: Counts, replica: &Proxy, after: &str) {
    until(&format!("exact counts after the {after}"), || {
        let results = replica.results();
        assert_eq!(results["store"]["damaged_events"], 0, "{results:#}");
        assert_eq!(results["store"]["dropped_events"], 0, "{results:#}");
        match counted(&results) {
            counted if counted == answered => Ok(()),
            other => Err((other, answered)),
        }
    });
}
