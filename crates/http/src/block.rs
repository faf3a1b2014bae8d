//! The `http` block.

use std::sync::Arc;

use corten_component::{Component, Context, Error, Logger};
use corten_config::Arguments;
use corten_net::{BasicAuthFilter, Secret, ServerTls, TlsAcceptor};

/// Configures the program's own HTTP server: who may send requests, and TLS. Both change while the server runs; TLS counts
/// for new connections. Without the block everybody may send requests, in clear text.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// Who may send requests.
    #[block]
    auth: Option<Auth>,
    /// Encryption of connections. Those within the process stay as they are.
    #[block]
    tls: Option<ServerTls>,
}

/// Who may send requests.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Auth {
    /// Basic authentication. Without it everybody may send requests.
    #[block]
    basic: Option<Basic>,
    /// Which paths need authentication. Without it all of them do.
    #[block]
    filter: Option<Filter>,
}

/// Basic authentication.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Basic {
    /// The user's name.
    username: String,
    /// The user's password.
    password: Secret,
}

/// Which paths need authentication.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Filter {
    /// Prefixes of paths.
    #[arg(default = [])]
    paths: Vec<String>,
    /// Whether the paths with one of the prefixes need authentication, or all others. With no paths and `true`, none does.
    #[arg(default = true)]
    authenticate_matching_paths: bool,
}

impl Auth {
    /// What lets requests through; nothing where everybody may send them.
    fn to_filter(&self) -> Option<BasicAuthFilter> {
        let basic = self.basic.as_ref()?;
        let auth = BasicAuthFilter::new(&basic.username, &basic.password);
        Some(match &self.filter {
            Some(filter) => auth.with_paths(filter.paths.clone(), filter.authenticate_matching_paths),
            None => auth,
        })
    }
}

/// What the block changes about the server.
#[derive(Debug, Default)]
pub struct Settings {
    tls: Option<TlsAcceptor>,
    auth: Option<BasicAuthFilter>,
}

impl Settings {
    fn apply(self, cx: &Context<Http>) {
        // A service is no component: its lines have its name, and no id.
        let logger = Logger::new(Arc::clone(cx.logger().sink())).with(&[("service", "http")]);
        let tls = if self.tls.is_some() { "TLS" } else { "non-TLS" };
        logger.info(&format!("applying {tls} config to HTTP server"), &[]);
        let server = &cx.services().server;
        server.auth.store(self.auth.map(Arc::new));
        server.tls.set(self.tls);
    }
}

/// The block in place.
#[derive(Debug)]
pub struct Http;

impl Component for Http {
    const NAME: &'static str = "http";
    type Arguments = Config;
    type Exports = ();
    type Prepared = Settings;

    async fn prepare(arguments: Config, _: &Context<Self>, _: Option<&Self>) -> Result<(Settings, ()), Error> {
        let tls = match &arguments.tls {
            Some(tls) => Some(TlsAcceptor::new(tls.clone()).await.map_err(|error| Error::new(error.to_string()))?),
            None => None,
        };
        Ok((Settings { tls, auth: arguments.auth.as_ref().and_then(Auth::to_filter) }, ()))
    }

    fn commit(_: Option<Self>, settings: Settings, cx: &Context<Self>) -> Self {
        settings.apply(cx);
        Http
    }

    async fn drain(self, cx: &Context<Self>) {
        Settings::default().apply(cx);
    }
}

#[cfg(test)]
mod tests {
    use corten_config::arguments::Record as _;
    use corten_config::decode::{DecodeContext, decode};
    use corten_config::schema::Stability;
    use corten_syntax::Stmt;

    use super::*;

    fn decoded(body: &str) -> Result<Config, String> {
        let parsed = corten_syntax::parse("t", &format!("http {{\n{body}\n}}"));
        let Some(Stmt::Block(block)) = parsed.file.body.first() else { panic!("{}", parsed.diagnostics) };
        let cx = DecodeContext { scope: &(), minimum: Stability::GenerallyAvailable };
        decode::<Config>(block, &cx).map(|decoded| decoded.value).map_err(|errors| {
            errors.into_diagnostics().iter().map(|d| d.message.as_str()).collect::<Vec<_>>().join("; ")
        })
    }

    #[test]
    fn the_table_of_the_block_is_in_order() {
        assert_eq!(Config::SCHEMA.defects(), [""; 0]);
    }

    #[test]
    fn rules_between_arguments_have_the_texts_of_the_reference() {
        let pair = "cert_pem = \"c\"\nkey_pem = \"k\"\n";
        let files = "cert_file = \"c\"\nkey_file = \"k\"\n";
        for (body, expected) in [
            ("key_pem = \"k\"", "must specify either cert_pem or cert_file"),
            ("cert_pem = \"c\"", "must specify either key_pem or key_file"),
            (&*format!("{pair}cert_file = \"c\""), "cannot specify both cert_pem and cert_file"),
            (&format!("{pair}key_file = \"c\""), "cannot specify both key_pem and key_file"),
            (
                &format!("{pair}client_ca_file = \"c\"\nclient_ca_pem = \"c\""),
                "cannot specify both client_ca_pem and client_ca_file",
            ),
            (
                &format!("{pair}client_ca_file = \"c\""),
                "cannot specify client_ca_pem or client_ca_file when client_auth_type is NoClientCert",
            ),
            (
                "windows_certificate_filter {\nserver {\nstore = \"a\"\nsystem_store = \"b\"\n}\nclient { }\n}",
                "the Windows Certificate filter is only available on Windows platforms",
            ),
        ] {
            let errors = decoded(&format!("tls {{\n{body}\n}}")).unwrap_err();
            assert!(errors.split("; ").any(|error| error == expected), "{body}: {errors}");
        }
        assert!(decoded(&format!("tls {{\n{files}}}")).is_ok());
        assert_eq!(decoded(&format!("tls {{\n{pair}}}")).unwrap_err(), "no certificate found");
    }

    #[test]
    fn authentication_needs_a_user_and_a_filter_limits_it() {
        let passes = |body: &str, path: &str| {
            let config = decoded(&format!("auth {{\n{body}\n}}")).unwrap();
            let filter = config.auth.as_ref().and_then(Auth::to_filter);
            filter.is_none_or(|filter| filter.check(path, &http::HeaderMap::new()).is_ok())
        };
        let basic = "basic {\nusername = \"u\"\npassword = \"p\"\n}\n";
        assert!(passes("", "/metrics"));
        assert!(passes("filter {\npaths = [\"/\"]\n}", "/metrics"));
        assert!(!passes(basic, "/metrics"));
        assert!(passes(&format!("{basic}filter {{ }}"), "/metrics"));
        let some = format!("{basic}filter {{\npaths = [\"/api\"]\nauthenticate_matching_paths = false\n}}");
        assert!(passes(&some, "/api/v0") && !passes(&some, "/metrics"));
    }
}
