//! Loading the configuration again.

use std::path::PathBuf;
use std::sync::Arc;

use corten_component::Logger;
use corten_runtime::Controller;

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

    /// Loads the configuration. Goes on to the end although nobody waits for it any more: half a load must never be.
    ///
    /// # Errors
    ///
    /// Why it was refused, in one line. What ran goes on running.
    pub async fn reload(&self) -> Result<(), String> {
        let this = self.clone();
        let load = tokio::spawn(async move {
            let outcome = this.controller.load(&this.path).await.map_err(|error| error.describe(&this.path));
            match &outcome {
                Ok(()) => this.logger.info("config reloaded", &[]),
                Err(error) => this.logger.error("failed to reload config", &[("err", error.into())]),
            }
            outcome
        });
        load.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}
