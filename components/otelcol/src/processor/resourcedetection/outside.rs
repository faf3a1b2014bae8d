//! What detectors ask: the environment, files, metadata services.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_files::read_limited;
use corten_net::kubernetes::Surroundings;
use corten_net::{Body, Client, ClientConfig, ClientOptions};
use http::{HeaderName, HeaderValue, Method, Request};
use serde_json::Value;

use super::arguments::Wanted;

/// The largest answer and the largest file that is read.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long a metadata service may take: it is near, or it is not there.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);

type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// What lies outside of the program.
#[derive(Clone)]
pub(super) struct Outside {
    env: Arc<Lookup>,
    /// Where files are.
    root: PathBuf,
    /// Stands for every metadata service that has no address of its own in the environment.
    origin: Option<String>,
    client: Client,
    options: ClientOptions,
}

/// An attribute that was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    Text(String),
    Int(i64),
    List(Vec<String>),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Text(text) => f.write_str(text),
            Found::Int(number) => number.fmt(f),
            Found::List(list) => write!(f, "[{}]", list.join(",")),
        }
    }
}

/// Why nothing was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Miss {
    /// The program does not run there, as far as can be told.
    Elsewhere(String),
    /// Something is wrong.
    Failed(String),
}

impl From<String> for Miss {
    fn from(why: String) -> Self {
        Miss::Failed(why)
    }
}

impl Miss {
    /// What cannot be told is taken for a sign that the program runs elsewhere.
    pub(super) fn elsewhere(why: impl Into<String>) -> Self {
        Miss::Elsewhere(why.into())
    }
}

/// Attributes in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Attributes {
    wanted: Wanted,
    pub(super) found: Vec<(String, Found)>,
    /// Whether their names are those of the conventions.
    pub(super) is_conventional: bool,
    /// Why some are missing that the metadata service should have said: a failure for the user who insists on it.
    pub(super) lacking: Vec<String>,
    /// Why some are missing that the user may do without.
    pub(super) warnings: Vec<String>,
}

impl Attributes {
    /// None yet, and of those that the user can switch off only these.
    pub(super) fn of(wanted: Wanted) -> Self {
        Attributes { wanted, is_conventional: true, ..Attributes::default() }
    }

    /// Whether the user wants an attribute.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.wanted.contains(name)
    }

    /// Whether the user wants any attribute whose name begins so.
    pub(super) fn wants_any_of(&self, prefix: &str) -> bool {
        self.wanted.iter().any(|name| name.starts_with(prefix))
    }

    /// Adds a text, if the user wants it.
    pub(super) fn text(&mut self, name: &str, value: impl Into<String>) {
        self.put(name, name, Found::Text(value.into()));
    }

    /// Adds texts, if the user wants them and there are any.
    pub(super) fn texts<'a>(&mut self, of: impl IntoIterator<Item = (&'a str, Option<String>)>) {
        for (name, value) in of {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                self.text(name, value);
            }
        }
    }

    /// Adds a text that should be there.
    pub(super) fn expected(&mut self, name: &str, value: Result<String, String>) {
        match value {
            Ok(value) => self.text(name, value),
            Err(why) => self.lacking.push(why),
        }
    }

    /// Adds texts at places of a document; those that it does not have are empty.
    pub(super) fn fields<'a>(&mut self, json: &Value, of: impl IntoIterator<Item = (&'a str, &'a str)>) {
        for (name, path) in of {
            self.text(name, text(json, path));
        }
    }

    /// Adds any value, if the user wants it. The name of the attribute may differ from that of the setting.
    pub(super) fn put(&mut self, setting: &str, name: &str, value: Found) {
        if self.wants(setting) {
            self.found.push((name.to_owned(), value));
        }
    }

    /// Adds what the user cannot switch off by name.
    pub(super) fn free(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.found.push((name.into(), Found::Text(value.into())));
    }
}

impl Outside {
    /// The process's own.
    pub(super) async fn new(user_agent: &str) -> Result<Self, String> {
        Self::with(|name| std::env::var(name).ok(), PathBuf::from("/"), None, user_agent).await
    }

    /// Another one. Every metadata service is at `origin`.
    pub(super) async fn with(
        env: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
        root: PathBuf,
        origin: Option<String>,
        user_agent: &str,
    ) -> Result<Self, String> {
        // Metadata services have addresses that no proxy can reach, and a redirect would lead elsewhere.
        let config = ClientConfig { follow_redirects: false, enable_http2: false, ..ClientConfig::default() };
        let user_agent = HeaderValue::try_from(user_agent).map_err(|error| error.to_string())?;
        let options = ClientOptions { user_agent, connect_timeout: ANSWER_WAIT_MAX, ..ClientOptions::default() };
        let client = Client::new(config, options.clone()).await.map_err(|error| error.to_string())?;
        Ok(Outside { env: Arc::new(env), root, origin, client, options })
    }

    /// An environment variable, unless it is empty.
    pub(super) fn env(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// The settings of further clients.
    pub(super) fn options(&self) -> ClientOptions {
        self.options.clone()
    }

    /// What says where the API of Kubernetes is.
    pub(super) fn surroundings(&self) -> Surroundings {
        Surroundings::new(Arc::clone(&self.env), self.root.clone())
    }

    /// Where a metadata service is.
    pub(super) fn origin<'a>(&'a self, usual: &'a str) -> &'a str {
        self.origin.as_deref().unwrap_or(usual)
    }

    /// A path in the file system.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The content of a file.
    pub(super) async fn file(&self, path: &str) -> Result<String, String> {
        let path = self.path(path);
        let read = tokio::task::spawn_blocking(move || {
            // Files of the kernel are regular files, too.
            read_limited(&path, ANSWER_BYTES_MAX)
        });
        let content = read.await.map_err(|_| "reading files was interrupted by shutdown".to_owned())??.0;
        String::from_utf8(content).map_err(|_| "the file is not valid UTF-8".to_owned())
    }

    /// The first line of a file, without white space around it.
    pub(super) async fn line(&self, path: &str) -> Option<String> {
        let text = self.file(path).await.ok()?;
        Some(text.lines().next()?.trim().to_owned()).filter(|line| !line.is_empty())
    }

    /// Asks a metadata service.
    pub(super) async fn ask(&self, method: Method, url: &str, headers: &[(&str, &str)]) -> Result<Bytes, String> {
        ask(&self.client, method, url, headers).await
    }

    /// Asks a metadata service for a token.
    pub(super) async fn put(&self, url: &str, headers: &[(&str, &str)]) -> Result<String, String> {
        let body = self.ask(Method::PUT, url, headers).await?;
        Ok(String::from_utf8_lossy(&body).trim().to_owned())
    }

    /// What a metadata service says at a URL, as text.
    pub(super) async fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<String, String> {
        let body = self.ask(Method::GET, url, headers).await?;
        Ok(String::from_utf8_lossy(&body).trim().to_owned())
    }

    /// What a metadata service says at a URL, as JSON.
    pub(super) async fn json(&self, url: &str, headers: &[(&str, &str)]) -> Result<Value, String> {
        json(url, &self.ask(Method::GET, url, headers).await?)
    }
}

/// Asks a server: its answer, if it is a success.
pub(super) async fn ask(client: &Client, method: Method, url: &str, headers: &[(&str, &str)]) -> Result<Bytes, String> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| "a header is not valid".to_owned())?;
        value.set_sensitive(true);
        request = request.header(name, value);
    }
    let request = request.body(Body::empty()).map_err(|error| error.to_string())?;
    let exchange = async {
        let response = client.request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.into_body().read(ANSWER_BYTES_MAX).await.map_err(|error| error.to_string())?;
        if status.is_success() { Ok(body) } else { Err(format!("{url} returned {status}")) }
    };
    in_time(url, exchange).await
}

/// Gives up an exchange that takes too long.
pub(super) async fn in_time<T>(whom: &str, exchange: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match tokio::time::timeout(ANSWER_WAIT_MAX, exchange).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer from {whom} within {ANSWER_WAIT_MAX:?}")),
    }
}

pub(super) fn json(url: &str, body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|error| format!("the answer of {url} is no JSON: {error}"))
}

/// The text at a path of fields; numbers as they are written.
pub(super) fn field(json: &Value, path: &str) -> Option<String> {
    match path.split('.').try_fold(json, |json, name| json.get(name))? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The text at a path of fields; empty if there is none.
pub(super) fn text(json: &Value, path: &str) -> String {
    field(json, path).unwrap_or_default()
}
