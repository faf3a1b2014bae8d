//! Servers and certificates for the tests.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use corten_net::{
    Body, Client, ClientConfig, ClientOptions, Error, Handler, ResponseBody, Secret, ServeOptions, ServerBody,
    ServerTls, TlsAcceptor, TlsSwitch, full_body, read_body_limited, serve,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// The largest body that any test sends.
const BODY_BYTES_MAX: usize = 64 << 20;

/// A request as a server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Which of the client's connections it came over.
    pub(crate) peer: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A server that remembers what it was asked.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl TestServer {
    /// Answers with what `answer` makes of a request.
    pub(crate) async fn start(answer: impl Fn(&Seen) -> Response<ServerBody> + Send + Sync + 'static) -> Self {
        Self::with(ServeOptions::default(), answer).await
    }

    /// As [`TestServer::start`], over TLS.
    pub(crate) async fn start_tls(
        tls: ServerTls,
        answer: impl Fn(&Seen) -> Response<ServerBody> + Send + Sync + 'static,
    ) -> Self {
        let tls = TlsSwitch::new(TlsAcceptor::new(tls).await.unwrap());
        Self::with(ServeOptions { tls, ..ServeOptions::default() }, answer).await
    }

    pub(crate) async fn with(
        options: ServeOptions,
        answer: impl Fn(&Seen) -> Response<ServerBody> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (stop, stopped) = oneshot::channel();
        let handler = recording(seen.clone(), answer);
        let task = tokio::spawn(serve(listener, handler, options, async {
            let _ = stopped.await;
        }));
        Self { address, seen, stop: Some(stop), task: Some(task) }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn https_url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().expect("the server was asked")
    }

    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.task.take().unwrap().await.unwrap();
    }
}

/// A handler that remembers each request before it answers.
pub(crate) fn recording(
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: impl Fn(&Seen) -> Response<ServerBody> + Send + Sync + 'static,
) -> Arc<dyn Handler> {
    let answer = Arc::new(answer);
    Arc::new(move |request: Request<Incoming>| {
        let (seen, answer) = (seen.clone(), answer.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = read_body_limited(body, BODY_BYTES_MAX).await.unwrap();
            let info = parts.extensions.get::<corten_net::ConnectionInfo>().unwrap();
            let one = Seen {
                method: parts.method,
                target: parts.uri.to_string(),
                version: parts.version,
                headers: parts.headers,
                body,
                peer: info.peer.to_string(),
            };
            let response = answer(&one);
            seen.lock().unwrap().push(one);
            response
        }
    })
}

pub(crate) fn text(text: &'static str) -> Response<ServerBody> {
    Response::new(full_body(text))
}

pub(crate) fn status(status: u16) -> Response<ServerBody> {
    let mut response = text("");
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub(crate) async fn client(config: ClientConfig) -> Client {
    Client::new(config, ClientOptions::default()).await.unwrap()
}

pub(crate) fn get(url: &str) -> Request<Body> {
    Request::get(url).body(Body::empty()).unwrap()
}

pub(crate) fn post(url: &str, body: &'static str) -> Request<Body> {
    Request::post(url).body(body.into()).unwrap()
}

/// Sends a request and gives status and body.
pub(crate) async fn fetch(client: &Client, request: Request<Body>) -> Result<(u16, String), Error> {
    let response: Response<ResponseBody> = client.request(request).await?;
    let status = response.status().as_u16();
    let body = response.into_body().read(BODY_BYTES_MAX).await?;
    Ok((status, String::from_utf8(body.to_vec()).unwrap()))
}

/// Waits until a condition holds.
pub(crate) async fn until<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the condition holds in time");
}

/// Writes a file as if it had been there for some time, so that its stamp counts.
pub(crate) fn write_old(path: &std::path::Path, content: &str, age_seconds: u64) {
    std::fs::write(path, content).unwrap();
    let modified = SystemTime::now() - Duration::from_secs(age_seconds);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a host.
    pub(crate) fn issue(&self, host: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        Identity { cert: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }
}

/// A certificate that is its own authority, as `openssl req -x509` makes it.
pub(crate) fn self_signed(host: &str, expired: bool) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    if expired {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    }
    Identity { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

impl Identity {
    pub(crate) fn server(&self) -> ServerTls {
        ServerTls { cert_pem: self.cert.clone(), key_pem: Secret::new(self.key.as_str()), ..ServerTls::default() }
    }
}
