//! The `http` block of components that receive over HTTP.

use std::time::Duration;

use corten_config::schema::Stability;
use corten_config::{Arguments, CheckErrors};

use super::{ServerLimits, ServerTls};
use crate::Secret;
use crate::proxy::authority;

/// Where and how a receiver listens.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ReceiverHttp {
    /// The address to listen on. Empty means all.
    #[arg(default = "")]
    pub listen_address: String,
    /// The port to listen on. `0` takes any that is free.
    #[arg(default = 8080)]
    pub listen_port: i64,
    /// How many connections are served at a time. `0` sets no limit.
    #[arg(default = 0)]
    pub conn_limit: i64,
    /// How long a request may take to arrive, its body included. `0` sets no limit.
    #[arg(default = "30s")]
    pub server_read_timeout: Duration,
    /// How long a client may take nothing of its response. `0` sets no limit.
    #[arg(default = "30s")]
    pub server_write_timeout: Duration,
    /// How long a connection may be without a request. `0` sets no limit.
    #[arg(default = "120s")]
    pub server_idle_timeout: Duration,
    /// TLS of the listener.
    #[block]
    pub tls: Option<ReceiverTls>,
}

impl Default for ReceiverHttp {
    fn default() -> Self {
        Self {
            listen_address: String::new(),
            listen_port: 8080,
            conn_limit: 0,
            server_read_timeout: Duration::from_secs(30),
            server_write_timeout: Duration::from_secs(30),
            server_idle_timeout: Duration::from_secs(120),
            tls: None,
        }
    }
}

impl ReceiverHttp {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if u16::try_from(self.listen_port).is_err() {
            let text = format!("invalid listen_port {}: a port is a number from 0 to 65535", self.listen_port);
            errors.push(&["listen_port"], text);
        }
        errors.into_result()
    }

    /// The port to listen on.
    pub fn port(&self) -> u16 {
        // What is none was refused with the configuration.
        u16::try_from(self.listen_port).unwrap_or_default()
    }

    /// The address in the form that `bind` takes.
    pub fn address(&self) -> String {
        match self.listen_address.as_str() {
            // Both families, where the system has both.
            "" => authority("::", self.port()),
            address => authority(address.trim_start_matches('[').trim_end_matches(']'), self.port()),
        }
    }

    /// The limits for [`crate::serve`].
    pub fn limits(&self) -> ServerLimits {
        ServerLimits {
            connections_max: usize::try_from(self.conn_limit).ok().filter(|limit| *limit > 0),
            header_ms_max: millis(self.server_read_timeout),
            idle_ms_max: millis(self.server_idle_timeout),
            write_stall_ms_max: millis(self.server_write_timeout),
            ..ServerLimits::default()
        }
    }

    /// How long a body may take to arrive: for [`crate::read_body_within`].
    pub fn body_limit(&self) -> Duration {
        if self.server_read_timeout.is_zero() { Duration::MAX } else { self.server_read_timeout }
    }
}

/// A limit in milliseconds, none for zero.
fn millis(limit: Duration) -> Option<u64> {
    (!limit.is_zero()).then(|| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1))
}

/// TLS of a receiver: fewer arguments than the program's own server has.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ReceiverTls {
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
    /// What clients must show: `NoClientCert`, `RequestClientCert`, `RequireAnyClientCert`,
    /// `VerifyClientCertIfGiven` or `RequireAndVerifyClientCert`.
    #[arg(default = "NoClientCert")]
    pub client_auth_type: String,
    /// The certificate authorities for clients' certificates, as PEM.
    #[arg(default = "")]
    pub client_ca_pem: String,
    /// A file with the certificate authorities for clients' certificates, read when the configuration is applied.
    #[arg(default = "")]
    pub client_ca_file: String,
}

impl ReceiverTls {
    /// The rules between the arguments: those of the program's own server.
    fn check(&self) -> Result<(), CheckErrors> {
        self.server_tls().check()
    }

    fn check_build(&self, minimum: Stability) -> Result<(), CheckErrors> {
        self.server_tls().check_build(minimum)
    }

    /// The same as TLS of a server.
    pub fn server_tls(&self) -> ServerTls {
        ServerTls {
            cert_pem: self.cert_pem.clone(),
            cert_file: self.cert_file.clone(),
            key_pem: self.key_pem.clone(),
            key_file: self.key_file.clone(),
            client_auth_type: self.client_auth_type.clone(),
            client_ca_pem: self.client_ca_pem.clone(),
            client_ca_file: self.client_ca_file.clone(),
            ..ServerTls::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_one_that_can_be_bound() {
        for (listen_address, address) in
            [("", "[::]:8080"), ("127.0.0.1", "127.0.0.1:8080"), ("::1", "[::1]:8080"), ("[::1]", "[::1]:8080")]
        {
            let http = ReceiverHttp { listen_address: listen_address.into(), ..ReceiverHttp::default() };
            assert_eq!(http.address(), address);
        }
    }

    #[test]
    fn a_port_that_is_none_is_refused_and_not_cut_to_fit() {
        for (listen_port, ok) in [(0, true), (65_535, true), (65_536, false), (70_000, false), (-1, false)] {
            let http = ReceiverHttp { listen_port, ..ReceiverHttp::default() };
            assert_eq!(http.check().is_ok(), ok, "{listen_port}");
        }
    }

    #[test]
    fn zero_sets_no_limit() {
        let limits = ReceiverHttp::default().limits();
        assert_eq!((limits.connections_max, limits.header_ms_max), (None, Some(30_000)));
        assert_eq!((limits.write_stall_ms_max, limits.idle_ms_max), (Some(30_000), Some(120_000)));
        let zero = Duration::ZERO;
        let http = ReceiverHttp {
            conn_limit: 3,
            server_read_timeout: zero,
            server_write_timeout: zero,
            server_idle_timeout: Duration::from_nanos(1),
            ..ReceiverHttp::default()
        };
        let limits = http.limits();
        assert_eq!((limits.connections_max, limits.header_ms_max), (Some(3), None));
        assert_eq!((limits.write_stall_ms_max, limits.idle_ms_max), (None, Some(1)));
        assert_eq!(http.body_limit(), Duration::MAX);
    }
}
