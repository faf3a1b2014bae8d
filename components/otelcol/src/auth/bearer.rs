//! `otelcol.auth.bearer`.

use std::any::Any;
use std::sync::Arc;

use corten_component::{Context, Error};
use corten_config::schema::Stability;
use corten_config::{Arguments, CheckErrors};
use corten_net::Secret;
use corten_otlp::{AuthData, Metadata, RequestContext};
use corten_signal::flow::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{AuthError, Authenticator, ClientAuth, Kind, Made, ServerAuth, same_text, sensitive};
use crate::flow::DebugMetrics;

/// Authenticates by a token: exporters show it, receivers ask for it.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct BearerArguments {
    /// The token.
    token: Secret,
    /// The word before the token. Without one the token stands alone.
    #[arg(default = "Bearer")]
    scheme: String,
    /// The header that the token is sent in.
    #[arg(default = "Authorization")]
    header: String,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

impl BearerArguments {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if self.header.parse::<HeaderName>().is_err() {
            errors.push(&["header"], format!("invalid header name {:?}", self.header));
        }
        errors.require(sensitive(&self.value()).is_ok(), &["token", "scheme"], "token is not valid in a header");
        errors.into_result()
    }

    fn value(&self) -> String {
        match &*self.scheme {
            "" => self.token.expose().to_owned(),
            scheme => format!("{scheme} {}", self.token.expose()),
        }
    }
}

/// The component.
pub(crate) type BearerAuth = Authenticator<Bearer>;

pub(crate) enum Bearer {}

impl Kind for Bearer {
    const NAME: &'static str = "otelcol.auth.bearer";
    type Arguments = BearerArguments;

    async fn sides(arguments: BearerArguments, _: &Context<BearerAuth>) -> Result<Made, Error> {
        let name = arguments.header.parse().map_err(|_| format!("invalid header name {:?}", arguments.header))?;
        let value = sensitive(&arguments.value()).map_err(|error| error.reason)?;
        let sides = Arc::new(Sides { name, value, expected: Secret::new(arguments.value()), shown: arguments.header });
        Ok(Made { client: Some(Arc::clone(&sides) as _), server: Some(sides), unhealthy: None })
    }
}

#[derive(Debug)]
struct Sides {
    name: HeaderName,
    value: HeaderValue,
    expected: Secret,
    /// The header's name as it was configured.
    shown: String,
}

impl ClientAuth for Sides {
    fn authorize<'a>(
        &'a self,
        headers: &'a mut HeaderMap,
        _: &'a RequestContext,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        headers.insert(self.name.clone(), self.value.clone());
        Box::pin(async { Ok(()) })
    }

    fn reads_context(&self) -> bool {
        false
    }
}

/// A sender who has the token is known by nothing else.
#[derive(Debug)]
struct Holder;

impl AuthData for Holder {
    fn attribute(&self, _: &str) -> Option<String> {
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl ServerAuth for Sides {
    fn authenticate<'a>(&'a self, headers: &'a Metadata) -> BoxFuture<'a, Result<Arc<dyn AuthData>, String>> {
        Box::pin(async move {
            match headers.get(self.name.as_str()).first() {
                None => Err(format!("missing or empty authorization header: {}", self.shown)),
                Some(value) if same_text(self.expected.expose(), value) => Ok(Arc::new(Holder) as Arc<dyn AuthData>),
                // The reference repeats what it was shown, which may be a token of somebody else's.
                Some(_) => Err("scheme or token does not match".to_owned()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::testing::{authorized, handler, refusal, start, value_of};
    use corten_testkit::host;

    #[tokio::test]
    async fn the_token_is_sent_and_asked_for() {
        for (body, name, value) in [
            ("token = \"t\"", "authorization", "Bearer t"),
            ("token = \"t\"\nscheme = \"\"", "authorization", "t"),
            ("token = \"t\"\nscheme = \"Token\"\nheader = \"X-Key\"", "x-key", "Token t"),
        ] {
            let unit = start::<Bearer>(host("otelcol.auth.bearer.a"), body).await.unwrap();
            let handler = handler(&unit);
            let client = handler.client().unwrap();
            assert_eq!(authorized(client, &RequestContext::default()).await, Ok(vec![format!("{name}={value}")]));
            assert!(client.needs_tls() && client.is_for_grpc());
            let server = handler.server().unwrap();
            assert!(server.authenticate(&value_of(name, value)).await.is_ok());
            let error =
                server.authenticate(&value_of(name, &value.to_lowercase().replace('t', "T"))).await.unwrap_err();
            assert_eq!(error, "scheme or token does not match");
        }
        let unit = start::<Bearer>(host("otelcol.auth.bearer.a"), "token = \"t\"").await.unwrap();
        let error = handler(&unit).server().unwrap().authenticate(&Metadata::default()).await.unwrap_err();
        assert_eq!(error, "missing or empty authorization header: Authorization");
    }

    #[tokio::test]
    async fn what_no_header_can_be_is_refused() {
        for (body, why) in [
            ("token = \"a\\nb\"", "token is not valid in a header"),
            ("token = \"t\"\nheader = \"a b\"", "invalid header name \"a b\""),
            ("", "missing required attribute \"token\""),
        ] {
            let error = refusal::<Bearer>(body).await;
            assert!(error.contains(why), "{error}");
        }
    }
}
