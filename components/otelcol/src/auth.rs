//! The components whose names begin with `otelcol.auth.`, and what they are to those that authenticate with them.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use corten_component::{Component, Context, Error, Health, HealthState};
use corten_config::decode::CapsuleType;
use corten_config::schema::CapsuleInfo;
use corten_config::value::Capsule;
use corten_config::{Arguments, Exports};
use corten_files::read_limited;
use corten_net::{Secret, Sign};
use corten_otlp::{AuthData, Metadata, RequestContext};
use corten_signal::flow::BoxFuture;
use http::{HeaderMap, HeaderValue};
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

pub mod basic;
pub mod bearer;
pub mod headers;
pub mod oauth2;
pub mod sigv4;

static HANDLER: CapsuleInfo =
    CapsuleInfo { type_name: "otelcol.Handler", shown: "capsule(otelcol.Handler)", object_like: false, from: &[] };

/// Shows a server whose requests are a client's.
pub trait ClientAuth: fmt::Debug + Send + Sync + 'static {
    /// Adds headers to a request that carries telemetry that came with `context`.
    ///
    /// # Errors
    ///
    /// Why that cannot be done, such as a token that cannot be had. Whether a further attempt may help is in it.
    fn authorize<'a>(
        &'a self,
        headers: &'a mut HeaderMap,
        context: &'a RequestContext,
    ) -> BoxFuture<'a, Result<(), AuthError>>;

    /// What signs requests of HTTP as a whole, where that is how it is done.
    fn signer(&self) -> Option<Arc<dyn Sign>> {
        None
    }

    /// Whether what it sends must not go over gRPC without TLS.
    fn needs_tls(&self) -> bool {
        true
    }

    /// Whether it can be used with gRPC.
    fn is_for_grpc(&self) -> bool {
        true
    }

    /// Whether what it adds may depend on what the telemetry came with: what came with different requests is not sent
    /// together then.
    fn reads_context(&self) -> bool {
        true
    }
}

/// Finds out who sent a request.
pub trait ServerAuth: fmt::Debug + Send + Sync + 'static {
    /// Looks at the headers of a request.
    ///
    /// # Errors
    ///
    /// Why the request is not served. The sender is told.
    fn authenticate<'a>(&'a self, headers: &'a Metadata) -> BoxFuture<'a, Result<Arc<dyn AuthData>, String>>;
}

/// Keeps what components must not lose with the process.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// The folder for what a client of this name keeps; it is made if need be. Waits for the disk.
    ///
    /// # Errors
    ///
    /// Why there is none.
    fn folder(&self, client: &str) -> Result<PathBuf, String>;

    /// How long to wait for a folder that somebody else uses.
    fn wait_max(&self) -> Duration;

    /// Whether what is written is to be forced to the medium at once.
    fn syncs(&self) -> bool;

    /// How often the space of what is not needed any more is to be given back, where that is asked for.
    fn frees_every(&self) -> Option<Duration>;
}

/// Why a request could not be given its credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthError {
    /// Whether a further attempt may help.
    pub retry: bool,
    /// Why.
    pub reason: String,
}

/// What a component of authentication is to others: one side or both. Two are equal when they are the same.
#[derive(Clone)]
pub struct Handler(Arc<Sides>);

struct Sides {
    component: String,
    client: Option<Arc<dyn ClientAuth>>,
    server: Option<Arc<dyn ServerAuth>>,
    storage: Option<Arc<dyn Storage>>,
}

impl Handler {
    /// The sides that a component has.
    pub fn new(
        component: impl Into<String>,
        client: Option<Arc<dyn ClientAuth>>,
        server: Option<Arc<dyn ServerAuth>>,
    ) -> Self {
        Handler(Arc::new(Sides { component: component.into(), client, server, storage: None }))
    }

    /// What a component of storage is to others.
    pub fn of_storage(component: impl Into<String>, storage: Arc<dyn Storage>) -> Self {
        let component = component.into();
        Handler(Arc::new(Sides { component, client: None, server: None, storage: Some(storage) }))
    }

    /// The component's id.
    pub fn component(&self) -> &str {
        &self.0.component
    }

    /// The side of clients.
    ///
    /// # Errors
    ///
    /// That the component has none.
    pub fn client(&self) -> Result<&Arc<dyn ClientAuth>, String> {
        self.0.client.as_ref().ok_or_else(|| format!("{} does not support client authentication", self.0.component))
    }

    /// The side of servers.
    ///
    /// # Errors
    ///
    /// That the component has none.
    pub fn server(&self) -> Result<&Arc<dyn ServerAuth>, String> {
        self.0.server.as_ref().ok_or_else(|| format!("{} does not support server authentication", self.0.component))
    }
}

impl Handler {
    /// The side of those that keep something.
    ///
    /// # Errors
    ///
    /// That the component has none.
    pub fn storage(&self) -> Result<&Arc<dyn Storage>, String> {
        self.0.storage.as_ref().ok_or_else(|| "requested extension is not a storage extension".to_owned())
    }
}

impl PartialEq for Handler {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handler({})", self.0.component)
    }
}

impl Capsule for Handler {
    fn type_name(&self) -> &'static str {
        HANDLER.type_name
    }

    fn equals(&self, other: &dyn Capsule) -> bool {
        other.as_any().downcast_ref::<Self>() == Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl CapsuleType for Handler {
    const INFO: &'static CapsuleInfo = &HANDLER;
}

/// What a component of authentication exports.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct Exported {
    /// For the `auth` arguments of receivers and exporters.
    pub handler: Handler,
}

/// What makes one of the components of authentication.
pub(crate) trait Kind: Sized + Send + Sync + 'static {
    /// The component's name.
    const NAME: &'static str;
    /// Its arguments.
    type Arguments: Arguments + Clone + PartialEq + Send + Sync;

    /// Makes its sides.
    ///
    /// # Errors
    ///
    /// What is wrong with the arguments that their own check cannot know.
    fn sides(
        arguments: Self::Arguments,
        cx: &Context<Authenticator<Self>>,
    ) -> impl Future<Output = Result<Made, Error>> + Send;
}

/// The sides of a component of authentication.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) client: Option<Arc<dyn ClientAuth>>,
    pub(crate) server: Option<Arc<dyn ServerAuth>>,
    /// Why they cannot do their work yet.
    pub(crate) unhealthy: Option<String>,
}

impl Made {
    /// The side of clients alone.
    pub(crate) fn client(client: impl ClientAuth) -> Self {
        Made { client: Some(Arc::new(client)), ..Made::default() }
    }
}

/// A component of authentication.
pub(crate) struct Authenticator<K>(PhantomData<K>);

impl<K: Kind> Component for Authenticator<K> {
    const NAME: &'static str = K::NAME;
    type Arguments = K::Arguments;
    type Exports = Exported;
    type Prepared = Option<String>;

    async fn prepare(
        arguments: K::Arguments,
        cx: &Context<Self>,
        _: Option<&Self>,
    ) -> Result<(Option<String>, Exported), Error> {
        let made = K::sides(arguments, cx).await?;
        Ok((made.unhealthy, Exported { handler: Handler::new(cx.id(), made.client, made.server) }))
    }

    fn commit(_: Option<Self>, unhealthy: Option<String>, cx: &Context<Self>) -> Self {
        cx.report_health(Some(health(unhealthy.as_deref())));
        Authenticator(PhantomData)
    }
}

/// The health of a component that has started, or that has not and why.
pub(crate) fn health(failure: Option<&str>) -> Health {
    match failure {
        None => Health::now(HealthState::Healthy, "started scheduled components"),
        Some(why) => Health::now(HealthState::Unhealthy, format!("failed to create components: {why}")),
    }
}

impl AuthError {
    /// An error that a further attempt does not help.
    pub(crate) fn lasting(reason: impl Into<String>) -> Self {
        AuthError { retry: false, reason: reason.into() }
    }

    /// An error that may have passed by the next attempt.
    pub(crate) fn passing(reason: impl Into<String>) -> Self {
        AuthError { retry: true, reason: reason.into() }
    }
}

/// A text from a file, read anew for each use, or from the configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Credential {
    text: Secret,
    file: String,
}

/// The largest file that is taken for a credential.
const CREDENTIAL_BYTES_MAX: usize = 1 << 20;

impl Credential {
    /// The file is used where it has a name.
    pub(crate) fn new(text: impl Into<Arc<str>>, file: impl Into<String>) -> Self {
        Credential { text: Secret::new(text), file: file.into() }
    }

    /// The text, without white space around it where it comes from a file.
    ///
    /// # Errors
    ///
    /// Why the file cannot be read.
    pub(crate) async fn read(&self) -> Result<Secret, AuthError> {
        if self.file.is_empty() {
            return Ok(self.text.clone());
        }
        let path = self.file.clone();
        // A file may lie on a network file system that hangs.
        let read = tokio::task::spawn_blocking(move || read_limited(path.as_ref(), CREDENTIAL_BYTES_MAX));
        let content = read.await.map_err(|_| AuthError::passing("reading files was interrupted by shutdown"))?;
        let file = &self.file;
        let failed = |error| AuthError::passing(format!("failed to read credentials file {file:?}: {error}"));
        let (content, _) = content.map_err(failed)?;
        match std::str::from_utf8(&content).map(str::trim) {
            Ok("") => Err(AuthError::passing(format!("empty credentials file {file:?}"))),
            Ok(text) => Ok(Secret::new(text)),
            Err(_) => Err(AuthError::passing(format!("credentials file {file:?} is not valid UTF-8"))),
        }
    }
}

/// A header value that is not shown.
///
/// # Errors
///
/// That it cannot be sent. The text is not in it.
pub(crate) fn sensitive(text: &str) -> Result<HeaderValue, AuthError> {
    let value = HeaderValue::from_str(text).or_else(|_| HeaderValue::from_bytes(text.as_bytes()));
    let mut value = value.map_err(|_| AuthError::lasting("credentials are not valid in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Compares in a time that does not tell where two texts differ, nor how long the expected one is.
pub(crate) fn same_text(one: &str, other: &str) -> bool {
    let hash = |text: &str| digest(&SHA256, text.as_bytes());
    hash(one).as_ref().ct_eq(hash(other).as_ref()).into()
}

#[cfg(test)]
pub(crate) mod testing {
    use corten_component::Definition;
    use corten_testkit::{Unit, World, host};

    use super::*;

    /// Starts a component of authentication.
    pub(crate) async fn start<K: Kind>(world: World, body: &str) -> Result<Unit, String> {
        Unit::start(world, &Definition::of::<Authenticator<K>>(), body).await
    }

    /// Why these arguments are refused.
    pub(crate) async fn refusal<K: Kind>(body: &str) -> String {
        start::<K>(host("otelcol.auth.x.a"), body).await.map(|_| ()).unwrap_err()
    }

    /// What a component exports.
    pub(crate) fn handler(unit: &Unit) -> Handler {
        let exported = unit.world.exports().last().and_then(|exports| exports.field("handler")).unwrap();
        let capsule = exported.as_capsule().unwrap();
        capsule.as_any().downcast_ref::<Handler>().unwrap().clone()
    }

    /// The headers of a request that had none.
    pub(crate) async fn authorized(
        client: &Arc<dyn ClientAuth>,
        context: &RequestContext,
    ) -> Result<Vec<String>, String> {
        authorized_with(client, context, &[]).await
    }

    /// The headers of a request that had some, `name=value` in order.
    pub(crate) async fn authorized_with(
        client: &Arc<dyn ClientAuth>,
        context: &RequestContext,
        have: &[(&'static str, &'static str)],
    ) -> Result<Vec<String>, String> {
        let mut headers: HeaderMap = have.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        client.authorize(&mut headers, context).await.map_err(|error| error.reason)?;
        let shown = headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap()));
        let mut shown: Vec<String> = shown.collect();
        shown.sort();
        Ok(shown)
    }

    /// Headers with one value.
    pub(crate) fn value_of(name: &str, value: &str) -> Metadata {
        let mut metadata = Metadata::default();
        metadata.add(name, value);
        metadata
    }
}
