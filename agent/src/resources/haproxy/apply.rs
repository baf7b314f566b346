//! Puts a state that another HAProxy had into a running one: only what differs, and what came of it is verified.

use std::collections::HashMap;

use super::{
    gather::gather,
    runtime::{Client, RuntimeError},
    state::{Admin, List, Server, State},
};

/// One command's payload, well below HAProxy's buffer of 16 KiB (`tune.bufsize`).
const PAYLOAD_BYTES_MAX: usize = 8 << 10;
/// More differences are not named one by one.
const NAMED_MAX: usize = 5;

/// What a change brings to light, a second round changes: a server that leaves maintenance is up before it is set down.
const ROUNDS_MAX: usize = 2;

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Commands that changed something.
    pub changes: usize,
    /// What the other node has and this one has not: the two configurations differ there.
    pub unknown: Vec<String>,
}

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The runtime API's.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// It all went well, by its answers, and yet something differs.
    #[error("after the import this still differs: {0}")]
    Differs(String),
}

/// Makes a HAProxy's state equal to the one wanted.
///
/// # Errors
/// [`ApplyError`]; what was changed before stays changed, and another import goes on from there.
pub fn apply(client: &Client, wanted: &State) -> Result<Applied, ApplyError> {
    let (mut now, _) = gather(client)?;
    let mut applied = Applied::default();
    let mut said = Vec::new();
    for _ in 0..ROUNDS_MAX {
        applied.unknown.clear();
        let plan = plan(&now, wanted, &mut applied.unknown);
        if plan.is_empty() {
            return Ok(applied);
        }
        applied.changes += plan.carry_out(client, &mut said)?;
        now = gather(client)?.0;
    }
    let rest = plan(&now, wanted, &mut Vec::new()).names();
    if rest.is_empty() {
        return Ok(applied);
    }
    let more = rest.len().saturating_sub(NAMED_MAX);
    let named = rest.into_iter().take(NAMED_MAX).chain(said.into_iter().take(NAMED_MAX)).collect::<Vec<_>>().join("; ");
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    Err(ApplyError::Differs(named + &more))
}

/// What is to be changed.
#[derive(Debug, Default)]
struct Plan<'a> {
    commands: Vec<String>,
    maps: Vec<&'a List>,
    acls: Vec<&'a List>,
}

impl Plan<'_> {
    fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.maps.is_empty() && self.acls.is_empty()
    }

    /// Gives the commands; how many. What HAProxy says to them is no verdict: some that go well say so in words.
    fn carry_out(&self, client: &Client, said: &mut Vec<String>) -> Result<usize, RuntimeError> {
        for command in &self.commands {
            let answer = client.ask(command)?;
            if !answer.trim().is_empty() {
                said.push(format!("HAProxy said to `{command}`: {}", answer.trim()));
            }
        }
        self.maps.iter().try_for_each(|list| replace_map(client, list))?;
        self.acls.iter().try_for_each(|list| replace_acl(client, list))?;
        Ok(self.commands.len() + self.maps.len() + self.acls.len())
    }

    fn names(&self) -> Vec<String> {
        let lists = self.maps.iter().chain(&self.acls).map(|l| format!("entries of {}", l.file));
        self.commands.iter().cloned().chain(lists).collect()
    }
}

fn plan<'a>(now: &State, wanted: &'a State, unknown: &mut Vec<String>) -> Plan<'a> {
    let mut plan = Plan::default();
    let here: HashMap<_, _> = now.servers.iter().map(|s| ((&s.backend, &s.name), s)).collect();
    for server in &wanted.servers {
        match here.get(&(&server.backend, &server.name)) {
            Some(now) => change_server(now, server, &mut plan.commands),
            None => unknown.push(format!("server {}/{}", server.backend, server.name)),
        }
    }
    plan.maps = change_lists(&now.maps, &wanted.maps, "map", unknown);
    plan.acls = change_lists(&now.acls, &wanted.acls, "acl", unknown);
    plan
}

fn change_server(now: &Server, wanted: &Server, commands: &mut Vec<String>) {
    let name = format!("{}/{}", wanted.backend, wanted.name);
    // An address that is given on one node and resolved on the other stays what it is.
    if let (Some(here), Some((ip, port))) = (now.address, wanted.address)
        && here != (ip, port)
    {
        commands.push(format!("set server {name} addr {ip} port {port}"));
    }
    if now.weight != wanted.weight {
        commands.push(format!("set server {name} weight {}", wanted.weight));
    }
    for (what, now, wanted) in [("health", now.checks, wanted.checks), ("agent", now.agent, wanted.agent)] {
        if let (Some(now), Some(wanted)) = (now, wanted)
            && now != wanted
        {
            commands.push(format!("{} {what} {name}", if wanted { "enable" } else { "disable" }));
        }
    }
    if now.admin != wanted.admin {
        commands.push(format!("set server {name} state {}", wanted.admin.word()));
    }
    // Checks find out by themselves, on each node; and what is in maintenance is down for that alone.
    let unchecked = now.checks != Some(true) && wanted.checks != Some(true);
    let serves = |s: &Server| s.admin != Admin::Maint;
    if unchecked && serves(now) && serves(wanted) && now.up != wanted.up {
        commands.push(format!("set server {name} health {}", if wanted.up { "up" } else { "down" }));
    }
}

fn change_lists<'a>(now: &[List], wanted: &'a [List], kind: &str, unknown: &mut Vec<String>) -> Vec<&'a List> {
    let mut changed = Vec::new();
    for list in wanted {
        match now.iter().find(|l| l.file == list.file) {
            Some(here) if here.entries == list.entries => {}
            Some(_) => changed.push(list),
            None => unknown.push(format!("{kind} {}", list.file)),
        }
    }
    changed
}

/// Replaces all entries of a map in one step: lookups see the old ones, or the new ones.
fn replace_map(client: &Client, list: &List) -> Result<(), RuntimeError> {
    let version = prepare(client, "map", &list.file)?;
    let command = format!("add map @{version} {}", list.file);
    let mut payload = String::new();
    for entry in &list.entries {
        if payload.len() + entry.len() + 1 > PAYLOAD_BYTES_MAX && !payload.is_empty() {
            payload_accepted(client, &command, &payload)?;
            payload.clear();
        }
        payload.push_str(entry);
        payload.push('\n');
    }
    if !payload.is_empty() {
        payload_accepted(client, &command, &payload)?;
    }
    client.order(&format!("commit map @{version} {}", list.file))
}

fn payload_accepted(client: &Client, command: &str, payload: &str) -> Result<(), RuntimeError> {
    match client.ask_with(command, payload)?.trim() {
        "" => Ok(()),
        said => Err(RuntimeError::Refused { command: command.to_owned(), answer: said.to_owned() }),
    }
}

/// The same for an ACL, which takes no payload: several commands a connection.
fn replace_acl(client: &Client, list: &List) -> Result<(), RuntimeError> {
    let version = prepare(client, "acl", &list.file)?;
    let mut batch = String::new();
    for entry in &list.entries {
        let command = format!("add acl @{version} {} {}", list.file, escape(entry));
        if batch.len() + command.len() + 1 > PAYLOAD_BYTES_MAX && !batch.is_empty() {
            client.order(&batch)?;
            batch.clear();
        }
        if !batch.is_empty() {
            batch.push(';');
        }
        batch.push_str(&command);
    }
    if !batch.is_empty() {
        client.order(&batch)?;
    }
    client.order(&format!("commit acl @{version} {}", list.file))
}

/// Opens a transaction; its number.
fn prepare(client: &Client, kind: &str, file: &str) -> Result<u32, RuntimeError> {
    let command = format!("prepare {kind} {file}");
    let answer = client.ask(&command)?;
    let version = answer.trim().rsplit(' ').next().and_then(|n| n.parse().ok());
    version.ok_or_else(|| RuntimeError::Refused { command, answer: answer.trim().to_owned() })
}

/// A word of a command: the runtime API splits at blanks and semicolons unless a backslash stands before them.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, ' ' | ';' | '\\') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}
