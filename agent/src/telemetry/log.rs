//! Logs: to standard error, for the journal or a terminal.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// The variable that chooses what is logged, in the syntax of `tracing_subscriber::EnvFilter`: `BATON_LOG=debug`.
pub const VARIABLE: &str = "BATON_LOG";

/// Sets logging up for the whole process. A broken filter is reported, and `info` is used.
///
/// Under systemd (JOURNAL_STREAM is set) the journal has the time already, and lines carry none.
pub fn set_up() {
    let asked = std::env::var(VARIABLE).unwrap_or_default();
    let (filter, complaint) = match EnvFilter::try_new(if asked.is_empty() { "info" } else { &asked }) {
        Ok(filter) => (filter, None),
        Err(e) => (EnvFilter::new("info"), Some(e)),
    };
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let layer = fmt::layer().with_writer(io::stderr).with_ansi(colour).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    let done = if std::env::var_os("JOURNAL_STREAM").is_some() {
        registry.with(layer.without_time()).try_init()
    } else {
        registry.with(layer).try_init()
    };
    // An error means that somebody (a test) has set logging up before.
    drop(done);
    if let Some(e) = complaint {
        tracing::warn!("{VARIABLE}={asked} is no filter ({e}); logging at info");
    }
}
