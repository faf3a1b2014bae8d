//! Sends what is known of metrics to an endpoint of version 1 of the protocol, whose series say nothing of it.
//!
//! It is sent again and again, so it needs no queue: what fails is sent with the next round.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use corten_component::{Field, Logger};
use corten_net::{Backoff, retry_after};
use corten_signal::metrics::Metadata;
use corten_wire::remote_write::push_metadata;
use corten_wire::snappy::{self, Compressor};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::arguments::{MetadataConfig, ProtobufMessage};
use super::metadata::Known;
use super::sender::{Posted, SendMetrics, Settings, judge, request};

/// A task that sends what is known. It ends when this is dropped.
pub(super) struct MetadataSender {
    config: watch::Sender<MetadataConfig>,
    handle: JoinHandle<()>,
}

impl Drop for MetadataSender {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl MetadataSender {
    pub(super) fn start(
        config: &MetadataConfig,
        known: Arc<Mutex<Known>>,
        settings: watch::Receiver<Arc<Settings>>,
        metrics: SendMetrics,
        logger: Logger,
        remote_name: &str,
    ) -> Self {
        let (config, changed) = watch::channel(config.clone());
        let rounds = Rounds { known, settings, metrics, logger, remote_name: remote_name.to_owned() };
        MetadataSender { config, handle: tokio::spawn(rounds.run(changed)) }
    }

    /// Takes another configuration; the wait begins anew if it differs.
    pub(super) fn change(&self, config: &MetadataConfig) {
        self.config.send_if_modified(|have| {
            let differs = have != config;
            have.clone_from(config);
            differs
        });
    }
}

struct Rounds {
    known: Arc<Mutex<Known>>,
    settings: watch::Receiver<Arc<Settings>>,
    metrics: SendMetrics,
    logger: Logger,
    remote_name: String,
}

impl Rounds {
    async fn run(self, mut config: watch::Receiver<MetadataConfig>) {
        loop {
            let now = config.borrow_and_update().clone();
            let wait = async {
                match now.send {
                    true => tokio::time::sleep(now.send_interval).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = config.changed() => match changed {
                    Ok(()) => {}
                    Err(_) => return,
                },
                () = wait => self.send_all(&now).await,
            }
        }
    }

    /// Sends everything. What fails is tried again for as long as a round lasts.
    async fn send_all(&self, config: &MetadataConfig) {
        let until = Instant::now() + config.send_interval;
        let families = self.known.lock().families();
        for families in families.chunks(config.max_samples_per_send as usize) {
            if let Err(error) = self.send(families, until).await {
                let count = families.len() as u64;
                self.metrics.failed.metadata.add(count);
                let fields = [
                    ("remote_name", Field::from(&self.remote_name)),
                    ("count", Field::from(count)),
                    ("err", Field::from(&error)),
                ];
                self.logger.error("non-recoverable error while sending metadata", &fields);
                // A peer that is only slow gets everything, however long that takes.
                if Instant::now() >= until {
                    return;
                }
            }
        }
    }

    async fn send(&self, families: &[Arc<Metadata>], until: Instant) -> Result<(), String> {
        let mut raw = Vec::new();
        for family in families {
            push_metadata(&mut raw, family);
        }
        let piece = Compressor::new().piece(&raw);
        let body = Bytes::from(snappy::join(raw.len() as u64, std::iter::once(&*piece)));
        let count = families.len() as u64;
        let mut backoff: Option<Backoff> = None;
        let mut attempt = 0;
        loop {
            let settings = Arc::clone(&self.settings.borrow());
            if attempt > 0 {
                self.metrics.retried.metadata.add(count);
            }
            self.metrics.sent.metadata.add(count);
            self.metrics.metadata_bytes.add(body.len() as u64);
            let request = request(&settings, ProtobufMessage::V1, attempt);
            let (after, error) = match settings.post(request, body.clone()).await {
                Ok((head, text)) => match judge(&settings, &head, &text) {
                    Posted::Taken(_) => return Ok(()),
                    Posted::Refused { error, .. } => return Err(error),
                    Posted::Again { error } => (retry_after(&head.headers, SystemTime::now()), error),
                },
                Err(error) => (None, error),
            };
            let backoff = backoff.get_or_insert_with(|| Backoff::new(settings.backoff_min, settings.backoff_max));
            let wait = backoff.next_wait_after(after);
            if Instant::now() + wait >= until {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }
}
