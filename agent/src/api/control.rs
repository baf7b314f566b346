//! The control socket: a Unix socket for root alone, one JSON object a line.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{Semaphore, broadcast::error::RecvError},
    time::timeout,
};

use super::{
    Backend, OrderError,
    mend::Mend,
    protocol::{ErrorKind, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, Request, Response},
};
use crate::{
    cluster::{
        entry::{Scope, Switch},
        ids::{GroupId, MILLISECOND, Nanos, VoterId},
        message::Order,
    },
    config::{ADDRESSES, did_you_mean},
};

/// Clients at once; further ones are told that the agent is busy.
const CLIENTS_MAX: usize = 32;
/// Requests on one connection.
const REQUESTS_MAX: usize = 1_000;
/// How long a client may take to send a request, or to take an answer.
const CLIENT_TIME: Duration = Duration::from_secs(5);
/// A restart may take no longer: meanwhile nobody acts for this machine.
const RESTART_MAX: Nanos = 60_000 * MILLISECOND;
/// How long the agent may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Why the socket could not be opened.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Another agent answers on it.
    #[error("another agent answers on {path}; stop it first, or give this one a `run_dir` of its own")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is in the way.
    #[error("{path} is there and is no socket; remove it, or give the agent a `run_dir` of its own")]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// The system says no.
    #[error("the control socket {path} cannot be opened")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The open control socket. It is removed when dropped.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Opens the socket, mode 0600, in a directory that is made (mode 0700) if it is not there. Must run in a tokio runtime.
    ///
    /// A socket left over by a dead agent is replaced; one that a living agent answers on is not.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Io { path: path.to_owned(), source };
        if let Some(dir) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        }
        match fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(ControlError::NoSocket { path: path.to_owned() });
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(ControlError::InUse { path: path.to_owned() });
            }
            Ok(_) => fs::remove_file(path).map_err(failed)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => (),
            Err(e) => return Err(failed(e)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        // Between bind and chmod somebody else might connect: `serve` also asks the kernel who the client is.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves clients for as long as it is polled.
    pub async fn serve<B: Backend>(self, backend: Arc<B>) {
        let places = Arc::new(Semaphore::new(CLIENTS_MAX));
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(e) => {
                    tracing::warn!(error = %e, "the control socket accepted nobody");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            if !is_root_or_self(&stream) {
                tracing::warn!("somebody but root spoke to the control socket, and was not heard");
                continue;
            }
            match places.clone().try_acquire_owned() {
                Ok(place) => {
                    let backend = backend.clone();
                    tokio::spawn(async move {
                        // A client that breaks off is no matter of ours.
                        drop(serve_client(stream, &*backend).await);
                        drop(place);
                    });
                }
                Err(_full) => {
                    tokio::spawn(async move {
                        let (_, mut writer) = stream.into_split();
                        drop(
                            refuse(
                                &mut writer,
                                ErrorKind::Busy,
                                format!("{CLIENTS_MAX} clients are connected already; try again"),
                            )
                            .await,
                        );
                    });
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Left over, it would be replaced by the next agent.
        drop(fs::remove_file(&self.path));
    }
}

fn is_root_or_self(stream: &UnixStream) -> bool {
    let me = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|c| c.uid() == 0 || c.uid() == me)
}

/// Serves one client until it leaves, is too slow, or sends something too long.
async fn serve_client<B: Backend>(stream: UnixStream, backend: &B) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    for _ in 0..REQUESTS_MAX {
        line.clear();
        let limit = REQUEST_BYTES_MAX as u64 + 1;
        timeout(CLIENT_TIME, (&mut reader).take(limit).read_until(b'\n', &mut line)).await??;
        match line.last() {
            None => return Ok(()),
            Some(b'\n') if line.len() <= REQUEST_BYTES_MAX => (),
            Some(b'\n') | Some(_) if line.len() > REQUEST_BYTES_MAX => {
                return refuse(
                    &mut writer,
                    ErrorKind::BadRequest,
                    format!("a request has at most {REQUEST_BYTES_MAX} bytes"),
                )
                .await;
            }
            Some(_) => {
                return refuse(&mut writer, ErrorKind::BadRequest, "the request ends without a newline".into()).await;
            }
        }
        match serde_json::from_slice::<Request>(&line) {
            Ok(Request::Events { follow, since }) => events(&mut reader, &mut writer, backend, follow, since).await?,
            Ok(request) => {
                let response = match timeout(ANSWER_TIME, answer(backend, request)).await {
                    Ok(response) => response,
                    Err(_late) => {
                        error(ErrorKind::Timeout, "the agent gave no answer in time; an order may still be carried out")
                    }
                };
                send(&mut writer, &response).await?;
            }
            Err(e) => refuse(&mut writer, ErrorKind::BadRequest, format!("this is no request: {e}")).await?,
        }
    }
    Ok(())
}

async fn answer<B: Backend>(backend: &B, request: Request) -> Response {
    let answer = match request {
        Request::Status {} => {
            return Response::Status { status: Box::new(backend.status().await) };
        }
        // Streamed by the caller.
        Request::Events { .. } => return Response::End {},
        Request::Restart { within_ns, exit } => backend.restart(within_ns.min(RESTART_MAX), exit).await,
        Request::Move { group, node, force, dry_run } => {
            let order = group_named(backend, &group)
                .and_then(|group| Ok(Order::Move { group, to: voter_named(backend, &node)?, force }));
            match order {
                Ok(order) if dry_run => backend.plan(order).await,
                Ok(order) => backend.order(order).await,
                Err(message) => Err(OrderError { kind: ErrorKind::Refused, message }),
            }
        }
        Request::Standby { node, on } => match voter_named(backend, &node) {
            Ok(node) => backend.order(Order::Standby { node, on }).await,
            Err(message) => Err(OrderError { kind: ErrorKind::Refused, message }),
        },
        Request::RestartResource { group, resource } => match resource_named(backend, &group, &resource) {
            Ok((group, resource)) => backend.mend(Mend::Restart { group, resource }).await,
            Err(message) => Err(OrderError { kind: ErrorKind::Refused, message }),
        },
        Request::Cleanup { group, resource } => {
            let mend = match resource {
                Some(resource) => resource_named(backend, &group, &resource)
                    .map(|(group, resource)| Mend::Cleanup { group, resource: Some(resource) }),
                None => group_named(backend, &group).map(|group| Mend::Cleanup { group, resource: None }),
            };
            match mend {
                Ok(mend) => backend.mend(mend).await,
                Err(message) => Err(OrderError { kind: ErrorKind::Refused, message }),
            }
        }
        switch => match switched(backend, switch) {
            Ok((what, on)) => backend.order(Order::Switch { what, on }).await,
            Err(message) => Err(OrderError { kind: ErrorKind::Refused, message }),
        },
    };
    match answer {
        Ok(message) => Response::Done { message },
        Err(e) => Response::Error { kind: e.kind, message: e.message },
    }
}

/// What a request would switch.
fn switched<B: Backend>(backend: &B, request: Request) -> Result<(Switch, bool), String> {
    match request {
        Request::Maintenance { node: Some(_), group: Some(_), .. } => {
            Err("maintenance is of a node or of a group, not of both; give two orders".to_owned())
        }
        Request::Maintenance { node: Some(node), group: None, on } => {
            Ok((Switch::Maintenance(Scope::Node(voter_named(backend, &node)?)), on))
        }
        Request::Maintenance { node: None, group: Some(group), on } => {
            Ok((Switch::Maintenance(Scope::Group(group_named(backend, &group)?)), on))
        }
        Request::Maintenance { node: None, group: None, on } => Ok((Switch::Maintenance(Scope::Cluster), on)),
        Request::Stopped { group, on } => Ok((Switch::Stopped(group_named(backend, &group)?), on)),
        Request::Unmanaged { group, resource, on } => {
            let (group, resource) = resource_named(backend, &group, &resource)?;
            if resource == ADDRESSES {
                return Err(format!(
                    "the addresses of {group} follow its gate, and cannot be unmanaged; `baton maintenance on --group {group}` \
                     leaves the whole group alone"
                ));
            }
            Ok((Switch::Unmanaged(group, resource), on))
        }
        _ => Err("this switches nothing".to_owned()),
    }
}

fn resource_named<B: Backend>(backend: &B, group: &str, name: &str) -> Result<(GroupId, String), String> {
    let group = group_named(backend, group)?;
    let configured = backend.shared().groups.get(&group);
    let known = configured.map(|g| g.resource_names()).unwrap_or_default();
    if known.contains(&name) {
        return Ok((group, name.to_owned()));
    }
    let hint = did_you_mean(name, known.iter().copied());
    let name = name.escape_debug();
    Err(format!("group {group} has no resource \"{name}\"{hint}; its resources are: {}", known.join(", ")))
}

fn group_named<B: Backend>(backend: &B, name: &str) -> Result<GroupId, String> {
    let groups = &backend.shared().groups;
    let known = || groups.keys().map(|g| &*g.0);
    match groups.keys().find(|g| *g.0 == *name) {
        Some(group) => Ok(group.clone()),
        None => Err(format!(
            "no group is called \"{}\"{}; the groups are: {}",
            name.escape_debug(),
            did_you_mean(name, known()),
            known().collect::<Vec<_>>().join(", ")
        )),
    }
}

fn voter_named<B: Backend>(backend: &B, name: &str) -> Result<VoterId, String> {
    let shared = backend.shared();
    let known = || shared.voters.values().map(|v| &*v.name);
    match shared.voter_named(name) {
        Some(voter) => Ok(voter.id),
        None => Err(format!(
            "no voter is called \"{}\"{}; the voters are: {}",
            name.escape_debug(),
            did_you_mean(name, known()),
            known().collect::<Vec<_>>().join(", ")
        )),
    }
}

/// Sends the records; with `follow` goes on until the client leaves.
async fn events<B: Backend>(
    reader: &mut (impl tokio::io::AsyncRead + Unpin),
    writer: &mut OwnedWriteHalf,
    backend: &B,
    follow: bool,
    since: u64,
) -> io::Result<()> {
    let mut news = backend.history().follow();
    let mut seen = since;
    for record in backend.history().since(since) {
        seen = record.seq;
        send(writer, &Response::Event { event: (*record).clone() }).await?;
    }
    if !follow {
        return send(writer, &Response::End {}).await;
    }
    let mut byte = [0; 1];
    loop {
        tokio::select! {
            // Whatever a follower says, it ends the stream: so does its end.
            _ = reader.read(&mut byte) => return Err(io::ErrorKind::UnexpectedEof.into()),
            record = news.recv() => match record {
                Ok(record) if record.seq > seen => send(writer, &Response::Event { event: (*record).clone() }).await?,
                Ok(_) => (),
                Err(RecvError::Lagged(records)) => send(writer, &Response::Skipped { records }).await?,
                Err(RecvError::Closed) => return send(writer, &Response::End {}).await,
            },
        }
    }
}

fn error(kind: ErrorKind, message: impl Into<String>) -> Response {
    Response::Error { kind, message: message.into() }
}

async fn refuse(writer: &mut OwnedWriteHalf, kind: ErrorKind, message: String) -> io::Result<()> {
    send(writer, &error(kind, message)).await
}

async fn send(writer: &mut OwnedWriteHalf, response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    if line.len() >= RESPONSE_BYTES_MAX {
        line = serde_json::to_vec(&error(ErrorKind::Refused, "the answer is too long; ask for less"))?;
    }
    line.push(b'\n');
    timeout(CLIENT_TIME, writer.write_all(&line)).await?
}
