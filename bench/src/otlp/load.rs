//! `otlpload`: sends requests of OTLP at a steady rate, over a few connections that stay open.
//!
//! A request that is not answered with success is sent again until it is, so that what is missing at the sink was lost by
//! whoever said that it had taken it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    body::Incoming,
    client::conn::{http1, http2},
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::message::{Signal, Template};
use crate::{
    args::Args,
    error::{Context, Error, Result},
    http,
    logs::unix_ns,
    target::Listening,
};

/// Different requests; they are sent in turns.
const TEMPLATES: u64 = 50;

/// How long until a request that failed is sent again.
const AGAIN: Duration = Duration::from_millis(50);

/// How long an answer is waited for.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// The settings of the command.
#[derive(Debug)]
pub(crate) struct Settings {
    to: SocketAddr,
    signal: Signal,
    items: usize,
    rate: u64,
    connections: usize,
    grpc: bool,
    seed: u64,
}

impl Settings {
    /// Takes the settings from the command line.
    pub(crate) fn take(args: &mut Args) -> Result<Self> {
        let to = args.text("--to")?.ok_or_else(|| Error::new("option --to: where?"))?;
        let signal = args.parsed("--signal", "logs".to_owned())?;
        let settings = Self {
            to: to.parse().context(format!("option --to: {to:?}"))?,
            signal: Signal::named(&signal).ok_or_else(|| Error::new(format!("there is no signal {signal:?}")))?,
            items: args.parsed("--items", 1000)?,
            rate: args.parsed("--rate", 50_000)?,
            connections: args.parsed("--connections", 4)?,
            grpc: args.flag("--grpc"),
            seed: args.parsed("--seed", 1)?,
        };
        if settings.items == 0 || settings.rate == 0 || settings.connections == 0 {
            return Err(Error::new("options --items, --rate and --connections must not be zero"));
        }
        Ok(settings)
    }
}

/// What `GET /stats` answers; all counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stats {
    /// Items that were taken.
    pub(crate) items: u64,
    /// Requests that were taken.
    pub(crate) requests: u64,
    /// Requests that had to be sent again.
    pub(crate) again: u64,
    /// Connections that still send.
    pub(crate) sending: u64,
}

#[derive(Debug, Default)]
struct Counts {
    next: AtomicU64,
    requests: AtomicU64,
    again: AtomicU64,
    sending: AtomicU64,
    stop: AtomicBool,
}

/// Sends until `GET /stop`, and serves statistics until the process ends; `announce` is told where.
pub(crate) async fn run(settings: Settings, announce: impl FnOnce(&Listening) -> Result<()>) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
    let templates: Vec<Template> = (0..TEMPLATES)
        .map(|index| Template::new(settings.signal, settings.items, index as usize, settings.seed))
        .collect();
    announce(&Listening { address: listener.local_addr().context("cannot find the port")? })?;
    let load = Arc::new(Load { settings, templates, began: Instant::now(), counts: Counts::default() });
    for _ in 0..load.settings.connections {
        load.counts.sending.fetch_add(1, Ordering::Relaxed);
        let load = Arc::clone(&load);
        tokio::spawn(async move {
            load.send_all().await;
            load.counts.sending.fetch_sub(1, Ordering::Relaxed);
        });
    }
    http::serve(listener, move |request: Request<Incoming>| {
        let load = Arc::clone(&load);
        async move {
            if request.uri().path() == "/stop" {
                load.counts.stop.store(true, Ordering::Relaxed);
            }
            http::json(&load.stats())
        }
    })
    .await;
    Ok(())
}

struct Load {
    settings: Settings,
    templates: Vec<Template>,
    began: Instant,
    counts: Counts,
}

impl Load {
    fn stats(&self) -> Stats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let requests = count(&self.counts.requests);
        Stats {
            items: requests * self.settings.items as u64,
            requests,
            again: count(&self.counts.again),
            sending: count(&self.counts.sending),
        }
    }

    /// Sends whatever is due next, over one connection at a time.
    async fn send_all(&self) {
        let mut connection = None;
        while !self.counts.stop.load(Ordering::Relaxed) {
            let turn = self.counts.next.fetch_add(1, Ordering::Relaxed);
            let items = self.settings.items as u64;
            let due = Duration::from_secs_f64((turn * items) as f64 / self.settings.rate as f64);
            tokio::time::sleep_until(self.began + due).await;
            let template = &self.templates[(turn % TEMPLATES) as usize];
            let request = Bytes::from(template.request(turn * items, unix_ns()));
            while self.send(&mut connection, request.clone()).await.is_err() {
                connection = None;
                self.counts.again.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(AGAIN).await;
            }
            self.counts.requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn send(&self, connection: &mut Option<Connection>, message: Bytes) -> Result<()> {
        let sent = async {
            if connection.is_none() {
                *connection = Some(Connection::open(self.settings.to, self.settings.grpc).await?);
            }
            let connection = connection.as_mut().ok_or_else(|| Error::new("no connection"))?;
            connection.send(self.settings.to, self.settings.signal, message).await
        };
        tokio::time::timeout(ANSWER_WAIT, sent).await.context("no answer")?
    }
}

enum Connection {
    Http(http1::SendRequest<Full<Bytes>>),
    Grpc(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    async fn open(to: SocketAddr, grpc: bool) -> Result<Self> {
        let what = format!("cannot connect to {to}");
        let stream = TcpStream::connect(to).await.context(&what)?;
        stream.set_nodelay(true).context(&what)?;
        if grpc {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.context(&what)?;
            tokio::spawn(connection);
            return Ok(Connection::Grpc(sender));
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.context(&what)?;
        tokio::spawn(connection);
        Ok(Connection::Http(sender))
    }

    async fn send(&mut self, to: SocketAddr, signal: Signal, message: Bytes) -> Result<()> {
        let failed = "the request failed";
        match self {
            Connection::Http(sender) => {
                let request = Request::post(format!("/v1/{}", signal.name()))
                    .header(HOST, to.to_string())
                    .header(CONTENT_TYPE, "application/x-protobuf")
                    .body(Full::new(message))
                    .context(failed)?;
                sender.ready().await.context(failed)?;
                let answer = sender.send_request(request).await.context(failed)?;
                let status = answer.status();
                answer.into_body().collect().await.context(failed)?;
                if status.is_success() { Ok(()) } else { Err(Error::new(format!("status {status}"))) }
            }
            Connection::Grpc(sender) => {
                let mut framed = Vec::with_capacity(message.len() + 5);
                framed.push(0);
                framed.extend_from_slice(&u32::try_from(message.len()).context(failed)?.to_be_bytes());
                framed.extend_from_slice(&message);
                let request = Request::post(format!("http://{to}{}", signal.method()))
                    .header(CONTENT_TYPE, "application/grpc")
                    .header("te", "trailers")
                    .body(Full::new(Bytes::from(framed)))
                    .context(failed)?;
                sender.ready().await.context(failed)?;
                let answer = sender.send_request(request).await.context(failed)?;
                let at_once = answer.headers().get("grpc-status").cloned();
                let body = answer.into_body().collect().await.context(failed)?;
                let behind = body.trailers().and_then(|trailers| trailers.get("grpc-status").cloned());
                match at_once.or(behind) {
                    Some(status) if status == "0" => Ok(()),
                    status => Err(Error::new(format!("status {status:?}"))),
                }
            }
        }
    }
}
