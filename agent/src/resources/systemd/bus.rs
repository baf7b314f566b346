//! systemd over D-Bus (org.freedesktop.systemd1(5)): each question bounded in time, and a bus that failed is connected to anew.

use std::time::Duration;

use futures::StreamExt as _;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout, timeout_at},
};
use zbus::{Connection, ObjectPath, OwnedObjectPath, connection, fdo, proxy, proxy::CacheProperties};

/// How long the bus may take for an answer. systemd answers none while it reloads its units, which takes seconds at most.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How often, while a job runs, it is seen whether the bus answers still.
const SEEN_EVERY: Duration = Duration::from_secs(2);

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: ObjectPath<'_>, unit: &str, result: &str) -> zbus::Result<()>;
}

#[proxy(interface = "org.freedesktop.systemd1.Unit", default_service = "org.freedesktop.systemd1")]
trait Unit {
    #[zbus(property)]
    fn load_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn active_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn sub_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn unit_file_state(&self) -> zbus::Result<String>;
    #[zbus(property, name = "InvocationID")]
    fn invocation_id(&self) -> zbus::Result<Vec<u8>>;
}

#[proxy(interface = "org.freedesktop.systemd1.Service", default_service = "org.freedesktop.systemd1")]
trait Service {
    #[zbus(property)]
    fn result(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn exec_main_status(&self) -> zbus::Result<i32>;
    #[zbus(property)]
    fn control_group(&self) -> zbus::Result<String>;
}

/// Why systemd could not be asked, or did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// Nobody answers: no bus, or one that refuses.
    #[error("systemd cannot be reached over D-Bus: {0}")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("systemd did not answer over D-Bus within {0:?}")]
    Silent(Duration),
    /// It answered with an error.
    #[error("systemd refused: {0}")]
    Refused(String),
    /// The job did not end in time.
    #[error("systemd's job has not ended within {0:?}")]
    Slow(Duration),
    /// The job ended otherwise than well.
    #[error("systemd's job ended with \"{0}\"")]
    Job(String),
}

impl BusError {
    /// Whether it is the bus that failed, so that nothing is known of the unit.
    pub fn is_of_the_bus(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Silent(_) => true,
            Self::Refused(_) | Self::Slow(_) | Self::Job(_) => false,
        }
    }
}

/// What systemd says of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// "loaded", "not-found", "masked", "error", "bad-setting".
    pub load: String,
    /// "active", "reloading", "inactive", "failed", "activating", "deactivating".
    pub active: String,
    /// Finer, by the kind of unit: "running", "auto-restart".
    pub sub: String,
    /// "enabled", "disabled", "static", "masked".
    pub file: String,
    /// Which run of it this is; a restart has another one.
    pub invocation: Vec<u8>,
    /// Of a service: how its last run ended, "success", "exit-code".
    pub result: String,
    /// Of a service: the exit status of its main process.
    pub status: i32,
    /// Of a service: where its processes are, "/system.slice/nginx.service".
    pub control_group: String,
}

impl State {
    /// Whether it runs as it should.
    pub fn runs(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading" | "refreshing")
    }

    /// Whether it does not run at all.
    pub fn stopped(&self) -> bool {
        matches!(self.active.as_str(), "inactive" | "failed")
    }

    /// In words: "failed (failed; exit-code, status 1)".
    pub fn words(&self) -> String {
        let ended = match self.result.as_str() {
            "" | "success" => String::new(),
            result => format!("; {result}, status {}", self.status),
        };
        format!("{} ({}{ended})", self.active, self.sub)
    }
}

/// The way to systemd.
#[derive(Debug)]
pub struct Bus {
    /// The system bus, unless a test has its own.
    address: Option<String>,
    /// For one answer.
    limit: Duration,
    connection: Mutex<Option<Connection>>,
}

impl Bus {
    /// Nothing is connected yet.
    pub fn new(address: Option<String>, limit: Duration) -> Self {
        Self { address, limit: limit.min(ANSWER_LIMIT), connection: Mutex::new(None) }
    }

    /// The state of a unit; it is loaded if need be.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn state(&self, unit: &str) -> Result<State, BusError> {
        self.ask(async |connection| {
            let manager = ManagerProxy::new(connection).await?;
            let path = manager.load_unit(unit).await?;
            read_state(connection, &path, unit).await
        })
        .await
    }

    /// Starts a unit, and waits until the job has ended.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn start(&self, unit: &str, deadline: Instant) -> Result<(), BusError> {
        self.job(unit, true, deadline).await
    }

    /// Stops a unit, and waits until the job has ended. A start under way is cancelled.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn stop(&self, unit: &str, deadline: Instant) -> Result<(), BusError> {
        self.job(unit, false, deadline).await
    }

    async fn job(&self, unit: &str, start: bool, deadline: Instant) -> Result<(), BusError> {
        let began = Instant::now();
        let (mut removed, job) = self
            .ask(async |connection| {
                let manager = ManagerProxy::new(connection).await?;
                manager.subscribe().await.or_else(subscribed_already)?;
                // Before the job exists: it may end before the answer comes.
                let removed = manager.receive_job_removed().await?;
                let job = if start {
                    // A unit that failed too often is not started otherwise.
                    drop(manager.reset_failed_unit(unit).await);
                    manager.start_unit(unit, "replace").await?
                } else {
                    manager.stop_unit(unit, "replace").await?
                };
                Ok((removed, job))
            })
            .await?;
        let ended = async {
            while let Some(signal) = removed.next().await {
                if let Ok(arguments) = signal.args()
                    && *arguments.job() == *job
                {
                    return Ok(arguments.result().to_string());
                }
            }
            Err(BusError::Unreachable("the connection has ended".to_owned()))
        };
        let mut ended = std::pin::pin!(ended);
        loop {
            let look = deadline.min(Instant::now() + SEEN_EVERY);
            match timeout_at(look, &mut ended).await {
                Ok(Ok(result)) if result == "done" => return Ok(()),
                Ok(Ok(result)) => return Err(BusError::Job(result)),
                Ok(Err(e)) => return Err(e),
                // The bus may have gone silent meanwhile, or the job takes its time.
                Err(_) => {
                    self.state(unit).await?;
                    if Instant::now() >= deadline {
                        return Err(BusError::Slow(began.elapsed()));
                    }
                }
            }
        }
    }

    /// Calls a function whenever something of a unit has changed, and once at the beginning, until it says that it is enough.
    ///
    /// # Errors
    /// When the bus fails.
    pub async fn watch(&self, unit: &str, mut changed: impl FnMut(&State) -> bool) -> Result<(), BusError> {
        let (connection, path, mut changes) = self
            .ask(async |connection| {
                let manager = ManagerProxy::new(connection).await?;
                manager.subscribe().await.or_else(subscribed_already)?;
                let path = manager.load_unit(unit).await?;
                let properties = fdo::PropertiesProxy::builder(connection)
                    .destination("org.freedesktop.systemd1")
                    .path(path.clone())
                    .build()
                    .await?;
                let changes = properties.receive_properties_changed().await?;
                Ok((connection.clone(), path, changes))
            })
            .await?;
        loop {
            let state = bounded(self.limit, read_state(&connection, &path, unit)).await?;
            if changed(&state) {
                return Ok(());
            }
            if changes.next().await.is_none() {
                self.connection.lock().await.take();
                return Err(BusError::Unreachable("the connection has ended".to_owned()));
            }
        }
    }

    /// Asks something within the limit of an answer; a connection that fails is not used again.
    async fn ask<T>(&self, question: impl AsyncFnOnce(&Connection) -> zbus::Result<T>) -> Result<T, BusError> {
        let mut held = self.connection.lock().await;
        let connection = match &*held {
            Some(connection) => connection.clone(),
            None => {
                let builder = match &self.address {
                    Some(address) => connection::Builder::address(address.as_str()),
                    None => connection::Builder::system(),
                };
                let connection = bounded(self.limit, builder.build()).await.map_err(|e| match e {
                    BusError::Refused(words) => BusError::Unreachable(words),
                    e => e,
                })?;
                held.insert(connection).clone()
            }
        };
        // Held on: one question at a time, and none on a connection that has just failed.
        let answer = bounded(self.limit, question(&connection)).await;
        if answer.as_ref().is_err_and(BusError::is_of_the_bus) {
            *held = None;
        }
        answer
    }
}

async fn read_state(connection: &Connection, path: &OwnedObjectPath, name: &str) -> zbus::Result<State> {
    let unit = UnitProxy::builder(connection).path(path.clone()).cache_properties(CacheProperties::No).build().await?;
    let mut state = State {
        load: unit.load_state().await?,
        active: unit.active_state().await?,
        sub: unit.sub_state().await?,
        file: unit.unit_file_state().await?,
        invocation: unit.invocation_id().await?,
        ..State::default()
    };
    if name.ends_with(".service") && state.load == "loaded" {
        let service =
            ServiceProxy::builder(connection).path(path.clone()).cache_properties(CacheProperties::No).build().await?;
        state.result = service.result().await?;
        state.status = service.exec_main_status().await?;
        state.control_group = service.control_group().await?;
    }
    Ok(state)
}

async fn bounded<T>(limit: Duration, question: impl Future<Output = zbus::Result<T>>) -> Result<T, BusError> {
    match timeout(limit, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(zbus::Error::MethodError(name, words, _))) => {
            let name = name.as_str();
            let words = words.unwrap_or_else(|| name.to_owned());
            // The bus answers for a systemd that is not there.
            let absent =
                ["ServiceUnknown", "NameHasNoOwner", "NoReply", "Disconnected", "Spawn", "TimedOut", "Timeout"];
            if name.starts_with("org.freedesktop.DBus.Error.") && absent.iter().any(|a| name.contains(a)) {
                Err(BusError::Unreachable(words))
            } else {
                Err(BusError::Refused(words))
            }
        }
        Ok(Err(e)) => Err(BusError::Unreachable(e.to_string())),
        Err(_) => Err(BusError::Silent(limit)),
    }
}

fn subscribed_already(e: zbus::Error) -> zbus::Result<()> {
    match &e {
        zbus::Error::MethodError(name, _, _) if name.as_str().ends_with("AlreadySubscribed") => Ok(()),
        _ => Err(e),
    }
}
