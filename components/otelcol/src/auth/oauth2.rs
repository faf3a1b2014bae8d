//! `otelcol.auth.oauth2`.

use std::collections::BTreeMap;
use std::time::Duration;

use corten_component::{Context, Error};
use corten_config::schema::Stability;
use corten_config::value::Type;
use corten_config::{Arguments, CheckErrors, Value};
use corten_net::{
    Client, ClientConfig, ClientOptions, Grant, JwtBearer, ProxyConfig, Secret, TextOrFile, TokenSettings, TokenSource,
};
use corten_otlp::RequestContext;
use corten_signal::flow::BoxFuture;
use http::{HeaderMap, HeaderValue, header};

use super::{AuthError, Authenticator, ClientAuth, Kind, Made};
use crate::flow::DebugMetrics;
use crate::tls::TlsClientArguments;

/// Gives the requests of exporters a token that an OAuth 2 server grants. A token is kept until shortly before it expires.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct OAuth2Arguments {
    /// The client's identifier.
    #[arg(optional)]
    client_id: String,
    /// A file with the client's identifier. It wins over `client_id`.
    #[arg(optional)]
    client_id_file: String,
    /// The client's secret, for the grant of client credentials.
    #[arg(optional)]
    client_secret: Secret,
    /// A file with the client's secret, read again for every request. It wins over `client_secret`.
    #[arg(optional)]
    client_secret_file: String,
    /// The name of the key, which goes with an assertion.
    #[arg(optional)]
    client_certificate_key_id: String,
    /// The client's private key, RSA as PEM, with which it signs an assertion.
    #[arg(optional)]
    client_certificate_key: Secret,
    /// A file with the client's private key. It wins over `client_certificate_key`.
    #[arg(optional)]
    client_certificate_key_file: String,
    /// How the client shows who it is: `client_credentials`, by its secret, or
    /// `urn:ietf:params:oauth:grant-type:jwt-bearer`, by an assertion that it signs.
    #[arg(default = "client_credentials")]
    grant_type: String,
    /// How an assertion is signed: `RS256`, `RS384` or `RS512`.
    #[arg(default = "RS256")]
    signature_algorithm: String,
    /// Who issues an assertion. Empty means the client.
    #[arg(optional)]
    iss: String,
    /// Whom an assertion is for. Empty means `token_url`.
    #[arg(optional)]
    audience: String,
    /// Further claims of an assertion. They win over those that it has by itself.
    #[arg(optional)]
    claims: BTreeMap<String, Value>,
    /// Where to ask for a token.
    token_url: String,
    /// Further parameters of the request for a token.
    #[arg(optional)]
    endpoint_params: BTreeMap<String, Vec<String>>,
    /// The scopes to ask for.
    #[arg(optional)]
    scopes: Vec<String>,
    /// TLS towards the token server.
    #[block(optional)]
    tls: TlsClientArguments,
    /// How long a request for a token may take; 0 means 30 seconds.
    #[arg(default = "0s")]
    timeout: Duration,
    /// How long before it expires a token is not used any more. What exceeds ten seconds is at most half of its time.
    #[arg(default = "5m")]
    expiry_buffer: Duration,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ALGORITHMS: [&str; 3] = ["RS256", "RS384", "RS512"];
/// How long a request for a token may take where nothing is said.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

impl OAuth2Arguments {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            !self.client_id.is_empty() || !self.client_id_file.is_empty(),
            &["client_id", "client_id_file"],
            "no ClientID provided in the OAuth2 exporter configuration",
        );
        if self.is_jwt() {
            errors.require(
                !self.client_certificate_key.is_empty() || !self.client_certificate_key_file.is_empty(),
                &["client_certificate_key", "client_certificate_key_file", "grant_type"],
                "no ClientCertificateKey provided in the OAuth2 exporter configuration",
            );
            errors.require(
                self.signature_algorithm.is_empty() || ALGORITHMS.contains(&&*self.signature_algorithm),
                &["signature_algorithm"],
                "invalid signature algorithm",
            );
        } else {
            errors.require(
                !self.client_secret.is_empty() || !self.client_secret_file.is_empty(),
                &["client_secret", "client_secret_file", "grant_type"],
                "no ClientSecret provided in OAuth Client Credentials configuration",
            );
        }
        errors.require(
            !self.token_url.is_empty(),
            &["token_url"],
            "no TokenURL provided in OAuth Client Credentials configuration",
        );
        for (name, taken) in [("scope", !self.scopes.is_empty()), ("assertion", self.is_jwt())] {
            if taken && self.endpoint_params.contains_key(name) {
                let text = format!("oauth2: cannot overwrite parameter {name:?}");
                errors.push(&["endpoint_params", "scopes", "grant_type"], text);
            }
        }
        if let Err(error) = self.tls.of_net() {
            errors.push(&["tls"], error);
        }
        errors.into_result()
    }

    /// Any other text means client credentials, as in the reference.
    fn is_jwt(&self) -> bool {
        self.grant_type == JWT_BEARER
    }

    fn settings(&self) -> TokenSettings {
        let source = |text: &str, file: &str| TextOrFile { text: Secret::new(text), file: file.to_owned() };
        let grant = if self.is_jwt() {
            let algorithm = ALGORITHMS.into_iter().find(|name| *name == self.signature_algorithm);
            Grant::JwtBearer(JwtBearer {
                key: source(self.client_certificate_key.expose(), &self.client_certificate_key_file),
                key_id: self.client_certificate_key_id.clone(),
                algorithm: algorithm.unwrap_or(ALGORITHMS[0]),
                issuer: self.iss.clone(),
                audience: self.audience.clone(),
                claims: self.claims.iter().map(|(name, value)| (name.clone(), json(value))).collect(),
            })
        } else {
            Grant::ClientCredentials(source(self.client_secret.expose(), &self.client_secret_file))
        };
        let params = self.endpoint_params.iter();
        let params = params.flat_map(|(name, values)| values.iter().map(|value| (name.clone(), value.clone())));
        TokenSettings {
            token_url: self.token_url.clone(),
            client_id: source(&self.client_id, &self.client_id_file),
            grant,
            scopes: self.scopes.clone(),
            endpoint_params: params.collect(),
            expiry_margin: self.expiry_buffer,
            timeout: if self.timeout.is_zero() { TIMEOUT_DEFAULT } else { self.timeout },
        }
    }
}

/// A value of the configuration as JSON. What has no such form is null.
fn json(value: &Value) -> serde_json::Value {
    match value.ty() {
        Type::String => value.as_str().into(),
        Type::Array => value.items().map(|item| json(&item)).collect(),
        Type::Object => value.entries().iter().map(|(name, value)| (name.to_string(), json(value))).collect(),
        _ => serde_json::from_str(&value.to_string()).unwrap_or_default(),
    }
}

/// The component.
pub(crate) type OAuth2Auth = Authenticator<OAuth2>;

pub(crate) enum OAuth2 {}

impl Kind for OAuth2 {
    const NAME: &'static str = "otelcol.auth.oauth2";
    type Arguments = OAuth2Arguments;

    async fn sides(arguments: OAuth2Arguments, cx: &Context<OAuth2Auth>) -> Result<Made, Error> {
        let (tls_config, tls) = arguments.tls.of_net()?;
        let config = ClientConfig {
            tls_config,
            proxy: ProxyConfig { proxy_from_environment: true, ..ProxyConfig::default() },
            enable_http2: false,
            ..ClientConfig::default()
        };
        let user_agent = HeaderValue::try_from(&cx.services().user_agent).map_err(|error| error.to_string())?;
        let observe = cx.observe_requests();
        let options = ClientOptions { user_agent, tls, observe, ..ClientOptions::default() };
        let client = Client::new(config, options).await.map_err(|error| error.to_string())?;
        let source = TokenSource::with_client(arguments.settings(), client);
        Ok(Made::client(Tokens { source, token_url: arguments.token_url }))
    }
}

#[derive(Debug)]
struct Tokens {
    source: TokenSource,
    token_url: String,
}

impl ClientAuth for Tokens {
    fn authorize<'a>(
        &'a self,
        headers: &'a mut HeaderMap,
        _: &'a RequestContext,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(async move {
            let value = self.source.authorization().await.map_err(|error| {
                AuthError::passing(format!(
                    "failed to get security token from token endpoint (endpoint {:?}); {error}",
                    self.token_url
                ))
            })?;
            headers.insert(header::AUTHORIZATION, value);
            Ok(())
        })
    }

    fn reads_context(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use corten_testkit::{Server, answer, host};

    use super::*;
    use crate::auth::testing::{authorized, handler, refusal, start};

    #[tokio::test]
    async fn a_token_is_fetched_once_and_sent() {
        let server = Server::start(|_| answer(200, &[], r#"{"access_token":"t","expires_in":600}"#)).await;
        let world = host("otelcol.auth.oauth2.a");
        let (id, secret) = (world.write("id", "me\n"), world.write("secret", "hush\n"));
        let body = format!(
            "client_id_file = {id:?}\nclient_secret_file = {secret:?}\ntoken_url = {:?}\nscopes = [\"a\", \"b\"]\n\
             endpoint_params = {{ audience = [\"x\", \"y\"] }}",
            server.url("/token")
        );
        let unit = start::<OAuth2>(world, &body).await.unwrap();
        let handler = handler(&unit);
        for _ in 0..2 {
            let sent = authorized(handler.client().unwrap(), &RequestContext::default()).await;
            assert_eq!(sent, Ok(vec!["authorization=Bearer t".to_owned()]));
        }
        let seen = server.seen();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].header("authorization"), "Basic bWU6aHVzaA==");
        assert_eq!(seen[0].body, "grant_type=client_credentials&scope=a+b&audience=x&audience=y");
    }

    #[tokio::test]
    async fn a_server_that_grants_nothing_is_named() {
        let server = Server::start(|_| answer(401, &[], r#"{"error":"invalid_client"}"#)).await;
        let url = server.url("/token");
        let body = format!("client_id = \"a\"\nclient_secret = \"b\"\ntoken_url = {url:?}\ntimeout = \"5s\"");
        let unit = start::<OAuth2>(host("otelcol.auth.oauth2.a"), &body).await.unwrap();
        let error = authorized(handler(&unit).client().unwrap(), &RequestContext::default()).await.unwrap_err();
        let want = format!(
            "failed to get security token from token endpoint (endpoint {url:?}); oauth2: cannot fetch token: 401 \
             Unauthorized: invalid_client"
        );
        assert_eq!(error, want);
    }

    #[test]
    fn claims_are_json() {
        let value = Value::array(vec![Value::string("a"), Value::uint(3), Value::bool(true)]);
        assert_eq!(json(&value), serde_json::json!(["a", 3, true]));
    }

    #[tokio::test]
    async fn what_is_missing_is_said() {
        let jwt = format!("grant_type = {JWT_BEARER:?}\nclient_id = \"a\"\ntoken_url = \"http://x\"\n");
        let key = format!("{jwt}client_certificate_key = \"x\"\n");
        for (body, why) in [
            (
                "client_secret = \"b\"\ntoken_url = \"http://x\"",
                "no ClientID provided in the OAuth2 exporter configuration",
            ),
            (
                "client_id = \"b\"\ntoken_url = \"http://x\"",
                "no ClientSecret provided in OAuth Client Credentials configuration",
            ),
            (
                "client_id = \"b\"\nclient_secret = \"b\"\ntoken_url = \"\"",
                "no TokenURL provided in OAuth Client Credentials configuration",
            ),
            (&jwt, "no ClientCertificateKey provided in the OAuth2 exporter configuration"),
            (&format!("{key}signature_algorithm = \"ES256\""), "invalid signature algorithm"),
            (
                &format!("{key}endpoint_params = {{ assertion = [] }}"),
                "oauth2: cannot overwrite parameter \"assertion\"",
            ),
        ] {
            let error = refusal::<OAuth2>(body).await;
            assert!(error.contains(why), "{error}");
        }
    }
}
