//! TLS to clients: versions, client certificates, the admin API, and certificates of ACME.

mod acme;
mod admin;
mod clients;
mod invalid;

use crate::support::tools;
use std::process::Output;

/// What curl said.
#[derive(Debug)]
struct Curl {
    /// The exit code; 0 for a response.
    code: i32,
    /// The body.
    body: String,
    /// Its errors.
    errors: String,
}

fn curl(words: &[&str]) -> Curl {
    let mut curl = tools::command("curl");
    curl.args(["--silent", "--show-error", "--max-time", "30"]);
    let Output {
        status,
        stdout,
        stderr,
    } = curl.args(words).output().unwrap();
    Curl {
        code: status.code().unwrap(),
        body: String::from_utf8_lossy(&stdout).into_owned(),
        errors: String::from_utf8_lossy(&stderr).into_owned(),
    }
}
