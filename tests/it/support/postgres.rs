//! A real PostgreSQL in a folder of its own.

use super::tools;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

/// PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;

/// A running server with a database `shop`, which belongs to the user `watershed`. It ends when this is dropped.
pub struct Postgres {
    pub address: SocketAddr,
    arguments: Vec<String>,
    folder: TempDir,
    child: Option<Child>,
}

impl Postgres {
    /// Starts it with an empty database.
    pub fn start() -> Postgres {
        Postgres::with(&[])
    }

    /// Starts it with more settings, such as `max_connections=9`.
    pub fn with(settings: &[&str]) -> Postgres {
        let mut postgres = Postgres {
            address: free(),
            arguments: settings
                .iter()
                .flat_map(|it| ["-c".to_owned(), (*it).to_owned()])
                .collect(),
            folder: TempDir::new().unwrap(),
            child: None,
        };
        if is_root() {
            std::os::unix::fs::chown(postgres.folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        std::fs::write(postgres.file("password"), "sesame").unwrap();
        let made = command("initdb")
            .args([
                "--no-sync",
                "-U",
                "admin",
                "-E",
                "UTF8",
                "--locale=C",
                "--auth=scram-sha-256",
            ])
            .arg(format!("--pwfile={}", postgres.file("password").display()))
            .arg("-D")
            .arg(postgres.file("data"))
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        // Another test may have taken a free port meanwhile.
        let mut tries = 0..8;
        while !postgres.comes_up() {
            postgres.address = free();
            tries.next().expect("postgres ends at once");
        }
        postgres
            .sql_in("postgres", "CREATE ROLE watershed LOGIN PASSWORD 'sesame'")
            .unwrap();
        postgres
            .sql_in("postgres", "CREATE DATABASE shop OWNER watershed")
            .unwrap();
        postgres
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub fn url(&self) -> String {
        format!("postgres://watershed:sesame@{}/shop", self.address)
    }

    /// Adds a file that the server may read, such as a key.
    pub fn add_file(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.file(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if is_root() {
            std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        path.display().to_string()
    }

    /// Starts it again with the same port and files.
    pub fn up(&mut self) {
        super::until("postgres", || {
            self.comes_up().then_some(()).ok_or("it ends at once")
        });
    }

    /// Ends it without a farewell, as a crash does.
    pub fn kill(&mut self) {
        self.end("QUIT");
    }

    /// Stops it as an administrator would.
    pub fn stop(&mut self) {
        self.end("INT");
    }

    fn end(&mut self, signal: &str) {
        if let Some(mut child) = self.child.take() {
            let words = [format!("-{signal}"), child.id().to_string()];
            assert!(Command::new("kill").args(words).status().unwrap().success());
            child.wait().unwrap();
        }
    }

    /// False if it ends, because another server has its port.
    fn comes_up(&mut self) -> bool {
        let child = command("postgres")
            .arg("-D")
            .arg(self.file("data"))
            .args(["-p", &self.address.port().to_string()])
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
                "-c",
                "fsync=off",
            ])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        super::until("postgres", || {
            let child = self.child.as_mut();
            if child.is_none_or(|child| child.try_wait().unwrap().is_some()) {
                return Ok(false);
            }
            self.sql_in("postgres", "SELECT 1").map(|_| true)
        })
    }

    /// Runs statements in the database as an administrator. Returns the values of all rows.
    pub fn sql(&self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        self.sql_in("shop", sql)
    }

    /// The same in another database.
    pub fn sql_in(&self, database: &str, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let (address, database, sql) = (self.address, database.to_owned(), sql.to_owned());
        let work = async move {
            let stream = tokio::net::TcpStream::connect(address).await;
            let stream = stream.map_err(|error| error.to_string())?;
            let text = |error: tokio_postgres::Error| format!("{error:?}");
            let mut login = Config::new();
            login.user("admin").password("sesame").dbname(&database);
            let (client, connection) = login.connect_raw(stream, NoTls).await.map_err(text)?;
            let driver = tokio::spawn(connection);
            let messages = client.simple_query(&sql).await.map_err(text)?;
            drop(client);
            let _ = driver.await;
            let rows = messages.iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            let values = |row: &tokio_postgres::SimpleQueryRow| {
                (0..row.len())
                    .map(|at| row.get(at).unwrap_or("NULL").to_owned())
                    .collect()
            };
            Ok(rows.map(values).collect())
        };
        // The caller may be in a runtime of its own.
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        std::thread::spawn(move || runtime().block_on(work))
            .join()
            .unwrap()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program of PostgreSQL. Debian keeps them beside the PATH.
fn command(program: &str) -> Command {
    let debian = || {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        let mut found = versions.filter_map(|it| Some(it.ok()?.path().join("bin").join(program)));
        found.find(|path| path.is_file())
    };
    let path = debian().unwrap_or_else(|| Path::new(program).to_owned());
    let mut command = tools::command(path.to_str().unwrap());
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir("/");
    command
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
