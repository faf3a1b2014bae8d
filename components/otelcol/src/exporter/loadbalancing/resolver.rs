//! Where endpoints come from.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use corten_component::{Logger, Stop};
use corten_signal::flow::BoxFuture;
use tokio::sync::Mutex;

use super::DnsResolver;
use super::endpoints::{Endpoints, Maker};
use super::kubernetes::Slices;

/// The most endpoints that are used: more find no place on the ring.
pub(super) const ENDPOINTS_MAX: usize = 1000;
/// How long the first look-up may take, for which nothing waits but telemetry.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(30);

/// What the metrics call endpoints that are written in the configuration.
pub(super) const STATIC: &str = "static";
const DNS: &str = "dns";

/// Keeps the endpoints to what a source of them finds.
#[derive(Clone)]
pub(super) struct Watcher {
    pub(super) source: Source,
    pub(super) keeper: Keeper,
}

/// Where endpoints are found.
#[derive(Clone)]
pub(super) enum Source {
    /// Where one has to look, again and again.
    Polled(Polled),
    /// The endpoints of a service of Kubernetes, which tells of changes.
    Slices(Box<Slices>),
}

type Look = dyn Fn() -> BoxFuture<'static, Result<Vec<String>, String>> + Send + Sync;

/// A place to look for endpoints.
#[derive(Clone)]
pub(super) struct Polled {
    pub(super) name: &'static str,
    /// What is asked, for people to read.
    pub(super) what: String,
    pub(super) interval: Duration,
    /// How long a look may take.
    pub(super) timeout: Duration,
    pub(super) look: Arc<Look>,
}

type Lookup = dyn Fn(String) -> BoxFuture<'static, Result<Vec<IpAddr>, String>> + Send + Sync;

/// Asks the system for the addresses of a host.
pub(super) fn system() -> Arc<Lookup> {
    Arc::new(|host| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await;
            let found = found.map_err(|error| format!("lookup {host}: {error}"))?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// The addresses of a host.
pub(super) fn dns(settings: DnsResolver, lookup: Arc<Lookup>) -> Polled {
    let DnsResolver { hostname, port, interval, timeout } = settings;
    Polled {
        name: DNS,
        what: format!("lookup {hostname}"),
        interval: or(interval, Duration::from_secs(5)),
        timeout: or(timeout, Duration::from_secs(1)),
        look: Arc::new(move || {
            let (found, port) = (lookup(hostname.clone()), port.clone());
            Box::pin(async move { Ok(named(&found.await?, &port)) })
        }),
    }
}

/// A span of time, or another one in place of none.
pub(super) fn or(span: Duration, other: Duration) -> Duration {
    if span.is_zero() { other } else { span }
}

/// The endpoints at some addresses.
fn named(addresses: &[IpAddr], port: &str) -> Vec<String> {
    let named: BTreeSet<String> = addresses
        .iter()
        .map(|address| {
            let host = match address.to_canonical() {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            };
            if port.is_empty() { host } else { format!("{host}:{port}") }
        })
        .collect();
    named.into_iter().collect()
}

impl Watcher {
    /// Keeps the endpoints to what is found, until it is to stop.
    pub(super) async fn run(self, stop: Stop) -> Result<(), String> {
        match self.source {
            Source::Polled(polled) => {
                polled.run(&self.keeper, stop).await;
                Ok(())
            }
            Source::Slices(slices) => slices.run(&self.keeper, stop).await,
        }
    }
}

impl Polled {
    async fn run(&self, keeper: &Keeper, mut stop: Stop) {
        let mut wait = self.timeout.max(FIRST_WAIT_MAX);
        loop {
            let found = tokio::select! {
                found = tokio::time::timeout(wait, (self.look)()) => found,
                () = stop.wait() => return,
            };
            wait = self.timeout;
            match found.unwrap_or_else(|_| Err(format!("{}: i/o timeout", self.what))) {
                Ok(found) => {
                    keeper.resolved(self.name, 1).await;
                    keeper.keep(self.name, found, &stop).await;
                }
                Err(error) => keeper.failed(self.name, &error).await,
            }
            if !stop.sleep(self.interval).await {
                return;
            }
        }
    }
}

/// Takes what is found.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) maker: Arc<Maker>,
    pub(super) endpoints: Arc<Mutex<Endpoints>>,
    pub(super) logger: Logger,
}

impl Keeper {
    /// Counts that something was found.
    pub(super) async fn resolved(&self, resolver: &str, times: u64) {
        let endpoints = self.endpoints.lock().await;
        for _ in 0..times {
            endpoints.metrics().resolved(resolver, true);
        }
    }

    /// Counts and says that nothing was found. What was found before stays.
    pub(super) async fn failed(&self, resolver: &str, error: &str) {
        self.endpoints.lock().await.metrics().resolved(resolver, false);
        self.logger.warn("failed to resolve", &[("resolver", resolver.into()), ("error", error.into())]);
    }

    /// Keeps the endpoints to these. Whether there is an exporter for each; if not, the same is to be tried again.
    pub(super) async fn keep(&self, resolver: &str, mut found: Vec<String>, stop: &Stop) -> bool {
        found.sort();
        if found.len() > ENDPOINTS_MAX {
            let fields = [("endpoints", found.len().into()), ("used", ENDPOINTS_MAX.into())];
            self.logger.warn("there are more endpoints than can be used", &fields);
            found.truncate(ENDPOINTS_MAX);
        }
        let mut endpoints = self.endpoints.lock().await;
        // Somebody else looks for endpoints now.
        if stop.is_set() || endpoints.are(&found) {
            return true;
        }
        if endpoints.found() != found {
            endpoints.metrics().updated(resolver, found.len());
        }
        let prepared = endpoints.prepare(found, &self.maker, false).await;
        if !stop.is_set() {
            endpoints.commit(prepared);
        }
        endpoints.is_whole()
    }
}
