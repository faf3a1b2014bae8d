//! A whole configuration, run by a real controller.

use std::sync::Arc;
use std::time::Duration;

use corten_component::log::LogSink;
use corten_component::metrics::Snapshot;
use corten_component::{Definition, Health, Logger, Services};
use corten_config::value::Value;
use corten_runtime::{Catalog, Controller, NodeKind, Options, source};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::world::{Metrics, services};

/// A configuration that runs.
pub struct Pipeline {
    /// What runs it.
    pub controller: Arc<Controller>,
    logs: Arc<Mutex<Vec<u8>>>,
    _dir: TempDir,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").finish_non_exhaustive()
    }
}

/// Runs a configuration that may use the components of some families.
///
/// # Errors
///
/// The diagnostics, one a line.
pub async fn load(text: &str, families: &[&[Definition]]) -> Result<Pipeline, String> {
    load_in(text, families, |_| {}).await
}

/// As [`load`], after `change` had its way with what all components share.
///
/// # Errors
///
/// As [`load`].
///
/// # Panics
///
/// When there is no place for the components' folder.
pub async fn load_in(
    text: &str,
    families: &[&[Definition]],
    change: impl FnOnce(&mut Services),
) -> Result<Pipeline, String> {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let (sink, logs) = LogSink::memory();
    let mut services = services(dir.path());
    change(&mut services);
    let catalog = families.iter().fold(Catalog::default(), |catalog, family| catalog.with(NodeKind::Component, family));
    let controller = Controller::new(Options {
        scope: String::new(),
        catalog,
        services: Arc::new(services),
        logger: Logger::new(sink),
        shutdown_deadline: Duration::from_secs(60),
    });
    let pipeline = Pipeline { controller, logs, _dir: dir };
    pipeline.reload(text).await?;
    Ok(pipeline)
}

impl Pipeline {
    /// Loads another configuration in place of the one that runs.
    ///
    /// # Errors
    ///
    /// The diagnostics, one a line. What ran runs on.
    pub async fn reload(&self, text: &str) -> Result<(), String> {
        let texts = [("test.alloy".to_owned(), text.to_owned())];
        let source = source::from_texts(&texts).map_err(|error| error.to_string())?;
        self.controller.load_source(source).await.map_err(|error| error.to_string())
    }

    /// What a component exports now.
    ///
    /// # Panics
    ///
    /// When there is no such component.
    pub fn exports(&self, id: &str) -> Value {
        self.controller.component(id).unwrap_or_else(|| panic!("there is no {id}")).exports()
    }

    /// A field of what a component exports now, as text of the configuration language.
    ///
    /// # Panics
    ///
    /// When there is no such component.
    pub fn exported(&self, id: &str, field: &str) -> String {
        self.exports(id).field(field).map(|value| value.to_string()).unwrap_or_default()
    }

    /// How a component is.
    ///
    /// # Panics
    ///
    /// When there is no such component.
    pub fn health(&self, id: &str) -> Health {
        self.controller.component(id).unwrap_or_else(|| panic!("there is no {id}")).host.health.current()
    }

    /// What was logged, in logfmt.
    pub fn logs(&self) -> String {
        String::from_utf8_lossy(&self.logs.lock()).into_owned()
    }

    /// The metrics of the controller and of all components, with the components' labels.
    pub fn metrics(&self) -> Metrics {
        let mut snapshot = Snapshot::default();
        self.controller.gather(&mut snapshot);
        Metrics(snapshot)
    }

    /// Ends everything.
    pub async fn shutdown(self) {
        self.controller.shutdown().await;
    }
}
