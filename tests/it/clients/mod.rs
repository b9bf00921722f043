//! Other programs as clients and as origins: they must work with the proxy between them as they do
//! without it.

mod browser;
mod curl;
mod grpc;
mod handover;
mod load;
mod traces;
mod websocket;

use crate::support::proxy::Proxy;
use crate::support::tools;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// Returns the path of a script beside this file.
fn script(name: &str) -> String {
    format!("{}/tests/it/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Returns the Python that has the packages of tests/requirements-python.txt.
#[track_caller]
fn python() -> String {
    let path = tools::installed("python/bin/python");
    path.into_os_string().into_string().unwrap()
}

/// Returns the output of a program, whose exit status must be 0.
#[track_caller]
fn say(program: &str, words: &[&str]) -> String {
    let done = tools::command(program).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {words:?}: {said}{told}");
    said
}

/// An origin in Python. It prints its port and then what it receives.
struct Site {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    child: Child,
}

impl Site {
    fn start(words: &[&str]) -> Site {
        let mut child = tools::command(&python())
            .arg("-u")
            .arg(script(words[0]))
            .args(&words[1..])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next().unwrap().unwrap().parse().unwrap();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let all = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                all.lock().unwrap().push(line);
            }
        });
        Site {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            seen,
            child,
        }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a proxy with TLS. Returns it with its TLS address and its certificate for `site.test`.
fn secure(routes: &str) -> (Proxy, SocketAddr, TempDir) {
    let folder = TempDir::new().unwrap();
    let names = ["site.test".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(file("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let proxy = Proxy::start(&format!(
        "{routes}\ntls: {{ listen: 127.0.0.1:0, certificates: {{ cert: {}, key: {} }} }}",
        file("cert.pem").display(),
        file("key.pem").display(),
    ));
    let address = crate::wire::tls::tls_address(&proxy);
    (proxy, address, folder)
}
