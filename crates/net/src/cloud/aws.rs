//! Credentials of AWS: keys of the configuration, else the chain of its tools, and roles taken on with them.
//!
//! The chain: the profile of the configuration; keys of the environment; a web identity of the environment; the profile
//! of the environment or `default`; the credentials of a container; those of the machine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use http::{HeaderName, Request, StatusCode};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::sigv4::{Scope, SigV4Config, SigV4Inference, signature};
use super::time::{parse_rfc3339, unix_seconds};
use super::{BoxFuture, Lease, Outside, auth, get, post_form, read_file, sensitive};
use crate::{Body, Error, Secret};

/// How long before they expire credentials are obtained again.
const RENEWAL_MARGIN: Duration = Duration::from_secs(60);
/// How many profiles may refer to one another.
const PROFILES_MAX: usize = 8;
/// How long the credentials of a role are good.
const ROLE_SECONDS: &str = "900";
/// How long the command of a profile may take, and how much of its output is read.
const PROCESS_MS_MAX: u64 = 60_000;
const PROCESS_OUTPUT_BYTES_MAX: u64 = 64 << 10;
/// How long a token of the metadata service is good.
const METADATA_TOKEN_SECONDS: &str = "300";
/// Where the agent of a container gives credentials, by version of the protocol.
const CONTAINER_HOSTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];

/// An access key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Credentials {
    pub(super) access_key: String,
    pub(super) secret_key: Secret,
    pub(super) session_token: Option<Secret>,
}

/// Where credentials come from, and the region found beside them.
pub(super) struct Chain {
    provider: Provider,
    sts_url: String,
    pub(super) region: String,
}

/// One source of credentials.
enum Provider {
    Fixed(Credentials),
    /// A token of a file, exchanged for credentials of a role.
    WebIdentity {
        file: PathBuf,
        role_arn: String,
        session: Option<String>,
    },
    /// The agent of a container.
    Container {
        url: String,
        token: Option<Secret>,
        token_file: Option<PathBuf>,
    },
    /// A command that prints credentials.
    Process(String),
    /// The metadata service of the machine.
    Machine(Metadata),
    /// A role taken on with other credentials.
    Role {
        source: Box<Provider>,
        role_arn: String,
        external_id: String,
        session: Option<String>,
    },
}

/// The metadata service of a machine.
struct Metadata {
    url: String,
    disabled: bool,
    /// Whether a service that knows no tokens may be asked without one.
    without_token: bool,
}

/// The region of the token service where requests say their own and nothing else says one.
const REGION_OF_INFERENCE: &str = "us-east-1";

impl Chain {
    /// Finds the source and the region. Nothing is obtained yet but the region of the machine, when nothing else says
    /// one.
    pub(super) async fn new(config: &SigV4Config, outside: &Outside) -> Result<Self, Error> {
        Self::with(config, None, outside).await
    }

    /// As [`Chain::new`]. With inference no region has to be known, and the machine is not asked for one.
    pub(super) async fn with(
        config: &SigV4Config,
        inference: Option<&SigV4Inference>,
        outside: &Outside,
    ) -> Result<Self, Error> {
        let profiles = Profiles::read(outside).await?;
        let named =
            if config.profile.is_empty() { profile_of_environment(outside) } else { Some(config.profile.clone()) };
        if let Some(name) = &named
            && !profiles.has(name)
        {
            return Err(auth(format!("failed to get shared config profile, {name}")));
        }
        let profile = named.unwrap_or_else(|| "default".to_owned());

        let mut provider = if !config.access_key.is_empty() {
            let secret_key = config.secret_key.clone();
            Provider::Fixed(Credentials { access_key: config.access_key.clone(), secret_key, session_token: None })
        } else if !config.profile.is_empty() {
            Provider::of_profile(&profile, &profiles, outside, &mut Vec::new())?
        } else if let Some(credentials) = of_environment(outside) {
            Provider::Fixed(credentials)
        } else if let Some(file) = outside.env("AWS_WEB_IDENTITY_TOKEN_FILE") {
            let role_arn = outside.env("AWS_ROLE_ARN").ok_or_else(|| auth("role ARN is not set"))?;
            Provider::WebIdentity { file: file.into(), role_arn, session: outside.env("AWS_ROLE_SESSION_NAME") }
        } else {
            Provider::of_profile(&profile, &profiles, outside, &mut Vec::new())?
        };
        if !config.role_arn.is_empty() {
            provider = Provider::Role {
                source: Box::new(provider),
                role_arn: config.role_arn.clone(),
                external_id: config.external_id.clone(),
                session: inference.map(|it| it.session_name.clone()).filter(|name| !name.is_empty()),
            };
        }

        let configured = inference.map(|it| &it.sts_region).into_iter().chain([&config.region]);
        let known = configured
            .into_iter()
            .find(|region| !region.is_empty())
            .cloned()
            .or_else(|| outside.env("AWS_REGION"))
            .or_else(|| outside.env("AWS_DEFAULT_REGION"))
            .or_else(|| profiles.get(&profile, "region").map(str::to_owned));
        let region = match known {
            Some(region) => region,
            None if inference.is_some() => REGION_OF_INFERENCE.to_owned(),
            None => Metadata::of(outside).region(outside).await.map_err(|error| {
                auth(format!("region not configured in sigv4 or in default credentials chain: {error}"))
            })?,
        };
        // The region becomes part of a host name and of a header.
        if region.is_empty() || !region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(auth("region is not valid"));
        }
        let given = configured_endpoint("sts", &profiles, &profile, outside);
        let sts_url = given.unwrap_or_else(|| sts_url(&region, config.use_fips_sts_endpoint));
        Ok(Self { provider, sts_url, region })
    }

    /// New credentials.
    pub(super) async fn fetch(&self, outside: &Outside) -> Result<Lease<Credentials>, Error> {
        self.fetch_of(&self.provider, outside).await
    }

    fn fetch_of<'a>(
        &'a self,
        provider: &'a Provider,
        outside: &'a Outside,
    ) -> BoxFuture<'a, Result<Lease<Credentials>, Error>> {
        Box::pin(async move {
            match provider {
                Provider::Fixed(credentials) => Ok(Lease { value: credentials.clone(), renew: None, expires: None }),
                Provider::WebIdentity { file, role_arn, session } => {
                    self.web_identity(outside, file, role_arn, session.as_deref()).await
                }
                Provider::Container { url, token, token_file } => {
                    container(outside, url, token.as_ref(), token_file.as_deref()).await
                }
                Provider::Process(command) => process(outside, command).await,
                Provider::Machine(metadata) => metadata.credentials(outside).await,
                Provider::Role { source, role_arn, external_id, session } => {
                    let source = self.fetch_of(source, outside).await?.value;
                    self.role(outside, &source, role_arn, external_id, session.as_deref()).await
                }
            }
        })
    }

    async fn web_identity(
        &self,
        outside: &Outside,
        file: &Path,
        role_arn: &str,
        session: Option<&str>,
    ) -> Result<Lease<Credentials>, Error> {
        let token = read_file(file.to_owned()).await?;
        let session = session.map_or_else(|| session_name(outside), str::to_owned);
        let form = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", role_arn),
            ("RoleSessionName", &session),
            ("WebIdentityToken", token.expose()),
        ];
        let request = post_form(&self.sts_url, &form)?;
        let failed = |error: Error| auth(format!("failed to retrieve credentials with a web identity: {error}"));
        let answer = outside.ask_far(request).await.map_err(failed)?;
        let answer = answer.success(&[token.expose()]).map_err(failed)?;
        sts_credentials(&answer.text(), outside.now()).map_err(failed)
    }

    async fn role(
        &self,
        outside: &Outside,
        source: &Credentials,
        role_arn: &str,
        external_id: &str,
        session: Option<&str>,
    ) -> Result<Lease<Credentials>, Error> {
        let session = session.map_or_else(|| session_name(outside), str::to_owned);
        let mut form = vec![
            ("Action", "AssumeRole"),
            ("Version", "2011-06-15"),
            ("RoleArn", role_arn),
            ("RoleSessionName", &session),
            ("DurationSeconds", ROLE_SECONDS),
        ];
        if !external_id.is_empty() {
            form.push(("ExternalId", external_id));
        }
        let (mut parts, body) = post_form(&self.sts_url, &form)?.into_parts();
        let scope = Scope { region: &self.region, service: "sts", time: outside.now() };
        let added = signature(&parts, &body, source, &scope)?;
        parts.headers.extend(added);
        let failed = |error: Error| auth(format!("failed to assume role {role_arn}: {error}"));
        let answer = outside.ask_far(Request::from_parts(parts, body)).await.map_err(failed)?;
        let token = source.session_token.as_ref().map_or("", Secret::expose);
        let answer = answer.success(&[source.secret_key.expose(), token, external_id]).map_err(failed)?;
        sts_credentials(&answer.text(), outside.now()).map_err(failed)
    }
}

fn session_name(outside: &Outside) -> String {
    format!("corten-{}", unix_seconds(outside.now()))
}

/// The profile that the environment names.
fn profile_of_environment(outside: &Outside) -> Option<String> {
    outside.env("AWS_PROFILE").or_else(|| outside.env("AWS_DEFAULT_PROFILE"))
}

/// The endpoint of a service, where the environment or the shared configuration files say one.
pub(super) async fn endpoint_of(service: &str, outside: &Outside) -> Result<Option<String>, Error> {
    let profiles = Profiles::read(outside).await?;
    let profile = profile_of_environment(outside).unwrap_or_else(|| "default".to_owned());
    Ok(configured_endpoint(service, &profiles, &profile, outside))
}

fn configured_endpoint(service: &str, profiles: &Profiles, profile: &str, outside: &Outside) -> Option<String> {
    outside
        .env(&format!("AWS_ENDPOINT_URL_{}", service.to_ascii_uppercase()))
        .or_else(|| outside.env("AWS_ENDPOINT_URL"))
        .or_else(|| profiles.get(profile, "endpoint_url").map(str::to_owned))
        .filter(|_| !outside.env_is_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"))
}

/// The regional endpoint of the token service.
fn sts_url(region: &str, fips: bool) -> String {
    // The endpoints of the government's regions conform under their ordinary names.
    service_url("sts", region, fips && !region.starts_with("us-gov-"), false)
}

/// The regional endpoint of a service: one that conforms to FIPS, one that has addresses of both families.
pub(super) fn service_url(service: &str, region: &str, fips: bool, dual: bool) -> String {
    let (domain, of_both) = match region.split('-').collect::<Vec<_>>()[..] {
        ["cn", ..] => ("amazonaws.com.cn", "api.amazonwebservices.com.cn"),
        ["us", "iso", ..] => ("c2s.ic.gov", "api.aws.ic.gov"),
        ["us", "isob", ..] => ("sc2s.sgov.gov", "api.aws.scloud"),
        ["us", "isof", ..] => ("csp.hci.ic.gov", "api.aws.hci.ic.gov"),
        ["eu", "isoe", ..] => ("cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
        ["eusc", ..] => ("amazonaws.eu", "api.amazonwebservices.eu"),
        _ => ("amazonaws.com", "api.aws"),
    };
    let (kind, domain) = (if fips { "-fips" } else { "" }, if dual { of_both } else { domain });
    format!("https://{service}{kind}.{region}.{domain}/")
}

fn of_environment(outside: &Outside) -> Option<Credentials> {
    let access_key = outside.env("AWS_ACCESS_KEY_ID").or_else(|| outside.env("AWS_ACCESS_KEY"))?;
    let secret_key = outside.env("AWS_SECRET_ACCESS_KEY").or_else(|| outside.env("AWS_SECRET_KEY"))?;
    let session_token = outside.env("AWS_SESSION_TOKEN").map(Secret::new);
    Some(Credentials { access_key, secret_key: Secret::new(secret_key), session_token })
}

impl Provider {
    /// The source that a profile names, or that of the container or machine when it names none.
    fn of_profile(
        name: &str,
        profiles: &Profiles,
        outside: &Outside,
        visited: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let get = |key: &str| profiles.get(name, key).filter(|value| !value.is_empty());
        let keys = match (get("aws_access_key_id"), get("aws_secret_access_key")) {
            (Some(access_key), Some(secret_key)) => Some(Credentials {
                access_key: access_key.to_owned(),
                secret_key: Secret::new(secret_key),
                session_token: get("aws_session_token").map(Secret::new),
            }),
            _ => None,
        };
        let repeated = visited.iter().any(|visited| visited == name);
        if repeated || visited.len() >= PROFILES_MAX {
            // A profile may name itself as the source: then its keys are meant.
            return keys.map(Self::Fixed).ok_or_else(|| auth(format!("profile {name} refers to itself")));
        }
        visited.push(name.to_owned());

        let role = get("role_arn");
        let session = get("role_session_name").map(str::to_owned);
        let source = if let (Some(source), Some(_)) = (get("source_profile"), role) {
            if !profiles.has(source) {
                return Err(auth(format!("failed to get shared config profile, {source}")));
            }
            Self::of_profile(source, profiles, outside, visited)?
        } else if let Some(keys) = keys {
            Self::Fixed(keys)
        } else if let (Some(source), Some(_)) = (get("credential_source"), role) {
            match source {
                "Ec2InstanceMetadata" => Self::Machine(Metadata::of(outside)),
                "Environment" => of_environment(outside)
                    .map(Self::Fixed)
                    .ok_or_else(|| auth(format!("profile {name} wants keys of the environment, which has none")))?,
                "EcsContainer" => Self::of_container(outside)?.ok_or_else(|| {
                    auth("EcsContainer was specified as the credential_source, but no address is set")
                })?,
                _ => {
                    return Err(auth(format!(
                        "credential source values should be EcsContainer, Environment or Ec2InstanceMetadata in profile {name}"
                    )));
                }
            }
        } else if let (Some(file), Some(role_arn)) = (get("web_identity_token_file"), role) {
            return Ok(Self::WebIdentity { file: file.into(), role_arn: role_arn.to_owned(), session });
        } else if get("sso_session").is_some() || get("sso_start_url").is_some() {
            return Err(auth(format!("profile {name} uses single sign-on, which is not supported")));
        } else if let Some(command) = get("credential_process") {
            Self::Process(command.to_owned())
        } else if role.is_some() {
            return Err(auth(format!(
                "profile {name} has role_arn but neither source_profile nor credential_source nor web_identity_token_file"
            )));
        } else {
            match Self::of_container(outside)? {
                Some(container) => container,
                None => Self::Machine(Metadata::of(outside)),
            }
        };
        Ok(match role {
            None => source,
            Some(role_arn) => Self::Role {
                source: Box::new(source),
                role_arn: role_arn.to_owned(),
                external_id: get("external_id").unwrap_or_default().to_owned(),
                session,
            },
        })
    }

    /// The agent of a container, where the environment names one.
    fn of_container(outside: &Outside) -> Result<Option<Self>, Error> {
        let relative = outside.env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let url = match (relative, outside.env("AWS_CONTAINER_CREDENTIALS_FULL_URI")) {
            (Some(path), _) => format!("http://{}/{}", CONTAINER_HOSTS[0], path.trim_start_matches('/')),
            (None, Some(url)) => {
                // The token must not be sent in clear text to just anyone.
                let parsed = url::Url::parse(&url).ok();
                let host = parsed.as_ref().and_then(url::Url::host);
                let known = match (&host, parsed.as_ref().map(url::Url::scheme)) {
                    (Some(_), Some("https")) => true,
                    (Some(host), Some("http")) => {
                        CONTAINER_HOSTS.contains(&host.to_string().as_str()) || is_loopback(host)
                    }
                    _ => false,
                };
                if !known {
                    return Err(auth(
                        "invalid endpoint host of container credentials, only loopback hosts are allowed",
                    ));
                }
                url
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(Self::Container {
            url,
            token: outside.env("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Secret::new),
            token_file: outside.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from),
        }))
    }
}

fn is_loopback(host: &url::Host<&str>) -> bool {
    match host {
        url::Host::Domain(name) => *name == "localhost",
        url::Host::Ipv4(address) => address.is_loopback(),
        url::Host::Ipv6(address) => address.is_loopback(),
    }
}

async fn container(
    outside: &Outside,
    url: &str,
    token: Option<&Secret>,
    token_file: Option<&Path>,
) -> Result<Lease<Credentials>, Error> {
    let token = match token_file {
        Some(file) => Some(read_file(file.to_owned()).await?),
        None => token.cloned(),
    };
    let mut request = get(url, &[("accept", "application/json")])?;
    let token = token.filter(|token| !token.is_empty());
    if let Some(token) = &token {
        request.headers_mut().insert(http::header::AUTHORIZATION, sensitive(token.expose())?);
    }
    let failed = |error: Error| auth(format!("failed to load credentials of the container: {error}"));
    let answer = outside.ask_near(request).await.map_err(failed)?;
    let answer = answer.success(&[token.as_ref().map_or("", Secret::expose)]).map_err(failed)?;
    json_credentials(&answer.json().map_err(failed)?, outside.now()).map_err(failed)
}

/// Runs the command of a profile, which its owner has put there for this. What it prints besides credentials is not
/// shown, since it may hold parts of them.
async fn process(outside: &Outside, command: &str) -> Result<Lease<Credentials>, Error> {
    let failed = |text: &str| auth(format!("error in credential_process: {text}"));
    let (shell, option) = if cfg!(windows) { ("cmd.exe", "/C") } else { ("sh", "-c") };
    let mut child = Command::new(shell)
        .args([option, command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(&crate::error::describe_io(&error)))?;
    let stdout = child.stdout.take().ok_or_else(|| failed("it has no output"))?;
    let run = async {
        let mut output = Vec::new();
        stdout.take(PROCESS_OUTPUT_BYTES_MAX).read_to_end(&mut output).await?;
        Ok::<_, std::io::Error>((output, child.wait().await?))
    };
    let limit = Duration::from_millis(PROCESS_MS_MAX);
    let (output, status) = match tokio::time::timeout(limit, run).await {
        Ok(outcome) => outcome.map_err(|error| failed(&crate::error::describe_io(&error)))?,
        Err(_) => return Err(failed(&format!("it did not end within {limit:?}"))),
    };
    if !status.success() {
        return Err(failed(&status.to_string()));
    }
    let json: serde_json::Value =
        serde_json::from_slice(&output).map_err(|_| failed("its output is not valid JSON"))?;
    if json.get("Version").and_then(serde_json::Value::as_u64) != Some(1) {
        return Err(failed("wrong version in process output (not 1)"));
    }
    let text = |name: &str| json.get(name).and_then(|value| value.as_str()).filter(|text| !text.is_empty());
    let keys = (text("AccessKeyId"), text("SecretAccessKey"), text("SessionToken"));
    lease(keys.0, keys.1, keys.2, text("Expiration"), outside.now()).map_err(|error| failed(&error.to_string()))
}

impl Metadata {
    fn of(outside: &Outside) -> Self {
        let ipv6 =
            outside.env("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE").is_some_and(|m| m.eq_ignore_ascii_case("ipv6"));
        let usual = if ipv6 { "http://[fd00:ec2::254]" } else { "http://169.254.169.254" };
        let url = outside.env("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| usual.to_owned());
        Self {
            url: url.trim_end_matches('/').to_owned(),
            disabled: outside.env_is_true("AWS_EC2_METADATA_DISABLED"),
            without_token: !outside.env_is_true("AWS_EC2_METADATA_V1_DISABLED"),
        }
    }

    /// A token of the second version of the protocol; `None` from a service that knows the first alone.
    async fn token(&self, outside: &Outside) -> Result<Option<Secret>, Error> {
        if self.disabled {
            return Err(auth("access to the metadata service is disabled by AWS_EC2_METADATA_DISABLED"));
        }
        let request = Request::put(format!("{}/latest/api/token", self.url))
            .header("x-aws-ec2-metadata-token-ttl-seconds", METADATA_TOKEN_SECONDS)
            .body(Body::empty())
            .map_err(|_| auth("AWS_EC2_METADATA_SERVICE_ENDPOINT is not valid"))?;
        let answer = outside.ask_near(request).await?;
        let unknown =
            matches!(answer.status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
        if unknown && self.without_token {
            return Ok(None);
        }
        Ok(Some(Secret::new(answer.success(&[])?.text().trim())))
    }

    async fn text(&self, outside: &Outside, token: Option<&Secret>, path: &str) -> Result<String, Error> {
        let mut request = get(&format!("{}{path}", self.url), &[])?;
        if let Some(token) = token {
            let name = HeaderName::from_static("x-aws-ec2-metadata-token");
            request.headers_mut().insert(name, sensitive(token.expose())?);
        }
        let answer = outside.ask_near(request).await?;
        Ok(answer.success(&[token.map_or("", Secret::expose)])?.text())
    }

    async fn region(&self, outside: &Outside) -> Result<String, Error> {
        let token = self.token(outside).await?;
        let region = self.text(outside, token.as_ref(), "/latest/meta-data/placement/region").await?;
        Ok(region.trim().to_owned())
    }

    async fn credentials(&self, outside: &Outside) -> Result<Lease<Credentials>, Error> {
        const PATH: &str = "/latest/meta-data/iam/security-credentials/";
        let failed = |error: Error| auth(format!("no EC2 IMDS role found: {error}"));
        let token = self.token(outside).await.map_err(failed)?;
        let roles = self.text(outside, token.as_ref(), PATH).await.map_err(failed)?;
        let role = roles.lines().next().unwrap_or_default().trim();
        if role.is_empty() {
            return Err(auth("no EC2 IMDS role found: the machine has none"));
        }
        let text = self.text(outside, token.as_ref(), &format!("{PATH}{role}")).await.map_err(failed)?;
        let json = serde_json::from_str(&text).map_err(|_| failed(auth("response is not valid JSON")))?;
        json_credentials(&json, outside.now()).map_err(failed)
    }
}

/// Credentials as containers and machines give them.
fn json_credentials(json: &serde_json::Value, now: SystemTime) -> Result<Lease<Credentials>, Error> {
    let text = |name: &str| json.get(name).and_then(|value| value.as_str()).filter(|text| !text.is_empty());
    if let Some(code) = text("Code").filter(|code| !code.eq_ignore_ascii_case("success")) {
        return Err(auth(format!("service answered {}", super::shown(code, &[]))));
    }
    lease(text("AccessKeyId"), text("SecretAccessKey"), text("Token"), text("Expiration"), now)
}

/// Credentials as the token service gives them, in XML or, as AWS does when asked, in JSON.
fn sts_credentials(text: &str, now: SystemTime) -> Result<Lease<Credentials>, Error> {
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(text) {
        let found = ["AssumeRole", "AssumeRoleWithWebIdentity"].into_iter().find_map(|action| {
            json.get(format!("{action}Response"))?.get(format!("{action}Result"))?.get("Credentials")
        });
        let credentials = found.ok_or_else(|| auth("response has no credentials"))?;
        let text = |name: &str| credentials.get(name).and_then(|value| value.as_str());
        let keys = (text("AccessKeyId"), text("SecretAccessKey"), text("SessionToken"));
        let Some(seconds) = credentials.get("Expiration").and_then(|value| value.as_f64()) else {
            return lease(keys.0, keys.1, keys.2, text("Expiration"), now);
        };
        let expires = Duration::try_from_secs_f64(seconds).ok().and_then(|s| SystemTime::UNIX_EPOCH.checked_add(s));
        return lease_until(keys.0, keys.1, keys.2, expires, now);
    }
    let credentials = element(text, "Credentials").ok_or_else(|| auth("response has no credentials"))?;
    let text = |name: &str| element(credentials, name).map(unescape);
    let (key, secret, token) = (text("AccessKeyId"), text("SecretAccessKey"), text("SessionToken"));
    lease(key.as_deref(), secret.as_deref(), token.as_deref(), text("Expiration").as_deref(), now)
}

fn lease(
    access_key: Option<&str>,
    secret_key: Option<&str>,
    token: Option<&str>,
    expiration: Option<&str>,
    now: SystemTime,
) -> Result<Lease<Credentials>, Error> {
    let Some(expiration) = expiration else {
        // Credentials of a container may be for ever.
        let mut lease = lease_until(access_key, secret_key, token, Some(now), now)?;
        (lease.renew, lease.expires) = (None, None);
        return Ok(lease);
    };
    lease_until(access_key, secret_key, token, parse_rfc3339(expiration), now)
}

fn lease_until(
    access_key: Option<&str>,
    secret_key: Option<&str>,
    token: Option<&str>,
    expires: Option<SystemTime>,
    now: SystemTime,
) -> Result<Lease<Credentials>, Error> {
    let (Some(access_key), Some(secret_key)) = (access_key, secret_key) else {
        return Err(auth("response has no credentials"));
    };
    let expires = expires.ok_or_else(|| auth("time of expiry of the credentials is not valid"))?;
    let session_token = token.filter(|token| !token.is_empty()).map(Secret::new);
    let credentials =
        Credentials { access_key: access_key.to_owned(), secret_key: Secret::new(secret_key), session_token };
    Ok(Lease::until(credentials, now, expires, RENEWAL_MARGIN))
}

/// What stands within the first element of this name, which must not hold another of the name. It knows neither
/// comments nor CDATA sections nor prefixes, none of which the service uses.
pub(super) fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = xml;
    loop {
        let (_, after) = rest.split_once('<')?;
        rest = after;
        let Some(attributes) = after.strip_prefix(name) else { continue };
        if !attributes.starts_with(['>', ' ', '\t', '\r', '\n']) {
            continue;
        }
        let (_, content) = attributes.split_once('>')?;
        return content.split_once(&format!("</{name}>")).map(|(content, _)| content);
    }
}

/// Text of XML with its references resolved; a reference that is not known stands for itself.
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.trim();
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let resolved = after.split_once(';').and_then(|(name, tail)| {
            let number = |digits: &str, radix| char::from_u32(u32::from_str_radix(digits, radix).ok()?);
            let c = match name {
                "amp" => '&',
                "apos" => '\'',
                "gt" => '>',
                "lt" => '<',
                "quot" => '"',
                _ => match name.strip_prefix("#x") {
                    Some(digits) => number(digits, 16)?,
                    None => number(name.strip_prefix('#')?, 10)?,
                },
            };
            Some((c, tail))
        });
        match resolved {
            Some((c, tail)) => {
                out.push(c);
                rest = tail;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out + rest
}

/// The profiles of the shared files: those of credentials win over those of configuration.
#[derive(Default)]
struct Profiles {
    sections: HashMap<String, HashMap<String, String>>,
}

impl Profiles {
    async fn read(outside: &Outside) -> Result<Self, Error> {
        let mut profiles = Self::default();
        for (variable, name, is_config) in
            [("AWS_CONFIG_FILE", "config", true), ("AWS_SHARED_CREDENTIALS_FILE", "credentials", false)]
        {
            let usual = || outside.home().map(|home| home.join(".aws").join(name));
            let Some(path) = outside.env(variable).map(PathBuf::from).or_else(usual) else { continue };
            // Files that do not exist are empty.
            let looked_at = path.clone();
            if crate::files::off_thread(move || !looked_at.exists()).await? {
                continue;
            }
            profiles.add(read_file(path).await?.expose(), is_config);
        }
        Ok(profiles)
    }

    /// Adds what a file says. Lines that begin with white space belong to nested settings, none of which is used.
    fn add(&mut self, text: &str, is_config: bool) {
        let mut section: Option<String> = None;
        for line in text.lines() {
            if line.starts_with([' ', '\t', '#', ';']) {
                continue;
            }
            if let Some(header) = line.strip_prefix('[') {
                let name = header.split(']').next().unwrap_or_default().trim();
                let of_profile = name.strip_prefix("profile").filter(|rest| rest.starts_with([' ', '\t']));
                section = match (is_config, of_profile) {
                    (true, Some(name)) => Some(name.trim().to_owned()),
                    // Other sections of the configuration are of services and sessions.
                    (true, None) => Some(name.to_owned()).filter(|name| name == "default"),
                    (false, _) => Some(name.to_owned()),
                };
                if let Some(name) = &section {
                    self.sections.entry(name.clone()).or_default();
                }
                continue;
            }
            let (Some(section), Some((key, value))) = (&section, line.split_once('=')) else { continue };
            let end = [" #", " ;", "\t#", "\t;"].iter().filter_map(|mark| value.find(mark)).min();
            let value = value[..end.unwrap_or(value.len())].trim();
            let settings = self.sections.entry(section.clone()).or_default();
            settings.insert(key.trim().to_ascii_lowercase(), value.to_owned());
        }
    }

    fn has(&self, profile: &str) -> bool {
        self.sections.contains_key(profile)
    }

    fn get(&self, profile: &str, key: &str) -> Option<&str> {
        self.sections.get(profile)?.get(key).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::super::testing::{NOW_SECONDS, Server, outside, outside_at};
    use super::*;
    use crate::ErrorKind;

    const XML: &str = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
        <Credentials><AccessKeyId>ROLE</AccessKeyId><SecretAccessKey>s&amp;c</SecretAccessKey>\
        <SessionToken>tok</SessionToken><Expiration>2015-08-30T13:36:00Z</Expiration></Credentials>\
        </AssumeRoleResult></AssumeRoleResponse>";
    const JSON: &str = r#"{"Code": "Success", "AccessKeyId": "LOCAL", "SecretAccessKey": "s", "Token": "tok",
        "Expiration": "2015-08-30T13:36:00Z"}"#;

    fn config() -> SigV4Config {
        SigV4Config { region: "eu-west-1".into(), ..SigV4Config::default() }
    }

    async fn fetched(config: &SigV4Config, outside: &Outside) -> Result<Lease<Credentials>, Error> {
        Chain::new(config, outside).await?.fetch(outside).await
    }

    async fn key(config: &SigV4Config, env: &[(&str, &str)]) -> Result<String, String> {
        let fetched = fetched(config, &outside(env).await).await;
        fetched.map(|lease| lease.value.access_key).map_err(|error| {
            assert_eq!(error.kind(), ErrorKind::Auth);
            error.to_string()
        })
    }

    /// A folder with the shared files, and the environment that names them.
    fn files(config: &str, credentials: &str) -> (tempfile::TempDir, Vec<(&'static str, String)>) {
        let folder = tempfile::tempdir().unwrap();
        let mut env = Vec::new();
        for (variable, name, text) in
            [("AWS_CONFIG_FILE", "config", config), ("AWS_SHARED_CREDENTIALS_FILE", "credentials", credentials)]
        {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            env.push((variable, path.to_str().unwrap().to_owned()));
        }
        (folder, env)
    }

    #[tokio::test]
    async fn keys_of_the_configuration_win_over_the_profile_that_wins_over_the_environment() {
        let (_folder, env) = files("", "[default]\naws_access_key_id = FILE\naws_secret_access_key = s # note\n");
        let mut env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(key(&config(), &env).await, Ok("FILE".into()));
        env.extend([("AWS_ACCESS_KEY_ID", "ENV"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_SESSION_TOKEN", "t")]);
        assert_eq!(key(&config(), &env).await, Ok("ENV".into()));
        let named = SigV4Config { profile: "default".into(), ..config() };
        assert_eq!(key(&named, &env).await, Ok("FILE".into()));
        let fixed = SigV4Config { access_key: "CONFIG".into(), secret_key: Secret::new("s"), ..named };
        assert_eq!(key(&fixed, &env).await, Ok("CONFIG".into()));
        let missing = SigV4Config { profile: "other".into(), ..config() };
        assert_eq!(key(&missing, &env).await, Err("failed to get shared config profile, other".into()));
    }

    #[tokio::test]
    async fn the_region_comes_from_configuration_environment_profile_or_machine() {
        let machine = Server::start(|seen| match seen.line().as_str() {
            "PUT /latest/api/token" => (200, "the-token".into()),
            "GET /latest/meta-data/placement/region" => (200, "machine\n".into()),
            _ => (404, String::new()),
        })
        .await;
        let (_folder, env) = files("[default]\nregion = default-region\n[profile p]\nregion=of-p\n[profile q]\n", "");
        let mut env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        env.push(("AWS_EC2_METADATA_SERVICE_ENDPOINT", &machine.url));
        let region = async |config: SigV4Config, env: &[(&str, &str)]| {
            Chain::new(&config, &outside(env).await).await.unwrap().region
        };
        let profile = |name: &str| SigV4Config { profile: name.into(), ..SigV4Config::default() };
        assert_eq!(region(SigV4Config::default(), &env).await, "default-region");
        assert_eq!(region(profile("p"), &env).await, "of-p");
        assert_eq!(region(profile("q"), &env).await, "machine");
        assert_eq!(machine.last().header("x-aws-ec2-metadata-token"), "the-token");
        env.push(("AWS_REGION", "of-env"));
        assert_eq!(region(profile("p"), &env).await, "of-env");
        assert_eq!(region(config(), &env).await, "eu-west-1");
    }

    #[tokio::test]
    async fn a_web_identity_is_exchanged_and_kept_until_it_nearly_expires() {
        let sts = Server::start(|_| (200, XML.into())).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "jwt\n").unwrap();
        let seconds = Arc::new(AtomicU64::new(NOW_SECONDS));
        let env = [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
            ("AWS_ROLE_SESSION_NAME", "me"),
            ("AWS_ENDPOINT_URL_STS", &sts.url),
        ];
        let outside = outside_at(&env, seconds.clone()).await;
        let chain = Chain::new(&config(), &outside).await.unwrap();
        let kept = super::super::Kept::new();
        let credentials = kept.get(&outside, chain.fetch(&outside)).await.unwrap();
        assert_eq!((credentials.access_key.as_str(), credentials.secret_key.expose()), ("ROLE", "s&c"));
        assert_eq!(credentials.session_token.unwrap().expose(), "tok");
        let seen = sts.last();
        assert_eq!(
            (seen.field("Action"), seen.field("WebIdentityToken")),
            ("AssumeRoleWithWebIdentity".into(), "jwt".into())
        );
        assert_eq!((seen.field("RoleSessionName"), seen.header("authorization")), ("me".into(), ""));
        seconds.fetch_add(3_539, Ordering::SeqCst);
        kept.get(&outside, chain.fetch(&outside)).await.unwrap();
        assert_eq!(sts.seen().len(), 1);
        seconds.fetch_add(2, Ordering::SeqCst);
        kept.get(&outside, chain.fetch(&outside)).await.unwrap();
        assert_eq!(sts.seen().len(), 2);
    }

    #[tokio::test]
    async fn a_role_is_taken_on_with_a_signed_request() {
        let sts = Server::start(|_| (200, XML.into())).await;
        let config = SigV4Config {
            access_key: "BASE".into(),
            secret_key: Secret::new("s"),
            role_arn: "arn:aws:iam::1:role/r".into(),
            external_id: "ext".into(),
            ..config()
        };
        assert_eq!(key(&config, &[("AWS_ENDPOINT_URL_STS", &sts.url)]).await, Ok("ROLE".into()));
        let seen = sts.last();
        assert_eq!((seen.field("Action"), seen.field("ExternalId")), ("AssumeRole".into(), "ext".into()));
        assert_eq!((seen.field("RoleArn"), seen.field("DurationSeconds")), (config.role_arn, "900".into()));
        let shown = seen.header("authorization");
        assert!(shown.starts_with("AWS4-HMAC-SHA256 Credential=BASE/20150830/eu-west-1/sts/aws4_request, "), "{shown}");
    }

    #[tokio::test]
    async fn profiles_refer_to_one_another() {
        let sts = Server::start(|_| (200, XML.into())).await;
        let (_folder, env) = files(
            "[profile role]\nrole_arn = arn\nsource_profile = base\nexternal_id = e\n\
             [profile loop]\nrole_arn = arn\nsource_profile = loop\n\
             [profile env]\nrole_arn = arn\ncredential_source = Environment\n\
             [profile sso]\nsso_session = x\n[services x]\nregion = no\n",
            "[base]\naws_access_key_id = BASE\naws_secret_access_key = s\n",
        );
        let mut env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        env.push(("AWS_ENDPOINT_URL_STS", &sts.url));
        let mut outcomes = Vec::new();
        for name in ["role", "loop", "env", "sso"] {
            let config = SigV4Config { profile: name.into(), ..config() };
            outcomes.push(key(&config, &env).await);
        }
        let failed = |text: &str| Err(text.to_owned());
        assert_eq!(
            outcomes,
            [
                Ok("ROLE".to_owned()),
                failed("profile loop refers to itself"),
                failed("profile env wants keys of the environment, which has none"),
                failed("profile sso uses single sign-on, which is not supported"),
            ]
        );
        let seen = sts.last();
        assert!(seen.header("authorization").contains("Credential=BASE/"));
        assert_eq!(seen.field("ExternalId"), "e");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_command_of_a_profile_prints_credentials() {
        let printed = r#"{"Version": 1, "AccessKeyId": "PRINTED", "SecretAccessKey": "hunter2"}"#;
        for (command, outcome) in [
            (format!("echo '{printed}'"), Ok("PRINTED")),
            ("echo hunter2".to_owned(), Err("its output is not valid JSON")),
            ("echo '{}'".to_owned(), Err("wrong version in process output (not 1)")),
            ("echo '{\"Version\": 1}'".to_owned(), Err("response has no credentials")),
            ("exit 3".to_owned(), Err("exit status: 3")),
        ] {
            let (_folder, env) = files(&format!("[default]\ncredential_process = {command}\n"), "");
            let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let outcome = outcome.map(str::to_owned).map_err(|text| format!("error in credential_process: {text}"));
            assert_eq!(key(&config(), &env).await, outcome, "{command}");
        }
    }

    #[tokio::test]
    async fn a_container_is_asked_with_the_token_of_its_file() {
        let agent = Server::start(|_| (200, JSON.into())).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "of-file\n").unwrap();
        let mut env = vec![
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.url.as_str()),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of-env"),
        ];
        assert_eq!(key(&config(), &env).await, Ok("LOCAL".into()));
        assert_eq!(agent.last().header("authorization"), "of-env");
        env.push(("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.to_str().unwrap()));
        assert_eq!(key(&config(), &env).await, Ok("LOCAL".into()));
        assert_eq!(agent.last().header("authorization"), "of-file");
        for url in ["http://example.com/", "ftp://127.0.0.1/", "x", "http://169.254.169.254/"] {
            let error = key(&config(), &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)]).await.unwrap_err();
            assert!(error.starts_with("invalid endpoint host of container credentials"), "{url}: {error}");
        }
        for url in ["http://[::1]:1/", "https://example.com/", "http://[fd00:ec2::23]/", "http://169.254.170.23/x"] {
            let outside = outside(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)]).await;
            assert!(Chain::new(&config(), &outside).await.is_ok(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_machine_is_asked_with_a_token_where_it_knows_them() {
        for knows_tokens in [true, false] {
            let machine = Server::start(move |seen| match seen.line().as_str() {
                "PUT /latest/api/token" if knows_tokens => (200, "the-token".into()),
                "GET /latest/meta-data/iam/security-credentials/" => (200, "the-role\nother".into()),
                "GET /latest/meta-data/iam/security-credentials/the-role" => (200, JSON.into()),
                _ => (404, String::new()),
            })
            .await;
            let mut env = vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", machine.url.as_str())];
            assert_eq!(key(&config(), &env).await, Ok("LOCAL".into()));
            assert_eq!(machine.seen()[0].header("x-aws-ec2-metadata-token-ttl-seconds"), "300");
            assert_eq!(machine.last().header("x-aws-ec2-metadata-token"), if knows_tokens { "the-token" } else { "" });
            assert_eq!(machine.lines().len(), 3);
            env.push(("AWS_EC2_METADATA_V1_DISABLED", "true"));
            assert_eq!(key(&config(), &env).await.is_ok(), knows_tokens);
        }
    }

    #[tokio::test]
    async fn a_refusal_names_its_reason_and_no_secret() {
        let sts = Server::start(|_| {
            (
                403,
                "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no hunter2</Message></Error></ErrorResponse>"
                    .into(),
            )
        })
        .await;
        let config = SigV4Config {
            access_key: "A".into(),
            secret_key: Secret::new("hunter2"),
            role_arn: "arn".into(),
            ..config()
        };
        let error = key(&config, &[("AWS_ENDPOINT_URL_STS", &sts.url)]).await.unwrap_err();
        assert_eq!(error, "failed to assume role arn: 403 Forbidden: AccessDenied: no xxxxx");
    }

    #[test]
    fn endpoints_of_the_token_service() {
        for (region, fips, url) in [
            ("us-east-1", false, "https://sts.us-east-1.amazonaws.com/"),
            ("us-east-1", true, "https://sts-fips.us-east-1.amazonaws.com/"),
            ("us-gov-west-1", true, "https://sts.us-gov-west-1.amazonaws.com/"),
            ("cn-north-1", false, "https://sts.cn-north-1.amazonaws.com.cn/"),
            ("us-iso-east-1", false, "https://sts.us-iso-east-1.c2s.ic.gov/"),
        ] {
            assert_eq!(sts_url(region, fips), url);
        }
    }

    #[test]
    fn answers_of_the_token_service_in_json_and_xml() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_SECONDS);
        let json = r#"{"AssumeRoleResponse": {"AssumeRoleResult": {"Credentials": {"AccessKeyId": "ROLE",
            "SecretAccessKey": "s&c", "SessionToken": "tok", "Expiration": 1.44094176E9}}}}"#;
        for text in [XML, json] {
            let lease = sts_credentials(text, now).unwrap();
            assert_eq!(lease.value.access_key, "ROLE");
            assert_eq!(lease.value.secret_key.expose(), "s&c");
            assert_eq!(lease.expires, now.checked_add(Duration::from_secs(3_600)));
        }
        for text in ["", "{}", "<Credentials>", "<Credentials></Credentials>", "<Credentials><AccessKeyId>"] {
            assert_eq!(sts_credentials(text, now).err().unwrap().to_string(), "response has no credentials", "{text}");
        }
        assert_eq!(element("<ab>1</ab><a x=\"1\">2</a>", "a"), Some("2"));
        assert_eq!(unescape(" &lt;a&gt; &#65;&#x42; &bad; & "), "<a> AB &bad; &");
    }

    proptest! {
        #[test]
        fn any_answer_and_any_file_is_read_without_panic(
            any in any::<String>(),
            near in "(<(/)?(Credentials|AccessKeyId|Error)[ >]|&(amp|#x?[0-9a-f]*);|[a-z\u{e9}<>&;]){0,12}",
            ini in "(\\[|\\]|profile |default|=| #|\n|[a-z\u{e9}]){0,24}",
        ) {
            for text in [&any, &near, &ini] {
                let _ = sts_credentials(text, SystemTime::UNIX_EPOCH);
                unescape(text);
                element(text, "Error");
                for is_config in [true, false] {
                    let mut profiles = Profiles::default();
                    profiles.add(text, is_config);
                    profiles.get("default", "region");
                }
            }
        }
    }
}
