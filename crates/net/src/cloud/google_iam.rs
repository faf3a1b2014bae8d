//! Tokens of Google Cloud.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use corten_config::Arguments;
use http::{HeaderMap, HeaderName};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};

use super::time::unix_seconds;
use super::{
    Bearer, BoxFuture, Lease, Outside, Tokens, auth, bearer, get, post_form, read_file, sensitive, token_answer,
    with_query,
};
use crate::files::off_thread;
use crate::{ClientOptions, Error, Secret, Sign};

const SCOPE: &str = "https://www.googleapis.com/auth/monitoring.write";
/// Where tokens come from, unless the file of credentials says otherwise.
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
/// How long before it expires a token is obtained again.
const RENEWAL_MARGIN: Duration = Duration::from_secs(225);
/// How long a signed request for a token is good: the longest that is allowed.
const ASSERTION_SECONDS: u64 = 3_600;

/// Bearer tokens of Google Cloud.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct GoogleIamConfig {
    /// The file with the credentials of a service account or user. Empty means the application default credentials.
    #[arg(optional)]
    pub credentials_file: String,
}

impl GoogleIamConfig {
    /// Makes a signer that adds a bearer token. The file of credentials is read; a token is obtained with the first
    /// request and kept until shortly before it expires.
    ///
    /// # Errors
    /// Of kind `Auth` when the file cannot be read or used.
    pub async fn signer(&self, options: &ClientOptions) -> Result<Arc<dyn Sign>, Error> {
        self.signer_in(Outside::new(options).await?).await
    }

    async fn signer_in(&self, outside: Outside) -> Result<Arc<dyn Sign>, Error> {
        let source = if self.credentials_file.is_empty() {
            let found = default_source(&outside).await;
            found.map_err(|error| auth(format!("error finding default Google credentials: {error}")))?
        } else {
            read_source(PathBuf::from(&self.credentials_file)).await?
        };
        let mut project = outside.env("GOOGLE_CLOUD_QUOTA_PROJECT");
        if let Source::Account(Account { quota_project, .. }) | Source::User(User { quota_project, .. }) = &source {
            project = project.or_else(|| quota_project.clone());
        }
        Ok(Bearer::signer(GoogleTokens { outside, source, project }))
    }
}

/// The application default credentials: a file of the environment, that of the command line tools, or the machine's.
async fn default_source(outside: &Outside) -> Result<Source, Error> {
    if let Some(file) = outside.env("GOOGLE_APPLICATION_CREDENTIALS") {
        return read_source(file.into()).await;
    }
    let folder = match outside.env("APPDATA").filter(|_| cfg!(windows)) {
        Some(folder) => Some(PathBuf::from(folder)),
        None => outside.home().map(|home| home.join(".config")),
    };
    if let Some(folder) = folder {
        let file = folder.join("gcloud").join("application_default_credentials.json");
        let looked_at = file.clone();
        if off_thread(move || looked_at.exists()).await? {
            return read_source(file).await;
        }
    }
    let host = outside.env("GCE_METADATA_HOST").unwrap_or_else(|| "169.254.169.254".to_owned());
    Ok(Source::Machine { host })
}

async fn read_source(file: PathBuf) -> Result<Source, Error> {
    let name = file.display().to_string();
    let text = read_file(file).await?;
    Source::parse(text.expose()).map_err(|text| auth(format!("credentials file {name}: {text}")))
}

/// How tokens are asked for.
enum Source {
    Account(Account),
    User(User),
    Machine { host: String },
}

/// A service account with its key.
struct Account {
    email: String,
    key: Box<RsaKeyPair>,
    key_id: String,
    token_url: String,
    quota_project: Option<String>,
}

/// A user who has given consent.
struct User {
    client_id: String,
    client_secret: Secret,
    refresh_token: Secret,
    token_url: String,
    quota_project: Option<String>,
}

impl Source {
    /// Reads a file of credentials. The errors hold nothing secret of it.
    fn parse(text: &str) -> Result<Self, String> {
        let json: serde_json::Value = serde_json::from_str(text).map_err(|_| "it is not valid JSON".to_owned())?;
        let optional = |name: &str| {
            json.get(name).and_then(|value| value.as_str()).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let field = |name: &str| optional(name).ok_or_else(|| format!("it has no {name}"));
        let token_url = optional("token_uri").unwrap_or_else(|| TOKEN_URL.to_owned());
        let quota_project = optional("quota_project_id");
        match field("type")?.as_str() {
            "service_account" => Ok(Self::Account(Account {
                email: field("client_email")?,
                key: Box::new(parse_key(&field("private_key")?)?),
                key_id: optional("private_key_id").unwrap_or_default(),
                token_url,
                quota_project,
            })),
            "authorized_user" => Ok(Self::User(User {
                client_id: field("client_id")?,
                client_secret: Secret::new(field("client_secret")?),
                refresh_token: Secret::new(field("refresh_token")?),
                token_url,
                quota_project,
            })),
            "external_account" | "external_account_authorized_user" | "impersonated_service_account" => {
                Err(format!("credentials of type {} are not supported", field("type")?))
            }
            _ => Err("credentials are of an unknown type".to_owned()),
        }
    }
}

fn parse_key(pem: &str) -> Result<RsaKeyPair, String> {
    super::rsa_key(pem).ok_or_else(|| "private_key is not a valid RSA key".to_owned())
}

impl Account {
    /// A signed request for a token, RFC 7523.
    fn assertion(&self, now_seconds: u64) -> Result<Secret, Error> {
        let header = serde_json::json!({ "alg": "RS256", "kid": self.key_id, "typ": "JWT" });
        let claims = serde_json::json!({
            "aud": self.token_url,
            "exp": now_seconds + ASSERTION_SECONDS,
            "iat": now_seconds,
            "iss": self.email,
            "scope": SCOPE,
        });
        let encode = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let text = format!("{}.{}", encode(header), encode(claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| auth("private key of the service account cannot sign"))?;
        Ok(Secret::new(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

struct GoogleTokens {
    outside: Outside,
    source: Source,
    /// The project that requests are counted for.
    project: Option<String>,
}

impl Tokens for GoogleTokens {
    fn fetch(&self) -> BoxFuture<'_, Result<Lease<HeaderMap>, Error>> {
        Box::pin(async move {
            let outside = &self.outside;
            let answer = match &self.source {
                Source::Account(account) => {
                    let assertion = account.assertion(unix_seconds(outside.now()))?;
                    let form = [
                        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                        ("assertion", assertion.expose()),
                    ];
                    let answer = outside.ask_far(post_form(&account.token_url, &form)?).await?;
                    answer.success(&[assertion.expose()])?
                }
                Source::User(user) => {
                    let form = [
                        ("client_id", user.client_id.as_str()),
                        ("client_secret", user.client_secret.expose()),
                        ("refresh_token", user.refresh_token.expose()),
                        ("grant_type", "refresh_token"),
                    ];
                    let answer = outside.ask_far(post_form(&user.token_url, &form)?).await?;
                    answer.success(&[user.client_secret.expose(), user.refresh_token.expose()])?
                }
                Source::Machine { host } => {
                    let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
                    let request = get(&with_query(&url, &[("scopes", SCOPE)]), &[("metadata-flavor", "Google")])?;
                    outside.ask_near(request).await?.success(&[])?
                }
            };
            let now = outside.now();
            let (token, expires) = token_answer(&answer.json()?, now)?;
            let mut headers = bearer(token.expose())?;
            if let Some(project) = &self.project {
                headers.insert(HeaderName::from_static("x-goog-user-project"), sensitive(project)?);
            }
            Ok(Lease::until(headers, now, expires, RENEWAL_MARGIN))
        })
    }

    fn outside(&self) -> &Outside {
        &self.outside
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use http::Request;
    use proptest::prelude::*;
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::super::testing::{NOW_SECONDS, Seen, Server, decoded, outside};
    use super::*;
    use crate::{Body, ErrorKind};
    use rustls_pki_types::PrivateKeyDer;
    use rustls_pki_types::pem::PemObject;

    /// Made for these tests.
    const KEY: &str = include_str!("test_rsa_key.pem");
    const TOKEN: &str = r#"{"access_token": "the-token", "expires_in": 3599, "token_type": "Bearer"}"#;

    async fn sent(config: &GoogleIamConfig, env: &[(&str, &str)]) -> Result<HeaderMap, Error> {
        let signer = config.signer_in(outside(env).await).await?;
        let (parts, ()) = Request::post("https://host/").body(()).unwrap().into_parts();
        signer.sign(&parts, &Body::empty()).await
    }

    fn file(folder: &tempfile::TempDir, json: &serde_json::Value) -> GoogleIamConfig {
        let path = folder.path().join("credentials.json");
        std::fs::write(&path, json.to_string()).unwrap();
        GoogleIamConfig { credentials_file: path.to_str().unwrap().to_owned() }
    }

    fn account(token_url: &str, key: &str) -> serde_json::Value {
        serde_json::json!({
            "type": "service_account", "client_email": "me@project", "private_key": key, "private_key_id": "k1",
            "token_uri": token_url, "quota_project_id": "counted",
        })
    }

    fn user(token_url: &str) -> serde_json::Value {
        serde_json::json!({
            "type": "authorized_user", "client_id": "id", "client_secret": "hunter2", "refresh_token": "hunter3",
            "token_uri": token_url,
        })
    }

    #[tokio::test]
    async fn a_service_account_gets_a_token_for_a_signed_request() {
        let server = Server::start(|_| (200, TOKEN.into())).await;
        let folder = tempfile::tempdir().unwrap();
        let headers = sent(&file(&folder, &account(&server.url, KEY)), &[]).await.unwrap();
        assert_eq!(headers["authorization"], "Bearer the-token");
        assert_eq!(headers["x-goog-user-project"], "counted");
        let seen: Seen = server.last();
        assert_eq!(seen.field("grant_type"), "urn:ietf:params:oauth:grant-type:jwt-bearer");
        let assertion = seen.field("assertion");
        let (text, signature) = assertion.rsplit_once('.').unwrap();
        let key = parse_key(KEY).unwrap();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public().as_ref())
            .verify(text.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
            .unwrap();
        let decode = |part: &str| -> serde_json::Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        let (header, claims) = text.split_once('.').unwrap();
        assert_eq!(decode(header), serde_json::json!({"alg": "RS256", "kid": "k1", "typ": "JWT"}));
        assert_eq!(
            decode(claims),
            serde_json::json!({
                "aud": server.url, "iat": NOW_SECONDS, "exp": NOW_SECONDS + 3_600, "iss": "me@project", "scope": SCOPE,
            })
        );
    }

    #[test]
    fn keys_of_both_usual_formats_are_read() {
        let PrivateKeyDer::Pkcs8(key) = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap() else { panic!() };
        // For a key of 2048 bits the older format begins after 26 bytes of the newer.
        let inner = STANDARD.encode(&key.secret_pkcs8_der()[26..]);
        let old = format!("-----BEGIN RSA PRIVATE KEY-----\n{inner}\n-----END RSA PRIVATE KEY-----\n");
        assert_eq!(parse_key(&old).unwrap().public().as_ref(), parse_key(KEY).unwrap().public().as_ref());
        assert_eq!(parse_key("hunter2").err().unwrap(), "private_key is not a valid RSA key");
    }

    #[tokio::test]
    async fn a_user_gets_a_token_for_the_refresh_token() {
        let server = Server::start(|_| (200, TOKEN.into())).await;
        let folder = tempfile::tempdir().unwrap();
        let env = [("GOOGLE_CLOUD_QUOTA_PROJECT", "of-env")];
        let headers = sent(&file(&folder, &user(&server.url)), &env).await.unwrap();
        assert_eq!(headers["authorization"], "Bearer the-token");
        assert_eq!(headers["x-goog-user-project"], "of-env");
        let seen = server.last();
        assert_eq!((seen.field("grant_type"), seen.field("refresh_token")), ("refresh_token".into(), "hunter3".into()));
        assert_eq!((seen.field("client_id"), seen.field("client_secret")), ("id".into(), "hunter2".into()));
    }

    #[tokio::test]
    async fn default_credentials_are_of_the_environment_the_tools_or_the_machine() {
        let server = Server::start(|_| (200, TOKEN.into())).await;
        let host = server.url.strip_prefix("http://").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        let mut env = vec![("GCE_METADATA_HOST", host), ("HOME", home)];
        let config = GoogleIamConfig::default();
        assert_eq!(sent(&config, &env).await.unwrap()["authorization"], "Bearer the-token");
        let seen = server.last();
        assert_eq!(seen.line(), "GET /computeMetadata/v1/instance/service-accounts/default/token");
        assert!(seen.target.ends_with("?scopes=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fmonitoring.write"));
        assert_eq!(seen.header("metadata-flavor"), "Google");

        let tools = folder.path().join(".config/gcloud");
        std::fs::create_dir_all(&tools).unwrap();
        let text = user(&format!("{}/tools", server.url)).to_string();
        std::fs::write(tools.join("application_default_credentials.json"), text).unwrap();
        sent(&config, &env).await.unwrap();
        assert_eq!(server.last().line(), "POST /tools");

        let named = file(&folder, &user(&format!("{}/named", server.url)));
        env.push(("GOOGLE_APPLICATION_CREDENTIALS", &named.credentials_file));
        sent(&config, &env).await.unwrap();
        assert_eq!(server.last().line(), "POST /named");
    }

    #[tokio::test]
    async fn errors_name_the_file_and_the_reason_and_no_secret() {
        let text = r#"{"error": "invalid_grant", "error_description": "hunter3 is revoked"}"#;
        let server = Server::start(move |_| (400, text.into())).await;
        let folder = tempfile::tempdir().unwrap();
        let config = file(&folder, &user(&server.url));
        let error = sent(&config, &[]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
        assert_eq!(error.to_string(), "failed to get access token: 400 Bad Request: invalid_grant: xxxxx is revoked");
        for (json, text) in [
            (serde_json::json!({}), "it has no type"),
            (serde_json::json!({"type": "hunter2"}), "credentials are of an unknown type"),
            (serde_json::json!({"type": "external_account"}), "credentials of type external_account are not supported"),
            (account("", "hunter2"), "private_key is not a valid RSA key"),
        ] {
            let config = file(&folder, &json);
            let error = sent(&config, &[]).await.unwrap_err().to_string();
            assert_eq!(error, format!("credentials file {}: {text}", config.credentials_file));
        }
        let missing = folder.path().join("missing");
        let env = [("GOOGLE_APPLICATION_CREDENTIALS", missing.to_str().unwrap())];
        let error = sent(&GoogleIamConfig::default(), &env).await.unwrap_err().to_string();
        assert!(error.starts_with("error finding default Google credentials: unable to read file "), "{error}");
    }

    #[test]
    fn the_argument_may_be_left_out() {
        assert_eq!(decoded::<GoogleIamConfig>(""), Ok(GoogleIamConfig::default()));
        assert_eq!(decoded::<GoogleIamConfig>("credentials_file = \"f\"").unwrap().credentials_file, "f");
    }

    proptest! {
        #[test]
        fn any_file_is_read_without_panic(text in any::<String>(), key in any::<String>()) {
            prop_assert!(Source::parse(&text).is_err());
            prop_assert!(Source::parse(&account("", &key).to_string()).is_err());
        }
    }
}
