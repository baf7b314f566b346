//! `baton agent`: the agent, in the foreground.

use std::path::Path;

use super::{
    StartAgent,
    exit::{Exit, Failure},
};
use crate::{
    config::{self, duration},
    telemetry::log,
};

/// Arguments of `baton agent`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which voter this machine is [default: `name` in [this], or the host name]
    #[arg(long)]
    name: Option<String>,
}

/// Checks the configuration and runs the agent until it is told to stop.
pub(super) fn run(args: &Args, file: Option<&Path>, start_agent: StartAgent) -> Result<Exit, Failure> {
    let file = file.unwrap_or(Path::new(config::CONFIG_FILE));
    let config = config::load(file, args.name.as_deref())?.config;
    log::set_up();
    for warning in &config.warnings {
        tracing::warn!("{}: {warning}", file.display());
    }
    let timing = &config.shared.timing;
    tracing::info!(
        cluster = config.shared.name,
        me = %config.this.name,
        interval = duration::show(timing.interval_ns),
        lease = duration::show(timing.lease_ns),
        "Baton {} starts",
        env!("CARGO_PKG_VERSION")
    );
    start_agent(config).map_err(Failure::Agent)?;
    Ok(Exit::Done)
}
