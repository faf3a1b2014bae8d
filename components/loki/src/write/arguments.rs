//! What a user writes.

use std::collections::BTreeMap;
use std::time::Duration;

use corten_component::Url;
use corten_component::size::ByteSize;
use corten_config::schema::Stability;
use corten_config::{Arguments, CheckErrors};
use corten_net::ClientConfig;
use http::HeaderValue;
use http::header::HeaderName;

/// Writes log entries to Loki, or to whatever takes its push protocol, through a queue on disk.
///
/// An entry goes to the tenant that its label `__tenant_id__` names, or else to that of the endpoint. Labels whose names begin
/// with `__` are not sent. What has been taken survives a restart and an outage of an endpoint; `wal { enabled = false }`
/// keeps it in memory instead, and sources then keep their place until it is delivered. One endpoint that is down does not stop
/// the others.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// Labels to add to entries that do not have them.
    #[arg(optional)]
    pub(super) external_labels: BTreeMap<String, String>,
    /// The most streams in a record, which holds what comes within a tenth of a second, or `batch_size`. Entries of further
    /// streams are dropped. 0, as without it, is no limit.
    pub(super) max_streams: Option<i64>,
    /// Where to send entries.
    #[block(name = "endpoint")]
    pub(super) endpoints: Vec<Endpoint>,
    /// The queue on disk.
    #[block(default)]
    pub(super) wal: Wal,
}

/// Where to send entries.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The name of the endpoint's place in the queue: an endpoint that keeps its name keeps what waits for it, whatever else
    /// changes. Without one its URL stands for it. One that gets another name, or its first, and is the only one of its URL
    /// keeps what waits for it, too.
    #[arg(default = "")]
    pub(super) name: String,
    /// The URL to send to, with its path.
    pub(super) url: Url,
    /// How long entries wait until a request is full.
    #[arg(default = "1s")]
    pub(super) batch_wait: Duration,
    /// The most bytes of lines and structured metadata in a request. One entry alone may be larger.
    #[arg(default = "1MiB")]
    pub(super) batch_size: ByteSize,
    /// How long a request may take.
    #[arg(default = "10s")]
    pub(super) remote_timeout: Duration,
    /// Headers to add to every request, unless it has one of that name already.
    #[arg(optional)]
    pub(super) headers: BTreeMap<String, String>,
    /// The first wait after a request that failed. Each further wait is twice as long.
    #[arg(default = "500ms")]
    pub(super) min_backoff_period: Duration,
    /// The longest wait after a request that failed.
    #[arg(default = "5m")]
    pub(super) max_backoff_period: Duration,
    /// How often a request is sent at most; 0 is without end. Where it is not written, there is no end as long as the queue is
    /// on disk, and it is 10 where it is in memory.
    pub(super) max_backoff_retries: Option<u32>,
    /// The tenant of entries that do not name one.
    #[arg(default = "")]
    pub(super) tenant_id: String,
    /// Whether a request that is answered with the status 429 is sent again.
    #[arg(default = true)]
    pub(super) retry_on_http_429: bool,
    #[flatten]
    pub(super) client: ClientConfig,
    /// How requests are made of entries. Anything but the defaults is experimental.
    #[block(default)]
    pub(super) queue_config: QueueConfig,
}

/// How requests are made of entries.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct QueueConfig {
    /// How much may wait in memory for each request under way, where the queue is in memory, or while the disk takes nothing.
    #[arg(default = "10MiB")]
    pub(super) capacity: ByteSize,
    /// How many requests of one tenant may be under way at a time. Streams are shared out among them, so that the entries of
    /// one stay in order.
    #[arg(default = 1)]
    pub(super) min_shards: u16,
    /// How long what waits in memory is still sent when the program ends.
    #[arg(default = "1m")]
    pub(super) drain_timeout: Duration,
    /// Whether sources wait while the queue is full; otherwise the oldest entries are dropped. Where it is not written, they
    /// wait for a queue in memory, as `true` says, and do not wait for a queue on disk.
    pub(super) block_on_overflow: Option<bool>,
}

/// The queue on disk.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Wal {
    /// Whether the queue is on disk. It is, unless `false` is written here.
    pub(super) enabled: Option<bool>,
    /// How long entries wait at most. Without it they wait as long as there is room: 512 MiB, or what the flag
    /// `--storage.queue.max-bytes` says.
    pub(super) max_segment_age: Option<Duration>,
    /// Accepted, and checked against `max_read_frequency`. Nothing polls the queue.
    #[arg(default = "250ms")]
    pub(super) min_read_frequency: Duration,
    /// Accepted, and checked against `min_read_frequency`. Nothing polls the queue.
    #[arg(default = "1s")]
    pub(super) max_read_frequency: Duration,
    /// How long what waits on disk is still sent when the program ends.
    #[arg(default = "30s")]
    pub(super) drain_timeout: Duration,
}

/// What the reference says in front of an error of its endpoints, whose misspelling is kept.
const BUILDING: &str = "failed to create cliens";

impl Config {
    fn check_build(&self, minimum: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            !self.endpoints.is_empty(),
            &["endpoint"],
            &format!("{BUILDING}: at least one endpoint config must be provided"),
        );
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            let before = &self.endpoints[..at];
            let is_double = match endpoint.name.as_str() {
                "" => before.contains(endpoint),
                name => before.iter().any(|other| other.name == name),
            };
            errors.require(
                !is_double,
                &["endpoint"],
                &format!(
                    "{BUILDING}: duplicate endpoint configs are not allowed, found duplicate for name: {}",
                    endpoint.name
                ),
            );
            errors.require(
                endpoint.queue_config.is_default() || minimum == Stability::Experimental,
                &["endpoint"],
                "changing queue_config requires stability.level flag to be experimental",
            );
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

    /// Whether the queue is on disk.
    pub(super) fn is_on_disk(&self) -> bool {
        self.wal.enabled.unwrap_or(true)
    }

    /// Whether sources wait while the queue is full.
    pub(super) fn blocks(&self) -> bool {
        let written = || self.endpoints.iter().filter_map(|endpoint| endpoint.queue_config.block_on_overflow);
        match self.is_on_disk() {
            true => written().any(|blocks| blocks),
            false => written().next().is_none() || written().any(|blocks| blocks),
        }
    }

    /// What a record holds at most: no endpoint finds it too large.
    pub(super) fn record_bytes_max(&self) -> usize {
        let sizes = self.endpoints.iter().map(|endpoint| endpoint.batch_size.bytes());
        usize::try_from(sizes.min().unwrap_or(0)).unwrap_or(usize::MAX).clamp(1, corten_sink::RAW_BYTES_MAX)
    }

    /// How many requests of one tenant may be under way.
    pub(super) fn shards(&self) -> u16 {
        self.endpoints.iter().map(|endpoint| endpoint.queue_config.min_shards).max().unwrap_or(1).max(1)
    }
}

impl Endpoint {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        for (name, value) in &self.headers {
            if HeaderName::try_from(name.as_str()).is_err() || HeaderValue::try_from(value.as_str()).is_err() {
                errors.push(&["headers"], format!("{name:?} is not a header, or its value is none"));
            }
        }
        errors.require(
            HeaderValue::try_from(self.tenant_id.as_str()).is_ok(),
            &["tenant_id"],
            "a tenant_id cannot hold control characters",
        );
        errors.into_result()
    }

    /// What names the endpoint's place in the queue: never credentials, never tuning.
    fn identity(&self) -> String {
        match self.name.as_str() {
            "" => url_identity(&self.url),
            name => format!("name:{name}"),
        }
    }
}

/// What names the place in the queue of an endpoint without a name.
pub(super) fn url_identity(url: &Url) -> String {
    let Ok(uri) = url.to_uri() else { return String::from("invalid") };
    let scheme = uri.scheme_str().unwrap_or("http");
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    format!("{scheme}://{}:{port}{}", uri.host().unwrap_or_default(), uri.path())
}

impl QueueConfig {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            self.min_shards <= corten_queue::PARTITIONS_MAX,
            &["min_shards"],
            "min_shards must not be greater than 1024",
        );
        errors.into_result()
    }

    /// Whether it says what the reference does without it.
    fn is_default(&self) -> bool {
        let fifteen = Duration::from_secs(15);
        (self.drain_timeout == Duration::from_secs(60) || self.drain_timeout == fifteen)
            && self.capacity.bytes() == 10 << 20
            && self.min_shards == 1
            && self.block_on_overflow != Some(false)
    }
}

impl Wal {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            self.min_read_frequency < self.max_read_frequency,
            &["min_read_frequency", "max_read_frequency"],
            "WAL min read frequency should be lower than max read frequency",
        );
        errors.into_result()
    }
}
