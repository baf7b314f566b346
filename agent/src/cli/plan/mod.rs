//! `baton plan`: where the groups of a configuration would be, and what would be done for it, by the code that decides for real.

mod start;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    client::{Client, ClientError},
    exit::{Exit, Failure, colour},
};
use crate::{
    api::{protocol::ErrorKind, status::StatusReport},
    cluster::{
        ids::{GroupId, Role, VoterId},
        placement::{Plan, World, against_order, plan, text},
    },
    config::{self, Config, Shared, did_you_mean},
};

/// Arguments of `baton plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Suppose that this node died
    #[arg(long, value_name = "NODE")]
    down: Vec<String>,
    /// Suppose that this node is put on standby
    #[arg(long, value_name = "NODE")]
    standby: Vec<String>,
    /// Suppose that a group is ordered to a node
    #[arg(long = "move", num_args = 2, value_names = ["GROUP", "NODE"])]
    order: Vec<String>,
    /// Do not ask this machine's agent: begin with nothing running and all nodes up
    #[arg(long)]
    empty: bool,
    /// Read the file as the agent of this voter would [default: `name` in [this], or the host name]
    #[arg(long)]
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Makes the plan and prints it. Changes nothing.
pub(super) fn run(args: &Args, socket: Option<&Path>) -> Result<Exit, Failure> {
    let loaded = config::load(&args.file, args.name.as_deref())?;
    if let Some(warnings) = loaded.warnings {
        eprint!("{}", warnings.render(colour()));
    }
    let shared = &loaded.config.shared;
    let (status, mut from) = if args.empty {
        (None, "nothing running and all nodes up".to_owned())
    } else {
        running(&loaded.config, socket)?
    };
    let mut world = start::world(shared, status.as_ref());
    for name in &args.down {
        world.lose(node(shared, name)?);
    }
    for name in &args.standby {
        world.put_on_standby(node(shared, name)?);
    }
    if let [group, to] = args.order.as_slice() {
        if status.is_none() {
            // Only what has an owner can be moved.
            world = world.after(&plan(&world));
            from += ", and then everything started";
        }
        order(shared, &mut world, group, node(shared, to)?)?;
    }
    let plan = plan(&world);
    let names = |id: VoterId| shared.name_of(id).to_string();
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", as_json(&plan, &from, &names))?;
    } else {
        write!(out, "from: {from}\n\n{}", plan.render(&names))?;
    }
    Ok(Exit::Done)
}

/// The state of the running cluster, if an agent of it answers here, and what to call it.
fn running(config: &Config, socket: Option<&Path>) -> Result<(Option<StatusReport>, String), Failure> {
    let path = socket.map_or_else(|| config.socket(), Path::to_path_buf);
    let empty = "nothing running and all nodes up";
    let mut client = match Client::connect(path) {
        Ok(client) => client,
        Err(ClientError::Unreachable { .. }) => return Ok((None, format!("{empty}, because no agent answers here"))),
        Err(error) => return Err(error.into()),
    };
    let status = client.status()?;
    if status.cluster != config.shared.name {
        let why = format!("{empty}, because the agent here is of cluster {}", status.cluster);
        return Ok((None, why));
    }
    let from = format!("the running cluster {} as {} sees it", status.cluster, status.node);
    Ok((Some(status), from))
}

fn node(shared: &Shared, name: &str) -> Result<VoterId, Failure> {
    let nodes = || shared.voters.values().filter(|v| v.role == Role::Node).map(|v| &*v.name);
    match shared.voter_named(name) {
        Some(voter) if voter.role == Role::Node => Ok(voter.id),
        _ => {
            let hint = did_you_mean(name, nodes());
            let nodes = nodes().collect::<Vec<_>>().join(", ");
            Err(Failure::Wrong(format!("no node is called \"{name}\"{hint}; the nodes are: {nodes}")))
        }
    }
}

/// Supposes an order, or says why it would be refused.
fn order(shared: &Shared, world: &mut World, name: &str, to: VoterId) -> Result<(), Failure> {
    let id = GroupId::new(name);
    let Some(group) = world.groups.get(&id) else {
        let names = || shared.groups.keys().map(|g| &*g.0);
        let hint = did_you_mean(name, names());
        let groups = names().collect::<Vec<_>>().join(", ");
        return Err(Failure::Wrong(format!("no group is called \"{name}\"{hint}; the groups are: {groups}")));
    };
    let names = |id: VoterId| shared.name_of(id).to_string();
    let nowhere = group.owner.is_none().then(|| "it has no owner".to_owned());
    let unfit = group.against.get(&to).into_iter().flatten().map(ToString::to_string);
    let bound = against_order(world, &id, to);
    let reasons: Vec<String> = nowhere.into_iter().chain(unfit).chain(bound.iter().map(|o| o.text(&names))).collect();
    if !reasons.is_empty() {
        let message = format!("{name} cannot be moved to {}: {}", names(to), reasons.join(", "));
        return Err(ClientError::Refused { kind: ErrorKind::Refused, message }.into());
    }
    world.order(&id, to);
    Ok(())
}

fn as_json(plan: &Plan, from: &str, names: text::Names<'_>) -> Value {
    let name = |node: Option<VoterId>| node.map(names);
    let places: serde_json::Map<String, Value> = plan
        .places
        .iter()
        .map(|(id, place)| (id.to_string(), json!({ "node": name(place.node), "why": place.why.text(names) })))
        .collect();
    let steps: Vec<Value> = plan
        .steps
        .iter()
        .map(|step| {
            let waits: Vec<String> = step.waits.iter().map(|w| w.text(step.to, names)).collect();
            json!({
                "group": step.group, "from": name(step.from), "to": name(step.to), "waits": waits, "text": step.text(names),
            })
        })
        .collect();
    json!({ "from": from, "places": places, "steps": steps })
}
