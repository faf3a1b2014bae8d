//! The API of Kubernetes: where it is, single objects, and following the objects of a kind as they change.
//!
//! [`ApiConfig`] says where the API is: that of the pod's cluster, or of the configuration of kubectl. [`Api`] asks it,
//! and [`Follower`] lists the objects of a [`Collection`] and watches them from then on. It never holds more than one
//! object as a whole beside the answer that it stands in; what is kept of objects is the caller's.

mod config;
mod follow;
mod lines;
mod message;
#[cfg(test)]
mod testing;
mod yaml;

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use serde_json::Value;

pub use config::{ApiConfig, Surroundings};
pub use follow::{Change, Collection, Follower};
pub use yaml::parse_yaml;

use crate::{Body, Client, ClientOptions, Error, ResponseBody, retry_after};

/// The largest answer that is one object, or says why there is none.
const OBJECT_BYTES_MAX: usize = 16 << 20;
/// How long such an answer may take.
const OBJECT_MS_MAX: u64 = 30_000;

/// The API of a cluster. A clone shares its connections.
#[derive(Clone, Debug)]
pub struct Api {
    client: Client,
    url: String,
}

/// The API could not be asked, or has refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    text: String,
    /// The status of the answer; zero if there is none.
    code: u16,
    /// Whether the version that was asked for is not there any more, or not yet.
    is_expired: bool,
    /// How long to wait, at least, before it is asked again.
    after: Option<Duration>,
}

impl ApiError {
    fn new(text: impl Into<String>) -> Self {
        ApiError { text: text.into(), code: 0, is_expired: false, after: None }
    }

    /// The status of the answer; zero if there is none.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Whether the same request may succeed soon.
    fn is_passing(&self) -> bool {
        self.code == 0 || self.code == 429 || self.code >= 500
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ApiError {}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        ApiError::new(error.to_string())
    }
}

impl Api {
    /// What asks the API.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub async fn new(config: ApiConfig, options: ClientOptions) -> Result<Self, Error> {
        Ok(Self { client: Client::new(config.client, options).await?, url: config.url })
    }

    /// What the API says at a path, which begins with a slash.
    ///
    /// # Errors
    /// The API cannot be reached, refuses, or says no JSON.
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        let exchange = async {
            let body = self.ask(path).await?.read(OBJECT_BYTES_MAX).await?;
            serde_json::from_slice(&body)
                .map_err(|error| ApiError::new(format!("{}{path}: {error}", crate::redact_url(&self.url))))
        };
        within(OBJECT_MS_MAX, exchange).await
    }

    /// Follows the objects of a collection. Of each it keeps what `read` makes of it.
    pub fn follow<T>(&self, collection: Collection, read: impl Fn(&Value) -> T + Send + Sync + 'static) -> Follower<T> {
        Follower::new(self.clone(), collection, Box::new(read))
    }

    /// The body of an answer that is a success.
    async fn ask(&self, target: &str) -> Result<ResponseBody, ApiError> {
        let request = Request::get(format!("{}{target}", self.url))
            .header(header::ACCEPT, "application/json")
            .body(Body::empty())
            .map_err(|_| ApiError::new("url of the API is not valid"))?;
        let response = self.client.request(request).await?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response.into_body());
        }
        let after = retry_after(response.headers(), SystemTime::now());
        let said = response.into_body().read(OBJECT_BYTES_MAX).await.unwrap_or_else(|_| Bytes::new());
        let said = serde_json::from_slice(&said).unwrap_or(Value::Null);
        let error = ApiError::of_status(status.as_u16(), &said, after);
        let path = target.split('?').next().unwrap_or_default();
        Err(ApiError { text: format!("{}{path}: {error}", crate::redact_url(&self.url)), ..error })
    }
}

/// Ends what takes too long.
async fn within<T>(limit_ms: u64, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    let limit = Duration::from_millis(limit_ms);
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ApiError::new(format!("no answer from the API within {limit:?}"))),
    }
}
