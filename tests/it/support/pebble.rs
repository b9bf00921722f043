//! Pebble, a real ACME server, with a name server of its own.

use super::tools;
use crate::wire::tls::Authority;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Output, Stdio};
use std::sync::{Arc, Mutex};

/// A running Pebble; it is killed when this is dropped.
pub struct Pebble {
    /// Where the authority checks http-01: the port of a site.
    pub http_port: u16,
    /// Where it checks tls-alpn-01.
    pub tls_port: u16,
    /// What Pebble has logged.
    pub log: Arc<Mutex<String>>,
    authority: Authority,
    api: SocketAddr,
    management: SocketAddr,
    names: SocketAddr,
    name_server: Child,
    child: Option<Child>,
}

/// What Pebble does otherwise.
#[derive(Clone, Copy, Default)]
pub struct Rules {
    /// How long certificates are valid, in seconds.
    pub valid_s: Option<u64>,
    /// The key of the account `kid-1` that clients need.
    pub external_key: Option<&'static str>,
}

impl Pebble {
    /// Starts Pebble, and a name server that knows every name as 127.0.0.1, but b.test as 127.0.0.2.
    /// Tries several ports, because another test may have taken a free one meanwhile.
    pub fn start(rules: Rules) -> Pebble {
        let mut tries = std::iter::repeat_with(|| Pebble::try_start(rules)).take(8);
        tries
            .find_map(|pebble| pebble)
            .expect("pebble ends at once")
    }

    fn try_start(rules: Rules) -> Option<Pebble> {
        let ports: Vec<TcpListener> = (0..6).map(|_| bind()).collect();
        let address = |place: usize| ports[place].local_addr().unwrap();
        let (names, control) = (address(0), address(1));
        let (api, management) = (address(2), address(3));
        let (http_port, tls_port) = (address(4).port(), address(5).port());
        drop(ports);
        let authority = Authority::new();
        authority.certify("pebble", &["127.0.0.1"]);
        let mut config = serde_json::json!({
            "listenAddress": api.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": authority.file("pebble.pem"),
            "privateKey": authority.file("pebble.key"),
            "httpPort": http_port,
            "tlsPort": tls_port,
            "externalAccountBindingRequired": rules.external_key.is_some(),
        });
        if let Some(valid_s) = rules.valid_s {
            config["certificateValidityPeriod"] = valid_s.into();
        }
        if let Some(key) = rules.external_key {
            config["externalAccountMACKeys"] = serde_json::json!({ "kid-1": key });
        }
        let config = serde_json::json!({ "pebble": config }).to_string();
        std::fs::write(authority.file("pebble.json"), config).unwrap();
        let name_server = tools::command("pebble-challtestsrv")
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-defaultIPv6", "", "-dns01", &names.to_string()])
            .args(["-management", &control.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut pebble = Pebble {
            http_port,
            tls_port,
            log: Arc::default(),
            authority,
            api,
            management,
            names,
            name_server,
            child: None,
        };
        let other = r#"{"host":"b.test","addresses":["127.0.0.2"]}"#;
        let url = format!("http://{control}/add-a");
        super::until("the name server", || {
            if pebble.name_server.try_wait().unwrap().is_some() {
                return Ok(false);
            }
            let told = curl(&["--data", other, &url]);
            told.status.success().then_some(true).ok_or(told)
        })
        .then_some(())?;
        pebble.comes_up().then_some(pebble)
    }

    /// Starts it again. It has lost all its accounts, and has other roots.
    pub fn up(&mut self) {
        assert!(self.comes_up(), "pebble ends at once");
    }

    /// Starts the process. False if it ends, because another program has a port of its.
    fn comes_up(&mut self) -> bool {
        let mut child = tools::command("pebble")
            .args(["-config", &self.authority.file("pebble.json"), "-strict"])
            .args(["-dnsserver", &self.names.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            // Each order has its names checked.
            .env("PEBBLE_AUTHZREUSE", "0")
            // One rejection after the other fails an attempt now and then.
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                log.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        let ca = self.authority.file("ca.pem");
        let (directory, roots) = (
            self.directory(),
            format!("https://{}/roots/0", self.management),
        );
        let found = super::until("Pebble", || {
            if child.try_wait().unwrap().is_some() {
                return Ok(None);
            }
            let asked = curl(&["--cacert", &ca, &directory]);
            let root = curl(&["--cacert", &ca, &roots]);
            match asked.status.success() && root.status.success() {
                true => Ok(Some(root.stdout)),
                false => Err((asked, root)),
            }
        });
        self.child = Some(child);
        // Clients of this test know its roots by a file.
        found.is_some_and(|root| std::fs::write(self.roots(), root).is_ok())
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The keys of `tls.acme` that lead here, for these names.
    pub fn keys(&self, names: &str) -> String {
        self.keys_of(&self.directory(), names)
    }

    /// The same for another directory, whose certificate the same authority has signed.
    pub fn keys_of(&self, directory: &str, names: &str) -> String {
        format!(
            "directory: \"{directory}\", ca: {}, names: [ {names} ], email: ops@site.test, agree_terms: true",
            self.authority.file("ca.pem")
        )
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.api)
    }

    /// The authority of its API's certificate, which has a certificate `pebble` for 127.0.0.1.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A PEM file with the root of its certificates.
    pub fn roots(&self) -> String {
        self.authority.file("roots.pem")
    }

    /// How many certificates it has issued.
    pub fn issued(&self) -> usize {
        self.log
            .lock()
            .unwrap()
            .matches("Issued certificate serial")
            .count()
    }
}

fn curl(words: &[&str]) -> Output {
    let mut curl = tools::command("curl");
    curl.args(["--silent", "--show-error", "--fail"]);
    curl.args(words).output().unwrap()
}

fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.kill();
        let _ = self.name_server.kill();
        let _ = self.name_server.wait();
    }
}
