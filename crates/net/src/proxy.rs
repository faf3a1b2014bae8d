//! Which proxy a request goes through, and how a proxy is asked to connect on.
//!
//! The rules of `no_proxy` and of the environment are those of Go's `golang.org/x/net/http/httpproxy`.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Empty;
use hyper_util::client::legacy::connect::proxy::SocksV5;
use hyper_util::rt::TokioIo;
use tower_service::Service;
use url::Url;

use crate::config::{Headers, ProxyConfig};
use crate::connect::BoxIo;
use crate::error::{describe_io, find_cause, redact_url};
use crate::{Error, ErrorKind};

/// How to reach servers: directly or through a proxy.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProxyRules {
    http: Option<Arc<Proxy>>,
    https: Option<Arc<Proxy>>,
    /// Whether hosts are excepted at all. Without `no_proxy` and without the environment even loopback addresses go
    /// through the proxy.
    no_proxy: Option<NoProxy>,
    /// Headers of `CONNECT` requests.
    pub(crate) connect_headers: HeaderMap,
}

/// One proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) kind: ProxyKind,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// User and password, decoded.
    credentials: Option<(String, String)>,
    /// The same as a header.
    pub(crate) authorization: Option<HeaderValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyKind {
    Http,
    Https,
    Socks5,
}

impl Proxy {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let invalid = || Error::config(format!("invalid proxy address \"{}\"", redact_url(text)));
        // `host:port` alone means a proxy that speaks plain HTTP.
        let url = match Url::parse(text) {
            Ok(url) if url.has_host() => url,
            _ if text.contains("://") => return Err(invalid()),
            _ => Url::parse(&format!("http://{text}")).map_err(|_| invalid())?,
        };
        let (kind, default_port) = match url.scheme() {
            "http" => (ProxyKind::Http, 80),
            "https" => (ProxyKind::Https, 443),
            "socks5" | "socks5h" => (ProxyKind::Socks5, 1080),
            other => {
                return Err(Error::config(format!(
                    "proxy scheme \"{other}\" is not supported, the supported schemes are http, https, socks5 and socks5h"
                )));
            }
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(invalid)?;
        let credentials = credentials(&url);
        Ok(Self {
            kind,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port().unwrap_or(default_port),
            authorization: credentials.as_ref().map(|(user, password)| basic(user, password)),
            credentials,
        })
    }

    /// The address, for errors and for dialling.
    pub(crate) fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The user information of a URL, decoded.
pub(crate) fn credentials(url: &Url) -> Option<(String, String)> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    Some((percent_decode(url.username()), percent_decode(url.password().unwrap_or_default())))
}

/// Decodes percent-encoding; what is not valid stays as it is.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |offset: usize| bytes.get(at + offset).and_then(|&b| (b as char).to_digit(16));
        match (bytes[at], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The header value of basic authentication (RFC 7617), marked as sensitive.
pub(crate) fn basic(user: &str, password: &str) -> HeaderValue {
    let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    // Base64 is always a valid header value; the empty fallback is never taken.
    let mut value = HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// Headers of the configuration as headers of the protocol, marked as sensitive.
pub(crate) fn header_map(headers: &Headers) -> Result<HeaderMap, Error> {
    let mut map = HeaderMap::new();
    for (name, values) in headers {
        let header_name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Error::config(format!("header name {name:?} is not valid")))?;
        for value in values {
            let mut value = HeaderValue::from_str(value.expose().trim())
                .map_err(|_| Error::config(format!("value of header \"{name}\" is not valid")))?;
            value.set_sensitive(true);
            map.append(header_name.clone(), value);
        }
    }
    Ok(map)
}

impl ProxyRules {
    /// The rules of a configuration. `environment` reads a variable.
    pub(crate) fn new(config: &ProxyConfig, environment: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let connect_headers = header_map(&config.proxy_connect_header)?;
        if !config.proxy_url.is_empty() {
            let proxy = Arc::new(Proxy::parse(config.proxy_url.expose())?);
            let no_proxy = (!config.no_proxy.is_empty()).then(|| NoProxy::new(&config.no_proxy));
            return Ok(Self { http: Some(proxy.clone()), https: Some(proxy), no_proxy, connect_headers });
        }
        if !config.proxy_from_environment {
            return Ok(Self { connect_headers, ..Self::default() });
        }
        let variable = |name: &str| {
            let found = environment(name).filter(|value| !value.is_empty());
            found.or_else(|| environment(&name.to_ascii_lowercase())).filter(|value| !value.is_empty())
        };
        let proxy = |name: &str| variable(name).map(|text| Proxy::parse(&text).map(Arc::new)).transpose();
        Ok(Self {
            http: proxy("HTTP_PROXY")?,
            https: proxy("HTTPS_PROXY")?,
            no_proxy: Some(NoProxy::new(&variable("NO_PROXY").unwrap_or_default())),
            connect_headers,
        })
    }

    /// Whether any connection to a proxy is encrypted.
    pub(crate) fn uses_tls(&self) -> bool {
        [&self.http, &self.https].into_iter().flatten().any(|proxy| proxy.kind == ProxyKind::Https)
    }

    /// The proxy for a server, if it is to be reached through one. `host` has no brackets.
    pub(crate) fn select(&self, https: bool, host: &str, port: u16) -> Option<&Arc<Proxy>> {
        let proxy = if https { self.https.as_ref() } else { self.http.as_ref() }?;
        match &self.no_proxy {
            Some(no_proxy) if no_proxy.matches(host, port) => None,
            _ => Some(proxy),
        }
    }
}

/// Hosts that are reached without a proxy, as a list separated by commas.
///
/// An entry is `*`; an address or a network (`10.0.0.0/8`); a domain, which stands for itself and all below it; or a
/// domain with a leading `.` or `*.`, which stands only for all below it. An address or domain may carry a port, which
/// must then be equal. `localhost` and loopback addresses always match. An entry that is none of these matches nothing.
#[derive(Clone, Debug, Default)]
pub struct NoProxy {
    all: bool,
    networks: Vec<(IpAddr, u32)>,
    addresses: Vec<(IpAddr, Option<u16>)>,
    domains: Vec<Domain>,
}

#[derive(Clone, Debug)]
struct Domain {
    /// With a leading dot, in lower case.
    suffix: String,
    /// The domain itself matches too, not only what is below it.
    itself: bool,
    port: Option<u16>,
}

impl NoProxy {
    /// Reads a list.
    pub fn new(list: &str) -> Self {
        let mut rules = Self::default();
        for entry in list.split(',') {
            let entry = entry.trim().to_lowercase();
            if entry == "*" {
                rules.all = true;
            } else if let Some(network) = parse_network(&entry) {
                rules.networks.push(network);
            } else {
                rules.add_host(&entry);
            }
        }
        rules
    }

    fn add_host(&mut self, entry: &str) {
        let (host, port) = match split_port(entry) {
            // A port that is no number can never be equal to one.
            Some((host, port)) => match port.parse() {
                Ok(port) => (host, Some(port)),
                Err(_) if port.is_empty() => (host, None),
                Err(_) => return,
            },
            None => (entry, None),
        };
        if let Ok(address) = host.parse::<IpAddr>() {
            self.addresses.push((address.to_canonical(), port));
            return;
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        let (itself, name) = match host.strip_prefix('.') {
            Some(name) => (false, name),
            None => (true, host),
        };
        if name.is_empty() {
            return;
        }
        // Names outside ASCII are compared in the form in which they stand in a URL.
        let name = match url::Host::parse(name) {
            Ok(url::Host::Domain(ascii)) => ascii,
            _ => name.to_owned(),
        };
        self.domains.push(Domain { suffix: format!(".{name}"), itself, port });
    }

    /// Whether a server is reached without a proxy. `host` has no brackets.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        let host = host.trim().to_lowercase();
        if self.all || host == "localhost" {
            return true;
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            let address = address.to_canonical();
            if address.is_loopback()
                || self.networks.iter().any(|&(network, bits)| contains(network, bits, address))
                || self.addresses.iter().any(|&(ip, p)| ip == address && p.is_none_or(|p| p == port))
            {
                return true;
            }
        }
        self.domains.iter().any(|domain| {
            let named = host.ends_with(&domain.suffix) || (domain.itself && host == domain.suffix[1..]);
            named && domain.port.is_none_or(|p| p == port)
        })
    }
}

/// `host:port`; the host loses its brackets. `None` when there is no port or the colons are ambiguous.
fn split_port(entry: &str) -> Option<(&str, &str)> {
    if let Some(rest) = entry.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return Some((host, after.strip_prefix(':')?));
    }
    let (host, port) = entry.split_once(':')?;
    (!port.contains(':')).then_some((host, port))
}

fn parse_network(entry: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = entry.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u32 = bits.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    (bits <= width).then_some((address, bits))
}

/// Whether an address lies in a network. One of each family never does.
fn contains(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    let (network, address, width) = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (u128::from(network.to_bits()), u128::from(address.to_bits()), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    // A shift by the whole width is undefined for integers: a network of no bits holds everything.
    bits == 0 || (network ^ address) >> (width - bits) == 0
}

/// Asks a proxy over `io` to connect to `target` (`host:port`) with an HTTP `CONNECT` request.
pub(crate) async fn http_connect(io: BoxIo, proxy: &Proxy, target: &str, headers: &HeaderMap) -> Result<BoxIo, Error> {
    let failed = |error: &hyper::Error| {
        let error = Error::from_hyper(error);
        Error::new(ErrorKind::Proxy, format!("proxy {}: {error}", proxy.authority()))
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(|error| failed(&error))?;
    let uri: Uri = target.parse().map_err(|_| Error::new(ErrorKind::Request, "host of the url is not valid"))?;
    let mut request = Request::new(Empty::<bytes::Bytes>::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers.clone();
    if let Ok(host) = HeaderValue::from_str(target) {
        request.headers_mut().insert(header::HOST, host);
    }
    if let Some(authorization) = &proxy.authorization {
        request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization.clone());
    }
    // The connection lives in this future, so that a caller who gives up takes it down too.
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = response.status();
        if status != http::StatusCode::OK {
            let text = format!("proxy {} refused to connect to {target}: {status}", proxy.authority());
            return Err(Error::new(ErrorKind::Proxy, text));
        }
        hyper::upgrade::on(response).await.map_err(|error| failed(&error))
    };
    let connection = connection.with_upgrades();
    tokio::pin!(connection, exchange);
    let upgraded = tokio::select! {
        outcome = &mut exchange => outcome?,
        _ = &mut connection => exchange.await?,
    };
    Ok(Box::new(TokioIo::new(upgraded)))
}

/// Asks a SOCKS 5 proxy over `io` to connect to a server; the proxy resolves its name.
pub(crate) async fn socks5_connect(io: BoxIo, proxy: &Proxy, host: &str, port: u16) -> Result<BoxIo, Error> {
    let invalid = || Error::new(ErrorKind::Request, "host of the url is not valid");
    let target: Uri = format!("http://{}", authority(host, port)).parse().map_err(|_| invalid())?;
    let address: Uri = format!("http://{}", proxy.authority()).parse().map_err(|_| invalid())?;
    let mut socks = SocksV5::new(address, Ready(Some(io)));
    if let Some((user, password)) = &proxy.credentials {
        socks = socks.with_auth(user.clone(), password.clone());
    }
    match socks.call(target).await {
        Ok(io) => Ok(io.into_inner()),
        Err(error) => {
            let text = match find_cause::<std::io::Error>(&error) {
                Some(io) => describe_io(io),
                None => error.to_string(),
            };
            let target = authority(host, port);
            let text = format!("proxy {} refused to connect to {target}: {text}", proxy.authority());
            Err(Error::new(ErrorKind::Proxy, text))
        }
    }
}

/// A connector for the library's SOCKS handshake that hands out a connection made before.
struct Ready(Option<BoxIo>);

impl Service<Uri> for Ready {
    type Response = TokioIo<BoxIo>;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        std::future::ready(self.0.take().map(TokioIo::new).ok_or_else(|| std::io::Error::other("already used")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ProxyUrl;

    fn rules(config: ProxyConfig, environment: &[(&str, &str)]) -> Result<ProxyRules, Error> {
        ProxyRules::new(&config, |name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn shown(rules: &ProxyRules, https: bool, host: &str, port: u16) -> String {
        match rules.select(https, host, port) {
            Some(proxy) => format!("{:?} {}", proxy.kind, proxy.authority()),
            None => "direct".to_owned(),
        }
    }

    #[test]
    fn who_is_reached_without_a_proxy() {
        for (list, host, port, direct) in [
            ("", "example.com", 80, false),
            ("", "localhost", 80, true),
            ("", "127.1.2.3", 80, true),
            ("", "::1", 80, true),
            ("*", "example.com", 80, true),
            ("a.com, *", "example.com", 80, true),
            ("example.com", "example.com", 80, true),
            ("example.com", "EXAMPLE.com", 80, true),
            ("Example.com", "www.example.com", 80, true),
            ("example.com", "notexample.com", 80, false),
            (".example.com", "example.com", 80, false),
            (".example.com", "www.example.com", 80, true),
            ("*.example.com", "www.example.com", 80, true),
            ("*.example.com", "example.com", 80, false),
            ("example.com:8080", "example.com", 80, false),
            ("example.com:8080", "www.example.com", 8080, true),
            ("10.0.0.0/8", "10.1.2.3", 80, true),
            ("10.0.0.0/8", "11.1.2.3", 80, false),
            ("10.0.0.0/8", "ten.example.com", 80, false),
            ("0.0.0.0/0", "8.8.8.8", 80, true),
            ("0.0.0.0/0", "2001:db8::1", 80, false),
            ("2001:db8::/32", "2001:db8::1", 80, true),
            ("2001:db8::/129", "2001:db8::1", 80, false),
            ("192.168.0.1", "192.168.0.1", 80, true),
            ("192.168.0.1:443", "192.168.0.1", 80, false),
            ("192.168.0.1:443", "192.168.0.1", 443, true),
            ("[2001:db8::1]:443", "2001:db8::1", 443, true),
            ("2001:db8::1", "2001:db8::1", 443, true),
            ("::ffff:10.0.0.1", "10.0.0.1", 443, true),
            (":80", "example.com", 80, false),
            (" , ,", "example.com", 80, false),
            ("example.com:http", "example.com", 80, false),
            ("bücher.example", "xn--bcher-kva.example", 80, true),
        ] {
            assert_eq!(NoProxy::new(list).matches(host, port), direct, "{list} {host}:{port}");
        }
    }

    #[test]
    fn loopback_goes_through_a_configured_proxy_unless_there_are_exceptions() {
        let mut config =
            ProxyConfig { proxy_url: ProxyUrl::new("http://proxy:3128").unwrap(), ..ProxyConfig::default() };
        assert_eq!(shown(&rules(config.clone(), &[]).unwrap(), false, "127.0.0.1", 80), "Http proxy:3128");
        config.no_proxy = "other".into();
        assert_eq!(shown(&rules(config, &[]).unwrap(), false, "127.0.0.1", 80), "direct");
    }

    #[test]
    fn the_environment_counts_only_when_asked_for() {
        let environment = [("HTTP_PROXY", "proxy:3128"), ("https_proxy", "https://secure"), ("no_proxy", ".internal")];
        let none = rules(ProxyConfig::default(), &environment).unwrap();
        assert_eq!(shown(&none, false, "example.com", 80), "direct");
        let asked = ProxyConfig { proxy_from_environment: true, ..ProxyConfig::default() };
        let some = rules(asked, &environment).unwrap();
        assert_eq!(shown(&some, false, "example.com", 80), "Http proxy:3128");
        assert_eq!(shown(&some, true, "example.com", 443), "Https secure:443");
        assert_eq!(shown(&some, true, "a.internal", 443), "direct");
        assert_eq!(shown(&some, false, "127.0.0.1", 80), "direct");
    }

    #[test]
    fn the_forms_of_a_proxy_address() {
        for (text, outcome) in [
            ("http://proxy", Ok("Http proxy:80")),
            ("https://proxy:8443/", Ok("Https proxy:8443")),
            ("socks5://user:pass@[::1]", Ok("Socks5 [::1]:1080")),
            ("socks5h://proxy:9050", Ok("Socks5 proxy:9050")),
            ("proxy:3128", Ok("Http proxy:3128")),
            (
                "ftp://proxy",
                Err("proxy scheme \"ftp\" is not supported, the supported schemes are http, https, socks5 and socks5h"),
            ),
            ("http://user:hunter2@", Err("invalid proxy address \"(not a url)\"")),
        ] {
            let proxy = Proxy::parse(text).map(|proxy| format!("{:?} {}", proxy.kind, proxy.authority()));
            assert_eq!(proxy.map_err(|error| error.to_string()), outcome.map(str::to_owned).map_err(str::to_owned));
        }
        let proxy = Proxy::parse("http://us%65r:p%40ss%@proxy").unwrap();
        assert_eq!(proxy.credentials, Some(("user".into(), "p@ss%".into())));
        assert_eq!(proxy.authorization.unwrap(), "Basic dXNlcjpwQHNzJQ==");
    }

    proptest! {
        #[test]
        fn the_matcher_never_panics(list in any::<String>(), host in any::<String>(), port in any::<u16>()) {
            NoProxy::new(&list).matches(&host, port);
        }

        #[test]
        fn the_matcher_never_panics_on_what_resembles_a_list(list in "[0-9a-f.:/*,\\[\\] ]{0,40}", host in "[0-9a-f.:]{0,20}") {
            NoProxy::new(&list).matches(&host, 80);
        }

        #[test]
        fn a_domain_covers_everything_below_it_and_nothing_beside_it(name in "[a-z]{1,8}\\.[a-z]{2,4}", below in "[a-z]{1,8}") {
            let rules = NoProxy::new(&name);
            let covered = [name.clone(), format!("{below}.{name}")];
            prop_assert!(covered.iter().all(|host| rules.matches(host, 80)));
            let beside = format!("{below}{name}");
            prop_assert!(!rules.matches(&beside, 80));
        }

        #[test]
        fn a_network_holds_exactly_the_addresses_with_its_prefix(network in any::<u32>(), bits in 0_u32..=32, address in any::<u32>()) {
            let mask = if bits == 0 { 0 } else { u32::MAX << (32 - bits) };
            let [network_ip, address_ip] = [network, address].map(std::net::Ipv4Addr::from_bits);
            let rules = NoProxy::new(&format!("{network_ip}/{bits}"));
            let expected = network & mask == address & mask || address_ip.is_loopback();
            prop_assert_eq!(rules.matches(&address_ip.to_string(), 80), expected);
        }

        #[test]
        fn reading_a_proxy_address_never_panics_and_its_error_never_leaks(text in any::<String>()) {
            let _ = Proxy::parse(&text);
            let text = Proxy::parse(&format!("http://QZuser:QZpass@{text}:x")).map(|_| String::new());
            prop_assert!(!text.unwrap_or_else(|error| error.to_string()).contains("QZ"));
        }
    }
}
