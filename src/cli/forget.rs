//! `watershed forget`: deletes one user from the store.

use super::config_file::ConfigFile;
use super::decisions;
use super::output::Output;
use crate::archive::{self, Swept};
use crate::config::declaration::declaration;
use crate::config::plan::Plan;
use crate::experiment::UserId;
use crate::experiment::minted;
use crate::journal::{self, system_ms};
use crate::server::{self, ErrorWithHint};
use crate::store::Store;
use crate::store::decisions::{AuditEntry, DecidedBy};
use crate::store::forget_user::forget_everywhere;
use anyhow::Context;
use serde_json::json;

/// The arguments of `forget`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The user ID, or the whole value of the minted cookie
    #[arg(short, long, value_name = "ID")]
    user: String,
    #[command(flatten)]
    file: ConfigFile,
}

/// Deletes a user, under every ID that counts for it, from every experiment of the store. The counts of
/// users and metrics lack the user afterwards; its requests stay counted.
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let plan = arguments.file.load()?;
    let user = minted::id_of(&plan.identity.keys, arguments.user.as_bytes());
    let user = UserId::new(user).context("the ID is empty")?;
    let kept = plan.identity.keep.of(user);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = server::open_store(&plan.store).await?;
        let until_ms = system_ms().max(journal::latest_ms(&plan.journal.path));
        let declaration = declaration(&plan);
        let forgotten = forget_everywhere(&*store, &declaration, kept.id().as_bytes(), until_ms);
        let names = forgotten.await.with_context(
            || "not everything was forgotten: run the command again when the store is available",
        )?;
        for experiment in &names {
            store.record_action(&act(experiment)).await?;
        }
        let swept = from_archive(&plan, &*store, (kept.id().as_bytes(), until_ms)).await?;
        let destinations: Vec<&str> = plan.forward.iter().map(|it| &*it.name).collect();
        let text = || {
            let mut text: String = match names.is_empty() {
                true => "the store does not know this user\n".to_owned(),
                false => names
                    .iter()
                    .map(|name| format!("{name}: forgotten\n"))
                    .collect(),
            };
            if let Some(Swept { read, replaced }) = swept {
                text.push_str(&format!(
                    "archive: {replaced} of {read} files had rows of forgotten users and were rewritten\n"
                ));
            }
            if !destinations.is_empty() {
                text.push_str(&format!(
                    "forward: records that were sent before stay at {}: delete the user there, too\n",
                    destinations.join(", ")
                ));
            }
            text
        };
        let archive = swept.map(|it| json!({ "files": it.read, "rewritten": it.replaced }));
        let print = || json!({ "forgotten": names, "archive": archive, "forwarded_to": destinations });
        Ok(output.print(text, print)?)
    })
}

/// Removes the user from archived files, if there is an archive.
async fn from_archive(
    plan: &Plan,
    store: &dyn Store,
    user: (&[u8], u64),
) -> anyhow::Result<Option<Swept>> {
    let Some(archive) = &plan.archive else {
        return Ok(None);
    };
    let swept = archive::forget(archive, store, user).await;
    let swept = swept.map_err(|error| {
        ErrorWithHint::new(
            format!(
                "the counts have forgotten the user, and the archive {} has not: {}",
                archive.to,
                error.with_advice()
            ),
            "run the command again when the archive is available",
        )
    })?;
    Ok(Some(swept))
}

/// Makes the audit entry, which does not name the user.
fn act(experiment: &str) -> AuditEntry {
    AuditEntry {
        experiment: experiment.to_owned(),
        action: "forget".to_owned(),
        from: "kept".to_owned(),
        to: "forgotten".to_owned(),
        at_ms: system_ms(),
        by: decisions::somebody(),
        reason: None,
        source: Some(DecidedBy::Person),
    }
}
