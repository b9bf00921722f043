//! `watershed token`: a new token for the admin API, and the line of the file that knows it.

use crate::config::plan::TokenRole;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// For whom, and what for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watershed token dashboard --role read")]
pub struct Arguments {
    /// Who will carry it: decisions are kept under this name
    #[arg(value_parser = name)]
    name: String,
    /// What it is good for
    #[arg(long, default_value = "operate", value_parser = ["read", "operate"])]
    role: String,
}

/// Prints both. Only the hash stands in the file: whoever reads the file cannot come in.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    let token = URL_SAFE_NO_PAD.encode(random);
    let digest = Sha256::digest(&token);
    let hash = digest.iter().fold(String::new(), |mut hash, byte| {
        // Writing to a text does not fail.
        let _ = write!(hash, "{byte:02x}");
        hash
    });
    let role = match arguments.role == "read" {
        true => TokenRole::Read,
        false => TokenRole::Operate,
    };
    println!("{token}");
    eprintln!(
        "\nThis is the only time that it is shown. For routes.yaml:\n\nadmin:\n  tokens:\n    {}: {{ role: {}, hash: \"sha256:{hash}\" }}",
        arguments.name,
        role.name()
    );
    Ok(())
}

fn name(text: &str) -> Result<String, String> {
    match crate::config::is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("names are 1 to 64 letters, digits, `_`, `.` and `-`".to_owned()),
    }
}
