//! The arguments that every component with an HTTP client shares, with the reference's names, defaults and rules.
//!
//! Message texts are the reference's. Empty text means 'not given', as there.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use corten_config::decode::{Decode, Mismatches, Secret, ValueContext};
use corten_config::error::ValueError;
use corten_config::schema::{Shape, Stability};
use corten_config::{Arguments, CheckErrors, Value};

use crate::client::typed;
use crate::proxy::{Proxy, header_map};
use crate::redact_url;

/// The type of an `Authorization` header where none is given.
pub(crate) const BEARER: &str = "Bearer";

/// Headers by name, each with one or more secret values.
pub type Headers = BTreeMap<String, Vec<Secret>>;

/// How to talk to an HTTP server: authentication, TLS, proxy, redirects.
///
/// To be embedded with `#[flatten]`; a component with another default for HTTP/2 says
/// `#[flatten(defaults(enable_http2 = false))]`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ClientConfig {
    /// Basic authentication.
    #[block]
    pub basic_auth: Option<BasicAuth>,
    /// An `Authorization` header of any other type.
    #[block]
    pub authorization: Option<Authorization>,
    /// A token obtained with client credentials.
    #[block]
    pub oauth2: Option<OAuth2>,
    /// A bearer token.
    #[arg(optional)]
    pub bearer_token: Secret,
    /// A file with a bearer token, read again for every request.
    #[arg(optional)]
    pub bearer_token_file: String,
    /// TLS towards the server.
    #[block(optional)]
    pub tls_config: TlsConfig,
    /// Whether to follow redirects; otherwise the redirect is the response.
    #[arg(default = true)]
    pub follow_redirects: bool,
    /// Whether to offer HTTP/2 in a TLS handshake.
    #[arg(default = true)]
    pub enable_http2: bool,
    /// The proxy to go through.
    #[flatten]
    pub proxy: ProxyConfig,
    /// Headers added to every request, beside those that are there already.
    #[arg(optional)]
    pub http_headers: Headers,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            basic_auth: None,
            authorization: None,
            oauth2: None,
            bearer_token: Secret::default(),
            bearer_token_file: String::new(),
            tls_config: TlsConfig::default(),
            follow_redirects: true,
            enable_http2: true,
            proxy: ProxyConfig::default(),
            http_headers: Headers::new(),
        }
    }
}

impl ClientConfig {
    /// Whether any kind of authentication is configured: for components that know further kinds and allow only one.
    pub fn has_auth(&self) -> bool {
        self.auth_count() > 0
    }

    fn auth_count(&self) -> usize {
        usize::from(self.basic_auth.is_some())
            + usize::from(self.authorization.is_some())
            + usize::from(self.oauth2.is_some())
            + usize::from(!self.bearer_token.is_empty())
            + usize::from(!self.bearer_token_file.is_empty())
    }

    /// The rules between the arguments; those of the blocks are checked with the blocks.
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            self.auth_count() <= 1,
            &["basic_auth", "authorization", "oauth2", "bearer_token", "bearer_token_file"],
            "at most one of basic_auth, authorization, oauth2, bearer_token & bearer_token_file must be configured",
        );
        for name in self.http_headers.keys() {
            if RESERVED_HEADERS.binary_search(&name.to_ascii_lowercase().as_str()).is_ok() {
                let text = format!("setting header \"{}\" is not allowed", canonical_name(name));
                errors.push(&["http_headers"], text);
            }
        }
        errors.into_result()
    }

    /// What a client would refuse when it is built.
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if let Err(text) = typed(BEARER, &self.bearer_token) {
            errors.push(&["bearer_token"], text);
        }
        if let Err(error) = header_map(&self.http_headers) {
            errors.push(&["http_headers"], error.to_string());
        }
        errors.into_result()
    }

    /// All rules but those of `check_build`, for a configuration that was not decoded: whoever builds a client of it
    /// finds those.
    pub(crate) fn check_whole(&self) -> Result<(), CheckErrors> {
        if let Some(basic_auth) = &self.basic_auth {
            basic_auth.check()?;
        }
        if let Some(authorization) = &self.authorization {
            authorization.check()?;
        }
        if let Some(oauth2) = &self.oauth2 {
            oauth2.check()?;
            oauth2.proxy.check()?;
            if let Some(tls_config) = &oauth2.tls_config {
                tls_config.check()?;
            }
        }
        self.tls_config.check()?;
        self.check()?;
        self.proxy.check()
    }
}

/// Basic authentication.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct BasicAuth {
    /// The user.
    #[arg(optional)]
    pub username: String,
    /// The password.
    #[arg(optional)]
    pub password: Secret,
    /// A file with the password, read again for every request.
    #[arg(optional)]
    pub password_file: String,
}

impl BasicAuth {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            self.password.is_empty() || self.password_file.is_empty(),
            &["password", "password_file"],
            "at most one of basic_auth password & password_file must be configured",
        );
        errors.into_result()
    }
}

/// An `Authorization` header.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct Authorization {
    /// The type, the word before the credentials. Empty means `Bearer`.
    #[arg(name = "type", optional)]
    pub kind: String,
    /// The credentials.
    #[arg(optional)]
    pub credentials: Secret,
    /// A file with the credentials, read again for every request.
    #[arg(optional)]
    pub credentials_file: String,
}

impl Authorization {
    /// The type as it is sent.
    pub fn kind_or_default(&self) -> &str {
        match self.kind.trim() {
            "" => BEARER,
            kind => kind,
        }
    }

    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            self.credentials.is_empty() || self.credentials_file.is_empty(),
            &["credentials", "credentials_file"],
            "at most one of authorization credentials & credentials_file must be configured",
        );
        errors.require(
            !self.kind_or_default().eq_ignore_ascii_case("basic"),
            &["type"],
            "authorization type cannot be set to \"basic\", use \"basic_auth\" block instead",
        );
        errors.into_result()
    }

    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        // With credentials from a file the header is made for each request.
        if self.credentials_file.is_empty()
            && let Err(text) = typed(self.kind_or_default(), &self.credentials)
        {
            errors.push(&["credentials", "type", "credentials_file"], text);
        }
        errors.into_result()
    }
}

/// The client credentials grant of OAuth 2 (RFC 6749, 4.4).
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct OAuth2 {
    /// The client's identifier.
    #[arg(optional)]
    pub client_id: String,
    /// The client's secret.
    #[arg(optional)]
    pub client_secret: Secret,
    /// A file with the client's secret, read again for every request.
    #[arg(optional)]
    pub client_secret_file: String,
    /// The scopes to ask for.
    #[arg(optional)]
    pub scopes: Vec<String>,
    /// Where to ask for a token.
    #[arg(optional)]
    pub token_url: String,
    /// Further parameters of the token request.
    #[arg(optional)]
    pub endpoint_params: BTreeMap<String, String>,
    /// The proxy towards the token server.
    #[flatten]
    pub proxy: ProxyConfig,
    /// TLS towards the token server.
    #[block]
    pub tls_config: Option<TlsConfig>,
}

impl OAuth2 {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(!self.client_id.is_empty(), &["client_id"], "oauth2 client_id must be configured");
        errors.require(
            !self.client_secret.is_empty() || !self.client_secret_file.is_empty(),
            &["client_secret", "client_secret_file"],
            "either oauth2 client_secret or client_secret_file must be configured",
        );
        errors.require(!self.token_url.is_empty(), &["token_url"], "oauth2 token_url must be configured");
        errors.require(
            self.client_secret.is_empty() || self.client_secret_file.is_empty(),
            &["client_secret", "client_secret_file"],
            "at most one of oauth2 client_secret & client_secret_file must be configured",
        );
        errors.into_result()
    }

    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        self.check_params().map_err(|text| CheckErrors::of(&["endpoint_params", "scopes"], text))
    }

    /// The parameters must leave alone what is configured elsewhere.
    pub(crate) fn check_params(&self) -> Result<(), &'static str> {
        if !self.scopes.is_empty() && self.endpoint_params.contains_key("scope") {
            return Err("oauth2: cannot overwrite parameter \"scope\"");
        }
        Ok(())
    }
}

/// TLS of a client.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct TlsConfig {
    /// The certificate authorities that are trusted, as PEM, in place of the system's.
    #[arg(optional)]
    pub ca_pem: String,
    /// A file with the certificate authorities that are trusted.
    #[arg(optional)]
    pub ca_file: String,
    /// The client's certificate chain, as PEM.
    #[arg(optional)]
    pub cert_pem: String,
    /// A file with the client's certificate chain.
    #[arg(optional)]
    pub cert_file: String,
    /// The client's private key, as PEM.
    #[arg(optional)]
    pub key_pem: Secret,
    /// A file with the client's private key.
    #[arg(optional)]
    pub key_file: String,
    /// The name that the server's certificate must have, in place of the host of the URL.
    #[arg(optional)]
    pub server_name: String,
    /// Whether to accept any certificate.
    #[arg(optional)]
    pub insecure_skip_verify: bool,
    /// The lowest version of TLS: `TLS10`, `TLS11`, `TLS12` or `TLS13`. What is below 1.2 means 1.2, because no lower
    /// version is implemented.
    #[arg(optional)]
    pub min_version: String,
}

impl TlsConfig {
    /// The rules between the arguments.
    ///
    /// # Errors
    /// The rules that do not hold, with the reference's texts.
    pub fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let has_cert = !self.cert_pem.is_empty() || !self.cert_file.is_empty();
        let has_key = !self.key_pem.is_empty() || !self.key_file.is_empty();
        errors.require(
            self.ca_pem.is_empty() || self.ca_file.is_empty(),
            &["ca_pem", "ca_file"],
            "at most one of ca_pem and ca_file must be configured",
        );
        errors.require(
            self.cert_pem.is_empty() || self.cert_file.is_empty(),
            &["cert_pem", "cert_file"],
            "at most one of cert_pem and cert_file must be configured",
        );
        errors.require(
            self.key_pem.is_empty() || self.key_file.is_empty(),
            &["key_pem", "key_file"],
            "at most one of key_pem and key_file must be configured",
        );
        errors.require(
            !has_cert || has_key,
            &["cert_pem", "cert_file", "key_pem", "key_file"],
            "exactly one of key_pem or key_file must be configured when a client certificate is configured",
        );
        errors.require(
            !has_key || has_cert,
            &["key_pem", "key_file", "cert_pem", "cert_file"],
            "exactly one of cert_pem or cert_file must be configured when a client key is configured",
        );
        if !matches!(self.min_version.as_str(), "" | "TLS10" | "TLS11" | "TLS12" | "TLS13") {
            errors.push(&["min_version"], format!("unknown TLS version: {}", self.min_version));
        }
        errors.into_result()
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        [&self.ca_file, &self.cert_file, &self.key_file]
            .into_iter()
            .filter(|file| !file.is_empty())
            .map(PathBuf::from)
            .collect()
    }

    /// Whether anything is configured that can be wrong and is therefore looked at when the client is built.
    pub(crate) fn has_material(&self) -> bool {
        let texts = [&self.ca_pem, &self.ca_file, &self.cert_pem, &self.cert_file, &self.key_file, &self.server_name];
        texts.iter().any(|text| !text.is_empty()) || !self.key_pem.is_empty()
    }
}

/// The proxy of a client.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct ProxyConfig {
    /// The proxy: `http`, `https`, `socks5` or `socks5h`.
    #[arg(optional)]
    pub proxy_url: ProxyUrl,
    /// Hosts that are reached without the proxy, separated by commas: domains with all below them, addresses, networks,
    /// each with or without a port, or `*`.
    #[arg(optional)]
    pub no_proxy: String,
    /// Whether to take the proxy from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
    #[arg(default = false)]
    pub proxy_from_environment: bool,
    /// Headers of the `CONNECT` request.
    #[arg(optional)]
    pub proxy_connect_header: Headers,
}

impl ProxyConfig {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let (has_url, from_environment) = (!self.proxy_url.is_empty(), self.proxy_from_environment);
        errors.require(
            self.proxy_connect_header.is_empty() || from_environment || has_url,
            &["proxy_connect_header", "proxy_url", "proxy_from_environment"],
            "if proxy_connect_header is configured, proxy_url or proxy_from_environment must also be configured",
        );
        errors.require(
            !(from_environment && has_url),
            &["proxy_from_environment", "proxy_url"],
            "if proxy_from_environment is configured, proxy_url must not be configured",
        );
        let has_exceptions = !self.no_proxy.is_empty();
        errors.require(
            !(from_environment && has_exceptions),
            &["proxy_from_environment", "no_proxy"],
            "if proxy_from_environment is configured, no_proxy must not be configured",
        );
        errors.require(
            has_url || !has_exceptions || from_environment,
            &["no_proxy", "proxy_url", "proxy_from_environment"],
            "if no_proxy is configured, proxy_url must also be configured",
        );
        errors.into_result()
    }

    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let made = header_map(&self.proxy_connect_header).map(drop);
        made.map_err(|error| CheckErrors::of(&["proxy_connect_header"], error.to_string()))
    }
}

/// The address of a proxy, which may hold a password. Empty means none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxyUrl(String);

impl ProxyUrl {
    /// An address that can be used, or what is wrong with it.
    ///
    /// # Errors
    /// The text, without user information.
    pub fn new(text: &str) -> Result<Self, String> {
        if !text.is_empty() {
            Proxy::parse(text).map_err(|error| error.to_string())?;
        }
        Ok(Self(text.to_owned()))
    }

    /// The text. What is made of it must not be logged or shown.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if self.is_empty() { String::new() } else { redact_url(&self.0) };
        f.debug_tuple("ProxyUrl").field(&shown).finish()
    }
}

impl Decode for ProxyUrl {
    const SHAPE: Shape = Shape::Text("string");

    fn decode(value: &Value, _: &ValueContext) -> Result<Self, Mismatches> {
        let text = corten_config::convert::to_text(value)?;
        Self::new(&text).map_err(|message| ValueError::new(value, message).into())
    }

    fn zero() -> Option<Self> {
        Some(Self::default())
    }

    fn to_value(&self) -> Value {
        // With a password in it, it is shown as little as a password.
        if self.0.contains('@') { Value::secret(self.0.as_str()) } else { Value::string(self.0.as_str()) }
    }
}

/// Headers that belong to the protocol, to authentication or to the signature, in lower case and sorted.
const RESERVED_HEADERS: &[&str] = &[
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "user-agent",
    "www-authenticate",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
    "x-prometheus-remote-read-version",
    "x-prometheus-remote-write-version",
    "x-prometheus-scrape-timeout-seconds",
];

/// A header name with a capital at the start of each word, which is how the reference prints it.
fn canonical_name(name: &str) -> String {
    let mut start = true;
    let upper_or_lower = |c: char| {
        let out = if start { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        start = c == '-';
        out
    };
    name.chars().map(upper_or_lower).collect()
}

#[cfg(test)]
mod tests {
    use corten_config::decode::DecodeContext;

    use super::*;

    /// A change of the defaults and the text that it gives.
    type Case = (fn(&mut ClientConfig), &'static str);

    fn client(change: impl FnOnce(&mut ClientConfig)) -> Result<(), String> {
        let mut config = ClientConfig::default();
        change(&mut config);
        config.check_whole().map_err(|errors| errors.to_string())
    }

    /// What a body gives, or the texts of all that is wrong with it.
    fn decoded(body: &str) -> Result<ClientConfig, Vec<String>> {
        let file = corten_syntax::parse("test", &format!("component {{\n{body}\n}}")).file;
        let Some(corten_syntax::Stmt::Block(block)) = file.body.first() else { panic!("the test's text is a block") };
        let context = DecodeContext { scope: &(), minimum: Stability::GenerallyAvailable };
        let outcome = corten_config::decode::decode(block, &context);
        let text = |diagnostic: corten_syntax::Diagnostic| diagnostic.to_string().replacen("test:", "", 1);
        outcome.map(|decoded| decoded.value).map_err(|errors| errors.into_diagnostics().into_iter().map(text).collect())
    }

    fn headers(name: &str) -> Headers {
        Headers::from([(name.to_owned(), vec![Secret::new("x")])])
    }

    fn oauth2() -> OAuth2 {
        OAuth2 {
            client_id: "id".into(),
            client_secret: Secret::new("secret"),
            token_url: "http://token".into(),
            ..OAuth2::default()
        }
    }

    #[test]
    fn the_defaults_follow_redirects_and_offer_http2() {
        let config = ClientConfig::default();
        assert!(config.follow_redirects && config.enable_http2 && !config.has_auth());
        assert_eq!(config.check_whole(), Ok(()));
        assert_eq!(decoded(""), Ok(config));
    }

    #[test]
    fn at_most_one_kind_of_authentication() {
        const TEXT: &str =
            "at most one of basic_auth, authorization, oauth2, bearer_token & bearer_token_file must be configured";
        for (index, change) in [
            (|c| c.bearer_token_file = "f".into()) as fn(&mut ClientConfig),
            |c| c.basic_auth = Some(BasicAuth::default()),
            |c| c.authorization = Some(Authorization::default()),
            |c| c.oauth2 = Some(oauth2()),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(client(change), Ok(()), "{index}");
            assert_eq!(
                client(|c| {
                    change(c);
                    c.bearer_token = Secret::new("t");
                }),
                Err(TEXT.to_owned()),
                "{index}"
            );
        }
    }

    #[test]
    fn texts_of_the_rules() {
        let basic = |c: &mut ClientConfig| {
            c.basic_auth =
                Some(BasicAuth { password: Secret::new("p"), password_file: "f".into(), ..BasicAuth::default() });
        };
        let both_credentials = |c: &mut ClientConfig| {
            c.authorization = Some(Authorization {
                credentials: Secret::new("p"),
                credentials_file: "f".into(),
                ..Authorization::default()
            });
        };
        let cases: Vec<Case> = vec![
            (basic, "at most one of basic_auth password & password_file must be configured"),
            (both_credentials, "at most one of authorization credentials & credentials_file must be configured"),
            (
                |c| c.authorization = Some(Authorization { kind: " Basic ".into(), ..Authorization::default() }),
                "authorization type cannot be set to \"basic\", use \"basic_auth\" block instead",
            ),
            (|c| c.oauth2 = Some(OAuth2 { client_id: "".into(), ..oauth2() }), "oauth2 client_id must be configured"),
            (
                |c| c.oauth2 = Some(OAuth2 { client_secret: Secret::new(""), ..oauth2() }),
                "either oauth2 client_secret or client_secret_file must be configured",
            ),
            (|c| c.oauth2 = Some(OAuth2 { token_url: "".into(), ..oauth2() }), "oauth2 token_url must be configured"),
            (
                |c| c.oauth2 = Some(OAuth2 { client_secret_file: "f".into(), ..oauth2() }),
                "at most one of oauth2 client_secret & client_secret_file must be configured",
            ),
            (
                |c| c.tls_config = TlsConfig { ca_pem: "a".into(), ca_file: "b".into(), ..TlsConfig::default() },
                "at most one of ca_pem and ca_file must be configured",
            ),
            (
                |c| {
                    c.tls_config = TlsConfig {
                        cert_pem: "a".into(),
                        cert_file: "b".into(),
                        key_file: "c".into(),
                        ..TlsConfig::default()
                    }
                },
                "at most one of cert_pem and cert_file must be configured",
            ),
            (
                |c| {
                    c.tls_config = TlsConfig {
                        key_pem: Secret::new("a"),
                        key_file: "b".into(),
                        cert_file: "c".into(),
                        ..TlsConfig::default()
                    }
                },
                "at most one of key_pem and key_file must be configured",
            ),
            (
                |c| c.tls_config.cert_file = "a".into(),
                "exactly one of key_pem or key_file must be configured when a client certificate is configured",
            ),
            (
                |c| c.tls_config.key_file = "a".into(),
                "exactly one of cert_pem or cert_file must be configured when a client key is configured",
            ),
            (|c| c.tls_config.min_version = "SSL3".into(), "unknown TLS version: SSL3"),
            (
                |c| c.proxy.proxy_connect_header = headers("X"),
                "if proxy_connect_header is configured, proxy_url or proxy_from_environment must also be configured",
            ),
            (
                |c| {
                    c.proxy.proxy_from_environment = true;
                    c.proxy.proxy_url = ProxyUrl::new("http://p").unwrap();
                },
                "if proxy_from_environment is configured, proxy_url must not be configured",
            ),
            (
                |c| {
                    c.proxy.proxy_from_environment = true;
                    c.proxy.no_proxy = "a".into();
                },
                "if proxy_from_environment is configured, no_proxy must not be configured",
            ),
            (|c| c.proxy.no_proxy = "a".into(), "if no_proxy is configured, proxy_url must also be configured"),
            (|c| c.http_headers = headers("AUTHORIZATION"), "setting header \"Authorization\" is not allowed"),
            (|c| c.http_headers = headers("x-amz-date"), "setting header \"X-Amz-Date\" is not allowed"),
        ];
        for (change, text) in cases {
            assert_eq!(client(change), Err(text.to_owned()));
        }
        assert_eq!(client(|c| c.http_headers = headers("X-Scope-OrgID")), Ok(()));
    }

    #[test]
    fn every_argument_is_read_by_its_name() {
        let body = r#"
            oauth2 {
                client_id          = "id"
                client_secret_file = "/secret"
                scopes             = ["a"]
                token_url          = "http://tokens/"
                endpoint_params    = { audience = "x" }
                proxy_url          = "http://proxy"
                tls_config { insecure_skip_verify = true }
            }
            tls_config {
                ca_file     = "/ca"
                cert_file   = "/cert"
                key_file    = "/key"
                server_name = "name"
                min_version = "TLS13"
            }
            follow_redirects     = false
            enable_http2         = false
            proxy_url            = "http://user:hunter2@proxy:3128"
            no_proxy             = "a,b"
            proxy_connect_header = { "X-Connect" = ["1", "2"] }
            http_headers         = { "X-Scope-OrgID" = ["tenant"] }
        "#;
        let config = ClientConfig {
            oauth2: Some(OAuth2 {
                client_id: "id".into(),
                client_secret_file: "/secret".into(),
                scopes: vec!["a".into()],
                token_url: "http://tokens/".into(),
                endpoint_params: BTreeMap::from([("audience".into(), "x".into())]),
                proxy: ProxyConfig { proxy_url: ProxyUrl("http://proxy".into()), ..ProxyConfig::default() },
                tls_config: Some(TlsConfig { insecure_skip_verify: true, ..TlsConfig::default() }),
                ..OAuth2::default()
            }),
            tls_config: TlsConfig {
                ca_file: "/ca".into(),
                cert_file: "/cert".into(),
                key_file: "/key".into(),
                server_name: "name".into(),
                min_version: "TLS13".into(),
                ..TlsConfig::default()
            },
            follow_redirects: false,
            enable_http2: false,
            proxy: ProxyConfig {
                proxy_url: ProxyUrl("http://user:hunter2@proxy:3128".into()),
                no_proxy: "a,b".into(),
                proxy_connect_header: BTreeMap::from([("X-Connect".into(), vec![Secret::new("1"), Secret::new("2")])]),
                ..ProxyConfig::default()
            },
            http_headers: BTreeMap::from([("X-Scope-OrgID".into(), vec![Secret::new("tenant")])]),
            ..ClientConfig::default()
        };
        assert_eq!(decoded(body), Ok(config.clone()));
        assert!(!format!("{config:?}").contains("hunter2"));

        let body = r#"
            authorization {
                type             = "Token"
                credentials_file = "/f"
            }
        "#;
        let given = decoded(body).unwrap().authorization.unwrap();
        assert_eq!((given.kind_or_default(), given.credentials_file.as_str()), ("Token", "/f"));
        let body = r#"
            basic_auth {
                username = "u"
                password = "p"
            }
        "#;
        let given = decoded(body).unwrap().basic_auth.unwrap();
        assert_eq!((given.username.as_str(), given.password.expose()), ("u", "p"));
    }

    #[test]
    fn the_rules_hold_for_what_is_decoded() {
        let texts = |body: &str| decoded(body).unwrap_err().join("\n");
        for (body, text) in [
            ("bearer_token = \"a\"\nbearer_token_file = \"b\"", "at most one of basic_auth, authorization, oauth2"),
            ("basic_auth {\npassword = \"a\"\npassword_file = \"b\"\n}", "at most one of basic_auth password"),
            ("authorization {\ntype = \"basic\"\n}", "authorization type cannot be set to \"basic\""),
            ("no_proxy = \"a\"", "if no_proxy is configured, proxy_url must also be configured"),
            ("proxy_url = \"ftp://user:hunter2@host\"", "proxy scheme \"ftp\" is not supported"),
            ("http_headers = { host = [\"a\"] }", "setting header \"Host\" is not allowed"),
            ("tls_config {\nmin_version = \"TLS9\"\n}", "unknown TLS version: TLS9"),
            ("oauth2 {\nclient_id = \"a\"\nclient_secret = \"b\"\n}", "oauth2 token_url must be configured"),
        ] {
            let texts = texts(body);
            assert!(texts.contains(text), "{body}: {texts}");
        }
    }

    /// Bodies that a check refuses, the line at which it says so, and a configuration of the same meaning.
    fn refused_when_built() -> Vec<(String, usize, ClientConfig, String)> {
        let made = || {
            let key = rcgen::KeyPair::generate().unwrap();
            let cert = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
            (cert.pem(), key.serialize_pem())
        };
        let ((cert, key), (_, other_key)) = (made(), made());
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----".to_owned();
        let mut cases = Vec::new();
        let mut case = |body: String, line, change: &dyn Fn(&mut ClientConfig), text: &str| {
            let mut config = ClientConfig::default();
            change(&mut config);
            cases.push((body, line, config, text.to_owned()));
        };
        for pem in ["no pem", &broken] {
            let text = "unable to use specified CA cert inline";
            let body = format!("tls_config {{\nca_pem = {pem:?}\n}}");
            case(body.clone(), 2, &|c| c.tls_config.ca_pem = pem.to_owned(), text);
            let start = "oauth2 {\nclient_id = \"id\"\nclient_secret = \"secret\"\ntoken_url = \"http://token\"\n";
            let tls_config = Some(TlsConfig { ca_pem: pem.to_owned(), ..TlsConfig::default() });
            let change = OAuth2 { tls_config, ..oauth2() };
            case(format!("{start}{body}\n}}"), 6, &|c| c.oauth2 = Some(change.clone()), text);
            let change = OAuth2 {
                scopes: vec!["a".to_owned()],
                endpoint_params: BTreeMap::from([("scope".to_owned(), "b".to_owned())]),
                ..oauth2()
            };
            let body = format!("{start}scopes = [\"a\"]\nendpoint_params = {{ scope = \"b\" }}\n}}");
            let text = "oauth2: cannot overwrite parameter \"scope\"";
            case(body, 6, &|c| c.oauth2 = Some(change.clone()), text);
        }
        for (line, cert, key, text) in [
            (2, "c", key.as_str(), "no certificate found"),
            (3, &cert, "k", "no private key found"),
            (2, &cert, &other_key, "private key does not match public key"),
            (2, &broken, &key, "invalid peer certificate: BadEncoding"),
        ] {
            let body = format!("tls_config {{\ncert_pem = {cert:?}\nkey_pem = {key:?}\n}}");
            let change = |c: &mut ClientConfig| {
                c.tls_config.cert_pem = cert.to_owned();
                c.tls_config.key_pem = Secret::new(key);
            };
            case(body, line, &change, &format!("unable to use specified client cert (inline) & key (inline): {text}"));
        }
        case(
            "tls_config {\nserver_name = \"no name!\"\n}".to_owned(),
            2,
            &|c| c.tls_config.server_name = "no name!".to_owned(),
            "server_name \"no name!\" is not a host name or address",
        );
        let text = "authorization credentials are not valid in a header";
        case("bearer_token = \"a\\nb\"".to_owned(), 1, &|c| c.bearer_token = Secret::new("a\nb"), text);
        let body = |name: &str| format!("authorization {{\n{name} = \"a\\nb\"\n}}");
        let given = Authorization { credentials: Secret::new("a\nb"), ..Authorization::default() };
        case(body("credentials"), 2, &|c| c.authorization = Some(given.clone()), text);
        let given = Authorization { kind: "a\nb".to_owned(), ..Authorization::default() };
        case(body("type"), 2, &|c| c.authorization = Some(given.clone()), text);
        for (name, value, text) in
            [("a b", "c", "header name \"a b\" is not valid"), ("a", "b\nc", "value of header \"a\" is not valid")]
        {
            let headers = || Headers::from([(name.to_owned(), vec![Secret::new(value)])]);
            let body = format!("http_headers = {{ {name:?} = [{value:?}] }}");
            case(body, 1, &|c| c.http_headers = headers(), text);
            let change = |c: &mut ClientConfig| {
                c.proxy.proxy_url = ProxyUrl("http://a".to_owned());
                c.proxy.proxy_connect_header = headers();
            };
            let body = format!("proxy_url = \"http://a\"\nproxy_connect_header = {{ {name:?} = [{value:?}] }}");
            case(body, 2, &change, text);
        }
        cases
    }

    #[tokio::test]
    async fn what_building_a_client_would_refuse_a_check_refuses_with_the_same_words() {
        for (body, line, config, text) in refused_when_built() {
            // The text has a line before the body.
            let place = format!("{}:", line + 1);
            let found = decoded(&body).unwrap_err();
            assert!(found.len() == 1 && found[0].starts_with(&place), "{body}: {found:?}");
            assert!(found[0].ends_with(&format!(" {text}")), "{body}: {found:?}");
            let built = crate::Client::new(config, crate::ClientOptions::default()).await;
            assert_eq!(built.unwrap_err().to_string(), text, "{body}");
        }
    }

    #[tokio::test]
    async fn what_a_client_can_be_built_of_and_what_is_in_files_is_not_refused() {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let (cert, key) = (format!("{cert:?}"), format!("{:?}", key.serialize_pem()));
        for (body, built) in [
            (format!("ca_pem = {cert}\ncert_pem = {cert}\nkey_pem = {key}\nserver_name = \"127.0.0.1\""), true),
            ("ca_pem = \"no pem\"\ninsecure_skip_verify = true".to_owned(), true),
            ("ca_file = \"/nowhere\"".to_owned(), false),
            (format!("cert_file = \"/nowhere\"\nkey_pem = {key}"), false),
            (format!("cert_pem = {cert}\nkey_file = \"/nowhere\""), false),
        ] {
            let config = decoded(&format!("tls_config {{\n{body}\n}}")).expect("it is not refused");
            let client = crate::Client::new(config, crate::ClientOptions::default()).await;
            assert_eq!(client.is_ok(), built, "{body}: {client:?}");
        }
    }

    #[test]
    fn the_list_of_reserved_headers_is_sorted() {
        assert!(RESERVED_HEADERS.is_sorted());
    }

    #[test]
    fn printing_a_configuration_shows_no_secret() {
        let config = ClientConfig {
            bearer_token: Secret::new("hunter2"),
            http_headers: Headers::from([("X".to_owned(), vec![Secret::new("hunter2")])]),
            ..ClientConfig::default()
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
