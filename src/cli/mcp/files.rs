//! Checks and compares routes files for assistants.
//!
//! What an assistant writes is not trusted: a file of it is read without the environment and without other files that
//! it names, so that no error shows what stands in them, and no store that it names is asked.

use crate::cli::known_users;
use crate::cli::{check, plan};
use crate::config::plan::Plan;
use crate::config::{self, InvalidConfig};
use crate::server::ErrorWithHint;
use anyhow::Context;
use std::path::{Path, PathBuf};

/// The users of a comparison.
const USERS: u32 = 20_000;
/// The longest content, in bytes.
const CONTENT_BYTES_MAX: usize = 1 << 20;

/// Checks a routes file: this content, as if it were that of the file of this machine, or that file itself.
pub(super) fn checked(file: Option<PathBuf>, content: Option<&str>) -> anyhow::Result<String> {
    let Some(content) = content else {
        let path = file.context("there is no routes file on this machine: give `content`, or start `watershed mcp` with -c FILE")?;
        let plan = config::load(&path)?;
        let known = known_users::decisions(&plan).unwrap_or_default();
        return check::described(&plan, &path, &known);
    };
    let path = file.clone().unwrap_or_else(|| "routes.yaml".into());
    let plan = read(content, &path)?;
    // The store is that of this machine's file.
    let own = file.and_then(|path| config::load(&path).ok());
    let known = own.and_then(|own| known_users::decisions(&own).ok());
    check::described(&plan, &path, &known.unwrap_or_default())
}

/// Compares this content with the file of this machine.
pub(super) fn compared(file: Option<PathBuf>, content: &str) -> anyhow::Result<String> {
    let path = file.context(
        "there is no routes file on this machine to compare with: start `watershed mcp` with -c FILE",
    )?;
    let (old, new) = (config::load(&path)?, read(content, &path)?);
    Ok(plan::described(&old, &new, USERS))
}

fn read(content: &str, path: &Path) -> anyhow::Result<Plan> {
    anyhow::ensure!(
        content.len() <= CONTENT_BYTES_MAX,
        "the content is longer than {CONTENT_BYTES_MAX} bytes"
    );
    config::parse_alone(content, path).map_err(|invalid: InvalidConfig| {
        let mut all = invalid.diagnostics.iter();
        match all.all(|it| it.found.starts_with("the environment has no ")) {
            false => invalid.into(),
            true => ErrorWithHint::new(
                invalid.to_string(),
                "variables of the environment are not read here, and nothing else is wrong: write a default, as ${NAME:-value}, to check the whole file",
            )
            .into(),
        }
    })
}
