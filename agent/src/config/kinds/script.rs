//! `kind = "script"`: a program that is called with `start`, `stop` or `monitor` as its last argument.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Kind;
use crate::config::{diagnostic::Mistakes, reader::Table, resources};

/// The keys of a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Script {
    /// The program by its whole path, and its arguments before the action; never empty.
    pub command: Vec<String>,
    /// What its environment has beside what Baton tells.
    pub environment: BTreeMap<String, String>,
}

pub(super) fn read(t: &mut Table<'_, '_>, m: &mut Mistakes<'_>) -> Option<Kind> {
    let environment = resources::environment(t, m);
    let command = resources::command(t, "command", "/usr/local/sbin/service", m)?;
    Some(Kind::Script(Script { command, environment }))
}
