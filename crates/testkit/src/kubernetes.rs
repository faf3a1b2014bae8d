//! The API of a cluster of Kubernetes, as far as listing and watching goes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use corten_net::{ServeOptions, ServerBody, serve};
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::answer;

/// Objects that can be listed and watched. The server ends when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Mutex<Option<oneshot::Sender<()>>>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// By path of their kind, and name.
    objects: BTreeMap<(String, String), Value>,
    /// What has happened, in order.
    events: Vec<Happened>,
    /// What was before this version is forgotten.
    oldest: u64,
    watches: Vec<Watch>,
    refusal: Option<(u16, String)>,
    asked: Vec<Asked>,
}

#[derive(Clone, Debug)]
struct Happened {
    version: u64,
    path: String,
    kind: &'static str,
    object: Value,
}

#[derive(Debug)]
struct Watch {
    path: String,
    selector: String,
    sender: UnboundedSender<Bytes>,
}

/// A request that the cluster was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Path and query.
    pub target: String,
    /// What it is authorized with.
    pub authorization: String,
}

impl Cluster {
    /// A cluster without objects.
    ///
    /// # Panics
    ///
    /// When there is no port left.
    pub async fn start() -> Self {
        // Nobody else gets it while the cluster is not there.
        let address = crate::unused_address();
        let listener = TcpListener::bind(address).await.expect("a port");
        let cluster = Cluster { address, state: Arc::default(), stop: Mutex::default() };
        cluster.serve(listener);
        cluster
    }

    fn serve(&self, listener: TcpListener) {
        let state = Arc::clone(&self.state);
        let handler = move |request: Request<Incoming>| {
            let state = Arc::clone(&state);
            async move { state.lock().answer(&request) }
        };
        let (stop, stopped) = oneshot::channel::<()>();
        *self.stop.lock() = Some(stop);
        tokio::spawn(serve(listener, Arc::new(handler), ServeOptions::default(), async {
            // An error means that the cluster was dropped.
            let _ = stopped.await;
        }));
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The configuration of kubectl for it, with this token.
    pub fn kubeconfig(&self, token: &str) -> String {
        format!(
            "current-context: c\ncontexts:\n- name: c\n  context: {{cluster: c, user: u}}\nclusters:\n- name: c\n  cluster: \
             {{server: {:?}}}\nusers:\n- name: u\n  user: {{token: {token:?}}}\n",
            self.url()
        )
    }

    /// Nobody answers any more, and nobody takes connections.
    pub fn die(&self) {
        self.stop.lock().take();
        self.end_watches();
    }

    /// It is there again, with what it knew.
    ///
    /// # Panics
    ///
    /// When its address is taken.
    pub async fn come_back(&self) {
        let listener = crate::until_some("its port is free", || {
            let listener = std::net::TcpListener::bind(self.address).ok()?;
            listener.set_nonblocking(true).ok()?;
            TcpListener::from_std(listener).ok()
        });
        self.serve(listener.await);
    }

    /// An object of the kind at a path is new, or another.
    ///
    /// # Panics
    ///
    /// When it has no name.
    pub fn put(&self, path: &str, mut object: Value) {
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let before = state.objects.insert((path.to_owned(), name), object.clone());
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        state.happened(Happened { version, path: path.to_owned(), kind, object });
    }

    /// An object is gone.
    ///
    /// # Panics
    ///
    /// When it was not there.
    pub fn delete(&self, path: &str, name: &str) {
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        let mut object = state.objects.remove(&(path.to_owned(), name.to_owned())).expect("an object");
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        state.happened(Happened { version, path: path.to_owned(), kind: "DELETED", object });
    }

    /// Forgets what has happened so far: who wants to go on from then is told that it is gone.
    pub fn compact(&self) {
        let mut state = self.state.lock();
        state.version += 1;
        state.oldest = state.version;
    }

    /// Ends the watches under way.
    pub fn end_watches(&self) {
        self.state.lock().watches.clear();
    }

    /// How many watches are under way.
    pub fn watches(&self) -> usize {
        let mut state = self.state.lock();
        state.watches.retain(|watch| !watch.sender.is_closed());
        state.watches.len()
    }

    /// Says something to those who watch, whatever it is.
    pub fn say(&self, text: &str) {
        self.state.lock().watches.iter().for_each(|watch| {
            let _ = watch.sender.send(Bytes::copy_from_slice(text.as_bytes()));
        });
    }

    /// Refuses all requests with a status and a text, or no longer.
    pub fn refuse(&self, refusal: Option<(u16, &str)>) {
        self.state.lock().refusal = refusal.map(|(status, text)| (status, text.to_owned()));
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().asked.clone()
    }
}

impl State {
    fn happened(&mut self, event: Happened) {
        self.watches
            .retain(|watch| !watch.wants(&event.path, &event.object) || watch.sender.send(event.line()).is_ok());
        self.events.push(event);
    }

    fn answer(&mut self, request: &Request<Incoming>) -> Response<ServerBody> {
        let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let authorization = authorization.unwrap_or_default().to_owned();
        self.asked.push(Asked { target: request.uri().to_string(), authorization });
        if let Some((status, text)) = &self.refusal {
            return answer(*status, &[], text.clone());
        }
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default());
        let value = |name: &str| {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            pair.unwrap_or_default().replace("%2F", "/").replace("%3D", "=")
        };
        let (selector, since) = (value("labelSelector"), value("resourceVersion"));
        let since: u64 = since.parse().unwrap_or_default();
        let is_gone = since > 0 && since < self.oldest;
        let gone = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"});
        if value("watch") != "true" {
            if is_gone {
                return answer(410, &[], gone.to_string());
            }
            let wanted = |((of, _), object): &(&(String, String), &Value)| *of == path && selects(&selector, object);
            let items: Vec<&Value> = self.objects.iter().filter(wanted).map(|(_, object)| object).collect();
            let list =
                json!({"kind": "List", "metadata": {"resourceVersion": self.version.to_string()}, "items": items});
            return answer(200, &[], list.to_string());
        }
        let (sender, receiver) = unbounded_channel();
        let watch = Watch { path, selector, sender };
        if is_gone {
            let _ = watch.sender.send(format!("{}\n", json!({"type": "ERROR", "object": gone})).into());
            return Response::new(ServerBody::new(Stream(receiver)));
        }
        for event in self.events.iter().filter(|event| event.version > since) {
            if watch.wants(&event.path, &event.object) {
                let _ = watch.sender.send(event.line());
            }
        }
        self.watches.push(watch);
        Response::new(ServerBody::new(Stream(receiver)))
    }
}

impl Happened {
    fn line(&self) -> Bytes {
        format!("{}\n", json!({"type": self.kind, "object": self.object})).into()
    }
}

impl Watch {
    fn wants(&self, path: &str, object: &Value) -> bool {
        self.path == path && selects(&self.selector, object)
    }
}

/// Whether an object has the label that is asked for, `name=value`.
fn selects(selector: &str, object: &Value) -> bool {
    selector.split_once('=').is_none_or(|(name, value)| object["metadata"]["labels"][name] == value)
}

/// A body whose pieces come when they come.
struct Stream(UnboundedReceiver<Bytes>);

impl Body for Stream {
    type Data = Bytes;
    type Error = corten_net::BodyFailure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
