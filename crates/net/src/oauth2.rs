//! Tokens by the client credentials grant of OAuth 2 (RFC 6749, 4.4), and by that of JWT bearer assertions (RFC 7523).

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderValue, Method, Request, StatusCode, header};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaEncoding};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use url::form_urlencoded::{Serializer, byte_serialize, parse};

use crate::cloud::rsa_key;
use crate::config::{ClientConfig, OAuth2};
use crate::files::{off_thread, read_secret};
use crate::{Body, Client, ClientOptions, Error, ErrorKind, Secret};

/// The largest answer of a token server that is read.
const TOKEN_RESPONSE_BYTES_MAX: usize = 1 << 20;
/// A token is not used in the last moments before it expires, because the request takes time too.
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);
/// How long a token request may take, so that a hanging token server does not hold up requests without a deadline.
const TOKEN_REQUEST_MS_MAX: u64 = 30_000;
/// How long an assertion is good.
const ASSERTION_SECONDS: u64 = 1_800;
/// The name of the grant of JWT bearer assertions.
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// A text, or a file that it is read from anew for each token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextOrFile {
    /// The text.
    pub text: Secret,
    /// The file. It wins over the text unless its name is empty.
    pub file: String,
}

impl TextOrFile {
    async fn read(&self, what: &str) -> Result<Secret, Error> {
        if self.file.is_empty() {
            return Ok(self.text.clone());
        }
        let file = PathBuf::from(&self.file);
        off_thread(move || read_secret(&file)).await?.map_err(|error| error.context(format!("unable to read {what}")))
    }
}

/// How tokens are obtained.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// Where to ask for a token.
    pub token_url: String,
    /// The client's identifier.
    pub client_id: TextOrFile,
    /// What the client shows.
    pub grant: Grant,
    /// The scopes to ask for.
    pub scopes: Vec<String>,
    /// Further parameters of the token request.
    pub endpoint_params: Vec<(String, String)>,
    /// How long before its end a token is not used any more. What exceeds ten seconds is at most half of its time.
    pub expiry_margin: Duration,
    /// How long a token request may take.
    pub timeout: Duration,
}

/// What a client shows a token server.
#[derive(Clone, Debug)]
pub enum Grant {
    /// Its secret.
    ClientCredentials(TextOrFile),
    /// An assertion that it signs.
    JwtBearer(JwtBearer),
}

/// How an assertion is made.
#[derive(Clone, Debug)]
pub struct JwtBearer {
    /// The private key, RSA as PEM.
    pub key: TextOrFile,
    /// The name of the key; empty text is none.
    pub key_id: String,
    /// How it is signed: `RS256`, `RS384` or `RS512`.
    pub algorithm: &'static str,
    /// Who issues it; empty text is the client.
    pub issuer: String,
    /// Whom it is for; empty text is the token server.
    pub audience: String,
    /// What else it says. It wins over all that it says by itself.
    pub claims: Map<String, Value>,
}

/// Gets tokens and keeps the last one.
pub struct TokenSource {
    settings: TokenSettings,
    /// The client towards the token server, with a proxy and TLS of its own.
    client: Client,
    state: Mutex<State>,
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSource").field("token_url", &self.settings.token_url).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// How the token server wants the client's credentials: found out with the first request.
    style: Option<Style>,
    /// When the last attempt that failed ended, and why it failed.
    failed: Option<(Instant, Error)>,
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
    /// What it was obtained with: with another secret in the file a new token is needed.
    shown: Shown,
    /// Until when it is used.
    until: Option<Instant>,
}

/// The client's identifier, and its secret or its key.
#[derive(Clone, PartialEq)]
struct Shown {
    id: Secret,
    secret: Secret,
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
        let settings = TokenSettings {
            token_url: config.token_url,
            client_id: TextOrFile { text: Secret::new(config.client_id), file: String::new() },
            grant: Grant::ClientCredentials(TextOrFile { text: config.client_secret, file: config.client_secret_file }),
            scopes: config.scopes,
            endpoint_params: config.endpoint_params.into_iter().collect(),
            expiry_margin: EXPIRY_MARGIN,
            timeout: Duration::from_millis(TOKEN_REQUEST_MS_MAX),
        };
        Ok(Self::with_client(settings, Client::new_boxed(client_config, client_options).await?))
    }

    /// A source that asks with a client of its own.
    pub fn with_client(settings: TokenSettings, client: Client) -> Self {
        Self { settings, client, state: Mutex::default() }
    }

    /// The value of the `Authorization` header, from a token that is still good or a new one. Requests that come while
    /// a token is fetched wait for that one.
    ///
    /// # Errors
    ///
    /// Why there is no token.
    pub async fn authorization(&self) -> Result<HeaderValue, Error> {
        let (source, what) = match &self.settings.grant {
            Grant::ClientCredentials(secret) => (secret, "oauth2 client secret"),
            Grant::JwtBearer(jwt) => (&jwt.key, "oauth2 client certificate key"),
        };
        let id = self.settings.client_id.read("oauth2 client id").await?;
        let shown = Shown { id, secret: source.read(what).await? };
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        // Whoever waited for an attempt that failed is not to wait for one more, and for those of all before it.
        if let Some((failed, error)) = &state.failed
            && *failed >= asked
        {
            return Err(error.clone());
        }
        if let Some(token) = &state.token
            && token.shown == shown
            && token.until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(token.authorization.clone());
        }
        let token = match self.fetch(&mut state.style, shown).await {
            Ok(token) => token,
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        };
        let authorization = token.authorization.clone();
        state.token = Some(token);
        Ok(authorization)
    }

    /// Drops a token that a server has refused, so that the next request gets a new one.
    pub async fn forget(&self, refused: &HeaderValue) {
        let mut state = self.state.lock().await;
        if state.token.as_ref().is_some_and(|token| token.authorization == refused) {
            state.token = None;
        }
    }

    async fn fetch(&self, style: &mut Option<Style>, shown: Shown) -> Result<Token, Error> {
        // An assertion stands for the credentials, wherever they would stand.
        let known = style.or_else(|| matches!(self.settings.grant, Grant::JwtBearer(_)).then_some(Style::Params));
        let mut outcome = self.attempt(known.unwrap_or(Style::Header), &shown).await;
        let mut used = known.unwrap_or(Style::Header);
        // A server that takes credentials only in the body says so in many ways: any refusal is taken as one.
        if known.is_none() && matches!(&outcome, Err(Refused { answered: true, .. })) {
            used = Style::Params;
            outcome = self.attempt(used, &shown).await;
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

    async fn attempt(&self, style: Style, shown: &Shown) -> Result<Token, Refused> {
        let limit = self.settings.timeout;
        match tokio::time::timeout(limit, self.fetch_as(style, shown)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let error = Error::new(ErrorKind::Timeout, format!("no answer within {limit:?}"));
                Err(Refused { error, answered: false })
            }
        }
    }

    async fn fetch_as(&self, style: Style, shown: &Shown) -> Result<Token, Refused> {
        let request = self.token_request(style, shown).map_err(|error| Refused { error, answered: false })?;
        let response = self.client.request_boxed(request).await.map_err(|error| Refused { error, answered: false })?;
        let (parts, body) = response.into_parts();
        let status = parts.status;
        let refused = |error| Refused { error, answered: true };
        let body = body.read(TOKEN_RESPONSE_BYTES_MAX).await.map_err(refused)?;
        if !status.is_success() {
            return Err(refused(Error::new(ErrorKind::Auth, describe_refusal(status, &body, &shown.secret))));
        }
        let content_type = parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let answer = parse_answer(content_type, &body).map_err(|text| refused(Error::new(ErrorKind::Auth, text)))?;
        let mut authorization = HeaderValue::from_str(&format!("{} {}", answer.kind, answer.token))
            .map_err(|_| refused(Error::new(ErrorKind::Auth, "token is not valid in a header")))?;
        authorization.set_sensitive(true);
        let margin = |wait: Duration| self.settings.expiry_margin.min((wait / 2).max(EXPIRY_MARGIN));
        let used = answer.expires_in.map(|wait| wait.saturating_sub(margin(wait)));
        let until = used.and_then(|used| Instant::now().checked_add(used));
        Ok(Token { authorization, shown: shown.clone(), until })
    }

    fn token_request(&self, style: Style, shown: &Shown) -> Result<Request<Body>, Error> {
        let mut form = Serializer::new(String::new());
        let params = &self.settings.endpoint_params;
        let scopes = self.settings.scopes.join(" ");
        let is_jwt = matches!(self.settings.grant, Grant::JwtBearer(_));
        if !params.iter().any(|(name, _)| name == "grant_type") {
            form.append_pair("grant_type", if is_jwt { JWT_BEARER } else { "client_credentials" });
        }
        if !scopes.is_empty() {
            form.append_pair("scope", &scopes);
        }
        form.extend_pairs(params);
        match &self.settings.grant {
            Grant::JwtBearer(jwt) => {
                let assertion = jwt.assertion(&self.settings.token_url, &scopes, shown, SystemTime::now())?;
                form.append_pair("assertion", assertion.expose());
            }
            Grant::ClientCredentials(_) if style == Style::Params => {
                form.append_pair("client_id", shown.id.expose());
                form.append_pair("client_secret", shown.secret.expose());
            }
            Grant::ClientCredentials(_) => {}
        }
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.settings.token_url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form.finish()))
            .map_err(|_| Error::new(ErrorKind::Request, "token_url is not valid"))?;
        if style == Style::Header {
            // RFC 6749, 2.3.1: both parts are encoded as in a form before they are joined.
            let encode = |text: &Secret| byte_serialize(text.expose().as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encode(&shown.id), encode(&shown.secret));
            let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)));
            let mut value = value.map_err(|_| Error::new(ErrorKind::Request, "credentials are not valid"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        Ok(request)
    }
}

impl JwtBearer {
    fn assertion(&self, token_url: &str, scopes: &str, shown: &Shown, now: SystemTime) -> Result<Secret, Error> {
        let config = |text: &str| Error::new(ErrorKind::Auth, text);
        let key = rsa_key(shown.secret.expose()).ok_or_else(|| config("client certificate key is no RSA key"))?;
        let encoding: &dyn RsaEncoding = match self.algorithm {
            "RS384" => &RSA_PKCS1_SHA384,
            "RS512" => &RSA_PKCS1_SHA512,
            _ => &RSA_PKCS1_SHA256,
        };
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
        let mut claims = json!({
            "iss": or(&self.issuer, shown.id.expose()),
            "sub": shown.id.expose(),
            "jti": random_uuid()?,
            "aud": or(&self.audience, token_url),
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
        });
        if let Some(claims) = claims.as_object_mut() {
            if !scopes.is_empty() {
                claims.insert("scope".to_owned(), scopes.into());
            }
            claims.extend(self.claims.clone());
        }
        let mut head = json!({ "alg": self.algorithm, "typ": "JWT" });
        if !self.key_id.is_empty() {
            head["kid"] = self.key_id.clone().into();
        }
        let encode = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let text = format!("{}.{}", encode(head), encode(claims));
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(encoding, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| config("client certificate key cannot sign"))?;
        Ok(Secret::new(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

/// A UUID of version 4.
fn random_uuid() -> Result<String, Error> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::new(ErrorKind::Auth, "the system has no randomness"))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = |range: std::ops::Range<usize>| bytes[range].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(format!("{}-{}-{}-{}-{}", hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16)))
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

    #[tokio::test]
    async fn those_that_wait_for_a_token_do_not_wait_for_one_failure_after_the_other() {
        // Nobody accepts: connections are made, and nothing is answered.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let grant = Grant::ClientCredentials(TextOrFile { text: Secret::new("x"), file: String::new() });
        let token_url = format!("http://{}", listener.local_addr().unwrap());
        let settings = TokenSettings { token_url, timeout: Duration::from_millis(300), ..settings(grant) };
        let client = Client::new(ClientConfig::default(), ClientOptions::default()).await.unwrap();
        let source = std::sync::Arc::new(TokenSource::with_client(settings, client));
        let begun = Instant::now();
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let source = std::sync::Arc::clone(&source);
            all.spawn(async move { source.authorization().await.map(drop).unwrap_err().kind() });
        }
        assert!(all.join_all().await.iter().all(|kind| *kind == ErrorKind::Timeout));
        // One after the other would take fifteen seconds.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }

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

    fn settings(grant: Grant) -> TokenSettings {
        TokenSettings {
            token_url: "http://token".to_owned(),
            client_id: TextOrFile { text: Secret::new("me"), file: String::new() },
            grant,
            scopes: vec!["a".to_owned(), "b".to_owned()],
            endpoint_params: vec![("audience".to_owned(), "x y".to_owned())],
            expiry_margin: Duration::from_secs(300),
            timeout: Duration::from_secs(1),
        }
    }

    #[tokio::test]
    async fn an_assertion_says_what_it_is_told_and_is_signed() {
        use ring::signature::{
            KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaParameters,
            UnparsedPublicKey,
        };
        const KEY: &str = include_str!("cloud/test_rsa_key.pem");
        let algorithms: [(_, &'static RsaParameters); 3] = [
            ("RS256", &RSA_PKCS1_2048_8192_SHA256),
            ("RS384", &RSA_PKCS1_2048_8192_SHA384),
            ("RS512", &RSA_PKCS1_2048_8192_SHA512),
        ];
        for (algorithm, parameters) in algorithms {
            let key = TextOrFile { text: Secret::new(KEY), file: String::new() };
            let claims = json!({"jti": "1", "own": [true]}).as_object().unwrap().clone();
            let (key_id, audience, issuer) = ("k1".to_owned(), String::new(), "us".to_owned());
            let grant = Grant::JwtBearer(JwtBearer { key, key_id, algorithm, issuer, audience, claims });
            let client = Client::new(ClientConfig::default(), ClientOptions::default()).await.unwrap();
            let source = TokenSource::with_client(settings(grant), client);
            let shown = Shown { id: Secret::new("me"), secret: Secret::new(KEY) };
            let request = source.token_request(Style::Params, &shown).unwrap();
            assert!(request.headers().get(header::AUTHORIZATION).is_none());
            let body: Vec<u8> = request.body().chunks().flat_map(|chunk| chunk.to_vec()).collect();
            let mut form: Vec<(String, String)> = parse(&body).into_owned().collect();
            let (name, assertion) = form.pop().unwrap();
            assert_eq!(name, "assertion");
            let want = [("grant_type", JWT_BEARER), ("scope", "a b"), ("audience", "x y")];
            assert_eq!(form, want.map(|(name, value)| (name.to_owned(), value.to_owned())));
            let (text, signature) = assertion.rsplit_once('.').unwrap();
            let public = rsa_key(KEY).unwrap();
            UnparsedPublicKey::new(parameters, public.public_key().as_ref())
                .verify(text.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
                .unwrap();
            let part = |at: usize| -> Value {
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text.split('.').nth(at).unwrap()).unwrap()).unwrap()
            };
            assert_eq!(part(0), json!({"alg": algorithm, "typ": "JWT", "kid": "k1"}));
            let mut claims = part(1);
            let (from, until) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
            assert_eq!(until - from, ASSERTION_SECONDS);
            for time in ["iat", "exp"] {
                claims.as_object_mut().unwrap().remove(time);
            }
            let want =
                json!({"iss": "us", "sub": "me", "aud": "http://token", "scope": "a b", "jti": "1", "own": [true]});
            assert_eq!(claims, want);
        }
        assert_eq!(random_uuid().unwrap().len(), 36);
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
