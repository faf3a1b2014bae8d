//! The controller of a scope: loads configurations, evaluates nodes, hands on exports that change, and ends it all.
//!
//! A load is atomic. Every node that is new or changed is prepared against the exports that will be; any error throws
//! all of it away. Only then is anything put in place, and that cannot fail.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use corten_component::definition::Prepared;
use corten_component::metrics::{Counter, Gauge, Histogram, Kind, Registry, Snapshot, Vector};
use corten_component::secrets::{SecretBook, secrets_of_items, secrets_of_value};
use corten_component::task::panic_text;
use corten_component::trace::{Span, SpanKind, untraced_id};
use corten_component::{Definition, Driver, Health, HealthBoard, HealthState, Host, Logger, Services};
use corten_config::decode::{DecodeContext, DecodeErrors};
use corten_config::value::Value;
use corten_syntax::{Block, Diagnostic, Diagnostics};
use futures_util::FutureExt as _;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Mutex as AsyncMutex, RwLock as AsyncRwLock, Semaphore, mpsc};

use crate::books;
use crate::graph::{
    Catalog, DEPRECATED_FUNCTION, NodeKind, Permissions, Plan, check_contents, check_scope, deprecated_functions, plan,
    unknown_exports,
};
use crate::loads::{LoadedBy, Loads};
use crate::scope::ExportScope;
use crate::shown;
use crate::source::{self, Source, SourceError};

/// The most nodes that are evaluated at the same time because exports changed.
const EVALUATIONS_MAX: usize = 4;

/// An evaluation that takes longer than this is counted as slow.
const SLOW_EVALUATION: Duration = Duration::from_secs(60);

/// How often a component that takes long to end is told of.
const SLOW_SHUTDOWN: Duration = Duration::from_secs(60);

const EVALUATION_BUCKETS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// What a controller needs.
pub struct Options {
    /// The path of scopes, empty for the root.
    pub scope: String,
    /// The components and blocks that a configuration may use.
    pub catalog: Catalog,
    /// What all components share.
    pub services: Arc<Services>,
    /// Writes the controller's lines.
    pub logger: Logger,
    /// How long components may take to end; zero is without limit.
    pub shutdown_deadline: Duration,
}

/// Why a load was refused. What ran goes on running.
#[derive(Clone, Debug)]
pub enum LoadError {
    /// The configuration cannot be read.
    Read(String),
    /// The text is not a configuration.
    Syntax(Diagnostics),
    /// The configuration is wrong.
    Invalid(Diagnostics),
}

impl LoadError {
    /// The diagnostics, where there are any.
    pub fn diagnostics(&self) -> Option<&Diagnostics> {
        match self {
            LoadError::Read(_) => None,
            LoadError::Syntax(diagnostics) | LoadError::Invalid(diagnostics) => Some(diagnostics),
        }
    }

    /// The error in one line, as the HTTP API and the log tell it. It says `initial` for later loads, too, which scripts
    /// know from the reference.
    pub fn describe(&self, path: &std::path::Path) -> String {
        match self {
            LoadError::Invalid(_) => format!("error during the initial load: {self}"),
            LoadError::Read(_) | LoadError::Syntax(_) => {
                format!("reading config path {}: {self}", corten_syntax::quote(&path.display().to_string()))
            }
        }
    }
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoadError::Read(error) => f.write_str(error),
            LoadError::Syntax(diagnostics) | LoadError::Invalid(diagnostics) => diagnostics.fmt(f),
        }
    }
}

impl From<SourceError> for LoadError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Read(error) => LoadError::Read(error),
            SourceError::Syntax(diagnostics) => LoadError::Syntax(diagnostics),
        }
    }
}

/// A node that is in place.
pub struct Node {
    /// The name and label of its block, joined by a dot.
    pub id: String,
    /// What it is.
    pub kind: NodeKind,
    /// What it can.
    pub definition: Definition,
    /// Its part of the runtime.
    pub host: Arc<Host>,
    wiring: Mutex<Wiring>,
    exports: Arc<ExportCell>,
    pub(crate) driver: AsyncMutex<Box<dyn Driver>>,
    /// What of its arguments and exports must not be shown.
    secrets: Mutex<BTreeSet<Arc<str>>>,
}

/// What changes from load to load.
#[derive(Clone)]
struct Wiring {
    block: Arc<Block>,
    dependencies: Vec<Arc<str>>,
    dependants: Vec<Arc<str>>,
    /// The components that its telemetry or its targets go to, sorted by id.
    receivers: BTreeSet<Arc<str>>,
    /// The nodes that its data goes to, and the kinds of data.
    data_flow: BTreeSet<(Arc<str>, &'static str)>,
}

/// The exports of a node, and whom to tell when they change.
struct ExportCell {
    id: Arc<str>,
    value: Mutex<Value>,
    changed: mpsc::UnboundedSender<Arc<str>>,
}

impl ExportCell {
    fn get(&self) -> Value {
        self.value.lock().clone()
    }

    /// For exports that whoever refers to the node was prepared with.
    fn set_known(&self, value: Value) {
        *self.value.lock() = value;
    }

    fn tell(&self) {
        let _ = self.changed.send(Arc::clone(&self.id));
    }

    fn set(&self, value: Value) {
        let mut current = self.value.lock();
        if *current != value {
            *current = value;
            drop(current);
            // The queue holds at most one entry a change that really happened; whoever reads it collects them.
            self.tell();
        }
    }
}

impl Node {
    /// What it exports now.
    pub fn exports(&self) -> Value {
        self.exports.get()
    }

    /// The block that it was made from.
    pub fn block(&self) -> Arc<Block> {
        Arc::clone(&self.wiring.lock().block)
    }

    /// The nodes that its block refers to.
    pub fn references_to(&self) -> Vec<Arc<str>> {
        self.wiring.lock().dependencies.clone()
    }

    /// The nodes whose blocks refer to it.
    pub fn referenced_by(&self) -> Vec<Arc<str>> {
        self.wiring.lock().dependants.clone()
    }

    /// The components that its telemetry or its targets go to: see [`Plan::flow`].
    pub fn sends_to(&self) -> BTreeSet<Arc<str>> {
        self.wiring.lock().receivers.clone()
    }

    /// The nodes that its data goes to, and the kinds of data: see [`Plan::data_flow`].
    pub fn data_flow(&self) -> BTreeSet<(Arc<str>, &'static str)> {
        self.wiring.lock().data_flow.clone()
    }

    /// The arguments with which it runs, secrets marked.
    pub async fn arguments(&self) -> Vec<corten_config::encode::Item> {
        self.driver.lock().await.shown_arguments()
    }
}

#[derive(Default)]
struct Graph {
    /// In the order of evaluation.
    nodes: Vec<Arc<Node>>,
    by_id: HashMap<Arc<str>, Arc<Node>>,
}

/// Runs the components of one scope.
pub struct Controller {
    pub(crate) options: Options,
    graph: RwLock<Graph>,
    /// Loads of files, each of which reads them in its turn. What runs does not wait for that.
    load_turn: AsyncMutex<()>,
    /// Loads exclude evaluations that changed exports cause, and each other.
    pub(crate) load_lock: AsyncRwLock<()>,
    changed: mpsc::UnboundedSender<Arc<str>>,
    metrics: ControllerMetrics,
    loaded: Mutex<Option<Loaded>>,
    pub(crate) loads: Loads,
    /// Whether the books of the components are told as metrics.
    book_metrics: AtomicBool,
}

struct Loaded {
    source: Source,
}

struct ControllerMetrics {
    registry: Registry,
    evaluating: Gauge,
    evaluation: Histogram,
    wait: Histogram,
    queue_size: Gauge,
    slow: Vector<Counter>,
    connections: Vector<Gauge>,
    last_load_successful: Gauge,
    last_load_success_time: Gauge,
    load_failures: Counter,
    config_hash: Vector<Gauge>,
}

impl ControllerMetrics {
    fn new() -> Self {
        let registry = Registry::new();
        ControllerMetrics {
            evaluating: registry.gauge(
                "alloy_component_controller_evaluating",
                "Tracks if the controller is currently in the middle of a graph evaluation",
            ),
            evaluation: registry.histogram(
                "alloy_component_evaluation_seconds",
                "Time spent performing component evaluation",
                EVALUATION_BUCKETS,
            ),
            wait: registry.histogram(
                "alloy_component_dependencies_wait_seconds",
                "Time spent by components waiting to be evaluated after their dependency is updated.",
                EVALUATION_BUCKETS,
            ),
            queue_size: registry.gauge(
                "alloy_component_evaluation_queue_size",
                "Tracks the number of components waiting to be evaluated in the worker pool",
            ),
            slow: registry.counters(
                "alloy_component_evaluation_slow_seconds",
                "Number of seconds spent evaluating components that take longer than 1m0s to evaluate",
                &["component_id"],
            ),
            connections: registry.gauges(
                "alloy_component_graph_connection",
                "Indicates that two components are connected in the graph",
                &["from", "to"],
            ),
            last_load_successful: registry.gauge("alloy_config_last_load_successful", "Config loaded successfully."),
            last_load_success_time: registry.gauge(
                "alloy_config_last_load_success_timestamp_seconds",
                "Timestamp of the last successful configuration load.",
            ),
            load_failures: registry.counter("alloy_config_load_failures_total", "Configuration load failures."),
            config_hash: registry.gauges(
                "alloy_config_hash",
                "Hash of the currently active config file.",
                &["sha256", "cluster_name"],
            ),
            registry,
        }
    }
}

/// What was prepared of a node.
struct Ready {
    prepared: Prepared,
    /// The secrets of its arguments.
    secrets: BTreeSet<Arc<str>>,
}

/// What is to be put in place of a node.
struct Change {
    node: Arc<Node>,
    /// Nothing where the node stays as it is.
    prepared: Option<Ready>,
    /// The exports with which the nodes that refer to it were prepared.
    exports: Value,
}

impl Controller {
    /// A controller without a configuration.
    pub fn new(options: Options) -> Arc<Self> {
        let (changed, changes) = mpsc::unbounded_channel();
        let controller = Arc::new(Controller {
            options,
            graph: RwLock::default(),
            load_turn: AsyncMutex::new(()),
            load_lock: AsyncRwLock::new(()),
            changed,
            metrics: ControllerMetrics::new(),
            loaded: Mutex::default(),
            loads: Loads::default(),
            book_metrics: AtomicBool::new(true),
        });
        tokio::spawn(propagate(Arc::downgrade(&controller), changes));
        controller
    }

    pub(crate) fn permissions(&self) -> Permissions {
        Permissions { stability: self.options.services.stability }
    }

    /// Loads the configuration at a path, for the first time.
    ///
    /// # Errors
    ///
    /// As [`Controller::load_for`].
    pub async fn load(&self, path: &std::path::Path) -> Result<(), LoadError> {
        self.load_for(path, LoadedBy::Start).await
    }

    /// Loads the configuration at a path, for the first time or in place of the one that runs.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it. What runs is then as before.
    pub async fn load_for(&self, path: &std::path::Path, by: LoadedBy) -> Result<(), LoadError> {
        // The files are read when it is their turn: of two loads at once the later one has the later texts.
        let _turn = self.load_turn.lock().await;
        let owned: PathBuf = path.to_owned();
        let read = tokio::task::spawn_blocking(move || {
            let texts = source::read_texts(&owned)?;
            Ok((source::from_texts(&texts), texts))
        });
        let read = read.await.unwrap_or_else(|error| Err(SourceError::Read(error.to_string())));
        let (mut result, texts) = match read {
            Ok((Ok(source), texts)) => (self.load_source(source).await, texts),
            Ok((Err(error), texts)) => (Err(LoadError::from(error)), texts),
            Err(error) => (Err(LoadError::from(error)), Vec::new()),
        };
        // Whoever starts the program wrote its texts; whoever sees why a later load was refused may be somebody else.
        if let Err(error) = &mut result
            && by != LoadedBy::Start
        {
            self.mask_error(error, &texts);
        }
        self.loads.note(by, path, &result, texts);
        match &result {
            Ok(()) => {
                self.metrics.last_load_successful.set(1.0);
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                self.metrics.last_load_success_time.set(now.as_secs_f64());
            }
            Err(_) => {
                self.metrics.last_load_successful.set(0.0);
                self.metrics.load_failures.inc();
            }
        }
        result
    }

    /// Masks the secrets of texts, and of what runs, in what is said of the texts.
    fn mask_error(&self, error: &mut LoadError, texts: &[(String, String)]) {
        let files: Vec<_> = texts.iter().map(|(name, text)| corten_syntax::SourceFile::new(name, text)).collect();
        let own = crate::shown::literals_of(&files, &self.options.catalog);
        for book in [self.secrets(), &own] {
            match error {
                LoadError::Read(text) => _ = book.mask(text),
                LoadError::Syntax(found) | LoadError::Invalid(found) => crate::shown::mask_diagnostics(found, book),
            }
        }
    }

    /// Loads a configuration that was read already.
    ///
    /// # Errors
    ///
    /// As [`Controller::load`].
    pub async fn load_source(&self, source: Source) -> Result<(), LoadError> {
        let _exclusive = self.load_lock.write().await;
        self.metrics.evaluating.set(1.0);
        let result = self.load_locked(&source).await;
        self.metrics.evaluating.set(0.0);
        result.map_err(LoadError::Invalid)?;
        self.options.logger.info("scheduling loaded components and services", &[]);
        self.metrics.config_hash.clear();
        self.metrics.config_hash.with(&[&source.sha256, ""]).set(1.0);
        *self.loaded.lock() = Some(Loaded { source });
        self.loads.next_generation();
        Ok(())
    }

    async fn load_locked(&self, source: &Source) -> Result<(), Diagnostics> {
        let started = Instant::now();
        let plan = plan(&source.blocks, &self.options.catalog, self.permissions())?;
        self.warn_of_deprecated(&plan);
        let mut span = self.options.services.tracer.root("GraphEvaluate", SpanKind::Internal);
        span.text("alloy.controller_id", &*self.options.scope);
        // Tells the lines of one load from those of another, also where nobody traces it.
        let trace_id = span.trace_id().unwrap_or_else(untraced_id);
        let logger = self.options.logger.with(&[("trace_id", &trace_id)]);
        logger.info("starting complete graph evaluation", &[]);
        let result = match self.prepare_all(&plan, &logger, &span).await {
            Ok(changes) => {
                self.commit_all(&plan, changes).await;
                Ok(())
            }
            Err(diagnostics) => {
                span.fail("the configuration has errors");
                Err(diagnostics)
            }
        };
        logger.info("finished complete graph evaluation", &[("duration", started.elapsed().into())]);
        result
    }

    /// The first step of a load. Nothing that runs changes.
    async fn prepare_all(&self, plan: &Plan, logger: &Logger, whole: &Span) -> Result<Vec<Change>, Diagnostics> {
        let mut diagnostics = Diagnostics::new();
        let mut changes: Vec<Option<Change>> = Vec::new();
        let mut prospective: Vec<Option<Value>> = Vec::new();
        let mut unknown: Option<Vec<Value>> = None;
        for (at, planned) in plan.nodes.iter().enumerate() {
            let existing = self.graph.read().by_id.get(planned.id.as_str()).cloned();
            let node = existing.unwrap_or_else(|| self.new_node(planned));
            if planned.dependencies.iter().any(|d| prospective[*d].is_none()) {
                // What this refers to failed, so that not all values can be known; what can be said without them is.
                let unknown = unknown.get_or_insert_with(|| unknown_exports(plan));
                let scope = check_scope(plan, at, |d| prospective[d].clone().unwrap_or_else(|| unknown[d].clone()));
                for diagnostic in check_contents(planned, &scope, self.permissions()) {
                    diagnostics.push(diagnostic);
                }
                prospective.push(None);
                changes.push(None);
                continue;
            }
            let scope = ExportScope::new(
                planned
                    .dependencies
                    .iter()
                    .filter_map(|d| Some((plan.nodes[*d].id.as_str(), prospective[*d].clone()?))),
            );
            let started = Instant::now();
            let mut span = whole.child("EvaluateNode", SpanKind::Internal);
            span.text("node_id", &*planned.id);
            match self.prepare_node(&node, &planned.block, &scope).await {
                Ok(prepared) => {
                    let exports = match &prepared {
                        Some(ready) => ready.prepared.exports.clone(),
                        None => node.exports(),
                    };
                    prospective.push(Some(exports.clone()));
                    changes.push(Some(Change { node, prepared, exports }));
                }
                Err(failure) => {
                    span.fail(&failure.text);
                    failure.log(logger, &planned.id);
                    for diagnostic in failure.diagnostics {
                        diagnostics.push(diagnostic);
                    }
                    prospective.push(None);
                    changes.push(None);
                }
            }
            let fields = [("node_id", (&planned.id).into()), ("duration", started.elapsed().into())];
            logger.info("finished node evaluation", &fields);
        }
        if diagnostics.has_errors() {
            return Err(diagnostics);
        }
        Ok(changes.into_iter().flatten().collect())
    }

    /// Decodes and prepares a node; nothing when its arguments are those with which it runs.
    async fn prepare_node(
        &self,
        node: &Node,
        block: &Arc<Block>,
        scope: &ExportScope,
    ) -> Result<Option<Ready>, Failure> {
        let driver = node.driver.lock().await;
        let step = match (node.kind, driver.is_running()) {
            (NodeKind::Service, _) => "updating service",
            (_, true) => "updating component",
            (_, false) => "building component",
        };
        let arguments = driver
            .decode(block, &DecodeContext { scope, minimum: self.options.services.stability })
            .map_err(|errors| Failure::of_decoding(&errors, node.kind, step, block))?;
        if driver.is_current(&arguments) {
            return Ok(None);
        }
        for text in &arguments.deprecated {
            node.host.logger.warn(text, &[]);
        }
        let mut secrets = BTreeSet::new();
        secrets_of_items(&driver.shown(&arguments), &mut secrets);
        let failed = |error: &dyn std::fmt::Display| {
            let text = format!("{step}: {error}");
            let message = format!("{}: {text}", failure_prefix(node.kind));
            Failure { diagnostics: Diagnostic::error(&block.source, block.span, message).into(), text }
        };
        match AssertUnwindSafe(driver.prepare(arguments)).catch_unwind().await {
            Ok(Ok(prepared)) => Ok(Some(Ready { prepared, secrets })),
            Ok(Err(error)) => Err(failed(&error)),
            Err(panic) => Err(failed(&format!("panicked: {}", panic_text(&*panic)))),
        }
    }

    fn new_node(&self, planned: &crate::graph::PlannedNode) -> Arc<Node> {
        let id: Arc<str> = Arc::from(planned.id.as_str());
        let exports = Arc::new(ExportCell {
            id,
            value: Mutex::new((planned.definition.zero_exports)()),
            changed: self.changed.clone(),
        });
        let global = if self.options.scope.is_empty() {
            planned.id.clone()
        } else {
            format!("{}/{}", self.options.scope, planned.id)
        };
        let (path, local) = component_labels(&global);
        let cell = Arc::clone(&exports);
        let host = Arc::new(Host {
            logger: self.options.logger.with(&[("component_path", &path), ("component_id", &local)]),
            ledger: corten_signal::Ledger::new(global.as_str()),
            id: global,
            services: Arc::clone(&self.options.services),
            registry: Registry::new(),
            health: Arc::new(HealthBoard::new("component created")),
            handler: Mutex::default(),
            debug_info: Mutex::default(),
            export: Box::new(move |value| cell.set(value)),
        });
        Arc::new(Node {
            id: planned.id.clone(),
            kind: planned.kind,
            definition: planned.definition,
            wiring: Mutex::new(Wiring {
                block: Arc::clone(&planned.block),
                dependencies: Vec::new(),
                dependants: Vec::new(),
                receivers: BTreeSet::new(),
                data_flow: BTreeSet::new(),
            }),
            secrets: Mutex::default(),
            exports,
            driver: AsyncMutex::new((planned.definition.create)(Arc::clone(&host))),
            host,
        })
    }

    /// The second step of a load: puts what was prepared in place, each node after those that it refers to, and ends what
    /// is gone.
    async fn commit_all(&self, plan: &Plan, changes: Vec<Change>) {
        let mut graph = Graph::default();
        let mut prepared_with = Vec::new();
        // What is in place may log at once what was said to it.
        self.learn_secrets(changes.iter().filter_map(|change| change.prepared.as_ref()));
        for change in changes {
            match change.prepared {
                Some(Ready { prepared, .. }) => {
                    change.node.exports.set_known(prepared.exports.clone());
                    commit_node(&change.node, prepared).await;
                }
                None => change.node.host.health.set_evaluation(evaluated()),
            }
            prepared_with.push(change.exports);
            graph.by_id.insert(Arc::clone(&change.node.exports.id), Arc::clone(&change.node));
            graph.nodes.push(change.node);
        }
        self.metrics.connections.clear();
        for (planned, node) in plan.nodes.iter().zip(&graph.nodes) {
            let mut wiring = node.wiring.lock();
            wiring.block = Arc::clone(&planned.block);
            wiring.dependencies =
                planned.dependencies.iter().map(|d| Arc::clone(&graph.nodes[*d].exports.id)).collect();
            wiring.dependants.clear();
            wiring.receivers.clear();
            wiring.data_flow.clear();
        }
        for (planned, node) in plan.nodes.iter().zip(&graph.nodes) {
            for dependency in &planned.dependencies {
                graph.nodes[*dependency].wiring.lock().dependants.push(Arc::clone(&node.exports.id));
            }
        }
        for (from, to) in plan.flow() {
            graph.nodes[from].wiring.lock().receivers.insert(Arc::clone(&graph.nodes[to].exports.id));
            self.metrics.connections.with(&[&plan.nodes[from].id, &plan.nodes[to].id]).set(1.0);
        }
        for flow in plan.data_flow() {
            let to = Arc::clone(&graph.nodes[flow.to].exports.id);
            graph.nodes[flow.from].wiring.lock().data_flow.insert((to, flow.kind));
        }
        let nodes = graph.nodes.clone();
        let before = std::mem::replace(&mut *self.graph.write(), graph);
        self.learn_secrets(None);
        // What was exported while the others were prepared was told to those that referred to it then.
        for (node, prepared_with) in nodes.iter().zip(&prepared_with) {
            if node.exports() != *prepared_with {
                node.exports.tell();
            }
        }
        let gone: Vec<Arc<Node>> = {
            let graph = self.graph.read();
            before.nodes.into_iter().filter(|node| !graph.by_id.contains_key(node.id.as_str())).collect()
        };
        self.end(gone).await;
    }

    /// Ends nodes, given in the order of their evaluation: those that refer to others before those, and what does not depend
    /// on each other at the same time.
    async fn end(&self, nodes: Vec<Arc<Node>>) {
        let place: HashMap<&str, usize> = nodes.iter().enumerate().map(|(at, node)| (node.id.as_str(), at)).collect();
        let mut waves: Vec<usize> = vec![0; nodes.len()];
        for (at, node) in nodes.iter().enumerate().rev() {
            for dependency in node.references_to() {
                if let Some(target) = place.get(&*dependency) {
                    waves[*target] = waves[*target].max(waves[at] + 1);
                }
            }
        }
        for wave in 0..=waves.iter().copied().max().unwrap_or_default() {
            let ending = nodes.iter().zip(&waves).filter(|(_, of)| **of == wave).map(|(node, _)| self.end_one(node));
            futures_util::future::join_all(ending).await;
        }
    }

    /// Ends a node, and gives it up when it takes too long.
    async fn end_one(&self, node: &Node) {
        let mut driver = node.driver.lock().await;
        if !driver.is_running() {
            return;
        }
        let logger = self.options.logger.with(&[("taskID", &node.id)]);
        let deadline = self.options.shutdown_deadline;
        let exceeded = async {
            match deadline.is_zero() {
                true => std::future::pending().await,
                false => tokio::time::sleep(deadline).await,
            }
        };
        let slow = async {
            loop {
                tokio::time::sleep(SLOW_SHUTDOWN).await;
                logger.warn("task shutdown is taking longer than expected", &[]);
            }
        };
        let drain = AssertUnwindSafe(driver.drain()).catch_unwind();
        let health = tokio::select! {
            ended = drain => ended.map_err(|panic| format!("panicked: {}", panic_text(&*panic))),
            () = exceeded => Err("task shutdown deadline exceeded".to_owned()),
            () = slow => return,
        };
        let health = match health {
            Ok(()) => "component shut down cleanly".to_owned(),
            Err(error) => {
                logger.error("node exited with error", &[("node", (&node.id).into()), ("err", (&error).into())]);
                format!("component shut down with error: {error}")
            }
        };
        node.host.health.set_run(Health::now(HealthState::Exited, health));
    }

    /// Looks for the secrets of all nodes, and of those that are about to be put in place, in what is shown from now on.
    fn learn_secrets<'a>(&self, ready: impl IntoIterator<Item = &'a Ready>) {
        let nodes = self.graph.read().nodes.clone();
        let mut secrets: BTreeSet<Arc<str>> =
            ready.into_iter().flat_map(|ready| ready.secrets.iter().cloned()).collect();
        for node in &nodes {
            secrets.extend(node.secrets.lock().iter().cloned());
        }
        self.loads.learn(secrets, &self.options.services.server.secrets);
    }

    fn warn_of_deprecated(&self, plan: &Plan) {
        for (name, _) in plan.nodes.iter().flat_map(deprecated_functions) {
            self.options.logger.warn(DEPRECATED_FUNCTION, &[("function", (&*name).into())]);
        }
    }

    /// Ends everything, sources first.
    pub async fn shutdown(&self) {
        let _exclusive = self.load_lock.write().await;
        let graph = std::mem::take(&mut *self.graph.write());
        self.end(graph.nodes).await;
    }

    /// The nodes that are components, in the order of their ids.
    pub fn components(&self) -> Vec<Arc<Node>> {
        let graph = self.graph.read();
        let mut nodes: Vec<_> = graph.nodes.iter().filter(|node| node.kind == NodeKind::Component).cloned().collect();
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        nodes
    }

    /// All nodes, in the order of their evaluation.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.graph.read().nodes.clone()
    }

    /// A node by its id.
    pub fn node(&self, id: &str) -> Option<Arc<Node>> {
        self.graph.read().by_id.get(id).cloned()
    }

    /// What a configuration may use.
    pub fn catalog(&self) -> &Catalog {
        &self.options.catalog
    }

    /// What must not be shown.
    pub fn secrets(&self) -> &SecretBook {
        &self.options.services.server.secrets
    }

    /// The text of a node's block as it may be shown.
    pub fn shown_block(&self, node: &Node) -> String {
        shown::block(&node.block(), &self.options.catalog, self.secrets())
    }

    /// The files that run, with their texts as they may be shown.
    pub fn shown_files(&self) -> Vec<(String, String)> {
        let source = self.source();
        source.map_or_else(Vec::new, |source| shown::files(&source.files, &self.options.catalog, self.secrets()))
    }

    /// A component by its id.
    pub fn component(&self, id: &str) -> Option<Arc<Node>> {
        self.graph.read().by_id.get(id).filter(|node| node.kind == NodeKind::Component).cloned()
    }

    /// The component whose id a path begins with, and the rest of the path. The longest id wins.
    pub fn component_at<'p>(&self, path: &'p str) -> Option<(Arc<Node>, &'p str)> {
        let mut ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        ends.push(path.len());
        ends.into_iter().rev().find_map(|end| Some((self.component(&path[..end])?, &path[end..])))
    }

    /// Whether a configuration was ever loaded.
    pub fn is_loaded(&self) -> bool {
        self.loaded.lock().is_some()
    }

    /// The texts that run.
    pub fn source(&self) -> Option<Source> {
        self.loaded.lock().as_ref().map(|loaded| loaded.source.clone())
    }

    /// Leaves the books of the components out of the metrics from now on: they are some ten lines for each way between two
    /// components.
    pub fn without_book_metrics(&self) {
        self.book_metrics.store(false, Ordering::Relaxed);
    }

    /// Adds the metrics of the controller and of all nodes to a snapshot.
    pub fn gather(&self, into: &mut Snapshot) {
        let (path, id) = if self.options.scope.is_empty() {
            ("/".to_owned(), String::new())
        } else {
            component_labels(&self.options.scope)
        };
        let registry = &self.metrics.registry;
        let mut own = Snapshot::default();
        registry.gather(&[], &mut own);
        for family in own.families() {
            for (labels, value) in &family.metrics {
                let mut labels = labels.to_vec();
                if family.name.starts_with("alloy_component_") {
                    labels.push(("controller_path".into(), path.as_str().into()));
                    labels.push(("controller_id".into(), id.as_str().into()));
                }
                into.add_shared(&family.name, &family.help, family.kind, labels, value.clone());
            }
        }
        let nodes = self.graph.read().nodes.clone();
        let mut states: HashMap<HealthState, u64> = HashMap::new();
        for node in &nodes {
            let (path, id) = component_labels(&node.host.id);
            node.host.registry.gather(&[("component_path", &path), ("component_id", &id)], into);
            if node.kind == NodeKind::Component {
                *states.entry(node.host.health.current().state).or_default() += 1;
            }
        }
        if self.book_metrics.load(Ordering::Relaxed) {
            books::gather(&nodes, into);
        }
        for (state, count) in states {
            let labels = vec![
                ("controller_id".to_owned(), id.clone()),
                ("controller_path".to_owned(), path.clone()),
                ("health_type".to_owned(), state.as_str().to_owned()),
            ];
            into.add(
                "alloy_component_controller_running_components",
                "Total number of running components.",
                Kind::Gauge,
                labels,
                corten_component::metrics::Value::Number(count as f64),
            );
        }
    }

    /// Adds the metrics of one component, those of its books among them, without labels that name it.
    pub fn gather_component(&self, node: &Node, into: &mut Snapshot) {
        node.host.registry.gather(&[], into);
        books::gather_own(node, into);
    }

    /// Evaluates a node again because something that it refers to changed.
    async fn evaluate(&self, node: &Arc<Node>) {
        let started = Instant::now();
        let mut span = self.options.services.tracer.root("EvaluateNode", SpanKind::Internal);
        span.text("alloy.controller_id", &*self.options.scope);
        span.text("node_id", &*node.id);
        let wiring = node.wiring.lock().clone();
        let exports: Vec<(Arc<str>, Value)> = {
            let graph = self.graph.read();
            let of = |id: &Arc<str>| Some((Arc::clone(id), graph.by_id.get(id)?.exports()));
            wiring.dependencies.iter().filter_map(of).collect()
        };
        let scope = ExportScope::new(exports.iter().map(|(id, value)| (&**id, value.clone())));
        match self.prepare_node(node, &wiring.block, &scope).await {
            Ok(None) => node.host.health.set_evaluation(evaluated()),
            Ok(Some(ready)) => {
                self.learn_secrets([&ready]);
                let prepared = ready.prepared;
                // Before the component is in place: a task of its may export something newer at once.
                node.exports.set(prepared.exports.clone());
                commit_node(node, prepared).await;
                self.learn_secrets(None);
            }
            Err(failure) => {
                span.fail(&failure.text);
                failure.log(&self.options.logger, &node.id);
                let text = format!("component evaluation failed: {}", failure.text);
                node.host.health.set_evaluation(Health::now(HealthState::Unhealthy, text));
            }
        }
        let took = started.elapsed();
        self.metrics.evaluation.observe_duration(took);
        if took >= SLOW_EVALUATION {
            self.metrics.slow.with(&[&node.id]).add(took.as_secs());
        }
        self.options
            .logger
            .debug("finished node evaluation", &[("node_id", (&node.id).into()), ("duration", took.into())]);
    }
}

async fn commit_node(node: &Arc<Node>, prepared: Prepared) {
    let mut driver = node.driver.lock().await;
    let first = !driver.is_running();
    // It cannot fail, and yet a defect of one component must not leave a load half done.
    let commit = AssertUnwindSafe(|| driver.commit(prepared));
    if let Err(panic) = std::panic::catch_unwind(commit) {
        let text = format!("component evaluation failed: panicked: {}", panic_text(&*panic));
        node.host.logger.error(&text, &[]);
        node.host.health.set_evaluation(Health::now(HealthState::Unhealthy, text));
        return;
    }
    let mut secrets = BTreeSet::new();
    secrets_of_items(&driver.shown_arguments(), &mut secrets);
    secrets_of_value(&node.exports(), &mut secrets);
    *node.secrets.lock() = secrets;
    node.host.health.set_evaluation(evaluated());
    if first {
        node.host.health.set_run(Health::now(HealthState::Healthy, "started component"));
    }
}

fn evaluated() -> Health {
    Health::now(HealthState::Healthy, "component evaluated")
}

fn failure_prefix(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Component => "Failed to build component",
        NodeKind::ConfigBlock => "Failed to evaluate node for config block",
        NodeKind::Service => "Failed to evaluate service",
    }
}

/// Why a node could not be evaluated.
pub(crate) struct Failure {
    /// For whoever loads.
    pub(crate) diagnostics: Diagnostics,
    /// For the health of the node, and for the log.
    text: String,
}

impl Failure {
    /// Errors of decoding as the reference words them: one that has a place of its own stands alone, the others get the
    /// block's.
    pub(crate) fn of_decoding(errors: &DecodeErrors, kind: NodeKind, step: &str, block: &Arc<Block>) -> Self {
        let problems = errors.problems();
        let placed = |problem: &corten_config::decode::Problem| {
            if problem.positioned && kind != NodeKind::ConfigBlock {
                return problem.diagnostic.clone();
            }
            let step = if problem.building { step } else { DECODING };
            let text = format!("{}: {step}: {}", failure_prefix(kind), problem.diagnostic.message);
            Diagnostic::error(&block.source, block.span, text)
        };
        let mut text = match problems.first() {
            Some(first) if first.positioned => format!("{DECODING}: {}", first.diagnostic),
            Some(first) if first.building => format!("{step}: {}", first.diagnostic.message),
            Some(first) => format!("{DECODING}: {}", first.diagnostic.message),
            None => DECODING.to_owned(),
        };
        if let more @ 1.. = problems.len().saturating_sub(1) {
            text.push_str(&format!(" (and {more} more diagnostics)"));
        }
        Failure { diagnostics: problems.iter().map(placed).collect(), text }
    }

    fn log(&self, logger: &Logger, node: &str) {
        logger.error("failed to evaluate config", &[("node", node.into()), ("err", (&self.text).into())]);
    }
}

const DECODING: &str = "decoding configuration";

/// The labels by which metrics and log lines name a component: the path of scopes, and its id within the last.
pub(crate) fn component_labels(global: &str) -> (String, String) {
    match global.rsplit_once('/') {
        Some((path, id)) => (format!("/{path}"), id.to_owned()),
        None => ("/".to_owned(), global.to_owned()),
    }
}

/// Evaluates what refers to nodes whose exports changed, as long as the controller lives.
async fn propagate(controller: std::sync::Weak<Controller>, mut changes: mpsc::UnboundedReceiver<Arc<str>>) {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(EVALUATIONS_MAX);
    let permits = Arc::new(Semaphore::new(workers));
    let (finished, mut finishes) = mpsc::unbounded_channel::<Arc<str>>();
    // Waiting and running nodes with the time since when they wait.
    let mut waiting: HashMap<Arc<str>, Instant> = HashMap::new();
    let mut running: BTreeSet<Arc<str>> = BTreeSet::new();
    loop {
        tokio::select! {
            change = changes.recv() => {
                let (Some(id), Some(controller)) = (change, controller.upgrade()) else { return };
                let mut ids = vec![id];
                while let Ok(id) = changes.try_recv() {
                    ids.push(id);
                }
                let graph = controller.graph.read();
                for node in ids.iter().filter_map(|id| graph.by_id.get(id)) {
                    for dependant in node.referenced_by() {
                        waiting.entry(dependant).or_insert_with(Instant::now);
                    }
                }
            }
            Some(id) = finishes.recv() => {
                running.remove(&id);
            }
        }
        let Some(controller) = controller.upgrade() else { return };
        start_waiting(&controller, &mut waiting, &mut running, &permits, &finished);
        controller.metrics.queue_size.set(waiting.len() as f64);
    }
}

/// Starts the evaluation of those waiting nodes that do not refer to another one that waits or runs.
fn start_waiting(
    controller: &Arc<Controller>,
    waiting: &mut HashMap<Arc<str>, Instant>,
    running: &mut BTreeSet<Arc<str>>,
    permits: &Arc<Semaphore>,
    finished: &mpsc::UnboundedSender<Arc<str>>,
) {
    let graph = controller.graph.read();
    waiting.retain(|id, _| graph.by_id.contains_key(id));
    let ready: Vec<Arc<Node>> = graph
        .nodes
        .iter()
        .filter(|node| waiting.contains_key(node.id.as_str()) && !running.contains(node.id.as_str()))
        .filter(|node| {
            let wiring = node.wiring.lock();
            wiring.dependencies.iter().all(|d| !waiting.contains_key(d) && !running.contains(d))
        })
        .cloned()
        .collect();
    drop(graph);
    for node in ready {
        let id = Arc::clone(&node.exports.id);
        let since = waiting.remove(&id).unwrap_or_else(Instant::now);
        running.insert(Arc::clone(&id));
        let (controller, permits, finished) = (Arc::clone(controller), Arc::clone(permits), finished.clone());
        tokio::spawn(async move {
            let _permit = permits.acquire_owned().await;
            let _no_load = controller.load_lock.read().await;
            // A load may have removed the node, or put another in its place.
            let current = controller.graph.read().by_id.get(&id).is_some_and(|current| Arc::ptr_eq(current, &node));
            if current {
                controller.metrics.wait.observe_duration(since.elapsed());
                controller.evaluate(&node).await;
            }
            let _ = finished.send(id);
        });
    }
}
