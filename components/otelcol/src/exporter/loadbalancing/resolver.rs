//! Where endpoints come from.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use corten_component::{Logger, Stop};
use corten_signal::flow::BoxFuture;
use tokio::sync::Mutex;

use super::DnsResolver;
use super::endpoints::{Endpoints, Maker};

/// The most endpoints that are used: more find no place on the ring.
const ENDPOINTS_MAX: usize = 1000;
/// How long the first look-up may take, for which nothing waits but telemetry.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(30);

/// What the metrics call endpoints that are written in the configuration.
pub(super) const STATIC: &str = "static";
const DNS: &str = "dns";

type Lookup = dyn Fn(String) -> BoxFuture<'static, Result<Vec<IpAddr>, String>> + Send + Sync;

/// Looks endpoints up, again and again.
#[derive(Clone)]
pub(super) struct Watcher {
    pub(super) dns: DnsResolver,
    pub(super) lookup: Arc<Lookup>,
    pub(super) maker: Arc<Maker>,
    pub(super) endpoints: Arc<Mutex<Endpoints>>,
    pub(super) logger: Logger,
}

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

impl Watcher {
    /// Keeps the endpoints to what is found, until it is to stop.
    pub(super) async fn run(self, mut stop: Stop) -> Result<(), String> {
        let DnsResolver { interval, timeout, .. } = self.dns;
        let mut wait = timeout.max(FIRST_WAIT_MAX);
        loop {
            let found = tokio::select! {
                found = tokio::time::timeout(wait, (self.lookup)(self.dns.hostname.clone())) => found,
                () = stop.wait() => return Ok(()),
            };
            wait = timeout;
            let found = found.unwrap_or_else(|_| Err(format!("lookup {}: i/o timeout", self.dns.hostname)));
            match found {
                Ok(found) => self.update(self.named(&found), &stop).await,
                Err(error) => {
                    self.endpoints.lock().await.metrics().resolved(DNS, false);
                    // What was found before stays.
                    self.logger.warn("failed to resolve", &[("resolver", DNS.into()), ("error", error.into())]);
                }
            }
            if !stop.sleep(interval).await {
                return Ok(());
            }
        }
    }

    /// The endpoints at some addresses.
    fn named(&self, addresses: &[IpAddr]) -> Vec<String> {
        let mut named: Vec<String> = addresses
            .iter()
            .map(|address| {
                let host = match address.to_canonical() {
                    IpAddr::V4(address) => address.to_string(),
                    IpAddr::V6(address) => format!("[{address}]"),
                };
                if self.dns.port.is_empty() { host } else { format!("{host}:{}", self.dns.port) }
            })
            .collect();
        named.sort();
        named.dedup();
        if named.len() > ENDPOINTS_MAX {
            let fields = [("endpoints", named.len().into()), ("used", ENDPOINTS_MAX.into())];
            self.logger.warn("there are more endpoints than can be used", &fields);
            named.truncate(ENDPOINTS_MAX);
        }
        named
    }

    async fn update(&self, found: Vec<String>, stop: &Stop) {
        let mut endpoints = self.endpoints.lock().await;
        // Somebody else looks for endpoints now.
        if stop.is_set() {
            return;
        }
        endpoints.metrics().resolved(DNS, true);
        if endpoints.are(&found) {
            return;
        }
        if endpoints.found() != found {
            endpoints.metrics().updated(DNS, found.len());
        }
        let prepared = endpoints.prepare(found, &self.maker, false).await;
        if !stop.is_set() {
            endpoints.commit(prepared);
        }
    }
}
