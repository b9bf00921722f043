//! `watershed results`: the results of a running watershed as a table.

use super::fetch::fetch;

/// Whose results.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The admin address of a running watershed
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9900")]
    url: String,
    /// The token of admin.token, where one is asked for
    #[arg(long, env = "WATERSHED_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Show, besides, what is valid only if you look once
    #[arg(long)]
    fixed: bool,
}

/// Prints the table.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let url = format!(
        "{}/admin/results?format=text{}",
        arguments.url.trim_end_matches('/'),
        if arguments.fixed { "&view=fixed" } else { "" }
    );
    print!(
        "{}",
        runtime.block_on(fetch(&url, arguments.token.as_deref()))?
    );
    Ok(())
}
