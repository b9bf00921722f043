//! `watershed mcp`: serves assistants by the Model Context Protocol, on standard input and output.

#[cfg(feature = "mcp")]
mod files;
#[cfg(feature = "mcp")]
mod server;
#[cfg(feature = "mcp")]
mod tools;

use super::admin_server::AdminServer;

/// The arguments of `mcp`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  watershed mcp --admin http://127.0.0.1:9900\n  watershed mcp -c routes.yaml --allow-decisions\n\nAn assistant starts this command itself:\n  {\"mcpServers\": {\"watershed\": {\"command\": \"watershed\", \"args\": [\"mcp\", \"--admin\", \"http://127.0.0.1:9900\"]}}}"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    server: AdminServer,
    /// Let assistants decide, too: pause, resume, promote and roll back; the token needs `role: operate`
    #[arg(long)]
    allow_decisions: bool,
}

/// Serves until standard input ends.
#[cfg(feature = "mcp")]
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    use crate::server::ErrorWithHint;
    use rmcp::ServiceExt;
    use server::AssistantServer;

    let server = AssistantServer::new(
        arguments.server.find()?,
        arguments.server.file().find(),
        arguments.allow_decisions,
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let began = server.serve(rmcp::transport::stdio()).await;
        let running = began.map_err(|error| {
            let hint = "an assistant starts this command, and begins: see `watershed mcp --help`";
            ErrorWithHint::new(error.to_string(), hint)
        })?;
        running.waiting().await?;
        Ok(())
    });
    // A read of standard input that is still waiting is not waited for.
    runtime.shutdown_background();
    served
}

/// Fails: the program was built without the protocol.
#[cfg(not(feature = "mcp"))]
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    use crate::features::{Feature, MissingFeature};
    use crate::server::ErrorWithHint;

    let Arguments {
        server: _,
        allow_decisions: _,
    } = arguments;
    let missing = MissingFeature(Feature::Mcp);
    Err(ErrorWithHint::new(missing.to_string(), missing.hint()).into())
}
