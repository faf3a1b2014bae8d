//! Signature version 4 of AWS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use corten_config::{Arguments, CheckErrors};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use ring::{digest, hmac};

use super::aws::{Chain, Credentials};
use super::time::basic_date_time;
use super::{BoxFuture, Kept, Outside, auth, sensitive};
use crate::{Body, ClientOptions, Error, Secret, Sign};

/// Requests are signed for this service, the one for Prometheus, unless another is configured.
const SERVICE_DEFAULT: &str = "aps";
/// Headers that proxies or the client change or add later, and those that are never signed.
const UNSIGNED: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::EXPECT,
    header::TRANSFER_ENCODING,
    HeaderName::from_static("uber-trace-id"),
    header::USER_AGENT,
    HeaderName::from_static("x-amzn-trace-id"),
];

/// Signing of requests with signature version 4 of AWS.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct SigV4Config {
    /// The region. Empty means the one of the environment, the profile or the machine.
    #[arg(optional)]
    pub region: String,
    /// The identifier of the access key. Empty means the default chain of credentials.
    #[arg(optional)]
    pub access_key: String,
    /// The secret of the access key.
    #[arg(optional)]
    pub secret_key: Secret,
    /// The profile of the shared configuration files.
    #[arg(optional)]
    pub profile: String,
    /// A role to take on.
    #[arg(optional)]
    pub role_arn: String,
    /// The external identifier that the role asks for.
    #[arg(optional)]
    pub external_id: String,
    /// Whether to use the endpoint of the token service that conforms to FIPS.
    #[arg(default = false)]
    pub use_fips_sts_endpoint: bool,
    /// The service to sign for.
    #[arg(default = "aps")]
    pub service_name: String,
}

impl Default for SigV4Config {
    fn default() -> Self {
        Self {
            region: String::new(),
            access_key: String::new(),
            secret_key: Secret::default(),
            profile: String::new(),
            role_arn: String::new(),
            external_id: String::new(),
            use_fips_sts_endpoint: false,
            service_name: SERVICE_DEFAULT.to_owned(),
        }
    }
}

impl SigV4Config {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            self.access_key.is_empty() == self.secret_key.is_empty(),
            &["access_key", "secret_key"],
            "must provide an AWS SigV4 access key and secret key if credentials are specified in the SigV4 config",
        );
        errors.require(
            self.external_id.is_empty() || !self.role_arn.is_empty(),
            &["external_id", "role_arn"],
            "external_id can only be used with role_arn",
        );
        errors.into_result()
    }

    /// Makes a signer. The shared configuration files are read, and the metadata service is asked for the region when
    /// nothing else says it; credentials are obtained with the first request and kept until shortly before they expire.
    ///
    /// # Errors
    /// Of kind `Config` when arguments contradict each other, of kind `Auth` when a file cannot be used, a profile is
    /// missing or no region is known.
    pub async fn signer(&self, options: &ClientOptions) -> Result<Arc<dyn Sign>, Error> {
        Ok(Arc::new(self.signer_in(Outside::new(options).await?).await?))
    }

    /// Makes a signer that takes from the host of a request what is not configured, service and region, where the host
    /// says that.
    ///
    /// # Errors
    /// As [`SigV4Config::signer`], but that no region is known is an error of a request.
    pub async fn inferring_signer(
        &self,
        inference: SigV4Inference,
        options: &ClientOptions,
    ) -> Result<Arc<dyn Sign>, Error> {
        Ok(Arc::new(self.inferring_signer_in(inference, Outside::new(options).await?).await?))
    }

    /// Makes a signer for a service whose endpoint depends on the region. Without a region it is the one of inference.
    pub(super) async fn service_signer(&self, outside: Outside) -> Result<Signer, Error> {
        let chain = Chain::with(self, Some(&SigV4Inference::default()), &outside).await?;
        let (service, region) = (self.service_name.clone(), chain.region.clone());
        Ok(Signer { outside, chain, service, region, infers: false, kept: Kept::new() })
    }

    async fn signer_in(&self, outside: Outside) -> Result<Signer, Error> {
        self.check().map_err(|errors| Error::config(errors.to_string()))?;
        let chain = Chain::new(self, &outside).await?;
        let service = if self.service_name.is_empty() { SERVICE_DEFAULT } else { &self.service_name };
        let region = chain.region.clone();
        Ok(Signer { outside, chain, service: service.to_owned(), region, infers: false, kept: Kept::new() })
    }

    async fn inferring_signer_in(&self, inference: SigV4Inference, outside: Outside) -> Result<Signer, Error> {
        self.check().map_err(|errors| Error::config(errors.to_string()))?;
        let chain = Chain::with(self, Some(&inference), &outside).await?;
        let (service, region) = (self.service_name.clone(), self.region.clone());
        Ok(Signer { outside, chain, service, region, infers: true, kept: Kept::new() })
    }

    /// The URL to send to: its path without empty and dot segments, a slash at its end kept. A signature covers such a
    /// path, and a server that does not clean paths itself would see another one.
    pub fn clean_uri(uri: &Uri) -> Uri {
        let cleaned = clean_path(uri.path());
        if cleaned == uri.path() {
            return uri.clone();
        }
        let target = match uri.query() {
            Some(query) => format!("{cleaned}?{query}"),
            None => cleaned,
        };
        let mut parts = uri.clone().into_parts();
        // A part of a valid target is valid; were it not, the URL stays as it is.
        match PathAndQuery::try_from(target) {
            Ok(target) => parts.path_and_query = Some(target),
            Err(_) => return uri.clone(),
        }
        Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
    }
}

/// What a signer needs that takes service and region from the hosts of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SigV4Inference {
    /// The name of the session of the role that is taken on; empty text is a name made up.
    pub session_name: String,
    /// The region of the token service; empty text is that of the requests.
    pub sts_region: String,
}

/// Signs requests with credentials of a chain.
pub(super) struct Signer {
    outside: Outside,
    chain: Chain,
    service: String,
    region: String,
    /// Whether the host of a request says what is empty.
    infers: bool,
    kept: Kept<Credentials>,
}

impl Signer {
    pub(super) fn region(&self) -> &str {
        &self.region
    }
}

impl Sign for Signer {
    fn sign<'a>(&'a self, parts: &'a Parts, body: &'a Body) -> BoxFuture<'a, Result<HeaderMap, Error>> {
        Box::pin(async move {
            let fetched = self.kept.get(&self.outside, self.chain.fetch(&self.outside)).await;
            let credentials = fetched.map_err(|error| auth(format!("error retrieving credentials: {error}")))?;
            let (mut service, mut region) = (&*self.service, &*self.region);
            if self.infers {
                let (of_host, in_host) = inferred(parts.uri.host().unwrap_or_default());
                service = if service.is_empty() { of_host } else { service };
                region = if region.is_empty() { in_host } else { region };
                if service.is_empty() || region.is_empty() {
                    return Err(auth("unable to infer region and/or service from the URL, they have to be configured"));
                }
            }
            signature(parts, body, &credentials, &Scope { region, service, time: self.outside.now() })
        })
    }
}

/// The service and the region of hosts of AWS that are known to be such: `aps-workspaces.us-east-1.amazonaws.com`.
fn inferred(host: &str) -> (&str, &str) {
    const SERVICES: [(&str, &str); 4] =
        [("aps-workspaces", "aps"), ("search-", "es"), ("logs", "logs"), ("xray", "xray")];
    let Some((_, service)) = SERVICES.iter().find(|(prefix, _)| host.starts_with(prefix)) else { return ("", "") };
    let mut labels = host.split('.').skip(1);
    // The last label is no region.
    (service, labels.next().filter(|_| labels.next().is_some()).unwrap_or_default())
}

/// What a signature is limited to.
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) time: SystemTime,
}

/// The headers that sign a request: `X-Amz-Date`, `X-Amz-Security-Token` where there is one, and `Authorization`.
pub(super) fn signature(
    parts: &Parts,
    body: &Body,
    credentials: &Credentials,
    scope: &Scope<'_>,
) -> Result<HeaderMap, Error> {
    let date_time = basic_date_time(scope.time);
    let date = date_time.split('T').next().unwrap_or_default();
    let mut added = HeaderMap::new();
    let date_value = HeaderValue::from_str(&date_time).map_err(|_| auth("clock gives no usable date"))?;
    added.insert(HeaderName::from_static("x-amz-date"), date_value);
    if let Some(token) = &credentials.session_token {
        added.insert(HeaderName::from_static("x-amz-security-token"), sensitive(token.expose())?);
    }
    if body.len_bytes() > 0 {
        // It is signed, so it is said here rather than left to the transport.
        added.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len_bytes()));
    }

    let signed = signed_headers(parts, &added)?;
    let names = signed.keys().map(String::as_str).collect::<Vec<_>>().join(";");
    let canonical = canonical_request(parts, body, &signed, &names);
    let region_scope = format!("{date}/{}/{}/aws4_request", scope.region, scope.service);
    let text = format!("AWS4-HMAC-SHA256\n{date_time}\n{region_scope}\n{}", sha256_hex([canonical.as_slice()]));

    let mut key = format!("AWS4{}", credentials.secret_key.expose()).into_bytes();
    for part in [date, scope.region, scope.service, "aws4_request"] {
        key = hmac_sha256(&key, part.as_bytes()).as_ref().to_vec();
    }
    let signature = hex(hmac_sha256(&key, text.as_bytes()).as_ref());
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/{region_scope}, SignedHeaders={names}, Signature={signature}",
        credentials.access_key
    );
    added.insert(header::AUTHORIZATION, sensitive(&authorization)?);
    Ok(added)
}

/// The headers to sign by name in lower case, each with its values joined by commas.
fn signed_headers(parts: &Parts, added: &HeaderMap) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let mut signed = BTreeMap::new();
    let kept = parts.headers.keys().filter(|name| !added.contains_key(*name)).map(|name| (name, &parts.headers));
    for (name, from) in kept.chain(added.keys().map(|name| (name, added))) {
        if UNSIGNED.contains(name) {
            continue;
        }
        let values: Vec<Vec<u8>> = from.get_all(name).iter().map(|value| collapse(value.as_bytes())).collect();
        signed.insert(name.as_str().to_owned(), values.join(&b','));
    }
    if !signed.contains_key("host") {
        let host = parts.uri.host().ok_or_else(|| auth("no host in request url"))?;
        let host = match (parts.uri.port_u16(), parts.uri.scheme_str()) {
            (None, _) | (Some(80), Some("http")) | (Some(443), Some("https")) => host.to_owned(),
            (Some(port), _) => format!("{host}:{port}"),
        };
        signed.insert("host".to_owned(), host.into_bytes());
    }
    Ok(signed)
}

fn canonical_request(parts: &Parts, body: &Body, signed: &BTreeMap<String, Vec<u8>>, names: &str) -> Vec<u8> {
    let path = match clean_path(parts.uri.path()) {
        path if path.is_empty() => "/".to_owned(),
        // The path is encoded as it is sent, so a second time where it is encoded already.
        path => escape(path.as_bytes(), true),
    };
    let query = canonical_query(parts.uri.query().unwrap_or_default());
    let mut out = format!("{}\n{path}\n{query}\n", parts.method).into_bytes();
    for (name, value) in signed {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    let hash = sha256_hex(body.chunks().map(|chunk| chunk.as_ref()));
    out.extend_from_slice(format!("\n{names}\n{hash}").as_bytes());
    out
}

/// Without spaces at the ends and with one where there are several.
fn collapse(value: &[u8]) -> Vec<u8> {
    let words = value.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(&b' ')
}

/// A path without empty, `.` and `..` segments. A slash at its end stays.
fn clean_path(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let mut out = format!("/{}", segments.join("/"));
    if path.ends_with('/') && out != "/" {
        out.push('/');
    }
    out
}

/// The parameters, each decoded and encoded anew, in order.
fn canonical_query(query: &str) -> String {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (escape(&unescape_query(name), false), escape(&unescape_query(value), false))
    });
    let mut pairs: Vec<(String, String)> = pairs.collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Decodes `+` and `%XX`; what is not a valid escape stands for itself.
fn unescape_query(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    out
}

/// Encodes all but the unreserved characters of RFC 3986 and, if wanted, slashes.
pub(crate) fn escape(bytes: &[u8], keep_slash: bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            b'/' if keep_slash => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn sha256_hex<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for chunk in chunks {
        context.update(chunk);
    }
    hex(context.finish().as_ref())
}

fn hmac_sha256(key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;
    use proptest::prelude::*;

    use super::super::testing::{NOW_SECONDS, Server, decoded, outside};
    use super::*;
    use crate::{Client, ClientConfig, ErrorKind};

    fn credentials(token: &str) -> Credentials {
        Credentials {
            access_key: "AKIDEXAMPLE".into(),
            secret_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session_token: Some(Secret::new(token)).filter(|token| !token.is_empty()),
        }
    }

    fn authorization(request: Request<Body>, token: &str) -> String {
        let (parts, body) = request.into_parts();
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(NOW_SECONDS);
        let scope = Scope { region: "us-east-1", service: "service", time };
        let added = signature(&parts, &body, &credentials(token), &scope).unwrap();
        assert_eq!(added["x-amz-date"], "20150830T123600Z");
        assert!(added["authorization"].is_sensitive());
        added["authorization"].to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn service_and_region_are_those_of_the_host_where_nothing_else_says_them() {
        for (service, region, host, want) in [
            ("", "", "aps-workspaces.eu-west-1.amazonaws.com", "eu-west-1/aps"),
            ("", "", "search-my-domain.us-east-2.es.amazonaws.com", "us-east-2/es"),
            ("", "", "logs.us-east-1.amazonaws.com", "us-east-1/logs"),
            ("", "", "xray.us-east-1.amazonaws.com", "us-east-1/xray"),
            ("mine", "mars-1", "xray.us-east-1.amazonaws.com", "mars-1/mine"),
            ("mine", "mars-1", "example.com", "mars-1/mine"),
            ("mine", "", "example.com", ""),
            ("", "", "logs.amazonaws", ""),
        ] {
            let config = SigV4Config { region: region.into(), service_name: service.into(), ..SigV4Config::default() };
            let outside = outside(&[("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "s")]).await;
            let signer = config.inferring_signer_in(SigV4Inference::default(), outside).await.unwrap();
            let request = Request::post(format!("https://{host}/x")).body(Body::empty()).unwrap();
            let (parts, body) = request.into_parts();
            let signed = signer.sign(&parts, &body).await;
            match want {
                "" => assert!(signed.unwrap_err().to_string().starts_with("unable to infer region"), "{host}"),
                want => {
                    let headers = signed.unwrap();
                    let shown = headers["authorization"].to_str().unwrap();
                    assert!(
                        shown.contains(&format!("Credential=AKID/20150830/{want}/aws4_request")),
                        "{host}: {shown}"
                    );
                }
            }
        }
    }

    /// AWS's own examples, as its libraries use them for their tests (awslabs/aws-c-auth, aws-signing-test-suite).
    #[test]
    fn the_published_examples_of_signatures() {
        const UNRESERVED: &str = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let vanilla = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        let unreserved_query = format!("/?{UNRESERVED}={UNRESERVED}");
        let unreserved_path = format!("/{UNRESERVED}");
        type Case<'a> = (&'a str, &'a str, &'a [(&'static str, &'static str)], &'a str);
        let cases: &[Case<'_>] = &[
            ("GET", "/", &[], vanilla),
            ("GET", "", &[], vanilla),
            ("GET", "/example/..", &[], vanilla),
            ("GET", "/example1/example2/../..", &[], vanilla),
            ("GET", "/./", &[], vanilla),
            ("GET", "//", &[], vanilla),
            ("GET", "/./example", &[], "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5"),
            ("GET", "//example//", &[], "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84"),
            ("GET", &unreserved_path, &[], "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"),
            ("GET", "/?Param1=value1", &[], "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"),
            (
                "GET",
                "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
                &[],
                "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
            ),
            (
                "GET",
                "/?Param2=value2&Param1=value1",
                &[],
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            ("GET", &unreserved_query, &[], "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"),
            ("GET", "/?%E1%88%B4=bar", &[], "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
            (
                "GET",
                "/",
                &[("my-header1", "value2"), ("my-header1", "value2"), ("my-header1", "value1")],
                "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
            ),
            (
                "GET",
                "/",
                &[("my-header2", "\"a   b   c\""), ("my-header1", " value1 ")],
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            ),
            ("POST", "/", &[], "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            (
                "POST",
                "/",
                &[("my-header1", "VALUE1"), ("uber-trace-id", "1"), ("user-agent", "x"), ("x-amzn-trace-id", "1")],
                "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
            ),
            ("POST", "/?Param1=value1", &[], "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"),
        ];
        for (method, target, headers, expected) in cases {
            let mut request = Request::builder().method(*method).uri(format!("https://example.amazonaws.com{target}"));
            for (name, value) in *headers {
                request = request.header(*name, *value);
            }
            let shown = authorization(request.body(Body::empty()).unwrap(), "");
            assert!(shown.ends_with(&format!(", Signature={expected}")), "{method} {target}: {shown}");
            assert!(
                shown.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "),
                "{shown}"
            );
        }

        let request = Request::get("https://example.amazonaws.com/").body(Body::empty()).unwrap();
        let shown = authorization(request, "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267");
        let expected = "SignedHeaders=host;x-amz-date;x-amz-security-token, \
            Signature=07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8";
        assert!(shown.ends_with(expected), "{shown}");

        let request = Request::post("https://example.amazonaws.com/")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("x-amz-content-sha256", "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e")
            .body(Body::from(vec![Bytes::from("Param1"), Bytes::from("=value1")]))
            .unwrap();
        let expected = "SignedHeaders=content-length;content-type;host;x-amz-content-sha256;x-amz-date, \
            Signature=d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b";
        assert!(authorization(request, "").ends_with(expected));
    }

    #[test]
    fn paths_and_queries_in_canonical_form() {
        for (path, cleaned) in [
            ("", ""),
            ("/", "/"),
            ("//a///b/", "/a/b/"),
            ("/a/./b/../c", "/a/c"),
            ("/../..", "/"),
            ("/a/..", "/"),
            ("/a/.", "/a"),
            ("/a/../", "/"),
        ] {
            assert_eq!(clean_path(path), cleaned, "{path}");
        }
        assert_eq!(canonical_query("b=2&a=1+2&a=%41&c&&%zz=%4"), "%25zz=%254&a=1%202&a=A&b=2&c=");
        // What is encoded already is encoded again.
        assert_eq!(escape(b"/a%20b/:", true), "/a%2520b/%3A");
        for (uri, cleaned) in [
            ("https://h:1/a//b/?q=//", "https://h:1/a/b/?q=//"),
            ("https://h/a/b", "https://h/a/b"),
            ("https://h//", "https://h/"),
        ] {
            assert_eq!(SigV4Config::clean_uri(&uri.parse().unwrap()), cleaned, "{uri}");
        }
    }

    #[test]
    fn the_host_is_signed_without_a_usual_port() {
        for (uri, host) in [
            ("https://h:443/", "h"),
            ("http://h:80/", "h"),
            ("http://h:443/", "h:443"),
            ("https://user:pass@h:8443/", "h:8443"),
            ("https://[::1]:8443/", "[::1]:8443"),
        ] {
            let (parts, ()) = Request::get(uri).body(()).unwrap().into_parts();
            let signed = signed_headers(&parts, &HeaderMap::new()).unwrap();
            assert_eq!(String::from_utf8_lossy(&signed["host"]), host, "{uri}");
        }
    }

    #[test]
    fn the_arguments_and_their_rules() {
        assert_eq!(decoded::<SigV4Config>(""), Ok(SigV4Config::default()));
        let given = decoded::<SigV4Config>(
            "region = \"r\"\naccess_key = \"a\"\nsecret_key = \"s\"\nprofile = \"p\"\nrole_arn = \"x\"\n\
             external_id = \"e\"\nuse_fips_sts_endpoint = true\nservice_name = \"n\"",
        )
        .unwrap();
        assert_eq!((given.secret_key.expose(), given.service_name.as_str()), ("s", "n"));
        for (body, text) in [
            (
                "access_key = \"a\"",
                "must provide an AWS SigV4 access key and secret key if credentials are specified in the SigV4 config",
            ),
            ("external_id = \"e\"", "external_id can only be used with role_arn"),
        ] {
            let texts = decoded::<SigV4Config>(body).unwrap_err().join("\n");
            assert!(texts.contains(text), "{texts}");
        }
    }

    #[tokio::test]
    async fn what_is_sent_carries_the_signature() {
        let server = Server::start(|_| (200, String::new())).await;
        let config = SigV4Config {
            region: "us-east-1".into(),
            access_key: "AKIDEXAMPLE".into(),
            secret_key: Secret::new("hunter2"),
            ..SigV4Config::default()
        };
        let signer: Arc<dyn Sign> = Arc::new(config.signer_in(outside(&[]).await).await.unwrap());
        let options = ClientOptions { sign: Some(signer), ..ClientOptions::default() };
        let client = Client::new(ClientConfig::default(), options).await.unwrap();
        let request = Request::post(format!("{}/api/v1/remote_write", server.url)).body("body".into()).unwrap();
        client.request(request).await.unwrap();
        let seen = server.last();
        let shown = seen.header("authorization");
        assert!(
            shown.starts_with(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/aps/aws4_request, \
                 SignedHeaders=content-length;host;x-amz-date, Signature="
            ),
            "{shown}"
        );
        assert_eq!((seen.header("x-amz-date"), seen.header("content-length")), ("20150830T123600Z", "4"));
        assert_eq!(seen.headers.get_all("content-length").iter().count(), 1);
    }

    #[tokio::test]
    async fn a_signer_needs_a_region() {
        let outside = outside(&[("AWS_EC2_METADATA_DISABLED", "true")]).await;
        let error = SigV4Config::default().signer_in(outside).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Auth);
        assert_eq!(
            error.to_string(),
            "region not configured in sigv4 or in default credentials chain: access to the metadata service is \
             disabled by AWS_EC2_METADATA_DISABLED"
        );
    }

    proptest! {
        #[test]
        fn any_path_and_query_is_signed_without_panic(
            target in "[/.%a-f0-9?&=+~:;@!$'()*, \u{e9}\u{1234}-]{0,40}",
            value in proptest::collection::vec(any::<u8>(), 0..20),
            body in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            if let Ok(mut request) = Request::get(format!("https://host/{target}")).body(Body::from(body)) {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    request.headers_mut().insert("x-value", value);
                }
                SigV4Config::clean_uri(request.uri());
                authorization(request, "token");
            }
        }

        #[test]
        fn a_clean_path_stays_as_it_is(path in "/[/.a-c]{0,20}", query in "[a-c=&+%0-9]{0,20}") {
            let cleaned = clean_path(&path);
            prop_assert!(cleaned.starts_with('/') && !cleaned.contains("//"));
            prop_assert_eq!(clean_path(&cleaned), cleaned);
            let canonical = canonical_query(&query);
            prop_assert_eq!(canonical_query(&canonical), canonical);
        }
    }
}
