//! A server that remembers what it was asked.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use corten_net::{ConnectionInfo, ServeOptions, ServerBody, full_body, read_body_limited, serve};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// The largest body that any test sends.
const BODY_BYTES_MAX: usize = 256 << 20;

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// The other end of the connection that it came over, which tells connections apart.
    pub peer: String,
}

impl Seen {
    /// The text of a header; empty when it is missing or no text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A server on a port of loopback that the system chose. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _stop: oneshot::Sender<()>,
}

/// An answer with a status, headers and a body.
///
/// # Panics
///
/// When the test's author gave what is no header.
pub fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<ServerBody> {
    let mut response = Response::new(full_body(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).expect("the name of a header");
        response.headers_mut().append(name, value.parse().expect("the value of a header"));
    }
    response
}

impl Server {
    /// Starts a server that answers with what `answer` makes of a request.
    ///
    /// # Panics
    ///
    /// When there is no port left.
    pub async fn start(answer: impl Fn(&Seen) -> Response<ServerBody> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let (recorded, answer) = (Arc::clone(&seen), Arc::new(answer));
        let handler = move |request: Request<Incoming>| {
            let (recorded, answer) = (Arc::clone(&recorded), Arc::clone(&answer));
            async move {
                let (parts, body) = request.into_parts();
                let body = read_body_limited(body, BODY_BYTES_MAX).await.unwrap_or_default();
                let target = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
                let peer = parts.extensions.get::<ConnectionInfo>().map(|info| info.peer.to_string());
                let peer = peer.unwrap_or_default();
                let request = Seen { method: parts.method, target, headers: parts.headers, body, peer };
                recorded.lock().push(request.clone());
                answer(&request)
            }
        };
        tokio::spawn(serve(listener, Arc::new(handler), ServeOptions::default(), async {
            // An error means that the server was dropped.
            let _ = stopped.await;
        }));
        Server { address, seen, _stop: stop }
    }

    /// Its address, `127.0.0.1:1234`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it was asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}
