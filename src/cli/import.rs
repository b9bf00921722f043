//! `watershed import`: writes the experiments of another vendor as a routes file.

mod growthbook;
mod imported;
mod optimizely;
mod unleash;

use super::output::Output;
use crate::server::ErrorWithHint;
use anyhow::Context;
use clap::ValueEnum;
use imported::Imported;
use serde_json::{Value, json};
use std::path::PathBuf;

/// What `import` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Whose file it is
    #[arg(value_name = "VENDOR")]
    vendor: Vendor,
    /// What the vendor's SDKs download, as JSON
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// A vendor whose files are read.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Vendor {
    /// The features of an SDK connection: GET /api/features/sdk-…
    Growthbook,
    /// The features of a client token: GET /api/client/features
    Unleash,
    /// The datafile
    Optimizely,
}

/// Prints the routes file, and on stderr what it leaves out.
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let path = arguments.file.display();
    let text = std::fs::read_to_string(&arguments.file)
        .with_context(|| format!("{path} cannot be read"))?;
    let json: Value = serde_json::from_str(&text).with_context(|| format!("{path} is not JSON"))?;
    let mut imported = Imported::default();
    let read = match arguments.vendor {
        Vendor::Growthbook => growthbook::read(&json, &mut imported),
        Vendor::Unleash => unleash::read(&json, &mut imported),
        Vendor::Optimizely => optimizely::read(&json, &mut imported),
    };
    let wrong = |error: String, hint: &str| ErrorWithHint::new(format!("{path}: {error}"), hint);
    read.map_err(|error| {
        wrong(
            error,
            "give the file that the vendor's SDKs download: docs/bucketing.md shows how to get it",
        )
    })?;
    if !output.is_json() {
        for left in &imported.left_out {
            eprintln!("not carried over: {left}");
        }
    }
    if imported.experiments.is_empty() {
        return Err(wrong("nothing to import".to_owned(), "the lines above say why").into());
    }
    let yaml = imported.yaml(&format!("{:?}", arguments.vendor).to_lowercase());
    let document = || json!({ "routes": yaml, "left_out": imported.left_out });
    Ok(output.print(|| yaml.clone(), document)?)
}
