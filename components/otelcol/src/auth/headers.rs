//! `otelcol.auth.headers`.

use corten_component::{Context, Error};
use corten_config::schema::Stability;
use corten_config::value::OptionalSecret;
use corten_config::{Arguments, CheckErrors, StringEnum};
use corten_otlp::RequestContext;
use corten_signal::flow::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{AuthError, Authenticator, ClientAuth, Kind, Made, sensitive};
use crate::flow::DebugMetrics;

/// Gives the requests of exporters headers: of fixed values, or of what is known of the request that the telemetry came
/// with.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct HeadersArguments {
    /// Headers, in the order in which they are set.
    #[block(name = "header")]
    headers: Vec<HeaderBlock>,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// A header. One of `value`, `from_context` and `from_attribute` says what is in it.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct HeaderBlock {
    /// Its name.
    key: String,
    /// What to do with the header: `insert` sets it where the request does not have it, `update` where it has it, `upsert`
    /// always, and `delete` takes it away.
    #[arg(default = "upsert")]
    action: Action,
    /// Its value.
    value: Option<OptionalSecret>,
    /// The header of the request that the telemetry came with whose value is taken. The receiver has to be told to keep
    /// headers, with `include_metadata`. Without such a header the value is empty; with several of them the request fails.
    from_context: Option<String>,
    /// What the receiver's authentication found out about the sender whose value is taken. Without it the value is empty.
    from_attribute: Option<String>,
}

/// What is done with a header.
#[derive(StringEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[string_enum(ignore_case, refusal = unknown_action)]
pub enum Action {
    /// Sets it where it is missing.
    Insert,
    /// Sets it where it is there.
    Update,
    /// Sets it.
    Upsert,
    /// Takes it away.
    Delete,
}

fn unknown_action(text: &str) -> String {
    format!("unknown action {}", text.to_lowercase())
}

impl HeaderBlock {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let sources = usize::from(self.value.is_some())
            + usize::from(self.from_context.is_some())
            + usize::from(self.from_attribute.is_some());
        let arguments = ["value", "from_context", "from_attribute"];
        if self.key.is_empty() {
            errors.push(&["key"], "key must be set to a non-empty string");
        } else if sources == 0 {
            errors.push(&arguments, "one of value, from_context, or from_attribute must be provided");
        } else if sources > 1 {
            errors.push(&arguments, "only one of value, from_context, or from_attribute may be provided");
        }
        errors.into_result()
    }

    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        self.compiled().map(drop).map_err(|error| CheckErrors::of(&["key", "value"], error))
    }

    fn compiled(&self) -> Result<Header, String> {
        let name = self.key.parse().map_err(|_| format!("invalid header name {:?}", self.key))?;
        let source = match (&self.value, &self.from_context, &self.from_attribute) {
            (Some(value), ..) => Source::Fixed(sensitive(value.expose()).map_err(|error| error.reason)?),
            (_, Some(key), _) => Source::Context(key.clone()),
            (.., key) => Source::Attribute(key.clone().unwrap_or_default()),
        };
        Ok(Header { name, action: self.action, source })
    }
}

/// The component.
pub(crate) type HeadersAuth = Authenticator<Headers>;

pub(crate) enum Headers {}

impl Kind for Headers {
    const NAME: &'static str = "otelcol.auth.headers";
    type Arguments = HeadersArguments;

    async fn sides(arguments: HeadersArguments, _: &Context<HeadersAuth>) -> Result<Made, Error> {
        let headers = arguments.headers.iter().map(HeaderBlock::compiled).collect::<Result<_, _>>()?;
        Ok(Made::client(Client(headers)))
    }
}

#[derive(Debug)]
struct Header {
    name: HeaderName,
    action: Action,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Fixed(HeaderValue),
    Context(String),
    Attribute(String),
}

impl Source {
    fn value(&self, context: &RequestContext) -> Result<HeaderValue, AuthError> {
        match self {
            Source::Fixed(value) => Ok(value.clone()),
            Source::Context(key) => match context.metadata.get(key) {
                [] => Ok(HeaderValue::from_static("")),
                [value] => sensitive(value),
                values => Err(AuthError::lasting(format!(
                    "failed to determine the source: {} source keys found in the context, can't determine which one to \
                     use",
                    values.len()
                ))),
            },
            Source::Attribute(name) => {
                let found = context.auth.as_ref().and_then(|auth| auth.attribute(name));
                found.map_or_else(|| Ok(HeaderValue::from_static("")), |value| sensitive(&value))
            }
        }
    }
}

#[derive(Debug)]
struct Client(Vec<Header>);

impl ClientAuth for Client {
    fn authorize<'a>(
        &'a self,
        headers: &'a mut HeaderMap,
        context: &'a RequestContext,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(async move {
            for header in &self.0 {
                let value = header.source.value(context)?;
                let there = headers.contains_key(&header.name);
                match header.action {
                    Action::Insert if there => {}
                    Action::Update if !there => {}
                    Action::Delete => {
                        headers.remove(&header.name);
                    }
                    Action::Insert | Action::Update | Action::Upsert => {
                        headers.insert(header.name.clone(), value);
                    }
                }
            }
            Ok(())
        })
    }

    fn needs_tls(&self) -> bool {
        false
    }

    fn reads_context(&self) -> bool {
        self.0.iter().any(|header| !matches!(header.source, Source::Fixed(_)))
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::sync::Arc;

    use corten_otlp::{AuthData, Metadata};
    use corten_testkit::host;

    use super::*;
    use crate::auth::testing::{authorized_with, handler, refusal, start};

    #[derive(Debug)]
    struct Sender;

    impl AuthData for Sender {
        fn attribute(&self, name: &str) -> Option<String> {
            (name == "tenant").then(|| "t1".to_owned())
        }

        fn names(&self) -> Vec<String> {
            vec!["tenant".to_owned()]
        }

        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    async fn set(body: &str) -> Result<Vec<String>, String> {
        let mut metadata = Metadata::default();
        metadata.add("X-One", "1");
        metadata.add("two", "2");
        metadata.add("two", "3");
        let context = RequestContext { metadata, auth: Some(Arc::new(Sender)), ..RequestContext::default() };
        let unit = start::<Headers>(host("otelcol.auth.headers.a"), body).await?;
        let handler = handler(&unit);
        assert_eq!(handler.server().unwrap_err(), "otelcol.auth.headers.a does not support server authentication");
        assert!(!handler.client()?.needs_tls());
        assert_eq!(handler.client()?.reads_context(), body.contains("from_"));
        authorized_with(handler.client()?, &context, &[("have", "h")]).await
    }

    #[tokio::test]
    async fn each_action_does_what_its_name_says() {
        for (action, name, want) in [
            ("", "Have", vec!["have=v"]),
            ("", "new", vec!["have=h", "new=v"]),
            ("action = \"INSERT\"", "have", vec!["have=h"]),
            ("action = \"insert\"", "new", vec!["have=h", "new=v"]),
            ("action = \"update\"", "have", vec!["have=v"]),
            ("action = \"update\"", "new", vec!["have=h"]),
            ("action = \"delete\"", "have", vec![]),
        ] {
            let body = format!("header {{\nkey = {name:?}\nvalue = \"v\"\n{action}\n}}");
            assert_eq!(set(&body).await.unwrap(), want, "{body}");
        }
    }

    #[tokio::test]
    async fn values_come_from_the_request_or_from_its_sender() {
        for (source, want) in [
            ("from_context = \"x-one\"", Ok("x=1")),
            ("from_context = \"none\"", Ok("x=")),
            ("from_attribute = \"tenant\"", Ok("x=t1")),
            ("from_attribute = \"none\"", Ok("x=")),
            (
                "from_context = \"two\"",
                Err(
                    "failed to determine the source: 2 source keys found in the context, can't determine which one to use",
                ),
            ),
        ] {
            let got = set(&format!("header {{\nkey = \"x\"\n{source}\n}}")).await;
            assert_eq!(
                got.map(|headers| headers[1].clone()),
                want.map(str::to_owned).map_err(str::to_owned),
                "{source}"
            );
        }
    }

    #[tokio::test]
    async fn what_contradicts_itself_is_refused() {
        for (body, why) in [
            ("key = \"\"\nvalue = \"v\"", "key must be set to a non-empty string"),
            ("key = \"a\"", "one of value, from_context, or from_attribute must be provided"),
            (
                "key = \"a\"\nvalue = \"v\"\nfrom_context = \"x\"",
                "only one of value, from_context, or from_attribute may be provided",
            ),
            ("key = \"a\"\nvalue = \"v\"\naction = \"Drop\"", "unknown action drop"),
            ("key = \"a b\"\nvalue = \"v\"", "invalid header name \"a b\""),
            ("key = \"a\"\nvalue = \"a\\nb\"", "credentials are not valid in a header"),
        ] {
            let error = refusal::<Headers>(&format!("header {{\n{body}\n}}")).await;
            assert!(error.contains(why), "{error}");
        }
    }
}
