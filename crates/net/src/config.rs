//! The arguments that every component with an HTTP client shares, with the reference's names, defaults and rules.
//!
//! Message texts are the reference's. Empty text means 'not given', as there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::Secret;

/// Headers by name, each with one or more secret values.
pub type Headers = BTreeMap<String, Vec<Secret>>;

/// How to talk to an HTTP server: authentication, TLS, proxy, redirects.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientConfig {
    /// Basic authentication.
    pub basic_auth: Option<BasicAuth>,
    /// An `Authorization` header of any other type.
    pub authorization: Option<Authorization>,
    /// A token obtained with client credentials.
    pub oauth2: Option<OAuth2>,
    /// A bearer token.
    pub bearer_token: Secret,
    /// A file with a bearer token, read again for every request.
    pub bearer_token_file: String,
    /// TLS towards the server.
    pub tls_config: TlsConfig,
    /// Whether to follow redirects; otherwise the redirect is the response.
    pub follow_redirects: bool,
    /// Whether to offer HTTP/2 in a TLS handshake.
    pub enable_http2: bool,
    /// The proxy to go through.
    pub proxy: ProxyConfig,
    /// Headers added to every request, beside those that are there already.
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

    /// The rules between arguments, those of the blocks within first.
    pub fn check(&self) -> Result<(), String> {
        if let Some(basic_auth) = &self.basic_auth {
            basic_auth.check()?;
        }
        if let Some(authorization) = &self.authorization {
            authorization.check()?;
        }
        if let Some(oauth2) = &self.oauth2 {
            oauth2.check()?;
        }
        self.tls_config.check()?;
        if self.auth_count() > 1 {
            return Err("at most one of basic_auth, authorization, oauth2, bearer_token & bearer_token_file must be \
                        configured"
                .to_owned());
        }
        check_headers(&self.http_headers)?;
        self.proxy.check()
    }
}

/// Basic authentication.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BasicAuth {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
    /// A file with the password, read again for every request.
    pub password_file: String,
}

impl BasicAuth {
    /// The rules between arguments.
    pub fn check(&self) -> Result<(), String> {
        if !self.password.is_empty() && !self.password_file.is_empty() {
            return Err("at most one of basic_auth password & password_file must be configured".to_owned());
        }
        Ok(())
    }
}

/// An `Authorization` header.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authorization {
    /// The type, the word before the credentials. Empty means `Bearer`.
    pub kind: String,
    /// The credentials.
    pub credentials: Secret,
    /// A file with the credentials, read again for every request.
    pub credentials_file: String,
}

impl Authorization {
    /// The type as it is sent.
    pub fn kind_or_default(&self) -> &str {
        match self.kind.trim() {
            "" => "Bearer",
            kind => kind,
        }
    }

    /// The rules between arguments.
    pub fn check(&self) -> Result<(), String> {
        if !self.credentials.is_empty() && !self.credentials_file.is_empty() {
            return Err("at most one of authorization credentials & credentials_file must be configured".to_owned());
        }
        if self.kind_or_default().eq_ignore_ascii_case("basic") {
            return Err("authorization type cannot be set to \"basic\", use \"basic_auth\" block instead".to_owned());
        }
        Ok(())
    }
}

/// The client credentials grant of OAuth 2 (RFC 6749, 4.4).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OAuth2 {
    /// The client's identifier.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: Secret,
    /// A file with the client's secret, read again for every request.
    pub client_secret_file: String,
    /// The scopes to ask for.
    pub scopes: Vec<String>,
    /// Where to ask for a token.
    pub token_url: String,
    /// Further parameters of the token request.
    pub endpoint_params: BTreeMap<String, String>,
    /// The proxy towards the token server.
    pub proxy: ProxyConfig,
    /// TLS towards the token server.
    pub tls_config: Option<TlsConfig>,
}

impl OAuth2 {
    /// The rules between arguments.
    pub fn check(&self) -> Result<(), String> {
        if let Some(tls_config) = &self.tls_config {
            tls_config.check()?;
        }
        if self.client_id.is_empty() {
            return Err("oauth2 client_id must be configured".to_owned());
        }
        if self.client_secret.is_empty() && self.client_secret_file.is_empty() {
            return Err("either oauth2 client_secret or client_secret_file must be configured".to_owned());
        }
        if self.token_url.is_empty() {
            return Err("oauth2 token_url must be configured".to_owned());
        }
        if !self.client_secret.is_empty() && !self.client_secret_file.is_empty() {
            return Err("at most one of oauth2 client_secret & client_secret_file must be configured".to_owned());
        }
        self.proxy.check()
    }
}

/// TLS of a client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsConfig {
    /// The certificate authorities that are trusted, as PEM, in place of the system's.
    pub ca_pem: String,
    /// A file with the certificate authorities that are trusted.
    pub ca_file: String,
    /// The client's certificate chain, as PEM.
    pub cert_pem: String,
    /// A file with the client's certificate chain.
    pub cert_file: String,
    /// The client's private key, as PEM.
    pub key_pem: Secret,
    /// A file with the client's private key.
    pub key_file: String,
    /// The name that the server's certificate must have, in place of the host of the URL.
    pub server_name: String,
    /// Whether to accept any certificate.
    pub insecure_skip_verify: bool,
    /// The lowest version of TLS: `TLS10`, `TLS11`, `TLS12` or `TLS13`. What is below 1.2 means 1.2, because no lower
    /// version is implemented.
    pub min_version: String,
}

impl TlsConfig {
    /// The rules between arguments.
    pub fn check(&self) -> Result<(), String> {
        if !self.ca_pem.is_empty() && !self.ca_file.is_empty() {
            return Err("at most one of ca_pem and ca_file must be configured".to_owned());
        }
        if !self.cert_pem.is_empty() && !self.cert_file.is_empty() {
            return Err("at most one of cert_pem and cert_file must be configured".to_owned());
        }
        if !self.key_pem.is_empty() && !self.key_file.is_empty() {
            return Err("at most one of key_pem and key_file must be configured".to_owned());
        }
        let has_cert = !self.cert_pem.is_empty() || !self.cert_file.is_empty();
        let has_key = !self.key_pem.is_empty() || !self.key_file.is_empty();
        if has_cert && !has_key {
            return Err(
                "exactly one of key_pem or key_file must be configured when a client certificate is configured"
                    .to_owned(),
            );
        }
        if has_key && !has_cert {
            return Err(
                "exactly one of cert_pem or cert_file must be configured when a client key is configured".to_owned()
            );
        }
        match self.min_version.as_str() {
            "" | "TLS10" | "TLS11" | "TLS12" | "TLS13" => Ok(()),
            other => Err(format!("unknown TLS version: {other}")),
        }
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyConfig {
    /// The proxy: `http`, `https`, `socks5` or `socks5h`.
    pub proxy_url: String,
    /// Hosts that are reached without the proxy, separated by commas: see [`crate::NoProxy`].
    pub no_proxy: String,
    /// Whether to take the proxy from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
    pub proxy_from_environment: bool,
    /// Headers of the `CONNECT` request.
    pub proxy_connect_header: Headers,
}

impl ProxyConfig {
    /// The rules between arguments.
    pub fn check(&self) -> Result<(), String> {
        if !self.proxy_connect_header.is_empty() && !self.proxy_from_environment && self.proxy_url.is_empty() {
            return Err("if proxy_connect_header is configured, proxy_url or proxy_from_environment must also be \
                        configured"
                .to_owned());
        }
        if self.proxy_from_environment && !self.proxy_url.is_empty() {
            return Err("if proxy_from_environment is configured, proxy_url must not be configured".to_owned());
        }
        if self.proxy_from_environment && !self.no_proxy.is_empty() {
            return Err("if proxy_from_environment is configured, no_proxy must not be configured".to_owned());
        }
        if self.proxy_url.is_empty() && !self.no_proxy.is_empty() {
            return Err("if no_proxy is configured, proxy_url must also be configured".to_owned());
        }
        Ok(())
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

fn check_headers(headers: &Headers) -> Result<(), String> {
    for name in headers.keys() {
        if RESERVED_HEADERS.binary_search(&name.to_ascii_lowercase().as_str()).is_ok() {
            return Err(format!("setting header \"{}\" is not allowed", canonical_name(name)));
        }
    }
    Ok(())
}

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
    use super::*;

    /// A change of the defaults and the text that it gives.
    type Case = (fn(&mut ClientConfig), &'static str);

    fn client(change: impl FnOnce(&mut ClientConfig)) -> Result<(), String> {
        let mut config = ClientConfig::default();
        change(&mut config);
        config.check()
    }

    fn headers(name: &str) -> Headers {
        Headers::from([(name.to_owned(), vec![Secret::from("x")])])
    }

    fn oauth2() -> OAuth2 {
        OAuth2 {
            client_id: "id".into(),
            client_secret: "secret".into(),
            token_url: "http://token".into(),
            ..OAuth2::default()
        }
    }

    #[test]
    fn the_defaults_follow_redirects_and_offer_http2() {
        let config = ClientConfig::default();
        assert!(config.follow_redirects && config.enable_http2 && !config.has_auth());
        assert_eq!(config.check(), Ok(()));
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
                    c.bearer_token = "t".into();
                }),
                Err(TEXT.to_owned()),
                "{index}"
            );
        }
    }

    #[test]
    fn texts_of_the_rules() {
        let basic = |c: &mut ClientConfig| {
            c.basic_auth = Some(BasicAuth { password: "p".into(), password_file: "f".into(), ..BasicAuth::default() });
        };
        let both_credentials = |c: &mut ClientConfig| {
            c.authorization = Some(Authorization {
                credentials: "p".into(),
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
                |c| c.oauth2 = Some(OAuth2 { client_secret: "".into(), ..oauth2() }),
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
                |c| c.tls_config = TlsConfig { cert_pem: "a".into(), cert_file: "b".into(), ..TlsConfig::default() },
                "at most one of cert_pem and cert_file must be configured",
            ),
            (
                |c| c.tls_config = TlsConfig { key_pem: "a".into(), key_file: "b".into(), ..TlsConfig::default() },
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
                    c.proxy.proxy_url = "http://p".into();
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
    fn the_list_of_reserved_headers_is_sorted() {
        assert!(RESERVED_HEADERS.is_sorted());
    }

    #[test]
    fn printing_a_configuration_shows_no_secret() {
        let config = ClientConfig {
            bearer_token: "hunter2".into(),
            http_headers: Headers::from([("X".to_owned(), vec!["hunter2".into()])]),
            ..ClientConfig::default()
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
