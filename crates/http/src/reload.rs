//! Loading the configuration again.

use std::path::PathBuf;
use std::sync::Arc;

use corten_component::Logger;
use corten_runtime::{Controller, LoadedBy};
use corten_syntax::Diagnostics;

/// Why a configuration was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// In one line.
    pub text: String,
    /// All that is wrong with it, where it could be read.
    pub diagnostics: Diagnostics,
}

/// Loads the configuration again, for whoever asks: a signal or a request.
#[derive(Clone)]
pub struct Reloader {
    controller: Arc<Controller>,
    path: PathBuf,
    logger: Logger,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Reloader {
    /// Loads what lies at a path into a controller.
    pub fn new(controller: Arc<Controller>, path: PathBuf, logger: Logger) -> Self {
        Reloader { controller, path, logger }
    }

    /// Where the configuration is.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Loads the configuration. Goes on to the end although nobody waits for it any more: half a load must never be.
    ///
    /// # Errors
    ///
    /// Why it was refused. What ran goes on running.
    pub async fn reload(&self, by: LoadedBy) -> Result<(), Refusal> {
        let this = self.clone();
        let load = tokio::spawn(async move {
            let outcome = this.controller.load_for(&this.path, by).await.map_err(|error| Refusal {
                text: error.describe(&this.path),
                diagnostics: error.diagnostics().cloned().unwrap_or_default(),
            });
            match &outcome {
                Ok(()) => this.logger.info("config reloaded", &[]),
                Err(refusal) => this.logger.error("failed to reload config", &[("err", (&refusal.text).into())]),
            }
            outcome
        });
        let failed =
            |error: tokio::task::JoinError| Refusal { text: error.to_string(), diagnostics: Diagnostics::new() };
        load.await.unwrap_or_else(|error| Err(failed(error)))
    }
}
