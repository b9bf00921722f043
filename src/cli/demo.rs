//! `watershed demo`: runs a site, the proxy and visitors on this machine.

use super::admin_client::{Credentials, fetch};
use super::output::Output;
use super::{demo_site, visitors};
use crate::config;
use crate::server::{self, ErrorWithHint, Listeners, logging};
use crate::tasks;
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::oneshot;

/// The arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The number of simulated visitors
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    visitors: u64,
    /// End after the results instead of continuing to serve
    #[arg(long)]
    exit: bool,
    /// The port of the site; 0 for any free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The port of the results; 0 for any free one
    #[arg(long, default_value_t = 9900)]
    admin_port: u16,
}

/// Starts two versions of a site, the proxy and visitors; shows the results.
pub fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    logging::start("warn", None)?;
    let folder = TemporaryFolder::make()?;
    // Site and visitors have their own threads, which the proxy does not use.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(demonstrate(arguments, &folder.0, output))
}

async fn demonstrate(arguments: &Arguments, folder: &Path, output: Output) -> anyhow::Result<()> {
    let current = demo_site::serve(demo_site::CURRENT)
        .await
        .context("cannot start the demo site")?;
    let redesign = demo_site::serve(demo_site::REDESIGN)
        .await
        .context("cannot start the demo site")?;
    let file = folder.join("routes.yaml");
    let text = format!(
        "listen: 127.0.0.1:{}\nadmin: {{ listen: 127.0.0.1:{} }}\n\
         upstreams:\n  current:  http://{current}\n  redesign: http://{redesign}\n\
         experiments:\n  new-site: {{ control: current, experiment: redesign, percent: 50, min_duration: 0s }}\n\
         metrics:\n  purchase: POST /order -> 2xx\n  revenue:  {{ event: purchase, value: amount, kind: mean, max: 10000 }}\n",
        arguments.port, arguments.admin_port
    );
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let plan = config::load(&file)?;
    // The addresses are those of options here, not of keys that somebody wrote.
    let listeners = Listeners::bind(&plan).map_err(|error| {
        let hint =
            "stop what listens there, or take free ports: watershed demo --port 0 --admin-port 0";
        ErrorWithHint::new(format!("{error:#}"), hint)
    })?;
    let (site, admin) = (listeners.public_address()?, listeners.admin_address()?);
    let interrupted = server::stop_requested()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let options = server::RunOptions {
        file: Some(file),
        ..server::RunOptions::default()
    };
    // The server also stops when the sender is dropped.
    let serving = tasks::spawn(
        "server",
        server::run(plan, listeners, options, async move { drop(stopped.await) }),
    );

    if !output.is_json() {
        println!(
            "the site     http://{site}/   (reload with other cookies to see the other version)"
        );
        println!("the results  http://{admin}/admin/results");
        println!("the file     {}\n", folder.join("routes.yaml").display());
    }
    let mut interrupted = std::pin::pin!(interrupted);
    let shown = tokio::select! {
        shown = show(arguments, (site, admin), folder, output) => shown.map(|()| true),
        () = &mut interrupted => Ok(false),
    };
    if !arguments.exit && matches!(shown, Ok(true)) {
        if !output.is_json() {
            println!("Serving until Ctrl-C.");
        }
        interrupted.await;
    }
    drop(stop);
    serving.await??;
    shown.map(drop)
}

async fn show(
    arguments: &Arguments,
    (site, admin): (SocketAddr, SocketAddr),
    folder: &Path,
    output: Output,
) -> anyhow::Result<()> {
    let style = ProgressStyle::with_template(
        "{msg} [{bar:40}] {human_pos}/{human_len} {per_sec}, {eta} left",
    )?;
    let bar = ProgressBar::new(arguments.visitors)
        .with_style(style.progress_chars("=> "))
        .with_message("visitors");
    let tick = bar.clone();
    visitors::visit(site, arguments.visitors, move || tick.inc(1)).await?;
    bar.finish();
    let results = format!("http://{admin}/admin/results");
    let credentials = Credentials::default();
    // All responses are in the results once the lag is zero.
    let found = loop {
        let found: serde_json::Value = serde_json::from_str(&fetch(&results, &credentials).await?)?;
        if found["store"]["lag_events"] == 0 {
            break found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let text = fetch(&format!("{results}?format=text"), &credentials).await?;
    let document = || {
        json!({
            "site": format!("http://{site}/"),
            "admin": format!("http://{admin}/admin/results"),
            "file": folder.join("routes.yaml"),
            "results": found,
        })
    };
    Ok(output.print(|| format!("\n{text}\n"), document)?)
}

/// A folder that is deleted when the demo ends.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn make() -> anyhow::Result<TemporaryFolder> {
        let path = std::env::temp_dir().join(format!("watershed-demo-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(TemporaryFolder(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // Leftovers in the folder for temporary files do no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
