//! `watershed token`: makes a token for the admin API, and its line for the routes file.

use super::output::Output;
use crate::config::plan::TokenRole;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// The arguments of `token`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watershed token dashboard --role read")]
pub(super) struct Arguments {
    /// The name of its bearer, for the audit log
    #[arg(value_parser = name)]
    name: String,
    /// What it permits
    #[arg(long, default_value = "operate", value_parser = ["flags", "read", "operate"])]
    role: String,
}

/// Prints both. The file has only the hash, so a reader of the file cannot use the token.
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    let token = URL_SAFE_NO_PAD.encode(random);
    let digest = Sha256::digest(&token);
    let hash = digest.iter().fold(String::new(), |mut hash, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hash, "{byte:02x}");
        hash
    });
    let role = match &*arguments.role {
        "flags" => TokenRole::Flags,
        "read" => TokenRole::Read,
        _ => TokenRole::Operate,
    };
    let (name, role) = (&arguments.name, role.name());
    let document =
        || json!({ "name": name, "role": role, "token": token, "hash": format!("sha256:{hash}") });
    output.print(|| format!("{token}\n"), document)?;
    if output.is_json() {
        return Ok(());
    }
    eprintln!(
        "\nThe token is shown only now. For routes.yaml:\n\nadmin:\n  tokens:\n    {name}: {{ role: {role}, hash: \"sha256:{hash}\" }}"
    );
    Ok(())
}

fn name(text: &str) -> Result<String, String> {
    match crate::config::is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("names are 1 to 64 letters, digits, `_`, `.` and `-`".to_owned()),
    }
}
