//! `target`: many scrape targets in one process.
//!
//! Each target has a loopback address of its own (127.1.0.1, 127.1.0.2, ...) on one port, as targets have in life:
//! an agent that keeps one connection a host has as many of them as there are targets, and the label `instance` tells
//! the targets apart.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::{
    Request, StatusCode,
    body::Incoming,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue},
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::{
    args::Args,
    error::{Context, Error, Result},
    exposition::{Page, SERIES_MAX, Shape},
    http::{self, Answer},
};

/// Addresses are 127.1.a.b with 250 values of b.
const TARGETS_MAX: usize = 250 * 256;

/// The settings of the command.
#[derive(Debug)]
pub(crate) struct Settings {
    targets: usize,
    shape: Shape,
    gzip: bool,
    port: u16,
    file_sd: Option<PathBuf>,
    list: Option<PathBuf>,
}

impl Settings {
    /// Takes the settings from the command line.
    pub(crate) fn take(args: &mut Args) -> Result<Self> {
        let settings = Self {
            targets: args.parsed("--targets", 100)?,
            shape: Shape {
                series: args.parsed("--series", 1000)?,
                change: args.parsed("--change", 0.5)?,
                churn: args.parsed("--churn", 0.0)?,
                seed: args.parsed("--seed", 1)?,
            },
            gzip: args.flag("--gzip"),
            port: args.parsed("--port", 0)?,
            file_sd: args.text("--file-sd")?.map(PathBuf::from),
            list: args.text("--list")?.map(PathBuf::from),
        };
        if !(1..=TARGETS_MAX).contains(&settings.targets) {
            return Err(Error::new(format!("option --targets: must be from 1 to {TARGETS_MAX}")));
        }
        if !(1..=SERIES_MAX).contains(&settings.shape.series) {
            return Err(Error::new(format!("option --series: must be from 1 to {SERIES_MAX}")));
        }
        for (name, share) in [("--change", settings.shape.change), ("--churn", settings.shape.churn)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::new(format!("option {name}: must be from 0 to 1")));
            }
        }
        Ok(settings)
    }
}

/// What `GET /stats` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stats {
    /// Pages served.
    pub(crate) scrapes: u64,
    /// Series in these pages.
    pub(crate) samples: u64,
    /// Bytes of the answers' bodies, after compression.
    pub(crate) bytes: u64,
}

/// One line of the process's first output: where it listens.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listening {
    /// The address for statistics.
    pub(crate) address: SocketAddr,
}

#[derive(Debug)]
struct State {
    pages: Vec<Mutex<Page>>,
    series: usize,
    gzip: bool,
    stats: Mutex<Stats>,
}

/// Serves the targets until the process ends; `ready` is told the address of the first.
pub(crate) async fn run(settings: Settings, ready: impl FnOnce(&Listening) -> Result<()>) -> Result<()> {
    let listeners = bind(settings.targets, settings.port).await?;
    let addresses = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<std::io::Result<Vec<_>>>()
        .context("cannot read a listener's address")?;
    let state = Arc::new(State {
        pages: (0..settings.targets).map(|target| Mutex::new(Page::new(target, settings.shape))).collect(),
        series: settings.shape.series,
        gzip: settings.gzip,
        stats: Mutex::default(),
    });
    if let Some(path) = &settings.file_sd {
        let text = file_sd(&addresses)?;
        std::fs::write(path, text).context(format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &settings.list {
        std::fs::write(path, list(&addresses)).context(format!("cannot write {}", path.display()))?;
    }
    for listener in listeners {
        let state = Arc::clone(&state);
        tokio::spawn(http::serve(listener, move |request| {
            let state = Arc::clone(&state);
            async move { state.answer(&request) }
        }));
    }
    ready(&Listening { address: addresses[0] })?;
    std::future::pending().await
}

/// The loopback address of a target.
fn address_of(target: usize) -> Ipv4Addr {
    // TARGETS_MAX keeps both within a byte.
    Ipv4Addr::new(127, 1, (target / 250) as u8, (target % 250) as u8 + 1)
}

/// Binds one address a target on one port, which the system chooses if it is 0.
async fn bind(targets: usize, port: u16) -> Result<Vec<TcpListener>> {
    // A port that is free on the first address may be taken on another; then a further one is tried.
    let mut attempts_left = if port == 0 { 8 } else { 1 };
    loop {
        attempts_left -= 1;
        let mut port = port;
        let mut listeners = Vec::with_capacity(targets);
        let mut failure = None;
        for target in 0..targets {
            let bound = match TcpListener::bind((address_of(target), port)).await {
                Ok(listener) => listener.local_addr().map(|address| (listener, address)),
                Err(error) => Err(error),
            };
            match bound {
                Ok((listener, address)) => {
                    port = address.port();
                    listeners.push(listener);
                }
                Err(error) => {
                    failure = Some(Error::new(format!("cannot listen on {}:{port}: {error}", address_of(target))));
                    break;
                }
            }
        }
        match failure {
            None => return Ok(listeners),
            Some(error) if attempts_left == 0 => return Err(error),
            Some(_) => {}
        }
    }
}

/// A file of `file_sd_configs` with a group a target, since each has a path of its own.
fn file_sd(addresses: &[SocketAddr]) -> Result<String> {
    let groups: Vec<_> = addresses
        .iter()
        .enumerate()
        .map(|(target, address)| {
            serde_json::json!({
                "targets": [address.to_string()],
                "labels": { "__metrics_path__": format!("/t/{target}/metrics") },
            })
        })
        .collect();
    serde_json::to_string(&groups).context("cannot write the targets")
}

/// One URL a line.
fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().enumerate().map(|(target, address)| format!("http://{address}/t/{target}/metrics\n")).collect()
}

impl State {
    fn answer(&self, request: &Request<Incoming>) -> Answer {
        let path = request.uri().path();
        if path == "/stats" {
            return http::json(&*lock(&self.stats));
        }
        let target = path.strip_prefix("/t/").and_then(|rest| rest.strip_suffix("/metrics"));
        let page = target.and_then(|target| target.parse::<usize>().ok()).and_then(|target| self.pages.get(target));
        let Some(page) = page else { return http::text(StatusCode::NOT_FOUND, "no such target\n") };

        let encodings = request.headers().get_all(ACCEPT_ENCODING).iter();
        let gzip = self.gzip && encodings.filter_map(|value| value.to_str().ok()).any(|value| value.contains("gzip"));
        let mut page = lock(page);
        let text = page.advance();
        let body = if gzip { compress(text) } else { Bytes::copy_from_slice(text) };
        drop(page);

        let mut stats = lock(&self.stats);
        stats.scrapes += 1;
        stats.samples += self.series as u64;
        stats.bytes += body.len() as u64;
        drop(stats);

        let mut answer = http::text(StatusCode::OK, body);
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        answer
    }
}

fn compress(text: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    // Writing to a vector cannot fail.
    let _ = encoder.write_all(text);
    encoder.finish().unwrap_or_default().into()
}

/// A page is whole after each step, so that a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn every_target_has_an_address_of_its_own() {
        assert_eq!(address_of(0), Ipv4Addr::new(127, 1, 0, 1));
        assert_eq!(address_of(250), Ipv4Addr::new(127, 1, 1, 1));
        assert_eq!(address_of(TARGETS_MAX - 1), Ipv4Addr::new(127, 1, 255, 250));
    }

    #[test]
    fn lists_name_every_target_with_its_path() {
        let addresses = ["127.1.0.1:8080".parse().unwrap(), "127.1.0.2:8080".parse().unwrap()];
        assert_eq!(list(&addresses), "http://127.1.0.1:8080/t/0/metrics\nhttp://127.1.0.2:8080/t/1/metrics\n");
        assert_eq!(
            file_sd(&addresses[1..]).unwrap(),
            r#"[{"labels":{"__metrics_path__":"/t/0/metrics"},"targets":["127.1.0.2:8080"]}]"#
        );
    }

    #[tokio::test]
    async fn scrapes_are_served_and_counted() {
        let mut args = Args::new("--targets 3 --series 50 --gzip".split(' ').map(str::to_owned));
        let settings = Settings::take(&mut args).unwrap();
        let (send, receive) = tokio::sync::oneshot::channel();
        tokio::spawn(run(settings, move |listening| {
            send.send(listening.address).map_err(|_| Error::new("nobody waits"))
        }));
        let address = receive.await.unwrap();
        for sequence in 1..=2 {
            let (status, body) = http::get(address, "/t/2/metrics").await.unwrap();
            assert_eq!(status, 200);
            let text = String::from_utf8(body).unwrap();
            assert!(text.ends_with(&format!("bench_seq{{target=\"2\"}} {sequence}\n")), "{text}");
        }
        assert_eq!(http::get(address, "/t/3/metrics").await.unwrap().0, 404);
        let stats: Stats = http::get_json(address, "/stats").await.unwrap();
        assert_eq!((stats.scrapes, stats.samples), (2, 100));
    }

    #[test]
    fn a_compressed_page_is_the_page() {
        let mut page = Page::new(0, Shape { series: 100, change: 0.5, churn: 0.0, seed: 1 });
        let text = page.advance();
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&compress(text)[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, text);
    }
}
