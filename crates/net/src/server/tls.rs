//! TLS of a server.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use corten_config::schema::Stability;
use corten_config::{Arguments, CheckErrors};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CipherSuite, ConfigBuilder, DistinguishedName, RootCertStore, ServerConfig, SupportedCipherSuite,
    SupportedProtocolVersion, WantsVerifier,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;

use crate::connect::describe_tls;
use crate::files::{Stamps, off_thread, read_tls_file};
use crate::tls::{
    certificates, certified_key, check_certified_key, provider, system_roots, verify_signatures, versions,
};
use crate::{Error, ErrorKind, Secret};

/// TLS of a server, with the reference's names, values and rules. Empty text means 'not given'.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ServerTls {
    /// The certificate chain, as PEM.
    #[arg(default = "")]
    pub cert_pem: String,
    /// A file with the certificate chain, read again when it has changed.
    #[arg(default = "")]
    pub cert_file: String,
    /// The private key, as PEM.
    #[arg(default = "")]
    pub key_pem: Secret,
    /// A file with the private key, read again when it has changed.
    #[arg(default = "")]
    pub key_file: String,
    /// The certificate authorities for clients' certificates, as PEM.
    #[arg(default = "")]
    pub client_ca_pem: String,
    /// A file with the certificate authorities for clients' certificates, read when the configuration is applied.
    #[arg(default = "")]
    pub client_ca_file: String,
    /// What clients must show: `NoClientCert`, `RequestClientCert`, `RequireAnyClientCert`,
    /// `VerifyClientCertIfGiven` or `RequireAndVerifyClientCert`.
    #[arg(default = "NoClientCert")]
    pub client_auth_type: String,
    /// The cipher suites of TLS 1.2, by their names; those of TLS 1.3 are always enabled. Empty means all.
    #[arg(default = [])]
    pub cipher_suites: Vec<String>,
    /// The curves for key exchange, in order of preference: `X25519`, `CurveP256`, `CurveP384`. Empty means all.
    #[arg(default = [])]
    pub curve_preferences: Vec<String>,
    /// The lowest version: `TLS10`, `TLS11`, `TLS12` or `TLS13`. What is below 1.2 means 1.2.
    #[arg(default = "")]
    pub min_version: String,
    /// The highest version: `TLS12` or `TLS13`.
    #[arg(default = "")]
    pub max_version: String,
    /// Takes the certificate from the certificate store of Windows.
    #[block]
    pub windows_certificate_filter: Option<WindowsCertificateFilter>,
}

impl Default for ServerTls {
    fn default() -> Self {
        Self {
            cert_pem: String::new(),
            cert_file: String::new(),
            key_pem: Secret::default(),
            key_file: String::new(),
            client_ca_pem: String::new(),
            client_ca_file: String::new(),
            client_auth_type: "NoClientCert".to_owned(),
            cipher_suites: Vec::new(),
            curve_preferences: Vec::new(),
            min_version: String::new(),
            max_version: String::new(),
            windows_certificate_filter: None,
        }
    }
}

/// Which certificates of the certificate store of Windows are used. It is refused on every platform, since the program
/// does not read that store.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct WindowsCertificateFilter {
    /// The server's certificate.
    #[block]
    pub server: WindowsServerFilter,
    /// The clients' certificates.
    #[block]
    pub client: WindowsClientFilter,
}

/// Which certificate of the store is the server's.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct WindowsServerFilter {
    /// The store.
    #[arg(default = "")]
    pub store: String,
    /// The system store.
    #[arg(default = "")]
    pub system_store: String,
    /// The common names of issuers.
    #[arg(optional)]
    pub issuer_common_names: Vec<String>,
    /// The template.
    #[arg(default = "")]
    pub template_id: String,
    /// How often the store is read.
    #[arg(default = "5m")]
    pub refresh_interval: Duration,
}

/// Which certificates of clients are accepted.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct WindowsClientFilter {
    /// The common names of issuers.
    #[arg(optional)]
    pub issuer_common_names: Vec<String>,
    /// A pattern for the subject.
    #[arg(default = "")]
    pub subject_regex: String,
    /// The template.
    #[arg(default = "")]
    pub template_id: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum ClientAuth {
    None,
    Request,
    RequireAny,
    VerifyIfGiven,
    RequireAndVerify,
}

/// Cipher suites that the reference knows and this program does not: those with CBC.
const UNSUPPORTED_SUITES: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
];

/// What the TLS of a server is made from: its arguments, and what some servers do beyond them.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsSource {
    /// The arguments.
    pub tls: ServerTls,
    /// How often the files of certificate and key are looked at.
    pub follow: Follow,
    /// Whether the system's authorities count for clients' certificates besides those that are configured.
    pub system_client_roots: bool,
}

/// How often a server looks whether its certificate and key have changed. It does so while it shakes hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// At each handshake.
    Always,
    /// When so much time has passed since it looked last.
    Every(Duration),
    /// Never again.
    Never,
}

impl From<ServerTls> for TlsSource {
    fn from(tls: ServerTls) -> Self {
        TlsSource { tls, follow: Follow::Always, system_client_roots: false }
    }
}

/// The name that the reference gives a cipher suite.
fn suite_name(suite: &SupportedCipherSuite) -> &'static str {
    match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        // The rest carries the registered names on both sides.
        other => other.as_str().unwrap_or_default(),
    }
}

impl ServerTls {
    /// The rules between the arguments, and the values of those that are names.
    pub(super) fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let has_cert = !self.cert_pem.is_empty() || !self.cert_file.is_empty();
        let has_key = !self.key_pem.is_empty() || !self.key_file.is_empty();
        let has_client_ca = !self.client_ca_pem.is_empty() || !self.client_ca_file.is_empty();
        if self.windows_certificate_filter.is_some() {
            errors.require(
                !has_cert && !has_key && !has_client_ca,
                &["windows_certificate_filter", "cert_pem", "cert_file", "key_pem", "key_file"],
                "cannot specify any key, certificate or CA when using windows certificate filter",
            );
            errors.push(
                &["windows_certificate_filter"],
                "the Windows Certificate filter is only available on Windows platforms",
            );
            return errors.into_result();
        }
        errors.require(
            self.client_ca_pem.is_empty() || self.client_ca_file.is_empty(),
            &["client_ca_pem", "client_ca_file"],
            "cannot specify both client_ca_pem and client_ca_file",
        );
        errors.require(
            self.cert_pem.is_empty() || self.cert_file.is_empty(),
            &["cert_pem", "cert_file"],
            "cannot specify both cert_pem and cert_file",
        );
        errors.require(
            self.key_pem.is_empty() || self.key_file.is_empty(),
            &["key_pem", "key_file"],
            "cannot specify both key_pem and key_file",
        );
        errors.require(has_cert, &["cert_pem", "cert_file"], "must specify either cert_pem or cert_file");
        errors.require(has_key, &["key_pem", "key_file"], "must specify either key_pem or key_file");
        match self.client_auth() {
            Ok(client_auth) => errors.require(
                !has_client_ca || client_auth != ClientAuth::None,
                &["client_ca_pem", "client_ca_file", "client_auth_type"],
                "cannot specify client_ca_pem or client_ca_file when client_auth_type is NoClientCert",
            ),
            Err(text) => errors.push(&["client_auth_type"], text),
        }
        if let Err(text) = self.crypto() {
            errors.push(&["cipher_suites", "curve_preferences"], text);
        }
        if let Err(text) = versions(&self.min_version, &self.max_version) {
            errors.push(&["min_version", "max_version"], text);
        }
        errors.into_result()
    }

    /// What an acceptor would refuse when it is built, seen without files and without the system's roots.
    pub(super) fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        // Of two that exclude each other neither is looked at: that they are two was said.
        if self.client_ca_file.is_empty()
            && let Err(error) = client_roots(self.client_ca_pem.as_bytes())
        {
            errors.push(&["client_ca_pem", "client_ca_file"], error.to_string());
        }
        let cert_pem = if self.cert_file.is_empty() { self.cert_pem.as_str() } else { "" };
        // So with a key without a certificate.
        let has_cert = !self.cert_pem.is_empty() || !self.cert_file.is_empty();
        let key_pem = if has_cert && self.key_file.is_empty() { self.key_pem.expose() } else { "" };
        if let Err((fields, text)) = check_certified_key(cert_pem, key_pem) {
            errors.push(fields, text);
        }
        // What is wrong with the one or the other alone was said.
        if let (Ok(_), Ok(versions)) = (self.crypto(), versions(&self.min_version, &self.max_version))
            && let Err(error) = self.builder(versions)
        {
            errors.push(&["cipher_suites", "curve_preferences", "min_version", "max_version"], error.to_string());
        }
        errors.into_result()
    }

    /// The beginning of the TLS: primitives and versions.
    fn builder(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, Error> {
        ServerConfig::builder_with_provider(self.crypto().map_err(Error::config)?)
            .with_protocol_versions(versions)
            .map_err(|error| Error::config(error.to_string()))
    }

    fn client_auth(&self) -> Result<ClientAuth, String> {
        Ok(match self.client_auth_type.as_str() {
            "" | "NoClientCert" => ClientAuth::None,
            "RequestClientCert" => ClientAuth::Request,
            "RequireAnyClientCert" => ClientAuth::RequireAny,
            "VerifyClientCertIfGiven" => ClientAuth::VerifyIfGiven,
            "RequireAndVerifyClientCert" => ClientAuth::RequireAndVerify,
            other => return Err(format!("unknown client auth type \"{other}\"")),
        })
    }

    fn crypto(&self) -> Result<Arc<CryptoProvider>, String> {
        crypto(&self.cipher_suites, &self.curve_preferences)
    }

    fn verifier(&self, system_roots_too: bool) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let client_auth = self.client_auth().map_err(Error::config)?;
        let pem = match self.client_ca_file.as_str() {
            "" => self.client_ca_pem.as_bytes().to_vec(),
            file => read_tls_file(file.as_ref()).map_err(|error| error.context("failed to read client_ca_file"))?,
        };
        let mut roots = client_roots(&pem)?;
        if system_roots_too {
            roots.extend(system_roots().roots.iter().cloned());
        }
        // Where no certificate is verified, the authorities tell clients which of their certificates to show.
        let any = |mandatory| Arc::new(AnyClient { mandatory, hints: roots.subjects() });
        let optional = match client_auth {
            ClientAuth::None => return Ok(WebPkiClientVerifier::no_client_auth()),
            ClientAuth::Request => return Ok(any(false)),
            ClientAuth::RequireAny => return Ok(any(true)),
            ClientAuth::VerifyIfGiven => true,
            ClientAuth::RequireAndVerify => false,
        };
        // As in Go: without authorities of its own a server takes the system's.
        let roots = if pem.is_empty() { system_roots() } else { Arc::new(roots) };
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider().clone());
        let builder = if optional { builder.allow_unauthenticated() } else { builder };
        builder.build().map_err(|error| Error::new(ErrorKind::Tls, format!("client_ca: {error}")))
    }

    /// The certificate and key as they are now.
    fn certified_key(&self) -> Result<SingleCertAndKey, Error> {
        let read = |file: &str, what: &str| {
            read_tls_file(file.as_ref()).map_err(|error| error.context(format_args!("failed to read {what}")))
        };
        let cert = match self.cert_file.as_str() {
            "" => self.cert_pem.as_bytes().to_vec(),
            file => read(file, "cert_file")?,
        };
        let key = match self.key_file.as_str() {
            "" => self.key_pem.expose().as_bytes().to_vec(),
            file => read(file, "key_file")?,
        };
        Ok(certified_key(&cert, &key).map_err(|text| Error::new(ErrorKind::Tls, text))?.into())
    }

    fn files(&self) -> Vec<PathBuf> {
        [&self.cert_file, &self.key_file].into_iter().filter(|file| !file.is_empty()).map(PathBuf::from).collect()
    }
}

/// The authorities for clients' certificates; empty text is none.
fn client_roots(pem: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    if !pem.is_empty() {
        let found = certificates(pem).map_err(|text| Error::config(format!("client_ca: {text}")))?;
        if roots.add_parsable_certificates(found).0 == 0 {
            return Err(Error::config("client_ca: no certificate found"));
        }
    }
    Ok(roots)
}

/// The primitives that are allowed; empty lists allow all.
pub(crate) fn crypto(cipher_suites: &[String], curve_preferences: &[String]) -> Result<Arc<CryptoProvider>, String> {
    if cipher_suites.is_empty() && curve_preferences.is_empty() {
        return Ok(provider().clone());
    }
    let mut chosen = CryptoProvider::clone(provider());
    if !cipher_suites.is_empty() {
        let known: Vec<&str> = ring::ALL_CIPHER_SUITES.iter().map(suite_name).collect();
        for name in cipher_suites {
            if UNSUPPORTED_SUITES.contains(&name.as_str()) {
                return Err(format!(
                    "cipher \"{name}\" is not supported, the supported ciphers are {}",
                    known.join(", ")
                ));
            }
            if !known.contains(&name.as_str()) {
                return Err(format!("unknown cipher \"{name}\""));
            }
        }
        // As in Go, the list is about TLS 1.2; the suites of TLS 1.3 cannot be switched off.
        chosen
            .cipher_suites
            .retain(|suite| suite.tls13().is_some() || cipher_suites.iter().any(|name| name == suite_name(suite)));
    }
    if !curve_preferences.is_empty() {
        chosen.kx_groups = curve_preferences.iter().map(|name| curve(name)).collect::<Result<_, _>>()?;
    }
    Ok(Arc::new(chosen))
}

fn curve(name: &str) -> Result<&'static dyn SupportedKxGroup, String> {
    match name {
        "X25519" => Ok(ring::kx_group::X25519),
        "CurveP256" => Ok(ring::kx_group::SECP256R1),
        "CurveP384" => Ok(ring::kx_group::SECP384R1),
        "CurveP521" => {
            Err("curve \"CurveP521\" is not supported, the supported curves are X25519, CurveP256, CurveP384"
                .to_owned())
        }
        other => Err(format!("unknown curve \"{other}\"")),
    }
}

/// TLS of a server, ready for handshakes. It follows its certificate and key files.
pub struct TlsAcceptor {
    source: TlsSource,
    began: Instant,
    /// When the files were looked at last, in milliseconds since the beginning.
    looked_ms: AtomicU64,
    /// All but the certificate.
    base: ServerConfig,
    current: ArcSwap<Current>,
    renewal: Mutex<()>,
}

struct Current {
    config: Arc<ServerConfig>,
    stamps: Stamps,
}

impl TlsAcceptor {
    /// Reads and checks everything.
    pub async fn new(source: impl Into<TlsSource>) -> Result<Self, Error> {
        let source = source.into();
        source.tls.check().map_err(|errors| Error::config(errors.to_string()))?;
        off_thread(move || Self::build(source)).await?
    }

    fn build(source: TlsSource) -> Result<Self, Error> {
        let tls = &source.tls;
        let versions = versions(&tls.min_version, &tls.max_version).map_err(Error::config)?;
        let stamps = Stamps::take(&tls.files());
        let mut base = tls
            .builder(versions)?
            .with_client_cert_verifier(tls.verifier(source.system_client_roots)?)
            .with_cert_resolver(Arc::new(tls.certified_key()?));
        base.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let current = Current { config: Arc::new(base.clone()), stamps };
        Ok(Self {
            source,
            began: Instant::now(),
            looked_ms: AtomicU64::new(0),
            base,
            current: ArcSwap::from_pointee(current),
            renewal: Mutex::default(),
        })
    }

    /// Whether it is time to look at the files.
    fn is_due(&self) -> bool {
        match self.source.follow {
            Follow::Always => true,
            Follow::Never => false,
            Follow::Every(gap) => {
                let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
                let looked = self.looked_ms.load(Ordering::Relaxed);
                let is_due = u128::from(now.saturating_sub(looked)) >= gap.as_millis();
                if is_due {
                    self.looked_ms.store(now, Ordering::Relaxed);
                }
                is_due
            }
        }
    }

    /// Shakes hands with a client that speaks another protocol than HTTP.
    ///
    /// # Errors
    ///
    /// A handshake that fails. It may take as long as the client likes: the caller limits it.
    pub async fn accept<I>(&self, io: I) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<I>, Error>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let mut config = ServerConfig::clone(&self.config().await.0);
        // The names there are those of HTTP.
        config.alpn_protocols.clear();
        let stream = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(io).await;
        stream.map_err(|error| Error::new(ErrorKind::Tls, format!("tls handshake: {}", describe_tls(&error))))
    }

    /// What to shake hands with, and why newer files are not in it.
    ///
    /// While a new certificate and its key are being written one by one, they do not belong together. Until they do,
    /// the old ones go on.
    pub(super) async fn config(&self) -> (Arc<ServerConfig>, Option<Error>) {
        let current = self.current.load_full();
        if current.stamps.is_empty() || !self.is_due() || unchanged(&current.stamps).await {
            return (current.config.clone(), None);
        }
        let _renewal = self.renewal.lock().await;
        let current = self.current.load_full();
        if unchanged(&current.stamps).await {
            return (current.config.clone(), None);
        }
        let tls = self.source.tls.clone();
        let read = off_thread(move || (Stamps::take(&tls.files()), tls.certified_key())).await;
        match read {
            Ok((stamps, Ok(key))) => {
                let mut config = self.base.clone();
                config.cert_resolver = Arc::new(key);
                let config = Arc::new(config);
                self.current.store(Arc::new(Current { config: config.clone(), stamps }));
                (config, None)
            }
            Ok((_, Err(error))) | Err(error) => {
                let error = error.context("certificate was not renewed, the previous one is still used");
                (current.config.clone(), Some(error))
            }
        }
    }
}

async fn unchanged(stamps: &Stamps) -> bool {
    let stamps = stamps.clone();
    off_thread(move || stamps.unchanged()).await.unwrap_or(true)
}

impl std::fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsAcceptor").field("source", &self.source).finish_non_exhaustive()
    }
}

/// TLS of a running server, which may be changed, switched on and off. What is set counts for new connections.
#[derive(Clone, Debug, Default)]
pub struct TlsSwitch(Arc<ArcSwapOption<TlsAcceptor>>);

impl TlsSwitch {
    /// A switch with TLS on.
    pub fn new(acceptor: TlsAcceptor) -> Self {
        let switch = Self::default();
        switch.set(Some(acceptor));
        switch
    }

    /// Changes TLS, or switches it off.
    pub fn set(&self, acceptor: Option<TlsAcceptor>) {
        self.0.store(acceptor.map(Arc::new));
    }

    pub(super) fn current(&self) -> Option<Arc<TlsAcceptor>> {
        self.0.load_full()
    }
}

/// Takes any certificate of a client: it must only hold the key that belongs to it.
#[derive(Debug)]
struct AnyClient {
    mandatory: bool,
    /// The authorities whose certificates are asked for; none for all.
    hints: Vec<DistinguishedName>,
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    verify_signatures!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{FurtherTls, Material, client_tls, testing};

    /// A change of a valid configuration and the text that it gives.
    type Case = (fn(&mut ServerTls), &'static str);

    fn check(change: impl FnOnce(&mut ServerTls)) -> String {
        let mut tls = ServerTls { cert_pem: "c".into(), key_pem: Secret::new("k"), ..ServerTls::default() };
        change(&mut tls);
        tls.check().err().map(|errors| errors.to_string()).unwrap_or_default()
    }

    #[test]
    fn texts_of_the_rules() {
        let cases: Vec<Case> = vec![
            (|_| {}, ""),
            (|tls| tls.cert_file = "f".into(), "cannot specify both cert_pem and cert_file"),
            (|tls| tls.key_file = "f".into(), "cannot specify both key_pem and key_file"),
            (
                |tls| {
                    (tls.client_ca_pem, tls.client_ca_file) = ("p".into(), "f".into());
                    tls.client_auth_type = "RequireAndVerifyClientCert".into();
                },
                "cannot specify both client_ca_pem and client_ca_file",
            ),
            (|tls| tls.cert_pem.clear(), "must specify either cert_pem or cert_file"),
            (|tls| tls.key_pem = Secret::new(""), "must specify either key_pem or key_file"),
            (
                |tls| tls.client_ca_pem = "p".into(),
                "cannot specify client_ca_pem or client_ca_file when client_auth_type is NoClientCert",
            ),
            (|tls| tls.client_auth_type = "Sometimes".into(), "unknown client auth type \"Sometimes\""),
            (|tls| tls.min_version = "TLS9".into(), "unknown TLS version \"TLS9\""),
            (|tls| tls.curve_preferences = vec!["CurveP1".into()], "unknown curve \"CurveP1\""),
            (
                |tls| tls.curve_preferences = vec!["CurveP521".into()],
                "curve \"CurveP521\" is not supported, the supported curves are X25519, CurveP256, CurveP384",
            ),
            (|tls| tls.cipher_suites = vec!["ROT13".into()], "unknown cipher \"ROT13\""),
            (
                |tls| tls.cipher_suites = vec!["TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA".into()],
                "cipher \"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA\" is not supported, the supported ciphers are \
                 TLS_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256, \
                 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, \
                 TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, \
                 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            ),
            (|tls| tls.cipher_suites = vec!["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".into()], ""),
            (|tls| tls.curve_preferences = vec!["X25519".into(), "CurveP384".into()], ""),
        ];
        for (change, text) in cases {
            assert_eq!(check(change), text);
        }
    }

    #[test]
    fn a_client_that_does_not_hold_the_key_of_its_certificate_is_refused_even_without_verification() {
        let (own, other) = (testing::made(), testing::made());
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            for client_auth_type in ["RequestClientCert", "RequireAnyClientCert"] {
                let tls = ServerTls { client_auth_type: client_auth_type.into(), ..ServerTls::default() };
                let builder = ServerConfig::builder_with_provider(provider().clone());
                let builder = builder.with_protocol_versions(&[version]).unwrap();
                let builder = builder.with_client_cert_verifier(tls.verifier(false).unwrap());
                let server = Arc::new(builder.with_cert_resolver(testing::shows(&own, &own)));
                let connect = |shown| {
                    let trusted = crate::TlsConfig { ca_pem: own.pem.clone(), ..crate::TlsConfig::default() };
                    let material = Material::read(&trusted).unwrap();
                    let client = client_tls(&trusted, &FurtherTls::default(), &material, false).unwrap().origin;
                    let mut client = rustls::ClientConfig::clone(&client);
                    client.client_auth_cert_resolver = shown;
                    testing::handshake(Arc::new(client), server.clone())
                };
                assert_eq!(connect(testing::shows(&other, &other)), Ok(()), "{version:?} {client_auth_type}");
                let thief = connect(testing::shows(&own, &other)).unwrap_err();
                assert_eq!(thief, "server: invalid peer certificate: BadSignature", "{version:?} {client_auth_type}");
            }
        }
    }

    #[test]
    fn the_authorities_of_clients_are_read_whatever_is_asked_of_clients() {
        let authority = testing::made();
        for (client_auth_type, verified) in [
            ("RequestClientCert", false),
            ("RequireAnyClientCert", false),
            ("VerifyClientCertIfGiven", true),
            ("RequireAndVerifyClientCert", true),
        ] {
            let tls = |client_ca_pem: &str| ServerTls {
                client_auth_type: client_auth_type.into(),
                client_ca_pem: client_ca_pem.into(),
                ..ServerTls::default()
            };
            let hints = tls(&authority.pem).verifier(false).unwrap().root_hint_subjects().len();
            assert_eq!(hints, 1, "{client_auth_type}");
            let hints = |tls: ServerTls| tls.verifier(false).map(|verifier| verifier.root_hint_subjects().len());
            assert_eq!(hints(tls("")).is_ok_and(|hints| hints > 0), verified && !system_roots().is_empty());
            let refused = tls("nonsense").verifier(false).unwrap_err().to_string();
            assert_eq!(refused, "client_ca: no certificate found", "{client_auth_type}");
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let file = corten_syntax::parse("test", "tls {\ncert_file = \"c\"\nkey_file = \"k\"\n}").file;
        let Some(corten_syntax::Stmt::Block(block)) = file.body.first() else { panic!("the test's text is a block") };
        let minimum = corten_config::schema::Stability::GenerallyAvailable;
        let context = corten_config::decode::DecodeContext { scope: &(), minimum };
        let decoded = corten_config::decode::decode::<ServerTls>(block, &context).expect("it decodes").value;
        let expected = ServerTls { cert_file: "c".into(), key_file: "k".into(), ..ServerTls::default() };
        assert_eq!(decoded, expected);
    }

    #[tokio::test]
    async fn what_building_an_acceptor_would_refuse_a_check_refuses_with_the_same_words() {
        let made = || {
            let key = rcgen::KeyPair::generate().unwrap();
            let cert = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
            (cert.pem(), key.serialize_pem())
        };
        let ((cert, key), (_, other_key)) = (made(), made());
        let tls = |cert: &str, key: &str| ServerTls {
            cert_pem: cert.into(),
            key_pem: Secret::new(key),
            client_auth_type: "RequestClientCert".into(),
            ..ServerTls::default()
        };
        let good = tls(&cert, &key);
        let cases = [
            (good.clone(), "", ""),
            (tls("c", &key), "cert_pem", "no certificate found"),
            (tls(&cert, "k"), "key_pem", "no private key found"),
            (tls(&cert, &other_key), "cert_pem", "private key does not match public key"),
            (
                ServerTls { client_ca_pem: "nonsense".into(), ..good.clone() },
                "client_ca_pem",
                "client_ca: no certificate found",
            ),
            (
                ServerTls {
                    cipher_suites: vec!["TLS_AES_128_GCM_SHA256".into()],
                    max_version: "TLS12".into(),
                    ..good.clone()
                },
                "cipher_suites",
                "unexpected error: no usable cipher suites configured",
            ),
        ];
        for (tls, field, text) in cases {
            assert_eq!(tls.check(), Ok(()));
            let found = tls.check_build(Stability::GenerallyAvailable).err().into_iter().flatten();
            let found: Vec<_> = found.map(|error| (error.fields[0], error.message)).collect();
            let built = TlsAcceptor::new(tls).await.map_err(|error| error.to_string());
            if text.is_empty() {
                assert!(found.is_empty() && built.is_ok(), "{found:?} {built:?}");
            } else {
                assert_eq!((found, built.unwrap_err()), (vec![(field, text.to_owned())], text.to_owned()));
            }
        }
    }

    #[test]
    fn what_is_in_files_a_check_does_not_look_at() {
        let tls = ServerTls {
            cert_file: "/nowhere".into(),
            key_file: "/nowhere".into(),
            client_ca_file: "/nowhere".into(),
            client_auth_type: "RequestClientCert".into(),
            ..ServerTls::default()
        };
        assert_eq!(tls.check_build(Stability::GenerallyAvailable), Ok(()));
    }

    #[test]
    fn the_certificate_store_of_windows_is_refused() {
        let filter = WindowsCertificateFilter {
            server: WindowsServerFilter {
                store: "My".into(),
                system_store: "LocalMachine".into(),
                issuer_common_names: Vec::new(),
                template_id: String::new(),
                refresh_interval: Duration::from_secs(300),
            },
            client: WindowsClientFilter {
                issuer_common_names: Vec::new(),
                subject_regex: String::new(),
                template_id: String::new(),
            },
        };
        let tls = ServerTls { windows_certificate_filter: Some(filter), ..ServerTls::default() };
        assert_eq!(
            tls.check().unwrap_err().to_string(),
            "the Windows Certificate filter is only available on Windows platforms"
        );
    }

    #[test]
    fn a_list_of_suites_restricts_tls_1_2_only() {
        let tls = ServerTls {
            cipher_suites: vec!["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".into()],
            curve_preferences: vec!["CurveP384".into(), "X25519".into()],
            ..ServerTls::default()
        };
        let crypto = tls.crypto().unwrap();
        let names: Vec<&str> = crypto.cipher_suites.iter().map(suite_name).collect();
        assert_eq!(
            names,
            [
                "TLS_AES_256_GCM_SHA384",
                "TLS_AES_128_GCM_SHA256",
                "TLS_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            ]
        );
        let curves: Vec<String> = crypto.kx_groups.iter().map(|group| format!("{:?}", group.name())).collect();
        assert_eq!(curves, ["secp384r1", "X25519"]);
    }
}
