//! An endpoint that is sent to.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_component::{Context, Error};
use corten_config::encode::Item;
use corten_config::{Value, duration};
use corten_net::{Client, ClientOptions, SigV4Config};
use corten_queue::{Reader, ReaderOptions, Start};
use corten_signal::Kind;
use corten_sink::{BACKOFF_MIN, LaneBooks, Pace, QueueEnd, SendState, client_options};
use http::{HeaderValue, Uri};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::arguments::{Endpoint, ProtobufMessage, QueueConfig};
use super::lane::Lane;
use super::metadata_sender::MetadataSender;
use super::sender::{Own, RemoteSender, RemoteWriteProtocol, Settings};
use super::shards::Rates;
use super::{PreparedEndpoint, RemoteWrite};

/// An endpoint that is sent to.
pub(super) struct RunningEndpoint {
    pub(super) info: Arc<EndpointInfo>,
    pub(super) end: Arc<QueueEnd>,
    pub(super) ending: watch::Sender<bool>,
    /// Closes when the sender has ended.
    pub(super) done: watch::Receiver<()>,
    pub(super) handle: JoinHandle<()>,
    /// Sends what is known of metrics, where the protocol does not say it with each series.
    pub(super) metadata: Option<MetadataSender>,
}

/// What is known of an endpoint by those who only look.
pub(super) struct EndpointInfo {
    pub(super) remote_name: String,
    pub(super) url: String,
    pub(super) lane: Arc<Lane>,
    pub(super) reader: Reader,
    pub(super) state: Arc<SendState>,
    /// How many records waited when the sender was started.
    pub(super) waited: u64,
    pub(super) queue_config: Mutex<QueueConfig>,
    pub(super) rates: Mutex<Rates>,
    pub(super) desired_shards: Mutex<f64>,
}

pub(super) async fn send_settings(endpoint: &Endpoint, cx: &Context<RemoteWrite>) -> Result<Settings, Error> {
    let invalid = |error: &dyn std::fmt::Display| Error::new(error.to_string());
    let common = client_options(&endpoint.headers, cx)?;
    let mut options = ClientOptions { random_address: endpoint.round_robin_dns, ..common };
    let mut uri: Uri = endpoint.url.expose().parse().map_err(|e| invalid(&e))?;
    if let Some(sigv4) = &endpoint.sigv4 {
        options.sign = Some(sigv4.signer(&options).await.map_err(|e| invalid(&e))?);
        uri = SigV4Config::clean_uri(&uri);
    } else if let Some(azuread) = &endpoint.azuread {
        options.sign = Some(azuread.signer(&options).await.map_err(|e| invalid(&e))?);
    } else if let Some(google_iam) = &endpoint.google_iam {
        options.sign = Some(google_iam.signer(&options).await.map_err(|e| invalid(&e))?);
    }
    let client = Client::new(endpoint.client.clone(), options).await.map_err(|e| invalid(&e))?;
    let queue = &endpoint.queue_config;
    Ok(Settings {
        client,
        url: endpoint.url.clone(),
        uri,
        timeout: endpoint.remote_timeout,
        wait_max: queue.batch_send_deadline,
        backoff_min: queue.min_backoff.max(BACKOFF_MIN),
        backoff_max: queue.max_backoff,
        attempts_max: None,
        requests_max: usize::from(queue.max_shards),
        age_max: (!queue.sample_age_limit.is_zero()).then_some(queue.sample_age_limit),
        own: Own {
            retry_on_429: queue.retry_on_http_429,
            installation_id: HeaderValue::from_str(&cx.services().installation_id).map_err(|e| invalid(&e))?,
        },
    })
}

pub(super) fn reader_options(queue: &QueueConfig) -> ReaderOptions {
    ReaderOptions {
        items_max: queue.max_samples_per_send,
        wait_max: queue.batch_send_deadline,
        age_max: (!queue.sample_age_limit.is_zero()).then_some(queue.sample_age_limit),
        start: Start::Newest,
        ..ReaderOptions::default()
    }
}

impl RunningEndpoint {
    /// Takes other settings; connections and place in the queue stay.
    pub(super) fn change(&self, config: &Endpoint) {
        let queue_config = &config.queue_config;
        self.info.reader.set_options(reader_options(queue_config));
        *self.info.queue_config.lock() = queue_config.clone();
        if let Some(metadata) = &self.metadata {
            metadata.change(&config.metadata_config);
        }
    }
}

impl EndpointInfo {
    pub(super) fn debug_info(&self) -> Item {
        let attr = |name: &str, value: Value| Item::Attr { name: name.to_owned(), value };
        let rfc3339 = corten_component::log::rfc3339;
        let lag = self.reader.lag();
        let mut body = vec![
            attr("name", Value::from(self.remote_name.as_str())),
            attr("url", Value::from(self.url.as_str())),
            attr("samples_pending", Value::from(lag.pending.samples)),
            attr("samples_in_flight", Value::from(lag.in_flight.samples)),
            attr("bytes_pending", Value::from(lag.pending.bytes)),
            attr("shards", Value::from(u64::from(self.lane.partitions()))),
            attr("retries", Value::from(self.state.retries())),
        ];
        if let Some(bytes_max) = self.lane.capacity_bytes() {
            body.push(attr("bytes_max", Value::from(bytes_max)));
        }
        if let Some(oldest_ms) = lag.oldest_created_ms {
            let at = UNIX_EPOCH + Duration::from_millis(oldest_ms.max(0) as u64);
            let age = SystemTime::now().duration_since(at).unwrap_or_default();
            body.push(attr("oldest_pending_at", Value::from(rfc3339(at))));
            body.push(attr("oldest_pending_age", Value::from(duration::format(age.as_nanos() as i64))));
        }
        if let Some((at, answer)) = self.state.last_answer() {
            body.push(attr("last_answer", Value::from(answer)));
            body.push(attr("last_answer_at", Value::from(rfc3339(at))));
        }
        if let Some((at, error)) = &*self.state.last_error.lock() {
            body.push(attr("last_error", Value::from(error.as_str())));
            body.push(attr("last_error_at", Value::from(rfc3339(*at))));
        }
        Item::Block { name: "endpoint".to_owned(), label: None, body }
    }
}

impl RemoteWrite {
    /// Starts the sender of an endpoint. It begins when those have ended that send what the endpoint was to get before.
    pub(super) fn start_endpoint(
        &mut self,
        endpoint: PreparedEndpoint,
        lane: &Arc<Lane>,
        cx: &Context<Self>,
    ) -> RunningEndpoint {
        let identity = endpoint.identity;
        let (remote_name, url) = (endpoint.config.remote_name(&identity), endpoint.config.shown_url());
        let reader = lane.queue().reader(&identity, reader_options(&endpoint.config.queue_config));
        let state = Arc::new(SendState::default());
        let books = Arc::clone(lane) as Arc<dyn LaneBooks>;
        let end = QueueEnd::new(Kind::PrometheusMetric, remote_name.clone(), url.clone(), &reader, &state, Some(books));
        let end = self.shared.ends.keep(end, cx.ledger());
        let settings = self.settings.entry(identity.clone());
        let settings = settings.or_insert_with(|| watch::Sender::new(Arc::new(endpoint.settings))).subscribe();
        let (ending, ending_of_sender) = watch::channel(false);
        let (alive, done) = watch::channel(());
        let sender = self.sender(&reader, settings, &state, ending_of_sender, (&remote_name, &url), cx);
        let metadata = (lane.protocol() == ProtobufMessage::V1).then(|| {
            let (known, settings) = (Arc::clone(&self.known), sender.settings.clone());
            let (metrics, logger) = (sender.protocol.metrics.clone(), cx.logger().clone());
            MetadataSender::start(&endpoint.config.metadata_config, known, settings, metrics, logger, &remote_name)
        });
        let predecessors = self.predecessors.entry(identity).or_default();
        predecessors.retain(|predecessor| predecessor.has_changed().is_ok());
        let predecessors = predecessors.clone();
        let info = Arc::new(EndpointInfo {
            remote_name,
            url,
            lane: Arc::clone(lane),
            waited: reader.lag().pending.records,
            reader,
            state,
            queue_config: Mutex::new(endpoint.config.queue_config),
            rates: Mutex::default(),
            desired_shards: Mutex::new(1.0),
        });
        let handle = tokio::spawn(async move {
            sender.run_after(predecessors).await;
            drop(alive);
        });
        RunningEndpoint { info, end, ending, done, handle, metadata }
    }

    /// What sends to an endpoint, whose name and URL its metrics have.
    pub(super) fn sender(
        &self,
        reader: &Reader,
        settings: watch::Receiver<Arc<Settings>>,
        state: &Arc<SendState>,
        ending: watch::Receiver<bool>,
        (remote_name, url): (&str, &str),
        cx: &Context<Self>,
    ) -> RemoteSender {
        RemoteSender {
            reader: reader.clone(),
            settings,
            protocol: RemoteWriteProtocol {
                metrics: self.shared.send_metrics(&[remote_name, url]),
                logger: cx.logger().clone(),
                identity: Arc::from(reader.name()),
            },
            state: Arc::clone(state),
            ending,
            pace: Pace::default(),
            report: self.shared.failing.reporter((remote_name.to_owned(), url.to_owned())),
        }
    }
}
