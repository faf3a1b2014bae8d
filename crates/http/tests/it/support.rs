//! A server over a controller, and a client that reaches it within the process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use corten_component::context::RingOfOne;
use corten_component::log::LogSink;
use corten_component::metrics::Registry;
use corten_component::trace::Tracer;
use corten_component::{Logger, ServerSettings, Services};
use corten_config::schema::Stability;
use corten_http::{BuildInfo, Gatherer, HostNames, Peer, Reloader, Server, ServerOptions};
use corten_net::{Body, Client, ClientConfig, ClientOptions, Dialer, ResponseBody};
use corten_runtime::{Catalog, Controller, NodeKind, Options};
use corten_signal::tap::Taps;
use corten_testkit::components::COMPONENTS;
use http::{HeaderMap, Request};
use tempfile::TempDir;

use crate::components::FLOW;

/// How long anything may take that is waited for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Runs a test.
pub(crate) fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test);
}

/// The address of the server within the process.
const MEMORY: &str = "test.internal:80";

pub(crate) struct Fixture {
    dir: TempDir,
    controller: Arc<Controller>,
    client: Client,
    dialer: Arc<dyn Dialer>,
    server: Server,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("json")
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

impl Fixture {
    /// A server whose controller runs a configuration.
    pub(crate) async fn new(config: &str) -> Self {
        Self::with_prefix(config, "/").await
    }

    pub(crate) async fn with_prefix(config: &str, ui_path_prefix: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (sink, _) = LogSink::memory();
        let logger = Logger::new(sink);
        let (memory, dialer) = corten_net::memory::listen(MEMORY);
        let registry = Registry::new();
        let gatherer = Gatherer::new(BuildInfo::default(), registry.clone());
        let dialer: Arc<dyn Dialer> = Arc::new(dialer);
        let settings = ServerSettings::default();
        let secrets = Arc::clone(&settings.secrets);
        let services = Arc::new(Services {
            storage_path: dir.path().join("data"),
            stability: Stability::GenerallyAvailable,
            memory_address: MEMORY.to_owned(),
            dialer: dialer.clone(),
            ownership: Arc::new(RingOfOne::default()),
            installation_id: "id".to_owned(),
            version: "v0.0.0".to_owned(),
            user_agent: "test".to_owned(),
            gather: Arc::new({
                let gatherer = gatherer.clone();
                move || gatherer.gather()
            }),
            queue_bytes_max: None,
            registry,
            server: settings,
            tracer: Tracer::default(),
            taps: Arc::new(Taps::new(secrets)),
        });
        let controller = Controller::new(Options {
            scope: String::new(),
            catalog: Catalog::default()
                .with(NodeKind::Component, COMPONENTS)
                .with(NodeKind::Component, FLOW)
                .with(NodeKind::ConfigBlock, corten_runtime::blocks::BLOCKS)
                .with(NodeKind::Service, corten_http::BLOCKS)
                .with(NodeKind::Service, corten_runtime::blocks::SERVICES),
            services: services.clone(),
            logger: logger.clone(),
            shutdown_deadline: Duration::ZERO,
        });
        gatherer.watch(&controller);
        let path = dir.path().join("config.alloy");
        std::fs::write(&path, config).expect("a file");
        controller.load(&path).await.expect("a configuration");
        let reloader = Reloader::new(controller.clone(), path, logger.clone());
        let bound = corten_http::bind("127.0.0.1:0").await.expect("an address");
        let peer = Peer { name: "one".to_owned(), address: "127.0.0.1:80".to_owned() };
        let options = ServerOptions {
            ui_path_prefix: ui_path_prefix.to_owned(),
            support_bundle: Some(vec!["a.flag=true".to_owned()]),
            graphql: None,
            build: BuildInfo::default(),
            peer,
            hosts: HostNames { own: vec!["box".to_owned()], allowed: Vec::new() },
            logger,
        };
        let server = Server::start(bound, memory, controller.clone(), &services, reloader, options).expect("a server");
        let options = ClientOptions { dialer: Some(Arc::clone(&dialer)), ..ClientOptions::default() };
        let client = Client::new(ClientConfig::default(), options).await.expect("a client");
        Fixture { dir, controller, client, dialer, server }
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.path().join("config.alloy")
    }

    pub(crate) fn write_config(&self, text: &str) {
        std::fs::write(self.config_path(), text).expect("a file");
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(format!("http://{MEMORY}{path}"))).await
    }

    /// As [`Fixture::get`], with a redirect as it is.
    pub(crate) async fn get_unfollowed(&self, path: &str) -> Answer {
        let config = ClientConfig { follow_redirects: false, ..ClientConfig::default() };
        let options = ClientOptions { dialer: Some(Arc::clone(&self.dialer)), ..ClientOptions::default() };
        let client = Client::new(config, options).await.expect("a client");
        send(&client, Request::get(format!("http://{MEMORY}{path}"))).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = Request::get(format!("http://{MEMORY}{path}"));
        self.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.send(Request::post(format!("http://{MEMORY}{path}"))).await
    }

    pub(crate) async fn put(&self, path: &str) -> Answer {
        self.send(Request::put(format!("http://{MEMORY}{path}"))).await
    }

    pub(crate) async fn head(&self, path: &str) -> Answer {
        self.send(Request::head(format!("http://{MEMORY}{path}"))).await
    }

    /// A POST as the pages send it.
    pub(crate) async fn post_own(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = Request::post(format!("http://{MEMORY}{path}")).header("x-corten", "1");
        self.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    /// An answer that is read as it comes.
    pub(crate) async fn open(&self, path: &str, headers: &[(&str, &str)]) -> Reader {
        let request = Request::get(format!("http://{MEMORY}{path}"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = self.client.request(request.body(Body::empty()).expect("a request")).await.expect("a response");
        let (parts, body) = response.into_parts();
        Reader { status: parts.status.as_u16(), headers: parts.headers, body, text: String::new() }
    }

    async fn send(&self, request: http::request::Builder) -> Answer {
        send(&self.client, request).await
    }

    pub(crate) async fn end(self) {
        self.server.stop().await;
        self.controller.shutdown().await;
    }
}

async fn send(client: &Client, request: http::request::Builder) -> Answer {
    let request = request.body(Body::empty()).expect("a request");
    let response = client.request(request).await.expect("a response");
    let (parts, body) = response.into_parts();
    let body = body.read(10 << 20).await.expect("a body").to_vec();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

/// An answer without end.
pub(crate) struct Reader {
    pub(crate) status: u16,
    headers: HeaderMap,
    body: ResponseBody,
    text: String,
}

impl Reader {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// All up to a text, with it.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.text.find(end) {
                let rest = self.text.split_off(at + end.len());
                return std::mem::replace(&mut self.text, rest);
            }
            let chunk = tokio::time::timeout(WAIT_MAX, self.body.chunk()).await.expect("in time").expect("a chunk");
            let chunk = chunk.unwrap_or_else(|| panic!("the end, before {end:?}: {}", self.text));
            self.text.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    }

    pub(crate) async fn line(&mut self) -> String {
        self.until("\n").await.trim_end().to_owned()
    }

    /// The data of the next event of that name.
    pub(crate) async fn event(&mut self, name: &str) -> serde_json::Value {
        self.event_where(name, |_| true).await
    }

    pub(crate) async fn event_where(
        &mut self,
        name: &str,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        loop {
            let event = self.until("\n\n").await;
            let Some(data) = event.strip_prefix(&format!("event: {name}\ndata: ")) else { continue };
            let data = serde_json::from_str(data).expect("json");
            if wanted(&data) {
                return data;
            }
        }
    }

    /// Reads until there is no more. Whether it ended in good order and was not cut off.
    pub(crate) async fn read_out(&mut self) -> bool {
        loop {
            match tokio::time::timeout(WAIT_MAX, self.body.chunk()).await.expect("in time") {
                Ok(Some(_)) => {}
                outcome => return outcome.is_ok(),
            }
        }
    }
}
