//! What a component has of the world around it. Its only way out.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use corten_config::arguments::Exports as _;
use corten_config::encode::Item;
use corten_config::schema::Stability;
use corten_config::value::Value;
use corten_net::{BasicAuthFilter, Dialer, ObserveRequests, TlsSwitch};
use corten_signal::Ledger;
use corten_signal::flow::BoxFuture;
use corten_signal::tap::Taps;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::definition::Component;
use crate::health::{Health, HealthBoard};
use crate::log::Logger;
use crate::metrics::Registry;
use crate::secrets::SecretBook;
use crate::targets::TargetView;
use crate::task::{Stop, Task};
use crate::trace::{Requests, Tracer};

/// What answers requests below `/api/v0/component/<id>/`.
pub trait HttpHandler: Send + Sync + 'static {
    /// Answers a request; its path is what follows the component's id, with its first slash.
    fn handle(&self, request: http::Request<()>) -> BoxFuture<'_, http::Response<Bytes>>;
}

/// What a component tells of its inner state, in the form of a body.
pub trait DebugInfo: Send + Sync + 'static {
    /// The state as of now.
    fn debug_info(&self) -> Vec<Item>;

    /// The targets of the component, if it has any.
    fn targets(&self) -> Option<&dyn TargetView> {
        None
    }
}

/// Which of several processes does which part of the work.
pub trait Ownership: Send + Sync + 'static {
    /// Whether this process owns a key. A process without a cluster owns all.
    fn owns(&self, key: u64) -> bool;
    /// Changes whenever ownership may have changed.
    fn changed(&self) -> watch::Receiver<u64>;
}

/// The owner of everything.
#[derive(Debug)]
pub struct RingOfOne(watch::Sender<u64>);

impl Default for RingOfOne {
    fn default() -> Self {
        RingOfOne(watch::Sender::new(0))
    }
}

impl Ownership for RingOfOne {
    fn owns(&self, _: u64) -> bool {
        true
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// Connects to nothing within the process.
#[derive(Debug)]
pub struct NoDialer;

impl Dialer for NoDialer {
    fn dial_internal(&self, _: &str) -> Option<tokio::io::DuplexStream> {
        None
    }
}

/// What may change about the process's own HTTP server while it runs, and about what it shows.
#[derive(Clone, Debug, Default)]
pub struct ServerSettings {
    /// Whether data may be watched on its way, as the `livedebugging` block says.
    pub live_debugging: Arc<watch::Sender<bool>>,
    /// The secrets of the configuration that runs, which no answer shows.
    pub secrets: Arc<SecretBook>,
    /// TLS of new connections.
    pub tls: TlsSwitch,
    /// Who may send requests; everybody if there is none.
    pub auth: Arc<ArcSwapOption<BasicAuthFilter>>,
}

/// What all components of a process share.
pub struct Services {
    /// Where components keep their data; each has a folder of its own below.
    pub storage_path: PathBuf,
    /// The level below which nothing may be used.
    pub stability: Stability,
    /// The address under which the process reaches its own HTTP server without a socket.
    pub memory_address: String,
    /// Connects to addresses within the process.
    pub dialer: Arc<dyn Dialer>,
    /// Which part of the work is this process's.
    pub ownership: Arc<dyn Ownership>,
    /// The id of this installation, a UUID.
    pub installation_id: String,
    /// The version of the program, `v1.2.3`.
    pub version: String,
    /// What HTTP clients call themselves.
    pub user_agent: String,
    /// The metrics of everything in the process.
    pub gather: Arc<dyn Fn() -> crate::metrics::Snapshot + Send + Sync>,
    /// The most bytes that the queue of one sink may occupy on disk; `None` for the default.
    pub queue_bytes_max: Option<u64>,
    /// The metrics that are the process's rather than a component's.
    pub registry: Registry,
    /// What the `http` block sets.
    pub server: ServerSettings,
    /// Makes spans of the program's own work.
    pub tracer: Tracer,
    /// Lets people look at what passes between components.
    pub taps: Arc<Taps>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("storage_path", &self.storage_path).finish_non_exhaustive()
    }
}

/// The part of the runtime that belongs to one component.
pub struct Host {
    /// The path of scopes that the component stands in, and its own id: `mod.x/prometheus.scrape.y`.
    pub id: String,
    /// What all components share.
    pub services: Arc<Services>,
    /// The component's own metrics.
    pub registry: Registry,
    /// What became of every item that the component took.
    pub ledger: Arc<Ledger>,
    /// How the component is.
    pub health: Arc<HealthBoard>,
    /// Writes log lines with the component's id.
    pub logger: Logger,
    /// What answers the component's HTTP requests.
    pub handler: Mutex<Option<Arc<dyn HttpHandler>>>,
    /// What tells of its inner state.
    pub debug_info: Mutex<Option<Arc<dyn DebugInfo>>>,
    /// Takes exports that change while the component runs.
    pub export: Box<dyn Fn(Value) + Send + Sync>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a component has of the world around it.
pub struct Context<C> {
    host: Arc<Host>,
    component: PhantomData<fn() -> C>,
}

impl<C> Clone for Context<C> {
    fn clone(&self) -> Self {
        Context { host: Arc::clone(&self.host), component: PhantomData }
    }
}

impl<C> fmt::Debug for Context<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)
    }
}

impl<C: Component> Context<C> {
    /// The context of the component that lives in this part of the runtime.
    pub fn new(host: Arc<Host>) -> Self {
        Context { host, component: PhantomData }
    }

    /// The id of the component with the path of scopes that it stands in.
    pub fn id(&self) -> &str {
        &self.host.id
    }

    /// The folder for the component's data. The component makes it when it needs it.
    pub fn data_dir(&self) -> PathBuf {
        self.host.services.storage_path.join(&self.host.id)
    }

    /// What all components share.
    pub fn services(&self) -> &Arc<Services> {
        &self.host.services
    }

    /// What makes spans of the requests that the component's clients send.
    pub fn observe_requests(&self) -> Option<Arc<dyn ObserveRequests>> {
        Some(Arc::new(Requests { tracer: self.services().tracer.clone(), component: self.id().to_owned() }))
    }

    /// The component's own metrics.
    pub fn metrics(&self) -> &Registry {
        &self.host.registry
    }

    /// What became of every item that the component took.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.host.ledger
    }

    /// Writes log lines with the component's id.
    pub fn logger(&self) -> &Logger {
        &self.host.logger
    }

    /// What the component says of its own health, besides evaluation and running; `None` takes it back.
    pub fn report_health(&self, health: Option<Health>) {
        self.host.health.set_reported(health);
    }

    /// The board that the component's health stands on.
    pub fn health(&self) -> &Arc<HealthBoard> {
        &self.host.health
    }

    /// Answers requests below `/api/v0/component/<id>/`.
    pub fn serve_http(&self, handler: Arc<dyn HttpHandler>) {
        *self.host.handler.lock() = Some(handler);
    }

    /// Tells of the component's inner state.
    pub fn show_debug_info(&self, info: Arc<dyn DebugInfo>) {
        *self.host.debug_info.lock() = Some(info);
    }

    /// Exports something else. What equals the present exports changes nothing.
    pub fn export(&self, exports: &C::Exports) {
        (self.host.export)(exports.to_value());
    }

    /// Starts a task of the component; it runs until what is returned is stopped or dropped.
    pub fn spawn<F, T>(&self, name: impl Into<String>, run: F) -> Task
    where
        F: Fn(Stop) -> T + Send + 'static,
        T: Future<Output = Result<(), String>> + Send + 'static,
    {
        Task::spawn(name, Arc::clone(&self.host.health), self.host.logger.clone(), run)
    }
}
