//! The `tls` blocks of OpenTelemetry: what clients and servers have in common, and the one of clients.

use std::time::Duration;

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_net::{FurtherTls, Secret, TlsConfig};

/// Certificates, versions and ciphers, of clients and of servers.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct TlsSetting {
    /// The certificate authorities that are trusted, as PEM.
    #[arg(optional)]
    pub ca_pem: String,
    /// A file with the certificate authorities that are trusted.
    #[arg(optional)]
    pub ca_file: String,
    /// The certificate chain, as PEM.
    #[arg(optional)]
    pub cert_pem: String,
    /// A file with the certificate chain.
    #[arg(optional)]
    pub cert_file: String,
    /// The private key, as PEM.
    #[arg(optional)]
    pub key_pem: Secret,
    /// A file with the private key.
    #[arg(optional)]
    pub key_file: String,
    /// The lowest version of TLS: `TLS 1.2` or `TLS 1.3`, also without `TLS`. What is below means 1.2.
    #[arg(default = "TLS 1.2")]
    pub min_version: String,
    /// The highest version of TLS: `TLS 1.2` or `TLS 1.3`, also without `TLS`.
    #[arg(default = "TLS 1.3")]
    pub max_version: String,
    /// How often certificate and key are read again from their files; 0 is never.
    #[arg(default = "0s")]
    pub reload_interval: Duration,
    /// The cipher suites of TLS 1.2 that may be used, by their names; those of TLS 1.3 always may. Names of suites that are
    /// not implemented are passed over. Empty allows all.
    #[arg(default = [])]
    pub cipher_suites: Vec<String>,
    /// Whether `cipher_suites` may name suites that are not safe. They are not implemented, so that they are passed over.
    #[arg(default = false)]
    pub include_insecure_cipher_suites: bool,
    /// Whether the system's certificate authorities are trusted beside those of `ca_pem` or `ca_file`.
    #[arg(default = false)]
    pub include_system_ca_certs_pool: bool,
    /// The curves for the exchange of keys, in order of preference: `X25519`, `P256` or `P384`. `P521` and `X25519MLKEM768`
    /// are not implemented and passed over. Empty allows all.
    #[arg(default = [])]
    pub curve_preferences: Vec<String>,
}

/// The suites that the reference counts as safe and that are implemented here.
const SUITES: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// Those that it counts as safe and that are not implemented.
const OTHER_SUITES: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
];

/// Those that it counts as not safe.
const INSECURE_SUITES: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

/// A version as the rest of the program names it: `TLS12`. Empty text stays empty.
fn version(text: &str) -> Result<&'static str, String> {
    Ok(match text.strip_prefix("TLS ").unwrap_or(text) {
        "" => "",
        "1.0" => "TLS10",
        "1.1" => "TLS11",
        "1.2" => "TLS12",
        "1.3" => "TLS13",
        _ => return Err(format!("unsupported TLS version: {text:?}")),
    })
}

impl TlsSetting {
    fn check(&self) -> Result<(), CheckErrors> {
        self.material().check()
    }

    /// What the reference refuses only when it builds the component.
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let (min, max) = (version(&self.min_version), version(&self.max_version));
        for (bound, name) in [(&min, "min_version"), (&max, "max_version")] {
            if let Err(text) = bound {
                errors.push(&[name], format!("invalid TLS {name}: {text}"));
            }
        }
        if let (Ok(min), Ok(max)) = (min, max) {
            errors.require(
                min <= max || min.is_empty() || max.is_empty(),
                &["min_version", "max_version"],
                "invalid TLS configuration: min_version cannot be greater than max_version",
            );
            errors.require(
                !matches!(max, "TLS10" | "TLS11"),
                &["max_version"],
                "invalid TLS max_version: versions below 1.2 are not implemented",
            );
        }
        if let Err(text) = self.suites() {
            errors.push(&["cipher_suites", "include_insecure_cipher_suites"], text);
        }
        if let Err(text) = self.curves() {
            errors.push(&["curve_preferences"], text);
        }
        errors.into_result()
    }

    /// The lowest and the highest version, as `TLS12`; empty where there is no bound.
    pub(crate) fn versions(&self) -> (&'static str, &'static str) {
        // What is no version was refused.
        (version(&self.min_version).unwrap_or_default(), version(&self.max_version).unwrap_or_default())
    }

    /// The suites that may be used, of those that are implemented; all, if there are none.
    pub(crate) fn suites(&self) -> Result<Vec<String>, String> {
        let mut suites = Vec::new();
        for name in &self.cipher_suites {
            let is_passed_over = OTHER_SUITES.contains(&name.as_str())
                || self.include_insecure_cipher_suites && INSECURE_SUITES.contains(&name.as_str());
            if SUITES.contains(&name.as_str()) {
                suites.push(name.clone());
            } else if !is_passed_over {
                return Err(format!("invalid TLS cipher suite: {name:?}"));
            }
        }
        if suites.is_empty() && !self.cipher_suites.is_empty() {
            return Err(format!("none of the cipher suites is implemented, those that are: {}", SUITES.join(", ")));
        }
        Ok(suites)
    }

    /// The curves that may be used, of those that are implemented; all, if there are none.
    pub(crate) fn curves(&self) -> Result<Vec<String>, String> {
        let mut curves = Vec::new();
        for name in &self.curve_preferences {
            match name.as_str() {
                "X25519" => curves.push(name.clone()),
                "P256" => curves.push("CurveP256".to_owned()),
                "P384" => curves.push("CurveP384".to_owned()),
                "P521" | "X25519MLKEM768" => {}
                _ => {
                    return Err(format!(
                        "invalid curve type: {name}. Expected values are [P256 P384 P521 X25519 X25519MLKEM768]"
                    ));
                }
            }
        }
        if curves.is_empty() && !self.curve_preferences.is_empty() {
            return Err("none of the curves is implemented, those that are: P256, P384, X25519".to_owned());
        }
        Ok(curves)
    }

    fn has_ca(&self) -> bool {
        !self.ca_pem.is_empty() || !self.ca_file.is_empty()
    }

    /// Certificates and keys, as the rest of the program has them.
    fn material(&self) -> TlsConfig {
        TlsConfig {
            ca_pem: self.ca_pem.clone(),
            ca_file: self.ca_file.clone(),
            cert_pem: self.cert_pem.clone(),
            cert_file: self.cert_file.clone(),
            key_pem: self.key_pem.clone(),
            key_file: self.key_file.clone(),
            ..TlsConfig::default()
        }
    }
}

/// TLS towards a server.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct TlsClientArguments {
    /// Certificates, versions and ciphers.
    #[flatten]
    pub setting: TlsSetting,
    /// Whether to do without TLS, unless certificate authorities are given. It has no meaning for a URL, whose scheme says
    /// that.
    #[arg(optional)]
    pub insecure: bool,
    /// Whether to accept any certificate of the server.
    #[arg(optional)]
    pub insecure_skip_verify: bool,
    /// The name that the server's certificate must have, in place of the host that is connected to.
    #[arg(optional)]
    pub server_name: String,
}

impl TlsClientArguments {
    /// Whether there is to be TLS where nothing else says that.
    pub(crate) fn is_on(&self) -> bool {
        !self.insecure || self.setting.has_ca()
    }

    /// The same as the rest of the program has it. What `insecure` switches off is not looked at, as in the reference.
    pub(crate) fn of_net(&self) -> Result<(TlsConfig, FurtherTls), String> {
        if !self.is_on() {
            return Ok(Default::default());
        }
        let setting = &self.setting;
        let (min, max) = setting.versions();
        let config = TlsConfig {
            server_name: self.server_name.clone(),
            insecure_skip_verify: self.insecure_skip_verify,
            min_version: min.to_owned(),
            ..setting.material()
        };
        let further = FurtherTls {
            max_version: max.to_owned(),
            cipher_suites: setting.suites()?,
            curve_preferences: setting.curves()?,
            with_system_roots: setting.include_system_ca_certs_pool,
            look_every: Some(setting.reload_interval),
        };
        Ok((config, further))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// The first text that is wrong with some settings; empty if nothing is.
    fn refused(setting: &TlsSetting) -> String {
        let checked = setting.check().and_then(|()| setting.check_build(Stability::GenerallyAvailable));
        checked.err().map(|errors| errors.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_is_wrong_is_said() {
        let some = || TlsSetting::default();
        for (setting, text) in [
            (some(), ""),
            (TlsSetting { min_version: "1.3".into(), max_version: "TLS 1.3".into(), ..some() }, ""),
            (TlsSetting { min_version: "1.0".into(), ..some() }, ""),
            (
                TlsSetting { min_version: "TLS12".into(), ..some() },
                "invalid TLS min_version: unsupported TLS version: \"TLS12\"",
            ),
            (
                TlsSetting { min_version: "1.3".into(), max_version: "1.2".into(), ..some() },
                "invalid TLS configuration: min_version cannot be greater than max_version",
            ),
            (
                TlsSetting { min_version: "1.0".into(), max_version: "1.1".into(), ..some() },
                "invalid TLS max_version: versions below 1.2 are not implemented",
            ),
            (
                TlsSetting { ca_pem: "a".into(), ca_file: "b".into(), ..some() },
                "at most one of ca_pem and ca_file must be configured",
            ),
            (
                TlsSetting { cert_file: "a".into(), ..some() },
                "exactly one of key_pem or key_file must be configured when a client certificate is configured",
            ),
            (
                TlsSetting { cipher_suites: list(&["TLS_RSA_WITH_RC4_128_SHA"]), ..some() },
                "invalid TLS cipher suite: \"TLS_RSA_WITH_RC4_128_SHA\"",
            ),
            (
                TlsSetting { curve_preferences: list(&["P1"]), ..some() },
                "invalid curve type: P1. Expected values are [P256 P384 P521 X25519 X25519MLKEM768]",
            ),
        ] {
            assert_eq!(refused(&setting), text, "{setting:?}");
        }
    }

    #[test]
    fn what_is_not_implemented_is_passed_over_where_something_is_left() {
        let mut setting = TlsSetting {
            cipher_suites: list(&["TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]),
            curve_preferences: list(&["X25519MLKEM768", "P256"]),
            ..TlsSetting::default()
        };
        assert_eq!(setting.suites().unwrap(), ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
        assert_eq!(setting.curves().unwrap(), ["CurveP256"]);
        setting.cipher_suites.truncate(1);
        assert!(setting.suites().unwrap_err().starts_with("none of the cipher suites is implemented"));
    }

    #[test]
    fn without_tls_nothing_of_it_is_looked_at() {
        let mut tls =
            TlsClientArguments { insecure: true, insecure_skip_verify: true, ..TlsClientArguments::default() };
        assert_eq!((tls.is_on(), tls.of_net().unwrap().0.insecure_skip_verify), (false, false));
        tls.setting.ca_file = "ca".into();
        assert_eq!((tls.is_on(), tls.of_net().unwrap().0.insecure_skip_verify), (true, true));
    }
}
