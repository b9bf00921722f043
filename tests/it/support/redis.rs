//! A real redis-server in a folder of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A running redis-server; it goes when this is dropped.
pub struct Redis {
    pub address: SocketAddr,
    arguments: Vec<String>,
    folder: TempDir,
    child: Option<Child>,
}

impl Redis {
    /// Without persistence.
    pub fn start() -> Redis {
        Redis::with(&[])
    }

    /// With these arguments besides, such as `--appendonly yes`.
    pub fn with(arguments: &[&str]) -> Redis {
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let arguments = arguments
            .iter()
            .map(|argument| (*argument).to_owned())
            .collect();
        let mut redis = Redis {
            address: free,
            arguments,
            folder: TempDir::new().unwrap(),
            child: None,
        };
        redis.up();
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Starts it again, on the same port and with the same files.
    pub fn up(&mut self) {
        let child = Command::new("redis-server")
            .args([
                "--port",
                &self.address.port().to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ])
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is missing: run ./scripts/test, which installs it");
        self.child = Some(child);
        super::until("redis-server", || {
            TcpStream::connect(self.address).map(drop)
        });
        super::until("redis-server", || match self.command(&["PING"]) {
            Ok(_) => Ok(()),
            Err(error) if error.contains("NOAUTH") => Ok(()),
            Err(error) => Err(error),
        });
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends one command; what it answers, as `redis-cli` would show it.
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

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
