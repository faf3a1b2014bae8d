//! Requests to services of AWS that speak JSON, with what the environment says: credentials, region, endpoint.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Uri, header};
use serde_json::Value;

use super::sigv4::SigV4Config;
use super::{Outside, aws, shown};
use crate::config::{ClientConfig, ProxyConfig};
use crate::{Body, Client, ClientOptions, Error, ErrorKind};

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How often a request is made, where it may succeed the next time.
const ATTEMPTS_MAX: u32 = 3;
/// The longest wait before the second attempt; it is less by chance, and twice as long before the third.
const WAIT: Duration = Duration::from_secs(1);

/// A service of AWS that speaks version 1.1 of its JSON protocol.
#[derive(Clone, Debug)]
pub struct AwsService {
    client: Client,
    url: Uri,
}

impl AwsService {
    /// The service of a name, as it stands in host names, variables and signatures: `servicediscovery`. Region,
    /// credentials and endpoint come from the environment and the shared configuration files; without a region it is
    /// `us-east-1`. Credentials are obtained with the first request. `prefix` stands before the host, as some requests
    /// want it; not before an address or `localhost`, which are somebody's stand-in for the service.
    ///
    /// # Errors
    /// Of kind `Auth` when a file cannot be used or a profile is missing, of kind `Config` when the endpoint is not
    /// valid.
    pub async fn new(name: &str, prefix: &str, options: ClientOptions) -> Result<Self, Error> {
        let outside = Outside::new(&options).await?;
        Self::with(name, prefix, options, outside).await
    }

    async fn with(name: &str, prefix: &str, options: ClientOptions, outside: Outside) -> Result<Self, Error> {
        let given = aws::endpoint_of(name, &outside).await?;
        let (fips, dual) =
            (outside.env_is_true("AWS_USE_FIPS_ENDPOINT"), outside.env_is_true("AWS_USE_DUALSTACK_ENDPOINT"));
        let config = SigV4Config { service_name: name.to_owned(), ..SigV4Config::default() };
        let signer = config.service_signer(outside).await?;
        let url = given.unwrap_or_else(|| aws::service_url(name, signer.region(), fips, dual));
        let url = prefixed(&url, prefix)
            .ok_or_else(|| Error::new(ErrorKind::Config, format!("endpoint of {name} is not valid")))?;
        let proxy = ProxyConfig { proxy_from_environment: true, ..ProxyConfig::default() };
        // A redirect would carry a signature elsewhere, and none of these services redirects.
        let config = ClientConfig { proxy, follow_redirects: false, ..ClientConfig::default() };
        let client = Client::new(config, ClientOptions { sign: Some(Arc::new(signer)), ..options }).await?;
        Ok(Self { client, url })
    }

    /// Makes a request: `Route53AutoNaming_v20170314.DiscoverInstances`. What fails in passing is tried again, a few
    /// times; how long that may take is the caller's to say.
    ///
    /// # Errors
    /// The service cannot be reached, refuses, or answers no JSON.
    pub async fn call(&self, operation: &str, input: &Value) -> Result<Value, Error> {
        let mut wait = WAIT;
        for _ in 1..ATTEMPTS_MAX {
            match self.attempt(operation, input).await {
                Err((error, true)) => drop(error),
                Err((error, false)) => return Err(error),
                Ok(answer) => return Ok(answer),
            }
            let chance = RandomState::new().hash_one(()) as f64 / u64::MAX as f64;
            tokio::time::sleep(wait.mul_f64(chance)).await;
            wait *= 2;
        }
        self.attempt(operation, input).await.map_err(|(error, _)| error)
    }

    /// One attempt; with an error whether the next may succeed.
    async fn attempt(&self, operation: &str, input: &Value) -> Result<Value, (Error, bool)> {
        let request = Request::post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/x-amz-json-1.1")
            .header("x-amz-target", operation)
            .body(Body::from(input.to_string()))
            .map_err(|_| (Error::new(ErrorKind::Request, "request is not valid"), false))?;
        let passing = |error: Error| {
            let passes = error.is_transient() && error.kind() != ErrorKind::Auth;
            (error, passes)
        };
        let response = self.client.request(request).await.map_err(passing)?;
        let status = response.status();
        let body = response.into_body().read(ANSWER_BYTES_MAX).await.map_err(passing)?;
        let said = serde_json::from_slice::<Value>(&body);
        if status.is_success() {
            let wrong = |_| (Error::new(ErrorKind::Protocol, format!("{operation}: answer is not valid JSON")), false);
            return said.map_err(wrong);
        }
        let said = said.unwrap_or_default();
        let text = |names: [&str; 2]| names.iter().find_map(|name| said.get(name)?.as_str()).unwrap_or_default();
        // `namespace#Code:address`.
        let code =
            text(["__type", "code"]).split(':').next().unwrap_or_default().rsplit('#').next().unwrap_or_default();
        let why = [code, text(["message", "Message"])].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
        let why = if why.is_empty() { String::new() } else { format!(": {}", shown(&why.join(": "), &[])) };
        let error = Error::new(ErrorKind::Protocol, format!("{operation}: {status}{why}"));
        Err((error, status.is_server_error() || THROTTLED.contains(&code)))
    }
}

/// What services say when they are asked too often.
const THROTTLED: [&str; 7] = [
    "LimitExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

/// A URL with something before its host, and at least a slash as its path.
fn prefixed(url: &str, prefix: &str) -> Option<Uri> {
    let mut url = url::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    if let url::Host::Domain(host) = url.host()?
        && host != "localhost"
    {
        let host = format!("{prefix}{host}");
        url.set_host(Some(&host)).ok()?;
    }
    url.set_query(None);
    url.set_fragment(None);
    url.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::super::testing::{Server, outside};
    use super::*;

    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];

    async fn service(env: &[(&str, &str)]) -> Result<AwsService, String> {
        let env: Vec<_> = KEYS.into_iter().chain([("HOME", "/nowhere")]).chain(env.iter().copied()).collect();
        let service = AwsService::with("things", "data-", ClientOptions::default(), outside(&env).await).await;
        service.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_endpoint_is_that_of_the_region_unless_the_environment_says_another() {
        for (env, url) in [
            (&[][..], "https://data-things.us-east-1.amazonaws.com/"),
            (&[("AWS_REGION", "eu-west-1")], "https://data-things.eu-west-1.amazonaws.com/"),
            (&[("AWS_DEFAULT_REGION", "cn-north-1")], "https://data-things.cn-north-1.amazonaws.com.cn/"),
            (&[("AWS_USE_FIPS_ENDPOINT", "true")], "https://data-things-fips.us-east-1.amazonaws.com/"),
            (&[("AWS_USE_DUALSTACK_ENDPOINT", "true")], "https://data-things.us-east-1.api.aws/"),
            (&[("AWS_ENDPOINT_URL", "http://a:1/b")], "http://data-a:1/b"),
            (
                &[("AWS_ENDPOINT_URL", "http://a"), ("AWS_ENDPOINT_URL_THINGS", "http://127.0.0.1:2")],
                "http://127.0.0.1:2/",
            ),
            (&[("AWS_ENDPOINT_URL_THINGS", "http://localhost:2")], "http://localhost:2/"),
            (
                &[("AWS_ENDPOINT_URL", "http://a"), ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")],
                "https://data-things.us-east-1.amazonaws.com/",
            ),
        ] {
            assert_eq!(service(env).await.unwrap().url, url, "{env:?}");
        }
        for wrong in ["a", "ftp://a", "http://"] {
            let error = service(&[("AWS_ENDPOINT_URL", wrong)]).await.unwrap_err();
            assert_eq!(error, "endpoint of things is not valid");
        }
        let error = service(&[("AWS_PROFILE", "p")]).await.unwrap_err();
        assert_eq!(error, "failed to get shared config profile, p");
    }

    #[tokio::test]
    async fn a_request_is_signed_for_the_service() {
        let server = Server::start(|_| (200, r#"{"a": 1}"#.to_owned())).await;
        let service = service(&[("AWS_ENDPOINT_URL", &server.url)]).await.unwrap();
        assert_eq!(service.call("V1.Do", &json!({"b": 2})).await, Ok(json!({"a": 1})));
        let seen = server.last();
        assert_eq!((seen.line().as_str(), &*seen.body), ("POST /", &br#"{"b":2}"#[..]));
        assert_eq!((seen.header("content-type"), seen.header("x-amz-target")), ("application/x-amz-json-1.1", "V1.Do"));
        let authorization = seen.header("authorization");
        assert!(authorization.contains("Credential=AKID/20150830/us-east-1/things/aws4_request"), "{authorization}");
        assert!(authorization.contains("content-type;host;x-amz-date;x-amz-target"), "{authorization}");
    }

    #[tokio::test]
    async fn what_passes_is_tried_again_and_a_refusal_is_told() {
        let throttled = r#"{"__type":"com.amazonaws#ThrottlingException:http://x","message":"slow"}"#;
        for (status, body, attempts, text) in [
            (500, "oops", 3, "V1.Do: 500 Internal Server Error"),
            (400, throttled, 3, "V1.Do: 400 Bad Request: ThrottlingException: slow"),
            (
                400,
                r#"{"__type":"NamespaceNotFound","Message":"no\nway"}"#,
                1,
                "V1.Do: 400 Bad Request: NamespaceNotFound: no way",
            ),
            (403, "[]", 1, "V1.Do: 403 Forbidden"),
            (200, "<", 1, "V1.Do: answer is not valid JSON"),
        ] {
            let server = Server::start(move |_| (status, body.to_owned())).await;
            let service = service(&[("AWS_ENDPOINT_URL", &server.url)]).await.unwrap();
            assert_eq!(service.call("V1.Do", &json!({})).await.unwrap_err().to_string(), text);
            assert_eq!(server.seen().len(), attempts, "{text}");
        }
        let asked = AtomicUsize::new(0);
        let server = Server::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
            0 => (503, String::new()),
            _ => (200, "{}".to_owned()),
        })
        .await;
        let service = service(&[("AWS_ENDPOINT_URL", &server.url)]).await.unwrap();
        assert_eq!(service.call("V1.Do", &json!({})).await, Ok(json!({})));
    }
}
