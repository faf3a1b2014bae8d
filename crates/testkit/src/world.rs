//! The world around one component.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_component::context::{NoDialer, RingOfOne};
use corten_component::log::LogSink;
use corten_component::metrics::{Label, Registry, Snapshot, Value as MetricValue};
use corten_component::trace::Tracer;
use corten_component::{
    Component, Context, Definition, Driver, Health, HealthBoard, HealthState, Host, Logger, ServerSettings, Services,
};
use corten_config::decode::DecodeContext;
use corten_config::eval::Scope;
use corten_config::schema::Stability;
use corten_config::value::{Object, Value};
use corten_net::Dialer;
use corten_otlp::Consumer;
use corten_signal::ledger::LedgerSnapshot;
use corten_signal::{Kind, Ledger, Receiver, Signal};
use corten_syntax::{Block, Stmt};
use parking_lot::Mutex;
use tempfile::TempDir;

/// The world around one component: a folder of its own, its recorded exports, log, health and metrics.
///
/// A clone is the same world. The folder goes with the last of them.
#[derive(Clone, Debug)]
pub struct World {
    host: Arc<Host>,
    logs: Arc<Mutex<Vec<u8>>>,
    exports: Arc<Mutex<Vec<Value>>>,
    dir: Arc<TempDir>,
}

/// The world around a component with this id, `local.file.x`. Everything may be used there, whatever its stability.
pub fn host(id: &str) -> World {
    World::with(id, |_| {})
}

impl World {
    /// As [`host`], after `change` had its way with what all components share: another dialer, stability or ownership.
    ///
    /// # Panics
    ///
    /// When there is no place for the folder.
    pub fn with(id: &str, change: impl FnOnce(&mut Services)) -> Self {
        let dir = tempfile::tempdir().expect("a folder for temporary files");
        let (sink, logs) = LogSink::memory();
        let mut services = services(dir.path());
        change(&mut services);
        let exports: Arc<Mutex<Vec<Value>>> = Arc::default();
        let recorded = Arc::clone(&exports);
        let host = Host {
            id: id.to_owned(),
            services: Arc::new(services),
            registry: Registry::new(),
            ledger: Ledger::new(id),
            health: Arc::new(HealthBoard::new("component created")),
            logger: Logger::new(sink).with(&[("component_id", id)]),
            handler: Mutex::default(),
            debug_info: Mutex::default(),
            export: Box::new(move |value| {
                let mut exports = recorded.lock();
                if exports.last() != Some(&value) {
                    exports.push(value);
                }
            }),
        };
        World { host: Arc::new(host), logs, exports, dir: Arc::new(dir) }
    }

    /// The context of a component in this world.
    pub fn context<C: Component>(&self) -> Context<C> {
        Context::new(Arc::clone(&self.host))
    }

    /// The runtime's part of the component.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// A path within the world's folder. The component's own data lies below `<id>`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file into the world's folder, with the folders above it, and gives its path.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).expect("a folder can be made");
        }
        std::fs::write(&path, content).expect("a file can be written");
        path
    }

    /// All that was exported, in order, each only if it differs from the one before.
    pub fn exports(&self) -> Vec<Value> {
        self.exports.lock().clone()
    }

    /// A field of what is exported now, as text of the configuration language; empty before the first export.
    pub fn exported(&self, field: &str) -> String {
        let exports = self.exports.lock();
        exports.last().and_then(|value| value.field(field)).map(|value| value.to_string()).unwrap_or_default()
    }

    /// The health as a whole.
    pub fn health(&self) -> Health {
        self.host.health.current()
    }

    /// State and message of the health, `healthy: read file`.
    pub fn health_text(&self) -> String {
        let health = self.health();
        format!("{}: {}", health.state.as_str(), health.message)
    }

    /// What the component did with every item so far, after a look at whether its sums are even. They are once nothing is
    /// under way any more.
    ///
    /// # Panics
    ///
    /// When one is not.
    pub fn balance(&self) -> LedgerSnapshot {
        let snapshot = self.host.ledger.snapshot();
        assert_eq!(snapshot.open_sums(), [], "{snapshot:#?}");
        snapshot
    }

    /// What the component did with items of a kind, as [`balance`](Self::balance), in one line:
    /// `taken 3, out 2, dropped {rule 1 drop: 1}`. What is zero is left out.
    ///
    /// # Panics
    ///
    /// When a sum is not even.
    pub fn balance_of(&self, kind: Kind) -> String {
        let snapshot = self.balance();
        let Some(row) = snapshot.rows.iter().find(|row| row.kind == kind) else { return String::new() };
        let by_reason = |counts: &[(String, u64)]| {
            let mut counts: Vec<_> = counts.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
            counts.sort();
            counts.join(", ")
        };
        let mut parts = Vec::new();
        for (name, count) in [("taken", row.taken), ("received", row.received), ("out", row.out)] {
            if count > 0 {
                parts.push(format!("{name} {count}"));
            }
        }
        for (name, counts) in [("created", &row.created), ("dropped", &row.dropped), ("merged", &row.merged)] {
            if !counts.is_empty() {
                parts.push(format!("{name} {{{}}}", by_reason(counts)));
            }
        }
        if row.held != 0 {
            parts.push(format!("held {}", row.held));
        }
        parts.join(", ")
    }

    /// What was logged, in logfmt.
    pub fn logs(&self) -> String {
        String::from_utf8_lossy(&self.logs.lock()).into_owned()
    }

    /// The way to the component that it exports under a name.
    ///
    /// # Panics
    ///
    /// When there is no such export.
    pub fn receiver<S: Signal>(&self, name: &str) -> Receiver<S> {
        self.capsule(name)
    }

    /// The consumer of OpenTelemetry's signals that the component exports under a name.
    ///
    /// # Panics
    ///
    /// When there is no such export.
    pub fn consumer(&self, name: &str) -> Consumer {
        self.capsule(name)
    }

    fn capsule<T: Clone + 'static>(&self, name: &str) -> T {
        let exports = self.exports();
        let exported = exports.last().and_then(|exports| exports.field(name));
        let found = exported.as_ref().and_then(Value::as_capsule).and_then(|c| c.as_any().downcast_ref::<T>());
        found.unwrap_or_else(|| panic!("no such way in is exported as {name}")).clone()
    }

    /// The component's own metrics.
    pub fn metrics(&self) -> Metrics {
        let mut snapshot = Snapshot::default();
        self.host.registry.gather(&[], &mut snapshot);
        Metrics(snapshot)
    }

    /// The value of a metric without labels.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics().get(name, &[])
    }
}

/// What all components share, with a folder, and with nobody else in the process.
pub(crate) fn services(dir: &Path) -> Services {
    let dialer: Arc<dyn Dialer> = Arc::new(NoDialer);
    Services {
        storage_path: dir.to_owned(),
        stability: Stability::Experimental,
        memory_address: "corten.internal:12345".to_owned(),
        dialer,
        ownership: Arc::new(RingOfOne::default()),
        installation_id: "00000000-0000-4000-8000-000000000000".to_owned(),
        version: "v0.0.0".to_owned(),
        user_agent: "Corten/v0.0.0 (test; binary)".to_owned(),
        gather: Arc::new(Snapshot::default),
        queue_bytes_max: None,
        registry: Registry::new(),
        server: ServerSettings::default(),
        tracer: Tracer::default(),
        taps: Arc::default(),
    }
}

/// Metrics as they were when they were gathered.
#[derive(Clone, Debug)]
pub struct Metrics(pub(crate) Snapshot);

impl Metrics {
    /// The value of a metric whose labels are just these, in any order. Of a histogram or summary how many observations
    /// there were.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let family = self.0.families().find(|family| family.name == name)?;
        let matches = |have: &[Label]| {
            have.len() == labels.len()
                && labels.iter().all(|(n, v)| have.iter().any(|(hn, hv)| **hn == **n && **hv == **v))
        };
        family.metrics.iter().find(|(have, _)| matches(have)).map(|(_, value)| match value {
            MetricValue::Number(number) => *number,
            MetricValue::Histogram { count, .. } | MetricValue::Summary { count, .. } => *count as f64,
        })
    }

    /// All of them in the Prometheus text format.
    pub fn text(&self) -> String {
        self.0.to_text()
    }
}

/// A component by itself, driven as the runtime drives it.
pub struct Unit {
    /// The world that it lives in.
    pub world: World,
    driver: Box<dyn Driver>,
    scope: Names,
}

/// What names in the text of a [`Unit`] stand for.
#[derive(Clone, Default)]
struct Names(Object);

impl Scope for Names {
    fn lookup(&self, name: &str) -> Option<Value> {
        self.0.get(name).cloned()
    }
}

impl std::fmt::Debug for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unit").field("world", &self.world).finish_non_exhaustive()
    }
}

impl Unit {
    /// Starts a component with the text between the braces of its block.
    ///
    /// # Errors
    ///
    /// What is wrong with the arguments, or why they could not be prepared.
    pub async fn start(world: World, definition: &Definition, body: &str) -> Result<Self, String> {
        Self::start_with(world, definition, body, &[]).await
    }

    /// As [`Unit::start`], with what names in the text stand for: receivers, or the exports of others.
    ///
    /// # Errors
    ///
    /// As [`Unit::start`].
    pub async fn start_with(
        world: World,
        definition: &Definition,
        body: &str,
        names: &[(&str, Value)],
    ) -> Result<Self, String> {
        let scope = Names(names.iter().map(|(name, value)| (Arc::from(*name), value.clone())).collect());
        let driver = (definition.create)(Arc::clone(world.host()));
        let mut unit = Unit { world, driver, scope };
        unit.update(body).await?;
        Ok(unit)
    }

    /// Gives the component other arguments, as a reload does. Equal ones do not reach it.
    ///
    /// # Errors
    ///
    /// As [`Unit::start`]. The component runs on as before, and its health says why.
    pub async fn update(&mut self, body: &str) -> Result<(), String> {
        let outcome = self.evaluate(body).await;
        let health = match &outcome {
            Ok(()) => Health::now(HealthState::Healthy, "component evaluated"),
            Err(error) => Health::now(HealthState::Unhealthy, format!("component evaluation failed: {error}")),
        };
        self.world.host.health.set_evaluation(health);
        outcome
    }

    async fn evaluate(&mut self, body: &str) -> Result<(), String> {
        let block = block(body)?;
        let cx = DecodeContext { scope: &self.scope, minimum: self.world.host.services.stability };
        let arguments = self.driver.decode(&block, &cx).map_err(|errors| errors.to_string())?;
        if self.driver.is_current(&arguments) {
            return Ok(());
        }
        let prepared = self.driver.prepare(arguments).await.map_err(|error| error.to_string())?;
        let exports = prepared.exports.clone();
        (self.world.host.export)(exports);
        self.driver.commit(prepared);
        Ok(())
    }

    /// Ends the component as the runtime does.
    pub async fn drain(&mut self) {
        self.driver.drain().await;
    }

    /// The arguments with which the component runs, as the HTTP API shows them.
    pub fn shown_arguments(&self) -> Vec<corten_config::encode::Item> {
        self.driver.shown_arguments()
    }
}

/// A block with this between its braces.
fn block(body: &str) -> Result<Arc<Block>, String> {
    let parsed = corten_syntax::parse("test", &format!("component {{\n{body}\n}}"));
    if parsed.diagnostics.has_errors() {
        return Err(parsed.diagnostics.to_string());
    }
    match &*parsed.file.body {
        [Stmt::Block(block)] => Ok(Arc::clone(block)),
        _ => Err("the text is not the inside of one block".to_owned()),
    }
}

/// The maps of text in an exported list of targets, each as sorted `name=value` joined by spaces: what tests of
/// discovery compare.
pub fn labels(targets: &Value) -> Vec<String> {
    let line = |target: &Value| {
        let fields = target.to_object().unwrap_or_default();
        let mut pairs: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect();
        pairs.sort();
        pairs.join(" ")
    };
    targets.items().map(|target| line(&target)).collect()
}

#[cfg(test)]
mod tests {
    use corten_component::Error;
    use corten_config::{Arguments, Exports};

    use super::*;
    use crate::{load, until};

    /// Says a word again.
    #[derive(Arguments, Clone, Debug, PartialEq)]
    struct Config {
        /// The word.
        word: String,
    }

    #[derive(Exports, Clone, Debug, PartialEq)]
    struct Offer {
        /// What was said.
        said: String,
    }

    struct Echo;

    impl Component for Echo {
        const NAME: &'static str = "test.echo";
        type Arguments = Config;
        type Exports = Offer;
        type Prepared = String;

        async fn prepare(arguments: Config, _: &Context<Self>, _: Option<&Self>) -> Result<(String, Offer), Error> {
            if arguments.word.is_empty() {
                return Err("there is no word".into());
            }
            Ok((arguments.word.clone(), Offer { said: arguments.word }))
        }

        fn commit(_: Option<Self>, word: String, cx: &Context<Self>) -> Self {
            cx.metrics().counter("test_words_total", "Words.").inc();
            cx.logger().info("said", &[("word", (&word).into())]);
            let cx = cx.clone();
            tokio::spawn(async move { cx.export(&Offer { said: format!("{word} {word}") }) });
            Echo
        }
    }

    const ECHO: Definition = Definition::of::<Echo>();

    #[tokio::test]
    async fn a_component_runs_by_itself() {
        let mut unit = Unit::start(host("test.echo.a"), &ECHO, "word = \"a\"").await.unwrap();
        let world = unit.world.clone();
        until("the echo sounds", || world.exported("said") == "\"a a\"").await;
        assert_eq!(world.exports().len(), 2);
        assert_eq!(world.metric("test_words_total"), Some(1.0));
        assert!(world.logs().contains("msg=said component_id=test.echo.a word=a"), "{}", world.logs());
        assert_eq!(world.health_text(), "healthy: component evaluated");

        assert_eq!(unit.update("word = \"\"").await, Err("there is no word".to_owned()));
        assert_eq!(world.health_text(), "unhealthy: component evaluation failed: there is no word");
        unit.update("word = \"a\"").await.unwrap();
        assert_eq!(world.metric("test_words_total"), Some(1.0), "equal arguments do not reach it");
        unit.drain().await;
    }

    #[tokio::test]
    async fn a_configuration_runs_with_a_real_controller() {
        let text = "test.echo \"a\" { word = \"x\" }\ntest.echo \"b\" { word = test.echo.a.said }";
        let pipeline = load(text, &[&[ECHO]]).await.unwrap();
        until("the echo of the echo sounds", || pipeline.exported("test.echo.b", "said") == "\"x x x x\"").await;
        let labels = [("component_path", "/"), ("component_id", "test.echo.b")];
        assert_eq!(pipeline.metrics().get("test_words_total", &labels), Some(2.0));
        let error = pipeline.reload("test.echo \"a\" { }").await.unwrap_err();
        assert!(error.contains("missing required attribute \"word\""), "{error}");
        pipeline.shutdown().await;
    }
}
