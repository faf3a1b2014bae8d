//! Tokens by the client credentials grant of OAuth 2 (RFC 6749, 4.4).

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Method, Request, StatusCode, header};
use tokio::sync::Mutex;
use url::form_urlencoded::{Serializer, byte_serialize, parse};

use crate::config::{ClientConfig, OAuth2};
use crate::files::{off_thread, read_secret};
use crate::{Body, Client, ClientOptions, Error, ErrorKind, Secret};

/// The largest answer of a token server that is read.
const TOKEN_RESPONSE_BYTES_MAX: usize = 1 << 20;
/// A token is not used in the last moments before it expires, because the request takes time too.
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);
/// How long a token request may take, so that a hanging token server does not hold up requests without a deadline.
const TOKEN_REQUEST_MS_MAX: u64 = 30_000;

/// Gets tokens and keeps the last one.
pub(crate) struct TokenSource {
    config: OAuth2,
    /// The client towards the token server, with a proxy and TLS of its own.
    client: Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// How the token server wants the client's credentials: found out with the first request.
    style: Option<Style>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Style {
    /// In the `Authorization` header.
    Header,
    /// In the body.
    Params,
}

struct Token {
    /// The whole value of the `Authorization` header.
    authorization: HeaderValue,
    /// The secret it was obtained with: a new secret in the file needs a new token.
    secret: Secret,
    expires: Option<Instant>,
}

/// Why a token request failed, and whether the server answered: then the other style of sending credentials may help.
struct Refused {
    error: Error,
    answered: bool,
}

impl TokenSource {
    pub(crate) async fn new(config: OAuth2, options: &ClientOptions) -> Result<Self, Error> {
        config.check_params().map_err(Error::config)?;
        let client_config = ClientConfig {
            tls_config: config.tls_config.clone().unwrap_or_default(),
            proxy: config.proxy.clone(),
            enable_http2: false,
            ..ClientConfig::default()
        };
        let client_options = ClientOptions {
            user_agent: options.user_agent.clone(),
            dialer: options.dialer.clone(),
            connect_timeout: options.connect_timeout,
            ..ClientOptions::default()
        };
        let client = Client::new_boxed(client_config, client_options).await?;
        Ok(Self { config, client, state: Mutex::default() })
    }

    /// The value of the `Authorization` header, from a token that is still good or a new one. Requests that come while
    /// a token is fetched wait for that one.
    pub(crate) async fn authorization(&self) -> Result<HeaderValue, Error> {
        let secret = match self.config.client_secret_file.as_str() {
            "" => self.config.client_secret.clone(),
            file => {
                let file = std::path::PathBuf::from(file);
                off_thread(move || read_secret(&file))
                    .await?
                    .map_err(|error| error.context("unable to read oauth2 client secret"))?
            }
        };
        let mut state = self.state.lock().await;
        if let Some(token) = &state.token
            && token.secret == secret
            && token.expires.is_none_or(|expires| Instant::now() + EXPIRY_MARGIN < expires)
        {
            return Ok(token.authorization.clone());
        }
        let token = self.fetch(&mut state.style, secret).await?;
        let authorization = token.authorization.clone();
        state.token = Some(token);
        Ok(authorization)
    }

    /// Drops a token that a server has refused, so that the next request gets a new one.
    pub(crate) async fn forget(&self, refused: &HeaderValue) {
        let mut state = self.state.lock().await;
        if state.token.as_ref().is_some_and(|token| token.authorization == refused) {
            state.token = None;
        }
    }

    async fn fetch(&self, style: &mut Option<Style>, secret: Secret) -> Result<Token, Error> {
        let mut outcome = self.attempt(style.unwrap_or(Style::Header), &secret).await;
        let mut used = style.unwrap_or(Style::Header);
        // A server that takes credentials only in the body says so in many ways: any refusal is taken as one.
        if style.is_none() && matches!(&outcome, Err(Refused { answered: true, .. })) {
            used = Style::Params;
            outcome = self.attempt(used, &secret).await;
        }
        if outcome.is_ok() {
            *style = Some(used);
        }
        outcome.map_err(|refused| {
            let kind = match refused.error.kind() {
                ErrorKind::Protocol | ErrorKind::TooLarge => ErrorKind::Auth,
                kind => kind,
            };
            Error::new(kind, format!("oauth2: cannot fetch token: {}", refused.error))
        })
    }

    async fn attempt(&self, style: Style, secret: &Secret) -> Result<Token, Refused> {
        let limit = Duration::from_millis(TOKEN_REQUEST_MS_MAX);
        match tokio::time::timeout(limit, self.fetch_as(style, secret)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let error = Error::new(ErrorKind::Timeout, format!("no answer within {limit:?}"));
                Err(Refused { error, answered: false })
            }
        }
    }

    async fn fetch_as(&self, style: Style, secret: &Secret) -> Result<Token, Refused> {
        let request = self.token_request(style, secret).map_err(|error| Refused { error, answered: false })?;
        let response = self.client.request_boxed(request).await.map_err(|error| Refused { error, answered: false })?;
        let (parts, body) = response.into_parts();
        let status = parts.status;
        let refused = |error| Refused { error, answered: true };
        let body = body.read(TOKEN_RESPONSE_BYTES_MAX).await.map_err(refused)?;
        if !status.is_success() {
            return Err(refused(Error::new(ErrorKind::Auth, describe_refusal(status, &body, secret))));
        }
        let content_type = parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let answer = parse_answer(content_type, &body).map_err(|text| refused(Error::new(ErrorKind::Auth, text)))?;
        let mut authorization = HeaderValue::from_str(&format!("{} {}", answer.kind, answer.token))
            .map_err(|_| refused(Error::new(ErrorKind::Auth, "token is not valid in a header")))?;
        authorization.set_sensitive(true);
        let expires = answer.expires_in.and_then(|wait| Instant::now().checked_add(wait));
        Ok(Token { authorization, secret: secret.clone(), expires })
    }

    fn token_request(&self, style: Style, secret: &Secret) -> Result<Request<Body>, Error> {
        let mut form = Serializer::new(String::new());
        let params = &self.config.endpoint_params;
        if !params.contains_key("grant_type") {
            form.append_pair("grant_type", "client_credentials");
        }
        if !self.config.scopes.is_empty() {
            form.append_pair("scope", &self.config.scopes.join(" "));
        }
        form.extend_pairs(params);
        if style == Style::Params {
            form.append_pair("client_id", &self.config.client_id);
            form.append_pair("client_secret", secret.expose());
        }
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.config.token_url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form.finish()))
            .map_err(|_| Error::new(ErrorKind::Request, "token_url is not valid"))?;
        if style == Style::Header {
            // RFC 6749, 2.3.1: both parts are encoded as in a form before they are joined.
            let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encode(&self.config.client_id), encode(secret.expose()));
            let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)));
            let mut value = value.map_err(|_| Error::new(ErrorKind::Request, "credentials are not valid"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        Ok(request)
    }
}

/// What a token server granted.
#[derive(Debug, PartialEq)]
struct Answer {
    kind: String,
    token: String,
    expires_in: Option<Duration>,
}

/// Reads a token response: JSON, or a form as some servers still answer. The errors hold nothing of it.
fn parse_answer(content_type: &[u8], body: &[u8]) -> Result<Answer, String> {
    let media_type = content_type.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
    let (token, kind, expires_in) = if media_type == b"application/x-www-form-urlencoded" || media_type == b"text/plain"
    {
        let field = |name: &str| parse(body).find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        let expires_in = field("expires_in").and_then(|text| text.parse::<f64>().ok());
        (field("access_token"), field("token_type"), expires_in)
    } else {
        let json: serde_json::Value =
            serde_json::from_slice(body).map_err(|_| "response is not valid JSON".to_owned())?;
        let text = |name: &str| json.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        // Some servers write the number as a string.
        let number = |value: &serde_json::Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
        (text("access_token"), text("token_type"), json.get("expires_in").and_then(number))
    };
    let token = token.filter(|token| !token.is_empty()).ok_or("response has no access_token")?;
    let kind = match kind.unwrap_or_default() {
        kind if kind.is_empty() || kind.eq_ignore_ascii_case("bearer") => "Bearer".to_owned(),
        kind if kind.eq_ignore_ascii_case("mac") => "MAC".to_owned(),
        kind if kind.eq_ignore_ascii_case("basic") => "Basic".to_owned(),
        kind => kind,
    };
    // Zero or less means that the server does not say.
    let expires_in =
        expires_in.filter(|seconds| *seconds > 0.0).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok(Answer { kind, token, expires_in })
}

/// The status and the two fields that RFC 6749, 5.2 gives for people to read. The rest of the answer is not shown,
/// because servers repeat parameters in it.
fn describe_refusal(status: StatusCode, body: &[u8], secret: &Secret) -> String {
    const SHOWN_CHARS_MAX: usize = 256;
    let mut text = status.to_string();
    if let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) {
        for name in ["error", "error_description"] {
            if let Some(value) = json.get(name).and_then(|value| value.as_str())
                && !value.contains(secret.expose())
            {
                let shown: String = value.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect();
                text.push_str(": ");
                text.push_str(&shown);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_forms_of_a_token_response() {
        let answer = |kind: &str, token: &str, seconds: Option<u64>| {
            Ok(Answer { kind: kind.into(), token: token.into(), expires_in: seconds.map(Duration::from_secs) })
        };
        for (content_type, body, outcome) in [
            ("application/json", r#"{"access_token":"t","expires_in":60}"#, answer("Bearer", "t", Some(60))),
            ("", r#"{"access_token":"t","token_type":"bearer","expires_in":"60"}"#, answer("Bearer", "t", Some(60))),
            ("application/json", r#"{"access_token":"t","token_type":"DPoP"}"#, answer("DPoP", "t", None)),
            ("application/json", r#"{"access_token":"t","expires_in":0}"#, answer("Bearer", "t", None)),
            ("application/json", r#"{"access_token":"t","expires_in":1e300}"#, answer("Bearer", "t", None)),
            (
                "application/x-www-form-urlencoded; charset=utf-8",
                "access_token=a%2Bb&token_type=mac&expires_in=5",
                answer("MAC", "a+b", Some(5)),
            ),
            ("application/json", r#"{"access_token":""}"#, Err("response has no access_token".to_owned())),
            ("application/json", "[]", Err("response has no access_token".to_owned())),
            ("application/json", "<html>hunter2", Err("response is not valid JSON".to_owned())),
        ] {
            assert_eq!(parse_answer(content_type.as_bytes(), body.as_bytes()), outcome, "{body}");
        }
    }

    #[test]
    fn a_refusal_shows_only_what_is_meant_for_people() {
        let body = br#"{"error":"invalid_client","error_description":"no\nsuch client","client_secret":"hunter2"}"#;
        assert_eq!(
            describe_refusal(StatusCode::UNAUTHORIZED, body, &Secret::new("hunter2")),
            "401 Unauthorized: invalid_client: nosuch client"
        );
        let echo = br#"{"error":"hunter2 is wrong"}"#;
        assert_eq!(describe_refusal(StatusCode::BAD_GATEWAY, echo, &Secret::new("hunter2")), "502 Bad Gateway");
        assert_eq!(describe_refusal(StatusCode::BAD_GATEWAY, b"hunter2", &Secret::new("x")), "502 Bad Gateway");
    }

    proptest! {
        #[test]
        fn reading_a_token_response_never_panics(content_type in "(application/json|text/plain)?", body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse_answer(content_type.as_bytes(), &body);
            describe_refusal(StatusCode::OK, &body, &Secret::new("x"));
        }
    }
}
