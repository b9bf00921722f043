//! `watershed archive`: what a warehouse needs to read the archive.

mod dialect;

use super::config_file::ConfigFile;
use super::output::Output;
use crate::config;
use crate::config::plan::ArchiveTarget;
use crate::server::ErrorWithHint;
use dialect::Dialect;
use serde_json::json;

/// What is done with the archive.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ArchiveCommand {
    /// Print tables and views of the archive, with which a database counts as watershed does
    Sql(SqlArguments),
}

/// The arguments of `archive sql`.
#[derive(Debug, clap::Args)]
pub(super) struct SqlArguments {
    /// The database
    #[arg(long = "for", value_name = "DATABASE", value_enum)]
    dialect: Dialect,
    #[command(flatten)]
    from: ArchiveSource,
}

/// Which archive a command reads.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ArchiveSource {
    /// Where the archive is: a directory, s3://…, gs://… or az://… [default: `archive.to` of the routes file]
    #[arg(long, value_name = "PLACE")]
    from: Option<String>,
    #[command(flatten)]
    file: ConfigFile,
}

impl ArchiveSource {
    /// Returns where the archive is.
    pub(super) fn target(&self) -> anyhow::Result<ArchiveTarget> {
        if let Some(place) = &self.from {
            return config::archive_target(place).map_err(|why| {
                ErrorWithHint::new(
                    format!("--from {place}: {why}"),
                    "give a directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix",
                )
                .into()
            });
        }
        let archive = self.file.load()?.archive;
        let archive = archive.ok_or_else(|| {
            ErrorWithHint::new(
                "the routes file has no `archive`",
                "add `archive: { to: … }`, or name an archive with --from",
            )
        })?;
        Ok(archive.to)
    }

    /// Returns the routes file.
    pub(super) fn file(&self) -> &ConfigFile {
        &self.file
    }
}

/// Runs a command on the archive.
pub(super) fn run(command: &ArchiveCommand, output: Output) -> anyhow::Result<()> {
    let ArchiveCommand::Sql(arguments) = command;
    let sql = arguments.dialect.sql(&arguments.from.target()?)?;
    Ok(output.print(|| sql.clone(), || json!({ "sql": sql }))?)
}
