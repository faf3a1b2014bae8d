//! A server and surroundings for the tests of this folder.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;

use super::Outside;
use crate::{ClientOptions, ServeOptions, full_body, read_body_limited, serve};

/// 30 August 2015, 12:36, the time of the published examples of signatures.
pub(super) const NOW_SECONDS: u64 = 1_440_938_160;

/// A request as a server saw it.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn field(&self, name: &str) -> String {
        let mut pairs = url::form_urlencoded::parse(&self.body);
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    }

    /// Method and path.
    pub(super) fn line(&self) -> String {
        format!("{} {}", self.method, self.target.split('?').next().unwrap())
    }
}

/// A server that remembers what it was asked, until the end of the test's runtime.
pub(super) struct Server {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Answers with the status and text that `answer` gives for a request.
    pub(super) async fn start(answer: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (record, answer) = (seen.clone(), Arc::new(answer));
        let handler = move |request: Request<Incoming>| {
            let (record, answer) = (record.clone(), answer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = read_body_limited(body, 1 << 20).await.unwrap();
                let target = parts.uri.to_string();
                let one = Seen { method: parts.method, target, headers: parts.headers, body };
                let (status, text) = answer(&one);
                record.lock().unwrap().push(one);
                let mut response = Response::new(full_body(text));
                *response.status_mut() = status.try_into().unwrap();
                response
            }
        };
        tokio::spawn(serve(listener, Arc::new(handler), ServeOptions::default(), std::future::pending()));
        Self { url, seen }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn last(&self) -> Seen {
        self.seen().pop().unwrap()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }
}

/// Surroundings with these environment variables at the usual time.
pub(super) async fn outside(env: &[(&str, &str)]) -> Outside {
    outside_at(env, Arc::new(AtomicU64::new(NOW_SECONDS))).await
}

/// As [`outside`], with a clock that the test moves.
pub(super) async fn outside_at(env: &[(&str, &str)], seconds: Arc<AtomicU64>) -> Outside {
    let env: Vec<(String, String)> = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let lookup = move |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let clock = move || SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::SeqCst));
    Outside::with(&ClientOptions::default(), lookup, clock).await.unwrap()
}

/// The texts of what is wrong with a block's body.
pub(super) fn decoded<T: corten_config::Arguments>(body: &str) -> Result<T, Vec<String>> {
    use corten_config::decode::{DecodeContext, decode};
    use corten_config::schema::Stability;
    let file = corten_syntax::parse("test", &format!("component {{\n{body}\n}}")).file;
    let Some(corten_syntax::Stmt::Block(block)) = file.body.first() else { panic!("the test's text is a block") };
    let context = DecodeContext { scope: &(), minimum: Stability::GenerallyAvailable };
    let text = |diagnostic: corten_syntax::Diagnostic| diagnostic.to_string();
    let outcome = decode(block, &context);
    outcome.map(|decoded| decoded.value).map_err(|errors| errors.into_diagnostics().into_iter().map(text).collect())
}
