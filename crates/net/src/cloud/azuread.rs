//! Tokens of Microsoft Entra, formerly Azure Active Directory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use corten_config::{Arguments, CheckErrors};
use http::HeaderMap;

use super::{
    Bearer, BoxFuture, Lease, Outside, Tokens, auth, bearer, get, post_form, read_file, token_answer, with_query,
};
use crate::{ClientOptions, Error, Secret, Sign};

/// Where the token of a workload lies, unless configured otherwise.
const TOKEN_FILE_DEFAULT: &str = "/var/run/secrets/azure/tokens/azure-identity-token";

/// Each cloud with its scope and its authority.
const CLOUDS: [(&str, &str, &str); 3] = [
    ("AzureChina", "https://monitor.azure.cn//.default", "https://login.chinacloudapi.cn"),
    ("AzureGovernment", "https://monitor.azure.us//.default", "https://login.microsoftonline.us"),
    ("AzurePublic", "https://monitor.azure.com//.default", "https://login.microsoftonline.com"),
];

/// Bearer tokens of Azure.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct AzureAdConfig {
    /// The managed identity of the machine.
    #[block]
    pub managed_identity: Option<AzureAdManagedIdentity>,
    /// The identity of a workload in Kubernetes.
    #[block]
    pub workload_identity: Option<AzureAdWorkloadIdentity>,
    /// An application with a secret.
    #[block]
    pub oauth: Option<AzureAdOAuth>,
    /// What the environment says: an application with a secret, a workload or the managed identity.
    #[block]
    pub sdk: Option<AzureAdSdk>,
    /// The cloud: `AzurePublic`, `AzureGovernment` or `AzureChina`.
    #[arg(default = "AzurePublic")]
    pub cloud: String,
    /// The scope to ask for. Empty means the cloud's scope for metrics.
    #[arg(optional)]
    pub scope: String,
}

impl Default for AzureAdConfig {
    fn default() -> Self {
        Self {
            managed_identity: None,
            workload_identity: None,
            oauth: None,
            sdk: None,
            cloud: "AzurePublic".to_owned(),
            scope: String::new(),
        }
    }
}

/// The managed identity of a machine.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct AzureAdManagedIdentity {
    /// The client identifier of the identity.
    pub client_id: String,
}

/// The identity of a workload in Kubernetes.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct AzureAdWorkloadIdentity {
    /// The client identifier of the application or identity.
    pub client_id: String,
    /// The tenant of the application or identity.
    pub tenant_id: String,
    /// The file with the token of the service account, read again for every token.
    #[arg(default = "/var/run/secrets/azure/tokens/azure-identity-token")]
    pub token_file_path: String,
}

impl Default for AzureAdWorkloadIdentity {
    fn default() -> Self {
        Self { client_id: String::new(), tenant_id: String::new(), token_file_path: TOKEN_FILE_DEFAULT.to_owned() }
    }
}

/// An application with a secret.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct AzureAdOAuth {
    /// The client identifier of the application.
    pub client_id: String,
    /// The secret of the application.
    pub client_secret: Secret,
    /// The tenant of the application.
    pub tenant_id: String,
}

/// Credentials as the environment gives them.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct AzureAdSdk {
    /// The tenant, where the environment names none.
    pub tenant_id: String,
}

impl AzureAdConfig {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            CLOUDS.iter().any(|(cloud, ..)| *cloud == self.cloud),
            &["cloud"],
            "must provide a cloud in the Azure AD config",
        );
        let methods = usize::from(self.managed_identity.is_some())
            + usize::from(self.workload_identity.is_some())
            + usize::from(self.oauth.is_some())
            + usize::from(self.sdk.is_some());
        let blocks = ["managed_identity", "workload_identity", "oauth", "sdk"];
        errors.require(
            methods > 0,
            &blocks,
            "must provide an Azure Managed Identity, Azure Workload Identity, Azure OAuth or Azure SDK in the Azure AD config",
        );
        errors.require(methods <= 1, &blocks, "cannot provide multiple authentication methods in the Azure AD config");
        let mut identifier = |block: &'static str, kind: &str, field: &str, value: &str, is_valid: bool| {
            if value.is_empty() {
                errors.push(&[block], format!("must provide an Azure {kind} {field} in the Azure AD config"));
            } else if !is_valid {
                errors.push(&[block], format!("the provided Azure {kind} {field} is invalid"));
            }
        };
        if let Some(given) = &self.managed_identity {
            let id = &given.client_id;
            identifier("managed_identity", "Managed Identity", "client_id", id, is_uuid(id));
        }
        if let Some(given) = &self.workload_identity {
            for (field, id) in [("client_id", &given.client_id), ("tenant_id", &given.tenant_id)] {
                identifier("workload_identity", "Workload Identity", field, id, is_uuid(id));
            }
        }
        if let Some(given) = &self.oauth {
            identifier("oauth", "OAuth", "client_id", &given.client_id, is_uuid(&given.client_id));
            identifier("oauth", "OAuth", "client_secret", given.client_secret.expose(), true);
            identifier("oauth", "OAuth", "tenant_id", &given.tenant_id, is_tenant(&given.tenant_id));
        }
        if let Some(given) = &self.sdk
            && !given.tenant_id.is_empty()
        {
            identifier("sdk", "OAuth", "tenant_id", &given.tenant_id, is_tenant(&given.tenant_id));
        }
        let in_scope = |c: char| c.is_ascii_alphanumeric() || "_\t\n\x0c\r :/.-".contains(c);
        errors.require(self.scope.chars().all(in_scope), &["scope"], "the provided scope contains invalid characters");
        errors.into_result()
    }

    /// Makes a signer that adds a bearer token. A token is obtained with the first request, and again at half of its
    /// time.
    ///
    /// # Errors
    /// Of kind `Config` when the arguments are not valid, of kind `Auth` when the environment is not.
    pub async fn signer(&self, options: &ClientOptions) -> Result<Arc<dyn Sign>, Error> {
        self.signer_in(Outside::new(options).await?)
    }

    fn signer_in(&self, outside: Outside) -> Result<Arc<dyn Sign>, Error> {
        self.check().map_err(|errors| Error::config(errors.to_string()))?;
        let cloud = CLOUDS.iter().find(|(cloud, ..)| *cloud == self.cloud);
        let (_, scope, authority) = cloud.ok_or_else(|| Error::config("cloud is not known"))?;
        let scope = if self.scope.is_empty() { (*scope).to_owned() } else { self.scope.clone() };
        let authority = outside.env("AZURE_AUTHORITY_HOST").unwrap_or_else(|| (*authority).to_owned());
        let source = self.source(&outside)?;
        let tenant = match &source {
            Source::Secret { tenant, .. } | Source::Workload { tenant, .. } => tenant.as_str(),
            Source::Managed { .. } => "",
        };
        if !tenant.is_empty() && !is_tenant(tenant) {
            return Err(auth("AZURE_TENANT_ID is not valid"));
        }
        let authority = authority.trim_end_matches('/').to_owned();
        Ok(Bearer::signer(AzureTokens { outside, scope, authority, source }))
    }

    fn source(&self, outside: &Outside) -> Result<Source, Error> {
        if let Some(given) = &self.managed_identity {
            return Ok(Source::Managed { client_id: Some(given.client_id.clone()) });
        }
        if let Some(given) = &self.workload_identity {
            let file = if given.token_file_path.is_empty() { TOKEN_FILE_DEFAULT } else { &given.token_file_path };
            let (tenant, client_id) = (given.tenant_id.clone(), given.client_id.clone());
            return Ok(Source::Workload { tenant, client_id, file: file.into() });
        }
        if let Some(given) = &self.oauth {
            let (tenant, client_id) = (given.tenant_id.clone(), given.client_id.clone());
            return Ok(Source::Secret { tenant, client_id, secret: given.client_secret.clone() });
        }
        let sdk_tenant = self.sdk.as_ref().map(|sdk| sdk.tenant_id.clone()).filter(|tenant| !tenant.is_empty());
        let client_id = outside.env("AZURE_CLIENT_ID");
        let of_environment = outside.env("AZURE_TENANT_ID");
        if let (Some(client_id), Some(secret)) = (&client_id, outside.env("AZURE_CLIENT_SECRET"))
            && let Some(tenant) = of_environment.clone().or_else(|| sdk_tenant.clone())
        {
            return Ok(Source::Secret { tenant, client_id: client_id.clone(), secret: Secret::new(secret) });
        }
        if let (Some(client_id), Some(file)) = (&client_id, outside.env("AZURE_FEDERATED_TOKEN_FILE"))
            && let Some(tenant) = sdk_tenant.or(of_environment)
        {
            return Ok(Source::Workload { tenant, client_id: client_id.clone(), file: file.into() });
        }
        if outside.env("AZURE_CLIENT_CERTIFICATE_PATH").is_some() {
            return Err(auth(
                "AZURE_CLIENT_CERTIFICATE_PATH is set, but certificates of applications are not supported",
            ));
        }
        Ok(Source::Managed { client_id })
    }
}

/// Whether text is a UUID in one of the forms that the reference reads: plain, without hyphens, in braces, as a URN.
fn is_uuid(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hex = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_hexdigit);
    let plain = |bytes: &[u8]| {
        bytes.len() == 36
            && bytes.iter().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => *byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            })
    };
    match bytes.len() {
        32 => hex(bytes),
        36 => plain(bytes),
        38 => plain(&bytes[1..37]),
        45 => bytes[..9].eq_ignore_ascii_case(b"urn:uuid:") && plain(&bytes[9..]),
        _ => false,
    }
}

/// Whether text is a tenant: an identifier or a domain. It becomes part of a URL.
fn is_tenant(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

/// How tokens are asked for.
enum Source {
    Managed { client_id: Option<String> },
    Workload { tenant: String, client_id: String, file: PathBuf },
    Secret { tenant: String, client_id: String, secret: Secret },
}

struct AzureTokens {
    outside: Outside,
    scope: String,
    authority: String,
    source: Source,
}

impl Tokens for AzureTokens {
    fn fetch(&self) -> BoxFuture<'_, Result<Lease<HeaderMap>, Error>> {
        Box::pin(async move {
            let outside = &self.outside;
            let answer = match &self.source {
                Source::Managed { client_id } => self.managed(client_id.as_deref()).await?,
                Source::Workload { tenant, client_id, file } => {
                    let assertion = read_file(file.clone()).await?;
                    let form = [
                        ("client_id", client_id.as_str()),
                        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                        ("client_assertion", assertion.expose()),
                        ("grant_type", "client_credentials"),
                        ("scope", &self.scope),
                    ];
                    self.ask_authority(tenant, &form, assertion.expose()).await?
                }
                Source::Secret { tenant, client_id, secret } => {
                    let form = [
                        ("client_id", client_id.as_str()),
                        ("client_secret", secret.expose()),
                        ("grant_type", "client_credentials"),
                        ("scope", &self.scope),
                    ];
                    self.ask_authority(tenant, &form, secret.expose()).await?
                }
            };
            let now = outside.now();
            let (token, expires) = token_answer(&answer, now)?;
            // The reference renews at half of the lifetime; a margin without limit says just that.
            Ok(Lease::until(bearer(token.expose())?, now, expires, Duration::MAX))
        })
    }

    fn outside(&self) -> &Outside {
        &self.outside
    }
}

impl AzureTokens {
    async fn ask_authority(
        &self,
        tenant: &str,
        form: &[(&str, &str)],
        secret: &str,
    ) -> Result<serde_json::Value, Error> {
        let request = post_form(&format!("{}/{tenant}/oauth2/v2.0/token", self.authority), form)?;
        self.outside.ask_far(request).await?.success(&[secret])?.json()
    }

    /// Asks the endpoint that the environment of an app service names, else the metadata service of the machine.
    async fn managed(&self, client_id: Option<&str>) -> Result<serde_json::Value, Error> {
        let outside = &self.outside;
        let resource = self.scope.strip_suffix("/.default").unwrap_or(&self.scope);
        let mut query = vec![("resource", resource)];
        query.extend(client_id.map(|id| ("client_id", id)));
        if let (Some(endpoint), Some(secret)) = (outside.env("IDENTITY_ENDPOINT"), outside.env("IDENTITY_HEADER")) {
            query.insert(0, ("api-version", "2019-08-01"));
            let request = get(&with_query(&endpoint, &query), &[("x-identity-header", &secret)])?;
            return outside.ask_near(request).await?.success(&[&secret])?.json();
        }
        let host = outside.env("AZURE_POD_IDENTITY_AUTHORITY_HOST");
        let host = host.as_deref().unwrap_or("http://169.254.169.254").trim_end_matches('/');
        query.insert(0, ("api-version", "2018-02-01"));
        let url = with_query(&format!("{host}/metadata/identity/oauth2/token"), &query);
        outside.ask_near(get(&url, &[("metadata", "true")])?).await?.success(&[])?.json()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use http::Request;
    use http::request::Parts;

    use super::super::testing::{NOW_SECONDS, Server, decoded, outside, outside_at};
    use super::*;
    use crate::{Body, ErrorKind};

    const ID: &str = "00000000-a12b-3cd4-e56f-000000000000";
    const TOKEN: &str = r#"{"access_token": "the-token", "expires_in": "3600", "token_type": "Bearer"}"#;

    fn parts() -> Parts {
        Request::post("https://host/").body(()).unwrap().into_parts().0
    }

    async fn sent(config: &AzureAdConfig, env: &[(&str, &str)]) -> Result<String, Error> {
        let signer = config.signer_in(outside(env).await)?;
        let headers = signer.sign(&parts(), &Body::empty()).await?;
        assert!(headers["authorization"].is_sensitive());
        Ok(headers["authorization"].to_str().unwrap().to_owned())
    }

    fn oauth() -> AzureAdConfig {
        let oauth =
            AzureAdOAuth { client_id: ID.into(), client_secret: Secret::new("hunter2"), tenant_id: "tenant".into() };
        AzureAdConfig { oauth: Some(oauth), ..AzureAdConfig::default() }
    }

    #[tokio::test]
    async fn an_application_gets_a_token_for_its_secret() {
        let authority = Server::start(|_| (200, TOKEN.into())).await;
        let host = format!("{}/", authority.url);
        assert_eq!(sent(&oauth(), &[("AZURE_AUTHORITY_HOST", &host)]).await.unwrap(), "Bearer the-token");
        let seen = authority.last();
        assert_eq!(seen.line(), "POST /tenant/oauth2/v2.0/token");
        for (field, value) in [
            ("client_id", ID),
            ("client_secret", "hunter2"),
            ("grant_type", "client_credentials"),
            ("scope", "https://monitor.azure.com//.default"),
        ] {
            assert_eq!(seen.field(field), value, "{field}");
        }
        for (cloud, scope, expected) in [
            ("AzureChina", "", "https://monitor.azure.cn//.default"),
            ("AzureGovernment", "", "https://monitor.azure.us//.default"),
            ("AzurePublic", "api://x/.default", "api://x/.default"),
        ] {
            let config = AzureAdConfig { cloud: cloud.into(), scope: scope.into(), ..oauth() };
            sent(&config, &[("AZURE_AUTHORITY_HOST", &host)]).await.unwrap();
            assert_eq!(authority.last().field("scope"), expected);
        }
    }

    #[tokio::test]
    async fn a_workload_gets_a_token_for_that_of_its_file() {
        let authority = Server::start(|_| (200, TOKEN.into())).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "jwt\n").unwrap();
        let file = file.to_str().unwrap();
        let workload =
            AzureAdWorkloadIdentity { client_id: ID.into(), tenant_id: ID.into(), token_file_path: file.into() };
        let config = AzureAdConfig { workload_identity: Some(workload), ..AzureAdConfig::default() };
        let env = [("AZURE_AUTHORITY_HOST", authority.url.as_str())];
        assert_eq!(sent(&config, &env).await.unwrap(), "Bearer the-token");
        let seen = authority.last();
        assert_eq!(seen.line(), format!("POST /{ID}/oauth2/v2.0/token"));
        assert_eq!(seen.field("client_assertion"), "jwt");
        assert_eq!(seen.field("client_assertion_type"), "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    }

    #[tokio::test]
    async fn a_managed_identity_gets_a_token_of_the_machine_or_app_service() {
        let machine = Server::start(|_| (200, TOKEN.into())).await;
        let identity = Some(AzureAdManagedIdentity { client_id: ID.into() });
        let config = AzureAdConfig { managed_identity: identity, ..AzureAdConfig::default() };
        let env = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", machine.url.as_str())];
        assert_eq!(sent(&config, &env).await.unwrap(), "Bearer the-token");
        let seen = machine.last();
        let query = format!("resource=https%3A%2F%2Fmonitor.azure.com%2F&client_id={ID}");
        assert_eq!(seen.target, format!("/metadata/identity/oauth2/token?api-version=2018-02-01&{query}"));
        assert_eq!(seen.header("metadata"), "true");

        let endpoint = format!("{}/msi/token", machine.url);
        sent(&config, &[("IDENTITY_ENDPOINT", &endpoint), ("IDENTITY_HEADER", "key")]).await.unwrap();
        let seen = machine.last();
        assert_eq!(seen.target, format!("/msi/token?api-version=2019-08-01&{query}"));
        assert_eq!(seen.header("x-identity-header"), "key");
    }

    #[tokio::test]
    async fn the_sdk_takes_what_the_environment_has() {
        let server = Server::start(|_| (200, TOKEN.into())).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "jwt").unwrap();
        let sdk = |tenant: &str| {
            let sdk = Some(AzureAdSdk { tenant_id: tenant.into() });
            AzureAdConfig { sdk, ..AzureAdConfig::default() }
        };
        let mut env =
            vec![("AZURE_AUTHORITY_HOST", server.url.as_str()), ("AZURE_POD_IDENTITY_AUTHORITY_HOST", &server.url)];
        sent(&sdk("given"), &env).await.unwrap();
        assert!(!server.last().target.contains("client_id"));
        env.extend([
            ("AZURE_CLIENT_ID", ID),
            ("AZURE_TENANT_ID", "of-env"),
            ("AZURE_FEDERATED_TOKEN_FILE", file.to_str().unwrap()),
        ]);
        sent(&sdk("given"), &env).await.unwrap();
        assert_eq!(server.last().line(), "POST /given/oauth2/v2.0/token");
        sent(&sdk(""), &env).await.unwrap();
        assert_eq!(server.last().line(), "POST /of-env/oauth2/v2.0/token");
        env.push(("AZURE_CLIENT_SECRET", "hunter2"));
        sent(&sdk("given"), &env).await.unwrap();
        assert_eq!(server.last().line(), "POST /of-env/oauth2/v2.0/token");
        assert_eq!(server.last().field("client_secret"), "hunter2");

        let error = sent(&sdk(""), &[("AZURE_CLIENT_CERTIFICATE_PATH", "x")]).await.unwrap_err();
        assert!(error.to_string().ends_with("certificates of applications are not supported"));
        env.retain(|(name, _)| *name != "AZURE_TENANT_ID");
        env.push(("AZURE_TENANT_ID", "../x"));
        assert_eq!(sent(&sdk(""), &env).await.unwrap_err().to_string(), "AZURE_TENANT_ID is not valid");
    }

    #[tokio::test]
    async fn a_token_is_renewed_at_half_of_its_time() {
        let authority = Server::start(|_| (200, TOKEN.into())).await;
        let seconds = Arc::new(AtomicU64::new(NOW_SECONDS));
        let outside = outside_at(&[("AZURE_AUTHORITY_HOST", &authority.url)], seconds.clone()).await;
        let signer = oauth().signer_in(outside).unwrap();
        for (after, asked) in [(0, 1), (1_799, 1), (1, 2)] {
            seconds.fetch_add(after, Ordering::SeqCst);
            signer.sign(&parts(), &Body::empty()).await.unwrap();
            assert_eq!(authority.seen().len(), asked);
        }
    }

    #[tokio::test]
    async fn a_refusal_names_its_reason_and_no_secret() {
        let text = r#"{"error": "invalid_client", "error_description": "AADSTS7000215: hunter2 is wrong"}"#;
        let authority = Server::start(move |_| (401, text.into())).await;
        let error = sent(&oauth(), &[("AZURE_AUTHORITY_HOST", &authority.url)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
        assert_eq!(
            error.to_string(),
            "failed to get access token: 401 Unauthorized: invalid_client: AADSTS7000215: xxxxx is wrong"
        );
    }

    #[test]
    fn the_arguments_and_their_rules() {
        let block = |name: &str, body: &str| format!("{name} {{\n{body}\n}}\n");
        let client = format!("client_id = \"{ID}\"");
        let managed = block("managed_identity", &client);
        let workload = |tenant: &str| block("workload_identity", &format!("{client}\ntenant_id = \"{tenant}\""));
        let given = decoded::<AzureAdConfig>(&workload(ID)).unwrap();
        let expected = AzureAdWorkloadIdentity {
            client_id: ID.into(),
            tenant_id: ID.into(),
            ..AzureAdWorkloadIdentity::default()
        };
        assert_eq!(given, AzureAdConfig { workload_identity: Some(expected), ..AzureAdConfig::default() });
        for (body, text) in [
            (
                String::new(),
                "must provide an Azure Managed Identity, Azure Workload Identity, Azure OAuth or Azure SDK in the \
                 Azure AD config",
            ),
            (
                managed.clone() + &block("sdk", "tenant_id = \"\""),
                "cannot provide multiple authentication methods in the Azure AD config",
            ),
            (managed.clone() + "cloud = \"azurepublic\"", "must provide a cloud in the Azure AD config"),
            (managed.clone() + "scope = \"a?b\"", "the provided scope contains invalid characters"),
            (
                block("managed_identity", "client_id = \"\""),
                "must provide an Azure Managed Identity client_id in the Azure AD config",
            ),
            (
                block("managed_identity", "client_id = \"x\""),
                "the provided Azure Managed Identity client_id is invalid",
            ),
            (workload(""), "must provide an Azure Workload Identity tenant_id in the Azure AD config"),
            (workload("x"), "the provided Azure Workload Identity tenant_id is invalid"),
            (
                block("oauth", &format!("{client}\nclient_secret = \"\"\ntenant_id = \"a b\"")),
                "must provide an Azure OAuth client_secret in the Azure AD config",
            ),
            (
                block("oauth", &format!("{client}\nclient_secret = \"s\"\ntenant_id = \"a/b\"")),
                "the provided Azure OAuth tenant_id is invalid",
            ),
        ] {
            let texts = decoded::<AzureAdConfig>(&body).unwrap_err().join("\n");
            assert!(texts.contains(text), "{body}: {texts}");
        }
    }

    #[test]
    fn forms_of_a_uuid() {
        let bare = ID.replace('-', "");
        for (text, valid) in [
            (ID.to_owned(), true),
            (format!("{{{ID}}}"), true),
            (format!("URN:uuid:{ID}"), true),
            (bare.clone(), true),
            (bare + "0", false),
            (ID.replace('a', "g"), false),
            (ID.replace('-', "0"), false),
            (String::new(), false),
            ("\u{e9}".repeat(19), false),
        ] {
            assert_eq!(is_uuid(&text), valid, "{text}");
        }
    }
}
