//! `watershed results`: shows the results of a running watershed as a table with bars.

use super::admin_client::fetch;
use super::admin_server::AdminServer;
use super::output::Output;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// The interval of `--watch`.
const INTERVAL: Duration = Duration::from_secs(2);
/// Moves the cursor to the upper left and clears the screen (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// The arguments of `results`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  watershed results\n  watershed results new-site --watch\n  watershed results --url https://admin.example:9900 --token \"$(cat token)\""
)]
pub(super) struct Arguments {
    /// The experiment [default: all]
    experiment: Option<String>,
    #[command(flatten)]
    server: AdminServer,
    /// Also show fixed-horizon results, which are valid for one analysis at a planned time
    #[arg(long)]
    fixed: bool,
    /// Update them every two seconds, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

/// Prints the table.
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let is_terminal = std::io::stdout().is_terminal();
    anyhow::ensure!(
        !(output.is_json() && arguments.watch),
        "--watch prints the results again and again: leave it out with --json"
    );
    let server = arguments.server.find()?;
    let url = address(
        &server.url,
        arguments,
        is_terminal && shows_colours(),
        output,
    );
    let ask = || runtime.block_on(fetch(&url, &server.credentials));
    let mut shown = ask()?;
    let mut out = std::io::stdout();
    if !arguments.watch {
        write!(out, "{shown}")?;
        return Ok(());
    }
    loop {
        if is_terminal {
            write!(out, "{CLEAR}")?;
        }
        writeln!(out, "{shown}")?;
        out.flush()?;
        #[expect(
            clippy::disallowed_methods,
            reason = "this thread has nothing else to do"
        )]
        std::thread::sleep(INTERVAL);
        // With `--watch`, an error is shown and the next round tries again.
        shown = ask().unwrap_or_else(|error| format!("{error:#}\n"));
    }
}

fn address(server: &str, arguments: &Arguments, colours: bool, output: Output) -> String {
    let experiment = arguments.experiment.iter().map(|name| {
        let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
        format!("/{name}")
    });
    format!(
        "{server}/admin/results{}?format={}&bars={}{}",
        experiment.collect::<String>(),
        if output.is_json() { "json" } else { "text" },
        if colours { "colours" } else { "plain" },
        if arguments.fixed { "&view=fixed" } else { "" }
    )
}

/// Whether to use colors; see no-color.org.
fn shows_colours() -> bool {
    let says = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    says("NO_COLOR").is_none() && says("TERM").is_none_or(|term| term != "dumb")
}
