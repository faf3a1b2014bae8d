//! The authentication of clouds: request signatures of AWS, tokens of Azure and of Google.
//!
//! Each is a configuration block and a [`Sign`] made of it. The few requests that get credentials are written by hand;
//! no vendor's library is needed. Errors of getting credentials are of kind [`ErrorKind::Auth`] and hold no secret.

mod aws;
mod azuread;
mod google_iam;
mod service;
mod sigv4;
#[cfg(test)]
mod testing;
mod time;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use ring::signature::RsaKeyPair;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::Mutex;

pub use azuread::{AzureAdConfig, AzureAdManagedIdentity, AzureAdOAuth, AzureAdSdk, AzureAdWorkloadIdentity};
pub use google_iam::GoogleIamConfig;
pub use service::AwsService;
pub(crate) use sigv4::escape;
pub use sigv4::{SigV4Config, SigV4Inference};

use crate::config::{ClientConfig, ProxyConfig};
use crate::files::{off_thread, read_secret};
use crate::{Body, Client, ClientOptions, Error, ErrorKind, Secret, Sign};

/// The largest answer of a server of credentials that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long a server of tokens may take.
const TOKEN_REQUEST_MS_MAX: u64 = 20_000;
/// How long a metadata service may take, which is on the same machine or does not exist.
const METADATA_REQUEST_MS_MAX: u64 = 5_000;
/// How long renewing may take while what is held is still good.
const RENEWAL_MS_MAX: u64 = 5_000;
/// When renewing is tried again while what is held is still good.
const RENEWAL_RETRY_MS: u64 = 15_000;
/// The longest text of a server that is repeated in an error.
const REASON_CHARS_MAX: usize = 256;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// What getting credentials depends on beside the configuration: environment, clock and network.
struct Outside {
    env: Box<Lookup>,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
    /// Towards servers of tokens, through the environment's proxy.
    far: Client,
    /// Towards metadata services, which have link-local addresses that no proxy can reach.
    near: Client,
}

impl Outside {
    /// The process's own.
    async fn new(options: &ClientOptions) -> Result<Self, Error> {
        Self::with(options, |name| std::env::var(name).ok(), SystemTime::now).await
    }

    async fn with(
        options: &ClientOptions,
        env: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let options = ClientOptions {
            user_agent: options.user_agent.clone(),
            dialer: options.dialer.clone(),
            ..ClientOptions::default()
        };
        // A redirect would carry secrets of the body elsewhere, and none of these services redirects.
        let near = ClientConfig { follow_redirects: false, enable_http2: false, ..ClientConfig::default() };
        let proxy = ProxyConfig { proxy_from_environment: true, ..ProxyConfig::default() };
        let far = ClientConfig { proxy, ..near.clone() };
        Ok(Self {
            env: Box::new(env),
            clock: Box::new(clock),
            far: Client::new(far, options.clone()).await?,
            near: Client::new(near, options).await?,
        })
    }

    /// An environment variable, unless it is empty.
    fn env(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    fn env_is_true(&self, name: &str) -> bool {
        self.env(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    fn home(&self) -> Option<PathBuf> {
        self.env("HOME").or_else(|| self.env("USERPROFILE")).map(PathBuf::from)
    }

    fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// Asks a server of tokens.
    async fn ask_far(&self, request: Request<Body>) -> Result<Answer, Error> {
        ask(&self.far, request, TOKEN_REQUEST_MS_MAX).await
    }

    /// Asks a metadata service.
    async fn ask_near(&self, request: Request<Body>) -> Result<Answer, Error> {
        ask(&self.near, request, METADATA_REQUEST_MS_MAX).await
    }
}

/// A whole response.
struct Answer {
    status: StatusCode,
    body: Bytes,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; the error shows nothing of it.
    fn json(&self) -> Result<serde_json::Value, Error> {
        serde_json::from_slice(&self.body).map_err(|_| auth("response is not valid JSON"))
    }

    /// The answer if it is a success, else an error with the reason that the server gives.
    fn success(self, secrets: &[&str]) -> Result<Self, Error> {
        if self.status.is_success() {
            return Ok(self);
        }
        let mut text = self.status.to_string();
        if let Some(reason) = reason(&self.body) {
            text.push_str(": ");
            text.push_str(&shown(&reason, secrets));
        }
        Err(auth(text))
    }
}

async fn ask(client: &Client, request: Request<Body>, limit_ms: u64) -> Result<Answer, Error> {
    let exchange = async {
        let response = client.request(request).await?;
        let status = response.status();
        Ok(Answer { status, body: response.into_body().read(ANSWER_BYTES_MAX).await? })
    };
    let limit = Duration::from_millis(limit_ms);
    match tokio::time::timeout(limit, exchange).await {
        Ok(outcome) => outcome.map_err(|error: Error| auth(error.to_string())),
        Err(_) => Err(auth(format!("no answer within {limit:?}"))),
    }
}

fn auth(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Auth, text)
}

/// What a refusal says for people to read: the fields of RFC 6749, 5.2, of a metadata service or of an XML answer of
/// AWS. The rest is not shown, because servers repeat parameters in it.
fn reason(body: &[u8]) -> Option<String> {
    if let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) {
        let text = |value: Option<&serde_json::Value>| value.and_then(|v| v.as_str()).map(str::to_owned);
        let nested = json.get("error").or_else(|| json.get("Error")).filter(|error| error.is_object());
        let from = nested.unwrap_or(&json);
        let code = text(json.get("error")).or_else(|| text(from.get("code"))).or_else(|| text(from.get("Code")));
        let detail = text(json.get("error_description"))
            .or_else(|| text(from.get("message")))
            .or_else(|| text(from.get("Message")));
        return join(code, detail);
    }
    let text = std::str::from_utf8(body).ok()?;
    let error = aws::element(text, "Error").unwrap_or(text);
    join(aws::element(error, "Code").map(aws::unescape), aws::element(error, "Message").map(aws::unescape))
}

fn join(code: Option<String>, detail: Option<String>) -> Option<String> {
    match (code, detail) {
        (Some(code), Some(detail)) => Some(format!("{code}: {detail}")),
        (one, other) => one.or(other),
    }
}

/// A server's text on one line, of limited length, with the secrets that it may repeat taken out.
pub(crate) fn shown(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "xxxxx");
    }
    text.chars().take(REASON_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Reads a file of a secret away from the threads that serve connections.
async fn read_file(path: PathBuf) -> Result<Secret, Error> {
    off_thread(move || read_secret(&path)).await?
}

/// Something obtained, and how long it may be used.
struct Lease<T> {
    value: T,
    /// When it is to be obtained again; `None` for never.
    renew: Option<SystemTime>,
    /// Until when it is good; `None` for ever.
    expires: Option<SystemTime>,
}

impl<T> Lease<T> {
    /// Of something that is good until `expires`, renewed `margin` before or, when that is sooner, at half of the time.
    fn until(value: T, now: SystemTime, expires: SystemTime, margin: Duration) -> Self {
        let left = expires.duration_since(now).unwrap_or_default();
        let renew = now.checked_add(left.saturating_sub(margin.min(left / 2)));
        Self { value, renew, expires: Some(expires) }
    }
}

/// Keeps what was obtained until it is to be renewed.
struct Kept<T> {
    lease: Mutex<Option<Lease<T>>>,
}

impl<T: Clone> Kept<T> {
    fn new() -> Self {
        Self { lease: Mutex::new(None) }
    }

    /// What is held, or what `fetch` gives. Requests that come meanwhile wait for that one. When renewing fails while
    /// what is held is still good, that is used on.
    async fn get(
        &self,
        outside: &Outside,
        fetch: impl Future<Output = Result<Lease<T>, Error>> + Send,
    ) -> Result<T, Error> {
        let mut lease = self.lease.lock().await;
        let now = outside.now();
        if let Some(held) = &mut *lease {
            if held.renew.is_none_or(|renew| now < renew) {
                return Ok(held.value.clone());
            }
            if held.expires.is_none_or(|expires| now < expires) {
                // Set before the attempt, because the caller's deadline may cut it off.
                held.renew = now.checked_add(Duration::from_millis(RENEWAL_RETRY_MS));
                let value = held.value.clone();
                return match tokio::time::timeout(Duration::from_millis(RENEWAL_MS_MAX), fetch).await {
                    Ok(Ok(new)) => Ok(lease.insert(new).value.clone()),
                    Ok(Err(_)) | Err(_) => Ok(value),
                };
            }
        }
        *lease = None;
        let new = fetch.await?;
        Ok(lease.insert(new).value.clone())
    }
}

/// Where bearer tokens come from.
trait Tokens: Send + Sync + 'static {
    /// A new token. The headers carry it.
    fn fetch(&self) -> BoxFuture<'_, Result<Lease<HeaderMap>, Error>>;

    fn outside(&self) -> &Outside;
}

/// Adds a bearer token to each request.
struct Bearer<T> {
    tokens: T,
    kept: Kept<HeaderMap>,
}

impl<T: Tokens> Bearer<T> {
    fn signer(tokens: T) -> Arc<dyn Sign> {
        Arc::new(Self { tokens, kept: Kept::new() })
    }
}

impl<T: Tokens> Sign for Bearer<T> {
    fn sign<'a>(&'a self, _: &'a Parts, _: &'a Body) -> BoxFuture<'a, Result<HeaderMap, Error>> {
        Box::pin(async move {
            let fetched = self.kept.get(self.tokens.outside(), self.tokens.fetch()).await;
            fetched.map_err(|error| auth(format!("failed to get access token: {error}")))
        })
    }
}

/// The header of a bearer token.
fn bearer(token: &str) -> Result<HeaderMap, Error> {
    Ok(HeaderMap::from_iter([(header::AUTHORIZATION, sensitive(&format!("Bearer {token}"))?)]))
}

/// The key of a PEM text, as PKCS 8 or PKCS 1.
pub(crate) fn rsa_key(pem: &str) -> Option<RsaKeyPair> {
    match PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()? {
        PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).ok(),
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()).ok(),
        _ => None,
    }
}

/// A header value that is not shown.
fn sensitive(text: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(text).map_err(|_| auth("credentials are not valid in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A token and how long it is good, from an answer in JSON. Some servers write numbers as strings; Azure gives the time
/// of expiry too.
fn token_answer(json: &serde_json::Value, now: SystemTime) -> Result<(Secret, SystemTime), Error> {
    let token = json.get("access_token").and_then(|value| value.as_str()).unwrap_or_default();
    if token.is_empty() {
        return Err(auth("access token is empty"));
    }
    let number = |name: &str| {
        let value = json.get(name)?;
        value.as_f64().or_else(|| value.as_str()?.parse().ok())
    };
    let span = |seconds: f64| Duration::try_from_secs_f64(seconds).ok();
    let expires = number("expires_in")
        .and_then(|seconds| now.checked_add(span(seconds)?))
        .or_else(|| number("expires_on").and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(span(seconds)?)))
        .ok_or_else(|| auth("response does not say when the access token expires"))?;
    if expires <= now {
        return Err(auth("access token expiry is less than the current time"));
    }
    Ok((Secret::new(token), expires))
}

/// A request of a form.
fn post_form(url: &str, form: &[(&str, &str)]) -> Result<Request<Body>, Error> {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    Request::post(url)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8")
        .header(header::ACCEPT, "application/json")
        .body(Body::from(body))
        .map_err(|_| auth("url of the token server is not valid"))
}

/// A request without a body.
fn get(url: &str, headers: &[(&'static str, &str)]) -> Result<Request<Body>, Error> {
    let mut request =
        Request::get(url).body(Body::empty()).map_err(|_| auth("url of the metadata service is not valid"))?;
    for (name, value) in headers {
        request.headers_mut().insert(HeaderName::from_static(name), sensitive(value)?);
    }
    Ok(request)
}

/// A URL with query parameters.
fn with_query(url: &str, pairs: &[(&str, &str)]) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    format!("{url}{}{query}", if url.contains('?') { '&' } else { '?' })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::testing::outside_at;
    use super::*;

    #[tokio::test]
    async fn what_is_held_is_renewed_in_time_and_used_on_when_that_fails() {
        let seconds = Arc::new(AtomicU64::new(1_000));
        let outside = outside_at(&[], seconds.clone()).await;
        let kept = Kept::new();
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let grant = |value: u32, expires: u64| {
            let lease = Lease::until(value, outside.now(), at(expires), Duration::from_secs(100));
            async move { Ok(lease) }
        };
        let refuse = || async { Err(auth("refused")) };
        assert_eq!(kept.get(&outside, refuse()).await.unwrap_err().to_string(), "refused");
        assert_eq!(kept.get(&outside, grant(1, 2_000)).await, Ok(1));
        assert_eq!(kept.get(&outside, grant(2, 2_000)).await, Ok(1));
        seconds.store(1_901, Ordering::SeqCst);
        assert_eq!(kept.get(&outside, refuse()).await, Ok(1));
        // The next attempt waits a little.
        assert_eq!(kept.get(&outside, grant(2, 3_000)).await, Ok(1));
        seconds.store(1_920, Ordering::SeqCst);
        assert_eq!(kept.get(&outside, grant(2, 3_000)).await, Ok(2));
        seconds.store(3_000, Ordering::SeqCst);
        assert!(kept.get(&outside, refuse()).await.is_err());
    }

    #[test]
    fn a_lease_is_renewed_before_it_ends_but_not_before_half_of_it() {
        let now = SystemTime::UNIX_EPOCH;
        let renew = |seconds, margin| {
            let lease = Lease::until((), now, now + Duration::from_secs(seconds), Duration::from_secs(margin));
            lease.renew.unwrap().duration_since(now).unwrap().as_secs()
        };
        assert_eq!((renew(3_600, 60), renew(100, 60), renew(0, 60)), (3_540, 50, 0));
    }

    #[test]
    fn a_refusal_shows_its_reason_and_no_secret() {
        for (body, text) in [
            (r#"{"error":"invalid_client","error_description":"bad hunter2"}"#, "invalid_client: bad xxxxx"),
            (r#"{"error":{"code":"Denied","message":"no"}}"#, "Denied: no"),
            (r#"{"Code":"Denied","Message":"no"}"#, "Denied: no"),
            ("<R><Error><Code>AccessDenied</Code><Message>a &amp; b</Message></Error></R>", "AccessDenied: a & b"),
        ] {
            let answer = Answer { status: StatusCode::FORBIDDEN, body: body.into() };
            let error = answer.success(&["hunter2", ""]).err().unwrap();
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::Auth, format!("403 Forbidden: {text}")));
        }
        let answer = Answer { status: StatusCode::FORBIDDEN, body: "hunter2".into() };
        assert_eq!(answer.success(&[]).err().unwrap().to_string(), "403 Forbidden");
    }

    #[test]
    fn times_of_expiry_are_numbers_or_strings() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        for (fields, expected) in [
            (r#""expires_in": 10"#, Ok(110)),
            (r#""expires_in": "10""#, Ok(110)),
            (r#""expires_on": "120""#, Ok(120)),
            (r#""expires_in": 0"#, Err("access token expiry is less than the current time")),
            (r#""expires_in": -1"#, Err("response does not say when the access token expires")),
            (r#""x": 1"#, Err("response does not say when the access token expires")),
        ] {
            let json = serde_json::from_str(&format!(r#"{{"access_token": "t", {fields}}}"#)).unwrap();
            let outcome = token_answer(&json, now);
            let seconds = outcome.map(|(_, at)| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
            assert_eq!(seconds.map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{fields}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(body in any::<Vec<u8>>(), text in "[{}<>/:\"a-zA-Z0-9,._ ]{0,60}") {
            for body in [body, text.into_bytes()] {
                reason(&body);
                if let Ok(json) = serde_json::from_slice(&body) {
                    let _ = token_answer(&json, SystemTime::UNIX_EPOCH);
                }
            }
        }

        #[test]
        fn any_expiry_is_read_without_panic(seconds in any::<f64>()) {
            let json = serde_json::json!({"access_token": "t", "expires_in": seconds, "expires_on": seconds});
            let _ = token_answer(&json, SystemTime::UNIX_EPOCH);
        }
    }
}
