//! What a user writes.

use std::collections::BTreeMap;
use std::time::Duration;

use corten_component::Url;
use corten_config::{Arguments, CheckErrors, StringEnum};
use corten_net::{AzureAdConfig, ClientConfig, GoogleIamConfig, SigV4Config};
use corten_signal::relabel::Rule;
use http::header::HeaderName;
use http::{HeaderValue, Uri};
use xxhash_rust::xxh3::xxh3_64;

/// Sends samples to remote write endpoints, through a queue on disk.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// Labels to add to series that do not have them.
    #[arg(optional)]
    pub(super) external_labels: BTreeMap<String, String>,
    /// Where to send samples.
    #[block(name = "endpoint")]
    pub(super) endpoints: Vec<Endpoint>,
    /// How long samples are kept on disk.
    #[block(default)]
    pub(super) wal: Wal,
}

/// Where to send samples.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The name of the endpoint in metrics. Also names its place in the queue: an endpoint that keeps its name keeps what
    /// waits for it, whatever else changes. Without one its URL stands for it.
    #[arg(default = "")]
    pub(super) name: String,
    /// The URL to send to.
    pub(super) url: Url,
    /// How long a request may take.
    #[arg(default = "30s")]
    pub(super) remote_timeout: Duration,
    /// Headers of every request. They win over headers of the same name.
    #[arg(optional)]
    pub(super) headers: BTreeMap<String, String>,
    /// Whether to send exemplars.
    #[arg(default = true)]
    pub(super) send_exemplars: bool,
    /// Whether to send native histograms. Those with bounds of their own cannot be sent by version 1 of the protocol.
    #[arg(default = false)]
    pub(super) send_native_histograms: bool,
    /// The version of the protocol, by the name of its message.
    #[arg(default = "prometheus.WriteRequest")]
    pub(super) protobuf_message: ProtobufMessage,
    /// Whether each new connection takes one of the host's addresses by chance.
    #[arg(default = false)]
    pub(super) round_robin_dns: bool,
    #[flatten(defaults(enable_http2 = false))]
    pub(super) client: ClientConfig,
    /// Signs requests for AWS, by signature version 4.
    #[block]
    pub(super) sigv4: Option<SigV4Config>,
    /// Authentication by Microsoft Entra ID.
    #[block]
    pub(super) azuread: Option<AzureAdConfig>,
    /// Authentication by Google Cloud.
    #[block]
    pub(super) google_iam: Option<GoogleIamConfig>,
    /// How requests are made of samples.
    #[block(default)]
    pub(super) queue_config: QueueConfig,
    /// How what is known of metrics is sent: type, help and unit. Version 2 of the protocol says it with each series
    /// instead.
    #[block(default)]
    pub(super) metadata_config: MetadataConfig,
    /// Rules for the labels of series before they are sent.
    #[block(name = "write_relabel_config")]
    pub(super) write_relabel_configs: Vec<Rule>,
}

/// A version of the protocol.
#[derive(StringEnum, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[string_enum(refusal = refuse_message)]
pub enum ProtobufMessage {
    /// Remote write 1.
    #[value(name = "prometheus.WriteRequest")]
    V1,
    /// Remote write 2. It also sends histograms with bounds of their own, and with each series what is known of it.
    #[value(name = "io.prometheus.write.v2.Request", stability = experimental)]
    V2,
}

fn refuse_message(text: &str) -> String {
    format!(
        "unknown type for remote write protobuf message {text}, supported: prometheus.WriteRequest, \
         io.prometheus.write.v2.Request"
    )
}

/// How requests are made of samples.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct QueueConfig {
    /// How many samples a request under way may have waiting in memory behind it while the disk takes nothing.
    #[arg(default = 10000)]
    pub(super) capacity: u32,
    /// The most requests under way at a time. Series are shared out among them, so that the samples of one stay in order.
    #[arg(default = 50)]
    pub(super) max_shards: u16,
    /// The fewest requests that may be under way at a time.
    #[arg(default = 1)]
    pub(super) min_shards: u16,
    /// The most samples in a request.
    #[arg(default = 2000)]
    pub(super) max_samples_per_send: u32,
    /// How long samples wait until a request is full.
    #[arg(default = "5s")]
    pub(super) batch_send_deadline: Duration,
    /// The first wait after a request that failed. Each further wait is twice as long.
    #[arg(default = "30ms")]
    pub(super) min_backoff: Duration,
    /// The longest wait after a request that failed.
    #[arg(default = "5s")]
    pub(super) max_backoff: Duration,
    /// Whether a request that is answered with the status 429 is sent again.
    #[arg(default = true)]
    pub(super) retry_on_http_429: bool,
    /// Samples that are older are not sent. 0 sends all.
    #[arg(default = "0s")]
    pub(super) sample_age_limit: Duration,
}

/// How what is known of metrics is sent.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct MetadataConfig {
    /// Whether to send it. It has to come with the samples: `honor_metadata` of `prometheus.scrape` and `append_metadata`
    /// of `prometheus.receive_http` hand it on.
    #[arg(default = true)]
    pub(super) send: bool,
    /// How often to send it.
    #[arg(default = "1m")]
    pub(super) send_interval: Duration,
    /// The most metrics in a request.
    #[arg(default = 2000)]
    pub(super) max_samples_per_send: u32,
}

/// How long samples are kept on disk.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Wal {
    /// How often what is no longer needed is deleted.
    #[arg(default = "2h")]
    pub(super) truncate_frequency: Duration,
    /// How long samples are kept at least, also when they were sent.
    #[arg(default = "5m")]
    pub(super) min_keepalive_time: Duration,
    /// How long samples are kept at most, also when they were not sent.
    #[arg(default = "8h")]
    pub(super) max_keepalive_time: Duration,
    /// The most bytes on disk; the oldest go first, sent or not. By default what the flag `--storage.queue.max-bytes`
    /// says.
    pub(super) max_bytes: Option<corten_component::size::ByteSize>,
}

impl Config {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            let before = &self.endpoints[..at];
            if before.contains(endpoint) {
                let url = endpoint.shown_url();
                errors.push(
                    &["endpoint"],
                    format!("duplicate remote write configs are not allowed, found duplicate for URL: {url}"),
                );
            } else if !endpoint.name.is_empty() && before.iter().any(|other| other.name == endpoint.name) {
                let name = &endpoint.name;
                errors.push(
                    &["endpoint"],
                    format!("duplicate remote write configs: two endpoints have the name {name:?}"),
                );
            }
        }
        errors.into_result()
    }

    /// What names the place of each endpoint in the queue, in order. Those of one URL that have no names are told apart by
    /// their order.
    pub(super) fn identities(&self) -> Vec<String> {
        let mut identities: Vec<String> = Vec::with_capacity(self.endpoints.len());
        for endpoint in &self.endpoints {
            let identity = endpoint.identity();
            let mut distinct = identity.clone();
            let mut number = 1;
            while identities.contains(&distinct) {
                number += 1;
                distinct = format!("{identity}#{number}");
            }
            identities.push(distinct);
        }
        identities
    }
}

impl Endpoint {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        match self.url.expose().parse::<Uri>() {
            Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() => {}
            _ => {
                let url = self.url.to_string();
                errors.push(
                    &["url"],
                    format!("cannot parse remote_write url {url:?}: want http:// or https:// with a host"),
                );
            }
        }
        for (name, value) in &self.headers {
            if HeaderName::try_from(name.as_str()).is_err() || HeaderValue::try_from(value.as_str()).is_err() {
                errors.push(&["headers"], format!("{name:?} is not a header, or its value is none"));
            }
        }
        let methods = [self.sigv4.is_some(), self.azuread.is_some(), self.google_iam.is_some(), self.client.has_auth()];
        errors.require(
            methods.into_iter().filter(|used| *used).count() <= 1,
            &["sigv4", "azuread", "google_iam"],
            "at most one of sigv4, azuread, google_iam, basic_auth, oauth2, bearer_token & bearer_token_file must be \
             configured",
        );
        errors.into_result()
    }

    /// What names the endpoint's place in the queue: never credentials, never tuning.
    pub(super) fn identity(&self) -> String {
        if !self.name.is_empty() {
            return format!("name:{}", self.name);
        }
        let Ok(uri) = self.url.expose().parse::<Uri>() else { return String::new() };
        let scheme = uri.scheme_str().unwrap_or("http");
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        format!("{scheme}://{}:{port}{}", uri.host().unwrap_or_default(), uri.path())
    }

    /// The name of the endpoint in metrics.
    pub(super) fn remote_name(&self, identity: &str) -> String {
        if self.name.is_empty() { format!("{:06x}", xxh3_64(identity.as_bytes()) >> 40) } else { self.name.clone() }
    }

    pub(super) fn shown_url(&self) -> String {
        self.url.to_string()
    }
}

impl QueueConfig {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(self.min_shards > 0, &["min_shards"], "min_shards must be greater than 0");
        errors.require(
            self.max_shards >= self.min_shards,
            &["max_shards", "min_shards"],
            "max_shards must not be less than min_shards",
        );
        errors.require(
            self.max_shards <= corten_queue::PARTITIONS_MAX,
            &["max_shards"],
            "max_shards must not be greater than 1024",
        );
        errors.require(
            self.max_samples_per_send > 0,
            &["max_samples_per_send"],
            "max_samples_per_send must be greater than 0",
        );
        errors.require(
            self.max_backoff >= self.min_backoff,
            &["max_backoff", "min_backoff"],
            "max_backoff must not be less than min_backoff",
        );
        errors.into_result()
    }
}

impl MetadataConfig {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            !self.send || !self.send_interval.is_zero(),
            &["send_interval"],
            "send_interval must be greater than 0",
        );
        errors.require(
            self.max_samples_per_send > 0,
            &["max_samples_per_send"],
            "max_samples_per_send must be greater than 0",
        );
        errors.into_result()
    }
}

impl Wal {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(!self.truncate_frequency.is_zero(), &["truncate_frequency"], "truncate_frequency must not be 0");
        errors.require(
            self.max_keepalive_time > self.min_keepalive_time,
            &["max_keepalive_time", "min_keepalive_time"],
            "min_keepalive_time must be smaller than max_keepalive_time",
        );
        errors.into_result()
    }
}
