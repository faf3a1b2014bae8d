//! TLS of clients, and what clients and servers share of it: PEM, versions, the crypto provider, the system's roots.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use corten_config::CheckErrors;
use corten_config::schema::Stability;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;

use crate::config::TlsConfig;
use crate::files::read_tls_file;
use crate::server::crypto;
use crate::{Error, ErrorKind};

/// The one implementation of the primitives, shared by every configuration.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ring::default_provider()))
}

/// The system's certificate authorities, read once for the process. They may be none: then every handshake that needs
/// them fails, which says more than a refusal to start.
pub(crate) fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS
        .get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(roots)
        })
        .clone()
}

/// The versions from a lowest to a highest one, named as in the configuration. An empty name sets no bound; what is
/// below 1.2 counts as 1.2 at the lower end.
pub(crate) fn versions(min: &str, max: &str) -> Result<&'static [&'static SupportedProtocolVersion], String> {
    static BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];
    let rank = |name: &str| match name {
        "TLS10" => Some(10),
        "TLS11" => Some(11),
        "TLS12" => Some(12),
        "TLS13" => Some(13),
        _ => None,
    };
    let rank_or = |name: &str, default: i32| match name {
        "" => Ok(default),
        name => rank(name).ok_or_else(|| format!("unknown TLS version \"{name}\"")),
    };
    let (min_rank, max_rank) = (rank_or(min, 12)?, rank_or(max, 13)?);
    if max_rank < 12 {
        return Err(format!("max_version {max} is not supported, the supported versions are TLS12 and TLS13"));
    }
    if min_rank > max_rank {
        return Err(format!("min_version {min} is higher than max_version {max}"));
    }
    Ok(match (min_rank, max_rank) {
        (13, _) => &BOTH[1..],
        (_, 12) => &BOTH[..1],
        _ => &BOTH,
    })
}

/// Every certificate of a PEM text. Sections of other kinds are passed over.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// The first private key of a PEM text. The error holds nothing of the text.
pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => "no private key found".to_owned(),
        _ => "private key is not valid PEM".to_owned(),
    })
}

/// A certificate chain, of which there is at least one certificate.
fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = certificates(pem)?;
    if chain.is_empty() { Err("no certificate found".to_owned()) } else { Ok(chain) }
}

/// A certificate chain and its key, checked to belong together.
pub(crate) fn certified_key(cert_pem: &[u8], key_pem: &[u8]) -> Result<CertifiedKey, String> {
    CertifiedKey::from_der(chain(cert_pem)?, private_key(key_pem)?, provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => "private key does not match public key".to_owned(),
        error => error.to_string(),
    })
}

/// What [`certified_key`] would say, seen without reading a file: empty text stands for what is in one. With it the
/// arguments that it is about, the one at fault first.
pub(crate) fn check_certified_key(cert_pem: &str, key_pem: &str) -> Result<(), (&'static [&'static str], String)> {
    if !cert_pem.is_empty() {
        chain(cert_pem.as_bytes())
            .and_then(|chain| ParsedCertificate::try_from(&chain[0]).map(drop).map_err(|error| error.to_string()))
            .map_err(|text| (["cert_pem", "cert_file", "key_file"].as_slice(), text))?;
    }
    if !key_pem.is_empty() {
        private_key(key_pem.as_bytes())
            .and_then(|key| provider().key_provider.load_private_key(key).map_err(|error| error.to_string()))
            .map_err(|text| (["key_pem", "key_file", "cert_file"].as_slice(), text))?;
    }
    if !cert_pem.is_empty() && !key_pem.is_empty() {
        certified_key(cert_pem.as_bytes(), key_pem.as_bytes())
            .map_err(|text| (["cert_pem", "key_pem", "cert_file", "key_file"].as_slice(), text))?;
    }
    Ok(())
}

/// TLS of a client, ready for handshakes, and what it was made from.
#[derive(Clone, Debug)]
pub(crate) struct ClientTls {
    /// For servers: offers HTTP/2 where it is enabled.
    pub(crate) origin: Arc<rustls::ClientConfig>,
    /// For proxies, with which only HTTP/1.1 is spoken.
    pub(crate) proxy: Arc<rustls::ClientConfig>,
    /// The name to expect in place of the host.
    pub(crate) server_name: Option<ServerName<'static>>,
}

/// What only some clients can be told about TLS, beside [`TlsConfig`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FurtherTls {
    /// The highest version: `TLS12` or `TLS13`. Empty means the highest there is.
    pub max_version: String,
    /// The cipher suites of TLS 1.2, by their names; those of TLS 1.3 are always enabled. Empty means all.
    pub cipher_suites: Vec<String>,
    /// The curves for key exchange, in order of preference: `X25519`, `CurveP256`, `CurveP384`. Empty means all.
    pub curve_preferences: Vec<String>,
    /// Whether the system's certificate authorities are trusted beside those that are configured.
    pub with_system_roots: bool,
    /// How often it is looked whether files have changed; zero means never, and nothing with each request.
    pub look_every: Option<Duration>,
}

/// The texts that the TLS of a client is made from, inline or from files.
#[derive(Debug, Default)]
pub(crate) struct Material {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Material {
    /// Reads what is configured. Files: not to be called on a thread that serves connections.
    pub(crate) fn read(config: &TlsConfig) -> Result<Self, Error> {
        let read = |inline: &str, file: &str, what: &str| match (inline, file) {
            ("", "") => Ok(Vec::new()),
            ("", file) => read_tls_file(file.as_ref()).map_err(|error| error.context(what)),
            (inline, _) => Ok(inline.as_bytes().to_vec()),
        };
        Ok(Self {
            ca: read(&config.ca_pem, &config.ca_file, "unable to read CA cert")?,
            cert: read(&config.cert_pem, &config.cert_file, "unable to read specified client cert")?,
            key: read(config.key_pem.expose(), &config.key_file, "unable to read specified client key")?,
        })
    }

    /// Equal for equal texts: tells whether files that were written again hold anything new.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut context = ::ring::digest::Context::new(&::ring::digest::SHA256);
        for text in [&self.ca, &self.cert, &self.key] {
            context.update(&(text.len() as u64).to_le_bytes());
            context.update(text);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        out
    }
}

/// Where an argument comes from, in an error.
fn description(file: &str) -> String {
    if file.is_empty() { "inline".to_owned() } else { format!("file {file}") }
}

fn tls_error(text: String) -> Error {
    Error::new(ErrorKind::Tls, text)
}

/// The configured certificate authorities, and each of their certificates.
fn configured_roots(pem: &[u8], file: &str) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Error> {
    let unusable = || tls_error(format!("unable to use specified CA cert {}", description(file)));
    // Like the reference, one usable certificate among unusable ones is enough.
    let pinned = certificates(pem).map_err(|_| unusable())?;
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(pinned.iter().cloned()).0 == 0 {
        return Err(unusable());
    }
    Ok((roots, pinned))
}

fn unusable_client_cert(config: &TlsConfig, text: &str) -> Error {
    let (cert, key) = (description(&config.cert_file), description(&config.key_file));
    tls_error(format!("unable to use specified client cert ({cert}) & key ({key}): {text}"))
}

/// The name to expect in place of the host; empty text is none.
fn server_name(name: &str) -> Result<Option<ServerName<'static>>, Error> {
    if name.is_empty() {
        return Ok(None);
    }
    let invalid = |_| Error::config(format!("server_name \"{name}\" is not a host name or address"));
    ServerName::try_from(name.to_owned()).map(Some).map_err(invalid)
}

impl TlsConfig {
    /// What [`client_tls`] would refuse, seen without files and without the system's roots.
    pub(crate) fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        // Of two that exclude each other neither is looked at: that they are two was said.
        if !self.insecure_skip_verify
            && !self.ca_pem.is_empty()
            && self.ca_file.is_empty()
            && let Err(error) = configured_roots(self.ca_pem.as_bytes(), "")
        {
            errors.push(&["ca_pem", "ca_file", "insecure_skip_verify"], error.to_string());
        }
        let cert_pem = if self.cert_file.is_empty() { self.cert_pem.as_str() } else { "" };
        // So with a key without a certificate.
        let has_cert = !self.cert_pem.is_empty() || !self.cert_file.is_empty();
        let key_pem = if has_cert && self.key_file.is_empty() { self.key_pem.expose() } else { "" };
        if let Err((fields, text)) = check_certified_key(cert_pem, key_pem) {
            errors.push(fields, unusable_client_cert(self, &text).to_string());
        }
        if let Err(error) = server_name(&self.server_name) {
            errors.push(&["server_name"], error.to_string());
        }
        errors.into_result()
    }
}

/// Builds the TLS of a client. May read the system's roots: not to be called on a thread that serves connections.
pub(crate) fn client_tls(
    config: &TlsConfig,
    further: &FurtherTls,
    material: &Material,
    http2: bool,
) -> Result<ClientTls, Error> {
    let versions = versions(&config.min_version, &further.max_version).map_err(Error::config)?;
    let crypto = crypto(&further.cipher_suites, &further.curve_preferences).map_err(Error::config)?;
    let builder = rustls::ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(versions)
        .map_err(|error| tls_error(error.to_string()))?;

    let verifier: Arc<dyn ServerCertVerifier> = if config.insecure_skip_verify {
        Arc::new(AnyServer)
    } else if config.ca_pem.is_empty() && config.ca_file.is_empty() {
        let roots = system_roots();
        if roots.is_empty() {
            return Err(tls_error("no certificate authorities found on this system".to_owned()));
        }
        WebPkiServerVerifier::builder_with_provider(roots, provider().clone())
            .build()
            .map_err(|error| tls_error(error.to_string()))?
    } else {
        let (mut roots, pinned) = configured_roots(&material.ca, &config.ca_file)?;
        if further.with_system_roots {
            roots.extend(system_roots().roots.iter().cloned());
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider().clone())
            .build()
            .map_err(|error| tls_error(error.to_string()))?;
        Arc::new(ConfiguredRoots { inner, pinned })
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);

    let mut origin = if config.cert_pem.is_empty() && config.cert_file.is_empty() {
        builder.with_no_client_auth()
    } else {
        let certified =
            certified_key(&material.cert, &material.key).map_err(|text| unusable_client_cert(config, &text))?;
        builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
    };

    let server_name = server_name(&config.server_name)?;
    let proxy = Arc::new(origin.clone());
    if http2 {
        origin.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Ok(ClientTls { origin: Arc::new(origin), proxy, server_name })
}

/// The half of a certificate verifier that is the same in all of them, of servers and of clients: the peer must hold the
/// key of the certificate that it shows. rustls asks for it in two traits, with the same methods.
macro_rules! verify_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &$crate::tls::provider().signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, cert, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &$crate::tls::provider().signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            $crate::tls::provider().signature_verification_algorithms.supported_schemes()
        }
    };
}
pub(crate) use verify_signatures;

/// The verifier of `insecure_skip_verify`: the peer must hold the key of the certificate that it shows, no more.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!();
}

/// The verifier for configured certificate authorities.
///
/// The usual self-signed certificate is its own authority (`openssl req -x509` makes it so) and is configured as
/// such. The library refuses it as a server's certificate, the reference does not. It is accepted here when the server
/// shows exactly a configured certificate, within its validity and with the right name.
#[derive(Debug)]
struct ConfiguredRoots {
    inner: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for ConfiguredRoots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        let pinned = self.pinned.iter().any(|cert| cert.as_ref() == end_entity.as_ref());
        let valid = pinned
            && validity(end_entity).is_some_and(|(from, to)| (from..=to).contains(&now.as_secs()))
            && ParsedCertificate::try_from(end_entity)
                .and_then(|cert| rustls::client::verify_server_name(&cert, server_name))
                .is_ok();
        if valid { Ok(ServerCertVerified::assertion()) } else { Err(refused) }
    }

    verify_signatures!();
}

/// The first and last second, since the epoch, in which a certificate is valid (RFC 5280, 4.1). `None` when the bytes
/// are not a certificate or it begins before the epoch.
pub(crate) fn validity(certificate: &[u8]) -> Option<(u64, u64)> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    const INTEGER: u8 = 0x02;
    let (certificate, _) = der_value(certificate, SEQUENCE)?;
    let (tbs, _) = der_value(certificate, SEQUENCE)?;
    // The version is absent in version 1.
    let rest = der_value(tbs, VERSION).map_or(tbs, |(_, rest)| rest);
    let (_, rest) = der_value(rest, INTEGER)?;
    let (_signature, rest) = der_value(rest, SEQUENCE)?;
    let (_issuer, rest) = der_value(rest, SEQUENCE)?;
    let (validity, _) = der_value(rest, SEQUENCE)?;
    let (from, rest) = der_time(validity)?;
    let (to, _) = der_time(rest)?;
    Some((from, to))
}

/// Splits off one DER value of the wanted type: its content and what follows it.
fn der_value(input: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    if tag != wanted {
        return None;
    }
    let len = if first < 0x80 {
        usize::from(first)
    } else {
        // Four bytes of length are more than any certificate has.
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 || rest.len() < count {
            return None;
        }
        let (bytes, after) = rest.split_at(count);
        rest = after;
        bytes.iter().fold(0, |len, &byte| len << 8 | usize::from(byte))
    };
    (len <= rest.len()).then(|| rest.split_at(len))
}

/// Reads a time of either form and what follows it.
fn der_time(input: &[u8]) -> Option<(u64, &[u8])> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let (digits, century, rest) = if let Some((text, rest)) = der_value(input, UTC_TIME) {
        // Two digits of the year stand for 1950 to 2049.
        (text, Some(if *text.first()? >= b'5' { 1900 } else { 2000 }), rest)
    } else {
        let (text, rest) = der_value(input, GENERALIZED_TIME)?;
        (text, None, rest)
    };
    let digits = digits.strip_suffix(b"Z")?;
    if digits.len() != if century.is_some() { 12 } else { 14 } || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0_i64, |n, &digit| n * 10 + i64::from(digit - b'0'));
    let (year, fields) = match century {
        Some(century) => (century + number(&digits[..2]), &digits[2..]),
        None => (number(&digits[..4]), &digits[4..]),
    };
    let field = |index: usize| number(&fields[index * 2..index * 2 + 2]);
    let (month, day, hour, minute, second) = (field(0), field(1), field(2), field(3), field(4));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some((u64::try_from(seconds).ok()?, rest))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, counting years from March so that leap days come last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
pub(crate) mod testing {
    use std::io::Cursor;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::PrivatePkcs8KeyDer;

    use super::*;

    /// A certificate for `localhost`, and its PEM text.
    pub(crate) struct Made {
        pub(crate) pem: String,
        cert: CertificateDer<'static>,
        key: KeyPair,
    }

    pub(crate) fn made() -> Made {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        Made { pem: cert.pem(), cert: cert.der().clone(), key }
    }

    /// Shows the certificate of the first and signs with the key of the second: what a thief of a certificate can do.
    pub(crate) fn shows(cert: &Made, key: &Made) -> Arc<SingleCertAndKey> {
        let key = PrivatePkcs8KeyDer::from(key.key.serialize_der()).into();
        let key = provider().key_provider.load_private_key(key).unwrap();
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![cert.cert.clone()], key)))
    }

    /// Lets a client and a server shake hands in memory: what the side that refuses says.
    pub(crate) fn handshake(
        client: Arc<rustls::ClientConfig>,
        server: Arc<rustls::ServerConfig>,
    ) -> Result<(), String> {
        let mut client = rustls::ClientConnection::new(client, ServerName::try_from("localhost").unwrap()).unwrap();
        let mut server = rustls::ServerConnection::new(server).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            let mut sent = Cursor::new(bytes);
            while (sent.position() as usize) < sent.get_ref().len() {
                server.read_tls(&mut sent).unwrap();
                server.process_new_packets().map_err(|error| format!("server: {error}"))?;
            }
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut sent = Cursor::new(bytes);
            while (sent.position() as usize) < sent.get_ref().len() {
                client.read_tls(&mut sent).unwrap();
                client.process_new_packets().map_err(|error| format!("client: {error}"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;
    use crate::Secret;

    #[test]
    fn versions_below_1_2_count_as_1_2_at_the_lower_end_only() {
        let names = |min, max| {
            versions(min, max).map(|list| list.iter().map(|v| format!("{:?}", v.version)).collect::<Vec<_>>().join(" "))
        };
        for (min, max, outcome) in [
            ("", "", Ok("TLSv1_2 TLSv1_3")),
            ("TLS10", "", Ok("TLSv1_2 TLSv1_3")),
            ("TLS12", "TLS12", Ok("TLSv1_2")),
            ("TLS13", "", Ok("TLSv1_3")),
            ("", "TLS13", Ok("TLSv1_2 TLSv1_3")),
            ("TLS13", "TLS12", Err("min_version TLS13 is higher than max_version TLS12")),
            ("", "TLS11", Err("max_version TLS11 is not supported, the supported versions are TLS12 and TLS13")),
            ("TLS14", "", Err("unknown TLS version \"TLS14\"")),
        ] {
            assert_eq!(names(min, max), outcome.map(str::to_owned).map_err(str::to_owned), "{min} {max}");
        }
    }

    #[test]
    fn the_validity_of_a_certificate_is_read_from_its_bytes() {
        let key = KeyPair::generate().unwrap();
        for (from, to, seconds) in [
            ((2024, 2, 29), (2049, 12, 31), (1_709_164_800, 2_524_521_600)),
            ((1999, 12, 31), (2050, 1, 1), (946_598_400, 2_524_608_000)),
            ((1970, 1, 1), (9999, 12, 31), (0, 253_402_214_400)),
        ] {
            let mut params = CertificateParams::new(vec!["host".to_owned()]).unwrap();
            params.not_before = date_time_ymd(from.0, from.1, from.2);
            params.not_after = date_time_ymd(to.0, to.1, to.2);
            assert_eq!(validity(params.self_signed(&key).unwrap().der()), Some(seconds), "{from:?}");
        }
    }

    #[test]
    fn a_server_that_does_not_hold_the_key_of_its_certificate_is_refused_even_without_verification() {
        let (own, other) = (testing::made(), testing::made());
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let server = |resolver| {
                let builder = rustls::ServerConfig::builder_with_provider(provider().clone());
                let builder = builder.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
                Arc::new(builder.with_cert_resolver(resolver))
            };
            for config in [
                TlsConfig { insecure_skip_verify: true, ..TlsConfig::default() },
                TlsConfig { ca_pem: own.pem.clone(), ..TlsConfig::default() },
            ] {
                let client = client_tls(&config, &FurtherTls::default(), &Material::read(&config).unwrap(), false)
                    .unwrap()
                    .origin;
                let honest = testing::handshake(client.clone(), server(testing::shows(&own, &own)));
                assert_eq!(honest, Ok(()), "{version:?} {config:?}");
                let thief = testing::handshake(client, server(testing::shows(&own, &other))).unwrap_err();
                assert_eq!(thief, "client: invalid peer certificate: BadSignature", "{version:?} {config:?}");
            }
        }
    }

    #[test]
    fn tls_material_that_cannot_be_used_says_which() {
        let error = |config: TlsConfig| {
            Material::read(&config)
                .and_then(|material| client_tls(&config, &FurtherTls::default(), &material, true))
                .map(|_| ())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            error(TlsConfig { ca_pem: "no pem".into(), ..TlsConfig::default() }),
            "unable to use specified CA cert inline"
        );
        assert_eq!(
            error(TlsConfig { ca_file: "/nowhere/ca".into(), ..TlsConfig::default() }),
            "unable to read CA cert: unable to read file /nowhere/ca: no such file or directory"
        );
        let config = TlsConfig { insecure_skip_verify: true, ..TlsConfig::default() };
        assert_eq!(
            error(TlsConfig { cert_pem: "x".into(), key_pem: Secret::new("y"), ..config.clone() }),
            "unable to use specified client cert (inline) & key (inline): no certificate found"
        );
        let made = |name: &str| {
            let key = KeyPair::generate().unwrap();
            (CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap().pem(), key)
        };
        let ((cert, _), (_, other_key)) = (made("a"), made("b"));
        assert_eq!(
            error(TlsConfig { cert_pem: cert, key_pem: Secret::new(other_key.serialize_pem()), ..config.clone() }),
            "unable to use specified client cert (inline) & key (inline): private key does not match public key"
        );
        assert_eq!(
            error(TlsConfig { server_name: "no name!".into(), ..config }),
            "server_name \"no name!\" is not a host name or address"
        );
    }

    proptest! {
        #[test]
        fn reading_a_validity_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            validity(&bytes);
        }

        #[test]
        fn reading_a_validity_from_a_damaged_certificate_never_panics(at in 0_usize..300, with in any::<u8>(), cut in 0_usize..400) {
            let key = KeyPair::generate().unwrap();
            let cert = CertificateParams::new(vec!["host".to_owned()]).unwrap().self_signed(&key).unwrap();
            let mut bytes = cert.der().to_vec();
            let at = at.min(bytes.len() - 1);
            bytes[at] = with;
            bytes.truncate(cut);
            validity(&bytes);
        }

        #[test]
        fn reading_pem_never_panics(text in any::<String>()) {
            let _ = certificates(text.as_bytes());
            let _ = private_key(text.as_bytes());
        }
    }
}
