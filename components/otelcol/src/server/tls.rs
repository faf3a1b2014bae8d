//! TLS of servers, as the reference's OpenTelemetry components have it.

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_net::{Follow, ServerTls, TlsSource};

use crate::tls::TlsSetting;

/// TLS of a server. The certificate authorities of `ca_pem` and `ca_file`, which are those of servers, mean nothing to it.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(crate) struct TlsServerArguments {
    /// Certificates, versions and ciphers.
    #[flatten]
    setting: TlsSetting,
    /// A file with the certificate authorities of clients. With it, clients have to show a certificate of one of them, or,
    /// with `include_system_ca_certs_pool`, of one of the system's.
    #[arg(optional)]
    client_ca_file: String,
}

impl TlsServerArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let TlsSetting { cert_pem, cert_file, key_pem, key_file, .. } = &self.setting;
        let has_any = !cert_pem.is_empty() || !cert_file.is_empty() || !key_pem.is_empty() || !key_file.is_empty();
        errors.require(
            has_any,
            &["cert_pem", "cert_file", "key_pem", "key_file"],
            "TLS configuration must include both certificate and key for server connections",
        );
        errors.into_result()
    }

    /// What the server's TLS is made from.
    pub(super) fn source(&self) -> TlsSource {
        let setting = &self.setting;
        let (min, max) = setting.versions();
        let asks_clients = !self.client_ca_file.is_empty();
        TlsSource {
            tls: ServerTls {
                cert_pem: setting.cert_pem.clone(),
                cert_file: setting.cert_file.clone(),
                key_pem: setting.key_pem.clone(),
                key_file: setting.key_file.clone(),
                client_ca_file: self.client_ca_file.clone(),
                client_auth_type: if asks_clients { "RequireAndVerifyClientCert" } else { "NoClientCert" }.to_owned(),
                // What cannot be meant was refused.
                cipher_suites: setting.suites().unwrap_or_default(),
                curve_preferences: setting.curves().unwrap_or_default(),
                min_version: min.to_owned(),
                max_version: max.to_owned(),
                ..ServerTls::default()
            },
            follow: if setting.reload_interval.is_zero() {
                Follow::Never
            } else {
                Follow::Every(setting.reload_interval)
            },
            system_client_roots: asks_clients && setting.include_system_ca_certs_pool,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn clients_have_to_show_a_certificate_where_there_are_authorities_for_them() {
        let setting = TlsSetting {
            include_system_ca_certs_pool: true,
            reload_interval: Duration::from_secs(5),
            min_version: "1.3".into(),
            curve_preferences: vec!["P521".into(), "P384".into()],
            ..TlsSetting::default()
        };
        let source = TlsServerArguments { setting: setting.clone(), client_ca_file: "/ca".into() }.source();
        assert_eq!(source.tls.client_auth_type, "RequireAndVerifyClientCert");
        assert_eq!((source.tls.min_version.as_str(), source.follow), ("TLS13", Follow::Every(Duration::from_secs(5))));
        assert_eq!(source.tls.curve_preferences, ["CurveP384"]);
        assert!(source.system_client_roots);
        let setting = TlsSetting { reload_interval: Duration::ZERO, ..setting };
        let source = TlsServerArguments { setting, client_ca_file: String::new() }.source();
        assert_eq!((source.tls.client_auth_type.as_str(), source.follow), ("NoClientCert", Follow::Never));
        assert!(!source.system_client_roots);
    }
}
